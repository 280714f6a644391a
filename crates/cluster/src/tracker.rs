//! This peer: what it should hold against what its node holds -> operations, retries, reasons.
//!
//! Only what is *not* settled stands here; a wanted pin without a track is held. Hints start work early, the slow
//! [`walk`] finds what hints missed. Nothing is let go unless the ledger names it, the view is current, and the pin is
//! gone from the wish (then [`brake`] counts it) or its new holders have confirmed it ([`HandOver`]).
//!
//! Read [`difference`] first (the comparison), then this file (how a track changes), `looks` (what needs no fetching), `start`
//! (slots, queue, brake), `walk` (the full round), `status` (what people see).

mod brake;
pub mod difference;
mod load;
mod looks;
mod lost;
mod queue;
pub mod retry;
mod start;
mod status;
mod walk;

use crate::context::Context;
use crate::options::PlantedBug;
use crate::order::mix_number;
use crate::space::Space;
use crate::{Effect, NodeFailure, NodeOutcome, Notice, OpId, PinChange, ViewState};
use brake::Brake;
use load::Loads;
use looks::Looks;
use queue::{Lane, Place, Queue};
use std::collections::{BTreeMap, BTreeSet};
use types::{Because, ByteCount, Cid, CopyState, Depth, Millis, PeerId, Pin, PinKind, PinState, Replicas, UnixMillis};
use walk::Walk;

pub(crate) use start::Around;
pub(crate) use status::OwnCopy;

/// Questions about the copies of a hand-over start so soon, so that reports that come by themselves spare them.
const HAND_OVER_FIRST: Millis = Millis(500);

/// Pins that stand in one lane of the queue. Further ones are left in the wish until the walk comes by, so a million pins at once cost
/// no more memory than these.
const QUEUED_MOST: usize = 10_000;

/// Tracks in all, with those that wait for a time or for others.
const TRACKS_MOST: usize = 100_000;

/// What is wished of this peer for one CID.
#[derive(Clone, Debug)]
enum Goal {
    /// Hold it.
    Hold {
        version: u64,
        depth: Depth,
        created: UnixMillis,
        /// Not every peer holds it, so that it counts in the spread.
        is_movable: bool,
    },
    /// Its tombstone was merged: let it go.
    Remove,
    /// Others are placed instead: let it go once they hold it.
    HandOver(HandOver),
}

/// A copy that is kept until its new holders have confirmed theirs.
#[derive(Clone, Debug)]
struct HandOver {
    version: u64,
    bytes: ByteCount,
    placement: Vec<PeerId>,
    needed: u32,
    confirmed: BTreeSet<PeerId>,
    asks: u32,
}

/// Which way an operation goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    /// Pins it if it is here already.
    Look,
    Pin,
    Unpin,
}

/// Where a track stands.
#[derive(Clone, Debug)]
enum Phase {
    /// Waits for a slot.
    Queued { doing: Doing, place: Place },
    /// The node is at it.
    Running { op: OpId, doing: Doing, depth: Depth, progress: (u64, ByteCount, u64), moved: Millis, stop: Stop },
    /// Waits for a time or for others.
    Waiting { until: Millis, because: Because },
}

/// Whether and why a running operation was told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    No,
    /// The wish changed.
    Unwanted,
    /// Nothing moved for too long.
    Stalled,
}

#[derive(Clone, Debug)]
struct Track {
    goal: Goal,
    phase: Phase,
    tries: u32,
    since: UnixMillis,
    /// It was held, and was found missing.
    was_lost: bool,
    /// The last attempt failed.
    has_failed: bool,
    /// A person let this removal pass the brake.
    is_approved: bool,
}

/// What is not settled on this peer.
#[derive(Clone, Debug)]
pub(crate) struct Tracker {
    tracks: BTreeMap<Cid, Track>,
    looks: Looks,
    pins: Queue,
    unpins: Queue,
    due: BTreeSet<(Millis, Cid)>,
    ops: BTreeMap<OpId, Cid>,
    running_pins: usize,
    running_unpins: usize,
    /// Removals that wait and were not approved.
    removing: BTreeSet<Cid>,
    brake: Brake,
    walk: Walk,
    loads: Loads,
}

