//! What the daemon keeps, as it was last listed: sorted by CID on disk, since the daemon lists in no order.
//!
//! Key: generation u64 (big-endian), CID. Value: 0 recursive or 1 direct, then the name. A listing is written under the next generation and
//! counts once it is whole; the one before it is then deleted. Memory does not grow with the number of pins.

use crate::node::KuboError;
use crate::rpc::{Call, Rpc};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::{Area, Batch, Durability, Store, StoreError};
use types::{Cid, Depth, UnixMillis};

/// Rows written, read or deleted at once.
const PAGE: usize = 5000;
/// Names longer than this are cut.
const NAME_MOST: usize = 1024;
/// The daemon says nothing for so long while it lists: it is given up.
const SILENCE: Duration = Duration::from_secs(120);

/// Pins of this name keep the blocks of adds in flight; they are no pins of anybody.
pub(crate) const ADDING: &str = "pinfold: add in progress";

pub(crate) struct Listing {
    store: Arc<dyn Store>,
    state: Mutex<State>,
    /// Whoever wants a fresh one while it is made waits for it.
    refreshing: tokio::sync::Mutex<()>,
}

#[derive(Clone, Copy, Default)]
struct State {
    generation: u64,
    /// When the current listing was begun.
    begun: Option<(Instant, UnixMillis)>,
}

/// One pin of the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) cid: Cid,
    pub(crate) depth: Depth,
    pub(crate) name: String,
}

impl Listing {
    pub(crate) fn new(store: Arc<dyn Store>) -> Listing {
        Listing { store, state: Mutex::default(), refreshing: tokio::sync::Mutex::default() }
    }

    /// Lists anew when the last listing is older than `age`.
    pub(crate) async fn refresh(&self, rpc: &Rpc, age: Duration, wall: UnixMillis) -> Result<(), KuboError> {
        let _turn = self.refreshing.lock().await;
        let state = *self.state.lock();
        if state.begun.is_some_and(|(begun, _)| begun.elapsed() < age) {
            return Ok(());
        }
        let begun = Instant::now();
        let next = state.generation + 1;
        // What an earlier process, or a listing that broke off, left under this number.
        self.clear(next).await?;
        for (kind, depth) in [("direct", Depth::DIRECT), ("recursive", Depth::Recursive)] {
            let mut lines = rpc.lines(Call::new("pin/ls").with("stream", true).with("type", kind).with("names", true), SILENCE).await?;
            let mut batch = Batch::new();
            while let Some(line) = lines.next().await? {
                let pin = wire::kubo::listed_pin(&line).map_err(crate::rpc::RpcError::from)?;
                if pin.name == ADDING {
                    continue;
                }
                let row = Row { cid: pin.cid, depth, name: pin.name };
                batch.put(Area::DaemonPins, key(next, &row.cid), value(&row));
                if batch.len() >= PAGE {
                    self.write(std::mem::take(&mut batch)).await?;
                }
            }
            lines.finish(rpc);
            self.write(batch).await?;
        }
        *self.state.lock() = State { generation: next, begun: Some((begun, wall)) };
        self.clear(state.generation).await
    }

    /// When the listing was begun, by the wall clock.
    pub(crate) fn begun(&self) -> UnixMillis {
        self.state.lock().begun.map_or(UnixMillis(0), |(_, wall)| wall)
    }

    /// Rows behind `after`, in the order of the CIDs' bytes. Blocks its thread.
    pub(crate) fn page(&self, after: Option<&Cid>, limit: usize) -> Result<Vec<Row>, StoreError> {
        let generation = self.state.lock().generation;
        let after = after.map(|cid| key(generation, cid));
        let rows = self.store.snapshot().scan(Area::DaemonPins, after.as_deref(), &generation.to_be_bytes(), limit)?;
        Ok(rows.iter().filter_map(|(key, value)| row(key, value)).collect())
    }

    /// One row. Blocks its thread.
    pub(crate) fn get(&self, cid: &Cid) -> Result<Option<Row>, StoreError> {
        let key = key(self.state.lock().generation, cid);
        Ok(self.store.get(Area::DaemonPins, &key)?.and_then(|value| row(&key, &value)))
    }

    /// The pin is known to have gone. Blocks its thread.
    pub(crate) fn forget(&self, cid: &Cid) -> Result<(), StoreError> {
        let generation = self.state.lock().generation;
        let mut batch = Batch::new();
        // A listing under way may have seen it too.
        batch.delete(Area::DaemonPins, key(generation, cid)).delete(Area::DaemonPins, key(generation + 1, cid));
        self.store.commit(batch, Durability::Buffered)
    }

    async fn write(&self, batch: Batch) -> Result<(), KuboError> {
        let store = self.store.clone();
        Ok(on_disk(move || store.commit(batch, Durability::Buffered)).await?)
    }

    async fn clear(&self, generation: u64) -> Result<(), KuboError> {
        let store = self.store.clone();
        let cleared = on_disk(move || -> Result<(), StoreError> {
            loop {
                let rows = store.snapshot().scan(Area::DaemonPins, None, &generation.to_be_bytes(), PAGE)?;
                let mut batch = Batch::new();
                for (key, _) in &rows {
                    batch.delete(Area::DaemonPins, key);
                }
                store.commit(batch, Durability::Buffered)?;
                if rows.len() < PAGE {
                    return Ok(());
                }
            }
        });
        Ok(cleared.await?)
    }
}

/// Runs store work on a blocking thread.
pub(crate) async fn on_disk<T: Send + 'static, E: From<StoreError> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only when the runtime ends: nobody reads the answer.
            Err(_) => std::future::pending().await,
        },
    }
}

fn key(generation: u64, cid: &Cid) -> Vec<u8> {
    [&generation.to_be_bytes()[..], &cid.to_bytes()].concat()
}

fn value(row: &Row) -> Vec<u8> {
    let mut end = row.name.len().min(NAME_MOST);
    while !row.name.is_char_boundary(end) {
        end -= 1;
    }
    [&[u8::from(row.depth == Depth::DIRECT)], &row.name.as_bytes()[..end]].concat()
}

fn row(key: &[u8], value: &[u8]) -> Option<Row> {
    let (kind, name) = value.split_first()?;
    let depth = if *kind == 1 { Depth::DIRECT } else { Depth::Recursive };
    Some(Row { cid: Cid::try_from(key.get(8..)?).ok()?, depth, name: String::from_utf8_lossy(name).into_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipfs::conformance::sample::leaf;

    #[test]
    fn rows_read_back_with_names_cut_at_a_letter() {
        for (name, depth) in [("", Depth::Recursive), ("site", Depth::DIRECT), (&"ü".repeat(600)[..], Depth::Recursive)] {
            let written = Row { cid: leaf(1).cid, depth, name: name.to_owned() };
            let read = row(&key(7, &written.cid), &value(&written)).unwrap();
            assert_eq!((read.cid, read.depth), (written.cid, depth));
            assert!(name.starts_with(&read.name) && read.name.len() >= name.len().min(NAME_MOST - 1));
        }
    }
}
