//! go-ds-crdt's set and DAG, with the same bytes and the same outcome, and another way of working.
//!
//! The wish is a set of elements `(key, block that added it)`; a block of the DAG adds elements and removes earlier ones by name
//! (tombstones), and links the heads its author knew. A key shows the value of its living element with the highest priority, among
//! equals the bytewise greatest. Since a removal names what it removes, blocks may be merged in any order, each exactly once.
//!
//! ```text
//!  submit ─► journal (one fsync, visible) ─► block on top of the heads ─► broadcast
//!  heads from others ─► wants ─► fetch (many at once, newest first) ─► merge ─► wants of its links
//! ```
//!
//! [`machine`] decides: `step(events, now, snapshot) -> (batch to commit, effects to perform)`, without clock, disk or network, so
//! the simulator drives it too. `driver` does: one task that gathers events, lets the machine step, commits, then performs; [`handle`] is what others hold.
//! All effects of a block (elements, tombstones, winners, heads, marks, its bytes) are in one batch, so a crash leaves a block
//! merged or unknown. The other modules are the machine's parts: [`block`] checks what strangers wrote, `merge` applies it,
//! `alive` is the set, `row` what of it stands at a key, `wants` the frontier, `journal` what is acknowledged and not yet told,
//! `tell` the blocks made of it, [`author`] whose blocks count, `snapshot` the set given page by page to peers that join.
//!
//! What differs from Go, on purpose: heads move when a block is merged, not when a walk reaches the bottom; the last of equal keys
//! in one block counts on every peer (in Go it depends on what came before); a block that cannot be read is refused once and does
//! not stop the walk; history is fetched many blocks at a time. A link is known only from the block above it, so a chain in which
//! each block links only the one before costs a round trip for each block among Go peers; Pinfold peers give stretches of it
//! (`ancestors`).

pub mod author;
pub mod block;
pub mod event;
pub mod handle;
pub mod id;
pub mod machine;
pub mod network;

mod alive;
mod ancestors;
mod draft;
mod driver;
mod journal;
mod merge;
mod row;
mod snapshot;
mod tell;
mod values;
mod wants;

pub use author::{AuthorNumbers, AuthorRules, Fault, Finding, Signatures, Verifier};
pub use event::{Effect, Event, MachineOptions, PlantedBug, Signer, Step};
pub use handle::{Crdt, CrdtNumbers, CrdtOptions};
pub use id::BlockId;
pub use machine::Machine;
pub use network::CrdtNetwork;
pub use row::shown;
pub use snapshot::answer as page;

use crate::OtherLayout;
use store::StoreError;

/// Why the machine cannot go on. It is then read again from the store.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CrdtError {
    /// The store did not answer.
    #[error("reading the stored state")]
    Store(#[from] StoreError),
    /// What it answered cannot be read.
    #[error("the stored state is damaged: {0}")]
    Damaged(String),
    /// Another version of Pinfold wrote it.
    #[error(transparent)]
    Layout(#[from] OtherLayout),
}

impl CrdtError {
    pub(crate) fn damaged(what: &str, key: &[u8]) -> CrdtError {
        CrdtError::Damaged(format!("{what} at {}", data_encoding::HEXLOWER.encode(key)))
    }
}
