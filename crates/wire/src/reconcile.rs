//! What two Pinfold peers say to find out which records only one of them has, and to hand those over.
//!
//! Records are named by the first 16 bytes of the sha2-256 of their bytes. A message of [`Exchange::Ranges`] covers all names in rising order:
//! each range ends before its bound (the last one nowhere), and says of the names in it that they are the same, how they look together
//! (a fingerprint), or which they are. What follows the last range is the same. Range-based set reconciliation as A. Meyer describes it.
//!
//! Bytes: format 1, kind. Ranges: for each a bound (its length, at most 16, then so many bytes, zeros at its end left out; length 0 is
//! no bound), a mode, and for fingerprints 16 bytes, for names a count (u16, big-endian) and the names. Wanted: names. Records: for each
//! its length (u32, big-endian) and bytes.

use crate::record::{RECORD_BYTES_MAX, RecordDecodeError, decode_record, encode_record};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use types::SignedRecord;

/// The longest message.
pub const LONGEST: usize = 1 << 20;
/// The most ranges in a message.
pub const RANGES_MAX: usize = 4096;
/// The most records that are wanted at once.
pub const WANTED_MAX: usize = 4096;
/// A message of records takes no further one after so many bytes.
pub const RECORDS_BYTES: usize = 512 << 10;

const FORMAT: u8 = 1;

const READY: u8 = 1;
const RANGES: u8 = 2;
const WANTED: u8 = 3;
const RECORDS: u8 = 4;

const SAME: u8 = 0;
const FINGERPRINT: u8 = 1;
const NAMES: u8 = 2;

/// What names a record with its value, signature and all.
pub type RecordName = [u8; 16];

/// One message of an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// "Ask": whoever was called can answer.
    Ready,
    /// How the names look in each part.
    Ranges(Vec<Range>),
    /// "Give me these"; answered by as many [`Exchange::Records`] as fit into one message.
    Wanted(Vec<RecordName>),
    /// Records that the other lacks.
    Records(Vec<SignedRecord>),
}

/// Part of all names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first name behind it; none where it goes to the end.
    pub end: Option<RecordName>,
    /// What is said of it.
    pub content: Content,
}

/// What is said of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Nothing differs.
    Same,
    /// All names in it, as one number ([`fingerprint`]).
    Fingerprint([u8; 16]),
    /// The names in it, rising.
    Names(Vec<RecordName>),
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    /// Longer than [`LONGEST`].
    #[error("exchange of records: {0} bytes are too long")]
    TooLong(usize),
    /// A format or kind that this version does not know.
    #[error("exchange of records: format {0}, kind {1} are unknown")]
    Unknown(u8, u8),
    /// The bytes end too early.
    #[error("exchange of records: the bytes end inside the {0}")]
    Truncated(&'static str),
    /// More of something than is allowed.
    #[error("exchange of records: too many {0}")]
    TooMany(&'static str),
    /// A bound that is not in its shortest form.
    #[error("exchange of records: a bound of {0} bytes")]
    Bound(u8),
    /// A mode that this version does not know.
    #[error("exchange of records: mode {0} of a range is unknown")]
    Mode(u8),
    /// Bounds or names that do not rise, or a name outside its range.
    #[error("exchange of records: {0} out of order")]
    Order(&'static str),
    /// A record does not read.
    #[error("exchange of records: {0}")]
    Record(#[from] RecordDecodeError),
}

/// The name of a record, from its bytes ([`encode_record`]).
pub fn name_of(encoded: &[u8]) -> RecordName {
    half(&Sha256::digest(encoded))
}

/// Names as one number; they come in rising order.
pub fn fingerprint(names: &[RecordName]) -> [u8; 16] {
    half(&Sha256::digest(names.as_flattened()))
}

fn half(digest: &[u8]) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&digest[..16]);
    half
}

/// The shortest bound that is above `before` and not above `name`, for two names in rising order.
pub fn bound_between(before: &RecordName, name: &RecordName) -> RecordName {
    let same = before.iter().zip(name).take_while(|(a, b)| a == b).count();
    let mut bound = [0; 16];
    let kept = (same + 1).min(bound.len());
    bound[..kept].copy_from_slice(&name[..kept]);
    bound
}

/// Writes a message. Records that do not fit are left out: [`RECORDS_BYTES`] and one more always fit.
pub fn encode(message: &Exchange) -> Vec<u8> {
    let mut out = vec![FORMAT];
    match message {
        Exchange::Ready => out.push(READY),
        Exchange::Ranges(ranges) => {
            out.push(RANGES);
            ranges.iter().for_each(|range| put_range(&mut out, range));
        }
        Exchange::Wanted(names) => {
            out.push(WANTED);
            out.extend_from_slice(names.as_flattened());
        }
        Exchange::Records(records) => {
            out.push(RECORDS);
            for record in records {
                let encoded = encode_record(record);
                if out.len() + 4 + encoded.len() > LONGEST {
                    break;
                }
                out.extend((encoded.len() as u32).to_be_bytes());
                out.extend(encoded);
            }
        }
    }
    out
}

/// So many bytes a range takes.
pub fn range_bytes(content: &Content) -> usize {
    const BOUND: usize = 17;
    BOUND
        + match content {
            Content::Same => 1,
            Content::Fingerprint(_) => 17,
            Content::Names(names) => 3 + names.len() * 16,
        }
}

fn put_range(out: &mut Vec<u8>, range: &Range) {
    let bound = range.end.as_ref().map_or(&[][..], |end| &end[..]);
    let kept = bound.len() - bound.iter().rev().take_while(|byte| **byte == 0).count();
    out.push(kept as u8);
    out.extend_from_slice(&bound[..kept]);
    match &range.content {
        Content::Same => out.push(SAME),
        Content::Fingerprint(fingerprint) => {
            out.push(FINGERPRINT);
            out.extend(fingerprint);
        }
        Content::Names(names) => {
            out.push(NAMES);
            out.extend((names.len() as u16).to_be_bytes());
            out.extend_from_slice(names.as_flattened());
        }
    }
}

/// Reads a message; signatures of records are not checked here.
pub fn decode(bytes: &[u8]) -> Result<Exchange, ExchangeError> {
    if bytes.len() > LONGEST {
        return Err(ExchangeError::TooLong(bytes.len()));
    }
    let (&[format, kind], rest) = bytes.split_first_chunk().ok_or(ExchangeError::Truncated("kind"))?;
    let mut parts = Parts { rest };
    match (format, kind) {
        (FORMAT, READY) if rest.is_empty() => Ok(Exchange::Ready),
        (FORMAT, RANGES) => Ok(Exchange::Ranges(parts.ranges()?)),
        (FORMAT, WANTED) => Ok(Exchange::Wanted(parts.wanted()?)),
        (FORMAT, RECORDS) => Ok(Exchange::Records(parts.records()?)),
        _ => Err(ExchangeError::Unknown(format, kind)),
    }
}

struct Parts<'a> {
    rest: &'a [u8],
}

