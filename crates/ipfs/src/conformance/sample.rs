//! Small DAGs to try nodes with.
#![allow(clippy::unwrap_used, reason = "a test suite: what is made here is well-formed")]

use crate::{Block, BlockError, IpfsNode, Pinned, Source};
use bytes::Bytes;
use dag::{HashFn, codec};
use types::{ByteCount, Cid, Owner};

/// A raw block.
pub fn raw(data: impl Into<Bytes>) -> Block {
    Block::new(codec::RAW, HashFn::SHA2_256, data.into()).unwrap()
}

/// The raw block with a number: some hundred bytes, different for each number.
pub fn leaf(number: u64) -> Block {
    raw(format!("leaf {number} ").repeat(20))
}

/// A raw block of `size` bytes that differs with `seed` and does not compress.
pub fn raw_of_size(seed: u64, size: usize) -> Block {
    raw(noise(seed, size))
}

/// Bytes that look random and are always the same for one seed.
pub fn noise(seed: u64, size: usize) -> Vec<u8> {
    // xorshift64*: good enough to keep compressors and equal blocks away.
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut data = Vec::with_capacity(size + 8);
    while data.len() < size {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        data.extend_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    data.truncate(size);
    data
}

/// A dag-pb node that links to `children`, in this order.
pub fn branch(children: &[&Block]) -> Block {
    let mut data = Vec::new();
    for child in children {
        let cid = child.cid.to_bytes();
        // PBNode.Links is field 2, PBLink.Hash field 1; all lengths here are below 128.
        data.extend_from_slice(&[0x12, cid.len() as u8 + 2, 0x0a, cid.len() as u8]);
        data.extend_from_slice(&cid);
    }
    Block::new(codec::DAG_PB, HashFn::SHA2_256, data.into()).unwrap()
}

/// A DAG of three levels: a root, two branches, two leaves under each.
pub struct Tree {
    blocks: Vec<Block>,
}

impl Tree {
    /// The tree with a number; trees with different numbers share nothing.
    pub fn new(number: u64) -> Tree {
        let leaves: Vec<Block> = (0..4).map(|index| leaf(1_000_000 + number * 4 + index)).collect();
        let (left, right) = (branch(&[&leaves[0], &leaves[1]]), branch(&[&leaves[2], &leaves[3]]));
        let root = branch(&[&left, &right]);
        Tree { blocks: [vec![root, left, right], leaves].concat() }
    }

    /// Its root.
    pub fn root(&self) -> Cid {
        self.blocks[0].cid
    }

    /// All its blocks, parents first.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// What a pin of all of it counts.
    pub fn size(&self) -> Pinned {
        Pinned { blocks: self.blocks.len() as u64, bytes: ByteCount(self.blocks.iter().map(|block| block.data.len() as u64).sum()) }
    }

    /// The CIDs of each level.
    pub fn levels(&self) -> [Vec<Cid>; 3] {
        let cids = |range: std::ops::Range<usize>| self.blocks[range].iter().map(|block| block.cid).collect();
        [cids(0..1), cids(1..3), cids(3..7)]
    }

    /// Puts all of it, on nobody's special account.
    pub async fn put(&self, node: &dyn IpfsNode) {
        node.put(&Owner::User, self.blocks.clone()).await.unwrap();
    }

    /// Panics unless every block is on `node` and right.
    pub async fn check_whole(&self, node: &dyn IpfsNode) {
        for block in &self.blocks {
            assert_eq!(node.get(&block.cid, &Source::local()).await.unwrap(), block.data);
        }
    }

    /// Panics if any block is on `node`.
    pub async fn check_gone(&self, node: &dyn IpfsNode) {
        for block in &self.blocks {
            assert!(
                matches!(node.get(&block.cid, &Source::local()).await, Err(BlockError::NotLocal { .. })),
                "{} is still there",
                block.cid
            );
        }
    }
}
