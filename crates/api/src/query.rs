//! Query strings and the small text forms in them, as Go reads them.

use std::borrow::Cow;
use std::time::Duration;

/// The parameters of a request, in order; the first of a name counts.
pub(crate) struct Query<'a> {
    pairs: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Query<'a> {
    pub fn parse(query: Option<&'a str>) -> Query<'a> {
        let pair = |part: &'a str| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            (decode_form(name), decode_form(value))
        };
        Query { pairs: query.unwrap_or("").split('&').filter(|part| !part.is_empty()).map(pair).collect() }
    }

    /// The value, empty when it is not there: empty values are unset ones.
    pub fn get(&self, name: &str) -> &str {
        self.pairs.iter().find(|(own, _)| own == name).map_or("", |(_, value)| value)
    }

    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The parts of a comma list, empty ones left out.
    pub fn list(&self, name: &str) -> impl Iterator<Item = &str> {
        self.get(name).split(',').filter(|part| !part.is_empty())
    }

    /// Whether the value is exactly `true`.
    pub fn is_true(&self, name: &str) -> bool {
        self.get(name) == "true"
    }

    /// Go's `ParseBool`; `default` when unset.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool, String> {
        match self.get(name) {
            "" => Ok(default),
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
            _ => Err(format!("parameter {name} invalid")),
        }
    }

    /// A number; `default` when unset.
    pub fn number<N: std::str::FromStr>(&self, name: &str, default: N) -> Result<N, String> {
        match self.get(name) {
            "" => Ok(default),
            text => text.parse().map_err(|_| format!("parameter {name} invalid")),
        }
    }
}

/// Decodes `%41` and `+`.
fn decode_form(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|byte| byte == b'%' || byte == b'+') {
        return Cow::Borrowed(text);
    }
    Cow::Owned(decode(&text.replace('+', " ")))
}

/// Decodes `%41`; what is no valid escape stays, what is not UTF-8 is replaced.
pub(crate) fn decode_percent(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|byte| byte == b'%') { Cow::Owned(decode(text)) } else { Cow::Borrowed(text) }
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).and_then(|byte| (*byte as char).to_digit(16));
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                at += 3;
            }
            _ => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8(decoded).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// Escapes one path segment for a link.
pub(crate) fn encode_segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for &byte in text.as_bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => encoded.push(byte as char),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// Go's durations: `1h30m`, `100ms`, `1.5s`.
pub(crate) fn go_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return None;
    }
    let mut nanos = 0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        nanos += number * unit;
        rest = &rest[end..];
    }
    // Go's durations end at 2^63 nanoseconds.
    (nanos < 9.22e18).then(|| Duration::from_nanos(nanos as u64))
}

/// Appends JSON text with `<`, `>`, `&` and the two line separators escaped, as Go's encoder does.
pub(crate) fn push_html_escaped(out: &mut Vec<u8>, json: &str) {
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => out.extend_from_slice(format!("\\u{:04x}", c as u32).as_bytes()),
            _ => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_the_first_counts() {
        let query = Query::parse(Some("name=a+b%2Fc&name=x&empty=&flag&meta-k=%E2%82%AC&bad=%zz%4"));
        for (name, value) in [("name", "a b/c"), ("empty", ""), ("flag", ""), ("meta-k", "€"), ("bad", "%zz%4"), ("absent", "")] {
            assert_eq!(query.get(name), value, "{name}");
        }
        assert_eq!(Query::parse(Some("a=1,,2,")).list("a").collect::<Vec<_>>(), ["1", "2"]);
    }

    #[test]
    fn durations_as_go_reads_them() {
        for (text, millis) in [
            ("1h30m", Some(5_400_000)),
            ("100ms", Some(100)),
            ("1.5s", Some(1500)),
            ("2m0s", Some(120_000)),
            ("0", Some(0)),
            ("10", None),
            ("", None),
            ("1d", None),
            ("-1s", None),
            ("1..5s", None),
            ("99999999999h", None),
        ] {
            assert_eq!(go_duration(text), millis.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn flags_as_go_reads_them() {
        let query = Query::parse(Some("a=true&b=F&c=yes"));
        assert_eq!(query.flag("a", false), Ok(true));
        assert_eq!(query.flag("b", true), Ok(false));
        assert_eq!(query.flag("c", true), Err("parameter c invalid".into()));
        assert_eq!(query.flag("d", true), Ok(true));
    }
}
