//! What doors read between events.

use super::Machine;
use crate::decisions::{Balancing, Duty};
use crate::explain;
use crate::health::Kind;
use crate::holdings::Exception;
use crate::look::Look;
use crate::options::PlantedBug;
use crate::plan;
use crate::report::{CopyRow, Explanation, PeerHealth, PeerRow, ShortRow};
use crate::tracker::OwnCopy;
use types::{Because, ByteCount, Cid, Now, PeerId, Pin, PinKind, PinState, RecordKind, UnixMillis};

impl Machine {
    /// The copies of a pin on every member, the own peer first; without a pin every member is `unpinned`, except where an
    /// own removal is still under way.
    pub fn status_of(&self, pin: Option<(&Pin, u64)>, cid: &Cid, now: Now) -> Vec<CopyRow> {
        if pin.is_some_and(|(pin, _)| pin.kind == PinKind::Meta) && self.parts.pieces.has(cid) {
            return self.rows_of_root(cid, now);
        }
        let own = self.own_row(pin.map(|(pin, _)| pin), cid, now);
        let others = self.parts.others.iter().map(|peer| self.other_row(peer, pin.map(|(pin, _)| pin), cid, now));
        std::iter::once(own).chain(others).collect()
    }

    /// The same in short for a page of pins: appends a row for each member, in the same order for every pin. `is_ours` asks the
    /// ledger, which is needed only while more is wished than has a place in memory.
    pub fn short_rows(&self, pins: &[Pin], now: Now, is_ours: &dyn Fn(&Cid) -> bool, rows: &mut Vec<ShortRow>) {
        let trusts_ledger = self.parts.tracker.trusts_ledger();
        for pin in pins {
            if pin.kind == PinKind::Meta && self.parts.pieces.has(&pin.cid) {
                let of_root = self.rows_of_root(&pin.cid, now).into_iter();
                rows.extend(of_root.map(|row| ShortRow {
                    peer: row.peer,
                    state: row.state,
                    because: row.because,
                    tries: row.tries,
                    since: row.since,
                }));
                continue;
            }
            let mut own = self.own_short(Some(pin), &pin.cid, now).0;
            if trusts_ledger && own.because == Some(Because::Unconfirmed) && is_ours(&pin.cid) {
                own = settled(&self.options.me, Some(pin), now);
            }
            rows.push(own);
            rows.extend(self.parts.others.iter().map(|peer| self.other_short(peer, Some(pin), &pin.cid, now).0));
        }
    }

    /// All members, the own peer first, then by id.
    pub fn peers(&self, now: Now) -> Vec<PeerRow> {
        let (space_limit, space_used) = self.parts.space.numbers();
        let decisions = self.parts.membership.decisions();
        let duty = decisions.duty(&self.options.me);
        let own = PeerRow {
            peer: self.options.me,
            name: self.options.name.clone(),
            is_self: true,
            health: match duty {
                _ if self.parts.leaving.is_some() => PeerHealth::Draining,
                Duty::Draining => PeerHealth::Draining,
                Duty::Cordoned => PeerHealth::Cordoned,
                Duty::InUse => PeerHealth::Up,
            },
            heard: now.wall,
            clock_ahead: Some(0),
            node_addresses: self.parts.facts.node_addresses.clone(),
            gateway: self.parts.facts.gateway.clone(),
            api: self.parts.facts.api.clone(),
            space_limit,
            space_used,
            space_reserved: self.parts.space.reserved(),
            duty,
            load: self.parts.tracker.load(),
            exceptions: self.parts.tracker.unsettled_count(),
        };
        // Go peers have rows of their own at the doors: what is known of them is another thing.
        let ours = self.parts.health.iter().filter(|(_, standing)| standing.kind == Kind::Ours);
        let others = ours.map(|(peer, standing)| {
            let facts = standing.facts.clone().unwrap_or_default();
            PeerRow {
                peer: *peer,
                name: facts.name,
                is_self: false,
                health: self.parts.health.shown(peer),
                heard: standing.heard_wall,
                clock_ahead: standing.clock_ahead,
                node_addresses: facts.node_addresses,
                gateway: facts.gateway,
                api: facts.api,
                space_limit: facts.space_limit,
                space_used: facts.space_used,
                space_reserved: facts.space_reserved,
                duty: standing.duty,
                load: facts.load,
                exceptions: self.parts.holdings.exceptions_of(peer),
            }
        });
        std::iter::once(own).chain(others).collect()
    }

