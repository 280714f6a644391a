//! What the packs keep in the store of keys: where blocks lie, and a tally for each segment.
//!
//! ```text
//! BlockIndex  multihash               -> segment:4 offset:4 length:4
//! Meta        packs/segment/<id:4>    -> 1:1 salt:8 indexed_to:8 blocks:8 data:8 records:8
//! Meta        packs/retired/<id:4>    -> salt:8           its file is to be removed
//! ```

use super::lookup::locate_sorted;
use super::record::{Salt, record_size};
use super::{PackError, Shared};
use crate::{Area, Batch, Durability, Snapshot};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// Blocks that go to the index in one batch.
const INDEXED_AT_ONCE: usize = 4096;
/// After so much the index is synced, so that a power cut leaves no more to be read again (about a second).
const CHECKPOINT_BYTES: u64 = 256 << 20;
const CHECKPOINT_BLOCKS: u64 = 100_000;
/// The size of the index on disk is looked up again after so many blocks.
const MEASURED_EACH: u64 = 4096;

const SEGMENT: &[u8] = b"packs/segment/";
const RETIRED: &[u8] = b"packs/retired/";
const TALLY_VERSION: u8 = 1;

/// Where a record begins, and how long its data is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Location {
    pub(super) segment: u32,
    pub(super) offset: u32,
    pub(super) length: u32,
}

/// What the index holds of one segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Records before this place are in the index, or dead.
    pub(super) indexed_to: u64,
    /// Live blocks.
    pub(super) blocks: u64,
    /// Bytes of their data.
    pub(super) data: u64,
    /// Bytes of their records.
    pub(super) records: u64,
}

impl Location {
    pub(super) fn encode(self) -> [u8; 12] {
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&self.segment.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.offset.to_be_bytes());
        bytes[8..].copy_from_slice(&self.length.to_be_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Location> {
        let bytes: &[u8; 12] = bytes.try_into().ok()?;
        let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Some(Location { segment: word(0), offset: word(4), length: word(8) })
    }

    /// Where the record ends in its segment.
    pub(super) fn end(self, multihash: &[u8]) -> u64 {
        u64::from(self.offset) + record_size(multihash.len(), self.length as usize)
    }
}

impl Tally {
    pub(super) fn add(&mut self, multihash: &[u8], location: Location) {
        self.blocks += 1;
        self.data += u64::from(location.length);
        self.records += record_size(multihash.len(), location.length as usize);
    }

    pub(super) fn remove(&mut self, multihash: &[u8], location: Location) {
        self.blocks = self.blocks.saturating_sub(1);
        self.data = self.data.saturating_sub(u64::from(location.length));
        self.records = self.records.saturating_sub(record_size(multihash.len(), location.length as usize));
    }
}

/// Tallies that a batch changes, starting from what the table says.
#[derive(Default)]
pub(super) struct Tallies {
    changed: BTreeMap<u32, (Salt, Tally)>,
}

impl Tallies {
    /// The tally of `segment` to be changed; none when there is no such segment.
    pub(super) fn of(&mut self, shared: &Shared, segment: u32) -> Option<&mut Tally> {
        let changed = match self.changed.entry(segment) {
            Entry::Occupied(changed) => changed.into_mut(),
            Entry::Vacant(fresh) => {
                let now = shared.table.read().segments.get(&segment).map(|entry| (entry.salt, entry.tally))?;
                fresh.insert(now)
            }
        };
        Some(&mut changed.1)
    }

    pub(super) fn write_into(&self, batch: &mut Batch) {
        for (segment, (salt, tally)) in &self.changed {
            put_tally(batch, *segment, *salt, tally);
        }
    }

    /// Takes what was committed over into the table.
    pub(super) fn apply(self, shared: &Shared) {
        let mut table = shared.table.write();
        for (segment, (_, tally)) in self.changed {
            if let Some(entry) = table.segments.get_mut(&segment) {
                entry.tally = tally;
            }
        }
    }
}

impl Shared {
    /// Moves every durable block from pending into the index.
    pub(super) fn index_synced(&self) -> Result<(), PackError> {
        while self.index_some()? {}
        Ok(())
    }