impl Tracker {
    /// Nothing is known to be held yet; the first round finds out.
    pub fn new() -> Tracker {
        Tracker {
            tracks: BTreeMap::new(),
            looks: Looks::default(),
            pins: Queue::default(),
            unpins: Queue::default(),
            due: BTreeSet::new(),
            ops: BTreeMap::new(),
            running_pins: 0,
            running_unpins: 0,
            removing: BTreeSet::new(),
            brake: Brake::default(),
            walk: Walk::default(),
            loads: Loads::default(),
        }
    }

    /// One key of the wish changed.
    pub fn wish_changed(&mut self, change: &PinChange, ctx: &mut Context) {
        let me = ctx.options.me;
        self.count_change(change, ctx);
        match &change.after {
            Some((pin, _)) if pin.kind == PinKind::Bad => {}
            Some((pin, version)) if pin.is_for(&me) => {
                let was_alike = change.before.as_ref().is_some_and(|before| before.is_for(&me) && before.depth == pin.depth);
                self.hold(pin, *version, was_alike, ctx);
            }
            after => {
                let was_here = change.before.as_ref().is_some_and(|before| before.is_for(&me));
                self.let_go(change.cid, after.as_ref(), was_here, ctx);
            }
        }
    }

    /// The pin is for this peer. `was_alike`: so was its value before, with the same depth.
    fn hold(&mut self, pin: &Pin, version: u64, was_alike: bool, ctx: &mut Context) {
        let cid = pin.cid;
        let goal = Goal::hold(pin, version);
        let Some(track) = self.tracks.get_mut(&cid) else {
            if was_alike && self.has_compared(&cid) {
                // Held as before: only the version is another.
                self.tell(&cid, version, PinState::Pinned, ctx);
            } else if self.has_no_place(pin, ctx) && !ctx.shared.is_ours(&cid) {
                self.walk.leave_out(&cid, ctx.now);
            } else {
                self.begin(cid, goal, ctx);
                self.enqueue(cid, Doing::Look, ctx);
            }
            return;
        };
        track.goal = goal;
        self.removing.remove(&cid);
        match &mut track.phase {
            Phase::Running { doing: Doing::Pin, depth, op, stop, .. } => {
                if *depth != pin.depth && *stop == Stop::No {
                    *stop = Stop::Unwanted;
                    ctx.effects.push(Effect::Cancel(*op));
                }
                self.changed(&cid, ctx);
            }
            Phase::Running { doing: Doing::Unpin | Doing::Look, .. } => self.changed(&cid, ctx),
            Phase::Queued { doing: Doing::Pin | Doing::Look, .. } => self.changed(&cid, ctx),
            Phase::Queued { doing: Doing::Unpin, .. } | Phase::Waiting { .. } => self.enqueue(cid, Doing::Pin, ctx),
        }
    }

    /// Whether too many stand where this pin would.
    fn has_no_place(&self, pin: &Pin, ctx: &Context) -> bool {
        self.tracks.len() >= TRACKS_MOST || self.queued(Lane::of(pin.created, 0, ctx.now.wall)) >= QUEUED_MOST
    }

    /// Pins that wait in a lane, to be looked at or to be fetched.
    fn queued(&self, lane: Lane) -> usize {
        self.looks.queue.count(lane) + self.pins.count(lane)
    }

