//! One search for the peers nearest to a place: whom to ask next, and when it is over. Pure.

use super::Contact;
use super::key::Place;
use super::table::K;
use std::collections::{BTreeMap, HashSet};
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
    failed: HashSet<PeerId>,
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
    pub(crate) fn new(target: Place, own: PeerId, known: Vec<Contact>) -> Lookup {
        let mut lookup = Lookup { target, own, peers: BTreeMap::new(), failed: HashSet::new(), asking: 0, asked: 0 };
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
        self.failed.insert(*peer);
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

    #[cfg(test)]
    fn asked(&self) -> usize {
        self.asked
    }

    fn hear(&mut self, contacts: Vec<Contact>) {
        for contact in contacts {
            if contact.peer == self.own || self.failed.contains(&contact.peer) {
                continue;
            }
            let distance = self.distance(&contact.peer);
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
mod tests {
    use super::*;
    use crate::kad::table::Table;
    use std::time::Instant;

    fn contact(number: u32) -> Contact {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&number.to_be_bytes());
        Contact { peer: PeerId::from_ed25519(&key), addresses: vec![number.to_string()] }
    }

    /// Searches among peers each of which knows the others by its own table; those in `silent` do not answer.
    fn search(peers: u32, silent: impl Fn(u32) -> bool) -> (Lookup, Vec<Contact>) {
        let now = Instant::now();
        let tables: Vec<Table> = (0..peers)
            .map(|number| {
                let mut table = Table::new(Place::of_peer(&contact(number).peer));
                (0..peers).for_each(|other| _ = table.insert(contact(other), now));
                table
            })
            .collect();
        let target = Place::of(b"target");
        let own = contact(u32::MAX).peer;
        let mut lookup = Lookup::new(target, own, (0..3).map(contact).collect());
        let mut asking = Vec::new();
        while !lookup.is_over() {
            asking.extend(std::iter::from_fn(|| lookup.next()));
            assert!(asking.len() <= AT_ONCE);
            let Some(asked) = asking.pop() else { break };
            let number: u32 = asked.addresses[0].parse().unwrap();
            match silent(number) {
                true => lookup.failed(&asked.peer),
                false => lookup.answered(&asked.peer, tables[number as usize].closest(&target, K)),
            }
        }
        let mut expected: Vec<Contact> = (0..peers).filter(|number| !silent(*number)).map(contact).collect();
        expected.sort_by_key(|contact| target.distance(&Place::of_peer(&contact.peer)));
        expected.truncate(K);
        (lookup, expected)
    }

    #[test]
    fn the_nearest_peers_are_found_with_few_questions() {
        for peers in [5, 19, 20, 21, 1000] {
            let (lookup, expected) = search(peers, |_| false);
            assert_eq!(lookup.closest(), expected, "{peers}");
            assert!(lookup.asked() <= 45, "{peers}: {}", lookup.asked());
        }
    }

    #[test]
    fn silent_peers_are_passed_by() {
        // Every table is full of them here; among real peers they are forgotten when they do not answer.
        let (lookup, expected) = search(600, |number| number % 3 == 1);
        assert_eq!(lookup.closest()[..K / 2], expected[..K / 2]);
        assert!(lookup.closest().len() == K && lookup.is_over());
    }

    #[test]
    fn it_ends_where_everybody_lies() {
        // Each answer names peers that do not exist, always nearer ones.
        let target = Place::of(b"target");
        let mut lookup = Lookup::new(target, contact(u32::MAX).peer, vec![contact(0)]);
        let mut number = 1;
        while !lookup.is_over() {
            let Some(asked) = lookup.next() else { break };
            lookup.answered(&asked.peer, (number..number + 50).map(contact).collect());
            number += 50;
        }
        assert!(lookup.asked() <= ASKED_MOST && lookup.peers.len() <= HEARD_MOST + 50);
    }
}
