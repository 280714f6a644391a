//! Judges blocks by their authors, leaves out those that do not count, and takes them up again when they do.

use super::{Machine, Round};
use crate::crdt::CrdtError;
use crate::crdt::author::{AuthorNumbers, AuthorRules, Fault, Finding, Signed};
use crate::crdt::block::Block;
use crate::crdt::draft::Draft;
use crate::crdt::event::Effect;
use crate::crdt::id::BlockId;
use crate::crdt::merge::{mark, mark_left_out};
use bytes::Bytes;
use std::collections::BTreeSet;
use store::Area;
use types::{Millis, PeerId};

/// Rows in `Area::Meta`: this, then the digest of a block that is left out; the value is its fault, then 1 once a block that counts links to it.
const ROW: &[u8] = b"crdt/left-out/";

/// Rows looked at again in one step.
const AGAIN_MAX: usize = 256;

/// A block of an unknown author makes the view incomplete for so long: the record that makes the author known is on its way, or never comes.
const RECORD_ON_ITS_WAY: Millis = Millis(30_000);

/// Findings kept for people.
const FINDINGS_MAX: usize = 16;

/// The authors, as the machine knows them.
pub(super) struct Authors {
    rules: Option<AuthorRules>,
    numbers: AuthorNumbers,
    /// Of those that are left out, how many for an unknown author, and since when the last.
    strangers: u64,
    stranger_since: Millis,
    /// What is left out is looked at again, from behind this row.
    again: Option<Bytes>,
}

impl Authors {
    pub(super) fn open(draft: &Draft, rules: Option<AuthorRules>, now: Millis) -> Result<Authors, CrdtError> {
        let required = rules.as_ref().is_some_and(|rules| rules.required);
        let rows = draft.scan(Area::Meta, ROW)?;
        let strangers = rows.values().filter(|row| row.first() == Some(&code(Fault::Stranger))).count() as u64;
        let numbers = AuthorNumbers { required, left_out: rows.len() as u64, ..AuthorNumbers::default() };
        let again = (!rows.is_empty()).then(Bytes::new);
        Ok(Authors { rules, numbers, strangers, stranger_since: now, again })
    }

    /// These are known from here on, and all that were.
    pub(super) fn learn(&mut self, known: BTreeSet<PeerId>) {
        let Some(rules) = &mut self.rules else { return };
        let before = rules.known.len();
        rules.known.extend(known);
        if rules.known.len() > before && self.strangers > 0 {
            self.again = Some(Bytes::new());
        }
    }

    /// Faulty blocks count from here on, and all that were left out.
    pub(super) fn accept_unsigned(&mut self) {
        let Some(rules) = &mut self.rules else { return };
        rules.required = false;
        self.numbers.required = false;
        if self.numbers.left_out > 0 {
            self.again = Some(Bytes::new());
        }
    }

    /// A block that counts links to one that is left out.
    pub(super) fn linked(&self, draft: &mut Draft, id: &BlockId) -> Result<(), CrdtError> {
        let key = row(id);
        if let Some(fault) = draft.get(Area::Meta, &key)?.and_then(|row| row.first().copied()) {
            draft.put(Area::Meta, key, vec![fault, 1]);
        }
        Ok(())
    }

    /// Until when a record is waited for that may make an unknown author known.
    pub(super) fn awaited_until(&self) -> Option<Millis> {
        (self.strangers > 0).then_some(Millis(self.stranger_since.0 + RECORD_ON_ITS_WAY.0))
    }

    /// Whether something is to be done in the next step.
    pub(super) fn is_due(&self) -> bool {
        self.again.is_some()
    }

    pub(super) fn numbers(&self) -> &AuthorNumbers {
        &self.numbers
    }

    fn fault(&self, id: &BlockId, bytes: &[u8]) -> Option<(Fault, Option<PeerId>)> {
        let rules = self.rules.as_ref()?;
        match rules.signatures.of(id, bytes) {
            Signed::Not => Some((Fault::Unsigned, None)),
            Signed::Wrong(author) => Some((Fault::Wrong, author)),
            Signed::By(author) if rules.everybody || rules.known.contains(&author) => None,
            Signed::By(author) => Some((Fault::Stranger, Some(author))),
        }
    }

