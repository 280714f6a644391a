//! A peer never takes more than it was given, whatever is done to it, and says what it has.

mod common;

use common::{Peer, http, meet, noise, until};
use serde_json::Value;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const LATER: Duration = Duration::from_secs(90);

/// What the files below `folder` take, as du says.
fn du(folder: &Path) -> u64 {
    let own = std::fs::metadata(folder).map_or(0, |metadata| metadata.blocks() * 512);
    let Ok(entries) = std::fs::read_dir(folder) else { return own };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => du(&entry.path()),
        Ok(metadata) => metadata.blocks() * 512,
        // It went while we looked.
        Err(_) => 0,
    };
    own + entries.flatten().map(size).sum::<u64>()
}

/// Looks at a folder again and again; remembers the most it ever took.
struct Watch {
    most: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watch {
    fn over(folder: &Path) -> Watch {
        let (most, stop) = (Arc::new(AtomicU64::default()), Arc::new(AtomicBool::default()));
        let thread = std::thread::spawn({
            let (folder, most, stop) = (folder.to_owned(), most.clone(), stop.clone());
            move || {
                while !stop.load(Ordering::Relaxed) {
                    most.fetch_max(du(&folder), Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        });
        Watch { most, stop, thread: Some(thread) }
    }

    fn most(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("it only looks");
        }
        self.most.load(Ordering::Relaxed)
    }
}

fn own_space(peer: &Peer) -> Value {
    let rows = peer.say(&["peers", "--json"]);
    let rows = rows.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    rows.into_iter().find(|row| row["self"] == true).expect("the own row")["space"].clone()
}

#[test]
fn the_whole_directory_stays_under_the_limit_through_adds_pins_unpins_and_collections() {
    let folder = tempfile::tempdir().expect("a folder");
    // A gigabyte takes minutes in a debug build: PINFOLD_SPACE=1000000000 asks for it.
    let limit: u64 = std::env::var("PINFOLD_SPACE").ok().and_then(|text| text.parse().ok()).unwrap_or(64 << 20);
    let peer = Peer::start(folder.path(), "small", &["up"], &["--space", &limit.to_string()]);
    let watch = Watch::over(&peer.dir);
    let file = folder.path().join("file.bin");
    let mut kept = Vec::new();
    let mut refusals = 0;
    for round in 0..20u64 {
        // Large files, and folders of small ones, whose weight is in the index.
        let path = if round % 3 == 2 {
            let many = folder.path().join(format!("many{round}"));
            std::fs::create_dir(&many).expect("made");
            for number in 0..400 {
                std::fs::write(many.join(number.to_string()), noise(3_000, round * 1000 + number)).expect("written");
            }
            many
        } else {
            std::fs::write(&file, noise((limit / 6) as usize, round)).expect("written");
            file.clone()
        };
        let added = peer.run(&["add", path.to_str().expect("a path"), "--copies", "1", "--quiet"]);
        if added.status.success() {
            kept.push(String::from_utf8(added.stdout).expect("text").trim().to_owned());
            continue;
        }
        let said = String::from_utf8_lossy(&added.stderr).into_owned();
        assert!(said.contains("no room") || said.contains("free"), "{said}");
        refusals += 1;
        // Full: what it has is there, and letting go brings room.
        for root in &kept {
            let (status, _) = http(peer.gateway(), "HEAD", &format!("/ipfs/{root}"), &[], b"");
            // A folder is led to its page.
            assert!(matches!(status, 200 | 301), "{status} {root}");
        }
        let before = du(&peer.dir);
        for root in kept.drain(..kept.len() / 2 + 1) {
            peer.say(&["pin", "rm", &root]);
        }
        until("the room comes back", LATER, || {
            // Half of what is held goes at once: that asks for a word.
            peer.say(&["removals", "approve"]);
            let (status, _) = http(peer.api(), "POST", "/ipfs/gc?local=true", &[], b"");
            assert_eq!(status, 200);
            let space = own_space(&peer);
            (space["used"].as_u64()? + limit / 6 < before).then_some(())
        });
    }
    assert!(refusals >= 2, "{refusals} refusals: the limit was reached again and again");
    let most = watch.most();
    assert!(most <= limit + limit / 100, "{most} bytes were used of {limit}");
    // What it says is as old as its last look.
    until("what it says is what du says", LATER, || {
        let said = own_space(&peer)["used"].as_u64()?;
        (said.abs_diff(du(&peer.dir)) <= limit / 50).then_some(())
    });
    eprintln!("{most} of {limit} used at most; {refusals} refusals");
}

#[test]
fn what_does_not_fit_on_one_peer_goes_to_another_and_the_refusal_names_the_room() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut peers = vec![Peer::start(folder.path(), "small", &["up"], &["--space", "64MiB"])];
    let invite = peers[0].invite();
    peers.push(Peer::start(folder.path(), "large", &["join", &invite], &["--space", "400MiB"]));
    meet(&peers);
    let file = folder.path().join("file.bin");
    std::fs::write(&file, noise(90_000_000, 1)).expect("written");
    let path = file.to_str().expect("a path");
    // Asked at the small one: it takes a small part at most, the large one the rest, and both read all of it.
    let added = peers[0].json(&["add", path, "--copies", "1", "--wait", "1", "--json"]);
    let root = added["cid"].as_str().expect("a root").to_owned();
    until("the large one has its part", LATER, || common::holders(&peers[0], &root).contains(&"large".to_owned()).then_some(()));
    assert!(du(&peers[0].dir) <= (64 << 20) + (64 << 20) / 100);
    // Two copies fit nowhere: refused before the first byte, with the numbers of everybody.
    let refused = peers[0].run(&["add", path, "--copies", "2"]);
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    for part in ["has no room (needs ", "free ", "of 64.0 MiB)"] {
        assert!(said.contains(part), "{part:?} in {said}");
    }
    // Read whole from both; the small one keeps what it can of it.
    let whole = noise(90_000_000, 1);
    for peer in &peers {
        let (status, body) = http(peer.gateway(), "GET", &format!("/ipfs/{root}"), &[], b"");
        assert_eq!((status, body == whole), (200, true), "{}", peer.name);
    }
}
