use super::*;
use crate::conformance;
use proptest::prelude::*;
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use tempfile::TempDir;

#[test]
fn keeps_every_promise_of_a_store() {
    let home = TempDir::new().expect("a directory for the test");
    let number = std::sync::atomic::AtomicU32::new(0);
    conformance::check_all(&|| {
        let number = number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Arc::new(open(&home.path().join(number.to_string())))
    });
}

#[test]
fn a_closed_store_opens_with_all_it_had() {
    let home = TempDir::new().expect("a directory for the test");
    {
        let store = open(home.path());
        put(&store, "synced", Durability::Synced);
        put(&store, "buffered", Durability::Buffered);
    }
    let store = open(home.path());
    assert_eq!(store.snapshot().count(Area::Pins).expect("counts"), 2);
}

#[test]
fn a_second_opening_names_the_process_that_has_it() {
    let home = TempDir::new().expect("a directory for the test");
    let _held = open(home.path());
    let error = DiskStore::open(home.path(), DiskOptions::default()).err().expect("taken");
    assert!(matches!(error, StoreError::Locked { pid: Some(pid), .. } if pid == std::process::id()), "{error}");
}

#[test]
fn a_creation_cut_short_is_begun_again() {
    let home = TempDir::new().expect("a directory for the test");
    drop(open(home.path()));
    std::fs::write(home.path().join(engine::CREATING), "").expect("as if the power went before the end");
    std::fs::remove_file(home.path().join("keys/version")).expect("fjall had not come far");
    put(&open(home.path()), "a", Durability::Synced);
    assert!(open(home.path()).get(Area::Pins, b"a").expect("reads").is_some(), "the creation has ended this time");
}

#[test]
fn a_full_disk_refuses_with_numbers_and_goes_on_reading() {
    let home = TempDir::new().expect("a directory for the test");
    drop({
        let store = open(home.path());
        put(&store, "before", Durability::Synced);
        store
    });
    let options = DiskOptions { reserve: ByteCount(u64::MAX / 2), ..DiskOptions::default() };
    let store = DiskStore::open(home.path(), options).expect("opens");
    let mut batch = Batch::new();
    batch.put(Area::Pins, "more", "x");
    for durability in [Durability::Buffered, Durability::Synced] {
        let error = store.commit(batch.clone(), durability).expect_err("no room");
        assert!(matches!(error, StoreError::DiskFull { needed, free } if needed > free), "{error}");
        assert!(error.is_transient());
    }
    assert!(store.get(Area::Pins, b"before").expect("reads").is_some());
    let mut batch = Batch::new();
    batch.delete(Area::Pins, "before");
    store.commit(batch, Durability::Synced).expect("deleting makes room, so it is taken");
    assert_eq!(store.snapshot().count(Area::Pins).expect("counts"), 0);
}

#[test]
fn what_it_takes_on_disk_is_measured_without_holes() {
    let home = TempDir::new().expect("a directory for the test");
    let store = open(home.path());
    let before = store.disk_bytes().expect("measures");
    assert!(before < ByteCount(4 << 20), "the journal's 64 MiB are a hole: {before}");
    let mut batch = Batch::new();
    batch.put(Area::Pins, "a", vec![7; 1 << 20]);
    store.commit(batch, Durability::Synced).expect("commits");
    let grown = store.disk_bytes().expect("measures") - before;
    assert!(grown > ByteCount(4096), "{grown}");
}

