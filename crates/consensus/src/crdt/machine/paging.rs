//! When a machine asks for pages of the set, and when what they said is compared (`snapshot`).

use super::{Machine, Round};
use crate::ViewState;
use crate::crdt::CrdtError;
use crate::crdt::event::Effect;
use crate::crdt::id::BlockId;
use crate::crdt::merge::{Set, mark};
use crate::crdt::snapshot::{Unsure, decode_page};
use bytes::Bytes;
use std::collections::BTreeSet;
use types::{Cid, Millis, PeerId};

/// Pages in a row that did not come before the walk goes on without them.
const FAILURES_MAX: u32 = 3;

/// Heads of those who gave pages, kept in mind; more are not needed by any healthy cluster.
const HEADS_MAX: usize = 4096;

/// The history is taken for whole without what only the giver of a page had, when that did not come for so long.
const LOST: Millis = Millis::minutes(10);

/// How far it is.
pub(super) struct Paging {
    phase: Phase,
    /// Bytes of history merged from others before pages are asked for: a short history is walked as fast.
    merged: usize,
    pub(super) unsure: Option<Unsure>,
    is_saved: bool,
    /// From then on missing heads are not waited for.
    lost_at: Millis,
    /// What pages said wrongly, since the start.
    pub(super) mended: u64,
    /// Up to where the end of a walk that left unsure elements is compared.
    swept: Option<Vec<u8>>,
}

enum Phase {
    /// The set was empty at the start, and never whole since.
    Possible,
    Asked {
        peer: PeerId,
        after: Vec<u8>,
        failures: u32,
    },
    Over,
}

impl Paging {
    pub(super) fn new(is_empty: bool, unsure: Option<Unsure>, now: Millis) -> Paging {
        let phase = if is_empty { Phase::Possible } else { Phase::Over };
        Paging { phase, merged: 0, unsure, is_saved: true, lost_at: Millis(now.0 + LOST.0), mended: 0, swept: None }
    }

    /// A block of others was merged.
    pub(super) fn merged(&mut self, bytes: usize) {
        self.merged = self.merged.saturating_add(bytes);
    }

    /// Whether a page is under way, during which history waits: both would take each other's time.
    pub(super) fn is_asked(&self) -> bool {
        matches!(self.phase, Phase::Asked { .. })
    }

    /// Whether there is more to compare at once.
    pub(super) fn is_sweeping(&self) -> bool {
        self.swept.is_some()
    }

    /// When to look again, where there is something to wait for.
    pub(super) fn next_wake(&self) -> Option<Millis> {
        self.unsure.as_ref().map(|_| self.lost_at)
    }

    /// Writes the count, if it may have changed.
    pub(super) fn save(&mut self, round: &mut Round) {
        if !std::mem::replace(&mut self.is_saved, true) {
            Unsure::save(self.unsure.as_ref(), &mut round.draft);
        }
    }
}

impl Machine {
    /// Begins to ask where the history has turned out to be long; ends the comparison where it was read to its end.
    pub(super) fn page(&mut self, round: &mut Round) -> Result<(), CrdtError> {
        let was_whole = self.height > 0 && self.state == ViewState::Current;
        if matches!(self.paging.phase, Phase::Possible) && was_whole {
            // From here on it lacks what was written meanwhile, not the set.
            self.paging.phase = Phase::Over;
        }
        if matches!(self.paging.phase, Phase::Possible)
            && self.paging.merged >= self.options.pages_after
            && self.wants.missing_linked() > 0
            && let Some(peer) = self.peer_for_stretch()
        {
            self.paging.unsure = Some(Unsure::default());
            self.ask_page(peer, Vec::new(), 0, round);
        }
        let is_read = self.is_history_read(round.now);
        let is_lost = self.paging.lost_at <= round.now;
        if is_lost {
            self.paging.lost_at = Millis(round.now.0 + LOST.0);
        }
        let is_going_on = is_lost || self.paging.is_sweeping();
        match self.paging.unsure.as_mut().filter(|_| is_read) {
            Some(unsure) => {
                self.paging.is_saved = false;
                let mut missing = BTreeSet::new();
                for head in std::mem::take(&mut unsure.heads) {
                    if mark(&round.draft, &head)?.is_none() {
                        missing.insert(head);
                    }
                }
                unsure.heads = missing;
                if unsure.heads.is_empty() || is_going_on { self.compare(round) } else { Ok(()) }
            }
            None => Ok(()),
        }
    }

