//! Drives the CRDT machines: steps, commits with the time that a disk takes, then performs.

use super::World;
use super::watch::is_sampled;
use crate::queue::{Packet, Place, What};
use crate::view::read_pin;
use bytes::Bytes;
use cluster::{Event, PinChange, SharedChange, ViewState};
use consensus::crdt;
use rand::Rng;
use std::rc::Rc;
use store::{Area, Batch, Durability, Store};
use types::{Cid, Millis, PeerId};

/// A fetch or a question is given up after so long.
const ANSWER_WITHIN: u64 = 3_000;
/// Events from other peers are worked on together when they come so close.
const GATHER: u64 = 25;
/// Of so many batches of hints one is lost, while links are bad; the machine is told to compare everything.
const HINTS_LOST: f64 = 0.001;

impl World {
    /// Puts an event into the CRDT's inbox; it is worked on at once, or after the write that is under way.
    pub(super) fn tell_crdt(&mut self, place: Place, event: crdt::Event) {
        let (now, life) = (self.now, self.peers[place].life);
        let Some(running) = self.peers[place].running.as_mut() else { return };
        // What comes from others is gathered for a moment, as the driver gathers what waits while it works.
        let at = if matches!(event, crdt::Event::Submit { .. }) { now } else { now + GATHER };
        running.inbox.push(event);
        if running.crdt_wake.is_none_or(|set| at < set) {
            running.crdt_wake = Some(at);
            self.at(at, What::CrdtWake(place, life));
        }
    }

    pub(super) fn crdt_wake(&mut self, place: Place, life: u32) {
        if !self.lives(place, life) {
            return;
        }
        let now = self.now;
        let peer = &mut self.peers[place];
        let Some(running) = peer.running.as_mut() else { return };
        if running.crdt_wake != Some(now) {
            return;
        }
        running.crdt_wake = None;
        if running.syncing.is_some() {
            return;
        }
        let events = std::mem::take(&mut running.inbox);
        let step = match running.crdt.step(events, Millis(now - running.started), peer.store.snapshot()) {
            Ok(step) => step,
            Err(error) => panic!("the crdt of peer {place} cannot go on: {error}"),
        };
        if let Err(error) = peer.store.commit(step.batch, Durability::Buffered) {
            panic!("the store in memory refused a step: {error}");
        }
        let next = step.next_wake;
        if step.durability == Durability::Synced {
            running.syncing = Some(step.effects);
            let delay = self.chance.random_range(1..12);
            self.at(now + delay, What::Synced(place, life));
        } else {
            self.perform_crdt(place, step.effects);
        }
        self.set_crdt_wake(place, next);
    }

    fn set_crdt_wake(&mut self, place: Place, next: Option<Millis>) {
        let (now, life) = (self.now, self.peers[place].life);
        let Some(running) = self.peers[place].running.as_mut() else { return };
        let own = next.map(|next| (running.started + next.0).max(now + 1));
        let inbox = (!running.inbox.is_empty() && running.syncing.is_none()).then_some(now);
        let Some(at) = own.into_iter().chain(inbox).min() else { return };
        if running.crdt_wake.is_none_or(|set| at < set) {
            running.crdt_wake = Some(at);
            self.at(at, What::CrdtWake(place, life));
        }
    }

    /// The disk has it: what was written may be acknowledged.
    pub(super) fn synced(&mut self, place: Place, life: u32) {
        if !self.lives(place, life) {
            return;
        }
        let peer = &mut self.peers[place];
        if let Err(error) = peer.store.commit(Batch::new(), Durability::Synced) {
            panic!("the store in memory refused to sync: {error}");
        }
        let Some(effects) = peer.running.as_mut().and_then(|running| running.syncing.take()) else { return };
        self.perform_crdt(place, effects);
        // What came meanwhile, and what the machine wanted while it could not step.
        self.set_crdt_wake(place, Some(Millis(0)));
    }

