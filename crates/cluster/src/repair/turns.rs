//! Pins about which something is to be done: when it is this peer's turn, and in what order.
//!
//! Bounded. When it is full, pins with fewer staying copies put those with more out, which the next walk finds again.

use super::LAST;
use std::collections::{BTreeMap, BTreeSet};
use types::{Cid, Millis, Now};

/// Pins that wait for this peer's turn.
const MOST: usize = 10_000;

/// Which limit it falls under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Copies are lost.
    Heal,
    /// All copies are there; one is to be elsewhere.
    Move,
}

/// One pin that waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    /// Not before.
    pub at: Millis,
    pub kind: Kind,
    /// Copies that stay: fewest first.
    pub staying: u32,
}

impl Turn {
    /// Ends and trims have their turn like repairs, but nothing is lost.
    fn is_loss(&self) -> bool {
        self.kind == Kind::Heal && self.staying < LAST
    }
}

/// All that wait.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns {
    turns: BTreeMap<Cid, Turn>,
    due: BTreeSet<(Millis, Cid)>,
    /// Those of which copies are lost.
    lost: usize,
    /// Their time has come, by kind.
    ready: BTreeMap<Kind, BTreeSet<(u32, Cid)>>,
}

impl Turns {
    pub fn get(&self, cid: &Cid) -> Option<&Turn> {
        self.turns.get(cid)
    }

    pub fn insert(&mut self, cid: Cid, turn: Turn) {
        self.remove(&cid);
        if self.turns.len() >= MOST && !self.make_room(turn.staying) {
            return;
        }
        self.turns.insert(cid, turn);
        self.due.insert((turn.at, cid));
        self.lost += usize::from(turn.is_loss());
    }

    /// Puts out the pin whose copies are the most, if it has more than so many.
    fn make_room(&mut self, staying: u32) -> bool {
        let last = self.ready.values().filter_map(|ready| ready.last()).max().copied();
        match last {
            Some((most, cid)) if most > staying => {
                self.remove(&cid);
                true
            }
            _ => false,
        }
    }

    pub fn remove(&mut self, cid: &Cid) {
        let Some(turn) = self.turns.remove(cid) else { return };
        self.lost -= usize::from(turn.is_loss());
        if !self.due.remove(&(turn.at, *cid)) {
            self.ready.entry(turn.kind).or_default().remove(&(turn.staying, *cid));
        }
    }

    pub fn clear(&mut self) {
        *self = Turns::default();
    }

    /// The next of a kind whose time has come; it stays until it is removed.
    pub fn next(&mut self, kind: Kind, now: Now) -> Option<(Cid, Turn)> {
        while let Some((at, cid)) = self.due.first().copied().filter(|(at, _)| *at <= now.mono) {
            self.due.remove(&(at, cid));
            if let Some(turn) = self.turns.get(&cid) {
                self.ready.entry(turn.kind).or_default().insert((turn.staying, cid));
            }
        }
        let (_, cid) = *self.ready.get(&kind)?.first()?;
        Some((cid, *self.turns.get(&cid)?))
    }

    /// When the first that is not ready yet becomes so.
    pub fn next_due(&self) -> Option<Millis> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Whether a pin whose copies are lost waits for anybody.
    pub fn is_any_lost(&self) -> bool {
        self.lost > 0
    }

    pub fn is_any_ready(&self) -> bool {
        self.ready.values().any(|ready| !ready.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::cid;
    use types::UnixMillis;

    fn turn(at: u64, kind: Kind, staying: u32) -> Turn {
        Turn { at: Millis(at), kind, staying }
    }

    fn at(millis: u64) -> Now {
        Now { mono: Millis(millis), wall: UnixMillis(0) }
    }

    #[test]
    fn fewest_copies_go_first_once_their_time_has_come() {
        let mut turns = Turns::default();
        for (number, at, staying) in [(1, 0, 2), (2, 0, 0), (3, 5, 0), (4, 0, 1)] {
            turns.insert(cid(number), turn(at, Kind::Move, staying));
        }
        turns.insert(cid(5), turn(0, Kind::Heal, 1));
        let mut order = Vec::new();
        for now in [0, 0, 0, 0, 5] {
            if let Some((next, _)) = turns.next(Kind::Move, at(now)) {
                order.push(next);
                turns.remove(&next);
            }
        }
        assert_eq!(order, [cid(2), cid(4), cid(1), cid(3)]);
        assert_eq!(turns.next(Kind::Heal, at(5)).map(|(next, _)| next), Some(cid(5)));
    }

    #[test]
    fn what_is_lost_is_counted_until_it_has_had_its_turn() {
        let mut turns = Turns::default();
        turns.insert(cid(1), turn(0, Kind::Move, 2));
        turns.insert(cid(2), turn(0, Kind::Heal, LAST));
        assert!(!turns.is_any_lost(), "a move and a trim");
        turns.insert(cid(1), turn(0, Kind::Heal, 1));
        turns.insert(cid(3), turn(0, Kind::Heal, 0));
        turns.remove(&cid(3));
        turns.remove(&cid(3));
        assert!(turns.is_any_lost());
        turns.remove(&cid(1));
        assert!(!turns.is_any_lost());
    }

    #[test]
    fn when_it_is_full_the_best_kept_pins_wait_for_the_next_walk() {
        let mut turns = Turns::default();
        for number in 0..MOST as u64 {
            turns.insert(cid(number), turn(0, Kind::Move, 2));
        }
        turns.next(Kind::Move, at(0));
        turns.insert(cid(MOST as u64), turn(0, Kind::Move, 2));
        assert!(turns.get(&cid(MOST as u64)).is_none());
        turns.insert(cid(MOST as u64 + 1), turn(0, Kind::Move, 1));
        assert_eq!(turns.turns.len(), MOST);
        assert_eq!(turns.next(Kind::Move, at(0)).map(|(next, _)| next), Some(cid(MOST as u64 + 1)));
    }
}
