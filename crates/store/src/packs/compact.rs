//! Winning back the space of deleted blocks: what lives in a segment is copied to the active one, then the segment is removed.
//!
//! Which records live is told by the index. Where blocks are small one pass over it lists the places of all that live ([`Living`]): to look up
//! ten million records one by one takes minutes. What is deleted after the pass is noted ([`Deleted`]), so that nothing has to be looked up
//! again before the index is pointed to the copies.

use super::index::{Location, Tallies, retired_key, segment_key};
use super::living::{Deleted, Living};
use super::record::{SEGMENT_HEADER, record_size};
use super::segment::Scan;
use super::{Entry, PackError, PutError, Shared};
use crate::disk::free_space;
use crate::lock::sync_dir;
use crate::{Area, Batch, Durability};

/// A segment is worth rewriting when less than this part of it lives.
const LIVE_MOST: f64 = 0.75;
/// Copies are synced and indexed in groups of about this size.
const GROUP_BYTES: usize = 16 << 20;
const GROUP_BLOCKS: usize = 16 * 1024;
/// Copies are appended in portions of this size, so that puts get their turn.
const PORTION_BYTES: usize = 1 << 20;

/// A compaction leaves so much of the disk free, or the index could not follow it.
const LEFT_FREE: u64 = 8 << 20;

/// Live blocks in the segments that one call rewrites, as far as it is more than one segment: four bytes of memory for each.
const BLOCKS_MOST: u64 = 4 << 20;

/// A block's copy: what it is called, where it was, where it is.
type Move = (Vec<u8>, Location, Location);

impl Shared {
    /// See [`PackStore::compact`](super::PackStore::compact).
    pub(super) fn compact(&self, budget: u64) -> Result<u64, PackError> {
        let _only_one = self.compacting.lock();
        self.sync()?;
        self.index_synced()?;
        self.seal_if_mostly_dead()?;
        let victims = self.victims(budget);
        let _watched = self.watch_deletes();
        let mut living = self.living(&victims)?;
        let mut won = 0;
        for (segment, entry) in victims {
            // Whoever fills the disk from outside leaves no room for copies: only what needs none, or little, is won then.
            if entry.tally.records > 0 && free_space(&self.dir)?.get() < entry.tally.records + LEFT_FREE {
                break;
            }
            let copied = self.rewrite(segment, entry, &mut living)?;
            if self.remove_if_empty(segment)? {
                won += entry.length.saturating_sub(copied);
            }
        }
        self.measure_index()?;
        Ok(won)
    }

    /// Segments worth rewriting, least alive first, with about `budget` bytes to be copied (one at least).
    pub(super) fn victims(&self, budget: u64) -> Vec<(u32, Entry)> {
        let active = self.writer.lock().segment;
        let first_queued = self.pending.read().queue.front().map_or(u32::MAX, |(_, location, _)| location.segment);
        let table = self.table.read();
        let settled = table.segments.iter().filter(|(id, _)| **id != active && **id < first_queued);
        let mut victims: Vec<(u32, Entry)> = settled.filter(|(_, entry)| is_worth_it(entry)).map(|(id, entry)| (*id, *entry)).collect();
        victims.sort_by_key(|(_, entry)| entry.tally.records);
        let (mut bytes, mut blocks) = (0, 0);
        let within = victims.iter().take_while(|(_, entry)| {
            let is_first = bytes == 0;
            bytes += entry.tally.records;
            blocks += entry.tally.blocks;
            is_first || (bytes <= budget && blocks <= BLOCKS_MOST)
        });
        let count = within.count();
        victims.truncate(count);
        victims
    }

