//! The shell around the machine: waits for events, performs effects, and gives doors one handle.
//!
//! It decides nothing; `cluster` does. Start with [`handle`] (what doors see).

pub mod handle;

pub use handle::{AddSession, Cluster, CommandError, Identity, Live, Totals};
