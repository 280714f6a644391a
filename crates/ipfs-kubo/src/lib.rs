//! A Kubo daemon as the node of a peer, over its RPC.
//!
//! ```text
//!   KuboNode (ipfs::IpfsNode)
//!     ├── blocks    block/put, block/get, block/stat; blocks of an add are pinned directly until it ends
//!     ├── pinning   pin/add with progress and a limit on silence; a cancel is checked and undone
//!     ├── listing   pin/ls, sorted on disk; what others pinned there is the user's, shown and never removed
//!     ├── front     our own host before the daemon: members send blocks to it (lanes) and fetch from it (bitswap)
//!     └── rpc       one HTTP client: a deadline on everything, bounded answers, credentials
//!   KuboRouting (ipfs::values::ValueRouting): routing/get, routing/put, for records of names
//!   ipfs::held (in store::Store) is the ledger: Kubo knows no owners
//! ```
//! Nothing waits for ever: every call has a deadline, every stream one for silence. What Kubo cannot tell is said to be estimated
//! ([`ipfs::Space::is_exact`]). Kubo keeps pins either whole or one block deep: a pin of some levels is kept whole there, as Go's
//! connector does.
//!
//! Deliberately absent: clusters, policies.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may stop at anything unexpected"))]

mod blocks;
mod front;
mod intents;
mod listing;
mod node;
mod pinning;
mod routing;
pub mod rpc;

pub use node::{KuboError, KuboNode, KuboOptions};
pub use routing::KuboRouting;
