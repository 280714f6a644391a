//! Blocks that are known by name and not here: what to fetch next, what is under way, what waits after a failure.
//!
//! A block is wanted because a merged block links to it (then its history is missing here: kept over restarts in `Area::Meta`, and
//! fetched until it comes) or because a peer announced it as a head (kept in memory, given up after some failures, since it will
//! be announced again if it still matters). Newest first: the tip says most about the present.

use super::CrdtError;
use super::alive::{take_varint, varint};
use super::draft::Draft;
use super::id::BlockId;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use store::{Area, Snapshot};
use types::{Millis, PeerId};

/// Rows in `Area::Meta`: this, then the digest; the value is the greatest height the block can have.
const ROW: &[u8] = b"crdt/want/";

/// Wanted blocks held in memory, about 200 bytes each. Blocks that would add more wait until there is room.
pub(crate) const WANTS_MAX: usize = 1 << 18;

/// Announced heads that may be wanted at once; more are dropped and will be announced again.
const ANNOUNCED_MAX: usize = 8192;

/// Failures after which an announced head is given up; with the back-off that is some four minutes.
const ANNOUNCED_TRIES: u32 = 12;

/// The first pause after a failure; it doubles up to [`PAUSE_MAX`].
const PAUSE_FIRST: Millis = Millis(250);
const PAUSE_MAX: Millis = Millis(60_000);

/// The frontier of what is known.
#[derive(Default)]
pub(crate) struct Wants {
    wants: BTreeMap<BlockId, Want>,
    ready: BTreeSet<(Reverse<u64>, BlockId)>,
    waiting: BTreeSet<(Millis, BlockId)>,
    fetching: usize,
    linked: usize,
}

struct Want {
    /// At most this; unknown heights are the greatest.
    height: u64,
    is_linked: bool,
    /// Who announced it, or gave the block that links to it.
    likely: Option<PeerId>,
    tries: u32,
    phase: Phase,
    since: Millis,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Ready,
    Fetching,
    Waiting { until: Millis },
}

impl Wants {
    /// Reads back the missing history.
    pub(crate) fn load(draft: &Draft, now: Millis) -> Result<Wants, CrdtError> {
        let mut wants = Wants::default();
        for (row, height) in draft.scan(Area::Meta, ROW)? {
            let digest = row[ROW.len()..].try_into().map_err(|_| CrdtError::damaged("wanted block", &row))?;
            let height = take_varint(&mut &height[..]).ok_or_else(|| CrdtError::damaged("wanted block", &row))?;
            wants.insert(BlockId(digest), height, true, None, now);
        }
        Ok(wants)
    }

    /// Whether `view` knows of history that it does not contain.
    pub(crate) fn is_history_missing(view: &dyn Snapshot) -> Result<bool, CrdtError> {
        Ok(!view.scan(Area::Meta, None, ROW, 1)?.is_empty())
    }

    /// A peer announced a head that is not here.
    pub(crate) fn announced(&mut self, id: BlockId, from: Option<PeerId>, now: Millis) {
        if let Some(want) = self.wants.get_mut(&id) {
            want.likely = from.or(want.likely);
            if matches!(want.phase, Phase::Waiting { .. }) {
                self.set_phase(&id, Phase::Ready);
            }
        } else if self.wants.len() - self.linked < ANNOUNCED_MAX {
            self.insert(id, u64::MAX, false, from, now);
        }
    }

    /// A merged block links to one that is not here.
    pub(crate) fn linked(&mut self, draft: &mut Draft, id: BlockId, height: u64, likely: Option<PeerId>, now: Millis) {
        match self.wants.get_mut(&id) {
            Some(want) if want.is_linked => return,
            Some(want) => {
                want.is_linked = true;
                self.linked += 1;
            }
            None => self.insert(id, height, true, likely, now),
        }
        draft.put(Area::Meta, row(&id), varint(height));
    }

    /// The block is here, or is refused for good. Tells whether a merged block links to it; none if it was not wanted.
    pub(crate) fn settle(&mut self, draft: &mut Draft, id: &BlockId) -> Option<bool> {
        self.set_phase(id, Phase::Ready);
        let want = self.wants.remove(id)?;
        self.ready.remove(&(Reverse(want.height), *id));
        if want.is_linked {
            self.linked -= 1;
            draft.delete(Area::Meta, row(id));
        }
        Some(want.is_linked)
    }

    /// Nobody gave it: once more after a pause, with `jitter` from 0 to 1 so that peers do not ask in step.
    pub(crate) fn failed(&mut self, id: &BlockId, now: Millis, jitter: f64) {
        let Some(want) = self.wants.get_mut(id).filter(|want| want.phase == Phase::Fetching) else { return };
        want.tries += 1;
        want.likely = None;
        if !want.is_linked && want.tries >= ANNOUNCED_TRIES {
            self.set_phase(id, Phase::Ready);
            if let Some(want) = self.wants.remove(id) {
                self.ready.remove(&(Reverse(want.height), *id));
            }
            return;
        }
        let pause = (PAUSE_FIRST.0 << (want.tries - 1).min(10)).min(PAUSE_MAX.0);
        let until = Millis(now.0 + pause / 2 + (pause as f64 * jitter / 2.0) as u64);
        self.set_phase(id, Phase::Waiting { until });
    }

    /// There is no room for what it links to: later.
    pub(crate) fn postpone(&mut self, id: &BlockId, until: Millis) {
        self.set_phase(id, Phase::Waiting { until });
    }

    /// Somebody came who may have what nobody had.
    pub(crate) fn retry_all(&mut self) {
        for (_, id) in std::mem::take(&mut self.waiting) {
            if let Some(want) = self.wants.get_mut(&id) {
                want.phase = Phase::Ready;
                self.ready.insert((Reverse(want.height), id));
            }
        }
    }

