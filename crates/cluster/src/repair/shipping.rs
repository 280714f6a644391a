//! Balancing, as a giver: which of the own copies go to whom, and who has agreed to take them.
//!
//! A walk over all pins chooses copies for those that lack some, from what all peers said last. What was chosen for one peer is a
//! *shipment*: it is offered, and only so much of it as the other one takes ([`crate::taking`]) is written. One shipment for each
//! pair is under way at a time. It ends when every copy of it is confirmed; then the loads of all peers are waited for before
//! more is chosen. Who takes nothing is asked again later and later. So moving comes to rest (`placement::balance` says why).
//!
//! A peer that was seen further from its share than the tolerance is *off* until it is there, or until nothing is found that
//! would help. Only pairs of which one is off have shipments; what is within the tolerance is left alone until something else changes.
//! (Were one peer that is off enough for all to ship their last bytes, a disk that has room for a few copies, and so never its exact
//! share, would keep a whole cluster moving; and for the same reason nobody is off by less than half a copy.)

use crate::Effect;
use crate::context::Context;
use crate::decisions::{Balancing, Duty};
use crate::look::Look;
use crate::options::PlantedBug;
use crate::placement::balance::{self, Role, Share, Shipping, Taker, Tolerance};
use crate::placement::{self, Candidate, Rules};
use crate::plan;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use types::{ByteCount, Cid, Load, Millis, Offer, PeerId, PeerMessage, Pin};

/// Copies of all shipments under way.
const COPIES_MOST: usize = 2_000;
/// For each copy that fitted into no lane so many are kept in mind who could take it, those who lack most.
const ABLE_MOST: usize = 16;
/// An offer is repeated so often while its shipment is under way; the taker keeps its place for several times as long.
const OFFER_AGAIN: Millis = Millis::seconds(5);
/// Who has not answered by then takes nothing.
const ANSWER_WITHIN: Millis = Millis::seconds(12);
/// Who takes nothing is asked again after so long, doubled each time.
const REFUSED_FIRST: Millis = Millis::seconds(20);
/// And no later than this: a refusal may come of a view that was old, and what could still move is to move before all is quiet.
const REFUSED_LAST: Millis = Millis::minutes(2);
/// Refusals that bring the next walk forward; after these its usual time is soon enough.
const REFUSALS_URGENT: u32 = 3;

/// What this peer gives.
#[derive(Clone, Debug, Default)]
pub(super) struct Orders {
    /// This walk: what is still to be chosen, for whom.
    shipping: Shipping,
    /// This walk: who lacks something, as it looked when it began.
    takers: BTreeMap<PeerId, Taker>,
    /// This walk: the same peers, who lacks most first.
    by_lack: Vec<PeerId>,
    /// This walk: the own load and capacity.
    own: (u64, u64),
    /// This walk: what is to be given in all.
    to_give: u64,
    /// This walk: chosen copies.
    chosen: BTreeMap<PeerId, Vec<(Cid, u64)>>,
    /// This walk: copies that fitted into no lane, and who could take them.
    spare: Vec<(u64, Cid, Vec<PeerId>)>,
    candidates: Vec<Candidate>,
    /// While this peer drains: what each other peer lacks.
    draining: Shipping,
    under_way: BTreeMap<PeerId, Shipment>,
    refusals: BTreeMap<PeerId, Refusals>,
    /// Peers that were further from their share than the tolerance, and are not there yet.
    off: BTreeSet<PeerId>,
    /// When peers are looked at next, whether they are off.
    looks_at: Millis,
    /// When shipments are looked at next.
    next: Millis,
    /// When a walk may find more than the last one did.
    walk_at: Option<Millis>,
    /// Not before this: the loads of all are to be heard anew.
    rests_until: Millis,
    /// The decision to balance at once that was carried out.
    carried_out: u64,
}

/// Copies for one peer.
#[derive(Clone, Debug)]
struct Shipment {
    number: u64,
    bytes: u64,
    begun: Millis,
    said: Millis,
    /// Bytes that were taken up and are not written yet; none before the answer.
    agreed: Option<u64>,
    waiting: VecDeque<(Cid, u64)>,
    /// All that were chosen.
    copies: BTreeSet<Cid>,
    /// Written, and not known to be held there.
    written: BTreeMap<Cid, u64>,
}

impl Shipment {
    fn waiting_bytes(&self) -> u64 {
        let waiting = self.waiting.iter().map(|(_, size)| *size).sum::<u64>();
        self.agreed.map_or(waiting, |agreed| agreed.min(waiting))
    }

