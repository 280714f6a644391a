//! The store on disk: fjall (a log-structured tree) behind the contract of [`crate::keys`].
//!
//! ```text
//! dir/lock      who has it open
//! dir/format    the version of this layout
//! dir/keys/     fjall: one journal for all areas, one tree for each
//! dir/creating  while the store is created for the first time
//! ```
//!
//! Memory is bounded by the options: one cache and one memtable for each area that is written. The time to open is bounded by
//! the memtables too, for what tables have is left out of fjall's journal before it is read ([`journal`]); the journal is cut at 64 MiB at the
//! latest, under a small limit ([`Quota`]) earlier.
//!
//! A full disk or a reached limit is refused before fjall is touched. Where fjall fails all the same it is opened again by the next write.

mod engine;
mod format;
mod group;
mod journal;
mod packing;
mod rest;

use crate::lock::{DirLock, lock_dir};
use crate::{Area, Batch, Durability, Op, Quota, Snapshot, Store, StoreError};
use bytes::Bytes;
use engine::{Engine, cut_journal};
use fjall::{PersistMode, Readable};
use group::Group;
use parking_lot::{Mutex, RwLock};
use rest::{Due, Rest};
use std::collections::HashSet;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use types::ByteCount;

/// Longest key that fjall takes.
const KEY_LONGEST: usize = u16::MAX as usize;
/// How long closing may take to write tables.
const CLOSE: Duration = Duration::from_secs(3);
/// A full disk takes what serves to let go while it has this much left: fjall must be able to write its tables, or it stops for good.
const RESERVE_FOR_UPKEEP: ByteCount = ByteCount(4 << 20);
/// A journal of which nothing is needed is left behind when the store is closed and it has so much: reading it takes a tenth of a second.
const JOURNAL_LEFT: u64 = 4 << 20;
/// The files are measured again after so many written bytes at the latest.
const MEASURED_EACH: u64 = 4 << 20;
/// What one written byte may take on disk before the next measurement: in the journal, and for a while in a table beside it.
const WEIGHT: u64 = 2;
/// Says nothing: what [`Store::rest`] writes to have something to write.
const RESTED: &[u8] = b"store/rested";
/// fjall is opened again only when nobody uses it; whoever wants that waits so long for readers to end, then tries at the next write.
const TURN: Duration = Duration::from_millis(50);

/// How much memory and disk a [`DiskStore`] may take for itself.
#[derive(Clone, Debug)]
pub struct DiskOptions {
    /// Blocks of tables kept in memory.
    pub cache: ByteCount,
    /// Fresh writes of one area kept in memory before they go to a table. Taken when the store is created: fjall keeps it with the area.
    pub memtable: ByteCount,
    /// The journal is cut when it has so much; fjall itself does so at 64 MiB.
    pub journal: ByteCount,
    /// Space that writes leave free on the disk: fjall needs it to write tables, and stops for good when it cannot.
    pub reserve: ByteCount,
    /// A limit that holds for this store and others together.
    pub quota: Option<Arc<Quota>>,
}

impl Default for DiskOptions {
    fn default() -> DiskOptions {
        DiskOptions {
            cache: ByteCount(16 << 20),
            memtable: ByteCount(8 << 20),
            journal: ByteCount(64 << 20),
            reserve: ByteCount(48 << 20),
            quota: None,
        }
    }
}

impl DiskOptions {
    /// Under a limit: journal and memtables at most a 64th of it, together with what else it covers.
    pub fn with_quota(quota: Arc<Quota>) -> DiskOptions {
        let default = DiskOptions::default();
        let share = ByteCount((quota.limit().get() / 64).max(1 << 20));
        DiskOptions { memtable: default.memtable.min(share), journal: default.journal.min(share), quota: Some(quota), ..default }
    }
}