    /// What to fetch next, newest first, while fewer than `most` fetches are under way.
    pub(crate) fn next_fetch(&mut self, most: usize, now: Millis) -> Option<(BlockId, Option<PeerId>)> {
        while let Some(&(until, id)) = self.waiting.first()
            && until <= now
        {
            self.set_phase(&id, Phase::Ready);
        }
        if self.fetching >= most {
            return None;
        }
        let (_, id) = self.ready.first().copied()?;
        self.set_phase(&id, Phase::Fetching);
        Some((id, self.wants[&id].likely))
    }

    /// When a pause ends.
    pub(crate) fn next_wake(&self) -> Option<Millis> {
        self.waiting.first().map(|(until, _)| *until)
    }

    pub(crate) fn contains(&self, id: &BlockId) -> bool {
        self.wants.contains_key(id)
    }

    /// Who is likely to have what the block links to.
    pub(crate) fn likely(&self, id: &BlockId) -> Option<PeerId> {
        self.wants.get(id)?.likely
    }

    pub(crate) fn len(&self) -> usize {
        self.wants.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.wants.is_empty()
    }

    /// Blocks of the known history that are missing.
    pub(crate) fn missing_linked(&self) -> usize {
        self.linked
    }

    /// Since when the oldest of a few wants waits; none without wants. Looks at no more than `most`.
    pub(crate) fn oldest(&self, most: usize) -> Option<Millis> {
        self.wants.values().take(most).map(|want| want.since).min()
    }

    fn insert(&mut self, id: BlockId, height: u64, is_linked: bool, likely: Option<PeerId>, now: Millis) {
        self.wants.insert(id, Want { height, is_linked, likely, tries: 0, phase: Phase::Ready, since: now });
        self.ready.insert((Reverse(height), id));
        self.linked += usize::from(is_linked);
    }

    fn set_phase(&mut self, id: &BlockId, phase: Phase) {
        let Some(want) = self.wants.get_mut(id) else { return };
        match std::mem::replace(&mut want.phase, phase) {
            Phase::Ready => {
                self.ready.remove(&(Reverse(want.height), *id));
            }
            Phase::Fetching => self.fetching -= 1,
            Phase::Waiting { until } => {
                self.waiting.remove(&(until, *id));
            }
        }
        match phase {
            Phase::Ready => {
                self.ready.insert((Reverse(want.height), *id));
            }
            Phase::Fetching => self.fetching += 1,
            Phase::Waiting { until } => {
                self.waiting.insert((until, *id));
            }
        }
    }
}

fn row(id: &BlockId) -> Vec<u8> {
    [ROW, &id.0[..]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use store::{Durability, MemoryStore, Store};

    const NOW: Millis = Millis(1000);

    fn id(number: u8) -> BlockId {
        BlockId([number; 32])
    }

    fn fetches(wants: &mut Wants, most: usize, now: Millis) -> Vec<u8> {
        std::iter::from_fn(|| wants.next_fetch(most, now)).map(|(id, _)| id.0[0]).collect()
    }

    #[test]
    fn the_newest_are_fetched_first_within_the_bound() {
        let store = MemoryStore::new();
        let mut draft = Draft::new(store.snapshot());
        let mut wants = Wants::default();
        for height in [3, 9, 5] {
            wants.linked(&mut draft, id(height), height.into(), None, NOW);
        }
        wants.announced(id(1), None, NOW);
        assert_eq!(fetches(&mut wants, 2, NOW), [1, 9]);
        assert_eq!(wants.settle(&mut draft, &id(9)), Some(true));
        assert_eq!(fetches(&mut wants, 2, NOW), [5]);
        assert_eq!(wants.settle(&mut draft, &id(1)), Some(false));
        assert_eq!(wants.settle(&mut draft, &id(1)), None);
        assert_eq!((wants.len(), wants.missing_linked()), (2, 2));
    }

    #[test]
    fn missing_history_is_known_after_a_restart_and_announcements_are_not() {
        let store = MemoryStore::new();
        let mut draft = Draft::new(store.snapshot());
        let mut wants = Wants::default();
        wants.announced(id(1), None, NOW);
        wants.announced(id(2), None, NOW);
        for number in [2, 3, 4] {
            wants.linked(&mut draft, id(number), 7, None, NOW);
        }
        wants.settle(&mut draft, &id(4));
        store.commit(draft.into_batch(), Durability::Buffered).expect("commits");
        let mut read = Wants::load(&Draft::new(store.snapshot()), NOW).expect("reads");
        assert_eq!((read.len(), read.missing_linked()), (2, 2));
        assert_eq!(fetches(&mut read, 9, NOW), [2, 3]);
    }

    #[test]
    fn failures_pause_and_announcements_end() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let mut draft = Draft::new(store.snapshot());
        let mut wants = Wants::default();
        wants.announced(id(1), None, NOW);
        wants.linked(&mut draft, id(2), 1, None, NOW);
        let mut now = NOW;
        for _ in 0..ANNOUNCED_TRIES {
            assert_eq!(fetches(&mut wants, 9, now), [1, 2]);
            for number in [1, 2] {
                wants.failed(&id(number), now, 1.0);
            }
            assert!(fetches(&mut wants, 9, now).is_empty());
            now = wants.next_wake().expect("a pause");
        }
        assert_eq!(fetches(&mut wants, 9, now), [2]);
        wants.failed(&id(2), now, 0.5);
        assert!(wants.next_wake().is_some_and(|until| until.0 <= now.0 + PAUSE_MAX.0));
        wants.retry_all();
        assert_eq!(fetches(&mut wants, 9, now), [2]);
        assert_eq!(wants.next_wake(), None);
    }
}
