//! The elements of one key that are alive: added by some merged block and removed by none.
//!
//! Kept beside the value that the key shows (`row`). The first entry is the winner; values are not repeated with the others, they stand in the
//! blocks. A key that is written again and again without removal gathers elements for ever (so Go's rule wants it): behind [`INLINE_MAX`] the
//! lowest ones move to rows of their own.

use super::draft::Draft;
use super::id::BlockId;
use super::values::Values;
use super::{CrdtError, row};
use bytes::Bytes;
use store::Area;
use wire::protobuf::put_varint;

/// Entries in the row of the key.
const INLINE_MAX: usize = 32;

/// Entries that stay there when the row has become too long.
const INLINE_KEPT: usize = 16;

/// An element: the priority and name of the block that added it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) priority: u64,
    pub(crate) block: BlockId,
}

/// The living elements of one key.
pub(crate) struct Alive<'k> {
    key: &'k [u8],
    /// The winner first, the others in any order.
    entries: Vec<Entry>,
    /// How many have rows of their own; all of these have at most the priority of every entry above.
    spilled: u64,
    /// What the key shows: the winner's value, or a wish that is not yet told.
    shown: Option<Bytes>,
    /// Where the row stands now.
    stands_in: Option<Area>,
}

impl<'k> Alive<'k> {
    pub(crate) fn load(draft: &Draft, key: &'k [u8]) -> Result<Alive<'k>, CrdtError> {
        let damaged = || CrdtError::damaged("elements", key);
        if let Some(row) = draft.get(Area::Pins, key)? {
            let (spilled, entries, value) = row::decode(&row).ok_or_else(damaged)?;
            return Ok(Alive { key, entries, spilled, shown: Some(value), stands_in: Some(Area::Pins) });
        }
        let hidden = draft.get(Area::Elements, key)?;
        let stands_in = hidden.is_some().then_some(Area::Elements);
        let (spilled, entries) = hidden.map_or(Some((0, Vec::new())), |row| row::decode_hidden(&row)).ok_or_else(damaged)?;
        Ok(Alive { key, entries, spilled, shown: None, stands_in })
    }

    pub(crate) fn save(mut self, draft: &mut Draft) {
        if self.entries.len() > INLINE_MAX {
            self.entries[1..].sort_unstable_by(|a, b| b.cmp(a));
            for entry in self.entries.split_off(INLINE_KEPT) {
                draft.put(Area::Elements, self.row_of(&entry.block), varint(entry.priority));
                self.spilled += 1;
            }
        }
        let (area, row) = match &self.shown {
            Some(value) => (Area::Pins, Some(row::encode(self.spilled, &self.entries, value))),
            None => (Area::Elements, (!self.entries.is_empty()).then(|| row::encode_hidden(self.spilled, &self.entries))),
        };
        draft.more_pins += i64::from(self.shown.is_some()) - i64::from(self.stands_in == Some(Area::Pins));
        if let Some(old) = self.stands_in.filter(|old| row.is_none() || *old != area) {
            draft.delete(old, self.key);
        }
        if let Some(row) = row {
            draft.put(area, self.key, row);
        }
    }

    /// What the key shows.
    pub(crate) fn shown(&self) -> Option<&Bytes> {
        self.shown.as_ref()
    }

    /// Lets it show something else; what it showed before.
    pub(crate) fn show(&mut self, value: Option<Bytes>) -> Option<Bytes> {
        std::mem::replace(&mut self.shown, value)
    }

    pub(crate) fn key(&self) -> &'k [u8] {
        self.key
    }

    /// Takes the winner out, as if it had not been added; whoever does so adds another element or shows nothing.
    pub(crate) fn forget_winner(&mut self) {
        if !self.entries.is_empty() {
            self.entries.remove(0);
        }
    }

    pub(crate) fn winner(&self) -> Option<Entry> {
        self.entries.first().copied()
    }

    /// Every living element, in order of their blocks.
    pub(crate) fn blocks(&self, draft: &Draft) -> Result<Vec<BlockId>, CrdtError> {
        let mut blocks: Vec<BlockId> = self.entries.iter().map(|entry| entry.block).collect();
        blocks.extend(self.spilled_entries(draft)?.iter().map(|entry| entry.block));
        blocks.sort_unstable();
        Ok(blocks)
    }

    /// Takes elements away and adds one, then finds the winner: the highest priority, among equals the greatest value.
    pub(crate) fn change(
        &mut self,
        removed: &[BlockId],
        added: Option<Entry>,
        draft: &mut Draft,
        values: &mut Values,
    ) -> Result<(), CrdtError> {
        let winner = self.winner();
        for block in removed {
            self.remove(block, draft)?;
        }
        let is_winner_gone = winner != self.winner();
        if is_winner_gone && self.spilled > 0 {
            self.take_back_spilled(draft)?;
        }
        let is_contested = added.is_some_and(|added| self.winner().is_none_or(|winner| added.priority >= winner.priority));
        self.entries.extend(added);
        if is_winner_gone || is_contested {
            self.choose(draft, values)?;
        }
        Ok(())
    }

    fn remove(&mut self, block: &BlockId, draft: &mut Draft) -> Result<(), CrdtError> {
        if let Some(position) = self.entries.iter().position(|entry| entry.block == *block) {
            self.entries.remove(position);
        } else if self.spilled > 0 {
            let row = self.row_of(block);
            if draft.get(Area::Elements, &row)?.is_some() {
                draft.delete(Area::Elements, &row);
                self.spilled -= 1;
            }
        }
        Ok(())
    }

