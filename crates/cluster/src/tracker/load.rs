//! How much this peer has for the cluster: copies placed on it and held, what it hands over, what others use of its room.
//!
//! Counted exactly by each full round out of the ledger, which keeps the sizes; changes in between are added and taken off.

use super::{Goal, Tracker};
use crate::PinChange;
use crate::context::Context;
use crate::order::byte_order;
use types::{ByteCount, Cid, Load, Millis, Now, Pin};

/// Blocks that were let go are collected within this; until then they would pass for somebody else's.
const COLLECTED: Millis = Millis::minutes(2);

#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    copies: u64,
    bytes: ByteCount,
}

impl Counted {
    fn gain(&mut self, bytes: ByteCount) {
        self.copies += 1;
        self.bytes += bytes;
    }

    fn lose(&mut self, bytes: ByteCount) {
        self.copies = self.copies.saturating_sub(1);
        self.bytes = self.bytes - bytes;
    }
}

/// The running count.
#[derive(Clone, Debug, Default)]
pub(super) struct Loads {
    counted: Counted,
    /// What the round under way has counted up to its cursor.
    counting: Counted,
    has_counted: bool,
    foreign: ByteCount,
    freed: Option<Millis>,
}

impl Loads {
    /// A page of the round: what is wanted here, and the ledger; both sorted by the CID's bytes.
    pub fn count_page(&mut self, wanted: &[(Pin, u64)], ours: &[(Cid, ByteCount)]) {
        for (pin, _) in wanted.iter().filter(|(pin, _)| !pin.is_everywhere()) {
            if let Ok(index) = ours.binary_search_by(|(cid, _)| byte_order(cid, &pin.cid)) {
                self.counting.gain(ours[index].1);
            }
        }
    }

    /// The round compared everything.
    pub fn round_ended(&mut self) {
        self.counted = std::mem::take(&mut self.counting);
        self.has_counted = true;
    }

    /// The round began anew.
    pub fn round_began(&mut self) {
        self.counting = Counted::default();
    }

    /// Something was let go.
    pub fn freed(&mut self, now: Now) {
        self.freed = Some(now.mono);
    }
}

impl Goal {
    /// To hold a pin as it is wished now.
    pub(super) fn hold(pin: &Pin, version: u64) -> Goal {
        Goal::Hold { version, depth: pin.depth, created: pin.created, is_movable: !pin.is_everywhere() }
    }
}

impl Tracker {
    /// What this peer has; none before its first full comparison.
    pub fn load(&self) -> Option<Load> {
        let Loads { counted, foreign, has_counted, .. } = &self.loads;
        has_counted.then(|| Load { copies: counted.copies, placed: counted.bytes, moving: self.moving(), foreign: *foreign })
    }

    /// The two numbers of it that every placement looks at.
    pub fn placed_and_foreign(&self) -> Option<(ByteCount, ByteCount)> {
        self.loads.has_counted.then_some((self.loads.counted.bytes, self.loads.foreign))
    }

    /// The average size of the own copies.
    pub fn mean_size(&self) -> ByteCount {
        let Counted { copies, bytes } = self.loads.counted;
        ByteCount(bytes.get().checked_div(copies).unwrap_or(0))
    }

    /// Bytes that wait for their new holders.
    fn moving(&self) -> ByteCount {
        let bytes = |goal: &Goal| if let Goal::HandOver(hand_over) = goal { hand_over.bytes } else { ByteCount::ZERO };
        self.tracks.values().fold(ByteCount::ZERO, |sum, track| sum + bytes(&track.goal))
    }

    /// The node's use of its limit was measured: what is neither placed nor handed over is somebody else's. What was let go
    /// lately may not be collected yet, and counts as nobody's.
    pub fn measured(&mut self, used: ByteCount, now: Now) {
        if !self.loads.has_counted {
            return;
        }
        let foreign = used - self.loads.counted.bytes - self.moving();
        let is_settled = self.loads.freed.is_none_or(|at| now.mono.0.saturating_sub(at.0) > COLLECTED.0);
        if foreign < self.loads.foreign || is_settled {
            self.loads.foreign = foreign;
        }
    }

    /// The wish changed: what is held here counts, or counts no more.
    pub(super) fn count_change(&mut self, change: &PinChange, ctx: &Context) {
        let counts = |pin: &Pin| pin.is_for(&ctx.options.me) && !pin.is_everywhere();
        let was = change.before.as_ref().is_some_and(counts);
        let is = change.after.as_ref().is_some_and(|(pin, _)| counts(pin));
        if was == is {
            return;
        }
        let Some(bytes) = ctx.shared.own_size(&change.cid) else { return };
        self.count(&change.cid, |counted| if is { counted.gain(bytes) } else { counted.lose(bytes) });
    }

    /// A copy was completed; called before it is in the ledger.
    pub(super) fn count_pinned(&mut self, cid: &Cid, bytes: ByteCount, ctx: &Context) {
        let is_counted = matches!(self.tracks.get(cid).map(|track| &track.goal), Some(Goal::Hold { is_movable: true, .. }));
        if is_counted && ctx.shared.own_size(cid).is_none() {
            self.count(cid, |counted| counted.gain(bytes));
        }
    }

    fn count(&mut self, cid: &Cid, change: impl Fn(&mut Counted)) {
        change(&mut self.loads.counted);
        if self.walk.cursor.is_some_and(|cursor| byte_order(cid, &cursor).is_le()) {
            change(&mut self.loads.counting);
        }
    }
}
