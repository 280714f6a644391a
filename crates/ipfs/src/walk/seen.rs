//! The blocks that a walk has met, in few bytes each.

use super::ENDLESS;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, RandomState};
use types::Cid;

/// A table that is full is made anew, and for that moment both are there; so many small ones grow one after the other.
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
    whole: Box<[Table]>,
    partly: HashMap<Fingerprint, u32>,
}

impl Seen {
    pub(super) fn new() -> Seen {
        let keys = [RandomState::new(), RandomState::new()];
        Seen { keys, whole: (0..TABLES).map(|_| Table::default()).collect(), partly: HashMap::new() }
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
        if whole.contains(fingerprint) {
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
        let mut bytes = [0; FINGERPRINT];
        bytes[..8].copy_from_slice(&one);
        bytes[8..].copy_from_slice(&other[..FINGERPRINT - 8]);
        Fingerprint(if bytes == FREE { [1; FINGERPRINT] } else { bytes })
    }
}

/// 96 bits of hashes with the keys of this walk: nobody can make two blocks that are taken for one, and among a thousand million blocks
/// chance does so once in 10^11 walks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Fingerprint([u8; FINGERPRINT]);

const FINGERPRINT: usize = 12;
/// A place of a table that nothing has taken.
const FREE: [u8; FINGERPRINT] = [0; FINGERPRINT];

impl Fingerprint {
    fn table(self) -> usize {
        usize::from(self.0[FINGERPRINT - 1]) % TABLES
    }

    /// Where to look for it first, among so many places.
    fn place(self, places: usize) -> usize {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        let share = u128::from(u64::from_le_bytes([a, b, c, d, e, f, g, h])) * places as u128;
        (share >> u64::BITS) as usize
    }
}

/// A set of fingerprints. One that doubles, as std's does, has up to 27 bytes for each; this one, grown by a quarter, 14 to 18.
#[derive(Debug, Default)]
struct Table {
    places: Vec<[u8; FINGERPRINT]>,
    taken: usize,
}

impl Table {
    const PLACES_LEAST: usize = 16;

    fn contains(&self, fingerprint: Fingerprint) -> bool {
        !self.places.is_empty() && self.places[self.find(fingerprint)] != FREE
    }

    /// Whether it was not there.
    fn insert(&mut self, fingerprint: Fingerprint) -> bool {
        // The fuller, the longer the look: some twenty places at seventeen of twenty.
        if (self.taken + 1) * 20 > self.places.len() * 17 {
            self.grow();
        }
        let place = self.find(fingerprint);
        let is_fresh = self.places[place] == FREE;
        self.places[place] = fingerprint.0;
        self.taken += usize::from(is_fresh);
        is_fresh
    }

    /// Its place, or the free one that it would take. There always is a free one.
    fn find(&self, fingerprint: Fingerprint) -> usize {
        let mut place = fingerprint.place(self.places.len());
        while self.places[place] != FREE && self.places[place] != fingerprint.0 {
            place = if place + 1 == self.places.len() { 0 } else { place + 1 };
        }
        place
    }

    fn grow(&mut self) {
        let places = (self.places.len() + self.places.len() / 4).max(Table::PLACES_LEAST);
        let full = std::mem::replace(&mut self.places, vec![FREE; places]);
        for taken in full.into_iter().filter(|place| *place != FREE) {
            let place = self.find(Fingerprint(taken));
            self.places[place] = taken;
        }
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
    #[test]
    fn a_table_takes_few_bytes_and_keeps_all() {
        let mut table = Table::default();
        let fingerprint = |number: u64| {
            let mut bytes = [7; FINGERPRINT];
            // Spread as hashes are, and some of them next to each other.
            bytes[..8].copy_from_slice(&(number / 3).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes());
            bytes[8] = (number % 3) as u8;
            Fingerprint(bytes)
        };
        for number in 0..30_000 {
            assert!(!table.contains(fingerprint(number)) && table.insert(fingerprint(number)), "{number}");
            assert!(!table.insert(fingerprint(number / 2)));
        }
        assert!((0..30_000).all(|number| table.contains(fingerprint(number))) && !table.contains(fingerprint(30_000)));
        assert_eq!(table.taken, 30_000);
        let bytes = table.places.capacity() * FINGERPRINT;
        assert!(bytes <= 30_000 * 18, "{bytes} bytes");
    }
}
