//! One search for the peers nearest to a place: whom to ask next, and when it is over. Pure.

use super::Contact;
use super::key::Place;
use super::table::K;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use types::PeerId;

/// Peers asked at once, as in Kubo.
pub(crate) const AT_ONCE: usize = 10;
/// Peers asked in one search: in a network of a million some 40 are needed.
const ASKED_MOST: usize = 300;
/// Peers remembered of what others told, the nearest.
const HEARD_MOST: usize = 400;

pub(crate) struct Lookup {
    target: Place,
    own: PeerId,
    peers: BTreeMap<[u8; 32], (Contact, State)>,
    silent: HashSet<PeerId>,
    /// Where silent peers are that somebody named in this search.
    silent_named: BTreeSet<[u8; 32]>,
    asking: usize,
    asked: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Heard,
    Asking,
    Answered,
}

impl Lookup {
    /// `known`: all that are, since the nearest of them may be gone. `silent`: who did not answer a moment ago, not asked again.
    pub(crate) fn new(target: Place, own: PeerId, known: Vec<Contact>, silent: HashSet<PeerId>) -> Lookup {
        let (peers, silent_named) = (BTreeMap::new(), BTreeSet::new());
        let mut lookup = Lookup { target, own, peers, silent, silent_named, asking: 0, asked: 0 };
        lookup.hear(known);
        lookup
    }

    /// Whom to ask now; none while enough are being asked, and when the search is over.
    pub(crate) fn next(&mut self) -> Option<Contact> {
        if self.asking >= AT_ONCE || self.asked >= ASKED_MOST {
            return None;
        }
        let (contact, state) = self.peers.values_mut().take(K).find(|(_, state)| *state == State::Heard)?;
        *state = State::Asking;
        self.asking += 1;
        self.asked += 1;
        Some(contact.clone())
    }

    /// A peer told of others.
    pub(crate) fn answered(&mut self, peer: &PeerId, closer: Vec<Contact>) {
        if let Some((_, state)) = self.peers.get_mut(&self.distance(peer)).filter(|(_, state)| *state == State::Asking) {
            *state = State::Answered;
            self.asking -= 1;
        }
        self.hear(closer);
    }

    /// A peer did not answer: it does not count any more.
    pub(crate) fn failed(&mut self, peer: &PeerId) {
        let distance = self.distance(peer);
        if self.peers.get(&distance).is_some_and(|(_, state)| *state == State::Asking) {
            self.peers.remove(&distance);
            self.asking -= 1;
        }
        self.silent.insert(*peer);
        self.silent_named.insert(distance);
    }

    /// Whether the nearest peers have all answered. Those further away that are still being asked change nothing.
    pub(crate) fn is_over(&self) -> bool {
        let mut nearest = self.peers.values().take(K);
        match self.asked < ASKED_MOST {
            true => nearest.all(|(_, state)| *state == State::Answered),
            false => nearest.all(|(_, state)| *state != State::Asking),
        }
    }

    /// The nearest peers that answered, nearest first.
    pub(crate) fn closest(&self) -> Vec<Contact> {
        self.peers.values().filter(|(_, state)| *state == State::Answered).take(K).map(|(contact, _)| contact.clone()).collect()
    }

    /// All that answered.
    pub(crate) fn all_answered(&self) -> impl Iterator<Item = &Contact> {
        self.peers.values().filter(|(_, state)| *state == State::Answered).map(|(contact, _)| contact)
    }

    /// Up to where all peers are known: the bits that the target shares with the furthest peer that an answer has room for. Peers that
    /// are gone take up that room too, as long as those who answer do not know it. None where the room was enough for all.
    pub(crate) fn horizon(&self) -> Option<usize> {
        let answered = self.peers.iter().filter(|(_, (_, state))| *state == State::Answered).map(|(distance, _)| distance);
        let mut named: Vec<&[u8; 32]> = answered.take(K).chain(self.silent_named.iter().take(K)).collect();
        named.sort_unstable();
        named.get(K - 1).map(|furthest| Place([0; 32]).shared_bits(&Place(**furthest)))
    }

    /// Whether peers that are gone may have hidden some of the nearest.
    pub(crate) fn is_unsure(&self) -> bool {
        let mut answered = self.peers.iter().filter(|(_, (_, state))| *state == State::Answered).map(|(distance, _)| distance);
        match (self.silent_named.first(), answered.nth(K - 1)) {
            (None, _) => false,
            (Some(_), None) => self.horizon().is_some(),
            (Some(silent), Some(furthest)) => silent < furthest,
        }
    }

    /// Who did not answer.
    pub(crate) fn into_silent(self) -> HashSet<PeerId> {
        self.silent
    }

    #[cfg(test)]
    fn asked(&self) -> usize {
        self.asked
    }

    fn hear(&mut self, contacts: Vec<Contact>) {
        for contact in contacts {
            if contact.peer == self.own {
                continue;
            }
            let distance = self.distance(&contact.peer);
            if self.silent.contains(&contact.peer) {
                self.silent_named.insert(distance);
                continue;
            }
            let (known, state) = self.peers.entry(distance).or_insert_with(|| (contact.clone(), State::Heard));
            if *state == State::Heard && known.addresses.is_empty() {
                *known = contact;
            }
        }
        while self.peers.len() > HEARD_MOST {
            let last = self.peers.iter().rev().find(|(_, (_, state))| *state == State::Heard).map(|(distance, _)| *distance);
            let Some(last) = last else { break };
            self.peers.remove(&last);
        }
    }

