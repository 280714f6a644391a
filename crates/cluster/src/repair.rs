//! All pins: copies against what is wished -> new placements; who proposes; how fast; expiry.
//!
//! From state, not from alarms: a walk over the wish, in pages across wakes, finds what is short. The live trusted peer
//! closest to the CID proposes at once, the next after `patience`, and so on; each reads the pin again before it writes.
//! Nothing moves in what looks like a split. Old holders keep their copies until the new ones have confirmed (tracker).

mod graves;
pub mod judge;
mod tokens;

use crate::context::Context;
use crate::look::Look;
use crate::options::PlantedBug;
use crate::order::Distances;
use crate::{Change, Effect, Notice, PinChange};
use graves::Graves;
use judge::{Verdict, judge};
use std::collections::{BTreeMap, BTreeSet};
use tokens::Tokens;
use types::{Because, Cid, Millis, PeerId, Pin, UnixMillis};

/// Pins looked at in one wake.
const PAGE: usize = 500;
/// Between two pages.
const PAGE_PAUSE: Millis = Millis(20);
/// Between two walks, whatever happens; a cluster in trouble has news all the time.
const WALK_GAP: Millis = Millis::seconds(10);
/// While this peer leaves, between two walks.
const WALK_LEAVING: Millis = Millis::seconds(2);
/// Pins that wait for this peer's turn; more are found by the next walk.
const NOTICED_MOST: usize = 10_000;
/// Changes in one write.
const WRITE_MOST: usize = 100;
/// A write whose result was not seen for so long is tried again.
const WRITE_AGAIN: Millis = Millis::seconds(30);
/// Out of tokens: looked at again.
const THROTTLED: Millis = Millis::seconds(2);
/// Pins remembered as being repaired, to say when they are healed.
const REPAIRING_MOST: usize = 10_000;

/// What one full walk counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Pins.
    pub pins: u64,
    /// With fewer confirmed live copies than their least.
    pub short: u64,
    /// Placed on this peer.
    pub placed_here: u64,
    /// Placed on this peer and confirmed nowhere else.
    pub only_here: u64,
    /// While this peer leaves: placed on it, and nobody can take the copy.
    pub hopeless_here: u64,
}

/// The walk and what it found.
#[derive(Clone, Debug)]
pub(crate) struct Repair {
    cursor: Option<Cid>,
    next: Millis,
    ended: Millis,
    counting: Counts,
    counted: Counts,
    /// Full walks since start.
    pub walks: u64,
    noticed: BTreeMap<Cid, Millis>,
    due: BTreeSet<(Millis, Cid)>,
    writing: BTreeMap<Cid, Millis>,
    surplus: BTreeMap<Cid, Millis>,
    repairing: BTreeSet<Cid>,
    pins: Tokens,
    bytes: Tokens,
    distances: Distances,
    graves: Graves,
}

impl Repair {
    pub fn new(limits: &crate::options::RepairLimits) -> Repair {
        Repair {
            cursor: None,
            next: Millis(0),
            ended: Millis(0),
            counting: Counts::default(),
            counted: Counts::default(),
            walks: 0,
            noticed: BTreeMap::new(),
            due: BTreeSet::new(),
            writing: BTreeMap::new(),
            surplus: BTreeMap::new(),
            repairing: BTreeSet::new(),
            pins: Tokens::new(u64::from(limits.pins_per_minute)),
            bytes: Tokens::new(limits.bytes_per_minute),
            distances: Distances::default(),
            graves: Graves::default(),
        }
    }

    /// Something changed that concerns many pins: walk soon. A walk that is under way goes on and another follows it.
    pub fn look_soon(&mut self, ctx: &Context) {
        if self.cursor.is_none() {
            self.next = self.next.min(ctx.now.mono.max(Millis(self.ended.0.saturating_add(WALK_GAP.0))));
        }
    }

    /// Somebody waits for what the walk finds: the next one begins at once.
    pub fn look_now(&mut self, ctx: &Context) {
        if self.cursor.is_none() {
            self.next = ctx.now.mono;
        }
    }

    /// A time for a pin that is written anew.
    pub fn time_for(&self, cid: &Cid, wall: UnixMillis) -> UnixMillis {
        self.graves.time_for(cid, wall)
    }

    /// Whether this is a removed pin, brought back with all else equal.
    pub fn is_ghost(&self, pin: &Pin) -> bool {
        self.graves.is_ghost(pin)
    }

