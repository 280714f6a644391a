//! Reading everything once in a while, so that damage is found while other peers still have the block.

use super::{PackError, Shared};
use bytes::Bytes;

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
    /// The damaged blocks: to be deleted and fetched again.
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
        for (multihash, location) in page {
            scrubbed.bytes += u64::from(location.length);
            // Through the index again: the block may have been moved or deleted since it was listed.
            match self.get(&multihash) {
                Ok(_) => {}
                Err(PackError::CorruptBlock { what, .. }) => scrubbed.bad.push(BadBlock { multihash, what: what.to_owned() }),
                Err(error @ PackError::Io { .. }) => scrubbed.bad.push(BadBlock { multihash, what: error.to_string() }),
                Err(error) => return Err(error),
            }
        }
        Ok(scrubbed)
    }
}
