//! What other peers want of this one, and in which order they get it. Does nothing itself.
//!
//! A want stays until it is answered with the block or with "have", is cancelled, or its peer leaves; so a block that comes into the
//! store later can still be sent.

use cid::multihash::Multihash;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use types::{Cid, PeerId};
use wire::bitswap::{Want, WantKind};

#[derive(Debug)]
pub(super) struct Served {
    wants_per_peer: usize,
    peers: BTreeMap<PeerId, Client>,
    /// Who waits for a block, by its hash.
    waiting: BTreeMap<Multihash<64>, BTreeSet<(PeerId, Cid)>>,
    /// Wants over the limit, which were not taken.
    pub(super) refused: u64,
}

#[derive(Debug, Default)]
struct Client {
    wants: BTreeMap<Cid, Entry>,
    /// Highest priority first, then in order of arrival.
    queue: BTreeSet<(Reverse<i32>, u64, Cid)>,
    arrivals: u64,
    /// Wants over the limit whose peer wants to be told; as many as wants at the most.
    refused: BTreeSet<Cid>,
}

#[derive(Debug)]
struct Entry {
    kind: WantKind,
    priority: i32,
    send_dont_have: bool,
    /// Its place in the queue, while it has one.
    queued: Option<u64>,
}

/// One want whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Task {
    pub(super) cid: Cid,
    pub(super) kind: WantKind,
    pub(super) priority: i32,
    pub(super) send_dont_have: bool,
    /// Over the limit: it is told that the block is not here, so that it looks elsewhere or comes again.
    pub(super) is_refused: bool,
}

impl Served {
    pub(super) fn new(wants_per_peer: usize) -> Served {
        Served { wants_per_peer, peers: BTreeMap::new(), waiting: BTreeMap::new(), refused: 0 }
    }

    /// Takes a want list. Returns whether there is something to do for the peer.
    pub(super) fn take(&mut self, peer: PeerId, wants: Vec<Want>, is_full: bool) -> bool {
        if is_full {
            self.forget(&peer);
        }
        for want in wants {
            if want.is_cancel {
                self.remove(&peer, &want.cid);
            } else {
                self.insert(peer, want);
            }
        }
        self.peers.get(&peer).is_some_and(|client| !client.queue.is_empty() || !client.refused.is_empty())
    }

    fn insert(&mut self, peer: PeerId, want: Want) {
        let client = self.peers.entry(peer).or_default();
        if !client.wants.contains_key(&want.cid) && client.wants.len() >= self.wants_per_peer {
            self.refused += 1;
            if want.send_dont_have && client.refused.len() < self.wants_per_peer {
                client.refused.insert(want.cid);
            }
            return;
        }
        client.refused.remove(&want.cid);
        client.unqueue(&want.cid);
        // A fetcher that hears nothing for a while asks everybody "who has it?", also whom it asked for the block: that it still wants.
        let wants_block = client.wants.get(&want.cid).is_some_and(|entry| entry.kind == WantKind::Block);
        let kind = if wants_block { WantKind::Block } else { want.kind };
        let entry = Entry { kind, priority: want.priority, send_dont_have: want.send_dont_have, queued: None };
        client.wants.insert(want.cid, entry);
        client.enqueue(&want.cid);
        self.waiting.entry(*want.cid.hash()).or_default().insert((peer, want.cid));
    }

    /// The next want of `peer`. It stays wanted until [`Served::remove`].
    pub(super) fn next(&mut self, peer: &PeerId) -> Option<Task> {
        let client = self.peers.get_mut(peer)?;
        let Some((_, _, cid)) = client.queue.pop_first() else {
            let cid = client.refused.pop_first()?;
            self.remove_idle(peer);
            return Some(Task { cid, kind: WantKind::Have, priority: 0, send_dont_have: true, is_refused: true });
        };
        let entry = client.wants.get_mut(&cid)?;
        entry.queued = None;
        Some(Task { cid, kind: entry.kind, priority: entry.priority, send_dont_have: entry.send_dont_have, is_refused: false })
    }

    /// The answer was lost. What the peer cancelled meanwhile it gets all the same.
    pub(super) fn owe_again(&mut self, peer: PeerId, task: Task) {
        let Task { cid, kind, priority, send_dont_have, is_refused: _ } = task;
        self.insert(peer, Want { cid, kind, priority, send_dont_have, is_cancel: false });
    }

