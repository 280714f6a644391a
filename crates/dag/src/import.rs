//! From files and folders to blocks.
//!
//! One file, simply: [`FileBuilder`]: push bytes, blocks come out, constant memory. The same on many cores: cut with [`crate::chunk::Cutter`], hash
//! each chunk anywhere with [`leaf`] (the only chunk of a file with [`sole_leaf`]), then feed the results in order to one [`TreeBuilder`].
//! Folders: [`TreeAssembler`] takes the roots of files by path and builds the directories; [`DirectoryBuilder`] is one directory, which
//! becomes a hash trie when it is large.
//!
//! Nothing here reads or stores: blocks go to the caller's closure in an order in which children come before parents.

mod assemble;
mod directory;
mod file;
mod leaf;
mod options;
mod profile;
mod tree;

pub use assemble::{AddedDirectory, Assembled, TreeAssembler};
pub use directory::{DirectoryBuilder, DirectoryOptions, DirectoryRoot, NAME_MAX, SHARDING_SIZE, SizeEstimate};
pub use file::{FileBuilder, import_bytes};
pub use leaf::{Leaf, leaf, sole_leaf, symlink};
pub use options::{CidForm, FileOptions, Layout, WIDTH};
pub use profile::{Profile, ProfileUnknown};
pub use tree::{Child, FileRoot, TreeBuilder};

use crate::hash::{DIGEST_MAX, HashError};

/// Why something could not be imported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// CIDs of version 0 know one hash function. (Kubo's words, which clients show.)
    #[error("invalid cid: invalid v0 prefix")]
    V0WithOtherHash,
    /// More than a CID has room for. (Kubo allows 128 bytes; CIDs here hold 64.)
    #[error("inline-limit {limit} exceeds maximum allowed size of {DIGEST_MAX} bytes")]
    InlineLimit {
        /// The limit that was wanted.
        limit: usize,
    },
    /// The digest cannot be computed.
    #[error("hashing a block")]
    Hash(#[from] HashError),
    /// A node would not fit into a block.
    #[error("a node of {length} bytes does not fit into a block of 2 MiB")]
    NodeTooBig {
        /// The size it would have.
        length: usize,
    },
    /// A name or path is longer than any that is stored.
    #[error("name of {length} bytes is too long")]
    NameTooLong {
        /// Its length.
        length: usize,
    },
    /// A path leads nowhere.
    #[error("path {path:?} is not allowed: {reason}")]
    BadPath {
        /// The path as it came.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Two entries of one directory have one name.
    #[error("file already exists: {0:?}")]
    Duplicate(String),
    /// The names of a directory do not differ within 64 bits of their hashes.
    #[error("sharded directory too deep")]
    TooDeep,
    /// More entries than are kept in memory.
    #[error("more than {limit} entries in one import")]
    TooMany {
        /// The bound.
        limit: usize,
    },
}
