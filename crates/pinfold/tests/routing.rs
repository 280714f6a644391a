//! Clusters that do not know each other: content and names of one are found by another through a DHT, and by strangers over HTTP.

mod common;

use common::{Peer, http};
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};

/// A cluster of its own, with its own `[routing]`.
fn cluster(folder: &Path, name: &str, routing: &str) -> Peer {
    let dir = folder.join(name);
    std::fs::create_dir_all(&dir).expect("made");
    std::fs::write(dir.join("pinfold.toml"), format!("[routing]\n{routing}\n")).expect("written");
    Peer::up(folder, name)
}

/// As `bootstrap` of others.
fn first(peer: &Peer) -> String {
    format!("bootstrap = [{}]", peer.ready["swarm"][0])
}

/// Asks until it holds: records reach the DHT a moment after the content is stored.
fn until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn known(peer: &Peer) -> u64 {
    peer.json(&["routing", "status", "--json"])["dht"][0]["peers"].as_u64().unwrap_or(0)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[test]
fn content_and_names_of_one_cluster_are_found_by_another() {
    let folder = tempfile::tempdir().expect("a folder");
    let hub = cluster(folder.path(), "hub", "mode = \"server\"");
    let giver = cluster(folder.path(), "giver", &first(&hub));
    let reader = cluster(folder.path(), "reader", &first(&hub));
    until("all know others", || [&hub, &giver, &reader].iter().all(|peer| known(peer) >= 1));

    // Larger than one block, so that more than the root is fetched from whoever is found.
    let path = folder.path().join("data");
    std::fs::write(&path, vec![7; 700_000]).expect("written");
    let root = text(&giver.json(&["add", path.to_str().expect("a path"), "--json"])["cid"]);
    let node = text(&giver.ready["node"]);
    let is_named = |found: &Value| found.as_array().is_some_and(|rows| rows.iter().any(|row| row["node"] == node.as_str()));
    until("the giver is named", || {
        let found = reader.run(&["routing", "findprovs", &root, "--json"]);
        serde_json::from_slice(&found.stdout).is_ok_and(|found| is_named(&found))
    });
    let (status, body) = http(reader.gateway(), "GET", &format!("/ipfs/{root}"), &[], b"");
    assert!(status == 200 && body == vec![7; 700_000], "{status}");
    let contact = reader.json(&["routing", "findpeer", &node, "--json"]);
    assert_eq!(contact["node"], node.as_str());
    assert!(contact["addresses"].as_array().is_some_and(|addresses| !addresses.is_empty()));

    // A name that only the giver has a record of.
    let published = giver.json(&["name", "publish", &format!("/ipfs/{root}"), "--json"]);
    assert_eq!(published["told"][0]["error"], Value::Null, "{published}");
    let resolved = reader.json(&["name", "resolve", published["name"].as_str().expect("a name"), "--json"]);
    assert_eq!((text(&resolved["path"]), text(&resolved["steps"][0]["from"])), (format!("/ipfs/{root}"), "routing".to_owned()));

    // The same for programs that ask over HTTP: members first, and strangers through the DHT.
    for (asked, peer) in [("a member", &giver), ("a stranger", &reader)] {
        let (status, body) = http(peer.gateway(), "GET", &format!("/routing/v1/providers/{root}"), &[], b"");
        let found: Value = serde_json::from_slice(&body).expect("JSON");
        assert!(
            status == 200 && found["Providers"].as_array().is_some_and(|rows| rows.iter().any(|row| row["ID"] == node.as_str())),
            "{asked}: {found}"
        );
        assert!(found["Providers"][0]["Addrs"][0].as_str().is_some_and(|address| !address.contains("/p2p/")), "{asked}: {found}");
        let headers = [("Accept", "application/x-ndjson")];
        let (_, lines) = http(peer.gateway(), "GET", &format!("/routing/v1/providers/{root}"), &headers, b"");
        let lines = String::from_utf8(lines).expect("text");
        assert!(
            lines.lines().any(|line| serde_json::from_str::<Value>(line).is_ok_and(|row| row["ID"] == node.as_str())),
            "{asked}: {lines}"
        );
        let (status, body) = http(peer.gateway(), "GET", &format!("/routing/v1/peers/{node}"), &[], b"");
        assert!(status == 200 && String::from_utf8_lossy(&body).contains("/ip4/127.0.0.1/tcp/"), "{asked}");
        let name = published["name"].as_str().expect("a name");
        let (status, record) = http(peer.gateway(), "GET", &format!("/routing/v1/ipns/{name}"), &[], b"");
        assert!(status == 200 && record.windows(root.len()).any(|part| part == root.as_bytes()), "{asked}");
        assert_eq!(http(peer.gateway(), "PUT", &format!("/routing/v1/ipns/{name}"), &[], &record).0, 405, "the gateway takes nothing");
    }
    assert_eq!(http(giver.gateway(), "GET", "/routing/v1/providers/junk", &[], b"").0, 400);

    // Telling by hand: only what is here.
    assert!(giver.json(&["routing", "provide", &root, "--json"])["records"].as_u64().is_some_and(|records| records >= 1));
    let status = giver.json(&["routing", "status", "--json"]);
    assert_eq!((&status["on"], &status["dht"][0]["scope"], &status["dht"][0]["server"]), (&true.into(), &"lan".into(), &true.into()));
    assert_eq!((&status["dht"][1]["peers"], &status["dht"][1]["server"]), (&0.into(), &false.into()), "nobody of the world is talked to");
    let nowhere = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy";
    let refused = giver.run(&["routing", "provide", nowhere]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("is not on this peer's own node"), "{refused:?}");
    let (status, body) = http(reader.gateway(), "GET", &format!("/ipfs/{nowhere}"), &[], b"");
    let said = String::from_utf8_lossy(&body).into_owned();
    assert!(status == 504 && said.contains("no provider found") && said.contains("the DHT"), "{status} {said}");
}

#[test]
fn after_a_restart_everything_is_told_again_to_whoever_is_there_then() {
    let folder = tempfile::tempdir().expect("a folder");
    // Nobody is there to be told when it is stored.
    let giver = cluster(folder.path(), "giver", "mode = \"server\"");
    let path = folder.path().join("data");
    std::fs::write(&path, "something").expect("written");
    let root = text(&giver.json(&["add", path.to_str().expect("a path"), "--json"])["cid"]);
    let node = text(&giver.ready["node"]);
    let addresses = giver.same_addresses();
    let config = first(&giver);
    drop(giver);
    let hub = cluster(folder.path(), "hub", &config);
    let giver = Peer::again(folder.path(), "giver", &addresses);
    until("the hub is told", || {
        let found = hub.run(&["routing", "findprovs", &root, "--json"]);
        String::from_utf8_lossy(&found.stdout).contains(&node)
    });
    until("the round ends", || giver.json(&["routing", "status", "--json"])["dht"][0]["provide"]["ended"].is_string());
    let provide = giver.json(&["routing", "status", "--json"])["dht"][0]["provide"].clone();
    assert_eq!((&provide["failed"], &provide["phase"]), (&0.into(), &"waiting".into()), "{provide}");
    assert!(provide["keys"].as_u64().is_some_and(|keys| keys >= 1), "{provide}");
}

#[test]
fn without_a_word_about_it_the_dht_is_off() {
    let folder = tempfile::tempdir().expect("a folder");
    let peer = Peer::up(folder.path(), "alone");
    assert_eq!(peer.json(&["routing", "status", "--json"])["on"], false);
    let refused = peer.run(&["routing", "findprovs", "bafkqaaa"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("routing is off on this peer"), "{refused:?}");
}
