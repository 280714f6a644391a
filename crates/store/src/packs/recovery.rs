//! Opening: what the segments hold beyond the index is read into it, removals that were begun are finished.

use super::index::{KnownSegments, Location, Tally, known_segments, put_tally, retired_key, segment_key};
use super::lookup::locate_sorted;
use super::put::{Writer, create_segment_in, first_tally};
use super::record::{BadSegment, SEGMENT_HEADER, Salt, decode_segment_header};
use super::segment::{Scan, read_at};
use super::sync::{Dirty, SyncState};
use super::{Entry, Files, Indexing, PackError, PackOptions, Pending, Shared, Signal, Table};
use crate::lock::sync_dir;
use crate::{Area, Batch, Durability, Store, StoreError};
use bytes::Bytes;
use parking_lot::{Condvar, Mutex, RwLock};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// Recovered blocks that go to the index in one batch: as many as wait for it at most before a process is killed, so that what they are compared
/// with is read once.
const RECOVERED_AT_ONCE: usize = 32 * 1024;
/// Entries of the index read in one go.
const PAGE: usize = 4096;

/// What opening had to repair; all zero after a clean end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Blocks found in segments that the index did not know.
    pub blocks: u64,
    /// Bytes cut off behind the last whole record: writes that were never acknowledged.
    pub bytes_torn: u64,
    /// Bytes between records that belong to none: damage by the disk.
    pub bytes_damaged: u64,
    /// Segments that the index knows and the directory has not, or that cannot be read at all.
    pub segments_lost: u64,
    /// Blocks that were in them, now forgotten.
    pub blocks_lost: u64,
}

struct Opening<'a> {
    dir: &'a Path,
    index: Arc<dyn Store>,
    files: Files,
    table: Table,
    recovered: Recovered,
}

pub(super) fn open(dir: &Path, index: Arc<dyn Store>, options: PackOptions) -> Result<(Shared, Recovered), PackError> {
    let known = known_segments(&*index.snapshot())?;
    let mut opening = Opening { dir, index, files: Files::new(dir), table: Table::default(), recovered: Recovered::default() };
    opening.finish_removals(&known)?;
    opening.take_stock(&known)?;
    let segments: Vec<u32> = opening.table.segments.keys().copied().collect();
    for segment in segments {
        opening.read_behind_index(segment)?;
    }
    opening.forget_lost_segments(&known)?;
    if opening.recovered != Recovered::default() {
        tracing::info!(recovered = ?opening.recovered, dir = %dir.display(), "packs repaired while opening");
        opening.index.commit(Batch::new(), Durability::Synced)?;
    }
    opening.finish(options)
}

