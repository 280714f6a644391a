//! Where a msgpack value ends.

/// What a scan found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// One whole value of so many bytes stands at the start.
    Complete(usize),
    /// The value goes on after the end of what there is.
    NeedMore,
    /// Not msgpack, or longer than the limit.
    Bad,
}

/// Finds the end of one value in a buffer that grows. It remembers how far it came, so that scanning costs each byte once; it needs no
/// memory for nesting.
#[derive(Clone, Debug)]
pub struct Scanner {
    /// First byte not looked at; beyond the end of the buffer inside a long text.
    position: usize,
    /// Values still to come.
    pending: u64,
    limit: usize,
}

impl Scanner {
    /// Scans for a value of at most `limit` bytes.
    pub fn new(limit: usize) -> Scanner {
        Scanner { position: 0, pending: 1, limit }
    }

    /// Goes on with `buffer`, which begins with the same bytes as before. After `Complete` or `Bad` make a new scanner.
    pub fn advance(&mut self, buffer: &[u8]) -> Scan {
        while self.pending > 0 {
            // Each value still to come takes a byte at least.
            if self.pending > self.limit.saturating_sub(self.position) as u64 {
                return Scan::Bad;
            }
            let Some(rest) = buffer.get(self.position..).filter(|rest| !rest.is_empty()) else { return Scan::NeedMore };
            let Some(value) = Head::of(rest[0]) else { return Scan::Bad };
            let Some(length) = rest.get(1..1 + value.length_bytes) else { return Scan::NeedMore };
            let length = length
                .iter()
                .fold(value.fixed, |length, &byte| if value.length_bytes == 0 { length } else { length << 8 | u64::from(byte) });
            let (skip, children) = match value.of {
                Of::Bytes => (length.saturating_add(value.extra), 0),
                Of::Array => (0, length),
                Of::Map => (0, length * 2),
            };
            let skip = usize::try_from(skip).unwrap_or(usize::MAX);
            self.position = self.position.saturating_add(1 + value.length_bytes).saturating_add(skip);
            self.pending = self.pending - 1 + children;
            if self.position > self.limit {
                return Scan::Bad;
            }
        }
        if self.position <= buffer.len() { Scan::Complete(self.position) } else { Scan::NeedMore }
    }
}

/// Looks for one value of at most `limit` bytes at the start of `buffer`.
pub fn scan(buffer: &[u8], limit: usize) -> Scan {
    Scanner::new(limit).advance(buffer)
}

enum Of {
    Bytes,
    Array,
    Map,
}

/// What a marker byte says about the bytes after it.
struct Head {
    of: Of,
    /// The length or count if the marker holds it; else 0.
    fixed: u64,
    /// How many bytes of length or count follow.
    length_bytes: usize,
    /// Bytes that the length does not count (type byte of an extension).
    extra: u64,
}

impl Head {
    fn of(marker: u8) -> Option<Head> {
        let fixed = |of, fixed| Some(Head { of, fixed, length_bytes: 0, extra: 0 });
        let counted = |of, length_bytes, extra| Some(Head { of, fixed: 0, length_bytes, extra });
        match marker {
            0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => fixed(Of::Bytes, 0),
            0x80..=0x8f => fixed(Of::Map, u64::from(marker & 0x0f)),
            0x90..=0x9f => fixed(Of::Array, u64::from(marker & 0x0f)),
            0xa0..=0xbf => fixed(Of::Bytes, u64::from(marker & 0x1f)),
            0xc1 => None,
            0xc4 | 0xd9 => counted(Of::Bytes, 1, 0),
            0xc5 | 0xda => counted(Of::Bytes, 2, 0),
            0xc6 | 0xdb => counted(Of::Bytes, 4, 0),
            0xc7 => counted(Of::Bytes, 1, 1),
            0xc8 => counted(Of::Bytes, 2, 1),
            0xc9 => counted(Of::Bytes, 4, 1),
            0xcc | 0xd0 => fixed(Of::Bytes, 1),
            0xcd | 0xd1 => fixed(Of::Bytes, 2),
            0xca | 0xce | 0xd2 => fixed(Of::Bytes, 4),
            0xcb | 0xcf | 0xd3 => fixed(Of::Bytes, 8),
            // fixext: a type byte and 1, 2, 4, 8 or 16 bytes.
            0xd4..=0xd8 => fixed(Of::Bytes, 1 + (1 << (marker - 0xd4))),
            0xdc => counted(Of::Array, 2, 0),
            0xdd => counted(Of::Array, 4, 0),
            0xde => counted(Of::Map, 2, 0),
            0xdf => counted(Of::Map, 4, 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_end_where_they_end() {
        for (value, length) in [
            (&[0x05][..], 1),
            (&[0xc0], 1),
            (&[0xff], 1),
            (&[0xa2, 1, 2], 3),
            (&[0xda, 0, 1, 9], 4),
            (&[0xc4, 0], 2),
            (&[0xc7, 0, 5], 3),
            (&[0xd5, 1, 2, 3], 4),
            (&[0xcb, 0, 0, 0, 0, 0, 0, 0, 0], 9),
            (&[0x82, 0x01, 0x92, 0x01, 0xc0, 0xa1, 0x61, 0x80], 8),
            (&[0xdc, 0, 2, 0x90, 0x90], 5),
        ] {
            assert_eq!(value.len(), length);
            let mut followed = value.to_vec();
            followed.extend([0xc1, 0xc1]);
            assert_eq!(scan(&followed, 100), Scan::Complete(length), "{value:02x?}");
            let mut growing = Scanner::new(100);
            for end in 0..length {
                assert_eq!(growing.advance(&value[..end]), Scan::NeedMore, "{value:02x?} {end}");
            }
            assert_eq!(growing.advance(value), Scan::Complete(length));
            assert_eq!(scan(value, length - 1), Scan::Bad, "{value:02x?}");
        }
    }

    #[test]
    fn hostile_values_are_refused_at_once() {
        // An array of four billion, a text of four gigabytes, a marker that does not exist.
        for value in [&[0xdd, 0xff, 0xff, 0xff, 0xff][..], &[0xdb, 0xff, 0xff, 0xff, 0xff], &[0xc1], &[0xdf, 0xff, 0xff, 0xff, 0xff]] {
            assert_eq!(scan(value, 1 << 20), Scan::Bad, "{value:02x?}");
        }
        let deep = vec![0x91; 1 << 20];
        assert_eq!(scan(&deep, 1 << 20), Scan::Bad);
    }
}
