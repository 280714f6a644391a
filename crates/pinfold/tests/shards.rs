//! Files and trees larger than any peer: cut while they stream, read by path from any peer, told and let go as one.

mod common;

use common::{Peer, http, meet, noise, pinfold, until};
use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(60);
const LATER: Duration = Duration::from_secs(180);
const MIB: usize = 1 << 20;

/// Four peers with so much room each.
fn four(folder: &Path, space: &str) -> Vec<Peer> {
    let flags = ["--space", space];
    let mut peers = vec![Peer::start(folder, "one", &["up"], &flags)];
    for name in ["two", "three", "four"] {
        let invite = peers[0].invite();
        peers.push(Peer::start(folder, name, &["join", &invite], &flags));
    }
    meet(&peers);
    peers
}

fn lines(peer: &Peer, arguments: &[&str]) -> Vec<Value> {
    peer.say(arguments).lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn used(peer: &Peer) -> u64 {
    let peers = lines(peer, &["peers", "--json"]);
    peers.iter().find(|row| row["self"] == true).and_then(|row| row["space"]["used"].as_u64()).expect("a row of its own")
}

fn on_disk(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { on_disk(&entry.path()) } else { entry.metadata().map_or(0, |data| data.len()) }).sum()
}

fn range(peer: &Peer, root: &str, from: usize, length: usize) -> (u16, Vec<u8>) {
    let wanted = format!("bytes={from}-{}", from + length - 1);
    http(peer.gateway(), "GET", &format!("/ipfs/{root}"), &[("Range", &wanted)], b"")
}

fn is_gone(peer: &Peer) -> bool {
    let (_, body) = peer.get("/pins?shards=true");
    body.iter().all(u8::is_ascii_whitespace)
}

#[test]
fn a_file_larger_than_any_peer_is_kept_read_and_let_go_as_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut peers = four(folder.path(), "64MiB");
    // A single copy that is on its way from one peer to another when the first dies is told in other words.
    peers[0].say(&["rebalance", "--stop"]);
    // What an empty peer uses: its state and what that lays out ahead.
    let empty = peers.iter().map(used).max().expect("four peers");
    let content = noise(150 * MIB, 11);
    let file = folder.path().join("large.bin");
    std::fs::write(&file, &content).expect("written");
    let added = peers[0].json(&["add", file.to_str().expect("a path"), "--copies", "1", "--wait", "1", "--json"]);
    let root = added["cid"].as_str().expect("a root").to_owned();

    // One wish for people; its shards only for those who ask.
    for peer in &peers {
        until("the root is known everywhere", SOON, || (lines(peer, &["pin", "ls", "--json"]).len() == 1).then_some(()));
    }
    let pin = &lines(&peers[1], &["pin", "ls", "--json"])[0];
    assert_eq!((pin["cid"].as_str(), pin["type"].as_str(), pin["name"].as_str()), (Some(&*root), Some("meta-pin"), Some("large.bin")));
    let shards: usize = pin["metadata"]["shards"].as_str().and_then(|count| count.parse().ok()).expect("a count");
    assert!(shards >= 19, "units of an eighth of a peer or less: {shards}");
    assert!(lines(&peers[1], &["pin", "ls", "--shards", "--json"]).len() > shards);
    assert_eq!(lines(&peers[1], &["status", "--json"]).len(), 1);
    // The add knows that it is kept; another peer may have heard of the copies before it heard of the pins, and asks.
    until("the third peer knows that it is kept", SOON, || {
        let why = peers[2].json(&["why", &root, "--json"]);
        why["summary"].as_str().is_some_and(|summary| summary.starts_with("safe: ")).then_some(())
    });

    // No peer is over its limit, though together they hold more than twice of it.
    for peer in &peers {
        let size = on_disk(&peer.dir.join("blocks"));
        assert!(size <= 65 * MIB as u64, "{} has {size} bytes", peer.name);
    }

    // Every peer gives all of it and any part of it.
    for peer in &peers {
        let out = folder.path().join(format!("back from {}", peer.name));
        peer.say(&["get", &root, "-o", out.to_str().expect("a path")]);
        assert!(std::fs::read(&out).expect("written") == content, "{} gave something else", peer.name);
        std::fs::remove_file(&out).expect("removed");
        for from in [0, 7 * MIB + 13, 149 * MIB] {
            let (status, body) = range(peer, &root, from, 100_000);
            assert_eq!((status, body == content[from..from + 100_000]), (206, true), "{} at {from}", peer.name);
        }
        let size = on_disk(&peer.dir.join("blocks"));
        assert!(size <= 65 * MIB as u64, "{} has {size} bytes after reading", peer.name);
    }

    // A holder of single copies goes: what it had is named at once, everything else is there.
    let lost = peers.remove(3);
    let (lost_name, addresses) = (lost.name.clone(), lost.same_addresses());
    lost.kill();
    until("the lost peer is seen to be silent", SOON, || {
        let why = peers[1].json(&["why", &root, "--json"]);
        why["summary"].as_str().is_some_and(|summary| summary.contains("held only by")).then_some(())
    });
    let mut outcomes = [0, 0];
    for from in (0..150 * MIB).step_by(2 * MIB) {
        let begun = Instant::now();
        let (status, body) = range(&peers[1], &root, from, 1000);
        match status {
            206 => assert!(body == content[from..from + 1000], "at {from}"),
            _ => {
                let text = String::from_utf8_lossy(&body);
                if !text.contains(": shard ") {
                    let why = peers[1].json(&["why", &root, "--json"]);
                    for shard in why["shards"].as_array().into_iter().flatten() {
                        let list = shard["cid"].as_str().unwrap_or_default();
                        let (status, _) = http(peers[1].gateway(), "GET", &format!("/ipfs/{list}?format=raw"), &[], b"");
                        eprintln!("{} {} {status}", shard["name"], shard["trouble"]);
                    }
                }
                assert!(text.contains(&format!(" of {shards} of {root} is held only by {lost_name}, last seen ")), "{status}: {text}");
                assert!(text.contains(": shard "), "the very shard is named: {text}");
                assert!(begun.elapsed() < Duration::from_secs(20), "it hung");
            }
        }
        outcomes[usize::from(status == 206)] += 1;
    }
    assert!(outcomes[0] > 0 && outcomes[1] > outcomes[0], "{outcomes:?}");
    let failed = peers[1].run(&["cat", &root]);
    assert!(!failed.status.success());
    let said = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(said.contains("held only by"), "{said}");

    // It comes back; then all of it goes, everywhere.
    let back = Peer::start(
        folder.path(),
        &lost_name,
        &["up"],
        &[&["--space", "64MiB"][..], &addresses.iter().map(String::as_str).collect::<Vec<_>>()].concat(),
    );
    peers.push(back);
    meet(&peers);
    assert_eq!(range(&peers[0], &root, 0, 10).0, 206);
    let before: Vec<u64> = peers.iter().map(used).collect();
    assert!(before.iter().sum::<u64>() > 140 * MIB as u64, "{before:?}");
    until("the shards are known again", SOON, || peers[2].run(&["pin", "rm", &root]).status.success().then_some(()));
    for peer in &peers {
        until("nothing is pinned", SOON, || is_gone(peer).then_some(()));
        until("the space is free", LATER, || (used(peer) < empty + 8 * MIB as u64).then_some(()));
    }
}

