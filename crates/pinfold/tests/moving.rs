//! Copies on the move: draining, cordoning, balancing, with real peers.

mod common;

use common::{Peer, holders, http, meet, noise, three, until};
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
const LATER: Duration = Duration::from_secs(180);
/// Bytes of each file.
const FILE: usize = 50_000;

/// Adds content through one peer, its own pin with two copies; its root once both are confirmed.
fn add_file(peer: &Peer, number: u64) -> String {
    let head = "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"file\"\r\n\
                Content-Type: application/octet-stream\r\n\r\n";
    let body = [head.as_bytes(), &noise(FILE, number + 1), b"\r\n--x--\r\n"].concat();
    let headers = [("Content-Type", "multipart/form-data; boundary=x")];
    let path = "/add?raw-leaves=true&cid-version=1&replication-min=2&replication-max=2";
    let (status, said) = http(peer.api(), "POST", path, &headers, &body);
    let said = String::from_utf8_lossy(&said).into_owned();
    let line = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).next_back();
    let root = line.and_then(|line| line["cid"].as_str().map(str::to_owned));
    let root = root.unwrap_or_else(|| panic!("added: {status} {said}"));
    let (status, said) = peer.get(&format!("/pinfold/v1/wait/{root}?copies=2&timeout=60s"));
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(status == 200 && said.contains("\"done\":true"), "{status} {said}");
    root
}

fn add_files(peer: &Peer, count: u64) -> Vec<String> {
    (0..count).map(|number| add_file(peer, number)).collect()
}

/// Names of the peers that hold each of the roots, as one peer sees it.
fn all_holders(asked: &Peer) -> std::collections::BTreeMap<String, Vec<String>> {
    let (status, body) = asked.get("/pins");
    assert_eq!(status, 200);
    let text = String::from_utf8_lossy(&body).into_owned();
    let pins = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    pins.map(|pin| {
        let copies = pin["peer_map"].as_object().cloned().unwrap_or_default();
        let held = copies.values().filter(|copy| copy["status"] == "pinned");
        let names = held.map(|copy| copy["peername"].as_str().unwrap_or_default().to_owned()).collect();
        (pin["cid"].as_str().unwrap_or_default().to_owned(), names)
    })
    .collect()
}

fn held_by(asked: &Peer, roots: &[String], name: &str) -> usize {
    let holders = all_holders(asked);
    roots.iter().filter(|root| holders.get(*root).is_some_and(|names| names.iter().any(|holder| holder == name))).count()
}

fn duty(asked: &Peer, name: &str) -> String {
    row(asked, name)["duty"].as_str().unwrap_or_default().to_owned()
}

fn row(asked: &Peer, name: &str) -> Value {
    let said = asked.say(&["peers", "--json"]);
    let rows = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    rows.into_iter().find(|row| row["name"] == name).expect("a member")
}

fn all_readable(peers: &[Peer], roots: &[String]) {
    for (number, root) in roots.iter().enumerate() {
        let peer = &peers[number % peers.len()];
        let (status, body) = http(peer.gateway(), "GET", &format!("/ipfs/{root}"), &[], b"");
        assert_eq!((status, body == noise(FILE, number as u64 + 1)), (200, true), "{root} on {}", peer.name);
    }
}

