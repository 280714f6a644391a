//! What the children do: a victim works, an examiner checks what it was promised, a filler fills a disk up.
//!
//! Each thread counts steps. A step puts blocks and syncs (`b`), then commits a pin to three areas at once, `Synced`, and in the same batch
//! removes the step that is [`KEPT`] older (`p`); between the two it commits a buffered note to two areas.

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use store::{Area, Batch, DiskOptions, DiskStore, Durability, PackOptions, PackStore, PutError, Store, StoreError};
use types::ByteCount;

/// The environment variable that gives the test binary its role.
pub const TOLD: &str = "POWERCUT_ROLE";
/// The examiner says so when fjall had closed its first journal.
pub const LATER_JOURNAL: &str = "later journal";
/// The filler says so when nothing more fits, and waits for room.
pub const FULL: &str = "full";
/// How many steps a pin and its blocks live.
const KEPT: u64 = 50;
const THREADS: u64 = 3;
/// The key that each step of thread 0 rewrites under a heavy load.
const LARGE: &[u8] = b"large";
/// The areas that get a pin together.
const PINS: [Area; 3] = [Area::Pins, Area::Ledger, Area::Elements];
/// The areas that get a buffered note together.
const NOTES: [Area; 2] = [Area::Heads, Area::Records];

/// What a child is for.
#[derive(Clone, Copy, Debug)]
pub enum Role {
    Victim { load: Load, life: u64 },
    Examiner,
    Filler { keeps_reserve: bool },
}

/// How much a step writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Small pins and blocks, tiny memtables: many flushes and compactions.
    Light,
    /// The same beside one value of a megabyte, rewritten with each step: fjall closes its journal (64 MB) again and again.
    Heavy,
}

/// What victims acknowledged: for each thread the first step of its last life and the last step acknowledged, of blocks and of pins.
#[derive(Clone, Debug, Default)]
pub struct Acks {
    blocks: BTreeMap<u64, (u64, u64)>,
    pins: BTreeMap<u64, (u64, u64)>,
    count: u64,
}

impl Load {
    /// How many changes a life may have, as decimal exponents.
    pub fn reach(self) -> std::ops::Range<f64> {
        match self {
            Load::Light => 1.0..3.5,
            Load::Heavy => 3.2..3.9,
        }
    }
}

impl Acks {
    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn to_text(&self) -> String {
        let show = |kind: &str, seen: &BTreeMap<u64, (u64, u64)>| {
            seen.iter().map(|(thread, (first, last))| format!("{kind} {thread} {first} {last}\n")).collect::<String>()
        };
        show("b", &self.blocks) + &show("p", &self.pins)
    }

    fn from_text(text: &str) -> Acks {
        let mut acks = Acks::default();
        for line in text.lines() {
            let (kind, numbers) = line.split_once(' ').expect("a kind");
            let numbers: Vec<u64> = numbers.split(' ').map(|number| number.parse().expect("a number")).collect();
            let seen = if kind == "b" { &mut acks.blocks } else { &mut acks.pins };
            seen.insert(numbers[0], (numbers[1], numbers[2]));
        }
        acks
    }

    /// Takes a report like `p 1 234.`; a line cut off in the middle does not count.
    pub fn take(&mut self, line: &str, life: u64) {
        let words: Vec<&str> = line.strip_suffix('.').unwrap_or_default().split(' ').collect();
        let [kind @ ("b" | "p"), thread, step] = words[..] else { return };
        let (Ok(thread), Ok(step)) = (thread.parse(), step.parse()) else { return };
        let seen = if kind == "b" { &mut self.blocks } else { &mut self.pins };
        let first = life * LIFE;
        let range = seen.entry(thread).or_insert((first, step));
        *range = if range.0 == first { (first, range.1.max(step)) } else { (first, step) };
        self.count += 1;
    }
}

/// Steps of one life have numbers of their own.
const LIFE: u64 = 1_000_000;

