//! Reading dag-cbor without building a tree: where the links are.
//!
//! Strict where it costs nothing: lengths are definite, the only tag is 42, one item fills the block.

use crate::links::MAX_LINKS;
use crate::{DecodeError, MAX_BLOCK, pb};
use types::Cid;

/// Lists and maps inside each other.
pub const DEPTH_MAX: usize = 256;

const WHAT: &str = "dag-cbor";
const TAG_LINK: u64 = 42;

/// Appends the links of a block in the order they stand there.
pub fn links(block: &[u8], links: &mut Vec<Cid>) -> Result<(), DecodeError> {
    if block.len() > MAX_BLOCK {
        return Err(DecodeError::too_much("bytes in a dag-cbor block", MAX_BLOCK));
    }
    let mut reader = Reader::new(block);
    // How many items are still open at each level.
    let mut open = vec![1u64];
    while let Some(left) = open.last_mut() {
        if *left == 0 {
            open.pop();
            continue;
        }
        *left -= 1;
        let inside = match reader.head()? {
            Head::List(length) => length,
            Head::Map(length) => length.checked_mul(2).ok_or_else(|| DecodeError::truncated(WHAT))?,
            Head::Link(cid) if links.len() < MAX_LINKS => {
                links.push(cid);
                0
            }
            Head::Link(_) => return Err(DecodeError::too_much("links in a dag-cbor block", MAX_LINKS)),
            Head::Bytes(_) | Head::Text(_) | Head::Unsigned(_) | Head::Other => 0,
        };
        if inside > reader.left() {
            return Err(DecodeError::truncated(WHAT));
        }
        if inside > 0 {
            if open.len() == DEPTH_MAX {
                return Err(DecodeError::too_much("levels in a dag-cbor block", DEPTH_MAX));
            }
            open.push(inside);
        }
    }
    if reader.left() == 0 { Ok(()) } else { Err(DecodeError::malformed(WHAT, "bytes after the item")) }
}

/// Where a path leads within a block.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Followed {
    /// To a link, after so many parts.
    Link { cid: Cid, used: usize },
    /// To a value within the block.
    Inside,
    /// Nowhere: so many parts could be followed.
    Missing { used: usize },
}

/// Follows keys of maps and indices of lists.
pub(crate) fn follow(block: &[u8], segments: &[Vec<u8>]) -> Result<Followed, DecodeError> {
    // The whole block must be sound, not only what lies on the way.
    links(block, &mut Vec::new())?;
    let mut reader = Reader::new(block);
    let mut used = 0;
    loop {
        let head = reader.head()?;
        if let Head::Link(cid) = head {
            return Ok(Followed::Link { cid, used });
        }
        let Some(segment) = segments.get(used) else { return Ok(Followed::Inside) };
        let is_there = match head {
            Head::Map(pairs) => reader.find_key(pairs, segment)?,
            Head::List(length) => reader.find_index(length, segment)?,
            _ => false,
        };
        if !is_there {
            return Ok(Followed::Missing { used });
        }
        used += 1;
    }
}

/// Writes the beginning of an item, in its shortest form.
pub(crate) fn put_head(out: &mut Vec<u8>, major: u8, argument: u64) {
    let major = major << 5;
    let bytes = argument.to_be_bytes();
    match argument {
        0..=23 => out.push(major | bytes[7]),
        24..=0xff => out.extend([major | 24, bytes[7]]),
        0x100..=0xffff => {
            out.push(major | 25);
            out.extend(&bytes[6..]);
        }
        0x1_0000..=0xffff_ffff => {
            out.push(major | 26);
            out.extend(&bytes[4..]);
        }
        _ => {
            out.push(major | 27);
            out.extend(bytes);
        }
    }
}

/// Writes a text.
pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_head(out, 3, text.len() as u64);
    out.extend(text.as_bytes());
}

/// Writes a link.
pub(crate) fn put_link(out: &mut Vec<u8>, cid: &Cid) {
    let bytes = cid.to_bytes();
    put_head(out, 6, TAG_LINK);
    put_head(out, 2, bytes.len() as u64 + 1);
    out.push(0);
    out.extend(bytes);
}

