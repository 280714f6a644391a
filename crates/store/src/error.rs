//! What can go wrong with this disk.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use types::ByteCount;

/// Why the store did not do what was asked. `Clone`, since callers that share one fsync share its failure.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk has no room; reading goes on, and writing once there is room.
    #[error("the disk is full: needs {needed}, free {free}")]
    DiskFull {
        /// What the write needs, with the room the store keeps for its own upkeep.
        needed: ByteCount,
        /// What the disk has.
        free: ByteCount,
    },
    /// The limit of this peer has no room; reading goes on, and letting go, and writing once there is room.
    #[error("the limit of {limit} is reached: needs {needed}, free {free}; unpin something or raise --space")]
    LimitReached {
        /// What the write needs.
        needed: ByteCount,
        /// What the limit leaves.
        free: ByteCount,
        /// The limit.
        limit: ByteCount,
    },
    /// Another process (or another part of this one) has the directory open.
    #[error("{dir} is in use by {}", holder(*pid))]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// Who has it, when it could be read.
        pid: Option<u32>,
    },
    /// Written by a later version.
    #[error("{dir} has format {found}; this version reads up to {known}")]
    FormatTooNew {
        /// The directory.
        dir: PathBuf,
        /// What is there.
        found: u32,
        /// What this version knows.
        known: u32,
    },
    /// The directory holds something else.
    #[error("{dir} holds no store that can be read: {what}")]
    NotAStore {
        /// The directory.
        dir: PathBuf,
        /// What was found there.
        what: String,
    },
    /// A key that no area takes.
    #[error("a key has 1 to 65535 bytes, not {length}")]
    BadKey {
        /// Its length.
        length: usize,
    },
    /// An earlier write failed in the disk, so the state of the files is unsure: reading goes on, writing only after the store is opened again.
    #[error("an earlier write to the disk failed; the store must be opened again")]
    Poisoned,
    /// The disk or its file system failed.
    #[error("{doing}")]
    Failed {
        /// What was attempted.
        doing: &'static str,
        /// What it answered.
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
}

impl StoreError {
    /// Whether the same call may succeed later without anybody opening the store again.
    pub fn is_transient(&self) -> bool {
        matches!(self, StoreError::DiskFull { .. } | StoreError::LimitReached { .. } | StoreError::Locked { .. })
    }

    pub(crate) fn failed(doing: &'static str) -> impl FnOnce(std::io::Error) -> StoreError {
        move |error| StoreError::Failed { doing, source: Arc::new(error) }
    }
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}
