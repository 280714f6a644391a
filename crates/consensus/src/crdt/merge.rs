//! Merging one block into the set: pure reads and writes of a draft, the same in any order of blocks.

use super::CrdtError;
use super::alive::{Alive, Entry, varint};
use super::block::{Block, Tombstones};
use super::draft::Draft;
use super::id::BlockId;
use super::journal::Journal;
use super::snapshot::{Settled, Unsure};
use super::values::Values;
use crate::Change;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use store::Area;

/// What `Area::Processed` says about a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// Its effects are in the set.
    Merged,
    /// It cannot be read, so it has none.
    Refused,
    /// Its author may not write, so they do not count; it may count later.
    LeftOut,
}

const MERGED: u8 = 1;
const LEFT_OUT: u8 = 2;
const REFUSED: u8 = 0;

pub(crate) fn mark(draft: &Draft, id: &BlockId) -> Result<Option<Mark>, CrdtError> {
    Ok(draft.get(Area::Processed, &id.0)?.map(|row| read_mark(&row)))
}

pub(crate) fn read_mark(row: &[u8]) -> Mark {
    match row.first() {
        Some(&MERGED) => Mark::Merged,
        Some(&LEFT_OUT) => Mark::LeftOut,
        _ => Mark::Refused,
    }
}

pub(crate) fn mark_refused(draft: &mut Draft, id: &BlockId) {
    draft.put(Area::Processed, id.0, vec![REFUSED]);
}

pub(crate) fn mark_left_out(draft: &mut Draft, id: &BlockId, priority: u64) {
    draft.put(Area::Processed, id.0, [&[LEFT_OUT], &varint(priority)[..]].concat());
}

/// The set, during one step.
pub(crate) struct Set<'s> {
    pub(crate) draft: &'s mut Draft,
    pub(crate) values: &'s mut Values,
    pub(crate) journal: &'s Journal,
    pub(crate) changes: &'s mut Vec<Change>,
    /// While elements of pages are compared with the history.
    pub(crate) unsure: Option<&'s mut Unsure>,
}

impl Set<'_> {
    /// Stores the block and lets it take effect. It must not have been merged before.
    pub(crate) fn merge(&mut self, id: BlockId, bytes: Bytes, block: Block) -> Result<(), CrdtError> {
        self.draft.put(Area::DagBlocks, id.0, bytes);
        self.draft.put(Area::Processed, id.0, [&[MERGED], &varint(block.priority)[..]].concat());
        let removed_before = self.tombstones_before(&id)?;
        let elements = Arc::new(block.elements);
        self.values.keep(id, elements.clone());
        let mut removed = self.removals(block.tombstones)?;
        for key in elements.keys().filter(|key| !removed_before.contains(&key[..])) {
            let removed = removed.remove(key).unwrap_or_default();
            self.change(key.clone(), &removed, Some(Entry { priority: block.priority, block: id }))?;
        }
        for (key, removed) in removed {
            self.change(key, &removed, None)?;
        }
        Ok(())
    }

    /// Keys of this block's elements whose tombstone came earlier. Each is needed once: a block is merged once.
    fn tombstones_before(&mut self, id: &BlockId) -> Result<BTreeSet<Bytes>, CrdtError> {
        let rows = self.draft.scan(Area::Tombstones, &id.0)?;
        for row in rows.keys() {
            self.draft.delete(Area::Tombstones, row);
        }
        Ok(rows.into_keys().map(|row| row.slice(id.0.len()..)).collect())
    }

    /// Which elements go: those of merged blocks. A tombstone for a block that is not here yet is kept until it comes.
    fn removals(&mut self, tombstones: Tombstones) -> Result<Tombstones, CrdtError> {
        let mut known: BTreeMap<BlockId, bool> = BTreeMap::new();
        let mut removals = BTreeMap::new();
        for (key, blocks) in tombstones {
            let mut merged = Vec::with_capacity(blocks.len());
            for block in blocks {
                let is_merged = match known.get(&block) {
                    Some(is_merged) => *is_merged,
                    None => mark(self.draft, &block)? == Some(Mark::Merged),
                };
                known.insert(block, is_merged);
                if !is_merged {
                    self.draft.put(Area::Tombstones, [&block.0[..], &key].concat(), Bytes::new());
                }
                // A page may have brought its element before it.
                if is_merged || self.unsure.is_some() {
                    merged.push(block);
                }
            }
            if !merged.is_empty() {
                removals.insert(key, merged);
            }
        }
        Ok(removals)
    }

    fn change(&mut self, key: Vec<u8>, removed: &[BlockId], mut added: Option<Entry>) -> Result<(), CrdtError> {
        let mut alive = Alive::load(self.draft, &key)?;
        let mut before = alive.winner();
        match self.settle_unsure(&mut alive, removed, added)? {
            Settled::Known if removed.is_empty() => return Ok(()),
            Settled::Known => added = None,
            Settled::Dropped => before = None,
            Settled::Nothing => {}
        }
        alive.change(removed, added, self.draft, self.values)?;
        let after = alive.winner();
        if before == after || self.journal.get(&key).is_some() {
            alive.save(self.draft);
            return Ok(());
        }
        let value = match after {
            Some(winner) => Some(self.values.get(self.draft, &winner.block, &key)?),
            None => None,
        };
        let shown = alive.show(value.clone());
        alive.save(self.draft);
        note(self.changes, key, shown, value);
        Ok(())
    }
}

/// Makes a value visible and notes the change.
pub(crate) fn show(draft: &mut Draft, changes: &mut Vec<Change>, key: Vec<u8>, after: Option<Bytes>) -> Result<(), CrdtError> {
    let mut alive = Alive::load(draft, &key)?;
    if alive.shown() == after.as_ref() {
        return Ok(());
    }
    let before = alive.show(after.clone());
    alive.save(draft);
    note(changes, key, before, after);
    Ok(())
}

fn note(changes: &mut Vec<Change>, key: Vec<u8>, before: Option<Bytes>, after: Option<Bytes>) {
    if before != after {
        changes.push(Change { key, before, after });
    }
}