    /// Moves some; returns whether there may be more.
    fn index_some(&self) -> Result<bool, PackError> {
        let mut indexing = self.indexing.lock();
        let durable = self.sync_state.lock().durable;
        let ready: Vec<(Bytes, Location, bool)> = {
            let pending = self.pending.read();
            let queued = pending.queue.iter().take(INDEXED_AT_ONCE).take_while(|(_, _, end)| *end <= durable);
            queued.map(|(multihash, location, _)| (multihash.clone(), *location, pending.blocks.get(multihash) == Some(location))).collect()
        };
        if ready.is_empty() {
            return Ok(false);
        }
        let (mut batch, mut tallies, mut bytes) = (Batch::new(), Tallies::default(), 0);
        for (multihash, location, is_live) in &ready {
            if let Some(tally) = tallies.of(self, location.segment) {
                tally.indexed_to = location.end(multihash);
                if *is_live {
                    tally.add(multihash, *location);
                }
            }
            if *is_live {
                batch.put_bytes(Area::BlockIndex, multihash.clone(), Bytes::copy_from_slice(&location.encode()));
            }
            bytes += record_size(multihash.len(), location.length as usize);
        }
        tallies.write_into(&mut batch);
        indexing.bytes += bytes;
        indexing.blocks += ready.len() as u64;
        let is_checkpoint = indexing.bytes >= CHECKPOINT_BYTES || indexing.blocks >= CHECKPOINT_BLOCKS;
        // A block is pending once.
        self.index.commit(batch.distinct(), if is_checkpoint { Durability::Synced } else { Durability::Buffered })?;
        if is_checkpoint {
            (indexing.bytes, indexing.blocks) = (0, 0);
        }
        self.take_over(&ready, tallies);
        indexing.unmeasured += ready.len() as u64;
        if indexing.unmeasured >= MEASURED_EACH {
            indexing.unmeasured = 0;
            self.measure_index()?;
        }
        Ok(ready.len() == INDEXED_AT_ONCE)
    }

    fn take_over(&self, indexed: &[(Bytes, Location, bool)], tallies: Tallies) {
        let _no_put_is_looking = self.gate.write();
        let mut pending = self.pending.write();
        for (multihash, location, is_live) in indexed {
            pending.queue.pop_front();
            if *is_live {
                pending.blocks.remove(multihash);
                pending.data -= u64::from(location.length);
            }
        }
        tallies.apply(self);
    }

    /// Makes everything indexed so far durable.
    pub(super) fn checkpoint(&self) -> Result<(), PackError> {
        let mut indexing = self.indexing.lock();
        self.index.commit(Batch::new(), Durability::Synced)?;
        (indexing.bytes, indexing.blocks) = (0, 0);
        Ok(())
    }

    /// See [`PackStore::delete`](super::PackStore::delete).
    pub(super) fn delete(&self, multihashes: &[&[u8]]) -> Result<u64, PackError> {
        let mut deleted = 0;
        for some in multihashes.chunks(INDEXED_AT_ONCE) {
            deleted += self.delete_some(some)?;
        }
        Ok(deleted)
    }

    fn delete_some(&self, multihashes: &[&[u8]]) -> Result<u64, PackError> {
        let mut multihashes = multihashes.to_vec();
        multihashes.sort_unstable();
        multihashes.dedup();
        let mut indexing = self.indexing.lock();
        let mut deleted = 0;
        multihashes.retain(|multihash| !self.forget_pending(multihash, &mut deleted));
        let places = locate_sorted(self.index.as_ref(), &multihashes)?;
        let (mut batch, mut tallies) = (Batch::new(), Tallies::default());
        for (multihash, location) in multihashes.iter().zip(places) {
            let Some(location) = location else { continue };
            if let Some(tally) = tallies.of(self, location.segment) {
                tally.remove(multihash, location);
            }
            batch.delete(Area::BlockIndex, multihash);
            if let Some(noted) = &mut indexing.deleted {
                noted.note(multihash);
            }
            deleted += 1;
        }
        if !batch.is_empty() {
            tallies.write_into(&mut batch);
            self.index.commit(batch.distinct(), Durability::Buffered)?;
            tallies.apply(self);
        }
        Ok(deleted)
    }

    /// Forgets a block if it still lies there; whether it did.
    pub(super) fn delete_at(&self, multihash: &[u8], location: Location) -> Result<bool, PackError> {
        let mut indexing = self.indexing.lock();
        {
            let mut pending = self.pending.write();
            match pending.blocks.get(multihash) {
                Some(found) if *found == location => {
                    pending.blocks.remove(multihash);
                    pending.data -= u64::from(location.length);
                    return Ok(true);
                }
                Some(_) => return Ok(false),
                None => {}
            }
        }
        if self.locate_indexed(multihash)? != Some(location) {
            return Ok(false);
        }
        if let Some(noted) = &mut indexing.deleted {
            noted.note(multihash);
        }
        let (mut batch, mut tallies) = (Batch::new(), Tallies::default());
        if let Some(tally) = tallies.of(self, location.segment) {
            tally.remove(multihash, location);
        }
        batch.delete(Area::BlockIndex, multihash);
        tallies.write_into(&mut batch);
        self.index.commit(batch, Durability::Buffered)?;
        tallies.apply(self);
        Ok(true)
    }

