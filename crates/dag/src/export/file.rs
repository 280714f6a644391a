//! The bytes of a file, or of a range of it, in order.

use super::ExportError;
use crate::block::inline_data;
use crate::unixfs::{Kind, Stat, UnixFs};
use crate::{codec, pb};
use bytes::Bytes;
use std::ops::Range;
use types::Cid;

/// Levels of a file; a balanced one of 174 links a node needs 9 for any size.
const DEPTH_MAX: u32 = 64;
/// Parts that wait to be read.
const QUEUE_MAX: usize = 1 << 18;

/// What a [`FileReader`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileStep {
    /// Bring this block.
    Need(Cid),
    /// The next bytes of the range.
    Data(Bytes),
    /// All bytes were given.
    Done,
}

/// Reads a range of a file.
pub struct FileReader {
    range: Range<u64>,
    /// What is left, first part last.
    parts: Vec<Part>,
    size: Option<u64>,
    stat: Stat,
}

enum Part {
    Node { cid: Cid, start: u64, size: Option<u64>, depth: u32 },
    Data(Bytes),
}

/// A file node, taken apart.
struct FileNode {
    data: Bytes,
    children: Vec<(Cid, u64)>,
    size: u64,
    stat: Stat,
}

impl FileReader {
    /// Reads `range` of the file under `root`; a range beyond the end is cut, so `0..u64::MAX` is the whole file.
    pub fn new(root: Cid, range: Range<u64>) -> FileReader {
        let parts = vec![Part::Node { cid: root, start: 0, size: None, depth: 0 }];
        FileReader { range, parts, size: None, stat: Stat::default() }
    }

    /// What comes next. Until a needed block is given, the answer stays the same.
    pub fn step(&mut self) -> Result<FileStep, ExportError> {
        loop {
            match self.parts.pop() {
                None => return Ok(FileStep::Done),
                Some(Part::Data(data)) => return Ok(FileStep::Data(data)),
                Some(Part::Node { cid, start, size, depth }) => match inline_data(&cid) {
                    Some(data) => self.open(&cid, &Bytes::copy_from_slice(data), start, size, depth)?,
                    None => {
                        self.parts.push(Part::Node { cid, start, size, depth });
                        return Ok(FileStep::Need(cid));
                    }
                },
            }
        }
    }

    /// Takes the block that is needed.
    pub fn give(&mut self, cid: &Cid, data: &Bytes) -> Result<(), ExportError> {
        match self.parts.pop() {
            Some(Part::Node { cid: needed, start, size, depth }) if needed == *cid => self.open(cid, data, start, size, depth),
            other => {
                self.parts.extend(other);
                Err(ExportError::Unwanted { cid: Box::new(*cid) })
            }
        }
    }

    /// The blocks that will be needed next, in order, as far as they are known: for fetching ahead. Inner nodes are among them.
    pub fn upcoming(&self, at_most: usize) -> Vec<Cid> {
        let needed = |part: &Part| match part {
            Part::Node { cid, .. } if inline_data(cid).is_none() => Some(*cid),
            _ => None,
        };
        self.parts.iter().rev().filter_map(needed).take(at_most).collect()
    }

    /// The size of the whole file, known once the root was given.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// Mode and time of the file, known once the root was given.
    pub fn stat(&self) -> Stat {
        self.stat
    }

    fn open(&mut self, cid: &Cid, block: &Bytes, start: u64, expected: Option<u64>, depth: u32) -> Result<(), ExportError> {
        let node = read_node(cid, block)?;
        if let Some(expected) = expected.filter(|expected| *expected != node.size) {
            return Err(ExportError::WrongSize { cid: Box::new(*cid), expected, found: node.size });
        }
        if depth == 0 {
            self.size = Some(node.size);
            self.stat = node.stat;
        }
        if depth > DEPTH_MAX || self.parts.len() + node.children.len() > QUEUE_MAX {
            return Err(ExportError::too_deep(cid));
        }
        self.push_children(&node, start, depth);
        if let Some(within) = overlap(&self.range, start, node.data.len() as u64) {
            self.parts.push(Part::Data(node.data.slice(within)));
        }
        Ok(())
    }

    /// Children outside the range, and empty ones, are never read.
    fn push_children(&mut self, node: &FileNode, start: u64, depth: u32) {
        let mut end = start + node.size;
        for (cid, size) in node.children.iter().rev() {
            end -= size;
            if overlap(&self.range, end, *size).is_some() {
                self.parts.push(Part::Node { cid: *cid, start: end, size: Some(*size), depth: depth + 1 });
            }
        }
    }
}

/// The part of `range` that lies within the `size` bytes from `start`, counted from there; `None` when empty.
fn overlap(range: &Range<u64>, start: u64, size: u64) -> Option<Range<usize>> {
    let from = range.start.max(start);
    let to = range.end.min(start.saturating_add(size));
    (from < to).then(|| (from - start) as usize..(to - start) as usize)
}

fn read_node(cid: &Cid, block: &Bytes) -> Result<FileNode, ExportError> {
    match cid.codec() {
        codec::RAW => Ok(FileNode { data: block.clone(), children: Vec::new(), size: block.len() as u64, stat: Stat::default() }),
        codec::DAG_PB => read_pb_node(cid, block),
        codec => Err(ExportError::Codec { cid: Box::new(*cid), codec }),
    }
}

fn read_pb_node(cid: &Cid, block: &Bytes) -> Result<FileNode, ExportError> {
    let node = pb::Node::decode(block).map_err(ExportError::decode(cid))?;
    let unixfs = UnixFs::decode(node.data.unwrap_or_default()).map_err(ExportError::decode(cid))?;
    if !matches!(unixfs.kind, Kind::File | Kind::Raw) {
        return Err(ExportError::NotAFile { cid: Box::new(*cid), kind: unixfs.kind });
    }
    if unixfs.blocksizes.len() != node.links.len() {
        return Err(ExportError::malformed(cid, "file", "not as many sizes as links"));
    }
    let data = unixfs.data.map_or_else(Bytes::new, |data| block.slice_ref(data));
    let sum = unixfs.blocksizes.iter().try_fold(data.len() as u64, |sum, size| sum.checked_add(*size));
    let size = sum.filter(|sum| *sum <= i64::MAX as u64).ok_or_else(|| ExportError::malformed(cid, "file", "sizes beyond 63 bits"))?;
    let children = node.links.iter().map(|link| link.cid).zip(unixfs.blocksizes).collect();
    Ok(FileNode { data, children, size, stat: unixfs.stat })
}

/// Returns the size of the file whose root block this is; `None` when it is a directory or nothing of UnixFS.
pub fn file_size(cid: &Cid, block: &[u8]) -> Option<u64> {
    match cid.codec() {
        codec::RAW => Some(block.len() as u64),
        codec::DAG_PB => {
            let data = pb::scan(block, |_| Ok(())).ok()??;
            UnixFs::decode(data).ok()?.file_size()
        }
        _ => None,
    }
}
