//! Decides whom to ask for which block. Does nothing itself: it says what to send to whom, and which wishes failed.
//!
//! One want per CID, whatever number of sessions wait for it. The way of a want:
//! 1. *Providers* of its sessions (named by the caller, or learned in the session) are asked for the block, one at a time; the one
//!    with the least load first, so several providers share the work and no block comes twice.
//! 2. None left: everybody connected is asked whether they have it; who has it becomes a provider.
//! 3. Nobody left: not found, or timed out when somebody never answered. A provider that lost its connection gets a little time to return.
//!
//! A peer that answers nothing while it owes blocks loses its wants to others, if there are others; if not, it gets more patience.

mod peer;

use super::BitswapLimits;
use cid::multihash::Multihash;
use peer::Peer;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;
use types::{Cid, PeerId};
use wire::bitswap as message;

/// A peer's window is not halved below this.
const WINDOW_LEAST: usize = 4;

/// Peers that one want asks whether they have it.
const BROADCAST_PEERS_MAX: usize = 64;

/// Providers that a session learns by itself, on top of those named.
const PROVIDERS_LEARNED_MAX: usize = 32;

/// How it ended, when it ended without the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// All `asked` peers said that they do not have it.
    NotFound { asked: usize },
    /// Some peer never answered.
    TimedOut,
}

/// A peer that delivered so many blocks asked of it later has forgotten this one.
const SKIPPED_MAX: u64 = 1024;

/// So many blocked wants in a row that stay blocked end a try to move them; the periodic look tries all.
const UNBLOCK_MISSES_MAX: usize = 4;

pub(super) type SessionId = u64;

#[derive(Debug)]
pub(super) struct Wants {
    limits: BitswapLimits,
    wants: BTreeMap<Cid, Want>,
    /// A block proves every CID with its hash.
    by_hash: BTreeMap<Multihash<64>, Vec<Cid>>,
    sessions: BTreeMap<SessionId, Session>,
    peers: BTreeMap<PeerId, Peer>,
    /// Wants to be looked at.
    ready: VecDeque<Cid>,
    /// Wants whose providers are all busy, in order of arrival.
    blocked: VecDeque<Cid>,
    failures: Vec<(Cid, Failure)>,
    /// Peers that something is to be sent to.
    dirty: BTreeSet<PeerId>,
}

#[derive(Debug, Default)]
struct Session {
    providers: Vec<PeerId>,
    learned: usize,
}

#[derive(Debug, Default)]
struct Want {
    /// Waiters by session.
    sessions: BTreeMap<SessionId, usize>,
    /// Who is asked for the block, and since when.
    asked: Option<(PeerId, Instant)>,
    /// How many blocks that peer had delivered then.
    asked_after: u64,
    /// Who is asked whether it has it, and since when.
    asked_have: BTreeMap<PeerId, Instant>,
    /// Who says that it has it and was not asked for it yet.
    holders: BTreeSet<PeerId>,
    /// Who says that it does not have it.
    negative: BTreeSet<PeerId>,
    /// Who did not answer.
    silent: BTreeSet<PeerId>,
    /// To whom something about it is to be sent, and whether it has been sent: then they are told its end.
    told: BTreeMap<PeerId, bool>,
    is_broadcast: bool,
    /// Nobody to ask; waits for a provider's return since then.
    stuck: Option<Instant>,
    /// Stands in `Wants::blocked`.
    is_blocked: bool,
}

impl Want {
    /// Whether something about it was sent to `peer`, so that an answer makes sense.
    fn was_told(&self, peer: &PeerId) -> bool {
        self.told.get(peer) == Some(&true)
    }
}

impl Wants {
    pub(super) fn new(limits: BitswapLimits) -> Wants {
        Wants {
            limits,
            wants: BTreeMap::new(),
            by_hash: BTreeMap::new(),
            sessions: BTreeMap::new(),
            peers: BTreeMap::new(),
            ready: VecDeque::new(),
            blocked: VecDeque::new(),
            failures: Vec::new(),
            dirty: BTreeSet::new(),
        }
    }

    /// Whether nothing is wanted.
    pub(super) fn is_empty(&self) -> bool {
        self.wants.is_empty()
    }

    /// One more waiter of `session` wants `cid`.
    pub(super) fn add(&mut self, session: SessionId, cid: Cid, now: Instant) {
        let want = self.wants.entry(cid).or_insert_with(|| {
            self.by_hash.entry(*cid.hash()).or_default().push(cid);
            Want::default()
        });
        *want.sessions.entry(session).or_default() += 1;
        want.stuck = None;
        self.ready.push_back(cid);
        self.pump(now);
    }