    /// Counts it; the finding when people are to be told: not of each one, where they are many.
    fn note(&mut self, id: &BlockId, fault: Fault, author: Option<PeerId>) -> Option<Finding> {
        let required = self.numbers.required;
        let count = match fault {
            Fault::Unsigned => &mut self.numbers.unsigned,
            Fault::Wrong => &mut self.numbers.wrong,
            Fault::Stranger => &mut self.numbers.strangers,
        };
        *count += 1;
        let is_told = count.is_power_of_two();
        // Blocks of Go peers.
        if fault == Fault::Unsigned && !required {
            return None;
        }
        let finding = Finding { block: id.cid(), author, fault, is_left_out: required };
        if self.numbers.findings.len() == FINDINGS_MAX {
            self.numbers.findings.remove(0);
        }
        self.numbers.findings.push(finding.clone());
        is_told.then_some(finding)
    }
}

impl Machine {
    /// Merges a block of another peer, or leaves it out.
    pub(super) fn judge(&mut self, id: BlockId, bytes: Bytes, block: Block, round: &mut Round) -> Result<(), CrdtError> {
        self.note_writer(&id, &bytes, round.now);
        let Some((fault, author)) = self.authors.fault(&id, &bytes) else { return self.merge(id, bytes, block, round) };
        round.effects.extend(self.authors.note(&id, fault, author).map(Effect::Finding));
        if self.authors.numbers.required { self.leave_out(id, bytes, &block, fault, round) } else { self.merge(id, bytes, block, round) }
    }

    /// The block's place is kept and what lies below it is wanted; it is no head, hides none, and raises no height.
    fn leave_out(&mut self, id: BlockId, bytes: Bytes, block: &Block, fault: Fault, round: &mut Round) -> Result<(), CrdtError> {
        let likely = self.wants.likely(&id);
        let is_linked = self.wants.settle(&mut round.draft, &id).unwrap_or(false);
        for link in &block.links {
            if mark(&round.draft, link)?.is_none() {
                self.wants.linked(&mut round.draft, *link, block.priority - 1, likely, round.now);
            }
        }
        round.draft.put(Area::DagBlocks, id.0, bytes);
        mark_left_out(&mut round.draft, &id, block.priority);
        round.draft.put(Area::Meta, row(&id), vec![code(fault), u8::from(is_linked)]);
        self.authors.numbers.left_out += 1;
        if fault == Fault::Stranger {
            self.authors.strangers += 1;
            self.authors.stranger_since = round.now;
        }
        Ok(())
    }

    /// Merges what was left out and counts by now.
    pub(super) fn take_up(&mut self, round: &mut Round) -> Result<(), CrdtError> {
        let Some(after) = self.authors.again.take() else { return Ok(()) };
        let rows: Vec<(Bytes, Bytes)> =
            round.draft.scan(Area::Meta, ROW)?.into_iter().filter(|(key, _)| *key > after).take(AGAIN_MAX).collect();
        for (key, value) in &rows {
            let was_stranger = value.first() == Some(&code(Fault::Stranger));
            if self.authors.numbers.required && !was_stranger {
                continue;
            }
            let Ok(id) = key[ROW.len()..].try_into().map(BlockId) else { continue };
            // It was read and checked when it came.
            let Some(bytes) = round.draft.get(Area::DagBlocks, &id.0)? else { continue };
            let Ok(block) = Block::parse(&bytes) else { continue };
            if self.authors.numbers.required && self.authors.fault(&id, &bytes).is_some() {
                continue;
            }
            round.draft.delete(Area::Meta, key);
            self.authors.numbers.left_out -= 1;
            self.authors.strangers -= u64::from(was_stranger);
            self.merge(id, bytes, block, round)?;
            if value.get(1) == Some(&1) && self.heads.remove(&id).is_some() {
                round.draft.delete(Area::Heads, id.0);
            }
        }
        self.authors.again = rows.last().filter(|_| rows.len() == AGAIN_MAX).map(|(key, _)| key.clone());
        Ok(())
    }

    /// How authors stand.
    pub fn authors(&self) -> &AuthorNumbers {
        self.authors.numbers()
    }
}

fn row(id: &BlockId) -> Vec<u8> {
    [ROW, &id.0].concat()
}

fn code(fault: Fault) -> u8 {
    match fault {
        Fault::Unsigned => 1,
        Fault::Wrong => 2,
        Fault::Stranger => 3,
    }
}
