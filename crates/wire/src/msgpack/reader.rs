//! Reading what writers of old and new msgpack send.

use super::scan::{Scan, scan};
use crate::gotime::GoTime;

/// Why bytes are not the expected msgpack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MsgpackError {
    /// The bytes end inside a value.
    #[error("msgpack: the bytes end inside a value")]
    Truncated,
    /// Another kind of value stands there.
    #[error("msgpack: marker {marker:#04x} where {wanted} should be")]
    Kind {
        /// What should be there.
        wanted: &'static str,
        /// What is.
        marker: u8,
    },
    /// A number that does not fit.
    #[error("msgpack: a number is out of range")]
    Range,
    /// A text that is not UTF-8.
    #[error("msgpack: a text is not UTF-8")]
    NotUtf8,
    /// More entries than bytes, or than allowed.
    #[error("msgpack: too many entries ({0})")]
    TooMany(usize),
    /// A value that is not msgpack at all.
    #[error("msgpack: not a value")]
    NotValue,
    /// Something follows the value.
    #[error("msgpack: {0} bytes follow the value")]
    Trailing(usize),
    /// The value is msgpack but makes no sense there.
    #[error("msgpack: invalid {0}")]
    Invalid(&'static str),
}

/// Walks over values.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first value.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    /// What was not read.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Checks that nothing follows.
    pub fn end(&self) -> Result<(), MsgpackError> {
        if self.rest.is_empty() { Ok(()) } else { Err(MsgpackError::Trailing(self.rest.len())) }
    }

    /// Takes a nil if one stands there.
    pub fn take_nil(&mut self) -> bool {
        let is_nil = self.rest.first() == Some(&0xc0);
        if is_nil {
            self.rest = &self.rest[1..];
        }
        is_nil
    }

    /// Skips one value of any kind and depth.
    pub fn skip(&mut self) -> Result<(), MsgpackError> {
        match scan(self.rest, self.rest.len()) {
            Scan::Complete(length) => self.take(length).map(|_| ()),
            Scan::NeedMore => Err(MsgpackError::Truncated),
            Scan::Bad if self.rest.is_empty() => Err(MsgpackError::Truncated),
            Scan::Bad => Err(MsgpackError::NotValue),
        }
    }

    /// A truth value; nil is false.
    pub fn bool(&mut self) -> Result<bool, MsgpackError> {
        match self.marker()? {
            0xc0 | 0xc2 => Ok(false),
            0xc3 => Ok(true),
            marker => Err(MsgpackError::Kind { wanted: "a bool", marker }),
        }
    }

    /// A number in any integer form that fits; nil is 0.
    pub fn int(&mut self) -> Result<i64, MsgpackError> {
        i64::try_from(self.wide()?).map_err(|_| MsgpackError::Range)
    }

    /// A number in any integer form that fits; nil is 0.
    pub fn uint(&mut self) -> Result<u64, MsgpackError> {
        u64::try_from(self.wide()?).map_err(|_| MsgpackError::Range)
    }

    fn wide(&mut self) -> Result<i128, MsgpackError> {
        Ok(match self.marker()? {
            0xc0 => 0,
            small @ 0x00..=0x7f => small.into(),
            negative @ 0xe0..=0xff => (negative as i8).into(),
            0xcc => u8::from_be_bytes(self.fixed()?).into(),
            0xcd => u16::from_be_bytes(self.fixed()?).into(),
            0xce => u32::from_be_bytes(self.fixed()?).into(),
            0xcf => u64::from_be_bytes(self.fixed()?).into(),
            0xd0 => i8::from_be_bytes(self.fixed()?).into(),
            0xd1 => i16::from_be_bytes(self.fixed()?).into(),
            0xd2 => i32::from_be_bytes(self.fixed()?).into(),
            0xd3 => i64::from_be_bytes(self.fixed()?).into(),
            marker => return Err(MsgpackError::Kind { wanted: "a number", marker }),
        })
    }

    /// Bytes in any raw, text or binary form; nil is empty.
    pub fn bytes(&mut self) -> Result<&'a [u8], MsgpackError> {
        let length = match self.marker()? {
            0xc0 => 0,
            marker @ 0xa0..=0xbf => usize::from(marker & 0x1f),
            0xc4 | 0xd9 => usize::from(u8::from_be_bytes(self.fixed()?)),
            0xc5 | 0xda => usize::from(u16::from_be_bytes(self.fixed()?)),
            0xc6 | 0xdb => u32::from_be_bytes(self.fixed()?) as usize,
            marker => return Err(MsgpackError::Kind { wanted: "bytes", marker }),
        };
        self.take(length)
    }

    /// A text; nil is empty.
    pub fn text(&mut self) -> Result<&'a str, MsgpackError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| MsgpackError::NotUtf8)
    }

    /// A time: raw 4, 8 or 12 bytes, the timestamp extension, or nil for the zero time.
    pub fn time(&mut self) -> Result<GoTime, MsgpackError> {
        const TIMESTAMP: i8 = -1;
        let length = match self.rest.first() {
            None => return Err(MsgpackError::Truncated),
            Some(0xd6) => 4,
            Some(0xd7) => 8,
            Some(0xc7) => usize::from(*self.rest.get(1).ok_or(MsgpackError::Truncated)?),
            Some(_) => return time_of_bytes(self.bytes()?),
        };
        let head = self.marker()?;
        if head == 0xc7 {
            let _: [u8; 1] = self.fixed()?;
        }
        if i8::from_be_bytes(self.fixed()?) != TIMESTAMP {
            return Err(MsgpackError::Invalid("extension"));
        }
        time_of_bytes(self.take(length)?)
    }

    /// The head of an array; nil is none (Go's nil slice). Each entry takes a byte at least, so the count is bounded by the bytes.
    pub fn array(&mut self) -> Result<Option<usize>, MsgpackError> {
        let count = match self.marker()? {
            0xc0 => return Ok(None),
            marker @ 0x90..=0x9f => usize::from(marker & 0x0f),
            0xdc => usize::from(u16::from_be_bytes(self.fixed()?)),
            0xdd => u32::from_be_bytes(self.fixed()?) as usize,
            marker => return Err(MsgpackError::Kind { wanted: "an array", marker }),
        };
        self.bounded(count, 1).map(Some)
    }

    /// The head of a map; nil is none (Go's nil map). The count is bounded by the bytes.
    pub fn map(&mut self) -> Result<Option<usize>, MsgpackError> {
        let count = match self.marker()? {
            0xc0 => return Ok(None),
            marker @ 0x80..=0x8f => usize::from(marker & 0x0f),
            0xde => usize::from(u16::from_be_bytes(self.fixed()?)),
            0xdf => u32::from_be_bytes(self.fixed()?) as usize,
            marker => return Err(MsgpackError::Kind { wanted: "a map", marker }),
        };
        self.bounded(count, 2).map(Some)
    }

    /// Reads an array of at most `most` entries; nil is none.
    pub fn list<T, E: From<MsgpackError>>(
        &mut self,
        most: usize,
        mut read: impl FnMut(&mut Reader<'a>) -> Result<T, E>,
    ) -> Result<Option<Vec<T>>, E> {
        let Some(count) = self.array()? else { return Ok(None) };
        if count > most {
            return Err(MsgpackError::TooMany(count).into());
        }
        let mut values = Vec::with_capacity(count.min(1024));
        for _ in 0..count {
            values.push(read(self)?);
        }
        Ok(Some(values))
    }

    /// Reads a map with text keys: `read` is called with each key and reads or skips its value. Nil is an empty map.
    pub fn fields<E: From<MsgpackError>>(&mut self, mut read: impl FnMut(&'a str, &mut Reader<'a>) -> Result<(), E>) -> Result<(), E> {
        for _ in 0..self.map()?.unwrap_or(0) {
            let key = self.text()?;
            read(key, self)?;
        }
        Ok(())
    }

    fn bounded(&self, count: usize, least_bytes: usize) -> Result<usize, MsgpackError> {
        if count > self.rest.len() / least_bytes { Err(MsgpackError::TooMany(count)) } else { Ok(count) }
    }

    fn marker(&mut self) -> Result<u8, MsgpackError> {
        let [marker] = self.fixed()?;
        Ok(marker)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], MsgpackError> {
        let (bytes, rest) = self.rest.split_first_chunk::<N>().ok_or(MsgpackError::Truncated)?;
        self.rest = rest;
        Ok(*bytes)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], MsgpackError> {
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(MsgpackError::Truncated)?;
        self.rest = rest;
        Ok(bytes)
    }
}

