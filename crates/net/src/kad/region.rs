//! A region of the ring: all peers in it are known, so for every key in it the nearest peers are known without another search. Pure.
//!
//! One search near a place finds its K nearest peers, and with them *all* peers of the half of the region in which the place lies (each of
//! them is nearer than the furthest of the K). Further searches fill the rest. So a whole turn around the ring costs about one search for ten peers,
//! however many keys are told.
//!
//! Peers that are gone while their neighbours still name them make a search see less far ([`super::lookup::Lookup::horizon`]): an answer has room
//! for K peers, and live ones behind them are not told. Searches at other places of the region find those.

use super::Contact;
use super::key::{BITS, Place};
use super::lookup::Lookup;
use super::table::K;
use std::collections::BTreeMap;

/// Searches for one region; where a network is so uneven that they do not suffice, the region is made smaller.
const SEARCHES_MOST: usize = 16;

/// Finds the peers of a region, one search after another.
pub(crate) struct Exploration {
    start: Place,
    /// Bits of the whole region, and those of the part of it that the first search covered.
    bits: Option<(usize, usize)>,
    covered: Vec<(Place, Place)>,
    peers: BTreeMap<Place, Contact>,
    searches: usize,
}

/// A part of the ring with its peers.
#[derive(Clone, Debug)]
pub struct Region {
    /// The first place in it.
    pub first: Place,
    /// The last.
    pub last: Place,
    /// Who keeps records in it.
    pub peers: Vec<Contact>,
    /// Searches that it took.
    pub searches: usize,
}

impl Exploration {
    pub(crate) fn new(start: Place) -> Exploration {
        Exploration { start, bits: None, covered: Vec::new(), peers: BTreeMap::new(), searches: 0 }
    }

    /// Where to search next: any place that shares so many bits with this one. None when the region is known.
    pub(crate) fn next(&self) -> Option<(Place, usize)> {
        (self.searches < SEARCHES_MOST).then(|| self.gap()).flatten()
    }

    fn gap(&self) -> Option<(Place, usize)> {
        let Some((bits, _)) = self.bits else { return Some((self.start, 0)) };
        let (first, last) = self.start.range(bits);
        let mut from = first;
        for (begin, end) in &self.covered {
            if *begin > from {
                break;
            }
            match end.next() {
                Some(next) if next <= last => from = from.max(next),
                _ => return None,
            }
        }
        let to = self.covered.iter().map(|(begin, _)| *begin).find(|begin| *begin > from);
        let inside = |bits: usize| {
            let (begin, end) = from.range(bits);
            begin == from && end <= last && to.is_none_or(|to| end < to)
        };
        (0..BITS).find(|bits| inside(*bits)).map(|bits| (from, bits))
    }

    /// A search for `target` is over.
    pub(crate) fn learn(&mut self, target: &Place, lookup: &Lookup) {
        self.searches += 1;
        for contact in lookup.all_answered() {
            self.peers.insert(Place::of_peer(&contact.peer), contact.clone());
        }
        let covered = lookup.horizon().map_or(0, |horizon| (horizon + 1).min(BITS));
        if self.bits.is_none() {
            let furthest = lookup.closest().get(K - 1).map(|contact| Place::of_peer(&contact.peer));
            self.bits = Some((furthest.map_or(0, |furthest| target.shared_bits(&furthest)), covered));
        }
        self.covered.push(target.range(covered));
        self.covered.sort_unstable();
    }

    /// The peers nearest to where it began, nearest first.
    pub(crate) fn nearest(&self) -> Vec<Contact> {
        let mut all: Vec<([u8; 32], &Contact)> = self.peers.iter().map(|(place, contact)| (self.start.distance(place), contact)).collect();
        all.sort_unstable_by_key(|(distance, _)| *distance);
        all.into_iter().take(K).map(|(_, contact)| contact.clone()).collect()
    }

    /// The region with its peers.
    pub(crate) fn finish(self) -> Region {
        let (bits, sure) = self.bits.unwrap_or_default();
        let (first, last) = self.start.range(if self.gap().is_none() { bits } else { sure });
        let peers = match self.peers.len() {
            // Neighbours of the region hold its records too while it has fewer than K peers of its own.
            count if count <= K => self.peers.into_values().collect(),
            _ => {
                let inside = self.peers.range(first..=last).count();
                self.peers
                    .into_iter()
                    .filter(|(place, _)| inside < K || (first <= *place && *place <= last))
                    .map(|(_, peer)| peer)
                    .collect()
            }
        };
        Region { first, last, peers, searches: self.searches }
    }
}

