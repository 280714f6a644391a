//! Walks the pinned part of a DAG: every block once, down to the wanted depth.
//!
//! The walk says which block is next and is handed its bytes; where they come from is the caller's affair, and several may be
//! on their way at once. Memory: 14 to 18 bytes for each block seen, and the links found and not yet visited (depth first, so about
//! the width of one block for each level).

mod seen;

use dag::block::inline_data;
use dag::{DecodeError, codec};
use seen::{Met, Seen};
use types::{Cid, Depth};

/// Levels left that never run out.
const ENDLESS: u32 = u32::MAX;

/// A walk in progress.
#[derive(Debug)]
pub struct Walk {
    pending: Vec<(Cid, u32)>,
    /// What was met already; a block that is met again higher up is walked again.
    seen: Seen,
    counts_leaves: bool,
}

/// One block whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Visit {
    /// The block.
    pub cid: Cid,
    /// Whether the walk meets it for the first time; it counts only then. Never so for content inside a CID.
    pub is_first: bool,
    levels_left: u32,
}

impl Visit {
    /// Whether [`Walk::got`] needs its bytes; for all others it is enough that the block exists.
    pub fn needs_data(&self) -> bool {
        self.levels_left > 0 && self.cid.codec() != codec::RAW
    }
}

impl Walk {
    /// A walk that begins at `root`.
    pub fn new(root: Cid, depth: Depth) -> Walk {
        let mut walk = Walk::unbegun();
        walk.add_root(root, depth);
        walk
    }

    /// A walk without a root: see [`Walk::add_root`].
    pub fn unbegun() -> Walk {
        Walk { pending: Vec::new(), seen: Seen::new(), counts_leaves: true }
    }

    /// Does not remember raw leaves, which are most of the blocks: they may be visited, and said to be met first, more than once.
    pub fn without_counting_leaves(self) -> Walk {
        Walk { counts_leaves: false, ..self }
    }

    /// The next block; none while all that are known were visited (bytes still to be handed in may bring more).
    pub fn next_visit(&mut self) -> Option<Visit> {
        while let Some((cid, levels_left)) = self.pending.pop() {
            if inline_data(&cid).is_some() {
                // Nothing that is stored anywhere, but it may link to what is.
                let visit = Visit { cid, is_first: false, levels_left };
                if visit.needs_data() {
                    return Some(visit);
                }
                continue;
            }
            if !self.counts_leaves && cid.codec() == codec::RAW {
                return Some(Visit { cid, is_first: true, levels_left });
            }
            match self.seen.meet(&cid, levels_left) {
                Met::First => return Some(Visit { cid, is_first: true, levels_left }),
                Met::Higher => {
                    let visit = Visit { cid, is_first: false, levels_left };
                    if visit.needs_data() {
                        return Some(visit);
                    }
                }
                Met::Again => {}
            }
        }
        None
    }

    /// Takes the bytes of a visited block and notes what it links to.
    pub fn got(&mut self, visit: &Visit, data: &[u8]) -> Result<(), DecodeError> {
        if visit.needs_data() {
            let below = if visit.levels_left == ENDLESS { ENDLESS } else { visit.levels_left - 1 };
            // Reversed, since the walk pops: blocks are then visited in the order of a reader.
            self.pending.extend(dag::links(&visit.cid, data)?.into_iter().rev().map(|cid| (cid, below)));
        }
        Ok(())
    }

    /// Whether there may be more to visit now.
    pub fn has_more(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Begins at one more root; what was visited is not visited again.
    pub fn add_root(&mut self, root: Cid, depth: Depth) {
        self.pending.push((root, levels(depth)));
    }
}

/// Whether a pin of depth `one` covers a pin of depth `other`.
pub fn covers(one: Depth, other: Depth) -> bool {
    levels(one) >= levels(other)
}

fn levels(depth: Depth) -> u32 {
    match depth {
        Depth::Recursive => ENDLESS,
        Depth::Levels(levels) => levels.min(ENDLESS - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::sample::{Tree, branch, leaf, raw};
    use bytes::Bytes;
    use dag::{Block, HashFn};

    /// The blocks visited, in order.
    fn check(blocks: &[&Block], root: &Block, depth: Depth, expected: &[&Block]) {
        let mut walk = Walk::new(root.cid, depth);
        let mut counted = Vec::new();
        while let Some(visit) = walk.next_visit() {
            if visit.is_first {
                counted.push(visit.cid);
            }
            let block = blocks.iter().find(|block| block.cid == visit.cid).expect("the DAG is whole");
            walk.got(&visit, &block.data).expect("well-formed");
        }
        assert_eq!(counted, expected.iter().map(|block| block.cid).collect::<Vec<_>>(), "{depth:?}");
    }

    #[test]
    fn blocks_come_in_reading_order_down_to_the_depth() {
        let tree = Tree::new(1);
        let b: Vec<&Block> = tree.blocks().iter().collect();
        let whole = [b[0], b[1], b[3], b[4], b[2], b[5], b[6]];
        check(&b, b[0], Depth::Recursive, &whole);
        check(&b, b[0], Depth::Levels(2), &whole);
        check(&b, b[0], Depth::Levels(1), &[b[0], b[1], b[2]]);
        check(&b, b[0], Depth::DIRECT, &[b[0]]);
    }

    #[test]
    fn a_block_met_again_higher_up_is_walked_further() {
        let end = leaf(1);
        let low = branch(&[&end]);
        let middle = branch(&[&low]);
        let root = branch(&[&middle, &low]);
        let all = [&end, &low, &middle, &root];
        check(&all, &root, Depth::Levels(2), &[&root, &middle, &low, &end]);
        check(&all, &root, Depth::Levels(1), &[&root, &middle, &low]);
    }

    #[test]
    fn one_content_under_two_codecs_is_walked_as_both() {
        let end = leaf(1);
        let node = branch(&[&end]);
        let as_bytes = raw(node.data.clone());
        let root = branch(&[&as_bytes, &node]);
        check(&[&end, &node, &as_bytes, &root], &root, Depth::Recursive, &[&root, &as_bytes, &node, &end]);
    }

    #[test]
    fn leaves_that_are_not_counted_come_each_time_and_other_blocks_once() {
        let (end, other) = (leaf(1), leaf(2));
        let (one, two) = (branch(&[&end, &end]), branch(&[&end, &other]));
        let mut walk = Walk::unbegun().without_counting_leaves();
        let mut visits = Vec::new();
        for root in [&one, &two, &one] {
            walk.add_root(root.cid, Depth::Recursive);
            while let Some(visit) = walk.next_visit() {
                let block = [&end, &other, &one, &two].into_iter().find(|block| block.cid == visit.cid).expect("the DAG is whole");
                walk.got(&visit, &block.data).expect("well-formed");
                visits.push(visit.cid);
            }
        }
        assert_eq!(visits, [one.cid, end.cid, end.cid, two.cid, end.cid, other.cid]);
    }

    #[test]
    fn content_inside_a_cid_is_read_and_not_counted() {
        let inline = |codec: u64, data: Bytes| Block::new(codec, HashFn::IDENTITY, data).expect("short");
        let end = leaf(1);
        let (node, bytes) = (inline(codec::DAG_PB, branch(&[&end]).data), inline(codec::RAW, Bytes::from_static(b"abc")));
        let root = branch(&[&node, &bytes]);
        check(&[&end, &node, &root], &root, Depth::Recursive, &[&root, &end]);
    }
}
