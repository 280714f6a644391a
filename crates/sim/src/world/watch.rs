//! Looks over the shoulder of every peer: is what it does what the rules allow? Each check knows the truth of the world and
//! gives the machine the doubt: what a peer cannot have noticed yet is no fault.

use super::World;
use crate::invariants::Invariant;
use crate::queue::{Place, Time};
use cluster::order::Distances;
use cluster::{Notice, PeerHealth, SharedView, ViewState};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use types::{Because, ByteCount, Cid, PeerId, PeerMessage, Pin, PinKind, PinState};

/// Removals count for so long.
const REMOVALS_WITHIN: Time = 60_000;
/// What was promised to an add ends so long after it was renewed.
const PROMISE: Time = 600_000;
/// Words that were on the way, or wait here for the shared state, may come so late.
const LATE_WORDS: Time = 40_000;
/// Who cannot be heard for so long, late words included, is known to be silent.
const KNOWN_SILENT: Time = 60_000;
/// Silence may have begun so long before nothing could be heard any more: hellos come in this distance, and some are lost.
const HELLOS: Time = 20_000;
/// Connected for so long without a fault: they know each other.
const SETTLED: Time = 60_000;
/// History that can be had is fetched within this time.
const CAUGHT_UP_WITHIN: Time = 60_000;
/// A missing site gets so many graces.
const SITE_GRACES: Time = 6;

/// One of so many pins is looked at with each change.
const SAMPLE: u8 = 8;

/// Whether changes of this pin are looked at.
pub(super) fn is_sampled(cid: &Cid) -> bool {
    cid.hash().digest().last().is_some_and(|byte| byte % SAMPLE == 0)
}

/// What was seen of all peers.
#[derive(Debug, Default)]
pub(super) struct Watch {
    peers: Vec<Seen>,
    distances: Distances,
    /// Since when no link is cut and nothing is lost; none while it is not so.
    calm_since: Option<Time>,
    /// Who was asked to leave.
    leaving: BTreeSet<Place>,
}

/// What was seen of one peer since it started.
#[derive(Debug, Default)]
struct Seen {
    /// Room asked for by adds, until it is answered.
    asked: BTreeMap<(PeerId, u64), ByteCount>,
    /// Room promised to them, and until when.
    promised: BTreeMap<(PeerId, u64), (ByteCount, Time)>,
    /// Starts of others as they said them.
    lives: BTreeMap<PeerId, u64>,
    /// When it let go of what had been removed.
    removals: VecDeque<Time>,
    /// A person let removals pass.
    is_approved: bool,
    /// Whom it takes for dead, since when.
    down: BTreeMap<PeerId, Time>,
    /// Whom it is linked with, since when.
    linked: BTreeMap<Place, Time>,
    /// When it last heard a word of each other one, or their link came up; when it started, before any.
    words: Vec<Time>,
    /// Since when it misses history that it could have.
    behind: Option<Time>,
    /// Copies of which others said last that they hold them, and which version they named; sampled.
    early: BTreeMap<(PeerId, Cid), u64>,
    /// What others said that they take of a shipment, and how much of that was not moved yet.
    taken: BTreeMap<PeerId, (u64, ByteCount)>,
}

impl Watch {
    pub fn over(peers: usize) -> Watch {
        Watch {
            peers: (0..peers).map(|_| Seen::default()).collect(),
            distances: Distances::default(),
            calm_since: Some(0),
            leaving: BTreeSet::new(),
        }
    }

    pub fn leaves(&mut self, place: Place) {
        self.leaving.insert(place);
    }

    pub fn links_are(&mut self, well: bool, now: Time) {
        self.calm_since = well.then(|| self.calm_since.unwrap_or(now));
    }

    pub fn restarted(&mut self, place: Place, now: Time) {
        self.peers[place] = Seen { words: vec![now; self.peers.len()], ..Seen::default() };
    }

    pub fn approved(&mut self, place: Place) {
        self.peers[place].is_approved = true;
    }

    pub fn linked(&mut self, place: Place, (other, peer): (Place, PeerId), now: Time) {
        let seen = &mut self.peers[place];
        seen.linked.entry(other).or_insert(now);
        seen.words[other] = now;
        seen.early.retain(|(from, _), _| *from != peer);
    }

    pub fn unlinked(&mut self, place: Place, other: Place) {
        self.peers[place].linked.remove(&other);
    }

