//! The shared wish as keys and bytes: what all peers of a cluster agree on, without a thought for what a key means.
//!
//! ```text
//!   peer ── submit(writes) ──►┌───────────┐── hints: keys with before and after ──► peer
//!        ◄── durable, visible │ Consensus │
//!                             └─────┬─────┘◄── view(): a snapshot of Area::Pins
//!                    ┌──────────────┴──────────────┐
//!                 Single                         Crdt ── CrdtNetwork (broadcast, fetch, ask heads), adapted by `peer`
//!             (one peer alone)       machine decides, driver does
//! ```
//!
//! Start with [`contract`] (the trait and its promises), then [`crdt`]. [`conformance`] holds a function for each promise, and
//! [`memory`] a network without wires that those functions and other crates' tests use.
//!
//! Deliberately absent: the meaning of keys and values (pins are decoded by `peer`), libp2p, and who is trusted: an announcement
//! is handed in only after its signer was checked.

pub mod conformance;
pub mod contract;
pub mod crdt;
mod hints;
pub mod memory;
mod queue;
pub mod single;

pub use crate::contract::{
    Change, Consensus, Hint, Kind, OpenError, OtherLayout, Receipt, SubmitError, TakenOver, Version, ViewState, WRITES_MAX, Write,
};
pub use crate::crdt::{AuthorNumbers, Crdt, CrdtNetwork, CrdtOptions, Finding};
pub use crate::hints::Hints;
pub use crate::single::Single;
