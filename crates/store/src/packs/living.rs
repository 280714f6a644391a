//! What lives in segments that are being rewritten.

use super::index::Location;
use super::{Entry, PackError, Shared};
use crate::{Area, Snapshot};
use bytes::Bytes;
use std::collections::{BTreeMap, HashSet};

/// Entries of the index read in one go.
const PAGE: usize = 64 * 1024;
/// One look-up takes as long as so many entries of a pass.
const LOOK_UP: u64 = 32;
/// Deletes that are noted; when there are more, what was copied is looked up again.
pub(super) const DELETED_MOST: usize = 64 * 1024;

/// Which records of some segments live.
pub(super) enum Living {
    /// Where they begin, by segment, the last one first, so that [`Living::has`] takes them from the end.
    Listed(BTreeMap<u32, Vec<u32>>),
    /// The index is asked for each.
    Asked,
}

/// Blocks that left the index since the pass over it.
#[derive(Default)]
pub(super) struct Deleted {
    multihashes: HashSet<Bytes>,
    /// There were too many to be noted.
    is_over: bool,
}

impl Living {
    /// Whether the record there lives; none where the index must be asked. To be called with rising offsets for each segment.
    pub(super) fn has(&mut self, location: Location) -> Option<bool> {
        let Living::Listed(places) = self else { return None };
        let Some(places) = places.get_mut(&location.segment) else { return Some(false) };
        // Records that cannot be read are passed by.
        while places.last().is_some_and(|place| *place < location.offset) {
            places.pop();
        }
        Some(places.last() == Some(&location.offset))
    }
}

impl Deleted {
    pub(super) fn note(&mut self, multihash: &[u8]) {
        if self.multihashes.len() < DELETED_MOST {
            self.multihashes.insert(Bytes::copy_from_slice(multihash));
        } else {
            self.is_over = true;
        }
    }

    /// Whether this block was deleted; none when only the index knows.
    pub(super) fn has(&self, multihash: &[u8]) -> Option<bool> {
        if self.is_over { None } else { Some(self.multihashes.contains(multihash)) }
    }
}

impl Shared {
    /// What lives in `victims`: by one pass over the index where that is less work than to look up what they hold. Deletes are to be
    /// watched already.
    pub(super) fn living(&self, victims: &[(u32, Entry)]) -> Result<Living, PackError> {
        let all: u64 = self.table.read().segments.values().map(|entry| entry.tally.blocks).sum();
        let wanted: u64 = victims.iter().map(|(_, entry)| entry.tally.blocks).sum();
        if wanted == 0 || all / LOOK_UP > wanted {
            return Ok(Living::Asked);
        }
        let mut places: BTreeMap<u32, Vec<u32>> =
            victims.iter().map(|(segment, entry)| (*segment, Vec::with_capacity(entry.tally.blocks as usize))).collect();
        // The watch began before, so whatever differs from this snapshot later was noted.
        let snapshot = {
            let _nothing_is_deleted = self.indexing.lock();
            self.index.snapshot()
        };
        let mut after = None;
        while let Some(last) = page(&*snapshot, after, &mut places)? {
            after = Some(last);
        }
        for places in places.values_mut() {
            places.sort_unstable_by(|one, other| other.cmp(one));
        }
        Ok(Living::Listed(places))
    }
}

/// Takes the places out of some entries; the last key, or none at the end.
fn page(snapshot: &dyn Snapshot, after: Option<Vec<u8>>, places: &mut BTreeMap<u32, Vec<u32>>) -> Result<Option<Vec<u8>>, PackError> {
    let mut last = Vec::new();
    let count = snapshot.visit(Area::BlockIndex, after.as_deref(), b"", PAGE, &mut |multihash, value| {
        last.clear();
        last.extend_from_slice(multihash);
        if let Some(location) = Location::decode(value)
            && let Some(places) = places.get_mut(&location.segment)
        {
            places.push(location.offset);
        }
    })?;
    Ok((count == PAGE).then_some(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_found_in_rising_order_and_passed_by_where_no_record_is() {
        let mut living = Living::Listed(BTreeMap::from([(1, vec![90, 70, 50, 30]), (2, vec![30])]));
        let mut has = |segment, offset| living.has(Location { segment, offset, length: 1 });
        let found =
            [(1, 10), (1, 30), (2, 30), (1, 40), (1, 70), (1, 80), (1, 90), (1, 99), (3, 30)].map(|(one, two)| has(one, two) == Some(true));
        assert_eq!(found, [false, true, true, false, true, false, true, false, false]);
        assert_eq!(Living::Asked.has(Location { segment: 1, offset: 1, length: 1 }), None);
    }

    #[test]
    fn more_deletes_than_are_noted_leave_the_answer_to_the_index() {
        let mut deleted = Deleted::default();
        (0..DELETED_MOST).for_each(|number| deleted.note(&number.to_be_bytes()));
        assert_eq!((deleted.has(&7usize.to_be_bytes()), deleted.has(b"other")), (Some(true), Some(false)));
        deleted.note(b"other");
        assert_eq!(deleted.has(b"other"), None);
    }
}
