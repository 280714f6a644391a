//! The promises of a [`Store`], one function each: run against every implementer.

use crate::{Area, Batch, Durability, Store, StoreError};
use bytes::Bytes;
use std::sync::Arc;

/// Gives an empty store.
pub type Fresh<'a> = &'a dyn Fn() -> Arc<dyn Store>;

/// Checks every promise, each on a store of its own.
pub fn check_all(fresh: Fresh<'_>) {
    what_is_put_is_there_until_deleted(&*fresh());
    a_later_change_of_a_batch_wins(&*fresh());
    a_batch_is_atomic_over_all_areas(fresh());
    scans_are_sorted_and_resumable(&*fresh());
    scans_keep_to_their_prefix(&*fresh());
    a_snapshot_never_changes(&*fresh());
    counts_are_exact(&*fresh());
    a_bad_key_is_refused_with_its_batch(&*fresh());
    concurrent_synced_commits_all_arrive(fresh());
    large_values_come_back_whole(&*fresh());
}

/// Put, overwrite, delete, delete again.
pub fn what_is_put_is_there_until_deleted(store: &dyn Store) {
    for (number, area) in Area::ALL.into_iter().enumerate() {
        assert_eq!(get(store, area, b"k"), None);
        change(store, |batch| batch.put(area, "k", [number as u8]));
        assert_eq!(get(store, area, b"k").as_deref(), Some(&[number as u8][..]));
        change(store, |batch| batch.put(area, "k", []));
        assert_eq!(get(store, area, b"k").as_deref(), Some(&[][..]), "an empty value is a value");
    }
    for area in Area::ALL {
        change(store, |batch| batch.delete(area, "k"));
        change(store, |batch| batch.delete(area, "k"));
        assert_eq!(get(store, area, b"k"), None);
    }
}

/// Order inside a batch counts, also for a key that existed before.
pub fn a_later_change_of_a_batch_wins(store: &dyn Store) {
    change(store, |batch| batch.put(Area::Pins, "old", "0"));
    change(store, |batch| {
        batch.put(Area::Pins, "a", "1").put(Area::Pins, "a", "2");
        batch.put(Area::Pins, "b", "1").delete(Area::Pins, "b");
        batch.delete(Area::Pins, "old").put(Area::Pins, "old", "1");
        batch.put(Area::Heads, "a", "other area")
    });
    let entries = store.snapshot().scan(Area::Pins, None, b"", 10).expect("scans");
    assert_eq!(entries, [("a", "2"), ("old", "1")].map(|(key, value)| (Bytes::from(key), Bytes::from(value))));
}

/// A reader beside a writer sees a batch whole or not at all.
pub fn a_batch_is_atomic_over_all_areas(store: Arc<dyn Store>) {
    const ROUNDS: u32 = 200;
    let writer = store.clone();
    let writing = std::thread::spawn(move || {
        for round in 0..ROUNDS {
            change(&*writer, |batch| Area::ALL.into_iter().fold(batch, |batch, area| batch.put(area, "round", round.to_be_bytes())));
        }
    });
    let mut last = None;
    while last != Some(ROUNDS - 1) {
        let snapshot = store.snapshot();
        let seen = Area::ALL.map(|area| snapshot.get(area, b"round").expect("reads"));
        assert!(seen.iter().all(|value| value == &seen[0]), "{seen:?}");
        let round = seen[0].as_ref().map(|value| u32::from_be_bytes(value[..].try_into().expect("four bytes")));
        assert!(round >= last, "time went backwards: {round:?} after {last:?}");
        last = round;
        if writing.is_finished() && last.is_none() {
            break;
        }
    }
    writing.join().expect("the writer ends well");
}

/// Pages join to the whole, in byte order.
pub fn scans_are_sorted_and_resumable(store: &dyn Store) {
    let mut keys: Vec<Vec<u8>> = (0..300u32).map(|number| number.wrapping_mul(2_654_435_761).to_be_bytes().to_vec()).collect();
    keys.extend([vec![0], vec![0, 0], vec![255; 4], vec![255; 5], b"\x00\xff".to_vec()]);
    change(store, |batch| keys.iter().fold(batch, |batch, key| batch.put(Area::Elements, key, key)));
    keys.sort();
    for limit in [1, 7, 300, 1000] {
        let snapshot = store.snapshot();
        let (mut seen, mut after) = (Vec::new(), None::<Bytes>);
        loop {
            let page = snapshot.scan(Area::Elements, after.as_deref(), b"", limit).expect("scans");
            assert!(page.len() <= limit);
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            seen.extend(page.into_iter().map(|(key, value)| {
                assert_eq!(key, value);
                key.to_vec()
            }));
        }
        assert_eq!(seen, keys, "pages of {limit}");
    }
    assert!(store.snapshot().scan(Area::Elements, None, b"", 0).expect("scans").is_empty());
}

