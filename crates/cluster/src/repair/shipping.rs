//! Balancing, as a giver: which of the own copies go to whom. Begun anew with each walk, from what all peers said last.

use crate::decisions::{Balancing, Duty};
use crate::look::Look;
use crate::placement::balance::{self, Share, Shipping, Tolerance};
use crate::placement::{self, Candidate, Rules};
use crate::plan;
use types::{ByteCount, PeerId, Pin};

/// One walk's orders.
#[derive(Clone, Debug, Default)]
pub(super) struct Orders {
    shipping: Shipping,
    /// While this peer drains: what each other peer lacks.
    draining: Shipping,
    candidates: Vec<Candidate>,
    /// Copies chosen in this walk.
    chosen: u64,
    /// There was something to give, and nothing fitted.
    was_stuck: bool,
    /// The decision to balance at once that was carried out.
    carried_out: u64,
}

impl Orders {
    /// Begins a walk. `copies`: of an item on average, in thousandths.
    pub fn begin(&mut self, copies: u64, look: Look) {
        self.was_stuck = !self.shipping.is_empty() && self.chosen == 0;
        self.chosen = 0;
        self.shipping = Shipping::default();
        self.draining = Shipping::default();
        self.candidates = Vec::new();
        if look.is_leaving {
            if let Some((shares, moving)) = shares(look) {
                let targets = balance::targets(&shares, moving, copies);
                self.draining = Shipping::new(balance::shipments(&look.options.me, &shares, &targets), true);
            }
            return;
        }
        let (mode, version) = look.decisions.balancing();
        let is_asked = mode == Balancing::Now && version != self.carried_out;
        let is_on = look.options.repair.is_on && (is_asked || (look.options.repair.balances && mode != Balancing::Off));
        if !is_on || look.decisions.duty(&look.options.me) != Duty::InUse {
            return;
        }
        let Some((shares, moving)) = shares(look) else { return };
        let targets = balance::targets(&shares, moving, copies);
        let tolerance = if is_asked { Tolerance::ASKED } else { Tolerance::AUTO };
        if !balance::is_uneven(&shares, &targets, tolerance) {
            if is_asked {
                self.carried_out = version;
            }
            return;
        }
        self.shipping = Shipping::new(balance::shipments(&look.options.me, &shares, &targets), self.was_stuck);
        self.candidates = look.candidates();
    }

    /// Who should get a copy that this peer hands over, so that all are filled alike.
    pub fn drains_to(&self, pin: &Pin, size: ByteCount, look: Look) -> Option<PeerId> {
        let candidates = look.candidates();
        let rules = Rules { size: Some(size), ..Rules::copies(1, 1, 1) };
        self.draining.best(size.get(), |peer| {
            let candidate = candidates.iter().find(|candidate| candidate.peer == *peer);
            candidate.is_some_and(|candidate| placement::may_take(candidate, &rules, pin, &look.options.me, &candidates))
        })
    }

    /// A copy was handed over to these.
    pub fn handed_over(&mut self, to: &[PeerId], size: ByteCount) {
        to.iter().for_each(|peer| self.draining.used(peer, size.get()));
    }

    /// Whether there is something to give.
    pub fn is_active(&self) -> bool {
        !self.candidates.is_empty()
    }

    /// Who gets the own copy of a pin that is whole.
    pub fn choose(&mut self, pin: &Pin, size: ByteCount, me: &PeerId) -> Option<PeerId> {
        let (candidates, shipping) = (&self.candidates, &mut self.shipping);
        if size == ByteCount::ZERO || shipping.is_empty() {
            return None;
        }
        let rules = Rules { size: Some(size), ..Rules::copies(1, 1, 1) };
        let to = shipping.take(size.get(), |peer| {
            let candidate = candidates.iter().find(|candidate| candidate.peer == *peer);
            candidate.is_some_and(|candidate| placement::may_take(candidate, &rules, pin, me, candidates))
        })?;
        self.chosen += 1;
        Some(to)
    }
}

/// What everybody has, and bytes on their way; none before the own copies are counted.
fn shares(look: Look) -> Option<(Vec<Share>, u64)> {
    look.tracker.placed_and_foreign()?;
    Some(plan::shares(&look.candidates(), &look.loads()))
}
