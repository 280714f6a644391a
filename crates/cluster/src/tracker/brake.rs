//! The brake on mass removals (architecture.md 6, rule 1): a wish that suddenly empties may be a mistake of a person, a
//! restored backup or a bug; what is gone is gone, so a person is asked.

use crate::options::BrakeLimits;
use std::collections::VecDeque;
use types::{Because, Millis, Now};

/// Removals count for so long.
const WINDOW: Millis = Millis::minutes(1);
/// While braked, the state is looked at again this often (a person is expected, not a time).
pub(crate) const LOOK_AGAIN: Millis = Millis::minutes(60);

/// Counts removals and stops them when they are too many at once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Brake {
    /// Removals that wait, not counting approved ones.
    pub waiting: u64,
    done: VecDeque<Millis>,
    is_on: bool,
}

impl Brake {
    /// One removal was carried out.
    pub fn done(&mut self, now: Now) {
        self.done.push_back(now.mono);
    }

    /// Looks whether the removals are too many for a ledger of `held`; true when the brake was put on just now.
    pub fn check(&mut self, held: u64, limits: &BrakeLimits, now: Now) -> bool {
        while self.done.front().is_some_and(|at| at.0.saturating_add(WINDOW.0) <= now.mono.0) {
            self.done.pop_front();
        }
        let done = self.done.len() as u64;
        let limit = limits.removals.max((held + done).saturating_mul(limits.percent) / 100);
        let was_on = self.is_on;
        // Removals that come one by one leave few waiting: what was done within the minute counts until it is over.
        let are_many = self.waiting + done > limit || (was_on && self.waiting > limit / 2);
        self.is_on = self.waiting > 0 && are_many;
        self.is_on && !was_on
    }

    /// A person says: go on. What waits is taken out of the count by the caller.
    pub fn release(&mut self) {
        self.is_on = false;
        self.waiting = 0;
        self.done.clear();
    }

    pub fn is_on(&self) -> bool {
        self.is_on
    }

    pub fn reason(&self, held: u64) -> Because {
        Because::MassRemoval { removals: self.waiting, held }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::UnixMillis;

    fn at(seconds: u64) -> Now {
        Now { mono: Millis::seconds(seconds), wall: UnixMillis(0) }
    }

    fn check(waiting: u64, done: u64, held: u64, expected: bool) {
        let mut brake = Brake { waiting, ..Brake::default() };
        for _ in 0..done {
            brake.done(at(0));
        }
        brake.check(held, &BrakeLimits::default(), at(30));
        assert_eq!(brake.is_on(), expected, "{waiting} wait, {done} done, {held} held");
    }

    #[test]
    fn more_than_a_thousand_and_five_percent_brake() {
        check(1000, 0, 1000, false);
        check(1001, 0, 1001, true);
        check(500, 501, 10_000, true);
        check(0, 5_000, 10_000, false); // nothing waits
        check(5_000, 0, 100_000, false);
        check(5_001, 0, 100_000, true);
    }

    #[test]
    fn removals_that_come_one_by_one_brake_too() {
        let mut brake = Brake::default();
        let mut passed = 0;
        for second in 0..50 {
            for _ in 0..100 {
                brake.waiting += 1;
                brake.check(10_000, &BrakeLimits::default(), at(second));
                if !brake.is_on() {
                    passed += brake.waiting;
                    (0..std::mem::take(&mut brake.waiting)).for_each(|_| brake.done(at(second)));
                }
            }
        }
        assert_eq!((passed, brake.waiting), (1_000, 4_000));
    }

    #[test]
    fn the_count_forgets_after_a_minute() {
        let mut brake = Brake { waiting: 500, ..Brake::default() };
        for _ in 0..900 {
            brake.done(at(0));
        }
        brake.check(10_000, &BrakeLimits::default(), at(60));
        assert!(!brake.is_on());
    }
}
