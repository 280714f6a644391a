//! Orders and distances: the byte order of keys, and who is closest to a CID.

use blake2::Blake2b;
use blake2::digest::{Digest, consts::U32};
use std::cmp::Ordering;
use types::{Cid, PeerId};

/// The longest CID: version, codec, hash code and length as varints, and 64 bytes of digest.
const LONGEST: usize = 9 * 4 + 64;

/// Orders two CIDs by their bytes, as keys are ordered on disk. (`Cid`'s own order puts version 0 first; the bytes do not.)
pub fn byte_order(a: &Cid, b: &Cid) -> Ordering {
    with_bytes(a, |a| with_bytes(b, |b| a.cmp(b)))
}

/// Gives the bytes of a CID without allocating.
fn with_bytes<T>(cid: &Cid, use_bytes: impl FnOnce(&[u8]) -> T) -> T {
    let mut buffer = [0; LONGEST];
    let mut rest = &mut buffer[..];
    match cid.write_bytes(&mut rest) {
        Ok(length) => use_bytes(&buffer[..length]),
        Err(_) => use_bytes(&cid.to_bytes()),
    }
}

/// BLAKE2b-256, which Go's distance rule uses.
fn digest(bytes: &[u8]) -> [u8; 32] {
    Blake2b::<U32>::digest(bytes).into()
}

/// Peers ranked by Go's distance rule: smallest XOR of BLAKE2b-256(CID) and BLAKE2b-256(peer id) first.
///
/// Keeps the digests of peers, so that ranking many CIDs hashes each peer once.
#[derive(Clone, Debug, Default)]
pub struct Distances {
    peers: std::collections::BTreeMap<PeerId, [u8; 32]>,
}

impl Distances {
    /// How many of `peers` are closer to `cid` than `me`.
    pub fn rank(&mut self, cid: &Cid, me: &PeerId, peers: impl Iterator<Item = PeerId>) -> u32 {
        let target = with_bytes(cid, digest);
        let own = self.distance(&target, me);
        let mut rank = 0;
        for peer in peers {
            if peer != *me && self.distance(&target, &peer) < own {
                rank += 1;
            }
        }
        rank
    }

    fn distance(&mut self, target: &[u8; 32], peer: &PeerId) -> [u8; 32] {
        let own = self.peers.entry(*peer).or_insert_with(|| digest(peer.as_bytes()));
        std::array::from_fn(|i| own[i] ^ target[i])
    }
}

/// 64 bits that depend on a CID and a peer and on nothing else; the same on every peer for years.
pub fn mix(cid: &Cid, peer: &PeerId) -> u64 {
    let mut hasher = Blake2b::<U32>::new();
    with_bytes(cid, |bytes| hasher.update(bytes));
    hasher.update(peer.as_bytes());
    first_eight(&hasher.finalize().into())
}

/// 64 bits that depend on a CID and a number (jitter of retries).
pub fn mix_number(cid: &Cid, number: u64) -> u64 {
    let mut hasher = Blake2b::<U32>::new();
    with_bytes(cid, |bytes| hasher.update(bytes));
    hasher.update(number.to_be_bytes());
    first_eight(&hasher.finalize().into())
}

fn first_eight(bytes: &[u8; 32]) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[..8]);
    u64::from_be_bytes(eight)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cid, peer};

    #[test]
    fn version_0_sorts_after_version_1_as_its_bytes_do() {
        let v1 = cid(1);
        let v0: Cid = "QmdfTbBqBPQ7VNxZEYEj14VmRuZBkqFbiwReogJgS1zR1n".parse().expect("a CIDv0");
        assert_eq!(byte_order(&v1, &v0), Ordering::Less);
        assert_eq!(byte_order(&v1, &v0), v1.to_bytes().cmp(&v0.to_bytes()));
    }

    #[test]
    fn ranks_are_a_permutation() {
        let peers: Vec<_> = (0..9).map(peer).collect();
        let mut distances = Distances::default();
        for number in 0..20 {
            let mut ranks: Vec<_> = peers.iter().map(|me| distances.rank(&cid(number), me, peers.iter().copied())).collect();
            ranks.sort_unstable();
            assert_eq!(ranks, (0..9).collect::<Vec<_>>());
        }
    }
}
