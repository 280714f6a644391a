//! What the disk may do to files, and what the packs make of it.

use super::*;
use std::path::PathBuf;

#[test]
fn a_damaged_block_is_named_found_by_scrubbing_and_mended_by_putting_it_again() {
    let bench = Bench::new();
    let packs = bench.open();
    put(&packs, &[1, 2, 3]);
    drop(packs);
    flip_byte_of(&bench, 2);
    let packs = bench.open();
    let error = packs.get(&name(2)).expect_err("damaged");
    assert!(matches!(&error, PackError::CorruptBlock { multihash, .. } if multihash[..] == name(2)), "{error}");
    assert!(error.to_string().starts_with("block 1220"), "{error}");
    let scrubbed = scrub_all(&packs, 1);
    assert_eq!(scrubbed.iter().map(|bad| bad.multihash.to_vec()).collect::<Vec<_>>(), [name(2)]);
    assert_eq!(scrub_all(&packs, u64::MAX), scrubbed);
    packs.delete(&[&name(2)]).expect("deletes");
    assert_eq!(put(&packs, &[2]).written, 1);
    check(&packs, &[1, 2, 3]);
    assert_eq!(scrub_all(&packs, u64::MAX), []);
}

#[test]
fn a_segment_with_a_damaged_block_is_kept_until_that_block_is_deleted() {
    let bench = Bench::new();
    let packs = bench.open();
    let numbers: Vec<u32> = (0..60).collect();
    put(&packs, &numbers);
    drop(packs);
    assert!(segments(&bench).len() > 2);
    flip_byte_of(&bench, 3);
    let packs = bench.open();
    let others: Vec<Vec<u8>> = numbers.iter().filter(|number| **number > 4).map(|number| name(*number)).collect();
    packs.delete(&others.iter().map(|name| &name[..]).collect::<Vec<_>>()).expect("deletes");
    packs.compact(ByteCount(u64::MAX)).expect("compacts");
    for number in [0, 1, 2, 4] {
        assert_eq!(packs.get(&name(number)).expect("reads").as_deref(), Some(&data(number)[..]));
    }
    packs.get(&name(3)).expect_err("still there, still damaged");
    packs.delete(&[&name(3)]).expect("deletes");
    assert!(packs.compact(ByteCount(u64::MAX)).expect("compacts") > ByteCount::ZERO);
    check(&packs, &[0, 1, 2, 4]);
}

#[test]
fn a_torn_tail_is_cut_off_and_the_rest_kept() {
    let bench = Bench::new();
    let packs = bench.open();
    put(&packs, &[1, 2]);
    drop(packs);
    let path = segments(&bench).pop().expect("a segment");
    let whole = std::fs::metadata(&path).expect("is there").len();
    for garbage in [&b"x"[..], &[0; 100_000]] {
        let mut bytes = std::fs::read(&path).expect("reads");
        bytes.extend_from_slice(garbage);
        std::fs::write(&path, bytes).expect("writes");
        let packs = bench.open();
        assert_eq!(packs.recovered(), Recovered { bytes_torn: garbage.len() as u64, ..Recovered::default() });
        check(&packs, &[1, 2]);
        assert_eq!(std::fs::metadata(&path).expect("is there").len(), whole);
    }
    let packs = bench.open();
    put(&packs, &[3]);
    check(&packs, &[1, 2, 3]);
}

#[test]
fn a_lost_index_is_rebuilt_from_the_segments() {
    let bench = Bench::new();
    let numbers: Vec<u32> = (0..200).collect();
    put(&bench.open(), &numbers);
    let bench = Bench { index: Arc::default(), ..bench };
    let packs = bench.open();
    assert_eq!(packs.recovered(), Recovered { blocks: 200, ..Recovered::default() });
    check(&packs, &numbers);
    drop(packs);
    assert_eq!(bench.open().recovered(), Recovered::default());
}

#[test]
fn damage_in_the_tail_costs_one_block_not_those_behind_it() {
    let bench = Bench::new();
    put(&bench.open(), &[1, 2, 3]);
    flip_byte_of(&bench, 2);
    let bench = Bench { index: Arc::default(), ..bench };
    let packs = bench.open();
    check(&packs, &[1, 3]);
    assert!(packs.recovered().bytes_damaged > data(2).len() as u64);
}

#[test]
fn a_block_that_looks_like_a_record_of_another_segment_stays_a_block() {
    // Somebody stores a copy of one of our segments as a block; then the index is lost and the record that holds it is damaged, so that
    // the scan searches inside it.
    let other = Bench::new();
    put(&other.open(), &[7]);
    let forged = std::fs::read(segments(&other).pop().expect("a segment")).expect("reads");
    let bench = Bench::new();
    bench.open().put(&[(b"forged", &forged), (b"behind", b"x")]).expect("there is room");
    let path = segments(&bench).pop().expect("a segment");
    let mut bytes = std::fs::read(&path).expect("reads");
    bytes[record::SEGMENT_HEADER + 5] ^= 1;
    std::fs::write(&path, bytes).expect("writes");
    let bench = Bench { index: Arc::default(), ..bench };
    let listed = bench.open().blocks(None, 10).expect("lists");
    assert_eq!(listed, [(Bytes::from("behind"), 1)]);
}

