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
//! fjall's journal, which is kept at its least size of 64 MiB.

mod format;
mod group;
mod packing;

use crate::lock::{DirLock, lock_dir, sync_dir};
use crate::{Area, Batch, Durability, Snapshot, Store, StoreError};
use bytes::Bytes;
use fjall::config::{BlockSizePolicy, BloomConstructionPolicy, CompressionPolicy, FilterPolicy, FilterPolicyEntry};
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable};
use group::Group;
use std::collections::HashSet;
use std::fs::File;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use types::ByteCount;

/// fjall's least limit for its journal; replaying it bounds the time to open.
const JOURNAL: u64 = 64 << 20;
/// Longest key that fjall takes.
const KEY_LONGEST: usize = u16::MAX as usize;
/// Bytes of a data block before compression; the values are small, and most reads are lists.
const BLOCK: u32 = 8 << 10;
/// How long closing may take to write tables.
const CLOSE: Duration = Duration::from_secs(3);
/// Marks a directory in which the store is being created.
const CREATING: &str = "creating";
/// A full disk takes deletions while it has this much left: fjall must be able to write its tables, or it stops for good.
const RESERVE_FOR_DELETES: ByteCount = ByteCount(4 << 20);

/// How much memory and disk a [`DiskStore`] may take for itself.
#[derive(Clone, Debug)]
pub struct DiskOptions {
    /// Blocks of tables kept in memory.
    pub cache: ByteCount,
    /// Fresh writes of one area kept in memory before they go to a table. Taken when the store is created: fjall keeps it with the area.
    pub memtable: ByteCount,
    /// Space that writes leave free on the disk: fjall needs it to write tables, and stops for good when it cannot.
    pub reserve: ByteCount,
}

impl Default for DiskOptions {
    fn default() -> DiskOptions {
        DiskOptions { cache: ByteCount(16 << 20), memtable: ByteCount(8 << 20), reserve: ByteCount(48 << 20) }
    }
}

/// A [`Store`] in a directory. Dropping it syncs what was only buffered and lets the directory go.
pub struct DiskStore {
    group: Group,
    areas: Areas,
    database: Database,
    dir: PathBuf,
    reserve: ByteCount,
    _lock: DirLock,
}

type Areas = Arc<[Keyspace; Area::ALL.len()]>;

struct DiskSnapshot {
    snapshot: fjall::Snapshot,
    areas: Areas,
}

impl DiskStore {
    /// Opens the store in `dir`, creating it if there is none; refuses a directory that another process has open.
    pub fn open(dir: &Path, options: DiskOptions) -> Result<DiskStore, StoreError> {
        let lock = lock_dir(dir)?;
        format::prepare(dir)?;
        let keys = dir.join("keys");
        let creation = Creation::begin(dir, &keys).map_err(StoreError::failed("creating the store"))?;
        let database = Database::builder(&keys)
            .cache_size(options.cache.get())
            .max_journaling_size(JOURNAL)
            .worker_threads(2)
            .open()
            .map_err(failed("opening the store"))?;
        let mut areas = Vec::with_capacity(Area::ALL.len());
        for area in Area::ALL {
            let keyspace = database.keyspace(area.name(), || keyspace_options(area, &options));
            areas.push(keyspace.map_err(failed("opening an area of the store"))?);
        }
        let Ok(areas) = <[Keyspace; Area::ALL.len()]>::try_from(areas) else { unreachable!("one keyspace for each area") };
        creation.end(dir, &keys).map_err(StoreError::failed("creating the store"))?;
        Ok(DiskStore {
            group: Group::default(),
            areas: Arc::new(areas),
            database,
            dir: dir.to_owned(),
            reserve: options.reserve,
            _lock: lock,
        })
    }

    /// The directory it lives in.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn write(&self, batch: Batch, mode: PersistMode) -> Result<(), StoreError> {
        self.check_room(&batch)?;
        if batch.is_empty() {
            return self.database.persist(mode).map_err(failed("syncing the store"));
        }
        let mut write = self.database.batch().durability(Some(mode));
        for op in last_of_each_key(batch) {
            let keyspace = &self.areas[op.area as usize];
            match op.value {
                Some(value) => match packed(op.area, &value) {
                    Some(packed) => write.insert(keyspace, &*op.key, packed),
                    None => write.insert(keyspace, &*op.key, &*value),
                },
                None => write.remove(keyspace, &*op.key),
            }
        }
        write.commit().map_err(failed("writing to the store"))
    }

    /// Writes what is only in the journal and in memory to tables.
    fn write_tables(&self) {
        for area in self.areas.iter() {
            if let Err(error) = area.rotate_memtable() {
                tracing::debug!(%error, "writing tables while closing");
                return;
            }
        }
        let end = Instant::now() + CLOSE;
        while self.areas.iter().any(|area| area.sealed_memtable_count() > 0) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Refuses what would fill the disk before fjall touches it: once a write inside fjall fails, it takes no more.
    fn check_room(&self, batch: &Batch) -> Result<(), StoreError> {
        let free = free_space(&self.dir)?;
        let reserve = if batch.only_deletes() { RESERVE_FOR_DELETES.min(self.reserve) } else { self.reserve };
        let needed = batch.size() + reserve;
        if free < needed { Err(StoreError::DiskFull { needed, free }) } else { Ok(()) }
    }
}

