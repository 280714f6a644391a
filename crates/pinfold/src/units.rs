//! Sizes and spans of time as people write them.

use anyhow::{Context, bail};
use std::time::Duration;
use types::ByteCount;

/// Reads `5MB/s` (the `/s` may be left out): bytes in a second, at least one.
pub fn parse_rate(text: &str) -> anyhow::Result<ByteCount> {
    let rate = parse_bytes(text.trim().strip_suffix("/s").unwrap_or(text.trim()))?;
    anyhow::ensure!(rate > ByteCount::ZERO, "{text}: a rate is more than nothing");
    Ok(rate)
}

/// Reads `500GB`, `1GiB`, `1.5 TB`, `1000000`: decimal units by thousands, `iB` units by 1024.
pub fn parse_bytes(text: &str) -> anyhow::Result<ByteCount> {
    let trimmed = text.trim();
    let digits = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(digits);
    let number: f64 = number.parse().with_context(|| format!("{text:?} is no size: write it like 500GB or 1GiB"))?;
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "t" | "tb" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        other => bail!("{other:?} is no unit of size: use B, KB, MB, GB, TB, KiB, MiB, GiB or TiB"),
    };
    Ok(ByteCount((number * factor as f64) as u64))
}

/// Reads `90s`, `10m`, `24h`, `7d`, and joined ones as `1h30m`.
pub fn parse_duration(text: &str) -> anyhow::Result<Duration> {
    let mut seconds = 0.0;
    let mut number = String::new();
    for c in text.trim().chars() {
        if c.is_ascii_digit() || c == '.' {
            number.push(c);
            continue;
        }
        let factor = match c {
            's' => 1.0,
            'm' => 60.0,
            'h' => 3600.0,
            'd' => 86400.0,
            _ => bail!("{text:?} is no span of time: write it like 90s, 10m, 24h or 7d"),
        };
        let value: f64 = number.parse().with_context(|| format!("{text:?} is no span of time: write it like 90s, 10m, 24h or 7d"))?;
        seconds += value * factor;
        number.clear();
    }
    if !number.is_empty() || text.trim().is_empty() {
        bail!("{text:?} has no unit: write it like 90s, 10m, 24h or 7d");
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// Minutes by which the clock of this machine is ahead of UTC, as `date` says (the rules of time zones are many, and the system knows them);
/// asked again each hour. Zero where nobody says it.
pub fn utc_offset() -> i32 {
    static KNOWN: std::sync::Mutex<Option<(std::time::Instant, i32)>> = std::sync::Mutex::new(None);
    const FRESH: Duration = Duration::from_secs(3600);
    let Ok(mut known) = KNOWN.lock() else { return 0 };
    match &*known {
        Some((at, offset)) if at.elapsed() < FRESH => *offset,
        _ => {
            let said = std::process::Command::new("date").arg("+%z").output();
            let offset = said.ok().and_then(|said| parse_offset(String::from_utf8_lossy(&said.stdout).trim())).unwrap_or(0);
            *known = Some((std::time::Instant::now(), offset));
            offset
        }
    }
}

/// Reads `+0530` as minutes.
fn parse_offset(text: &str) -> Option<i32> {
    let (sign, digits) = text.split_at_checked(1)?;
    let (hours, minutes) = digits.split_at_checked(2)?;
    let minutes = hours.parse::<i32>().ok()? * 60 + minutes.parse::<i32>().ok()?;
    match sign {
        "+" => Some(minutes),
        "-" => Some(-minutes),
        _ => None,
    }
}

/// `90 s`, `12 min`, `3 h`, for people.
pub fn show_duration(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..=119 => format!("{:.1} s", span.as_secs_f64()),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_read_as_date_prints_them() {
        for (text, minutes) in [("+0000", Some(0)), ("+0530", Some(330)), ("-0800", Some(-480)), ("", None), ("0530", None), ("+x", None)] {
            assert_eq!(parse_offset(text), minutes, "{text:?}");
        }
    }

    #[test]
    fn sizes_as_people_write_them() {
        for (text, bytes) in [("0", 0), ("1GB", 1_000_000_000), ("1GiB", 1 << 30), ("1.5 KB", 1500), ("200m", 200_000_000)] {
            assert_eq!(parse_bytes(text).map(|size| size.0).ok(), Some(bytes), "{text}");
        }
        for text in ["", "GB", "1XB", "-1"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn spans_as_people_write_them() {
        for (text, seconds) in [("90s", 90), ("10m", 600), ("1h30m", 5400), ("7d", 604_800), ("0s", 0)] {
            assert_eq!(parse_duration(text).map(|span| span.as_secs()).ok(), Some(seconds), "{text}");
        }
        for text in ["", "10", "m", "3w"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