    /// A peer is about to hear this.
    pub fn heard(&mut self, place: Place, (other, from): (Place, PeerId), message: &PeerMessage, now: Time) {
        let seen = &mut self.peers[place];
        seen.words[other] = now;
        match message {
            PeerMessage::Reserve { lease, bytes } => drop(seen.asked.insert((from, *lease), *bytes)),
            PeerMessage::Release { lease, .. } => drop(seen.promised.remove(&(from, *lease))),
            PeerMessage::Take { shipment, bytes } => {
                let known = seen.taken.entry(from).or_default();
                if *shipment > known.0 {
                    *known = (*shipment, *bytes);
                }
            }
            PeerMessage::Hello { incarnation, .. } => {
                let known = seen.lives.entry(from).or_insert(*incarnation);
                if *incarnation > *known {
                    *known = *incarnation;
                    seen.promised.retain(|(owner, _), _| *owner != from);
                    seen.early.retain(|(other, _), _| *other != from);
                }
            }
            PeerMessage::Holdings(report) if seen.lives.get(&from).is_none_or(|life| *life <= report.incarnation) => {
                for copy in report.copies.iter().filter(|copy| is_sampled(&copy.cid)) {
                    match copy.state {
                        PinState::Pinned => drop(seen.early.insert((from, copy.cid), copy.version)),
                        _ => drop(seen.early.remove(&(from, copy.cid))),
                    }
                }
            }
            _ => {}
        }
    }
}

impl World {
    /// Rule 1: the view is complete, the ledger names it, the wish does not ask for it here; and a mass removal was approved.
    pub(super) fn must_know_what_goes(&mut self, place: Place, cid: &Cid) {
        let peer = &self.peers[place];
        let Some(running) = &peer.running else { return };
        let wish = running.view.get(cid);
        let why = if running.shown != ViewState::Current {
            "although its view is not complete"
        } else if !running.view.is_ours(cid) {
            "which its ledger does not name"
        } else if wish.is_some_and(|(pin, _)| pin.is_for(&peer.id)) {
            "which is placed on it"
        } else {
            ""
        };
        if !why.is_empty() {
            self.break_rule(Invariant::LetsGoKnowingly, format!("peer {place} lets go of {cid}, {why}"));
        } else if wish.is_none() {
            let held = running.view.ledger_count();
            self.must_brake(place, held);
        }
    }

    fn must_brake(&mut self, place: Place, held: u64) {
        let (now, limits) = (self.now, self.settings.brake);
        let seen = &mut self.watch.peers[place];
        if seen.is_approved {
            return;
        }
        seen.removals.push_back(now);
        while seen.removals.front().is_some_and(|at| at + REMOVALS_WITHIN < now) {
            seen.removals.pop_front();
        }
        let removals = seen.removals.len() as u64;
        // Room for those that are being let go and still stand in the ledger.
        let limit = limits.removals.max((held + removals) * limits.percent / 100);
        let most = limit + limit / 4 + 1;
        if removals > most {
            let what = format!("peer {place} lets {removals} removed pins go within a minute, more than {most}, and asks nobody");
            self.break_rule(Invariant::MassRemovalBrakes, what);
        }
    }

    /// Rules 4 and 5: who is called lost was silent for the grace (a whole site for longer), and it is this peer's turn.
    pub(super) fn must_repair_rightly(&mut self, place: Place, notice: &Notice) {
        match notice {
            Notice::PeerDown(peer) => {
                self.watch.peers[place].down.insert(*peer, self.now);
                self.must_have_waited(place, peer);
            }
            Notice::PeerBack(peer) => drop(self.watch.peers[place].down.remove(peer)),
            Notice::Repairing { cid, lost, .. } => {
                let silent = self.only_silent(place, cid, lost);
                for other in &silent {
                    self.must_be_down(place, other, cid);
                }
                if silent.len() == lost.len() {
                    self.must_have_its_turn(place, cid, lost);
                }
            }
            _ => {}
        }
    }

    /// Of the lost holders, those that do not leave and do not lack room.
    fn only_silent(&self, place: Place, cid: &Cid, lost: &[PeerId]) -> Vec<PeerId> {
        let peer = &self.peers[place];
        let Some(running) = &peer.running else { return Vec::new() };
        let pin = running.view.get(cid).map(|(pin, version)| (pin, *version));
        let rows = running.machine.status_of(pin, cid, peer.clocks(self.now));
        let is_full = |other: &PeerId| rows.iter().any(|row| row.peer == *other && matches!(row.because, Some(Because::NoRoom { .. })));
        let is_leaving = |other: &PeerId| self.places.get(other).is_none_or(|other| self.watch.leaving.contains(other));
        lost.iter().filter(|other| **other != peer.id && !is_full(other) && !is_leaving(other)).copied().collect()
    }

    /// Who is taken for dead has said nothing for the grace.
    fn must_have_waited(&mut self, place: Place, peer: &PeerId) {
        let Some(other) = self.places.get(peer).copied() else { return };
        let silent = self.now - self.watch.peers[place].words[other];
        let grace = self.settings.grace;
        if silent < grace {
            self.break_rule(
                Invariant::GraceIsWaited,
                format!("peer {place} takes peer {other} for dead, silent for {silent} ms of {grace}"),
            );
        }
    }