    fn offer(&self, own: (u64, u64), least: u64) -> Offer {
        let bytes = self.waiting_bytes() + self.written.values().sum::<u64>();
        let [bytes, least, placed, capacity] = [bytes, least, own.0, own.1].map(ByteCount);
        Offer { shipment: self.number, bytes, least, placed, capacity }
    }
}

#[derive(Clone, Copy, Debug)]
struct Refusals {
    count: u32,
    until: Millis,
}

impl Orders {
    /// Begins a walk. `copies`: of an item on average, in thousandths; none before they were counted. `has_losses`: repairs go first.
    pub fn begin(&mut self, copies: Option<u64>, has_losses: bool, look: Look) {
        self.shipping = Shipping::default();
        self.draining = Shipping::default();
        self.candidates = Vec::new();
        self.takers = BTreeMap::new();
        self.by_lack = Vec::new();
        self.spare = Vec::new();
        self.chosen = BTreeMap::new();
        self.walk_at = None;
        if look.is_leaving {
            if let Some((shares, moving)) = shares(look) {
                let targets = balance::targets(&shares, moving, copies.unwrap_or(1000));
                self.draining = Shipping::new(balance::shipments(&look.options.me, &shares, &targets), true);
            }
            return;
        }
        if !self.is_on(look) {
            return;
        }
        if has_losses {
            self.rests_until = self.rests_until.max(look.now.after(look.options.pace.hello));
        }
        if look.now.mono < self.rests_until {
            self.walk_at = Some(self.rests_until);
            return;
        }
        let (Some((shares, moving)), Some(copies)) = (shares(look), copies) else { return };
        let targets = balance::targets(&shares, moving, copies);
        self.see_who_is_off(&shares, &targets, look);
        if self.is_asked(look) && !balance::is_uneven(&shares, &targets, Tolerance::ASKED) {
            self.carried_out = look.decisions.balancing().1;
        }
        if !self.off.is_empty() {
            self.plan(&shares, &targets, look);
        }
    }

    /// Looks now and then at the shares of all, so that a peer that is off is remembered although others help it before the next walk.
    fn look_around(&mut self, copies: Option<u64>, look: Look) {
        if look.now.mono < self.looks_at {
            return;
        }
        self.looks_at = look.now.after(look.options.pace.hello);
        if let (true, Some((shares, moving)), Some(copies)) = (self.is_on(look), shares(look), copies) {
            let targets = balance::targets(&shares, moving, copies);
            let known = self.off.len();
            self.see_who_is_off(&shares, &targets, look);
            if self.off.len() > known {
                self.walks_at(look.now.mono);
            }
        }
    }

    fn see_who_is_off(&mut self, shares: &[Share], targets: &[u64], look: Look) {
        let tolerance = if self.is_asked(look) { Tolerance::ASKED } else { Tolerance::AUTO };
        let grain = half_a_copy(look);
        for (share, target) in shares.iter().zip(targets) {
            let distance = share.placed.abs_diff(*target);
            if share.role == Role::Full && distance > tolerance.bytes(*target, share.capacity).max(grain) {
                self.off.insert(share.peer);
            } else if share.role != Role::Full || distance <= Tolerance::ASKED.bytes(*target, share.capacity).max(grain) {
                self.off.remove(&share.peer);
            }
        }
    }

    fn is_on(&self, look: Look) -> bool {
        let is_wished = self.is_asked(look) || (look.options.repair.balances && look.decisions.balancing().0 != Balancing::Off);
        let is_on = look.options.repair.is_on && is_wished;
        // Nothing is at risk here, so that half of the members is not enough: there may be another half.
        let (seen, known) = look.health.seen();
        is_on && !look.is_leaving && look.decisions.duty(&look.options.me) == Duty::InUse && seen * 2 > known
    }

    fn is_asked(&self, look: Look) -> bool {
        let (mode, version) = look.decisions.balancing();
        mode == Balancing::Now && version != self.carried_out
    }

