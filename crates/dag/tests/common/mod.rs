//! Blocks in memory and the stream of bytes that all known answers use.

#![expect(clippy::unwrap_used, reason = "tests")]
#![allow(dead_code, reason = "each test uses a part")]

use bytes::Bytes;
use dag::edit::{EditError, Edited, Step, Steps};
use dag::export::{FileReader, FileStep};
use dag::{Block, verify};
use std::collections::HashMap;
use std::sync::LazyLock;
use types::Cid;

/// The first bytes of a xorshift64 stream, as kubo.rs describes it.
pub static STREAM: LazyLock<Bytes> = LazyLock::new(|| {
    let mut x = 0x9E37_79B9_7F4A_7C15u64;
    let next = std::iter::repeat_with(|| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x.to_le_bytes()
    });
    next.take(6_000_000 / 8).flatten().collect::<Vec<u8>>().into()
});

#[derive(Default)]
pub struct Store {
    pub blocks: HashMap<Cid, Bytes>,
    /// How many blocks were asked for.
    pub asked: usize,
}

impl Store {
    pub fn put(&mut self, block: Block) {
        verify(&block.cid, &block.data).unwrap();
        self.blocks.insert(block.cid, block.data);
    }

    /// Keeps the new blocks; they must come children first.
    pub fn take(&mut self, edited: Edited) -> Cid {
        for block in edited.blocks {
            let below = dag::links(&block.cid, &block.data).unwrap();
            for cid in below {
                assert!(dag::block::inline_data(&cid).is_some() || self.blocks.contains_key(&cid), "{cid} comes after its parent");
            }
            self.put(block);
        }
        edited.root
    }

    pub fn run<T>(&mut self, mut steps: Steps<T>) -> Result<T, EditError> {
        loop {
            match steps.step()? {
                Step::Done(done) => return Ok(done),
                Step::Need(_) => {
                    for cid in steps.upcoming(usize::MAX) {
                        self.asked += 1;
                        steps.give(&cid, self.blocks[&cid].clone())?;
                    }
                }
            }
        }
    }

    pub fn read(&self, root: &Cid) -> Vec<u8> {
        let mut reader = FileReader::new(*root, 0..u64::MAX);
        let mut out = Vec::new();
        loop {
            match reader.step().unwrap() {
                FileStep::Need(cid) => reader.give(&cid, &self.blocks[&cid]).unwrap(),
                FileStep::Data(data) => out.extend_from_slice(&data),
                FileStep::Done => return out,
            }
        }
    }
}
