//! Blocks on this disk: append-only segments, and an index in [`Area::BlockIndex`](crate::Area) that says where each block lies.
//!
//! ```text
//!  put ──► append to the active segment ──► pending (memory)
//!  sync ─► one fdatasync for everybody who waits ──► the worker moves pending into the index (buffered, atomic with the tallies)
//!  get ──► pending or index ──► one pread, checksum
//!  delete ► index only; the bytes stay until `compact` copies what lives out of a segment and removes it
//! ```
//!
//! What makes it safe:
//! - The index never knows more than the segments durably hold, since a block goes there only after its fdatasync. So a crash
//!   leaves the index behind, never ahead; opening reads the segments from where the index stopped (`recovery`).
//! - Each segment's tally (live blocks and bytes, how far it is indexed) changes in the same batch as the entries, so the numbers
//!   are exact after any crash.
//! - A segment is removed only after the index with the new places of its blocks is synced; a mark in that same commit lets the next
//!   opening finish the removal.
//! - Records carry a marker and a checksum salted by their segment, so bytes of a block never pass for a record.
//!
//! A crash may bring deleted blocks back (they are garbage to collect again), never lose one that `sync` covered.
//!
//! Reading order: [`record`] (bytes), `segment` (files), `index` (keys), then `put`, `sync`, `read`, `compact`, `scrub`, `recovery`.

mod compact;
mod error;
mod files;
mod index;
mod living;
mod lookup;
mod put;
mod read;
mod record;
mod recovery;
mod scrub;
mod segment;
mod sync;

#[cfg(test)]
mod tests;

pub use self::error::{PackError, PutError};
pub use self::recovery::Recovered;
pub use self::scrub::{BadBlock, Scrubbed};

use self::files::Files;
use self::index::{Location, Tally};
use self::put::Writer;
use self::record::Salt;
use self::sync::{Dirty, SyncState};
use crate::lock::{DirLock, create_dir_durably, lock_dir};
use crate::{Area, Quota, Store};
use bytes::Bytes;
use parking_lot::{Condvar, Mutex, RwLock};
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;
use types::ByteCount;

/// The largest block taken: far above what bitswap carries (2 MiB), small enough to be held in memory by every reader at once.
pub const BLOCK_LARGEST: usize = 32 << 20;
/// The longest multihash taken.
pub const MULTIHASH_LONGEST: usize = 255;
/// The largest segment: places in it are 32-bit.
const SEGMENT_LARGEST: u64 = 1 << 30;
/// The smallest segment: below, files would be mostly bookkeeping.
const SEGMENT_SMALLEST: u64 = 64 << 10;

/// How large a [`PackStore`] may become.
#[derive(Clone, Debug)]
pub struct PackOptions {
    /// Covers segments, index (with whatever else lives in its store) and the room that upkeep needs; a put that would pass it is refused.
    pub quota: Arc<Quota>,
    /// Size at which a segment is closed and the next begun.
    pub segment: ByteCount,
    /// Space that puts leave free on the disk, whatever the limit: more than the index leaves free, so that it can follow, and enough to
    /// compact a segment.
    pub reserve: ByteCount,
}

impl PackOptions {
    /// With a limit of their own.
    pub fn with_limit(limit: ByteCount) -> PackOptions {
        PackOptions::with_quota(Quota::new(limit, ByteCount::ZERO))
    }

    /// Segments of at most 256 MiB, and at most a 64th of the limit, so that the room kept for compaction stays small.
    pub fn with_quota(quota: Arc<Quota>) -> PackOptions {
        let segment = (quota.limit().get() / 64).clamp(SEGMENT_SMALLEST, 256 << 20);
        PackOptions { quota, segment: ByteCount(segment), reserve: ByteCount((64 << 20) + segment) }
    }
}

/// What a put did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PutOutcome {
    /// Blocks appended.
    pub written: usize,
    /// Blocks that were there already (or came twice in the call).
    pub already: usize,
}

/// What the store holds; exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PackStats {
    /// How many blocks.
    pub blocks: u64,
    /// Bytes of their data.
    pub bytes_live: ByteCount,
    /// Bytes of everything under the limit: segment files with their dead bytes, index, other files.
    pub bytes_disk: ByteCount,
    /// Of these, the index (with whatever else lives in its store).
    pub bytes_index: ByteCount,
    /// What puts may still add before they are refused; a compaction may win more.
    pub free: ByteCount,
    /// The limit it was opened with.
    pub limit: ByteCount,
    /// How many segment files.
    pub segments: u64,
}

/// Blocks by multihash in one directory. Thread-safe; every call blocks until it is done. Dropping it syncs and indexes everything.
pub struct PackStore {
    shared: Arc<Shared>,
    worker: Option<JoinHandle<()>>,
    recovered: Recovered,
    _lock: DirLock,
}