    /// The pin is not for this peer (any more). `was_here`: others may wait to hear that nothing is held.
    fn let_go(&mut self, cid: Cid, after: Option<&(Pin, u64)>, was_here: bool, ctx: &mut Context) {
        let is_ours = ctx.shared.is_ours(&cid) || ctx.options.planted == Some(PlantedBug::IgnoresLedger);
        let is_running = self.tracks.get(&cid).is_some_and(|track| matches!(track.phase, Phase::Running { .. }));
        if !is_ours && !is_running {
            if was_here || self.tracks.contains_key(&cid) {
                self.forget(&cid, ctx);
            }
            return;
        }
        let goal = match after {
            None => Goal::Remove,
            Some((pin, version)) => Goal::HandOver(HandOver::of(pin, *version, ctx)),
        };
        let is_full = self.tracks.len() >= TRACKS_MOST;
        match self.tracks.get_mut(&cid) {
            None if is_full => {
                self.walk.leave_out(&cid, ctx.now);
                return;
            }
            None => self.begin(cid, goal, ctx),
            Some(track) => {
                if let Phase::Running { doing: Doing::Pin, op, stop, .. } = &mut track.phase
                    && *stop == Stop::No
                {
                    *stop = Stop::Unwanted;
                    ctx.effects.push(Effect::Cancel(*op));
                }
                track.goal = goal;
                track.tries = 0;
                track.has_failed = false;
                track.is_approved = false;
                track.since = ctx.now.wall;
            }
        }
        if is_running {
            self.changed(&cid, ctx);
        } else {
            self.pursue(cid, ctx);
        }
    }

    /// Queues or waits as the goal asks, for a track that is not running.
    fn pursue(&mut self, cid: Cid, ctx: &mut Context) {
        let Some(track) = self.tracks.get(&cid) else { return };
        match &track.goal {
            Goal::Hold { .. } => self.enqueue(cid, Doing::Pin, ctx),
            _ if !ctx.is_current() => self.wait(cid, ctx.now.after(Millis::seconds(5)), Because::CatchingUp, ctx),
            Goal::Remove => {
                if !track.is_approved {
                    self.removing.insert(cid);
                }
                self.enqueue(cid, Doing::Unpin, ctx);
            }
            Goal::HandOver(hand_over) => {
                let because = hand_over.because(hand_over.confirmed.len() as u32);
                let until = if hand_over.needed == 0 { ctx.now.mono } else { ctx.now.after(HAND_OVER_FIRST) };
                self.wait(cid, until, because, ctx);
            }
        }
    }

    /// Another peer holds this version: a hand-over may go on.
    pub fn confirmed(&mut self, peer: &PeerId, cid: &Cid, version: u64, ctx: &Context) {
        let Some(track) = self.tracks.get_mut(cid) else { return };
        let Goal::HandOver(hand_over) = &mut track.goal else { return };
        if hand_over.version != version || !hand_over.placement.contains(peer) {
            return;
        }
        hand_over.confirmed.insert(*peer);
        if hand_over.confirmed.len() as u32 >= hand_over.needed
            && let Phase::Waiting { until, .. } = &mut track.phase
        {
            self.due.remove(&(*until, *cid));
            *until = (*until).min(ctx.now.mono);
            self.due.insert((*until, *cid));
        }
    }

    /// A peer came back that may have what others were looked for in vain: what waits for providers is tried soon, each at
    /// its own moment.
    pub fn provider_is_back(&mut self, ctx: &mut Context) {
        const SOON: u64 = 5_000;
        const MOVED_MOST: usize = 1_000;
        let late = self.due.range((ctx.now.after(Millis(SOON)), Cid::default())..);
        let waits = |cid: &Cid| {
            matches!(&self.tracks.get(cid), Some(Track { phase: Phase::Waiting { because: Because::NoProvider { .. }, .. }, .. }))
        };
        let moved: Vec<(Millis, Cid)> = late.filter(|(_, cid)| waits(cid)).take(MOVED_MOST).copied().collect();
        for (at, cid) in moved {
            let soon = ctx.now.after(Millis(mix_number(&cid, at.0) % SOON));
            self.due.remove(&(at, cid));
            self.due.insert((soon, cid));
            if let Some(Track { phase: Phase::Waiting { until, .. }, .. }) = self.tracks.get_mut(&cid) {
                *until = soon;
            }
        }
    }

    /// These peers fell silent or started anew: what they confirmed before proves nothing any more.
    pub fn unconfirm(&mut self, peers: &[PeerId]) {
        for track in self.tracks.values_mut() {
            if let Goal::HandOver(hand_over) = &mut track.goal {
                hand_over.confirmed.retain(|peer| !peers.contains(peer));
            }
        }
    }

