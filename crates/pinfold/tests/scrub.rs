//! Damage on a peer's own disk: found by looking, never served, fetched again from others; named where nobody else has it.

mod common;

use common::{Peer, holders, http, meet, noise, until};
use serde_json::Value;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const LATER: Duration = Duration::from_secs(90);

fn segments(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir.join("blocks")).expect("the block store").flatten();
    entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|extension| extension == "pack")).collect()
}

/// Turns over one byte of a stored block that contains `bytes`.
fn flip(dir: &Path, bytes: &[u8]) {
    let mut places = 0;
    for path in segments(dir) {
        let content = std::fs::read(&path).expect("readable");
        if let Some(at) = content.windows(bytes.len()).position(|window| window == bytes) {
            let file = std::fs::OpenOptions::new().write(true).open(&path).expect("writable");
            file.write_all_at(&[content[at] ^ 0xff], at as u64).expect("written");
            file.sync_all().expect("on disk");
            places += 1;
        }
    }
    assert_eq!(places, 1, "the bytes stand in one segment");
}

fn keep(peer: &Peer, folder: &Path, content: &[u8], copies: &str) -> String {
    let file = folder.join("file.bin");
    std::fs::write(&file, content).expect("written");
    let added = peer.json(&["add", file.to_str().expect("a path"), "--copies", copies, "--wait", copies, "--json"]);
    added["cid"].as_str().expect("a root").to_owned()
}

/// Whether the peer has all of it on its own disk.
fn has_own(peer: &Peer, root: &str, content: &[u8]) -> bool {
    let (status, body) = http(peer.gateway(), "GET", &format!("/ipfs/{root}"), &[("Cache-Control", "only-if-cached")], b"");
    status == 200 && body == content
}

fn scrub(peer: &Peer) -> Value {
    let output = peer.run(&["scrub", "--start", "--rate", "1GB/s", "--wait", "--json"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    serde_json::from_str(text.trim()).unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
}

fn two(folder: &Path) -> Vec<Peer> {
    let one = Peer::up(folder, "one");
    let invite = one.invite();
    let peers = vec![one, Peer::join(folder, "two", &invite)];
    meet(&peers);
    peers
}

#[test]
fn a_flipped_byte_on_a_running_and_on_a_stopped_peer_is_found_and_mended() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut peers = two(folder.path());
    let content = noise(3_000_000, 1);
    let root = keep(&peers[0], folder.path(), &content, "2");
    let whole = scrub(&peers[0]);
    assert_eq!((&whole["damaged"], &whole["phase"]), (&0.into(), &"idle".into()), "{whole}");
    assert!(whole["blocks"].as_u64().is_some_and(|blocks| blocks >= 12) && whole["pins"] == 1, "{whole}");

    flip(&peers[0].dir, &content[1_000_000..1_000_032]);
    let mended = scrub(&peers[0]);
    assert_eq!((&mended["damaged"], &mended["restored"], &mended["broken"]), (&1.into(), &1.into(), &Value::Array(vec![])), "{mended}");
    assert!(has_own(&peers[0], &root, &content));

    let one = peers.remove(0);
    let (dir, addresses) = (one.dir.clone(), one.same_addresses());
    one.kill();
    flip(&dir, &content[2_000_000..2_000_032]);
    peers.insert(0, Peer::again(folder.path(), "one", &addresses));
    meet(&peers);
    let mended = scrub(&peers[0]);
    assert_eq!(mended["damaged"], 1, "{mended}");
    // Right after a start the other holder may not be in reach of the round itself; then the pin is fetched again.
    until("nothing is broken", LATER, || (peers[0].json(&["scrub", "--json"])["broken"] == Value::Array(vec![])).then_some(()));
    assert!(has_own(&peers[0], &root, &content));
    until("both copies are confirmed", LATER, || (holders(&peers[1], &root).len() == 2).then_some(()));
}

#[test]
fn a_deleted_segment_of_a_running_and_of_a_stopped_peer_is_filled_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut peers = two(folder.path());
    let content = noise(3_000_000, 2);
    let root = keep(&peers[0], folder.path(), &content, "2");
    for segment in segments(&peers[0].dir) {
        std::fs::remove_file(segment).expect("removed");
    }
    let found = scrub(&peers[0]);
    assert!(found["damaged"].as_u64().is_some_and(|damaged| damaged >= 12), "{found}");
    until("it is whole again", LATER, || has_own(&peers[0], &root, &content).then_some(()));
    until("nothing is broken", LATER, || (peers[0].json(&["scrub", "--json"])["broken"] == Value::Array(vec![])).then_some(()));

    let one = peers.remove(0);
    let (dir, addresses) = (one.dir.clone(), one.same_addresses());
    one.kill();
    for segment in segments(&dir) {
        std::fs::remove_file(segment).expect("removed");
    }
    // Nobody asks for it: opening saw that segments are gone.
    peers.insert(0, Peer::again(folder.path(), "one", &addresses));
    meet(&peers);
    until("it is whole again", LATER, || has_own(&peers[0], &root, &content).then_some(()));
    until("both copies are confirmed", LATER, || (holders(&peers[1], &root).len() == 2).then_some(()));
}