/// What callers and the worker share. Locks are taken in the order of the fields.
struct Shared {
    dir: PathBuf,
    index: Arc<dyn Store>,
    options: PackOptions,
    /// Held by the compaction that runs.
    compacting: Mutex<()>,
    /// Held while index and tallies change together.
    indexing: Mutex<Indexing>,
    /// Puts hold it for reading from their look-up to their append, so that no block moves from pending to the index unseen.
    gate: RwLock<()>,
    writer: Mutex<Writer>,
    pending: RwLock<Pending>,
    table: RwLock<Table>,
    dirty: Mutex<Dirty>,
    files: Files,
    /// Bytes appended since opening.
    appended: AtomicU64,
    sync_state: Mutex<SyncState>,
    synced: Condvar,
    signal: Mutex<Signal>,
    signalled: Condvar,
}

#[derive(Default)]
struct Indexing {
    /// Bytes and blocks indexed since the index was last synced: what a power cut would make the next opening read again.
    bytes: u64,
    blocks: u64,
    /// Blocks indexed since the index was last measured.
    unmeasured: u64,
    /// What left the index since a compaction began.
    deleted: Option<living::Deleted>,
}

/// Blocks that are in a segment and not yet in the index.
#[derive(Default)]
struct Pending {
    blocks: BTreeMap<Bytes, Location>,
    data: u64,
    /// Every appended record in order, with the count of appended bytes at its end.
    queue: VecDeque<(Bytes, Location, u64)>,
}

#[derive(Default)]
struct Table {
    segments: BTreeMap<u32, Entry>,
    /// Bytes of all their files.
    length: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    salt: Salt,
    /// Bytes in the file.
    length: u64,
    tally: Tally,
    /// A live record in it could not be read: it is not compacted until that block is deleted.
    is_damaged: bool,
}

#[derive(Default)]
struct Signal {
    has_work: bool,
    stop: bool,
}

impl PackStore {
    /// Opens the packs in `dir` (a directory of their own), creating them if there are none, and reads into `index` what a crash
    /// kept from it.
    pub fn open(dir: &Path, index: Arc<dyn Store>, options: PackOptions) -> Result<PackStore, PackError> {
        let lock = lock_dir(dir)?;
        create_dir_durably(dir).map_err(PackError::io("creating the directory of the packs"))?;
        let segment = options.segment.get().clamp(SEGMENT_SMALLEST, SEGMENT_LARGEST);
        let options = PackOptions { segment: ByteCount(segment), ..options };
        let (shared, recovered) = recovery::open(dir, index, options)?;
        let shared = Arc::new(shared);
        let worker = std::thread::Builder::new()
            .name("packs".to_owned())
            .spawn({
                let shared = shared.clone();
                move || shared.work()
            })
            .map_err(PackError::io("starting the worker of the packs"))?;
        Ok(PackStore { shared, worker: Some(worker), recovered, _lock: lock })
    }

    /// What opening had to repair.
    pub fn recovered(&self) -> Recovered {
        self.recovered
    }

    /// Appends those of `blocks` (multihash, data) that are not there yet; durable after the next [`sync`](PackStore::sync). When there is
    /// no room for all new blocks, none is written; only when the disk itself fails midway, some may be.
    ///
    /// That the data hashes to its name is the caller's business.
    pub fn put(&self, blocks: &[(&[u8], &[u8])]) -> Result<PutOutcome, PutError> {
        self.shared.put(blocks)
    }

    /// Returns when every block put before the call is durable; concurrent callers share one fdatasync.
    pub fn sync(&self) -> Result<(), PackError> {
        self.shared.sync()
    }

    /// The data of a block.
    pub fn get(&self, multihash: &[u8]) -> Result<Option<Bytes>, PackError> {
        self.shared.get(multihash)
    }

    /// The length of a block's data.
    pub fn size(&self, multihash: &[u8]) -> Result<Option<u64>, PackError> {
        Ok(self.shared.locate(multihash)?.map(|location| u64::from(location.length)))
    }

    /// For each multihash, whether the block is there.
    pub fn has_many(&self, multihashes: &[&[u8]]) -> Result<Vec<bool>, PackError> {
        multihashes.iter().map(|multihash| Ok(self.shared.locate(multihash)?.is_some())).collect()
    }

    /// Forgets blocks and returns how many there were; their space comes back by [`compact`](PackStore::compact). A crash may bring
    /// back what was deleted shortly before.
    pub fn delete(&self, multihashes: &[&[u8]]) -> Result<u64, PackError> {
        self.shared.delete(multihashes)
    }

