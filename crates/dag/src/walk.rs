//! Walking a whole DAG without fetching: says which blocks it wants, takes them in any order, is done when all are seen.
//!
//! Used to pin (fetch everything below a root) and to check completeness (is everything there). Newest first, so that the queue stays near depth
//! times width; when it grows anyway, fewer blocks are asked for at a time. Blocks are believed: whoever brings them has verified them.

use crate::block::inline_data;
use crate::{DecodeError, links};
use std::collections::HashMap;
use types::{Cid, Depth};

/// Blocks asked for at a time when nothing else is said.
pub const WINDOW: usize = 32;
/// Blocks that wait to be asked for; some 50 MB. No honest DAG comes near: it takes hundreds of full directories inside each other.
pub const QUEUE_MAX: usize = 1 << 19;
/// From here on blocks are asked for one at a time, so that the queue grows with depth only.
const QUEUE_LARGE: usize = 1 << 16;
/// Blocks of one DAG when nothing else is said: 4 TiB of full chunks, some 800 MB of memory.
pub const BLOCKS_MAX: usize = 1 << 24;

/// Why a walk cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WalkError {
    /// This block was not asked for.
    #[error("{cid} was not asked for")]
    Unwanted {
        /// Which one.
        cid: Box<Cid>,
    },
    /// A block is not what its CID says.
    #[error("reading the links of {cid}")]
    Decode {
        /// Which one.
        cid: Box<Cid>,
        /// What is wrong with it.
        #[source]
        source: DecodeError,
    },
    /// Too many blocks wait.
    #[error("more than {QUEUE_MAX} blocks wait to be fetched")]
    TooWide,
    /// The DAG is larger than allowed.
    #[error("the DAG has more than {limit} blocks")]
    TooLarge {
        /// The bound.
        limit: usize,
    },
}

/// A walk over everything below a root.
pub struct Walker {
    depth: Depth,
    window: usize,
    blocks_max: usize,
    /// What waits, newest last.
    queue: Vec<(Cid, u32)>,
    /// What was asked for, with its level.
    asked: HashMap<Cid, u32>,
    /// All that was ever queued: a piece of the digest, and the lowest level at which it was met.
    seen: HashMap<[u64; 2], Visit>,
    blocks: u64,
    bytes: u64,
}

#[derive(Clone, Copy)]
struct Visit {
    level: u32,
    is_counted: bool,
}

impl Walker {
    /// A walk from `root`, as deep as `depth` says.
    pub fn new(root: Cid, depth: Depth) -> Walker {
        let mut walker = Walker {
            depth,
            window: WINDOW,
            blocks_max: BLOCKS_MAX,
            queue: Vec::new(),
            asked: HashMap::new(),
            seen: HashMap::new(),
            blocks: 0,
            bytes: 0,
        };
        // An inline root that cannot be read counts as one without links.
        let _ = walker.enqueue(root, 0);
        walker
    }

    /// Asks for so many blocks at a time.
    pub fn with_window(mut self, window: usize) -> Walker {
        self.window = window.max(1);
        self
    }

    /// Gives up on DAGs with more blocks than this.
    pub fn with_blocks_max(mut self, blocks: usize) -> Walker {
        self.blocks_max = blocks;
        self
    }

    /// Returns the blocks to bring next, if the window has room. Each stays asked for until it is given, skipped or put back.
    pub fn next_wanted(&mut self) -> Vec<Cid> {
        let window = if self.queue.len() > QUEUE_LARGE { 1 } else { self.window };
        let mut wanted = Vec::new();
        while self.asked.len() < window {
            let Some((cid, level)) = self.queue.pop() else { break };
            // Met again nearer to the root since it was queued: that entry counts.
            let is_stale = self.seen.get(&key(&cid)).is_some_and(|visit| visit.level < level);
            if !is_stale && self.asked.insert(cid, level).is_none() {
                wanted.push(cid);
            }
        }
        wanted
    }

    /// Takes a block that was asked for; its links are wanted next.
    pub fn give(&mut self, cid: &Cid, data: &[u8]) -> Result<(), WalkError> {
        let level = self.take_asked(cid)?;
        self.count(cid, data.len());
        self.follow(cid, data, level)
    }

