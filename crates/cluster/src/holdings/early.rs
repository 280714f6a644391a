//! Words about copies that came before the wish they speak of: messages between peers overtake the shared state. They are kept for a while, and
//! taken when the wish arrives.
//!
//! A word counts only for the very value of the pin that it names (its version is the hash of the stored form, placement included), and only as
//! the last word of that peer about that copy: a later one takes its place, and all of them go when the peer starts anew, falls silent or
//! is linked again, since words may have been lost then. What is not kept is asked for, as if it had never been said.

use std::collections::BTreeMap;
use types::{Cid, CopyState, Millis, Now, PeerId};

/// Kept in all: some 3 MB, where errors are long 20 MB. When full, who has most words here loses its oldest.
const MOST: usize = 16_384;
/// Kept of one peer; its oldest goes.
const MOST_OF_PEER: usize = 2_048;
/// Kept for so long: a wish that takes longer comes by catching up, and then copies are asked for anyway.
const KEPT: Millis = Millis::seconds(30);

/// The words of all peers.
#[derive(Clone, Debug, Default)]
pub(super) struct Early {
    peers: BTreeMap<PeerId, Words>,
    count: usize,
    /// Numbers words in the order in which they came.
    number: u64,
}

#[derive(Clone, Debug, Default)]
struct Words {
    by_cid: BTreeMap<Cid, Word>,
    by_age: BTreeMap<u64, Cid>,
}

#[derive(Clone, Debug)]
struct Word {
    number: u64,
    heard: Millis,
    copy: CopyState,
}

impl Early {
    /// Keeps a word for the wish that it speaks of, in place of an earlier one.
    pub fn keep(&mut self, peer: &PeerId, copy: &CopyState, now: Now) {
        self.drop_word(peer, &copy.cid);
        self.number += 1;
        let words = self.peers.entry(*peer).or_default();
        words.by_age.insert(self.number, copy.cid);
        words.by_cid.insert(copy.cid, Word { number: self.number, heard: now.mono, copy: copy.clone() });
        self.count += 1;
        while let Some(cid) = self.peers.get(peer).and_then(|words| words.too_many(now)) {
            self.drop_word(peer, &cid);
        }
        while self.count > MOST {
            let Some((loudest, cid)) = self.oldest_of_loudest() else { return };
            self.drop_word(&loudest, &cid);
        }
    }

    /// The wish came: what the peer said of it before. A word about another value stays, for that may come next.
    pub fn take(&mut self, peer: &PeerId, cid: &Cid, version: u64, takes_any: bool, now: Now) -> Option<CopyState> {
        let word = self.peers.get(peer)?.by_cid.get(cid)?;
        let is_old = word.is_old(now);
        if !is_old && word.copy.version != version && !takes_any {
            return None;
        }
        let copy = word.copy.clone();
        self.drop_word(peer, cid);
        (!is_old).then_some(copy)
    }

    /// The peer said something else of this copy.
    pub fn drop_word(&mut self, peer: &PeerId, cid: &Cid) {
        let Some(words) = self.peers.get_mut(peer) else { return };
        let Some(word) = words.by_cid.remove(cid) else { return };
        words.by_age.remove(&word.number);
        self.count -= 1;
        if words.by_cid.is_empty() {
            self.peers.remove(peer);
        }
    }

    /// Nothing that the peer said so far counts any more.
    pub fn forget(&mut self, peer: &PeerId) {
        self.count -= self.peers.remove(peer).map_or(0, |words| words.by_cid.len());
    }

    /// Nothing that anybody said so far counts any more.
    pub fn forget_all(&mut self) {
        self.peers.clear();
        self.count = 0;
    }

    fn oldest_of_loudest(&self) -> Option<(PeerId, Cid)> {
        let (peer, words) = self.peers.iter().max_by_key(|(_, words)| words.by_cid.len())?;
        words.by_age.first_key_value().map(|(_, cid)| (*peer, *cid))
    }
}

