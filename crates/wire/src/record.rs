//! Signed records: their canonical bytes, which are also their form on the wire.
//!
//! Layout of the body, numbers big-endian: kind u16, key length u16, key, author length u8, author, version u64, written u64, then 0 for
//! a tombstone or 1, value length u32, value. The signature covers a fixed prefix and the body. On the wire: format byte 1, body,
//! signature length u16, signature.

use types::{PeerId, RecordKey, RecordKind, SignedRecord, UnixMillis};

/// The longest key.
pub const KEY_BYTES_MAX: usize = 256;
/// The longest value.
pub const VALUE_BYTES_MAX: usize = 64 << 10;
/// The longest signature.
pub const SIGNATURE_BYTES_MAX: usize = 512;
/// The longest record on the wire: the three above and the fixed parts.
pub const RECORD_BYTES_MAX: usize = KEY_BYTES_MAX + VALUE_BYTES_MAX + SIGNATURE_BYTES_MAX + 128;

const FORMAT: u8 = 1;
const SIGNING_PREFIX: &[u8] = b"pinfold-record:1";
const MEMBER: u16 = 1;
const DUTY: u16 = 2;
const BALANCE: u16 = 3;
const NAME: u16 = 4;
const SIGNING: u16 = 5;
const CLAIM: u16 = 6;

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordDecodeError {
    /// A format this version does not read.
    #[error("record: format {0} is unknown")]
    Format(u8),
    /// The bytes end too early.
    #[error("record: the bytes end inside the {0}")]
    Truncated(&'static str),
    /// A part is longer than its bound.
    #[error("record: the {0} is too long")]
    TooLong(&'static str),
    /// The author is no peer id.
    #[error("record: the author is no peer id")]
    Author,
    /// The mark before the value is neither 0 nor 1.
    #[error("record: the mark of the value is {0}")]
    Mark(u8),
    /// Something follows the signature.
    #[error("record: {0} bytes follow the signature")]
    Trailing(usize),
}

/// What the author signs.
pub fn signing_bytes(record: &SignedRecord) -> Vec<u8> {
    let mut out = SIGNING_PREFIX.to_vec();
    put_body(&mut out, record);
    out
}

/// Writes a record. Parts over their bounds make a record that nobody reads: check before signing.
pub fn encode_record(record: &SignedRecord) -> Vec<u8> {
    let mut out = vec![FORMAT];
    put_body(&mut out, record);
    out.extend((record.signature.len() as u16).to_be_bytes());
    out.extend(&record.signature);
    out
}

fn put_body(out: &mut Vec<u8>, record: &SignedRecord) {
    let SignedRecord { key: RecordKey { kind, key, author }, version, written, value, signature: _ } = record;
    out.extend(kind_number(*kind).to_be_bytes());
    out.extend((key.len() as u16).to_be_bytes());
    out.extend(key);
    out.push(author.as_bytes().len() as u8);
    out.extend(author.as_bytes());
    out.extend(version.to_be_bytes());
    out.extend(written.0.to_be_bytes());
    match value {
        None => out.push(0),
        Some(value) => {
            out.push(1);
            out.extend((value.len() as u32).to_be_bytes());
            out.extend(value);
        }
    }
}

/// Reads a record; the signature is not checked here.
pub fn decode_record(bytes: &[u8]) -> Result<SignedRecord, RecordDecodeError> {
    let mut parts = Parts { rest: bytes };
    let [format] = parts.fixed("format")?;
    if format != FORMAT {
        return Err(RecordDecodeError::Format(format));
    }
    let kind = kind_of_number(u16::from_be_bytes(parts.fixed("kind")?));
    let key_length = usize::from(u16::from_be_bytes(parts.fixed("key")?));
    let key = parts.take("key", key_length, KEY_BYTES_MAX)?.to_vec();
    let [author_length] = parts.fixed("author")?;
    let author = parts.take("author", usize::from(author_length), 255)?;
    let author = PeerId::from_bytes(author).map_err(|_| RecordDecodeError::Author)?;
    let version = u64::from_be_bytes(parts.fixed("version")?);
    let written = UnixMillis(u64::from_be_bytes(parts.fixed("time")?));
    let value = match parts.fixed("value")? {
        [0] => None,
        [1] => {
            let length = u32::from_be_bytes(parts.fixed("value")?) as usize;
            Some(parts.take("value", length, VALUE_BYTES_MAX)?.to_vec())
        }
        [mark] => return Err(RecordDecodeError::Mark(mark)),
    };
    let signature_length = usize::from(u16::from_be_bytes(parts.fixed("signature")?));
    let signature = parts.take("signature", signature_length, SIGNATURE_BYTES_MAX)?.to_vec();
    if !parts.rest.is_empty() {
        return Err(RecordDecodeError::Trailing(parts.rest.len()));
    }
    Ok(SignedRecord { key: RecordKey { kind, key, author }, version, written, value, signature })
}

struct Parts<'a> {
    rest: &'a [u8],
}

impl<'a> Parts<'a> {
    fn fixed<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], RecordDecodeError> {
        let (part, rest) = self.rest.split_first_chunk::<N>().ok_or(RecordDecodeError::Truncated(what))?;
        self.rest = rest;
        Ok(*part)
    }

    fn take(&mut self, what: &'static str, length: usize, most: usize) -> Result<&'a [u8], RecordDecodeError> {
        if length > most {
            return Err(RecordDecodeError::TooLong(what));
        }
        let (part, rest) = self.rest.split_at_checked(length).ok_or(RecordDecodeError::Truncated(what))?;
        self.rest = rest;
        Ok(part)
    }
}

/// The number of a kind, as it is written and stored.
pub fn kind_number(kind: RecordKind) -> u16 {
    match kind {
        RecordKind::Member => MEMBER,
        RecordKind::Duty => DUTY,
        RecordKind::Balance => BALANCE,
        RecordKind::Name => NAME,
        RecordKind::Signing => SIGNING,
        RecordKind::Claim => CLAIM,
        RecordKind::Unknown(number) => number,
    }
}

/// The kind with a number.
pub fn kind_of_number(number: u16) -> RecordKind {
    match number {
        MEMBER => RecordKind::Member,
        DUTY => RecordKind::Duty,
        BALANCE => RecordKind::Balance,
        NAME => RecordKind::Name,
        SIGNING => RecordKind::Signing,
        CLAIM => RecordKind::Claim,
        other => RecordKind::Unknown(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(value: Option<Vec<u8>>) -> SignedRecord {
        let author = PeerId::from_ed25519(&[5; 32]);
        let key = RecordKey { kind: RecordKind::Member, key: b"somebody".to_vec(), author };
        SignedRecord { key, version: 3, written: UnixMillis(1_700_000_000_123), value, signature: vec![8; 64] }
    }

    #[test]
    fn records_read_back() {
        for value in [None, Some(Vec::new()), Some(vec![1; VALUE_BYTES_MAX])] {
            let record = record(value);
            assert_eq!(decode_record(&encode_record(&record)), Ok(record));
        }
    }

    #[test]
    fn the_signature_covers_everything_but_itself() {
        let first = record(Some(vec![1]));
        let mut changed = first.clone();
        changed.signature = Vec::new();
        assert_eq!(signing_bytes(&changed), signing_bytes(&first));
        let changes: [fn(&mut SignedRecord); 6] = [
            |r| r.key.kind = RecordKind::Unknown(9),
            |r| r.key.key.push(0),
            |r| r.key.author = PeerId::from_ed25519(&[6; 32]),
            |r| r.version += 1,
            |r| r.written.0 += 1,
            |r| r.value = None,
        ];
        for change in changes {
            let mut changed = first.clone();
            change(&mut changed);
            assert_ne!(signing_bytes(&changed), signing_bytes(&first));
        }
    }

    #[test]
    fn damaged_records_are_named() {
        let good = encode_record(&record(Some(vec![1; 10])));
        for length in 0..good.len() {
            assert!(matches!(decode_record(&good[..length]), Err(RecordDecodeError::Truncated(_))), "{length}");
        }
        let mut long = good.clone();
        long.push(0);
        assert_eq!(decode_record(&long), Err(RecordDecodeError::Trailing(1)));
        let mut later = good.clone();
        later[0] = 2;
        assert_eq!(decode_record(&later), Err(RecordDecodeError::Format(2)));
        let mut key = good;
        key[3] = 0xff;
        assert_eq!(decode_record(&key), Err(RecordDecodeError::TooLong("key")));
        let large = encode_record(&record(Some(vec![1; VALUE_BYTES_MAX + 1])));
        assert_eq!(decode_record(&large), Err(RecordDecodeError::TooLong("value")));
    }
}