    /// Moves what lives out of segments that are more than a quarter dead and removes them, least alive first, until about `budget` bytes
    /// were rewritten (one segment at least); returns the bytes won. Zero: nothing worth the work is left. Reads and puts go on.
    pub fn compact(&self, budget: ByteCount) -> Result<ByteCount, PackError> {
        self.shared.compact(budget.get()).map(ByteCount)
    }

    /// At most `limit` blocks with their sizes in byte order of their multihashes, strictly behind `after`.
    pub fn blocks(&self, after: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, u64)>, PackError> {
        self.shared.blocks(after, limit)
    }

    /// What the store holds and may still take.
    pub fn stats(&self) -> Result<PackStats, PackError> {
        self.shared.measure_index()?;
        Ok(self.shared.stats())
    }

    /// Takes those of `multihashes` out of service that still cannot be read as they were written; they are then absent, and may be put
    /// again. Which they were.
    pub fn quarantine(&self, multihashes: &[&[u8]]) -> Result<Vec<Bytes>, PackError> {
        self.shared.quarantine(multihashes)
    }

    /// Reads about `budget` bytes of blocks behind `cursor` and checks them.
    pub fn scrub(&self, cursor: Option<&[u8]>, budget: ByteCount) -> Result<Scrubbed, PackError> {
        self.shared.scrub(cursor, budget.get())
    }
}

impl Drop for PackStore {
    fn drop(&mut self) {
        self.shared.signal.lock().stop = true;
        self.shared.signalled.notify_all();
        if let Some(worker) = self.worker.take() {
            // A worker that panicked has said so already.
            let _ = worker.join();
        }
        if let Err(error) = self.shared.settle() {
            tracing::warn!(%error, dir = %self.shared.dir.display(), "the packs could not be settled while closing; the next opening reads what is missing");
        }
    }
}

impl Shared {
    /// Brings everything appended to the disk and into the index.
    fn settle(&self) -> Result<(), PackError> {
        self.sync()?;
        self.index_synced()?;
        self.checkpoint()
    }

    fn stats(&self) -> PackStats {
        let pending = self.pending.read();
        let table = self.table.read();
        let quota = &self.options.quota;
        let (mut blocks, mut data) = (pending.blocks.len() as u64, pending.data);
        for entry in table.segments.values() {
            blocks += entry.tally.blocks;
            data += entry.tally.data;
        }
        PackStats {
            blocks,
            bytes_live: ByteCount(data),
            bytes_disk: quota.used(),
            bytes_index: quota.state(),
            free: quota.free_for_blocks(self.options.segment),
            limit: quota.limit(),
            segments: table.segments.len() as u64,
        }
    }

    fn measure_index(&self) -> Result<(), PackError> {
        measure_index(self.index.as_ref(), &self.options)
    }

    /// Tells the quota what the segments take.
    fn count_segments(&self, table: &Table) {
        self.options.quota.set_segments(table.bytes_disk());
    }

    fn locate(&self, multihash: &[u8]) -> Result<Option<Location>, PackError> {
        if let Some(location) = self.pending.read().blocks.get(multihash) {
            return Ok(Some(*location));
        }
        self.locate_indexed(multihash)
    }

    fn locate_indexed(&self, multihash: &[u8]) -> Result<Option<Location>, PackError> {
        if multihash.is_empty() {
            return Ok(None);
        }
        let value = self.index.get(Area::BlockIndex, multihash)?;
        value.map(|value| lookup::place(multihash, &value)).transpose()
    }
}

/// A store that does not tell the quota itself (one in memory) is asked.
fn measure_index(index: &dyn Store, options: &PackOptions) -> Result<(), PackError> {
    let bytes = index.disk_bytes()?.get();
    if !options.quota.is_told() {
        options.quota.set_state(bytes, bytes / 4, 0);
    }
    Ok(())
}

impl Table {
    /// What the files take: the system gives whole pages.
    fn bytes_disk(&self) -> u64 {
        const PAGE: u64 = 4096;
        self.length + self.segments.len() as u64 * PAGE
    }

    fn add(&mut self, segment: u32, entry: Entry) {
        self.length += entry.length;
        self.segments.insert(segment, entry);
    }

    fn remove(&mut self, segment: u32) {
        self.length -= self.segments.remove(&segment).map_or(0, |entry| entry.length);
    }

    fn grow(&mut self, segment: u32, bytes: u64) {
        if let Some(entry) = self.segments.get_mut(&segment) {
            entry.length += bytes;
            self.length += bytes;
        }
    }

    fn shrink(&mut self, segment: u32, bytes: u64) {
        if let Some(entry) = self.segments.get_mut(&segment) {
            entry.length -= bytes;
            self.length -= bytes;
        }
    }
}
