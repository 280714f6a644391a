//! Archives with an index, and whether they are complete.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use bytes::Bytes;
use common::{STREAM, Store};
use dag::car::{self, CarItem, CarReader, Completeness, Index, IndexBuilder, SectionAt, V2_HEAD, V2Range, V2Writer, section_at};
use dag::import::{FileOptions, import_bytes};
use dag::walk::Walker;
use dag::{Block, HashFn, codec, verify};
use proptest::collection::vec;
use proptest::prelude::*;
use types::{Cid, Depth};

fn raw(text: &str, hash: HashFn) -> Block {
    Block::new(codec::RAW, hash, Bytes::from(text.to_owned())).unwrap()
}

fn archive(roots: &[Cid], blocks: &[Block]) -> Vec<u8> {
    let (mut writer, first) = V2Writer::new(roots);
    let mut out = vec![0; V2_HEAD];
    out.extend(first);
    for block in blocks {
        writer.section(block).iter().for_each(|part| out.extend_from_slice(part));
    }
    let end = writer.finish();
    out[..V2_HEAD].copy_from_slice(&end.head);
    out.extend(end.index);
    out
}

/// As one reads from a file: a little, then as much as is said.
fn read_at(archive: &Bytes, place: u64) -> Block {
    let mut length = 4;
    loop {
        let start = place as usize;
        match section_at(&archive.slice(start..archive.len().min(start + length))).unwrap() {
            SectionAt::More(more) => length = more,
            SectionAt::Block(block) => return block,
        }
    }
}

#[test]
fn single_blocks_are_found_by_the_index() {
    let hashes = ["sha2-256", "sha2-512", "blake2b-160", "blake3", "identity"].map(|name| HashFn::from_name(name).unwrap());
    let mut blocks: Vec<Block> = (0..200).map(|n| raw(&format!("block {n}"), hashes[n % 5])).collect();
    blocks.push(blocks[0].clone());
    let archive = Bytes::from(archive(&[blocks[0].cid, blocks[1].cid], &blocks));
    let range = V2Range::parse(&archive[..V2_HEAD]).unwrap().unwrap();
    let index = Index::parse(archive.slice(range.index.unwrap() as usize..)).unwrap();
    assert_eq!(index.len(), 161);
    for block in &blocks {
        let places: Vec<u64> = index.find(&block.cid).collect();
        let is_inline = dag::block::inline_data(&block.cid).is_some();
        assert_eq!(places.len(), if is_inline { 0 } else { 1 + usize::from(block == &blocks[0]) });
        for place in places {
            let found = read_at(&archive, range.place(place).unwrap());
            verify(&block.cid, &found.data).unwrap();
            assert_eq!(&found, block);
        }
    }
    assert_eq!(index.find(&raw("absent", hashes[0]).cid).count(), 0);
    assert_eq!(range.place(range.size), None);

    let mut reader = CarReader::new();
    reader.push(&archive);
    let items: Vec<CarItem> = std::iter::from_fn(|| reader.next_item().unwrap()).collect();
    reader.finish().unwrap();
    assert_eq!(items.len(), blocks.len() + 1);
}

/// `WrapV1` of go-car 2.16 over the archive of kubo.rs.
const WRAPPED: &str = include_str!("go-car-v2.hex");

#[test]
fn archives_are_those_of_go_car() {
    let wrapped = Bytes::from(hex::decode(WRAPPED.trim()).unwrap());
    let mut reader = CarReader::new();
    reader.push(&wrapped);
    let Some(CarItem::Header(header)) = reader.next_item().unwrap() else { panic!("a header comes first") };
    let blocks: Vec<Block> = std::iter::from_fn(|| reader.next_item().unwrap())
        .map(|item| match item {
            CarItem::Block(block) => block,
            CarItem::Header(_) => panic!("one header"),
        })
        .collect();
    assert_eq!(hex::encode(archive(&header.roots, &blocks)), WRAPPED.trim());
}

#[test]
fn a_version_1_has_no_range_and_broken_heads_are_refused() {
    assert!(V2Range::parse(&car::header(&[])).unwrap().is_none());
    let good = archive(&[], &[raw("x", HashFn::SHA2_256)]);
    assert!(V2Range::parse(&good[..V2_HEAD - 1]).is_err());
    for (at, value) in [(27, 3), (35, 255), (43, 1), (34, 255)] {
        let mut head = good[..V2_HEAD].to_vec();
        head[at] = value;
        assert!(V2Range::parse(&head).is_err(), "{at}");
    }
}

#[test]
fn the_first_missing_block_is_named() {
    let mut store = Store::default();
    let options = FileOptions { chunker: "size-100".parse().unwrap(), width: 4, ..FileOptions::v1() };
    let mut blocks = Vec::new();
    let one = import_bytes(STREAM.slice(..3000), options.clone(), &mut |block| blocks.push(block)).unwrap().cid;
    let two = import_bytes(STREAM.slice(1000..1700), options, &mut |block| blocks.push(block)).unwrap().cid;
    let stray = raw("of no root", HashFn::SHA2_256);
    blocks.iter().cloned().for_each(|block| store.put(block));
    // In the order of a walk.
    let mut walked = Vec::new();
    for root in [one, two] {
        let mut walker = Walker::new(root, Depth::Recursive).with_window(1);
        while let Some(cid) = walker.next_wanted().pop() {
            let data = store.blocks[&cid].clone();
            walker.give(&cid, &data).unwrap();
            walked.push(Block { cid, data });
        }
    }
    let mut backwards = walked.clone();
    backwards.reverse();
    for order in [&walked, &blocks, &backwards] {
        for left_out in [None, Some(0), Some(1), Some(walked.len() - 1), Some(walked.len() / 2)] {
            let left_out = left_out.map(|at: usize| walked[at].cid);
            let mut check = Completeness::new(&[one, two]).unwrap();
            check.add(&stray).unwrap();
            for block in order.iter().filter(|block| Some(block.cid) != left_out) {
                // The two files share blocks: some come for the second time here already.
                check.add(block).unwrap();
                assert!(!check.add(block).unwrap(), "the second time");
            }
            assert_eq!(check.first_missing().copied(), left_out);
        }
    }
    let mut check = Completeness::new(&[one]).unwrap().with_blocks_max(5);
    assert!(walked.iter().any(|block| check.add(block).is_err()));
}

proptest! {
    #[test]
    fn damaged_indexes_never_panic(count in 0usize..20, changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6), cut in any::<prop::sample::Index>(), is_cut in any::<bool>()) {
        let mut builder = IndexBuilder::default();
        let block = raw("x", HashFn::SHA2_256);
        for n in 0..count {
            builder.add(&raw(&n.to_string(), HashFn::SHA2_256).cid, n as u64);
        }
        builder.add(&block.cid, 7);
        let mut data = builder.finish();
        for (place, value) in changes {
            let place = place.index(data.len());
            data[place] = value;
        }
        if is_cut {
            data.truncate(cut.index(data.len()));
        }
        if let Ok(index) = Index::parse(data.into()) {
            prop_assert!(index.find(&block.cid).count() <= index.len());
        }
    }

    #[test]
    fn noise_is_no_index_and_no_section(noise in vec(any::<u8>(), 0..200)) {
        let noise = Bytes::from(noise);
        let _ = Index::parse(noise.clone());
        let _ = V2Range::parse(&noise);
        let _ = section_at(&noise);
        let _ = Index::parse([&[0x81, 8][..], &noise].concat().into());
    }
}