impl Role {
    pub fn tell(self, at: &Path) -> String {
        let word = match self {
            Role::Victim { load: Load::Light, life } => format!("light {life}"),
            Role::Victim { load: Load::Heavy, life } => format!("heavy {life}"),
            Role::Examiner => "examiner 0".to_owned(),
            Role::Filler { keeps_reserve } => format!("filler {}", u8::from(keeps_reserve)),
        };
        format!("{word} {}", at.display())
    }
}

/// Plays the role that this process was told, if any.
pub fn run_if_told() {
    let Ok(told) = std::env::var(TOLD) else { return };
    let words: Vec<&str> = told.splitn(3, ' ').collect();
    let [role, number, at] = words[..] else { panic!("told {told:?}") };
    let (number, at) = (number.parse().expect("a number"), Path::new(at));
    match role {
        "light" => be_victim(at, Load::Light, number),
        "heavy" => be_victim(at, Load::Heavy, number),
        "examiner" => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).expect("the acknowledgements");
            examine(at, &Acks::from_text(&text));
        }
        _ => fill_up(at, number == 1),
    }
}

fn be_victim(at: &Path, load: Load, life: u64) {
    let memtable = ByteCount(if load == Load::Heavy { 8 << 20 } else { 64 << 10 });
    let options = DiskOptions { memtable, ..DiskOptions::default() };
    let Ok((keys, packs)) = open_with(at, &options, ByteCount(64 << 20)) else { std::process::exit(0) };
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (keys, packs) = (&keys, &packs);
            scope.spawn(move || {
                for step in life * LIFE.. {
                    if take_step(keys, packs, load, thread, step).is_err() {
                        // The power is gone. Not even destructors may pretend otherwise.
                        std::process::exit(0);
                    }
                }
            });
        }
    });
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn take_step(keys: &DiskStore, packs: &PackStore, load: Load, thread: u64, step: u64) -> Result<(), Failure> {
    let blocks = blocks(thread, step);
    let blocks: Vec<(&[u8], &[u8])> = blocks.iter().map(|(name, data)| (&name[..], &data[..])).collect();
    packs.put(&blocks)?;
    packs.sync()?;
    report('b', thread, step)?;

    let mut note = Batch::new();
    for area in NOTES {
        note.put(area, key(thread, step), "note");
    }
    keys.commit(note, Durability::Buffered)?;

    let mut pin = Batch::new();
    for area in PINS {
        pin.put(area, key(thread, step), content(thread, step, 150));
        if step % LIFE >= KEPT {
            pin.delete(area, key(thread, step - KEPT));
        }
    }
    if load == Load::Heavy && thread == 0 {
        pin.put(Area::DagBlocks, LARGE, content(thread, step, 1 << 20));
    }
    keys.commit(pin, Durability::Synced)?;
    report('p', thread, step)?;

    if step % LIFE >= KEPT {
        let old = self::blocks(thread, step - KEPT);
        packs.delete(&old.iter().map(|(name, _)| &name[..]).collect::<Vec<_>>())?;
    }
    if thread == 0 && step % 10 == 9 {
        packs.compact(ByteCount(1 << 20))?;
    }
    Ok(())
}

fn report(kind: char, thread: u64, step: u64) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{kind} {thread} {step}.")?;
    out.flush()
}