    fn perform_crdt(&mut self, place: Place, effects: Vec<crdt::Effect>) {
        for effect in effects {
            match effect {
                crdt::Effect::Accepted { ticket } => self.submitted(place, ticket, Ok(())),
                crdt::Effect::Refused { ticket, error } => self.submitted(place, ticket, Err(error.to_string())),
                crdt::Effect::Changed(changes) => self.wish_changed(place, &changes),
                crdt::Effect::State(state) => {
                    self.show_state(place, view_state(state));
                }
                crdt::Effect::Fetch { cid, likely } => {
                    let likely = likely.and_then(|peer| self.places.get(&peer).copied());
                    self.fetch_block(place, cid, likely);
                }
                crdt::Effect::FetchStretch { cid, peer, have } => self.fetch_stretch(place, cid, self.places.get(&peer).copied(), have),
                crdt::Effect::FetchPage { peer, after } => self.fetch_page(place, self.places.get(&peer).copied(), after),
                crdt::Effect::Taken(changes) => self.wish_changed(place, &changes),
                crdt::Effect::PagesEnded => self.think(place, Event::Shared(SharedChange::Lagged)),
                crdt::Effect::Mended(pins) => panic!("peer {place} was given {pins} pins that the history does not have"),
                crdt::Effect::AskHeads(peer) => self.ask_heads(place, self.places.get(&peer).copied()),
                crdt::Effect::Push { peers, bytes } => self.push(place, &peers, &bytes),
                crdt::Effect::Broadcast(heads) => self.broadcast(place, heads),
                // Authors are not looked at here.
                crdt::Effect::Finding(finding) => panic!("peer {place} finds fault with an honest block: {finding:?}"),
                crdt::Effect::BlockRefused { cid, why } => panic!("peer {place} refuses the honest block {cid}: {why:?}"),
            }
        }
    }

    /// Tells the machine how complete its view is.
    pub(super) fn show_state(&mut self, place: Place, state: ViewState) {
        if let Some(running) = self.peers[place].running.as_mut() {
            running.shown = state;
        }
        self.think(place, Event::Shared(SharedChange::View(state)));
    }

    fn submitted(&mut self, place: Place, ticket: u64, result: Result<(), String>) {
        let Some(id) = self.peers[place].running.as_mut().and_then(|running| running.tickets.remove(&ticket)) else { return };
        self.think(place, Event::Submitted(id, result));
    }

    fn wish_changed(&mut self, place: Place, changes: &[consensus::Change]) {
        let is_lost = self.links.weather.loss > 0.0 && self.chance.random_bool(HINTS_LOST);
        let Some(running) = self.peers[place].running.as_mut() else { return };
        let mut hints = Vec::new();
        for change in changes {
            let Ok(cid) = Cid::try_from(&change.key[..]) else { continue };
            let after = change.after.as_ref().and_then(read_pin);
            let before = running.view.change(cid, after.clone());
            hints.push(PinChange { cid, before, after });
        }
        if self.settings.steps {
            hints.iter().for_each(|hint| self.say(|| self.seen(place, hint)));
        }
        if is_lost {
            return self.think(place, Event::Shared(SharedChange::Lagged));
        }
        let wished = |hint: &PinChange| hint.after.as_ref().map(|(_, version)| (hint.cid, *version));
        let wishes: Vec<(Cid, u64)> = hints.iter().filter_map(wished).filter(|(cid, _)| is_sampled(cid)).collect();
        self.think(place, Event::Shared(SharedChange::Pins(hints)));
        self.must_be_said(place, &wishes);
    }

    fn seen(&self, place: Place, change: &PinChange) -> String {
        match &change.after {
            Some((pin, version)) => {
                format!("peer {place} sees {} on {:?}, version {:04x}", change.cid, self.places_of(&pin.placement), version >> 48)
            }
            None => format!("peer {place} sees {} removed", change.cid),
        }
    }

    fn broadcast(&mut self, place: Place, heads: Vec<Cid>) {
        self.note(place, 2, heads.first());
        let linked: Vec<Place> = self.peers[place].running.iter().flat_map(|running| running.linked.iter().copied()).collect();
        let packet = Packet::Heads(Rc::new(heads));
        for other in &linked {
            self.send(place, *other, &packet);
        }
        self.tell_crdt(place, crdt::Event::Broadcast { is_sent: !linked.is_empty() });
    }

