//! JSON as Go's encoder prints it.

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};
use std::io::{self, Write};

/// One line of JSON, without the newline: `<`, `>`, `&` and two line separators are escaped, floating-point numbers look as in Go.
///
/// A value that JSON cannot hold (a map whose keys are no texts) prints as `null`; no type here has one.
pub fn to_go_json<T: Serialize + ?Sized>(value: &T) -> String {
    let mut out = Vec::with_capacity(256);
    let mut serializer = Serializer::with_formatter(&mut out, GoFormatter);
    match value.serialize(&mut serializer) {
        Ok(()) => String::from_utf8(out).expect("the serializer writes UTF-8"),
        Err(_) => "null".to_owned(),
    }
}

struct GoFormatter;

impl Formatter for GoFormatter {
    fn write_string_fragment<W: Write + ?Sized>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut plain = 0;
        for (at, letter) in fragment.char_indices() {
            if matches!(letter, '<' | '>' | '&' | '\u{2028}' | '\u{2029}') {
                writer.write_all(&fragment.as_bytes()[plain..at])?;
                write!(writer, "\\u{:04x}", u32::from(letter))?;
                plain = at + letter.len_utf8();
            }
        }
        writer.write_all(&fragment.as_bytes()[plain..])
    }

    fn write_f64<W: Write + ?Sized>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        let size = value.abs();
        if size != 0.0 && !(1e-6..1e21).contains(&size) {
            let text = format!("{value:e}");
            // Rust prints 1e21, Go 1e+21.
            return match text.split_once('e') {
                Some((digits, exponent)) if !exponent.starts_with('-') => write!(writer, "{digits}e+{exponent}"),
                _ => writer.write_all(text.as_bytes()),
            };
        }
        write!(writer, "{value}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_escaped_as_in_go() {
        for (text, json) in [
            ("plain é 中", "\"plain é 中\""),
            ("<a href=\"x\">&</a>", r#""\u003ca href=\"x\"\u003e\u0026\u003c/a\u003e""#),
            ("a\u{2028}b\u{2029}", r#""a\u2028b\u2029""#),
            ("tab\tline\n\\\u{1}\u{7f}", "\"tab\\tline\\n\\\\\\u0001\u{7f}\""),
        ] {
            assert_eq!(to_go_json(text), json);
        }
    }

    #[test]
    fn numbers_look_as_in_go() {
        for (number, json) in
            [(0.0, "0"), (1.0, "1"), (0.1, "0.1"), (1234.5, "1234.5"), (1e21, "1e+21"), (1e-7, "1e-7"), (123_456_789.0, "123456789")]
        {
            assert_eq!(to_go_json(&number), json);
        }
        assert_eq!(to_go_json(&i64::MIN), i64::MIN.to_string());
    }
}
