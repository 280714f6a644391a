//! Places on the ring: what a key or a peer is hashed to, and how far two of them are apart.

use ring::digest::{SHA256, digest};
use types::PeerId;

/// Bits of a place.
pub(crate) const BITS: usize = 256;

/// A place on the ring of the DHT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(pub [u8; 32]);

impl Place {
    /// Of a key (of content its multihash, of a name `/ipns/` and its bytes).
    pub fn of(key: &[u8]) -> Place {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, key).as_ref());
        Place(bytes)
    }

    /// Of a peer.
    pub fn of_peer(peer: &PeerId) -> Place {
        Place::of(peer.as_bytes())
    }

    /// How far it is to another one: comparable for one and the same `self`.
    pub fn distance(&self, other: &Place) -> [u8; 32] {
        std::array::from_fn(|at| self.0[at] ^ other.0[at])
    }

    /// How many leading bits both have in common.
    pub fn shared_bits(&self, other: &Place) -> usize {
        let distance = self.distance(other);
        match distance.iter().position(|byte| *byte != 0) {
            Some(at) => at * 8 + distance[at].leading_zeros() as usize,
            None => BITS,
        }
    }

    /// The first and the last place with the same first `bits` bits.
    pub fn range(&self, bits: usize) -> (Place, Place) {
        let (mut first, mut last) = (*self, *self);
        for at in bits..BITS {
            first.0[at / 8] &= !(0x80 >> (at % 8));
            last.0[at / 8] |= 0x80 >> (at % 8);
        }
        (first, last)
    }

    /// The place after this one; none after the last.
    pub fn next(&self) -> Option<Place> {
        let mut next = *self;
        for byte in next.0.iter_mut().rev() {
            let (sum, is_over) = byte.overflowing_add(1);
            *byte = sum;
            if !is_over {
                return Some(next);
            }
        }
        None
    }

    /// Which part of the ring lies before it, from 0 to 1.
    pub fn fraction(&self) -> f64 {
        let head = u64::from_be_bytes(std::array::from_fn(|at| self.0[at]));
        head as f64 / u64::MAX as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_shared_bits_belong_together() {
        let place = Place::of(b"somewhere");
        for bits in [0, 1, 7, 8, 9, 100, 255, 256] {
            let (first, last) = place.range(bits);
            assert!(first <= place && place <= last);
            assert!(place.shared_bits(&first) >= bits && place.shared_bits(&last) >= bits, "{bits}");
            assert!(first.shared_bits(&last) == bits, "{bits}");
            if let Some(next) = last.next() {
                assert!(next.shared_bits(&place) < bits.max(1), "{bits}");
            }
        }
        assert_eq!(Place([0xff; 32]).next(), None);
        assert!(Place([0; 32]).fraction() == 0.0 && Place([0xff; 32]).fraction() == 1.0);
    }

    #[test]
    fn places_are_those_of_go() {
        // kbucket.ConvertKey("foo") is the SHA-256 of the bytes.
        assert_eq!(hex::encode(Place::of(b"foo").0), "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae");
    }
}