/// Opens the survivor and checks every promise.
fn examine(at: &Path, acks: &Acks) {
    let journals = std::fs::read_dir(at.join("store/keys")).into_iter().flatten().flatten().map(|entry| entry.file_name());
    if journals.into_iter().any(|name| name != "0.jnl" && name.to_string_lossy().ends_with(".jnl")) {
        println!("{LATER_JOURNAL}");
    }
    let (keys, packs) = open(at).unwrap_or_else(|error| panic!("does not open: {error:?}"));
    for (thread, (first, last)) in &acks.pins {
        for step in (last + 1).saturating_sub(KEPT).max(*first)..=*last {
            // The step after the last acknowledged one may have removed the oldest of these.
            let may_be_gone = step + KEPT == last + 1;
            let found = PINS.map(|area| keys.get(area, &key(*thread, step)).expect("reads"));
            assert!(found.iter().all(|value| value == &found[0]), "pin {step} of {thread} in some areas only");
            let is_right = found[0].as_deref() == Some(&content(*thread, step, 150)[..]);
            assert!(is_right || (may_be_gone && found[0].is_none()), "pin {step} of thread {thread} is lost (last: {last})");
        }
        if last - first >= KEPT {
            assert_eq!(keys.get(Area::Pins, &key(*thread, last - KEPT)).expect("reads"), None, "a removed pin is back");
        }
    }
    for (thread, (first, last)) in &acks.blocks {
        // A step removes blocks at its end, so the step after the last may have removed one more.
        for step in (last + 1).saturating_sub(KEPT - 1).max(*first)..=*last {
            for (name, data) in blocks(*thread, step) {
                let found = packs.get(&name).unwrap_or_else(|error| panic!("block of step {step}: {error}"));
                assert!(found.as_deref() == Some(&data[..]), "a block of step {step} of thread {thread} is lost (last: {last})");
            }
        }
    }
    check_large(&keys, acks);
    check_notes(&keys);
    check_packs(&packs);
}

/// The value that is rewritten with each step is whole, and no older than the last acknowledged step.
fn check_large(keys: &DiskStore, acks: &Acks) {
    let Some(value) = keys.get(Area::DagBlocks, LARGE).expect("reads") else { return };
    let step = u64::from_be_bytes(value[8..16].try_into().expect("eight bytes"));
    assert!(value[..] == content(0, step, 1 << 20)[..], "the large value of step {step} is torn");
    let last = acks.pins.get(&0).map_or(0, |(_, last)| *last);
    assert!(step >= last, "the large value is of step {step}, acknowledged was {last}");
}

/// Buffered commits of one thread come back as a prefix, whole in both areas.
fn check_notes(keys: &DiskStore) {
    let snapshot = keys.snapshot();
    let [one, other] = NOTES.map(|area| {
        let found = snapshot.scan(area, None, b"", usize::MAX).expect("scans");
        found.into_iter().map(|(key, _)| key).collect::<BTreeSet<_>>()
    });
    assert_eq!(one, other, "half of a batch");
    for note in &one {
        let (thread, step) = note.split_at(8);
        let step = u64::from_be_bytes(step.try_into().expect("eight bytes"));
        let before = [thread, &step.saturating_sub(1).to_be_bytes()].concat();
        assert!(step % LIFE == 0 || one.contains(&before[..]), "note {step} is there and the one before is not");
    }
}

/// Numbers agree with content, and every block reads.
fn check_packs(packs: &PackStore) {
    let listed = packs.blocks(None, usize::MAX).expect("lists");
    let stats = packs.stats().expect("counts");
    let bytes = listed.iter().map(|(_, length)| length).sum();
    assert_eq!((stats.blocks, stats.bytes_live), (listed.len() as u64, ByteCount(bytes)));
    for (name, _) in listed {
        packs.get(&name).unwrap_or_else(|error| panic!("{error}"));
    }
}

fn open(at: &Path) -> Result<(Arc<DiskStore>, PackStore), Failure> {
    open_with(at, &DiskOptions::default(), ByteCount(64 << 20))
}

fn open_with(at: &Path, options: &DiskOptions, reserve: ByteCount) -> Result<(Arc<DiskStore>, PackStore), Failure> {
    let keys = Arc::new(DiskStore::open(&at.join("store"), options.clone())?);
    let options = PackOptions { segment: ByteCount(128 << 10), reserve, ..PackOptions::with_limit(ByteCount::GIB) };
    let packs = PackStore::open(&at.join("packs"), keys.clone(), options)?;
    Ok((keys, packs))
}

fn content(thread: u64, step: u64, size: usize) -> Vec<u8> {
    let mut content = [thread.to_be_bytes(), step.to_be_bytes()].concat();
    // Xorshift: fjall's journal compresses, and should not.
    let mut state = (thread << 40) + step + 1;
    while content.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        content.extend_from_slice(&state.to_be_bytes());
    }
    content.truncate(size);
    content
}

