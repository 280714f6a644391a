//! All pins out of a running peer and into one: nothing lost, nothing half done, twice is harmless.

mod common;

use common::{Peer, http, noise, until};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

const LATER: Duration = Duration::from_secs(90);

/// Lines in one batch of an import.
const BATCH: usize = 4096;

/// A pin of content that stands in its CID (identity), so that every peer can hold it.
fn line(number: u64) -> String {
    let cid = inline_cid(&noise(32, number));
    format!(
        r#"{{"replication_factor_min":-1,"replication_factor_max":-1,"name":"pin {number}","mode":"recursive","shard_size":0,"user_allocations":null,"expire_at":"0001-01-01T00:00:00Z","metadata":null,"pin_update":null,"origins":[],"cid":"{cid}","type":"pin","allocations":[],"max_depth":-1,"reference":null,"timestamp":"2026-11-23T16:39:26Z"}}"#
    ) + "\n"
}

fn lines(count: u64) -> String {
    (1..=count).map(line).collect()
}

fn inline_cid(content: &[u8]) -> String {
    let raw = [&[0x01, 0x55, 0x00, content.len() as u8], content].concat();
    let mut text = "b".to_owned();
    let (mut bits, mut held) = (0u32, 0);
    for byte in raw {
        bits = (bits << 8) | u32::from(byte);
        held += 8;
        while held >= 5 {
            held -= 5;
            text.push(char::from(b"abcdefghijklmnopqrstuvwxyz234567"[(bits >> held) as usize & 31]));
        }
    }
    if held > 0 {
        text.push(char::from(b"abcdefghijklmnopqrstuvwxyz234567"[(bits << (5 - held)) as usize & 31]));
    }
    text
}

fn by_cid(lines: &str) -> BTreeMap<String, String> {
    let cid = |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["cid"].as_str().expect("a cid").to_owned();
    lines.lines().map(|line| (cid(line), line.to_owned())).collect()
}

fn counts(answer: &Value) -> [u64; 5] {
    ["lines", "added", "changed", "same", "refused"].map(|key| answer[key].as_u64().expect("a count"))
}

#[test]
fn what_is_exported_is_imported_elsewhere_line_for_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = Peer::up(folder.path(), "first");
    let file = folder.path().join("pins.ndjson");
    let wanted = lines(5_000);
    std::fs::write(&file, &wanted).expect("written");
    let name = file.to_str().expect("a name");
    assert_eq!(counts(&first.json(&["state", "import", name, "--json"])), [5_000, 5_000, 0, 0, 0]);
    assert_eq!(counts(&first.json(&["state", "import", name, "--json"])), [5_000, 0, 0, 5_000, 0], "twice is harmless");

    let out = folder.path().join("out.ndjson");
    let exported = first.json(&["state", "export", "-o", out.to_str().expect("a name"), "--json"]);
    assert_eq!(exported["exported"], 5_000);
    let exported = std::fs::read_to_string(&out).expect("whole");
    assert_eq!(by_cid(&exported), by_cid(&wanted));
    assert!(!folder.path().join("out.ndjson.part").exists());
    let (status, listed) = first.get("/allocations");
    assert_eq!((status, String::from_utf8(listed).expect("text")), (200, exported.clone()));

    let second = Peer::up(folder.path(), "second");
    std::fs::write(&file, exported.trim_end()).expect("written");
    assert_eq!(counts(&second.json(&["state", "import", name, "--json"])), [5_000, 5_000, 0, 0, 0], "the last newline may be missing");
    assert_eq!(second.say(&["state", "export"]), exported, "the same order, the same bytes");
}