    /// Why a pin is where it is, and what happens next.
    pub fn explain(&self, pin: &Pin, version: u64, now: Now) -> Explanation {
        let mut rows = self.status_of(Some((pin, version)), &pin.cid, now);
        let go = self.parts.go.iter().filter(|peer| pin.placement.contains(peer));
        rows.extend(go.map(|peer| self.other_row(peer, Some(pin), &pin.cid, now)));
        if pin.kind == PinKind::Meta && self.parts.pieces.has(&pin.cid) {
            return self.explain_root(pin, rows, now);
        }
        explain::explain(pin, rows, self.look(now), &self.parts.repair)
    }

    /// Copies over all peers that are not as wished.
    pub fn exceptions_count(&self) -> u64 {
        self.parts.holdings.exceptions_count() + self.parts.tracker.unsettled_count()
    }

    /// Pins with fewer confirmed live copies than their least, as counted by the last walk over all pins.
    pub fn short_count(&self) -> u64 {
        self.parts.repair.counted().short
    }

    /// Whether this pin, were it written now, would be taken for one that was removed and brought back by a repair.
    pub fn is_ghost(&self, pin: &Pin) -> bool {
        self.parts.repair.is_ghost(pin)
    }

    /// Confirmed copies of a pin on peers that are heard of now.
    pub fn confirmed_copies(&self, pin: &Pin, now: Now) -> u32 {
        if pin.kind == PinKind::Meta && self.parts.pieces.has(&pin.cid) {
            return self.confirmed_of_root(&pin.cid, now);
        }
        self.look(now).confirmed_live(pin)
    }

    /// Who is trusted, the own peer included.
    pub fn trusted(&self) -> Vec<PeerId> {
        self.parts.membership.trusted().iter().copied().collect()
    }

    /// What people decided about a peer.
    pub fn duty(&self, peer: &PeerId) -> Duty {
        self.parts.membership.decisions().duty(peer)
    }

    /// How copies are balanced.
    pub fn balancing(&self) -> Balancing {
        self.parts.membership.decisions().balancing().0
    }

    /// What a plan is made from: one look at the peers.
    pub fn plan_start(&self, now: Now) -> plan::Start {
        let look = self.look(now);
        let limits = &self.options.repair;
        let copies = match self.parts.repair.copies() {
            Some(copies) => copies,
            None => u64::from(self.options.class.want.max(1)) * 1000,
        };
        let is_lost =
            |peer: &PeerId| *peer != self.options.me && (look.health.is_gone(peer) || look.health.is_lost(peer, look.options, now));
        plan::Start {
            candidates: look.candidates(),
            loads: look.loads(),
            lost: look.health.iter().map(|(peer, _)| *peer).filter(is_lost).collect(),
            class: self.options.class,
            copies,
            bytes_per_minute: limits.move_bytes_per_minute,
            pins_per_minute: u64::from(limits.pins_per_minute),
        }
    }

    /// The version of the next record of a kind about a key: one more than the last one known, whoever wrote it.
    pub fn next_version(&self, kind: RecordKind, key: &[u8]) -> u64 {
        self.parts.membership.next_version(kind, key)
    }

    /// Whether nothing is queued, running, waiting or unconfirmed.
    pub fn is_at_rest(&self) -> bool {
        self.parts.tracker.is_at_rest() && self.parts.holdings.exceptions_count() == 0
    }

    /// Whether a full comparison was made since start with a current view.
    pub fn has_compared(&self) -> bool {
        self.parts.tracker.can_answer()
    }

    /// Unsettled own copies: state, reason and next try of everything that waits.
    pub fn unsettled(&self, now: Now) -> Vec<types::CopyState> {
        self.parts.tracker.unsettled(now).collect()
    }

