//! Several owners of one CID: one pin, which stays until the last of them lets go.

mod common;

use common::{Peer, holders, meet, until};
use serde_json::Value;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

fn pins(peer: &Peer) -> Vec<Value> {
    peer.say(&["pin", "ls", "--json"]).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn claims(peer: &Peer, owner: &str) -> Vec<(String, String)> {
    let said = peer.say(&["pin", "ls", "--owner", owner, "--json"]);
    let rows = said.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    rows.map(|row| (row["name"].as_str().expect("a name").to_owned(), row["cid"].as_str().expect("a CID").to_owned())).collect()
}

fn add(peer: &Peer, folder: &std::path::Path, seed: u64, arguments: &[&str]) -> String {
    let file = folder.join(format!("file-{seed}"));
    std::fs::write(&file, common::noise(50_000, seed)).expect("written");
    let added = peer.json(&[&["add", file.to_str().expect("a path"), "--json"], arguments].concat());
    added["cid"].as_str().expect("a CID").to_owned()
}

#[test]
fn one_owners_unpin_keeps_what_the_other_keeps() {
    let folder = tempfile::tempdir().expect("a folder");
    let one = Peer::up(folder.path(), "one");
    let two = Peer::join(folder.path(), "two", &one.invite());
    let peers = [one, two];
    meet(&peers);
    let [one, two] = &peers;
    let cid = add(one, folder.path(), 1, &["--copies", "1", "--name", "mine"]);

    // Each owner speaks through another peer.
    one.say(&["pin", "add", &cid, "--owner", "anna", "--name", "site", "--copies", "1"]);
    until("the other knows it", LIMIT, || (claims(two, "anna") == [("site".to_owned(), cid.clone())]).then_some(()));
    two.say(&["pin", "add", &cid, "--owner", "bert", "--copies", "2", "--wait", "2"]);
    until("one pin has all owners", LIMIT, || {
        let all = peers.iter().map(pins).collect::<Vec<_>>();
        let is_it = |pins: &Vec<Value>| {
            let owners = format!("{cid}\nanna/site\nbert/{cid}");
            pins.len() == 1 && pins[0]["metadata"]["pinfold-owners"] == owners && pins[0]["name"] == "mine"
        };
        all.iter().all(is_it).then_some(())
    });
    assert_eq!(pins(one)[0]["replication_factor_min"], 2, "the most copies that any of them wishes");

    // The cluster's own wish ends, then anna's, through the peer that did not make it.
    one.say(&["pin", "rm", &cid]);
    let refused = one.run(&["pin", "rm", &cid]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("anna/site") && said.contains("--owner"), "{said}");
    until("both have it so", LIMIT, || peers.iter().all(|peer| pins(peer)[0]["name"] == "site").then_some(()));
    two.say(&["pin", "rm", &cid, "--owner", "anna", "--name", "site"]);
    let refused = two.run(&["pin", "rm", &cid, "--owner", "anna"]);
    assert!(!refused.status.success(), "anna keeps nothing more");
    until("bert's pin is there on both", LIMIT, || {
        peers.iter().all(|peer| pins(peer).len() == 1 && claims(peer, "anna").is_empty()).then_some(())
    });
    until("and held by both", LIMIT, || (holders(two, &cid) == ["one", "two"]).then_some(()));

    // Somebody writes the pin who knows nothing of owners.
    let mut written = pins(one)[0].clone();
    written["metadata"] = Value::Null;
    written["name"] = "plain".into();
    let lines = folder.path().join("pins");
    std::fs::write(&lines, format!("{written}\n")).expect("written");
    one.say(&["state", "import", lines.to_str().expect("a path")]);
    until("the owner comes back", LIMIT, || {
        let is_it = |pins: Vec<Value>| pins[0]["name"] == "plain" && pins[0]["metadata"]["pinfold-owners"] == format!("{cid}\nbert/{cid}");
        peers.iter().map(pins).all(is_it).then_some(())
    });
    two.say(&["pin", "rm", &cid]);

    // What the cluster kept on every peer, an owner may keep on fewer.
    let wide = add(one, folder.path(), 3, &["--copies", "all"]);
    one.say(&["pin", "add", &wide, "--owner", "anna", "--copies", "1"]);
    assert_eq!(one.json(&["pin", "ls", &wide, "--json"])["replication_factor_min"], -1);
    one.say(&["pin", "rm", &wide]);
    let left = one.json(&["pin", "ls", &wide, "--json"]);
    assert!(left["replication_factor_min"] == 1 && left["allocations"].as_array().map(Vec::len) == Some(1), "{left}");
    one.say(&["pin", "rm", &wide, "--owner", "anna"]);
    until("it is gone", LIMIT, || peers.iter().all(|peer| pins(peer).len() == 1).then_some(()));

    // A name that moves lets go of what it stood for.
    let newer = add(two, folder.path(), 2, &["--copies", "2"]);
    two.say(&["pin", "add", &newer, "--owner", "bert", "--name", &cid, "--copies", "2"]);
    until("the old one is gone", LIMIT, || {
        let gone = |peer: &Peer| pins(peer).len() == 1 && pins(peer)[0]["cid"] == newer.as_str();
        peers.iter().all(gone).then_some(())
    });

    // Both are remembered over a restart.
    let again = peers[0].same_addresses();
    let [one, two] = peers;
    assert_eq!(one.terminate(), Some(0));
    let one = Peer::again(folder.path(), "one", &again);
    assert_eq!(claims(&one, "bert"), [(cid.clone(), newer.clone())]);
    one.say(&["pin", "rm", &newer, "--owner", "bert"]);
    until("the cluster's own wish is left", LIMIT, || {
        let is_plain = |peer: &Peer| pins(peer).len() == 1 && pins(peer)[0]["metadata"]["pinfold-owners"].is_null();
        [&one, &two].into_iter().all(is_plain).then_some(())
    });
    two.say(&["pin", "rm", &newer]);
    until("nobody keeps it", LIMIT, || [&one, &two].into_iter().all(|peer| pins(peer).is_empty()).then_some(()));
}

#[test]
fn odd_owners_are_refused_in_words_and_leave_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let one = Peer::up(folder.path(), "one");
    let cid = add(&one, folder.path(), 1, &[]);
    for (arguments, words) in [
        (&["--owner", "a/b"][..], "use 1 to 64 bytes"),
        (&["--owner", "anna", "--direct"], "leave out mode=direct"),
        (&["--owner", "anna", "--copies", "9"], "not enough peers"),
    ] {
        let output = one.run(&[&["pin", "add", &cid], arguments].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(words), "{arguments:?}: {said}");
    }
    assert!(claims(&one, "anna").is_empty());
    assert!(pins(&one)[0]["metadata"]["pinfold-owners"].is_null());
}
