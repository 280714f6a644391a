//! Adds that are larger than any peer, as `peer::sharded` carries them out: unit after unit is placed, filled and pinned, then the
//! spine, and at last the root, by one write that all units belong to.

use super::World;
use crate::invariants::Invariant;
use crate::queue::{Place, Time, What};
use crate::scenario::cid_of;
use crate::truth::{Item, Promise};
use cluster::{Answer, Command, Event, Missing, NewRoot, NewUnit, RequestId, shards};
use std::collections::BTreeMap;
use types::{ByteCount, Cid, PeerId, Pin, PinOptions, Replicas};

/// Request numbers of these adds begin here.
pub(super) const LARGE: u64 = 1 << 59;
/// A lane takes so many bytes in a millisecond: many units between two hellos.
const SPEED: u64 = 1_000_000;
/// As the shell: a unit that has no place is asked for again after so long, so often.
const PLACE_AGAIN: Time = 2_000;
const PLACE_TRIES: u32 = 8;
/// And in smaller pieces, down to this part of a unit.
const LEAST_PART: u64 = 16;
/// By then the holders of a pinned unit have confirmed it.
const CONFIRMED: Time = 2_000;
/// The spine is small.
const SPINE: u64 = 1 << 20;
/// Equal peers have of a large add alike within so many units: what a hello and a report say of the last moment may cross, so that a unit
/// counts twice or not at all for a while, on one peer and on the other.
const APART: u64 = 3;

/// One such add.
#[derive(Clone, Debug)]
pub struct Large {
    place: Place,
    number: u64,
    bytes: u64,
    options: PinOptions,
    step: Step,
    /// A unit's most bytes, as the first placement said.
    unit: u64,
    /// The same since room is short.
    size: u64,
    /// Bytes that are in no unit yet.
    left: u64,
    lease: u64,
    holders: Vec<PeerId>,
    name: String,
    units: Vec<NewUnit>,
    placements: Vec<Vec<PeerId>>,
    tries: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// A unit wants holders.
    Place,
    /// Its blocks are on their way.
    Fill,
    /// It is being pinned.
    Pin,
    /// The root is being pinned.
    Root,
    Done,
}

impl World {
    /// A program adds so many bytes by this peer; each unit has so many copies.
    pub fn add_large(&mut self, time: Time, place: Place, bytes: u64, options: PinOptions) {
        let number = self.large.len() as u64;
        self.large.push(Large {
            place,
            number,
            bytes,
            options,
            step: Step::Place,
            unit: 0,
            size: 0,
            left: bytes,
            lease: 0,
            holders: Vec::new(),
            name: String::new(),
            units: Vec::new(),
            placements: Vec::new(),
            tries: 0,
        });
        self.at(time, What::Large(number));
    }

    /// All have come to their end.
    pub fn large_must_be_done(&mut self) {
        if let Some(large) = self.large.iter().find(|large| large.step != Step::Done) {
            let what = format!("an add of {} bytes ended at {:?} of unit {}", large.bytes, large.step, large.units.len() + 1);
            self.break_rule(Invariant::ShardsFit, what);
        }
    }

    /// The next step of an add.
    pub(super) fn large(&mut self, number: u64) {
        let large = &self.large[number as usize];
        match large.step {
            Step::Place => {
                let options = PinOptions { shard_size: large.size, replicas: large.replicas(), ..PinOptions::default() };
                let size = if large.unit == 0 { large.bytes } else { large.asked() };
                self.ask_large(number, Command::Place { options, size: Some(ByteCount(size)) });
            }
            Step::Fill => self.fill_large(number),
            Step::Pin | Step::Root | Step::Done => {}
        }
    }

    fn ask_large(&mut self, number: u64, command: Command) {
        let place = self.large[number as usize].place;
        self.think(place, Event::Command(RequestId(LARGE + number), command));
    }

    /// What a unit brings has reached its holders, or a lane broke.
    fn fill_large(&mut self, number: u64) {
        let large = &self.large[number as usize];
        let (seed, place, lease) = (self.settings.seed, large.place, large.lease);
        let (cid, bytes) = (large.cid(seed), large.next_bytes());
        let copies = large.holders.len() as u32;
        self.truth.items.entry(cid).or_insert_with(|| Item {
            size: bytes,
            least: copies,
            most: copies,
            promise: Promise::None,
            is_unfetchable: false,
            is_outside: false,
            lost: Vec::new(),
        });
        for holder in self.large[number as usize].holders.clone() {
            let Some(other) = self.places.get(&holder).copied() else { continue };
            let is_reached = other == place || self.are_joined(place, other);
            if !is_reached || !self.peers[other].node.put_loose(&cid, bytes) {
                return self.ask_large(number, Command::Replace { lease, broken: holder });
            }
        }
        let large = &mut self.large[number as usize];
        large.step = Step::Pin;
        let unit = large.new_unit(cid, bytes);
        let add = large.name.clone();
        self.ask_large(number, Command::PinUnit { lease, add, unit });
    }

