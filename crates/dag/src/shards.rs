//! Cutting a stream of blocks into shards: lists of complete sub-DAGs that any IPFS node can hold by an ordinary recursive pin.
//!
//! ```text
//!   head (dag-cbor map) ──raw──► list of shard 1, 2, 3 ...        list (dag-cbor) ──► whole files, or whole subtrees of a large file
//!        └─────────────raw──► spine: nodes above the cuts
//! ```
//!
//! Blocks come in any order. A block whose links all lie complete in the open shard completes a sub-DAG and joins it; any other is
//! *spine*. Spine blocks are linked under the raw codec: a block is stored by its hash, so an ordinary recursive pin keeps exactly
//! them and does not follow their links. As long as nothing was cut, everything is one DAG with one root and an ordinary pin.

use crate::{Block, DecodeError, HashFn, block::inline_data, cbor, codec};
use bytes::Bytes;
use std::collections::HashMap;
use types::Cid;

/// Links of one list; a list stays below 1 MiB, the largest block that every node takes.
const LINKS_MOST: usize = 20_000;
/// A link takes so many bytes in a list, usually.
const LINK_BYTES: u64 = 44;
/// Bytes of spine kept in memory before they become a unit of their own.
const SPINE_MOST: u64 = 8 << 20;
/// Inner nodes complete what lies in the open shard in the last part of its room, at most so much.
const SLACK_MOST: u64 = 4 << 20;

/// A closed shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// The list block; its recursive pin holds the shard.
    pub list: Block,
    /// Bytes of its blocks, the list among them.
    pub bytes: u64,
}

/// What is to be done with a block, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cut {
    /// It goes into the open unit.
    Block(Block),
    /// The open unit is full: this list is its last block, what follows goes into the next.
    Full(Shard),
    /// So much spine was gathered that it becomes a unit of its own.
    Spine(Shard, Vec<Block>),
}

/// How a cutting ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Everything fitted into one unit: nothing was cut.
    Whole,
    /// It was cut.
    Parts {
        /// What is left in the open unit.
        last: Option<Shard>,
        /// The spine that is not in a unit of its own yet.
        spine: Vec<Block>,
    },
}

/// Cuts a stream of blocks.
#[derive(Debug)]
pub struct Cutter {
    limit: u64,
    /// What lies complete in the open unit; with its place among the tops, unless it is below another.
    inside: HashMap<Key, Option<usize>>,
    tops: Vec<Option<Cid>>,
    tops_count: usize,
    bytes: u64,
    spine: Vec<Block>,
    spine_bytes: u64,
    has_cut: bool,
}

type Key = [u8; 17];

impl Cutter {
    /// Units of at most `limit` bytes (one block more where a single block is larger).
    pub fn new(limit: u64) -> Cutter {
        Cutter {
            limit,
            inside: HashMap::new(),
            tops: Vec::new(),
            tops_count: 0,
            bytes: 0,
            spine: Vec::new(),
            spine_bytes: 0,
            has_cut: false,
        }
    }

    /// Units have at most so many bytes from now on; the open one is closed with the next leaf if it has more.
    pub fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// Whether a unit was closed.
    pub fn has_cut(&self) -> bool {
        self.has_cut
    }

    /// Takes the next block.
    pub fn push(&mut self, block: Block, out: &mut Vec<Cut>) -> Result<(), DecodeError> {
        if self.inside.contains_key(&key(&block.cid)) || inline_data(&block.cid).is_some() {
            return Ok(());
        }
        let links = crate::links(&block.cid, &block.data)?;
        let size = block.data.len() as u64;
        let is_leaf = links.is_empty();
        let completes = links.iter().all(|link| self.has(link)) && self.used() + size + LINK_BYTES <= self.limit;
        if !is_leaf && !completes {
            return self.push_spine(block, out);
        }
        let soft = self.limit - SLACK_MOST.min(self.limit / 16);
        let is_full = is_leaf && (self.used() + size + LINK_BYTES > soft || self.tops_count >= LINKS_MOST);
        if is_full && let Some(shard) = self.close()? {
            out.push(Cut::Full(shard));
        }
        for link in &links {
            if let Some(Some(place)) = self.inside.insert(key(link), None)
                && self.tops[place].take().is_some()
            {
                self.tops_count -= 1;
            }
        }
        self.inside.insert(key(&block.cid), Some(self.tops.len()));
        self.tops.push(Some(block.cid));
        self.tops_count += 1;
        self.bytes += size;
        out.push(Cut::Block(block));
        Ok(())
    }

    /// Closes what is open.
    pub fn finish(mut self) -> Result<End, DecodeError> {
        if !self.has_cut {
            return Ok(End::Whole);
        }
        let last = self.close()?;
        Ok(End::Parts { last, spine: self.spine })
    }