/// A [`Store`] in a directory. Dropping it syncs what was only buffered and lets the directory go.
pub struct DiskStore {
    group: Group,
    /// None after fjall could not be opened again; the next call tries once more.
    engine: RwLock<Option<Arc<Engine>>>,
    dir: PathBuf,
    options: DiskOptions,
    /// Bytes written since the files were measured.
    unmeasured: AtomicU64,
    /// What the journal took when last measured.
    journal: AtomicU64,
    /// fjall takes no more writes until it is opened again.
    is_stopped: AtomicBool,
    /// Bytes written since it was opened.
    written: AtomicU64,
    rest: Mutex<Rest>,
    _lock: DirLock,
}

struct DiskSnapshot {
    snapshot: fjall::Snapshot,
    // After the snapshot, which belongs to it.
    engine: Arc<Engine>,
}

/// Stands for a snapshot while the database is closed.
struct NoSnapshot;

impl DiskStore {
    /// Opens the store in `dir`, creating it if there is none; refuses a directory that another process has open.
    pub fn open(dir: &Path, options: DiskOptions) -> Result<DiskStore, StoreError> {
        let lock = lock_dir(dir)?;
        format::prepare(dir)?;
        let engine = Engine::open(dir, &options)?;
        let store = DiskStore {
            group: Group::default(),
            engine: RwLock::new(Some(Arc::new(engine))),
            dir: dir.to_owned(),
            options,
            unmeasured: AtomicU64::default(),
            journal: AtomicU64::default(),
            is_stopped: AtomicBool::default(),
            written: AtomicU64::default(),
            rest: Mutex::default(),
            _lock: lock,
        };
        if let Some(quota) = &store.options.quota {
            quota.tell();
        }
        store.measure()?;
        store.cut_long_journal();
        Ok(store)
    }

