//! How fast the packs and the keys are on this disk: `cargo run --release -p store --example bench_packs [directory [run...]]`, where a
//! run is one of large, single, small, keys.
//!
//! Prints megabytes (or entries) a second of wall time and the CPU seconds of the whole process for each run.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use store::{Area, Batch, DiskOptions, DiskStore, Durability, PackOptions, PackStore, Store};
use types::ByteCount;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let base = arguments.next().unwrap_or_else(|| ".".to_owned());
    let wanted: Vec<String> = arguments.collect();
    let dir = tempfile::tempdir_in(base).expect("a directory for the benchmark");
    type Run = (&'static str, fn(&Path));
    let runs: [Run; 4] = [
        ("large", |dir| blocks(dir, "256 KiB blocks, sync each 64", 256 << 10, 2048, 64)),
        ("single", |dir| blocks(dir, "256 KiB blocks, sync each one", 256 << 10, 600, 1)),
        ("small", |dir| blocks(dir, "200 B blocks, batches of 1000", 200, 400_000, 1000)),
        ("keys", |dir| keys(dir, 1_000_000)),
    ];
    for (run, measure) in runs {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == run) {
            measure(&dir.path().join(run));
        }
    }
}

/// Puts `count` blocks in batches with a sync each, reads them in another order, opens again.
fn blocks(dir: &Path, what: &str, size: usize, count: u64, batch: u64) {
    let index = Arc::new(timed("  open empty index", || DiskStore::open(&dir.join("keys"), DiskOptions::default()).expect("opens")));
    let packs = PackStore::open(&dir.join("packs"), index.clone(), PackOptions::with_limit(ByteCount(64 << 30))).expect("opens");
    let mut content = vec![0; size];
    fill(&mut content, 1);
    let mut batch_content: Vec<Vec<u8>> = (0..batch).map(|_| content.clone()).collect();
    let bytes = size as u64 * count;

    measure(&format!("{what}: put"), count, bytes, || {
        for first in (0..count).step_by(batch as usize) {
            for (number, content) in (first..).zip(&mut batch_content) {
                content[..8].copy_from_slice(&number.to_be_bytes());
            }
            let names: Vec<[u8; 34]> = (first..first + batch).map(name).collect();
            let blocks: Vec<(&[u8], &[u8])> = names.iter().zip(&batch_content).map(|(name, content)| (&name[..], &content[..])).collect();
            packs.put(&blocks).expect("there is room");
            packs.sync().expect("syncs");
        }
    });
    measure("  get", count, bytes, || {
        for number in 0..count {
            packs.get(&name(number * 7919 % count)).expect("reads").expect("is there");
        }
    });
    let stats = packs.stats().expect("counts");
    println!("  {} blocks, live {}, on disk {} (index {})", stats.blocks, stats.bytes_live, stats.bytes_disk, stats.bytes_index);
    timed("  close", || drop(packs));
    drop(index);
    let index = Arc::new(timed("  open index again", || DiskStore::open(&dir.join("keys"), DiskOptions::default()).expect("opens")));
    let options = PackOptions::with_limit(ByteCount(64 << 30));
    let packs = timed("  open packs again", || PackStore::open(&dir.join("packs"), index, options).expect("opens"));
    measure("  delete half", count / 2, bytes / 2, || {
        for first in (0..count / 2).step_by(1000) {
            let names: Vec<[u8; 34]> = (first..(first + 1000).min(count / 2)).map(name).collect();
            packs.delete(&names.iter().map(|name| &name[..]).collect::<Vec<_>>()).expect("deletes");
        }
    });
    let mut won = ByteCount::ZERO;
    measure("  compact", count / 2, bytes / 2, || {
        loop {
            let some = packs.compact(ByteCount(u64::MAX)).expect("compacts");
            won += some;
            if some == ByteCount::ZERO {
                break;
            }
        }
    });
    println!("  won {won}");
}

/// Records of a 34 B key and a 150 B value.
fn keys(dir: &Path, count: u64) {
    let store = DiskStore::open(dir, DiskOptions::default()).expect("opens");
    let value = [7; 150];
    measure("keys of 34 B + 150 B, synced batches of 1000: put", count, count * 184, || {
        for first in (0..count).step_by(1000) {
            let mut batch = Batch::new();
            for number in first..first + 1000 {
                batch.put(Area::Pins, name(number), value);
            }
            store.commit(batch, Durability::Synced).expect("commits");
        }
    });
    measure("  get", 100_000, 100_000 * 184, || {
        for number in 0..100_000 {
            store.get(Area::Pins, &name(number * 7919 % count)).expect("reads").expect("is there");
        }
    });
    measure("  scan in pages of 1000", count, count * 184, || {
        let (mut after, mut seen) = (None::<Vec<u8>>, 0);
        while let Some((last, _)) = {
            let page = store.snapshot().scan(Area::Pins, after.as_deref(), b"", 1000).expect("scans");
            seen += page.len() as u64;
            page.last().cloned()
        } {
            after = Some(last.to_vec());
        }
        assert_eq!(seen, count);
    });
    println!("  memory {}, on disk {}", memory(), store.disk_bytes().expect("measures"));
    timed("  close", || drop(store));
    let store = timed("  open again", || DiskStore::open(dir, DiskOptions::default()).expect("opens"));
    println!("  memory {}", memory());
    measure("single synced commits", 500, 500 * 184, || {
        for number in 0..500 {
            let mut batch = Batch::new();
            batch.put(Area::Intents, name(number), value);
            store.commit(batch, Durability::Synced).expect("commits");
        }
    });
    let store = Arc::new(store);
    measure("single synced commits of 32 threads", 32 * 100, 32 * 100 * 184, || {
        std::thread::scope(|scope| {
            for thread in 0..32 {
                let store = &store;
                scope.spawn(move || {
                    for number in 0..100 {
                        let mut batch = Batch::new();
                        batch.put(Area::Intents, name(1_000_000 + thread * 100 + number), value);
                        store.commit(batch, Durability::Synced).expect("commits");
                    }
                });
            }
        });
    });
}

fn name(number: u64) -> [u8; 34] {
    let mut name = [0x12; 34];
    name[1] = 0x20;
    fill(&mut name[2..], number);
    name
}

/// Bytes without a pattern, the same for the same seed.
fn fill(bytes: &mut [u8], seed: u64) {
    let mut state = (seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    for chunk in bytes.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
    }
}

fn measure(what: &str, count: u64, bytes: u64, run: impl FnOnce()) {
    let (start, cpu) = (Instant::now(), cpu_seconds());
    run();
    let seconds = start.elapsed().as_secs_f64();
    let cpu = cpu_seconds() - cpu;
    println!("{what}: {:.0} MB/s, {:.0}/s, {seconds:.2} s, {cpu:.2} CPU s", bytes as f64 / 1e6 / seconds, count as f64 / seconds);
}

fn timed<T>(what: &str, run: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let value = run();
    println!("{what}: {:.0} ms", start.elapsed().as_secs_f64() * 1e3);
    value
}

/// User and system time of this process so far.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    // The kernel counts in hundredths of a second for users (USER_HZ).
    (ticks(11) + ticks(12)) / 100.0
}

/// Resident memory that no file backs.
fn memory() -> ByteCount {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    ByteCount(kib.unwrap_or(0) << 10)
}
