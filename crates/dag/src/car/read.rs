//! Reading CAR versions 1 and 2.

use crate::cbor::{Head, Reader};
use crate::pb::wire::varint;
use crate::{Block, DecodeError, HashMismatch, MAX_BLOCK, verify};
use bytes::{Buf, Bytes, BytesMut};
use types::Cid;

/// The longest header.
pub const HEADER_MAX: usize = 1 << 20;
/// Roots of one stream.
pub const ROOTS_MAX: usize = 1 << 14;

/// The longest section: a block and its CID.
pub(super) const SECTION_MAX: usize = MAX_BLOCK + 128;
const V2_HEADER: usize = 40;
/// Version 2's fixed beginning, 11 bytes.
const V2_PRAGMA: usize = 11;
const WHAT: &str = "CAR";

/// Why a stream cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CarError {
    /// It is no CAR, or a broken one.
    #[error("reading CAR")]
    Decode(#[from] DecodeError),
    /// A block is not what its CID says.
    #[error("verifying a block of the CAR")]
    Verify(#[from] HashMismatch),
    /// A version that does not exist.
    #[error("CAR version {0} is not known")]
    Version(u64),
    /// An index of another kind.
    #[error("CAR index of codec 0x{0:x} is not known")]
    IndexCodec(u64),
    /// A block is larger than any that is taken.
    #[error("CAR section of {length} bytes is too large")]
    TooBig {
        /// Its length.
        length: u64,
    },
}

/// The beginning of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CarHeader {
    /// 1 or 2.
    pub version: u64,
    /// What the stream was made for; nothing says that they are in it.
    pub roots: Vec<Cid>,
}

/// A piece of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CarItem {
    /// Comes first, once.
    Header(CarHeader),
    /// The blocks in the order of the stream; doubles are possible.
    Block(Block),
}

/// Reads a stream pushed in portions. Holds one section and what was pushed last.
pub struct CarReader {
    held: BytesMut,
    state: State,
    verifies: bool,
    version: u64,
    /// Bytes of sections left, where version 2 says it.
    left: Option<u64>,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Header,
    V2Header,
    /// So many bytes up to the inner version 1 header.
    Skip(u64),
    Sections,
    /// What follows is no business of ours (the index of version 2).
    Over,
}

impl Default for CarReader {
    fn default() -> CarReader {
        CarReader::new()
    }
}

impl CarReader {
    /// A reader that verifies every block.
    pub fn new() -> CarReader {
        CarReader { held: BytesMut::new(), state: State::Header, verifies: true, version: 1, left: None }
    }

    /// A reader for callers that verify the blocks themselves, on several cores.
    pub fn unverified() -> CarReader {
        CarReader { verifies: false, ..CarReader::new() }
    }

    /// Adds bytes of the stream; take what they give by [`CarReader::next_item`] before adding more.
    pub fn push(&mut self, data: &[u8]) {
        if self.state != State::Over {
            self.held.extend_from_slice(data);
        }
    }

    /// The next piece; `None` when more bytes are needed.
    pub fn next_item(&mut self) -> Result<Option<CarItem>, CarError> {
        loop {
            match self.state {
                State::Header => return Ok(self.read_header()?.map(CarItem::Header)),
                State::V2Header if self.held.len() < V2_HEADER => return Ok(None),
                State::V2Header => self.read_v2_header()?,
                State::Skip(bytes) => {
                    let skipped = bytes.min(self.held.len() as u64);
                    self.held.advance(skipped as usize);
                    if skipped < bytes {
                        self.state = State::Skip(bytes - skipped);
                        return Ok(None);
                    }
                    self.state = State::Header;
                }
                State::Sections if self.left == Some(0) => {
                    self.state = State::Over;
                    self.held.clear();
                }
                State::Sections => return Ok(self.read_section()?.map(CarItem::Block)),
                State::Over => return Ok(None),
            }
        }
    }

    /// Checks that the stream did not end inside a piece. All pieces must have been taken.
    pub fn finish(&self) -> Result<(), CarError> {
        let is_whole = match self.state {
            State::Sections => self.held.is_empty() && self.left.is_none_or(|left| left == 0),
            State::Over => true,
            State::Header | State::V2Header | State::Skip(_) => false,
        };
        if is_whole { Ok(()) } else { Err(DecodeError::truncated(WHAT).into()) }
    }

