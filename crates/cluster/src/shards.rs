//! A wish is a pin, or a root with its shards: placement, space, repair and status work on *units*.
//!
//! A unit is what one peer holds as a whole: a pin whose DAG is small, or a shard of at most [`UNIT_MOST`]. A tree larger than
//! every node is then the ordinary case. Units of a root are pins of kind `Shard`, placed and repaired like any other; their metadata
//! says whose they are ([`Belongs`]), so the wish alone tells which shards a root has, and a shard that two roots have goes with
//! the last of them. The root's own pin (kind `Meta`) is held by nobody. `dag::shards` cuts; this module knows what was cut.

mod known;

pub(crate) use known::Pieces;

use crate::placement::Candidate;
use std::num::NonZeroU32;
use types::{ByteCount, Cid, PeerId, Pin, PinKind, Replicas};

/// The most bytes in one unit: skew then comes from hashing and not from the size of items.
pub const UNIT_MOST: ByteCount = ByteCount(256 << 20);
/// A unit that people ask for is not smaller than this, so that lists stay short.
pub const UNIT_LEAST: ByteCount = ByteCount(1 << 20);
/// A unit takes at most this part of the room of the smallest peer that matters.
const PART_OF_FREE: u64 = 8;
/// A shard of an add under way ends after so long unless it is renewed.
pub const UNDER_WAY: types::Millis = types::Millis::minutes(60);
/// Copies of the spine beside those of the content.
const SPINE_MORE: u32 = 2;
/// What stands before the owner in a shard's metadata.
const OWNER: &str = "shard-of-";
/// How many shards a root has, in its metadata.
pub const COUNT: &str = "shards";
/// Bytes of all blocks of a root, in its metadata.
pub const SIZE: &str = "shards-bytes";

/// To whom a unit belongs, and as what: an entry of its metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Belongs {
    /// A root's CID, or the name of an add under way.
    pub owner: String,
    /// Place among the shards of the root in the order of the stream, from 1; the spine has numbers of its own.
    pub number: u32,
    /// Nodes above the cuts, not content.
    pub is_spine: bool,
    /// Its bytes.
    pub bytes: ByteCount,
    /// The head that names it, once the add has ended: another cutting of the same root has another one.
    pub head: Option<Cid>,
}

impl Belongs {
    /// Key and value of the metadata.
    pub fn entry(&self) -> (String, String) {
        let kind = if self.is_spine { "spine" } else { "shard" };
        let head = self.head.map(|head| format!(" {head}")).unwrap_or_default();
        (format!("{OWNER}{}", self.owner), format!("{kind} {} {}{head}", self.number, self.bytes.get()))
    }

    fn read(key: &str, value: &str) -> Option<Belongs> {
        let owner = key.strip_prefix(OWNER)?.to_owned();
        let mut words = value.split(' ');
        let is_spine = match words.next()? {
            "spine" => true,
            "shard" => false,
            _ => return None,
        };
        let number = words.next()?.parse().ok()?;
        let bytes = ByteCount(words.next()?.parse().ok()?);
        let head = words.next().and_then(|head| head.parse().ok());
        Some(Belongs { owner, number, is_spine, bytes, head })
    }

    /// The root, when it is one and no add under way.
    pub fn root(&self) -> Option<Cid> {
        self.owner.parse().ok()
    }
}

/// The name of an add of this peer, for its units.
pub fn add_name(me: &PeerId, lease: u64) -> String {
    format!("add-{me}-{lease:x}")
}

/// Whether this names an add of an earlier start of this peer: it cannot go on.
pub(crate) fn is_broken_off(name: &str, me: &PeerId, incarnation: u64) -> bool {
    let lease = name.strip_prefix(&format!("add-{me}-")).and_then(|lease| u64::from_str_radix(lease, 16).ok());
    lease.is_some_and(|lease| lease >> 32 < incarnation)
}

/// Whose unit this is.
pub fn owners(pin: &Pin) -> Vec<Belongs> {
    if pin.kind != PinKind::Shard {
        return Vec::new();
    }
    pin.options.metadata.iter().filter_map(|(key, value)| Belongs::read(key, value)).collect()
}

/// Adds an owner, or writes its entry anew.
pub(crate) fn add_owner(pin: &mut Pin, belongs: &Belongs) {
    let (key, value) = belongs.entry();
    pin.options.metadata.insert(key, value);
}

/// Takes an owner out; whether others are left.
pub(crate) fn remove_owner(pin: &mut Pin, owner: &str) -> bool {
    pin.options.metadata.remove(&format!("{OWNER}{owner}"));
    !owners(pin).is_empty()
}

/// One unit of a root, as the wish has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its list; the key of its placement.
    pub cid: Cid,
    /// Place in the order of the stream, from 1.
    pub number: u32,
    /// Nodes above the cuts, not content.
    pub is_spine: bool,
    /// Its bytes.
    pub bytes: ByteCount,
    /// Who holds it; empty with `is_everywhere`.
    pub holders: Vec<PeerId>,
    /// Everybody holds it.
    pub is_everywhere: bool,
    /// Fewer copies are a fault.
    pub least: u32,
}

impl Piece {
    /// What people call it: "shard 3 of 31".
    pub fn words(&self, count: u32) -> String {
        if self.is_spine { format!("part {} of the structure", self.number) } else { format!("shard {} of {count}", self.number) }
    }
}