/// The prefix bounds both ends, also together with a start.
pub fn scans_keep_to_their_prefix(store: &dyn Store) {
    let keys: [&[u8]; 7] = [b"a", b"b", b"b\x00", b"ba", b"b\xff", b"b\xff\xff", b"c"];
    change(store, |batch| keys.into_iter().fold(batch, |batch, key| batch.put(Area::Records, key, "")));
    let check = |after: Option<&[u8]>, prefix: &[u8], expected: &[&[u8]]| {
        let found = store.snapshot().scan(Area::Records, after, prefix, 100).expect("scans");
        assert_eq!(found.iter().map(|(key, _)| &key[..]).collect::<Vec<_>>(), expected, "after {after:?} prefix {prefix:?}");
    };
    check(None, b"b", &keys[1..6]);
    check(Some(b"a"), b"b", &keys[1..6]);
    check(Some(b"b"), b"b", &keys[2..6]);
    check(Some(b"ba"), b"b", &keys[4..6]);
    check(Some(b"bb"), b"b", &keys[4..6]);
    check(Some(b"b\xff\xff"), b"b", &[]);
    check(Some(b"c"), b"b", &[]);
    check(None, b"b\xff", &keys[4..6]);
    check(None, b"d", &[]);
    check(Some(b"b\xff"), b"", &keys[5..]);
}

/// What was changed, deleted or added later does not show.
pub fn a_snapshot_never_changes(store: &dyn Store) {
    change(store, |batch| batch.put(Area::Pins, "kept", "1").put(Area::Pins, "changed", "1").put(Area::Pins, "deleted", "1"));
    let before = store.snapshot();
    change(store, |batch| batch.put(Area::Pins, "changed", "2").delete(Area::Pins, "deleted").put(Area::Pins, "added", "1"));
    let between = store.snapshot();
    change(store, |batch| batch.put(Area::Pins, "changed", "3").put(Area::Pins, "deleted", "3"));
    let show = |entries: Vec<(Bytes, Bytes)>| {
        let shown = entries.iter().map(|(key, value)| format!("{}={}", String::from_utf8_lossy(key), String::from_utf8_lossy(value)));
        shown.collect::<Vec<_>>().join(" ")
    };
    let scan = |snapshot: &dyn crate::Snapshot| show(snapshot.scan(Area::Pins, None, b"", 10).expect("scans"));
    assert_eq!(scan(&*before), "changed=1 deleted=1 kept=1");
    assert_eq!(scan(&*between), "added=1 changed=2 kept=1");
    assert_eq!(scan(&*store.snapshot()), "added=1 changed=3 deleted=3 kept=1");
    assert_eq!(before.get(Area::Pins, b"added").expect("reads"), None);
    assert_eq!(before.count(Area::Pins).expect("counts"), 3);
    drop(before);
    assert_eq!(scan(&*between), "added=1 changed=2 kept=1");
}

/// Overwrites and deletions do not blur the number.
pub fn counts_are_exact(store: &dyn Store) {
    for round in 0..3 {
        change(store, |batch| (0..100u8).fold(batch, |batch, key| batch.put(Area::Ledger, [key], [round])));
    }
    change(store, |batch| (0..30u8).fold(batch, |batch, key| batch.delete(Area::Ledger, [key])));
    assert_eq!(store.snapshot().count(Area::Ledger).expect("counts"), 70);
    assert_eq!(store.snapshot().count(Area::Pins).expect("counts"), 0);
}

/// Keys of no bytes or too many are an error, and their neighbours in the batch do not slip in.
pub fn a_bad_key_is_refused_with_its_batch(store: &dyn Store) {
    for length in [0, 65536] {
        let mut batch = Batch::new();
        batch.put(Area::Pins, "good", "1").put(Area::Pins, vec![1; length], "1");
        let error = store.commit(batch, Durability::Synced).expect_err("no such key");
        assert!(matches!(error, StoreError::BadKey { length: said } if said == length), "{error}");
        assert_eq!(get(store, Area::Pins, b"good"), None);
    }
    change(store, |batch| batch.put(Area::Pins, vec![1; 65535], "1"));
}

/// Many threads, each with its own keys: all there, whoever did the writing.
pub fn concurrent_synced_commits_all_arrive(store: Arc<dyn Store>) {
    let threads: Vec<_> = (0..8u8)
        .map(|thread| {
            let store = store.clone();
            std::thread::spawn(move || {
                for number in 0..20u8 {
                    let mut batch = Batch::new();
                    batch.put(Area::Intents, [thread, number], [number]);
                    store.commit(batch, Durability::Synced).expect("commits");
                    assert_eq!(get(&*store, Area::Intents, &[thread, number]).as_deref(), Some(&[number][..]));
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("the thread ends well");
    }
    assert_eq!(store.snapshot().count(Area::Intents).expect("counts"), 160);
}

/// A CRDT node may have a megabyte.
pub fn large_values_come_back_whole(store: &dyn Store) {
    let value: Vec<u8> = (0..3_000_000u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    change(store, |batch| batch.put(Area::DagBlocks, "large", &value));
    assert_eq!(get(store, Area::DagBlocks, b"large").as_deref(), Some(&value[..]));
}

fn get(store: &dyn Store, area: Area, key: &[u8]) -> Option<Bytes> {
    store.get(area, key).expect("reads")
}

fn change(store: &dyn Store, fill: impl FnOnce(&mut Batch) -> &mut Batch) {
    let mut batch = Batch::new();
    fill(&mut batch);
    store.commit(batch, Durability::Buffered).expect("commits");
}
