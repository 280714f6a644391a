//! The control path: bursts of pins that reach everybody, what was acknowledged under load, a peer that is stopped and shown all the same.

mod common;

use common::{Peer, http, meet, three, until};
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const LATER: Duration = Duration::from_secs(120);

/// A raw block inside its CID (identity multihash): complete wherever it is pinned. Upper-case hex is a base that Go reads too.
fn inline_cid(number: u64) -> String {
    let payload: String = number.to_be_bytes().iter().map(|byte| format!("{byte:02X}")).collect();
    format!("F01550008{payload}")
}

/// Posts pins from several threads until all are posted or `is_over`; the ones that were acknowledged, as the peer wrote them.
fn post(api: &str, first: u64, count: u64, is_over: &AtomicBool) -> BTreeSet<String> {
    let (next, acknowledged) = (AtomicU64::new(first), Mutex::new(BTreeSet::new()));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= first + count || is_over.load(Ordering::Relaxed) {
                        return;
                    }
                    let path = format!("/pins/{}?replication-min=-1&replication-max=-1", inline_cid(number));
                    // A peer that was killed answers nothing any more.
                    let Ok((200, body)) = std::panic::catch_unwind(|| http(api, "POST", &path, &[], b"")) else { return };
                    let pin: Value = serde_json::from_slice(&body).expect("JSON");
                    acknowledged.lock().expect("alive").insert(pin["cid"].as_str().expect("a CID").to_owned());
                }
            });
        }
    });
    acknowledged.into_inner().expect("alive")
}

/// The CIDs of a list of JSON lines.
fn cids(body: &[u8]) -> BTreeSet<String> {
    let lines = String::from_utf8_lossy(body).into_owned();
    let cid = |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["cid"].as_str().expect("a CID").to_owned();
    lines.lines().filter(|line| !line.is_empty()).map(cid).collect()
}

fn listed(peer: &Peer) -> BTreeSet<String> {
    cids(&peer.get("/allocations").1)
}

#[test]
fn a_burst_reaches_everybody_and_is_held_by_everybody() {
    let folder = tempfile::tempdir().expect("a folder");
    let peers = three(folder.path());
    let never = AtomicBool::new(false);
    let posted = post(peers[0].api(), 0, 600, &never);
    assert_eq!(posted.len(), 600, "none is refused");
    for peer in &peers {
        until("a peer lists the burst", LATER, || (listed(peer) == posted).then_some(()));
        until("all copies are confirmed", LATER, || {
            let (_, unsettled) = peer.get("/pins?filter=queued,pinning,error");
            unsettled.is_empty().then_some(())
        });
        let pinned = cids(&peer.get("/pins?filter=pinned").1);
        assert_eq!(pinned, posted, "{}", peer.name);
    }
}

#[test]
fn what_was_acknowledged_under_load_survives_kill_minus_nine() {
    let folder = tempfile::tempdir().expect("a folder");
    let peer = Peer::up(folder.path(), "alone");
    let (api, is_over) = (peer.api().to_owned(), AtomicBool::new(false));
    let acknowledged = std::thread::scope(|scope| {
        let load = scope.spawn(|| post(&api, 0, 1_000_000, &is_over));
        until("the load runs", LATER, || (listed(&peer).len() > 200).then_some(()));
        peer.kill();
        is_over.store(true, Ordering::Relaxed);
        load.join().expect("the load ends")
    });
    assert!(acknowledged.len() > 150, "{}", acknowledged.len());
    let peer = Peer::up(folder.path(), "alone");
    let there = listed(&peer);
    assert!(acknowledged.is_subset(&there), "lost: {:?}", acknowledged.difference(&there).take(5).collect::<Vec<_>>());
    until("the copies are held again", LATER, || peer.get("/pins?filter=queued,pinning,error").1.is_empty().then_some(()));
}

#[test]
fn a_stopped_peer_is_shown_as_last_known_with_its_age() {
    let folder = tempfile::tempdir().expect("a folder");
    let peers = three(folder.path());
    let never = AtomicBool::new(false);
    let cid = post(peers[0].api(), 7, 1, &never).pop_first().expect("acknowledged");
    let stopped = peers[2].id().to_owned();
    let copy = |state: &str| {
        let status = peers[0].json(&["status", &cid, "--json"]);
        (status["peer_map"][&stopped]["status"] == state).then_some(())
    };
    until("the copy is confirmed", LATER, || copy("pinned"));
    signal(&peers[2], "STOP");
    let row = || {
        let why = peers[0].json(&["why", &cid, "--json"]);
        let rows = why["peers"].as_array().cloned().unwrap_or_default();
        rows.into_iter().find(|row| row["peer"] == stopped.as_str()).expect("it is still named")
    };
    let silent = until("it is seen to be silent", LATER, || Some(row()).filter(|row| row["live"] == false));
    let heard = silent["as_of"].as_str().expect("a time").to_owned();
    // As last known, and the time of that does not move; no answer leaves it out.
    assert_eq!((silent["state"].as_str(), row()["as_of"].as_str()), (Some("pinned"), Some(heard.as_str())));
    assert_eq!(copy("pinned"), Some(()));
    for path in ["/peers", "/id", "/pins", "/health/alerts"] {
        let (status, body) = peers[0].get(path);
        assert_eq!((status, String::from_utf8_lossy(&body).contains(&stopped)), (200, true), "{path}");
    }
    let said = String::from_utf8_lossy(&peers[0].get("/peers").1).into_owned();
    assert!(said.contains(&format!("last heard of {heard}")), "{said}");
    assert!(peers[0].say(&["peers"]).contains(" ago"));
    // New pins are taken while it is away, and it learns of them when it goes on.
    let later = post(peers[0].api(), 100, 20, &never);
    assert_eq!(later.len(), 20);
    signal(&peers[2], "CONT");
    until("it has caught up", LATER, || later.is_subset(&listed(&peers[2])).then_some(()));
    meet(&peers);
}

fn signal(peer: &Peer, name: &str) {
    let status = Command::new("kill").arg(format!("-{name}")).arg(peer.process().to_string()).status();
    assert!(status.expect("kill").success());
}