    /// Whether all known history is here, so that pages can be compared with it.
    pub(super) fn is_history_read(&self, now: Millis) -> bool {
        // What is left out until its author is known may count after all.
        let is_judged = !self.authors.is_due() && self.authors.awaited_until().is_none_or(|until| until <= now);
        let is_all_here = self.height > 0 && self.wants.is_empty() && self.journal.is_empty();
        is_all_here && is_judged && !self.paging.is_asked()
    }

    /// A page, or nothing of the kind.
    pub(super) fn page_came(&mut self, from: PeerId, bytes: &Bytes, round: &mut Round) -> Result<(), CrdtError> {
        let (after, failures) = match &mut self.paging.phase {
            Phase::Asked { peer, after, failures } if *peer == from => (std::mem::take(after), *failures),
            _ => return Ok(()),
        };
        self.paging.phase = Phase::Over;
        let Some(page) = decode_page(bytes) else {
            match self.other_than(from).filter(|_| failures + 1 < FAILURES_MAX) {
                Some(other) => self.ask_page(other, after, failures + 1, round),
                None => round.effects.push(Effect::PagesEnded),
            }
            return Ok(());
        };
        let last = page.last.clone();
        let heads: Vec<Cid> = page.heads.iter().map(BlockId::cid).collect();
        if let Some(unsure) = &mut self.paging.unsure {
            unsure.heads.extend(&page.heads);
            if unsure.heads.len() > HEADS_MAX {
                round.effects.push(Effect::PagesEnded);
                return Ok(());
            }
        }
        self.paging.lost_at = Millis(round.now.0 + LOST.0);
        self.heads_told(from, &heads, round)?;
        let changes = std::mem::take(&mut round.changes);
        self.set(round).take_page(page)?;
        round.effects.push(Effect::Taken(std::mem::replace(&mut round.changes, changes)));
        // One that does not go on would be asked for ever.
        match last.filter(|last| *last > after) {
            Some(last) => self.ask_page(from, last.to_vec(), 0, round),
            None => round.effects.push(Effect::PagesEnded),
        }
        Ok(())
    }

    fn ask_page(&mut self, peer: PeerId, after: Vec<u8>, failures: u32, round: &mut Round) {
        round.effects.push(Effect::FetchPage { peer, after: after.clone() });
        self.paging.phase = Phase::Asked { peer, after, failures };
    }

    /// A connected Pinfold peer, another one if there is any.
    fn other_than(&self, from: PeerId) -> Option<PeerId> {
        let pinfolds = || self.peers.iter().filter(|(_, is_pinfold)| **is_pinfold).map(|(peer, _)| *peer);
        pinfolds().find(|peer| *peer > from).or_else(|| pinfolds().next())
    }

    /// All history is here: with nothing unsure left the pages were true, else what the history does not have goes.
    fn compare(&mut self, round: &mut Round) -> Result<(), CrdtError> {
        if self.paging.unsure.as_ref().is_some_and(|unsure| unsure.count > 0) {
            let after = self.paging.swept.take();
            self.paging.swept = self.set(round).sweep(after.as_deref())?;
            if self.paging.swept.is_some() {
                return Ok(());
            }
        }
        if let Some(unsure) = self.paging.unsure.take().filter(|unsure| unsure.mended > 0) {
            self.paging.mended += unsure.mended;
            round.effects.push(Effect::Mended(unsure.mended));
        }
        Ok(())
    }

    /// The set during this step.
    pub(super) fn set<'s>(&'s mut self, round: &'s mut Round) -> Set<'s> {
        let Round { draft, changes, .. } = round;
        self.paging.is_saved &= self.paging.unsure.is_none();
        Set { draft, values: &mut self.values, journal: &self.journal, changes, unsure: self.paging.unsure.as_mut() }
    }
}