    /// Takes a block that was asked for without going below it, because what is there is known already.
    pub fn skip(&mut self, cid: &Cid) -> Result<(), WalkError> {
        self.take_asked(cid).map(|_| ())
    }

    /// Puts back a block that could not be brought; it is wanted again.
    pub fn put_back(&mut self, cid: &Cid) -> Result<(), WalkError> {
        let level = self.take_asked(cid)?;
        self.queue.push((*cid, level));
        Ok(())
    }

    /// Whether everything was seen.
    pub fn is_done(&self) -> bool {
        self.queue.is_empty() && self.asked.is_empty()
    }

    /// How many blocks were given.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// How many bytes they have.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many blocks are known to be missing still.
    pub fn waiting(&self) -> usize {
        self.queue.len() + self.asked.len()
    }

    fn take_asked(&mut self, cid: &Cid) -> Result<u32, WalkError> {
        self.asked.remove(cid).ok_or_else(|| WalkError::Unwanted { cid: Box::new(*cid) })
    }

    fn count(&mut self, cid: &Cid, length: usize) {
        let Some(visit) = self.seen.get_mut(&key(cid)) else { return };
        if !visit.is_counted {
            visit.is_counted = true;
            self.blocks += 1;
            self.bytes += length as u64;
        }
    }

    fn follow(&mut self, cid: &Cid, data: &[u8], level: u32) -> Result<(), WalkError> {
        let next = match self.depth {
            Depth::Levels(levels) if level >= levels => return Ok(()),
            Depth::Levels(_) => level + 1,
            Depth::Recursive => 0,
        };
        let links = links(cid, data).map_err(|source| WalkError::Decode { cid: Box::new(*cid), source })?;
        links.into_iter().rev().try_for_each(|link| self.enqueue(link, next))
    }

    /// Queues a block unless it was met at this level or above. What lies inside its CID is followed at once: each such step makes it shorter.
    fn enqueue(&mut self, cid: Cid, level: u32) -> Result<(), WalkError> {
        if let Some(data) = inline_data(&cid) {
            return self.follow(&cid, data, level);
        }
        let known = self.seen.len();
        match self.seen.get_mut(&key(&cid)) {
            Some(visit) if visit.level <= level => return Ok(()),
            Some(visit) => visit.level = level,
            None if known >= self.blocks_max => return Err(WalkError::TooLarge { limit: self.blocks_max }),
            None => {
                self.seen.insert(key(&cid), Visit { level, is_counted: false });
            }
        }
        if let Some(asked) = self.asked.get_mut(&cid) {
            *asked = level;
            return Ok(());
        }
        if self.queue.len() >= QUEUE_MAX {
            return Err(WalkError::TooWide);
        }
        self.queue.push((cid, level));
        Ok(())
    }
}

