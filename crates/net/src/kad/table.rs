//! The peers that this host knows in the DHT: few far away, most of those nearby. Pure: times come in.

use super::Contact;
use super::key::{BITS, Place};
use std::collections::HashMap;
use std::time::{Duration, Instant};
use types::PeerId;

/// Peers in one distance, and those that keep a record: as everywhere in this DHT.
pub(crate) const K: usize = 20;
/// A peer that was of no use for so long gives its place to another one.
const STALE: Duration = Duration::from_secs(3600);

/// Buckets by the bits that a peer's place shares with the own one. At most 256 times 20 peers; in a network of a million some 300.
pub(crate) struct Table {
    own: Place,
    buckets: HashMap<usize, Vec<Entry>>,
}

#[derive(Clone)]
struct Entry {
    place: Place,
    contact: Contact,
    useful: Instant,
}

impl Table {
    pub(crate) fn new(own: Place) -> Table {
        Table { own, buckets: HashMap::new() }
    }

    /// Takes a peer in that answers, or refreshes it; whether it is there then.
    pub(crate) fn insert(&mut self, contact: Contact, now: Instant) -> bool {
        let place = Place::of_peer(&contact.peer);
        let shared = self.own.shared_bits(&place);
        if shared == BITS {
            return false;
        }
        let bucket = self.buckets.entry(shared).or_default();
        let entry = Entry { place, contact, useful: now };
        if let Some(known) = bucket.iter_mut().find(|known| known.place == place) {
            *known = entry;
            return true;
        }
        if bucket.len() < K {
            bucket.push(entry);
            return true;
        }
        // Long-lived peers stay longest, so who is there keeps its place while it is of use.
        let stale = bucket.iter_mut().min_by_key(|known| known.useful).filter(|known| now.duration_since(known.useful) > STALE);
        let Some(stale) = stale else { return false };
        *stale = entry;
        true
    }

    /// Those that neither answered nor came for so long: they may be gone, and still be told to others.
    pub(crate) fn unheard(&self, now: Instant, since: Duration) -> Vec<Contact> {
        let all = self.buckets.values().flatten();
        all.filter(|known| now.duration_since(known.useful) > since).map(|known| known.contact.clone()).collect()
    }

    /// Forgets a peer that does not answer.
    pub(crate) fn remove(&mut self, peer: &PeerId) {
        let place = Place::of_peer(peer);
        let shared = self.own.shared_bits(&place);
        if let Some(bucket) = self.buckets.get_mut(&shared) {
            bucket.retain(|known| known.place != place);
            if bucket.is_empty() {
                self.buckets.remove(&shared);
            }
        }
    }

    /// The known peers nearest to a place, nearest first.
    pub(crate) fn closest(&self, to: &Place, most: usize) -> Vec<Contact> {
        let mut all: Vec<([u8; 32], &Entry)> = self.buckets.values().flatten().map(|entry| (to.distance(&entry.place), entry)).collect();
        all.sort_unstable_by_key(|(distance, _)| *distance);
        all.into_iter().take(most).map(|(_, entry)| entry.contact.clone()).collect()
    }

    pub(crate) fn get(&self, peer: &PeerId) -> Option<Contact> {
        let place = Place::of_peer(peer);
        let bucket = self.buckets.get(&self.own.shared_bits(&place))?;
        bucket.iter().find(|known| known.place == place).map(|known| known.contact.clone())
    }

    pub(crate) fn len(&self) -> usize {
        self.buckets.values().map(Vec::len).sum()
    }

    /// The distances in which peers are known, as shared bits.
    pub(crate) fn depths(&self) -> Vec<usize> {
        let mut depths: Vec<usize> = self.buckets.keys().copied().collect();
        depths.sort_unstable();
        depths
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contact(number: u32) -> Contact {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&number.to_be_bytes());
        Contact { peer: PeerId::from_ed25519(&key), addresses: vec![number.to_string()] }
    }

    #[test]
    fn the_nearest_come_first_and_buckets_are_bounded() {
        let own = Place::of_peer(&contact(0).peer);
        let (mut table, now) = (Table::new(own), Instant::now());
        (0..2000).for_each(|number| _ = table.insert(contact(number), now));
        assert!(table.get(&contact(0).peer).is_none(), "never itself");
        assert!(table.buckets.values().all(|bucket| bucket.len() <= K));
        // All of those nearest to the own place are known.
        let mut nearest: Vec<Contact> = (1..2000).map(contact).collect();
        nearest.sort_by_key(|contact| own.distance(&Place::of_peer(&contact.peer)));
        assert_eq!(table.closest(&own, K), nearest[..K]);
        let known = table.len();
        table.remove(&nearest[0].peer);
        assert_eq!((table.len(), table.closest(&own, 1)), (known - 1, nearest[1..2].to_vec()));
    }

    #[test]
    fn a_full_bucket_changes_only_for_who_is_of_no_use() {
        let (mut table, now) = (Table::new(Place::of_peer(&contact(0).peer)), Instant::now());
        let far: Vec<Contact> =
            (1..).map(contact).filter(|other| table.own.shared_bits(&Place::of_peer(&other.peer)) == 0).take(K + 1).collect();
        for other in &far[..K] {
            assert!(table.insert(other.clone(), now));
        }
        assert!(!table.insert(far[K].clone(), now + STALE));
        assert!(table.insert(far[1].clone(), now + STALE), "it is refreshed");
        assert_eq!(table.unheard(now + STALE, STALE / 2).len(), K - 1, "all but the refreshed one");
        assert!(table.insert(far[K].clone(), now + STALE + Duration::from_secs(1)));
        assert!(table.get(&far[1].peer).is_some() && table.get(&far[K].peer).is_some() && table.len() == K);
    }
}