    /// An operation progressed or ended.
    pub fn node(&mut self, op: OpId, outcome: NodeOutcome, space: &mut Space, ctx: &mut Context) {
        if self.walk.listed(op, &outcome, ctx.now) {
            return;
        }
        if let Some(cid) = self.looks.ended(op) {
            self.looked(cid, &outcome, space, ctx);
            return;
        }
        let Some(cid) = self.ops.get(&op).copied() else { return };
        if let NodeOutcome::Progress { blocks, bytes, missing } = outcome {
            self.progressed(&cid, (blocks, bytes, missing), ctx);
            return;
        }
        self.ops.remove(&op);
        let Some(track) = self.tracks.get_mut(&cid) else { return };
        let Phase::Running { doing, depth, progress, stop, .. } = track.phase else { return };
        match doing {
            Doing::Look => {}
            Doing::Pin => self.running_pins -= 1,
            Doing::Unpin => self.running_unpins -= 1,
        }
        space.release_pin(&cid);
        self.walk.touched(&cid);
        match outcome {
            NodeOutcome::Pinned { bytes } => {
                space.learn_size(&cid, bytes);
                self.count_pinned(&cid, bytes, ctx);
                ctx.effects.push(Effect::Ledger { cid, ours: Some(bytes) });
                self.pinned(cid, depth, true, ctx);
            }
            NodeOutcome::AlreadyHeld { bytes } => {
                space.learn_size(&cid, bytes);
                let is_claimed = ctx.options.planted == Some(PlantedBug::ClaimsForeign);
                if is_claimed {
                    ctx.effects.push(Effect::Ledger { cid, ours: Some(bytes) });
                }
                self.pinned(cid, depth, is_claimed, ctx);
            }
            NodeOutcome::Unpinned => self.unpinned(cid, ctx),
            NodeOutcome::Cancelled if stop == Stop::Stalled => {
                self.failed(cid, doing, &NodeFailure::Missing { missing: progress.2.max(1), first: None, asked: String::new() }, ctx);
            }
            NodeOutcome::Failed(failure) if stop != Stop::Unwanted => {
                if let NodeFailure::NoRoom { needed, .. } = failure {
                    space.learn_size(&cid, needed);
                }
                self.failed(cid, doing, &failure, ctx);
            }
            NodeOutcome::Cancelled
            | NodeOutcome::Failed(_)
            | NodeOutcome::NotHere
            | NodeOutcome::Held(_)
            | NodeOutcome::Progress { .. } => {
                self.ended_otherwise(cid, ctx);
            }
        }
    }

    fn progressed(&mut self, cid: &Cid, now_at: (u64, ByteCount, u64), ctx: &mut Context) {
        if let Some(Track { phase: Phase::Running { progress, moved, .. }, .. }) = self.tracks.get_mut(cid) {
            if progress.0 != now_at.0 || progress.1 != now_at.1 {
                *moved = ctx.now.mono;
            }
            *progress = now_at;
            ctx.effects.push(Effect::Changed(*cid));
        }
    }

    fn pinned(&mut self, cid: Cid, depth: Depth, is_ours: bool, ctx: &mut Context) {
        match self.tracks.get(&cid).map(|track| &track.goal) {
            Some(Goal::Hold { version, depth: wanted, .. }) if *wanted == depth => {
                let version = *version;
                self.drop_track(&cid);
                self.tell(&cid, version, PinState::Pinned, ctx);
            }
            Some(Goal::Hold { .. }) => self.enqueue(cid, Doing::Pin, ctx),
            // The ledger, which letting go asks for, is written after this step.
            Some(_) if is_ours => self.wait(cid, ctx.now.after(Millis(1)), Because::Unconfirmed, ctx),
            _ => self.forget(&cid, ctx),
        }
    }

    fn unpinned(&mut self, cid: Cid, ctx: &mut Context) {
        self.loads.freed(ctx.now);
        ctx.effects.push(Effect::Ledger { cid, ours: None });
        match self.tracks.get(&cid).map(|track| &track.goal) {
            Some(Goal::Hold { .. }) => self.enqueue(cid, Doing::Pin, ctx),
            _ => self.forget(&cid, ctx),
        }
    }

