//! Appending blocks to the active segment.

use super::index::{Location, Tally};
use super::record::{RECORD_HEADER, SEGMENT_HEADER, Salt, encode_front, encode_segment_header, record_size};
use super::sync::EARLY;
use super::{BLOCK_LARGEST, Entry, MULTIHASH_LONGEST, PackError, PutError, PutOutcome, Shared};
use crate::disk::free_space;
use crate::lock::sync_dir;
use bytes::Bytes;
use std::collections::HashSet;
use std::fs::File;
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use types::ByteCount;

/// Blocks that may wait for the index; beyond, a put helps to index first. Bounds memory to a few MiB.
const PENDING_MOST: usize = 32 * 1024;
/// Bytes that may wait for a sync; beyond, a put syncs first. Bounds what one sync has to write.
const UNSYNCED_MOST: u64 = 64 << 20;
/// What a block may take in the index: entry, journal, table.
const INDEXED_EACH: u64 = 160;
/// Slices that the system takes in one write (IOV_MAX), two for each block.
const SLICES_MOST: usize = 1024;

/// The active segment.
pub(super) struct Writer {
    pub(super) segment: u32,
    pub(super) salt: Salt,
    pub(super) file: Arc<File>,
    pub(super) length: u64,
}

type Block<'a> = (&'a [u8], &'a [u8]);

impl Shared {
    /// See [`PackStore::put`](super::PackStore::put).
    pub(super) fn put(&self, blocks: &[Block<'_>]) -> Result<PutOutcome, PutError> {
        check(blocks)?;
        self.relieve()?;
        let _nothing_is_moved = self.gate.read();
        let absent = self.absent(blocks)?;
        let mut writer = self.writer.lock();
        // Somebody else may have put the same block since we looked; it is then still pending, for the gate is held.
        let absent: Vec<Block<'_>> = {
            let pending = self.pending.read();
            absent.into_iter().filter(|(multihash, _)| !pending.blocks.contains_key(*multihash)).collect()
        };
        if !absent.is_empty() {
            self.check_room(&absent)?;
            self.append(&mut writer, &absent, Fate::Pending)?;
        }
        drop(writer);
        self.hurry_sync();
        Ok(PutOutcome { written: absent.len(), already: blocks.len() - absent.len() })
    }

