//! fjall opened: the database with one keyspace for each area, and its files.
//!
//! fjall begins a new journal only when one has 64 MiB, which is more than a small peer may use in all, and takes no more writes after one
//! of them failed. Closing and opening it again mends both: once every memtable is in a table, the journal holds nothing that is needed and
//! is left behind ([`Engine::settle`], [`cut_journal`]); what a failed write left is read again from the journal as after a crash.

use super::{DiskOptions, failed, journal};
use crate::lock::sync_dir;
use crate::{Area, StoreError};
use fjall::config::{BlockSizePolicy, BloomConstructionPolicy, CompressionPolicy, FilterPolicy, FilterPolicyEntry, PartitioningPolicy};
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions};
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// fjall's least limit for its journal.
const JOURNAL: u64 = 64 << 20;
/// Bytes of a data block before compression; the values are small, and most reads are lists.
const BLOCK: u32 = 8 << 10;
/// Marks a directory in which the store is being created.
pub(super) const CREATING: &str = "creating";

/// An open database. Areas are dropped before it.
pub(super) struct Engine {
    pub(super) areas: [Keyspace; Area::ALL.len()],
    pub(super) database: Database,
}

impl Engine {
    pub(super) fn open(dir: &Path, options: &DiskOptions) -> Result<Engine, StoreError> {
        let keys = dir.join("keys");
        let creation = Creation::begin(dir, &keys).map_err(StoreError::failed("creating the store"))?;
        journal::shorten(&keys);
        let database = Database::builder(&keys)
            .cache_size(options.cache.get())
            .max_journaling_size(JOURNAL)
            // Of several, fjall 3.1 keeps one free for flushes, and that one spins for as long as the others compact (`worker_tick`
            // sends the message back to itself): a sixth of the CPU of a large import. Four full memtables may wait meanwhile.
            .worker_threads(1)
            .open()
            .map_err(failed("opening the store"))?;
        let mut areas = Vec::with_capacity(Area::ALL.len());
        for area in Area::ALL {
            let keyspace = database.keyspace(area.name(), || keyspace_options(area, options));
            areas.push(keyspace.map_err(failed("opening an area of the store"))?);
        }
        let Ok(areas) = <[Keyspace; Area::ALL.len()]>::try_from(areas) else { unreachable!("one keyspace for each area") };
        creation.end(dir, &keys).map_err(StoreError::failed("creating the store"))?;
        Ok(Engine { areas, database })
    }

    /// Brings every memtable into a table; the caller lets nobody write meanwhile. Whether nothing is left that only the journal has.
    pub(super) fn settle(&self) -> Result<bool, StoreError> {
        for area in &self.areas {
            area.rotate_memtable_and_wait().map_err(failed("writing tables of the store"))?;
        }
        Ok(self.areas.iter().all(|area| area.sealed_memtable_count() == 0))
    }
}

/// Leaves the journals of a closed database behind and begins an empty one with the next number. Only after [`Engine::settle`].
pub(super) fn cut_journal(dir: &Path) -> std::io::Result<()> {
    let keys = dir.join("keys");
    // fjall does not sync the directories of new tables; until now the journal stood in for them.
    for keyspace in std::fs::read_dir(keys.join("keyspaces"))? {
        let keyspace = keyspace?.path();
        for folder in std::fs::read_dir(&keyspace)? {
            let folder = folder?;
            if folder.file_type()?.is_dir() {
                sync_dir(&folder.path())?;
            }
        }
        sync_dir(&keyspace)?;
    }
    let old = journals(&keys)?;
    let next = old.iter().map(|(number, _)| number + 1).max().unwrap_or(1);
    File::create_new(keys.join(format!("{next}.jnl")))?.sync_all()?;
    sync_dir(&keys)?;
    for (_, path) in old {
        std::fs::remove_file(path)?;
    }
    sync_dir(&keys)
}

fn journals(keys: &Path) -> std::io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(keys)? {
        let path = entry?.path();
        let number = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".jnl")?.parse().ok());
        if let Some(number) = number {
            found.push((number, path));
        }
    }
    Ok(found)
}

fn keyspace_options(area: Area, options: &DiskOptions) -> KeyspaceCreateOptions {
    // Ten bits a key at every level: a look-up of an absent key (each put of a block) touches the disk in one case of a hundred.
    let filter = FilterPolicy::all(FilterPolicyEntry::Bloom(BloomConstructionPolicy::BitsPerKey(10.0)));
    // Filters and indexes of tables below the first level are read in pieces of 4 KiB. fjall's default has them whole on levels 1 and 2: with
    // ten million blocks each put of a new block then read 1.6 MB of filter, which a small cache cannot keep.
    let in_pieces = PartitioningPolicy::new([false, true]);
    let keyspace = KeyspaceCreateOptions::default()
        .max_memtable_size(options.memtable.get())
        .filter_policy(filter)
        .filter_block_partitioning_policy(in_pieces.clone())
        .index_block_partitioning_policy(in_pieces);
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

/// What files take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Measure {
    /// All of them.
    pub(super) all: u64,
    /// Of these, journals.
    pub(super) journal: u64,
}

/// Bytes that the disk gave to `dir` and what is below; holes (fjall's journal is mostly one) do not count.
pub(super) fn measure(dir: &Path) -> std::io::Result<Measure> {
    let mut sum = Measure { all: std::fs::metadata(dir)?.blocks() * 512, journal: 0 };
    for entry in std::fs::read_dir(dir)? {
        // fjall removes files while we look.
        let Ok(entry) = entry else { continue };
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            let below = measure(&entry.path()).unwrap_or_default();
            sum.all += below.all;
            sum.journal += below.journal;
            continue;
        }
        let bytes = metadata.blocks() * 512;
        sum.all += bytes;
        if entry.path().extension().is_some_and(|extension| extension == "jnl") {
            sum.journal += bytes;
        }
    }
    Ok(sum)
}
