//! One file from a stream of bytes, on one core.

use super::options::hand_out;
use super::{FileOptions, FileRoot, ImportError, TreeBuilder, leaf, sole_leaf};
use crate::Block;
use crate::chunk::Cutter;
use bytes::Bytes;

/// Builds one file: push its bytes, take the blocks, finish. Holds about two chunks and one open node for each level.
pub struct FileBuilder {
    options: FileOptions,
    cutter: Cutter,
    tree: TreeBuilder,
    /// The first chunk waits until it is known whether it is the only one.
    first: Option<Bytes>,
    chunks: u64,
}

impl FileBuilder {
    /// An empty file.
    pub fn new(options: FileOptions) -> Result<FileBuilder, ImportError> {
        let cutter = Cutter::new(options.chunker);
        let tree = TreeBuilder::new(options.clone())?;
        Ok(FileBuilder { options, cutter, tree, first: None, chunks: 0 })
    }

    /// Adds bytes without copying those that fill whole raw leaves.
    pub fn push(&mut self, data: Bytes, out: &mut impl FnMut(Block)) -> Result<(), ImportError> {
        self.cutter.push(data);
        self.take_cuts(out)
    }

    /// Adds bytes by copying them.
    pub fn push_slice(&mut self, data: &[u8], out: &mut impl FnMut(Block)) -> Result<(), ImportError> {
        self.cutter.push_slice(data);
        self.take_cuts(out)
    }

    /// Ends the file.
    pub fn finish(mut self, out: &mut impl FnMut(Block)) -> Result<FileRoot, ImportError> {
        while let Some(chunk) = self.cutter.finish() {
            self.take_chunk(chunk, out)?;
        }
        if let Some(chunk) = self.first.take() {
            let only = sole_leaf(chunk, &self.options)?;
            self.tree.push_leaf(only.child(), out)?;
            hand_out(only.block, out);
        }
        self.tree.finish(out)
    }

    fn take_cuts(&mut self, out: &mut impl FnMut(Block)) -> Result<(), ImportError> {
        while let Some(chunk) = self.cutter.cut() {
            self.take_chunk(chunk, out)?;
        }
        Ok(())
    }

    fn take_chunk(&mut self, chunk: Bytes, out: &mut impl FnMut(Block)) -> Result<(), ImportError> {
        self.chunks += 1;
        if self.chunks == 1 {
            self.first = Some(chunk);
            return Ok(());
        }
        if let Some(first) = self.first.take() {
            self.add_leaf(first, out)?;
        }
        self.add_leaf(chunk, out)
    }

    fn add_leaf(&mut self, chunk: Bytes, out: &mut impl FnMut(Block)) -> Result<(), ImportError> {
        let leaf = leaf(chunk, &self.options)?;
        let child = leaf.child();
        hand_out(leaf.block, out);
        self.tree.push_leaf(child, out)
    }
}

/// Imports a file that is whole in memory.
pub fn import_bytes(data: Bytes, options: FileOptions, out: &mut impl FnMut(Block)) -> Result<FileRoot, ImportError> {
    let mut file = FileBuilder::new(options)?;
    file.push(data, out)?;
    file.finish(out)
}