    /// A block that is not indexed yet is only forgotten; its record in the queue then counts as dead.
    fn forget_pending(&self, multihash: &[u8], deleted: &mut u64) -> bool {
        let mut pending = self.pending.write();
        let Some(location) = pending.blocks.remove(multihash) else { return false };
        pending.data -= u64::from(location.length);
        *deleted += 1;
        true
    }
}

pub(super) fn put_tally(batch: &mut Batch, segment: u32, salt: Salt, tally: &Tally) {
    batch.put(Area::Meta, segment_key(segment), encode_tally(salt, tally));
}

pub(super) fn segment_key(segment: u32) -> Vec<u8> {
    [SEGMENT, &segment.to_be_bytes()].concat()
}

pub(super) fn retired_key(segment: u32) -> Vec<u8> {
    [RETIRED, &segment.to_be_bytes()].concat()
}

fn encode_tally(salt: Salt, tally: &Tally) -> Vec<u8> {
    let mut bytes = vec![TALLY_VERSION];
    bytes.extend_from_slice(&salt.to_bytes());
    for number in [tally.indexed_to, tally.blocks, tally.data, tally.records] {
        bytes.extend_from_slice(&number.to_be_bytes());
    }
    bytes
}

fn decode_tally(bytes: &[u8]) -> Option<(Salt, Tally)> {
    let (TALLY_VERSION, rest) = bytes.split_first().map(|(version, rest)| (*version, rest))? else { return None };
    let rest: &[u8; 40] = rest.try_into().ok()?;
    let long = |at: usize| {
        let mut number = [0; 8];
        number.copy_from_slice(&rest[at..at + 8]);
        number
    };
    let number = |at| u64::from_be_bytes(long(at));
    let tally = Tally { indexed_to: number(8), blocks: number(16), data: number(24), records: number(32) };
    Some((Salt::from_bytes(long(0)), tally))
}

/// Everything the store of keys says about segments.
#[derive(Default)]
pub(super) struct KnownSegments {
    pub(super) tallies: BTreeMap<u32, (Salt, Tally)>,
    pub(super) retired: BTreeMap<u32, Salt>,
}

pub(super) fn known_segments(snapshot: &dyn Snapshot) -> Result<KnownSegments, PackError> {
    let mut known = KnownSegments::default();
    for (id, value) in numbered(snapshot, SEGMENT)? {
        match decode_tally(&value) {
            Some(tally) => drop(known.tallies.insert(id, tally)),
            // Its segment is then read from the start.
            None => tracing::error!(segment = id, "the tally of a segment has a wrong form"),
        }
    }
    for (id, value) in numbered(snapshot, RETIRED)? {
        if let Ok(salt) = <[u8; 8]>::try_from(&value[..]) {
            known.retired.insert(id, Salt::from_bytes(salt));
        }
    }
    Ok(known)
}

fn numbered(snapshot: &dyn Snapshot, prefix: &[u8]) -> Result<Vec<(u32, Bytes)>, PackError> {
    let (mut found, mut after) = (Vec::new(), None::<Bytes>);
    loop {
        let page = snapshot.scan(Area::Meta, after.as_deref(), prefix, 1000)?;
        let Some((last, _)) = page.last() else { return Ok(found) };
        after = Some(last.clone());
        let numbers = page.into_iter().filter_map(|(key, value)| Some((u32::from_be_bytes(key[prefix.len()..].try_into().ok()?), value)));
        found.extend(numbers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_tallies_read_back() {
        let location = Location { segment: 1, offset: 2, length: u32::MAX };
        assert_eq!(Location::decode(&location.encode()), Some(location));
        assert_eq!(Location::decode(&[0; 11]), None);
        let salt = Salt { marker: *b"abcd", seed: 5 };
        let tally = Tally { indexed_to: 1, blocks: 2, data: 3, records: u64::MAX };
        assert_eq!(decode_tally(&encode_tally(salt, &tally)), Some((salt, tally)));
        assert_eq!(decode_tally(&[2; 41]), None, "a later version");
        assert_eq!(decode_tally(&[]), None);
    }
}
