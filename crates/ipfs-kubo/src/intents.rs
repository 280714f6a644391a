//! What was begun at the daemon and not yet settled, so that neither a cancel nor a crash leaves a pin that nobody owns.
//!
//! An intent is written before a pin is added or removed there, and goes when the ledger and the daemon agree. One that is found at the start
//! is settled by the ledger: what it does not name goes.
//!
//! Everything here blocks its thread.

use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use store::{Area, Batch, Durability, Store, StoreError};
use types::Cid;

const PREFIX: &[u8] = b"kubo-intent/";
/// Intents read at once.
const PAGE: usize = 1000;

pub(crate) struct Intents {
    store: Arc<dyn Store>,
    /// Those of this process; at most as many as operations run.
    open: Mutex<BTreeSet<Cid>>,
}

impl Intents {
    pub(crate) fn new(store: Arc<dyn Store>) -> Intents {
        Intents { store, open: Mutex::default() }
    }

    /// Those that an earlier process left.
    pub(crate) fn left(&self) -> Result<Vec<Cid>, StoreError> {
        let mut all = Vec::new();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = self.store.snapshot().scan(Area::Meta, after.as_deref(), PREFIX, PAGE)?;
            all.extend(page.iter().filter_map(|(key, _)| Cid::try_from(&key[PREFIX.len()..]).ok()));
            match page.last() {
                Some((key, _)) if page.len() == PAGE => after = Some(key.to_vec()),
                _ => return Ok(all),
            }
        }
    }

    pub(crate) fn begin(&self, cid: &Cid) -> Result<(), StoreError> {
        let mut batch = Batch::new();
        batch.put(Area::Meta, key(cid), []);
        self.store.commit(batch, Durability::Synced)?;
        self.open.lock().insert(*cid);
        Ok(())
    }

    /// A lost end costs a look at the next start.
    pub(crate) fn end(&self, cid: &Cid) -> Result<(), StoreError> {
        let mut batch = Batch::new();
        batch.delete(Area::Meta, key(cid));
        self.store.commit(batch, Durability::Buffered)?;
        self.open.lock().remove(cid);
        Ok(())
    }

    pub(crate) fn is_open(&self, cid: &Cid) -> bool {
        self.open.lock().contains(cid)
    }
}

fn key(cid: &Cid) -> Vec<u8> {
    [PREFIX, &cid.to_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipfs::conformance::sample::leaf;
    use store::MemoryStore;

    #[test]
    fn what_was_begun_and_not_ended_is_found_by_the_next_process() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let intents = Intents::new(store.clone());
        let [one, two] = [1, 2].map(|number| leaf(number).cid);
        intents.begin(&one).unwrap();
        intents.begin(&two).unwrap();
        intents.end(&one).unwrap();
        assert!(!intents.is_open(&one) && intents.is_open(&two));
        assert_eq!(Intents::new(store).left().unwrap(), [two]);
    }
}
