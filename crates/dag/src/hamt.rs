//! The hash trie of large directories: murmur3, the bits of a name at each level, the bit field of a shard.

use crate::DecodeError;
use crate::unixfs::{Kind, UnixFs};

/// The multicodec number of the only hash function in use.
pub const MURMUR3: u64 = 0x22;
/// The width that everybody builds with.
pub const FANOUT: usize = 256;
/// The largest width that is read (Kubo's bound).
pub const FANOUT_MAX: u64 = 1024;

/// The hash of a name: the first half of murmur3 x64 128, as boxo uses it.
pub fn hash_name(name: &[u8]) -> u64 {
    const C1: u64 = 0x87c3_7b91_1142_53d5;
    const C2: u64 = 0x4cf5_ad43_2745_937f;
    let mix1 = |k: u64| k.wrapping_mul(C1).rotate_left(31).wrapping_mul(C2);
    let mix2 = |k: u64| k.wrapping_mul(C2).rotate_left(33).wrapping_mul(C1);
    let (mut h1, mut h2) = (0u64, 0u64);
    let (pairs, tail) = name.as_chunks::<16>();
    for pair in pairs {
        let (k1, k2) = halves(pair);
        h1 = (h1 ^ mix1(k1)).rotate_left(27).wrapping_add(h2).wrapping_mul(5).wrapping_add(0x52dc_e729);
        h2 = (h2 ^ mix2(k2)).rotate_left(31).wrapping_add(h1).wrapping_mul(5).wrapping_add(0x3849_5ab5);
    }
    let mut last = [0; 16];
    last[..tail.len()].copy_from_slice(tail);
    let (k1, k2) = halves(&last);
    h1 ^= mix1(k1) ^ name.len() as u64;
    h2 ^= mix2(k2) ^ name.len() as u64;
    h1 = h1.wrapping_add(h2);
    h2 = h2.wrapping_add(h1);
    avalanche(h1).wrapping_add(avalanche(h2))
}

fn halves(block: &[u8; 16]) -> (u64, u64) {
    let whole = u128::from_le_bytes(*block);
    (whole as u64, (whole >> 64) as u64)
}

fn avalanche(mut k: u64) -> u64 {
    k = (k ^ (k >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    k = (k ^ (k >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    k ^ (k >> 33)
}

/// The shape of a trie: how wide its nodes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    bits: u32,
}

impl Shape {
    /// The shape that everybody builds.
    pub const DEFAULT: Shape = Shape { bits: 8 };

    /// The shape that a shard declares.
    pub fn of(shard: &UnixFs<'_>) -> Result<Shape, DecodeError> {
        const WHAT: &str = "directory shard";
        if shard.kind != Kind::HamtShard {
            return Err(DecodeError::malformed(WHAT, "not a shard"));
        }
        if shard.hash_type != Some(MURMUR3) {
            return Err(DecodeError::malformed(WHAT, "hash function other than murmur3"));
        }
        let shape = Shape::of_width(shard.fanout.unwrap_or_default());
        shape.ok_or_else(|| DecodeError::malformed(WHAT, "width that is no power of two from 8 to 1024"))
    }

    /// The shape with nodes of `width` slots: a power of two from 8 to 1024.
    pub fn of_width(width: u64) -> Option<Shape> {
        let is_valid = width.is_power_of_two() && (8..=FANOUT_MAX).contains(&width);
        is_valid.then_some(Shape { bits: width.trailing_zeros() })
    }

    /// How many slots a node has.
    pub fn width(self) -> usize {
        1 << self.bits
    }

    /// The slot of a hash in a node so deep below the root (which is 0); `None` when the hash has no bits left.
    pub fn slot(self, hash: u64, depth: u32) -> Option<usize> {
        let used = self.bits.checked_mul(depth)?;
        let left = 64u32.checked_sub(used)?.checked_sub(self.bits)?;
        Some((hash >> left) as usize & (self.width() - 1))
    }

    /// How many characters of a link's name tell the slot.
    pub fn prefix_length(self) -> usize {
        self.bits.div_ceil(4) as usize
    }

    /// The characters that tell `slot`.
    pub fn prefix(self, slot: usize) -> Vec<u8> {
        format!("{slot:0width$X}", width = self.prefix_length()).into_bytes()
    }
}

/// Which slots of a shard are taken, as it is written: big-endian, without leading zero bytes.
pub fn bit_field(slots: impl Iterator<Item = usize>, shape: Shape) -> Vec<u8> {
    let mut field = vec![0u8; shape.width() / 8];
    let last = field.len() - 1;
    for slot in slots {
        field[last - slot / 8] |= 1 << (slot % 8);
    }
    let zeros = field.iter().take_while(|byte| **byte == 0).count();
    field.split_off(zeros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur3_known_answers() {
        // First halves of the published murmur3 x64 128 vectors with seed 0.
        assert_eq!(hash_name(b""), 0);
        assert_eq!(hash_name(b"hello"), 0xcbd8_a7b3_41bd_9b02);
        assert_eq!(hash_name(b"hello, world"), 0x342f_ac62_3a5e_bc8e);
        assert_eq!(hash_name(b"The quick brown fox jumps over the lazy dog."), 0xcd99_481f_9ee9_02c9);
    }

    #[test]
    fn slots_take_the_hash_from_the_top() {
        let hash = 0x0123_4567_89ab_cdef;
        let slots: Vec<_> = (0..9).map(|depth| Shape::DEFAULT.slot(hash, depth)).collect();
        let expected = [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef].map(Some);
        assert_eq!(slots[..8], expected);
        assert_eq!(slots[8], None);
        assert_eq!(Shape { bits: 3 }.slot(hash, 1), Some(0b000));
        assert_eq!(Shape { bits: 3 }.slot(hash, 2), Some(0b010));
        assert_eq!(Shape { bits: 10 }.slot(hash, 6), None);
    }

    #[test]
    fn prefixes_are_upper_case_and_padded() {
        assert_eq!(Shape::DEFAULT.prefix(0xa), b"0A");
        assert_eq!(Shape { bits: 10 }.prefix(0xa), b"00A");
        assert_eq!(Shape { bits: 3 }.prefix(7), b"7");
    }

    #[test]
    fn bit_fields_are_big_endian_and_short() {
        assert_eq!(bit_field([0, 9].into_iter(), Shape::DEFAULT), [2, 1]);
        assert_eq!(bit_field([255].into_iter(), Shape::DEFAULT).len(), 32);
        assert!(bit_field([].into_iter(), Shape::DEFAULT).is_empty());
    }
}