    /// Back into the queue: its turn came too early.
    pub(super) fn put_back(&mut self, peer: &PeerId, cid: &Cid) {
        if let Some(client) = self.peers.get_mut(peer) {
            client.enqueue(cid);
        }
    }

    /// Told that the block is here. When the peer has asked for the block itself meanwhile, that is still to be answered.
    pub(super) fn told_have(&mut self, peer: &PeerId, cid: &Cid) {
        let entry = self.peers.get(peer).and_then(|client| client.wants.get(cid));
        if entry.is_some_and(|entry| entry.kind == WantKind::Have) {
            self.remove(peer, cid);
        }
    }

    /// Answered with the block, or cancelled.
    pub(super) fn remove(&mut self, peer: &PeerId, cid: &Cid) {
        let Some(client) = self.peers.get_mut(peer) else { return };
        client.unqueue(cid);
        client.wants.remove(cid);
        client.refused.remove(cid);
        self.remove_idle(peer);
        self.stop_waiting(peer, cid);
    }

    fn remove_idle(&mut self, peer: &PeerId) {
        if self.peers.get(peer).is_some_and(|client| client.wants.is_empty() && client.refused.is_empty()) {
            self.peers.remove(peer);
        }
    }

    /// Blocks came into the store. Returns the peers that there is something to do for.
    pub(super) fn arrived(&mut self, cids: &[Cid]) -> BTreeSet<PeerId> {
        let mut peers = BTreeSet::new();
        for (peer, cid) in cids.iter().filter_map(|cid| self.waiting.get(cid.hash())).flatten() {
            if let Some(client) = self.peers.get_mut(peer) {
                client.enqueue(cid);
                peers.insert(*peer);
            }
        }
        peers
    }

    /// The peer left, or starts anew.
    pub(super) fn forget(&mut self, peer: &PeerId) {
        let Some(client) = self.peers.remove(peer) else { return };
        for cid in client.wants.keys() {
            self.stop_waiting(peer, cid);
        }
    }

    fn stop_waiting(&mut self, peer: &PeerId, cid: &Cid) {
        let Some(waiting) = self.waiting.get_mut(cid.hash()) else { return };
        waiting.remove(&(*peer, *cid));
        if waiting.is_empty() {
            self.waiting.remove(cid.hash());
        }
    }
}

impl Client {
    fn enqueue(&mut self, cid: &Cid) {
        let Some(entry) = self.wants.get_mut(cid) else { return };
        if entry.queued.is_none() {
            self.arrivals += 1;
            entry.queued = Some(self.arrivals);
            self.queue.insert((Reverse(entry.priority), self.arrivals, *cid));
        }
    }

