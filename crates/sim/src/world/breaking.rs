//! Starts, crashes, cuts, and mending.

use super::World;
use super::consensus::view_state;
use crate::faults::Fault;
use crate::links::Weather;
use crate::peer::Running;
use crate::queue::{Place, Time, What};
use crate::view::View;
use cluster::{Command, Event, Machine, RequestId};
use consensus::crdt;
use rand::Rng;
use std::collections::{BTreeMap, BTreeSet};
use store::{Area, MemoryStore, Store};
use types::{Cid, Millis};

/// A peer that is silent is taken for silent so late: its hellos, the look at them, words that come late.
const NOTICED_AFTER: Time = 30_000;

impl World {
    /// A peer starts: everything is read from its disk.
    pub(super) fn start(&mut self, place: Place) {
        if self.peers[place].is_up() || self.peers[place].is_over {
            return;
        }
        let now = self.now;
        let members = self.peers.iter().map(|peer| peer.id).collect();
        let peer = &mut self.peers[place];
        peer.life += 1;
        let options = self.settings.machine_options(peer.id, place, peer.life, members);
        let mut crdt = match crdt::Machine::open(self.settings.crdt_options(place, peer.life), Millis(0), peer.store.snapshot()) {
            Ok(machine) => machine,
            Err(error) => panic!("peer {place} cannot read its disk: {error}"),
        };
        if let Some(bug) = self.settings.planted_in_crdt {
            crdt.plant(bug);
        }
        let view = View::load(peer.store.snapshot());
        let state = view_state(crdt.state());
        let clocks = peer.clocks(now);
        peer.running = Some(Running {
            started: now,
            machine: Machine::new(options, clocks),
            crdt,
            view,
            shown: state,
            wake: None,
            crdt_wake: None,
            inbox: Vec::new(),
            syncing: None,
            tickets: BTreeMap::new(),
            ops: BTreeMap::new(),
            blocks_asked: BTreeSet::new(),
            stretches_asked: BTreeSet::new(),
            page_asked: None,
            heads_asked: BTreeSet::new(),
            deferred: Vec::new(),
            linked: BTreeSet::new(),
        });
        self.watch.restarted(place, now);
        self.say(|| format!("peer {place} starts"));
        self.at(now, What::CrdtWake(place, self.peers[place].life));
        if let Some(running) = self.peers[place].running.as_mut() {
            running.crdt_wake = Some(now);
        }
        self.measure(place);
        self.show_state(place, state);
        for other in 0..self.peers.len() {
            self.join(place, other);
        }
        self.note_who_hears();
    }

    /// Two peers that can hear each other connect after a moment.
    fn join(&mut self, a: Place, b: Place) {
        if !self.are_joined(a, b) {
            return;
        }
        let delay = self.chance.random_range(10..500);
        for (at, other) in [(a, b), (b, a)] {
            self.at(self.now + delay, What::Link { at, life: self.peers[at].life, other, is_up: true });
        }
    }

    /// Who was connected to a peer notices after some seconds that it is silent.
    fn part(&mut self, place: Place, others: impl Iterator<Item = Place>) {
        for other in others.collect::<Vec<_>>() {
            let delay = self.chance.random_range(1_000..8_000);
            for (at, other) in [(place, other), (other, place)] {
                self.at(self.now + delay, What::Link { at, life: self.peers[at].life, other, is_up: false });
            }
        }
    }

    pub(super) fn fault(&mut self, fault: Fault) {
        self.say(|| format!("fault: {fault:?}"));
        if !matches!(fault, Fault::OneWay(..) | Fault::Weather(_)) {
            self.note_who_hears();
        }
        match fault {
            Fault::Crash { place, back_after, loses_disk } => self.crash(place, back_after, loses_disk),
            Fault::Island(island) => self.cut_off(&island),
            Fault::OneWay(from, to) => {
                self.note_hears(to, from);
                self.links.cut(from, to);
            }
            Fault::Mend => self.mend(),
            Fault::Weather(weather) => self.links.weather = weather,
            Fault::Leave(place) => self.ask_to_leave(place),
            Fault::ApproveRemovals => self.approve_removals(),
            Fault::Heal => self.heal(),
        }
        self.watch.links_are(self.links.are_well(), self.now);
    }