impl Words {
    /// The oldest, where it has no place any more.
    fn too_many(&self, now: Now) -> Option<Cid> {
        let cid = self.by_age.first_key_value().map(|(_, cid)| *cid)?;
        let is_old = self.by_cid.get(&cid).is_some_and(|word| word.is_old(now));
        (is_old || self.by_cid.len() > MOST_OF_PEER).then_some(cid)
    }
}

impl Word {
    fn is_old(&self, now: Now) -> bool {
        now.mono.0.saturating_sub(self.heard.0) > KEPT.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cid, peer};
    use types::{PinState, UnixMillis};

    fn at(seconds: u64) -> Now {
        Now { mono: Millis::seconds(seconds), wall: UnixMillis::from_seconds(1_000 + seconds) }
    }

    fn copy(number: u64, version: u64) -> CopyState {
        CopyState { cid: cid(number), version, state: PinState::Pinned, because: None, next_try: None, tries: 0, since: UnixMillis(0) }
    }

    fn counted(early: &Early) -> usize {
        let words = early.peers.values();
        assert!(words.clone().all(|words| words.by_cid.len() == words.by_age.len() && !words.by_cid.is_empty()));
        assert_eq!(words.map(|words| words.by_cid.len()).sum::<usize>(), early.count);
        early.count
    }

    #[test]
    fn a_word_counts_once_for_its_version_and_for_a_while() {
        for (version, second, is_taken, is_left) in [(7, 1, true, false), (6, 1, false, true), (7, 30, true, false), (7, 31, false, false)]
        {
            let mut early = Early::default();
            early.keep(&peer(1), &copy(1, 7), at(0));
            assert_eq!(early.take(&peer(1), &cid(1), version, false, at(second)).is_some(), is_taken, "{version} at {second}");
            assert_eq!(counted(&early) == 1, is_left, "{version} at {second}");
        }
    }

    #[test]
    fn a_later_word_takes_the_place_of_an_earlier_one() {
        let mut early = Early::default();
        early.keep(&peer(1), &copy(1, 7), at(0));
        early.keep(&peer(1), &copy(1, 8), at(1));
        assert_eq!(counted(&early), 1);
        assert_eq!(early.take(&peer(1), &cid(1), 7, false, at(1)), None);
        assert_eq!(early.take(&peer(1), &cid(1), 8, false, at(1)), Some(copy(1, 8)));
    }

    #[test]
    fn a_peer_that_says_much_loses_its_own_oldest_words() {
        let mut early = Early::default();
        early.keep(&peer(1), &copy(0, 1), at(0));
        for number in 0..MOST_OF_PEER as u64 + 10 {
            early.keep(&peer(2), &copy(number, 1), at(0));
        }
        assert_eq!(counted(&early), MOST_OF_PEER + 1);
        assert_eq!(early.take(&peer(2), &cid(9), 1, false, at(0)), None);
        assert!(early.take(&peer(2), &cid(10), 1, false, at(0)).is_some());
        assert!(early.take(&peer(1), &cid(0), 1, false, at(0)).is_some());
    }

    #[test]
    fn many_peers_that_say_much_stay_within_the_bound_and_leave_room_for_the_quiet() {
        let mut early = Early::default();
        early.keep(&peer(100), &copy(0, 1), at(0));
        for number in 0..MOST_OF_PEER as u64 {
            for loud in 1..=9 {
                early.keep(&peer(loud), &copy(number, 1), at(0));
            }
        }
        assert_eq!(counted(&early), MOST);
        assert!(early.take(&peer(100), &cid(0), 1, false, at(0)).is_some());
    }

    #[test]
    fn words_that_are_over_make_room() {
        let mut early = Early::default();
        (0..10).for_each(|number| early.keep(&peer(1), &copy(number, 1), at(0)));
        early.keep(&peer(1), &copy(10, 1), at(31));
        assert_eq!(counted(&early), 1);
        early.forget(&peer(1));
        assert_eq!(counted(&early), 0);
    }
}
