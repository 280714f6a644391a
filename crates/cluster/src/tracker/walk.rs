//! The slow round: wish, holding and ledger merged page by page, in constant memory, at start and then each ten minutes.
//!
//! It finds what hints missed: pins that were never seen, copies that the node lost, leftovers of a crash.

use super::difference::{Op, difference};
use super::queue::Lane;
use super::{Doing, Goal, QUEUED_MOST, TRACKS_MOST, Tracker};
use crate::context::Context;
use crate::options::PlantedBug;
use crate::order::byte_order;
use crate::{Effect, NodeOp, NodeOutcome, OpId};
use std::collections::{BTreeSet, VecDeque};
use types::{ByteCount, Cid, Millis, Now, Pin, PinKind};

/// Entries of each list in one page.
const PAGE: usize = 1_000;
/// Between two pages, so that a long round leaves time for everything else.
const PAGE_PAUSE: Millis = Millis(20);
/// The queue is full: the round waits until it is shorter.
const FULL_PAUSE: Millis = Millis(50);
/// Before a round for what could not be taken in the last one.
const MISSED_PAUSE: Millis = Millis::seconds(10);
/// Ends of operations remembered; with more the node is asked for its page again.
const TOUCHED_MOST: usize = 20_000;
/// The node did not answer: the page is asked for again.
const LIST_AGAIN: Millis = Millis::seconds(5);

/// How far the round is.
#[derive(Clone, Debug, Default)]
pub(super) struct Walk {
    /// Everything up to here was compared in this round.
    pub cursor: Option<Cid>,
    /// Full rounds since start.
    pub rounds: u64,
    /// Of these, rounds that began with a current view.
    pub rounds_current: u64,
    next: Millis,
    listing: Option<OpId>,
    held: VecDeque<Cid>,
    has_held_all: bool,
    has_begun: bool,
    began_current: bool,
    /// Something has no track although it is not as wished; until a round has met all of it, only the ledger says what is held.
    is_incomplete: bool,
    /// Of that, something that this round does not meet.
    has_missed: bool,
    /// Ended since the node was asked for its page: the page may not show it.
    touched: BTreeSet<Cid>,
}

impl Walk {
    /// Begins a new round at once.
    pub fn begin_now(&mut self, now: Now) {
        let Walk { rounds, rounds_current, is_incomplete, .. } = *self;
        *self = Walk { rounds, rounds_current, is_incomplete, next: now.mono, ..Walk::default() };
    }

    /// There is no place for this CID: a round takes it up, and no full answer is given before it has.
    pub fn leave_out(&mut self, cid: &Cid, now: Now) {
        self.is_incomplete = true;
        self.rounds_current = 0;
        if !self.has_begun {
            self.next = self.next.min(now.mono);
        } else if self.cursor.is_some_and(|cursor| byte_order(cid, &cursor).is_le()) {
            self.has_missed = true;
        }
    }

    /// The same for what this round is passing just now.
    pub fn miss(&mut self) {
        self.is_incomplete = true;
        self.rounds_current = 0;
        self.has_missed = true;
    }

    /// Whether a missing track means settled.
    pub fn has_passed(&self, cid: &Cid) -> bool {
        let is_passed = || self.cursor.is_some_and(|cursor| byte_order(cid, &cursor).is_le());
        match self.is_incomplete {
            false => self.rounds > 0 || is_passed(),
            true => !self.has_missed && is_passed(),
        }
    }

    /// Whether what has no track is settled where the ledger says that it is held.
    pub fn trusts_ledger(&self) -> bool {
        self.is_incomplete && self.rounds > 0
    }

    /// The view became current: a round that began before cannot judge what is not wanted, and is begun again; later the
    /// rounds go on as they come, since a busy cluster's view flickers.
    pub fn view_is_current(&mut self, now: Now) {
        let is_useless = self.has_begun && !self.began_current;
        if self.rounds_current == 0 && (is_useless || !self.has_begun) {
            self.begin_now(now);
        }
    }

    /// Hints were lost: no answer is given before another full round.
    pub fn lagged(&mut self, now: Now) {
        self.rounds_current = 0;
        self.begin_now(now);
    }

    /// An operation on this CID ended.
    pub fn touched(&mut self, cid: &Cid) {
        if self.has_begun && self.cursor.is_none_or(|cursor| byte_order(cid, &cursor).is_gt()) {
            self.touched.insert(*cid);
        }
    }

    /// Takes the node's page; false when `op` is no question of the walk.
    pub fn listed(&mut self, op: OpId, outcome: &NodeOutcome, now: Now) -> bool {
        if self.listing != Some(op) {
            return false;
        }
        self.listing = None;
        self.next = now.mono;
        match outcome {
            NodeOutcome::Held(page) => {
                self.has_held_all = page.len() < PAGE;
                self.held.extend(page);
            }
            _ => self.next = now.after(LIST_AGAIN),
        }
        true
    }

    /// When the round goes on; none while the node is asked.
    pub fn next_wake(&self) -> Option<Millis> {
        self.listing.is_none().then_some(self.next)
    }
}

impl Tracker {
    /// Goes one step: asks the node for its next page, or compares one.
    pub fn walk(&mut self, ctx: &mut Context) {
        if self.walk.listing.is_some() || ctx.now.mono < self.walk.next {
            return;
        }
        if !self.walk.has_begun {
            self.walk.has_begun = true;
            self.loads.round_began();
            self.walk.began_current = ctx.is_current();
        }
        if [Lane::Young, Lane::Old].iter().any(|lane| self.queued(*lane) >= QUEUED_MOST) {
            self.walk.next = ctx.now.after(FULL_PAUSE);
            return;
        }
        if self.walk.touched.len() > TOUCHED_MOST {
            self.walk.held.clear();
            self.walk.has_held_all = false;
        }
        if self.walk.held.is_empty() && !self.walk.has_held_all {
            // What ended before this question shows in its answer.
            self.walk.touched.clear();
            let op = ctx.ids.op();
            self.walk.listing = Some(op);
            ctx.effects.push(Effect::Node(op, NodeOp::ListHeld { after: self.walk.cursor, limit: PAGE }));
            return;
        }
        self.compare_page(ctx);
    }

