//! Looks at the invariants: some at every moment, some once all must be well.

use super::World;
use crate::invariants::Invariant;
use crate::queue::{Place, What};
use crate::truth::Promise;
use bytes::Bytes;
use cluster::placement::balance::{self, Role, Share};
use consensus::crdt::BlockId;
use std::collections::{BTreeMap, BTreeSet};
use store::{Area, Store};
use types::{Because, Cid, Pin, PinKind, PinState};

/// Between two looks.
const LOOK_EVERY: u64 = 20_000;
/// Of every so many pins, one is compared with what peers show of it.
const SHOWN_SAMPLE: usize = 7;

/// Of peers with more room than this one looks how even the spread is: on the others few copies have a place.
const ROOMY: u64 = 1 << 30;

impl World {
    /// What must hold at every moment.
    pub(super) fn look(&mut self) {
        self.at(self.now + LOOK_EVERY, What::Look);
        for place in 0..self.peers.len() {
            // As the shell does every few seconds: what others use of the disk is known also where nothing else happens.
            self.measure(place);
            let Some(running) = &self.peers[place].running else { continue };
            let now = self.peers[place].clocks(self.now);
            let is_waiting = |state| !matches!(state, PinState::Pinning | PinState::Unpinning | PinState::Pinned);
            let silent = running
                .machine
                .unsettled(now)
                .into_iter()
                .find(|copy| is_waiting(copy.state) && (copy.because.is_none() || copy.next_try.is_none()));
            let own = running.machine.peers(now).swap_remove(0);
            if let Some(copy) = silent {
                self.break_rule(Invariant::Explained, format!("peer {place} waits and does not say why: {copy:?}"));
            }
            // What adds have brought is on the disk and still reserved, until the pin takes it over.
            if own.space_used > own.space_limit {
                self.break_rule(Invariant::WithinLimits, format!("peer {place} uses {} of {}", own.space_used, own.space_limit));
            }
            let lost = self.peers[place].persons.iter().find(|cid| !self.peers[place].node.holds(cid)).copied();
            if let Some(cid) = lost {
                self.break_rule(Invariant::NothingForeignRemoved, format!("peer {place} lost {cid}"));
            }
            self.look_at_ages(place);
            self.look_caught_up(place);
        }
    }

    /// What must hold when the faults are over and time has passed.
    pub fn look_at_the_end(&mut self) {
        let up: Vec<Place> = (0..self.peers.len()).filter(|place| self.peers[*place].is_up()).collect();
        let Some(first) = up.first().copied() else { return };
        if self.is_history_lost(&up) {
            self.numbers.histories_lost += 1;
            return;
        }
        self.look_converged(first, &up);
        self.look_kept(first);
        self.look_healed(first, &up);
        self.look_shown(&up);
    }

    /// Whether a block of the shared history was only on disks that are lost or never come back. The view of all others stays
    /// incomplete then: nothing is let go any more, and no promise covers more than that.
    pub(super) fn is_history_lost(&mut self, up: &[Place]) -> bool {
        let rows = |place: &Place| self.peers[*place].store.snapshot().scan(Area::DagBlocks, None, b"", usize::MAX).unwrap_or_default();
        let blocks: BTreeMap<Bytes, Bytes> = up.iter().flat_map(rows).collect();
        let here: BTreeSet<BlockId> = blocks.keys().filter_map(|key| Some(BlockId(key[..].try_into().ok()?))).collect();
        here.iter().any(|id| self.shape(id, &blocks[&id.0[..]]).1.iter().any(|link| !here.contains(link)))
    }

    fn wish_of(&self, place: Place) -> Vec<(Bytes, Bytes)> {
        consensus::crdt::shown(self.peers[place].store.snapshot()).scan(Area::Pins, None, b"", usize::MAX).unwrap_or_default()
    }

    fn look_converged(&mut self, first: Place, up: &[Place]) {
        let wish = self.wish_of(first);
        for place in up {
            let other = self.wish_of(*place);
            if other != wish {
                let differing =
                    wish.iter().filter(|row| !other.contains(row)).count() + other.iter().filter(|row| !wish.contains(row)).count();
                self.break_rule(Invariant::Converged, format!("peers {first} and {place} differ in {differing} rows"));
            }
        }
    }

    /// How far from its share the worst of the roomy peers is, as one of them sees it.
    pub fn measure_spread(&mut self) {
        let Some(first) = (0..self.peers.len()).find(|place| self.peers[*place].is_up()) else { return };
        let Some(running) = &self.peers[first].running else { return };
        let start = running.machine.plan_start(self.peers[first].clocks(self.now));
        let (shares, moving) = cluster::plan::shares(&start.candidates, &start.loads);
        let targets = balance::targets(&shares, moving, start.copies);
        let is_roomy = |share: &(&Share, u64)| share.0.role == Role::Full && share.0.capacity > ROOMY;
        let off = |(share, target): (&Share, u64)| share.placed.abs_diff(target).saturating_mul(1000).checked_div(target).unwrap_or(0);
        self.numbers.off_share = shares.iter().zip(targets).filter(is_roomy).map(off).max().unwrap_or(0);
    }

