//! Reading the recorded bytes of `tests/vectors`.
#![allow(dead_code, reason = "each test file uses some of it")]

pub mod dag;

use serde_json::Value;

pub fn file(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/vectors/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

pub fn json(name: &str) -> Value {
    serde_json::from_slice(&file(name)).expect("a vector file is JSON")
}

/// The entries of a vector file that is one array.
pub fn entries(name: &str) -> Vec<Value> {
    let Value::Array(entries) = json(name) else { panic!("{name} is no array") };
    assert!(!entries.is_empty(), "{name}");
    entries
}

pub fn text<'a>(entry: &'a Value, key: &str) -> &'a str {
    entry[key].as_str().unwrap_or_else(|| panic!("no text {key} in {entry}"))
}

pub fn bytes(entry: &Value, key: &str) -> Vec<u8> {
    hex::decode(text(entry, key)).expect("hexadecimal digits")
}
