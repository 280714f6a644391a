//! A region of the ring: all peers in it are known, so for every key in it the nearest peers are known without another search. Pure.
//!
//! One search near a place finds its K nearest peers, and with them *all* peers of the half of the region in which the place lies (each of
//! them is nearer than the furthest of the K). Further searches fill the rest. So a whole turn around the ring costs about one search for ten peers,
//! however many keys are told.

use super::Contact;
use super::key::{BITS, Place};
use super::table::K;
use std::collections::BTreeMap;

/// Searches for one region; where a network is so uneven that they do not suffice, the region is made smaller.
const SEARCHES_MOST: usize = 16;

/// Finds the peers of a region, one search after another.
pub(crate) struct Exploration {
    start: Place,
    bits: Option<usize>,
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
        let Some(bits) = self.bits else { return Some((self.start, 0)) };
        if self.searches >= SEARCHES_MOST {
            return None;
        }
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

    /// A search for `target` found these, nearest first (`others` answered on the way).
    pub(crate) fn learn<'a>(&mut self, target: &Place, nearest: &'a [Contact], others: impl Iterator<Item = &'a Contact>) {
        self.searches += 1;
        for contact in nearest.iter().chain(others) {
            self.peers.insert(Place::of_peer(&contact.peer), contact.clone());
        }
        let furthest = nearest.get(K - 1).map(|contact| Place::of_peer(&contact.peer));
        let shared = furthest.map(|furthest| target.shared_bits(&furthest));
        let range = shared.map_or_else(|| target.range(0), |shared| target.range((shared + 1).min(BITS)));
        if self.bits.is_none() {
            self.bits = Some(shared.unwrap_or(0));
        }
        self.covered.push(range);
        self.covered.sort_unstable();
    }

    /// The region with its peers.
    pub(crate) fn finish(self) -> Region {
        let bits = self.bits.unwrap_or(0);
        let is_whole = self.next().is_none() && self.searches < SEARCHES_MOST;
        let (first, last) = self.start.range(if is_whole { bits } else { (bits + 1).min(BITS) });
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
    use std::collections::BTreeSet;
    use types::PeerId;

    fn contact(number: u32) -> Contact {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&number.to_be_bytes());
        Contact { peer: PeerId::from_ed25519(&key), addresses: Vec::new() }
    }

    fn nearest(peers: &[(Place, Contact)], to: &Place) -> Vec<Contact> {
        let mut all: Vec<_> = peers.iter().map(|(place, contact)| (to.distance(place), contact)).collect();
        all.sort_unstable_by_key(|(distance, _)| *distance);
        all.into_iter().take(K).map(|(_, contact)| contact.clone()).collect()
    }

    /// Walks once around the ring: every key's keepers are exactly its nearest peers. The searches that it took.
    fn turn(count: u32) -> usize {
        let peers: Vec<(Place, Contact)> = (0..count).map(contact).map(|contact| (Place::of_peer(&contact.peer), contact)).collect();
        let keys: BTreeSet<Place> = (0..300u32).map(|number| Place::of(&number.to_be_bytes())).collect();
        let (mut at, mut searches, mut seen) = (Some(Place([0; 32])), 0, 0);
        while let Some(start) = at {
            let mut exploration = Exploration::new(start);
            let mut salt = 0u32;
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
                let found = nearest(&peers, &target);
                exploration.learn(&target, &found, std::iter::empty());
            }
            let region = exploration.finish();
            assert!(region.contains(&start));
            searches += region.searches;
            for key in keys.range(start..=region.last) {
                let keepers: BTreeSet<PeerId> = region.keepers(key).into_iter().map(|at| region.peers[at].peer).collect();
                let expected: BTreeSet<PeerId> = nearest(&peers, key).into_iter().map(|contact| contact.peer).collect();
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
        assert_eq!((turn(1), turn(20)), (1, 2));
        for count in [21, 50, 300, 1000] {
            let searches = turn(count);
            assert!(searches <= 4 + count as usize / 5, "{count} peers: {searches} searches");
        }
    }
}
