//! From blocks to files, listings, paths, whole trees and archives, without fetching.
//!
//! All readers work alike: `step` tells what is needed or what was found, `give` brings a needed block, and so on until the end. Blocks are
//! believed: whoever brings them has verified them. Sizes that a DAG claims are checked against what comes, so a reader never gives more or
//! fewer bytes than the root promised.

mod file;
mod list;
mod resolve;
mod tar;
mod tree;
mod zip;

pub use file::{FileReader, FileStep, file_size};
pub(crate) use list::check_shard;
pub use list::{DirectoryReader, Entry, ListStep};
pub use resolve::{Found, Resolve, Resolver};
pub use tar::TarWriter;
pub use tree::{EntryKind, TreeEntry, TreeReader, TreeStep};
pub use zip::ZipWriter;

use crate::DecodeError;
use crate::unixfs::Kind;
use types::Cid;

/// What an archive writer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArchiveStep {
    /// Bring this block.
    Need(types::Cid),
    /// The next bytes of the archive.
    Data(bytes::Bytes),
    /// The archive is whole.
    Done,
}

/// Why something cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// A block is not what its CID says.
    #[error("reading {cid}")]
    Decode {
        /// Which one.
        cid: Box<Cid>,
        /// What is wrong with it.
        #[source]
        source: DecodeError,
    },
    /// A block was given that is not the needed one.
    #[error("{cid} is not needed here")]
    Unwanted {
        /// Which one.
        cid: Box<Cid>,
    },
    /// Bytes were wanted of something that is no file.
    #[error("{cid} is no file but {kind:?}")]
    NotAFile {
        /// Which one.
        cid: Box<Cid>,
        /// What it is.
        kind: Kind,
    },
    /// Entries were wanted of something that is no directory.
    #[error("{cid} is no directory")]
    NotADirectory {
        /// Which one.
        cid: Box<Cid>,
    },
    /// A part of a file has another size than the part above says.
    #[error("{cid} has {found} bytes of the file, {expected} were promised")]
    WrongSize {
        /// Which one.
        cid: Box<Cid>,
        /// What its parent said.
        expected: u64,
        /// What it has.
        found: u64,
    },
    /// Nested deeper, or wider, than anything honest.
    #[error("{cid}: the DAG is nested too deeply or too wide")]
    TooDeep {
        /// Where it was noticed.
        cid: Box<Cid>,
    },
    /// A name of an entry would lead elsewhere, or is none.
    #[error("an entry is called {name:?}, which no file system or archive takes")]
    BadName {
        /// The name.
        name: String,
    },
    /// More entries than an archive can list.
    #[error("the archive would have more entries than are kept in memory")]
    TooMany,
    /// Blocks of this codec hold no files.
    #[error("{cid} has codec 0x{codec:x}, which holds no files")]
    Codec {
        /// Which one.
        cid: Box<Cid>,
        /// Its codec.
        codec: u64,
    },
}

impl ExportError {
    fn decode(cid: &Cid) -> impl Fn(DecodeError) -> ExportError {
        let cid = *cid;
        move |source| ExportError::Decode { cid: Box::new(cid), source }
    }

    fn malformed(cid: &Cid, what: &'static str, reason: &'static str) -> ExportError {
        ExportError::decode(cid)(DecodeError::malformed(what, reason))
    }

    fn too_deep(cid: &Cid) -> ExportError {
        ExportError::TooDeep { cid: Box::new(*cid) }
    }
}