    pub(super) fn crash(&mut self, place: Place, back_after: Option<Time>, loses_disk: bool) {
        if !self.peers[place].is_up() {
            return;
        }
        self.numbers.crashes += 1;
        self.note_who_hears();
        self.note(place, 9, None);
        let linked: Vec<Place> = self.peers[place].running.take().map(|running| running.linked.into_iter().collect()).unwrap_or_default();
        let peer = &mut self.peers[place];
        peer.life += 1;
        peer.node.crash();
        if loses_disk {
            let lost: Vec<Cid> = peer.node.pins().copied().collect();
            peer.node.lose_disk();
            peer.persons.clear();
            let store = std::mem::take(&mut peer.store);
            for cid in lost {
                self.truth.lost_copy(&cid, self.now);
            }
            self.excuse_what_was_only_there(&store);
            self.excuse_fate();
        } else {
            peer.store = peer.store.crash();
        }
        self.part(place, linked.into_iter());
        match back_after {
            Some(after) => self.at(self.now + after, What::Start(place)),
            None => {
                self.peers[place].is_over = true;
                let store = self.peers[place].store.clone();
                self.excuse_what_was_only_there(&store);
                self.excuse_fate();
            }
        }
        self.note_who_hears();
    }

    /// What was acknowledged on a disk and told nobody goes with the disk: no promise of a peer covers that.
    fn excuse_what_was_only_there(&mut self, lost: &MemoryStore) {
        let wish = |store: &MemoryStore| -> BTreeSet<Cid> { View::load(store.snapshot()).pins().map(|(pin, _)| pin.cid).collect() };
        let mut only_there = wish(&lost.crash());
        for peer in self.peers.iter().filter(|peer| !peer.is_over) {
            only_there.retain(|cid| peer.store.get(Area::Pins, &cid.to_bytes()).ok().flatten().is_none());
        }
        for cid in only_there {
            if self.truth.is_kept(&cid) {
                self.truth.promise(&cid, crate::truth::Promise::Unclear);
            }
        }
    }

    /// Content whose every copy was on disks that are lost or never come back is lost by right: no placement survives that.
    fn excuse_fate(&mut self) {
        for (cid, item) in &mut self.truth.items {
            let is_anywhere = self.peers.iter().any(|peer| !peer.is_over && peer.node.has_blocks(cid));
            if item.promise == crate::truth::Promise::Kept && !is_anywhere && !item.is_outside && !item.is_unfetchable {
                item.is_unfetchable = true;
                self.numbers.excused += 1;
            }
        }
    }

    fn cut_off(&mut self, island: &[Place]) {
        for inside in island {
            let outside: Vec<Place> = (0..self.peers.len()).filter(|other| !island.contains(other)).collect();
            for other in &outside {
                self.links.cut(*inside, *other);
                self.links.cut(*other, *inside);
            }
            self.part(*inside, outside.into_iter());
        }
    }

    fn mend(&mut self) {
        for (a, b) in self.links.mend() {
            self.join(a, b);
        }
    }

    fn heal(&mut self) {
        self.links.weather = Weather::default();
        self.mend();
        for place in 0..self.peers.len() {
            self.at(self.now + 1, What::Start(place));
        }
    }

    fn ask_to_leave(&mut self, place: Place) {
        if self.peers[place].is_up() {
            self.watch.leaves(place);
            self.think(place, Event::Command(RequestId(super::doors::LEAVE + place as u64), Command::Leave { force: true }));
        }
    }

    /// A person looks at every running peer and lets its removals pass.
    fn approve_removals(&mut self) {
        for place in 0..self.peers.len() {
            if self.peers[place].is_up() {
                self.watch.approved(place);
                self.think(place, Event::Command(RequestId(super::doors::APPROVE + place as u64), Command::ApproveRemovals));
            }
        }
    }

    /// It was told that everything is handed over: it stops for good and its disk is wiped.
    pub(super) fn has_left(&mut self, place: Place, stranded: u64) {
        self.say(|| format!("peer {place} left, {stranded} stranded"));
        if stranded == 0 {
            self.crash(place, None, false);
            self.peers[place].node = crate::node::Node::default();
            self.peers[place].persons.clear();
        }
    }

    /// Notes who can hear whom, before and after something changes it.
    pub(super) fn note_who_hears(&mut self) {
        for place in 0..self.peers.len() {
            for other in 0..self.peers.len() {
                self.note_hears(place, other);
            }
        }
    }

    fn note_hears(&mut self, place: Place, other: Place) {
        if self.can_hear(place, other) {
            self.heard_until[place][other] = self.now;
        }
    }

    /// When a peer could last hear another one.
    pub(super) fn heard_last(&self, place: Place, other: Place) -> Time {
        if self.can_hear(place, other) { self.now } else { self.heard_until[place][other] }
    }

    fn can_hear(&self, place: Place, other: Place) -> bool {
        self.peers[place].is_up() && self.peers[other].is_up() && self.links.is_open(other, place)
    }

    /// Whether a peer has for long enough to notice it been able to hear fewer than half of the members.
    pub(super) fn is_blind(&self, place: Place) -> bool {
        let hears = |other: &Place| *other == place || self.heard_last(place, *other) + NOTICED_AFTER > self.now;
        // Who left or is dead is still a member, as long as no record says otherwise.
        (0..self.peers.len()).filter(hears).count() * 2 < self.peers.len()
    }
}
