//! One peer alone: its store is the shared state, in one order.
//!
//! Submits that wait while a commit is under way go into the next one together. `Area::Elements` keeps each key's version.

use crate::contract::claim;
use crate::hints::HintSender;
use crate::queue::{Submit, SubmitQueue, stopped};
use crate::{Change, Consensus, Hints, Kind, OpenError, Receipt, SubmitError, Version, ViewState, Write};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use store::{Area, Batch, Durability, Snapshot, Store, StoreError};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use types::Cid;

/// Number of the last commit, in `Area::Meta`.
const LAST_VERSION: &[u8] = b"single/version";

/// Submits in one commit; bounds its memory.
const GROUP_MAX: usize = 1024;

/// A consensus of one.
pub struct Single {
    store: Arc<dyn Store>,
    queue: SubmitQueue,
    hints: HintSender,
    stopping: watch::Sender<bool>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Single {
    /// Goes on with what the store holds. Needs a tokio runtime.
    pub fn open(store: Arc<dyn Store>) -> Result<Single, OpenError> {
        claim(&*store, "single")?;
        let version = match store.get(Area::Meta, LAST_VERSION)? {
            Some(bytes) => number(&bytes).ok_or_else(|| OpenError::Damaged("the number of the last commit".to_owned()))?,
            None => 0,
        };
        let (queue, submits) = SubmitQueue::new();
        let (stopping, stop) = watch::channel(false);
        let hints = HintSender::new();
        let committer = Committer { store: store.clone(), hints: hints.clone(), version };
        let task = tokio::spawn(committer.run(submits, stop));
        Ok(Single { store, queue, hints, stopping, task: Mutex::new(Some(task)) })
    }

    /// The version of a key, for `expect`.
    pub fn version(&self, key: &[u8]) -> Result<Version, StoreError> {
        Ok(Version(self.store.get(Area::Elements, key)?.and_then(|bytes| number(&bytes)).unwrap_or(0)))
    }
}

#[async_trait]
impl Consensus for Single {
    async fn submit(&self, writes: Vec<Write>) -> Result<Receipt, SubmitError> {
        self.queue.submit(writes).await
    }

    fn hints(&self) -> Hints {
        self.hints.receiver()
    }

    fn hinted(&self) -> u64 {
        self.hints.announced()
    }

    fn view(&self) -> Arc<dyn Snapshot> {
        self.store.snapshot()
    }

    fn state(&self) -> ViewState {
        ViewState::Current
    }

    fn heads(&self) -> Vec<Cid> {
        Vec::new()
    }

    /// Only of nothing: nobody else writes here.
    fn has_merged(&self, heads: &[Cid]) -> bool {
        heads.is_empty()
    }

    fn kind(&self) -> Kind {
        Kind::Linearizable
    }

    async fn stop(&self) {
        let _ = self.stopping.send(true);
        let task = self.task.lock().take();
        if let Some(task) = task {
            let _ = task.await;
        }
    }
}

/// Owns the writing side of the store.
struct Committer {
    store: Arc<dyn Store>,
    hints: HintSender,
    version: u64,
}

impl Committer {
    async fn run(mut self, mut submits: mpsc::Receiver<Submit>, mut stop: watch::Receiver<bool>) {
        let mut group = Vec::new();
        loop {
            let taken = tokio::select! {
                biased;
                taken = submits.recv_many(&mut group, GROUP_MAX) => taken,
                () = stopped(&mut stop) => {
                    submits.close();
                    continue;
                }
            };
            if taken == 0 {
                return;
            }
            let submits = std::mem::take(&mut group);
            let committed = tokio::task::spawn_blocking(move || {
                self.commit(submits);
                self
            });
            match committed.await {
                Ok(committer) => self = committer,
                Err(error) => return tracing::error!(%error, "the committer of the shared state ended"),
            }
        }
    }

    fn commit(&mut self, submits: Vec<Submit>) {
        let mut group = Group { view: self.store.snapshot(), written: BTreeMap::new(), changes: Vec::new(), version: self.version };
        let answers: Vec<_> = submits.into_iter().map(|submit| (group.take(submit.writes), submit.answer)).collect();
        let Group { written, changes, version, .. } = group;
        if !changes.is_empty() {
            self.hints.announce();
        }
        let committed = self.write(written, version);
        match &committed {
            Ok(()) => {
                self.version = version;
                self.hints.changes(changes);
            }
            // Nobody waits for hints of what did not happen.
            Err(_) => self.hints.lagged(),
        }
        for (result, answer) in answers {
            let result = match &committed {
                Ok(()) => result,
                Err(error) => result.and(Err(SubmitError::Store(error.clone()))),
            };
            let _ = answer.send(result);
        }
    }

