//! What can go wrong with packs.

use crate::StoreError;
use bytes::Bytes;
use std::fmt::Write;
use std::sync::Arc;
use types::ByteCount;

/// Why the packs did not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PackError {
    /// A block is known and its bytes cannot be trusted. Delete it before it is put again.
    #[error("block {} is damaged on disk: {what}", hex(multihash))]
    CorruptBlock {
        /// Which block.
        multihash: Bytes,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The index failed.
    #[error(transparent)]
    Index(#[from] StoreError),
    /// The disk or its file system failed.
    #[error("{doing}")]
    Io {
        /// What was attempted.
        doing: &'static str,
        /// What the system answered.
        #[source]
        source: Arc<std::io::Error>,
    },
}

/// Why blocks were not put.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PutError {
    /// The limit of the store would be passed.
    #[error("the block store is full: needs {needed}, free {free}")]
    NoRoom {
        /// What the new blocks take.
        needed: ByteCount,
        /// What the limit leaves.
        free: ByteCount,
    },
    /// The disk is full, though the limit is not reached.
    #[error("the disk is full: needs {needed}, free {free}")]
    DiskFull {
        /// What the new blocks take.
        needed: ByteCount,
        /// What the disk says it has.
        free: ByteCount,
    },
    /// A block over [`BLOCK_LARGEST`](super::BLOCK_LARGEST).
    #[error("a block of {size} is above the largest of {largest}")]
    TooLarge {
        /// Its size.
        size: ByteCount,
        /// The bound.
        largest: ByteCount,
    },
    /// A name that is no multihash.
    #[error("a multihash has 1 to 255 bytes, not {length}")]
    BadMultihash {
        /// Its length.
        length: usize,
    },
    /// The index or the disk failed.
    #[error(transparent)]
    Io(#[from] PackError),
}

impl PackError {
    pub(super) fn io(doing: &'static str) -> impl FnOnce(std::io::Error) -> PackError {
        move |error| PackError::Io { doing, source: Arc::new(error) }
    }

    pub(super) fn corrupt(multihash: &[u8], what: &'static str) -> PackError {
        PackError::CorruptBlock { multihash: Bytes::copy_from_slice(multihash), what }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