    fn read_header(&mut self) -> Result<Option<CarHeader>, CarError> {
        let Some(bytes) = self.take_piece(HEADER_MAX)? else { return Ok(None) };
        let header = parse_header(&bytes)?;
        let is_inner = self.version == 2;
        match header.version {
            1 => {
                self.state = State::Sections;
                Ok(Some(CarHeader { version: self.version, roots: header.roots }))
            }
            2 if !is_inner => {
                self.version = 2;
                self.state = State::V2Header;
                self.header_of_v2()
            }
            version => Err(CarError::Version(version)),
        }
    }

    /// The header of version 2 has only one meaning for the caller: the roots of the inner stream.
    fn header_of_v2(&mut self) -> Result<Option<CarHeader>, CarError> {
        match self.next_item()? {
            Some(CarItem::Header(header)) => Ok(Some(header)),
            _ => Ok(None),
        }
    }

    fn read_v2_header(&mut self) -> Result<(), CarError> {
        let mut header = self.held.split_to(V2_HEADER);
        header.advance(16);
        let (start, size) = (header.get_u64_le(), header.get_u64_le());
        let before = (V2_PRAGMA + V2_HEADER) as u64;
        let skip = start.checked_sub(before).ok_or_else(|| DecodeError::malformed(WHAT, "content that begins within the header"))?;
        self.left = (size > 0).then_some(size);
        self.state = State::Skip(skip);
        Ok(())
    }

    fn read_section(&mut self) -> Result<Option<Block>, CarError> {
        let Some(bytes) = self.take_piece(SECTION_MAX)? else { return Ok(None) };
        if bytes.is_empty() {
            return Err(DecodeError::malformed(WHAT, "empty section").into());
        }
        let mut rest = &bytes[..];
        let cid = Cid::read_bytes(&mut rest).map_err(|error| DecodeError::Link(error.to_string()))?;
        let data = bytes.slice(bytes.len() - rest.len()..);
        if data.len() > MAX_BLOCK {
            return Err(CarError::TooBig { length: data.len() as u64 });
        }
        if self.verifies {
            verify(&cid, &data)?;
        }
        Ok(Some(Block { cid, data }))
    }

    /// A piece with its length before it; `None` when it is not whole yet.
    fn take_piece(&mut self, most: usize) -> Result<Option<Bytes>, CarError> {
        let Some((length, used)) = varint(&self.held) else {
            let is_broken = self.held.len() >= 10;
            return if is_broken { Err(DecodeError::malformed(WHAT, "length over 64 bits").into()) } else { Ok(None) };
        };
        if length > most as u64 {
            return Err(CarError::TooBig { length });
        }
        let whole = used + length as usize;
        if self.held.len() < whole {
            self.held.reserve(whole - self.held.len());
            return Ok(None);
        }
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(whole as u64).ok_or_else(|| DecodeError::malformed(WHAT, "section beyond the content"))?;
        }
        self.held.advance(used);
        Ok(Some(self.held.split_to(length as usize).freeze()))
    }
}

fn parse_header(bytes: &[u8]) -> Result<CarHeader, CarError> {
    const WHAT: &str = "CAR header";
    let mut reader = Reader::new(bytes);
    let Head::Map(pairs) = reader.head()? else { return Err(DecodeError::malformed(WHAT, "not a map").into()) };
    let (mut version, mut roots) = (None, Vec::new());
    for _ in 0..pairs.min(3) {
        match (reader.head()?, reader.head()?) {
            (Head::Text(b"version"), Head::Unsigned(number)) => version = Some(number),
            (Head::Text(b"roots"), Head::List(length)) => roots = parse_roots(&mut reader, length)?,
            _ => return Err(DecodeError::malformed(WHAT, "entry that does not exist").into()),
        }
    }
    if reader.left() > 0 {
        return Err(DecodeError::malformed(WHAT, "bytes after the map").into());
    }
    let version = version.ok_or_else(|| DecodeError::malformed(WHAT, "no version"))?;
    Ok(CarHeader { version, roots })
}

