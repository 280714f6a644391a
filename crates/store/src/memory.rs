//! The store in memory: for tests and the simulator, with a crash that forgets what was not synced.
//!
//! Each key keeps the versions that a living snapshot may still see; a snapshot is only a number, so taking one costs nothing and
//! writing beside one copies nothing but the changed values.

use crate::disk::check_keys;
use crate::{Area, Batch, Durability, Snapshot, Store, StoreError};
use bytes::Bytes;
use parking_lot::RwLock;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use types::ByteCount;

/// An in-memory [`Store`]. A clone is another handle of the same store; see [`MemoryStore::fork`] for a copy.
#[derive(Clone, Default)]
pub struct MemoryStore {
    state: Arc<RwLock<State>>,
}

#[derive(Default)]
struct State {
    areas: [BTreeMap<Bytes, Versions>; Area::ALL.len()],
    version: u64,
    /// Versions that snapshots look at, with how many.
    watched: BTreeMap<u64, usize>,
    /// Keys that got a new version while somebody was watching, in order of that version: to be tidied later.
    untidy: VecDeque<(u64, Area, Bytes)>,
    /// What keys changed since the last synced commit held then.
    unsynced: BTreeMap<(Area, Bytes), Option<Bytes>>,
}

struct Versions {
    version: u64,
    value: Option<Bytes>,
    /// Earlier versions, oldest first.
    older: Vec<(u64, Option<Bytes>)>,
}

struct MemorySnapshot {
    state: Arc<RwLock<State>>,
    version: u64,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    /// A separate store with the same content, equally synced.
    pub fn fork(&self) -> MemoryStore {
        let state = self.state.read();
        let copy = State { unsynced: state.unsynced.clone(), ..State::holding(state.current()) };
        MemoryStore { state: Arc::new(RwLock::new(copy)) }
    }

    /// What a restart after a power cut would find: a separate store with everything up to the last synced commit and nothing after it.
    pub fn crash(&self) -> MemoryStore {
        let state = self.state.read();
        let mut areas = state.current();
        for ((area, key), value) in &state.unsynced {
            match value {
                Some(value) => areas[*area as usize].insert(key.clone(), value.clone()),
                None => areas[*area as usize].remove(key),
            };
        }
        MemoryStore { state: Arc::new(RwLock::new(State::holding(areas))) }
    }
}

impl Store for MemoryStore {
    fn snapshot(&self) -> Arc<dyn Snapshot> {
        let mut state = self.state.write();
        let version = state.version;
        *state.watched.entry(version).or_default() += 1;
        Arc::new(MemorySnapshot { state: self.state.clone(), version })
    }

    fn commit(&self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        check_keys(&batch)?;
        let mut state = self.state.write();
        state.version += 1;
        for op in batch.into_ops() {
            state.set(op.area, op.key, op.value);
        }
        if durability == Durability::Synced {
            state.unsynced.clear();
        }
        Ok(())
    }

    fn get(&self, area: Area, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.state.read().areas[area as usize].get(key).and_then(|versions| versions.value.clone()))
    }

    fn disk_bytes(&self) -> Result<ByteCount, StoreError> {
        Ok(ByteCount::ZERO)
    }
}

impl Snapshot for MemorySnapshot {
    fn get(&self, area: Area, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.state.read().areas[area as usize].get(key).and_then(|versions| versions.at(self.version)).cloned())
    }

    fn scan(&self, area: Area, after: Option<&[u8]>, prefix: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let state = self.state.read();
        let entries = state.areas[area as usize].range::<[u8], _>((from, Bound::Unbounded));
        let wanted = entries.take_while(|(key, _)| key.starts_with(prefix));
        let seen = wanted.filter_map(|(key, versions)| Some((key.clone(), versions.at(self.version)?.clone())));
        Ok(seen.take(limit).collect())
    }

    fn count(&self, area: Area) -> Result<u64, StoreError> {
        Ok(self.state.read().areas[area as usize].values().filter(|versions| versions.at(self.version).is_some()).count() as u64)
    }
}

impl Drop for MemorySnapshot {
    fn drop(&mut self) {
        let mut state = self.state.write();
        let Some(watchers) = state.watched.get_mut(&self.version) else { return };
        *watchers -= 1;
        if *watchers == 0 {
            state.watched.remove(&self.version);
            state.tidy();
        }
    }
}

impl State {
    fn holding(areas: [BTreeMap<Bytes, Bytes>; Area::ALL.len()]) -> State {
        let versioned = |value| Versions { version: 0, value: Some(value), older: Vec::new() };
        State { areas: areas.map(|area| area.into_iter().map(|(key, value)| (key, versioned(value))).collect()), ..State::default() }
    }

