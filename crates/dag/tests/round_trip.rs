//! What is imported can be read again: files and ranges of them, directories against a sorted map, paths, walks, CAR streams.

#![expect(clippy::unwrap_used, reason = "tests")]

use bytes::Bytes;
use cid::Cid;
use dag::car::{CarItem, CarReader};
use dag::export::{DirectoryReader, Entry, ExportError, FileReader, FileStep, ListStep, Resolve, Resolver, file_size};
use dag::import::{DirectoryBuilder, DirectoryOptions, FileOptions, FileRoot, Layout, TreeAssembler, import_bytes, symlink};
use dag::unixfs::{Mtime, Stat};
use dag::walk::Walker;
use dag::{Block, HashFn, car, codec, pb};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use types::Depth;

#[derive(Default)]
struct Store(BTreeMap<Cid, Bytes>);

impl Store {
    fn put(&mut self, block: Block) {
        self.0.insert(block.cid, block.data);
    }

    fn file(&mut self, data: &[u8], options: &FileOptions) -> FileRoot {
        import_bytes(Bytes::copy_from_slice(data), options.clone(), &mut |block| self.put(block)).unwrap()
    }

    fn read(&self, root: Cid, range: std::ops::Range<u64>) -> Result<Vec<u8>, ExportError> {
        let mut reader = FileReader::new(root, range);
        let mut bytes = Vec::new();
        loop {
            match reader.step()? {
                FileStep::Need(cid) => {
                    assert_eq!(reader.upcoming(1), [cid]);
                    reader.give(&cid, &self.0[&cid])?;
                }
                FileStep::Data(data) => bytes.extend_from_slice(&data),
                FileStep::Done => return Ok(bytes),
            }
        }
    }

    fn list(&self, root: Cid) -> Result<Vec<Entry>, ExportError> {
        let mut reader = DirectoryReader::new(root);
        let mut entries = Vec::new();
        loop {
            match reader.step()? {
                ListStep::Need(cid) => reader.give(&cid, &self.0[&cid])?,
                ListStep::Entry(entry) => entries.push(entry),
                ListStep::Done => return Ok(entries),
            }
        }
    }

    fn resolve(&self, root: Cid, path: &[u8]) -> Resolve {
        let mut resolver = Resolver::new(root, path);
        loop {
            match resolver.step().unwrap() {
                Resolve::Need(cid) => resolver.give(&cid, &self.0[&cid]).unwrap(),
                end => return end,
            }
        }
    }

    fn found(&self, root: Cid, path: &[u8]) -> Option<Cid> {
        match self.resolve(root, path) {
            Resolve::Found(found) => Some(found.cid),
            _ => None,
        }
    }

    fn walk(&self, root: Cid) -> BTreeSet<Cid> {
        let mut walker = Walker::new(root, Depth::Recursive);
        let mut seen = BTreeSet::new();
        while !walker.is_done() {
            for cid in walker.next_wanted() {
                walker.give(&cid, &self.0[&cid]).unwrap();
                assert!(seen.insert(cid), "asked twice");
            }
        }
        seen
    }
}

