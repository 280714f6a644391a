//! Who is next: young pins first, then in order of arrival.

use std::collections::BTreeSet;
use types::{Cid, UnixMillis};

/// A pin is young for so long (Go's `priority_pin_max_age`).
const YOUNG: u64 = 24 * 3600 * 1000;
/// And while it failed no more often (Go's `priority_pin_max_retries`).
const TRIES_MOST: u32 = 5;

/// Which of the two lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    Young,
    Old,
}

impl Lane {
    /// The lane of a pin written at `created` that failed `tries` times.
    pub fn of(created: UnixMillis, tries: u32, wall: UnixMillis) -> Lane {
        if wall.0.saturating_sub(created.0) <= YOUNG && tries <= TRIES_MOST { Lane::Young } else { Lane::Old }
    }
}

/// A place in the queue.
pub(crate) type Place = (Lane, u64);

/// A queue in which one can look up how many stand before.
#[derive(Clone, Debug, Default)]
pub(crate) struct Queue {
    waiting: BTreeSet<(Lane, u64, Cid)>,
    old: u64,
    numbers: u64,
}

impl Queue {
    pub fn push(&mut self, lane: Lane, cid: Cid) -> Place {
        self.numbers += 1;
        self.waiting.insert((lane, self.numbers, cid));
        self.old += u64::from(lane == Lane::Old);
        (lane, self.numbers)
    }

    pub fn pop(&mut self) -> Option<Cid> {
        let (lane, _, cid) = self.waiting.pop_first()?;
        self.old -= u64::from(lane == Lane::Old);
        Some(cid)
    }

    pub fn remove(&mut self, place: Place, cid: Cid) {
        if self.waiting.remove(&(place.0, place.1, cid)) {
            self.old -= u64::from(place.0 == Lane::Old);
        }
    }

    /// How many stand before: counted by arrival numbers, so that those who left in between count too.
    pub fn before(&self, place: Place) -> u64 {
        let first_of_lane = self.waiting.range((place.0, 0, Cid::default())..).next().map_or(place.1, |(_, number, _)| *number);
        let ahead = place.1.saturating_sub(first_of_lane);
        let young = self.waiting.len() as u64 - self.old;
        match place.0 {
            Lane::Young => ahead.min(young),
            Lane::Old => young + ahead.min(self.old),
        }
    }

    /// How many wait in a lane.
    pub fn count(&self, lane: Lane) -> usize {
        let old = self.old as usize;
        if lane == Lane::Old { old } else { self.waiting.len() - old }
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::cid;

    #[test]
    fn young_pins_overtake_old_ones() {
        let mut queue = Queue::default();
        let first = queue.push(Lane::Old, cid(1));
        let second = queue.push(Lane::Young, cid(2));
        let third = queue.push(Lane::Young, cid(3));
        assert_eq!([first, second, third].map(|place| queue.before(place)), [2, 0, 1]);
        queue.remove(second, cid(2));
        assert_eq!([queue.pop(), queue.pop(), queue.pop()], [Some(cid(3)), Some(cid(1)), None]);
    }

    #[test]
    fn a_pin_is_young_for_a_day_and_five_failures() {
        let now = UnixMillis(10 * YOUNG);
        for (age, tries, lane) in [(0, 0, Lane::Young), (YOUNG, 5, Lane::Young), (YOUNG + 1, 0, Lane::Old), (0, 6, Lane::Old)] {
            assert_eq!(Lane::of(UnixMillis(now.0 - age), tries, now), lane, "{age} {tries}");
        }
    }
}