    fn current(&self) -> [BTreeMap<Bytes, Bytes>; Area::ALL.len()] {
        std::array::from_fn(|area| {
            self.areas[area].iter().filter_map(|(key, versions)| Some((key.clone(), versions.value.clone()?))).collect()
        })
    }

    fn set(&mut self, area: Area, key: Bytes, value: Option<Bytes>) {
        let version = self.version;
        let keys = &mut self.areas[area as usize];
        let before = keys.get(&key).and_then(|versions| versions.value.clone());
        self.unsynced.entry((area, key.clone())).or_insert(before);
        if self.watched.is_empty() {
            match value {
                Some(value) => keys.insert(key, Versions { version, value: Some(value), older: Vec::new() }),
                None => keys.remove(&key),
            };
            return;
        }
        self.untidy.push_back((version, area, key.clone()));
        match keys.get_mut(&key) {
            Some(versions) if versions.version == version => versions.value = value,
            Some(versions) => {
                versions.older.push((versions.version, versions.value.take()));
                versions.version = version;
                versions.value = value;
            }
            None => {
                keys.insert(key, Versions { version, value, older: Vec::new() });
            }
        }
    }

    /// Drops versions that no snapshot can see.
    fn tidy(&mut self) {
        let oldest = self.watched.keys().next().copied().unwrap_or(u64::MAX);
        while let Some((version, _, _)) = self.untidy.front() {
            if *version > oldest {
                return;
            }
            let Some((_, area, key)) = self.untidy.pop_front() else { return };
            let keys = &mut self.areas[area as usize];
            let Some(versions) = keys.get_mut(&key) else { continue };
            versions.forget_before(oldest);
            if versions.value.is_none() && versions.older.is_empty() {
                keys.remove(&key);
            }
        }
    }
}

impl Versions {
    fn at(&self, version: u64) -> Option<&Bytes> {
        if self.version <= version {
            return self.value.as_ref();
        }
        self.older.iter().rev().find(|(made, _)| *made <= version)?.1.as_ref()
    }

    fn forget_before(&mut self, oldest: u64) {
        if self.version <= oldest {
            self.older.clear();
        } else if let Some(seen) = self.older.iter().rposition(|(made, _)| *made <= oldest) {
            self.older.drain(..seen);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance;

    #[test]
    fn keeps_every_promise_of_a_store() {
        conformance::check_all(&|| Arc::new(MemoryStore::new()));
    }

    #[test]
    fn a_crash_forgets_exactly_what_was_not_synced() {
        let store = MemoryStore::new();
        put(&store, "a", "1", Durability::Buffered);
        put(&store, "b", "1", Durability::Synced);
        put(&store, "a", "2", Durability::Buffered);
        put(&store, "c", "1", Durability::Buffered);
        let (forked, crashed) = (store.fork(), store.crash());
        check(&forked, "a=2 b=1 c=1");
        check(&crashed, "a=1 b=1");
        check(&forked.crash(), "a=1 b=1");
        put(&crashed, "d", "1", Durability::Synced);
        check(&crashed.crash(), "a=1 b=1 d=1");
        check(&store, "a=2 b=1 c=1");
    }

    #[test]
    fn nothing_old_is_kept_once_the_last_snapshot_is_gone() {
        let store = MemoryStore::new();
        put(&store, "a", "1", Durability::Synced);
        let (first, second) = (store.snapshot(), store.snapshot());
        put(&store, "a", "2", Durability::Synced);
        let third = store.snapshot();
        let mut batch = Batch::new();
        batch.delete(Area::Pins, "a");
        store.commit(batch, Durability::Synced).expect("commits");
        drop(first);
        assert_eq!(second.get(Area::Pins, b"a").expect("reads").as_deref(), Some(&b"1"[..]));
        drop(second);
        assert_eq!(third.get(Area::Pins, b"a").expect("reads").as_deref(), Some(&b"2"[..]));
        drop(third);
        let state = store.state.read();
        assert!(state.areas.iter().all(BTreeMap::is_empty) && state.untidy.is_empty() && state.watched.is_empty());
    }

    fn put(store: &MemoryStore, key: &str, value: &str, durability: Durability) {
        let mut batch = Batch::new();
        batch.put(Area::Pins, key, value);
        store.commit(batch, durability).expect("commits");
    }

    fn check(store: &MemoryStore, expected: &str) {
        let entries = store.snapshot().scan(Area::Pins, None, b"", 100).expect("scans");
        let shown: Vec<String> =
            entries.iter().map(|(key, value)| format!("{}={}", String::from_utf8_lossy(key), String::from_utf8_lossy(value))).collect();
        assert_eq!(shown.join(" "), expected);
    }
}
