//! Many peers on virtual time, with seeded faults.
//!
//! Each peer is the real machine of `cluster`, the real machine of `consensus::crdt` over the in-memory store, a model of a
//! node with a disk of so many bytes, and links that lose, delay, repeat and cut. One thread, one queue of events ordered by
//! `(time, number)`, one source of chance: the same seed gives the same run, to the last effect.
//!
//! ```text
//!   scenario ──► world ──► peer: cluster::Machine + crdt::Machine + MemoryStore + node
//!      faults ──►  │  ◄──── links (loss, delay, repetition, cuts, also in one direction)
//!                  └──► truth: what was promised ──► invariants, by name
//! ```
//! A run: peers start; doors pin, add, re-pin and remove while faults happen; then the faults end, and within a bounded time
//! everything must be healed; then nothing may happen any more. Start with [`scenario`], then [`world`].

pub mod faults;
pub mod invariants;
pub mod links;
pub mod node;
pub mod peer;
pub mod queue;
pub mod scenario;
pub mod truth;
pub mod view;
pub mod world;

#[cfg(test)]
mod tests;

pub use faults::Profile;
pub use invariants::{Invariant, Violation};
pub use scenario::{Outcome, Settings, run};
