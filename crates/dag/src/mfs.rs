//! A tree of directories and files that can be changed (Kubo's `files`): from a root and operations to a new root and new blocks.
//!
//! No state and no I/O: whoever keeps the root runs [`edit()`] (a [`Steps`]), stores the new blocks, and takes the new root. Operations of one call
//! are done in order, all or none. Only the directories on the way of a path are read, of large ones only the shards on the way; only they are
//! written again. To list, read and resolve, use [`crate::export`].
//!
//! Roots are those of `ipfs files` for the same operations, each flushed.

mod apply;
mod path;

pub use path::{DEPTH_MAX, Path};

use crate::edit::file::{FileEditOptions, WRITE_SPAN};
use crate::edit::{EditError, Edited, Steps};
use crate::import::{CidForm, DirectoryOptions};
use crate::unixfs::{Kind, Stat};
use apply::Tree;
use bytes::Bytes;
use types::Cid;

/// A change to a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Makes a directory. With `parents` also those above, and it may be there already.
    Mkdir {
        /// Where.
        path: Path,
        /// `-p`.
        parents: bool,
        /// Mode and time of the directory.
        stat: Stat,
    },
    /// Puts a file, directory or symlink that exists. A path that ends with `/` is not understood here: name the entry.
    Put {
        /// Where.
        path: Path,
        /// What; its root block is read to learn the size, unless `dag_size` tells it.
        cid: Cid,
        /// The bytes of all its blocks.
        dag_size: Option<u64>,
        /// `-p`.
        parents: bool,
        /// Takes the place of what is there (`--force`).
        replace: bool,
    },
    /// Copies an entry of the tree; no bytes are copied. A target that ends with `/` keeps the name.
    Copy {
        /// What.
        from: Path,
        /// Where to.
        to: Path,
        /// `-p`.
        parents: bool,
        /// Takes the place of what is there (`--force`).
        replace: bool,
    },
    /// Moves an entry. Into a directory that is there; over a file that is there.
    Move {
        /// What.
        from: Path,
        /// Where to.
        to: Path,
    },
    /// Removes an entry.
    Remove {
        /// What.
        path: Path,
        /// `-r`; without it a directory is refused.
        recursive: bool,
        /// Something that is not there is as good as removed (`--force`); implies `recursive`.
        force: bool,
    },
    /// Writes into a file.
    Write {
        /// Where.
        path: Path,
        /// Where it begins; a gap before it becomes zeros.
        offset: u64,
        /// The bytes; all in memory at once. Cut where [`WRITE_SPAN`] says.
        data: Bytes,
        /// Makes the file if it is not there (`--create`).
        create: bool,
        /// Empties it first (`--truncate`).
        truncate: bool,
        /// `-p`.
        parents: bool,
    },
    /// Cuts a file, or lengthens it with zeros.
    Truncate {
        /// Where.
        path: Path,
        /// The new length.
        size: u64,
    },
    /// Sets mode or time (`chmod`, `touch`); what is `None` stays.
    SetStat {
        /// Of what; the root too.
        path: Path,
        /// The new mode and time.
        stat: Stat,
    },
}

/// How new entries are made.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct MfsOptions {
    /// New directories, and the rules of size for all.
    pub directory: DirectoryOptions,
    /// How CIDs of new files are made; `None`: as those of new directories.
    pub file_form: Option<CidForm>,
    /// How files are changed.
    pub file: FileEditOptions,
}

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its root.
    pub cid: Cid,
    /// What it is; a large directory is [`Kind::HamtShard`], a raw leaf [`Kind::Raw`].
    pub kind: Kind,
    /// Bytes of a file or symlink; 0 for directories.
    pub size: u64,
    /// Bytes of all blocks below, doubles counted each time.
    pub dag_size: u64,
    /// Links of the root block.
    pub links: usize,
    /// Mode and time.
    pub stat: Stat,
}

/// Changes the tree under `root`.
pub fn edit(root: Cid, ops: Vec<Op>, options: MfsOptions) -> Steps<Edited> {
    let mut tree = Tree::new(root, options);
    let mut done = 0;
    Steps::new(move |shelf| {
        while let Some(op) = ops.get(done) {
            tree.apply(op, shelf)?;
            shelf.shrink();
            done += 1;
        }
        tree.finish(shelf)
    })
}

/// Tells what `path` leads to.
pub fn stat(root: Cid, path: Path) -> Steps<Status> {
    Steps::new(move |shelf| {
        let cid = Tree::new(root, MfsOptions::default()).look_up(&path, shelf)?;
        apply::status(&cid, shelf)
    })
}

/// An empty tree.
pub fn empty(options: &DirectoryOptions) -> Result<Edited, EditError> {
    apply::empty(options)
}