#[test]
fn a_disk_that_comes_back_empty_is_noticed_and_filled_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut peers = two(folder.path());
    let contents: Vec<Vec<u8>> = (10..16).map(|seed| noise(400_000, seed)).collect();
    let roots: Vec<String> = contents.iter().map(|content| keep(&peers[0], folder.path(), content, "2")).collect();
    let all_own = |peer: &Peer| roots.iter().zip(&contents).all(|(root, content)| has_own(peer, root, content));

    // The blocks alone: a disk of their own died.
    let one = peers.remove(0);
    let (dir, addresses) = (one.dir.clone(), one.same_addresses());
    one.kill();
    std::fs::remove_dir_all(dir.join("blocks")).expect("removed");
    peers.insert(0, Peer::again(folder.path(), "one", &addresses));
    meet(&peers);
    until("everything is back", LATER, || all_own(&peers[0]).then_some(()));
    until("all copies are confirmed", LATER, || roots.iter().all(|root| holders(&peers[1], root).len() == 2).then_some(()));
    assert!(all_own(&peers[1]), "and nothing went elsewhere");

    // Blocks and state: only its keys are left. It is a stranger to itself until it joins again, and then the same peer.
    let one = peers.remove(0);
    let id = one.id().to_owned();
    one.kill();
    for gone in ["blocks", "state"] {
        std::fs::remove_dir_all(dir.join(gone)).expect("removed");
    }
    let invite = peers[0].invite();
    let flags: Vec<&str> = addresses.iter().map(String::as_str).collect();
    peers.insert(0, Peer::start(folder.path(), "one", &["join", &invite], &flags));
    assert_eq!(peers[0].id(), id);
    meet(&peers);
    until("everything is back again", LATER, || all_own(&peers[0]).then_some(()));
    until("all copies are confirmed again", LATER, || roots.iter().all(|root| holders(&peers[1], root).len() == 2).then_some(()));
    assert!(all_own(&peers[1]), "and nothing went elsewhere");
}

#[test]
fn what_nobody_else_has_is_named_and_nothing_else_is_touched() {
    let folder = tempfile::tempdir().expect("a folder");
    let peer = Peer::up(folder.path(), "alone");
    let (lost, other) = (noise(1_000_000, 3), noise(1_000_000, 4));
    let lost_root = keep(&peer, folder.path(), &lost, "1");
    let other_root = keep(&peer, folder.path(), &other, "1");
    flip(&peer.dir, &lost[600_000..600_032]);
    let output = peer.run(&["scrub", "--start", "--rate", "1GB/s", "--wait", "--json"]);
    assert_eq!(output.status.code(), Some(1), "something is lost");
    let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&said["broken"][0]["cid"], &said["broken"][0]["missing"]), (&lost_root.as_str().into(), &1.into()), "{said}");
    let block = said["broken"][0]["block"].as_str().expect("a block").to_owned();
    let names_it = |peer: &Peer| {
        let status = peer.json(&["status", &lost_root, "--json"]);
        let copies = status["peer_map"].as_object().cloned().unwrap_or_default();
        let named =
            copies.values().any(|copy| copy["status"] != "pinned" && copy["error"].as_str().is_some_and(|why| why.contains(&block)));
        named.then_some(())
    };
    until("the status names the block", LATER, || names_it(&peer));
    assert!(!has_own(&peer, &lost_root, &lost), "what is damaged is not served");
    assert!(has_own(&peer, &other_root, &other));
    assert_eq!(holders(&peer, &other_root), ["alone"]);
    // It is remembered over a restart.
    let addresses = peer.same_addresses();
    peer.kill();
    let peer = Peer::again(folder.path(), "alone", &addresses);
    until("the status names the block", LATER, || names_it(&peer));
    // The same content added again makes it whole.
    assert_eq!(keep(&peer, folder.path(), &lost, "1"), lost_root);
    until("it is whole again", LATER, || has_own(&peer, &lost_root, &lost).then_some(()));
    until("and said so", LATER, || {
        peer.say(&["recover"]);
        (holders(&peer, &lost_root) == ["alone"]).then_some(())
    });
}