    pub(super) fn look(&self, now: Now) -> Look<'_> {
        struct At<'a> {
            options: &'a crate::Options,
            now: Now,
        }
        let at = At { options: &self.options, now };
        look!(self.parts, at)
    }

    pub(super) fn own_row(&self, pin: Option<&Pin>, cid: &Cid, now: Now) -> CopyRow {
        let me = self.options.me;
        let (short, next_try, progress) = self.own_short(pin, cid, now);
        CopyRow {
            peer: me,
            name: self.options.name.clone(),
            state: short.state,
            because: short.because,
            next_try,
            tries: short.tries,
            since: short.since,
            as_of: now.wall,
            is_live: true,
            progress,
            is_placed: pin.is_some_and(|pin| pin.is_for(&me)),
        }
    }

    pub(super) fn other_row(&self, peer: &PeerId, pin: Option<&Pin>, cid: &Cid, now: Now) -> CopyRow {
        let standing = self.parts.health.of(peer);
        let is_live = self.parts.health.is_live(peer) || self.options.planted == Some(PlantedBug::ShowsSilentAsLive);
        let (short, next_try) = self.other_short(peer, pin, cid, now);
        CopyRow {
            peer: *peer,
            name: standing.and_then(|standing| standing.facts.as_ref()).map(|facts| facts.name.clone()).unwrap_or_default(),
            state: short.state,
            because: short.because,
            next_try,
            tries: short.tries,
            since: short.since,
            as_of: if is_live { now.wall } else { standing.map(|standing| standing.heard_wall).unwrap_or_default() },
            is_live,
            progress: None,
            is_placed: pin.is_some_and(|pin| pin.is_for(peer)),
        }
    }

    /// With the next try, and the progress of a running fetch.
    fn own_short(&self, pin: Option<&Pin>, cid: &Cid, now: Now) -> (ShortRow, Option<UnixMillis>, Option<(u64, ByteCount, u64)>) {
        if let Some(own) = self.parts.tracker.own_copy(cid, now) {
            let OwnCopy { state, because, next_try, tries, since, progress } = own;
            return (ShortRow { peer: self.options.me, state, because, tries, since }, next_try, progress);
        }
        let mut short = settled(&self.options.me, pin, now);
        let is_placed = pin.is_some_and(|pin| pin.is_for(&self.options.me));
        if is_placed && !self.parts.tracker.has_compared(cid) {
            short.state = PinState::PinQueued;
            short.because = Some(Because::Unconfirmed);
            return (short, Some(now.wall), None);
        }
        (short, None, None)
    }

    /// With the next try.
    fn other_short(&self, peer: &PeerId, pin: Option<&Pin>, cid: &Cid, now: Now) -> (ShortRow, Option<UnixMillis>) {
        if let Some(exception) = self.parts.holdings.exception(peer, cid) {
            let Exception { state, because, next_try, tries, since, .. } = exception;
            let short = ShortRow { peer: *peer, state: *state, because: because.clone(), tries: *tries, since: *since };
            return (short, *next_try);
        }
        let mut short = settled(peer, pin, now);
        if pin.is_some_and(|pin| pin.is_for(peer)) && !self.parts.holdings.is_known(peer) {
            short.state = PinState::PinQueued;
            short.because = Some(Because::Unconfirmed);
        }
        (short, None)
    }
}

/// As wished. Since: the pin's time for what is held, now for the rest (as Go shows it).
fn settled(peer: &PeerId, pin: Option<&Pin>, now: Now) -> ShortRow {
    let is_placed = pin.is_some_and(|pin| pin.is_for(peer));
    let since = pin.filter(|_| is_placed).map_or(now.wall, |pin| pin.created);
    ShortRow { peer: *peer, state: settled_state(pin, is_placed), because: None, tries: 0, since }
}

fn settled_state(pin: Option<&Pin>, is_placed: bool) -> PinState {
    match pin {
        None => PinState::Unpinned,
        Some(pin) if pin.kind == PinKind::Meta => PinState::Sharded,
        Some(_) if is_placed => PinState::Pinned,
        Some(_) => PinState::Remote,
    }
}
