//! Blocks and archives: what anybody may have made.

use crate::vectors;
use bytes::Bytes;
use dag::car::{self, CarHeader, CarItem, CarReader, Completeness, Index, SectionAt, V2_HEAD, V2Range, V2Writer};
use dag::edit::directory::{self, Change};
use dag::edit::file::{self, FileChange, FileEditOptions};
use dag::edit::{Step, Steps};
use dag::export::{ArchiveStep, DirectoryReader, Entry, FileReader, FileStep, ListStep, Resolve, Resolver, TarWriter, ZipWriter};
use dag::import::{DirectoryBuilder, DirectoryOptions, FileOptions, Layout, import_bytes};
use dag::mfs::{self, MfsOptions, Op, Path};
use dag::shards;
use dag::unixfs::{Kind, Mtime, Stat, UnixFs};
use dag::walk::Walker;
use dag::{Block, HashFn, MAX_LINKS, codec, links, pb};
use fuzz::same;
use types::{Cid, Depth};

/// Steps that a reader is led on. The same block is given for whatever it asks, so one that trusted it could go on for ever.
const STEPS: usize = 200;

fn named(codec: u64, input: &[u8]) -> (Cid, Bytes) {
    let data = Bytes::copy_from_slice(input);
    (Block::new(codec, HashFn::SHA2_256, data.clone()).expect("sha2-256 is known").cid, data)
}

pub fn dag_pb(input: &[u8]) -> bool {
    let Ok(node) = pb::Node::decode(input) else { return false };
    assert!(node.links.len() <= MAX_LINKS);
    same(pb::Node::decode(&node.encode()), Ok(node));
    true
}

/// Files in both layouts, directories in both forms, and lists of shards.
fn sound_blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    let stat = Stat { mode: Some(0o644), mtime: Some(Mtime { seconds: -5, nanos: 999_999_999 }) };
    for (layout, stat) in [(Layout::Balanced, Stat::default()), (Layout::Trickle, stat)] {
        let chunker = "size-20".parse().expect("a chunker");
        let options = FileOptions { chunker, layout, stat, width: 4, ..FileOptions::default() };
        let data: Vec<u8> = (0..200u8).collect();
        import_bytes(Bytes::from(data), options, &mut |block| blocks.push(block)).expect("imports");
    }
    let cid = blocks[0].cid;
    for sharding_size in [0, 1] {
        let options = DirectoryOptions { sharding_size, ..DirectoryOptions::default() };
        let mut directory = DirectoryBuilder::new(options).expect("sound options");
        for n in 0..12 {
            directory.add(format!("entry-{n}").as_bytes(), &cid, 20).expect("adds");
        }
        directory.finish(&mut |block| blocks.push(block)).expect("finishes");
    }
    let symlink = UnixFs { data: Some(b"../target"), ..UnixFs::new(Kind::Symlink) }.encode();
    let node = pb::Node { links: Vec::new(), data: Some(&symlink) }.encode();
    blocks.push(Block::new(codec::DAG_PB, HashFn::SHA2_256, Bytes::from(node)).expect("known"));
    blocks
}

pub fn nodes() -> Vec<Vec<u8>> {
    let mut nodes: Vec<Vec<u8>> = sound_blocks().into_iter().map(|block| block.data.to_vec()).collect();
    nodes.sort();
    nodes.dedup();
    nodes
}

pub fn unixfs(input: &[u8]) -> bool {
    let Ok(unixfs) = UnixFs::decode(input) else { return false };
    let _ = (unixfs.file_size(), dag::hamt::Shape::of(&unixfs));
    let written = unixfs.encode();
    let mut again = UnixFs::decode(&written).expect("own bytes");
    // A mode of 0 means the same as none.
    again.stat.mode = again.stat.mode.or(unixfs.stat.mode.filter(|mode| *mode == 0));
    same(again, unixfs);
    true
}

pub fn messages_of_unixfs() -> Vec<Vec<u8>> {
    let nodes = nodes();
    nodes.iter().filter_map(|block| pb::Node::decode(block).ok()?.data.map(<[u8]>::to_vec)).collect()
}

pub fn dag_cbor(input: &[u8]) -> bool {
    let (cid, data) = named(codec::DAG_CBOR, input);
    let Ok(found) = links(&cid, &data) else { return false };
    assert!(found.len() <= MAX_LINKS);
    true
}

pub fn cbor_blocks() -> Vec<Vec<u8>> {
    let cids: Vec<Cid> = sound_blocks().iter().map(|block| block.cid).take(3).collect();
    let list = shards::list(&cids).expect("a list");
    let spine = shards::spine_list(&sound_blocks()[..2]).expect("a list");
    let head =
        shards::Head { root: cids[0], size: 1 << 40, shards: vec![(list.cid, 7)], spines: vec![(spine.cid, 8)], spine: cids.clone() };
    let link = [&[0xd8, 42, 0x58, 35, 0][..], &cids[0].to_bytes()].concat();
    let mixed = [&[0xa2, 0x61, b'a', 0x84, 1, 0xfb, 0, 0, 0, 0, 0, 0, 0, 0, 0xf6, 0x20][..], &[0x61, b'b'], &link].concat();
    [list, spine, head.block().expect("a head")].into_iter().map(|block| block.data.to_vec()).chain([mixed]).collect()
}