fn time_of_bytes(bytes: &[u8]) -> Result<GoTime, MsgpackError> {
    let (seconds, nanos) = if let Ok(bytes) = <[u8; 4]>::try_from(bytes) {
        (i64::from(u32::from_be_bytes(bytes)), 0)
    } else if let Ok(bytes) = <[u8; 8]>::try_from(bytes) {
        let both = u64::from_be_bytes(bytes);
        ((both & 0x3_ffff_ffff) as i64, (both >> 34) as u32)
    } else if let Ok(bytes) = <[u8; 12]>::try_from(bytes) {
        let both = u128::from_be_bytes([[0; 4].as_slice(), &bytes].concat().try_into().map_err(|_| MsgpackError::Invalid("time"))?);
        (both as u64 as i64, (both >> 64) as u32)
    } else if bytes.is_empty() {
        return Ok(GoTime::ZERO);
    } else {
        return Err(MsgpackError::Invalid("time"));
    };
    GoTime::new(seconds, nanos).ok_or(MsgpackError::Invalid("time"))
}

#[cfg(test)]
mod tests {
    use super::super::Writer;
    use super::*;

    #[test]
    fn numbers_are_taken_in_any_form() {
        for bytes in [&[0x05][..], &[0xcc, 5], &[0xcd, 0, 5], &[0xce, 0, 0, 0, 5], &[0xd0, 5], &[0xd3, 0, 0, 0, 0, 0, 0, 0, 5]] {
            assert_eq!(Reader::new(bytes).int(), Ok(5));
            assert_eq!(Reader::new(bytes).uint(), Ok(5));
        }
        assert_eq!(Reader::new(&[0xff]).int(), Ok(-1));
        assert_eq!(Reader::new(&[0xff]).uint(), Err(MsgpackError::Range));
        assert_eq!(Reader::new(&[0xcf, 0xff, 0, 0, 0, 0, 0, 0, 0]).int(), Err(MsgpackError::Range));
    }