    /// The directory it lives in.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn write(&self, batch: &Batch, mode: PersistMode) -> Result<(), StoreError> {
        self.check_room(batch)?;
        self.reopen_if_stopped();
        let mut written = self.with_engine(|engine| engine.write(batch, mode));
        if matches!(written, Err(StoreError::Poisoned)) {
            // It stopped in the background, and took nothing of this batch.
            self.is_stopped.store(true, Ordering::Relaxed);
            self.reopen_if_stopped();
            written = self.with_engine(|engine| engine.write(batch, mode));
        }
        if matches!(written, Err(StoreError::Poisoned | StoreError::Failed { .. })) {
            self.is_stopped.store(true, Ordering::Relaxed);
        }
        self.count(batch.size().get());
        written
    }

    /// Counts written bytes; now and then the files are measured and a long journal is cut.
    fn count(&self, bytes: u64) {
        self.written.fetch_add(bytes, Ordering::Relaxed);
        let each = self.options.quota.as_ref().map_or(MEASURED_EACH, |quota| (quota.limit().get() / 1024).clamp(64 << 10, MEASURED_EACH));
        if let Some(quota) = &self.options.quota {
            quota.add_state(bytes * WEIGHT);
        }
        if self.unmeasured.fetch_add(bytes, Ordering::Relaxed) + bytes < each {
            return;
        }
        if let Err(error) = self.measure() {
            tracing::warn!(%error, "measuring the store");
        }
        self.cut_long_journal();
    }

    fn measure(&self) -> Result<ByteCount, StoreError> {
        self.unmeasured.store(0, Ordering::Relaxed);
        let measured = engine::measure(&self.dir).map_err(StoreError::failed("measuring the store"))?;
        self.journal.store(measured.journal, Ordering::Relaxed);
        if let Some(quota) = &self.options.quota {
            let tables = measured.all - measured.journal;
            // A small tree is rewritten as a whole, a large one in parts.
            let rewrite = tables.min((128 << 20).max(tables / 4));
            let journal = self.options.journal.get();
            let growth = (journal + journal / 4).saturating_sub(measured.journal) + 2 * self.options.memtable.get();
            quota.set_state(measured.all, rewrite, growth);
        }
        Ok(ByteCount(measured.all))
    }

    /// Where the journal may not become as long as fjall lets it.
    fn cut_long_journal(&self) {
        let journal = self.options.journal;
        if journal >= DiskOptions::default().journal || self.journal.load(Ordering::Relaxed) < journal.get() {
            return;
        }
        if let Err(error) = self.open_again(true) {
            tracing::warn!(%error, dir = %self.dir.display(), "cutting the journal of the store");
        }
        self.measure().ok();
    }

    /// After a write failed fjall takes no more; it is opened anew, which reads what the journal has.
    fn reopen_if_stopped(&self) {
        if !self.is_stopped.load(Ordering::Relaxed) {
            return;
        }
        match self.open_again(false) {
            Ok(true) => {
                self.is_stopped.store(false, Ordering::Relaxed);
                tracing::info!(dir = %self.dir.display(), "the store takes writes again");
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, dir = %self.dir.display(), "opening the store again"),
        }
    }

    /// Closes and opens the database, if nobody reads from it; false when somebody does.
    fn open_again(&self, is_cut: bool) -> Result<bool, StoreError> {
        let Some(mut place) = self.engine.try_write_for(TURN) else { return Ok(false) };
        if let Some(engine) = place.take() {
            let engine = match Arc::try_unwrap(engine) {
                Ok(engine) => engine,
                Err(shared) => {
                    *place = Some(shared);
                    return Ok(false);
                }
            };
            if is_cut && !engine.settle()? {
                *place = Some(Arc::new(engine));
                return Ok(false);
            }
            drop(engine);
            if is_cut {
                cut_journal(&self.dir).map_err(StoreError::failed("cutting the journal of the store"))?;
            }
        }
        *place = Some(Arc::new(Engine::open(&self.dir, &self.options)?));
        Ok(true)
    }

    fn with_engine<T>(&self, work: impl FnOnce(&Engine) -> Result<T, StoreError>) -> Result<T, StoreError> {
        match &*self.engine.read() {
            Some(engine) => work(engine),
            None => Err(StoreError::Poisoned),
        }
    }

    /// Refuses what would fill the disk before fjall touches it: once a write inside fjall fails, it takes no more.
    fn check_room(&self, batch: &Batch) -> Result<(), StoreError> {
        let free = free_space(&self.dir)?;
        let reserve = if batch.keeps_more() { self.options.reserve } else { RESERVE_FOR_UPKEEP.min(self.options.reserve) };
        let needed = batch.size() + reserve;
        if free < needed {
            return Err(StoreError::DiskFull { needed, free });
        }
        let Some(quota) = &self.options.quota else { return Ok(()) };
        let (needed, free) = (ByteCount(batch.size().get() * WEIGHT), quota.free_for_state(!batch.keeps_more()));
        if free < needed { Err(StoreError::LimitReached { needed, free, limit: quota.limit() }) } else { Ok(()) }
    }
}

impl Engine {
    fn write(&self, batch: &Batch, mode: PersistMode) -> Result<(), StoreError> {
        if batch.is_empty() {
            return self.database.persist(mode).map_err(failed("syncing the store"));
        }
        let mut write = self.database.batch().durability(Some(mode));
        for op in last_of_each_key(batch) {
            let keyspace = &self.areas[op.area as usize];
            match &op.value {
                Some(value) => match packed(op.area, value) {
                    Some(packed) => write.insert(keyspace, &*op.key, packed),
                    None => write.insert(keyspace, &*op.key, &**value),
                },
                None => write.remove(keyspace, &*op.key),
            }
        }
        write.commit().map_err(failed("writing to the store"))
    }

    /// Begins to write what is only in the journal and in memory to tables.
    fn rotate(&self) -> Result<(), StoreError> {
        self.areas.iter().try_for_each(|area| area.rotate_memtable().map(|_| ()).map_err(failed("writing tables of the store")))
    }

