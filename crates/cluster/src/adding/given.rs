//! What this peer gives to others and their words do not show yet: without it everything that begins between two hellos would
//! go to whoever looked emptiest.
//!
//! A copy counts from when its holder is chosen until the holder has confirmed it and has said hello after that. What a
//! hello says of copies is as old as the hello, so a confirmed copy is not let out before.

use std::collections::{BTreeMap, VecDeque};
use types::{ByteCount, Cid, Millis, Now, PeerId};

/// Copies kept in mind for one peer; of more the oldest are forgotten.
const COPIES_MOST: usize = 4_096;
/// A copy that was not confirmed for so long may never come.
const FORGOTTEN: Millis = Millis::minutes(10);

/// By peer.
#[derive(Clone, Debug, Default)]
pub(super) struct Given {
    peers: BTreeMap<PeerId, Copies>,
}

#[derive(Clone, Debug, Default)]
struct Copies {
    bytes: ByteCount,
    copies: VecDeque<(Cid, ByteCount, Millis)>,
}

impl Given {
    /// A peer will have a copy.
    pub fn note(&mut self, peer: PeerId, cid: Cid, bytes: ByteCount, now: Now) {
        if bytes == ByteCount::ZERO {
            return;
        }
        let copies = self.peers.entry(peer).or_default();
        if copies.copies.len() >= COPIES_MOST
            && let Some((_, bytes, _)) = copies.copies.pop_front()
        {
            copies.bytes = copies.bytes - bytes;
        }
        copies.bytes += bytes;
        copies.copies.push_back((cid, bytes, now.mono));
    }

    /// A peer said what it has: the copies that it has confirmed before are in that. `is_confirmed`: a copy, noted at a time.
    pub fn shown(&mut self, peer: &PeerId, is_confirmed: impl Fn(&Cid, Millis) -> bool, now: Now) {
        let Some(copies) = self.peers.get_mut(peer) else { return };
        copies.copies.retain(|(cid, _, since)| since.0.saturating_add(FORGOTTEN.0) > now.mono.0 && !is_confirmed(cid, *since));
        copies.bytes = copies.copies.iter().fold(ByteCount::ZERO, |sum, (_, bytes, _)| sum + *bytes);
        if copies.copies.is_empty() {
            self.peers.remove(peer);
        }
    }

    /// The same for the own peer, which knows at any time what it has: the oldest copies that are here.
    pub fn settle(&mut self, me: &PeerId, is_here: impl Fn(&Cid, Millis) -> bool) {
        let Some(copies) = self.peers.get_mut(me) else { return };
        while copies.copies.front().is_some_and(|(cid, _, since)| is_here(cid, *since)) {
            let Some((_, bytes, _)) = copies.copies.pop_front() else { return };
            copies.bytes = copies.bytes - bytes;
        }
    }

    /// Bytes on their way to a peer, or there and not told.
    pub fn bytes(&self, peer: &PeerId) -> ByteCount {
        self.peers.get(peer).map(|copies| copies.bytes).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cid, peer};
    use types::UnixMillis;

    fn at(seconds: u64) -> Now {
        Now { mono: Millis::seconds(seconds), wall: UnixMillis(0) }
    }

    #[test]
    fn a_copy_counts_until_a_hello_after_its_confirmation() {
        let mut given = Given::default();
        given.note(peer(1), cid(1), ByteCount(10), at(0));
        given.note(peer(1), cid(2), ByteCount(20), at(1));
        given.note(peer(2), cid(2), ByteCount(20), at(1));
        given.shown(&peer(1), |_, _| false, at(5));
        assert_eq!(given.bytes(&peer(1)), ByteCount(30));
        given.shown(&peer(1), |confirmed, _| *confirmed == cid(1), at(10));
        assert_eq!((given.bytes(&peer(1)), given.bytes(&peer(2))), (ByteCount(20), ByteCount(20)));
        given.shown(&peer(1), |_, _| false, at(601));
        assert_eq!(given.bytes(&peer(1)), ByteCount(0), "it may never come");
    }

    #[test]
    fn what_came_to_the_own_peer_counts_no_more() {
        let mut given = Given::default();
        for number in 1..=3 {
            given.note(peer(0), cid(number), ByteCount(10), at(0));
        }
        given.settle(&peer(0), |here, _| *here == cid(2));
        assert_eq!(given.bytes(&peer(0)), ByteCount(30), "one before it is awaited");
        given.settle(&peer(0), |here, _| *here != cid(3));
        assert_eq!(given.bytes(&peer(0)), ByteCount(10));
    }

    #[test]
    fn only_so_many_are_kept_in_mind() {
        let mut given = Given::default();
        for number in 0..2 * COPIES_MOST as u64 {
            given.note(peer(1), cid(number), ByteCount(1), at(0));
        }
        assert_eq!(given.bytes(&peer(1)), ByteCount(COPIES_MOST as u64));
    }
}
