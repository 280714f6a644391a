//! CAR version 2: version 1 with a head before it and an index behind it, so that single blocks can be read from a file.

use super::read::SECTION_MAX;
use super::{CarError, IndexBuilder, header, section};
use crate::pb::wire::varint;
use crate::{Block, DecodeError, MAX_BLOCK};
use bytes::{Buf, Bytes};
use types::Cid;

/// The bytes before the inner version 1 in archives made here.
pub const V2_HEAD: usize = PRAGMA.len() + FIXED;

const PRAGMA: [u8; 11] = *b"\x0a\xa1\x67version\x02";
const FIXED: usize = 40;
const WHAT: &str = "CAR version 2";

/// Writes version 2 into a file. The head tells sizes, so it is known last: leave [`V2_HEAD`] bytes free and fill them at the end.
pub struct V2Writer {
    index: IndexBuilder,
    /// Bytes of the inner version 1 so far.
    size: u64,
}

/// What is written last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct V2End {
    /// Goes to the very beginning of the file.
    pub head: [u8; V2_HEAD],
    /// Goes behind the last block.
    pub index: Vec<u8>,
}

impl V2Writer {
    /// Begins an archive; the bytes go to [`V2_HEAD`] on.
    pub fn new(roots: &[Cid]) -> (V2Writer, Vec<u8>) {
        let first = header(roots);
        (V2Writer { index: IndexBuilder::default(), size: first.len() as u64 }, first)
    }

    /// The next block as it is written: head and bytes, the latter shared.
    pub fn section(&mut self, block: &Block) -> [Bytes; 2] {
        let section = section(block);
        self.index.add(&block.cid, self.size);
        self.size += section.iter().map(|part| part.len() as u64).sum::<u64>();
        section
    }

    /// Ends the archive.
    pub fn finish(self) -> V2End {
        let range = V2Range { start: V2_HEAD as u64, size: self.size, index: Some(V2_HEAD as u64 + self.size) };
        V2End { head: range.encode(), index: self.index.finish() }
    }
}

/// Where the parts of an archive lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct V2Range {
    /// Where the inner version 1 begins.
    pub start: u64,
    /// How long it is.
    pub size: u64,
    /// Where the index begins, if there is one; it goes to the end of the file.
    pub index: Option<u64>,
}

impl V2Range {
    /// Reads the first [`V2_HEAD`] bytes of a file; `None` if it is not version 2.
    pub fn parse(head: &[u8]) -> Result<Option<V2Range>, CarError> {
        let Some(mut fixed) = head.strip_prefix(&PRAGMA) else { return Ok(None) };
        if fixed.len() < FIXED {
            return Err(DecodeError::truncated(WHAT).into());
        }
        fixed.advance(16);
        let (start, size, index) = (fixed.get_u64_le(), fixed.get_u64_le(), fixed.get_u64_le());
        let index = Some(index).filter(|index| *index != 0);
        let end = start.checked_add(size);
        let is_sound = start >= V2_HEAD as u64 && end.is_some_and(|end| index.is_none_or(|index| index >= end));
        if is_sound { Ok(Some(V2Range { start, size, index })) } else { Err(DecodeError::malformed(WHAT, "parts over each other").into()) }
    }

    /// Where in the file a block lies that the index has at `offset`; `None` if that is outside the inner version 1.
    pub fn place(&self, offset: u64) -> Option<u64> {
        (offset < self.size).then(|| self.start + offset)
    }

    fn encode(&self) -> [u8; V2_HEAD] {
        let mut head = [0; V2_HEAD];
        head[..11].copy_from_slice(&PRAGMA);
        head[27..35].copy_from_slice(&self.start.to_le_bytes());
        head[35..43].copy_from_slice(&self.size.to_le_bytes());
        head[43..51].copy_from_slice(&self.index.unwrap_or_default().to_le_bytes());
        head
    }
}

/// A block read by its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SectionAt {
    /// So many bytes from the place on are needed in all.
    More(usize),
    /// The block, not verified.
    Block(Block),
}

/// Reads the block at the beginning of `data`, which may go on behind it. Verify it against the CID that was looked for.
pub fn section_at(data: &Bytes) -> Result<SectionAt, CarError> {
    let Some((length, used)) = varint(data) else {
        return if data.len() < 10 { Ok(SectionAt::More(10)) } else { Err(DecodeError::malformed(WHAT, "length over 64 bits").into()) };
    };
    if length > SECTION_MAX as u64 {
        return Err(CarError::TooBig { length });
    }
    let whole = used + length as usize;
    if data.len() < whole {
        return Ok(SectionAt::More(whole));
    }
    let section = data.slice(used..whole);
    let mut rest = &section[..];
    let cid = Cid::read_bytes(&mut rest).map_err(|error| DecodeError::Link(error.to_string()))?;
    let data = section.slice(section.len() - rest.len()..);
    if data.len() > MAX_BLOCK { Err(CarError::TooBig { length }) } else { Ok(SectionAt::Block(Block { cid, data })) }
}
