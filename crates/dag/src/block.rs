//! A block: bytes and the CID that proves them.

use crate::codec;
use crate::hash::{DIGEST_MIN, HashError, HashFn};
use bytes::Bytes;
use types::Cid;

/// The largest block that travels between nodes (the bitswap rule); nothing larger is made or taken.
pub const MAX_BLOCK: usize = 2 << 20;

/// Bytes and their CID. Whoever makes one by hand vouches for the pair; [`verify`] checks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The name.
    pub cid: Cid,
    /// The content; cloning shares it.
    pub data: Bytes,
}

impl Block {
    /// Hashes `data` into a block with a CID of version 1.
    pub fn new(codec: u64, hash: HashFn, data: Bytes) -> Result<Block, HashError> {
        let cid = Cid::new_v1(codec, hash.digest(&data)?);
        Ok(Block { cid, data })
    }

    /// Hashes the dag-pb node `data` into a block with a CID of version 0 (always sha2-256).
    pub fn new_v0(data: Bytes) -> Result<Block, HashError> {
        let block = Block::new(codec::DAG_PB, HashFn::SHA2_256, data)?;
        Ok(Block { cid: Cid::new_v0(*block.cid.hash()).unwrap_or(block.cid), data: block.data })
    }
}

/// Why bytes do not prove a CID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HashMismatch {
    /// The digest is another one.
    #[error("block content does not match {cid}")]
    Differs {
        /// The CID that was claimed.
        cid: Cid,
    },
    /// The digest cannot be computed.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// So short a digest proves nothing.
    #[error("digest of {cid} is shorter than 20 bytes")]
    DigestTooShort {
        /// The CID that was claimed.
        cid: Cid,
    },
    /// No block of this size is taken.
    #[error("block {cid} has {length} bytes, more than 2 MiB")]
    TooBig {
        /// The CID that was claimed.
        cid: Cid,
        /// The size.
        length: usize,
    },
}

/// Checks that `data` is what `cid` names. Digests cut short count if 20 bytes are left, as in Kubo.
pub fn verify(cid: &Cid, data: &[u8]) -> Result<(), HashMismatch> {
    if data.len() > MAX_BLOCK {
        return Err(HashMismatch::TooBig { cid: *cid, length: data.len() });
    }
    let claimed = cid.hash().digest();
    let hash = HashFn::from_code(cid.hash().code())?;
    if hash == HashFn::IDENTITY {
        return if claimed == data { Ok(()) } else { Err(HashMismatch::Differs { cid: *cid }) };
    }
    if claimed.len() < DIGEST_MIN {
        return Err(HashMismatch::DigestTooShort { cid: *cid });
    }
    let digest = hash.digest(data)?;
    if digest.digest().starts_with(claimed) { Ok(()) } else { Err(HashMismatch::Differs { cid: *cid }) }
}

/// The content of a CID that carries it inside (`identity`), which needs no fetching.
pub fn inline_data(cid: &Cid) -> Option<&[u8]> {
    (cid.hash().code() == HashFn::IDENTITY.code()).then(|| cid.hash().digest())
}

#[cfg(test)]
mod tests {
    use super::*;
    use multihash::Multihash;

    #[test]
    fn a_block_proves_its_cid_and_no_other() {
        for hash in ["identity", "sha2-256", "sha2-512", "blake2b-256", "blake2s-256", "blake3", "sha3-256"] {
            let hash = HashFn::from_name(hash).expect("listed");
            let block = Block::new(codec::RAW, hash, Bytes::from_static(b"abc")).expect("short");
            assert_eq!(verify(&block.cid, b"abc"), Ok(()));
            assert_eq!(verify(&block.cid, b"abd"), Err(HashMismatch::Differs { cid: block.cid }));
        }
    }

    #[test]
    fn unknown_hash_functions_are_named_in_the_error() {
        let cid = Cid::new_v1(codec::RAW, Multihash::wrap(0x11, &[0; 20]).expect("fits"));
        assert_eq!(verify(&cid, b""), Err(HashMismatch::Hash(HashError::Unknown { code: 0x11, name: "sha1" })));
    }

    #[test]
    fn digests_cut_short_count_down_to_20_bytes() {
        let full = HashFn::SHA2_256.digest(b"abc").expect("known");
        let cut = |length: u8| Cid::new_v1(codec::RAW, full.truncate(length));
        assert_eq!(verify(&cut(20), b"abc"), Ok(()));
        assert_eq!(verify(&cut(19), b"abc"), Err(HashMismatch::DigestTooShort { cid: cut(19) }));
        let empty = Cid::new_v1(codec::RAW, full.truncate(0));
        assert!(verify(&empty, b"abc").is_err());
    }

    #[test]
    fn big_blocks_are_refused() {
        let data = vec![0; MAX_BLOCK + 1];
        let block = Block::new(codec::RAW, HashFn::SHA2_256, data.into()).expect("known");
        assert!(matches!(verify(&block.cid, &block.data), Err(HashMismatch::TooBig { .. })));
    }
}
