//! The multicodec numbers of block formats that this crate knows.

/// Protobuf nodes: files, directories.
pub const DAG_PB: u64 = 0x70;
/// Plain bytes, a leaf.
pub const RAW: u64 = 0x55;
/// CBOR with links under tag 42.
pub const DAG_CBOR: u64 = 0x71;
/// JSON with links as `{"/": "<cid>"}`.
pub const DAG_JSON: u64 = 0x0129;
