//! Many small blocks: every process that fills, reads, is killed, opens again and halves a store says what that took.
//!
//! With a hundred thousand blocks it is a test of what is there afterwards; `cargo xtask bench node` takes its figures with ten million.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;
use store::{DiskOptions, DiskStore, PackOptions, PackStore, Quota};
use types::ByteCount;

/// Tells the test binary, started again, what to do: `part:count:directory`.
const PART: &str = "STORE_MANY_PART";
/// How many blocks the measurement takes.
const COUNT: &str = "STORE_MANY_COUNT";
/// Where it puts them.
const PLACE: &str = "STORE_MANY_DIR";
/// Blocks in one put, which is then synced.
const GROUP: u64 = 1000;
const BLOCK: usize = 128;
/// Blocks listed and deleted at once: those of a collection (`ipfs_embedded::collect`).
const PAGE: usize = 4096;
const SWEPT: usize = 512;
/// Blocks of which each is looked at in tests, and a sample of as many in measurements.
const READS: u64 = 100_000;
/// Writers are killed when they have written these shares of all blocks.
const KILLED: [u64; 3] = [20, 10, 4];
/// At most so many: as much as the longest journal of fjall has.
const JOURNAL_ENTRIES: u64 = 900_000;

#[test]
fn many_blocks_outlive_a_kill_and_half_of_them_a_collection() {
    let home = tempfile::tempdir().expect("a directory for the test");
    run(home.path(), READS);
}

#[test]
#[ignore = "a measurement: cargo xtask bench node"]
fn figures_of_many_blocks() {
    let count = std::env::var(COUNT).map_or(10_000_000, |count| count.parse().expect("a number"));
    let place = std::env::var_os(PLACE).map_or_else(std::env::temp_dir, Into::into);
    let home = tempfile::tempdir_in(place).expect("a directory for the measurement");
    run(home.path(), count);
}

fn run(dir: &Path, count: u64) {
    finished("fill", count, dir);
    out_of_memory(dir);
    finished("read", count, dir);
    let mut more = count;
    for share in KILLED {
        more = killed(more, (count / share).min(JOURNAL_ENTRIES), dir);
        out_of_memory(dir);
        finished("open", more, dir);
    }
    out_of_memory(dir);
    finished("read", more, dir);
    finished("halve", more, dir);
}

/// Runs a part to its end in a process of its own; its figures are printed.
fn finished(part: &str, count: u64, dir: &Path) {
    let output = this(part, count, dir).output().expect("starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{part}: {said}{}", String::from_utf8_lossy(&output.stderr));
    for line in said.lines().filter(|line| line.starts_with("figure ")) {
        println!("{line}");
    }
}

/// Kills a process when it has written so many blocks; how many there are at least.
fn killed(count: u64, written: u64, dir: &Path) -> u64 {
    let mut victim = this("write", count, dir).stdout(Stdio::piped()).spawn().expect("starts");
    let lines = BufReader::new(victim.stdout.take().expect("piped")).lines();
    let enough = count + written + GROUP / 2;
    let mut acknowledged = count;
    let mut is_killed = false;
    for line in lines.map_while(Result::ok) {
        if let Some(end) = line.strip_prefix("ack ").and_then(|rest| rest.strip_suffix('.')?.parse().ok()) {
            acknowledged = end;
        }
        if acknowledged > enough && !is_killed {
            victim.kill().expect("kills");
            is_killed = true;
        }
    }
    victim.wait().expect("ends");
    assert!(is_killed, "it wrote until it was killed");
    acknowledged
}

fn this(part: &str, count: u64, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this test has a file"));
    command.args(["--exact", "a_part_in_its_own_process", "--nocapture", "--test-threads=1"]);
    command.env(PART, format!("{part}:{count}:{}", dir.display()));
    command
}

