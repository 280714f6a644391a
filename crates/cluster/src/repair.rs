//! All pins: copies against what is wished -> new placements; who proposes; how fast; expiry.
//!
//! From state, not from alarms: a walk over the wish, in pages across wakes, finds what is short. The live trusted peer
//! closest to the CID proposes at once, the next after `patience`, and so on; each reads the pin again before it writes.
//! Nothing moves in what looks like a split. Old holders keep their copies until the new ones have confirmed (tracker).

mod graves;
pub mod judge;
mod shipping;
mod tokens;
mod turns;

use crate::context::Context;
use crate::look::Look;
use crate::options::PlantedBug;
use crate::order::Distances;
use crate::placement::{self, Candidate, Rules};
use crate::{Change, Effect, Notice, PinChange, health};
use graves::Graves;
use judge::{Verdict, giver, is_whole, judge};
use shipping::Orders;
pub(crate) use shipping::shares;
use std::collections::{BTreeMap, BTreeSet};
use tokens::Tokens;
use turns::{Kind, Turn, Turns};
use types::{Because, ByteCount, Cid, Millis, PeerId, Pin, PinKind, UnixMillis};

/// Pins looked at in one wake.
const PAGE: usize = 500;
/// Between two pages.
const PAGE_PAUSE: Millis = Millis(20);
/// Between two walks, whatever happens; a cluster in trouble has news all the time.
const WALK_GAP: Millis = Millis::seconds(10);
/// While this peer leaves, between two walks.
const WALK_LEAVING: Millis = Millis::seconds(2);
/// Copies that this peer hands over at a time: a drain that is turned back ends with these.
const HAND_OVERS_MOST: u64 = 2_000;
/// The order of what is in no danger.
const LAST: u32 = 1_000_000;
/// Changes in one write.
const WRITE_MOST: usize = 100;
/// A write whose result was not seen for so long is tried again.
const WRITE_AGAIN: Millis = Millis::seconds(30);
/// Out of tokens: looked at again.
const THROTTLED: Millis = Millis(500);
/// Pins remembered as being repaired, to say when they are healed.
const REPAIRING_MOST: usize = 10_000;

/// What one full walk counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Pins.
    pub pins: u64,
    /// With fewer confirmed live copies than their least.
    pub short: u64,
    /// Placements of those that are not on every peer, and how many these are.
    pub placements: u64,
    /// See `placements`.
    pub spread: u64,
    /// Placed on this peer.
    pub placed_here: u64,
    /// Placed on this peer and confirmed nowhere else.
    pub only_here: u64,
    /// Placed on Go peers that are drained: each is looked at until others have it.
    pub on_drained_go: u64,
    /// While this peer leaves: placed on it, and nobody can take the copy.
    pub hopeless_here: u64,
}

/// The walk and what it found.
#[derive(Clone, Debug)]
pub(crate) struct Repair {
    cursor: Option<Cid>,
    next: Millis,
    /// The next walk does not wait.
    is_urgent: bool,
    ended: Millis,
    /// The first end of a pin that is still to come, of those seen since the last walk began.
    first_end: Option<UnixMillis>,
    counting: Counts,
    counted: Counts,
    /// Full walks since start.
    pub walks: u64,
    turns: Turns,
    orders: Orders,
    writing: BTreeMap<Cid, Millis>,
    surplus: BTreeMap<Cid, Millis>,
    repairing: BTreeSet<Cid>,
    pins: Tokens,
    /// Bytes by kind.
    heals: Tokens,
    moves: Tokens,
    throttled: Option<Millis>,
    distances: Distances,
    graves: Graves,
}