impl Region {
    /// Whether a place lies in it.
    pub fn contains(&self, place: &Place) -> bool {
        self.first <= *place && *place <= self.last
    }

    /// The indices of the peers that keep the records of a place.
    pub(crate) fn keepers(&self, place: &Place) -> Vec<usize> {
        let mut all: Vec<([u8; 32], usize)> =
            self.peers.iter().enumerate().map(|(at, peer)| (place.distance(&Place::of_peer(&peer.peer)), at)).collect();
        if all.len() > K {
            all.select_nth_unstable(K - 1);
            all.truncate(K);
        }
        all.into_iter().map(|(_, at)| at).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kad::lookup::tests::Ring;
    use std::collections::{BTreeSet, HashSet};
    use types::PeerId;

    /// All searches of an exploration; one alone where that one is sure and `nearest_only` are wanted.
    fn explore(ring: &Ring, start: Place, nearest_only: bool) -> Exploration {
        let mut exploration = Exploration::new(start);
        let (mut salt, mut silent) = (0u32, HashSet::new());
        while let Some((near, bits)) = exploration.next() {
            let target = match bits {
                0 if salt == 0 => near,
                bits => loop {
                    salt += 1;
                    let guess = Place::of(&[&near.0[..], &salt.to_be_bytes()].concat());
                    if guess.shared_bits(&near) >= bits {
                        break guess;
                    }
                },
            };
            salt += 1;
            let lookup = ring.search(target, silent);
            exploration.learn(&target, &lookup);
            if nearest_only && exploration.searches == 1 && !lookup.is_unsure() {
                break;
            }
            silent = lookup.into_silent();
        }
        exploration
    }

    /// Walks once around the ring: every key's keepers are exactly its nearest peers. The searches that it took.
    fn turn(count: u32, silent: fn(u32) -> bool) -> usize {
        let ring = Ring::new(count, silent);
        let keys: BTreeSet<Place> = (0..300u32).map(|number| Place::of(&number.to_be_bytes())).collect();
        let (mut at, mut searches, mut seen) = (Some(Place([0; 32])), 0, 0);
        while let Some(start) = at {
            let region = explore(&ring, start, false).finish();
            assert!(region.contains(&start));
            searches += region.searches;
            for key in keys.range(start..=region.last) {
                let keepers: BTreeSet<PeerId> = region.keepers(key).into_iter().map(|at| region.peers[at].peer).collect();
                let expected: BTreeSet<PeerId> = ring.nearest(key).into_iter().map(|contact| contact.peer).collect();
                assert_eq!(keepers, expected, "{count} peers");
                seen += 1;
            }
            at = region.last.next();
        }
        assert_eq!(seen, keys.len(), "a turn passes every key once");
        searches
    }

    #[test]
    fn every_key_is_told_to_its_nearest_peers_and_searches_go_by_peers_not_keys() {
        let nobody = |_| false;
        assert_eq!((turn(1, nobody), turn(20, nobody)), (1, 2));
        for count in [21, 50, 300, 600] {
            let searches = turn(count, nobody);
            assert!(searches <= 4 + count as usize / 5, "{count} peers: {searches} searches");
        }
    }

    #[test]
    fn peers_that_are_gone_hide_nobody_from_a_turn() {
        for count in [22, 50, 300] {
            let searches = turn(count, |number| number >= 3 && number % 3 == 1);
            assert!(searches <= 8 + count as usize / 3, "{count} peers: {searches} searches");
        }
    }

    #[test]
    fn the_nearest_live_peers_are_found_behind_those_that_are_gone() {
        let ring = Ring::new(600, |number| number >= 3 && number % 3 == 1);
        let (mut unsure, mut missed, mut searches) = (0, 0, 0);
        for number in 0..20u32 {
            let target = Place::of(&number.to_be_bytes());
            let first = ring.search(target, HashSet::new());
            unsure += u32::from(first.is_unsure());
            missed += u32::from(first.closest() != ring.nearest(&target));
            assert!(first.is_unsure() || first.closest() == ring.nearest(&target), "what is said to be sure is");
            let exploration = explore(&ring, target, true);
            searches += exploration.searches;
            assert_eq!(exploration.nearest(), ring.nearest(&target), "target {number}");
        }
        assert!(unsure > 0 && missed > 0, "one search alone would do: {unsure} {missed}");
        assert!(searches < 20 * 6, "{searches} searches for 20 places");
    }
}
