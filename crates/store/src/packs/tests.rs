//! The packs against a simple model, and what happens when files are damaged.

mod compaction;
mod damage;
mod hostile;
mod model;

use super::*;
use crate::MemoryStore;
use tempfile::TempDir;

#[test]
fn a_block_is_there_from_put_to_delete() {
    let bench = Bench::new();
    let packs = bench.open();
    assert_eq!(put(&packs, &[1, 2, 1]), PutOutcome { written: 2, already: 1 });
    assert_eq!(put(&packs, &[2, 3]), PutOutcome { written: 1, already: 1 });
    check(&packs, &[1, 2, 3]);
    packs.sync().expect("syncs");
    check(&packs, &[1, 2, 3]);
    assert_eq!(packs.delete(&[&name(2), &name(2), &name(9)]).expect("deletes"), 1);
    check(&packs, &[1, 3]);
    drop(packs);
    let packs = bench.open();
    check(&packs, &[1, 3]);
    assert_eq!(packs.recovered(), Recovered::default(), "a clean end leaves nothing to repair");
}

#[test]
fn deleted_before_it_was_indexed_and_put_again() {
    let bench = Bench::new();
    let packs = bench.open();
    put(&packs, &[1]);
    packs.delete(&[&name(1)]).expect("deletes");
    check(&packs, &[]);
    assert_eq!(put(&packs, &[1]).written, 1);
    check(&packs, &[1]);
    packs.sync().expect("syncs");
    packs.shared.index_synced().expect("indexes");
    check(&packs, &[1]);
}

#[test]
fn what_is_no_block_is_refused() {
    let bench = Bench::new();
    let packs = bench.open();
    let large = vec![0; BLOCK_LARGEST + 1];
    assert!(matches!(packs.put(&[(b"a", &large)]), Err(PutError::TooLarge { .. })));
    assert!(matches!(packs.put(&[(b"", b"x")]), Err(PutError::BadMultihash { length: 0 })));
    assert!(matches!(packs.put(&[(&[1; 256], b"x")]), Err(PutError::BadMultihash { length: 256 })));
    assert_eq!(packs.get(b"").expect("reads"), None);
    packs.put(&[(b"large", &large[1..]), (b"empty", b"")]).expect("a block larger than a segment gets one of its own");
    assert_eq!(packs.get(b"large").expect("reads").map(|data| data.len()), Some(BLOCK_LARGEST));
    assert_eq!(packs.get(b"empty").expect("reads").map(|data| data.len()), Some(0));
    assert_eq!(packs.size(b"large").expect("reads"), Some(BLOCK_LARGEST as u64));
    assert_eq!(packs.has_many(&[b"large", b"other", b"empty"]).expect("reads"), [true, false, true]);
}

#[test]
fn a_full_store_refuses_with_numbers_and_takes_blocks_again_after_a_compaction() {
    let bench = Bench { limit: 1 << 20, ..Bench::new() };
    let packs = bench.open();
    let mut count = 0;
    let (needed, free) = loop {
        match packs.put(&[(&name(count), &[7; 10_000])]) {
            Ok(_) => count += 1,
            Err(PutError::NoRoom { needed, free }) => break (needed, free),
            Err(error) => panic!("{error}"),
        }
        assert!(packs.stats().expect("counts").bytes_disk <= ByteCount(bench.limit));
    };
    assert!(needed > free && free < ByteCount(11_000), "{needed} {free}");
    assert!(count >= 80, "{count} blocks of 10 kB fit into 1 MiB without a 64 KiB segment");
    let error = packs.put(&[(b"fits", b"x"), (b"does not", &[1; 60_000])]).expect_err("too much together");
    assert!(matches!(error, PutError::NoRoom { .. }));
    assert_eq!(packs.get(b"fits").expect("reads"), None, "all or none");
    for number in (0..count).filter(|number| number % 4 != 0) {
        packs.delete(&[&name(number)]).expect("deletes");
    }
    let before = packs.stats().expect("counts");
    let won = packs.compact(ByteCount(u64::MAX)).expect("compacts");
    let after = packs.stats().expect("counts");
    assert!(won > ByteCount(bench.limit / 2), "{won}");
    assert_eq!((before.blocks, before.bytes_live), (after.blocks, after.bytes_live));
    // Up to the headers of the segments that took the copies, and to the whole pages that files take.
    let pages = ByteCount((before.segments - after.segments) * 4096);
    let (least, most) = (won - ByteCount::KIB, won + pages + ByteCount::KIB);
    assert!((least..=most).contains(&(before.bytes_disk - after.bytes_disk)), "{before:?} {after:?}");
    assert!((least..=most).contains(&(after.free - before.free)), "{before:?} {after:?}");
    for number in (0..count).step_by(4) {
        assert_eq!(packs.get(&name(number)).expect("reads").map(|data| data.len()), Some(10_000));
    }
    assert_eq!(packs.compact(ByteCount(u64::MAX)).expect("compacts"), ByteCount::ZERO, "nothing left to win");
    packs.put(&[(&name(1), &[7; 10_000])]).expect("room again");
}

