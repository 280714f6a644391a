//! When a peer will be full, at the rate of the last week: a line through samples of what it used.

use types::{ByteCount, Millis, UnixMillis};

/// Samples older than this do not count.
pub const WINDOW: Millis = Millis::seconds(7 * 24 * 3600);
/// Fewer than this between the first and the last say nothing.
pub const SPAN_LEAST: Millis = Millis::seconds(3600);
/// Later than this is never: the line means nothing so far ahead.
const HORIZON: Millis = Millis::seconds(5 * 365 * 24 * 3600);

/// One look at a peer's space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When.
    pub at: UnixMillis,
    /// Used then.
    pub used: ByteCount,
}

/// The moment at which `limit` is reached if the last week goes on; none when it does not grow, too little is known, or it lies years ahead.
/// Samples in any order; those of a clock that was ahead are left out.
pub fn full_at(samples: &[Sample], limit: ByteCount, now: UnixMillis) -> Option<UnixMillis> {
    let recent: Vec<&Sample> = samples.iter().filter(|sample| sample.at <= now && sample.at.0 + WINDOW.0 >= now.0).collect();
    let first = recent.iter().map(|sample| sample.at.0).min()?;
    let last = recent.iter().max_by_key(|sample| sample.at.0)?;
    if last.used >= limit {
        return Some(now);
    }
    if last.at.0 - first < SPAN_LEAST.0 {
        return None;
    }
    // Least squares, in seconds from the first sample, so that the numbers stay small.
    let count = recent.len() as f64;
    let points = || recent.iter().map(|sample| ((sample.at.0 - first) as f64 / 1000.0, sample.used.get() as f64));
    let (mean_at, mean_used) = points().fold((0.0, 0.0), |(at, used), point| (at + point.0 / count, used + point.1 / count));
    let (rise, spread) = points()
        .fold((0.0, 0.0), |(rise, spread), (at, used)| (rise + (at - mean_at) * (used - mean_used), spread + (at - mean_at).powi(2)));
    if spread <= 0.0 || rise <= 0.0 {
        return None;
    }
    let seconds = (limit - last.used).get() as f64 / (rise / spread);
    let left = Millis((seconds * 1000.0) as u64);
    (seconds.is_finite() && left < HORIZON).then(|| UnixMillis((last.at.0 + left.0).max(now.0)))
}

/// `full in about 12 days at the rate of the last week`.
pub fn in_words(full_at: UnixMillis, now: UnixMillis) -> String {
    let minutes = full_at.0.saturating_sub(now.0) / 60_000;
    let about = match minutes {
        0 => return "full".to_owned(),
        1..=119 => format!("{minutes} minutes"),
        120..=2879 => format!("{} hours", minutes / 60),
        2880..=86_399 => format!("{} days", minutes / 1440),
        _ => format!("{} months", minutes / 43_200),
    };
    format!("full in about {about} at the rate of the last week")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;
    const NOW: u64 = 1_000 * HOUR;

    /// `samples`: hours ago and bytes used; `expected`: hours ahead.
    fn check(samples: &[(u64, u64)], limit: u64, expected: Option<u64>) {
        let samples: Vec<Sample> =
            samples.iter().map(|(ago, used)| Sample { at: UnixMillis(NOW - ago * HOUR), used: ByteCount(*used) }).collect();
        let found = full_at(&samples, ByteCount(limit), UnixMillis(NOW)).map(|at| (at.0 - NOW + HOUR / 2) / HOUR);
        assert_eq!(found, expected, "{samples:?} of {limit}");
    }

    #[test]
    fn a_steady_growth_is_carried_on() {
        check(&[(10, 0), (0, 100)], 200, Some(10));
        check(&[(10, 0), (5, 50), (0, 100)], 400, Some(30));
        check(&[(0, 100), (10, 0)], 200, Some(10)); // in any order
        check(&[(30, 0), (20, 130), (10, 170), (0, 300)], 700, Some(43)); // not quite a line
    }
    #[test]
    fn what_does_not_grow_is_never_full() {
        check(&[(10, 100), (0, 100)], 200, None);
        check(&[(10, 150), (0, 100)], 200, None);
    }
    #[test]
    fn too_little_is_known() {
        check(&[], 200, None);
        check(&[(0, 100)], 200, None);
        check(&[(0, 90), (0, 100)], 200, None);
    }
    #[test]
    fn what_is_older_than_a_week_does_not_count() {
        check(&[(400, 0), (10, 100), (0, 110)], 210, Some(100));
    }
    #[test]
    fn full_is_full() {
        check(&[(0, 200)], 200, Some(0));
        check(&[(10, 100), (0, 250)], 200, Some(0));
    }
    #[test]
    fn years_ahead_is_never() {
        check(&[(100, 0), (0, 1)], 1_000_000, None);
        check(&[(100, 0), (0, 100)], u64::MAX, None);
    }

    #[test]
    fn words() {
        for (ahead, said) in
            [(0, "full"), (HOUR, "60 minutes"), (30 * HOUR, "30 hours"), (12 * 24 * HOUR, "12 days"), (2000 * HOUR, "2 months")]
        {
            let words = in_words(UnixMillis(NOW + ahead), UnixMillis(NOW));
            assert!(words.starts_with("full") && words.contains(said), "{words}");
        }
    }
}
