//! Leaving: take no new copies, hand the own ones over, then say good-bye.

use crate::RequestId;
use crate::repair::Counts;
use types::{Millis, Now};

/// Without progress for so long, what is left here has nowhere to go.
const PATIENCE: Millis = Millis::minutes(1);

/// A leave under way.
#[derive(Clone, Debug)]
pub(crate) struct Leaving {
    /// Who asked.
    pub request: RequestId,
    /// Leave although some copies can go nowhere.
    pub is_forced: bool,
    /// The answer was given.
    pub has_ended: bool,
    walks: u64,
    left: u64,
    moved: Millis,
}

/// How a leave ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Nothing is left here that others do not hold.
    HandedOver,
    /// Nothing more can be handed over.
    Stuck {
        /// Pins still placed here.
        pins: u64,
        /// Those that nobody else holds.
        only_here: u64,
    },
}

impl Leaving {
    /// Begins after so many walks over the wish.
    pub fn new(request: RequestId, is_forced: bool, walks: u64, now: Now) -> Leaving {
        Leaving { request, is_forced, has_ended: false, walks, left: u64::MAX, moved: now.mono }
    }

    /// How it ends; none while it goes on. `hand_overs`: copies that wait for their new holders. `others`: live members that
    /// could take something.
    pub fn end(&mut self, counts: Counts, walks: u64, hand_overs: u64, others: usize, now: Now) -> Option<End> {
        // The walk under way began before this peer was draining; the one after it counts.
        if walks < self.walks + 2 {
            return None;
        }
        let left = counts.placed_here + hand_overs;
        if left < self.left {
            self.left = left;
            self.moved = now.mono;
        }
        if left == 0 {
            return Some(End::HandedOver);
        }
        let is_hopeless = hand_overs == 0 && counts.hopeless_here == counts.placed_here;
        let is_stuck = others == 0 || is_hopeless || now.mono.0.saturating_sub(self.moved.0) >= PATIENCE.0;
        is_stuck.then(|| match counts.only_here.max(hand_overs.min(left)) {
            0 => End::HandedOver,
            only_here => End::Stuck { pins: left, only_here },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Placed here, only here, hopeless; copies being handed over; takers; seconds since the last progress.
    fn check(counts: [u64; 3], hand_overs: u64, others: usize, seconds: u64, expected: Option<End>) {
        let [placed_here, only_here, hopeless_here] = counts;
        let counts = Counts { placed_here, only_here, hopeless_here, ..Counts::default() };
        let at = |seconds| Now { mono: Millis::seconds(seconds), wall: types::UnixMillis(0) };
        let mut leaving = Leaving::new(RequestId(1), false, 3, at(0));
        assert_eq!(leaving.end(counts, 4, hand_overs, others, at(0)), None, "the walk under way does not count");
        leaving.end(counts, 5, hand_overs, others, at(0));
        assert_eq!(leaving.end(counts, 5, hand_overs, others, at(seconds)), expected, "{counts:?}");
    }

    #[test]
    fn a_leave_ends_when_all_is_handed_over_or_nothing_more_can_be() {
        check([0, 0, 0], 0, 2, 0, Some(End::HandedOver));
        check([9, 9, 0], 0, 2, 5, None);
        check([9, 9, 0], 0, 2, 60, Some(End::Stuck { pins: 9, only_here: 9 }));
        check([9, 2, 9], 0, 2, 0, Some(End::Stuck { pins: 9, only_here: 2 }));
        check([9, 0, 9], 0, 2, 0, Some(End::HandedOver));
        check([9, 2, 9], 1, 2, 5, None);
        check([9, 2, 8], 0, 2, 5, None);
        check([9, 9, 0], 0, 0, 0, Some(End::Stuck { pins: 9, only_here: 9 }));
    }
}