    /// Writes one small memtable, with which fjall lets go of those that are in tables.
    fn let_go(&self) -> Result<(), StoreError> {
        let meta = &self.areas[Area::Meta as usize];
        meta.insert(RESTED, []).and_then(|()| meta.rotate_memtable()).map(|_| ()).map_err(failed("writing tables of the store"))
    }

    /// Writes what is only in the journal and in memory to tables, as far as there is time; whether that is all.
    fn write_tables(&self) -> bool {
        if let Err(error) = self.rotate() {
            tracing::debug!(%error, "writing tables while closing");
            return false;
        }
        let end = Instant::now() + CLOSE;
        while self.areas.iter().any(|area| area.sealed_memtable_count() > 0) {
            if Instant::now() >= end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        true
    }
}

impl Store for DiskStore {
    fn snapshot(&self) -> Arc<dyn Snapshot> {
        match &*self.engine.read() {
            Some(engine) => Arc::new(DiskSnapshot { snapshot: engine.database.snapshot(), engine: engine.clone() }),
            None => Arc::new(NoSnapshot),
        }
    }

    fn commit(&self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        check_keys(&batch)?;
        match durability {
            Durability::Buffered if batch.is_empty() => Ok(()),
            Durability::Buffered => self.write(&batch, PersistMode::Buffer),
            Durability::Synced => self.group.commit(batch, |together| self.write(&together, PersistMode::SyncData)),
        }
    }

    fn get(&self, area: Area, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let value = self.with_engine(|engine| engine.areas[area as usize].get(key).map_err(failed("reading from the store")))?;
        value.map(|value| unpacked(area, &value)).transpose()
    }

    fn rest(&self) {
        let due = self.rest.lock().look(self.written.load(Ordering::Relaxed));
        // Where there is little room the journal is enough: tables come beside it until it is cut.
        let tables = ByteCount(4 * self.options.memtable.get());
        let has_room = self.options.quota.as_ref().is_none_or(|quota| quota.free_for_state(false) >= tables);
        if due == Due::Nothing || !has_room || !free_space(&self.dir).is_ok_and(|free| free >= self.options.reserve) {
            return;
        }
        let rested = self.with_engine(|engine| if due == Due::Tables { engine.rotate() } else { engine.let_go() });
        if let Err(error) = rested {
            tracing::debug!(%error, dir = %self.dir.display(), "bringing the store to rest");
        }
    }

    fn disk_bytes(&self) -> Result<ByteCount, StoreError> {
        self.measure()
    }
}

impl Drop for DiskStore {
    fn drop(&mut self) {
        let Some(engine) = self.engine.get_mut().take() else { return };
        if let Err(error) = engine.database.persist(PersistMode::SyncData).map_err(failed("syncing the store")) {
            tracing::warn!(%error, dir = %self.dir.display(), "the store could not be synced while closing");
            return;
        }
        // Everything is safe in the journal without what follows, so it may fail or be cut short.
        if free_space(&self.dir).is_ok_and(|free| free >= self.options.reserve) && engine.write_tables() {
            self.leave_journal(engine);
        }
    }
}

impl DiskStore {
    /// All is in tables: the next opening need not even read what the journal once had.
    fn leave_journal(&self, engine: Arc<Engine>) {
        // Whoever still reads keeps the database open.
        let Ok(engine) = Arc::try_unwrap(engine) else { return };
        drop(engine);
        if engine::measure(&self.dir).is_ok_and(|measured| measured.journal >= JOURNAL_LEFT)
            && let Err(error) = cut_journal(&self.dir)
        {
            tracing::warn!(%error, dir = %self.dir.display(), "cutting the journal of the store while closing");
        }
    }
}

impl Snapshot for NoSnapshot {
    fn get(&self, _area: Area, _key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Err(StoreError::Poisoned)
    }

