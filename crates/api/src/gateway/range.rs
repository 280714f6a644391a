//! `Range` of a request.

use hyper::header::{self, HeaderMap};
use std::ops::Range;

/// Which bytes are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of them: no range, several ranges, or one that is not understood.
    All,
    /// These.
    Part(Range<u64>),
    /// None that exist.
    Unsatisfiable,
}

/// Reads `Range`, and `If-Range`, which must name the validator.
pub(super) fn wanted(headers: &HeaderMap, size: u64, etag: &str) -> Wanted {
    if headers.get(header::IF_RANGE).is_some_and(|known| known.as_bytes() != etag.as_bytes()) {
        return Wanted::All;
    }
    headers.get(header::RANGE).and_then(|value| value.to_str().ok()).map_or(Wanted::All, |text| parse(text, size))
}

fn parse(text: &str, size: u64) -> Wanted {
    let Some((from, to)) = text.trim().strip_prefix("bytes=").filter(|rest| !rest.contains(',')).and_then(|rest| rest.split_once('-'))
    else {
        return Wanted::All;
    };
    let number = |text: &str| text.trim().parse::<u64>();
    match (from.trim(), to.trim()) {
        ("", last) => match number(last) {
            Ok(0) => Wanted::Unsatisfiable,
            Ok(_) if size == 0 => Wanted::Unsatisfiable,
            Ok(last) => Wanted::Part(size.saturating_sub(last)..size),
            Err(_) => Wanted::All,
        },
        (from, "") => match number(from) {
            Ok(from) if from < size => Wanted::Part(from..size),
            Ok(_) => Wanted::Unsatisfiable,
            Err(_) => Wanted::All,
        },
        (from, to) => match (number(from), number(to)) {
            (Ok(from), Ok(to)) if from > to => Wanted::All,
            (Ok(from), Ok(to)) if from < size => Wanted::Part(from..to.saturating_add(1).min(size)),
            (Ok(_), Ok(_)) => Wanted::Unsatisfiable,
            _ => Wanted::All,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_as_rfc_9110_says() {
        for (text, size, expected) in [
            ("bytes=0-4", 10, Wanted::Part(0..5)),
            ("bytes=5-", 10, Wanted::Part(5..10)),
            ("bytes=-3", 10, Wanted::Part(7..10)),
            ("bytes=-30", 10, Wanted::Part(0..10)),
            ("bytes=9-100", 10, Wanted::Part(9..10)),
            ("bytes=0-18446744073709551615", 10, Wanted::Part(0..10)),
            ("bytes=10-", 10, Wanted::Unsatisfiable),
            ("bytes=10-12", 10, Wanted::Unsatisfiable),
            ("bytes=-0", 10, Wanted::Unsatisfiable),
            ("bytes=0-", 0, Wanted::Unsatisfiable),
            ("bytes=-5", 0, Wanted::Unsatisfiable),
            ("bytes=5-4", 10, Wanted::All),
            ("bytes=0-1,3-4", 10, Wanted::All),
            ("bytes=a-b", 10, Wanted::All),
            ("bytes=-", 10, Wanted::All),
            ("lines=0-1", 10, Wanted::All),
        ] {
            assert_eq!(parse(text, size), expected, "{text} of {size}");
        }
    }

    #[test]
    fn a_range_counts_only_for_the_version_it_was_made_for() {
        let headers = |if_range: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, "bytes=0-1".parse().unwrap());
            headers.insert(header::IF_RANGE, if_range.parse().unwrap());
            headers
        };
        assert_eq!(wanted(&headers("\"a\""), 10, "\"a\""), Wanted::Part(0..2));
        assert_eq!(wanted(&headers("\"b\""), 10, "\"a\""), Wanted::All);
    }
}
