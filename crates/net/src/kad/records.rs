//! What a server of the DHT keeps for others: who has which content, and values. Bounded, in memory, until it expires. Pure: times come in.
//!
//! A provider names only itself, so what a stranger can put here is counted for the stranger: when there is no room, the oldest word of
//! whoever has most gives way. A flood pushes out itself first. After a restart providers come again within their 22 hours.

use super::Contact;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};
use types::PeerId;

/// A provider that does not say it again is forgotten after so long, as in Kubo.
pub(crate) const PROVIDER_LIFE: Duration = Duration::from_secs(48 * 3600);
/// A value likewise.
const VALUE_LIFE: Duration = Duration::from_secs(48 * 3600);
/// Providers kept of one key: an answer has no more.
const PROVIDERS_EACH: usize = 64;
/// Values kept, and their bytes in all.
const VALUES_MOST: usize = 4096;
const VALUE_BYTES_MOST: usize = 16 << 20;

/// Who has what.
pub(crate) struct Providers {
    most: usize,
    keys: HashMap<Box<[u8]>, BTreeMap<PeerId, Said>>,
    senders: HashMap<PeerId, Sender>,
    /// Senders by how much they have said.
    by_weight: BTreeSet<(usize, PeerId)>,
    words: usize,
    next: u64,
}

#[derive(Clone, Copy)]
struct Said {
    at: Instant,
    /// Its place in its sender's order.
    number: u64,
}

struct Sender {
    addresses: Vec<String>,
    said: BTreeMap<u64, Box<[u8]>>,
}

impl Providers {
    /// Room for so many words.
    pub(crate) fn new(most: usize) -> Providers {
        Providers { most: most.max(1), keys: HashMap::new(), senders: HashMap::new(), by_weight: BTreeSet::new(), words: 0, next: 0 }
    }

    pub(crate) fn add(&mut self, key: &[u8], contact: &Contact, now: Instant) {
        self.forget(key, &contact.peer);
        let full = self.keys.get(key).filter(|of_key| of_key.len() >= PROVIDERS_EACH);
        let oldest = full.and_then(|of_key| of_key.iter().min_by_key(|(_, said)| said.number).map(|(peer, _)| *peer));
        if let Some(oldest) = oldest {
            self.forget(key, &oldest);
        }
        if self.len() >= self.most {
            let heaviest = self.by_weight.last().map(|(_, peer)| *peer);
            let oldest = heaviest.and_then(|peer| Some((peer, self.senders.get(&peer)?.said.values().next()?.clone())));
            if let Some((peer, key)) = oldest {
                self.forget(&key, &peer);
            }
        }
        self.words += 1;
        self.next += 1;
        let number = self.next;
        self.keys.entry(key.into()).or_default().insert(contact.peer, Said { at: now, number });
        let sender = self.senders.entry(contact.peer).or_insert_with(|| Sender { addresses: Vec::new(), said: BTreeMap::new() });
        sender.addresses.clone_from(&contact.addresses);
        self.by_weight.remove(&(sender.said.len(), contact.peer));
        sender.said.insert(number, key.into());
        self.by_weight.insert((sender.said.len(), contact.peer));
    }

    /// Who has it, the latest word first.
    pub(crate) fn of(&self, key: &[u8], now: Instant) -> Vec<Contact> {
        let of_key = self.keys.get(key).into_iter().flatten();
        let mut living: Vec<(&PeerId, &Said)> = of_key.filter(|(_, said)| now.duration_since(said.at) < PROVIDER_LIFE).collect();
        living.sort_by_key(|(_, said)| std::cmp::Reverse(said.number));
        let contact = |peer: &PeerId| Some(Contact { peer: *peer, addresses: self.senders.get(peer)?.addresses.clone() });
        living.into_iter().filter_map(|(peer, _)| contact(peer)).collect()
    }

    /// Forgets what expired.
    pub(crate) fn expire(&mut self, now: Instant) {
        let is_over = |said: &Said| now.duration_since(said.at) >= PROVIDER_LIFE;
        let over: Vec<(Box<[u8]>, PeerId)> = self
            .keys
            .iter()
            .flat_map(|(key, of_key)| of_key.iter().filter(|(_, said)| is_over(said)).map(move |(peer, _)| (key.clone(), *peer)))
            .collect();
        for (key, peer) in over {
            self.forget(&key, &peer);
        }
    }

    /// Words kept.
    pub(crate) fn len(&self) -> usize {
        self.words
    }

    fn forget(&mut self, key: &[u8], peer: &PeerId) {
        let Some(of_key) = self.keys.get_mut(key) else { return };
        let Some(said) = of_key.remove(peer) else { return };
        self.words -= 1;
        if of_key.is_empty() {
            self.keys.remove(key);
        }
        let Some(sender) = self.senders.get_mut(peer) else { return };
        self.by_weight.remove(&(sender.said.len(), *peer));
        sender.said.remove(&said.number);
        match sender.said.len() {
            0 => _ = self.senders.remove(peer),
            weight => _ = self.by_weight.insert((weight, *peer)),
        }
    }
}

