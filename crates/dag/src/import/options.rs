//! How files are imported.

use super::ImportError;
use crate::chunk::Chunker;
use crate::hash::DIGEST_MAX;
use crate::unixfs::Stat;
use crate::{Block, HashFn, MAX_BLOCK, codec};
use bytes::Bytes;
use cid::Version;
use types::Cid;

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
    /// Blocks of so many bytes and less live inside their CIDs (`--inline --inline-limit`), at most [`crate::hash::DIGEST_MAX`]; 0: none.
    pub inline_limit: usize,
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
            inline_limit: 0,
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
        self.form().check()
    }

    /// How the CIDs of its blocks are made.
    pub fn form(&self) -> CidForm {
        CidForm { version: self.cid_version, hash: self.hash, inline_limit: self.inline_limit }
    }
}

/// How CIDs are made of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CidForm {
    /// The version; raw and inline blocks are version 1 in any case.
    pub version: Version,
    /// The hash function; other than sha2-256 needs version 1.
    pub hash: HashFn,
    /// Blocks of so many bytes and less live inside their CIDs; 0: none.
    pub inline_limit: usize,
}

impl CidForm {
    /// The form of an existing CID, for nodes that take its place. What lived inside its CID goes on so while it is small.
    pub fn of(cid: &Cid) -> CidForm {
        let hash = HashFn::from_code(cid.hash().code()).unwrap_or(HashFn::SHA2_256);
        if hash == HashFn::IDENTITY {
            return CidForm { version: Version::V1, hash: HashFn::SHA2_256, inline_limit: DIGEST_MAX };
        }
        CidForm { version: cid.version(), hash, inline_limit: 0 }
    }

    /// Checks that version, function and limit fit together.
    pub fn check(&self) -> Result<(), ImportError> {
        if self.inline_limit > DIGEST_MAX {
            return Err(ImportError::InlineLimit { limit: self.inline_limit });
        }
        if self.version == Version::V0 && self.hash != HashFn::SHA2_256 { Err(ImportError::V0WithOtherHash) } else { Ok(()) }
    }

    /// Hashes a dag-pb node.
    pub fn node(&self, node: Vec<u8>) -> Result<Block, ImportError> {
        self.block(codec::DAG_PB, Bytes::from(node))
    }

    /// Hashes a leaf of plain bytes.
    pub fn raw(&self, data: Bytes) -> Result<Block, ImportError> {
        self.block(codec::RAW, data)
    }

    fn block(&self, codec: u64, data: Bytes) -> Result<Block, ImportError> {
        if data.len() > MAX_BLOCK {
            return Err(ImportError::NodeTooBig { length: data.len() });
        }
        self.check()?;
        let is_inline = self.inline_limit > 0 && data.len() <= self.inline_limit;
        Ok(match self.version {
            _ if is_inline => Block::new(codec, HashFn::IDENTITY, data)?,
            Version::V0 if codec == codec::DAG_PB => Block::new_v0(data)?,
            _ => Block::new(codec, self.hash, data)?,
        })
    }
}

/// Hands a block on unless it lives inside its CID, which nobody needs to store.
pub(crate) fn hand_out(block: Block, out: &mut impl FnMut(Block)) {
    if block.cid.hash().code() != HashFn::IDENTITY.code() {
        out(block);
    }
}
