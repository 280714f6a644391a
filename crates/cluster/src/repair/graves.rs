//! Pins that were removed, so that a repair elsewhere does not bring them back.
//!
//! In a convergent state a write wins over a removal that it did not know. A repair that re-placed a pin while its removal
//! was on the way would so revive it, without content. A repair changes nothing but the placement, not even the time of the
//! pin; what comes back after its removal with all else equal is therefore such a ghost, and is removed again. A person
//! who pins again writes a new time.

use std::collections::{BTreeMap, VecDeque};
use types::{Cid, Pin, UnixMillis};

/// Removed pins remembered; older ones are forgotten, and their ghosts stay.
const GRAVES_MOST: usize = 10_000;

/// What was removed lately.
#[derive(Clone, Debug, Default)]
pub(crate) struct Graves {
    removed: BTreeMap<Cid, Box<Pin>>,
    order: VecDeque<Cid>,
}

impl Graves {
    /// A pin was removed.
    pub fn bury(&mut self, pin: &Pin) {
        if self.removed.insert(pin.cid, Box::new(pin.clone())).is_none() {
            self.order.push_back(pin.cid);
        }
        while self.order.len() > GRAVES_MOST {
            if let Some(oldest) = self.order.pop_front() {
                self.removed.remove(&oldest);
            }
        }
    }

    /// Whether this is a removed pin that a repair elsewhere brought back.
    pub fn is_ghost(&self, pin: &Pin) -> bool {
        let Some(old) = self.removed.get(&pin.cid) else { return false };
        old.created == pin.created && old.options == pin.options && old.depth == pin.depth && old.kind == pin.kind
    }

    /// A time for a pin that is written anew, at which it is no ghost of one that was removed within the same second.
    pub fn time_for(&self, cid: &Cid, now: UnixMillis) -> UnixMillis {
        let second = UnixMillis::from_seconds(now.seconds());
        match self.removed.get(cid) {
            Some(old) if old.created == second => UnixMillis::from_seconds(second.seconds() + 1),
            _ => second,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cid, peer, pin_on};
    use types::PinOptions;

    #[test]
    fn only_what_differs_at_most_in_the_placement_is_a_ghost() {
        let old = pin_on(cid(1), &[peer(1)], PinOptions::default());
        let mut graves = Graves::default();
        graves.bury(&old);
        let named = PinOptions { name: "again".to_owned(), ..PinOptions::default() };
        for (pin, expected) in [
            (Pin { placement: vec![peer(2)], ..old.clone() }, true),
            (old.clone(), true),
            (Pin { placement: vec![peer(2)], created: UnixMillis(5), ..old.clone() }, false),
            (Pin { placement: vec![peer(2)], options: named, ..old.clone() }, false),
            (Pin { cid: cid(2), placement: vec![peer(2)], ..old.clone() }, false),
        ] {
            assert_eq!(graves.is_ghost(&pin), expected, "{pin:?}");
        }
    }

    #[test]
    fn a_pin_written_in_the_second_of_its_removal_is_no_ghost() {
        let old = pin_on(cid(1), &[peer(1)], PinOptions::default());
        let mut graves = Graves::default();
        graves.bury(&old);
        let again = Pin { created: graves.time_for(&cid(1), UnixMillis(old.created.0 + 300)), ..old };
        assert!(!graves.is_ghost(&again));
        assert_eq!(graves.time_for(&cid(2), UnixMillis(5_300)), UnixMillis(5_000));
    }
}
