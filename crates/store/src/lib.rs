//! This disk: ordered keys with atomic batches and snapshots, and blocks in append-only packs.
//!
//! ```text
//!   crdt · raft · pins · intents · records            blocks of a node
//!                  │                                        │
//!            ┌─────▼──────┐   where each block lies   ┌─────▼─────┐
//!            │   Store    │◄──────────────────────────┤ PackStore │
//!            └──┬──────┬──┘   (Area::BlockIndex)      └─────┬─────┘
//!        MemoryStore  DiskStore (fjall)              segment files
//! ```
//!
//! Start with [`keys`] (the contract), then [`disk`] and [`memory`] (its two implementers, held to the same promises by
//! [`conformance`]), then [`packs`]; [`quota`] holds all of them under one limit.
//!
//! Everything here blocks its thread: callers in async code wrap it. Deliberately absent: what keys and values mean, hashing and
//! checking of content (a block's name is whatever the caller says), garbage collection policy.

pub mod conformance;
pub mod disk;
pub mod error;
pub mod keys;
pub mod lock;
pub mod memory;
pub mod packs;
pub mod quota;

pub use crate::disk::{DiskOptions, DiskStore};
pub use crate::error::StoreError;
pub use crate::keys::{Area, Batch, Durability, Op, Snapshot, Store};
pub use crate::lock::{DirLock, lock_dir};
pub use crate::memory::MemoryStore;
pub use crate::packs::{BadBlock, PackError, PackOptions, PackStats, PackStore, PutError, PutOutcome, Recovered, Scrubbed};
pub use crate::quota::Quota;