    fn push(&mut self, place: Place, peers: &[PeerId], bytes: &Bytes) {
        let linked: Vec<Place> = self.peers[place].running.iter().flat_map(|running| running.linked.iter().copied()).collect();
        let others: Vec<Place> = peers.iter().filter_map(|peer| self.places.get(peer).copied()).collect();
        for other in others.into_iter().filter(|other| linked.contains(other)) {
            self.send(place, other, &Packet::Pushed(bytes.clone()));
        }
    }

    pub(super) fn block_pushed(&mut self, from: Place, to: Place, bytes: Bytes) {
        let from = self.peers[from].id;
        self.tell_crdt(to, crdt::Event::Pushed { from, bytes });
    }

    pub(super) fn tell_crdt_heads(&mut self, from: Place, to: Place, heads: Vec<Cid>) {
        let from = self.peers[from].id;
        self.tell_crdt(to, crdt::Event::Heads { from, heads });
    }

    fn fetch_block(&mut self, place: Place, cid: Cid, likely: Option<Place>) {
        let life = self.peers[place].life;
        let Some(running) = self.peers[place].running.as_mut() else { return };
        running.blocks_asked.insert(cid);
        let linked: Vec<Place> = running.linked.iter().copied().collect();
        let asked = match likely.filter(|likely| linked.contains(likely) && self.chance.random_bool(0.8)) {
            Some(likely) => Some(likely),
            None if linked.is_empty() => None,
            None => Some(linked[self.chance.random_range(0..linked.len())]),
        };
        if let Some(other) = asked {
            self.send(place, other, &Packet::WantBlock(cid));
        }
        self.at(self.now + ANSWER_WITHIN, What::BlockLate(place, life, cid));
    }

    pub(super) fn block_wanted(&mut self, from: Place, to: Place, cid: Cid) {
        let id = crdt::BlockId::of_cid(&cid);
        let bytes = id.and_then(|id| self.peers[to].store.get(Area::DagBlocks, &id.0).ok().flatten());
        self.send(to, from, &Packet::Block(cid, bytes));
    }

    pub(super) fn block_came(&mut self, place: Place, cid: Cid, bytes: Option<Bytes>) {
        let is_asked = self.peers[place].running.as_mut().is_some_and(|running| running.blocks_asked.remove(&cid));
        if is_asked {
            let event = match bytes {
                Some(bytes) => crdt::Event::Block { cid, bytes },
                None => crdt::Event::FetchFailed { cid },
            };
            self.tell_crdt(place, event);
        }
    }

    pub(super) fn block_late(&mut self, place: Place, life: u32, cid: Cid) {
        if self.lives(place, life) && self.peers[place].running.as_mut().is_some_and(|running| running.blocks_asked.remove(&cid)) {
            self.tell_crdt(place, crdt::Event::FetchFailed { cid });
        }
    }

    fn ask_heads(&mut self, place: Place, other: Option<Place>) {
        let life = self.peers[place].life;
        let (Some(other), Some(running)) = (other, self.peers[place].running.as_mut()) else { return };
        running.heads_asked.insert(other);
        self.send(place, other, &Packet::WantHeads);
        self.at(self.now + ANSWER_WITHIN, What::HeadsLate(place, life, other));
    }

    pub(super) fn heads_wanted(&mut self, from: Place, to: Place) {
        let Some(heads) = self.peers[to].running.as_ref().map(|running| running.crdt.heads()) else { return };
        self.send(to, from, &Packet::HeadsAre(heads));
    }

    pub(super) fn heads_are(&mut self, from: Place, to: Place, heads: Vec<Cid>) {
        if self.peers[to].running.as_mut().is_some_and(|running| running.heads_asked.remove(&from)) {
            self.tell_crdt_heads(from, to, heads);
        }
    }

    pub(super) fn heads_late(&mut self, place: Place, life: u32, other: Place) {
        if self.lives(place, life) && self.peers[place].running.as_mut().is_some_and(|running| running.heads_asked.remove(&other)) {
            let peer = self.peers[other].id;
            self.tell_crdt(place, crdt::Event::AskFailed { peer });
        }
    }
}

/// The consensus' word for the completeness of a view, in the machine's words.
pub(super) fn view_state(state: consensus::ViewState) -> ViewState {
    match state {
        consensus::ViewState::Unknown => ViewState::Unknown,
        consensus::ViewState::CatchingUp => ViewState::CatchingUp,
        consensus::ViewState::Current => ViewState::Current,
    }
}