    /// Appends copies of records; nobody finds them before the index is told.
    pub(super) fn append_copies(&self, blocks: &[Block<'_>]) -> Result<Vec<Location>, PutError> {
        self.append(&mut self.writer.lock(), blocks, Fate::Copy)
    }

    /// Closes the active segment and begins the next.
    pub(super) fn rotate(&self, writer: &mut Writer) -> Result<(), PackError> {
        let segment = writer.segment + 1;
        let (salt, file) = create_segment(self, segment).map_err(PackError::io("beginning a segment"))?;
        let entry = Entry { salt, length: SEGMENT_HEADER as u64, tally: first_tally(), is_damaged: false };
        self.table.write().add(segment, entry);
        let mut dirty = self.dirty.lock();
        let sealed = std::mem::replace(&mut dirty.active, file.clone());
        dirty.sealed.push(sealed);
        *writer = Writer { segment, salt, file, length: SEGMENT_HEADER as u64 };
        Ok(())
    }

    /// Keeps the queues before sync and index bounded.
    fn relieve(&self) -> Result<(), PackError> {
        if self.unsynced() > UNSYNCED_MOST {
            self.sync()?;
        }
        if self.pending.read().queue.len() > PENDING_MOST {
            self.sync()?;
            self.index_synced()?;
        }
        Ok(())
    }

    /// Lets the worker begin to sync while more blocks come, so that the final sync has less to wait for.
    fn hurry_sync(&self) {
        if self.unsynced() >= EARLY {
            self.wake_worker();
        }
    }

    /// The blocks that are neither pending nor indexed, each once.
    fn absent<'a>(&self, blocks: &[Block<'a>]) -> Result<Vec<Block<'a>>, PackError> {
        let mut absent = Vec::with_capacity(blocks.len());
        let mut seen = HashSet::with_capacity(if blocks.len() > 1 { blocks.len() } else { 0 });
        for block in blocks {
            let is_again = blocks.len() > 1 && !seen.insert(block.0);
            if !is_again && self.locate(block.0)?.is_none() {
                absent.push(*block);
            }
        }
        Ok(absent)
    }

    fn check_room(&self, blocks: &[Block<'_>]) -> Result<(), PutError> {
        let records: u64 = blocks.iter().map(|(multihash, data)| record_size(multihash.len(), data.len())).sum();
        let needed = records + SEGMENT_HEADER as u64;
        let indexed = ByteCount(needed + blocks.len() as u64 * INDEXED_EACH);
        self.count_segments(&self.table.read());
        let free = self.options.quota.free_for_blocks(self.options.segment);
        if indexed > free {
            return Err(PutError::NoRoom { needed: indexed, free });
        }
        let free = free_space(&self.dir).map_err(PackError::from)?;
        let needed = ByteCount(needed) + self.options.reserve;
        if needed > free { Err(PutError::DiskFull { needed, free }) } else { Ok(()) }
    }

    fn append(&self, writer: &mut Writer, blocks: &[Block<'_>], fate: Fate) -> Result<Vec<Location>, PutError> {
        let mut places = Vec::with_capacity(blocks.len());
        let mut rest = blocks;
        while !rest.is_empty() {
            let mut count = self.fitting(writer, rest);
            if count == 0 {
                self.rotate(writer)?;
                // A block larger than a segment gets one of its own.
                count = self.fitting(writer, rest).max(1);
            }
            let (group, later) = rest.split_at(count);
            places.extend(self.append_group(writer, group, fate)?);
            rest = later;
        }
        Ok(places)
    }

    /// How many of `blocks` still go into the active segment.
    fn fitting(&self, writer: &Writer, blocks: &[Block<'_>]) -> usize {
        let mut end = writer.length;
        let fits = blocks.iter().take_while(|(multihash, data)| {
            end += record_size(multihash.len(), data.len());
            end <= self.options.segment.get()
        });
        fits.count().min(SLICES_MOST / 2)
    }

    /// Writes `blocks` behind each other with one system call, straight from where they lie.
    fn append_group(&self, writer: &mut Writer, blocks: &[Block<'_>], fate: Fate) -> Result<Vec<Location>, PutError> {
        let fronts_size = blocks.iter().map(|(multihash, _)| RECORD_HEADER + multihash.len()).sum();
        let mut fronts = Vec::with_capacity(fronts_size);
        for (multihash, data) in blocks {
            encode_front(&mut fronts, writer.salt, multihash, data);
        }
        let mut slices = Vec::with_capacity(blocks.len() * 2);
        let (mut places, mut front, mut offset) = (Vec::with_capacity(blocks.len()), &fronts[..], writer.length);
        for (multihash, data) in blocks {
            let (own, others) = front.split_at(RECORD_HEADER + multihash.len());
            slices.extend([IoSlice::new(own), IoSlice::new(data)]);
            front = others;
            places.push(Location { segment: writer.segment, offset: offset as u32, length: data.len() as u32 });
            offset += record_size(multihash.len(), data.len());
        }
        if let Err(error) = write_all_at(&writer.file, &mut slices, writer.length) {
            return Err(self.take_back(writer, offset - writer.length, error));
        }
        let grown = offset - writer.length;
        writer.length = offset;
        {
            let mut table = self.table.write();
            table.grow(writer.segment, grown);
            self.count_segments(&table);
        }
        let start = self.appended.load(Ordering::Relaxed);
        self.remember(blocks, &places, start, fate);
        self.appended.store(start + grown, Ordering::Release);
        Ok(places)
    }

    fn remember(&self, blocks: &[Block<'_>], places: &[Location], start: u64, fate: Fate) {
        let mut pending = self.pending.write();
        let mut end = start;
        for ((multihash, data), place) in blocks.iter().zip(places) {
            end += record_size(multihash.len(), data.len());
            let multihash = Bytes::copy_from_slice(multihash);
            if fate == Fate::Pending {
                pending.blocks.insert(multihash.clone(), *place);
                pending.data += u64::from(place.length);
            }
            pending.queue.push_back((multihash, *place, end));
        }
    }

    /// Cuts off what a failed write left behind the last good record.
    fn take_back(&self, writer: &Writer, needed: u64, error: std::io::Error) -> PutError {
        if let Err(error) = writer.file.set_len(writer.length) {
            // The next append overwrites it, and until then a scan steps over it.
            tracing::warn!(%error, segment = writer.segment, "a torn write could not be cut off");
        }
        if error.kind() != std::io::ErrorKind::StorageFull {
            return PackError::io("appending to a segment")(error).into();
        }
        let free = free_space(&self.dir).unwrap_or_default();
        PutError::DiskFull { needed: ByteCount(needed), free: free.min(ByteCount(needed.saturating_sub(1))) }
    }
}

/// What becomes of appended records.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// New blocks: found at once, indexed when durable.
    Pending,
    /// Copies of blocks that are still found elsewhere.
    Copy,
}

fn check(blocks: &[Block<'_>]) -> Result<(), PutError> {
    for (multihash, data) in blocks {
        if multihash.is_empty() || multihash.len() > MULTIHASH_LONGEST {
            return Err(PutError::BadMultihash { length: multihash.len() });
        }
        if data.len() > BLOCK_LARGEST {
            return Err(PutError::TooLarge { size: ByteCount(data.len() as u64), largest: ByteCount(BLOCK_LARGEST as u64) });
        }
    }
    Ok(())
}

/// The tally of a segment without records.
pub(super) fn first_tally() -> Tally {
    Tally { indexed_to: SEGMENT_HEADER as u64, ..Tally::default() }
}

fn create_segment(shared: &Shared, segment: u32) -> std::io::Result<(Salt, Arc<File>)> {
    create_segment_in(&shared.files, &shared.dir, segment)
}

/// Creates the file of a segment; it survives a power cut before its first record is written.
pub(super) fn create_segment_in(files: &super::Files, dir: &std::path::Path, segment: u32) -> std::io::Result<(Salt, Arc<File>)> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(std::io::Error::other)?;
    let salt = Salt::from_bytes(random);
    let file = files.create(segment)?;
    let written = write_all_at(&file, &mut [IoSlice::new(&encode_segment_header(segment, salt))], 0)
        .and_then(|()| file.sync_all())
        .and_then(|()| sync_dir(dir));
    if let Err(error) = written {
        // Otherwise the next try would stumble over the file.
        let _ = files.remove(segment);
        return Err(error);
    }
    Ok((salt, file))
}

fn write_all_at(file: &File, mut slices: &mut [IoSlice<'_>], mut offset: u64) -> std::io::Result<()> {
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        match rustix::io::pwritev(file, slices, offset) {
            Ok(0) => return Err(std::io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                offset += count as u64;
                IoSlice::advance_slices(&mut slices, count);
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