    fn take_back_spilled(&mut self, draft: &mut Draft) -> Result<(), CrdtError> {
        for entry in self.spilled_entries(draft)? {
            draft.delete(Area::Elements, self.row_of(&entry.block));
            self.entries.push(entry);
        }
        self.spilled = 0;
        Ok(())
    }

    fn spilled_entries(&self, draft: &Draft) -> Result<Vec<Entry>, CrdtError> {
        if self.spilled == 0 {
            return Ok(Vec::new());
        }
        let rows = draft.scan(Area::Elements, self.key)?;
        let others = rows.into_iter().filter(|(row, _)| row.len() > self.key.len());
        others.map(|(row, value)| decode_spilled(&row, &value).ok_or_else(|| CrdtError::damaged("elements", &row))).collect()
    }

    /// Puts the winner first.
    fn choose(&mut self, draft: &Draft, values: &mut Values) -> Result<(), CrdtError> {
        let Some(top) = self.entries.iter().map(|entry| entry.priority).max() else { return Ok(()) };
        let rivals: Vec<usize> = (0..self.entries.len()).filter(|at| self.entries[*at].priority == top).collect();
        let mut best: Option<(usize, Bytes)> = None;
        if let [only] = rivals[..] {
            self.entries.swap(0, only);
            return Ok(());
        }
        for at in rivals {
            let value = values.get(draft, &self.entries[at].block, self.key)?;
            if best.as_ref().is_none_or(|(_, best)| value > *best && !values.keeps_first_of_equals) {
                best = Some((at, value));
            }
        }
        if let Some((at, _)) = best {
            self.entries.swap(0, at);
        }
        Ok(())
    }

    /// No CID is another CID with more bytes behind it, so these rows lie right behind the key's own and collide with no key.
    fn row_of(&self, block: &BlockId) -> Vec<u8> {
        [self.key, &block.0[..]].concat()
    }
}

fn decode_spilled(row: &[u8], mut value: &[u8]) -> Option<Entry> {
    let priority = take_varint(&mut value)?;
    Some(Entry { priority, block: BlockId(*row.last_chunk()?) })
}

pub(crate) fn varint(number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, number);
    out
}

pub(crate) fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for position in 0..10 {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f).checked_shl(7 * position)?;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::key;
    use std::sync::Arc;
    use store::{MemoryStore, Store};

    fn entry(number: u64) -> Entry {
        Entry { priority: number, block: BlockId([number as u8; 32]) }
    }

    fn change(draft: &mut Draft, removed: &[BlockId], added: Option<Entry>) -> Option<Entry> {
        let key = key(1);
        let mut alive = Alive::load(draft, &key).expect("reads");
        alive.change(removed, added, draft, &mut Values::default()).expect("changes");
        let winner = alive.winner();
        alive.save(draft);
        winner
    }

    #[test]
    fn a_row_stands_where_the_key_shows_something_or_nothing() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let mut draft = Draft::new(store.snapshot());
        let key = key(1);
        let stands = |draft: &Draft| [Area::Pins, Area::Elements].map(|area| draft.get(area, &key).expect("reads").is_some());
        change(&mut draft, &[], Some(entry(1)));
        assert_eq!(stands(&draft), [false, true]);
        for (value, expected) in [(Some("x"), [true, false]), (Some("y"), [true, false]), (None, [false, true]), (Some("z"), [true, false])]
        {
            let mut alive = Alive::load(&draft, &key).expect("reads");
            alive.show(value.map(Bytes::from));
            alive.save(&mut draft);
            assert_eq!(stands(&draft), expected, "{value:?}");
            let alive = Alive::load(&draft, &key).expect("reads");
            assert_eq!((alive.winner(), alive.shown().cloned()), (Some(entry(1)), value.map(Bytes::from)));
        }
        change(&mut draft, &[entry(1).block], None);
        assert_eq!(stands(&draft), [true, false], "a wish that is not yet told needs no element");
        let mut alive = Alive::load(&draft, &key).expect("reads");
        alive.show(None);
        alive.save(&mut draft);
        assert_eq!(stands(&draft), [false, false]);
    }

    #[test]
    fn many_elements_of_one_key_spill_and_come_back() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let mut draft = Draft::new(store.snapshot());
        let count = 100;
        for number in 1..=count {
            assert_eq!(change(&mut draft, &[], Some(entry(number))), Some(entry(number)));
        }
        let key = key(1);
        assert!(draft.scan(Area::Elements, &key).expect("scans").len() > 60, "most have rows of their own");
        let all: Vec<BlockId> = (1..=count).map(|number| entry(number).block).collect();
        assert_eq!(Alive::load(&draft, &key).and_then(|alive| alive.blocks(&draft)).expect("reads"), all);
        // A spilled one, one that is not there, then winner after winner.
        assert_eq!(change(&mut draft, &[entry(1).block, entry(200).block], None), Some(entry(count)));
        for number in (2..=count).rev() {
            let next = (number > 2).then(|| entry(number - 1));
            assert_eq!(change(&mut draft, &[entry(number).block], None), next, "{number}");
        }
        assert!(draft.scan(Area::Elements, &key).expect("scans").is_empty());
    }
}
