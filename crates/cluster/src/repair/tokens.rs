//! How much may be repaired now.

use types::{Millis, Now};

/// A bucket that fills with so many tokens a minute and holds a minute's worth.
#[derive(Clone, Debug)]
pub(crate) struct Tokens {
    per_minute: u64,
    /// Tokens times 60,000, so that filling each millisecond loses nothing.
    filled: u128,
    at: Millis,
}

impl Tokens {
    pub fn new(per_minute: u64) -> Tokens {
        Tokens { per_minute, filled: u128::from(per_minute) * 60_000, at: Millis(0) }
    }

    /// Takes `amount`, if there is that much; an amount larger than the bucket passes when it is full.
    pub fn take(&mut self, amount: u64, now: Now) -> bool {
        let passed = now.mono.0.saturating_sub(self.at.0);
        self.at = now.mono;
        let full = u128::from(self.per_minute) * 60_000;
        self.filled = (self.filled + u128::from(passed) * u128::from(self.per_minute)).min(full);
        let wanted = (u128::from(amount) * 60_000).min(full);
        if self.filled < wanted || self.per_minute == 0 {
            return false;
        }
        self.filled -= wanted;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::UnixMillis;

    #[test]
    fn tokens_flow_evenly() {
        let mut tokens = Tokens::new(60);
        let at = |millis| Now { mono: Millis(millis), wall: UnixMillis(0) };
        assert_eq!((0..100).filter(|_| tokens.take(1, at(0))).count(), 60);
        let later = (0..10_000).step_by(10).filter(|millis| tokens.take(1, at(*millis))).count();
        assert_eq!(later, 9, "one a second");
        assert!(tokens.take(1_000_000, at(1_000_000)), "a large one passes when the bucket is full");
    }
}
