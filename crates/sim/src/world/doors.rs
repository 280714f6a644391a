//! People and programs: they pin, add, re-pin and remove, remember what they were told, and ask again when nobody answers.

use super::World;
use crate::queue::{Place, Time, What};
use crate::truth::Promise;
use cluster::{Answer, Command, Event, RequestId};
use rand::Rng;
use std::collections::BTreeMap;
use types::{ByteCount, Cid, Depth, PeerId, PinOptions, Replicas};

/// Request numbers of leaving peers begin here.
pub(super) const LEAVE: u64 = 1 << 60;
/// And those of approvals here.
pub(super) const APPROVE: u64 = LEAVE + (1 << 32);
/// Without an answer for so long, another peer is asked.
const PATIENCE: Time = 15_000;
/// People use other peers after so long.
const ENTRIES_FOR: Time = 10_000;
/// So often.
const TRIES: u64 = 60;
/// Of all pins, so many are asked for of a peer whose power goes at once (one in a hundred, if that is more).
const CRASHES: f64 = 3.0;

/// What a person wants.
#[derive(Clone, Debug)]
pub enum Wish {
    /// Pin what the world outside has.
    Pin(Cid, PinOptions),
    /// Add own content.
    Add(Cid, PinOptions),
    /// Pin again under another name.
    Rename(Cid, PinOptions),
    /// Remove.
    Unpin(Cid),
}

/// One person's wish and how far it got.
#[derive(Clone, Debug)]
struct Errand {
    wish: Wish,
    is_done: bool,
    tries: u64,
    /// The request that is being waited for.
    request: u64,
    holders: Vec<PeerId>,
    lease: u64,
}

/// All wishes.
#[derive(Clone, Debug, Default)]
pub struct Doors {
    errands: Vec<Errand>,
    requests: BTreeMap<u64, usize>,
    numbers: u64,
    /// The peers that people use now, and until when.
    entries: Vec<Place>,
    entries_end: Time,
}

impl World {
    /// A person will want something.
    pub fn want(&mut self, time: Time, wish: Wish) {
        let number = self.doors.errands.len() as u64;
        self.doors.errands.push(Errand { wish, is_done: false, tries: 0, request: 0, holders: Vec::new(), lease: 0 });
        self.at(time, What::Door(number));
    }

    /// How many wishes were not fulfilled.
    pub fn wishes_open(&self) -> usize {
        self.doors.errands.iter().filter(|errand| !errand.is_done).count()
    }

    pub(super) fn door(&mut self, number: u64) {
        let index = number as usize;
        if self.doors.errands[index].is_done || self.doors.errands[index].tries >= TRIES {
            return;
        }
        self.doors.errands[index].tries += 1;
        self.at(self.now + PATIENCE, What::Door(number));
        let Some(place) = self.entry() else { return };
        let command = match self.doors.errands[index].wish.clone() {
            Wish::Pin(cid, options) | Wish::Rename(cid, options) => {
                Command::Pin { cid, options, depth: Depth::Recursive, size: None, lease: None }
            }
            Wish::Add(cid, options) => Command::Place { options, size: Some(ByteCount(self.truth.size(&cid))) },
            Wish::Unpin(cid) => {
                self.truth.promise(&cid, Promise::Unclear);
                Command::Unpin { cid }
            }
        };
        self.ask(place, index, command);
        self.maybe_crash(place);
    }

    /// Now and then the power goes at the very moment in which a peer works on a question: what it answered must be kept.
    fn maybe_crash(&mut self, place: Place) {
        let is_time = self.now > self.settings.load_ends() / 2 && self.now < self.settings.faults_end();
        let odds = (CRASHES / self.settings.pins as f64).clamp(0.01, 0.2);
        if self.settings.profile.has_crashes() && is_time && self.chance.random_bool(odds) {
            let delay = self.chance.random_range(0..12);
            let fault = crate::faults::Fault::Crash { place, back_after: Some(self.chance.random_range(1_000..30_000)), loses_disk: false };
            self.at(self.now + delay, What::Fault(fault));
        }
    }

