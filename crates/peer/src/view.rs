//! What the machine reads of the disk: the wish out of the consensus' view, the ledger out of the store.

use cluster::SharedView;
use consensus::Consensus;
use std::cell::OnceCell;
use std::sync::Arc;
use store::{Area, Snapshot, Store};
use types::{ByteCount, Cid, Pin};

/// One moment of the disk; the snapshots are taken when first needed.
pub struct View<'a> {
    consensus: &'a dyn Consensus,
    store: &'a dyn Store,
    wish: OnceCell<Arc<dyn Snapshot>>,
    ledger: OnceCell<Arc<dyn Snapshot>>,
}

impl<'a> View<'a> {
    /// Over these two.
    pub fn new(consensus: &'a dyn Consensus, store: &'a dyn Store) -> View<'a> {
        View { consensus, store, wish: OnceCell::new(), ledger: OnceCell::new() }
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
        logged(self.ledger().get(Area::Ledger, &cid.to_bytes())).flatten().map(|size| read_size(&size))
    }

    fn ledger_count(&self) -> u64 {
        logged(self.ledger().count(Area::Ledger)).unwrap_or(0)
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
    fn sizes_of_the_ledger_read_back() {
        for size in [0, 1, 255, 256, 1 << 40, u64::MAX] {
            assert_eq!(read_size(&write_size(ByteCount(size))), ByteCount(size));
        }
        assert_eq!(write_size(ByteCount(0)), Vec::<u8>::new());
    }
}