    fn distance(&self, peer: &PeerId) -> [u8; 32] {
        self.target.distance(&Place::of_peer(peer))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::kad::table::Table;
    use std::time::Instant;

    pub(crate) fn contact(number: u32) -> Contact {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&number.to_be_bytes());
        Contact { peer: PeerId::from_ed25519(&key), addresses: vec![number.to_string()] }
    }

    /// Peers each of which knows the others by its own table. Some are silent, and nobody has noticed.
    pub(crate) struct Ring {
        tables: Vec<Table>,
        silent: fn(u32) -> bool,
    }

    impl Ring {
        pub(crate) fn new(peers: u32, silent: fn(u32) -> bool) -> Ring {
            let now = Instant::now();
            let table = |number| {
                let mut table = Table::new(Place::of_peer(&contact(number).peer));
                (0..peers).for_each(|other| _ = table.insert(contact(other), now));
                table
            };
            Ring { tables: (0..peers).map(table).collect(), silent }
        }

        /// A stranger's search; it begins with the first three peers and passes by those it already knows for silent.
        pub(crate) fn search(&self, target: Place, known_silent: HashSet<PeerId>) -> Lookup {
            let mut lookup =
                Lookup::new(target, contact(u32::MAX).peer, (0..3.min(self.tables.len() as u32)).map(contact).collect(), known_silent);
            let mut asking = Vec::new();
            while !lookup.is_over() {
                asking.extend(std::iter::from_fn(|| lookup.next()));
                assert!(asking.len() <= AT_ONCE);
                let Some(asked) = asking.pop() else { break };
                let number: u32 = asked.addresses[0].parse().unwrap();
                match (self.silent)(number) {
                    true => lookup.failed(&asked.peer),
                    false => lookup.answered(&asked.peer, self.tables[number as usize].closest(&target, K)),
                }
            }
            assert!(lookup.is_over());
            lookup
        }

        /// Who should be found.
        pub(crate) fn nearest(&self, target: &Place) -> Vec<Contact> {
            let mut live: Vec<Contact> = (0..self.tables.len() as u32).filter(|number| !(self.silent)(*number)).map(contact).collect();
            live.sort_by_key(|contact| target.distance(&Place::of_peer(&contact.peer)));
            live.truncate(K);
            live
        }
    }

    #[test]
    fn the_nearest_peers_are_found_with_few_questions() {
        let target = Place::of(b"target");
        for peers in [5, 19, 20, 21, 1000] {
            let ring = Ring::new(peers, |_| false);
            let lookup = ring.search(target, HashSet::new());
            assert_eq!(lookup.closest(), ring.nearest(&target), "{peers}");
            assert!(lookup.asked() <= 45 && !lookup.is_unsure(), "{peers}: {}", lookup.asked());
        }
    }

    #[test]
    fn silent_peers_are_passed_by_and_a_search_knows_up_to_where_they_hid_nobody() {
        let target = Place::of(b"target");
        let ring = Ring::new(600, |number| number % 3 == 1);
        let lookup = ring.search(target, HashSet::new());
        assert!(lookup.closest().len() == K && lookup.is_unsure());
        let shared = |contact: &Contact| target.shared_bits(&Place::of_peer(&contact.peer));
        let horizon = lookup.horizon().unwrap();
        let sure = |contacts: Vec<Contact>| contacts.into_iter().take_while(|contact| shared(contact) > horizon).collect::<Vec<_>>();
        assert_eq!(sure(lookup.closest()), sure(ring.nearest(&target)));
        assert!(!sure(lookup.closest()).is_empty() && sure(lookup.closest()).len() < K);
        // Told who is silent, it asks none of them.
        let questions = lookup.asked();
        let again = ring.search(target, lookup.into_silent());
        assert!(again.asked() < questions && again.is_unsure() && again.horizon() == Some(horizon));
    }

    #[test]
    fn where_the_nearest_known_peers_are_gone_the_next_ones_are_asked() {
        let target = Place::of(b"target");
        let mut known: Vec<Contact> = (0..60).map(contact).collect();
        known.sort_by_key(|contact| target.distance(&Place::of_peer(&contact.peer)));
        let mut lookup = Lookup::new(target, contact(u32::MAX).peer, known.clone(), HashSet::new());
        while let Some(asked) = lookup.next() {
            match known[..2 * K].contains(&asked) {
                true => lookup.failed(&asked.peer),
                false => lookup.answered(&asked.peer, known[..K].to_vec()),
            }
        }
        assert_eq!(lookup.closest(), known[2 * K..]);
    }

    #[test]
    fn it_ends_where_everybody_lies() {
        // Each answer names peers that do not exist, always nearer ones.
        let target = Place::of(b"target");
        let mut lookup = Lookup::new(target, contact(u32::MAX).peer, vec![contact(0)], HashSet::new());
        let mut number = 1;
        while !lookup.is_over() {
            let Some(asked) = lookup.next() else { break };
            lookup.answered(&asked.peer, (number..number + 50).map(contact).collect());
            number += 50;
        }
        assert!(lookup.asked() <= ASKED_MOST && lookup.peers.len() <= HEARD_MOST + 50);
    }
}
