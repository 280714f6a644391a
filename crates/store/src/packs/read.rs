//! Reading blocks and listing them.

use super::index::Location;
use super::lookup::place;
use super::record::{RECORD_HEADER, RecordHeader, record_size};
use super::segment::read_at;
use super::{PackError, Shared};
use crate::Area;
use bytes::Bytes;
use std::ops::Bound;

/// A block moves when its segment is compacted; looking three times would need two compactions between look-up and read.
const LOOKS: usize = 3;

impl Shared {
    /// See [`PackStore::get`](super::PackStore::get).
    pub(super) fn get(&self, multihash: &[u8]) -> Result<Option<Bytes>, PackError> {
        for _ in 0..LOOKS {
            let Some(location) = self.locate(multihash)? else { return Ok(None) };
            if let Some(data) = self.read(multihash, location)? {
                return Ok(Some(data));
            }
        }
        Err(PackError::corrupt(multihash, "its segment is gone"))
    }

    /// Reads and checks one record; none when its segment was removed meanwhile.
    pub(super) fn read(&self, multihash: &[u8], location: Location) -> Result<Option<Bytes>, PackError> {
        let Some(salt) = self.table.read().segments.get(&location.segment).map(|entry| entry.salt) else { return Ok(None) };
        let file = match self.files.get(location.segment) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(PackError::io("opening a segment")(error)),
        };
        let size = record_size(multihash.len(), location.length as usize) as usize;
        let record = read_at(&file, u64::from(location.offset), size).map_err(PackError::io("reading a block"))?;
        if record.len() < size {
            return Err(PackError::corrupt(multihash, "its segment ends before it does"));
        }
        let header = RecordHeader::decode(&record, salt).filter(|header| header.size() == size);
        let Some(header) = header else { return Err(PackError::corrupt(multihash, "its record has no valid header")) };
        if &record[RECORD_HEADER..header.front()] != multihash {
            return Err(PackError::corrupt(multihash, "its record names another block"));
        }
        if !header.is_intact(&record, salt) {
            return Err(PackError::corrupt(multihash, "its checksum is wrong"));
        }
        Ok(Some(Bytes::from(record).slice(header.front()..)))
    }

    /// See [`PackStore::blocks`](super::PackStore::blocks).
    pub(super) fn blocks(&self, after: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, u64)>, PackError> {
        Ok(self.located(after, limit)?.into_iter().map(|(multihash, location)| (multihash, u64::from(location.length))).collect())
    }

    /// The next blocks in byte order of their multihashes, with their places.
    pub(super) fn located(&self, after: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Location)>, PackError> {
        // Without the gate a block could leave pending between the two looks and be missed.
        let _nothing_is_moved = self.gate.read();
        let indexed = self.index.snapshot().scan(Area::BlockIndex, after, b"", limit)?;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let pending: Vec<(Bytes, Location)> = {
            let pending = self.pending.read();
            let behind = pending.blocks.range::<[u8], _>((from, Bound::Unbounded)).take(limit);
            behind.map(|(multihash, location)| (multihash.clone(), *location)).collect()
        };
        let mut found = Vec::with_capacity(indexed.len() + pending.len());
        for (multihash, value) in indexed {
            let location = place(&multihash, &value)?;
            found.push((multihash, location));
        }
        found.extend(pending);
        found.sort_by(|(one, _), (other, _)| one.cmp(other));
        // In both for the moment between the index's commit and the end of pending.
        found.dedup_by(|(one, _), (other, _)| one == other);
        found.truncate(limit);
        Ok(found)
    }
}