impl Opening<'_> {
    /// Removes the files of segments whose blocks had all been moved when the process ended.
    fn finish_removals(&self, known: &KnownSegments) -> Result<(), PackError> {
        if known.retired.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::new();
        for (segment, salt) in &known.retired {
            // A later segment may have got the same number: then its salt is another.
            let is_same = self.header(*segment)?.is_some_and(|header| header.is_ok_and(|found| found == *salt));
            if is_same {
                self.files.remove(*segment).map_err(PackError::io("removing a compacted segment"))?;
            }
            batch.delete(Area::Meta, retired_key(*segment));
        }
        sync_dir(self.dir).map_err(PackError::io("syncing the directory of the packs"))?;
        Ok(self.index.commit(batch, Durability::Buffered)?)
    }

    /// Fills the table from the directory and the known tallies.
    fn take_stock(&mut self, known: &KnownSegments) -> Result<(), PackError> {
        for (segment, length) in self.files.list().map_err(PackError::io("listing the packs"))? {
            let header = self.header(segment)?.unwrap_or(Err(BadSegment::Damaged));
            if let Err(BadSegment::TooNew(found)) = header {
                return Err(StoreError::FormatTooNew { dir: self.dir.to_owned(), found, known: 1 }.into());
            }
            let (salt, tally) = match (known.tallies.get(&segment), header) {
                // The index keeps the salt too, so a damaged header costs nothing.
                (Some((salt, tally)), _) => (*salt, *tally),
                (None, Ok(salt)) => (salt, first_tally()),
                (None, Err(_)) => {
                    self.set_aside(segment, length)?;
                    continue;
                }
            };
            if length < tally.indexed_to {
                tracing::error!(segment, length, expected = tally.indexed_to, "a segment lost its end: its blocks will read as damaged");
            }
            self.table.add(segment, Entry { salt, length, tally, is_damaged: false });
        }
        Ok(())
    }

    fn header(&self, segment: u32) -> Result<Option<Result<Salt, BadSegment>>, PackError> {
        let file = match self.files.get(segment) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(PackError::io("opening a segment")(error)),
        };
        let bytes = read_at(&file, 0, SEGMENT_HEADER).map_err(PackError::io("reading the header of a segment"))?;
        Ok(Some(decode_segment_header(&bytes, segment)))
    }

    /// A file that nothing is known of and that has no header: a creation cut short, or damage beyond help.
    fn set_aside(&mut self, segment: u32, length: u64) -> Result<(), PackError> {
        if length <= SEGMENT_HEADER as u64 {
            return self.files.remove(segment).map_err(PackError::io("removing an unfinished segment"));
        }
        let (from, to) = (self.files.path(segment), self.files.path(segment).with_extension("unreadable"));
        tracing::error!(file = %to.display(), "a segment without a header is set aside");
        self.recovered.segments_lost += 1;
        std::fs::rename(from, to).and_then(|()| sync_dir(self.dir)).map_err(PackError::io("setting a segment aside"))
    }

    /// Brings the records behind the indexed part of a segment into the index and cuts off a torn end.
    fn read_behind_index(&mut self, segment: u32) -> Result<(), PackError> {
        let Some(entry) = self.table.segments.get(&segment).copied() else { return Ok(()) };
        if entry.length <= entry.tally.indexed_to {
            return Ok(());
        }
        let file = self.files.get(segment).map_err(PackError::io("opening a segment"))?;
        // What a killed process wrote may still be only in memory; the index must not be ahead of the disk.
        file.sync_data().map_err(PackError::io("syncing a segment"))?;
        let mut scan = Scan::new(&file, entry.salt, entry.tally.indexed_to, entry.length);
        let mut found: Vec<(Bytes, Location)> = Vec::new();
        loop {
            let record = scan.next().map_err(PackError::io("reading a segment"))?;
            let is_end = record.is_none();
            if let Some(record) = record {
                let location = Location { segment, offset: record.offset as u32, length: record.data.len() as u32 };
                found.push((Bytes::copy_from_slice(record.multihash), location));
            }
            if is_end || found.len() == RECOVERED_AT_ONCE {
                self.index_found(segment, std::mem::take(&mut found), scan.intact_to())?;
            }
            if is_end {
                break;
            }
        }
        self.recovered.bytes_damaged += scan.damaged();
        self.cut_off(segment, &file, scan.intact_to())
    }

    fn index_found(&mut self, segment: u32, mut found: Vec<(Bytes, Location)>, indexed_to: u64) -> Result<(), PackError> {
        let mut batch = Batch::new();
        let mut changed = BTreeSet::from([segment]);
        // In the order of the index: each part of it is read once. Of two records of one block the later one counts.
        found.sort_unstable_by(|(one, place), (other, later)| one.cmp(other).then(later.cmp(place)));
        found.dedup_by(|(earlier, _), (later, _)| earlier == later);
        let multihashes: Vec<&Bytes> = found.iter().map(|(multihash, _)| multihash).collect();
        let known = locate_sorted(self.index.as_ref(), &multihashes)?;
        for ((multihash, location), before) in found.iter().zip(known) {
            if before == Some(*location) {
                continue;
            }
            match before {
                Some(before) => {
                    changed.insert(before.segment);
                    self.tally(before.segment, |tally| tally.remove(multihash, before));
                }
                None => self.recovered.blocks += 1,
            }
            self.tally(segment, |tally| tally.add(multihash, *location));
            batch.put_bytes(Area::BlockIndex, multihash.clone(), Bytes::copy_from_slice(&location.encode()));
        }
        self.tally(segment, |tally| tally.indexed_to = indexed_to);
        for segment in changed {
            if let Some(entry) = self.table.segments.get(&segment) {
                put_tally(&mut batch, segment, entry.salt, &entry.tally);
            }
        }
        Ok(self.index.commit(batch.distinct(), Durability::Buffered)?)
    }

    fn tally(&mut self, segment: u32, change: impl FnOnce(&mut Tally)) {
        if let Some(entry) = self.table.segments.get_mut(&segment) {
            change(&mut entry.tally);
        }
    }

    fn cut_off(&mut self, segment: u32, file: &std::fs::File, end: u64) -> Result<(), PackError> {
        let Some(entry) = self.table.segments.get(&segment) else { return Ok(()) };
        let torn = entry.length - end;
        if torn == 0 {
            return Ok(());
        }
        file.set_len(end).and_then(|()| file.sync_all()).map_err(PackError::io("cutting off a torn write"))?;
        self.table.shrink(segment, torn);
        self.recovered.bytes_torn += torn;
        Ok(())
    }

    /// Forgets blocks of segments that are gone, so that they count as absent and are fetched again.
    fn forget_lost_segments(&mut self, known: &KnownSegments) -> Result<(), PackError> {
        let lost: BTreeSet<u32> = known.tallies.keys().copied().filter(|segment| !self.table.segments.contains_key(segment)).collect();
        if lost.is_empty() {
            return Ok(());
        }
        tracing::error!(segments = ?lost, dir = %self.dir.display(), "segments are gone from the directory");
        self.recovered.segments_lost += lost.len() as u64;
        let mut after = None::<Bytes>;
        loop {
            let page = self.index.snapshot().scan(Area::BlockIndex, after.as_deref(), b"", PAGE)?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            let mut batch = Batch::new();
            for (multihash, value) in &page {
                if Location::decode(value).is_none_or(|location| lost.contains(&location.segment)) {
                    batch.delete(Area::BlockIndex, multihash);
                }
            }
            self.recovered.blocks_lost += batch.len() as u64;
            self.index.commit(batch, Durability::Buffered)?;
        }
        let mut batch = Batch::new();
        for segment in lost {
            batch.delete(Area::Meta, segment_key(segment));
        }
        Ok(self.index.commit(batch, Durability::Buffered)?)
    }

    fn finish(mut self, options: PackOptions) -> Result<(Shared, Recovered), PackError> {
        let writer = self.writer(&options)?;
        super::measure_index(self.index.as_ref(), &options)?;
        options.quota.set_segments(self.table.bytes_disk());
        let shared = Shared {
            dir: self.dir.to_owned(),
            index: self.index,
            options,
            compacting: Mutex::new(()),
            indexing: Mutex::new(Indexing::default()),
            gate: RwLock::new(()),
            dirty: Mutex::new(Dirty { active: writer.file.clone(), sealed: Vec::new() }),
            writer: Mutex::new(writer),
            pending: RwLock::new(Pending::default()),
            table: RwLock::new(self.table),
            files: self.files,
            appended: AtomicU64::new(0),
            sync_state: Mutex::new(SyncState::default()),
            synced: Condvar::new(),
            signal: Mutex::new(Signal::default()),
            signalled: Condvar::new(),
        };
        Ok((shared, self.recovered))
    }

    /// Goes on in the last segment, or begins one when it is full or not as it should be.
    fn writer(&mut self, options: &PackOptions) -> Result<Writer, PackError> {
        let last = self.table.segments.last_key_value().map(|(segment, entry)| (*segment, *entry));
        if let Some((segment, entry)) = last {
            let is_sound = entry.length >= entry.tally.indexed_to && self.header(segment)? == Some(Ok(entry.salt));
            if is_sound && entry.length < options.segment.get() {
                let file = self.files.get(segment).map_err(PackError::io("opening a segment"))?;
                return Ok(Writer { segment, salt: entry.salt, file, length: entry.length });
            }
        }
        let segment = last.map_or(1, |(segment, _)| segment + 1);
        let (salt, file) = create_segment_in(&self.files, self.dir, segment).map_err(PackError::io("beginning a segment"))?;
        self.table.add(segment, Entry { salt, length: SEGMENT_HEADER as u64, tally: first_tally(), is_damaged: false });
        Ok(Writer { segment, salt, file, length: SEGMENT_HEADER as u64 })
    }
}
