//! Proves blocks by their hashes.

use bytes::Bytes;
use cid::multihash::Multihash;
use dag::hash::{DIGEST_MIN, HashFn};
use types::Cid;
use wire::bitswap::{Message, Prefix};

const DAG_PB: u64 = 0x70;

/// Hashing more than this in one go is left to the blocking pool: about half a millisecond.
const INLINE_BYTES_MAX: usize = 256 << 10;

/// A block and what it proves.
pub(super) struct Proven {
    pub(super) hash: Multihash<64>,
    pub(super) data: Bytes,
}

/// The data of a CID that carries it inside.
pub(super) fn inline(cid: &Cid) -> Option<Bytes> {
    (cid.hash().code() == HashFn::IDENTITY.code()).then(|| Bytes::copy_from_slice(cid.hash().digest()))
}

/// Whether a block of this CID could be proven: its function is known and its digest long enough.
pub(super) fn is_provable(cid: &Cid) -> bool {
    HashFn::from_code(cid.hash().code()).is_ok() && usize::from(cid.hash().size()) >= DIGEST_MIN
}

/// Hashes the blocks of a message. Those whose prefix nobody can prove are left out.
pub(super) async fn prove(message: &mut Message) -> Vec<Proven> {
    let legacy = Prefix { version: 0, codec: DAG_PB, hash: HashFn::SHA2_256.code(), digest_length: 32 };
    let legacy_blocks = std::mem::take(&mut message.blocks_legacy).into_iter().map(|data| (legacy, data));
    let blocks = std::mem::take(&mut message.blocks).into_iter().map(|block| (block.prefix, block.data));
    let blocks: Vec<(Prefix, Bytes)> = legacy_blocks.chain(blocks).collect();
    let bytes: usize = blocks.iter().map(|(_, data)| data.len()).sum();
    if bytes <= INLINE_BYTES_MAX {
        return hash_all(blocks);
    }
    tokio::task::spawn_blocking(|| hash_all(blocks)).await.unwrap_or_default()
}

fn hash_all(blocks: Vec<(Prefix, Bytes)>) -> Vec<Proven> {
    blocks.into_iter().filter_map(|(prefix, data)| hash(&prefix, &data).map(|hash| Proven { hash, data })).collect()
}

fn hash(prefix: &Prefix, data: &[u8]) -> Option<Multihash<64>> {
    let digest = HashFn::from_code(prefix.hash).ok()?.digest(data).ok()?;
    prefix.cid(digest.digest()).map(|cid| *cid.hash())
}
