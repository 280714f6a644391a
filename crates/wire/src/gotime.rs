//! Go's times: seconds and nanoseconds, whose zero is the year 1, and their RFC 3339 text.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use types::UnixMillis;

/// A moment, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GoTime {
    /// Seconds since 1970.
    pub seconds: i64,
    /// Nanoseconds in that second.
    pub nanos: u32,
}

/// Why a text is no time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("parsing time {0:?} as \"2006-01-02T15:04:05Z07:00\"")]
pub struct BadTime(pub String);

impl Default for GoTime {
    fn default() -> GoTime {
        GoTime::ZERO
    }
}

impl GoTime {
    /// Go's zero time: the first moment of the year 1.
    pub const ZERO: GoTime = GoTime { seconds: -62_135_596_800, nanos: 0 };
    /// The first second after the year 9999, which the text form cannot show.
    const SECONDS_END: i64 = 253_402_300_800;

    /// A moment; none outside the years 1 to 9999 or for nanoseconds of a second or more.
    pub fn new(seconds: i64, nanos: u32) -> Option<GoTime> {
        let is_good = (GoTime::ZERO.seconds..GoTime::SECONDS_END).contains(&seconds) && nanos < 1_000_000_000;
        is_good.then_some(GoTime { seconds, nanos })
    }

    /// Whether it is Go's zero time ("not said").
    pub fn is_zero(self) -> bool {
        self == GoTime::ZERO
    }

    /// The moment, with 0 for the zero time and everything before 1970.
    pub fn to_millis(self) -> UnixMillis {
        UnixMillis(u64::try_from(self.seconds).map_or(0, |seconds| seconds * 1000 + u64::from(self.nanos / 1_000_000)))
    }

    /// The moment, none for the zero time.
    pub fn to_millis_if(self) -> Option<UnixMillis> {
        (!self.is_zero()).then(|| self.to_millis())
    }

    /// Appends what `Display` prints, without the detour over its formatter: lists of pins hold millions of times.
    pub fn push(self, out: &mut Vec<u8>) {
        let (days, second) = (self.seconds.div_euclid(86_400), self.seconds.rem_euclid(86_400) as u32);
        let (year, month, day) = date_of_days(days);
        let two = |number: u32| [b'0' + (number / 10 % 10) as u8, b'0' + (number % 10) as u8];
        let mut text = *b"0000-00-00T00:00:00";
        text[..2].copy_from_slice(&two(year as u32 / 100));
        for (at, number) in
            [(2, year as u32 % 100), (5, month as u32), (8, day as u32), (11, second / 3600), (14, second / 60 % 60), (17, second % 60)]
        {
            text[at..at + 2].copy_from_slice(&two(number));
        }
        out.extend_from_slice(&text);
        if self.nanos != 0 {
            let digits = format!("{:09}", self.nanos);
            out.push(b'.');
            out.extend_from_slice(digits.trim_end_matches('0').as_bytes());
        }
        out.push(b'Z');
    }

    /// Reads RFC 3339 with any offset and up to nine digits of a second.
    pub fn parse(text: &str) -> Result<GoTime, BadTime> {
        parse(text).ok_or_else(|| BadTime(text.chars().take(64).collect()))
    }
}

impl From<UnixMillis> for GoTime {
    /// 0 is "not said", Go's zero time. What lies after the year 9999 becomes its last second.
    fn from(millis: UnixMillis) -> GoTime {
        if millis.0 == 0 {
            return GoTime::ZERO;
        }
        let seconds = (millis.0 / 1000).min(GoTime::SECONDS_END as u64 - 1);
        GoTime { seconds: seconds as i64, nanos: (millis.0 % 1000) as u32 * 1_000_000 }
    }
}

impl From<Option<UnixMillis>> for GoTime {
    fn from(millis: Option<UnixMillis>) -> GoTime {
        millis.unwrap_or_default().into()
    }
}

