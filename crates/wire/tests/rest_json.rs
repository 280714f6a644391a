//! The JSON forms against what Go printed.

mod common;

use common::{bytes, entries, file, text};
use std::collections::BTreeMap;
use wire::export::{export_line, parse_line};
use wire::rest::to_go_json;

#[test]
fn stored_pins_print_as_in_go_and_read_back() {
    for entry in entries("pins-protobuf.json") {
        let name = text(&entry, "name");
        let stored = bytes(&entry, "hex");
        let pin = wire::decode_pin(&stored).expect("a pin");
        assert_eq!(export_line(&pin), to_go_json(&entry["json"]), "{name}");
        let read = parse_line(&entry["json"].to_string()).expect("a line");
        assert_eq!(read, pin, "{name}");
        if name != "legacy-metadata-map" {
            assert_eq!(hex::encode(wire::encode_pin(&read)), hex::encode(stored), "{name}: from JSON to the stored form");
        }
    }
}

#[test]
fn the_exported_state_is_the_merged_dag_byte_for_byte() {
    let export = String::from_utf8(file("state-export.ndjson")).expect("text");
    let mut exported = BTreeMap::new();
    for line in export.lines() {
        let pin = parse_line(line).expect("a pin");
        assert_eq!(export_line(&pin), line);
        exported.insert(wire::pin_key(&pin.cid), wire::encode_pin(&pin));
    }
    let merged = common::dag::merge(&common::dag::blocks());
    assert_eq!(merged.len(), 56);
    assert_eq!(exported, merged);
}