    /// One waiter of `session` less. The last one takes the want with it.
    pub(super) fn remove(&mut self, session: SessionId, cid: &Cid, now: Instant) {
        let Some(want) = self.wants.get_mut(cid) else { return };
        let Some(waiters) = want.sessions.get_mut(&session) else { return };
        *waiters -= 1;
        if *waiters == 0 {
            want.sessions.remove(&session);
        }
        if want.sessions.is_empty() {
            self.finish(cid, None);
            self.pump(now);
        }
    }

    /// Further peers that are thought to have what `session` wants.
    pub(super) fn providers(&mut self, session: SessionId, peers: &[PeerId], now: Instant) {
        let providers = &mut self.sessions.entry(session).or_default().providers;
        for peer in peers {
            if !providers.contains(peer) {
                providers.push(*peer);
            }
        }
        let idle = self.wants.iter().filter(|(_, want)| want.asked.is_none() && want.sessions.contains_key(&session));
        self.ready.extend(idle.map(|(cid, _)| *cid));
        self.pump(now);
    }

    /// The session ended; its waiters were removed before.
    pub(super) fn end(&mut self, session: SessionId) {
        self.sessions.remove(&session);
    }

    /// A peer is there.
    pub(super) fn connected(&mut self, peer: PeerId, now: Instant) {
        self.peers.entry(peer).or_insert_with(|| Peer::new(now));
        let waiting: Vec<Cid> = self.wants.iter().filter(|(_, want)| want.asked.is_none()).map(|(cid, _)| *cid).collect();
        for cid in waiting {
            let is_provider = self.is_provider(&cid, &peer);
            let Some(want) = self.wants.get(&cid) else { continue };
            if !is_provider && want.is_broadcast && want.asked_have.len() < BROADCAST_PEERS_MAX {
                self.ask_have(&cid, peer, now);
            }
            self.ready.push_back(cid);
        }
        self.pump(now);
    }

    /// A peer is gone. What it owed is asked of others; it may come back.
    pub(super) fn disconnected(&mut self, peer: &PeerId, now: Instant) {
        self.peers.remove(peer);
        self.dirty.remove(peer);
        for (cid, want) in &mut self.wants {
            let was_asked = want.asked.is_some_and(|(asked, _)| asked == *peer);
            if was_asked {
                want.asked = None;
            }
            want.told.remove(peer);
            want.holders.remove(peer);
            // A new connection may bring a new answer.
            want.silent.remove(peer);
            if want.asked_have.remove(peer).is_some() || was_asked {
                self.ready.push_back(*cid);
            }
        }
        self.pump(now);
    }

    /// A peer may have lost what it was asked: all that it owes is asked of it again.
    pub(super) fn ask_again(&mut self, peer: &PeerId, now: Instant) {
        let Some(known) = self.peers.get_mut(peer) else { return };
        known.heard = now;
        known.out.extend(known.in_flight.iter().map(|cid| (*cid, message::Want::block(*cid, 1))));
        for (cid, want) in &mut self.wants {
            if let Some(asked) = want.asked_have.get_mut(peer) {
                *asked = now;
                known.out.insert(*cid, message::Want::have(*cid, 1));
            }
            // It could not be heard, perhaps.
            if want.silent.remove(peer) {
                self.ready.push_back(*cid);
            }
        }
        if !known.out.is_empty() {
            self.dirty.insert(*peer);
        }
        self.pump(now);
    }

    /// Nothing could be sent to a peer although it is connected. One that does not speak bitswap is not asked again; else only the
    /// present wants are not asked of it again.
    pub(super) fn unreachable(&mut self, peer: &PeerId, speaks_bitswap: bool, now: Instant) {
        let Some(known) = self.peers.get_mut(peer) else { return };
        known.is_capable = speaks_bitswap;
        known.out.clear();
        known.in_flight.clear();
        for (cid, want) in &mut self.wants {
            let was_asked = want.asked.is_some_and(|(asked, _)| asked == *peer);
            if was_asked {
                want.asked = None;
            }
            if want.asked_have.remove(peer).is_some() || was_asked {
                if speaks_bitswap {
                    want.silent.insert(*peer);
                }
                self.ready.push_back(*cid);
            }
            want.holders.remove(peer);
            want.told.remove(peer);
        }
        self.pump(now);
    }