impl fmt::Display for GoTime {
    /// RFC 3339 as Go prints it: trailing zeros of the fraction are left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, second) = (self.seconds.div_euclid(86_400), self.seconds.rem_euclid(86_400));
        let (year, month, day) = date_of_days(days);
        write!(f, "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)?;
        if self.nanos != 0 {
            let digits = format!("{:09}", self.nanos);
            write!(f, ".{}", digits.trim_end_matches('0'))?;
        }
        f.write_str("Z")
    }
}

impl Serialize for GoTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<GoTime, D::Error> {
        GoTime::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

fn parse(text: &str) -> Option<GoTime> {
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = text.get(from..to)?;
        digits.bytes().all(|digit| digit.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let mark = |at: usize, marks: &[u8]| text.as_bytes().get(at).filter(|byte| marks.contains(byte)).map(|_| ());
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    for (at, marks) in [(4, b"-"), (7, b"-"), (10, b"T"), (13, b":"), (16, b":")] {
        mark(at, marks)?;
    }
    let is_date = (1..=12).contains(&month) && (1..=days_in_month(year, month)).contains(&day);
    if !is_date || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut rest = text.get(19..)?;
    let mut nanos = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let length = fraction.bytes().take_while(u8::is_ascii_digit).count();
        if length == 0 {
            return None;
        }
        let digits: String = fraction[..length].chars().chain(std::iter::repeat('0')).take(9).collect();
        nanos = digits.parse().ok()?;
        rest = &fraction[length..];
    }
    let offset = match rest.as_bytes() {
        b"Z" => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] if [h1, h2, m1, m2].iter().all(|digit| digit.is_ascii_digit()) => {
            let two = |tens: &u8, ones: &u8| i64::from(tens - b'0') * 10 + i64::from(ones - b'0');
            let (hours, minutes) = (two(h1, h2), two(m1, m2));
            if hours > 24 || minutes > 60 {
                return None;
            }
            (hours * 3600 + minutes * 60) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    GoTime::new(days_of_date(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset, nanos)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    let is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970 of a date in the Gregorian calendar (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn days_of_date(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The reverse of [`days_of_date`].
fn date_of_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_print_as_in_go_and_read_back() {
        for (seconds, nanos, text) in [
            (-62_135_596_800, 0, "0001-01-01T00:00:00Z"),
            (1_700_000_000, 0, "2023-11-14T22:13:20Z"),
            (1_700_000_000, 123_456_789, "2023-11-14T22:13:20.123456789Z"),
            (1_700_000_000, 120_000_000, "2023-11-14T22:13:20.12Z"),
            (951_782_400, 0, "2000-02-29T00:00:00Z"),
            (-1, 0, "1969-12-31T23:59:59Z"),
            (253_402_300_799, 0, "9999-12-31T23:59:59Z"),
        ] {
            let time = GoTime { seconds, nanos };
            assert_eq!(time.to_string(), text);
            let mut pushed = Vec::new();
            time.push(&mut pushed);
            assert_eq!(pushed, text.as_bytes());
            assert_eq!(GoTime::parse(text), Ok(time));
        }
    }

    #[test]
    fn offsets_are_taken_off() {
        let expected = GoTime::parse("2023-11-14T22:13:20Z");
        assert_eq!(GoTime::parse("2023-11-15T07:13:20+09:00"), expected);
        assert_eq!(GoTime::parse("2023-11-14T20:43:20-01:30"), expected);
    }

    #[test]
    fn texts_that_are_no_time_are_refused() {
        for text in [
            "",
            "now",
            "2023-11-14",
            "2023-02-29T00:00:00Z",
            "2023-11-14T24:00:00Z",
            "2023-11-14T22:13:20",
            "2023-11-14 22:13:20Z",
            "2023-11-14T22:13:20.Z",
            "2023-11-14T22:13:20+0900",
            "2023-11-14T22:13:20Zx",
            "+023-11-14T22:13:20Z",
            "2023-1é-14T22:13:20Z",
            "0001-01-01T00:00:00+01:00",
        ] {
            assert!(GoTime::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_day_of_a_century_reads_back() {
        for day in 0..36_525 {
            let time = GoTime { seconds: day * 86_400 - 1_000_000_000, nanos: 0 };
            assert_eq!(GoTime::parse(&time.to_string()), Ok(time));
        }
    }
}
