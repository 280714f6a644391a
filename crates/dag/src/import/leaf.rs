//! Leaves: chunks made into blocks. Pure and independent of each other, so that they can be hashed on any core.

use super::options::{FileOptions, Layout};
use super::{Child, FileRoot, ImportError};
use crate::unixfs::{Kind, Stat, UnixFs, leaf_block};
use crate::{Block, pb};
use bytes::Bytes;

/// A chunk as a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The block to store.
    pub block: Block,
    /// Bytes of the file in it.
    pub file_size: u64,
    /// Bytes of the block.
    pub dag_size: u64,
}

impl Leaf {
    /// What the tree above needs of it.
    pub fn child(&self) -> Child {
        Child { cid: self.block.cid, file_size: self.file_size, dag_size: self.dag_size }
    }
}

/// Makes the block of one chunk out of several.
pub fn leaf(chunk: Bytes, options: &FileOptions) -> Result<Leaf, ImportError> {
    let kind = if options.layout == Layout::Trickle { Kind::Raw } else { Kind::File };
    build(chunk, kind, Stat::default(), options)
}

/// Makes the block of the only chunk of a file (or of an empty file): in the balanced layout it is the root and carries mode and time.
pub fn sole_leaf(chunk: Bytes, options: &FileOptions) -> Result<Leaf, ImportError> {
    match options.layout {
        Layout::Balanced => build(chunk, Kind::File, options.stat, options),
        Layout::Trickle => leaf(chunk, options),
    }
}

/// Makes the block of a symlink; mode does not apply to it.
pub fn symlink(target: &[u8], options: &FileOptions) -> Result<(Block, FileRoot), ImportError> {
    let stat = Stat { mode: None, mtime: options.stat.mtime };
    let message = UnixFs { data: Some(target), stat, ..UnixFs::new(Kind::Symlink) }.encode();
    let node = pb::Node { links: Vec::new(), data: Some(&message) }.encode();
    let block = options.form().node(node)?;
    let root = FileRoot { cid: block.cid, size: target.len() as u64, dag_size: block.data.len() as u64 };
    Ok((block, root))
}

fn build(chunk: Bytes, kind: Kind, stat: Stat, options: &FileOptions) -> Result<Leaf, ImportError> {
    let file_size = chunk.len() as u64;
    let form = options.form();
    let block = if options.raw_leaves { form.raw(chunk)? } else { form.node(leaf_block(kind, &chunk, stat))? };
    let dag_size = block.data.len() as u64;
    Ok(Leaf { block, file_size, dag_size })
}
