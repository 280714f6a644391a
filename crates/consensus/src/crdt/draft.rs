//! What one step of the machine will commit: writes laid over a snapshot, so that later reads of the step see them.

use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use store::{Area, Batch, Snapshot, StoreError};

/// Keys read at once while scanning.
const PAGE: usize = 1024;

type Writes = BTreeMap<Bytes, Option<Bytes>>;

/// Writes over a snapshot.
pub(crate) struct Draft {
    view: Arc<dyn Snapshot>,
    areas: [Writes; Area::ALL.len()],
    /// How many more rows `Area::Pins` has than before the step.
    pub(crate) more_pins: i64,
}

impl Draft {
    pub(crate) fn new(view: Arc<dyn Snapshot>) -> Draft {
        Draft { view, areas: Default::default(), more_pins: 0 }
    }

    /// What the store had before the step.
    pub(crate) fn view(&self) -> &Arc<dyn Snapshot> {
        &self.view
    }

    pub(crate) fn get(&self, area: Area, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        match self.areas[area as usize].get(key) {
            Some(value) => Ok(value.clone()),
            None => self.view.get(area, key),
        }
    }

    pub(crate) fn put(&mut self, area: Area, key: impl AsRef<[u8]>, value: impl Into<Bytes>) {
        self.set(area, key.as_ref(), Some(value.into()));
    }

    pub(crate) fn delete(&mut self, area: Area, key: impl AsRef<[u8]>) {
        self.set(area, key.as_ref(), None);
    }

    /// Forgets a put whose key the snapshot is known not to have.
    pub(crate) fn take_back(&mut self, area: Area, key: &[u8]) {
        self.areas[area as usize].remove(key);
    }

    /// All entries whose key begins with `prefix`, in order.
    pub(crate) fn scan(&self, area: Area, prefix: &[u8]) -> Result<BTreeMap<Bytes, Bytes>, StoreError> {
        let mut found = BTreeMap::new();
        let mut after: Option<Bytes> = None;
        loop {
            let page = self.view.scan(area, after.as_deref(), prefix, PAGE)?;
            let is_last = page.len() < PAGE;
            after = page.last().map(|(key, _)| key.clone());
            found.extend(page);
            if is_last {
                break;
            }
        }
        let written = self.areas[area as usize].range(Bytes::copy_from_slice(prefix)..);
        for (key, value) in written.take_while(|(key, _)| key.starts_with(prefix)) {
            match value {
                Some(value) => found.insert(key.clone(), value.clone()),
                None => found.remove(key),
            };
        }
        Ok(found)
    }

    pub(crate) fn into_batch(self) -> Batch {
        let mut batch = Batch::new();
        for (area, writes) in Area::ALL.into_iter().zip(self.areas) {
            for (key, value) in writes {
                match value {
                    Some(value) => batch.put_bytes(area, key, value),
                    None => batch.delete(area, &key),
                };
            }
        }
        batch.distinct()
    }

    fn set(&mut self, area: Area, key: &[u8], value: Option<Bytes>) {
        self.areas[area as usize].insert(Bytes::copy_from_slice(key), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::{Durability, MemoryStore, Store};

    #[test]
    fn a_draft_shows_its_own_writes_over_the_snapshot() {
        let store = MemoryStore::new();
        let mut batch = Batch::new();
        batch.put(Area::Pins, "a1", "old").put(Area::Pins, "a2", "old").put(Area::Pins, "b", "old");
        store.commit(batch, Durability::Buffered).expect("commits");
        let mut draft = Draft::new(store.snapshot());
        draft.put(Area::Pins, "a1", "new");
        draft.delete(Area::Pins, "a2");
        draft.put(Area::Pins, "a3", "new");
        draft.put(Area::Pins, "a4", "new");
        draft.take_back(Area::Pins, b"a4");
        let found: Vec<_> = draft.scan(Area::Pins, b"a").expect("scans").into_iter().collect();
        assert_eq!(found, [("a1", "new"), ("a3", "new")].map(|(key, value)| (Bytes::from(key), Bytes::from(value))));
        assert_eq!(draft.get(Area::Pins, b"a2").expect("reads"), None);
        assert_eq!(draft.get(Area::Pins, b"b").expect("reads").as_deref(), Some(&b"old"[..]));
        store.commit(draft.into_batch(), Durability::Buffered).expect("commits");
        assert_eq!(store.snapshot().count(Area::Pins).expect("counts"), 3);
    }

    #[test]
    fn scans_go_over_many_pages() {
        let store = MemoryStore::new();
        let mut batch = Batch::new();
        for number in 0..2 * PAGE as u32 {
            batch.put(Area::Pins, number.to_be_bytes(), "");
        }
        store.commit(batch, Durability::Buffered).expect("commits");
        assert_eq!(Draft::new(store.snapshot()).scan(Area::Pins, b"").expect("scans").len(), 2 * PAGE);
    }
}
