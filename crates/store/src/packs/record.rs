//! The bytes of a segment: a header, then records. Pure.
//!
//! ```text
//! segment: "PINFPACK" version:4 id:4 marker:4 seed:4 crc:4 zero:4         crc over all before it
//! record:  marker:4 crc:4 length:4 multihash_length:1 multihash data      crc seeded, over all behind it
//! ```
//! Marker and seed are drawn at random for each segment and never leave the disk: whoever makes a block cannot place a record inside it
//! that a scan through damage would take for real. Numbers are big-endian.

use super::BLOCK_LARGEST;

pub(super) const SEGMENT_HEADER: usize = 32;
pub(super) const RECORD_HEADER: usize = 13;
const MAGIC: &[u8; 8] = b"PINFPACK";
const VERSION: u32 = 1;

/// What sets one segment's records apart from all other bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Salt {
    pub(super) marker: [u8; 4],
    pub(super) seed: u32,
}

/// The front of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordHeader {
    crc: u32,
    length: u32,
    multihash_length: u8,
}

/// Why a file is no segment of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadSegment {
    /// Too short, or another magic, or a wrong checksum.
    Damaged,
    /// Written by a later version.
    TooNew(u32),
}

impl Salt {
    pub(super) fn from_bytes(bytes: [u8; 8]) -> Salt {
        let [a, b, c, d, seed @ ..] = bytes;
        Salt { marker: [a, b, c, d], seed: u32::from_be_bytes(seed) }
    }

    pub(super) fn to_bytes(self) -> [u8; 8] {
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&self.marker);
        bytes[4..].copy_from_slice(&self.seed.to_be_bytes());
        bytes
    }
}

/// Bytes that a record takes in its segment.
pub(super) fn record_size(multihash: usize, data: usize) -> u64 {
    (RECORD_HEADER + multihash + data) as u64
}

pub(super) fn encode_segment_header(id: u32, salt: Salt) -> [u8; SEGMENT_HEADER] {
    let mut bytes = [0; SEGMENT_HEADER];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_be_bytes());
    bytes[12..16].copy_from_slice(&id.to_be_bytes());
    bytes[16..24].copy_from_slice(&salt.to_bytes());
    let crc = crc32fast::hash(&bytes[..24]);
    bytes[24..28].copy_from_slice(&crc.to_be_bytes());
    bytes
}

pub(super) fn decode_segment_header(bytes: &[u8], id: u32) -> Result<Salt, BadSegment> {
    if bytes.len() < SEGMENT_HEADER || &bytes[..8] != MAGIC || word(bytes, 24) != crc32fast::hash(&bytes[..24]) {
        return Err(BadSegment::Damaged);
    }
    match word(bytes, 8) {
        VERSION if word(bytes, 12) == id => Ok(Salt { marker: word(bytes, 16).to_be_bytes(), seed: word(bytes, 20) }),
        VERSION => Err(BadSegment::Damaged),
        newer => Err(BadSegment::TooNew(newer)),
    }
}

/// Appends header and multihash of a record to `front`; the data follows it on disk. Lengths are checked by the caller.
pub(super) fn encode_front(front: &mut Vec<u8>, salt: Salt, multihash: &[u8], data: &[u8]) {
    let lengths = lengths(data.len() as u32, multihash.len() as u8);
    front.extend_from_slice(&salt.marker);
    front.extend_from_slice(&checksum(salt, lengths, multihash, data).to_be_bytes());
    front.extend_from_slice(&lengths);
    front.extend_from_slice(multihash);
}

impl RecordHeader {
    /// Reads the first [`RECORD_HEADER`] of `bytes`; none when they cannot begin a record.
    pub(super) fn decode(bytes: &[u8], salt: Salt) -> Option<RecordHeader> {
        if bytes.len() < RECORD_HEADER || bytes[..4] != salt.marker {
            return None;
        }
        let header = RecordHeader { crc: word(bytes, 4), length: word(bytes, 8), multihash_length: bytes[12] };
        (header.multihash_length > 0 && header.length as usize <= BLOCK_LARGEST).then_some(header)
    }

    /// Bytes of the whole record.
    pub(super) fn size(self) -> usize {
        self.front() + self.length as usize
    }

    /// Bytes before the data.
    pub(super) fn front(self) -> usize {
        RECORD_HEADER + usize::from(self.multihash_length)
    }

    /// Whether `record` (all of it) is as it was written.
    pub(super) fn is_intact(self, record: &[u8], salt: Salt) -> bool {
        let (front, data) = record.split_at(self.front());
        checksum(salt, lengths(self.length, self.multihash_length), &front[RECORD_HEADER..], data) == self.crc
    }
}

fn lengths(data: u32, multihash: u8) -> [u8; 5] {
    let [a, b, c, d] = data.to_be_bytes();
    [a, b, c, d, multihash]
}

fn checksum(salt: Salt, lengths: [u8; 5], multihash: &[u8], data: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(salt.seed);
    hasher.update(&lengths);
    hasher.update(multihash);
    hasher.update(data);
    hasher.finalize()
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: Salt = Salt { marker: *b"salt", seed: 0x1234_5678 };

    #[test]
    fn a_record_reads_back_and_any_flipped_bit_shows() {
        let mut record = Vec::new();
        encode_front(&mut record, SALT, b"multihash", b"some data");
        record.extend_from_slice(b"some data");
        assert!(is_good(&record, SALT));
        for bit in 0..record.len() * 8 {
            let mut damaged = record.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_good(&damaged, SALT), "bit {bit}");
        }
        assert!(!is_good(&record, Salt { seed: 1, ..SALT }), "a record of another segment");
    }

    #[test]
    fn a_segment_header_reads_back_only_for_its_own_number() {
        let header = encode_segment_header(7, SALT);
        assert_eq!(decode_segment_header(&header, 7), Ok(SALT));
        assert_eq!(decode_segment_header(&header, 8), Err(BadSegment::Damaged));
        assert_eq!(decode_segment_header(&header[..31], 7), Err(BadSegment::Damaged));
        let mut newer = header;
        newer[11] = 2;
        let crc = crc32fast::hash(&newer[..24]);
        newer[24..28].copy_from_slice(&crc.to_be_bytes());
        assert_eq!(decode_segment_header(&newer, 7), Err(BadSegment::TooNew(2)));
    }

    fn is_good(record: &[u8], salt: Salt) -> bool {
        RecordHeader::decode(record, salt).is_some_and(|header| header.size() == record.len() && header.is_intact(record, salt))
    }
}