impl Store for DiskStore {
    fn snapshot(&self) -> Arc<dyn Snapshot> {
        Arc::new(DiskSnapshot { snapshot: self.database.snapshot(), areas: self.areas.clone() })
    }

    fn commit(&self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        check_keys(&batch)?;
        match durability {
            Durability::Buffered if batch.is_empty() => Ok(()),
            Durability::Buffered => self.write(batch, PersistMode::Buffer),
            Durability::Synced => self.group.commit(batch, |together| self.write(together, PersistMode::SyncData)),
        }
    }

    fn get(&self, area: Area, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let value = self.areas[area as usize].get(key).map_err(failed("reading from the store"))?;
        value.map(|value| unpacked(area, &value)).transpose()
    }

    fn disk_bytes(&self) -> Result<ByteCount, StoreError> {
        allocated(&self.dir).map(ByteCount).map_err(StoreError::failed("measuring the store"))
    }
}

impl Drop for DiskStore {
    fn drop(&mut self) {
        if let Err(error) = self.database.persist(PersistMode::SyncData) {
            tracing::warn!(%error, dir = %self.dir.display(), "the store could not be synced while closing");
            return;
        }
        // The next open then finds nothing to replay. Everything is safe in the journal without it, so it may fail or be cut short.
        if free_space(&self.dir).is_ok_and(|free| free >= self.reserve) {
            self.write_tables();
        }
    }
}

impl Snapshot for DiskSnapshot {
    fn get(&self, area: Area, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let value = self.snapshot.get(&self.areas[area as usize], key).map_err(failed("reading from the store"))?;
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
        for entry in self.snapshot.range::<&[u8], _>(&self.areas[area as usize], (from, Bound::Unbounded)) {
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
        self.snapshot.len(&self.areas[area as usize]).map(|count| count as u64).map_err(failed("counting the keys of the store"))
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

fn keyspace_options(area: Area, options: &DiskOptions) -> KeyspaceCreateOptions {
    // Ten bits a key at every level: a look-up of an absent key (each put of a block) touches the disk in one case of a hundred.
    let filter = FilterPolicy::all(FilterPolicyEntry::Bloom(BloomConstructionPolicy::BitsPerKey(10.0)));
    let keyspace = KeyspaceCreateOptions::default().max_memtable_size(options.memtable.get()).filter_policy(filter);
    match area {
        // Hashes do not compress.
        Area::BlockIndex => keyspace.data_block_compression_policy(CompressionPolicy::disabled()),
        // On all levels: keys that are written in order are never written anew on their way down.
        _ => keyspace
            .data_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4))
            .data_block_size_policy(BlockSizePolicy::all(BLOCK)),
    }
}

/// The first opening, which fjall alone does not carry over a power cut: it stumbles over its own half-made files, and it never syncs the
/// directory of its trees, so that whole areas would be gone (seen in `compat/powercut`).
struct Creation {
    is_first: bool,
}

impl Creation {
    /// Clears what a creation cut short has left (nothing was acknowledged before its end) and marks that one is going on.
    fn begin(dir: &Path, keys: &Path) -> std::io::Result<Creation> {
        let mark = dir.join(CREATING);
        let is_first = mark.exists() || !keys.exists();
        if is_first {
            File::create(&mark)?.sync_all()?;
            sync_dir(dir)?;
            if keys.exists() {
                std::fs::remove_dir_all(keys)?;
            }
            std::fs::create_dir(keys)?;
            sync_dir(dir)?;
        }
        Ok(Creation { is_first })
    }

    /// Makes the areas survive a power cut, then removes the mark.
    fn end(self, dir: &Path, keys: &Path) -> std::io::Result<()> {
        sync_dir(&keys.join("keyspaces"))?;
        sync_dir(keys)?;
        if self.is_first {
            std::fs::remove_file(dir.join(CREATING))?;
            sync_dir(dir)?;
        }
        Ok(())
    }
}

/// fjall numbers a batch once, so two changes of one key inside it would have no order.
fn last_of_each_key(batch: Batch) -> Vec<crate::Op> {
    let is_distinct = batch.is_distinct();
    let mut ops = batch.into_ops();
    if ops.len() < 2 || is_distinct {
        return ops;
    }
    let mut seen = HashSet::with_capacity(ops.len());
    let mut last = vec![false; ops.len()];
    for (index, op) in ops.iter().enumerate().rev() {
        last[index] = seen.insert((op.area, &op.key[..]));
    }
    drop(seen);
    let mut keep = last.into_iter();
    ops.retain(|_| keep.next().unwrap_or(true));
    ops
}

pub(crate) fn free_space(dir: &Path) -> Result<ByteCount, StoreError> {
    let stat = rustix::fs::statvfs(dir).map_err(|error| StoreError::failed("asking the disk for its free space")(error.into()))?;
    Ok(ByteCount(stat.f_bavail.saturating_mul(stat.f_frsize)))
}

/// Bytes that the disk gave to the files below `dir`; holes (fjall's journal is mostly one) do not count.
fn allocated(dir: &Path) -> std::io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut total = 0;
    for entry in std::fs::read_dir(dir)? {
        // fjall removes files while we look.
        let Ok(entry) = entry else { continue };
        let Ok(metadata) = entry.metadata() else { continue };
        total += metadata.blocks() * 512;
        if metadata.is_dir() {
            total += allocated(&entry.path()).unwrap_or(0);
        }
    }
    Ok(total)
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
