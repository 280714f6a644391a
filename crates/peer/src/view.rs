//! What the machine reads of the disk: the wish out of the consensus' view, the ledger out of the store.

use bytes::Bytes;
use cluster::SharedView;
use consensus::Consensus;
use std::cell::{OnceCell, RefCell};
use std::sync::Arc;
use store::{Area, Snapshot, Store};
use types::{ByteCount, Cid, Pin};

/// One moment of the disk; the snapshots are taken when first needed.
pub struct View<'a> {
    consensus: &'a dyn Consensus,
    store: &'a dyn Store,
    wish: OnceCell<Arc<dyn Snapshot>>,
    ledger: OnceCell<Arc<dyn Snapshot>>,
    ahead: RefCell<Ahead>,
}

impl<'a> View<'a> {
    /// Over these two.
    pub fn new(consensus: &'a dyn Consensus, store: &'a dyn Store) -> View<'a> {
        View { consensus, store, wish: OnceCell::new(), ledger: OnceCell::new(), ahead: RefCell::default() }
    }

    fn wish(&self) -> &Arc<dyn Snapshot> {
        self.wish.get_or_init(|| self.consensus.view())
    }

    fn ledger(&self) -> &Arc<dyn Snapshot> {
        self.ledger.get_or_init(|| self.store.snapshot())
    }
}

/// Reads a stored pin; a value that does not read is left out and logged, never guessed.
pub fn read_pin(key: &[u8], stored: &[u8]) -> Option<(Pin, u64)> {
    Some((read_unversioned(key, stored)?, wire::pin::pin_version(stored)))
}

/// The same without its version, which costs a hash.
pub fn read_unversioned(key: &[u8], stored: &[u8]) -> Option<Pin> {
    match wire::pin::decode_pin(stored) {
        Ok(mut pin) => {
            // The key is the truth for the CID (cluster-wire.md 2: readers take the CID from the key).
            pin.cid = Cid::try_from(key).ok()?;
            Some(pin)
        }
        Err(error) => {
            tracing::warn!(%error, "a pin of the shared state does not read; it is left alone");
            None
        }
    }
}

impl SharedView for View<'_> {
    fn pins_after(&self, after: Option<&Cid>, limit: usize) -> Vec<(Pin, u64)> {
        pins_after(self.wish().as_ref(), after, limit)
    }

    fn each_pin_after(&self, after: Option<&Cid>, limit: usize, each: &mut dyn FnMut(&Pin, u64)) -> usize {
        let mut after = after.map(Cid::to_bytes);
        let mut given = 0;
        // What does not read must not end the page early.
        while given < limit {
            let asked = limit - given;
            let mut last = Vec::new();
            let entry = &mut |key: &[u8], stored: &[u8]| {
                last.clear();
                last.extend_from_slice(key);
                if let Some((pin, version)) = read_pin(key, stored) {
                    each(&pin, version);
                    given += 1;
                }
            };
            let seen = logged(self.wish().visit(Area::Pins, after.as_deref(), &[], asked, entry)).unwrap_or(0);
            if seen < asked {
                break;
            }
            after = Some(last);
        }
        given
    }

    fn pin(&self, cid: &Cid) -> Option<(Pin, u64)> {
        let key = cid.to_bytes();
        let stored = logged(self.wish().get(Area::Pins, &key))??;
        read_pin(&key, &stored)
    }

    fn ledger_after(&self, after: Option<&Cid>, limit: usize) -> Vec<(Cid, ByteCount)> {
        let after = after.map(Cid::to_bytes);
        let page = logged(self.ledger().scan(Area::Ledger, after.as_deref(), &[], limit)).unwrap_or_default();
        page.iter().filter_map(|(key, size)| Some((Cid::try_from(key.as_ref()).ok()?, read_size(size)))).collect()
    }

    fn own_size(&self, cid: &Cid) -> Option<ByteCount> {
        let key = cid.to_bytes();
        let found = logged(self.ahead.borrow_mut().get(self.ledger().as_ref(), &key)).flatten();
        found.map(|size| read_size(&size))
    }

    fn ledger_count(&self) -> u64 {
        logged(self.ledger().count(Area::Ledger)).unwrap_or(0)
    }
}

/// Looks entries of the ledger up one by one; where they are asked for in their order, as every round does, they are read in portions.
#[derive(Default)]
struct Ahead {
    last: Vec<u8>,
    /// Questions in order so far.
    run: u32,
    /// What stands behind [`Ahead::last`] of the time when it was read, up to its last key, or to the end.
    page: std::vec::IntoIter<(Bytes, Bytes)>,
    end: Option<End>,
}