    fn unqueue(&mut self, cid: &Cid) {
        let Some(entry) = self.wants.get_mut(cid) else { return };
        if let Some(arrival) = entry.queued.take() {
            self.queue.remove(&(Reverse(entry.priority), arrival, *cid));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cid(number: u8) -> Cid {
        let hash = Multihash::wrap(0x12, &[number; 32]).unwrap();
        Cid::new_v1(0x55, hash)
    }

    fn peer(number: u8) -> PeerId {
        PeerId::from_ed25519(&[number; 32])
    }

    fn order(served: &mut Served, peer: PeerId) -> Vec<Cid> {
        std::iter::from_fn(|| served.next(&peer).map(|task| task.cid)).collect()
    }

    #[test]
    fn higher_priority_first_then_in_order_of_arrival() {
        let mut served = Served::new(10);
        let wants = [(1, 5), (2, 9), (3, 5), (4, 9)].map(|(number, priority)| Want::block(cid(number), priority));
        assert!(served.take(peer(1), wants.to_vec(), false));
        assert_eq!(order(&mut served, peer(1)), [2, 4, 1, 3].map(cid));
    }

    #[test]
    fn a_want_for_the_block_that_comes_while_have_is_being_told_is_answered_too() {
        let mut served = Served::new(10);
        served.take(peer(1), vec![Want::have(cid(1), 1), Want::have(cid(2), 1)], false);
        assert_eq!(order(&mut served, peer(1)), [1, 2].map(cid));
        served.take(peer(1), vec![Want::block(cid(1), 1)], false);
        served.told_have(&peer(1), &cid(1));
        served.told_have(&peer(1), &cid(2));
        assert_eq!(served.next(&peer(1)).map(|task| (task.cid, task.kind)), Some((cid(1), WantKind::Block)));
        served.remove(&peer(1), &cid(1));
        assert!(served.peers.is_empty() && served.waiting.is_empty());
    }

    #[test]
    fn asking_who_has_it_does_not_take_back_the_want_for_the_block() {
        let mut served = Served::new(10);
        served.take(peer(1), vec![Want::block(cid(1), 1)], false);
        served.take(peer(1), vec![Want::have(cid(1), 7)], false);
        assert_eq!(served.next(&peer(1)).map(|task| (task.cid, task.kind)), Some((cid(1), WantKind::Block)));
        served.take(peer(1), vec![Want::cancel(cid(1)), Want::have(cid(1), 7)], false);
        assert_eq!(served.next(&peer(1)).map(|task| (task.cid, task.kind)), Some((cid(1), WantKind::Have)));
    }

    #[test]
    fn cancelled_wants_are_not_served_and_a_full_list_replaces() {
        let mut served = Served::new(10);
        served.take(peer(1), vec![Want::block(cid(1), 1), Want::block(cid(2), 1)], false);
        served.take(peer(1), vec![Want::cancel(cid(1)), Want::cancel(cid(9))], false);
        served.take(peer(2), vec![Want::block(cid(2), 1)], false);
        served.take(peer(2), vec![Want::block(cid(3), 1)], true);
        assert_eq!(order(&mut served, peer(1)), [cid(2)]);
        assert_eq!(order(&mut served, peer(2)), [cid(3)]);
    }

    #[test]
    fn a_block_that_comes_later_wakes_who_waits_for_it() {
        let mut served = Served::new(10);
        served.take(peer(1), vec![Want::block(cid(1), 1), Want::block(cid(2), 1)], false);
        order(&mut served, peer(1));
        assert!(served.arrived(&[cid(7)]).is_empty());
        assert_eq!(served.arrived(&[cid(2)]), BTreeSet::from([peer(1)]));
        assert_eq!(order(&mut served, peer(1)), [cid(2)]);
        served.remove(&peer(1), &cid(2));
        assert!(served.arrived(&[cid(2)]).is_empty());
        served.forget(&peer(1));
        assert!(served.waiting.is_empty() && served.peers.is_empty());
    }

    #[test]
    fn wants_over_the_limit_are_not_taken_but_known_ones_change() {
        let mut served = Served::new(2);
        served.take(peer(1), (1..=5).map(|number| Want::have(cid(number), 1)).collect(), false);
        served.take(peer(1), vec![Want::block(cid(1), 7)], false);
        assert_eq!(served.refused, 3);
        assert_eq!(served.next(&peer(1)).map(|task| (task.cid, task.kind)), Some((cid(1), WantKind::Block)));
        assert_eq!(served.next(&peer(1)).map(|task| (task.cid, task.is_refused)), Some((cid(2), false)));
        // They are told, as many as may be wanted at once.
        assert_eq!(served.next(&peer(1)).map(|task| (task.cid, task.is_refused)), Some((cid(3), true)));
        served.take(peer(1), vec![Want::cancel(cid(4))], false);
        assert_eq!(served.next(&peer(1)), None);
    }

    #[test]
    fn an_answer_that_was_lost_is_owed_again_with_what_was_asked_meanwhile() {
        let mut served = Served::new(10);
        served.take(peer(1), vec![Want::block(cid(1), 1), Want::have(cid(2), 1)], false);
        let lost: Vec<Task> = std::iter::from_fn(|| served.next(&peer(1))).collect();
        lost.iter().for_each(|task| served.remove(&peer(1), &task.cid));
        served.take(peer(1), vec![Want::block(cid(2), 1)], false);
        lost.iter().for_each(|task| served.owe_again(peer(1), *task));
        let owed: Vec<(Cid, WantKind)> = std::iter::from_fn(|| served.next(&peer(1))).map(|task| (task.cid, task.kind)).collect();
        assert_eq!(owed, [(cid(1), WantKind::Block), (cid(2), WantKind::Block)]);
    }
}