#[derive(Clone, Debug)]
enum Step {
    /// Changes of (area, key, value or deletion), committed together.
    Commit(Vec<(usize, u8, Option<u16>)>, bool),
    Reopen,
    Scan(usize, Option<u8>, usize),
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_histories_agree_with_a_map(steps in proptest::collection::vec(step(), 1..40)) {
        let home = TempDir::new().expect("a directory for the test");
        let mut store = Some(open(home.path()));
        let mut model = BTreeMap::<(usize, u8), u16>::new();
        for step in steps {
            let current = store.as_ref().expect("open between steps");
            match step {
                Step::Commit(changes, is_synced) => {
                    let mut batch = Batch::new();
                    for (area, key, value) in changes {
                        match value {
                            Some(value) => {
                                batch.put(Area::ALL[area], [key], value.to_be_bytes());
                                model.insert((area, key), value);
                            }
                            None => {
                                batch.delete(Area::ALL[area], [key]);
                                model.remove(&(area, key));
                            }
                        }
                    }
                    current.commit(batch, if is_synced { Durability::Synced } else { Durability::Buffered }).expect("commits");
                }
                Step::Reopen => {
                    drop(store.take());
                    store = Some(open(home.path()));
                }
                Step::Scan(area, after, limit) => {
                    let found = current.snapshot().scan(Area::ALL[area], after.as_ref().map(std::slice::from_ref), b"", limit).expect("scans");
                    let first = after.map_or(0, |after| u16::from(after) + 1);
                    let expected = model.iter().filter(|((a, key), _)| *a == area && u16::from(*key) >= first).take(limit);
                    let expected: Vec<(Bytes, Bytes)> =
                        expected.map(|((_, key), value)| (vec![*key].into(), value.to_be_bytes().to_vec().into())).collect();
                    prop_assert_eq!(found, expected);
                }
            }
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let change = (0..Area::ALL.len(), 0..40u8, proptest::option::of(any::<u16>()));
    prop_oneof![
        6 => (proptest::collection::vec(change, 0..12), any::<bool>()).prop_map(|(changes, is_synced)| Step::Commit(changes, is_synced)),
        1 => Just(Step::Reopen),
        4 => (0..Area::ALL.len(), proptest::option::of(0..40u8), 0..20usize).prop_map(|(area, after, limit)| Step::Scan(area, after, limit)),
    ]
}

fn open(dir: &Path) -> DiskStore {
    DiskStore::open(dir, DiskOptions::default()).expect("opens")
}

fn put(store: &DiskStore, key: &str, durability: Durability) {
    let mut batch = Batch::new();
    batch.put(Area::Pins, key, "1");
    store.commit(batch, durability).expect("commits");
}

/// What every file of the directory takes.
fn du(dir: &Path) -> u64 {
    engine::measure(dir).expect("measures").all
}

#[test]
fn under_a_small_limit_the_journal_stays_short_and_nothing_is_lost() {
    let home = TempDir::new().expect("a directory for the test");
    let quota = Quota::new(ByteCount(64 << 20), ByteCount::ZERO);
    let options = DiskOptions { reserve: ByteCount::ZERO, ..DiskOptions::with_quota(quota.clone()) };
    let store = DiskStore::open(home.path(), options.clone()).expect("opens");
    // 40 MB written into 200 places: fjall alone would keep all of it in its journal.
    for round in 0..400u32 {
        let mut batch = Batch::new();
        batch.put(Area::Ledger, (round % 200).to_be_bytes(), vec![round as u8; 100_000]);
        batch.put(Area::Meta, "round", round.to_be_bytes());
        store.commit(batch, if round % 7 == 0 { Durability::Synced } else { Durability::Buffered }).expect("commits");
        let taken = du(home.path());
        assert!(taken <= 64 << 20, "round {round}: {taken}");
    }
    let journal = engine::measure(home.path()).expect("measures").journal;
    assert!(journal <= 4 << 20, "{journal}");
    let check = |store: &DiskStore| {
        for key in 0..200u32 {
            let value = store.get(Area::Ledger, &key.to_be_bytes()).expect("reads").expect("there");
            assert_eq!((value.len(), value[0]), (100_000, (key + 200) as u8), "{key}");
        }
        assert_eq!(store.get(Area::Meta, b"round").expect("reads").as_deref(), Some(&399u32.to_be_bytes()[..]));
    };
    check(&store);
    drop(store);
    check(&DiskStore::open(home.path(), options).expect("opens"));
}

#[test]
fn at_rest_what_was_written_is_in_tables_and_memory_is_let_go() {
    let home = TempDir::new().expect("a directory for the test");
    let store = open(home.path());
    let write = |number: u32| {
        let mut batch = Batch::new();
        batch.put(Area::Ledger, number.to_be_bytes(), incompressible(u64::from(number), 50_000));
        store.commit(batch, Durability::Buffered).expect("commits");
    };
    (0..60).for_each(write);
    let tables = || store.with_engine(|engine| Ok(engine.areas[Area::Ledger as usize].table_count())).expect("open");
    let memtables = || store.with_engine(|engine| Ok(engine.areas[Area::Ledger as usize].sealed_memtable_count())).expect("open");
    store.rest();
    assert_eq!(tables(), 0, "it was written to since the last look");
    store.rest();
    let end = Instant::now() + Duration::from_secs(60);
    while (tables(), memtables()) != (1, 0) {
        assert!(Instant::now() < end, "{} tables, {} memtables", tables(), memtables());
        std::thread::sleep(Duration::from_millis(5));
    }
    store.rest();
    write(60);
    for number in 0..=60u32 {
        let value = store.get(Area::Ledger, &number.to_be_bytes()).expect("reads");
        assert!(value.is_some_and(|value| value == incompressible(u64::from(number), 50_000)), "{number}");
    }
}

#[test]
fn without_room_for_tables_nothing_is_written_at_rest() {
    let home = TempDir::new().expect("a directory for the test");
    let quota = Quota::new(ByteCount(32 << 20), ByteCount::ZERO);
    let options = DiskOptions { reserve: ByteCount::ZERO, ..DiskOptions::with_quota(quota) };
    let store = DiskStore::open(home.path(), options).expect("opens");
    let mut kept = 0u32;
    loop {
        let mut batch = Batch::new();
        batch.put(Area::Pins, kept.to_be_bytes(), incompressible(u64::from(kept), 50_000));
        if store.commit(batch, Durability::Buffered).is_err() {
            break;
        }
        kept += 1;
    }
    let tables = || store.with_engine(|engine| Ok(engine.areas.iter().map(|area| area.table_count()).sum::<usize>())).expect("open");
    let is_writing = || store.with_engine(|engine| Ok(engine.areas.iter().any(|area| area.sealed_memtable_count() > 0))).expect("open");
    while is_writing() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let before = tables();
    for _ in 0..4 {
        store.rest();
    }
    std::thread::sleep(Duration::from_millis(300));
    let after = tables();
    assert!(after <= before, "{before} tables became {after}");
    assert!(du(home.path()) <= (32 << 20) + (32 << 20) / 100);
}

/// Tables are compressed: only what does not shrink fills a disk.
#[test]
fn closing_leaves_a_long_journal_behind_and_nothing_else() {
    let home = tempfile::tempdir().expect("a directory for the test");
    let store = open(home.path());
    for number in 0..96u64 {
        let mut batch = Batch::new();
        batch.put(Area::Ledger, number.to_be_bytes(), incompressible(number + 1, 64 << 10));
        batch.delete(Area::Ledger, number.saturating_sub(90).to_be_bytes());
        store.commit(batch, if number % 2 == 0 { Durability::Synced } else { Durability::Buffered }).expect("commits");
    }
    assert!(engine::measure(home.path()).expect("measures").journal > JOURNAL_LEFT);
    let reader = store.snapshot();
    drop(store);
    drop(reader);
    // Somebody read: the journal stays as it was.
    assert!(engine::measure(home.path()).expect("measures").journal > JOURNAL_LEFT);
    for _ in 0..2 {
        let store = open(home.path());
        assert_eq!(store.snapshot().count(Area::Ledger).expect("counts"), 90);
        for number in 6..96u64 {
            assert_eq!(store.get(Area::Ledger, &number.to_be_bytes()).expect("reads"), Some(incompressible(number + 1, 64 << 10).into()));
        }
        drop(store);
        assert!(engine::measure(home.path()).expect("measures").journal < JOURNAL_LEFT);
    }
}

fn incompressible(seed: u64, size: usize) -> Vec<u8> {
    let mut data = vec![0; size];
    ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut data);
    data
}

#[test]
fn a_reached_limit_refuses_wishes_and_still_lets_go() {
    let home = TempDir::new().expect("a directory for the test");
    let quota = Quota::new(ByteCount(32 << 20), ByteCount::ZERO);
    let options = DiskOptions { reserve: ByteCount::ZERO, ..DiskOptions::with_quota(quota.clone()) };
    let store = DiskStore::open(home.path(), options).expect("opens");
    let write = |area: Area, key: u32| {
        let mut batch = Batch::new();
        batch.put(area, key.to_be_bytes(), incompressible(u64::from(key), 50_000));
        store.commit(batch, Durability::Buffered)
    };
    let mut kept = 0;
    let error = loop {
        assert!(kept < 10_000, "nothing refuses");
        match write(Area::Pins, kept) {
            Ok(()) => kept += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::LimitReached { needed, free, .. } if needed > free) && error.is_transient(), "{error}");
    assert!(kept > 100, "{kept} wishes of 50 kB under 32 MiB");
    write(Area::Tombstones, 0).expect("what serves to let go is taken");
    for key in 0..kept {
        let mut batch = Batch::new();
        batch.delete(Area::Pins, key.to_be_bytes());
        store.commit(batch, Durability::Synced).expect("deletes");
        let taken = du(home.path());
        assert!(taken <= (32 << 20) + (32 << 20) / 100, "{taken}");
    }
    assert_eq!(store.snapshot().count(Area::Pins).expect("counts"), 0);
}
