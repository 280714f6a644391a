//! What is here completely already needs no fetching and no slot for it: many looks at a time, which the node gathers.
//!
//! Every new wish is looked at first: the blocks of an add are at its holders before the pin is, and a pin of an inline block is
//! never anywhere else. What is not here goes to the queue of the fetches; later tries go there at once.

use super::{Doing, Goal, Phase, Queue, Stop, Tracker};
use crate::context::Context;
use crate::options::PlantedBug;
use crate::space::Space;
use crate::{Effect, NodeOp, NodeOutcome, OpId};
use std::collections::BTreeMap;
use types::{ByteCount, Cid};

/// Looks under way at once: a few of the node's writes.
const LOOKS_MOST: usize = 1_000;

/// Looks that wait and that are under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Looks {
    pub queue: Queue,
    running: BTreeMap<OpId, Cid>,
}

impl Looks {
    /// Takes out a look that ended; none when `op` is no look.
    pub fn ended(&mut self, op: OpId) -> Option<Cid> {
        self.running.remove(&op)
    }
}

impl Tracker {
    /// Starts what waits to be looked at. The wish is not read again: a change of it comes as a hint, and what was pinned in vain
    /// is then let go as anything else.
    pub(super) fn start_looks(&mut self, ctx: &mut Context) {
        while self.looks.running.len() < LOOKS_MOST {
            let Some(cid) = self.looks.queue.pop() else { break };
            let Some(track) = self.tracks.get_mut(&cid) else { continue };
            let Goal::Hold { depth, .. } = track.goal else {
                self.pursue(cid, ctx);
                continue;
            };
            let op = ctx.ids.op();
            let (progress, moved) = ((0, ByteCount::ZERO, 0), ctx.now.mono);
            track.phase = Phase::Running { op, doing: Doing::Look, depth, progress, moved, stop: Stop::No };
            self.looks.running.insert(op, cid);
            ctx.effects.push(Effect::Node(op, NodeOp::PinHere { cid, depth }));
        }
    }

    /// A look ended: it is held, or it is to be fetched.
    pub(super) fn looked(&mut self, cid: Cid, outcome: &NodeOutcome, space: &mut Space, ctx: &mut Context) {
        let Some(Phase::Running { doing: Doing::Look, depth, .. }) = self.tracks.get(&cid).map(|track| &track.phase) else { return };
        let depth = *depth;
        self.walk.touched(&cid);
        match *outcome {
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
            // A failure too: the fetch meets it again and says what is wrong.
            _ => self.ended_otherwise(cid, ctx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Table, cid, peer, pin_on};
    use crate::{Event, Options};
    use types::PinOptions;

    fn wished(count: u64) -> Table {
        let mut table = Table::started(Options::new(peer(1), "one", "test"));
        table.node_works = false;
        table.has_blocks = true;
        for number in 0..count {
            table.wish(pin_on(cid(number), &[peer(1)], PinOptions::default()));
        }
        table
    }

    fn looks(table: &Table) -> Vec<(OpId, Cid)> {
        let look = |(op, node_op): &(OpId, NodeOp)| match node_op {
            NodeOp::PinHere { cid, .. } => Some((*op, *cid)),
            _ => None,
        };
        table.open.iter().filter_map(look).collect()
    }

    fn ends(table: &mut Table, outcomes: Vec<(OpId, NodeOutcome)>) {
        table.open.retain(|(open, _)| outcomes.iter().all(|(op, _)| op != open));
        table.handle(Event::Together(outcomes.into_iter().map(|(op, outcome)| Event::Node(op, outcome)).collect()));
    }

    #[test]
    fn what_is_here_is_held_without_a_fetch() {
        let mut table = wished(50);
        let looks = looks(&table);
        assert_eq!(looks.len(), 50, "no slots for fetching are needed");
        table.effects.clear();
        ends(&mut table, looks.into_iter().map(|(op, _)| (op, NodeOutcome::Pinned { bytes: ByteCount(1) })).collect());
        assert!(table.machine.is_at_rest());
        assert_eq!(table.shelf.ledger.len(), 50);
        assert!(!table.effects.iter().any(|effect| matches!(effect, Effect::Node(..))));
    }

    #[test]
    fn what_is_not_here_is_fetched_in_its_turn() {
        let mut table = wished(30);
        let looks = looks(&table);
        ends(&mut table, looks.into_iter().map(|(op, _)| (op, NodeOutcome::NotHere)).collect());
        let fetches = table.open.iter().filter(|(_, op)| matches!(op, NodeOp::Pin { .. })).count();
        assert_eq!(fetches, Options::new(peer(1), "one", "test").concurrent_pins);
    }

    #[test]
    fn looks_are_bounded_and_go_on() {
        let mut table = wished(LOOKS_MOST as u64 + 5);
        let first = looks(&table);
        assert_eq!(first.len(), LOOKS_MOST);
        ends(&mut table, first.into_iter().take(7).map(|(op, _)| (op, NodeOutcome::Pinned { bytes: ByteCount(1) })).collect());
        assert_eq!(looks(&table).len(), LOOKS_MOST - 2);
    }

    #[test]
    fn a_wish_that_ends_during_the_look_is_let_go_after_it() {
        for (outcome, is_let_go) in [(NodeOutcome::Pinned { bytes: ByteCount(1) }, true), (NodeOutcome::NotHere, false)] {
            let mut table = wished(1);
            let (op, cid) = looks(&table)[0];
            table.unwish(cid);
            ends(&mut table, vec![(op, outcome)]);
            table.pass(types::Millis(10));
            let unpins = table.open.iter().filter(|(_, op)| matches!(op, NodeOp::Unpin { .. })).count();
            assert_eq!(unpins, usize::from(is_let_go));
            assert_eq!(table.machine.is_at_rest(), !is_let_go);
        }
    }
}
