use super::*;
use crate::conformance;
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
    std::fs::remove_file(home.path().join("keys/version")).expect("as if the power went before it was written");
    let store = open(home.path());
    put(&store, "a", Durability::Synced);
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

fn open(dir: &Path) -> DiskStore {
    DiskStore::open(dir, DiskOptions::default()).expect("opens")
}

fn put(store: &DiskStore, key: &str, durability: Durability) {
    let mut batch = Batch::new();
    batch.put(Area::Pins, key, "1");
    store.commit(batch, durability).expect("commits");
}
