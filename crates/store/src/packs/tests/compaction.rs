//! What changes between the steps of a compaction.

use super::super::living::{DELETED_MOST, Living};
use super::*;

/// Rewrites segments while blocks of them are deleted and put again between its steps; `before` is called when the watch has begun.
fn rewrite_with_changes(before: impl FnOnce(&PackStore)) {
    let bench = Bench::new();
    let packs = bench.open();
    let all: Vec<u32> = (0..200).collect();
    put(&packs, &all);
    packs.sync().expect("syncs");
    let thirds = |rest: u32| all.iter().copied().filter(|number| number % 3 == rest).collect::<Vec<u32>>();
    delete(&packs, &[thirds(1), thirds(2)].concat());
    let shared = &packs.shared;
    shared.index_synced().expect("indexes");
    let victims = shared.victims(u64::MAX);
    assert!(victims.len() > 5, "{} segments", victims.len());
    let watched = shared.watch_deletes();
    before(&packs);
    let mut living = shared.living(&victims).expect("reads the index");
    assert!(matches!(living, Living::Listed(_)));
    // Listed and gone; gone and here again in another place; new.
    delete(&packs, &[0, 3, 6, 99, 198]);
    put(&packs, &[3, 99, 1, 4]);
    packs.sync().expect("syncs");
    for (segment, entry) in victims {
        shared.rewrite(segment, entry, &mut living).expect("copies");
        assert!(shared.remove_if_empty(segment).expect("removes"), "nothing lives in {segment}");
    }
    drop(watched);
    let left = thirds(0).into_iter().filter(|number| ![0, 6, 198].contains(number));
    let left: Vec<u32> = left.chain([1, 4]).collect();
    check(&packs, &left);
    drop(packs);
    check(&bench.open(), &left);
}

fn delete(packs: &PackStore, numbers: &[u32]) {
    let names: Vec<Vec<u8>> = numbers.iter().map(|number| name(*number)).collect();
    assert_eq!(packs.delete(&names.iter().map(Vec::as_slice).collect::<Vec<_>>()).expect("deletes"), numbers.len() as u64);
}

#[test]
fn what_is_deleted_during_a_compaction_stays_deleted_and_what_is_put_again_is_found() {
    rewrite_with_changes(|_| ());
}

#[test]
fn more_deletes_during_a_compaction_than_are_noted_are_looked_up() {
    rewrite_with_changes(|packs| {
        let mut indexing = packs.shared.indexing.lock();
        let deleted = indexing.deleted.as_mut().expect("they are watched");
        (0..=DELETED_MOST).for_each(|number| deleted.note(&number.to_be_bytes()));
    });
}
