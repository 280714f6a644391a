//! What a user came for: folders kept on several machines, read back, repaired, let go.

mod common;

use common::{Peer, holders, http, meet, noise, pinfold, sample, three, until};
use serde_json::Value;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);
const LATER: Duration = Duration::from_secs(90);

#[test]
fn try_keeps_a_folder_twice_and_every_byte_is_compared() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = sample(folder.path());
    let output = pinfold().args(["try", "--once", "--json"]).arg(&source).output().expect("runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let kept: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    let copies = kept["copies"].as_array().expect("copies");
    assert_eq!(copies.len(), 2, "{kept}");
    assert!(copies.iter().all(|copy| copy["state"] == "pinned" && copy["peer"].is_string() && copy["reason"].is_string()), "{kept}");
    assert_eq!(kept["files"], 5);
    assert_eq!(kept["bytes"], 6 + 6 + 300_000 + 3_000_000);
    assert_eq!(kept["apis"].as_array().map(Vec::len), Some(3));
    assert!(kept["gateway"].as_str().is_some_and(|url| url.ends_with(kept["root"].as_str().expect("a root"))));
}

#[test]
fn a_pin_says_which_node_outside_has_its_content() {
    let folder = tempfile::tempdir().expect("a folder");
    // Two clusters that know nothing of each other.
    let (outside, own) = (Peer::up(folder.path(), "outside"), Peer::up(folder.path(), "own"));
    std::fs::write(folder.path().join("data"), noise(2_000_000, 3)).expect("written");
    let cid = outside.say(&["add", "--quiet", "--copies", "1", &folder.path().join("data").to_string_lossy()]).trim().to_owned();
    let refused = own.run(&["pin", "add", &cid, "--origin", "/ip4/127.0.0.1/tcp/4001"]);
    assert!(!refused.status.success(), "without an id nobody can be asked for");
    let origin = outside.ready["swarm"][0].as_str().expect("an address");
    own.say(&["pin", "add", &cid, "--copies", "1", "--origin", origin]);
    until("the content comes from outside", SOON, || (holders(&own, &cid) == ["own"]).then_some(()));
    let read = http(own.gateway(), "GET", &format!("/ipfs/{cid}"), &[("Cache-Control", "only-if-cached")], b"");
    assert!(read == (200, noise(2_000_000, 3)));
}

#[test]
fn a_lost_holder_is_replaced_and_the_data_stays_readable() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut peers = three(folder.path());
    let source = sample(folder.path());
    let added = peers[0].json(&["add", source.to_str().expect("a path"), "--copies", "2", "--wait", "2", "--json"]);
    let root = added["cid"].as_str().expect("a root").to_owned();
    let held = holders(&peers[0], &root);
    assert_eq!(held.len(), 2);
    let victim = peers.iter().position(|peer| held.contains(&peer.name)).expect("a holder");
    let lost = peers.remove(victim);
    let lost_name = lost.name.clone();
    lost.kill();
    until("two others hold it", LATER, || {
        let held: Vec<String> = holders(&peers[0], &root).into_iter().filter(|name| *name != lost_name).collect();
        (held.len() == 2).then_some(())
    });
    for peer in &peers {
        let (status, body) = http(peer.gateway(), "GET", &format!("/ipfs/{root}/large.bin"), &[("Cache-Control", "only-if-cached")], b"");
        assert_eq!((status, body == noise(3_000_000, 2)), (200, true), "{}", peer.name);
    }
    // The lost peer comes back with its disk: nothing is lost, and it sees what became of the pin.
    let back = Peer::up(folder.path(), &lost_name);
    peers.push(back);
    meet(&peers);
    assert!(holders(&peers[0], &root).len() >= 2);
}

