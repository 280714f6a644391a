//! The arithmetic of one limit; time is a parameter.

use std::time::Duration;

/// What may go at once after a pause: so much of a second's worth.
const BURST: Duration = Duration::from_millis(100);
/// Bytes of one read or write: so much of a second's worth, within bounds.
const PORTION: Duration = Duration::from_millis(20);
const PORTION_LEAST: u64 = 1 << 10;
const PORTION_MOST: u64 = 64 << 10;

/// Fills at the rate, up to a burst, and may go into debt by one portion for each who found it filled; whoever finds it in debt waits. So
/// over any stretch of time no more than rate x time + burst + portions goes, whatever the number of streams.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket {
    rate: f64,
    balance: f64,
    at: Duration,
}

impl Bucket {
    /// An empty bucket.
    pub fn new(rate: u64, now: Duration) -> Bucket {
        Bucket { rate: rate as f64, balance: 0.0, at: now }
    }

    /// Takes what went.
    pub fn take(&mut self, now: Duration, bytes: u64) {
        self.fill(now);
        self.balance -= bytes as f64;
    }

    /// How long to wait until it is not in debt by more than `credit` of a second's worth; zero: go on.
    pub fn wait(&mut self, now: Duration, credit: Duration) -> Duration {
        self.fill(now);
        let owed = -self.balance - self.rate * credit.as_secs_f64();
        if owed <= 0.0 || self.rate <= 0.0 { Duration::ZERO } else { Duration::from_secs_f64((owed / self.rate).min(3600.0)) }
    }

    fn fill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.balance = (self.balance + self.rate * passed).min(self.rate * BURST.as_secs_f64());
    }
}

/// Bytes that go at once under a rate.
pub(super) fn portion(rate: u64) -> usize {
    ((rate as f64 * PORTION.as_secs_f64()) as u64).clamp(PORTION_LEAST, PORTION_MOST) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Streams that always want to send, on a clock of their own: what goes in `seconds`.
    fn sent(rate: u64, streams: usize, seconds: u64) -> u64 {
        let end = Duration::from_secs(seconds);
        let mut bucket = Bucket::new(rate, Duration::ZERO);
        let mut wakes = vec![Duration::ZERO; streams];
        let mut bytes = 0;
        loop {
            let (index, now) = wakes.iter().copied().enumerate().min_by_key(|(_, at)| *at).unwrap();
            if now >= end {
                return bytes;
            }
            let wait = bucket.wait(now, Duration::ZERO);
            if wait == Duration::ZERO {
                bucket.take(now, portion(rate) as u64);
                bytes += portion(rate) as u64;
                wakes[index] = now + Duration::from_micros(10);
            } else {
                wakes[index] = now + wait.max(Duration::from_micros(1));
            }
        }
    }

    #[test]
    fn the_rate_is_kept_within_five_percent_whatever_the_rate_and_the_number_of_streams() {
        for rate in [10_000, 100_000, 5_000_000, 100_000_000, 1_000_000_000] {
            for streams in [1, 7, 50] {
                let seconds = 10;
                let (bytes, wanted) = (sent(rate, streams, seconds) as f64, (rate * seconds) as f64);
                assert!((0.95..=1.05).contains(&(bytes / wanted)), "{rate} B/s over {streams} streams: {bytes} instead of {wanted}");
            }
        }
    }

    #[test]
    fn a_pause_is_not_saved_up() {
        let mut bucket = Bucket::new(1000, Duration::ZERO);
        let now = Duration::from_secs(3600);
        assert_eq!(bucket.wait(now, Duration::ZERO), Duration::ZERO);
        bucket.take(now, 1100);
        assert_eq!(bucket.wait(now, Duration::ZERO), Duration::from_secs(1), "a tenth of a second was saved");
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back_gives_nothing() {
        let mut bucket = Bucket::new(1000, Duration::from_secs(10));
        bucket.take(Duration::from_secs(10), 500);
        assert_eq!(bucket.wait(Duration::from_secs(5), Duration::ZERO), Duration::from_millis(500));
        assert_eq!(bucket.wait(Duration::from_secs(10), Duration::ZERO), Duration::from_millis(500));
    }
}
