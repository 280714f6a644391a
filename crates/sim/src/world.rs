//! All peers, the links between them, and the loop.
//!
//! `world` routes what happens; [`minds`] drives the machines and performs their effects, `consensus` the CRDT, `nodes` the
//! nodes, `doors` the people, `breaking` the faults; `watch` looks at every step of a peer, `looking` at all of them now and then and at the end.

mod breaking;
mod consensus;
pub mod doors;
mod large;
mod looking;
mod minds;
mod nodes;
mod pages;
mod stretches;
mod watch;

use crate::invariants::{Invariant, Violation};
use crate::links::Links;
use crate::peer::SimPeer;
use crate::queue::{Packet, Place, Queue, Time, What};
use crate::scenario::Settings;
use crate::truth::Truth;
use ::consensus::crdt::BlockId;
use doors::Doors;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use types::{Cid, PeerId};
use watch::Watch;

/// Numbers of one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// Events handled.
    pub events: u64,
    /// Writes by repair.
    pub repairs: u64,
    /// Of them, copies moved for an even spread.
    pub moves: u64,
    /// The greatest distance of a roomy peer from its share at the end, in thousandths of it.
    pub off_share: u64,
    /// Copies made.
    pub pinned: u64,
    /// Copies let go.
    pub unpinned: u64,
    /// Crashes.
    pub crashes: u64,
    /// Brakes on mass removals.
    pub brakes: u64,
    /// Pins whose copies were all lost with their disks.
    pub excused: u64,
    /// Runs whose shared history was partly lost with its disks: their end proves nothing.
    pub histories_lost: u64,
}

/// Everything.
pub struct World {
    /// The settings of the run.
    pub settings: Settings,
    /// Virtual time.
    pub now: Time,
    /// The peers.
    pub peers: Vec<SimPeer>,
    /// What was promised.
    pub truth: Truth,
    /// The first broken rule.
    pub violation: Option<Violation>,
    /// Numbers.
    pub numbers: Numbers,
    /// A hash over everything that was done, in order.
    pub trace: u64,
    /// From now on nothing may be done any more.
    pub must_rest: bool,
    queue: Queue,
    links: Links,
    chance: ChaCha8Rng,
    places: BTreeMap<PeerId, Place>,
    /// Priority and links of every block seen: the same wherever it lies, and dear to parse again.
    shapes: BTreeMap<BlockId, (u64, Vec<BlockId>)>,
    doors: Doors,
    large: Vec<large::Large>,
    /// Until when each peer could hear each other one: at this moment, or the moment in which it ended.
    heard_until: Vec<Vec<Time>>,
    watch: Watch,
}

impl World {
    /// A world in which nothing has happened yet.
    pub fn new(settings: Settings, peers: Vec<SimPeer>, truth: Truth, chance: ChaCha8Rng) -> World {
        let places = peers.iter().enumerate().map(|(place, peer)| (peer.id, place)).collect();
        let watch = Watch::over(peers.len());
        let heard_until = vec![vec![0; peers.len()]; peers.len()];
        World {
            settings,
            now: 0,
            peers,
            truth,
            violation: None,
            numbers: Numbers::default(),
            trace: 0xcbf2_9ce4_8422_2325,
            must_rest: false,
            queue: Queue::default(),
            links: Links::default(),
            chance,
            places,
            shapes: BTreeMap::new(),
            doors: Doors::default(),
            large: Vec::new(),
            heard_until,
            watch,
        }
    }

    /// Puts something into the future.
    pub fn at(&mut self, time: Time, what: What) {
        self.queue.push(time, what);
    }