    fn must_be_down(&mut self, place: Place, peer: &PeerId, cid: &Cid) {
        let Some(other) = self.places.get(peer).copied() else { return };
        if !self.watch.peers[place].down.contains_key(peer) {
            let what = format!("peer {place} replaces the copy of {cid} on peer {other}, which it does not take for dead");
            self.break_rule(Invariant::GraceIsWaited, what);
        }
        let (silent, grace) = (self.now - self.heard_last(place, other), self.settings.grace);
        let site = self.settings.site(other).filter(|site| Some(*site) != self.settings.site(place));
        let Some(site) = site else { return };
        let here: Vec<Place> = (0..self.peers.len()).filter(|other| self.settings.site(*other) == Some(site)).collect();
        let staying = here.iter().filter(|other| self.peers[**other].is_up() && !self.watch.leaving.contains(other)).count();
        let is_missing = here.iter().all(|other| self.heard_last(place, *other) + KNOWN_SILENT < self.now);
        if staying > 1 && is_missing && silent + HELLOS < grace * SITE_GRACES {
            let what =
                format!("peer {place} replaces the copy of {cid} on peer {other} after {silent} ms, while all of site {site} is missing");
            self.break_rule(Invariant::SitesGetTime, what);
        }
    }

    /// While links are well, a peer acts after the patience for each one that is closer to the CID.
    fn must_have_its_turn(&mut self, place: Place, cid: &Cid, lost: &[PeerId]) {
        let seen = &self.watch.peers[place];
        // The first of them was noticed no earlier; without a time it was never heard of since the start.
        let Some(since) = lost.iter().map(|peer| seen.down.get(peer).copied()).min().flatten() else { return };
        // Whom a peer knows since before it may have noticed the pin, it counts among those who go first.
        let (now, patience) = (self.now, self.settings.repair.patience.0);
        let settled = SETTLED + patience * self.peers.len() as u64;
        if self.watch.calm_since.is_none_or(|since| since + settled > now) {
            return;
        }
        let is_known = |other: &Place| {
            let is_settled = |a: Place, b: Place| self.watch.peers[a].linked.get(&b).is_some_and(|at| at + settled < now);
            self.are_joined(place, *other) && is_settled(place, *other) && is_settled(*other, place)
        };
        let staying = self.staying(place);
        let known: Vec<PeerId> = (0..self.peers.len()).filter(is_known).map(|other| self.peers[other].id).collect();
        let closer = known.into_iter().filter(|peer| staying.contains(peer));
        let me = self.peers[place].id;
        let rank = u64::from(self.watch.distances.rank(cid, &me, closer));
        let turn = since + rank * patience;
        if now < turn {
            let what = format!("peer {place} repairs {cid} at {now}, {rank} peers are closer and its turn is at {turn}");
            self.break_rule(Invariant::RepairersTakeTurns, what);
        }
    }

    /// Those that a peer does not know to be leaving.
    fn staying(&self, place: Place) -> BTreeSet<PeerId> {
        let peer = &self.peers[place];
        let rows = peer.running.iter().flat_map(|running| running.machine.peers(peer.clocks(self.now)));
        rows.filter(|row| row.health == PeerHealth::Up).map(|row| row.peer).collect()
    }

    /// Rule 5: a repair changes the placement of the pin as it is, and nothing else.
    pub(super) fn must_write_what_it_read(&mut self, place: Place, written: &Pin) {
        let read = self.peers[place].running.as_ref().and_then(|running| running.view.get(&written.cid));
        let is_same = read.is_some_and(|(pin, _)| Pin { placement: written.placement.clone(), ..pin.clone() } == *written);
        if !is_same {
            self.break_rule(Invariant::RepairersTakeTurns, format!("peer {place} writes {written:?} over {read:?}"));
        }
    }

    /// A copy that its holder gives away although nothing is wrong with it goes to who agreed to take it. `repaired`: pins of which it said
    /// that copies are lost.
    pub(super) fn must_be_taken(&mut self, place: Place, written: &Pin, repaired: &BTreeSet<Cid>) {
        let peer = &self.peers[place];
        let Some((read, _)) = peer.running.as_ref().and_then(|running| running.view.get(&written.cid)) else { return };
        let is_given = read.placement.contains(&peer.id) && !written.placement.contains(&peer.id);
        let gained: Vec<PeerId> = written.placement.iter().filter(|other| !read.placement.contains(other)).copied().collect();
        if !is_given || gained.is_empty() || self.watch.leaving.contains(&place) || repaired.contains(&written.cid) {
            return;
        }
        self.numbers.moves += 1;
        let size = ByteCount(self.truth.size(&written.cid));
        for to in gained {
            let (_, left) = self.watch.peers[place].taken.entry(to).or_default();
            let was_left = *left;
            *left = was_left - size;
            if size > was_left {
                let what =
                    format!("peer {place} moves {} of {size} to {:?}, which takes {was_left} more", written.cid, self.places_of(&[to]));
                self.break_rule(Invariant::TakersAgree, what);
            }
        }
    }

