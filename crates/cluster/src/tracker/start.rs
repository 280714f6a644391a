//! Slots, due times, the brake: what is started now.

use super::{Doing, Goal, Phase, Stop, Tracker, brake};
use crate::context::Context;
use crate::health::Health;
use crate::holdings::Holdings;
use crate::options::PlantedBug;
use crate::space::Space;
use crate::{Effect, NodeOp, Notice};
use types::{Because, ByteCount, Cid, Depth, Millis, PeerId, Pin};

/// Due tracks looked at in one call; the rest at the next wake, at once.
const DUE_MOST: usize = 1_000;
/// Room is looked for again this often when none was free.
const ROOM_AGAIN: Millis = Millis::seconds(30);
/// Questions about a hand-over, at most so far apart.
const HAND_OVER_SLOWEST: Millis = Millis::minutes(1);
/// Sources named to the node.
const SOURCES_MOST: usize = 16;

/// What starting looks at beside the tracker itself.
pub(crate) struct Around<'a> {
    pub holdings: &'a Holdings,
    pub health: &'a Health,
    pub space: &'a mut Space,
}

impl Tracker {
    /// Starts what has its turn.
    pub fn advance(&mut self, around: &mut Around, ctx: &mut Context) {
        for _ in 0..DUE_MOST {
            let Some((at, cid)) = self.due.first().copied().filter(|(at, _)| *at <= ctx.now.mono) else { break };
            self.due.remove(&(at, cid));
            self.due_now(cid, around, ctx);
        }
        self.start_looks(ctx);
        self.check_brake(ctx);
        while self.running_unpins < ctx.options.concurrent_unpins {
            let Some(cid) = self.unpins.pop() else { break };
            self.start_unpin(cid, around, ctx);
        }
        while self.running_pins < ctx.options.concurrent_pins {
            let Some(cid) = self.pins.pop() else { break };
            self.start_pin(cid, around, ctx);
        }
        self.stop_stalled(ctx);
    }

    /// When [`Tracker::advance`] or the walk next has something to do.
    pub fn next_wake(&self, stall: Millis) -> Option<Millis> {
        let due = self.due.first().map(|(at, _)| *at);
        let stalled = self.running().map(|(_, moved)| Millis(moved.0.saturating_add(stall.0))).min();
        [due, stalled, self.walk.next_wake()].into_iter().flatten().min()
    }

