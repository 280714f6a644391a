//! Clusters made and joined: invites, secrets, mistakes.

mod common;

use common::{Peer, meet, up_count};

#[test]
fn both_sides_trust_each_other_after_a_join_and_say_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let one = Peer::up(folder.path(), "one");
    let two = Peer::join(folder.path(), "two", &one.invite());
    assert_eq!(two.ready["joined"], "one");
    let peers = [one, two];
    meet(&peers);
    // A third peer invited by the second is trusted by the first too.
    let three = Peer::join(folder.path(), "three", &peers[1].invite());
    let [one, two] = peers;
    meet(&[one, two, three]);
}

#[test]
fn an_invite_is_good_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let one = Peer::up(folder.path(), "one");
    let invite = one.invite();
    let _two = Peer::join(folder.path(), "two", &invite);
    let said = Peer::try_start(folder.path(), "three", &["join", &invite], &[]).err().expect("refused");
    assert!(said.contains("was used already") && said.contains("pinfold invite"), "{said}");
}

#[test]
fn damaged_and_expired_invites_are_refused_in_words() {
    let folder = tempfile::tempdir().expect("a folder");
    let one = Peer::up(folder.path(), "one");
    let invite = one.invite();
    let said = Peer::try_start(folder.path(), "two", &["join", &invite[..invite.len() - 7]], &[]).err().expect("refused");
    assert!(said.contains("this is no invite"), "{said}");
    let short = one.say(&["invite", "--ttl", "1s"]).trim().lines().last().expect("a line").to_owned();
    std::thread::sleep(std::time::Duration::from_millis(2100));
    let said = Peer::try_start(folder.path(), "two", &["join", &short], &[]).err().expect("refused");
    assert!(said.contains("expired"), "{said}");
}

#[test]
fn the_secret_alone_gives_no_trust() {
    let folder = tempfile::tempdir().expect("a folder");
    let secret = "5a".repeat(32);
    let one = Peer::start(folder.path(), "one", &["up"], &["--secret", &secret]);
    let stranger = Peer::start(folder.path(), "stranger", &["up"], &["--secret", &secret]);
    // It can be invited into nothing by itself: each sees only itself, and a pin of one never shows at the other.
    let file = folder.path().join("file");
    std::fs::write(&file, b"mine").expect("written");
    let root = stranger.json(&["add", file.to_str().expect("a path"), "--json"])["cid"].as_str().expect("a root").to_owned();
    assert_eq!((up_count(&one), up_count(&stranger)), (1, 1));
    assert!(!one.say(&["pin", "ls"]).contains(&root));
}

#[test]
fn another_secret_for_the_same_directory_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    Peer::start(folder.path(), "one", &["up"], &["--secret", &"5a".repeat(32)]).terminate();
    let said = Peer::try_start(folder.path(), "one", &["up"], &["--secret", &"5b".repeat(32)]).err().expect("refused");
    assert!(said.contains("another secret"), "{said}");
}

#[test]
fn a_taken_port_and_a_taken_directory_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let one = Peer::up(folder.path(), "one");
    let taken = one.api().trim_start_matches("http://").to_owned();
    let said = Peer::try_start(folder.path(), "two", &["up"], &["--api", &taken]).err().expect("refused");
    assert!(said.contains("--api") && said.contains("taken"), "{said}");
    let said = Peer::try_start(folder.path(), "one", &["up"], &[]).err().expect("refused");
    assert!(said.contains("in use") || said.contains("another process") || said.contains("lock"), "{said}");
    let said = Peer::try_start(folder.path(), "three", &["up"], &["--api", "0.0.0.0:0"]).err().expect("refused");
    assert!(said.contains("loopback") || said.contains("credentials"), "{said}");
}

#[test]
fn sigterm_stops_cleanly_and_a_restart_keeps_the_identity() {
    let folder = tempfile::tempdir().expect("a folder");
    let one = Peer::up(folder.path(), "one");
    let id = one.id().to_owned();
    assert_eq!(one.terminate(), Some(0));
    assert_eq!(Peer::up(folder.path(), "one").id(), id);
}

#[test]
fn a_peer_whose_state_was_lost_lets_nothing_go_and_gets_it_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let peers = common::three(folder.path());
    let file = folder.path().join("file.bin");
    std::fs::write(&file, common::noise(500_000, 5)).expect("written");
    let added = peers[0].json(&["add", file.to_str().expect("a path"), "--copies", "3", "--wait", "3", "--json"]);
    let root = added["cid"].as_str().expect("a root").to_owned();
    let mut peers = peers.into_iter();
    let (one, two, three) = (peers.next().expect("one"), peers.next().expect("two"), peers.next().expect("three"));
    let dir = three.dir.clone();
    assert_eq!(three.terminate(), Some(0));
    // The state is gone (an empty backup was restored); identity, secret and blocks are there.
    std::fs::remove_dir_all(dir.join("state")).expect("removed");
    let three = Peer::join(folder.path(), "three", &one.invite());
    let peers = [one, two, three];
    meet(&peers);
    common::until("all three hold it again", std::time::Duration::from_secs(60), || {
        (common::holders(&peers[2], &root).len() == 3).then_some(())
    });
    assert!(peers[0].say(&["pin", "ls"]).contains(&root));
    let (status, body) = common::http(peers[2].gateway(), "GET", &format!("/ipfs/{root}"), &[("Cache-Control", "only-if-cached")], b"");
    assert_eq!((status, body == common::noise(500_000, 5)), (200, true));
}
