//! The set itself, page by page, between Pinfold peers: a peer that joins shows all pins in seconds and walks the history behind them afterwards.
//!
//! ```text
//!   history is long ──► pages of rows ──► unsure elements, shown ──► the walk meets the block of each: sure ──► none left: done
//!                                                                                                └─► some left: swept out
//! ```
//!
//! What a page says is believed only until the history was read: an element that came from a page is *unsure* (its block is not merged here).
//! A block that is merged makes its own elements sure, or mends what a page said wrongly; a tombstone takes an unsure element like any other, and
//! is kept for the block that is still to come. Each unsure element is counted once and leaves the count once, so at the end of the walk the count
//! says whether all was true. So nobody must give the set of one moment: pages may come from several peers, before and after changes. Each page
//! names the heads that it was made of; the history is read when it holds all of them.
//!
//! Only keys with one living element are given, without wishes that are not yet told; what is left out comes with the walk. An unsure element is
//! therefore the only one of its key, or the winner above sure ones: where it would be compared with another by its value, which only its block
//! has, it is dropped instead and comes back with that block.

use super::CrdtError;
use super::alive::{Alive, Entry, take_varint, varint};
use super::block::PRIORITY_MAX;
use super::draft::Draft;
use super::id::{BlockId, is_key};
use super::journal::Journal;
use super::merge::{Mark, Set, mark};
use super::row;
use super::wants::Wants;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use store::{Area, Snapshot};
use wire::protobuf::{Reader, put_bytes, put_varint};

/// Rows looked at for one page, and bytes after which no row is added. A page is below 3.1 MiB, as one row has at most 2 MiB.
const PAGE_ROWS: usize = 16 << 10;
const PAGE_BYTES: usize = 1 << 20;

/// Heads that a page names.
const HEADS_MAX: usize = 1024;

/// Elements that came from a page and whose block is not merged, in `Area::Meta`; the row is there while a history is compared with pages.
const UNSURE: &[u8] = b"crdt/unsure";

/// Rows compared in one step at the end of a walk that left unsure ones.
const SWEEP_ROWS: usize = 4096;

/// What one answer holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Page {
    /// Up to which key it goes; none at the end of the set.
    pub(crate) last: Option<Bytes>,
    /// The heads of the peer that gave it.
    pub(crate) heads: Vec<BlockId>,
    rows: Vec<PageRow>,
}

#[derive(Debug, PartialEq, Eq)]
struct PageRow {
    key: Bytes,
    entry: Entry,
    value: Bytes,
}

/// Answers a question, which is the key behind which the page begins; nothing when this peer does not know the whole set for sure.
pub fn answer(view: Arc<dyn Snapshot>, after: &[u8]) -> Result<Vec<u8>, CrdtError> {
    let is_sure = view.get(Area::Meta, UNSURE)?.is_none() && !Wants::is_history_missing(&*view)?;
    if !is_sure {
        return Ok(Vec::new());
    }
    let draft = Draft::new(view.clone());
    let pending = Journal::load(&draft)?;
    let mut blocks: BTreeMap<BlockId, u64> = BTreeMap::new();
    let (mut out, mut last, mut damaged) = (Vec::new(), Vec::new(), None);
    let after = (!after.is_empty()).then_some(after);
    let mut after = after.map(<[u8]>::to_vec);
    let (mut seen, mut is_last) = (0, false);
    while seen < PAGE_ROWS && out.len() < PAGE_BYTES && !is_last {
        const PART: usize = 1024;
        let mut is_full = false;
        let count = view.visit(Area::Pins, after.as_deref(), b"", PART, &mut |key, stored| {
            is_full |= out.len() >= PAGE_BYTES;
            if is_full {
                return;
            }
            last.clear();
            last.extend_from_slice(key);
            if pending.get(key).is_some() {
                return;
            }
            match row::decode(&Bytes::copy_from_slice(stored)) {
                Some((0, entries, value)) => {
                    if let [entry] = entries[..] {
                        put_row(&mut out, &mut blocks, key, entry, &value);
                    }
                }
                Some(_) => {}
                None => damaged = Some(CrdtError::damaged("row", key)),
            }
        })?;
        seen += count;
        is_last = count < PART && !is_full;
        after = Some(last.clone());
    }
    if let Some(damaged) = damaged {
        return Err(damaged);
    }
    for (head, _) in view.scan(Area::Heads, None, b"", HEADS_MAX)? {
        put_bytes(&mut out, 4, &head);
    }
    put_bytes(&mut out, 3, if is_last { b"" } else { &last });
    Ok(out)
}

