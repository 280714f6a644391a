//! The recorded bytes of Go, which lie with `wire`.

use serde_json::Value;
use std::path::Path;

fn file(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates/wire/tests/vectors").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn json(name: &str) -> Value {
    serde_json::from_slice(&file(name)).expect("a vector file is JSON")
}

/// All values of hexadecimal digits in a file.
pub fn of_hex(name: &str) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    visit(&json(name), &mut |key, value| {
        if let (true, Value::String(text)) = (key.ends_with("hex"), value) {
            found.push(hex::decode(text).expect("digits"));
        }
    });
    assert!(!found.is_empty(), "{name}");
    found
}

fn visit(value: &Value, found: &mut impl FnMut(&str, &Value)) {
    match value {
        Value::Array(entries) => entries.iter().for_each(|entry| visit(entry, found)),
        Value::Object(entries) => {
            for (key, entry) in entries {
                found(key, entry);
                visit(entry, found);
            }
        }
        _ => {}
    }
}

/// Records of Kubo.
pub fn ipns_records() -> Vec<Vec<u8>> {
    let Value::Array(entries) = json("ipns.json") else { panic!("no array") };
    entries.iter().filter_map(|entry| entry["record"].as_str()).map(|text| hex::decode(text).expect("digits")).collect()
}

pub fn gossip() -> Vec<Vec<u8>> {
    of_hex("gossip.json")
}

pub fn rpc_values() -> Vec<Vec<u8>> {
    // Answers stand behind a head, arguments behind a request.
    let mut values = of_hex("types-msgpack.json");
    for frame in rpc_frames() {
        if let wire::msgpack::Scan::Complete(end) = wire::msgpack::scan(&frame, frame.len()) {
            values.push(frame[..end].to_vec());
            values.push(frame[end..].to_vec());
        }
    }
    values.retain(|value| !value.is_empty() && value.len() < 4096);
    values
}

pub fn rpc_frames() -> Vec<Vec<u8>> {
    let mut frames = of_hex("rpc.json");
    frames.retain(|frame| frame.len() < 4096);
    frames
}

pub fn state_export() -> Vec<Vec<u8>> {
    let file = file("state-export.ndjson");
    file.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect()
}

pub fn rest_json() -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for name in ["pins-protobuf.json", "types-msgpack.json"] {
        visit(&json(name), &mut |key, value| {
            if key == "json" || key == "rest" {
                found.push(wire::rest::to_go_json(value).into_bytes());
            }
        });
    }
    found.extend(state_export().into_iter().take(5));
    found
}

pub fn crdt_blocks() -> Vec<Vec<u8>> {
    let mut blocks = of_hex("crdt-blocks.json");
    blocks.retain(|block| wire::decode_node(block).is_ok());
    blocks
}

pub fn crdt_dag() -> Vec<u8> {
    file("crdt-dag.car")
}

pub fn identity() -> String {
    let mut found = Vec::new();
    visit(&json("identity.json"), &mut |key, value| {
        if let ("private_key", Value::String(text)) = (key, value) {
            found.push(text.clone());
        }
    });
    found.swap_remove(0)
}
