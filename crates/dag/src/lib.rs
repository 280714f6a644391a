//! Blocks, UnixFS, directories, CAR: cut, hash, build, walk, verify. CIDs are bit-equal to those of Kubo's `ipfs add`.
//!
//! Pure: bytes in, blocks and questions out. Whoever reads a file pushes its bytes and stores the blocks that come back; whoever walks a DAG is
//! told which CIDs are wanted and hands their bytes in. No disk, no network, no clock, no threads; the split form of the importer
//! ([`import::leaf`], [`import::TreeBuilder`]) lets a caller hash on all its cores.
//!
//! ```text
//!            import: cut ─► hash ─► inner nodes ─► directories            export: files, listings, paths
//!                 └──────┬──────────┘      │            │                    │        │       │
//!                     chunk              unixfs ─────► pb ◄──── links ◄──── walk     hamt ────┘
//!                                                       │
//!                                             block, hash (the ground)       car (many blocks in one stream)
//! ```
//!
//! What exists is changed by [`edit`] (one directory, one file) and [`mfs`] (a tree by path), which stand on all of these but `car`. What is too
//! large for one node is cut by [`shards`].
//!
//! Reading order: [`hash`], [`block`], [`pb`], [`unixfs`], [`mod@links`], then [`import`], [`walk`], [`export`], [`edit`], [`mfs`], [`car`].
//!
//! Everything that decodes is bounded: blocks by [`MAX_BLOCK`], links by [`MAX_LINKS`], nesting and widths by constants beside the code. Bytes from
//! strangers give errors, never panics.

pub mod block;
pub mod car;
pub mod cbor;
pub mod chunk;
pub mod codec;
pub mod edit;
pub mod error;
pub mod export;
pub mod hamt;
pub mod hash;
pub mod import;
pub mod json;
pub mod links;
pub mod mfs;
pub mod pb;
pub mod shards;
pub mod unixfs;
pub mod walk;

pub use block::{Block, HashMismatch, MAX_BLOCK, verify};
pub use error::DecodeError;
pub use hash::HashFn;
pub use links::{MAX_LINKS, links};