/// A row names its block by a number, which the first row with that block gives it.
fn put_row(out: &mut Vec<u8>, blocks: &mut BTreeMap<BlockId, u64>, key: &[u8], entry: Entry, value: &[u8]) {
    let next = blocks.len() as u64;
    let number = *blocks.entry(entry.block).or_insert_with(|| {
        put_bytes(out, 1, &entry.block.0);
        next
    });
    let mut inner = Vec::with_capacity(key.len() + value.len() + 16);
    put_varint(&mut inner, number);
    put_varint(&mut inner, entry.priority);
    put_varint(&mut inner, key.len() as u64);
    inner.extend_from_slice(key);
    inner.extend_from_slice(value);
    put_bytes(out, 2, &inner);
}

/// Reads an answer; none when it is no page, or one of a peer that has none to give.
pub(crate) fn decode_page(answer: &Bytes) -> Option<Page> {
    let mut page = Page::default();
    let mut blocks: Vec<BlockId> = Vec::new();
    let mut is_whole = false;
    for field in Reader::new(answer) {
        let field = field.ok()?;
        let bytes = field.bytes().ok()?;
        match field.number {
            1 => blocks.push(BlockId(bytes.try_into().ok()?)),
            2 if page.rows.len() < 2 * PAGE_ROWS => page.rows.push(read_row(answer, bytes, &blocks)?),
            3 => {
                is_whole = true;
                page.last = (!bytes.is_empty()).then(|| answer.slice_ref(bytes));
            }
            4 if page.heads.len() < HEADS_MAX => page.heads.push(BlockId(bytes.try_into().ok()?)),
            _ => return None,
        }
    }
    is_whole.then_some(page)
}

/// Behind which key the next page begins; none when this is the last one, or no page.
pub(crate) fn last_of(answer: &Bytes) -> Option<Vec<u8>> {
    // It stands at the end, but where exactly depends on the rows.
    let fields = Reader::new(answer).map_while(Result::ok).filter(|field| field.number == 3);
    fields.last().and_then(|field| field.bytes().ok()).filter(|key| !key.is_empty()).map(<[u8]>::to_vec)
}

fn read_row(answer: &Bytes, mut row: &[u8], blocks: &[BlockId]) -> Option<PageRow> {
    let block = *blocks.get(usize::try_from(take_varint(&mut row)?).ok()?)?;
    let priority = take_varint(&mut row)?;
    let length = usize::try_from(take_varint(&mut row)?).ok()?;
    let (key, value) = row.split_at_checked(length)?;
    let is_sound = (1..=PRIORITY_MAX).contains(&priority) && is_key(key);
    is_sound.then(|| PageRow { key: answer.slice_ref(key), entry: Entry { priority, block }, value: answer.slice_ref(value) })
}

/// How far a machine is with pages; kept over restarts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unsure {
    /// Elements of pages whose block is not merged.
    pub(crate) count: u64,
    /// What those gave who gave pages had merged: as far as it is not known to be here.
    pub(crate) heads: BTreeSet<BlockId>,
    /// What pages said wrongly, since the start.
    pub(crate) mended: u64,
}

impl Unsure {
    /// Goes on with the comparison that a stop cut; none when there is none.
    pub(crate) fn load(draft: &Draft) -> Result<Option<Unsure>, CrdtError> {
        let Some(row) = draft.get(Area::Meta, UNSURE)? else { return Ok(None) };
        let mut rest = &row[..];
        let read = take_varint(&mut rest).filter(|_| rest.len() % 32 == 0);
        let count = read.ok_or_else(|| CrdtError::damaged("unsure elements", UNSURE))?;
        let heads = rest.chunks_exact(32).filter_map(|head| Some(BlockId(head.try_into().ok()?))).collect();
        Ok(Some(Unsure { count, heads, mended: 0 }))
    }

    /// Written with every step that changes it.
    pub(crate) fn save(unsure: Option<&Unsure>, draft: &mut Draft) {
        match unsure {
            Some(unsure) => {
                let mut row = varint(unsure.count);
                unsure.heads.iter().for_each(|head| row.extend_from_slice(&head.0));
                draft.put(Area::Meta, UNSURE, row);
            }
            None => draft.delete(Area::Meta, UNSURE),
        }
    }
}

