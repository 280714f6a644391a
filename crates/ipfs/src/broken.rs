//! The notes about pins that are not whole: they outlive a restart, so that a lost block is never taken for a held one.
//!
//! `Area::Meta`, key `broken/` and the root's CID; value (version 1): `1`, how many blocks are missing u64 little-endian, the CID of one.

use crate::BrokenPin;
use parking_lot::Mutex;
use std::sync::Arc;
use store::{Area, Batch, Durability, Store, StoreError};
use types::Cid;

const PREFIX: &[u8] = b"broken/";
const VERSION: u8 = 1;

/// The notes. Everything here blocks its thread.
pub struct Broken {
    store: Arc<dyn Store>,
    /// How many there are, once they were counted: mostly none, and then a pin costs no look-up.
    count: Mutex<Option<u64>>,
}

impl Broken {
    /// The notes in `store`.
    pub fn new(store: Arc<dyn Store>) -> Broken {
        Broken { store, count: Mutex::new(None) }
    }

    /// The note about a pin.
    pub fn get(&self, cid: &Cid) -> Result<Option<BrokenPin>, StoreError> {
        if self.is_empty()? {
            return Ok(None);
        }
        let value = self.store.get(Area::Meta, &key(cid))?;
        Ok(value.map(|value| decode(cid, &value)))
    }

    /// At most `limit` notes.
    pub fn list(&self, limit: usize) -> Result<Vec<BrokenPin>, StoreError> {
        let entries = self.store.snapshot().scan(Area::Meta, None, PREFIX, limit)?;
        let read = |(key, value): &(bytes::Bytes, bytes::Bytes)| Some(decode(&Cid::try_from(&key[PREFIX.len()..]).ok()?, value));
        Ok(entries.iter().filter_map(read).collect())
    }

    /// Writes a note.
    pub fn note(&self, broken: &BrokenPin) -> Result<(), StoreError> {
        let is_new = self.get(&broken.cid)?.is_none();
        let mut count = self.count.lock();
        let mut batch = Batch::new();
        batch.put(Area::Meta, key(&broken.cid), encode(broken));
        self.store.commit(batch, Durability::Synced)?;
        *count = count.map(|count| count + u64::from(is_new));
        Ok(())
    }

    /// Removes the note; whether there was one.
    pub fn clear(&self, cid: &Cid) -> Result<bool, StoreError> {
        if self.get(cid)?.is_none() {
            return Ok(false);
        }
        let mut count = self.count.lock();
        let mut batch = Batch::new();
        batch.delete(Area::Meta, key(cid));
        self.store.commit(batch, Durability::Synced)?;
        *count = count.map(|count| count.saturating_sub(1));
        Ok(true)
    }

    fn is_empty(&self) -> Result<bool, StoreError> {
        let mut count = self.count.lock();
        let known = match *count {
            Some(known) => known,
            None => self.store.snapshot().scan(Area::Meta, None, PREFIX, usize::MAX)?.len() as u64,
        };
        *count = Some(known);
        Ok(known == 0)
    }
}

fn key(cid: &Cid) -> Vec<u8> {
    [PREFIX, &cid.to_bytes()].concat()
}

fn encode(broken: &BrokenPin) -> Vec<u8> {
    let mut value = vec![VERSION];
    value.extend_from_slice(&broken.missing.to_le_bytes());
    value.extend_from_slice(&broken.first.to_bytes());
    value
}

/// A note that cannot be read still says that the pin is not whole.
fn decode(cid: &Cid, value: &[u8]) -> BrokenPin {
    let missing = value.get(1..9).and_then(|bytes| bytes.try_into().ok()).map_or(1, u64::from_le_bytes);
    let first = value.get(9..).and_then(|bytes| Cid::try_from(bytes).ok()).unwrap_or(*cid);
    BrokenPin { cid: *cid, missing, first }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::sample::leaf;
    use store::MemoryStore;

    #[test]
    fn notes_are_kept_until_they_are_cleared() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let note = BrokenPin { cid: leaf(1).cid, missing: 3, first: leaf(2).cid };
        let broken = Broken::new(store.clone());
        assert_eq!(broken.get(&note.cid).unwrap(), None);
        broken.note(&note).unwrap();
        broken.note(&note).unwrap();
        let again = Broken::new(store);
        assert_eq!(again.get(&note.cid).unwrap().as_ref(), Some(&note));
        assert_eq!(again.list(10).unwrap(), std::slice::from_ref(&note));
        assert!(again.clear(&note.cid).unwrap());
        assert!(!again.clear(&note.cid).unwrap());
        assert_eq!(again.list(10).unwrap(), []);
        assert_eq!(decode(&note.cid, &[]), BrokenPin { missing: 1, first: note.cid, ..note }, "a damaged note");
    }
}
