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
    /// The answer was given.
    pub has_ended: bool,
    walks: u64,
    left: u64,
    moved: Millis,
}

impl Leaving {
    /// Begins after so many walks over the wish.
    pub fn new(request: RequestId, walks: u64, now: Now) -> Leaving {
        Leaving { request, has_ended: false, walks, left: u64::MAX, moved: now.mono }
    }

    /// How many copies stay only here, once nothing more can be handed over; none while it goes on. `hand_overs`: copies
    /// that wait for their new holders. `others`: live members that could take something.
    pub fn is_done(&mut self, counts: Counts, walks: u64, hand_overs: u64, others: usize, now: Now) -> Option<u64> {
        // The walk under way began before this peer was draining; the one after it counts.
        if walks < self.walks + 2 {
            return None;
        }
        let left = counts.placed_here + hand_overs;
        if left < self.left {
            self.left = left;
            self.moved = now.mono;
        }
        let is_stuck = others == 0 || now.mono.0.saturating_sub(self.moved.0) >= PATIENCE.0;
        match left {
            0 => Some(0),
            _ if is_stuck => Some(counts.only_here.max(hand_overs.min(left))),
            _ => None,
        }
    }
}