/// Bytes of copies that each peer says it has.
fn placed(peers: &[Peer]) -> Vec<u64> {
    let own = |peer: &Peer| lines(peer, &["peers", "--json"]).into_iter().find(|row| row["self"] == true).expect("a row of its own");
    peers.iter().map(|peer| own(peer)["load"]["placed"].as_u64().unwrap_or_default()).collect()
}

#[test]
fn the_shards_of_one_add_fill_equal_peers_alike() {
    /// An eighth of a peer.
    const UNIT: usize = 8 * MIB;
    let folder = tempfile::tempdir().expect("a folder");
    let peers = four(folder.path(), "64MiB");
    // What is seen is where the add put them.
    peers[0].say(&["rebalance", "--stop"]);
    let mut client = pinfold()
        .args(["add", "-", "--copies", "1", "--wait", "1"])
        .env("PINFOLD_API", peers[0].api())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("the binary starts");
    let content = noise(150 * MIB, 17);
    client.stdin.take().expect("piped").write_all(&content).expect("taken");
    assert!(client.wait().expect("it ends").success());
    let placed = until("all say what they have", SOON, || {
        let placed = placed(&peers);
        (placed.iter().sum::<u64>() >= 150 * MIB as u64).then_some(placed)
    });
    let (least, most) = (placed.iter().min().expect("four"), placed.iter().max().expect("four"));
    assert!(most - least <= 3 * UNIT as u64, "at most three units apart: {placed:?}");
}

#[test]
fn a_tree_with_two_copies_reads_on_without_one_of_its_peers() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut peers = four(folder.path(), "64MiB");
    let source = folder.path().join("tree");
    let name = |number: usize| format!("{:02}/{:02}/file {number}.bin", number % 20, number % 7);
    let file = |number: usize| noise(if number.is_multiple_of(200) { 3 * MIB } else { 5_000 + number * 7 }, number as u64);
    for number in 0..2_000 {
        let path = source.join(name(number));
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(&path, file(number)).expect("written");
    }
    let added = peers[1].json(&["add", source.to_str().expect("a path"), "--copies", "2", "--wait", "2", "--json"]);
    let root = added["cid"].as_str().expect("a root").to_owned();
    assert_eq!(lines(&peers[1], &["pin", "ls", "--json"]).len(), 1);
    peers.remove(2).kill();
    until("the lost peer is seen to be silent", SOON, || (common::up_count(&peers[0]) == 3).then_some(()));
    let out = folder.path().join("back");
    peers[0].say(&["get", &root, "-o", out.to_str().expect("a path")]);
    for number in 0..2_000 {
        assert!(std::fs::read(out.join(name(number))).expect("written") == file(number), "{}", name(number));
    }
    let (status, body) = http(peers[2].gateway(), "GET", &format!("/ipfs/{root}/00/05/file%20600.bin"), &[], b"");
    assert_eq!((status, body == file(600)), (200, true));
}

#[test]
fn an_add_that_is_killed_leaves_no_half_root() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut peers = four(folder.path(), "64MiB");
    let adder = peers.remove(0);
    let addresses = adder.same_addresses();
    let mut client = pinfold()
        .args(["add", "-", "--copies", "1", "--name", "half"])
        .env("PINFOLD_API", adder.api())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    let mut input = client.stdin.take().expect("piped");
    input.write_all(&noise(60 * MIB, 5)).expect("taken");
    until("shards are pinned while the add goes on", SOON, || (!is_gone(&peers[0])).then_some(()));
    assert!(lines(&peers[0], &["pin", "ls", "--json"]).is_empty(), "no root yet");
    adder.kill();
    drop(input);
    client.wait().expect("it ends");
    let again = Peer::start(
        folder.path(),
        "one",
        &["up"],
        &[&["--space", "64MiB"][..], &addresses.iter().map(String::as_str).collect::<Vec<_>>()].concat(),
    );
    peers.push(again);
    meet(&peers);
    for peer in &peers {
        until("what was cut is let go", LATER, || is_gone(peer).then_some(()));
        assert!(lines(peer, &["pin", "ls", "--json"]).is_empty(), "no half root");
    }
}
