//! One fdatasync for all who wait, and the worker that syncs early and indexes behind.

use super::{PackError, Shared};
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Once so much waits for a sync, the worker begins one, so that writing and syncing overlap.
pub(super) const EARLY: u64 = 4 << 20;

/// What a sync has to reach.
pub(super) struct Dirty {
    pub(super) active: Arc<File>,
    /// Segments closed since the last sync.
    pub(super) sealed: Vec<Arc<File>>,
}

#[derive(Default)]
pub(super) struct SyncState {
    /// Appended bytes known to be on disk.
    pub(super) durable: u64,
    is_syncing: bool,
    /// After a failed sync nobody knows what is on disk (the system forgets what it could not write), so no later one may succeed.
    failed: Option<PackError>,
}

impl Shared {
    /// See [`PackStore::sync`](super::PackStore::sync).
    pub(super) fn sync(&self) -> Result<(), PackError> {
        let target = self.appended.load(Ordering::Acquire);
        let mut state = self.sync_state.lock();
        loop {
            if let Some(error) = &state.failed {
                return Err(error.clone());
            }
            if state.durable >= target {
                return Ok(());
            }
            if state.is_syncing {
                self.synced.wait(&mut state);
                continue;
            }
            state.is_syncing = true;
            drop(state);
            let outcome = self.sync_appended();
            state = self.sync_state.lock();
            state.is_syncing = false;
            match outcome {
                Ok(durable) => state.durable = durable,
                Err(error) => state.failed = Some(PackError::io("syncing the packs (open them again to go on)")(error)),
            }
            self.synced.notify_all();
            self.wake_worker();
        }
    }

    /// Bytes appended and not known to be on disk.
    pub(super) fn unsynced(&self) -> u64 {
        let appended = self.appended.load(Ordering::Acquire);
        appended.saturating_sub(self.sync_state.lock().durable)
    }

    pub(super) fn wake_worker(&self) {
        self.signal.lock().has_work = true;
        self.signalled.notify_all();
    }

    /// The worker's life.
    pub(super) fn work(&self) {
        let mut is_warned = false;
        while self.wait_for_work() {
            let outcome = self.sync_early().and_then(|()| self.index_synced());
            match &outcome {
                Ok(()) => {}
                // Nothing is lost: blocks stay pending, and puts report the error once too many do.
                Err(error) if !is_warned => tracing::warn!(%error, dir = %self.dir.display(), "blocks wait for their index"),
                Err(_) => {}
            }
            is_warned = outcome.is_err();
        }
    }

    fn wait_for_work(&self) -> bool {
        let mut signal = self.signal.lock();
        while !signal.has_work && !signal.stop {
            self.signalled.wait(&mut signal);
        }
        signal.has_work = false;
        !signal.stop
    }

    fn sync_early(&self) -> Result<(), PackError> {
        if self.unsynced() >= EARLY { self.sync() } else { Ok(()) }
    }

    /// Syncs every segment with fresh bytes; returns how much of what was appended is then on disk.
    fn sync_appended(&self) -> std::io::Result<u64> {
        let (appended, sealed, active) = {
            let mut dirty = self.dirty.lock();
            (self.appended.load(Ordering::Acquire), std::mem::take(&mut dirty.sealed), dirty.active.clone())
        };
        for file in sealed {
            file.sync_data()?;
        }
        active.sync_data()?;
        Ok(appended)
    }
}