/// What became of an unsure element before its key changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    /// There is none, or it stays, or it goes by the tombstone.
    Nothing,
    /// It is the added one, and sure now.
    Known,
    /// It was dropped: what is added decides what the key shows.
    Dropped,
}

impl Set<'_> {
    /// Shows what a page says, where nothing is known that says more.
    pub(crate) fn take_page(&mut self, page: Page) -> Result<(), CrdtError> {
        let mut known: BTreeMap<BlockId, bool> = BTreeMap::new();
        for PageRow { key, entry, value } in page.rows {
            let is_known = match known.get(&entry.block) {
                Some(is_known) => *is_known,
                None => mark(self.draft, &entry.block)?.is_some(),
            };
            known.insert(entry.block, is_known);
            let is_removed = || self.draft.get(Area::Tombstones, &[&entry.block.0[..], &key].concat());
            if is_known || is_removed()?.is_some() {
                continue;
            }
            let mut alive = Alive::load(self.draft, &key)?;
            if alive.shown().is_some() || alive.winner().is_some() || self.journal.get(&key).is_some() {
                continue;
            }
            alive.change(&[], Some(entry), self.draft, self.values)?;
            alive.show(Some(value.clone()));
            alive.save(self.draft);
            self.changes.push(crate::Change { key: key.to_vec(), before: None, after: Some(value) });
            if let Some(unsure) = self.unsure.as_deref_mut() {
                unsure.count += 1;
            }
        }
        Ok(())
    }

    /// Before `alive` changes: what becomes of its unsure element.
    pub(crate) fn settle_unsure(&mut self, alive: &mut Alive, removed: &[BlockId], added: Option<Entry>) -> Result<Settled, CrdtError> {
        let (Some(unsure), Some(winner)) = (self.unsure.as_deref_mut(), alive.winner()) else { return Ok(Settled::Nothing) };
        let is_its_block = added.is_some_and(|added| added.block == winner.block);
        if !is_its_block && mark(self.draft, &winner.block)? == Some(Mark::Merged) {
            return Ok(Settled::Nothing);
        }
        let is_removed = removed.contains(&winner.block);
        let is_rivalled = added.is_some_and(|added| added.priority >= winner.priority);
        if !is_removed && !is_its_block && !is_rivalled {
            return Ok(Settled::Nothing);
        }
        unsure.count = unsure.count.saturating_sub(1);
        if is_removed {
            return Ok(Settled::Nothing);
        }
        if is_its_block {
            let is_pending = self.journal.get(alive.key()).is_some();
            if added == Some(winner) && (is_pending || alive.shown() == Some(&self.values.get(self.draft, &winner.block, alive.key())?)) {
                return Ok(Settled::Known);
            }
            unsure.mended += 1;
        }
        alive.forget_winner();
        Ok(Settled::Dropped)
    }

    /// Takes out, from `after` on, what the history does not have; the last key looked at, none at the end.
    pub(crate) fn sweep(&mut self, after: Option<&[u8]>) -> Result<Option<Vec<u8>>, CrdtError> {
        let rows = self.draft.view().scan(Area::Pins, after, b"", SWEEP_ROWS)?;
        for (key, _) in &rows {
            let mut alive = Alive::load(self.draft, key)?;
            let Some(winner) = alive.winner() else { continue };
            let is_merged = mark(self.draft, &winner.block)? == Some(Mark::Merged);
            let value = if is_merged { self.values.get(self.draft, &winner.block, key).ok() } else { None };
            if value.is_some() && value.as_ref() == alive.shown() {
                continue;
            }
            if value.is_none() {
                alive.change(&[winner.block], None, self.draft, self.values)?;
            }
            let value = match alive.winner() {
                Some(winner) => Some(self.values.get(self.draft, &winner.block, key)?),
                None => None,
            };
            let shown = alive.show(value.clone());
            alive.save(self.draft);
            if let Some(unsure) = self.unsure.as_deref_mut() {
                unsure.mended += 1;
            }
            self.changes.push(crate::Change { key: key.to_vec(), before: shown, after: value });
        }
        Ok((rows.len() == SWEEP_ROWS).then(|| rows.last().map(|(key, _)| key.to_vec())).flatten())
    }
}

#[cfg(test)]
mod tests;