    fn running(&self) -> impl Iterator<Item = (Cid, Millis)> + '_ {
        self.ops.values().filter_map(|cid| match &self.tracks.get(cid)?.phase {
            Phase::Running { moved, stop: Stop::No, doing: Doing::Pin, .. } => Some((*cid, *moved)),
            _ => None,
        })
    }

    fn stop_stalled(&mut self, ctx: &mut Context) {
        let stall = ctx.options.pace.stall;
        let stalled: Vec<Cid> =
            self.running().filter(|(_, at)| at.0.saturating_add(stall.0) <= ctx.now.mono.0).map(|(cid, _)| cid).collect();
        for cid in stalled {
            if let Some(Phase::Running { op, stop, .. }) = self.tracks.get_mut(&cid).map(|track| &mut track.phase) {
                *stop = Stop::Stalled;
                ctx.effects.push(Effect::Cancel(*op));
            }
        }
    }

    fn due_now(&mut self, cid: Cid, around: &mut Around, ctx: &mut Context) {
        let Some(track) = self.tracks.get(&cid) else { return };
        match &track.goal {
            Goal::Hold { .. } => self.enqueue(cid, Doing::Pin, ctx),
            Goal::Remove if track.has_failed => self.enqueue(cid, Doing::Unpin, ctx),
            Goal::Remove => self.pursue(cid, ctx),
            Goal::HandOver(_) => self.look_at_hand_over(cid, around, ctx),
        }
    }

    fn look_at_hand_over(&mut self, cid: Cid, around: &mut Around, ctx: &mut Context) {
        if self.has_changed_meanwhile(cid, ctx) {
            return;
        }
        let Some(track) = self.tracks.get_mut(&cid) else { return };
        let Goal::HandOver(hand_over) = &mut track.goal else { return };
        let confirmed = hand_over.confirmed.iter().filter(|peer| around.health.is_live(peer)).count() as u32;
        if ctx.is_current() && confirmed >= hand_over.needed {
            self.enqueue(cid, Doing::Unpin, ctx);
            return;
        }
        for peer in &hand_over.placement {
            if !hand_over.confirmed.contains(peer) && around.health.is_live(peer) {
                ctx.outbox.ask(*peer, cid);
            }
        }
        hand_over.asks += 1;
        let pause = Millis((1000u64 << hand_over.asks.min(10)).min(HAND_OVER_SLOWEST.0));
        let because = if ctx.is_current() { hand_over.because(confirmed) } else { Because::CatchingUp };
        self.wait(cid, ctx.now.after(pause), because, ctx);
    }

    /// The hint that ends a hand-over may be lost: the wish is read again, and a changed one is followed.
    fn has_changed_meanwhile(&mut self, cid: Cid, ctx: &mut Context) -> bool {
        let Some(Goal::HandOver(hand_over)) = self.tracks.get(&cid).map(|track| &track.goal) else { return false };
        let version = hand_over.version;
        match ctx.shared.pin(&cid) {
            Some((_, found)) if found == version => false,
            Some((pin, found)) if pin.is_for(&ctx.options.me) => {
                self.hold(&pin, found, false, ctx);
                true
            }
            None if !ctx.is_current() => false,
            after => {
                self.let_go(cid, after.as_ref(), true, ctx);
                true
            }
        }
    }

    fn check_brake(&mut self, ctx: &mut Context) {
        self.brake.waiting = self.removing.len() as u64;
        if (self.removing.is_empty() && !self.brake.is_on()) || ctx.options.planted == Some(PlantedBug::IgnoresBrake) {
            return;
        }
        let was_on = self.brake.is_on();
        let held = ctx.shared.ledger_count();
        if self.brake.check(held, &ctx.options.brake, ctx.now) {
            ctx.effects.push(Effect::Note(Notice::RemovalsBraked { removals: self.brake.waiting, held }));
        }
        let waiting: Vec<Cid> = if was_on || self.brake.is_on() { self.removing.iter().copied().collect() } else { Vec::new() };
        for cid in waiting {
            let is_queued = matches!(self.tracks.get(&cid).map(|track| &track.phase), Some(Phase::Queued { .. }));
            if self.brake.is_on() && is_queued {
                self.wait(cid, ctx.now.after(brake::LOOK_AGAIN), self.brake.reason(held), ctx);
            } else if !self.brake.is_on() && !is_queued {
                self.pursue(cid, ctx);
            }
        }
    }

    fn start_unpin(&mut self, cid: Cid, around: &Around, ctx: &mut Context) {
        let Some(track) = self.tracks.get_mut(&cid) else { return };
        track.phase = Phase::Waiting { until: ctx.now.mono, because: Because::CatchingUp };
        if !self.may_let_go(cid, around, ctx) {
            return;
        }
        if self.removing.remove(&cid) {
            self.brake.done(ctx.now);
        }
        self.running_unpins += 1;
        self.run(cid, Doing::Unpin, Depth::Recursive, NodeOp::Unpin { cid }, ctx);
    }

    /// Looks once more before letting go: the view, the ledger, the wish as it is now, the new holders. Where the answer
    /// is no, the track goes another way.
    fn may_let_go(&mut self, cid: Cid, around: &Around, ctx: &mut Context) -> bool {
        let me = ctx.options.me;
        if !ctx.is_current() {
            self.pursue(cid, ctx);
            return false;
        }
        if !ctx.shared.is_ours(&cid) && ctx.options.planted != Some(PlantedBug::IgnoresLedger) {
            self.forget(&cid, ctx);
            return false;
        }
        let Some(after) = ctx.shared.pin(&cid) else { return true };
        if after.0.is_for(&me) {
            self.hold(&after.0, after.1, false, ctx);
            return false;
        }
        let is_confirmed = match self.tracks.get(&cid).map(|track| &track.goal) {
            Some(Goal::HandOver(hand_over)) => {
                let live = hand_over.confirmed.iter().filter(|peer| around.health.is_live(peer)).count() as u32;
                hand_over.version == after.1 && live >= hand_over.needed
            }
            _ => false,
        };
        if !is_confirmed {
            self.let_go(cid, Some(&after), true, ctx);
        }
        is_confirmed
    }

    fn start_pin(&mut self, cid: Cid, around: &mut Around, ctx: &mut Context) {
        let Some(track) = self.tracks.get_mut(&cid) else { return };
        if !matches!(track.goal, Goal::Hold { .. }) {
            self.pursue(cid, ctx);
            return;
        }
        track.phase = Phase::Waiting { until: ctx.now.mono, because: Because::Unconfirmed };
        let Some((pin, version)) = ctx.shared.pin(&cid) else {
            self.let_go(cid, None, true, ctx);
            return;
        };
        if !pin.is_for(&ctx.options.me) {
            self.let_go(cid, Some(&(pin, version)), true, ctx);
            return;
        }
        if let Err((needed, free)) = around.space.reserve_pin(&cid) {
            self.wait(cid, ctx.now.after(ROOM_AGAIN), Because::NoRoom { needed, free }, ctx);
            return;
        }
        if let Some(track) = self.tracks.get_mut(&cid) {
            track.goal = Goal::hold(&pin, version);
        }
        let holders = sources(&cid, &pin, &ctx.options.me, around);
        self.running_pins += 1;
        self.run(cid, Doing::Pin, pin.depth, NodeOp::Pin { cid, depth: pin.depth, holders }, ctx);
    }

    fn run(&mut self, cid: Cid, doing: Doing, depth: Depth, node_op: NodeOp, ctx: &mut Context) {
        let op = ctx.ids.op();
        self.ops.insert(op, cid);
        if let Some(track) = self.tracks.get_mut(&cid) {
            track.since = ctx.now.wall;
            track.phase = Phase::Running { op, doing, depth, progress: (0, ByteCount::ZERO, 0), moved: ctx.now.mono, stop: Stop::No };
        }
        ctx.effects.push(Effect::Node(op, node_op));
        self.changed(&cid, ctx);
    }
}

/// Who may have the blocks, best first: confirmed holders, holders that are letting go, other placed peers; live ones only.
fn sources(cid: &Cid, pin: &Pin, me: &PeerId, around: &Around) -> Vec<PeerId> {
    let confirmed = pin.placement.iter().copied().filter(|peer| around.holdings.is_confirmed(peer, cid));
    let mut sources: Vec<PeerId> = Vec::new();
    for peer in confirmed.chain(around.holdings.leaving_holders(cid)).chain(pin.placement.iter().copied()) {
        if peer != *me && around.health.is_live(&peer) && !sources.contains(&peer) && sources.len() < SOURCES_MOST {
            sources.push(peer);
        }
    }
    if pin.is_everywhere() {
        let others = around.health.iter().map(|(peer, _)| *peer).filter(|peer| around.health.is_live(peer));
        sources.extend(others.filter(|peer| around.holdings.is_confirmed(peer, cid)).take(SOURCES_MOST));
    }
    sources
}