    /// Who gets how much in this walk.
    fn plan(&mut self, shares: &[Share], targets: &[u64], look: Look) {
        let me = look.options.me;
        let Some((own, target)) = shares.iter().zip(targets).find(|(share, _)| share.peer == me) else { return };
        let pledged: u64 = self.under_way.values().map(Shipment::waiting_bytes).sum();
        self.own = (own.placed.saturating_sub(pledged), own.capacity);
        let excess = balance::excess(own, *target).saturating_sub(pledged);
        self.to_give = excess.min(look.options.repair.move_bytes_per_minute);
        if excess == 0 {
            return;
        }
        let is_off = self.off.contains(&me);
        let now = look.now.mono;
        let is_open =
            |peer: &PeerId| !self.under_way.contains_key(peer) && self.refusals.get(peer).is_none_or(|refusals| refusals.until <= now);
        self.candidates = look.candidates();
        let room = |peer: &PeerId| self.candidates.iter().find(|other| other.peer == *peer).map_or(0, |other| other.free.get());
        self.takers = shares
            .iter()
            .zip(targets)
            .filter(|(share, target)| {
                let lack = balance::lack(share, **target);
                lack > 0 && (is_off || self.off.contains(&share.peer)) && share.peer != me && is_open(&share.peer)
            })
            .map(|(share, target)| {
                let lack = balance::lack(share, *target);
                (share.peer, Taker { placed: share.placed, capacity: share.capacity, lack, room: room(&share.peer) })
            })
            .collect();
        self.by_lack = self.takers.keys().copied().collect();
        self.by_lack.sort_by_key(|peer| std::cmp::Reverse(self.takers.get(peer).map_or(0, |taker| taker.lack)));
        let mut left = self.to_give;
        let mut bounded = Vec::new();
        for (peer, bytes) in balance::lanes(&me, shares, targets).into_iter().filter(|(peer, _)| self.takers.contains_key(peer)) {
            let bytes = bytes.min(left);
            left -= bytes;
            bounded.push((peer, bytes));
        }
        bounded.retain(|(_, bytes)| *bytes > 0);
        self.shipping = Shipping::new(bounded, false);
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

    /// Whether copies are looked for in this walk.
    pub fn is_choosing(&self) -> bool {
        !self.takers.is_empty()
    }

    /// Whether a copy is on its way already.
    pub fn has(&self, cid: &Cid) -> bool {
        self.under_way.values().any(|shipment| shipment.copies.contains(cid))
    }

    /// Looks at the own copy of a pin that is whole.
    pub fn look_at(&mut self, pin: &Pin, size: ByteCount, me: &PeerId) {
        let size = size.get();
        let count = self.chosen.values().map(Vec::len).sum::<usize>()
            + self.under_way.values().map(|shipment| shipment.waiting.len()).sum::<usize>();
        if size == 0 || count >= COPIES_MOST {
            return;
        }
        let (candidates, rules) = (&self.candidates, Rules { size: Some(ByteCount(size)), ..Rules::copies(1, 1, 1) });
        let may_take = |peer: &PeerId| {
            let candidate = candidates.iter().find(|candidate| candidate.peer == *peer);
            candidate.is_some_and(|candidate| placement::may_take(candidate, &rules, pin, me, candidates))
        };
        if let Some(to) = self.shipping.take(size, may_take) {
            self.give(to, pin.cid, size);
        } else if self.spare.len() < COPIES_MOST {
            let able: Vec<PeerId> = self.by_lack.iter().filter(|peer| may_take(peer)).take(ABLE_MOST).copied().collect();
            if !able.is_empty() {
                self.spare.push((size, pin.cid, able));
            }
        }
    }

    fn give(&mut self, to: PeerId, cid: Cid, size: u64) {
        self.chosen.entry(to).or_default().push((cid, size));
        self.to_give = self.to_give.saturating_sub(size);
        self.own.0 = self.own.0.saturating_sub(size);
        if let Some(taker) = self.takers.get_mut(&to) {
            taker.placed += size;
            taker.lack = taker.lack.saturating_sub(size);
            taker.room = taker.room.saturating_sub(size);
        }
    }

    /// What the lanes left is divided among all that lack something; the smallest copies come first. When nothing is small enough, a
    /// copy may pass what is left by half, and when not even so, a single one goes to who is better off with it.
    fn choose_from_spare(&mut self) {
        let mut spare = std::mem::take(&mut self.spare);
        spare.sort_unstable();
        for is_coarse in [false, true] {
            let lacking: u128 = self.takers.values().map(|taker| u128::from(taker.lack)).sum();
            let part = |taker: &Taker| (u128::from(self.to_give) * u128::from(taker.lack)).checked_div(lacking).unwrap_or(0) as u64;
            let parts = self.takers.iter().map(|(peer, taker)| (*peer, part(taker).min(taker.lack))).filter(|(_, bytes)| *bytes > 0);
            let mut shipping = Shipping::new(parts.collect(), is_coarse);
            spare.retain(|(size, cid, able)| {
                let to = if *size / 2 < self.to_give { shipping.take(*size, |peer| able.contains(peer)) } else { None };
                to.inspect(|to| self.give(*to, *cid, *size)).is_none()
            });
        }
        if self.chosen.is_empty() {
            for (size, cid, able) in spare {
                let [bytes, placed, capacity] = [size, self.own.0.saturating_sub(size), self.own.1].map(ByteCount);
                let offer = Offer { shipment: 0, bytes, least: bytes, placed, capacity };
                let takes = |(peer, taker): &(&PeerId, &Taker)| able.contains(peer) && taker.accepts(&offer) == size;
                if let Some(to) = self.takers.iter().filter(takes).max_by_key(|(_, taker)| taker.lack).map(|(peer, _)| *peer) {
                    return self.give(to, cid, size);
                }
            }
        }
    }

    /// The walk is over: what was chosen is offered.
    pub fn offer(&mut self, look: Look, ctx: &mut Context) {
        self.choose_from_spare();
        if self.chosen.is_empty() && self.is_choosing() {
            // Nothing that it has would help these: the next usual walk looks again.
            self.off.retain(|peer| !self.takers.contains_key(peer) && *peer != look.options.me);
            self.looks_at = look.now.after(look.options.repair.walk_quiet);
        }
        self.takers = BTreeMap::new();
        self.shipping = Shipping::default();
        self.candidates = Vec::new();
        let (now, own) = (look.now.mono, self.own);
        for (to, copies) in std::mem::take(&mut self.chosen) {
            let bytes = copies.iter().map(|(_, size)| *size).sum();
            let least = copies.iter().map(|(_, size)| *size).min().unwrap_or_default();
            let agreed = (look.options.planted == Some(PlantedBug::IgnoresTakers)).then_some(bytes);
            let number = ctx.ids.lease(look.options.incarnation);
            let cids = copies.iter().map(|(cid, _)| *cid).collect();
            let shipment =
                Shipment { number, bytes, begun: now, said: now, agreed, waiting: copies.into(), copies: cids, written: BTreeMap::new() };
            ctx.effects.push(Effect::Tell(to, PeerMessage::Offer(shipment.offer(own, least))));
            self.under_way.insert(to, shipment);
            self.next = now;
        }
    }

    /// A peer answered an offer.
    pub fn answered(&mut self, peer: &PeerId, number: u64, bytes: ByteCount, look: Look, ctx: &mut Context) {
        let Some(shipment) = self.under_way.get_mut(peer).filter(|shipment| shipment.number == number) else { return };
        self.next = look.now.mono;
        if look.options.planted == Some(PlantedBug::IgnoresTakers) {
            return;
        }
        if bytes == ByteCount::ZERO {
            self.refused(peer, look, ctx);
        } else if shipment.agreed.is_none() {
            shipment.agreed = Some(bytes.get().min(shipment.bytes));
            self.refusals.remove(peer);
        }
    }

    /// Nothing more is sent to a peer, which will be asked again later.
    fn refused(&mut self, peer: &PeerId, look: Look, ctx: &mut Context) {
        let now = look.now;
        let refusals = self.refusals.entry(*peer).or_insert(Refusals { count: 0, until: now.mono });
        let wait = REFUSED_FIRST.0.saturating_mul(1 << refusals.count.min(10)).min(REFUSED_LAST.0);
        refusals.count += 1;
        refusals.until = now.after(Millis(wait));
        let Refusals { count, until } = *refusals;
        if count <= REFUSALS_URGENT {
            self.walks_at(until);
        }
        if let Some(shipment) = self.under_way.get_mut(peer) {
            shipment.waiting.clear();
            if shipment.written.is_empty() {
                self.end(peer, look, ctx);
            }
        }
    }

    fn end(&mut self, peer: &PeerId, look: Look, ctx: &mut Context) {
        let Some(shipment) = self.under_way.remove(peer) else { return };
        let offer = Offer { shipment: shipment.number, ..Offer::default() };
        ctx.effects.push(Effect::Tell(*peer, PeerMessage::Offer(offer)));
        self.rests_until = look.now.after(Millis(look.options.pace.hello.0.saturating_mul(2)));
        if !self.refusals.contains_key(peer) {
            self.walks_at(self.rests_until);
        }
    }

    fn walks_at(&mut self, at: Millis) {
        self.walk_at = Some(self.walk_at.map_or(at, |other| other.min(at)));
    }

    /// When a walk may find more than the last one did.
    pub fn walk_at(&self) -> Option<Millis> {
        self.walk_at
    }

    /// When [`Orders::advance`] has something to do.
    pub fn next_wake(&self) -> Option<Millis> {
        (!self.under_way.is_empty()).then_some(self.next)
    }

    /// Looks at the shipments under way. `is_writing`: whether the write of a pin is still on its way. `copies`: as for `begin`.
    pub fn advance(&mut self, copies: Option<u64>, is_writing: impl Fn(&Cid) -> bool, look: Look, ctx: &mut Context) {
        self.look_around(copies, look);
        let now = look.now;
        if self.under_way.is_empty() || now.mono < self.next {
            return;
        }
        self.next = now.after(Millis::seconds(1));
        let is_on = self.is_on(look);
        let placed = look.tracker.placed_and_foreign().map_or(0, |(placed, _)| placed.get());
        let pledged: u64 = self.under_way.values().map(Shipment::waiting_bytes).sum();
        let own = (placed.saturating_sub(pledged), self.own.1);
        let (mut silent, mut ended) = (Vec::new(), Vec::new());
        for (peer, shipment) in &mut self.under_way {
            shipment.written.retain(|cid, _| {
                let placed = ctx.shared.pin(cid).is_some_and(|(pin, _)| pin.placement.contains(peer));
                is_writing(cid) || (placed && !look.is_confirmed(peer, cid))
            });
            if !is_on {
                shipment.waiting.clear();
                shipment.agreed.get_or_insert(0);
            }
            let is_late = shipment.agreed.is_none() && now.mono > Millis(shipment.begun.0.saturating_add(ANSWER_WITHIN.0));
            if is_late || !look.health.is_live(peer) {
                silent.push(*peer);
            } else if shipment.agreed.is_some() && shipment.waiting.is_empty() && shipment.written.is_empty() {
                ended.push(*peer);
            } else if now.mono >= Millis(shipment.said.0.saturating_add(OFFER_AGAIN.0)) {
                shipment.said = now.mono;
                let least = shipment.waiting.iter().map(|(_, size)| *size).min().unwrap_or_default();
                ctx.effects.push(Effect::Tell(*peer, PeerMessage::Offer(shipment.offer(own, least))));
            }
        }
        for peer in silent {
            self.refused(&peer, look, ctx);
            if !look.health.is_live(&peer) {
                // What it has not confirmed is repaired like any other copy.
                self.end(&peer, look, ctx);
            }
        }
        ended.iter().for_each(|peer| self.end(peer, look, ctx));
    }

    /// The next copy that may be written: to whom, which, its size. What no longer fits into what was agreed is dropped.
    pub fn next_agreed(&mut self) -> Option<(PeerId, Cid, ByteCount)> {
        for (peer, shipment) in &mut self.under_way {
            let Some(agreed) = shipment.agreed else { continue };
            while let Some((cid, size)) = shipment.waiting.front().copied() {
                if size <= agreed {
                    return Some((*peer, cid, ByteCount(size)));
                }
                shipment.waiting.pop_front();
            }
        }
        None
    }

    /// The copy that [`Orders::next_agreed`] gave was written, or stays.
    pub fn done(&mut self, peer: &PeerId, was_written: bool) {
        let Some(shipment) = self.under_way.get_mut(peer) else { return };
        let Some((cid, size)) = shipment.waiting.pop_front() else { return };
        if was_written {
            shipment.agreed = shipment.agreed.map(|agreed| agreed.saturating_sub(size));
            shipment.written.insert(cid, size);
        }
    }

    /// A limit was reached: not before this.
    pub fn wait(&mut self, until: Millis) {
        self.next = until;
    }
}

/// Half of a copy of average size. A disk that has room for a few copies can hardly be nearer to its share, and looking for the copies
/// that would bring it there would exchange one for another for a long time.
fn half_a_copy(look: Look) -> u64 {
    let sum = |(copies, placed): (u64, u64), load: &Load| (copies.saturating_add(load.copies), placed.saturating_add(load.placed.get()));
    let (copies, placed) = look.loads().values().fold((0, 0), sum);
    placed.checked_div(copies.saturating_mul(2)).unwrap_or(0)
}

/// What everybody has, and bytes on their way; none before the own copies are counted.
pub(crate) fn shares(look: Look) -> Option<(Vec<Share>, u64)> {
    look.tracker.placed_and_foreign()?;
    Some(plan::shares(&look.candidates(), &look.loads()))
}