#[test]
fn what_was_acknowledged_survives_kill_minus_nine_of_all_peers() {
    let folder = tempfile::tempdir().expect("a folder");
    let peers = three(folder.path());
    let file = folder.path().join("only copy.bin");
    std::fs::write(&file, noise(2_000_000, 7)).expect("written");
    let added = peers[1].json(&["add", file.to_str().expect("a path"), "--copies", "2", "--wait", "2", "--json"]);
    let root = added["cid"].as_str().expect("a root").to_owned();
    let places: Vec<(String, Vec<String>)> = peers.iter().map(|peer| (peer.name.clone(), peer.same_addresses())).collect();
    for peer in peers {
        peer.kill();
    }
    let peers: Vec<Peer> = places.iter().map(|(name, addresses)| Peer::again(folder.path(), name, addresses)).collect();
    meet(&peers);
    until("both copies are confirmed again", LATER, || (holders(&peers[0], &root).len() == 2).then_some(()));
    let out = folder.path().join("back.bin");
    peers[0].say(&["get", &root, "-o", out.to_str().expect("a path")]);
    assert_eq!(std::fs::read(&out).expect("written"), noise(2_000_000, 7));
}

#[test]
fn commands_show_what_was_added_and_let_it_go_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let peer = Peer::up(folder.path(), "alone");
    let source = sample(folder.path());
    let lines = peer.say(&["add", source.to_str().expect("a path"), "--copies", "1", "--wait", "1", "--json"]);
    let added: Value = serde_json::from_str(lines.trim().lines().last().expect("lines")).expect("JSON");
    let root = added["cid"].as_str().expect("a root");
    assert_eq!(peer.say(&["cat", &format!("{root}/readme.txt")]), "hello\n");
    let names: Vec<String> = peer
        .say(&["ls", root, "--json"])
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["name"].as_str().expect("a name").to_owned())
        .collect();
    assert_eq!(names, [".hidden", "deep", "empty", "large.bin", "link", "nothing", "readme.txt"]);
    let out = folder.path().join("got");
    peer.say(&["get", root, "-o", out.to_str().expect("a path")]);
    let differs = std::process::Command::new("diff").arg("-r").arg("--no-dereference").arg(&source).arg(&out).output().expect("diff");
    assert!(differs.status.success(), "{}", String::from_utf8_lossy(&differs.stdout));
    let why = peer.json(&["why", root, "--json"]);
    assert!(why["summary"].as_str().is_some_and(|summary| !summary.is_empty()), "{why}");
    assert!(peer.say(&["pin", "ls"]).contains(root));
    assert!(peer.say(&["status"]).contains("sample folder"));
    peer.say(&["pin", "rm", root]);
    assert!(!peer.say(&["pin", "ls"]).contains(root));
    let again = peer.run(&["pin", "rm", root]);
    assert_eq!(again.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&again.stderr).contains("pin is not part of the pinset"));
}

#[test]
fn standard_input_and_pin_update() {
    let folder = tempfile::tempdir().expect("a folder");
    let peers = three(folder.path());
    let add = |bytes: Vec<u8>| {
        use std::io::Write;
        let mut child = pinfold()
            .args(["add", "-", "--name", "stream", "--quiet", "--copies", "2", "--api", peers[0].api()])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("starts");
        child.stdin.take().expect("piped").write_all(&bytes).expect("sent");
        String::from_utf8(child.wait_with_output().expect("ends").stdout).expect("text").trim().to_owned()
    };
    let old = add(noise(700_000, 1));
    let mut changed = noise(700_000, 1);
    changed.extend_from_slice(b"more");
    let new = add(changed);
    assert_ne!(old, new);
    peers[1].say(&["pin", "update", &old, &new]);
    until("the new one is held twice", SOON, || (holders(&peers[2], &new).len() == 2).then_some(()));
    until("the old pin is gone everywhere", SOON, || (!peers[2].say(&["pin", "ls"]).contains(&old)).then_some(()));
}

#[test]
fn a_leaving_peer_hands_its_copies_over_first() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut peers = three(folder.path());
    let file = folder.path().join("file.bin");
    std::fs::write(&file, noise(1_000_000, 3)).expect("written");
    let added = peers[0].json(&["add", file.to_str().expect("a path"), "--copies", "2", "--wait", "2", "--json"]);
    let root = added["cid"].as_str().expect("a root").to_owned();
    let held = holders(&peers[0], &root);
    let index = peers.iter().position(|peer| held.contains(&peer.name)).expect("a holder");
    let mut leaving = peers.remove(index);
    let answer = leaving.json(&["leave", "--purge", "--json"]);
    assert_eq!(answer["stranded"], 0, "{answer}");
    assert_eq!(leaving.ended(SOON), Some(0));
    assert!(!leaving.dir.join("blocks").exists(), "--purge frees the disk");
    let names: Vec<String> = peers.iter().map(|peer| peer.name.clone()).collect();
    until("the two that stay hold it", SOON, || {
        let held = holders(&peers[0], &root);
        names.iter().all(|name| held.contains(name)).then_some(())
    });
}