#[test]
fn a_full_disk_refuses_with_numbers() {
    let bench = Bench::new();
    let options = PackOptions { reserve: ByteCount(u64::MAX / 2), ..bench.options() };
    let packs = PackStore::open(bench.home.path(), bench.index.clone(), options).expect("opens");
    let error = packs.put(&[(b"a", b"x")]).expect_err("full");
    assert!(matches!(error, PutError::DiskFull { needed, free } if needed > free), "{error}");
    assert_eq!(packs.get(b"a").expect("reads"), None);
}

#[test]
fn a_listing_is_sorted_and_resumable_over_index_and_pending() {
    let bench = Bench::new();
    let packs = bench.open();
    put(&packs, &(0..50).collect::<Vec<_>>());
    packs.sync().expect("syncs");
    packs.shared.index_synced().expect("indexes");
    put(&packs, &(50..100).collect::<Vec<_>>());
    for limit in [1, 7, 1000] {
        let (mut found, mut after) = (Vec::new(), None::<Bytes>);
        loop {
            let page = packs.blocks(after.as_deref(), limit).expect("lists");
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            found.extend(page);
        }
        let mut expected: Vec<(Bytes, u64)> = (0..100).map(|number| (Bytes::from(name(number)), data(number).len() as u64)).collect();
        expected.sort();
        assert_eq!(found, expected, "pages of {limit}");
    }
}

#[test]
fn many_threads_put_get_delete_and_compact_together() {
    let bench = Bench::new();
    let packs = bench.open();
    std::thread::scope(|scope| {
        for thread in 0..4u32 {
            let packs = &packs;
            scope.spawn(move || {
                for round in 0..40 {
                    // Half of the blocks are everybody's.
                    let own = 1000 * (thread + 1) + round;
                    put(packs, &[own, round]);
                    packs.sync().expect("syncs");
                    assert_eq!(packs.get(&name(own)).expect("reads").as_deref(), Some(&data(own)[..]));
                    assert_eq!(packs.get(&name(round)).expect("reads").as_deref(), Some(&data(round)[..]));
                    if round % 2 == 1 {
                        assert_eq!(packs.delete(&[&name(own)]).expect("deletes"), 1);
                    }
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..20 {
                packs.compact(ByteCount(1 << 20)).expect("compacts");
            }
        });
    });
    let own = (1..=4).flat_map(|thread| (0..40).step_by(2).map(move |round| 1000 * thread + round));
    let expected: Vec<u32> = (0..40).chain(own).collect();
    check(&packs, &expected);
    drop(packs);
    check(&bench.open(), &expected);
}

#[test]
fn a_second_opening_names_the_process_that_has_it() {
    let bench = Bench::new();
    let _held = bench.open();
    let error = PackStore::open(bench.home.path(), bench.index.clone(), bench.options()).err().expect("taken");
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
}

/// A directory and an index for packs with small segments.
struct Bench {
    home: TempDir,
    index: Arc<MemoryStore>,
    limit: u64,
}

impl Bench {
    fn new() -> Bench {
        Bench { home: TempDir::new().expect("a directory for the test"), index: Arc::default(), limit: 1 << 30 }
    }

    fn options(&self) -> PackOptions {
        PackOptions { segment: ByteCount(SEGMENT_SMALLEST), reserve: ByteCount::ZERO, ..PackOptions::with_limit(ByteCount(self.limit)) }
    }

    fn open(&self) -> PackStore {
        PackStore::open(self.home.path(), self.index.clone(), self.options()).expect("opens")
    }
}

fn name(number: u32) -> Vec<u8> {
    let mut name = vec![0x12, 0x20];
    for word in 0..8u32 {
        name.extend((number.wrapping_mul(8) + word).wrapping_mul(2_654_435_761).to_be_bytes());
    }
    name
}

fn data(number: u32) -> Vec<u8> {
    let length = number.wrapping_mul(2_654_435_761) % 9000;
    let mut state = u64::from(number) + 1;
    let next = || {
        // Xorshift: any content will do, as long as no two blocks look alike.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(length as usize).collect()
}

fn put(packs: &PackStore, numbers: &[u32]) -> PutOutcome {
    let blocks: Vec<(Vec<u8>, Vec<u8>)> = numbers.iter().map(|number| (name(*number), data(*number))).collect();
    let blocks: Vec<(&[u8], &[u8])> = blocks.iter().map(|(name, data)| (&name[..], &data[..])).collect();
    packs.put(&blocks).expect("there is room")
}

/// Checks that the packs hold exactly these blocks, by every way of asking.
fn check(packs: &PackStore, numbers: &[u32]) {
    let mut expected: Vec<(Bytes, u64)> = Vec::new();
    for number in numbers {
        let content = packs.get(&name(*number)).expect("reads");
        assert!(content.as_deref() == Some(&data(*number)[..]), "block {number}");
        expected.push((name(*number).into(), data(*number).len() as u64));
    }
    expected.sort();
    assert_eq!(packs.blocks(None, usize::MAX).expect("lists"), expected);
    let stats = packs.stats().expect("counts");
    let bytes = expected.iter().map(|(_, length)| length).sum();
    assert_eq!((stats.blocks, stats.bytes_live), (expected.len() as u64, ByteCount(bytes)));
}