    fn look_kept(&mut self, first: Place) {
        let Some(running) = &self.peers[first].running else { return };
        let wished: BTreeSet<Cid> = running.view.pins().map(|(pin, _)| pin.cid).collect();
        let kept = self.truth.items.iter().filter(|(_, item)| item.promise == Promise::Kept);
        let missing: Vec<Cid> = kept.filter(|(cid, _)| !wished.contains(cid)).map(|(cid, _)| *cid).collect();
        if let Some(cid) = missing.first() {
            self.break_rule(Invariant::AcknowledgedIsKept, format!("{} pins were promised and are gone, one is {cid}", missing.len()));
        }
    }

    fn look_healed(&mut self, first: Place, up: &[Place]) {
        let Some(running) = &self.peers[first].running else { return };
        let pins: Vec<Pin> = running.view.pins().map(|(pin, _)| pin.clone()).collect();
        for pin in pins {
            let Some(item) = self.truth.item(&pin.cid).filter(|item| !item.is_unfetchable) else { continue };
            // Added content of which the door never heard the end may be nowhere.
            let was_promised = item.promise == Promise::Kept;
            let placed: Vec<Place> = up.iter().copied().filter(|place| pin.is_for(&self.peers[*place].id)).collect();
            let holding = placed.iter().filter(|place| self.peers[**place].node.holds(&pin.cid)).count();
            let has_no_room = |place: &Place| self.has_no_room(*place, &pin.cid, item.size);
            let full = placed.iter().filter(|place| !self.peers[**place].node.holds(&pin.cid) && has_no_room(place)).count();
            let needed = if pin.is_everywhere() { up.len() - full } else { (item.least as usize).min(up.len()) };
            if was_promised && holding < needed {
                let waits = self.why(&pin, first);
                self.break_rule(Invariant::Healed, format!("{} has {holding} of {needed} copies on {placed:?}: {waits}", pin.cid));
            }
        }
    }

    /// Whether a peer has no room: on its disk, or beside what it has promised to adds whose end it did not hear yet.
    fn has_no_room(&self, place: Place, cid: &Cid, size: u64) -> bool {
        let peer = &self.peers[place];
        let now = peer.clocks(self.now);
        let says_so = peer.running.as_ref().is_some_and(|running| {
            let row = running.machine.status_of(running.view.get(cid).map(|(pin, version)| (pin, *version)), cid, now).swap_remove(0);
            matches!(row.because, Some(Because::NoRoom { .. }))
        });
        says_so || peer.node.limit.saturating_sub(peer.node.used()) < size
    }

    /// The words that the system itself has for it.
    fn why(&self, pin: &Pin, place: Place) -> String {
        let now = self.peers[place].clocks(self.now);
        let Some(running) = &self.peers[place].running else { return String::new() };
        let version = running.view.get(&pin.cid).map_or(0, |(_, version)| *version);
        let why = running.machine.explain(pin, version, now);
        let rows: Vec<String> = why
            .peers
            .iter()
            .filter(|(row, _)| row.is_placed)
            .map(|(row, words)| format!("{} {:?} {:?} live {} ({words})", row.peer.short(), row.state, row.because, row.is_live))
            .collect();
        format!("{}; {}; next {:?}", why.summary, rows.join("; "), why.next)
    }

    /// What each peer shows of each copy is so.
    fn look_shown(&mut self, up: &[Place]) {
        for place in up {
            let Some(running) = &self.peers[*place].running else { continue };
            let now = self.peers[*place].clocks(self.now);
            let mut wrong = None;
            // A root is held by nobody: what is shown of it is how its units are.
            let held = running.view.pins().filter(|(pin, _)| pin.kind != PinKind::Meta);
            for (pin, version) in held.skip(place % SHOWN_SAMPLE).step_by(SHOWN_SAMPLE) {
                for row in running.machine.status_of(Some((pin, *version)), &pin.cid, now) {
                    let Some(other) = self.places.get(&row.peer).copied().filter(|_| row.is_live && row.is_placed) else { continue };
                    let holds = self.peers[other].node.holds(&pin.cid);
                    if holds != (row.state == PinState::Pinned) {
                        wrong = Some(format!(
                            "peer {place} shows {:?} ({:?}) of {} on peer {other}, which holds it: {holds}",
                            row.state, row.because, pin.cid
                        ));
                    }
                }
            }
            if let Some(what) = wrong {
                self.break_rule(Invariant::StatusTrue, what);
            }
        }
    }
}