fn parse_roots(reader: &mut Reader<'_>, length: u64) -> Result<Vec<Cid>, CarError> {
    if length > ROOTS_MAX as u64 {
        return Err(DecodeError::too_much("roots of a CAR", ROOTS_MAX).into());
    }
    let mut roots = Vec::new();
    for _ in 0..length {
        let Head::Link(cid) = reader.head()? else { return Err(DecodeError::malformed("CAR header", "root that is no link").into()) };
        roots.push(cid);
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::car::{header, section};
    use crate::{HashFn, codec};

    fn block(text: &str) -> Block {
        Block::new(codec::RAW, HashFn::SHA2_256, Bytes::from(text.to_owned())).expect("known")
    }

    fn stream(roots: &[Cid], blocks: &[Block]) -> Vec<u8> {
        let sections = blocks.iter().flat_map(section).map(|part| part.to_vec());
        std::iter::once(header(roots)).chain(sections).collect::<Vec<_>>().concat()
    }

    fn v2(inner: &[u8], gap: usize, size: u64) -> Vec<u8> {
        let start = (V2_PRAGMA + V2_HEADER + gap) as u64;
        let pragma = [&[10, 0xa1, 0x67][..], b"version", &[2]].concat();
        [&pragma, &[0; 16][..], &start.to_le_bytes(), &size.to_le_bytes(), &[0; 8], &vec![0; gap], inner].concat()
    }

    fn read(stream: &[u8], portion: usize) -> Result<(CarHeader, Vec<Block>), CarError> {
        let mut reader = CarReader::new();
        let (mut header, mut blocks) = (None, Vec::new());
        for portion in stream.chunks(portion) {
            reader.push(portion);
            while let Some(item) = reader.next_item()? {
                match item {
                    CarItem::Header(found) => assert!(header.replace(found).is_none()),
                    CarItem::Block(block) => blocks.push(block),
                }
            }
        }
        reader.finish()?;
        Ok((header.expect("finished"), blocks))
    }

    #[test]
    fn streams_go_round_in_any_portions() {
        let blocks: Vec<Block> = ["", "one", &"x".repeat(70_000)].map(block).into();
        for roots in [vec![], vec![blocks[0].cid], vec![blocks[1].cid; 300]] {
            let one = stream(&roots, &blocks);
            let two = [v2(&one, 5, one.len() as u64), b"an index".to_vec()].concat();
            let open_end = v2(&one, 0, 0);
            for portion in [1000, 77, 1_000_000] {
                assert_eq!(read(&one, portion), Ok((CarHeader { version: 1, roots: roots.clone() }, blocks.clone())));
                assert_eq!(read(&two, portion), Ok((CarHeader { version: 2, roots: roots.clone() }, blocks.clone())));
                assert_eq!(read(&open_end, portion), Ok((CarHeader { version: 2, roots: roots.clone() }, blocks.clone())));
            }
        }
        let small = stream(&[blocks[1].cid], &blocks[..2]);
        assert_eq!(read(&small, 1).map(|(_, blocks)| blocks.len()), Ok(2));
    }

    #[test]
    fn streams_cut_short_are_noticed() {
        let blocks = [block("one"), block("two")];
        let whole = stream(&[blocks[0].cid], &blocks);
        let ends: Vec<usize> = (0..=whole.len()).filter(|end| read_all(&whole[..*end])).collect();
        // After the header and after each block a stream may end.
        assert_eq!(ends.len(), 3);
    }

    fn read_all(stream: &[u8]) -> bool {
        !stream.is_empty() && read(stream, 1 << 20).is_ok()
    }

    #[test]
    fn forged_blocks_are_refused() {
        let good = block("one");
        let forged = Block { cid: good.cid, data: Bytes::from_static(b"two") };
        let stream = stream(&[good.cid], &[forged]);
        assert_eq!(read(&stream, 10), Err(CarError::Verify(HashMismatch::Differs { cid: good.cid })));
        let mut reader = CarReader::unverified();
        reader.push(&stream);
        assert!(matches!(reader.next_item(), Ok(Some(CarItem::Header(_)))));
        assert!(matches!(reader.next_item(), Ok(Some(CarItem::Block(_)))));
    }

    #[test]
    fn broken_streams_are_refused() {
        let good = stream(&[block("one").cid], &[]);
        for (tail, is_too_big) in [(&[0][..], false), (&[0xff; 10], false), (&[0xff, 0xff, 0xff, 0x7f], true), (&[2, 1, 1], false)] {
            let error = read(&[&good, tail].concat(), 100).expect_err("broken");
            assert_eq!(matches!(error, CarError::TooBig { .. }), is_too_big, "{tail:?}");
        }
        for header in [&b"\x00"[..], b"\x01\xa0", b"\x0a\xa1\x67version\x03", b"\x02\xa0\x00", b"\xff\xff\xff\x01"] {
            assert!(read(header, 100).is_err(), "{header:?}");
        }
        let nested = v2(&v2(&good, 0, 0), 0, 0);
        assert_eq!(read(&nested, 100), Err(CarError::Version(2)));
        let backwards = [&v2(&good, 0, 0)[..27], &[0; 24], &good].concat();
        assert!(read(&backwards, 100).is_err());
        let too_short = v2(&stream(&[], &[block("one")]), 0, 20);
        assert!(read(&too_short, 100).is_err());
    }
}
