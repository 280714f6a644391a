//! Drives the machines of `cluster` and performs what they want.

use super::{World, doors, large};
use crate::invariants::Invariant;
use crate::peer::Done;
use crate::queue::{Packet, Place, Time, What};
use cluster::{Answer, Change, Effect, Event, LinkState, Notice, SharedView, SubmitId};
use consensus::{Write, crdt};
use std::collections::BTreeSet;
use std::rc::Rc;
use store::{Area, Batch, Durability, Store};
use types::{Cid, PeerId, PeerMessage};

/// A question that waits for its asker's heads is dropped after so long.
const DEFERRED_MOST: Time = 30_000;
/// And looked at this often.
const DEFERRED_PAUSE: Time = 300;

impl World {
    /// Hands an event to a peer's machine and performs the effects.
    pub(super) fn think(&mut self, place: Place, event: Event) {
        let is_command = matches!(event, Event::Command(..));
        let now = self.peers[place].clocks(self.now);
        let Some(running) = self.peers[place].running.as_mut() else { return };
        let mut effects = Vec::new();
        running.machine.handle(event, now, &running.view, &mut effects);
        self.perform(place, effects, is_command);
        self.set_wake(place);
    }

    pub(super) fn wake(&mut self, place: Place, life: u32) {
        if !self.lives(place, life) {
            return;
        }
        let now = self.peers[place].clocks(self.now);
        let time = self.now;
        let Some(running) = self.peers[place].running.as_mut() else { return };
        if running.wake != Some(time) {
            return;
        }
        running.wake = None;
        let mut effects = Vec::new();
        running.machine.wake(now, &running.view, &mut effects);
        self.perform(place, effects, false);
        self.set_wake(place);
    }

    pub(super) fn set_wake(&mut self, place: Place) {
        let (now, life) = (self.now, self.peers[place].life);
        let Some(running) = self.peers[place].running.as_mut() else { return };
        let Some(next) = running.machine.next_wake() else { return };
        // A machine that is due at once is woken a millisecond later: time must pass.
        let at = (running.started + next.0).max(now + 1);
        if running.wake.is_none_or(|set| at < set) {
            running.wake = Some(at);
            self.at(at, What::Wake(place, life));
        }
    }

    fn perform(&mut self, place: Place, effects: Vec<Effect>, is_command: bool) {
        let lost = |effect: &Effect| if let Effect::Note(Notice::Repairing { cid, .. }) = effect { Some(*cid) } else { None };
        let repaired: BTreeSet<Cid> = effects.iter().filter_map(lost).collect();
        for effect in effects {
            match effect {
                Effect::Submit(id, changes) => self.submit(place, id, changes, is_command, &repaired),
                Effect::Node(op, node_op) => self.node_begins(place, op, node_op),
                Effect::Cancel(op) => {
                    self.note(place, 3, None);
                    self.at(self.now + 1, What::NodeDone(place, self.peers[place].life, Done::Cancelled(op)));
                }
                Effect::Tell(peer, message) => self.tell(place, &peer, message),
                Effect::TellAll(message) => {
                    let packet = Packet::Words(Rc::new(message));
                    let linked: Vec<Place> = self.peers[place].running.iter().flat_map(|running| running.linked.iter().copied()).collect();
                    for other in linked {
                        self.send(place, other, &packet);
                    }
                }
                Effect::Answer(request, answer) => {
                    self.note(place, 4, None);
                    self.answered(place, request.0, answer);
                }
                Effect::Ledger { cid, ours } => self.enter_ledger(place, cid, ours),
                Effect::Note(notice) => {
                    self.must_repair_rightly(place, &notice);
                    self.noticed(place, &notice);
                }
                Effect::Record(_) | Effect::Trusted(_) | Effect::Changed(_) | Effect::LaneEnded { .. } | Effect::Measure => {}
            }
        }
    }

    fn submit(&mut self, place: Place, id: SubmitId, changes: Vec<Change>, is_command: bool, repaired: &BTreeSet<Cid>) {
        for change in &changes {
            let cid = match change {
                Change::Put(pin) => pin.cid,
                Change::Remove(cid) => *cid,
            };
            self.note(place, 1, Some(&cid));
            if !is_command {
                self.repair_writes(place, change, repaired);
            }
        }
        let writes = changes
            .into_iter()
            .map(|change| match change {
                Change::Put(pin) => Write::put(pin.cid.to_bytes(), wire::encode_pin(&pin)),
                Change::Remove(cid) => Write::remove(cid.to_bytes()),
            })
            .collect();
        if let Some(running) = self.peers[place].running.as_mut() {
            running.tickets.insert(id.0, id);
        }
        self.tell_crdt(place, crdt::Event::Submit { ticket: id.0, writes });
    }

    fn repair_writes(&mut self, place: Place, change: &Change, repaired: &BTreeSet<Cid>) {
        self.numbers.repairs += 1;
        if let Change::Put(pin) = change {
            self.say(|| format!("peer {place} re-places {} on {:?}", pin.cid, self.places_of(&pin.placement)));
            self.must_write_what_it_read(place, pin);
            self.must_be_taken(place, pin, repaired);
        }
        if self.must_rest {
            self.break_rule(Invariant::AtRest, format!("peer {place} writes {change:?}"));
        }
        if matches!(change, Change::Put(_)) && self.is_blind(place) {
            self.break_rule(
                Invariant::PartitionsMoveNothing,
                format!("peer {place} sees fewer than half of the members and writes {change:?}"),
            );
        }
    }