fn key(thread: u64, step: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&thread.to_be_bytes());
    key[8..].copy_from_slice(&step.to_be_bytes());
    key
}

/// Three blocks of up to 8 KiB for each step.
fn blocks(thread: u64, step: u64) -> Vec<(Vec<u8>, Vec<u8>)> {
    (0..3u64)
        .map(|part| {
            let seed = (((thread << 40) + step) * 3 + part).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let name = [&[0x12, 0x20][..], &seed.to_be_bytes(), &[0; 24]].concat();
            (name, seed.to_le_bytes().repeat((seed >> 54) as usize))
        })
        .collect()
}

/// Bytes that tables cannot compress.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// Writes until the disk refuses, reads everything back, makes room, goes on (after opening again where the store had no reserve).
fn fill_up(at: &Path, keeps_reserve: bool) {
    let none = DiskOptions { memtable: ByteCount(1 << 20), reserve: ByteCount::ZERO, ..DiskOptions::default() };
    let options = if keeps_reserve { DiskOptions { memtable: none.memtable, ..DiskOptions::default() } } else { none };
    let reserve = if keeps_reserve { ByteCount(64 << 20) } else { ByteCount::ZERO };
    let (keys, packs) = open_with(at, &options, reserve).expect("opens on an empty disk");

    let mut put = 0;
    let error = loop {
        // Blocks of 100 kB each, so that the disk is full after about a thousand.
        let data = vec![put as u8; 100_000];
        match packs.put(&[(&name(put), &data)]).map_err(Failure::from).and_then(|_| Ok(packs.sync()?)) {
            Ok(()) => put += 1,
            Err(error) => break error,
        }
    };
    let full = error.downcast_ref::<PutError>().unwrap_or_else(|| panic!("a put refused, not {error:?}"));
    assert!(matches!(full, PutError::DiskFull { needed, free } if needed > free), "{full}");
    assert!(put > 100, "only {put} blocks of 100 kB on a disk of 100 MiB");
    read_back(&packs, put);

    let mut committed = 0;
    let error = loop {
        let mut batch = Batch::new();
        batch.put(Area::Pins, name(committed), noise(committed, 100_000));
        match keys.commit(batch, Durability::Synced) {
            Ok(()) => committed += 1,
            Err(error) => break error,
        }
        assert!(committed < 10_000, "the disk never fills");
    };
    if keeps_reserve {
        assert!(matches!(error, StoreError::DiskFull { needed, free } if needed > free), "{error}");
    }
    read_back(&packs, put);
    for number in 0..committed {
        assert!(keys.get(Area::Pins, &name(number)).expect("a full disk is read").is_some());
    }

    // Room comes from outside; a store that ran dry inside fjall wants to be opened again.
    println!("\n{FULL}");
    std::io::stdin().read_line(&mut String::new()).expect("hears that there is room");
    if !keeps_reserve {
        drop((packs, keys));
        let (keys, packs) = open_with(at, &options, reserve).expect("opens again");
        return go_on(&keys, &packs, put, committed);
    }
    go_on(&keys, &packs, put, committed);
}

fn go_on(keys: &DiskStore, packs: &PackStore, put: u64, committed: u64) {
    read_back(packs, put);
    packs.put(&[(b"more", b"x")]).expect("there is room again");
    packs.sync().expect("syncs");
    for number in 0..committed {
        assert!(keys.get(Area::Pins, &name(number)).expect("reads").is_some(), "key {number} of {committed}");
    }
    let mut batch = Batch::new();
    batch.put(Area::Pins, "more", "x");
    keys.commit(batch, Durability::Synced).expect("there is room again");
}

fn read_back(packs: &PackStore, put: u64) {
    for number in 0..put {
        let data = packs.get(&name(number)).expect("a full disk is read").expect("is there");
        assert!(data.len() == 100_000 && data.iter().all(|byte| *byte == number as u8));
    }
}

fn name(number: u64) -> Vec<u8> {
    [&[0x12, 0x20][..], &number.to_be_bytes(), &[0; 24]].concat()
}