#[test]
fn a_drain_shows_its_plan_moves_every_copy_and_survives_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut peers = three(folder.path());
    let roots = add_files(&peers[0], 24);
    let here = until("all copies are seen", SOON, || {
        let here = held_by(&peers[0], &roots, "three");
        (here + held_by(&peers[0], &roots, "one") + held_by(&peers[0], &roots, "two") == 48).then_some(here)
    });
    // The plan, asked of another peer: the copies that it holds itself have exact sizes.
    assert!(here > 0, "a peer that has just joined gets its part");
    until("the peers have said what they have", SOON, || (row(&peers[0], "three")["load"]["copies"] == here).then_some(()));
    let plan = peers[0].json(&["drain", "three", "--dry-run", "--json"]);
    assert_eq!(plan["moves"], here, "{plan}");
    assert_eq!(plan["stranded"].as_array().map(Vec::len), Some(0), "{plan}");
    let bytes = plan["bytes"].as_u64().expect("bytes");
    assert!(bytes >= (here * FILE) as u64 && bytes <= (here * FILE * 2) as u64, "{plan}");
    until("another peer has heard enough to plan the same", SOON, || {
        let text = peers[1].say(&["plan", "drain", "three"]);
        (text.contains("copies move") && text.contains("AFTERWARDS")).then_some(())
    });
    assert_eq!(duty(&peers[0], "three"), "in-use", "a dry run changes nothing");

    // Begun on another peer; the drained one is killed at once and goes on when it is back.
    peers[0].say(&["drain", "three"]);
    let places = peers[2].same_addresses();
    peers.remove(2).kill();
    peers.push(Peer::again(folder.path(), "three", &places));
    until("the decision is known again", SOON, || (duty(&peers[2], "three") == "draining").then_some(()));
    until("the two others hold everything and nothing is left on it", LATER, || {
        let held = ["one", "two", "three"].map(|name| held_by(&peers[0], &roots, name));
        (held == [24, 24, 0]).then_some(())
    });
    let done = peers[1].json(&["drain", "three", "--wait", "--json"]);
    assert_eq!((&done["done"], &done["plan"]["moves"]), (&Value::from(true), &Value::from(0)), "{done}");
    all_readable(&peers, &roots);

    // A drained peer gets nothing new, and is in use again when somebody says so.
    let more = add_file(&peers[2], 1_000);
    until("the others hold it", SOON, || (holders(&peers[0], &more) == ["one", "two"]).then_some(()));
    peers[1].say(&["uncordon", "three"]);
    until("all know it", SOON, || peers.iter().all(|peer| duty(peer, "three") == "in-use").then_some(()));
}

#[test]
fn a_drain_without_a_place_to_go_says_so_and_can_be_turned_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut peers = vec![Peer::up(folder.path(), "one")];
    let invite = peers[0].invite();
    peers.push(Peer::join(folder.path(), "two", &invite));
    meet(&peers);
    let roots = add_files(&peers[0], 3);
    let plan = peers[0].json(&["plan", "drain", "self", "--json"]);
    assert_eq!((&plan["moves"], &plan["stranded"][0]["copies"]), (&Value::from(0), &Value::from(3)), "{plan}");
    assert!(plan["stranded"][0]["why"].as_str().is_some_and(|why| why.contains("add a peer")), "{plan}");
    peers[0].say(&["drain", "self"]);
    until("both know it", SOON, || peers.iter().all(|peer| row(peer, "one")["health"] == "draining").then_some(()));
    // Nothing is let go while there is nobody to take it.
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(held_by(&peers[1], &roots, "one"), 3);
    peers[1].say(&["uncordon", "one"]);
    until("both know it", SOON, || peers.iter().all(|peer| row(peer, "one")["health"] == "up").then_some(()));
    // Turned back before a place was there: a peer that joins afterwards takes over nothing.
    peers.push(Peer::join(folder.path(), "three", &peers[0].invite()));
    meet(&peers);
    assert_eq!(held_by(&peers[1], &roots, "one"), 3);
    let refused = peers[0].run(&["drain", "nobody"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("no member is called \"nobody\""));
}

#[test]
fn a_cordoned_peer_keeps_its_copies_and_gets_no_new_ones() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut peers = three(folder.path());
    let roots = add_files(&peers[0], 12);
    let before = until("all copies are seen", SOON, || {
        let names = ["one", "two", "three"].map(|name| held_by(&peers[0], &roots, name));
        (names.iter().sum::<usize>() == 24).then_some(names[1])
    });
    peers[0].say(&["cordon", "two"]);
    until("all know it", SOON, || peers.iter().all(|peer| row(peer, "two")["health"] == "cordoned").then_some(()));
    // New content, added through every peer in turn.
    for (number, peer) in (1_000..).zip(&peers) {
        let more = add_file(peer, number);
        until("the others hold it", SOON, || (holders(&peers[0], &more) == ["one", "three"]).then_some(()));
    }
    // It survives a restart of the cordoned peer and of the one that decided.
    for at in [0, 1] {
        let (name, places) = (peers[at].name.clone(), peers[at].same_addresses());
        peers.remove(at).kill();
        peers.insert(at, Peer::again(folder.path(), &name, &places));
    }
    until("it is known again", SOON, || peers.iter().all(|peer| row(peer, "two")["health"] == "cordoned").then_some(()));
    until("it has what it had", SOON, || (held_by(&peers[0], &roots, "two") == before).then_some(()));
}

