//! Adds that are not plain files, and adds in trouble.

mod common;

use common::{Peer, holders, http, meet, noise, pinfold, until};
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

const LATER: Duration = Duration::from_secs(90);

#[test]
fn a_car_comes_in_as_it_went_out_and_only_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file.bin");
    std::fs::write(&file, noise(3_000_000, 4)).expect("written");
    let maker = Peer::up(folder.path(), "maker");
    let root = maker.json(&["add", file.to_str().expect("a path"), "--copies", "1", "--wait", "1", "--json"]);
    let root = root["cid"].as_str().expect("a root").to_owned();
    let (status, car) = http(maker.gateway(), "GET", &format!("/ipfs/{root}?format=car"), &[], b"");
    assert_eq!(status, 200);

    let taker = Peer::up(folder.path(), "taker");
    let path = folder.path().join("file.car");
    let add = |bytes: &[u8], more: &[&str]| {
        std::fs::write(&path, bytes).expect("written");
        taker.run(&[&["add", path.to_str().expect("a path"), "--format", "car", "--copies", "1", "--json"], more].concat())
    };
    // Whatever is wrong is said, and nothing is pinned.
    let half = &car[..car.len() / 2];
    for (bytes, more, expected) in [
        (&b"no archive at all"[..], &[][..], "CAR"),
        (half, &[][..], "CAR"),
        (&car[..], &["--wrap"][..], "cannot be wrapped"),
        (&without_a_block(&car)[..], &[][..], "below its root is missing, so nothing was pinned"),
    ] {
        let refused = add(bytes, more);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains(expected), "{said}");
        assert!(!taker.say(&["pin", "ls"]).contains(&root));
    }
    let added = add(&car, &["--wait", "1"]);
    assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
    let last = String::from_utf8_lossy(&added.stdout).trim().lines().last().expect("lines").to_owned();
    let last: serde_json::Value = serde_json::from_str(&last).expect("JSON");
    assert_eq!((last["cid"].as_str(), last["confirmed"].as_u64()), (Some(root.as_str()), Some(1)));
    let (status, body) = http(taker.gateway(), "GET", &format!("/ipfs/{root}"), &[("Cache-Control", "only-if-cached")], b"");
    assert_eq!((status, body == noise(3_000_000, 4)), (200, true));
    assert!(taker.say(&["pin", "ls"]).contains("file.car"), "named after the archive");

    // The same through standard input.
    let other = Peer::up(folder.path(), "other");
    let mut child = pinfold()
        .args(["add", "-", "--format", "car", "--copies", "1", "--quiet", "--api", other.api()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    child.stdin.take().expect("piped").write_all(&car).expect("sent");
    let output = child.wait_with_output().expect("ends");
    assert_eq!((output.status.success(), String::from_utf8_lossy(&output.stdout).trim()), (true, root.as_str()));
}

/// The archive without its third section (a leaf).
fn without_a_block(car: &[u8]) -> Vec<u8> {
    let mut at = 0;
    let mut sections = Vec::new();
    while at < car.len() {
        let (mut length, mut shift, start) = (0usize, 0, at);
        loop {
            length |= usize::from(car[at] & 0x7f) << shift;
            (shift, at) = (shift + 7, at + 1);
            if car[at - 1] & 0x80 == 0 {
                break;
            }
        }
        at += length;
        sections.push(&car[start..at]);
    }
    assert!(sections.len() > 5, "header, root and leaves");
    sections.remove(3);
    sections.concat()
}

#[test]
fn a_holder_killed_in_the_middle_of_an_add_is_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut peers = vec![Peer::up(folder.path(), "one")];
    for name in ["two", "three", "four"] {
        let invite = peers[0].invite();
        peers.push(Peer::join(folder.path(), name, &invite));
    }
    meet(&peers);
    let content = noise(60_000_000, 6);
    let (before, after) = content.split_at(30_000_000);
    let mut add = pinfold()
        .args(["add", "-", "--name", "stream", "--copies", "2", "--quiet", "--api", peers[0].api()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut stream = add.stdin.take().expect("piped");
    stream.write_all(before).expect("sent");
    // Whoever has blocks by now, and is not the peer that adds, is one of the holders.
    let at = until("another peer holds a part", LATER, || (1..4).find(|at| size_below(&peers[*at].dir.join("blocks")) > 2_000_000));
    let lost = peers.remove(at);
    lost.kill();
    stream.write_all(after).expect("sent");
    drop(stream);
    let output = add.wait_with_output().expect("ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let root = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    // Both copies come to be on peers that live, and each of them has every byte.
    let names: Vec<String> = peers.iter().map(|peer| peer.name.clone()).collect();
    let held = until("two live peers hold it", LATER, || {
        let held: Vec<String> = holders(&peers[0], &root).into_iter().filter(|name| names.contains(name)).collect();
        (held.len() == 2).then_some(held)
    });
    for peer in peers.iter().filter(|peer| held.contains(&peer.name)) {
        let (status, body) = http(peer.gateway(), "GET", &format!("/ipfs/{root}"), &[("Cache-Control", "only-if-cached")], b"");
        assert_eq!((status, body == content), (200, true), "{}", peer.name);
    }
}

/// Bytes that the disk gave to the files of a folder.
fn size_below(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.blocks() * 512).sum()
}
