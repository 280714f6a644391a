//! The seam: what every consensus promises.

use crate::Hints;
use crate::crdt::{AuthorNumbers, Finding};
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use store::{Snapshot, StoreError};
use types::{Cid, PeerId};

/// The longest value taken: one write must fit a delta of 1 MiB with room to spare.
pub const VALUE_BYTES_MAX: usize = 512 << 10;

/// The longest key taken. CIDs have 34 to 40 bytes, or up to about 140 when the content is inside.
pub const KEY_BYTES_MAX: usize = 512;

/// The most writes in one `submit`: they are made visible together.
pub const WRITES_MAX: usize = 4096;

/// One wished change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Raw CID bytes.
    pub key: Vec<u8>,
    /// The value; none removes the key.
    pub value: Option<Bytes>,
    /// Only if the key has this version. Convergent engines refuse it.
    pub expect: Option<Version>,
}

impl Write {
    /// Insert or replace.
    pub fn put(key: impl Into<Vec<u8>>, value: impl Into<Bytes>) -> Write {
        Write { key: key.into(), value: Some(value.into()), expect: None }
    }

    /// Remove; of an absent key it does nothing.
    pub fn remove(key: impl Into<Vec<u8>>) -> Write {
        Write { key: key.into(), value: None, expect: None }
    }
}

/// Which write of a key: 0 where it is absent, then the number of the commit that wrote it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

/// Proof that a submit was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Grows with every accepted submit of this peer; in a linearizable engine the version of the keys written.
    pub version: Version,
}

/// What one key was and is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Raw CID bytes.
    pub key: Vec<u8>,
    /// Before.
    pub before: Option<Bytes>,
    /// After.
    pub after: Option<Bytes>,
}

/// "Look there": hints may be missed, comparing the view never misses anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// These keys changed; at most 1,024 in one hint, in the order in which they changed.
    Changes(Vec<Change>),
    /// Hints were lost because they were not taken in time: compare the view, and ask for the state again.
    Lagged,
    /// The completeness of the view changed.
    State(ViewState),
    /// A block of the history has a fault in its author.
    Finding(Finding),
}

/// How complete the own view is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViewState {
    /// Nothing was ever merged or written here: an empty view means nothing.
    Unknown,
    /// Something was announced whose history is not here yet.
    CatchingUp,
    /// Everything announced has been merged.
    Current,
}

/// What the order of writes means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One order for all; `expect` is honoured.
    Linearizable,
    /// Equal in the end; `expect` is refused.
    Convergent,
}

/// Why writes were not accepted. None of the writes of that submit took place.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SubmitError {
    /// `expect` was given to a convergent engine.
    #[error("this cluster's state is convergent: it cannot promise what a key was before a write")]
    NotLinearizable,
    /// `expect` did not hold.
    #[error("the key has version {}, not {}", found.0, expected.0)]
    Conflict {
        /// What the key has.
        found: Version,
        /// What was expected.
        expected: Version,
    },
    /// A key is no CID.
    #[error("a key of the shared state must be a CID of at most {KEY_BYTES_MAX} bytes")]
    BadKey,
    /// A value above [`VALUE_BYTES_MAX`], or more than [`WRITES_MAX`] writes.
    #[error("too large for the shared state: {what}")]
    TooLarge {
        /// What is, with its size.
        what: String,
    },
    /// The disk did not take it.
    #[error("writing to the store")]
    Store(#[source] StoreError),
    /// The engine cannot go on with what it read.
    #[error("the stored state is damaged: {0}")]
    Damaged(String),
    /// The engine has stopped. Whether a submit under way was accepted is not known.
    #[error("the consensus has stopped")]
    Stopped,
}

impl SubmitError {
    /// Whether the same writes may be accepted later.
    pub fn is_transient(&self) -> bool {
        matches!(self, SubmitError::Store(error) if error.is_transient())
    }
}

/// The store was written by another version of Pinfold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the shared state has layout {found}, this version reads {known}: export it with the version that wrote it (`pinfold state export`), \
     then import it into a new directory"
)]
pub struct OtherLayout {
    /// The layout found.
    pub found: u8,
    /// The layout of this version.
    pub known: u8,
}