#[test]
fn a_new_empty_peer_is_given_its_share_when_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let space = ["--space", "256MiB"];
    let mut peers = vec![Peer::start(folder.path(), "one", &["up"], &space)];
    for name in ["two", "three"] {
        let invite = peers[0].invite();
        peers.push(Peer::start(folder.path(), name, &["join", &invite], &space));
    }
    meet(&peers);
    let roots = add_files(&peers[0], 60);
    let invite = peers[0].invite();
    peers.push(Peer::start(folder.path(), "four", &["join", &invite], &space));
    meet(&peers);
    let plan = until("all peers have said what they have", SOON, || {
        let plan = peers[0].json(&["rebalance", "--dry-run", "--json"]);
        let routes = plan["routes"].as_array().cloned().unwrap_or_default();
        let to_four: u64 = routes.iter().filter(|route| route["to_name"] == "four").filter_map(|route| route["copies"].as_u64()).sum();
        (to_four >= 27).then_some(plan)
    });
    let ends = |key: &str| plan["routes"].as_array().into_iter().flatten().map(|route| route[key].to_string()).collect::<BTreeSet<_>>();
    assert!(ends("from").is_disjoint(&ends("to")), "nobody gives and gets: {plan}");
    assert_eq!(held_by(&peers[0], &roots, "four"), 0, "a dry run changes nothing");
    peers[0].say(&["rebalance"]);
    // Its share is 30 of 120 copies.
    until("it has about its share", LATER, || (held_by(&peers[0], &roots, "four") >= 27).then_some(()));
    until("no copy is missing or too many", LATER, || {
        let all: usize = ["one", "two", "three", "four"].iter().map(|name| held_by(&peers[0], &roots, name)).sum();
        (all == 120).then_some(())
    });
    assert!(held_by(&peers[0], &roots, "four") <= 33);
    all_readable(&peers, &roots);
    let stopped = peers[1].json(&["rebalance", "--stop", "--json"]);
    assert_eq!(stopped["balancing"], "off");
}

/// Bytes of copies that each peer has, as the first one heard it, and whether nothing is on its way.
fn spread(peers: &[Peer]) -> (Vec<u64>, bool) {
    let loads: Vec<Value> = peers.iter().map(|peer| row(&peers[0], &peer.name)["load"].clone()).collect();
    let all = |key: &str| loads.iter().map(|load| load[key].as_u64().unwrap_or_default()).collect::<Vec<_>>();
    (all("placed"), all("moving").iter().all(|bytes| *bytes == 0))
}

#[test]
fn a_new_empty_peer_gets_its_fair_share_by_itself_and_then_nothing_moves_any_more() {
    const PINS: u64 = 200;
    let folder = tempfile::tempdir().expect("a folder");
    let space = ["--space", "256MiB"];
    let mut peers = vec![Peer::start(folder.path(), "one", &["up"], &space)];
    for name in ["two", "three"] {
        let invite = peers[0].invite();
        peers.push(Peer::start(folder.path(), name, &["join", &invite], &space));
    }
    meet(&peers);
    let roots = add_files(&peers[0], PINS);
    let invite = peers[0].invite();
    peers.push(Peer::start(folder.path(), "four", &["join", &invite], &space));
    let share = PINS as usize * 2 / 4;
    until("it has its share without being asked", LATER, || (held_by(&peers[0], &roots, "four") >= share - 5).then_some(()));
    // Within 3% of its share, and one copy.
    let fair = PINS * 2 * FILE as u64 / 4;
    let (before, settled) = until("all have their share, and the last copy has moved", LATER, || {
        let before = all_holders(&peers[0]);
        let (placed, is_still) = spread(&peers);
        let is_even = placed.iter().all(|placed| placed.abs_diff(fair) <= fair * 3 / 100 + FILE as u64);
        if !is_still || !is_even {
            return None;
        }
        std::thread::sleep(Duration::from_secs(25));
        (all_holders(&peers[0]) == before).then_some((before, placed))
    });
    // Longer than between two walks: all stays where it is.
    assert!(before.values().all(|names| names.len() == 2), "each has its two copies");
    std::thread::sleep(Duration::from_secs(45));
    assert_eq!(all_holders(&peers[0]), before);
    assert_eq!(spread(&peers).0, settled);
    all_readable(&peers, &roots);
}
