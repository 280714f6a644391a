//! What a machine reads of its disk: the wish, decoded once, and the ledger.

use bytes::Bytes;
use cluster::SharedView;
use std::collections::BTreeMap;
use store::{Area, Snapshot};
use types::{Cid, Pin};
use wire::{decode_pin, pin_version};

/// The wish and the ledger of one peer, kept beside its store.
#[derive(Clone, Debug, Default)]
pub struct View {
    pins: BTreeMap<Vec<u8>, (Pin, u64)>,
    ledger: BTreeMap<Vec<u8>, Cid>,
}

/// Reads a stored pin; what cannot be read is shown as absent.
pub fn read_pin(stored: &Bytes) -> Option<(Pin, u64)> {
    decode_pin(stored).ok().map(|pin| (pin, pin_version(stored)))
}

impl View {
    /// Everything that a store holds.
    pub fn load(snapshot: &dyn Snapshot) -> View {
        let rows = |area| snapshot.scan(area, None, b"", usize::MAX).unwrap_or_default();
        let pins = rows(Area::Pins).into_iter().filter_map(|(key, stored)| Some((key.to_vec(), read_pin(&stored)?))).collect();
        let ledger = rows(Area::Ledger).into_iter().filter_map(|(key, _)| Some((key.to_vec(), Cid::try_from(&key[..]).ok()?))).collect();
        View { pins, ledger }
    }

    /// A key of the wish changed; the decoded value after.
    pub fn change(&mut self, key: &[u8], after: Option<(Pin, u64)>) {
        match after {
            Some(pin) => drop(self.pins.insert(key.to_vec(), pin)),
            None => drop(self.pins.remove(key)),
        }
    }

    /// The ledger changed.
    pub fn enter(&mut self, cid: Cid, is_ours: bool) {
        if is_ours {
            self.ledger.insert(cid.to_bytes(), cid);
        } else {
            self.ledger.remove(&cid.to_bytes());
        }
    }

    /// The whole wish.
    pub fn pins(&self) -> impl Iterator<Item = &(Pin, u64)> {
        self.pins.values()
    }

    /// One pin, borrowed.
    pub fn get(&self, cid: &Cid) -> Option<&(Pin, u64)> {
        self.pins.get(&cid.to_bytes())
    }
}

impl SharedView for View {
    fn pins_after(&self, after: Option<&Cid>, limit: usize) -> Vec<(Pin, u64)> {
        let after = after.map(Cid::to_bytes);
        let from = after.clone().unwrap_or_default();
        self.pins.range(from..).filter(|(key, _)| Some(*key) != after.as_ref()).take(limit).map(|(_, pin)| pin.clone()).collect()
    }

    fn each_pin_after(&self, after: Option<&Cid>, limit: usize, each: &mut dyn FnMut(&Pin, u64)) -> usize {
        let after = after.map(Cid::to_bytes);
        let from = after.clone().unwrap_or_default();
        let page = self.pins.range(from..).filter(|(key, _)| Some(*key) != after.as_ref()).take(limit);
        page.map(|(_, (pin, version))| each(pin, *version)).count()
    }

    fn pin(&self, cid: &Cid) -> Option<(Pin, u64)> {
        self.get(cid).cloned()
    }

    fn ledger_after(&self, after: Option<&Cid>, limit: usize) -> Vec<Cid> {
        let after = after.map(Cid::to_bytes);
        let from = after.clone().unwrap_or_default();
        self.ledger.range(from..).filter(|(key, _)| Some(*key) != after.as_ref()).take(limit).map(|(_, cid)| *cid).collect()
    }

    fn is_ours(&self, cid: &Cid) -> bool {
        self.ledger.contains_key(&cid.to_bytes())
    }

    fn ledger_count(&self) -> u64 {
        self.ledger.len() as u64
    }
}