    /// A peer speaks bitswap to us: it can be asked.
    pub(super) fn is_capable(&mut self, peer: &PeerId) {
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.is_capable = true;
        }
    }

    /// A verified block arrived. Returns the CIDs it was wanted as; none when nobody asked for it.
    pub(super) fn block(&mut self, peer: PeerId, hash: &Multihash<64>, size: u64, now: Instant) -> Vec<Cid> {
        let cids = self.by_hash.get(hash).cloned().unwrap_or_default();
        if let Some(known) = self.peers.get_mut(&peer) {
            known.heard = now;
            known.delivered += 1;
            known.block_bytes = (known.block_bytes * 7 + size.max(1)) / 8;
        }
        for cid in &cids {
            let asked = self.wants.get(cid).and_then(|want| want.asked);
            if let (Some((from, since)), Some(known)) = (asked, self.peers.get_mut(&peer))
                && from == peer
            {
                known.round_trip = (known.round_trip * 7 + now.saturating_duration_since(since)) / 8;
                known.window = (known.window + 1).min(self.limits.peer_blocks);
            }
            self.learn(cid, peer);
            self.finish(cid, Some(peer));
        }
        if !cids.is_empty() {
            self.pump(now);
        }
        cids
    }

    /// A peer says that it has a block.
    pub(super) fn have(&mut self, peer: PeerId, cid: &Cid, now: Instant) {
        self.heard(&peer, now);
        let Some(want) = self.wants.get_mut(cid) else { return };
        want.asked_have.remove(&peer);
        // An answer to nothing is not believed, so nobody can become a provider unasked.
        if want.was_told(&peer) && want.asked.is_none_or(|(asked, _)| asked != peer) {
            want.negative.remove(&peer);
            want.holders.insert(peer);
            self.learn(cid, peer);
            self.ready.push_back(*cid);
            self.pump(now);
        }
    }

    /// A peer says that it does not have a block.
    pub(super) fn dont_have(&mut self, peer: PeerId, cid: &Cid, now: Instant) {
        self.heard(&peer, now);
        let Some(want) = self.wants.get_mut(cid) else { return };
        if !want.was_told(&peer) {
            return;
        }
        want.asked_have.remove(&peer);
        want.holders.remove(&peer);
        want.negative.insert(peer);
        if want.asked.is_some_and(|(asked, _)| asked == peer) {
            self.take_back(cid);
        }
        self.ready.push_back(*cid);
        self.pump(now);
    }

    /// The block came from elsewhere.
    pub(super) fn settle(&mut self, cid: &Cid, now: Instant) {
        self.finish(cid, None);
        self.pump(now);
    }

    /// Looks for who owes answers for too long. To be called a few times a second while there are wants.
    pub(super) fn wake(&mut self, now: Instant) {
        let cids: Vec<Cid> = self.wants.keys().copied().collect();
        for cid in cids {
            self.check_asked(&cid, now);
            self.check_asked_have(&cid, now);
            if self.wants.get(&cid).is_some_and(|want| want.stuck.is_some()) {
                self.ready.push_back(cid);
            }
        }
        self.unblock(usize::MAX, now);
        self.pump(now);
    }

    /// What is to be sent to `peer`, at most `most` entries; it counts as sent from here on.
    pub(super) fn outgoing(&mut self, peer: &PeerId, most: usize) -> Vec<message::Want> {
        let Some(known) = self.peers.get_mut(peer) else { return Vec::new() };
        let mut entries = Vec::new();
        while entries.len() < most
            && let Some((cid, entry)) = known.out.pop_first()
        {
            if let (false, Some(want)) = (entry.is_cancel, self.wants.get_mut(&cid)) {
                want.told.insert(*peer, true);
            }
            entries.push(entry);
        }
        entries
    }

    /// The wants that failed since the last call. They are forgotten.
    pub(super) fn take_failures(&mut self) -> Vec<(Cid, Failure)> {
        std::mem::take(&mut self.failures)
    }

    /// The peers that got something to be sent since the last call.
    pub(super) fn take_dirty(&mut self) -> BTreeSet<PeerId> {
        std::mem::take(&mut self.dirty)
    }

    /// Lets every want that can move, move.
    fn pump(&mut self, now: Instant) {
        while let Some(cid) = self.ready.pop_front() {
            self.consider(&cid, now);
        }
        self.unblock(UNBLOCK_MISSES_MAX, now);
    }

    /// Tries wants whose providers were busy, until so many in a row stay blocked. Those come back in at the end of the line, so all get
    /// their try.
    fn unblock(&mut self, misses_most: usize, now: Instant) {
        let mut misses = 0;
        let mut left = self.blocked.len();
        while left > 0 && misses < misses_most {
            left -= 1;
            let Some(cid) = self.blocked.pop_front() else { break };
            let Some(want) = self.wants.get_mut(&cid) else { continue };
            want.is_blocked = false;
            self.consider(&cid, now);
            let is_blocked = self.wants.get(&cid).is_some_and(|want| want.is_blocked);
            misses = if is_blocked { misses + 1 } else { 0 };
        }
    }

    fn consider(&mut self, cid: &Cid, now: Instant) {
        let Some(want) = self.wants.get(cid) else { return };
        if want.asked.is_some() {
            return;
        }
        let candidates = self.candidates(cid);
        if let Some(best) = self.best_of(&candidates) {
            return self.ask_block(cid, best, now);
        }
        if !candidates.is_empty() {
            let want = self.wants.get_mut(cid);
            if want.is_some_and(|want| !std::mem::replace(&mut want.is_blocked, true)) {
                self.blocked.push_back(*cid);
            }
            return;
        }
        self.broadcast(cid, now);
        self.give_up_if_stuck(cid, now);
    }

    /// Who may be asked for the block: connected, thought to have it, has not said no.
    fn candidates(&self, cid: &Cid) -> Vec<PeerId> {
        let Some(want) = self.wants.get(cid) else { return Vec::new() };
        let named = want.sessions.keys().filter_map(|session| self.sessions.get(session)).flat_map(|session| &session.providers);
        let mut peers: Vec<PeerId> = want.holders.iter().chain(named).copied().collect();
        peers.retain(|peer| {
            let is_there = self.peers.get(peer).is_some_and(|peer| peer.is_capable);
            is_there && !want.negative.contains(peer) && !want.silent.contains(peer)
        });
        peers
    }

    fn best_of(&self, candidates: &[PeerId]) -> Option<PeerId> {
        let known = candidates.iter().filter_map(|id| self.peers.get(id).map(|peer| (id, peer)));
        known.filter(|(_, peer)| peer.has_room(&self.limits)).min_by_key(|(_, peer)| peer.load()).map(|(id, _)| *id)
    }

    fn is_provider(&self, cid: &Cid, peer: &PeerId) -> bool {
        let Some(want) = self.wants.get(cid) else { return false };
        want.sessions.keys().filter_map(|session| self.sessions.get(session)).any(|session| session.providers.contains(peer))
    }

    fn ask_block(&mut self, cid: &Cid, peer: PeerId, now: Instant) {
        let (Some(want), Some(known)) = (self.wants.get_mut(cid), self.peers.get_mut(&peer)) else { return };
        want.asked = Some((peer, now));
        want.asked_after = known.delivered;
        want.asked_have.remove(&peer);
        want.told.entry(peer).or_default();
        want.stuck = None;
        if known.in_flight.is_empty() {
            known.heard = now;
        }
        known.in_flight.insert(*cid);
        known.out.insert(*cid, message::Want::block(*cid, 1));
        self.dirty.insert(peer);
    }

    fn ask_have(&mut self, cid: &Cid, peer: PeerId, now: Instant) {
        let (Some(want), Some(known)) = (self.wants.get_mut(cid), self.peers.get_mut(&peer)) else { return };
        want.asked_have.insert(peer, now);
        want.told.entry(peer).or_default();
        known.out.insert(*cid, message::Want::have(*cid, 1));
        self.dirty.insert(peer);
    }

    /// Asks everybody who has not been asked, once.
    fn broadcast(&mut self, cid: &Cid, now: Instant) {
        let Some(want) = self.wants.get_mut(cid) else { return };
        if std::mem::replace(&mut want.is_broadcast, true) {
            return;
        }
        let asked = want.asked.map(|(peer, _)| peer);
        let others = self
            .peers
            .iter()
            .filter(|(id, peer)| peer.is_capable && asked != Some(**id) && !want.negative.contains(*id) && !want.silent.contains(*id));
        let others: Vec<PeerId> = others.map(|(id, _)| *id).take(BROADCAST_PEERS_MAX).collect();
        for peer in others {
            self.ask_have(cid, peer, now);
        }
    }

    fn give_up_if_stuck(&mut self, cid: &Cid, now: Instant) {
        let Some(want) = self.wants.get(cid) else { return };
        if want.asked.is_some() || !want.asked_have.is_empty() {
            return;
        }
        let mut named = want.sessions.keys().filter_map(|session| self.sessions.get(session)).flat_map(|session| &session.providers);
        let may_return = named.any(|peer| !self.peers.contains_key(peer) && !want.negative.contains(peer));
        let since = want.stuck.unwrap_or(now);
        if may_return && now.saturating_duration_since(since) < self.limits.absence {
            if let Some(want) = self.wants.get_mut(cid) {
                want.stuck = Some(since);
            }
            return;
        }
        let failure = if want.silent.is_empty() { Failure::NotFound { asked: want.negative.len() } } else { Failure::TimedOut };
        self.failures.push((*cid, failure));
        self.finish(cid, None);
    }

    /// Whether the peer that is asked for a block has been silent for too long.
    fn check_asked(&mut self, cid: &Cid, now: Instant) {
        let Some((peer, since)) = self.wants.get(cid).and_then(|want| want.asked) else { return };
        let Some(known) = self.peers.get(&peer) else { return };
        let silence = now.saturating_duration_since(since).min(now.saturating_duration_since(known.heard));
        // Peers answer in about the order of the asking, however slow the line is.
        let after = self.wants.get(cid).map_or(0, |want| want.asked_after);
        let is_skipped = known.delivered.saturating_sub(after) > SKIPPED_MAX;
        if silence < self.limits.silence && !is_skipped {
            return;
        }
        let has_others = self.candidates(cid).iter().any(|other| *other != peer);
        if has_others || is_skipped || silence >= self.limits.patience {
            if let Some(known) = self.peers.get_mut(&peer) {
                known.window = (known.window / 2).max(WINDOW_LEAST);
            }
            self.take_back(cid);
            if let Some(want) = self.wants.get_mut(cid) {
                want.silent.insert(peer);
            }
            self.tell_end(cid, &peer);
            self.ready.push_back(*cid);
        } else {
            // The only provider stays asked; meanwhile the others are.
            self.broadcast(cid, now);
        }
    }

    fn check_asked_have(&mut self, cid: &Cid, now: Instant) {
        let Some(want) = self.wants.get_mut(cid) else { return };
        let patience = self.limits.silence;
        let late = want.asked_have.iter().filter(|(_, since)| now.saturating_duration_since(**since) >= patience);
        let late: Vec<PeerId> = late.map(|(peer, _)| *peer).collect();
        want.asked_have.retain(|peer, _| !late.contains(peer));
        if !late.is_empty() {
            want.silent.extend(late);
            self.ready.push_back(*cid);
        }
    }

    /// Nobody is asked for the block any more.
    fn take_back(&mut self, cid: &Cid) {
        let Some((peer, _)) = self.wants.get_mut(cid).and_then(|want| want.asked.take()) else { return };
        if let Some(known) = self.peers.get_mut(&peer) {
            known.in_flight.remove(cid);
        }
    }

    /// The want is over; whoever was asked and did not deliver is told.
    fn finish(&mut self, cid: &Cid, delivered_by: Option<PeerId>) {
        self.take_back(cid);
        let Some(want) = self.wants.get(cid) else { return };
        let told: Vec<PeerId> = want.told.keys().copied().collect();
        for peer in told {
            if delivered_by != Some(peer) {
                self.tell_end(cid, &peer);
            } else if let Some(known) = self.peers.get_mut(&peer) {
                known.out.remove(cid);
            }
        }
        self.wants.remove(cid);
        if let Some(cids) = self.by_hash.get_mut(cid.hash()) {
            cids.retain(|other| other != cid);
            if cids.is_empty() {
                self.by_hash.remove(cid.hash());
            }
        }
    }

    /// Cancels at one peer; what was not sent yet is just not sent.
    fn tell_end(&mut self, cid: &Cid, peer: &PeerId) {
        let was_sent = self.wants.get_mut(cid).is_some_and(|want| want.told.remove(peer) == Some(true));
        let Some(known) = self.peers.get_mut(peer) else { return };
        known.out.remove(cid);
        if was_sent {
            known.out.insert(*cid, message::Want::cancel(*cid));
            self.dirty.insert(*peer);
        }
    }

    /// The sessions that want `cid` ask `peer` first from now on.
    fn learn(&mut self, cid: &Cid, peer: PeerId) {
        let Some(want) = self.wants.get(cid) else { return };
        for session in want.sessions.keys() {
            let session = self.sessions.entry(*session).or_default();
            if session.learned < PROVIDERS_LEARNED_MAX && !session.providers.contains(&peer) {
                session.learned += 1;
                session.providers.push(peer);
            }
        }
    }

    /// A peer is answering: something of a message came.
    pub(super) fn heard(&mut self, peer: &PeerId, now: Instant) {
        if let Some(known) = self.peers.get_mut(peer) {
            known.heard = now;
        }
    }
}

#[cfg(test)]
mod tests;