/// Values under their keys; what they mean and which of two counts is decided by whoever keeps them here.
#[derive(Default)]
pub(crate) struct Values {
    kept: HashMap<Vec<u8>, (Vec<u8>, Instant)>,
    bytes: usize,
}

impl Values {
    pub(crate) fn get(&self, key: &[u8], now: Instant) -> Option<&[u8]> {
        self.kept.get(key).filter(|(_, at)| now.duration_since(*at) < VALUE_LIFE).map(|(value, _)| &value[..])
    }

    pub(crate) fn put(&mut self, key: &[u8], value: Vec<u8>, now: Instant) {
        self.forget(key);
        while self.kept.len() >= VALUES_MOST || self.bytes + value.len() > VALUE_BYTES_MOST {
            let Some(oldest) = self.kept.iter().min_by_key(|(_, (_, at))| *at).map(|(key, _)| key.clone()) else { break };
            self.forget(&oldest);
        }
        self.bytes += value.len();
        self.kept.insert(key.to_vec(), (value, now));
    }

    pub(crate) fn expire(&mut self, now: Instant) {
        let over = self.kept.iter().filter(|(_, (_, at))| now.duration_since(*at) >= VALUE_LIFE).map(|(key, _)| key.clone());
        for key in over.collect::<Vec<_>>() {
            self.forget(&key);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.kept.len()
    }

    fn forget(&mut self, key: &[u8]) {
        if let Some((value, _)) = self.kept.remove(key) {
            self.bytes -= value.len();
        }
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

    fn peers(providers: &Providers, key: &[u8], now: Instant) -> Vec<Contact> {
        providers.of(key, now)
    }

    #[test]
    fn providers_are_told_latest_first_until_they_expire() {
        let (mut providers, start) = (Providers::new(100), Instant::now());
        let later = start + Duration::from_secs(3600);
        providers.add(b"k", &contact(1), start);
        providers.add(b"k", &contact(2), start);
        providers.add(b"k", &contact(1), later);
        assert_eq!(peers(&providers, b"k", later), [contact(1), contact(2)]);
        let over = start + PROVIDER_LIFE;
        assert_eq!(peers(&providers, b"k", over), [contact(1)]);
        assert_eq!(providers.len(), 2);
        providers.expire(over);
        assert_eq!(providers.len(), 1);
        providers.expire(later + PROVIDER_LIFE);
        assert!(providers.len() == 0 && providers.keys.is_empty() && providers.senders.is_empty() && providers.by_weight.is_empty());
    }

    #[test]
    fn a_flood_pushes_out_itself() {
        let (mut providers, now) = (Providers::new(1000), Instant::now());
        for number in 0..50u32 {
            providers.add(&number.to_be_bytes(), &contact(number), now);
        }
        for number in 0..100_000u32 {
            providers.add(&[&b"flood"[..], &number.to_be_bytes()].concat(), &contact(7000), now);
        }
        assert_eq!(providers.len(), 1000);
        assert!((0..50u32).all(|number| peers(&providers, &number.to_be_bytes(), now) == [contact(number)]));
        assert_eq!(peers(&providers, &[&b"flood"[..], &99_999u32.to_be_bytes()].concat(), now), [contact(7000)], "its latest stay");
    }

    #[test]
    fn many_providers_of_one_key_are_bounded() {
        let (mut providers, now) = (Providers::new(1000), Instant::now());
        (0..500).for_each(|number| providers.add(b"k", &contact(number), now));
        let told = peers(&providers, b"k", now);
        assert_eq!((told.len(), &told[0]), (PROVIDERS_EACH, &contact(499)));
        assert_eq!(providers.len(), PROVIDERS_EACH);
    }

    #[test]
    fn values_are_bounded_in_number_bytes_and_time() {
        let (mut values, start) = (Values::default(), Instant::now());
        for number in 0..10_000u32 {
            values.put(&number.to_be_bytes(), vec![0; 8 << 10], start + Duration::from_millis(u64::from(number)));
        }
        let now = start + Duration::from_secs(10);
        assert!(values.bytes <= VALUE_BYTES_MOST && values.len() <= VALUES_MOST);
        assert!(values.get(&9_999u32.to_be_bytes(), now).is_some() && values.get(&0u32.to_be_bytes(), now).is_none());
        values.put(&9_999u32.to_be_bytes(), vec![1], now);
        assert_eq!(values.get(&9_999u32.to_be_bytes(), now), Some(&[1][..]));
        assert!(values.get(&9_999u32.to_be_bytes(), now + VALUE_LIFE).is_none());
        values.expire(now + VALUE_LIFE);
        assert_eq!((values.len(), values.bytes), (0, 0));
    }
}
