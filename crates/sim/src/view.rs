//! What a machine reads of its disk: the wish, decoded once, and the ledger.

use bytes::Bytes;
use cluster::SharedView;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use store::{Area, Snapshot};
use types::{ByteCount, Cid, Pin};
use wire::{decode_pin, pin_version};

/// The wish and the ledger of one peer, kept beside its store. All CIDs of the simulator are of one kind, so that their own
/// order is that of their bytes.
#[derive(Clone, Debug, Default)]
pub struct View {
    pins: BTreeMap<Cid, (Pin, u64)>,
    ledger: BTreeMap<Cid, ByteCount>,
}

/// Reads a stored pin; what cannot be read is shown as absent.
pub fn read_pin(stored: &Bytes) -> Option<(Pin, u64)> {
    decode_pin(stored).ok().map(|pin| (pin, pin_version(stored)))
}

fn size_of(stored: &[u8]) -> ByteCount {
    ByteCount(<[u8; 8]>::try_from(stored).map_or(0, u64::from_be_bytes))
}

impl View {
    /// Everything that a store holds.
    pub fn load(snapshot: Arc<dyn Snapshot>) -> View {
        let snapshot = consensus::crdt::shown(snapshot);
        let rows = |area| snapshot.scan(area, None, b"", usize::MAX).unwrap_or_default();
        let cid = |key: &Bytes| Cid::try_from(&key[..]).ok();
        let pins = rows(Area::Pins).into_iter().filter_map(|(key, stored)| Some((cid(&key)?, read_pin(&stored)?))).collect();
        let ledger = rows(Area::Ledger).into_iter().filter_map(|(key, size)| Some((cid(&key)?, size_of(&size)))).collect();
        View { pins, ledger }
    }

    /// A key of the wish changed; the decoded value after. Gives what stood there.
    pub fn change(&mut self, cid: Cid, after: Option<(Pin, u64)>) -> Option<Pin> {
        let before = match after {
            Some(pin) => self.pins.insert(cid, pin),
            None => self.pins.remove(&cid),
        };
        before.map(|(pin, _)| pin)
    }

    /// The ledger changed.
    pub fn enter(&mut self, cid: Cid, ours: Option<ByteCount>) {
        match ours {
            Some(bytes) => drop(self.ledger.insert(cid, bytes)),
            None => drop(self.ledger.remove(&cid)),
        }
    }

    /// The whole wish.
    pub fn pins(&self) -> impl Iterator<Item = &(Pin, u64)> {
        self.pins.values()
    }

    /// One pin, borrowed.
    pub fn get(&self, cid: &Cid) -> Option<&(Pin, u64)> {
        self.pins.get(cid)
    }
}

fn behind(after: Option<&Cid>) -> (Bound<Cid>, Bound<Cid>) {
    (after.map_or(Bound::Unbounded, |after| Bound::Excluded(*after)), Bound::Unbounded)
}

impl SharedView for View {
    fn pins_after(&self, after: Option<&Cid>, limit: usize) -> Vec<(Pin, u64)> {
        self.pins.range(behind(after)).take(limit).map(|(_, pin)| pin.clone()).collect()
    }

    fn each_pin_after(&self, after: Option<&Cid>, limit: usize, each: &mut dyn FnMut(&Pin, u64)) -> usize {
        self.pins.range(behind(after)).take(limit).map(|(_, (pin, version))| each(pin, *version)).count()
    }

    fn pin(&self, cid: &Cid) -> Option<(Pin, u64)> {
        self.get(cid).cloned()
    }

    fn ledger_after(&self, after: Option<&Cid>, limit: usize) -> Vec<(Cid, ByteCount)> {
        self.ledger.range(behind(after)).take(limit).map(|(cid, bytes)| (*cid, *bytes)).collect()
    }

    fn own_size(&self, cid: &Cid) -> Option<ByteCount> {
        self.ledger.get(cid).copied()
    }

    fn ledger_count(&self) -> u64 {
        self.ledger.len() as u64
    }
}
