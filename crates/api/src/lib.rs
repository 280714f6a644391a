//! HTTP doors: they translate between clients and the cluster, and hold no state. Any door of any peer gives the same answers.
//!
//! ```text
//!   TCP ─► server (limits, drain) ─► guard (Host, Origin, credentials) ─► a door ─► peer::Cluster / ipfs::IpfsNode
//! ```
//! Doors: [`rest`] (Go's cluster API, ours, and the live status page) [`gateway`]
//! (content by path, blocks, CARs) and [`proxy`] (the part of Kubo's RPC that the cluster answers as one node). Read [`server`] for how a door is run and
//! [`guard`] for whom it lets in.
//!
//! Deliberately absent: decisions, retries, caches.

pub mod gateway;
pub mod guard;
pub mod proxy;
pub mod rest;
pub mod server;

mod crowd;
mod linger;
mod message;
mod multipart;
mod page;
mod path;
mod query;
mod stall;
mod trailer;

pub use guard::{Credentials, UnsafeListen, check_listen};
pub use server::{Limits, ServeOptions};