    /// Lets time pass until `end` or the first broken rule.
    pub fn run_until(&mut self, end: Time) {
        while self.violation.is_none() {
            let Some((time, what)) = self.queue.pop_until(end) else { break };
            self.now = time;
            self.numbers.events += 1;
            self.happen(what);
        }
        if self.violation.is_none() {
            self.now = end;
        }
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Start(place) => self.start(place),
            What::Wake(place, life) => self.wake(place, life),
            What::CrdtWake(place, life) => self.crdt_wake(place, life),
            What::Arrive { from, to, life, packet } => self.arrive(from, to, life, packet),
            What::Link { at, life, other, is_up } => self.link_seen(at, life, other, is_up),
            What::Synced(place, life) => self.synced(place, life),
            What::Deferred(place, life) => self.ask_deferred(place, life),
            What::BlockLate(place, life, cid) => self.block_late(place, life, cid),
            What::StretchLate(place, life, cid, other) => self.stretch_late(place, life, cid, other),
            What::PageLate(place, life, after, other) => self.page_late(place, life, &after, other),
            What::HeadsLate(place, life, other) => self.heads_late(place, life, other),
            What::NodeDone(place, life, done) => self.node_done(place, life, done),
            What::Door(number) => self.door(number),
            What::Large(number) => self.large(number),
            What::LargeKept(number, lease) => self.large_kept(number, lease),
            What::Spread(place, life, request) => self.spread(place, life, request),
            What::Fault(fault) => self.fault(fault),
            What::Look => self.look(),
        }
    }

    /// Sends a packet; it may be lost, late or doubled.
    fn send(&mut self, from: Place, to: Place, packet: &Packet) {
        if from == to || !self.links.is_open(from, to) || !self.peers[to].is_up() {
            return;
        }
        let life = self.peers[to].life;
        for delay in self.links.arrivals(&mut self.chance).into_iter().flatten() {
            self.at(self.now + delay, What::Arrive { from, to, life, packet: packet.clone() });
        }
    }

    fn arrive(&mut self, from: Place, to: Place, life: u32, packet: Packet) {
        if !self.lives(to, life) || !self.links.is_open(from, to) {
            return;
        }
        match packet {
            Packet::Words(message) => self.words(from, to, (*message).clone()),
            Packet::Heads(heads) => self.tell_crdt_heads(from, to, (*heads).clone()),
            Packet::Pushed(bytes) => self.block_pushed(from, to, bytes),
            Packet::WantHeads => self.heads_wanted(from, to),
            Packet::HeadsAre(heads) => self.heads_are(from, to, heads),
            Packet::WantBlock(cid) => self.block_wanted(from, to, cid),
            Packet::WantStretch(cid, have) => self.stretch_wanted(from, to, cid, &have),
            Packet::Stretch(cid, blocks) => self.stretch_came(from, to, cid, &blocks),
            Packet::WantPage(after) => self.page_wanted(from, to, after),
            Packet::Page(after, bytes) => self.page_came(from, to, &after, bytes),
            Packet::Block(cid, bytes) => self.block_came(to, cid, bytes),
        }
    }

    /// Whether a peer runs and is in this life.
    fn lives(&self, place: Place, life: u32) -> bool {
        self.peers[place].life == life && self.peers[place].is_up()
    }

    /// Whether two peers can hear each other.
    fn are_joined(&self, a: Place, b: Place) -> bool {
        a != b && self.peers[a].is_up() && self.peers[b].is_up() && self.links.is_open(a, b) && self.links.is_open(b, a)
    }

    fn places_of(&self, peers: &[PeerId]) -> Vec<Place> {
        peers.iter().filter_map(|peer| self.places.get(peer).copied()).collect()
    }

    fn break_rule(&mut self, invariant: Invariant, what: String) {
        if self.violation.is_none() {
            self.violation = Some(Violation { invariant, time: self.now, what });
        }
    }

    /// Notes something in the trace.
    fn note(&mut self, place: Place, kind: u64, about: Option<&Cid>) {
        let about = about.map_or(0, |cid| {
            let digest = cid.hash().digest();
            digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
        });
        for part in [self.now, place as u64, kind, about] {
            self.trace = (self.trace ^ part).wrapping_mul(0x100_0000_01b3).rotate_left(23);
        }
    }

    /// Tells a person who watches.
    fn say(&self, text: impl FnOnce() -> String) {
        if self.settings.steps {
            println!("{:>5}.{:03}  {}", self.now / 1000, self.now % 1000, text());
        }
    }
}
