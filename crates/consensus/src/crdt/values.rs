//! Values of elements, read from the blocks that added them; the last few blocks stay parsed.

use super::CrdtError;
use super::block::{Block, Elements};
use super::draft::Draft;
use super::id::BlockId;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;
use store::Area;

/// Parsed blocks kept during a step; with blocks of at most 2 MiB this bounds the memory to some 30 MB, in practice to much less.
const BLOCKS_MAX: usize = 8;
/// Kept from one step to the next are those with at most so many elements. A burst of others is over when it is over, and its small values would
/// pin down the memory all around them.
const ELEMENTS_KEPT: usize = 64;

/// Where values of elements come from.
#[derive(Default)]
pub(crate) struct Values {
    /// A fault that a test put in: among equals the first to come wins.
    pub(crate) keeps_first_of_equals: bool,
    recent: VecDeque<(BlockId, Arc<Elements>)>,
}

impl Values {
    /// The value that `block` gives to `key`.
    pub(crate) fn get(&mut self, draft: &Draft, block: &BlockId, key: &[u8]) -> Result<Bytes, CrdtError> {
        let position = match self.recent.iter().position(|(id, _)| id == block) {
            Some(position) => position,
            None => self.read(draft, block)?,
        };
        self.recent[position].1.get(key).cloned().ok_or_else(|| CrdtError::damaged("element without value", key))
    }

    /// Keeps the elements of a block that is being merged.
    pub(crate) fn keep(&mut self, block: BlockId, elements: Arc<Elements>) {
        self.recent.push_front((block, elements));
        self.recent.truncate(BLOCKS_MAX);
    }

    /// A step ended.
    pub(crate) fn settle(&mut self) {
        self.recent.retain(|(_, elements)| elements.len() <= ELEMENTS_KEPT);
    }

    fn read(&mut self, draft: &Draft, block: &BlockId) -> Result<usize, CrdtError> {
        let bytes = draft.get(Area::DagBlocks, &block.0)?.ok_or_else(|| CrdtError::damaged("block missing", &block.0))?;
        let parsed = Block::parse(&bytes).map_err(|_| CrdtError::damaged("block", &block.0))?;
        self.keep(*block, Arc::new(parsed.elements));
        Ok(0)
    }
}