#[test]
fn a_part_in_its_own_process() {
    let Ok(told) = std::env::var(PART) else { return };
    let mut words = told.splitn(3, ':');
    let (part, count, dir) = (words.next(), words.next(), words.next());
    let (count, dir) = (count.expect("a count").parse().expect("a number"), Path::new(dir.expect("a directory")));
    // The harness has begun a line with the name of the test.
    println!();
    let begun = Instant::now();
    let packs = open(dir, count);
    let opened = begun.elapsed().as_secs_f64();
    match part {
        Some("fill") => {
            let begun = Instant::now();
            put(&packs, 0, count, |_| {});
            tell("put", count, begun);
        }
        Some("write") => put(&packs, count, u64::MAX, |end| {
            let mut out = std::io::stdout();
            writeln!(out, "ack {end}.").and_then(|()| out.flush()).expect("the parent listens");
        }),
        Some("read") => {
            tell_open("open", opened, &packs);
            let begun = Instant::now();
            sample(count).for_each(|number| is_there(&packs, number));
            tell("get", sample(count).count() as u64, begun);
        }
        Some("open") => {
            tell_open("open after kill -9", opened, &packs);
            let begun = Instant::now();
            sample(count).for_each(|number| is_there(&packs, number));
            // What was acknowledged last was not in the index yet.
            (count.saturating_sub(READS / 10)..count).for_each(|number| is_there(&packs, number));
            tell("get", sample(count).count() as u64 + READS / 10, begun);
        }
        Some("halve") => halve(&packs, count),
        other => panic!("no part {other:?}"),
    }
}

fn halve(packs: &PackStore, count: u64) {
    let before = packs.stats().expect("counts");
    let begun = Instant::now();
    // As a collection does it: pages of the listing, of which the garbage is deleted in groups.
    let (mut after, mut garbage) = (None, 0);
    loop {
        let page = packs.blocks(after.as_deref(), PAGE).expect("lists");
        let Some((last, _)) = page.last() else { break };
        let odd: Vec<&[u8]> = page.iter().map(|(name, _)| &name[..]).filter(|name| is_garbage(name)).collect();
        for group in odd.chunks(SWEPT) {
            assert_eq!(packs.delete(group).expect("deletes"), group.len() as u64);
        }
        garbage += odd.len() as u64;
        after = Some(last.clone());
    }
    tell("delete of half", garbage, begun);
    let begun = Instant::now();
    while packs.compact(ByteCount(1 << 30)).expect("compacts") > ByteCount::ZERO {}
    tell("compaction of half", count - garbage, begun);
    let after = packs.stats().expect("counts");
    let packed = |stats: &store::PackStats| stats.bytes_disk.get() - stats.bytes_index.get();
    println!(
        r#"figure {{"work":"space","before":{},"after":{},"index_before":{},"index_after":{}}}"#,
        packed(&before),
        packed(&after),
        before.bytes_index.get(),
        after.bytes_index.get()
    );
    assert_eq!(before.blocks - after.blocks, garbage);
    assert_eq!(garbage, (0..before.blocks).filter(|number| is_garbage(&name(*number))).count() as u64);
    assert!(packed(&after) < packed(&before) * 3 / 4, "compaction wins the space of what was deleted");
    assert_eq!(after.bytes_live, ByteCount(after.blocks * BLOCK as u64));
    for number in sample(count) {
        if is_garbage(&name(number)) {
            assert_eq!(packs.get(&name(number)).expect("reads"), None, "{number}");
        } else {
            is_there(packs, number);
        }
    }
}

fn put(packs: &PackStore, from: u64, to: u64, mut acknowledged: impl FnMut(u64)) {
    let mut first = from;
    while first < to {
        let end = to.min(first + GROUP);
        let blocks: Vec<([u8; 34], [u8; BLOCK])> = (first..end).map(|number| (name(number), data(number))).collect();
        packs.put(&blocks.iter().map(|(name, data)| (&name[..], &data[..])).collect::<Vec<_>>()).expect("there is room");
        packs.sync().expect("syncs");
        acknowledged(end);
        first = end;
    }
}

