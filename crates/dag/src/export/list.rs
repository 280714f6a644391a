//! The entries of a directory, plain or spread over a hash trie.

use super::ExportError;
use crate::block::inline_data;
use crate::hamt::Shape;
use crate::unixfs::{Kind, Stat, UnixFs};
use crate::{codec, pb};
use types::Cid;

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name, any bytes.
    pub name: Vec<u8>,
    /// What it points to.
    pub cid: Cid,
    /// Bytes of all blocks below, as the directory claims.
    pub tsize: u64,
}

/// What a [`DirectoryReader`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListStep {
    /// Bring this block.
    Need(Cid),
    /// An entry: by name in a plain directory, in a trie by the hashes of names.
    Entry(Entry),
    /// All entries were given.
    Done,
}

/// Lists a directory. Holds the entries of one block, in a trie those of one block for each level.
pub struct DirectoryReader {
    /// What is left, first last.
    parts: Vec<Part>,
    shape: Option<Shape>,
    stat: Stat,
}

enum Part {
    Node { cid: Cid, depth: u32 },
    Entry(Entry),
}

impl DirectoryReader {
    /// Lists the directory under `root`.
    pub fn new(root: Cid) -> DirectoryReader {
        DirectoryReader { parts: vec![Part::Node { cid: root, depth: 0 }], shape: None, stat: Stat::default() }
    }

    /// What comes next. Until a needed block is given, the answer stays the same.
    pub fn step(&mut self) -> Result<ListStep, ExportError> {
        loop {
            match self.parts.pop() {
                None => return Ok(ListStep::Done),
                Some(Part::Entry(entry)) => return Ok(ListStep::Entry(entry)),
                Some(Part::Node { cid, depth }) => match inline_data(&cid) {
                    Some(data) => self.open(&cid, data, depth)?,
                    None => {
                        self.parts.push(Part::Node { cid, depth });
                        return Ok(ListStep::Need(cid));
                    }
                },
            }
        }
    }

    /// Takes the block that is needed.
    pub fn give(&mut self, cid: &Cid, data: &[u8]) -> Result<(), ExportError> {
        match self.parts.pop() {
            Some(Part::Node { cid: needed, depth }) if needed == *cid => self.open(cid, data, depth),
            other => {
                self.parts.extend(other);
                Err(ExportError::Unwanted { cid: Box::new(*cid) })
            }
        }
    }

    /// The shards that will be needed next, as far as they are known: for fetching ahead.
    pub fn upcoming(&self, at_most: usize) -> Vec<Cid> {
        let needed = |part: &Part| match part {
            Part::Node { cid, .. } if inline_data(cid).is_none() => Some(*cid),
            _ => None,
        };
        self.parts.iter().rev().filter_map(needed).take(at_most).collect()
    }

    /// Mode and time of the directory, known once the root was given.
    pub fn stat(&self) -> Stat {
        self.stat
    }

    fn open(&mut self, cid: &Cid, block: &[u8], depth: u32) -> Result<(), ExportError> {
        let node = read_node(cid, block)?;
        let unixfs = UnixFs::decode(node.data.unwrap_or_default()).map_err(ExportError::decode(cid))?;
        if depth == 0 {
            self.stat = unixfs.stat;
        }
        match unixfs.kind {
            Kind::Directory if depth == 0 => {
                self.parts.extend(node.links.iter().rev().map(|link| Part::Entry(entry(link, link.name))));
                Ok(())
            }
            Kind::HamtShard => self.open_shard(cid, &node, &unixfs, depth),
            _ => Err(ExportError::NotADirectory { cid: Box::new(*cid) }),
        }
    }

    fn open_shard(&mut self, cid: &Cid, node: &pb::Node<'_>, unixfs: &UnixFs<'_>, depth: u32) -> Result<(), ExportError> {
        let shape = Shape::of(unixfs).map_err(ExportError::decode(cid))?;
        check_shard(cid, node, shape, *self.shape.get_or_insert(shape), depth)?;
        for link in node.links.iter().rev() {
            let name = link.name.get(shape.prefix_length()..);
            let name = name.ok_or_else(|| ExportError::malformed(cid, "directory shard", "name without its slot"))?;
            let is_shard = name.is_empty();
            self.parts.push(if is_shard { Part::Node { cid: link.cid, depth: depth + 1 } } else { Part::Entry(entry(link, name)) });
        }
        Ok(())
    }
}

/// All shards of a directory are of one shape, and there are only so many levels as a hash has bits.
pub(crate) fn check_shard(cid: &Cid, node: &pb::Node<'_>, shape: Shape, of_root: Shape, depth: u32) -> Result<(), ExportError> {
    if shape != of_root || node.links.len() > shape.width() {
        return Err(ExportError::malformed(cid, "directory shard", "width unlike that of the directory"));
    }
    if shape.slot(0, depth).is_none() { Err(ExportError::too_deep(cid)) } else { Ok(()) }
}

pub(super) fn read_node<'a>(cid: &Cid, block: &'a [u8]) -> Result<pb::Node<'a>, ExportError> {
    if cid.codec() != codec::DAG_PB {
        return Err(ExportError::NotADirectory { cid: Box::new(*cid) });
    }
    pb::Node::decode(block).map_err(ExportError::decode(cid))
}

fn entry(link: &pb::Link<'_>, name: &[u8]) -> Entry {
    Entry { name: name.to_vec(), cid: link.cid, tsize: link.tsize }
}