    pub(super) fn large_answered(&mut self, request: u64, answer: Answer) {
        let number = request - LARGE;
        let Some(large) = self.large.get_mut(number as usize) else { return };
        match (large.step, answer) {
            (Step::Place | Step::Fill, Answer::Placed { lease, holders, unit, .. }) => {
                if large.unit == 0 {
                    large.unit = unit.get();
                    large.size = large.unit;
                    large.name = shards::add_name(&self.peers[large.place].id, lease);
                }
                (large.lease, large.holders, large.tries, large.step) = (lease, holders, 0, Step::Fill);
                let time = self.now + 20 + large.next_bytes() / SPEED;
                self.at(time, What::Large(number));
            }
            (Step::Place | Step::Fill, Answer::Refused(Missing::NotEnoughPeers { detail, .. })) => {
                large.step = Step::Place;
                if large.unit > 0 && large.tries > 0 && large.size / 2 >= large.unit / LEAST_PART && !large.is_spine() {
                    large.size /= 2;
                    return self.at(self.now, What::Large(number));
                }
                large.tries += 1;
                if large.tries <= PLACE_TRIES {
                    return self.at(self.now + PLACE_AGAIN, What::Large(number));
                }
                let what = format!("unit {} has no place, {} bytes are left: {detail}", large.units.len() + 1, large.left);
                self.break_rule(Invariant::ShardsFit, what);
            }
            (Step::Pin, Answer::Pinned(pin)) => self.unit_pinned(number, *pin),
            (Step::Root, Answer::Pinned(_)) => self.root_pinned(number),
            (step @ (Step::Pin | Step::Root), Answer::Refused(why)) => {
                self.break_rule(Invariant::ShardsFit, format!("a large add ends at {step:?}: {why}"));
            }
            _ => {}
        }
    }

    fn unit_pinned(&mut self, number: u64, pin: Pin) {
        let large = &mut self.large[number as usize];
        let (bytes, is_last) = (large.next_bytes(), large.is_spine());
        let unit = large.new_unit(pin.cid, bytes);
        large.units.push(unit);
        large.placements.push(pin.placement);
        large.left -= if is_last { 0 } else { bytes };
        let (lease, place) = (large.lease, large.place);
        large.step = if is_last { Step::Root } else { Step::Place };
        // The answers of these are not waited for, as in the shell.
        self.think(place, Event::Command(RequestId(LARGE - 1), Command::Arrived { lease }));
        self.at(self.now + CONFIRMED, What::LargeKept(number, lease));
        if !is_last {
            return self.at(self.now, What::Large(number));
        }
        let large = &self.large[number as usize];
        let root = cid_of(self.settings.seed, large.base());
        let head = large.units.last().map_or(root, |unit| unit.cid);
        let (options, add, units) = (large.options.clone(), large.name.clone(), large.units.clone());
        let root = NewRoot { root, options, add, head, units, size: ByteCount(large.bytes) };
        self.ask_large(number, Command::PinRoot(Box::new(root)));
    }

    /// The holders of a unit have confirmed it: its pin alone keeps it.
    pub(super) fn large_kept(&mut self, number: u64, lease: u64) {
        let place = self.large[number as usize].place;
        self.think(place, Event::Command(RequestId(LARGE - 1), Command::Release { lease, is_kept: true }));
    }

    fn root_pinned(&mut self, number: u64) {
        let large = &mut self.large[number as usize];
        large.step = Step::Done;
        let large = large.clone();
        for unit in &large.units {
            self.truth.promise(&unit.cid, Promise::Kept);
        }
        self.say(|| format!("a large add of {} bytes is on {:?}", large.bytes, large.by_peer()));
        // With others under way at the same time nobody's units alone are even.
        if self.large.len() == 1 && self.settings.disk.is_some() {
            self.must_be_alike(&large);
        }
    }

    /// Equal peers that began with nothing have of it alike.
    fn must_be_alike(&mut self, large: &Large) {
        let by_peer = large.by_peer();
        let placed: Vec<u64> = self.peers.iter().map(|peer| by_peer.get(&peer.id).copied().unwrap_or(0)).collect();
        let (least, most) = (placed.iter().min().copied().unwrap_or(0), placed.iter().max().copied().unwrap_or(0));
        if most - least > APART * large.unit {
            let what = format!("of {} bytes in units of {} the peers have {placed:?}", large.bytes, large.unit);
            self.break_rule(Invariant::ShardsFit, what);
        }
    }
}

impl Large {
    fn is_spine(&self) -> bool {
        self.unit > 0 && self.left == 0
    }

    fn replicas(&self) -> Replicas {
        if self.is_spine() { shards::spine_copies(self.options.replicas) } else { self.options.replicas }
    }

    /// Bytes asked for the unit that is next: the last one may bring less.
    fn asked(&self) -> u64 {
        if self.is_spine() { SPINE } else { self.size }
    }

    fn next_bytes(&self) -> u64 {
        if self.is_spine() { SPINE } else { self.size.min(self.left) }
    }

    fn new_unit(&self, cid: Cid, bytes: u64) -> NewUnit {
        let is_spine = self.is_spine();
        let number = if is_spine { 1 } else { self.units.len() as u32 + 1 };
        NewUnit { cid, number, is_spine, bytes: ByteCount(bytes) }
    }

    /// The number of its root's CID; those of its units follow.
    fn base(&self) -> u64 {
        2_000_000 + self.number * 10_000
    }

    fn cid(&self, seed: u64) -> Cid {
        cid_of(seed, self.base() + 1 + self.units.len() as u64)
    }

    /// What each peer has of the content.
    fn by_peer(&self) -> BTreeMap<PeerId, u64> {
        let mut by_peer = BTreeMap::new();
        for (unit, placement) in self.units.iter().zip(&self.placements).filter(|(unit, _)| !unit.is_spine) {
            for peer in placement {
                *by_peer.entry(*peer).or_insert(0) += unit.bytes.get();
            }
        }
        by_peer
    }
}