    /// Cancelled, or failed after the wish had changed: nothing came of it.
    fn ended_otherwise(&mut self, cid: Cid, ctx: &mut Context) {
        let is_kept = matches!(self.tracks.get(&cid).map(|track| &track.goal), Some(Goal::Hold { .. })) || ctx.shared.is_ours(&cid);
        if is_kept { self.pursue(cid, ctx) } else { self.forget(&cid, ctx) }
    }

    fn failed(&mut self, cid: Cid, doing: Doing, failure: &NodeFailure, ctx: &mut Context) {
        let Some(track) = self.tracks.get_mut(&cid) else { return };
        let is_same_way = matches!(track.goal, Goal::Hold { .. }) == (doing == Doing::Pin);
        if !is_same_way {
            self.ended_otherwise(cid, ctx);
            return;
        }
        track.tries += 1;
        track.has_failed = true;
        let tries = track.tries;
        let because = retry::because(failure);
        if tries == 1 && doing == Doing::Pin {
            ctx.effects.push(Effect::Note(Notice::PinFailed { cid, why: because.to_string() }));
        }
        self.wait(cid, retry::after_failure(&cid, tries, failure, ctx.now), because, ctx);
    }

    /// Puts what waits after an error back in the queue; at most 1,000 are named.
    pub fn recover(&mut self, only: Option<Cid>, ctx: &mut Context) -> Vec<Cid> {
        const NAMED_MOST: usize = 1_000;
        let failed: Vec<(Cid, Doing)> = match only {
            Some(cid) => self.tracks.get_key_value(&cid).into_iter().filter_map(recoverable).collect(),
            None => self.tracks.iter().filter_map(recoverable).collect(),
        };
        for (cid, doing) in &failed {
            self.enqueue(*cid, *doing, ctx);
        }
        failed.into_iter().map(|(cid, _)| cid).take(NAMED_MOST).collect()
    }

    /// The view became more or less complete.
    pub fn view_changed(&mut self, before: ViewState, ctx: &mut Context) {
        if ctx.is_current() && before != ViewState::Current {
            self.walk.view_is_current(ctx.now);
            let waiting: Vec<Cid> = self
                .tracks
                .iter()
                .filter(|(_, track)| matches!(track.phase, Phase::Waiting { because: Because::CatchingUp, .. }))
                .map(|(cid, _)| *cid)
                .collect();
            for cid in waiting {
                self.pursue(cid, ctx);
            }
        }
    }

    /// Hints were lost: compare everything now.
    pub fn lagged(&mut self, ctx: &Context) {
        self.walk.lagged(ctx.now);
    }

    /// A person lets the waiting removals go on.
    pub fn approve_removals(&mut self, ctx: &mut Context) {
        self.brake.release();
        for cid in std::mem::take(&mut self.removing) {
            let Some(track) = self.tracks.get_mut(&cid) else { continue };
            track.is_approved = true;
            if matches!(track.phase, Phase::Waiting { .. }) {
                self.pursue(cid, ctx);
            }
        }
    }

    // --- how a track changes; every change is told to others and to watchers

    fn begin(&mut self, cid: Cid, goal: Goal, ctx: &Context) {
        self.tracks.insert(
            cid,
            Track {
                goal,
                phase: Phase::Waiting { until: ctx.now.mono, because: Because::Unconfirmed },
                tries: 0,
                since: ctx.now.wall,
                was_lost: false,
                has_failed: false,
                is_approved: false,
            },
        );
    }

