//! Following a path from a root, block by block.

use super::ExportError;
use super::list::{check_shard, read_node};
use crate::block::inline_data;
use crate::cbor;
use crate::codec;
use crate::hamt::{Shape, hash_name};
use crate::pb;
use crate::unixfs::{Kind, UnixFs};
use types::Cid;

/// Parts of a path.
pub const SEGMENTS_MAX: usize = 1024;

/// What a [`Resolver`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolve {
    /// Bring this block.
    Need(Cid),
    /// The path leads here.
    Found(Found),
    /// There is nothing of this name.
    NotFound {
        /// Which part of the path, counted from 0.
        segment: usize,
        /// Its name.
        name: Vec<u8>,
        /// Where it was looked for.
        under: Cid,
    },
}

/// The end of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The block it leads to.
    pub cid: Cid,
    /// The roots on the way: the first one, then one for each part that was a link (gateways show them). Shards are not among them.
    pub roots: Vec<Cid>,
    /// Parts at the end of the path that stay inside the block: dag-cbor values that are no links.
    pub inside: usize,
}

/// Follows a path: names of UnixFS directories, links of other dag-pb nodes, keys and indices of dag-cbor.
pub struct Resolver {
    segments: Vec<Vec<u8>>,
    /// The next part to follow.
    at: usize,
    roots: Vec<Cid>,
    /// Within a hash trie: the shard to read and how deep it lies.
    shard: Option<Shard>,
    end: Option<Resolve>,
}

struct Shard {
    cid: Cid,
    shape: Shape,
    depth: u32,
}

impl Resolver {
    /// Follows `path` (parts divided by `/`, empty ones ignored) from `root`. Too long a path is not found.
    pub fn new(root: Cid, path: &[u8]) -> Resolver {
        let parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty());
        let segments: Vec<Vec<u8>> = parts.take(SEGMENTS_MAX + 1).map(<[u8]>::to_vec).collect();
        let too_long = Resolve::NotFound { segment: SEGMENTS_MAX, name: Vec::new(), under: root };
        let end = (segments.len() > SEGMENTS_MAX).then_some(too_long);
        Resolver { segments, at: 0, roots: vec![root], shard: None, end }
    }

    /// What comes next. Until a needed block is given, the answer stays the same.
    pub fn step(&mut self) -> Result<Resolve, ExportError> {
        loop {
            if let Some(end) = &self.end {
                return Ok(end.clone());
            }
            let cid = self.here();
            if self.at == self.segments.len() && self.shard.is_none() {
                return Ok(self.found(0));
            }
            match inline_data(&cid) {
                Some(data) => self.open(&cid, data)?,
                None => return Ok(Resolve::Need(cid)),
            }
        }
    }

    /// Takes the block that is needed.
    pub fn give(&mut self, cid: &Cid, data: &[u8]) -> Result<(), ExportError> {
        if self.here() != *cid || self.end.is_some() || self.at == self.segments.len() {
            return Err(ExportError::Unwanted { cid: Box::new(*cid) });
        }
        self.open(cid, data)
    }

    fn here(&self) -> Cid {
        self.shard.as_ref().map_or_else(|| self.roots[self.roots.len() - 1], |shard| shard.cid)
    }

    fn found(&self, inside: usize) -> Resolve {
        let cid = self.roots[self.roots.len() - 1];
        Resolve::Found(Found { cid, roots: self.roots.clone(), inside })
    }

    fn open(&mut self, cid: &Cid, block: &[u8]) -> Result<(), ExportError> {
        match cid.codec() {
            codec::DAG_PB => self.open_pb(cid, block),
            codec::DAG_CBOR => self.open_cbor(cid, block),
            _ => {
                self.miss(self.at);
                Ok(())
            }
        }
    }

    fn open_pb(&mut self, cid: &Cid, block: &[u8]) -> Result<(), ExportError> {
        let node = read_node(cid, block)?;
        let unixfs = node.data.and_then(|data| UnixFs::decode(data).ok());
        match unixfs {
            Some(unixfs) if unixfs.kind == Kind::HamtShard => self.open_shard(cid, &node, &unixfs),
            _ if self.shard.is_some() => Err(ExportError::malformed(cid, "directory shard", "not a shard")),
            _ => {
                let name = &self.segments[self.at];
                let target = node.links.iter().find(|link| link.name == name).map(|link| link.cid);
                self.follow(target, 1);
                Ok(())
            }
        }
    }

    fn open_shard(&mut self, cid: &Cid, node: &pb::Node<'_>, unixfs: &UnixFs<'_>) -> Result<(), ExportError> {
        let shape = Shape::of(unixfs).map_err(ExportError::decode(cid))?;
        let (of_root, depth) = self.shard.as_ref().map_or((shape, 0), |shard| (shard.shape, shard.depth));
        check_shard(cid, node, shape, of_root, depth)?;
        let name = &self.segments[self.at];
        let slot = shape.slot(hash_name(name), depth).ok_or_else(|| ExportError::too_deep(cid))?;
        let prefix = shape.prefix(slot);
        let link = node.links.iter().find(|link| link.name.starts_with(&prefix));
        match link {
            Some(link) if link.name.len() == prefix.len() => self.shard = Some(Shard { cid: link.cid, shape, depth: depth + 1 }),
            Some(link) if link.name[prefix.len()..] == name[..] => self.follow(Some(link.cid), 1),
            _ => self.miss(self.at),
        }
        Ok(())
    }

    fn open_cbor(&mut self, cid: &Cid, block: &[u8]) -> Result<(), ExportError> {
        let left = &self.segments[self.at..];
        match cbor::follow(block, left).map_err(ExportError::decode(cid))? {
            cbor::Followed::Link { cid, used } => self.follow(Some(cid), used),
            cbor::Followed::Inside => self.end = Some(self.found(left.len())),
            cbor::Followed::Missing { used } => self.miss(self.at + used),
        }
        Ok(())
    }

    fn follow(&mut self, target: Option<Cid>, used: usize) {
        match target {
            Some(cid) => {
                self.shard = None;
                self.at += used;
                self.roots.push(cid);
            }
            None => self.miss(self.at),
        }
    }

    fn miss(&mut self, segment: usize) {
        let under = self.roots[self.roots.len() - 1];
        self.end = Some(Resolve::NotFound { segment, name: self.segments[segment].clone(), under });
    }
}