    /// Rule 7: what is promised to adds has room.
    pub(super) fn watch_promise(&mut self, place: Place, to: &PeerId, message: &PeerMessage) {
        let PeerMessage::Reserved { lease, refused } = message else { return };
        let (now, key) = (self.now, (*to, *lease));
        let seen = &mut self.watch.peers[place];
        let Some(bytes) = seen.asked.remove(&key).filter(|_| refused.is_none()) else { return };
        seen.promised.retain(|_, (_, end)| *end > now);
        let before = seen.promised.insert(key, (bytes, now + PROMISE)).map_or(ByteCount::ZERO, |(before, _)| before);
        let promised = seen.promised.values().fold(ByteCount::ZERO, |sum, (bytes, _)| sum + *bytes);
        let Some(running) = &self.peers[place].running else { return };
        let own = running.machine.peers(self.peers[place].clocks(now)).swap_remove(0);
        if bytes > before && promised > own.space_limit - own.space_used {
            let what = format!("peer {place} promises {promised} to adds, {} of {} are used", own.space_used, own.space_limit);
            self.break_rule(Invariant::WithinLimits, what);
        }
    }

    /// Rule 6: who cannot be heard is not shown as live, and what is shown of it has the age of its last word.
    pub(super) fn look_at_ages(&mut self, place: Place) {
        let peer = &self.peers[place];
        let Some(running) = &peer.running else { return };
        let Some((pin, version)) = running.view.pins().next() else { return };
        let mut wrong = None;
        for row in running.machine.status_of(Some((pin, *version)), &pin.cid, peer.clocks(self.now)) {
            let Some(other) = self.places.get(&row.peer).copied().filter(|other| *other != place) else { continue };
            let last = self.heard_last(place, other);
            let is_silent = last + KNOWN_SILENT < self.now;
            let newest = peer.clocks((last + LATE_WORDS).max(running.started)).wall;
            if is_silent && (row.is_live || row.as_of > newest) {
                let silent = self.now - last;
                wrong = Some(format!(
                    "peer {place} shows peer {other}, silent for {silent} ms, as live: {}, as of {:?}",
                    row.is_live, row.as_of
                ));
            }
        }
        if let Some(what) = wrong {
            self.break_rule(Invariant::StatusHasItsAge, what);
        }
    }

    /// Rule 6: the machine was just told of these wishes; what it shows as held on others, they have said.
    pub(super) fn must_be_said(&mut self, place: Place, wishes: &[(Cid, u64)]) {
        let peer = &self.peers[place];
        let Some(running) = &peer.running else { return };
        let mut wrong = None;
        for (cid, version) in wishes {
            // A root is held by nobody. Of two changes at once the later one counts.
            let is_so = |(pin, now): &&(Pin, u64)| pin.kind != PinKind::Meta && now == version;
            let Some((pin, _)) = running.view.get(cid).filter(is_so) else { continue };
            for row in running.machine.status_of(Some((pin, *version)), cid, peer.clocks(self.now)) {
                let is_shown = row.peer != peer.id && row.is_placed && row.state == PinState::Pinned;
                let said = self.watch.peers[place].early.get(&(row.peer, *cid));
                if is_shown && said != Some(version) {
                    wrong = Some(format!(
                        "peer {place} shows {cid} on {:?} as held as soon as it is wished ({version}), which said: {said:?}",
                        self.places_of(&[row.peer])
                    ));
                }
            }
        }
        if let Some(what) = wrong {
            self.break_rule(Invariant::ConfirmedByItsWord, what);
        }
    }

    /// Rule 8: while nothing is in the way, history that others have is fetched.
    pub(super) fn look_caught_up(&mut self, place: Place) {
        let is_free = self.links.are_well() && self.peers.iter().all(|peer| peer.is_up() || peer.is_over);
        let missing = self.peers[place].running.as_ref().map_or(0, |running| running.crdt.missing());
        let behind = &mut self.watch.peers[place].behind;
        if !is_free || missing == 0 {
            *behind = None;
            return;
        }
        let since = *behind.get_or_insert(self.now);
        if self.now >= since + CAUGHT_UP_WITHIN && !self.is_history_gone() {
            let what = format!("peer {place} misses {missing} blocks of the history since {since}, although nothing is in its way");
            self.break_rule(Invariant::CatchesUp, what);
        }
    }

    fn is_history_gone(&mut self) -> bool {
        let up: Vec<Place> = (0..self.peers.len()).filter(|place| self.peers[*place].is_up()).collect();
        self.is_history_lost(&up)
    }
}
