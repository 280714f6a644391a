//! A set that may say yes too often and never no wrongly: 16 bits for each entry, whatever an entry is.
//!
//! Used where a wrong yes only keeps garbage for a while. Each set has its own random key, so that nobody can choose blocks that are
//! kept, and no garbage is kept by the same chance twice.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// Bits for each expected entry; with [`PROBES`] about one wrong yes in 1700.
const BITS_PER_ENTRY: u64 = 16;
const PROBES: u64 = 8;
/// Small sets are made larger: it costs nothing, and wrong answers become very rare.
const ENTRIES_LEAST: u64 = 1 << 13;

/// The set; inserting needs no lock.
pub(crate) struct Bloom {
    words: Box<[AtomicU64]>,
    hasher: RandomState,
}

impl Bloom {
    /// A set for about `entries` entries; more make it say yes more often.
    pub(crate) fn for_entries(entries: u64) -> Bloom {
        let words = (entries.max(ENTRIES_LEAST) * BITS_PER_ENTRY).div_ceil(64);
        Bloom { words: (0..words).map(|_| AtomicU64::new(0)).collect(), hasher: RandomState::new() }
    }

    pub(crate) fn insert(&self, entry: &[u8]) {
        for (word, bit) in self.places(entry) {
            self.words[word].fetch_or(bit, Ordering::Relaxed);
        }
    }

    pub(crate) fn may_contain(&self, entry: &[u8]) -> bool {
        self.places(entry).all(|(word, bit)| self.words[word].load(Ordering::Relaxed) & bit != 0)
    }

    /// Double hashing: the probes walk from one hash in steps of the other.
    fn places(&self, entry: &[u8]) -> impl Iterator<Item = (usize, u64)> + use<> {
        let bits = self.words.len() as u64 * 64;
        let hash = self.hasher.hash_one(entry);
        let step = hash.rotate_left(32).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        (0..PROBES).map(move |probe| {
            let place = hash.wrapping_add(step.wrapping_mul(probe)) % bits;
            ((place / 64) as usize, 1 << (place % 64))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_inserted_is_found_and_hardly_anything_else() {
        let entries = 20_000_u64;
        let bloom = Bloom::for_entries(entries);
        for entry in 0..entries {
            bloom.insert(&entry.to_le_bytes());
        }
        assert!((0..entries).all(|entry| bloom.may_contain(&entry.to_le_bytes())));
        let wrong = (entries..2 * entries).filter(|entry| bloom.may_contain(&entry.to_le_bytes())).count();
        assert!(wrong < 60, "{wrong} wrong of {entries}; about 12 are expected");
    }
}
