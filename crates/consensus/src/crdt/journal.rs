//! Wishes of this peer that are acknowledged and not yet in a block: written with one fsync (`Area::Intents`), visible at once.
//!
//! A key with a pending wish shows that wish whatever is merged meanwhile: the block made from the journal will stand above
//! everything merged by then, so its value wins, and a removal takes away every element known by then. After a crash the journal
//! is read back and told again; telling the same twice adds an element with an equal value, which changes nothing.

use super::CrdtError;
use super::alive::{take_varint, varint};
use super::draft::Draft;
use bytes::Bytes;
use std::collections::BTreeMap;
use store::Area;

/// The pending wishes: the last one of each key, in the order in which they were made.
#[derive(Default)]
pub(crate) struct Journal {
    by_key: BTreeMap<Vec<u8>, Intent>,
    by_number: BTreeMap<u64, Vec<u8>>,
    next: u64,
    /// Numbers from here on were given in the current step, so the store does not have them.
    fresh: u64,
}

/// A pending wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Intent {
    number: u64,
    /// None removes the key.
    pub(crate) value: Option<Bytes>,
}

impl Journal {
    /// Reads back what was pending.
    pub(crate) fn load(draft: &Draft) -> Result<Journal, CrdtError> {
        let mut journal = Journal::default();
        for (number, row) in draft.scan(Area::Intents, b"")? {
            let damaged = || CrdtError::damaged("journal", &number);
            let number = u64::from_be_bytes(number[..].try_into().map_err(|_| damaged())?);
            let (key, value) = decode(&row).ok_or_else(damaged)?;
            journal.insert(number, key, value);
            journal.next = number + 1;
        }
        Ok(journal)
    }

    /// A step begins: everything so far is in the store.
    pub(crate) fn begin_step(&mut self) {
        self.fresh = self.next;
    }

    /// Notes a wish; an earlier one for the same key is forgotten.
    pub(crate) fn push(&mut self, draft: &mut Draft, key: Vec<u8>, value: Option<Bytes>) {
        if let Some(older) = self.remove(&key) {
            self.strike(draft, older.number);
        }
        let number = self.next;
        self.next += 1;
        draft.put(Area::Intents, number.to_be_bytes(), encode(&key, value.as_ref()));
        self.insert(number, key, value);
    }

    /// The pending wish for a key.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Intent> {
        self.by_key.get(key)
    }

    /// The oldest wish.
    pub(crate) fn first(&self) -> Option<(&Vec<u8>, &Intent)> {
        let key = self.by_number.values().next()?;
        Some((key, &self.by_key[key]))
    }

    /// Takes the oldest wish out.
    pub(crate) fn pop(&mut self, draft: &mut Draft) -> Option<(Vec<u8>, Intent)> {
        let (_, key) = self.by_number.first_key_value()?;
        let key = key.clone();
        let intent = self.remove(&key)?;
        self.strike(draft, intent.number);
        Some((key, intent))
    }

    /// Up to where wishes were made, and up to where they were taken out: all that were made before the first number are told when
    /// the second has reached it.
    pub(crate) fn marks(&self) -> (u64, u64) {
        (self.next, self.by_number.keys().next().copied().unwrap_or(self.next))
    }

    /// How many wishes were noted in the current step.
    pub(crate) fn fresh(&self) -> u64 {
        self.next - self.fresh
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// How many keys have a pending wish.
    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    fn insert(&mut self, number: u64, key: Vec<u8>, value: Option<Bytes>) {
        self.by_number.insert(number, key.clone());
        self.by_key.insert(key, Intent { number, value });
    }

    fn remove(&mut self, key: &[u8]) -> Option<Intent> {
        let intent = self.by_key.remove(key)?;
        self.by_number.remove(&intent.number);
        Some(intent)
    }

    fn strike(&self, draft: &mut Draft, number: u64) {
        if number >= self.fresh {
            draft.take_back(Area::Intents, &number.to_be_bytes());
        } else {
            draft.delete(Area::Intents, number.to_be_bytes());
        }
    }
}

fn encode(key: &[u8], value: Option<&Bytes>) -> Vec<u8> {
    let mut row = varint(key.len() as u64);
    row.extend_from_slice(key);
    if let Some(value) = value {
        row.push(1);
        row.extend_from_slice(value);
    }
    row
}

fn decode(mut row: &[u8]) -> Option<(Vec<u8>, Option<Bytes>)> {
    let length = usize::try_from(take_varint(&mut row)?).ok()?;
    let (key, rest) = row.split_at_checked(length)?;
    let value = match rest.split_first() {
        None => None,
        Some((1, value)) => Some(Bytes::copy_from_slice(value)),
        Some(_) => return None,
    };
    Some((key.to_vec(), value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use store::{Durability, MemoryStore, Store};

    #[test]
    fn rows_read_back() {
        for value in [None, Some(Bytes::new()), Some(Bytes::from("value"))] {
            assert_eq!(decode(&encode(b"key", value.as_ref())), Some((b"key".to_vec(), value)));
        }
        for bad in [&[][..], &[9, 1], &[1, b'k', 2]] {
            assert_eq!(decode(bad), None);
        }
    }

    #[test]
    fn a_journal_read_back_holds_the_last_wish_of_each_key_in_order() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let mut journal = Journal::default();
        let mut draft = Draft::new(store.snapshot());
        for (key, value) in [("a", Some("1")), ("b", Some("1")), ("a", None), ("c", Some("1"))] {
            journal.push(&mut draft, key.into(), value.map(Bytes::from));
        }
        assert_eq!(journal.pop(&mut draft).map(|(key, _)| key), Some(b"b".to_vec()));
        store.commit(draft.into_batch(), Durability::Synced).expect("commits");
        let mut draft = Draft::new(store.snapshot());
        let mut read = Journal::load(&draft).expect("reads");
        assert_eq!((read.len(), read.next), (2, journal.next));
        read.begin_step();
        read.push(&mut draft, b"c".to_vec(), Some("2".into()));
        let told: Vec<_> = std::iter::from_fn(|| read.pop(&mut draft)).map(|(key, intent)| (key, intent.value)).collect();
        assert_eq!(told, [(b"a".to_vec(), None), (b"c".to_vec(), Some("2".into()))]);
        store.commit(draft.into_batch(), Durability::Synced).expect("commits");
        assert_eq!(store.snapshot().count(Area::Intents).expect("counts"), 0);
    }
}