/// Up to where a page says what there is.
enum End {
    Key(Bytes),
    All,
}

impl Ahead {
    /// So many in order are no chance any more.
    const RUN: u32 = 4;
    const PAGE: usize = 256;

    fn get(&mut self, ledger: &dyn Snapshot, key: &[u8]) -> Result<Option<Bytes>, store::StoreError> {
        let is_next = key > self.last.as_slice();
        let is_in_page = is_next && self.end.as_ref().is_some_and(|end| if let End::Key(end) = end { key <= &end[..] } else { true });
        self.run = if is_next { self.run + 1 } else { 0 };
        self.last.clear();
        self.last.extend_from_slice(key);
        if is_in_page {
            while self.page.as_slice().first().is_some_and(|(stored, _)| &stored[..] < key) {
                self.page.next();
            }
            return Ok(self.page.as_slice().first().filter(|(stored, _)| stored == key).map(|(_, size)| size.clone()));
        }
        self.end = None;
        if self.run >= Ahead::RUN {
            let page = ledger.scan(Area::Ledger, Some(key), &[], Ahead::PAGE)?;
            self.end = Some(page.last().filter(|_| page.len() == Ahead::PAGE).map_or(End::All, |(key, _)| End::Key(key.clone())));
            self.page = page.into_iter();
        }
        ledger.get(Area::Ledger, key)
    }
}

/// The value of a ledger entry: the size of the copy, big-endian without leading zeros.
pub fn write_size(bytes: ByteCount) -> Vec<u8> {
    let all = bytes.get().to_be_bytes();
    all[(bytes.get().leading_zeros() / 8) as usize..].to_vec()
}

fn read_size(stored: &[u8]) -> ByteCount {
    ByteCount(stored.iter().take(8).fold(0, |size, byte| (size << 8) | u64::from(*byte)))
}

/// A page of the wish; unreadable pins are skipped without ending the page early.
pub fn pins_after(wish: &dyn Snapshot, after: Option<&Cid>, limit: usize) -> Vec<(Pin, u64)> {
    let mut cursor = after.map(Cid::to_bytes);
    let mut found = Vec::new();
    while found.len() < limit {
        let asked = limit - found.len();
        let page = logged(wish.scan(Area::Pins, cursor.as_deref(), &[], asked)).unwrap_or_default();
        found.extend(page.iter().filter_map(|(key, stored)| read_pin(key, stored)));
        if page.len() < asked {
            break;
        }
        cursor = page.last().map(|(key, _)| key.to_vec());
    }
    found
}

/// A failing disk is logged here and shows as nothing found: a machine that sees nothing lets nothing go (rule 1).
fn logged<T>(outcome: Result<T, store::StoreError>) -> Option<T> {
    outcome.map_err(|error| tracing::error!(%error, "reading the state store")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_the_ledger_are_found_in_whatever_order_they_are_asked_for() {
        use store::{Batch, Durability, MemoryStore};
        let store = MemoryStore::new();
        let mut batch = Batch::new();
        let key = |number: u32| [&[1], &number.to_be_bytes()[..]].concat();
        // With holes, and more than one page.
        let is_there = |number: u32| (number < 2000 && number.is_multiple_of(3)) || (1000..1600).contains(&number);
        for number in (0..2000).filter(|number| is_there(*number)) {
            batch.put(Area::Ledger, key(number), write_size(ByteCount(number.into())));
        }
        store.commit(batch, Durability::Buffered).expect("commits");
        let ledger = store.snapshot();
        let up = || 0..2100u32;
        let orders: [Vec<u32>; 5] = [
            up().collect(),
            up().rev().collect(),
            up().map(|number| number * 7919 % 2100).collect(),
            up().flat_map(|number| [number, number, number / 2]).collect(),
            up().step_by(5).chain(up().step_by(301)).chain(up()).collect(),
        ];
        for order in orders {
            let mut ahead = Ahead::default();
            for number in order {
                let found = ahead.get(ledger.as_ref(), &key(number)).expect("reads").map(|size| read_size(&size));
                assert_eq!(found, is_there(number).then_some(ByteCount(number.into())), "{number}");
            }
        }
    }

    #[test]
    fn sizes_of_the_ledger_read_back() {
        for size in [0, 1, 255, 256, 1 << 40, u64::MAX] {
            assert_eq!(read_size(&write_size(ByteCount(size))), ByteCount(size));
        }
        assert_eq!(write_size(ByteCount(0)), Vec::<u8>::new());
    }
}