#[test]
fn a_bad_line_is_named_and_nothing_behind_it_is_merged() {
    let folder = tempfile::tempdir().expect("a folder");
    let peer = Peer::up(folder.path(), "alone");
    let file = folder.path().join("pins.ndjson");
    let name = file.to_str().expect("a name");
    let bad = [&lines(BATCH as u64), &line(900_001), "{\"cid\":\"nonsense\"}\n", &line(900_002)].concat();
    std::fs::write(&file, &bad).expect("written");
    let output = peer.run(&["state", "import", name]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    let (at, before) = (BATCH + 2, BATCH + 1);
    assert!(said.contains(&format!("line {at} is no pin")) && said.contains(&format!("the {before} lines before it are merged")), "{said}");
    assert_eq!(by_cid(&peer.say(&["state", "export"])).len(), before);

    let imported = peer.json(&["state", "import", name, "--skip-bad", "--json"]);
    assert_eq!(counts(&imported), [BATCH as u64 + 3, 1, 0, BATCH as u64 + 1, 1]);
    let named = peer.say(&["state", "import", name, "--skip-bad", "--json"]);
    assert!(named.lines().any(|line| line.contains(&format!("\"line\":{at}"))), "{named}");

    let (status, body) = http(peer.api(), "POST", "/pinfold/v1/state", &[], b"nonsense\n");
    assert_eq!(status, 400, "{}", String::from_utf8_lossy(&body));
    assert!(String::from_utf8_lossy(&body).contains("line 1 is no pin"));
}

#[test]
fn pins_go_on_while_an_import_runs_and_all_peers_get_both() {
    let folder = tempfile::tempdir().expect("a folder");
    let peers = common::three(folder.path());
    let file = folder.path().join("pins.ndjson");
    std::fs::write(&file, lines(6_000)).expect("written");
    std::thread::scope(|scope| {
        let import = scope.spawn(|| peers[0].json(&["state", "import", file.to_str().expect("a name"), "--json"]));
        for number in 0..40 {
            let cid = inline_cid(&noise(32, 700_000 + number));
            let (status, body) = http(peers[0].api(), "POST", &format!("/pins/{cid}?name=between"), &[], b"");
            assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        }
        assert_eq!(counts(&import.join().expect("imported"))[..2], [6_000, 6_000]);
    });
    let whole = by_cid(&peers[0].say(&["state", "export"]));
    assert_eq!(whole.len(), 6_040);
    for peer in &peers[1..] {
        until("the other peers have every pin", LATER, || (by_cid(&peer.say(&["state", "export"])) == whole).then_some(()));
    }
}

#[test]
fn what_an_import_acknowledged_survives_kill_minus_nine() {
    let folder = tempfile::tempdir().expect("a folder");
    let peer = Peer::up(folder.path(), "alone");
    let wanted = lines(5 * BATCH as u64);
    let host = peer.api().trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(&host).expect("the door is open");
    stream.set_read_timeout(Some(LATER)).expect("a time-out");
    // More is promised than is sent, so that the import is under way when the peer dies.
    let head = format!("POST /pinfold/v1/state HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n\r\n", wanted.len() * 2);
    stream.write_all(head.as_bytes()).expect("sent");
    stream.write_all(wanted.as_bytes()).expect("sent");
    let mut answer = BufReader::new(stream);
    let mut said = String::new();
    let acknowledged = loop {
        said.clear();
        assert!(answer.read_line(&mut said).expect("an answer") > 0, "the answer ended");
        let lines = serde_json::from_str::<Value>(&said).ok().and_then(|line| line["lines"].as_u64());
        if let Some(lines) = lines.filter(|lines| *lines > 0) {
            break lines as usize;
        }
    };
    assert!(acknowledged >= BATCH, "{said}");
    peer.kill();

    let peer = Peer::up(folder.path(), "alone");
    let have = by_cid(&peer.say(&["state", "export"]));
    for line in wanted.lines().take(acknowledged) {
        let cid = &by_cid(line).into_keys().next().expect("a cid");
        assert_eq!(have.get(cid).map(String::as_str), Some(line), "acknowledged and lost");
    }
    let file = folder.path().join("pins.ndjson");
    std::fs::write(&file, &wanted).expect("written");
    let again = counts(&peer.json(&["state", "import", file.to_str().expect("a name"), "--json"]));
    assert_eq!((again[0], again[2], again[4]), (wanted.lines().count() as u64, 0, 0));
    assert_eq!(again[1] + again[3], again[0]);
    assert_eq!(by_cid(&peer.say(&["state", "export"])), by_cid(&wanted));
}

/// Whoever joins shows all pins at once, as another peer gives them, and compares them with the history after that.
#[test]
fn who_joins_takes_the_set_over_and_compares_it_with_the_history() {
    const PINS: u64 = 30_000;
    let folder = tempfile::tempdir().expect("a folder");
    let first = Peer::up(folder.path(), "first");
    let file = folder.path().join("pins.ndjson");
    std::fs::write(&file, lines(PINS)).expect("written");
    first.say(&["state", "import", file.to_str().expect("a name")]);
    let second = Peer::join(folder.path(), "second", &first.invite());
    let (mut was_unsure, mut least) = (0, u64::MAX);
    until("all is taken over and compared", LATER, || {
        let (_, status) = second.get("/pinfold/v1/status");
        let status: Value = serde_json::from_slice(&status).expect("JSON");
        let (pins, unsure) = (status["pins"].as_u64()?, status["unsure"].as_u64()?);
        was_unsure = was_unsure.max(unsure);
        least = least.min(pins);
        let current = status["mended"] == 0 && pins == PINS && unsure == 0 && was_unsure > 0;
        current.then_some(())
    });
    assert!(was_unsure > PINS / 2, "most came with the set: {was_unsure}");
    let exported = |peer: &Peer| by_cid(&peer.say(&["state", "export"]));
    assert_eq!(exported(&first), exported(&second));
}