    /// One pin changed: what was noticed about it is void.
    pub fn wish_changed(&mut self, change: &PinChange, look: Look, ctx: &Context) {
        let cid = &change.cid;
        self.writing.remove(cid);
        self.surplus.remove(cid);
        self.unnotice(cid);
        match (&change.before, &change.after) {
            (Some(before), None) => self.graves.bury(before),
            (None, Some((after, _))) if self.graves.is_ghost(after) => self.notice(after, look, true, ctx),
            _ => {}
        }
    }

    /// Whether this peer is the first of those who could propose.
    pub fn is_first(&mut self, cid: &Cid, look: Look) -> bool {
        self.rank(cid, look) == 0
    }

    /// What the last full walk counted.
    pub fn counted(&self) -> Counts {
        self.counted
    }

    /// When this peer may propose for a pin that it noticed.
    pub fn proposes_at(&self, cid: &Cid) -> Option<Millis> {
        self.noticed.get(cid).copied()
    }

    /// When [`Repair::advance`] next has something to do.
    pub fn next_wake(&self) -> Option<Millis> {
        self.due.first().map(|(at, _)| *at).into_iter().chain([self.next]).min()
    }

    /// Goes one page on, and proposes what has its turn. The changes are to be submitted.
    pub fn advance(&mut self, look: Look, ctx: &mut Context) -> Vec<Change> {
        let mut changes = Vec::new();
        if !ctx.may_repair() {
            self.next = self.next.max(ctx.now.after(Millis::seconds(1)));
            self.noticed.clear();
            self.due.clear();
            return changes;
        }
        let may_write =
            look.options.repair.is_on && (!look.health.is_split() || look.options.planted == Some(PlantedBug::IgnoresPartition));
        while changes.len() < WRITE_MOST {
            let Some((at, cid)) = self.due.first().copied().filter(|(at, _)| *at <= ctx.now.mono) else { break };
            self.due.remove(&(at, cid));
            self.noticed.remove(&cid);
            if let Some((pin, _)) = ctx.shared.pin(&cid) {
                self.act(&pin, look, may_write, &mut changes, ctx);
            }
        }
        if self.next <= ctx.now.mono {
            self.walk(look, may_write, ctx);
        }
        changes
    }

    fn walk(&mut self, look: Look, may_write: bool, ctx: &mut Context) {
        let (shared, cursor) = (ctx.shared, self.cursor);
        let mut last = None;
        let seen = shared.each_pin_after(cursor.as_ref(), PAGE, &mut |pin, _| {
            self.count(pin, look, ctx);
            self.notice(pin, look, may_write, ctx);
            last = Some(pin.cid);
        });
        if seen == PAGE {
            self.cursor = last;
            self.next = ctx.now.after(PAGE_PAUSE);
            return;
        }
        self.cursor = None;
        self.ended = ctx.now.mono;
        self.counted = std::mem::take(&mut self.counting);
        self.walks += 1;
        let limits = &look.options.repair;
        let (seen, known) = look.health.seen();
        let is_busy = self.counted.short > 0 || seen < known || !self.surplus.is_empty() || look.holdings.exceptions_count() > 0;
        let pause = match (look.is_leaving, is_busy) {
            (true, _) => WALK_LEAVING.min(limits.walk_busy),
            (false, true) => limits.walk_busy,
            (false, false) => limits.walk_quiet,
        };
        self.next = ctx.now.after(pause);
        self.writing.retain(|_, at| at.0.saturating_add(WRITE_AGAIN.0) > ctx.now.mono.0);
    }

    fn count(&mut self, pin: &Pin, look: Look, ctx: &mut Context) {
        self.counting.pins += 1;
        let Some((least, _)) = look.wished(pin) else { return };
        let confirmed = look.confirmed_live(pin);
        self.counting.short += u64::from(confirmed < least);
        if pin.placement.contains(&look.options.me) {
            let own = u32::from(look.is_confirmed(&look.options.me, &pin.cid));
            self.counting.placed_here += 1;
            self.counting.only_here += u64::from(confirmed == own);
            if look.is_leaving {
                self.counting.hopeless_here += u64::from(matches!(self.judge(pin, look), Verdict::Hopeless(_)));
            }
        }
        if confirmed >= least && self.repairing.remove(&pin.cid) {
            ctx.effects.push(Effect::Note(Notice::Repaired { cid: pin.cid }));
        }
    }