impl Parts<'_> {
    fn ranges(&mut self) -> Result<Vec<Range>, ExchangeError> {
        let mut ranges = Vec::new();
        let mut begin: Option<RecordName> = None;
        while !self.rest.is_empty() {
            if ranges.len() >= RANGES_MAX {
                return Err(ExchangeError::TooMany("ranges"));
            }
            let end = self.bound()?;
            if end.is_some() && end <= begin {
                return Err(ExchangeError::Order("bounds"));
            }
            let content = match self.fixed("mode")? {
                [SAME] => Content::Same,
                [FINGERPRINT] => Content::Fingerprint(self.fixed("fingerprint")?),
                [NAMES] => Content::Names(self.names(begin.as_ref(), end.as_ref())?),
                [mode] => return Err(ExchangeError::Mode(mode)),
            };
            ranges.push(Range { end, content });
            begin = end;
            if end.is_none() && !self.rest.is_empty() {
                return Err(ExchangeError::Order("bounds"));
            }
        }
        Ok(ranges)
    }

    fn bound(&mut self) -> Result<Option<RecordName>, ExchangeError> {
        let [length] = self.fixed("bound")?;
        let mut bound = [0; 16];
        let kept = bound.get_mut(..usize::from(length)).ok_or(ExchangeError::Bound(length))?;
        let (part, rest) = self.rest.split_at_checked(kept.len()).ok_or(ExchangeError::Truncated("bound"))?;
        self.rest = rest;
        kept.copy_from_slice(part);
        match part.last() {
            None => Ok(None),
            Some(0) => Err(ExchangeError::Bound(length)),
            Some(_) => Ok(Some(bound)),
        }
    }

    fn names(&mut self, begin: Option<&RecordName>, end: Option<&RecordName>) -> Result<Vec<RecordName>, ExchangeError> {
        let count = usize::from(u16::from_be_bytes(self.fixed("names")?));
        // What is promised is here before anything is allocated for it.
        let (names, rest) = self.rest.split_at_checked(count * 16).ok_or(ExchangeError::Truncated("names"))?;
        self.rest = rest;
        let names = names.as_chunks::<16>().0.to_vec();
        let is_within = names.first() >= begin || names.is_empty();
        let is_below = end.is_none() || names.last() < end;
        if !is_within || !is_below || !names.is_sorted_by(|a, b| a < b) {
            return Err(ExchangeError::Order("names"));
        }
        Ok(names)
    }

    fn wanted(&mut self) -> Result<Vec<RecordName>, ExchangeError> {
        let (names, rest) = self.rest.as_chunks::<16>();
        if !rest.is_empty() {
            return Err(ExchangeError::Truncated("names"));
        }
        if names.len() > WANTED_MAX {
            return Err(ExchangeError::TooMany("wanted records"));
        }
        if names.iter().collect::<BTreeSet<_>>().len() < names.len() {
            return Err(ExchangeError::Order("wanted records"));
        }
        Ok(names.to_vec())
    }

    fn records(&mut self) -> Result<Vec<SignedRecord>, ExchangeError> {
        let mut records = Vec::new();
        while !self.rest.is_empty() {
            let length = u32::from_be_bytes(self.fixed("record")?) as usize;
            if length > RECORD_BYTES_MAX {
                return Err(ExchangeError::TooMany("bytes of a record"));
            }
            let (record, rest) = self.rest.split_at_checked(length).ok_or(ExchangeError::Truncated("record"))?;
            self.rest = rest;
            records.push(decode_record(record)?);
        }
        Ok(records)
    }

    fn fixed<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], ExchangeError> {
        let (part, rest) = self.rest.split_first_chunk::<N>().ok_or(ExchangeError::Truncated(what))?;
        self.rest = rest;
        Ok(*part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::{PeerId, RecordKey, RecordKind, UnixMillis};

    fn name(first: u8) -> RecordName {
        let mut name = [0; 16];
        name[0] = first;
        name[15] = 7;
        name
    }

    fn record() -> SignedRecord {
        let key = RecordKey { kind: RecordKind::Claim, key: b"anna/site".to_vec(), author: PeerId::from_ed25519(&[5; 32]) };
        SignedRecord { key, version: 1, written: UnixMillis(2), value: None, signature: vec![8; 64] }
    }

    fn ranges() -> Exchange {
        let bound = bound_between(&name(1), &name(3));
        Exchange::Ranges(vec![
            Range { end: Some(bound), content: Content::Fingerprint(fingerprint(&[name(1)])) },
            Range { end: Some(name(9)), content: Content::Names(vec![name(3), name(8)]) },
            Range { end: None, content: Content::Same },
        ])
    }

    #[test]
    fn messages_read_back_and_keep_their_bytes() {
        let messages = [Exchange::Ready, ranges(), Exchange::Wanted(vec![name(1), name(2)]), Exchange::Records(vec![record(), record()])];
        for message in &messages {
            assert_eq!(decode(&encode(message)).as_ref(), Ok(message));
        }
        // What another version of Pinfold reads.
        assert_eq!(hex::encode(encode(&Exchange::Ready)), "0101");
        assert_eq!(
            hex::encode(encode(&ranges())),
            concat!(
                "0102",
                "0103",
                "01",
                "0c4dc567354ecb2ecde75a804a85cd0e", // a fingerprint up to 03
                "10",
                "09000000000000000000000000000007",
                "02",
                "0002",
                "03000000000000000000000000000007",
                "08000000000000000000000000000007", // two names up to there
                "00",
                "00" // the rest is the same
            )
        );
        assert_eq!(hex::encode(&encode(&messages[2])[..18]), "010301000000000000000000000000000007");
    }

    #[test]
    fn damaged_messages_are_named() {
        let good = encode(&ranges());
        for length in [0, 1, 3, 4, 10, good.len() - 1] {
            assert!(matches!(decode(&good[..length]), Err(ExchangeError::Truncated(_))), "{length}");
        }
        let ranges = |bytes: &[u8]| decode(&[&[FORMAT, RANGES], bytes].concat());
        assert_eq!(ranges(&[1, 5, SAME, 1, 5, SAME]), Err(ExchangeError::Order("bounds")));
        assert_eq!(ranges(&[0, SAME, 1, 5, SAME]), Err(ExchangeError::Order("bounds")));
        assert_eq!(ranges(&[2, 5, 0, SAME]), Err(ExchangeError::Bound(2)));
        assert_eq!(ranges(&[17]), Err(ExchangeError::Bound(17)));
        assert_eq!(ranges(&[0, 3]), Err(ExchangeError::Mode(3)));
        let outside = [&[1, 5, SAME, 0, NAMES, 0, 1][..], &name(4)].concat();
        assert_eq!(ranges(&outside), Err(ExchangeError::Order("names")));
        let falling = [&[0, NAMES, 0, 2][..], &name(4), &name(4)].concat();
        assert_eq!(ranges(&falling), Err(ExchangeError::Order("names")));
        assert_eq!(ranges(&[1, 1, SAME].repeat(2)), Err(ExchangeError::Order("bounds")));
        let wanted = |names: &[RecordName]| decode(&encode(&Exchange::Wanted(names.to_vec())));
        assert_eq!(wanted(&[name(1), name(1)]), Err(ExchangeError::Order("wanted records")));
        assert_eq!(wanted(&vec![name(1); WANTED_MAX + 1]), Err(ExchangeError::TooMany("wanted records")));
        assert_eq!(decode(&[FORMAT, 9]), Err(ExchangeError::Unknown(FORMAT, 9)));
        assert_eq!(decode(&[FORMAT, READY, 0]), Err(ExchangeError::Unknown(FORMAT, READY)));
        assert_eq!(decode(&vec![FORMAT; LONGEST + 1]), Err(ExchangeError::TooLong(LONGEST + 1)));
    }

    #[test]
    fn bounds_part_names() {
        for (before, name) in [
            (name(1), name(2)),
            ([0; 16], name(0)),
            ([1; 16], {
                let mut next = [1; 16];
                next[15] = 2;
                next
            }),
        ] {
            let bound = bound_between(&before, &name);
            assert!(before < bound && bound <= name);
        }
    }
}