/// Sixteen bytes of the digest, and the codec, which decides what the links are. (Inline CIDs never come here.)
pub(crate) fn key(cid: &Cid) -> [u64; 2] {
    let mut piece = [0; 16];
    let digest = cid.hash().digest();
    let length = digest.len().min(16);
    piece[..length].copy_from_slice(&digest[..length]);
    let whole = u128::from_le_bytes(piece);
    [whole as u64, (whole >> 64) as u64 ^ cid.codec()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Block, HashFn, codec, pb};
    use bytes::Bytes;
    use std::collections::BTreeMap;

    type Store = BTreeMap<Cid, Bytes>;

    fn leaf(store: &mut Store, text: &str) -> Cid {
        keep(store, Block::new(codec::RAW, HashFn::SHA2_256, Bytes::from(text.to_owned())).expect("known"))
    }

    fn node(store: &mut Store, children: &[Cid]) -> Cid {
        let links = children.iter().map(|cid| pb::Link { cid: *cid, name: b"", tsize: 0 }).collect();
        let data = pb::Node { links, data: None }.encode();
        keep(store, Block::new_v0(data.into()).expect("known"))
    }

    fn keep(store: &mut Store, block: Block) -> Cid {
        store.insert(block.cid, block.data);
        block.cid
    }

    /// Two branches over a shared leaf: root -> (left -> a, shared; right -> shared; shared).
    fn diamond(store: &mut Store) -> Cid {
        let (a, shared) = (leaf(store, "a"), leaf(store, "shared"));
        let (left, right) = (node(store, &[a, shared]), node(store, &[shared]));
        node(store, &[left, right, shared])
    }

    fn walk(mut walker: Walker, store: &Store) -> Vec<Cid> {
        let mut order = Vec::new();
        while !walker.is_done() {
            for cid in walker.next_wanted() {
                order.push(cid);
                walker.give(&cid, &store[&cid]).expect("sound");
            }
        }
        assert_eq!(walker.blocks(), order.iter().collect::<std::collections::BTreeSet<_>>().len() as u64);
        order
    }

    #[test]
    fn every_block_is_asked_for_once() {
        let mut store = Store::new();
        let root = diamond(&mut store);
        for window in [1, 2, 100] {
            let mut order = walk(Walker::new(root, Depth::Recursive).with_window(window), &store);
            assert_eq!(order[0], root);
            order.sort();
            assert!(order.iter().eq(store.keys()), "window {window}");
        }
    }

    #[test]
    fn depth_bounds_the_walk() {
        let mut store = Store::new();
        let root = diamond(&mut store);
        for (levels, expected) in [(0, 1), (1, 4), (2, 5), (3, 5)] {
            let mut order = walk(Walker::new(root, Depth::Levels(levels)).with_window(1), &store);
            order.sort();
            order.dedup();
            assert_eq!(order.len(), expected, "{levels}");
        }
    }

    #[test]
    fn a_block_met_again_nearer_to_the_root_is_followed_further() {
        let mut store = Store::new();
        let end = leaf(&mut store, "end");
        let low = node(&mut store, &[end]);
        let middle = node(&mut store, &[low]);
        // Newest first: `middle -> low` is met at level 2 before the direct link at level 1.
        let root = node(&mut store, &[middle, low]);
        let order = walk(Walker::new(root, Depth::Levels(2)).with_window(1), &store);
        assert!(order.contains(&end));
    }

    #[test]
    fn content_inside_a_cid_is_followed_without_asking() {
        let mut store = Store::new();
        let end = leaf(&mut store, "end");
        let inner = pb::Node { links: vec![pb::Link { cid: end, name: b"", tsize: 0 }], data: None }.encode();
        let inline = Block::new(codec::DAG_PB, HashFn::IDENTITY, inner.into()).expect("short").cid;
        let root = node(&mut store, &[inline]);
        assert_eq!(walk(Walker::new(root, Depth::Recursive), &store), [root, end]);
        assert_eq!(walk(Walker::new(inline, Depth::Recursive), &store), [end]);
    }

    #[test]
    fn what_is_put_back_is_wanted_again_and_what_is_skipped_is_not_entered() {
        let mut store = Store::new();
        let root = diamond(&mut store);
        let mut walker = Walker::new(root, Depth::Recursive);
        assert_eq!(walker.next_wanted(), [root]);
        assert!(walker.next_wanted().is_empty());
        walker.put_back(&root).expect("asked");
        assert_eq!(walker.next_wanted(), [root]);
        walker.skip(&root).expect("asked");
        assert!(walker.is_done());
        assert_eq!(walker.give(&root, b""), Err(WalkError::Unwanted { cid: Box::new(root) }));
    }

    #[test]
    fn broken_and_endless_dags_stop_the_walk() {
        let mut store = Store::new();
        let root = diamond(&mut store);
        let mut walker = Walker::new(root, Depth::Recursive);
        walker.next_wanted();
        assert!(matches!(walker.give(&root, b"\xff"), Err(WalkError::Decode { .. })));
        let mut walker = Walker::new(root, Depth::Recursive).with_blocks_max(2);
        walker.next_wanted();
        assert_eq!(walker.give(&root, &store[&root]), Err(WalkError::TooLarge { limit: 2 }));
    }
}