pub fn dag_json(input: &[u8]) -> bool {
    let (cid, data) = named(codec::DAG_JSON, input);
    let Ok(found) = links(&cid, &data) else { return false };
    assert!(found.len() <= MAX_LINKS);
    true
}

pub fn json_blocks() -> Vec<Vec<u8>> {
    let cid = sound_blocks()[0].cid;
    let mixed = format!(r#"{{"a": [{{"/": "{cid}"}}, 1, "x\"y", -1.5e3, null, true], "b": {{"/": {{"bytes": "AA"}}}}}}"#);
    vec![mixed.into_bytes(), br#"["\u00e4\ud83d\ude80", {}, [], 0]"#.to_vec()]
}

pub fn walk(input: &[u8]) -> bool {
    let (cid, data) = named(codec::DAG_PB, input);
    let mut walker = Walker::new(cid, Depth::Levels(3));
    let mut given = 0;
    while let Some(wanted) = walker.next_wanted().pop() {
        if given == STEPS || walker.give(&wanted, &data).is_err() {
            break;
        }
        given += 1;
    }
    given > 0
}

pub fn read_file(input: &[u8]) -> bool {
    const RANGE: std::ops::Range<u64> = 3..1000;
    let (cid, data) = named(codec::DAG_PB, input);
    let mut file = FileReader::new(cid, RANGE);
    let (mut given, mut read) = (0, 0);
    for _ in 0..STEPS {
        match file.step() {
            Ok(FileStep::Need(cid)) if file.give(&cid, &data).is_ok() => given += 1,
            Ok(FileStep::Data(bytes)) => read += bytes.len() as u64,
            _ => break,
        }
    }
    assert!(read <= RANGE.end - RANGE.start, "more bytes than the range has");
    given > 0
}

pub fn read_directory(input: &[u8]) -> bool {
    let (cid, data) = named(codec::DAG_PB, input);
    let mut directory = DirectoryReader::new(cid);
    let mut entries = 0;
    for _ in 0..STEPS {
        match directory.step() {
            Ok(ListStep::Need(cid)) if directory.give(&cid, &data).is_ok() => {}
            Ok(ListStep::Entry(_)) => entries += 1,
            _ => break,
        }
    }
    entries > 0
}

/// A path through a block of each codec; its first byte tells which.
pub fn resolve_path(input: &[u8]) -> bool {
    const CODECS: [u64; 5] = [codec::DAG_PB, codec::DAG_CBOR, codec::DAG_JSON, codec::RAW, 0x99];
    let Some((which, input)) = input.split_first() else { return false };
    let (cid, data) = named(CODECS[usize::from(*which) % CODECS.len()], input);
    let mut is_found = false;
    for text in [&b"entry-3"[..], b"spine/0/x", b"a/0", b"b"] {
        let mut path = Resolver::new(cid, text);
        for _ in 0..STEPS {
            match path.step() {
                Ok(Resolve::Need(cid)) if path.give(&cid, &data).is_ok() => is_found = true,
                _ => break,
            }
        }
    }
    is_found
}

pub fn blocks_of_all_codecs() -> Vec<Vec<u8>> {
    let of = |which: u8, blocks: Vec<Vec<u8>>| blocks.into_iter().map(move |block| [&[which], &block[..]].concat());
    of(0, nodes()).chain(of(1, cbor_blocks())).chain(of(2, json_blocks())).collect()
}

pub fn write_archives(input: &[u8]) -> bool {
    let (cid, data) = named(codec::DAG_PB, input);
    let mut written = 0;
    let mut tar = TarWriter::new(cid, b"name", 0);
    for _ in 0..STEPS {
        match tar.step() {
            Ok(ArchiveStep::Need(cid)) if tar.give(&cid, &data).is_ok() => {}
            Ok(ArchiveStep::Data(bytes)) => written += bytes.len(),
            _ => break,
        }
    }
    let mut zip = ZipWriter::new(cid, b"name");
    for _ in 0..STEPS {
        match zip.step() {
            Ok(ArchiveStep::Need(cid)) if zip.give(&cid, &data).is_ok() => {}
            Ok(ArchiveStep::Data(bytes)) => written += bytes.len(),
            _ => break,
        }
    }
    written > 0
}

/// Changes it as a directory, a file and a tree.
pub fn edit(input: &[u8]) -> bool {
    let (cid, data) = named(codec::DAG_PB, input);
    let put = Change::Put(Entry { name: b"new".to_vec(), cid, tsize: u64::MAX });
    let gone = Change::Remove(b"entry-3".to_vec());
    let path = |text: &str| Path::new(text.as_bytes()).expect("a path");
    let write = Op::Write { path: path("/entry-3/x"), offset: 9, data: data.clone(), create: true, truncate: false, parents: true };
    let moved = Op::Move { from: path("/entry-4"), to: path("/entry-5/") };
    let file = |change| drive(file::edit(cid, change, FileEditOptions::default()), &data);
    let done = [
        drive(directory::edit(cid, vec![put, gone], DirectoryOptions::default()), &data),
        file(FileChange::Write { offset: 150, data: data.clone() }),
        file(FileChange::Truncate(77)),
        drive(mfs::edit(cid, vec![write, moved], MfsOptions::default()), &data),
    ];
    done.contains(&true)
}

/// Whether any block that was given was taken.
fn drive<T>(mut steps: Steps<T>, data: &Bytes) -> bool {
    let mut given = 0;
    for _ in 0..STEPS {
        match steps.step() {
            Ok(Step::Need(cid)) if steps.give(&cid, data.clone()).is_ok() => given += 1,
            Ok(Step::Done(_)) => return true,
            _ => break,
        }
    }
    given > 1
}

/// Header and blocks of a stream that comes in portions; none when it is broken.
fn read_car(input: &[u8], portion: usize) -> Option<(CarHeader, Vec<Block>)> {
    let mut reader = CarReader::unverified();
    let (mut header, mut blocks) = (None, Vec::new());
    for portion in input.chunks(portion) {
        reader.push(portion);
        while let Some(item) = reader.next_item().ok()? {
            match item {
                CarItem::Header(found) => header = Some(found),
                CarItem::Block(block) => blocks.push(block),
            }
        }
    }
    reader.finish().ok()?;
    Some((header?, blocks))
}

fn car_of(roots: &[Cid], blocks: &[Block]) -> Vec<u8> {
    car::header(roots).into_iter().chain(blocks.iter().flat_map(car::section).flatten()).collect()
}

pub fn car_stream(input: &[u8]) -> bool {
    let found = read_car(input, 61);
    same(read_car(input, 1 << 20), found.clone());
    let mut verified = CarReader::new();
    verified.push(input);
    while let Ok(Some(_)) = verified.next_item() {}
    let Some((header, blocks)) = found else { return false };
    let again = read_car(&car_of(&header.roots, &blocks), 1 << 20);
    same(again, Some((CarHeader { version: 1, ..header }, blocks)));
    true
}

pub fn cars() -> Vec<Vec<u8>> {
    let blocks = sound_blocks();
    let roots = [blocks[blocks.len() - 1].cid];
    let (mut writer, first) = V2Writer::new(&roots);
    let sections: Vec<u8> = blocks[..8].iter().flat_map(|block| writer.section(block)).flatten().collect();
    let end = writer.finish();
    let second = [&end.head[..], &first, &sections, &end.index].concat();
    vec![car_of(&roots, &blocks[..8]), car_of(&[], &[]), second, vectors::crdt_dag()]
}

pub fn car_head(input: &[u8]) -> bool {
    let head = V2Range::parse(&input[..input.len().min(V2_HEAD)]);
    if let Ok(Some(range)) = head {
        let file = range.start..range.start.saturating_add(range.size);
        assert!([0, 1, range.size.saturating_sub(1), u64::MAX].iter().all(|at| range.place(*at).is_none_or(|place| file.contains(&place))));
    }
    let data = Bytes::copy_from_slice(input);
    let section = car::section_at(&data);
    if let Ok(SectionAt::More(length)) = section {
        assert!(length > data.len(), "asks for what it has");
    }
    matches!(head, Ok(Some(_))) || matches!(section, Ok(SectionAt::Block(_)))
}

pub fn car_index(input: &[u8]) -> bool {
    let Ok(index) = Index::parse(Bytes::copy_from_slice(input)) else { return false };
    assert!(index.len() <= input.len());
    for block in &sound_blocks_once()[..4] {
        assert!(index.find(&block.cid).count() <= index.len());
    }
    true
}

fn sound_blocks_once() -> &'static [Block] {
    static BLOCKS: std::sync::LazyLock<Vec<Block>> = std::sync::LazyLock::new(sound_blocks);
    &BLOCKS
}

pub fn car_indexes() -> Vec<Vec<u8>> {
    let index = |blocks: &[Block]| {
        let (mut writer, _) = V2Writer::new(&[]);
        blocks.iter().for_each(|block| drop(writer.section(block)));
        writer.finish().index
    };
    vec![index(&sound_blocks()), index(&[])]
}

pub fn car_completeness(input: &[u8]) -> bool {
    let Some((header, blocks)) = read_car(input, 1 << 20) else { return false };
    let Ok(completeness) = Completeness::new(&header.roots) else { return false };
    let mut completeness = completeness.with_blocks_max(1000);
    for block in &blocks {
        if completeness.add(block).is_err() {
            return false;
        }
    }
    completeness.first_missing().is_none() || completeness.missing().count() > 0
}
