//! The nodes: fetching from who has it, at some speed, onto a disk with an end.

use super::World;
use crate::invariants::Invariant;
use crate::peer::Done;
use crate::queue::{Place, Time, What};
use crate::truth::Promise;
use cluster::{Event, NodeFailure, NodeOp, NodeOutcome, OpId};
use rand::Rng;
use types::{ByteCount, Cid, PeerId};

/// Bytes per millisecond.
const SPEED: u64 = 100_000;
/// A disk lost within this time excuses a missing copy.
const DISK_EXCUSE: Time = 600_000;

impl World {
    pub(super) fn node_begins(&mut self, place: Place, op: OpId, node_op: NodeOp) {
        let life = self.peers[place].life;
        let (delay, done) = match node_op {
            NodeOp::ListHeld { after, limit } => (5, Done::List(op, after, limit)),
            NodeOp::Unpin { cid } => {
                self.note(place, 7, Some(&cid));
                self.must_know_what_goes(place, &cid);
                self.remember(place, op, cid);
                (self.chance.random_range(2..20), Done::Unpin(op))
            }
            NodeOp::PinHere { cid, .. } => {
                self.remember(place, op, cid);
                let done = if self.peers[place].node.has_blocks(&cid) { Done::Pin(op) } else { Done::Absent(op) };
                (self.chance.random_range(1..10), done)
            }
            NodeOp::Pin { cid, holders, .. } => {
                self.note(place, 8, Some(&cid));
                self.remember(place, op, cid);
                self.must_be_needed(place, &cid);
                self.fetch(place, op, &cid, &holders)
            }
        };
        self.at(self.now + delay, What::NodeDone(place, life, done));
    }

    fn remember(&mut self, place: Place, op: OpId, cid: Cid) {
        if let Some(running) = self.peers[place].running.as_mut() {
            running.ops.insert(op, cid);
        }
    }

    fn must_be_needed(&mut self, place: Place, cid: &Cid) {
        if self.must_rest && !self.truth.item(cid).is_some_and(|item| item.is_unfetchable) {
            self.break_rule(Invariant::AtRest, format!("peer {place} pins {cid}"));
        }
    }

    /// How a fetch will go: when, and how it ends unless the world changes meanwhile.
    fn fetch(&mut self, place: Place, op: OpId, cid: &Cid, holders: &[PeerId]) -> (Time, Done) {
        let size = self.truth.size(cid);
        if self.peers[place].node.has_blocks(cid) {
            return (10, Done::Pin(op));
        }
        if !self.is_available(place, cid, holders) {
            return (self.chance.random_range(500..4_000), Done::Missing(op));
        }
        if self.peers[place].node.begin(cid, size).is_err() {
            return (5, Done::NoRoom(op));
        }
        let whole = 20 + size / SPEED + self.chance.random_range(0..200);
        let life = self.peers[place].life;
        self.at(self.now + whole / 2, What::NodeDone(place, life, Done::Half(op)));
        (whole, Done::Pin(op))
    }

    /// Whether anybody who can be reached has it: first who was named, then everybody, then the world outside.
    fn is_available(&self, place: Place, cid: &Cid, holders: &[PeerId]) -> bool {
        let named = holders.iter().filter_map(|peer| self.places.get(peer).copied());
        named.chain(0..self.peers.len()).any(|other| self.are_joined(place, other) && self.peers[other].node.has_blocks(cid))
            || self.truth.item(cid).is_some_and(|item| item.is_outside && !item.is_unfetchable)
    }

    pub(super) fn node_done(&mut self, place: Place, life: u32, done: Done) {
        if !self.lives(place, life) {
            return;
        }
        if let Done::List(op, after, limit) = done {
            let page = self.peers[place].node.page(after.as_ref(), limit);
            self.think(place, Event::Node(op, NodeOutcome::Held(page)));
            return;
        }
        let op = match done {
            Done::Half(op)
            | Done::Pin(op)
            | Done::Absent(op)
            | Done::Missing(op)
            | Done::NoRoom(op)
            | Done::Unpin(op)
            | Done::Cancelled(op) => op,
            Done::List(..) => return,
        };
        let Some(cid) = self.peers[place].running.as_ref().and_then(|running| running.ops.get(&op).copied()) else { return };
        let size = self.truth.size(&cid);
        if let Done::Half(_) = done {
            let progress = NodeOutcome::Progress { blocks: 1, bytes: ByteCount(size / 2), missing: 1 };
            self.think(place, Event::Node(op, progress));
            return;
        }
        if let Some(running) = self.peers[place].running.as_mut() {
            running.ops.remove(&op);
        }
        let outcome = self.outcome(place, &cid, size, done);
        self.measure(place);
        self.think(place, Event::Node(op, outcome));
    }