/// Why an engine could not start.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OpenError {
    /// The store did not answer.
    #[error("reading the stored state")]
    Store(#[from] StoreError),
    /// What it answered cannot be read.
    #[error("the stored state is damaged: {0}")]
    Damaged(String),
    /// Another version wrote it.
    #[error(transparent)]
    Layout(#[from] OtherLayout),
    /// The store was written by another engine, whose state this one cannot go on with.
    #[error("the store holds the state of a {found} consensus, this is {own}: export the pins and import them into an empty store")]
    OtherEngine {
        /// What is there.
        found: String,
        /// What was asked for.
        own: &'static str,
    },
}

/// The wish that all peers of a cluster share, as keys and values.
///
/// `submit` may be cancelled: the writes then take place or not, as a whole. It may be repeated: writing the same value again is
/// harmless. Writes of one caller that waits for each answer take place in that order; those of concurrent callers in any order.
#[async_trait]
pub trait Consensus: Send + Sync + 'static {
    /// Writes; durable here and visible in [`Consensus::view`] when it returns. Concurrent submits share one fsync.
    async fn submit(&self, writes: Vec<Write>) -> Result<Receipt, SubmitError>;

    /// Changes from here on, own and others'. A view taken after this call shows everything that is not hinted later.
    fn hints(&self) -> Hints;

    /// A number that grows before changes become visible: once [`Hints::seen`] has reached it, everything that a view taken before this call
    /// shows has been hinted.
    fn hinted(&self) -> u64;

    /// The wish at this moment: raw keys and values in `Area::Pins`.
    fn view(&self) -> Arc<dyn Snapshot>;

    /// How many keys the wish has, where the engine keeps the number (a step behind the view at most); none where they have to be counted.
    fn counted(&self) -> Option<u64> {
        None
    }

    /// How complete that is.
    fn state(&self) -> ViewState;

    /// The newest points of the history that this view contains; empty where an engine has no such thing.
    fn heads(&self) -> Vec<Cid>;

    /// The same once they contain everything that was written here before this call; none when that takes longer than `limit`.
    async fn told_heads(&self, limit: Duration) -> Option<Vec<Cid>> {
        let _ = limit;
        Some(self.heads())
    }

    /// Whether the view contains these points and everything before them.
    fn has_merged(&self, heads: &[Cid]) -> bool;

    /// What the order of writes means.
    fn kind(&self) -> Kind;

    /// These are, or were, members: what they wrote counts. An engine whose history has no authors has no use for it.
    fn authors_known(&self, known: BTreeSet<PeerId>) {
        let _ = known;
    }

    /// What no member signed counts from here on.
    fn accept_unsigned(&self) {}

    /// How the authors of the history stand.
    fn authors(&self) -> AuthorNumbers {
        AuthorNumbers::default()
    }

    /// What of the wish came as a set from others, instead of by its history.
    fn taken_over(&self) -> TakenOver {
        TakenOver::default()
    }

    /// Finishes what was accepted and ends all tasks; later submits are refused.
    async fn stop(&self);
}

/// How much of the wish is believed before its history was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TakenOver {
    /// Keys that were not yet met in the history.
    pub unsure: u64,
    /// Keys that others said wrongly and that were put right, since the start.
    pub mended: u64,
}

/// Checks what every engine refuses.
pub(crate) fn check(writes: &[Write]) -> Result<(), SubmitError> {
    if writes.len() > WRITES_MAX {
        return Err(SubmitError::TooLarge { what: format!("{} writes at once, at most {WRITES_MAX}", writes.len()) });
    }
    for write in writes {
        if write.key.len() > KEY_BYTES_MAX || wire::cids::cid_from_bytes(&write.key).is_none() {
            return Err(SubmitError::BadKey);
        }
        let length = write.value.as_ref().map_or(0, Bytes::len);
        if length > VALUE_BYTES_MAX {
            return Err(SubmitError::TooLarge { what: format!("a value of {length} bytes, at most {VALUE_BYTES_MAX}") });
        }
    }
    Ok(())
}

/// Marks the store as `own`'s, or refuses one that another engine wrote.
pub(crate) fn claim(store: &dyn store::Store, own: &'static str) -> Result<(), OpenError> {
    const ENGINE: &[u8] = b"consensus/engine";
    match store.get(store::Area::Meta, ENGINE)? {
        Some(found) if &found[..] == own.as_bytes() => Ok(()),
        Some(found) => Err(OpenError::OtherEngine { found: String::from_utf8_lossy(&found).into_owned(), own }),
        None => {
            let mut batch = store::Batch::new();
            batch.put(store::Area::Meta, ENGINE, own);
            Ok(store.commit(batch, store::Durability::Synced)?)
        }
    }
}
