//! The tree that can be changed, against maps in memory.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use bytes::Bytes;
use common::Store;
use dag::edit::directory::{self, Change};
use dag::edit::file::{self, FileChange, FileEditOptions};
use dag::export::{DirectoryReader, Entry, ListStep};
use dag::import::{CidForm, DirectoryBuilder, DirectoryOptions, FileOptions, Layout, SizeEstimate, import_bytes};
use dag::mfs::{self, MfsOptions, Op, Path};
use dag::unixfs::{Kind, Mtime, Stat};
use dag::{Block, HashFn, codec};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;
use types::Cid;

fn list(store: &Store, root: &Cid) -> BTreeMap<Vec<u8>, (Cid, u64)> {
    let mut reader = DirectoryReader::new(*root);
    let mut entries = BTreeMap::new();
    loop {
        match reader.step().unwrap() {
            ListStep::Need(cid) => reader.give(&cid, &store.blocks[&cid]).unwrap(),
            ListStep::Entry(entry) => assert!(entries.insert(entry.name, (entry.cid, entry.tsize)).is_none()),
            ListStep::Done => return entries,
        }
    }
}

/// What a path holds: bytes, or a directory.
type Model = BTreeMap<String, Option<Vec<u8>>>;

fn dump(store: &Store, root: &Cid, at: &str, out: &mut Model) {
    for (name, (cid, tsize)) in list(store, root) {
        let path = format!("{at}/{}", String::from_utf8(name).unwrap());
        let is_directory = cid.codec() == codec::DAG_PB && dag::export::file_size(&cid, &store.blocks[&cid]).is_none();
        assert!(tsize >= store.blocks[&cid].len() as u64);
        if is_directory {
            out.insert(path.clone(), None);
            dump(store, &cid, &path, out);
        } else {
            out.insert(path, Some(store.read(&cid)));
        }
    }
}

