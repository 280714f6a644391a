//! How files are imported.

use super::ImportError;
use crate::chunk::Chunker;
use crate::unixfs::Stat;
use crate::{Block, HashFn, MAX_BLOCK, codec};
use bytes::Bytes;
use cid::Version;

/// Links of an inner node of a file.
pub const WIDTH: usize = 174;

/// How the leaves of a file hang together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// All leaves at one depth.
    #[default]
    Balanced,
    /// First leaves near the root, for reading from the front.
    Trickle,
}

/// How a file is imported; the default is Kubo's (CID version 0).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileOptions {
    /// The version of CIDs; leaves without framing are version 1 in any case.
    pub cid_version: Version,
    /// The hash function; other than sha2-256 needs version 1.
    pub hash: HashFn,
    /// Whether leaves are plain bytes rather than dag-pb nodes. With `cid_version` 1 Kubo takes `true` unless told otherwise or `stat` is given.
    pub raw_leaves: bool,
    /// How to cut.
    pub chunker: Chunker,
    /// How to build.
    pub layout: Layout,
    /// Links of an inner node.
    pub width: usize,
    /// Mode and time, kept in the root; lost when the root is a raw leaf.
    pub stat: Stat,
}

impl Default for FileOptions {
    fn default() -> FileOptions {
        FileOptions {
            cid_version: Version::V0,
            hash: HashFn::SHA2_256,
            raw_leaves: false,
            chunker: Chunker::default(),
            layout: Layout::default(),
            width: WIDTH,
            stat: Stat::default(),
        }
    }
}

impl FileOptions {
    /// What `ipfs add --cid-version=1` takes.
    pub fn v1() -> FileOptions {
        FileOptions { cid_version: Version::V1, raw_leaves: true, ..FileOptions::default() }
    }

    /// Checks that the options fit together.
    pub fn check(&self) -> Result<(), ImportError> {
        check_version(self.cid_version, self.hash)
    }
}

pub(super) fn check_version(version: Version, hash: HashFn) -> Result<(), ImportError> {
    if version == Version::V0 && hash != HashFn::SHA2_256 { Err(ImportError::V0WithOtherHash) } else { Ok(()) }
}

/// Hashes a dag-pb node into a block with a CID of `version`.
pub(super) fn node_block(version: Version, hash: HashFn, node: Vec<u8>) -> Result<Block, ImportError> {
    if node.len() > MAX_BLOCK {
        return Err(ImportError::NodeTooBig { length: node.len() });
    }
    check_version(version, hash)?;
    let data = Bytes::from(node);
    Ok(if version == Version::V0 { Block::new_v0(data)? } else { Block::new(codec::DAG_PB, hash, data)? })
}