    fn push_spine(&mut self, block: Block, out: &mut Vec<Cut>) -> Result<(), DecodeError> {
        let size = block.data.len() as u64;
        let links = (self.spine.len() as u64 + 1) * LINK_BYTES;
        let is_full = self.spine_bytes + size + links > SPINE_MOST.min(self.limit) || self.spine.len() >= LINKS_MOST;
        if !self.spine.is_empty() && is_full {
            // A unit of spine makes shards of it all, so what is open becomes the first one.
            if !self.has_cut
                && let Some(shard) = self.close()?
            {
                out.push(Cut::Full(shard));
            }
            self.has_cut = true;
            let blocks = std::mem::take(&mut self.spine);
            let list = spine_list(&blocks)?;
            let bytes = std::mem::take(&mut self.spine_bytes) + list.data.len() as u64;
            out.push(Cut::Spine(Shard { list, bytes }, blocks));
        }
        if !self.has_cut {
            // Until something is cut, all of it lies with the first unit, for an ordinary pin.
            out.push(Cut::Block(block.clone()));
        }
        self.spine_bytes += size;
        self.spine.push(block);
        Ok(())
    }

    fn has(&self, link: &Cid) -> bool {
        match inline_data(link) {
            Some(_) => link.codec() == codec::RAW,
            None => self.inside.contains_key(&key(link)),
        }
    }

    /// Bytes of the open unit with its list.
    fn used(&self) -> u64 {
        self.bytes + self.tops_count as u64 * LINK_BYTES
    }

    fn close(&mut self) -> Result<Option<Shard>, DecodeError> {
        let tops: Vec<Cid> = std::mem::take(&mut self.tops).into_iter().flatten().collect();
        self.inside = HashMap::new();
        self.tops_count = 0;
        let bytes = std::mem::take(&mut self.bytes);
        if tops.is_empty() {
            return Ok(None);
        }
        self.has_cut = true;
        let list = list(&tops)?;
        let bytes = bytes + list.data.len() as u64;
        Ok(Some(Shard { list, bytes }))
    }
}

/// The list block over complete sub-DAGs.
pub fn list(tops: &[Cid]) -> Result<Block, DecodeError> {
    let mut data = Vec::with_capacity(tops.len() * LINK_BYTES as usize + 9);
    cbor::put_head(&mut data, 4, tops.len() as u64);
    tops.iter().for_each(|cid| cbor::put_link(&mut data, cid));
    node(data)
}

/// The list block over spine blocks, which it names without following their links.
pub fn spine_list(blocks: &[Block]) -> Result<Block, DecodeError> {
    list(&blocks.iter().map(|block| alone(&block.cid)).collect::<Vec<_>>())
}

/// The block itself, whatever it links to.
pub fn alone(cid: &Cid) -> Cid {
    Cid::new_v1(codec::RAW, *cid.hash())
}

/// What a head says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The root that people know.
    pub root: Cid,
    /// Bytes of the whole.
    pub size: u64,
    /// Lists of the shards and their bytes, in order.
    pub shards: Vec<(Cid, u64)>,
    /// Lists of units of spine.
    pub spines: Vec<(Cid, u64)>,
    /// The rest of the spine.
    pub spine: Vec<Cid>,
}

impl Head {
    /// The block; its recursive pin keeps the lists and the spine it names, and none of the content.
    pub fn block(&self) -> Result<Block, DecodeError> {
        let mut data = Vec::new();
        cbor::put_head(&mut data, 5, 5);
        cbor::put_text(&mut data, "root");
        cbor::put_text(&mut data, &self.root.to_string());
        cbor::put_text(&mut data, "size");
        cbor::put_head(&mut data, 0, self.size);
        cbor::put_text(&mut data, "spine");
        cbor::put_head(&mut data, 4, self.spine.len() as u64);
        self.spine.iter().for_each(|cid| cbor::put_link(&mut data, &alone(cid)));
        for (name, units) in [("shards", &self.shards), ("spines", &self.spines)] {
            cbor::put_text(&mut data, name);
            cbor::put_head(&mut data, 4, units.len() as u64);
            for (list, bytes) in units {
                cbor::put_head(&mut data, 4, 2);
                cbor::put_link(&mut data, &alone(list));
                cbor::put_head(&mut data, 0, *bytes);
            }
        }
        node(data)
    }
}

fn node(data: Vec<u8>) -> Result<Block, DecodeError> {
    if data.len() > crate::MAX_BLOCK {
        return Err(DecodeError::too_much("bytes in a list of shards", crate::MAX_BLOCK));
    }
    Block::new(codec::DAG_CBOR, HashFn::SHA2_256, Bytes::from(data)).map_err(|_| DecodeError::malformed("list of shards", "no hash"))
}

/// Tells blocks apart, and how their bytes are read.
fn key(cid: &Cid) -> Key {
    let digest = cid.hash().digest();
    let mut key = [0; 17];
    let length = digest.len().min(16);
    key[..length].copy_from_slice(&digest[..length]);
    key[16] = cid.codec() as u8 ^ cid.hash().code() as u8;
    key
}

#[cfg(test)]
mod tests;