    fn compare_page(&mut self, ctx: &mut Context) {
        let cursor = self.walk.cursor;
        let me = ctx.options.me;
        let mut wanted: Vec<(Pin, u64)> = Vec::new();
        let mut last = None;
        let seen = ctx.shared.each_pin_after(cursor.as_ref(), PAGE, &mut |pin, version| {
            last = Some(pin.cid);
            if pin.is_for(&me) {
                wanted.push((pin.clone(), version));
            }
        });
        let ours = ctx.shared.ledger_after(cursor.as_ref(), PAGE);
        let held_end = if self.walk.has_held_all { None } else { self.walk.held.back().copied() };
        // A full page may have a successor: nothing beyond its end can be judged yet.
        let ends = [last.filter(|_| seen == PAGE), (ours.len() == PAGE).then(|| ours.last().map(|(cid, _)| *cid)).flatten(), held_end];
        let end = ends.into_iter().flatten().min_by(byte_order);
        let is_before_end = |cid: &Cid| end.is_none_or(|end| byte_order(cid, &end).is_le());

        let mut held = Vec::new();
        while self.walk.held.front().is_some_and(is_before_end) {
            held.extend(self.walk.held.pop_front());
        }
        wanted.retain(|(pin, _)| is_before_end(&pin.cid));
        let sized: Vec<(Cid, ByteCount)> = ours.into_iter().take_while(|(cid, _)| is_before_end(cid)).collect();
        self.loads.count_page(&wanted, &sized);
        let ours: Vec<Cid> = sized.into_iter().map(|(cid, _)| cid).collect();
        self.compare(&wanted, &held, &ours, ctx);

        match end {
            Some(end) => {
                self.walk.cursor = Some(end);
                self.walk.next = ctx.now.after(PAGE_PAUSE);
            }
            None => self.end_round(ctx),
        }
    }

    fn end_round(&mut self, ctx: &Context) {
        let walk = &mut self.walk;
        self.loads.round_ended();
        walk.rounds += 1;
        if walk.has_missed {
            walk.begin_now(ctx.now);
            walk.next = ctx.now.after(MISSED_PAUSE);
            return;
        }
        walk.rounds_current += u64::from(walk.began_current);
        walk.is_incomplete = false;
        walk.begin_now(ctx.now);
        walk.next = ctx.now.after(ctx.options.pace.round);
    }

    fn compare(&mut self, wanted: &[(Pin, u64)], held: &[Cid], ours: &[Cid], ctx: &mut Context) {
        let find = |cid: &Cid| wanted.binary_search_by(|(pin, _)| byte_order(&pin.cid, cid)).ok().map(|index| &wanted[index]);
        let cids = wanted.iter().map(|(pin, _)| pin.cid);
        let ours_seen: &[Cid] = if ctx.options.planted == Some(PlantedBug::IgnoresLedger) { held } else { ours };
        let ops: Vec<Op> = difference(cids, held.iter().copied(), ours_seen.iter().copied()).collect();
        for op in ops {
            let (Op::Fetch(cid) | Op::LetGo(cid) | Op::Forget(cid)) = op;
            if self.tracks.contains_key(&cid) || self.walk.touched.contains(&cid) {
                continue;
            }
            match op {
                Op::Fetch(_) => {
                    if let Some((pin, version)) = find(&cid) {
                        self.fetch_again(pin, *version, ctx);
                    }
                }
                _ if !ctx.is_current() => {}
                Op::LetGo(_) if self.tracks.len() >= TRACKS_MOST => self.walk.miss(),
                Op::LetGo(_) => {
                    let other = ctx.shared.pin(&cid);
                    if other.as_ref().is_none_or(|(pin, _)| pin.kind != PinKind::Bad) {
                        self.let_go(cid, other.as_ref(), true, ctx);
                    }
                }
                Op::Forget(_) => ctx.effects.push(Effect::Ledger { cid, ours: None }),
            }
        }
        if self.walk.rounds == 0 {
            self.claim(wanted, held, ctx);
        }
    }

    fn fetch_again(&mut self, pin: &Pin, version: u64, ctx: &mut Context) {
        if self.tracks.len() >= TRACKS_MOST {
            self.walk.miss();
            return;
        }
        let was_ours = ctx.shared.is_ours(&pin.cid);
        self.begin(pin.cid, Goal::hold(pin, version), ctx);
        if let Some(track) = self.tracks.get_mut(&pin.cid) {
            track.was_lost = was_ours;
        }
        self.enqueue(pin.cid, Doing::Look, ctx);
    }

    /// After a start: what is wanted and held and missing in the ledger may have been pinned just before a crash. Pinning it
    /// again tells whose it is.
    fn claim(&mut self, wanted: &[(Pin, u64)], held: &[Cid], ctx: &mut Context) {
        for (pin, version) in wanted {
            let is_held = held.binary_search_by(|other| byte_order(other, &pin.cid)).is_ok();
            if is_held && !ctx.shared.is_ours(&pin.cid) && !self.tracks.contains_key(&pin.cid) {
                self.begin(pin.cid, Goal::hold(pin, *version), ctx);
                self.enqueue(pin.cid, Doing::Look, ctx);
            }
        }
    }
}