    fn tell(&mut self, place: Place, peer: &PeerId, mut message: PeerMessage) {
        let Some(to) = self.places.get(peer).copied() else { return };
        self.watch_promise(place, peer, &message);
        if let (PeerMessage::AskHoldings { heads, .. }, Some(running)) = (&mut message, &self.peers[place].running) {
            // In the peer the question waits for the block; here it is lost, and asked again.
            if running.crdt.pending() > 0 {
                return;
            }
            *heads = running.crdt.heads();
        }
        self.send(place, to, &Packet::Words(Rc::new(message)));
    }

    /// Words from another peer. A full question waits until the heads of the asker are merged here.
    pub(super) fn words(&mut self, from: Place, to: Place, message: PeerMessage) {
        let peer = self.peers[from].id;
        if let PeerMessage::AskHoldings { heads, .. } = &message
            && !self.has_merged(to, heads)
        {
            self.defer(to, self.now + DEFERRED_MOST, peer, message);
            return;
        }
        self.watch.heard(to, (from, peer), &message, self.now);
        self.think(to, Event::Message(peer, message));
    }

    fn defer(&mut self, place: Place, end: Time, peer: PeerId, message: PeerMessage) {
        let life = self.peers[place].life;
        let Some(running) = self.peers[place].running.as_mut() else { return };
        if running.deferred.is_empty() {
            self.queue.push(self.now + DEFERRED_PAUSE, What::Deferred(place, life));
        }
        running.deferred.push((end, peer, message));
    }

    /// Questions that waited for the shared state are asked, or wait on.
    pub(super) fn ask_deferred(&mut self, place: Place, life: u32) {
        if !self.lives(place, life) {
            return;
        }
        let Some(running) = self.peers[place].running.as_mut() else { return };
        for (end, peer, message) in std::mem::take(&mut running.deferred) {
            let PeerMessage::AskHoldings { heads, .. } = &message else { continue };
            if self.has_merged(place, heads) {
                if let Some(from) = self.places.get(&peer).copied() {
                    self.watch.heard(place, (from, peer), &message, self.now);
                }
                self.think(place, Event::Message(peer, message));
            } else if self.now < end {
                self.defer(place, end, peer, message);
            }
        }
    }

    fn has_merged(&self, place: Place, heads: &[types::Cid]) -> bool {
        // Cheap first: while any history is missing the answer is no.
        let is_missing = self.peers[place].running.as_ref().is_none_or(|running| running.crdt.missing() > 0);
        !is_missing && crdt::Machine::has_merged(&*self.peers[place].store.snapshot(), heads).unwrap_or(false)
    }

    /// The ledger is on disk before anything that follows.
    fn enter_ledger(&mut self, place: Place, cid: types::Cid, ours: Option<types::ByteCount>) {
        self.note(place, 5 + u64::from(ours.is_some()), Some(&cid));
        let peer = &mut self.peers[place];
        let mut batch = Batch::new();
        match ours {
            Some(bytes) => batch.put(Area::Ledger, cid.to_bytes(), bytes.get().to_be_bytes()),
            None => batch.delete(Area::Ledger, cid.to_bytes()),
        };
        // The ledger's own fsync must not make a write of the consensus durable that is still on its way.
        let is_syncing = peer.running.as_ref().is_some_and(|running| running.syncing.is_some());
        let durability = if is_syncing { Durability::Buffered } else { Durability::Synced };
        if let Err(error) = peer.store.commit(batch, durability) {
            panic!("the store in memory refused the ledger: {error}");
        }
        if let Some(running) = peer.running.as_mut() {
            running.view.enter(cid, ours);
            debug_assert_eq!(running.view.own_size(&cid), ours);
        }
    }

    pub(super) fn link_seen(&mut self, at: Place, life: u32, other: Place, is_up: bool) {
        if !self.lives(at, life) || self.are_joined(at, other) != is_up {
            return;
        }
        let peer = self.peers[other].id;
        let Some(running) = self.peers[at].running.as_mut() else { return };
        let event = if is_up {
            running.linked.insert(other);
            self.watch.linked(at, (other, peer), self.now);
            crdt::Event::Connected { peer, is_pinfold: true }
        } else {
            running.linked.remove(&other);
            self.watch.unlinked(at, other);
            crdt::Event::Disconnected { peer }
        };
        self.tell_crdt(at, event);
        self.think(at, Event::Link(peer, if is_up { LinkState::Up } else { LinkState::Down }));
    }

    fn noticed(&mut self, place: Place, notice: &Notice) {
        let name = |peer: &PeerId| self.places.get(peer).copied().unwrap_or(usize::MAX);
        self.numbers.brakes += u64::from(matches!(notice, Notice::RemovalsBraked { .. }));
        let text = match notice {
            Notice::PeerDown(peer) => format!("peer {place} takes {} for dead", name(peer)),
            Notice::PeerBack(peer) => format!("peer {place} sees {} again", name(peer)),
            Notice::RemovalsBraked { removals, held } => format!("peer {place} brakes: {removals} of {held}"),
            _ => return,
        };
        self.say(|| text);
    }

    /// Passes an answer to who asked.
    fn answered(&mut self, place: Place, request: u64, answer: Answer) {
        if (large::LARGE..doors::LEAVE).contains(&request) {
            return self.large_answered(request, answer);
        }
        self.door_answered(place, request, answer);
    }
}
