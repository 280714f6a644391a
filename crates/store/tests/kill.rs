//! A process that writes is killed, again and again: whatever it acknowledged is there afterwards.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use store::{Area, Batch, DiskOptions, DiskStore, Durability, PackOptions, PackStore, Store};
use types::ByteCount;

/// Tells the test binary, started again, that it is the one to be killed, and where to write.
const VICTIM: &str = "STORE_KILL_TEST_DIR";
const ROUNDS: u64 = 6;
/// The victim deletes what is so many steps old.
const KEPT: u64 = 40;

#[test]
fn what_a_killed_process_acknowledged_is_there() {
    let home = tempfile::tempdir().expect("a directory for the test");
    let mut acknowledged = BTreeMap::new();
    for round in 0..ROUNDS {
        let first = acknowledged.last_key_value().map_or(0, |(step, _)| step + 1) + 1000;
        run_and_kill(home.path(), first, 20 + round * 31, &mut acknowledged);
        let (keys, packs) = open(home.path());
        let last = acknowledged.last_key_value().map_or(0, |(step, _)| *step);
        for (step, ()) in acknowledged.range(last.saturating_sub(KEPT - 2)..) {
            assert_eq!(keys.get(Area::Pins, &step.to_be_bytes()).expect("reads").as_deref(), Some(&b"pin"[..]), "pin {step}");
            for (name, data) in blocks(*step) {
                assert!(packs.get(&name).expect("reads").as_deref() == Some(&data[..]), "block of step {step}");
            }
        }
        let stats = packs.stats().expect("counts");
        let listed = packs.blocks(None, usize::MAX).expect("lists");
        assert_eq!(stats.blocks, listed.len() as u64);
        assert_eq!(stats.bytes_live, ByteCount(listed.iter().map(|(_, length)| length).sum()));
        assert_eq!(packs.scrub(None, ByteCount(u64::MAX)).expect("scrubs").bad, []);
    }
    assert!(acknowledged.len() as u64 > ROUNDS * 20);
}

/// Starts the victim at step `first` and kills it somewhere behind its `acks`-th acknowledgement.
fn run_and_kill(dir: &Path, first: u64, acks: u64, acknowledged: &mut BTreeMap<u64, ()>) {
    let mut victim = Command::new(std::env::current_exe().expect("this test has a file"))
        .args(["--exact", "the_process_that_is_killed", "--nocapture", "--test-threads=1"])
        .env(VICTIM, format!("{first}:{}", dir.display()))
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut lines = BufReader::new(victim.stdout.take().expect("piped")).lines();
    let mut seen = 0;
    while seen < acks {
        let line = lines.next().expect("the victim goes on until it is killed").expect("reads");
        seen += u64::from(take_ack(&line, acknowledged));
    }
    victim.kill().expect("kills");
    victim.wait().expect("ends");
    for line in lines.map_while(Result::ok) {
        take_ack(&line, acknowledged);
    }
}

fn take_ack(line: &str, acknowledged: &mut BTreeMap<u64, ()>) -> bool {
    // The last line may be cut in the middle of its number: only whole ones count.
    let Some(step) = line.strip_prefix("ack ").and_then(|rest| rest.strip_suffix('.')?.parse().ok()) else { return false };
    acknowledged.insert(step, ());
    true
}

#[test]
fn the_process_that_is_killed() {
    let Ok(told) = std::env::var(VICTIM) else { return };
    let (first, dir) = told.split_once(':').expect("step and directory");
    let (keys, packs) = open(Path::new(dir));
    let mut out = std::io::stdout();
    for step in first.parse::<u64>().expect("a number").. {
        let blocks = blocks(step);
        let blocks: Vec<(&[u8], &[u8])> = blocks.iter().map(|(name, data)| (&name[..], &data[..])).collect();
        packs.put(&blocks).expect("there is room");
        packs.sync().expect("syncs");
        let mut batch = Batch::new();
        batch.put(Area::Pins, step.to_be_bytes(), "pin");
        keys.commit(batch, Durability::Synced).expect("commits");
        writeln!(out, "ack {step}.").and_then(|()| out.flush()).expect("the parent listens");
        let old: Vec<Vec<u8>> = blocks_of_steps(step.saturating_sub(KEPT));
        packs.delete(&old.iter().map(|name| &name[..]).collect::<Vec<_>>()).expect("deletes");
        if step % 5 == 0 {
            packs.compact(ByteCount(1 << 20)).expect("compacts");
        }
    }
}

fn open(dir: &Path) -> (Arc<DiskStore>, PackStore) {
    let keys = Arc::new(DiskStore::open(&dir.join("store"), DiskOptions::default()).expect("opens"));
    let options = PackOptions { segment: ByteCount(128 << 10), ..PackOptions::with_limit(ByteCount::GIB) };
    let packs = PackStore::open(&dir.join("packs"), keys.clone(), options).expect("opens");
    (keys, packs)
}

fn blocks_of_steps(step: u64) -> Vec<Vec<u8>> {
    blocks(step).into_iter().map(|(name, _)| name).collect()
}

/// Three blocks of up to 8 KiB for each step.
fn blocks(step: u64) -> Vec<(Vec<u8>, Vec<u8>)> {
    (0..3u64)
        .map(|part| {
            let seed = (step * 3 + part).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let name = [&[0x12, 0x20][..], &seed.to_be_bytes(), &[0; 24]].concat();
            (name, seed.to_le_bytes().repeat((seed >> 54) as usize))
        })
        .collect()
}
