//! A Go peer's folder becomes a Pinfold peer's: the same id, the same secret, the same pins; its own files stay as they were.

mod common;

use common::{Peer, files, pinfold};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Output;

const RAFT: &str = include_str!("../../wire/tests/vectors/raft-snapshot.json");
const EXPORT: &str = include_str!("../../wire/tests/vectors/state-export.ndjson");
const IDENTITY: &str = include_str!("../../wire/tests/vectors/identity.json");

/// A Go folder; the id of its peer.
fn go_folder(folder: &Path, consensus: &Value) -> String {
    let vector: Value = serde_json::from_str(IDENTITY).expect("JSON");
    let identity = &vector["peers"]["go1"];
    let service = json!({
        "cluster": {
            "peername": "nas1", "secret": vector["secret_hex"], "listen_multiaddress": "/ip4/127.0.0.1/tcp/0",
            "replication_factor_min": 1, "replication_factor_max": 2,
        },
        "consensus": consensus,
        "api": { "restapi": { "http_listen_multiaddress": "/ip4/127.0.0.1/tcp/9094" } },
        "ipfs_connector": { "ipfshttp": { "node_multiaddress": "/ip4/127.0.0.1/tcp/5001" } },
    });
    std::fs::create_dir_all(folder).expect("made");
    std::fs::write(folder.join("service.json"), service.to_string()).expect("written");
    std::fs::write(folder.join("identity.json"), json!({"id": identity["id"], "private_key": identity["private_key"]}).to_string())
        .expect("written");
    std::fs::write(folder.join("cluster.lock"), "").expect("written");
    identity["id"].as_str().expect("an id").to_owned()
}

fn migrate(from: &Path, to: &Path, more: &[&str]) -> Output {
    let mut command = pinfold();
    command.arg("migrate").arg(from).arg("--dir").arg(to).args(more);
    // No program of Go's, whatever this machine has.
    command.env("PATH", "/nonexistent").output().expect("it starts")
}

fn exported(peer: &Peer) -> Vec<String> {
    let mut lines: Vec<String> = peer.say(&["state", "export"]).lines().map(ToOwned::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn a_crdt_peer_keeps_identity_and_pins_and_its_folder_is_untouched() {
    let folder = tempfile::tempdir().expect("a folder");
    let (go, new) = (folder.path().join("go"), folder.path().join("nas1"));
    let id = go_folder(&go, &json!({ "crdt": { "cluster_name": "theirs", "trusted_peers": [] } }));
    let before = files(&go);
    let state = folder.path().join("pins.ndjson");
    std::fs::write(&state, EXPORT).expect("written");
    let state = state.to_str().expect("a path");

    let refused = migrate(&go, &new, &[]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("state export -f pins.ndjson") && said.contains("--no-state"), "{said}");
    assert!(!new.join("identity.json").exists(), "half a migration is no peer");

    let done = migrate(&go, &new, &["--state", state, "--json"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let done: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    let mut lines: Vec<String> = EXPORT.lines().map(ToOwned::to_owned).collect();
    lines.sort();
    assert_eq!((&done["peer"], &done["pins"]), (&Value::from(id.clone()), &Value::from(lines.len())), "{done}");
    assert_eq!(files(&go), before);

    // The Kubo of its configuration is not there: the embedded node takes its place.
    let peer = Peer::start(folder.path(), "nas1", &["up"], &["--node", "embedded"]);
    assert_eq!(peer.id(), id);
    assert_eq!(exported(&peer), lines);
    assert_eq!(peer.terminate(), Some(0));
    // Once is enough: what is removed later does not come back with the next start.
    let peer = Peer::start(folder.path(), "nas1", &["up"], &["--node", "embedded"]);
    let cid = serde_json::from_str::<Value>(&lines[0]).expect("JSON")["cid"].as_str().expect("a CID").to_owned();
    peer.say(&["pin", "rm", &cid]);
    assert_eq!(peer.terminate(), Some(0));
    let peer = Peer::start(folder.path(), "nas1", &["up"], &["--node", "embedded"]);
    assert!(!exported(&peer).iter().any(|line| line.contains(&cid)), "{cid} is back");

    let again = migrate(&go, &new, &["--no-state"]);
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(!again.status.success() && said.contains("holds a peer already"), "{said}");
}

#[test]
fn a_raft_peer_brings_the_pins_of_its_newest_snapshot() {
    let folder = tempfile::tempdir().expect("a folder");
    let (go, new) = (folder.path().join("go"), folder.path().join("nas1"));
    let id = go_folder(&go, &json!({ "raft": {} }));
    let vector: Value = serde_json::from_str(RAFT).expect("JSON");
    let snapshot = hex::decode(vector["hex"].as_str().expect("hex")).expect("hex");
    for (name, body) in [("2-9-1700000000001", &b"older"[..]), ("2-10-1700000000000", &snapshot[..])] {
        let at = go.join("raft/snapshots").join(name);
        std::fs::create_dir_all(&at).expect("made");
        std::fs::write(at.join("state.bin"), body).expect("written");
    }
    // Its lock file is there still: it was killed, and the snapshot may be old.
    let refused = migrate(&go, &new, &[]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("not stopped cleanly") && said.contains("Raft log"), "{said}");
    assert!(!new.join("identity.json").exists(), "half a migration is no peer");
    std::fs::remove_file(go.join("cluster.lock")).expect("removed");
    let done = migrate(&go, &new, &[]);
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(said.contains("pins: 2") && said.contains("pinfold invite"), "{said}");
    let peer = Peer::start(folder.path(), "nas1", &["up"], &["--node", "embedded"]);
    assert_eq!(peer.id(), id);
    let lines = exported(&peer);
    assert!(
        lines.len() == 2 && lines.iter().any(|line| line.contains("snap0")) && lines.iter().any(|line| line.contains("snap1")),
        "{lines:?}"
    );
}

#[test]
fn a_raft_peer_whose_pins_stand_in_its_log_alone_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let (go, new) = (folder.path().join("go"), folder.path().join("new"));
    go_folder(&go, &json!({ "raft": { "data_folder": "log" } }));
    std::fs::remove_file(go.join("cluster.lock")).expect("removed");
    std::fs::create_dir_all(go.join("log")).expect("made");
    std::fs::write(go.join("log/raft.db"), "a log").expect("written");
    let refused = migrate(&go, &new, &[]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("--state") && said.contains("--no-state"), "{said}");
    assert!(migrate(&go, &new, &["--no-state"]).status.success(), "without pins, if that is wished");
}

#[test]
fn what_cannot_be_taken_over_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let (go, new) = (folder.path().join("go"), folder.path().join("new"));
    let said = |output: Output| {
        assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(said(migrate(&go, &new, &[])).contains("service.json"));
    go_folder(&go, &json!({ "crdt": {} }));
    let bad = folder.path().join("bad.ndjson");
    std::fs::write(&bad, format!("{}\nno pin\n", EXPORT.lines().next().expect("a line"))).expect("written");
    assert!(said(migrate(&go, &new, &["--state", bad.to_str().expect("a path")])).contains("line 2"));
    std::fs::write(go.join("identity.json"), "{}").expect("written");
    assert!(said(migrate(&go, &new, &["--no-state"])).contains("identity.json"));
    assert!(!new.join("identity.json").exists());
}
