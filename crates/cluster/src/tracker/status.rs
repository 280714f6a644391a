//! What people and other peers see of the own copies.

use super::{Doing, Goal, Phase, Tracker};
use crate::context::Context;
use types::{Because, ByteCount, Cid, CopyState, Now, PinState, UnixMillis};

/// One own copy that is not settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnCopy {
    pub state: PinState,
    pub because: Option<Because>,
    pub next_try: Option<UnixMillis>,
    pub tries: u32,
    pub since: UnixMillis,
    pub progress: Option<(u64, ByteCount, u64)>,
}

impl Tracker {
    /// The state of a copy that is not settled; none for settled ones and for what does not concern this peer.
    pub fn own_copy(&self, cid: &Cid, now: Now) -> Option<OwnCopy> {
        let track = self.tracks.get(cid)?;
        let is_hold = matches!(track.goal, Goal::Hold { .. });
        let (state, because, next_try, progress) = match &track.phase {
            Phase::Running { doing: Doing::Look, .. } => (PinState::Pinning, None, None, None),
            Phase::Running { doing: Doing::Pin, progress, .. } => (PinState::Pinning, None, None, Some(*progress)),
            Phase::Running { doing: Doing::Unpin, .. } => (PinState::Unpinning, None, None, None),
            Phase::Queued { doing, place } => {
                let queue = match doing {
                    Doing::Look => &self.looks.queue,
                    Doing::Pin => &self.pins,
                    Doing::Unpin => &self.unpins,
                };
                let because = Because::Queue { before: queue.before(*place) };
                (queued(track.was_lost, is_hold), Some(because), Some(now.wall), None)
            }
            Phase::Waiting { until, because } => {
                let because = match because {
                    Because::MassRemoval { held, .. } => self.brake.reason(*held),
                    other => other.clone(),
                };
                let state = match (is_hold, track.has_failed) {
                    (true, true) => PinState::PinError,
                    (false, true) => PinState::UnpinError,
                    (_, false) => queued(track.was_lost, is_hold),
                };
                (state, Some(because), Some(now.wall_at(*until)), None)
            }
        };
        Some(OwnCopy { state, because, next_try, tries: track.tries, since: track.since, progress })
    }

    /// The same, for other peers.
    pub fn copy_state(&self, cid: &Cid, now: Now) -> Option<CopyState> {
        let version = match &self.tracks.get(cid)?.goal {
            Goal::Hold { version, .. } => *version,
            Goal::HandOver(hand_over) => hand_over.version,
            Goal::Remove => 0,
        };
        let own = self.own_copy(cid, now)?;
        Some(CopyState {
            cid: *cid,
            version,
            state: own.state,
            because: own.because,
            next_try: own.next_try,
            tries: own.tries,
            since: own.since,
        })
    }

    /// All that is not settled.
    pub fn unsettled<'a>(&'a self, now: Now) -> impl Iterator<Item = CopyState> + 'a {
        self.tracks.keys().filter_map(move |cid| self.copy_state(cid, now))
    }

    /// How many are not settled.
    pub fn unsettled_count(&self) -> u64 {
        self.tracks.len() as u64
    }

    /// Hand-overs that wait for confirmations.
    pub fn hand_overs(&self) -> u64 {
        self.tracks.values().filter(|track| matches!(track.goal, Goal::HandOver(_))).count() as u64
    }

    /// Whether the own copy is kept until its new holders have confirmed theirs.
    pub fn hands_over(&self, cid: &Cid) -> bool {
        self.tracks.get(cid).is_some_and(|track| matches!(track.goal, Goal::HandOver(_)))
    }

    /// Whether nothing is queued, running or waiting.
    pub fn is_at_rest(&self) -> bool {
        self.tracks.is_empty() && self.looks.queue.is_empty() && self.pins.is_empty() && self.unpins.is_empty()
    }

    /// Whether a round has passed this CID, so that a missing track means settled.
    pub fn has_compared(&self, cid: &Cid) -> bool {
        self.walk.has_passed(cid)
    }

    /// Whether, while more is wished than has a place here, the ledger tells what is held.
    pub fn trusts_ledger(&self) -> bool {
        self.walk.trusts_ledger()
    }

    /// Whether a full round was made since start with a current view, so that questions of others can be answered.
    pub fn can_answer(&self) -> bool {
        self.walk.rounds_current > 0
    }

    /// Answers how one copy stands; nothing while this peer does not know it itself.
    pub fn tell_copy(&mut self, cid: &Cid, ctx: &mut Context) -> Option<CopyState> {
        if let Some(copy) = self.copy_state(cid, ctx.now) {
            return Some(copy);
        }
        if !self.has_compared(cid) {
            return None;
        }
        let settled =
            |version, state| Some(CopyState { cid: *cid, version, state, because: None, next_try: None, tries: 0, since: ctx.now.wall });
        match ctx.shared.pin(cid) {
            Some((pin, version)) if pin.is_for(&ctx.options.me) => {
                if ctx.shared.is_ours(cid) {
                    return settled(version, PinState::Pinned);
                }
                // Wanted, not in the ledger, not being fetched: a hint was lost, or it is held on somebody else's account. Pinning
                // it tells.
                self.hold(&pin, version, false, ctx);
                self.copy_state(cid, ctx.now)
            }
            Some((_, version)) => settled(version, PinState::Unpinned),
            None => settled(0, PinState::Unpinned),
        }
    }
}

fn queued(was_lost: bool, is_hold: bool) -> PinState {
    match (is_hold, was_lost) {
        (true, true) => PinState::UnexpectedlyUnpinned,
        (true, false) => PinState::PinQueued,
        (false, _) => PinState::UnpinQueued,
    }
}
