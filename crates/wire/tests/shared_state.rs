//! The shared state against bytes of live Go peers.

mod common;

use common::{bytes, entries, json, text};
use std::collections::{BTreeMap, BTreeSet};
use types::Cid;
use wire::{CrdtNode, Delta, Element};

fn cid(text: &str) -> Cid {
    wire::cids::cid_from_text(text).expect("a CID")
}

#[test]
fn stored_pins_read_and_write_back() {
    for entry in entries("pins-protobuf.json") {
        let name = text(&entry, "name");
        let stored = bytes(&entry, "hex");
        let pin = wire::decode_pin(&stored).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(pin.cid, cid(text(&entry["json"], "cid")), "{name}");
        let written = wire::encode_pin(&pin);
        if name == "legacy-metadata-map" {
            assert_eq!(pin.options.metadata, BTreeMap::from([("k".to_owned(), "v".to_owned())]));
            assert_eq!(wire::decode_pin(&written), Ok(pin), "written in the sorted form");
        } else {
            assert_eq!(hex::encode(written), hex::encode(stored), "{name}");
        }
    }
}

#[test]
fn crdt_blocks_are_rebuilt_byte_for_byte() {
    for entry in entries("crdt-blocks.json") {
        let name = text(&entry, "name");
        let block = bytes(&entry, "block_hex");
        let decoded = &entry["decoded"];
        let list = |key: &str| decoded[key].as_array().expect("a list").clone();
        let links: Vec<Cid> = list("links").iter().map(|link| cid(link.as_str().expect("a link"))).collect();
        let elements = list("elements").into_iter().map(|element| {
            let value = bytes(&element, "pin_protobuf_hex");
            Element { key: text(&element, "key").to_owned(), id: String::new(), value }
        });
        let tombstones = list("tombstones").iter().map(tombstone).collect();
        let priority = decoded["priority"].as_u64().expect("a priority");
        let delta = Delta { elements: elements.collect(), tombstones, priority, author: None };

        let (written_cid, written) = wire::encode_node(&links, &delta);
        assert_eq!(hex::encode(written), hex::encode(&block), "{name}");
        assert_eq!(written_cid, cid(text(&entry, "cid")), "{name}");
        assert_eq!(wire::decode_node(&block), Ok(CrdtNode { links, delta }), "{name}");
    }
}

fn tombstone(entry: &serde_json::Value) -> Element {
    Element { key: text(entry, "key").to_owned(), id: text(entry, "id").to_owned(), value: Vec::new() }
}

#[test]
fn keys_of_the_set_are_the_cids_of_the_pins() {
    let blocks = common::dag::blocks();
    let elements = blocks.iter().flat_map(|(_, node)| &node.delta.elements);
    for element in elements {
        let pin = wire::decode_pin(&element.value).expect("a pin");
        assert_eq!(wire::pin_key(&pin.cid), element.key);
        assert_eq!(wire::cid_of_key(&element.key), Ok(pin.cid));
        assert_eq!(hex::encode(wire::encode_pin(&pin)), hex::encode(&element.value));
    }
    let ids: BTreeSet<String> = blocks.iter().map(|(cid, _)| wire::element_id(cid)).collect();
    let tombstones: Vec<&Element> = blocks.iter().flat_map(|(_, node)| &node.delta.tombstones).collect();
    assert_eq!(tombstones.len(), 21);
    assert!(tombstones.iter().all(|tombstone| ids.contains(&tombstone.id)));
}

#[test]
fn heads_read_and_write_back() {
    let gossip = entries("gossip.json");
    let heads: Vec<_> = gossip.iter().filter(|entry| text(entry, "name").starts_with("heads-")).collect();
    assert_eq!(heads.len(), 4);
    for entry in heads {
        let data = bytes(entry, "data_hex");
        let decoded = wire::decode_heads(&data).expect("heads");
        let expected = if text(entry, "name").starts_with("heads-2") { 2 } else { 1 };
        assert_eq!(decoded.len(), expected);
        assert_eq!(wire::encode_heads(&decoded), data);
        assert_eq!(text(entry, "topic"), wire::crdt_topic("ipfs-cluster"));
    }
}

#[test]
fn topics_are_named_as_in_go() {
    for (name, topic) in json("identity.json")["crdt_topic_by_cluster_name"].as_object().expect("names") {
        assert_eq!(wire::crdt_topic(name), topic.as_str().expect("a topic"), "{name}");
    }
}

#[test]
fn identities_read_and_write_back() {
    let vectors = json("identity.json");
    for name in ["go1", "go2", "rust"] {
        let peer = &vectors["peers"][name];
        let key = wire::identity::decode_private_key(text(peer, "private_key")).expect("a key");
        assert_eq!(key.peer_id().to_string(), text(peer, "id"));
        assert_eq!(ed25519_dalek::SigningKey::from_bytes(&key.seed()).verifying_key().to_bytes(), key.public());
        assert_eq!(wire::identity::encode_private_key(&key), text(peer, "private_key"));
    }
    let example = wire::identity::decode_identity(&vectors["identity_json_example"].to_string()).expect("an identity");
    let written: serde_json::Value = serde_json::from_str(&wire::identity::encode_identity(&example)).expect("JSON");
    assert_eq!(written, vectors["identity_json_example"]);
    let secret = wire::identity::decode_secret(text(&vectors, "secret_hex")).expect("a secret");
    assert_eq!(wire::identity::swarm_key_text(&secret), text(&vectors, "swarm_key_file"));
}