    fn enqueue(&mut self, cid: Cid, doing: Doing, ctx: &mut Context) {
        self.leave_phase(&cid);
        let Some(track) = self.tracks.get_mut(&cid) else { return };
        let place = match (&track.goal, doing) {
            (Goal::Hold { created, .. }, Doing::Look) => self.looks.queue.push(Lane::of(*created, track.tries, ctx.now.wall), cid),
            (_, Doing::Look) => self.looks.queue.push(Lane::Old, cid),
            (Goal::Hold { created, .. }, Doing::Pin) => self.pins.push(Lane::of(*created, track.tries, ctx.now.wall), cid),
            (_, Doing::Pin) => self.pins.push(Lane::Old, cid),
            (_, Doing::Unpin) => self.unpins.push(Lane::Old, cid),
        };
        track.phase = Phase::Queued { doing, place };
        match doing {
            // Mostly it is held a moment later: only that is told.
            Doing::Look => ctx.effects.push(Effect::Changed(cid)),
            Doing::Pin | Doing::Unpin => self.changed(&cid, ctx),
        }
    }

    fn wait(&mut self, cid: Cid, until: Millis, because: Because, ctx: &mut Context) {
        self.leave_phase(&cid);
        let Some(track) = self.tracks.get_mut(&cid) else { return };
        track.phase = Phase::Waiting { until, because };
        self.due.insert((until, cid));
        self.changed(&cid, ctx);
    }

    fn leave_phase(&mut self, cid: &Cid) {
        match self.tracks.get(cid).map(|track| &track.phase) {
            Some(Phase::Queued { doing: Doing::Look, place }) => self.looks.queue.remove(*place, *cid),
            Some(Phase::Queued { doing: Doing::Pin, place }) => self.pins.remove(*place, *cid),
            Some(Phase::Queued { doing: Doing::Unpin, place }) => self.unpins.remove(*place, *cid),
            Some(Phase::Waiting { until, .. }) => drop(self.due.remove(&(*until, *cid))),
            Some(Phase::Running { .. }) | None => {}
        }
    }

    fn drop_track(&mut self, cid: &Cid) {
        self.leave_phase(cid);
        self.tracks.remove(cid);
        self.removing.remove(cid);
    }

    /// Nothing is held and nothing is wanted of this peer.
    fn forget(&mut self, cid: &Cid, ctx: &mut Context) {
        self.drop_track(cid);
        self.tell(cid, 0, PinState::Unpinned, ctx);
    }

    /// A settled state, for others and for watchers.
    fn tell(&self, cid: &Cid, version: u64, state: PinState, ctx: &mut Context) {
        ctx.effects.push(Effect::Changed(*cid));
        let copy = CopyState { cid: *cid, version, state, because: None, next_try: None, tries: 0, since: ctx.now.wall };
        ctx.outbox.report(copy, ctx.now);
    }

    fn changed(&self, cid: &Cid, ctx: &mut Context) {
        ctx.effects.push(Effect::Changed(*cid));
        if let Some(copy) = self.copy_state(cid, ctx.now) {
            ctx.outbox.report(copy, ctx.now);
        }
    }
}

impl HandOver {
    fn of(pin: &Pin, version: u64, ctx: &Context) -> HandOver {
        let least = match pin.options.replicas {
            Replicas::Between { least, .. } => least.get(),
            Replicas::Unset | Replicas::Everywhere => ctx.options.class.least,
        };
        // What nobody should hold (the root of shards) needs nobody's confirmation.
        let is_held_by_none = pin.placement.is_empty() || ctx.options.planted == Some(PlantedBug::LetsGoEarly);
        let needed = if is_held_by_none { 0 } else { least.max(1) };
        let bytes = ctx.shared.own_size(&pin.cid).unwrap_or_default();
        HandOver { version, bytes, placement: pin.placement.clone(), needed, confirmed: BTreeSet::new(), asks: 0 }
    }

    fn because(&self, confirmed: u32) -> Because {
        Because::HandOver { confirmed, needed: self.needed }
    }
}

fn recoverable((cid, track): (&Cid, &Track)) -> Option<(Cid, Doing)> {
    let is_waiting = matches!(
        track.phase,
        Phase::Waiting {
            because: Because::NoRoom { .. } | Because::NoProvider { .. } | Because::NodeDown { .. } | Because::Failed { .. },
            ..
        }
    );
    let doing = if matches!(track.goal, Goal::Hold { .. }) { Doing::Pin } else { Doing::Unpin };
    is_waiting.then_some((*cid, doing))
}

#[cfg(test)]
mod tests;