    /// Looks whether something is to be done about a pin, and when it is this peer's turn.
    fn notice(&mut self, pin: &Pin, look: Look, may_write: bool, ctx: &Context) {
        let cid = pin.cid;
        if !may_write || self.noticed.contains_key(&cid) || self.writing.contains_key(&cid) {
            return;
        }
        let verdict = self.judge(pin, look);
        if !matches!(verdict, Verdict::Trim { .. } | Verdict::Move { .. }) {
            self.surplus.remove(&cid);
        }
        match verdict {
            Verdict::Fine | Verdict::Hopeless(_) => {}
            Verdict::Replace { .. } | Verdict::Expired => {
                let rank = self.rank(&cid, look);
                let at = ctx.now.after(Millis(look.options.repair.patience.0.saturating_mul(u64::from(rank))));
                if self.noticed.len() < NOTICED_MOST {
                    self.noticed.insert(cid, at);
                    self.due.insert((at, cid));
                }
            }
            Verdict::Trim { .. } | Verdict::Move { .. } => {
                let since = *self.surplus.entry(cid).or_insert(ctx.now.mono);
                let is_due = ctx.now.mono.0.saturating_sub(since.0) >= look.options.repair.trim_after.0;
                if is_due && self.noticed.len() < NOTICED_MOST && self.rank(&cid, look) == 0 {
                    self.noticed.insert(cid, ctx.now.mono);
                    self.due.insert((ctx.now.mono, cid));
                }
            }
        }
    }

    fn unnotice(&mut self, cid: &Cid) {
        if let Some(at) = self.noticed.remove(cid) {
            self.due.remove(&(at, *cid));
        }
    }

    /// A ghost ends as an expired pin does.
    fn judge(&self, pin: &Pin, look: Look) -> Verdict {
        if self.graves.is_ghost(pin) { Verdict::Expired } else { judge(pin, look) }
    }

    /// This peer's place among those who could propose: live, trusted, staying.
    fn rank(&mut self, cid: &Cid, look: Look) -> u32 {
        let others: Vec<PeerId> = look
            .health
            .iter()
            .filter(|(peer, _)| look.health.is_live(peer) && !look.health.is_draining(peer))
            .map(|(peer, _)| *peer)
            .collect();
        if look.is_leaving {
            return others.len() as u32;
        }
        if look.options.planted == Some(PlantedBug::IgnoresRank) {
            return 0;
        }
        self.distances.rank(cid, &look.options.me, others.into_iter())
    }

    /// It is this peer's turn: judge again, from the wish as it is.
    fn act(&mut self, pin: &Pin, look: Look, may_write: bool, changes: &mut Vec<Change>, ctx: &mut Context) {
        let cid = pin.cid;
        if !may_write {
            return;
        }
        let (placement, lost, gained) = match self.judge(pin, look) {
            Verdict::Fine | Verdict::Hopeless(_) => return,
            Verdict::Expired => {
                self.writing.insert(cid, ctx.now.mono);
                changes.push(Change::Remove(cid));
                return;
            }
            Verdict::Replace { placement, lost, gained } => (placement, lost, gained),
            Verdict::Trim { placement } => (placement, Vec::new(), Vec::new()),
            Verdict::Move { placement, gained, .. } => (placement, Vec::new(), vec![gained]),
        };
        let bytes = look.space.size(&cid).unwrap_or_default().get().saturating_mul(gained.len() as u64);
        if !self.pins.take(1, ctx.now) || (bytes > 0 && !self.bytes.take(bytes, ctx.now)) {
            let at = ctx.now.after(THROTTLED);
            self.noticed.insert(cid, at);
            self.due.insert((at, cid));
            return;
        }
        if !lost.is_empty() {
            ctx.effects.push(Effect::Note(Notice::Repairing { cid, lost, gained }));
        }
        if self.repairing.len() < REPAIRING_MOST {
            self.repairing.insert(cid);
        }
        self.writing.insert(cid, ctx.now.mono);
        changes.push(Change::Put(Box::new(Pin { placement, ..pin.clone() })));
    }

    /// Why a short pin is not repaired now, and what it waits for.
    pub fn waits_for(&self, pin: &Pin, look: Look) -> Option<(Because, Option<Millis>)> {
        if look.health.is_split() {
            let (seen, known) = look.health.seen();
            return Some((Because::Partition { seen, known }, None));
        }
        let silent =
            pin.placement.iter().filter_map(|peer| Some((*peer, look.health.grace_end(peer, look.options)?))).min_by_key(|(_, at)| *at);
        if let Some((peer, at)) = silent {
            return Some((Because::Grace { peer, until: look.now.wall_at(at) }, Some(at)));
        }
        match judge(pin, look) {
            Verdict::Hopeless(because) => Some((because, Some(self.next))),
            Verdict::Replace { .. } => Some((Because::Throttled, Some(self.proposes_at(&pin.cid).unwrap_or(self.next)))),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
