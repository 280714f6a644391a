//! Small text forms of URLs.

use std::borrow::Cow;
use std::time::Duration;

/// Decodes `%41`; what is no valid escape stays, what is not UTF-8 is replaced.
pub(crate) fn decode_percent(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|byte| byte == b'%') { Cow::Owned(decode(text)) } else { Cow::Borrowed(text) }
}

fn decode(text: &str) -> String {
    String::from_utf8(decode_bytes(text.as_bytes())).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// The same for names that need not be text.
pub(crate) fn decode_bytes(bytes: &[u8]) -> Vec<u8> {
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
    decoded
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

/// A span in Go's form: `1h30m`, `100ms`; negative ones are none.
pub(crate) fn go_duration(text: &str) -> Option<Duration> {
    let nanos = wire::rest::query::parse_duration(text).ok()?;
    u64::try_from(nanos).ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_decoded_and_encoded() {
        for (text, decoded) in [("a%20b", "a b"), ("a+b", "a+b"), ("%E2%82%AC", "€"), ("%zz%4", "%zz%4"), ("%", "%"), ("%ff", "\u{fffd}")]
        {
            assert_eq!(decode_percent(text), decoded, "{text}");
        }
        for name in ["plain.txt", "a b/c?d#e", "€ \"<>", "100%"] {
            assert_eq!(decode_percent(&encode_segment(name)), name);
        }
    }
}
