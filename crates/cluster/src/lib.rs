//! The mind of a peer: decides who holds what, what to do next, what is wrong and why.
//!
//! A deterministic machine: `(state, event, now) -> effects`. It never touches network, disk, clock or chance; around it
//! `peer` waits for events and performs effects, and `sim` runs hundreds of it in one thread. Blocks never pass here.
//!
//! ```text
//!   doors ──Command──►┌─────────┐──Submit──► consensus (the shared wish)
//!   wish ──Shared────►│ Machine │──Node────► the own IPFS node (pin, unpin, list)
//!   node ──Node,Held─►│         │──Tell────► other peers' machines
//!   peers ─Message───►└─────────┘──Ledger──► what is ours, on disk
//! ```
//! Read [`event`] first (what goes in and out), then `machine.rs` (routes), then `tracker` (this peer: wanted against held),
//! `placement`, `health`, `repair`, `space`, `membership`.

pub mod event;
pub mod forecast;
pub mod options;
pub mod report;
pub mod view;

mod context;
mod machine;

pub mod tracker;

mod adding;
pub mod decisions;
mod explain;
mod health;
mod holdings;
mod leaving;
mod look;
pub mod membership;
mod outbox;
pub mod placement;
pub mod plan;
mod repair;
mod space;
mod taking;

pub mod expect;
pub mod owner;
pub mod shards;
pub mod signing;

pub mod order;
#[cfg(test)]
mod testing;

pub use decisions::{Balancing, Duty};
pub use event::{
    Answer, Change, Command, Effect, Event, GoMember, LinkState, Missing, NewRoot, NewUnit, NodeFailure, NodeOp, NodeOutcome, Notice, OpId,
    PinChange, RequestId, SharedChange, SubmitId, ViewState,
};
pub use machine::Machine;
pub use membership::MemberDocument;
pub use options::{BrakeLimits, DefaultClass, Options, Pace, PlantedBug, RepairLimits};
pub use report::{CopyRow, Explanation, PeerHealth, PeerRow, PieceRow, ShortRow};
pub use view::SharedView;
