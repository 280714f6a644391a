//! From what failed below to what the node answers.

use ipfs::held::HeldError;
use ipfs::{BlockError, PinError, PutError};
use std::error::Error;
use store::StoreError;
use store::packs::{self, PackError};
use types::Cid;

/// Why the node did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its network could not be served.
    #[error("serving blocks to other nodes: {0}")]
    Network(String),
}

/// Why a stored block could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Damage {
    /// Its bytes are not what was stored.
    #[error("damaged")]
    Corrupt,
    /// The disk failed.
    #[error("{0}")]
    Failed(String),
}

impl From<PackError> for Damage {
    fn from(error: PackError) -> Damage {
        match error {
            PackError::CorruptBlock { .. } => Damage::Corrupt,
            other => Damage::Failed(chain(&other)),
        }
    }
}

impl Damage {
    pub(crate) fn of(self, cid: &Cid) -> BlockError {
        match self {
            Damage::Corrupt => BlockError::Corrupt { cid: *cid },
            Damage::Failed(reason) => BlockError::Storage(reason),
        }
    }
}

pub(crate) fn put_error(error: packs::PutError) -> PutError {
    match error {
        packs::PutError::NoRoom { needed, free } | packs::PutError::DiskFull { needed, free } => PutError::NoRoom { needed, free },
        other => PutError::Storage(chain(&other)),
    }
}

/// The data of `cid` against its name: what a stranger's block must pass.
pub(crate) fn check(cid: &Cid, data: &[u8]) -> Result<(), PutError> {
    dag::verify(cid, data).map_err(|mismatch| match mismatch {
        dag::HashMismatch::Differs { cid } => PutError::Mismatch { cid },
        other => PutError::Refused { cid: *cid, reason: chain(&other) },
    })
}

pub(crate) fn pin_error(root: &Cid, error: HeldError) -> PinError {
    match error {
        HeldError::Store(StoreError::DiskFull { needed, free } | StoreError::LimitReached { needed, free, .. }) => {
            PinError::NoRoom { cid: *root, needed, free }
        }
        other => PinError::Storage(chain(&other)),
    }
}

pub(crate) fn pin_put_error(root: &Cid, error: PutError) -> PinError {
    match error {
        PutError::NoRoom { needed, free } => PinError::NoRoom { cid: *root, needed, free },
        other => PinError::Storage(chain(&other)),
    }
}

/// An error with its causes in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
