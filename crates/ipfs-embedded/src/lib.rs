//! A whole IPFS node in this process: blocks in packs, pins with owners, fetching and serving over bitswap, garbage collection.
//!
//! ```text
//!        EmbeddedNode (ipfs::IpfsNode)
//!      ┌───────┼───────────┬────────────┬──────────────┐
//!   blocks   pinning     collect      network        receive
//!      │       │  fetches ──┼───────────► │ bitswap      │ block lanes of adds
//!      └───────┴────┬───────┴─────────────┴──────────────┘
//!                shared ─► store::PackStore (blocks), ipfs::held (pins, in store::Store), safety (what a collection must spare)
//! ```
//!
//! Everything acknowledged is on disk. Disk work runs on blocking threads; memory does not grow with the number of blocks, except
//! while a pin or a collection walks (`safety`, `collect`, [`ipfs::walk`] say by how much).
//!
//! Among strangers ([`Routing`], where it is on): `finding` asks the DHT for who has what nobody connected has, `providing` tells it what is here.
//! Servers over HTTP that the user named are asked too: `delegated` who has what, `gateways` for the blocks themselves; `standing` remembers how
//! they did.
//!
//! Reading order: [`EmbeddedNode`], `shared`, `safety`, `pinning`, `collect`, `check`, `network`, `receive`, `fetching`, `finding`, `gateways`, `delegated`,
//! `providing`.
//!
//! Deliberately absent: clusters, policies, names, the protocol of the DHT (`net::kad`).

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may stop at anything unexpected"))]

mod bloom;
mod check;
mod collect;
mod delegated;
mod error;
mod fetching;
mod finding;
mod gateways;
mod network;
mod node;
mod pin_here;
mod pinning;
mod providing;
mod receive;
mod routing;
mod safety;
mod shared;
mod standing;

pub use delegated::Found;
pub use error::OpenError;
pub use net::kad::Mode;
pub use node::{EmbeddedNode, EmbeddedOptions};
pub use providing::Strategy;
pub use routing::{HttpRouting, Routing, RoutingOptions};