#[test]
fn a_lost_segment_is_reported_and_its_blocks_count_as_absent() {
    let bench = Bench::new();
    let numbers: Vec<u32> = (0..60).collect();
    put(&bench.open(), &numbers);
    std::fs::remove_file(&segments(&bench)[1]).expect("removes");
    let packs = bench.open();
    let recovered = packs.recovered();
    assert_eq!(recovered.segments_lost, 1);
    let left: Vec<u32> = numbers.iter().copied().filter(|number| packs.get(&name(*number)).expect("no damage").is_some()).collect();
    assert_eq!(left.len() as u64 + recovered.blocks_lost, 60);
    assert!(recovered.blocks_lost > 0);
    check(&packs, &left);
    put(&packs, &numbers);
    check(&packs, &numbers);
}

#[test]
fn a_damaged_segment_header_costs_nothing_while_the_index_knows_the_salt() {
    let bench = Bench::new();
    put(&bench.open(), &[1, 2]);
    let path = segments(&bench).pop().expect("a segment");
    let mut bytes = std::fs::read(&path).expect("reads");
    bytes[..record::SEGMENT_HEADER].fill(0);
    std::fs::write(&path, bytes).expect("writes");
    let packs = bench.open();
    put(&packs, &[3]);
    check(&packs, &[1, 2, 3]);
    assert_eq!(segments(&bench).len(), 2, "nothing more is appended to it");
}

#[test]
fn removals_begun_are_finished_but_only_of_the_segment_that_was_meant() {
    let bench = Bench::new();
    put(&bench.open(), &(0..60).collect::<Vec<_>>());
    let numbers = index::known_segments(&*bench.index.snapshot()).expect("reads").tallies;
    let mut batch = crate::Batch::new();
    let (first, (salt, _)) = numbers.first_key_value().expect("a segment");
    batch.delete(Area::Meta, index::segment_key(*first)).put(Area::Meta, index::retired_key(*first), salt.to_bytes());
    let (last, _) = numbers.last_key_value().expect("a segment");
    batch.put(Area::Meta, index::retired_key(*last), [0; 8]);
    bench.index.commit(batch, crate::Durability::Synced).expect("commits");
    let before = segments(&bench);
    drop(bench.open());
    assert_eq!(segments(&bench), before[1..]);
}

#[test]
fn a_creation_cut_short_is_begun_again_and_a_later_format_is_left_alone() {
    let bench = Bench::new();
    for (content, ok) in [(&b""[..], true), (&[0; 32], true), (&record_header_of_version_2(), false)] {
        std::fs::write(bench.home.path().join("00000001.pack"), content).expect("writes");
        let opened = PackStore::open(bench.home.path(), Arc::new(MemoryStore::new()), bench.options());
        assert_eq!(opened.is_ok(), ok, "{:?}", opened.err());
    }
}

fn record_header_of_version_2() -> Vec<u8> {
    let mut header = record::encode_segment_header(1, Salt::from_bytes([7; 8])).to_vec();
    header[11] = 2;
    let crc = crc32fast::hash(&header[..24]);
    header[24..28].copy_from_slice(&crc.to_be_bytes());
    header
}

fn scrub_all(packs: &PackStore, budget: u64) -> Vec<BadBlock> {
    let (mut bad, mut cursor, mut blocks) = (Vec::new(), None::<Bytes>, 0);
    loop {
        let step = packs.scrub(cursor.as_deref(), ByteCount(budget)).expect("scrubs");
        bad.extend(step.bad);
        blocks += step.blocks;
        let Some(next) = step.next else { break };
        cursor = Some(next);
    }
    assert_eq!(blocks, packs.stats().expect("counts").blocks, "every block was looked at once");
    bad
}

/// The segment files in order.
fn segments(bench: &Bench) -> Vec<PathBuf> {
    let files = Files::new(bench.home.path());
    files.list().expect("lists").into_iter().map(|(segment, _)| files.path(segment)).collect()
}

/// Damages the data of one block, which must be in one of the segments.
fn flip_byte_of(bench: &Bench, number: u32) {
    let content = data(number);
    for path in segments(bench) {
        let mut bytes = std::fs::read(&path).expect("reads");
        if let Some(at) = bytes.windows(content.len()).position(|window| window == content) {
            bytes[at + content.len() / 2] ^= 1;
            std::fs::write(&path, bytes).expect("writes");
            return;
        }
    }
    panic!("block {number} is in no segment");
}