#[test]
fn a_peer_without_room_refuses_with_the_numbers_and_keeps_what_it_has() {
    let folder = tempfile::tempdir().expect("a folder");
    let peer = Peer::start(folder.path(), "small", &["up"], &["--space", "64MiB"]);
    let (small, large) = (folder.path().join("small.bin"), folder.path().join("large.bin"));
    std::fs::write(&small, noise(1_000_000, 1)).expect("written");
    std::fs::write(&large, noise(80_000_000, 2)).expect("written");
    let root = peer.json(&["add", small.to_str().expect("a path"), "--json"])["cid"].as_str().expect("a root").to_owned();
    // Said beforehand (a file has a size) and found out on the way (a stream has none): refused in words both times.
    let refused = peer.run(&["add", large.to_str().expect("a path")]);
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("MiB"), "{said}");
    let streamed =
        pinfold().args(["add", "-", "--api", peer.api()]).stdin(std::fs::File::open(&large).expect("readable")).output().expect("runs");
    assert!(!streamed.status.success());
    let said = String::from_utf8_lossy(&streamed.stderr).into_owned();
    assert!(said.contains("no room"), "{said}");
    // What the disk really gives: journals are laid out ahead as holes.
    let used: u64 = walk(&peer.dir).iter().map(|path| std::fs::metadata(path).map_or(0, |metadata| metadata.blocks() * 512)).sum();
    assert!(used < (64 << 20) * 11 / 10, "{used} bytes are used of 64 MiB");
    let (status, body) = http(peer.gateway(), "GET", &format!("/ipfs/{root}"), &[], b"");
    assert_eq!((status, body == noise(1_000_000, 1)), (200, true));
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        if entry.path().is_dir() {
            found.extend(walk(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}

#[test]
fn what_a_person_keeps_is_not_let_go_with_a_clusters_pin() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut peers = vec![Peer::up(folder.path(), "one")];
    let invite = peers[0].invite();
    peers.push(Peer::join(folder.path(), "two", &invite));
    meet(&peers);
    let file = folder.path().join("file.bin");
    std::fs::write(&file, noise(400_000, 9)).expect("written");
    let add = |peer: &Peer, copies: &str| {
        let added = peer.json(&["add", file.to_str().expect("a path"), "--copies", copies, "--wait", copies, "--json"]);
        added["cid"].as_str().expect("a root").to_owned()
    };
    let root = add(&peers[0], "2");
    // It leaves without --purge: what it held becomes its own.
    let mut two = peers.pop().expect("two");
    two.say(&["leave"]);
    assert_eq!(two.ended(SOON), Some(0));
    drop(two);
    let said = Peer::try_start(folder.path(), "two", &["up"], &[]).err().expect("refused");
    assert!(said.contains("left its cluster") && said.contains("pinfold join"), "{said}");
    // In another cluster the same content is pinned and let go again: the person's copy stays.
    let other = Peer::up(folder.path(), "other");
    let two = Peer::join(folder.path(), "two", &other.invite());
    let peers = [other, two];
    meet(&peers);
    assert!(!peers[1].say(&["pin", "ls"]).contains(&root), "the old cluster's state is not merged into the new one");
    assert_eq!(add(&peers[0], "2"), root);
    peers[0].say(&["pin", "rm", &root]);
    until("the pin is gone", SOON, || (!peers[1].say(&["pin", "ls"]).contains(&root)).then_some(()));
    peers[1].say(&["recover"]);
    let (status, _) = http(peers[1].api(), "POST", "/ipfs/gc?local=true", &[], b"");
    assert_eq!(status, 200);
    let (status, body) = http(peers[1].gateway(), "GET", &format!("/ipfs/{root}"), &[("Cache-Control", "only-if-cached")], b"");
    assert_eq!((status, body == noise(400_000, 9)), (200, true));
}