    fn scan(&self, _area: Area, _after: Option<&[u8]>, _prefix: &[u8], _limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        Err(StoreError::Poisoned)
    }

    fn count(&self, _area: Area) -> Result<u64, StoreError> {
        Err(StoreError::Poisoned)
    }
}

impl Snapshot for DiskSnapshot {
    fn get(&self, area: Area, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let value = self.snapshot.get(&self.engine.areas[area as usize], key).map_err(failed("reading from the store"))?;
        value.map(|value| unpacked(area, &value)).transpose()
    }

    fn scan(&self, area: Area, after: Option<&[u8]>, prefix: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let mut entries = Vec::with_capacity(limit.min(1024));
        let copy = &mut |key: &[u8], value: &[u8]| entries.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        self.visit(area, after, prefix, limit, copy)?;
        Ok(entries)
    }

    fn visit(
        &self,
        area: Area,
        after: Option<&[u8]>,
        prefix: &[u8],
        limit: usize,
        each: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<usize, StoreError> {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut count = 0;
        if limit == 0 {
            return Ok(count);
        }
        for entry in self.snapshot.range::<&[u8], _>(&self.engine.areas[area as usize], (from, Bound::Unbounded)) {
            let (key, value) = entry.into_inner().map_err(failed("scanning the store"))?;
            if !key.starts_with(prefix) {
                break;
            }
            match area {
                Area::DagBlocks => each(&key, &unpacked(area, &value)?),
                _ => each(&key, &value),
            }
            count += 1;
            if count == limit {
                break;
            }
        }
        Ok(count)
    }

    fn count(&self, area: Area) -> Result<u64, StoreError> {
        self.snapshot.len(&self.engine.areas[area as usize]).map(|count| count as u64).map_err(failed("counting the keys of the store"))
    }
}

fn packed(area: Area, value: &[u8]) -> Option<Vec<u8>> {
    (area == Area::DagBlocks).then(|| packing::pack(value)).flatten()
}

fn unpacked(area: Area, stored: &[u8]) -> Result<Bytes, StoreError> {
    if area != Area::DagBlocks {
        return Ok(Bytes::copy_from_slice(stored));
    }
    let damaged = || std::io::Error::new(std::io::ErrorKind::InvalidData, "a packed value is damaged");
    packing::unpack(stored).ok_or_else(|| StoreError::failed("reading from the store")(damaged()))
}

/// Refuses keys that fjall would panic on.
pub(crate) fn check_keys(batch: &Batch) -> Result<(), StoreError> {
    let bad = batch.ops().iter().map(|op| op.key.len()).find(|length| *length == 0 || *length > KEY_LONGEST);
    bad.map_or(Ok(()), |length| Err(StoreError::BadKey { length }))
}

/// fjall numbers a batch once, so two changes of one key inside it would have no order.
fn last_of_each_key(batch: &Batch) -> Vec<&Op> {
    let ops = batch.ops();
    if ops.len() < 2 || batch.is_distinct() {
        return ops.iter().collect();
    }
    let mut seen = HashSet::with_capacity(ops.len());
    let mut last: Vec<&Op> = ops.iter().rev().filter(|op| seen.insert((op.area, &op.key[..]))).collect();
    last.reverse();
    last
}

pub(crate) fn free_space(dir: &Path) -> Result<ByteCount, StoreError> {
    let stat = rustix::fs::statvfs(dir).map_err(|error| StoreError::failed("asking the disk for its free space")(error.into()))?;
    Ok(ByteCount(stat.f_bavail.saturating_mul(stat.f_frsize)))
}

fn failed(doing: &'static str) -> impl FnOnce(fjall::Error) -> StoreError {
    move |error| match error {
        fjall::Error::Poisoned => StoreError::Poisoned,
        fjall::Error::Io(error) => StoreError::failed(doing)(error),
        error => StoreError::Failed { doing, source: Arc::new(error) },
    }
}

#[cfg(test)]
mod tests;
