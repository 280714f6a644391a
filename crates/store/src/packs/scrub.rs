//! Reading everything once in a while, so that damage is found while other peers still have the block.

use super::index::Location;
use super::record::RECORD_HEADER;
use super::{PackError, Shared};
use bytes::Bytes;
use std::num::NonZeroU64;

/// Blocks looked at in one call at most, whatever the budget.
const BLOCKS_AT_ONCE: usize = 4096;

/// A block that could not be read as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadBlock {
    /// Which block.
    pub multihash: Bytes,
    /// What is wrong with it.
    pub what: String,
}

/// What one step of scrubbing found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// The damaged blocks: to be taken out of service ([`quarantine`](super::PackStore::quarantine)) and fetched again.
    pub bad: Vec<BadBlock>,
    /// Blocks looked at.
    pub blocks: u64,
    /// Bytes of their data.
    pub bytes: u64,
    /// Where the next step goes on; none when all were looked at.
    pub next: Option<Bytes>,
}

impl Shared {
    /// See [`PackStore::scrub`](super::PackStore::scrub).
    pub(super) fn scrub(&self, cursor: Option<&[u8]>, budget: u64) -> Result<Scrubbed, PackError> {
        let mut page = self.located(cursor, BLOCKS_AT_ONCE)?;
        let is_last = page.len() < BLOCKS_AT_ONCE;
        let mut bytes = 0;
        let within = page.iter().take_while(|(_, location)| {
            let is_room = bytes < budget;
            bytes += u64::from(location.length);
            is_room
        });
        let count = within.count().max(usize::from(!page.is_empty()));
        let is_cut = count < page.len();
        page.truncate(count);
        let next = page.last().map(|(multihash, _)| multihash.clone()).filter(|_| is_cut || !is_last);
        let mut scrubbed = Scrubbed { next, blocks: count as u64, ..Scrubbed::default() };
        // In the order of the disk, not of the hashes.
        page.sort_by_key(|(_, location)| *location);
        let mut last = None;
        for (multihash, location) in page {
            if last != Some(location.segment) {
                last = Some(location.segment);
                self.look_for(location.segment)?;
            }
            scrubbed.bytes += u64::from(location.length);
            self.forget_cached(location);
            if let Some(what) = self.what_is_wrong(&multihash)? {
                scrubbed.bad.push(BadBlock { multihash, what });
            }
        }
        Ok(scrubbed)
    }

    /// See [`PackStore::quarantine`](super::PackStore::quarantine).
    pub(super) fn quarantine(&self, multihashes: &[&[u8]]) -> Result<Vec<Bytes>, PackError> {
        let mut taken = Vec::new();
        for multihash in multihashes {
            let Some(location) = self.locate(multihash)? else { continue };
            let is_bad = match self.read(multihash, location) {
                Ok(Some(_)) => false,
                Ok(None) | Err(PackError::CorruptBlock { .. } | PackError::Io { .. }) => true,
                Err(error) => return Err(error),
            };
            if is_bad && self.delete_at(multihash, location)? {
                taken.push(Bytes::copy_from_slice(multihash));
            }
        }
        Ok(taken)
    }

    /// Through the index: the block may have been moved or deleted since it was listed.
    fn what_is_wrong(&self, multihash: &[u8]) -> Result<Option<String>, PackError> {
        match self.get(multihash) {
            Ok(_) => Ok(None),
            Err(PackError::CorruptBlock { what, .. }) => Ok(Some(what.to_owned())),
            Err(error @ PackError::Io { .. }) => Ok(Some(error.to_string())),
            Err(error) => Err(error),
        }
    }

    /// A segment whose file was removed or replaced behind our back is not read from an open file any more, nor written to.
    fn look_for(&self, segment: u32) -> Result<(), PackError> {
        if self.files.is_in_place(segment).map_err(PackError::io("looking for a segment"))? {
            return Ok(());
        }
        tracing::error!(file = %self.files.path(segment).display(), "the file of a segment is gone");
        let mut writer = self.writer.lock();
        if writer.segment == segment { self.rotate(&mut writer) } else { Ok(()) }
    }

    /// What was read before stays in the memory of the system: the disk itself is to be looked at.
    fn forget_cached(&self, location: Location) {
        let Ok(file) = self.files.get(location.segment) else { return };
        let length = NonZeroU64::new(u64::from(location.length) + RECORD_HEADER as u64);
        // Only advice; where it is not taken, the copy in memory is checked.
        rustix::fs::fadvise(&*file, u64::from(location.offset), length, rustix::fs::Advice::DontNeed).ok();
    }
}