    #[test]
    fn bytes_are_taken_from_both_families() {
        for bytes in [&[0xa1, 9][..], &[0xd9, 1, 9], &[0xda, 0, 1, 9], &[0xc4, 1, 9], &[0xc5, 0, 1, 9], &[0xdb, 0, 0, 0, 1, 9]] {
            assert_eq!(Reader::new(bytes).bytes(), Ok(&[9][..]));
        }
        assert_eq!(Reader::new(&[0x05]).bytes(), Err(MsgpackError::Kind { wanted: "bytes", marker: 5 }));
        assert_eq!(Reader::new(&[0xa2, 0xff, 0xff]).text(), Err(MsgpackError::NotUtf8));
    }

    #[test]
    fn times_are_taken_in_any_form() {
        for (seconds, nanos) in [(0, 1), (1_700_000_000, 0), (1_700_000_000, 999_999_999), (1 << 34, 0), (-5, 7)] {
            let time = GoTime { seconds, nanos };
            let mut out = Writer::new();
            out.time(time);
            assert_eq!(Reader::new(&out.into_bytes()).time(), Ok(time));
        }
        let at = GoTime { seconds: 0x6b04_693e, nanos: 0xffdc_d72d >> 2 };
        for bytes in
            [&[0xd7, 0xff, 0xdc, 0xd7, 0x2d, 0x98, 0x6b, 0x04, 0x69, 0x3e][..], &[0xa8, 0xdc, 0xd7, 0x2d, 0x98, 0x6b, 0x04, 0x69, 0x3e]]
        {
            let read = Reader::new(bytes).time().expect("a time");
            assert_eq!((read.seconds, read.nanos < 1_000_000_000), (at.seconds, true));
        }
        assert_eq!(Reader::new(&[0xd6, 0xff, 0, 0, 0, 9]).time(), Ok(GoTime { seconds: 9, nanos: 0 }));
        assert_eq!(Reader::new(&[0xd6, 5, 0, 0, 0, 9]).time(), Err(MsgpackError::Invalid("extension")));
        assert_eq!(Reader::new(&[0xc0]).time(), Ok(GoTime::ZERO));
        assert_eq!(Reader::new(&[0xa3, 1, 2, 3]).time(), Err(MsgpackError::Invalid("time")));
        assert_eq!(Reader::new(&[0xa8, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]).time(), Err(MsgpackError::Invalid("time")));
    }

    #[test]
    fn counts_are_bounded_by_the_bytes() {
        assert_eq!(Reader::new(&[0xdd, 0xff, 0xff, 0xff, 0xff, 0]).array(), Err(MsgpackError::TooMany(0xffff_ffff)));
        assert_eq!(Reader::new(&[0x82, 0, 0]).map(), Err(MsgpackError::TooMany(2)));
        let three = Reader::new(&[0x93, 1, 2, 3]).list::<_, MsgpackError>(2, |reader| reader.int());
        assert_eq!(three, Err(MsgpackError::TooMany(3)));
    }

    #[test]
    fn skipping_passes_any_value() {
        let mut reader = Reader::new(&[0x81, 0xa1, 0x61, 0x92, 0xc0, 0xd4, 1, 2, 0x07]);
        assert_eq!(reader.skip(), Ok(()));
        assert_eq!(reader.int(), Ok(7));
        assert_eq!(reader.skip(), Err(MsgpackError::Truncated));
    }
}