    /// Notes what is deleted until the end of the returned watch.
    pub(super) fn watch_deletes(&self) -> Watched<'_> {
        self.indexing.lock().deleted = Some(Deleted::default());
        Watched(self)
    }

    /// The active segment cannot be rewritten; when more than half of its room is dead, it is closed first.
    fn seal_if_mostly_dead(&self) -> Result<(), PackError> {
        let mut writer = self.writer.lock();
        let entry = self.table.read().segments.get(&writer.segment).copied();
        let Some(entry) = entry else { return Ok(()) };
        let is_settled = self.pending.read().queue.is_empty();
        let dead = entry.length.saturating_sub(SEGMENT_HEADER as u64 + entry.tally.records);
        if is_settled && dead > self.options.segment.get() / 2 { self.rotate(&mut writer) } else { Ok(()) }
    }

    /// Copies what lives in `segment` and tells the index; returns the bytes copied.
    pub(super) fn rewrite(&self, segment: u32, entry: Entry, living: &mut Living) -> Result<u64, PackError> {
        if entry.tally.blocks == 0 {
            return Ok(0);
        }
        let file = self.files.get(segment).map_err(PackError::io("opening a segment"))?;
        let mut scan = Scan::new(&file, entry.salt, SEGMENT_HEADER as u64, entry.length);
        let mut copied = 0;
        loop {
            let moves = self.copy_group(segment, &mut scan, living)?;
            if moves.is_empty() {
                break;
            }
            copied += moves.iter().map(|(multihash, old, _)| record_size(multihash.len(), old.length as usize)).sum::<u64>();
            self.sync()?;
            self.point_to_copies(moves)?;
        }
        Ok(copied)
    }

    /// Copies the next live records of a scan, about [`GROUP_BYTES`] of them.
    fn copy_group(&self, segment: u32, scan: &mut Scan<'_>, living: &mut Living) -> Result<Vec<Move>, PackError> {
        let (mut moves, mut bytes) = (Vec::new(), 0);
        let mut portion: Vec<(Vec<u8>, Vec<u8>, Location)> = Vec::new();
        let mut portion_bytes = 0;
        loop {
            let record = scan.next().map_err(PackError::io("reading a segment"))?;
            let is_end = record.is_none();
            if let Some(record) = record {
                let location = Location { segment, offset: record.offset as u32, length: record.data.len() as u32 };
                let is_living = match living.has(location) {
                    Some(is_living) => is_living,
                    None => self.locate_indexed(record.multihash)? == Some(location),
                };
                if is_living {
                    portion_bytes += record.data.len();
                    portion.push((record.multihash.to_vec(), record.data.to_vec(), location));
                }
            }
            if is_end || portion_bytes >= PORTION_BYTES || portion.len() >= GROUP_BLOCKS {
                bytes += std::mem::take(&mut portion_bytes);
                self.copy_portion(std::mem::take(&mut portion), &mut moves)?;
            }
            if is_end || bytes >= GROUP_BYTES || moves.len() >= GROUP_BLOCKS {
                return Ok(moves);
            }
        }
    }

    fn copy_portion(&self, portion: Vec<(Vec<u8>, Vec<u8>, Location)>, moves: &mut Vec<Move>) -> Result<(), PackError> {
        if portion.is_empty() {
            return Ok(());
        }
        let blocks: Vec<(&[u8], &[u8])> = portion.iter().map(|(multihash, data, _)| (&multihash[..], &data[..])).collect();
        let places = self.append_copies(&blocks).map_err(|error| match error {
            PutError::Io(error) => error,
            full => PackError::io("copying live blocks for a compaction")(std::io::Error::other(full)),
        })?;
        moves.extend(portion.into_iter().zip(places).map(|((multihash, _, old), new)| (multihash, old, new)));
        Ok(())
    }

    /// Lets the index point to the copies of those blocks that were not deleted meanwhile.
    fn point_to_copies(&self, mut moves: Vec<Move>) -> Result<(), PackError> {
        // The index takes keys in their order with less work.
        moves.sort_unstable_by(|(one, ..), (other, ..)| one.cmp(other));
        let indexing = self.indexing.lock();
        let (mut batch, mut tallies) = (Batch::new(), Tallies::default());
        for (multihash, old, new) in &moves {
            let is_living = match indexing.deleted.as_ref().and_then(|deleted| deleted.has(multihash)) {
                Some(is_deleted) => !is_deleted,
                None => self.locate_indexed(multihash)? == Some(*old),
            };
            if !is_living {
                continue;
            }
            if let Some(tally) = tallies.of(self, old.segment) {
                tally.remove(multihash, *old);
            }
            if let Some(tally) = tallies.of(self, new.segment) {
                tally.add(multihash, *new);
            }
            batch.put(Area::BlockIndex, multihash, new.encode());
        }
        tallies.write_into(&mut batch);
        // A record is copied once.
        self.index.commit(batch.distinct(), Durability::Buffered)?;
        tallies.apply(self);
        Ok(())
    }

    /// Removes a segment in which nothing lives any more. One in which something still does has a damaged record: it stays as it is
    /// until that block is deleted.
    pub(super) fn remove_if_empty(&self, segment: u32) -> Result<bool, PackError> {
        let _indexing = self.indexing.lock();
        let salt = {
            let mut table = self.table.write();
            let Some(entry) = table.segments.get_mut(&segment) else { return Ok(false) };
            if entry.tally.blocks > 0 {
                entry.is_damaged = true;
                tracing::warn!(segment, blocks = entry.tally.blocks, "a segment with damaged blocks is not compacted");
                return Ok(false);
            }
            entry.salt
        };
        let mut batch = Batch::new();
        batch.delete(Area::Meta, segment_key(segment));
        batch.put(Area::Meta, retired_key(segment), salt.to_bytes());
        self.index.commit(batch, Durability::Synced)?;
        self.table.write().remove(segment);
        let removed = self.files.remove(segment).and_then(|()| sync_dir(&self.dir));
        self.count_segments(&self.table.read());
        removed.map_err(PackError::io("removing a compacted segment"))?;
        let mut batch = Batch::new();
        batch.delete(Area::Meta, retired_key(segment));
        self.index.commit(batch, Durability::Buffered)?;
        Ok(true)
    }
}

/// While it lives, deletes are noted.
pub(super) struct Watched<'a>(&'a Shared);

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.0.indexing.lock().deleted = None;
    }
}

fn is_worth_it(entry: &Entry) -> bool {
    let room = entry.length.saturating_sub(SEGMENT_HEADER as u64);
    entry.tally.blocks == 0 || (!entry.is_damaged && (entry.tally.records as f64) < room as f64 * LIVE_MOST)
}
