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

/// A frontier of at most so many blocks is narrow: following its links one by one leaves the network idle.
const NARROW: usize = 32;

/// The first pause after a failure; it doubles up to [`PAUSE_MAX`].
const PAUSE_FIRST: Millis = Millis(250);
const PAUSE_MAX: Millis = Millis(60_000);

/// A pause without end, as far as a test can see.
const NEVER: Millis = Millis(86_400_000);

/// The frontier of what is known.
#[derive(Default)]
pub(crate) struct Wants {
    /// A fault that a test put in: what was not given is not asked for again.
    pub(crate) never_again: bool,
    wants: BTreeMap<BlockId, Want>,
    announced: Lane,
    linked: Lane,
    waiting: BTreeSet<(Millis, BlockId)>,
}

/// Wants of one reason.
#[derive(Default)]
struct Lane {
    count: usize,
    fetching: usize,
    /// Newest first.
    ready: BTreeSet<(Reverse<u64>, BlockId)>,
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
        } else if self.announced.count < ANNOUNCED_MAX {
            self.insert(id, u64::MAX, false, from, now);
        }
    }

    /// A merged block links to one that is not here.
    pub(crate) fn linked(&mut self, draft: &mut Draft, id: BlockId, height: u64, likely: Option<PeerId>, now: Millis) {
        match self.take(&id) {
            Some(want) => {
                let was_linked = want.is_linked;
                self.put(id, Want { is_linked: true, ..want });
                if was_linked {
                    return;
                }
            }
            None => self.insert(id, height, true, likely, now),
        }
        draft.put(Area::Meta, row(&id), varint(height));
    }

    /// The block is here, or is refused for good. Tells whether a merged block links to it; none if it was not wanted.
    pub(crate) fn settle(&mut self, draft: &mut Draft, id: &BlockId) -> Option<bool> {
        let want = self.take(id)?;
        if want.is_linked {
            draft.delete(Area::Meta, row(id));
        }
        Some(want.is_linked)
    }

    /// Nobody gave it: once more after a pause, with `jitter` from 0 to 1 so that peers do not ask in step.
    pub(crate) fn failed(&mut self, id: &BlockId, now: Millis, jitter: f64) {
        let Some(want) = self.wants.get_mut(id).filter(|want| want.phase == Phase::Fetching) else { return };
        want.tries += 1;
        want.likely = None;
        if self.never_again {
            self.set_phase(id, Phase::Waiting { until: Millis(now.0 + NEVER.0) });
            return;
        }
        if !want.is_linked && want.tries >= ANNOUNCED_TRIES {
            self.take(id);
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
        if self.never_again {
            return;
        }
        for (_, id) in self.waiting.clone() {
            self.set_phase(&id, Phase::Ready);
        }
    }

    /// What to fetch next, newest first, while fewer than `most` fetches are under way. Announcements take at most half of them:
    /// a flood of them must not hold up the history.
    pub(crate) fn next_fetch(&mut self, most: usize, now: Millis) -> Option<(BlockId, Option<PeerId>)> {
        self.end_pauses(now);
        if self.announced.fetching + self.linked.fetching >= most {
            return None;
        }
        let announced = self.announced.ready.first().filter(|_| self.announced.fetching < most.div_ceil(2));
        let (_, id) = *announced.or_else(|| self.linked.ready.first())?;
        self.set_phase(&id, Phase::Fetching);
        Some((id, self.wants[&id].likely))
    }

    /// The newest missing block of the history, to be fetched with what lies below it, where the frontier is so narrow that walking
    /// it link by link would be slow.
    pub(crate) fn next_stretch(&mut self, now: Millis) -> Option<BlockId> {
        self.end_pauses(now);
        if self.linked.count > NARROW {
            return None;
        }
        let (_, id) = *self.linked.ready.first()?;
        self.set_phase(&id, Phase::Fetching);
        Some(id)
    }

    /// It did not come with a stretch: it is fetched by itself, at once.
    pub(crate) fn stretch_ended(&mut self, id: &BlockId) {
        if self.wants.get(id).is_some_and(|want| want.phase == Phase::Fetching) {
            self.set_phase(id, Phase::Ready);
        }
    }

    fn end_pauses(&mut self, now: Millis) {
        while let Some(&(until, id)) = self.waiting.first()
            && until <= now
        {
            self.set_phase(&id, Phase::Ready);
        }
    }

    /// When a pause ends.
    pub(crate) fn next_wake(&self) -> Option<Millis> {
        self.waiting.first().map(|(until, _)| *until)
    }

    /// Whether a block that is here links to it.
    pub(crate) fn is_linked(&self, id: &BlockId) -> bool {
        self.wants.get(id).is_some_and(|want| want.is_linked)
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
        self.linked.count
    }

    /// Since when the oldest of a few wants waits; none without wants. Looks at no more than `most`.
    pub(crate) fn oldest(&self, most: usize) -> Option<Millis> {
        self.wants.values().take(most).map(|want| want.since).min()
    }

    fn insert(&mut self, id: BlockId, height: u64, is_linked: bool, likely: Option<PeerId>, now: Millis) {
        self.put(id, Want { height, is_linked, likely, tries: 0, phase: Phase::Ready, since: now });
    }

    fn set_phase(&mut self, id: &BlockId, phase: Phase) {
        if let Some(want) = self.take(id) {
            self.put(*id, Want { phase, ..want });
        }
    }

    fn put(&mut self, id: BlockId, want: Want) {
        let lane = self.lane(want.is_linked);
        lane.count += 1;
        match want.phase {
            Phase::Ready => {
                lane.ready.insert((Reverse(want.height), id));
            }
            Phase::Fetching => lane.fetching += 1,
            Phase::Waiting { until } => {
                self.waiting.insert((until, id));
            }
        }
        self.wants.insert(id, want);
    }

    fn take(&mut self, id: &BlockId) -> Option<Want> {
        let want = self.wants.remove(id)?;
        let lane = self.lane(want.is_linked);
        lane.count -= 1;
        match want.phase {
            Phase::Ready => {
                lane.ready.remove(&(Reverse(want.height), *id));
            }
            Phase::Fetching => lane.fetching -= 1,
            Phase::Waiting { until } => {
                self.waiting.remove(&(until, *id));
            }
        }
        Some(want)
    }

    fn lane(&mut self, is_linked: bool) -> &mut Lane {
        if is_linked { &mut self.linked } else { &mut self.announced }
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
    fn a_flood_of_announcements_does_not_hold_up_the_history() {
        let store = MemoryStore::new();
        let mut draft = Draft::new(store.snapshot());
        let mut wants = Wants::default();
        for number in 0..2 * ANNOUNCED_MAX {
            wants.announced(BlockId([[number as u8, (number >> 8) as u8]; 16].concat().try_into().expect("32 bytes")), None, NOW);
        }
        assert_eq!(wants.len(), ANNOUNCED_MAX);
        wants.linked(&mut draft, BlockId([0xab; 32]), 3, None, NOW);
        wants.linked(&mut draft, BlockId([0xac; 32]), 4, None, NOW);
        let taken = fetches(&mut wants, 10, NOW);
        assert_eq!((taken.len(), &taken[5..]), (7, &[0xac, 0xab][..]));
    }

    #[test]
    fn a_narrow_frontier_is_fetched_in_stretches() {
        let store = MemoryStore::new();
        let mut draft = Draft::new(store.snapshot());
        let mut wants = Wants::default();
        wants.announced(id(200), None, NOW);
        assert_eq!(wants.next_stretch(NOW), None, "what was only announced is news");
        for number in 1..=NARROW as u8 {
            wants.linked(&mut draft, id(number), number.into(), None, NOW);
        }
        assert_eq!(wants.next_stretch(NOW), Some(id(NARROW as u8)));
        wants.stretch_ended(&id(NARROW as u8));
        assert_eq!(fetches(&mut wants, 2, NOW), [200, NARROW as u8]);
        wants.linked(&mut draft, id(100), 1, None, NOW);
        assert_eq!(wants.next_stretch(NOW), None, "wide enough to walk it");
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
