//! The signed part of a record: a dag-cbor map of five known keys. Further keys are the publisher's own and skipped.

/// Depth and number of items need no bound of their own: a record has at most 10 KiB, and nothing is kept while skipping.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Document<'a> {
    pub value: &'a [u8],
    pub validity: &'a [u8],
    pub validity_type: u64,
    pub sequence: u64,
    pub ttl: u64,
}

/// Writes it in dag-cbor's order: shorter keys first.
pub(super) fn encode(value: &[u8], validity: &[u8], sequence: u64, ttl: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len() + validity.len() + 64);
    put_head(&mut out, 5, 5);
    put_text(&mut out, "TTL");
    put_head(&mut out, 0, ttl);
    put_text(&mut out, "Value");
    put_bytes(&mut out, value);
    put_text(&mut out, "Sequence");
    put_head(&mut out, 0, sequence);
    put_text(&mut out, "Validity");
    put_bytes(&mut out, validity);
    put_text(&mut out, "ValidityType");
    put_head(&mut out, 0, 0);
    out
}

/// Reads it; the fault in words otherwise.
pub(super) fn decode(bytes: &[u8]) -> Result<Document<'_>, &'static str> {
    let mut reader = Reader { rest: bytes };
    let (5, pairs) = reader.head()? else { return Err("it is no map") };
    let (mut value, mut validity, mut validity_type, mut sequence, mut ttl) = (None, None, None, None, None);
    for _ in 0..pairs {
        let is_first = match reader.text()? {
            b"Value" => value.replace(reader.bytes()?).is_none(),
            b"Validity" => validity.replace(reader.bytes()?).is_none(),
            b"ValidityType" => validity_type.replace(reader.number()?).is_none(),
            b"Sequence" => sequence.replace(reader.number()?).is_none(),
            b"TTL" => ttl.replace(reader.number()?).is_none(),
            _ => {
                reader.skip()?;
                true
            }
        };
        if !is_first {
            return Err("a key stands there twice");
        }
    }
    if !reader.rest.is_empty() {
        return Err("something follows it");
    }
    let ttl = ttl.ok_or("it has no TTL")?;
    if ttl > i64::MAX as u64 {
        return Err("its TTL is too large");
    }
    Ok(Document {
        value: value.ok_or("it has no Value")?,
        validity: validity.ok_or("it has no Validity")?,
        validity_type: validity_type.ok_or("it has no ValidityType")?,
        sequence: sequence.ok_or("it has no Sequence")?,
        ttl,
    })
}

fn put_head(out: &mut Vec<u8>, major: u8, argument: u64) {
    let bytes = argument.to_be_bytes();
    let (info, from) = match argument {
        0..=23 => (bytes[7], 8),
        24..=0xff => (24, 7),
        0x100..=0xffff => (25, 6),
        0x1_0000..=0xffff_ffff => (26, 4),
        _ => (27, 0),
    };
    out.push(major << 5 | info);
    out.extend(&bytes[from..]);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_head(out, 3, text.len() as u64);
    out.extend(text.as_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_head(out, 2, bytes.len() as u64);
    out.extend(bytes);
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// The kind of the next item and its argument: a number, a length, or the bits of a float.
    fn head(&mut self) -> Result<(u8, u64), &'static str> {
        let first = self.take(1)?[0];
        let length = match first & 0x1f {
            small @ 0..=23 => return Ok((first >> 5, u64::from(small))),
            24 => 1,
            25 => 2,
            26 => 4,
            27 => 8,
            _ => return Err("a length is not definite"),
        };
        let argument = self.take(length)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        Ok((first >> 5, argument))
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], &'static str> {
        let length = usize::try_from(length).map_err(|_| "it ends too early")?;
        let (taken, rest) = self.rest.split_at_checked(length).ok_or("it ends too early")?;
        self.rest = rest;
        Ok(taken)
    }

    fn text(&mut self) -> Result<&'a [u8], &'static str> {
        match self.head()? {
            (3, length) => self.take(length),
            _ => Err("a key is no text"),
        }
    }

    fn bytes(&mut self) -> Result<&'a [u8], &'static str> {
        match self.head()? {
            (2, length) => self.take(length),
            _ => Err("a value is no byte string"),
        }
    }

    fn number(&mut self) -> Result<u64, &'static str> {
        match self.head()? {
            (0, number) => Ok(number),
            _ => Err("a value is no number of zero or more"),
        }
    }

    /// Skips one item with all that is in it.
    fn skip(&mut self) -> Result<(), &'static str> {
        let mut left: u64 = 1;
        while left > 0 {
            left -= 1;
            let inside = match self.head()? {
                (2 | 3, length) => {
                    self.take(length)?;
                    0
                }
                (4, length) => length,
                (5, length) => length.saturating_mul(2),
                (6, _) => 1,
                _ => 0,
            };
            left = left.saturating_add(inside);
        }
        Ok(())
    }
}