    fn write(&self, written: BTreeMap<Vec<u8>, Entry>, version: u64) -> Result<(), StoreError> {
        if version == self.version {
            return Ok(());
        }
        let mut batch = Batch::new();
        for (key, entry) in written {
            match entry.value {
                Some(value) => {
                    batch.put(Area::Elements, &key, entry.version.0.to_be_bytes());
                    batch.put_bytes(Area::Pins, Bytes::from(key), value);
                }
                None => {
                    batch.delete(Area::Elements, &key);
                    batch.delete(Area::Pins, &key);
                }
            }
        }
        batch.put(Area::Meta, LAST_VERSION, version.to_be_bytes());
        self.store.commit(batch, Durability::Synced)
    }
}

/// Writes of one commit, over the store as it was before.
struct Group {
    view: Arc<dyn Snapshot>,
    written: BTreeMap<Vec<u8>, Entry>,
    changes: Vec<Change>,
    version: u64,
}

#[derive(Clone)]
struct Entry {
    value: Option<Bytes>,
    version: Version,
}

impl Group {
    fn take(&mut self, writes: Vec<Write>) -> Result<Receipt, SubmitError> {
        let mut entries = BTreeMap::new();
        for write in &writes {
            let entry = self.entry(&write.key).map_err(SubmitError::Store)?;
            if let Some(expected) = write.expect
                && expected != entry.version
            {
                return Err(SubmitError::Conflict { found: entry.version, expected });
            }
            entries.insert(write.key.clone(), entry);
        }
        self.version += 1;
        let version = Version(self.version);
        for Write { key, value, .. } in writes {
            let before = entries.get_mut(&key).map(|entry| std::mem::replace(&mut entry.value, value.clone())).unwrap_or_default();
            if before != value {
                self.changes.push(Change { key: key.clone(), before, after: value.clone() });
            }
            let version = if value.is_some() { version } else { Version(0) };
            self.written.insert(key, Entry { value, version });
        }
        Ok(Receipt { version })
    }

    fn entry(&self, key: &[u8]) -> Result<Entry, StoreError> {
        if let Some(entry) = self.written.get(key) {
            return Ok(entry.clone());
        }
        let version = self.view.get(Area::Elements, key)?.and_then(|bytes| number(&bytes)).unwrap_or(0);
        Ok(Entry { value: self.view.get(Area::Pins, key)?, version: Version(version) })
    }
}

fn number(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::key;
    use store::MemoryStore;

    #[tokio::test]
    async fn a_write_with_the_wrong_version_changes_nothing() {
        let single = Single::open(Arc::new(MemoryStore::new())).expect("opens");
        let receipt = single.submit(vec![Write::put(key(1), "a")]).await.expect("written");
        assert_eq!(single.version(&key(1)).expect("reads"), receipt.version);
        let stale = Write { expect: Some(Version(0)), ..Write::put(key(1), "b") };
        let refused = single.submit(vec![Write::put(key(2), "x"), stale]).await;
        assert!(matches!(refused, Err(SubmitError::Conflict { found, expected: Version(0) }) if found == receipt.version));
        assert_eq!(single.view().get(Area::Pins, &key(2)).expect("reads"), None);
        let fresh = Write { expect: Some(receipt.version), ..Write::put(key(1), "b") };
        single.submit(vec![fresh]).await.expect("written");
        single.submit(vec![Write { expect: Some(Version(0)), ..Write::put(key(2), "x") }]).await.expect("absent is version 0");
        single.stop().await;
        assert!(matches!(single.submit(vec![Write::put(key(1), "c")]).await, Err(SubmitError::Stopped)));
    }

    #[tokio::test]
    async fn a_store_of_another_engine_is_refused() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        claim(&*store, "crdt").expect("an empty store");
        assert!(matches!(Single::open(store), Err(OpenError::OtherEngine { own: "single", .. })));
    }
}
