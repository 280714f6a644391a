use super::*;
use crate::import::{FileBuilder, FileOptions};
use std::collections::BTreeSet;

/// What a cutting gave: units of complete sub-DAGs, units of spine, the rest of the spine.
#[derive(Default)]
struct Given {
    units: Vec<(Shard, Vec<Block>)>,
    spines: Vec<(Shard, Vec<Block>)>,
    spine: Vec<Block>,
    is_whole: bool,
    open: Vec<Block>,
}

fn cut(limit: u64, blocks: impl IntoIterator<Item = Block>) -> Given {
    let mut cutter = Cutter::new(limit);
    let mut given = Given::default();
    let mut out = Vec::new();
    for block in blocks {
        cutter.push(block, &mut out).expect("blocks are sound");
        for cut in out.drain(..) {
            match cut {
                Cut::Block(block) => given.open.push(block),
                Cut::Full(shard) => given.units.push((shard, std::mem::take(&mut given.open))),
                Cut::Spine(shard, blocks) => given.spines.push((shard, blocks)),
            }
        }
    }
    match cutter.finish().expect("lists are small") {
        End::Whole => given.is_whole = true,
        End::Parts { last, spine } => {
            if let Some(shard) = last {
                given.units.push((shard, std::mem::take(&mut given.open)));
            }
            given.spine = spine;
        }
    }
    given
}

/// All blocks below a list that are among `here`; fails when one is missing.
fn below(list: &Block, here: &[Block]) -> BTreeSet<Vec<u8>> {
    let mut found = BTreeSet::new();
    let mut open = crate::links(&list.cid, &list.data).expect("a list");
    while let Some(cid) = open.pop() {
        let block = here.iter().find(|block| block.cid.hash() == cid.hash());
        let block = block.unwrap_or_else(|| panic!("{cid} is not in its unit"));
        if found.insert(cid.hash().to_bytes()) {
            open.extend(crate::links(&cid, &block.data).expect("sound"));
        }
    }
    found
}

fn file(bytes: usize, seed: u8) -> (Vec<Block>, Cid) {
    let options = FileOptions { chunker: "size-1024".parse().expect("a chunker"), width: 8, ..FileOptions::default() };
    let mut blocks = Vec::new();
    let mut builder = FileBuilder::new(options).expect("sound");
    let data: Vec<u8> = (0..bytes).map(|at| ((at as u64 * 2_654_435_761) >> 7) as u8 ^ seed ^ (at / 1024) as u8).collect();
    builder.push(data.into(), &mut |block| blocks.push(block)).expect("built");
    let root = builder.finish(&mut |block| blocks.push(block)).expect("built");
    (blocks, root.cid)
}

fn check(given: &Given, blocks: &[Block], limit: u64) {
    let mut all: BTreeSet<Vec<u8>> = BTreeSet::new();
    for (shard, unit) in given.units.iter().chain(&given.spines) {
        let held = below(&shard.list, unit);
        let bytes: usize = unit.iter().filter(|block| held.contains(&block.cid.hash().to_bytes())).map(|block| block.data.len()).sum();
        assert_eq!(shard.bytes, (bytes + shard.list.data.len()) as u64);
        assert!(shard.bytes <= limit + 100, "{} bytes in a unit of {limit}", shard.bytes);
        all.extend(held);
    }
    all.extend(given.spine.iter().map(|block| block.cid.hash().to_bytes()));
    let expected: BTreeSet<Vec<u8>> = blocks.iter().map(|block| block.cid.hash().to_bytes()).collect();
    assert_eq!(all, expected, "every block is in a unit or in the spine");
}

#[test]
fn what_fits_is_not_cut() {
    let (blocks, _) = file(50_000, 1);
    let given = cut(100_000, blocks.clone());
    assert!(given.is_whole);
    assert_eq!(given.open.len(), blocks.iter().map(|block| block.cid).collect::<BTreeSet<_>>().len());
}

#[test]
fn a_file_is_cut_into_whole_subtrees_and_a_small_spine() {
    for limit in [8_000, 20_000, 33_000, 70_000] {
        let (blocks, root) = file(200_000, 1);
        let given = cut(limit, blocks.clone());
        check(&given, &blocks, limit);
        assert!(given.units.len() as u64 >= 200_000 / limit, "{limit}: {} units", given.units.len());
        assert!(given.spine.iter().any(|block| block.cid == root), "{limit}");
        assert!(given.spine.len() < blocks.len() / 8, "{limit}: {} of {} blocks are spine", given.spine.len(), blocks.len());
        let links: usize =
            given.units.iter().map(|(shard, _)| crate::links(&shard.list.cid, &shard.list.data).expect("a list").len()).sum();
        // A unit below the size of a full inner node can only name leaves.
        assert!(limit < 30_000 || links < blocks.len() / 2, "{limit}: lists name subtrees, not every leaf");
    }
}

#[test]
fn small_files_stay_whole() {
    let files: Vec<(Vec<Block>, Cid)> = (0..60).map(|seed| file(3_000, seed)).collect();
    let blocks: Vec<Block> = files.iter().flat_map(|(blocks, _)| blocks.clone()).collect();
    let given = cut(20_000, blocks.clone());
    check(&given, &blocks, 20_000);
    let tops: BTreeSet<Cid> =
        given.units.iter().flat_map(|(shard, _)| crate::links(&shard.list.cid, &shard.list.data).expect("a list")).collect();
    let whole = files.iter().filter(|(_, root)| tops.contains(root)).count();
    assert!(whole >= 60 - given.units.len(), "{whole} of 60 files are whole");
}

#[test]
fn blocks_in_any_order_are_all_kept() {
    let (mut blocks, _) = file(100_000, 3);
    blocks.reverse();
    let given = cut(16_000, blocks.clone());
    check(&given, &blocks, 16_000);
    blocks.sort_by_key(|block| block.cid.hash().to_bytes());
    let given = cut(16_000, blocks.clone());
    check(&given, &blocks, 16_000);
}

#[test]
fn what_repeats_is_in_every_unit_that_needs_it() {
    let (one, _) = file(30_000, 1);
    let (two, _) = file(30_000, 2);
    let blocks: Vec<Block> = [&one, &two, &one, &one, &two].into_iter().flatten().cloned().collect();
    let given = cut(31_000, blocks.clone());
    check(&given, &blocks, 31_000);
}

#[test]
fn much_spine_becomes_units_of_its_own() {
    // Parents before children: no inner node completes anything.
    let (mut blocks, _) = file(400_000, 5);
    blocks.reverse();
    let given = cut(9_000, blocks.clone());
    check(&given, &blocks, 9_000);
    assert!(!given.spines.is_empty());
}

#[test]
fn a_head_names_lists_and_spine_without_their_links() {
    let (blocks, root) = file(100_000, 1);
    let given = cut(20_000, blocks);
    let head = Head {
        root,
        size: 100_000,
        shards: given.units.iter().map(|(shard, _)| (shard.list.cid, shard.bytes)).collect(),
        spines: Vec::new(),
        spine: given.spine.iter().map(|block| block.cid).collect(),
    };
    let block = head.block().expect("small");
    let links = crate::links(&block.cid, &block.data).expect("dag-cbor");
    assert_eq!(links.len(), given.units.len() + given.spine.len());
    assert!(links.iter().all(|link| link.codec() == codec::RAW));
    assert_eq!(block, head.block().expect("small"), "the same content gives the same head");
}