/// How large units are: as asked; else the usual size, or less, so that the smallest peer that matters holds several.
///
/// The peers that together have nine tenths of the room matter; a nearly full one does not make everybody's shards tiny.
pub fn unit_size(asked: u64, candidates: &[Candidate]) -> ByteCount {
    if asked > 0 {
        return ByteCount(asked).max(UNIT_LEAST);
    }
    let mut free: Vec<u64> =
        candidates.iter().filter(|candidate| candidate.is_up && !candidate.is_draining).map(|candidate| candidate.free.get()).collect();
    free.sort_unstable_by(|one, other| other.cmp(one));
    let whole: u128 = free.iter().map(|free| u128::from(*free)).sum();
    let mut covered: u128 = 0;
    let mut smallest = u64::MAX;
    for free in free {
        if covered * 10 >= whole * 9 {
            break;
        }
        covered += u128::from(free);
        smallest = free;
    }
    ByteCount(smallest / PART_OF_FREE).min(UNIT_MOST).max(UNIT_LEAST)
}

/// Copies of the spine: more than of the content, since without it nothing below is found.
pub fn spine_copies(content: Replicas) -> Replicas {
    match content {
        Replicas::Between { least, most } => Replicas::Between { least, most: most.saturating_add(SPINE_MORE) },
        other => other,
    }
}

/// The wish for a unit of spine of which so many copies could be made.
pub(crate) fn settled_spine(wish: Replicas, made: usize) -> Replicas {
    match (wish, NonZeroU32::new(u32::try_from(made).unwrap_or(u32::MAX))) {
        (Replicas::Between { least, most }, Some(made)) => Replicas::Between { least: made.clamp(least, most), most },
        (other, _) => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cid, peer, pin_on};
    use types::PinOptions;

    #[test]
    fn an_entry_reads_back_as_it_was_written() {
        let content = Belongs { owner: cid(1).to_string(), number: 3, is_spine: false, bytes: ByteCount(77), head: Some(cid(9)) };
        let spine = Belongs { owner: "add-x-1".to_owned(), number: 1, is_spine: true, bytes: ByteCount(5), head: None };
        for belongs in [&content, &spine] {
            let (key, value) = belongs.entry();
            assert_eq!(Belongs::read(&key, &value).as_ref(), Some(belongs));
        }
        assert_eq!((content.root(), spine.root()), (Some(cid(1)), None));
        for (key, value) in [("name", "shard 1 2"), ("shard-of-x", "other 1 2"), ("shard-of-x", "shard -1 2"), ("shard-of-x", "shard 1")] {
            assert_eq!(Belongs::read(key, value), None, "{key} {value}");
        }
    }

    #[test]
    fn only_adds_of_an_earlier_start_of_this_peer_are_broken_off() {
        let name = add_name(&peer(1), 7 << 32 | 3);
        for (me, incarnation, expected) in [(1, 8, true), (1, 7, false), (2, 8, false)] {
            assert_eq!(is_broken_off(&name, &peer(me), incarnation), expected, "{me} {incarnation}");
        }
        assert!(!is_broken_off("add-x", &peer(1), 8) && !is_broken_off(&cid(1).to_string(), &peer(1), 8));
    }

    #[test]
    fn a_unit_goes_with_its_last_owner() {
        let mut pin = Pin { kind: PinKind::Shard, ..pin_on(cid(5), &[peer(1)], PinOptions::default()) };
        let belongs = |owner: Cid| Belongs { owner: owner.to_string(), number: 1, is_spine: false, bytes: ByteCount(1), head: None };
        add_owner(&mut pin, &belongs(cid(1)));
        add_owner(&mut pin, &belongs(cid(2)));
        assert!(remove_owner(&mut pin, &cid(1).to_string()));
        assert!(!remove_owner(&mut pin, &cid(2).to_string()));
    }

    #[test]
    fn units_fit_the_smallest_peer_that_matters() {
        let check = |asked: u64, free: &[u64], expected: u64| {
            let candidate = |(number, free): (usize, &u64)| Candidate {
                peer: peer(number as u8),
                is_up: true,
                is_draining: false,
                limit: ByteCount(*free << 20),
                free: ByteCount(*free << 20),
                is_cordoned: false,
                capacity: ByteCount(*free << 20),
                placed: ByteCount::ZERO,
                domain: None,
            };
            let candidates: Vec<Candidate> = free.iter().enumerate().map(candidate).collect();
            assert_eq!(unit_size(asked << 20, &candidates), ByteCount(expected << 20), "{free:?}");
        };
        check(0, &[100_000], 256);
        check(0, &[1_000, 1_000, 1_000, 1_000], 125);
        check(0, &[64, 64, 64, 64], 8);
        check(0, &[1_000, 1_000, 10], 125);
        check(0, &[100_000, 8], 256);
        check(0, &[2, 1], 1);
        check(0, &[], 256);
        check(40, &[64], 40);
    }

    #[test]
    fn the_spine_has_more_copies_where_there_are_peers() {
        let between = |least, most| Replicas::from_factors(least, most).expect("sound");
        assert_eq!(spine_copies(between(1, 1)), between(1, 3));
        assert_eq!(settled_spine(between(1, 3), 2), between(2, 3));
        assert_eq!(settled_spine(between(1, 3), 9), between(3, 3));
        assert_eq!(settled_spine(Replicas::Everywhere, 2), Replicas::Everywhere);
    }
}