fn is_there(packs: &PackStore, number: u64) {
    assert!(packs.get(&name(number)).expect("reads").as_deref() == Some(&data(number)[..]), "block {number}");
}

/// Numbers below `count` in no order: all, or [`READS`] of them.
fn sample(count: u64) -> impl Iterator<Item = u64> {
    (0..count.min(READS)).map(move |index| if count <= READS { index } else { mixed(index) % count })
}

/// Half of all names.
fn is_garbage(name: &[u8]) -> bool {
    name.last().is_some_and(|last| last % 2 == 1)
}

fn name(number: u64) -> [u8; 34] {
    let mut name = [0; 34];
    name[..2].copy_from_slice(&[0x12, 0x20]);
    for (part, bytes) in name[2..].chunks_exact_mut(8).enumerate() {
        bytes.copy_from_slice(&mixed(number ^ ((part as u64) << 60)).to_be_bytes());
    }
    name
}

fn data(number: u64) -> [u8; BLOCK] {
    let mut data = [0; BLOCK];
    for (part, bytes) in data.chunks_exact_mut(8).enumerate() {
        bytes.copy_from_slice(&mixed(!number ^ ((part as u64) << 56)).to_be_bytes());
    }
    data
}

/// splitmix64: spreads numbers as hashes are spread.
fn mixed(number: u64) -> u64 {
    let mut value = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// With the options of a node; fewer blocks get smaller segments, so that there are some to compact.
fn open(dir: &Path, count: u64) -> PackStore {
    let quota = Quota::new(ByteCount(100 << 30), ByteCount::ZERO);
    let keys = Arc::new(DiskStore::open(&dir.join("state"), DiskOptions::with_quota(quota.clone())).expect("opens"));
    let options = PackOptions::with_quota(quota);
    let segment = options.segment.min(ByteCount(count * 32));
    PackStore::open(&dir.join("blocks"), keys, PackOptions { segment, ..options }).expect("opens")
}

fn tell_open(work: &str, seconds: f64, packs: &PackStore) {
    let (blocks, read) = (packs.stats().expect("counts").blocks, packs.recovered().blocks);
    println!(r#"figure {{"work":"{work}","seconds":{seconds:.3},"blocks":{blocks},"read_behind_index":{read},{}}}"#, memory());
}

fn tell(work: &str, count: u64, begun: Instant) {
    let seconds = begun.elapsed().as_secs_f64();
    let rate = count as f64 / seconds;
    println!(r#"figure {{"work":"{work}","seconds":{seconds:.3},"blocks":{count},"blocks_s":{rate:.0},{}}}"#, memory());
}

/// What this process takes now, took at most, and has used of the processors.
fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").expect("reads");
    let mib = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_suffix("kB"));
        line.and_then(|number| number.trim().parse::<f64>().ok()).unwrap_or_default() / 1024.0
    };
    let stat = std::fs::read_to_string("/proc/self/stat").expect("reads");
    let ticks: f64 =
        stat.rsplit(')').next().unwrap_or_default().split(' ').skip(12).take(2).filter_map(|word| word.parse::<f64>().ok()).sum();
    let (rss, peak, cpu) = (mib("VmRSS:"), mib("VmHWM:"), ticks / 100.0);
    format!(r#""rss_mib":{rss:.1},"rss_peak_mib":{peak:.1},"cpu_s_so_far":{cpu:.2}"#)
}

/// Lets the system forget what it keeps of the files in memory; of their names and places too where that is allowed.
fn out_of_memory(dir: &Path) {
    forget_files(dir);
    // Root alone may.
    let _ = std::fs::write("/proc/sys/vm/drop_caches", "3");
}

fn forget_files(dir: &Path) {
    for entry in std::fs::read_dir(dir).expect("lists").map(|entry| entry.expect("lists").path()) {
        if entry.is_dir() {
            forget_files(&entry);
        } else {
            let file = std::fs::File::open(&entry).expect("opens");
            file.sync_all().expect("syncs");
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("the system takes the hint");
        }
    }
}