/// The beginning of an item; of lists and maps the content follows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Head<'a> {
    Unsigned(u64),
    Bytes(&'a [u8]),
    Text(&'a [u8]),
    List(u64),
    Map(u64),
    Link(Cid),
    /// Negative numbers, floats, booleans, null.
    Other,
}

/// Reads items front to back.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Reader<'a> {
        Reader { rest: data }
    }

    /// How many bytes are left.
    pub(crate) fn left(&self) -> u64 {
        self.rest.len() as u64
    }

    /// Reads the next item, or the beginning of a list or map.
    pub(crate) fn head(&mut self) -> Result<Head<'a>, DecodeError> {
        let (major, argument) = self.argument()?;
        Ok(match major {
            0 => Head::Unsigned(argument),
            2 => Head::Bytes(self.take(argument)?),
            3 => Head::Text(self.take(argument)?),
            4 => Head::List(argument),
            5 => Head::Map(argument),
            6 if argument == TAG_LINK => Head::Link(self.link()?),
            6 => return Err(DecodeError::malformed(WHAT, "tag other than 42")),
            _ => Head::Other,
        })
    }

    /// Goes to the value of `key` in a map whose head was read.
    fn find_key(&mut self, pairs: u64, key: &[u8]) -> Result<bool, DecodeError> {
        for _ in 0..pairs {
            match self.head()? {
                Head::Text(found) if found == key => return Ok(true),
                Head::Text(_) => self.skip(1)?,
                _ => return Err(DecodeError::malformed(WHAT, "key that is no text")),
            }
        }
        Ok(false)
    }

    /// Goes to an item of a list whose head was read.
    fn find_index(&mut self, length: u64, index: &[u8]) -> Result<bool, DecodeError> {
        let index: Option<u64> = std::str::from_utf8(index).ok().and_then(|index| index.parse().ok());
        match index.filter(|index| *index < length) {
            Some(index) => self.skip(index).map(|()| true),
            None => Ok(false),
        }
    }

    /// Skips whole items.
    fn skip(&mut self, items: u64) -> Result<(), DecodeError> {
        let mut left = items;
        while left > 0 {
            left -= 1;
            let inside = match self.head()? {
                Head::List(length) => length,
                Head::Map(length) => length.saturating_mul(2),
                _ => 0,
            };
            left = left.saturating_add(inside);
        }
        Ok(())
    }

    fn link(&mut self) -> Result<Cid, DecodeError> {
        let (2, length) = self.argument()? else { return Err(DecodeError::malformed(WHAT, "link that is no byte string")) };
        match self.take(length)? {
            [0, cid @ ..] => pb::read_cid(cid),
            _ => Err(DecodeError::malformed(WHAT, "link without its leading zero")),
        }
    }

    fn argument(&mut self) -> Result<(u8, u64), DecodeError> {
        let first = self.take(1)?[0];
        let argument = match first & 0x1f {
            small @ 0..=23 => u64::from(small),
            24 => self.number(1)?,
            25 => self.number(2)?,
            26 => self.number(4)?,
            27 => self.number(8)?,
            _ => return Err(DecodeError::malformed(WHAT, "length that is not definite")),
        };
        Ok((first >> 5, argument))
    }

    fn number(&mut self, bytes: u64) -> Result<u64, DecodeError> {
        Ok(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], DecodeError> {
        let length = usize::try_from(length).ok().filter(|length| *length <= self.rest.len());
        let (taken, rest) = self.rest.split_at(length.ok_or_else(|| DecodeError::truncated(WHAT))?);
        self.rest = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Block, HashFn, codec};

    fn cid(text: &'static str) -> Cid {
        Block::new(codec::RAW, HashFn::SHA2_256, bytes::Bytes::from_static(text.as_bytes())).expect("known").cid
    }

    fn link(cid: &Cid) -> Vec<u8> {
        [&[0xd8, 42, 0x58, 37, 0][..], &cid.to_bytes()].concat()
    }

    fn found(block: &[u8]) -> Result<Vec<Cid>, DecodeError> {
        let mut found = Vec::new();
        links(block, &mut found).map(|()| found)
    }

    #[test]
    fn links_are_found_at_any_depth() {
        let (a, b) = (cid("a"), cid("b"));
        // {"x": [link a, -1, 1.5, null, "text"], "y": link b}
        let block = [
            &[0xa2, 0x61, b'x', 0x85][..],
            &link(&a),
            &[0x20, 0xfb, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0, 0xf6, 0x64, b't', b'e', b'x', b't', 0x61, b'y'],
            &link(&b),
        ]
        .concat();
        assert_eq!(found(&block), Ok(vec![a, b]));
        assert_eq!(found(&[0xa0]), Ok(vec![]));
    }

    #[test]
    fn broken_blocks_are_refused() {
        for block in [
            &b""[..],
            b"\x82\x01",
            b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\x9f\xff",
            b"\x01\x01",
            b"\xc0\x01",
            b"\xd8\x2a\x01",
            b"\xd8\x2a\x41\x01",
            b"\xd8\x2a\x42\x00\x01",
        ] {
            assert!(found(block).is_err(), "{block:?}");
        }
        assert_eq!(found(&[0x81; 1000]), Err(DecodeError::too_much("levels in a dag-cbor block", DEPTH_MAX)));
    }
}