    /// The peer that a person speaks to: for a while people use a few of them.
    fn entry(&mut self) -> Option<Place> {
        if self.now >= self.doors.entries_end {
            self.doors.entries_end = self.now + ENTRIES_FOR;
            let count = self.peers.len().div_ceil(8);
            self.doors.entries = (0..count).map(|_| self.chance.random_range(0..self.peers.len())).collect();
        }
        let entries: Vec<Place> = self.doors.entries.iter().copied().filter(|place| self.peers[*place].is_up()).collect();
        let up: Vec<Place> = (0..self.peers.len()).filter(|place| self.peers[*place].is_up()).collect();
        let choice = if entries.is_empty() { up } else { entries };
        (!choice.is_empty()).then(|| choice[self.chance.random_range(0..choice.len())])
    }

    fn ask(&mut self, place: Place, index: usize, command: Command) {
        self.doors.numbers += 1;
        let request = self.doors.numbers;
        self.doors.requests.insert(request, index);
        self.doors.errands[index].request = request;
        self.think(place, Event::Command(RequestId(request), command));
    }

    pub(super) fn door_answered(&mut self, place: Place, request: u64, answer: Answer) {
        if request >= LEAVE {
            if let Answer::Left { stranded } = answer {
                self.has_left(place, stranded);
            }
            return;
        }
        let Some(index) = self.doors.requests.remove(&request) else { return };
        if self.doors.errands[index].is_done {
            return;
        }
        match answer {
            Answer::Pinned(pin) => {
                self.say(|| format!("peer {place} pinned {} on {:?}", pin.cid, self.places_of(&pin.placement)));
                if self.truth.item(&pin.cid).is_some_and(|item| item.promise == Promise::None) {
                    self.truth.promise(&pin.cid, Promise::Kept);
                }
                self.doors.errands[index].is_done = true;
            }
            Answer::Unpinned(pin) => {
                self.truth.promise(&pin.cid, Promise::Removed);
                self.doors.errands[index].is_done = true;
            }
            Answer::NotPinned => {
                // This peer may not have heard of it yet: asked again later, elsewhere.
            }
            Answer::Placed { lease, holders, .. } => self.spread_to(place, index, request, lease, holders),
            _ => {}
        }
    }

    /// The blocks of an add flow to its holders.
    fn spread_to(&mut self, place: Place, index: usize, request: u64, lease: u64, holders: Vec<PeerId>) {
        self.doors.errands[index].holders = holders;
        self.doors.errands[index].lease = lease;
        let Wish::Add(cid, _) = self.doors.errands[index].wish else { return };
        let time = 20 + self.truth.size(&cid) / 50_000;
        self.at(self.now + time, What::Spread(place, self.peers[place].life, request));
    }

    /// They have arrived, or a lane broke and its holder is replaced.
    pub(super) fn spread(&mut self, place: Place, life: u32, request: u64) {
        let Some(index) = self.doors.errands.iter().position(|errand| errand.request == request) else { return };
        let Errand { wish: Wish::Add(cid, options), holders, lease, is_done: false, .. } = self.doors.errands[index].clone() else {
            return;
        };
        if !self.lives(place, life) {
            return;
        }
        let size = self.truth.size(&cid);
        for holder in holders {
            let Some(other) = self.places.get(&holder).copied() else { continue };
            let is_reached = other == place || self.are_joined(place, other);
            if !is_reached || !self.peers[other].node.put_loose(&cid, size) {
                self.ask(place, index, Command::Replace { lease, broken: holder });
                return;
            }
        }
        let command = Command::Pin { cid, options, depth: Depth::Recursive, size: Some(ByteCount(size)), lease: Some(lease) };
        self.ask(place, index, command);
    }
}

/// The options for so many copies; 0 of at most 0 is everywhere, 2..3 is left to the cluster's class.
pub fn options_for(least: u32, most: u32) -> PinOptions {
    let replicas = match (least, most) {
        (0, _) => Replicas::Everywhere,
        (2, 3) => Replicas::Unset,
        _ => Replicas::from_factors(least as i32, most as i32).unwrap_or_default(),
    };
    PinOptions { replicas, ..PinOptions::default() }
}
