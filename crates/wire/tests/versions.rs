//! What Go peers of several versions were recorded to say reads, and is written back byte for byte (`go_cluster.rs` of `net` records it).

mod common;

use common::{bytes, json, text};
use serde_json::Value;
use std::collections::BTreeSet;
use types::{Cid, PeerId};
use wire::rpc::{self, Message};

fn hex_of(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().expect("a text")).expect("hex")
}

/// Each version with what it said.
fn each(check: impl Fn(&str, &Value)) {
    let all = json("versions.json");
    let versions: Vec<&String> = all.as_object().expect("versions").keys().collect();
    assert_eq!(versions, ["1.1.4", "1.1.5", "1.1.6"]);
    for (version, said) in all.as_object().expect("versions") {
        check(version, said);
    }
}

#[test]
fn metrics_of_every_version_are_the_same_in_form() {
    each(|version, said| {
        let metrics = said["metrics"].as_object().expect("metrics");
        let names: Vec<&str> = metrics.keys().map(String::as_str).collect();
        assert_eq!(names, ["freespace", "ping", "pinqueue", "tag:group"], "{version}");
        for (name, payload) in metrics {
            let payload = hex_of(payload);
            let metric = wire::metric::decode_metric(&payload).unwrap_or_else(|error| panic!("{version} {name}: {error}"));
            assert!(metric.valid && metric.peer.is_some() && metric.name == *name);
            assert_eq!(hex::encode(wire::metric::encode_metric(&metric)), hex::encode(payload), "{version} {name}");
        }
    });
}

#[test]
fn the_shared_state_of_every_version_is_the_same_in_form() {
    each(|version, said| {
        for heads in said["heads"].as_array().expect("heads") {
            let data = hex_of(heads);
            assert_eq!(wire::encode_heads(&wire::decode_heads(&data).expect("heads")), data, "{version}");
        }
        let (mut names, mut tombstones) = (BTreeSet::new(), 0);
        for (cid, block) in said["blocks"].as_object().expect("blocks") {
            let block = hex_of(block);
            let node = wire::decode_node(&block).unwrap_or_else(|error| panic!("{version} {cid}: {error}"));
            let (written_cid, written) = wire::encode_node(&node.links, &node.delta);
            assert_eq!((written_cid.to_string(), hex::encode(written)), (cid.clone(), hex::encode(&block)), "{version}");
            tombstones += node.delta.tombstones.len();
            for element in &node.delta.elements {
                let pin = wire::decode_pin(&element.value).expect("a pin");
                assert_eq!(wire::pin_key(&pin.cid), element.key, "{version}");
                assert_eq!(hex::encode(wire::encode_pin(&pin)), hex::encode(&element.value), "{version}: {pin:?}");
                names.insert(pin.options.name);
            }
        }
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(names, ["again", "full", "plain"], "{version}");
        assert!(tombstones > 0, "{version}: a removal");
    });
}

fn reads<M: Message + PartialEq + std::fmt::Debug>(version: &str, method: &str, reply: &[u8]) -> M {
    let value: M = rpc::decode(reply).unwrap_or_else(|error| panic!("{version} {method}: {error}"));
    let (written, of_go) = (hex::encode(rpc::encode(&value)), hex::encode(reply));
    // Go's codec now and then writes an error that is empty, and a map of texts in any order (`peer_rpc.rs` says when).
    if !of_go.contains("a165a0") && !of_go.contains("a26d6482") {
        assert_eq!(written, of_go, "{version} {method}");
    }
    assert_eq!(rpc::decode::<M>(&rpc::encode(&value)).as_ref(), Ok(&value), "{version} {method}");
    value
}

#[test]
fn calls_of_every_version_are_answered_in_the_same_form() {
    let mut methods = BTreeSet::new();
    let seen = std::cell::RefCell::new(&mut methods);
    each(|version, said| {
        for call in said["calls"].as_array().expect("calls") {
            let (method, reply) = (text(call, "method"), bytes(call, "reply_hex"));
            seen.borrow_mut().insert(method.to_owned());
            match method {
                "Cluster.ID" | "Cluster.IDStream" | "Cluster.Peers" => {
                    let id: rpc::Id = reads(version, method, &reply);
                    assert!(id.error.is_empty() && id.ipfs.is_some_and(|ipfs| ipfs.id.is_some()), "{version} {method}");
                }
                "Cluster.Version" => assert_eq!(reads::<rpc::Version>(version, method, &reply).version, version),
                "PinTracker.Status" | "PinTracker.StatusAll" => {
                    let info: rpc::PinInfo = reads(version, method, &reply);
                    assert!(info.cid.is_some_and(|cid: Cid| cid.to_string().starts_with("bafkqa")), "{version} {method}");
                }
                "IPFSConnector.RepoStat" => assert!(reads::<rpc::RepoStat>(version, method, &reply).storage_max > 0),
                "IPFSConnector.SwarmPeers" => drop(reads::<Vec<PeerId>>(version, method, &reply)),
                other => panic!("{other} is not read"),
            }
        }
    });
    assert_eq!(methods.len(), 8, "{methods:?}");
}

#[test]
fn every_version_speaks_what_a_member_needs() {
    each(|version, said| {
        let spoken: Vec<&str> = said["protocols"].as_array().expect("protocols").iter().filter_map(Value::as_str).collect();
        for needed in ["/ipfscluster/1.0/rpc", "/ipfs/bitswap/1.2.0", "/meshsub/1.1.0", "/ipfs/lan/kad/1.0.0", "/ipfs/id/1.0.0"] {
            assert!(spoken.contains(&needed), "{version} does not speak {needed}: {spoken:?}");
        }
    });
}
