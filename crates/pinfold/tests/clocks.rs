//! Wrong clocks: said in words, and nothing ends early or is lost because of them.

mod common;

use common::{Peer, meet, until};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(90);

fn inline(text: &str) -> String {
    // A CID that carries its content (identity hash): every peer has it at once.
    let multihash = cid_of(text.as_bytes());
    format!("f0155{multihash}")
}

fn cid_of(data: &[u8]) -> String {
    format!("00{:02x}{}", data.len(), data.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

fn name_of(peer: &Peer, cid: &str) -> Option<String> {
    let output = peer.run(&["pin", "ls", cid, "--json"]);
    let line = String::from_utf8_lossy(&output.stdout).lines().next().map(str::to_owned)?;
    serde_json::from_str::<serde_json::Value>(&line).ok()?["name"].as_str().map(str::to_owned)
}

#[test]
fn a_clock_that_is_two_hours_ahead_is_told_and_ends_no_pin_early() {
    let folder = tempfile::tempdir().expect("a folder");
    let one = Peer::up(folder.path(), "one");
    let invite = one.invite();
    let two = Peer::start(folder.path(), "two", &["join", &invite], &["--clock-shift", "7200"]);
    let peers = [one, two];
    meet(&peers);
    let status = until("the clock is noticed", SOON, || {
        let said = peers[0].say(&["status"]);
        said.contains("the clock of two is 2 h ahead").then_some(said)
    });
    assert!(status.contains("NTP"), "{status}");
    until("the other sees it from its side", SOON, || peers[1].say(&["status"]).contains("the clock of one is 2 h behind").then_some(()));
    let ahead = |peer: &Peer| {
        let rows = peer.say(&["peers", "--json"]);
        let rows: Vec<serde_json::Value> = rows.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        rows.iter().find(|row| row["name"] == "two").and_then(|row| row["clock_ahead_seconds"].as_i64())
    };
    assert!(ahead(&peers[0]).is_some_and(|seconds| (7_100..7_300).contains(&seconds)), "{:?}", ahead(&peers[0]));

    // By the clock of `two` both of these are over at once; only the one that really is goes.
    let (brief, long) = (inline("brief"), inline("long"));
    peers[0].say(&["pin", "add", &long, "--expire-in", "30m", "--name", "long"]);
    peers[0].say(&["pin", "add", &brief, "--expire-in", "2s", "--name", "brief"]);
    until("the pin that ended is gone everywhere", SOON, || peers.iter().all(|peer| name_of(peer, &brief).is_none()).then_some(()));
    for peer in &peers {
        assert_eq!(name_of(peer, &long).as_deref(), Some("long"), "kept although one clock is past its end");
    }

    // Who wrote last wins, whatever the clocks say.
    let cid = inline("twice");
    peers[1].say(&["pin", "add", &cid, "--name", "first, by the fast clock"]);
    until("it arrives", SOON, || name_of(&peers[0], &cid));
    peers[0].say(&["pin", "add", &cid, "--name", "second, by the slow clock"]);
    for peer in &peers {
        until("the later write wins", SOON, || (name_of(peer, &cid).as_deref() == Some("second, by the slow clock")).then_some(()));
    }
}

#[test]
fn an_invite_on_a_machine_whose_clock_is_past_its_end_names_the_clock() {
    let folder = tempfile::tempdir().expect("a folder");
    let one = Peer::up(folder.path(), "one");
    let invite = one.invite();
    let said = Peer::try_start(folder.path(), "two", &["join", &invite], &["--clock-shift", "172800"]).err().expect("refused");
    assert!(said.contains("expired") && said.contains("clock"), "{said}");
    let two = Peer::join(folder.path(), "two", &invite);
    assert_eq!(two.ready["joined"], "one", "the invite was not used up");
}

#[test]
fn a_clock_set_back_loses_no_trust_and_no_pins() {
    let folder = tempfile::tempdir().expect("a folder");
    let one = Peer::start(folder.path(), "one", &["up"], &["--clock-shift", "86400"]);
    let invite = one.invite();
    let two = Peer::start(folder.path(), "two", &["join", &invite], &["--clock-shift", "86400"]);
    let cid = inline("kept");
    one.say(&["pin", "add", &cid, "--name", "kept"]);
    until("it arrives", SOON, || name_of(&two, &cid));
    let addresses = [one.same_addresses(), two.same_addresses()];
    assert_eq!((one.terminate(), two.terminate()), (Some(0), Some(0)));
    let peers = [Peer::again(folder.path(), "one", &addresses[0]), Peer::again(folder.path(), "two", &addresses[1])];
    meet(&peers);
    for peer in &peers {
        assert_eq!(name_of(peer, &cid).as_deref(), Some("kept"));
    }
    // What is said later counts although its time is earlier.
    peers[0].say(&["pin", "add", &cid, "--name", "renamed"]);
    until("the later write wins", SOON, || (name_of(&peers[1], &cid).as_deref() == Some("renamed")).then_some(()));
    let three = Peer::join(folder.path(), "three", &peers[0].invite());
    let [one, two] = peers;
    meet(&[one, two, three]);
}