    fn outcome(&mut self, place: Place, cid: &Cid, size: u64, done: Done) -> NodeOutcome {
        match done {
            Done::Pin(_) => self.pinned(place, cid, size),
            Done::Absent(_) => NodeOutcome::NotHere,
            Done::Unpin(_) => {
                self.let_go(place, cid);
                NodeOutcome::Unpinned
            }
            Done::NoRoom(_) => {
                let node = &self.peers[place].node;
                let free = node.limit.saturating_sub(node.used());
                NodeOutcome::Failed(NodeFailure::NoRoom { needed: ByteCount(size), free: ByteCount(free) })
            }
            Done::Cancelled(_) => {
                self.peers[place].node.abandon(cid);
                NodeOutcome::Cancelled
            }
            _ => NodeOutcome::Failed(NodeFailure::Missing { missing: 1, first: Some(*cid), asked: String::new() }),
        }
    }

    fn pinned(&mut self, place: Place, cid: &Cid, size: u64) -> NodeOutcome {
        let node = &self.peers[place].node;
        if node.is_foreign(cid) && !node.has_owners {
            return NodeOutcome::AlreadyHeld { bytes: ByteCount(size) };
        }
        // Who had it may have gone meanwhile.
        if !self.peers[place].node.has_blocks(cid) && !self.is_available(place, cid, &[]) {
            self.peers[place].node.abandon(cid);
            return NodeOutcome::Failed(NodeFailure::Missing { missing: 1, first: Some(*cid), asked: String::new() });
        }
        self.peers[place].node.finish(cid, size);
        self.numbers.pinned += 1;
        self.say(|| format!("peer {place} holds {cid}"));
        let holders = self.peers.iter().filter(|peer| peer.node.holds(cid)).count() as u32;
        self.truth.held_by(cid, holders);
        NodeOutcome::Pinned { bytes: ByteCount(size) }
    }

    /// A copy goes. This is where content is lost, so it is where one looks.
    fn let_go(&mut self, place: Place, cid: &Cid) {
        let had_it = self.peers[place].node.holds(cid);
        self.peers[place].node.unpin(cid);
        let has_it = self.peers[place].node.holds(cid);
        if self.peers[place].persons.contains(cid) && !has_it {
            self.break_rule(Invariant::NothingForeignRemoved, format!("peer {place} removes {cid}, which a person pinned there"));
        }
        if self.must_rest {
            self.break_rule(Invariant::AtRest, format!("peer {place} lets {cid} go"));
        }
        let is_wished = self.peers[place].running.as_ref().is_some_and(|running| running.view.get(cid).is_some());
        let others = self.peers.iter().enumerate().filter(|(other, peer)| *other != place && peer.node.holds(cid)).count();
        if let Some(item) = self.truth.item(cid) {
            let excused = item.lost.iter().filter(|time| self.now - **time < DISK_EXCUSE).count();
            let is_short = others + excused < item.least.max(1) as usize;
            // What a person asked to be removed elsewhere may go on one side of a cut before the other knows it.
            let is_wanted = matches!(item.promise, Promise::None | Promise::Kept);
            if is_wished && is_wanted && is_short && had_it && !has_it {
                let least = item.least;
                self.break_rule(
                    Invariant::NeverLastCopy,
                    format!("peer {place} lets {cid} go, {others} others hold it, {least} are wished"),
                );
            } else if !is_wished && !has_it && self.truth.is_kept(cid) {
                self.break_rule(Invariant::AcknowledgedIsKept, format!("peer {place} lets {cid} go, which was promised to be kept"));
            }
        }
        self.say(|| format!("peer {place} lets {cid} go, {others} others hold it"));
        self.numbers.unpinned += 1;
    }

    /// Tells the machine how full the disk is.
    pub(super) fn measure(&mut self, place: Place) {
        let (limit, used) = (self.peers[place].node.limit, self.peers[place].node.used());
        if used > limit {
            self.break_rule(Invariant::WithinLimits, format!("peer {place} holds {used} of {limit} bytes"));
        }
        self.think(place, Event::Space { limit: ByteCount(limit), used: ByteCount(used), upkeep: ByteCount::ZERO });
    }
}
