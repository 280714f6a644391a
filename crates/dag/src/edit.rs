//! Changing what exists: directories (plain or spread over a hash trie) and files, without loading them whole.
//!
//! Every change is a [`Steps`]: it says which block it needs, takes it, and at its end has the new root and the new blocks. Blocks that were
//! not touched are shared with the old root. Results are those of boxo's `DynamicDirectory` and `DagModifier`, which is what `ipfs files` writes:
//! a directory becomes a trie, and a trie a plain directory, at the same entry; appended parts of files hang together as there.
//!
//! Where boxo errs, the content decides: see [`file`]. And where an entry is put over another in a directory that is larger than the threshold by
//! less than the entry's name, boxo's estimate (which leaves the new name out) takes it for small, and each flush in Kubo decides anew; here it is
//! a trie, as its size says.

pub mod directory;
pub mod file;
mod steps;
mod trickle;
mod trie;

pub(crate) use steps::{Shelf, Stop};
pub use steps::{Step, Steps};

use crate::export::ExportError;
use crate::import::ImportError;
use crate::{Block, DecodeError};
use types::Cid;

/// Why a change cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// A block is not what it should be.
    #[error("reading what is to be changed")]
    Read(#[from] ExportError),
    /// A new block cannot be made.
    #[error("writing what is changed")]
    Write(#[from] ImportError),
    /// There is nothing of this name.
    #[error("{0:?} does not exist")]
    NotFound(String),
    /// Something of this name is there already.
    #[error("{0:?} already exists")]
    Exists(String),
    /// A directory stands where a file is wanted.
    #[error("{0:?} is a directory")]
    IsADirectory(String),
    /// A file stands where a directory is wanted.
    #[error("{0:?} is not a directory")]
    NotADirectory(String),
    /// The path cannot be used here.
    #[error("path {path:?} is not allowed: {reason}")]
    BadPath {
        /// The path.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Files end at 63 bits.
    #[error("a file cannot have {0} bytes")]
    TooLong(u64),
}

impl EditError {
    pub(crate) fn malformed(cid: &Cid, what: &'static str, reason: &'static str) -> EditError {
        let source = DecodeError::malformed(what, reason);
        EditError::Read(ExportError::Decode { cid: Box::new(*cid), source })
    }

    pub(crate) fn decode(cid: &Cid) -> impl Fn(DecodeError) -> EditError {
        let cid = *cid;
        move |source| EditError::Read(ExportError::Decode { cid: Box::new(cid), source })
    }
}

/// What a change leaves behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edited {
    /// The new root.
    pub root: Cid,
    /// Bytes of all blocks below it, doubles counted each time.
    pub dag_size: u64,
    /// The new blocks below the new root, children before parents. Blocks inside CIDs are not among them.
    pub blocks: Vec<Block>,
}