impl Repair {
    pub fn new(limits: &crate::options::RepairLimits) -> Repair {
        Repair {
            cursor: None,
            next: Millis(0),
            is_urgent: false,
            ended: Millis(0),
            first_end: None,
            counting: Counts::default(),
            counted: Counts::default(),
            walks: 0,
            turns: Turns::default(),
            orders: Orders::default(),
            writing: BTreeMap::new(),
            surplus: BTreeMap::new(),
            repairing: BTreeSet::new(),
            pins: Tokens::new(u64::from(limits.pins_per_minute)),
            heals: Tokens::new(limits.bytes_per_minute),
            moves: Tokens::new(limits.move_bytes_per_minute),
            throttled: None,
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

    /// A peer is lost, or somebody waits for what the walk finds: walk at once, and once more from the start if a walk is under way.
    pub fn look_now(&mut self, ctx: &Context) {
        self.is_urgent = true;
        if self.cursor.is_none() {
            self.next = self.next.min(ctx.now.mono);
        }
    }

    /// Keeps the end of a pin in mind when it comes after `passed` and before every other. Whether it did.
    fn learn_end(&mut self, pin: &Pin, passed: UnixMillis) -> bool {
        let Some(end) = pin.options.expires.filter(|end| *end > passed) else { return false };
        let is_first = self.first_end.is_none_or(|first| end < first);
        if is_first {
            self.first_end = Some(end);
        }
        is_first
    }

    /// Walks when the first pin ends, and not more often for ends than for what is short of copies.
    fn look_at_end(&mut self, look: Look) {
        let Some(end) = self.first_end.filter(|_| self.cursor.is_none()) else { return };
        let wait = end.0.saturating_sub(look.health.slowest_clock(look.now).0);
        let rested = self.ended.0.saturating_add(look.options.repair.walk_busy.0);
        self.next = self.next.min(Millis(look.now.after(Millis(wait)).0.max(rested)));
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
        self.turns.remove(cid);
        if let Some((after, _)) = &change.after
            && self.learn_end(after, UnixMillis(0))
        {
            self.look_at_end(look);
        }
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
        self.turns.get(cid).map(|turn| turn.at)
    }

    /// When [`Repair::advance`] next has something to do.
    pub fn next_wake(&self) -> Option<Millis> {
        let ready = self.turns.is_any_ready().then(|| self.throttled.unwrap_or_default());
        self.turns.next_due().into_iter().chain(ready).chain(self.orders.next_wake()).chain([self.next]).min()
    }

    /// Goes one page on, and proposes what has its turn. The changes are to be submitted.
    pub fn advance(&mut self, look: Look, ctx: &mut Context) -> Vec<Change> {
        let mut changes = Vec::new();
        if !ctx.may_repair() {
            self.next = self.next.max(ctx.now.after(Millis::seconds(1)));
            self.turns.clear();
            return changes;
        }
        let may_write =
            look.options.repair.is_on && (!look.health.is_split() || look.options.planted == Some(PlantedBug::IgnoresPartition));
        self.throttled = None;
        for kind in [Kind::Heal, Kind::Move] {
            self.take_turns(kind, may_write, look, &mut changes, ctx);
        }
        self.advance_shipments(may_write, look, &mut changes, ctx);
        if self.next <= ctx.now.mono {
            self.walk(look, may_write, ctx);
        }
        changes
    }

    /// Does what has its turn, fewest copies first, until a limit is reached.
    fn take_turns(&mut self, kind: Kind, may_write: bool, look: Look, changes: &mut Vec<Change>, ctx: &mut Context) {
        let mut room = match kind {
            Kind::Heal => u64::MAX,
            Kind::Move if self.turns.is_any_ready() || self.turns.next_due().is_some() => {
                HAND_OVERS_MOST.saturating_sub(look.tracker.hand_overs())
            }
            Kind::Move => 0,
        };
        while changes.len() < WRITE_MOST {
            let Some((cid, turn)) = self.turns.next(kind, ctx.now) else { return };
            let pin = ctx.shared.pin(&cid).map(|(pin, _)| pin).filter(|_| may_write);
            let is_done = match pin {
                Some(_) if room == 0 => false,
                Some(pin) => self.act(&pin, turn, look, changes, ctx),
                None => true,
            };
            if !is_done {
                self.throttled = Some(ctx.now.after(THROTTLED));
                return;
            }
            room -= 1;
            self.turns.remove(&cid);
        }
    }

    fn walk(&mut self, look: Look, may_write: bool, ctx: &mut Context) {
        let (shared, cursor) = (ctx.shared, self.cursor);
        if cursor.is_none() {
            self.is_urgent = false;
            self.first_end = None;
            self.orders.begin(self.copies(), self.turns.is_any_lost(), look);
        }
        let mut last = None;
        let passed = look.health.slowest_clock(look.now);
        let seen = shared.each_pin_after(cursor.as_ref(), PAGE, &mut |pin, _| {
            self.count(pin, look, ctx);
            self.learn_end(pin, passed);
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
        let is_busy = self.counted.short > 0
            || self.counted.on_drained_go > 0
            || seen < known
            || !self.surplus.is_empty()
            || look.holdings.exceptions_count() > 0;
        let pause = match (look.is_leaving, is_busy) {
            _ if self.is_urgent => Millis(0),
            (true, _) if self.counted.placed_here > 0 => WALK_LEAVING.min(limits.walk_busy),
            (_, true) => limits.walk_busy,
            (_, false) => limits.walk_quiet,
        };
        self.next = ctx.now.after(pause);
        self.look_at_end(look);
        self.orders.offer(look, ctx);
        self.walk_for_balance(look);
        self.writing.retain(|_, at| at.0.saturating_add(WRITE_AGAIN.0) > ctx.now.mono.0);
    }

    /// Copies of an item on average, in thousandths, as the last walk counted them.
    pub fn copies(&self) -> Option<u64> {
        (self.counted.placements * 1000).checked_div(self.counted.spread)
    }

    fn count(&mut self, pin: &Pin, look: Look, ctx: &mut Context) {
        self.counting.pins += 1;
        let Some((least, _)) = look.wished(pin) else { return };
        let confirmed = look.confirmed_live(pin);
        self.counting.spread += 1;
        self.counting.placements += pin.placement.len() as u64;
        self.counting.short += u64::from(confirmed < least);
        let is_drained_go = |peer: &PeerId| look.health.is_draining(peer) && look.health.lets_go_at_once(peer);
        self.counting.on_drained_go += u64::from(pin.placement.iter().any(is_drained_go));
        if pin.placement.contains(&look.options.me) {
            let own = u32::from(look.is_confirmed(&look.options.me, &pin.cid));
            self.counting.placed_here += 1;
            self.counting.only_here += u64::from(confirmed == own);
            if look.is_leaving {
                self.counting.hopeless_here += u64::from(matches!(self.judge(pin, None, None, look), Verdict::Hopeless(_)));
            }
        }
        if confirmed >= least && self.repairing.remove(&pin.cid) {
            ctx.effects.push(Effect::Note(Notice::Repaired { cid: pin.cid }));
        }
    }

    /// Looks whether something is to be done about a pin, and when it is this peer's turn.
    fn notice(&mut self, pin: &Pin, look: Look, may_write: bool, ctx: &Context) {
        let cid = pin.cid;
        if !may_write || self.turns.get(&cid).is_some() || self.writing.contains_key(&cid) {
            return;
        }
        let verdict = self.judge(pin, None, None, look);
        if !matches!(verdict, Verdict::Trim { .. }) {
            self.surplus.remove(&cid);
        }
        let now = ctx.now.mono;
        let turn = match verdict {
            Verdict::Hopeless(_) => return,
            Verdict::Fine => return self.consider(pin, look, ctx),
            Verdict::Replace { is_urgent, staying, .. } => {
                let kind = if is_urgent { Kind::Heal } else { Kind::Move };
                Turn { at: self.patience(pin, look, ctx), kind, staying }
            }
            Verdict::Expired => Turn { at: self.patience(pin, look, ctx), kind: Kind::Heal, staying: LAST },
            Verdict::Trim { .. } => {
                let since = *self.surplus.entry(cid).or_insert(now);
                let is_due = now.0.saturating_sub(since.0) >= look.options.repair.trim_after.0;
                if !is_due || self.rank(&cid, look) != 0 {
                    return;
                }
                Turn { at: now, kind: Kind::Heal, staying: LAST }
            }
        };
        self.turns.insert(cid, turn);
    }

    /// Whether the own copy of a pin that is as it should be goes to a peer that has less than its share.
    fn consider(&mut self, pin: &Pin, look: Look, ctx: &Context) {
        let me = look.options.me;
        // A unit of an add that is under way is not worth it.
        let is_ending = pin.kind == PinKind::Shard && pin.options.expires.is_some();
        let is_movable =
            self.orders.is_choosing() && !is_ending && pin.placement.contains(&me) && !self.orders.has(&pin.cid) && is_whole(pin, look);
        if let Some(size) = ctx.shared.own_size(&pin.cid).filter(|_| is_movable) {
            self.orders.look_at(pin, size, &me);
        }
    }

    /// A peer answered an offer.
    pub fn answered(&mut self, peer: &PeerId, shipment: u64, bytes: ByteCount, look: Look, ctx: &mut Context) {
        self.orders.answered(peer, shipment, bytes, look, ctx);
        self.walk_for_balance(look);
    }

    /// Writes what others agreed to take, copy by copy, until a limit is reached.
    fn advance_shipments(&mut self, may_write: bool, look: Look, changes: &mut Vec<Change>, ctx: &mut Context) {
        let (copies, writing) = (self.copies(), &self.writing);
        self.orders.advance(copies, |cid| writing.contains_key(cid), look, ctx);
        self.walk_for_balance(look);
        // What was agreed waits while copies are lost: their repair needs the room and the way.
        if !may_write || self.turns.is_any_lost() || self.orders.next_agreed().is_none() {
            return;
        }
        let candidates = look.candidates();
        let mut room = HAND_OVERS_MOST.saturating_sub(look.tracker.hand_overs());
        while let Some((to, cid, size)) = self.orders.next_agreed() {
            let pin = ctx.shared.pin(&cid).map(|(pin, _)| pin).filter(|_| self.turns.get(&cid).is_none());
            let placement = pin.as_ref().and_then(|pin| shipped(pin, &to, size, &candidates, look));
            let (Some(pin), Some(placement)) = (pin, placement) else {
                self.orders.done(&to, false);
                continue;
            };
            let is_full = room == 0 || changes.len() >= WRITE_MOST;
            if is_full || !self.moves.take(size.get(), ctx.now) || !self.pins.take(1, ctx.now) {
                self.orders.wait(ctx.now.after(THROTTLED));
                return;
            }
            room -= 1;
            self.orders.done(&to, true);
            self.writing.insert(cid, ctx.now.mono);
            changes.push(Change::Put(Box::new(Pin { placement, ..pin })));
        }
    }

    /// Brings the next walk forward when it may find something for others to take.
    fn walk_for_balance(&mut self, look: Look) {
        if let (None, Some(at)) = (self.cursor, self.orders.walk_at()) {
            let rested = self.ended.0.saturating_add(WALK_GAP.min(look.options.repair.walk_busy).0);
            self.next = self.next.min(at.max(Millis(rested)));
        }
    }

    /// When it is this peer's turn: who gives its copy up goes first, then by rank.
    fn patience(&mut self, pin: &Pin, look: Look, ctx: &Context) -> Millis {
        let turns = match giver(pin, look) {
            Some(giver) if giver == look.options.me => 0,
            Some(_) => self.rank(&pin.cid, look) + 1,
            None => self.rank(&pin.cid, look),
        };
        ctx.now.after(Millis(look.options.repair.patience.0.saturating_mul(u64::from(turns))))
    }

    /// A ghost ends as an expired pin does.
    fn judge(&self, pin: &Pin, size: Option<ByteCount>, prefer: Option<PeerId>, look: Look) -> Verdict {
        if self.graves.is_ghost(pin) { Verdict::Expired } else { judge(pin, size, prefer, look) }
    }

    /// This peer's place among those who could propose: live, trusted, staying.
    fn rank(&mut self, cid: &Cid, look: Look) -> u32 {
        let others: Vec<PeerId> = look
            .health
            .iter()
            // Go peers repair nothing unless they were configured to; one that is acts at once, long before the grace is over.
            .filter(|(peer, standing)| standing.kind == health::Kind::Ours && look.health.is_live(peer) && !look.health.is_draining(peer))
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

    /// It is this peer's turn: judge again, from the wish as it is. False: not now, a limit is reached.
    fn act(&mut self, pin: &Pin, turn: Turn, look: Look, changes: &mut Vec<Change>, ctx: &mut Context) -> bool {
        let cid = pin.cid;
        let size = ctx.shared.own_size(&cid).or_else(|| look.space.size(&cid)).filter(|size| *size > ByteCount::ZERO);
        let gives = look.is_leaving && pin.placement.contains(&look.options.me);
        let prefer = size.filter(|_| gives).and_then(|size| self.orders.drains_to(pin, size, look));
        let (placement, lost, gained) = match self.judge(pin, size, prefer, look) {
            Verdict::Expired => {
                self.writing.insert(cid, ctx.now.mono);
                changes.push(Change::Remove(cid));
                return true;
            }
            Verdict::Replace { placement, lost, gained, .. } => (placement, lost, gained),
            Verdict::Trim { placement } => (placement, Vec::new(), Vec::new()),
            Verdict::Fine | Verdict::Hopeless(_) => return true,
        };
        let bytes = size.unwrap_or_else(|| look.tracker.mean_size()).get().saturating_mul(gained.len() as u64);
        let limit = if turn.kind == Kind::Heal { &mut self.heals } else { &mut self.moves };
        if (bytes > 0 && !limit.take(bytes, ctx.now)) || !self.pins.take(1, ctx.now) {
            return false;
        }
        if gives {
            self.orders.handed_over(&gained, size.unwrap_or_default());
        }
        if !lost.is_empty() && turn.kind == Kind::Heal {
            ctx.effects.push(Effect::Note(Notice::Repairing { cid, lost, gained }));
            if self.repairing.len() < REPAIRING_MOST {
                self.repairing.insert(cid);
            }
        }
        self.writing.insert(cid, ctx.now.mono);
        changes.push(Change::Put(Box::new(Pin { placement, ..pin.clone() })));
        true
    }

    /// Why a short pin is not repaired now, and what it waits for.
    pub fn waits_for(&self, pin: &Pin, look: Look) -> Option<(Because, Option<Millis>)> {
        if look.health.is_split() {
            let (seen, known) = look.health.seen();
            return Some((Because::Partition { seen, known }, None));
        }
        if !look.options.repair.is_on {
            return Some((Because::Failed { error: "repair is off here (`repair = true` in pinfold.toml turns it on)".to_owned() }, None));
        }
        let silent =
            pin.placement.iter().filter_map(|peer| Some((*peer, look.health.grace_end(peer, look.options)?))).min_by_key(|(_, at)| *at);
        if let Some((peer, at)) = silent {
            return Some((Because::Grace { peer, until: look.now.wall_at(at) }, Some(at)));
        }
        match judge(pin, look.space.size(&pin.cid), None, look) {
            Verdict::Hopeless(because) => Some((because, Some(self.next))),
            Verdict::Replace { .. } => Some((Because::Throttled, Some(self.proposes_at(&pin.cid).unwrap_or(self.next)))),
            _ => None,
        }
    }
}

/// The placement once `to` has the own copy, if it may have it still.
fn shipped(pin: &Pin, to: &PeerId, size: ByteCount, candidates: &[Candidate], look: Look) -> Option<Vec<PeerId>> {
    let me = look.options.me;
    let taker = candidates.iter().find(|candidate| candidate.peer == *to)?;
    let rules = Rules { size: Some(size), ..Rules::copies(1, 1, 1) };
    let is_right = pin.placement.contains(&me) && is_whole(pin, look) && placement::may_take(taker, &rules, pin, &me, candidates);
    let is_right = is_right && matches!(judge(pin, Some(size), None, look), Verdict::Fine);
    is_right.then(|| pin.placement.iter().filter(|peer| **peer != me).chain([to]).copied().collect())
}

#[cfg(test)]
mod tests;
