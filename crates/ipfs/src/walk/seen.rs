//! The blocks that a walk has met, in few bytes each.

use super::ENDLESS;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};
use types::Cid;

/// A table that is full is made anew at twice its size, and for that moment both are there; so many small ones grow one after the other.
const TABLES: usize = 64;

/// Whether a block is to be visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Met {
    /// For the first time.
    First,
    /// Again, and higher up: further below it is to be walked.
    Higher,
    /// Again; nothing is left to be done.
    Again,
}

/// How many levels below each block have been looked at.
#[derive(Debug)]
pub(super) struct Seen {
    keys: [RandomState; 2],
    /// Those below which everything has been looked at.
    whole: Box<[HashSet<Fingerprint, BuildHasherDefault<AsItIs>>]>,
    partly: HashMap<Fingerprint, u32>,
}

impl Seen {
    pub(super) fn new() -> Seen {
        let keys = [RandomState::new(), RandomState::new()];
        Seen { keys, whole: (0..TABLES).map(|_| HashSet::default()).collect(), partly: HashMap::new() }
    }

    /// Notes that so many levels below `cid` are looked at from here on.
    pub(super) fn meet(&mut self, cid: &Cid, levels: u32) -> Met {
        let fingerprint = self.fingerprint(cid);
        let whole = &mut self.whole[fingerprint.table()];
        if levels == ENDLESS {
            return match (whole.insert(fingerprint), self.partly.remove(&fingerprint)) {
                (false, _) => Met::Again,
                (true, Some(_)) => Met::Higher,
                (true, None) => Met::First,
            };
        }
        if whole.contains(&fingerprint) {
            return Met::Again;
        }
        match self.partly.entry(fingerprint) {
            Entry::Vacant(free) => {
                free.insert(levels);
                Met::First
            }
            Entry::Occupied(mut seen) if *seen.get() < levels => {
                seen.insert(levels);
                Met::Higher
            }
            Entry::Occupied(_) => Met::Again,
        }
    }

    fn fingerprint(&self, cid: &Cid) -> Fingerprint {
        // One digest under two hash functions or codecs is two things.
        let told_apart = (cid.hash().code(), cid.codec(), cid.hash().digest());
        let [one, other] = [0, 1].map(|key: usize| self.keys[key].hash_one(told_apart).to_le_bytes());
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&one);
        bytes[8..].copy_from_slice(&other[..4]);
        Fingerprint(bytes)
    }
}

/// 96 bits of hashes with the keys of this walk: nobody can make two blocks that are taken for one, and among a thousand million blocks
/// chance does so once in 10^11 walks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fingerprint([u8; 12]);

impl Fingerprint {
    fn table(&self) -> usize {
        usize::from(self.0[11]) % TABLES
    }
}

impl Hash for Fingerprint {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        state.write_u64(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
    }
}

/// For what is a hash already.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dag::{HashFn, codec};

    #[test]
    fn each_block_is_met_first_once_and_again_only_when_more_of_it_is_wanted() {
        let mut seen = Seen::new();
        let cid = |number: u32| Cid::new_v1(codec::RAW, HashFn::SHA2_256.digest(&number.to_le_bytes()).expect("hashes"));
        for number in 0..10_000 {
            assert_eq!(seen.meet(&cid(number), ENDLESS), Met::First, "{number}");
        }
        assert!((0..10_000).all(|number| seen.meet(&cid(number), ENDLESS) == Met::Again && seen.meet(&cid(number), 3) == Met::Again));
        let other = cid(20_000);
        let met = [2, 1, 2, 3, ENDLESS, ENDLESS, 5].map(|levels| seen.meet(&other, levels));
        assert_eq!(met, [Met::First, Met::Again, Met::Again, Met::Higher, Met::Higher, Met::Again, Met::Again]);
        assert_eq!(seen.meet(&Cid::new_v1(codec::DAG_PB, *other.hash()), ENDLESS), Met::First, "another codec is another thing");
    }
}
