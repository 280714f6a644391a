//! Text for people: tables, progress bars, states.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;
use std::io::IsTerminal;
use types::ByteCount;

/// Prints rows under a heading, columns as wide as needed; nothing for no rows.
pub fn table(heading: &[&str], rows: &[Vec<String>]) {
    if rows.is_empty() {
        return;
    }
    let mut widths: Vec<usize> = heading.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &[String]| {
        let mut text = String::new();
        for (index, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            if index + 1 == cells.len() {
                text.push_str(cell);
            } else {
                text.push_str(&format!("{cell:<width$}  ", width = *width));
            }
        }
        println!("{}", text.trim_end());
    };
    line(&heading.iter().map(ToString::to_string).collect::<Vec<_>>());
    for row in rows {
        line(row);
    }
}

/// A bar with bytes, rate and time left; silent when standard error is no terminal.
pub fn byte_bar(total: Option<u64>) -> ProgressBar {
    let bar = match total {
        Some(total) => ProgressBar::new(total),
        None => ProgressBar::no_length(),
    };
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
        return bar;
    }
    let style = match total {
        Some(_) => "{bar:32} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left  {msg}",
        None => "{spinner} {bytes}, {bytes_per_sec}  {msg}",
    };
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar
}

/// A bar that counts things; silent when standard error is no terminal.
pub fn count_bar(total: u64, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(total);
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
        return bar;
    }
    if let Ok(style) = ProgressStyle::with_template("{bar:32} {pos} of {len} {msg}, {eta} left") {
        bar.set_style(style);
    }
    bar.with_message(what)
}

/// Prints one JSON value on a line.
pub fn json_line(value: &Value) {
    println!("{value}");
}

/// A size out of a JSON number.
pub fn size(value: &Value) -> String {
    ByteCount(value.as_u64().unwrap_or(0)).to_string()
}

/// A text out of JSON; empty for null.
pub fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Bytes of a name for a terminal: text as it is; what is no text, and what would steer the terminal, as `\\xff`.
pub fn shown(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() {
                c.to_string().bytes().for_each(|byte| out.push_str(&format!("\\x{byte:02x}")));
            } else {
                out.push(c);
            }
        }
        chunk.invalid().iter().for_each(|byte| out.push_str(&format!("\\x{byte:02x}")));
    }
    out
}

/// A CID's or peer's end, for tables.
pub fn short(id: &str) -> String {
    let count = id.chars().count();
    if count <= 16 {
        id.to_owned()
    } else {
        format!("{}…{}", id.chars().take(4).collect::<String>(), id.chars().skip(count - 8).collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_are_shown_without_steering_the_terminal() {
        for (name, expected) in [(&b"a \xc3\xbc"[..], "a ü"), (b"\xff\x1b[2J", "\\xff\\x1b[2J"), (b"\xe2\x82", "\\xe2\\x82")] {
            assert_eq!(super::shown(name), expected);
        }
    }
}