fn is_directory(model: &Model, path: &str) -> bool {
    path.is_empty() || model.get(path) == Some(&None)
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn take_tree(model: &mut Model, path: &str) -> Model {
    let below = format!("{path}/");
    let (taken, kept) = std::mem::take(model).into_iter().partition(|(at, _)| at == path || at.starts_with(&below));
    *model = kept;
    taken
}

fn put_tree(model: &mut Model, tree: Model, from: &str, to: &str) {
    model.extend(tree.into_iter().map(|(at, what)| (format!("{to}{}", &at[from.len()..]), what)));
}

/// Does to the model what `op` should do; `None` if it should be refused.
fn expect(model: &mut Model, op: &Op) -> Option<()> {
    match op {
        Op::Mkdir { path, parents, .. } => {
            let path = path.to_string();
            if !*parents {
                return (is_directory(model, parent(&path)) && !model.contains_key(&path)).then(|| drop(model.insert(path, None)));
            }
            make_parents(model, &format!("{path}/x"))
        }
        Op::Write { path, offset, data, create, truncate, parents } => {
            let path = path.to_string();
            let mut after = model.clone();
            if *parents {
                make_parents(&mut after, &path)?;
            }
            if !is_directory(&after, parent(&path)) {
                return None;
            }
            let mut content = match after.get(&path) {
                Some(None) => return None,
                Some(Some(content)) => content.clone(),
                None if *create => Vec::new(),
                None => return None,
            };
            if *truncate {
                content.clear();
            }
            let end = *offset as usize + data.len();
            content.resize(content.len().max(if data.is_empty() { *offset as usize } else { end }), 0);
            content[*offset as usize..end].copy_from_slice(data);
            after.insert(path, Some(content));
            *model = after;
            Some(())
        }
        Op::Truncate { path, size } => match model.get_mut(&path.to_string()) {
            Some(Some(content)) => {
                content.resize(*size as usize, 0);
                Some(())
            }
            _ => None,
        },
        Op::Remove { path, recursive, force } => {
            let path = path.to_string();
            match model.get(&path) {
                Some(None) if !recursive && !force => None,
                // A file on the way is an error even then.
                None if *force => has_no_file_above(model, &path).then_some(()),
                None => None,
                Some(_) => {
                    take_tree(model, &path);
                    Some(())
                }
            }
        }
        Op::Copy { from, to, replace, .. } => {
            let (from, to) = (from.to_string(), to.to_string());
            let tree = take_tree(&mut model.clone(), &from);
            let is_refused = tree.is_empty() || !is_directory(model, parent(&to)) || (model.contains_key(&to) && !replace);
            if is_refused {
                return None;
            }
            take_tree(model, &to);
            put_tree(model, tree, &from, &to);
            Some(())
        }
        Op::Move { from, to } => {
            let (from, mut to) = (from.to_string(), to.to_string());
            if !model.contains_key(&from) {
                return None;
            }
            if to == from {
                return Some(());
            }
            if is_directory(model, &to) {
                to = format!("{to}{}", &from[parent(&from).len()..]);
                if model.contains_key(&to) && to != from {
                    return None;
                }
            }
            if to == from || to.starts_with(&format!("{from}/")) || !is_directory(model, parent(&to)) {
                return None;
            }
            model.remove(&to);
            let tree = take_tree(model, &from);
            put_tree(model, tree, &from, &to);
            Some(())
        }
        Op::SetStat { path, .. } => model.contains_key(&path.to_string()).then_some(()),
        Op::Put { .. } => None,
    }
}

fn has_no_file_above(model: &Model, path: &str) -> bool {
    let mut above = parent(path);
    while !above.is_empty() {
        if matches!(model.get(above), Some(Some(_))) {
            return false;
        }
        above = parent(above);
    }
    true
}

fn make_parents(model: &mut Model, path: &str) -> Option<()> {
    let mut missing = Vec::new();
    let mut above = parent(path);
    while !above.is_empty() {
        match model.get(above) {
            Some(Some(_)) => return None,
            Some(None) => {}
            None => missing.push(above.to_owned()),
        }
        above = parent(above);
    }
    model.extend(missing.into_iter().map(|path| (path, None)));
    Some(())
}

fn a_path() -> impl Strategy<Value = Path> {
    let name = prop_oneof![Just("a".to_owned()), Just("b".to_owned()), (0..40u32).prop_map(|n| format!("file {n}"))];
    vec(name, 1..4).prop_map(|names| Path::new(format!("/{}", names.join("/")).as_bytes()).unwrap())
}

fn an_op() -> impl Strategy<Value = Op> {
    let write = (a_path(), 0..300u64, vec(any::<u8>(), 0..200), prop::bool::weighted(0.9), prop::bool::weighted(0.1), any::<bool>());
    prop_oneof![
        2 => (a_path(), any::<bool>()).prop_map(|(path, parents)| Op::Mkdir { path, parents, stat: Stat::default() }),
        8 => write.prop_map(|(path, offset, data, create, truncate, parents)| {
            Op::Write { path, offset, data: data.into(), create, truncate, parents }
        }),
        2 => (a_path(), 0..500u64).prop_map(|(path, size)| Op::Truncate { path, size }),
        2 => (a_path(), any::<bool>(), any::<bool>()).prop_map(|(path, recursive, force)| Op::Remove { path, recursive, force }),
        2 => (a_path(), a_path(), any::<bool>()).prop_map(|(from, to, replace)| Op::Copy { from, to, parents: false, replace }),
        3 => (a_path(), a_path()).prop_map(|(from, to)| Op::Move { from, to }),
        1 => (a_path(), 0..0o1000u32, 1..9i64).prop_map(|(path, mode, seconds)| {
            Op::SetStat { path, stat: Stat { mode: Some(mode), mtime: Some(Mtime { seconds, nanos: 0 }) } }
        }),
    ]
}

fn options(sharding_size: usize, estimate: u8, raw_leaves: bool, inline_limit: usize) -> MfsOptions {
    let size_estimate = [SizeEstimate::Links, SizeEstimate::Block, SizeEstimate::Disabled][usize::from(estimate % 3)];
    let links_max = if estimate.is_multiple_of(2) { 0 } else { 5 };
    let directory = DirectoryOptions { sharding_size, size_estimate, links_max, ..DirectoryOptions::default() };
    let form = CidForm { version: cid::Version::V1, inline_limit, ..directory.form() };
    let now = Some(Mtime { seconds: 77, nanos: 0 });
    let file = FileEditOptions { chunker: "size-20".parse().unwrap(), raw_leaves: Some(raw_leaves), width: 3, now };
    MfsOptions { directory: if raw_leaves { directory.with_form(form) } else { directory }, file_form: None, file }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    #[test]
    fn a_tree_is_what_a_map_says(ops in vec(an_op(), 1..40), sharding in prop_oneof![Just(0usize), Just(100), Just(500)], estimate in 0u8..4, raw in any::<bool>(), batch in 1usize..4) {
        let options = options(sharding, estimate, raw, 0);
        let mut store = Store::default();
        let mut root = store.take(mfs::empty(&options.directory).unwrap());
        let mut model = Model::new();
        for ops in ops.chunks(batch) {
            let mut after = model.clone();
            let is_allowed = ops.iter().all(|op| expect(&mut after, op).is_some());
            let found = store.run(mfs::edit(root, ops.to_vec(), options.clone()));
            prop_assert_eq!(found.is_ok(), is_allowed, "{:?} {:?}", ops, found.err());
            if let Ok(edited) = found {
                root = store.take(edited);
                model = after;
            }
            let mut found = Model::new();
            dump(&store, &root, "", &mut found);
            prop_assert_eq!(&found, &model, "{:?}", ops);
        }
    }

    #[test]
    fn a_file_is_what_an_array_says(
        first in 0..2000usize,
        width in 2..5usize,
        trickle in any::<bool>(),
        raw in any::<bool>(),
        changes in vec(prop_oneof![
            (0..4000u64, vec(any::<u8>(), 0..300)).prop_map(|(offset, data)| FileChange::Write { offset, data: data.into() }),
            (0..30_000u64).prop_map(FileChange::Truncate),
        ], 1..12),
    ) {
        let mut store = Store::default();
        let layout = if trickle { Layout::Trickle } else { Layout::Balanced };
        let import = FileOptions { chunker: "size-50".parse().unwrap(), layout, width, raw_leaves: raw, ..FileOptions::default() };
        let mut content: Vec<u8> = (0..first).map(|n| n as u8).collect();
        let mut root = import_bytes(content.clone().into(), import, &mut |block| store.put(block)).unwrap().cid;
        let options = FileEditOptions { chunker: "size-40".parse().unwrap(), width: 3, ..FileEditOptions::default() };
        for change in changes {
            match &change {
                FileChange::Truncate(size) => content.resize(*size as usize, 0),
                FileChange::Write { offset, data } => {
                    let end = *offset as usize + data.len();
                    content.resize(content.len().max(end), 0);
                    content[*offset as usize..end].copy_from_slice(data);
                }
            }
            let edited = store.run(file::edit(root, change, options.clone())).unwrap();
            root = store.take(edited);
            prop_assert!(store.read(&root) == content);
        }
    }

    /// With a threshold of 1 byte a directory is a trie whenever it has entries, so it must equal the one built at once.
    #[test]
    fn a_changed_trie_equals_one_built_at_once(names in vec((0u16..300, prop::bool::weighted(0.6)), 1..200), batch in 1usize..50, width in prop_oneof![Just(8u64), Just(16), Just(256)]) {
        let options = DirectoryOptions { sharding_size: 1, shape: dag::hamt::Shape::of_width(width).unwrap(), ..DirectoryOptions::default() };
        let mut store = Store::default();
        let mut root = store.take(mfs::empty(&options).unwrap());
        let mut model = BTreeMap::new();
        for changes in names.chunks(batch) {
            let mut wanted = Vec::new();
            for (n, is_put) in changes {
                let name = format!("name {n}").into_bytes();
                if *is_put {
                    let block = Block::new(codec::RAW, HashFn::SHA2_256, Bytes::from(name.clone())).unwrap();
                    model.insert(name.clone(), (block.cid, u64::from(*n)));
                    wanted.push(Change::Put(Entry { name, cid: block.cid, tsize: u64::from(*n) }));
                    store.put(block);
                } else if model.remove(&name).is_some() {
                    wanted.push(Change::Remove(name));
                }
            }
            let edited = store.run(directory::edit(root, wanted, options.clone())).unwrap();
            root = store.take(edited.clone());
            prop_assert_eq!(&list(&store, &root), &model);
            if !model.is_empty() {
                let mut builder = DirectoryBuilder::new(options.clone()).unwrap();
                for (name, (cid, tsize)) in &model {
                    builder.add(name, cid, *tsize).unwrap();
                }
                let built = builder.finish(&mut |_| ()).unwrap();
                prop_assert_eq!((built.cid, built.dag_size), (root, edited.dag_size));
            }
            for n in 0..300 {
                let name = format!("name {n}").into_bytes();
                if n % 37 == 0 {
                    let found = store.run(directory::find(root, name.clone())).unwrap();
                    prop_assert_eq!(found.map(|entry| (entry.cid, entry.tsize)), model.get(&name).copied());
                }
            }
        }
    }

    #[test]
    fn noise_instead_of_blocks_never_panics(noise in vec(vec(any::<u8>(), 0..60), 1..6), op in an_op()) {
        let blocks: Vec<Bytes> = noise.into_iter().map(Bytes::from).collect();
        let root = Block::new(codec::DAG_PB, HashFn::SHA2_256, blocks[0].clone()).unwrap().cid;
        let mut steps = mfs::edit(root, vec![op], MfsOptions::default());
        for block in blocks.iter().cycle().take(50) {
            match steps.step() {
                Ok(mfs_step) => {
                    let dag::edit::Step::Need(cid) = mfs_step else { break };
                    if steps.give(&cid, block.clone()).is_err() {
                        break;
                    }
                }
                Err(_) => break,
            }
        }
    }
}

#[test]
fn only_the_shards_on_the_way_are_read_and_written() {
    let options = DirectoryOptions::default();
    let mut store = Store::default();
    let block = Block::new(codec::RAW, HashFn::SHA2_256, Bytes::from_static(b"leaf")).unwrap();
    let leaf = block.cid;
    store.put(block);
    let mut builder = DirectoryBuilder::new(options.clone()).unwrap();
    for n in 0..60_000 {
        builder.add(format!("entry {n}").as_bytes(), &leaf, 4).unwrap();
    }
    let root = builder.finish(&mut |block| store.put(block)).unwrap();
    let put = Change::Put(Entry { name: b"new".to_vec(), cid: leaf, tsize: 4 });
    let edited = store.run(directory::edit(root.cid, vec![put], options.clone())).unwrap();
    assert!(store.asked <= 3 && edited.blocks.len() <= 4, "{} {}", store.asked, edited.blocks.len());
    let after = store.take(edited);
    store.asked = 0;
    let edited = store.run(directory::edit(after, vec![Change::Remove(b"new".to_vec())], options)).unwrap();
    assert_eq!((edited.root, edited.dag_size), (root.cid, root.dag_size));
    // To know that it is still large takes some 4,000 entries.
    assert!(store.asked < 70, "{}", store.asked);
}

#[test]
fn a_long_file_of_zeros_is_made_at_once() {
    let mut store = Store::default();
    let empty = import_bytes(Bytes::new(), FileOptions::v1(), &mut |block| store.put(block)).unwrap().cid;
    let size = 1 << 62;
    let edited = store.run(file::edit(empty, FileChange::Truncate(size), FileEditOptions::default())).unwrap();
    assert!(edited.blocks.len() < 3000, "{}", edited.blocks.len());
    let root = store.take(edited);
    assert_eq!(dag::export::file_size(&root, &store.blocks[&root]), Some(size));
    let write = FileChange::Write { offset: size - 3, data: Bytes::from_static(b"end") };
    let edited = store.run(file::edit(root, write, FileEditOptions::default())).unwrap();
    assert!(edited.blocks.len() < 50);
    let too_long = FileChange::Truncate(u64::MAX);
    assert!(store.run(file::edit(root, too_long, FileEditOptions::default())).is_err());
}

#[test]
fn small_trees_live_inside_their_cids() {
    let mut options = options(500, 0, true, 40);
    options.file.chunker = "size-1000".parse().unwrap();
    let mut store = Store::default();
    let mut root = store.take(mfs::empty(&options.directory).unwrap());
    let path = |text: &str| Path::new(text.as_bytes()).unwrap();
    for text in ["tiny", "and so long that no CID has room for it, whatever the limit says"] {
        let write = Op::Write { path: path("/f"), offset: 0, data: text.into(), create: true, truncate: false, parents: false };
        let edited = store.run(mfs::edit(root, vec![write], options.clone())).unwrap();
        assert_eq!(edited.blocks.is_empty(), text == "tiny");
        root = store.take(edited);
        let status = store.run(mfs::stat(root, path("/f"))).unwrap();
        assert_eq!(status.kind, if text == "tiny" { Kind::Raw } else { Kind::File });
        assert_eq!(store.read(&status.cid), text.as_bytes());
    }
}