fn all_options() -> impl Strategy<Value = FileOptions> {
    let chunker = prop_oneof![Just("size-1"), Just("size-7"), Just("size-300"), Just("rabin-16-32-64"), Just("size-262144")];
    (chunker, any::<bool>(), any::<bool>(), any::<bool>(), 2..6usize).prop_map(|(chunker, is_v1, raw_leaves, is_trickle, width)| {
        FileOptions {
            cid_version: if is_v1 { cid::Version::V1 } else { cid::Version::V0 },
            chunker: chunker.parse().unwrap(),
            raw_leaves,
            layout: if is_trickle { Layout::Trickle } else { Layout::Balanced },
            width,
            ..FileOptions::default()
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn files_come_back(data in vec(any::<u8>(), 0..1500), options in all_options(), from in 0..1600u64, length in 0..1600u64) {
        let mut store = Store::default();
        let root = store.file(&data, &options);
        prop_assert_eq!(store.read(root.cid, 0..u64::MAX).unwrap(), &data[..]);
        let range = (from as usize).min(data.len())..((from + length) as usize).min(data.len());
        prop_assert_eq!(store.read(root.cid, from..from + length).unwrap(), &data[range]);
        prop_assert_eq!(file_size(&root.cid, &store.0[&root.cid]), Some(data.len() as u64));
        prop_assert!(store.walk(root.cid).iter().eq(store.0.keys()));
    }

    #[test]
    fn directories_come_back(names in btree_map(vec(any::<u8>(), 1..12).prop_filter("no slash", |name| !name.contains(&b'/')), any::<u64>(), 0..200), sharding_size in 0..4000usize) {
        let mut store = Store::default();
        let root = directory(&mut store, &names, sharding_size);
        let mut listed = store.list(root).unwrap();
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        let expected: Vec<Entry> = names.iter().map(|(name, tsize)| Entry { name: name.clone(), cid: leaf(name).cid, tsize: *tsize / 512 }).collect();
        prop_assert_eq!(listed, expected);
        for name in names.keys().filter(|name| !name.is_empty()) {
            prop_assert_eq!(store.found(root, name), Some(leaf(name).cid));
            let longer = [&name[..], b"?"].concat();
            prop_assert_eq!(store.found(root, &longer), names.contains_key(&longer).then(|| leaf(&longer).cid));
        }
    }
}

fn leaf(name: &[u8]) -> Block {
    Block::new(codec::RAW, HashFn::SHA2_256, Bytes::copy_from_slice(name)).unwrap()
}

fn directory(store: &mut Store, names: &BTreeMap<Vec<u8>, u64>, sharding_size: usize) -> Cid {
    let options = DirectoryOptions { sharding_size, ..DirectoryOptions::default() };
    let mut builder = DirectoryBuilder::new(options).unwrap();
    for (name, tsize) in names {
        builder.add(name, &leaf(name).cid, *tsize / 512).unwrap();
    }
    builder.finish(&mut |block| store.put(block)).unwrap().cid
}

#[test]
fn large_directories_list_and_resolve_every_entry() {
    let names: BTreeMap<Vec<u8>, u64> = (0..20_000u64).map(|n| (format!("entry-{n:05}").into_bytes(), n)).collect();
    let mut store = Store::default();
    let root = directory(&mut store, &names, 256 << 10);
    assert!(store.0.len() > 256);
    let listed: BTreeSet<Vec<u8>> = store.list(root).unwrap().into_iter().map(|entry| entry.name).collect();
    assert!(listed.iter().eq(names.keys()));
    for name in names.keys().step_by(7) {
        assert_eq!(store.found(root, name), Some(leaf(name).cid));
    }
    let missing = store.resolve(root, b"entry-99999/below");
    assert_eq!(missing, Resolve::NotFound { segment: 0, name: b"entry-99999".to_vec(), under: root });
}

/// `top/inner/file` (700 bytes in chunks of 100), `top/link`, `top/void/`.
fn small_tree(store: &mut Store) -> (Cid, FileRoot) {
    let options = FileOptions { chunker: "size-100".parse().unwrap(), ..FileOptions::default() };
    let file = store.file(&b"0123456".repeat(100), &options);
    let (block, link) = symlink(b"inner/file", &options).unwrap();
    store.put(block);
    let mut tree = TreeAssembler::new(DirectoryOptions::default(), false).unwrap();
    tree.add(b"top/inner/file", &file).unwrap();
    tree.add(b"top/link", &link).unwrap();
    tree.add_directory(b"top/void", Stat::default()).unwrap();
    let assembled = tree.finish(&mut |block| store.put(block)).unwrap();
    (assembled.roots[0], file)
}

#[test]
fn paths_are_followed_to_their_end() {
    let mut store = Store::default();
    let (root, file) = small_tree(&mut store);
    let inner = store.found(root, b"inner").unwrap();
    let Resolve::Found(found) = store.resolve(root, b"/inner//file/") else { panic!("not found") };
    assert_eq!((found.cid, found.inside), (file.cid, 0));
    assert_eq!(found.roots, [root, inner, file.cid]);
    assert_eq!(store.found(root, b""), Some(root));
    let missing = |path: &[u8]| match store.resolve(root, path) {
        Resolve::NotFound { segment, .. } => segment,
        other => panic!("{other:?}"),
    };
    assert_eq!(missing(b"inner/nothing/more"), 1);
    assert_eq!(missing(b"inner/file/below"), 2, "a file has no entries");
    assert_eq!(missing(b"link/file"), 1, "symlinks are not followed");
    assert_eq!(missing("x/".repeat(2000).as_bytes()), 1024);
    assert!(Resolver::new(root, b"").give(&root, &store.0[&root]).is_err(), "nothing was asked for");
}

#[test]
fn paths_go_through_cbor() {
    let mut store = Store::default();
    let (root, file) = small_tree(&mut store);
    // {"list": [1, link], "n": {"deep": true}}
    let link = [&[0xd8, 42, 0x58, 35, 0][..], &root.to_bytes()].concat();
    let map = [&[0xa2, 0x64][..], b"list", &[0x82, 1], &link, &[0x61], b"n", &[0xa1, 0x64], b"deep", &[0xf5]].concat();
    let top = Block::new(codec::DAG_CBOR, HashFn::SHA2_256, map.into()).unwrap();
    let cid = top.cid;
    store.put(top);
    assert_eq!(store.found(cid, b"list/1/inner/file"), Some(file.cid));
    let inside = |path: &[u8]| match store.resolve(cid, path) {
        Resolve::Found(found) => (found.cid == cid).then_some(found.inside),
        _ => None,
    };
    assert_eq!(inside(b"n/deep"), Some(2));
    assert_eq!(inside(b"list/0"), Some(2));
    assert_eq!(inside(b"list/2"), None);
    assert_eq!(inside(b"n/deep/er"), None);
    assert_eq!(store.walk(cid).len(), 1 + store.walk(root).len());
}

#[test]
fn ranges_read_only_the_leaves_they_touch() {
    let mut store = Store::default();
    let (_, file) = small_tree(&mut store);
    let mut reader = FileReader::new(file.cid, 250..351);
    let mut needed = 0;
    loop {
        match reader.step().unwrap() {
            FileStep::Need(cid) => {
                needed += 1;
                reader.give(&cid, &store.0[&cid]).unwrap();
            }
            FileStep::Data(_) => {}
            FileStep::Done => break,
        }
    }
    assert_eq!(needed, 1 + 2, "the root and the leaves at 200 and 300");
    assert_eq!(reader.size(), Some(700));
}

#[test]
fn sizes_that_lie_are_noticed() {
    let mut store = Store::default();
    let (_, file) = small_tree(&mut store);
    let node = pb::Node::decode(&store.0[&file.cid]).unwrap();
    let mut message = dag::unixfs::UnixFs::decode(node.data.unwrap()).unwrap();
    message.blocksizes[2] = 99;
    let forged = pb::Node { data: Some(&message.encode()), links: node.links.clone() }.encode();
    let block = Block::new_v0(forged.into()).unwrap();
    let cid = block.cid;
    let child = node.links[2].cid;
    store.put(block);
    let expected = ExportError::WrongSize { cid: Box::new(child), expected: 99, found: 100 };
    assert_eq!(store.read(cid, 0..u64::MAX), Err(expected));
}

#[test]
fn what_is_no_file_is_not_read_as_one() {
    let mut store = Store::default();
    let (root, file) = small_tree(&mut store);
    assert!(matches!(store.read(root, 0..1), Err(ExportError::NotAFile { .. })));
    assert!(matches!(store.list(file.cid), Err(ExportError::NotADirectory { .. })));
    let cbor = Cid::new_v1(codec::DAG_CBOR, *root.hash());
    let mut reader = FileReader::new(cbor, 0..1);
    assert!(matches!(reader.give(&cbor, &Bytes::from_static(b"\xa0")), Err(ExportError::Codec { .. })));
    assert!(matches!(reader.give(&root, &Bytes::new()), Err(ExportError::Unwanted { .. })));
}

#[test]
fn mode_and_time_come_back() {
    let stat = Stat { mode: Some(0o640), mtime: Some(Mtime { seconds: 1_700_000_000, nanos: 5 }) };
    let mut store = Store::default();
    for length in [0, 10, 1000] {
        let options = FileOptions { stat, chunker: "size-100".parse().unwrap(), ..FileOptions::default() };
        let root = store.file(&vec![1; length], &options);
        let mut reader = FileReader::new(root.cid, 0..0);
        reader.give(&root.cid, &store.0[&root.cid]).unwrap();
        assert_eq!((reader.stat(), reader.size()), (stat, Some(length as u64)));
    }
    let mut tree = TreeAssembler::new(DirectoryOptions::default(), false).unwrap();
    tree.add_directory(b"d", stat).unwrap();
    let root = tree.finish(&mut |block| store.put(block)).unwrap().roots[0];
    let mut reader = DirectoryReader::new(root);
    reader.give(&root, &store.0[&root]).unwrap();
    assert_eq!(reader.stat(), stat);
}

#[test]
fn a_tree_goes_through_a_car() {
    let mut store = Store::default();
    let (root, _) = small_tree(&mut store);
    let mut stream = car::header(&[root]);
    for cid in store.walk(root) {
        for part in car::section(&Block { cid, data: store.0[&cid].clone() }) {
            stream.extend_from_slice(&part);
        }
    }
    let mut reader = CarReader::new();
    let mut copy = Store::default();
    for portion in stream.chunks(64) {
        reader.push(portion);
        while let Some(item) = reader.next_item().unwrap() {
            match item {
                CarItem::Header(header) => assert_eq!(header.roots, [root]),
                CarItem::Block(block) => copy.put(block),
            }
        }
    }
    reader.finish().unwrap();
    assert_eq!(copy.0.len(), store.walk(root).len());
    assert_eq!(copy.walk(root), store.walk(root));
}
