//! Known answers: the importer's CIDs against those of a real Kubo (`kubo-cids.tsv`).
//!
//! Files are the first N bytes of a xorshift64 stream: x starts at 0x9E3779B97F4A7C15; each step x ^= x << 13, x ^= x >> 7, x ^= x << 17, then the
//! eight bytes of x, little-endian. Directories are built by [`entries`].

#![expect(clippy::unwrap_used, reason = "tests")]

use bytes::Bytes;
use dag::chunk::Cutter;
use dag::hamt::Shape;
use dag::import::{
    Child, DirectoryOptions, FileBuilder, FileOptions, FileRoot, Layout, Profile, TreeAssembler, TreeBuilder, import_bytes, leaf,
    sole_leaf, symlink,
};
use dag::unixfs::{Mtime, Stat};
use dag::walk::Walker;
use dag::{Block, HashFn, car, verify};
use std::collections::BTreeMap;
use std::sync::LazyLock;
use types::Depth;

static STREAM: LazyLock<Bytes> = LazyLock::new(|| xorshift(47_185_920));

fn xorshift(length: usize) -> Bytes {
    let mut x = 0x9E37_79B9_7F4A_7C15u64;
    let mut out = Vec::with_capacity(length + 8);
    while out.len() < length {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        out.extend_from_slice(&x.to_le_bytes());
    }
    out.truncate(length);
    Bytes::from(out)
}

struct Case<'a> {
    input: &'a str,
    arguments: &'a str,
    cid: &'a str,
}

fn cases(kind: &str) -> Vec<Case<'static>> {
    let lines = include_str!("kubo-cids.tsv").lines().filter(|line| !line.starts_with('#'));
    let case = |line: &'static str| {
        let [found, input, arguments, cid] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
        (found == kind).then_some(Case { input, arguments, cid })
    };
    lines.filter_map(case).collect()
}

/// Kubo's command line as options.
struct Arguments {
    file: FileOptions,
    directory: DirectoryOptions,
    wraps: bool,
}

/// Reads a command line; `--profile` stands for a repository made with it.
fn options(arguments: &str) -> Arguments {
    let profile = arguments.split_whitespace().find_map(|argument| argument.strip_prefix("--profile="));
    let profile = profile.map(|name| name.parse::<Profile>().unwrap());
    let mut options = profile.map_or_else(FileOptions::default, Profile::file_options);
    let mut directory = profile.map_or_else(DirectoryOptions::default, Profile::directory_options);
    let (mut raw_leaves, mut wraps, mut nanos) = (None, false, 0);
    let (mut is_inline, mut inline_limit) = (false, 32);
    for argument in arguments.split_whitespace() {
        match argument.split_once('=').unwrap_or((argument, "")) {
            ("--cid-version", "1") => options.cid_version = cid::Version::V1,
            ("--raw-leaves", value) => raw_leaves = Some(value != "false"),
            ("--chunker", value) => options.chunker = value.parse().unwrap(),
            ("--hash", value) => options.hash = HashFn::from_name(value).unwrap(),
            ("--trickle", "") => options.layout = Layout::Trickle,
            ("--mode", value) => options.stat.mode = Some(u32::from_str_radix(value, 8).unwrap()),
            ("--mtime", value) => options.stat.mtime = Some(Mtime { seconds: value.parse().unwrap(), nanos: 0 }),
            ("--mtime-nsecs", value) => nanos = value.parse().unwrap(),
            ("-w", "") => wraps = true,
            ("--profile", _) => {}
            ("--inline", "") => is_inline = true,
            ("--inline-limit", value) => inline_limit = value.parse().unwrap(),
            ("--max-file-links", value) => options.width = value.parse().unwrap(),
            ("--max-directory-links", value) => directory.links_max = value.parse().unwrap(),
            ("--max-hamt-fanout", value) => directory.shape = Shape::of_width(value.parse().unwrap()).unwrap(),
            other => panic!("{other:?}"),
        }
    }
    if let Some(mtime) = &mut options.stat.mtime {
        mtime.nanos = nanos;
    }
    options.inline_limit = if is_inline { inline_limit } else { 0 };
    let is_v1 = options.cid_version == cid::Version::V1;
    options.raw_leaves = raw_leaves.unwrap_or(is_v1 && options.stat.is_empty());
    Arguments { directory: directory.with_form(options.form()), file: options, wraps }
}

fn verified(block: &Block) {
    verify(&block.cid, &block.data).unwrap();
}

/// In uneven portions, as a network would bring them.
fn import_stream(data: &[u8], options: &FileOptions) -> FileRoot {
    let mut file = FileBuilder::new(options.clone()).unwrap();
    for (index, portion) in data.chunks(98_765).enumerate() {
        if index % 2 == 0 {
            file.push_slice(portion, &mut |_| ()).unwrap();
        } else {
            file.push(Bytes::copy_from_slice(portion), &mut |_| ()).unwrap();
        }
    }
    file.finish(&mut |_| ()).unwrap()
}

/// The way of several cores: cut first, hash apart, build last.
fn import_split(data: Bytes, options: &FileOptions) -> FileRoot {
    let mut cutter = Cutter::new(options.chunker);
    cutter.push(data);
    let mut chunks: Vec<Bytes> = std::iter::from_fn(|| cutter.cut()).collect();
    chunks.extend(std::iter::from_fn(|| cutter.finish()));
    let make = if chunks.len() == 1 { sole_leaf } else { leaf };
    let children: Vec<Child> = chunks.into_iter().rev().map(|chunk| make(chunk, options).unwrap().child()).collect();
    let mut tree = TreeBuilder::new(options.clone()).unwrap();
    for child in children.into_iter().rev() {
        tree.push_leaf(child, &mut |_| ()).unwrap();
    }
    tree.finish(&mut |_| ()).unwrap()
}

#[test]
fn files_have_the_cids_of_kubo() {
    let mut wrong = Vec::new();
    for case in cases("file") {
        let Arguments { file: options, wraps, .. } = options(case.arguments);
        let length: usize = case.input.parse().unwrap();
        let data = STREAM.slice(..length);
        let is_small = length < 2_000_000;
        let root = import_bytes(data.clone(), options.clone(), &mut |block| {
            if is_small {
                verified(&block);
            }
        })
        .unwrap();
        assert_eq!(root.size, length as u64);
        if is_small {
            assert_eq!(import_stream(&data, &options), root, "{} {}", case.input, case.arguments);
            assert_eq!(import_split(data, &options), root, "{} {}", case.input, case.arguments);
        }
        let cid = if wraps { wrap(&root, &options) } else { root.cid };
        if cid.to_string() != case.cid {
            wrong.push(format!("{} {}: {cid}, Kubo {}", case.input, case.arguments, case.cid));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn wrap(root: &FileRoot, options: &FileOptions) -> cid::Cid {
    let mut tree = TreeAssembler::new(DirectoryOptions::from(options), true).unwrap();
    tree.add(b"in.bin", root).unwrap();
    tree.finish(&mut verified_block).unwrap().roots[0]
}

fn verified_block(block: Block) {
    verified(&block);
}

enum Entry {
    File(Vec<u8>),
    Symlink(&'static str),
    Directory,
}

/// The directories of the table: path and content of each entry.
fn entries(input: &str) -> Vec<(Vec<u8>, Entry)> {
    let file = |path: &[u8], content: &[u8]| (path.to_vec(), Entry::File(content.to_vec()));
    let many =
        |count: usize, prefix: &str| (0..count).map(|n| file(format!("{prefix}{n:05}").as_bytes(), n.to_string().as_bytes())).collect();
    match input.split(' ').collect::<Vec<_>>()[..] {
        ["empty"] => vec![],
        ["badutf8"] => vec![file(b"caf\xe9", b"latin"), file(b"plain", b"p")],
        ["mixed"] => vec![
            file(b"a.txt", b"alpha"),
            file(b"b c.txt", b"beta"),
            file(b".hidden", b"hidden"),
            file("\u{fc}n\u{ef}code-\u{540d}\u{524d}.bin".as_bytes(), b"name"),
            file(b"nested/deep/er/x", &STREAM[..300_000]),
            file(b"nested/y", b""),
            file(b"percent%20", b"p"),
            file(b"new\nline", b"n"),
            file(b"quo\"te'", b"q"),
            file(b"tab\t", b"t"),
            file(b"Zed", b"z"),
            file(b"nested.txt", b"after"),
            file(b"back\\slash", b"b"),
            (b"empty".to_vec(), Entry::Directory),
            (b"link".to_vec(), Entry::Symlink("a.txt")),
            (b"nested/dangling".to_vec(), Entry::Symlink("../nowhere")),
        ],
        ["many", count, format] => many(count.parse().unwrap(), format.strip_suffix("%05d").unwrap()),
        ["hamtmixed"] => {
            let mut entries: Vec<_> = many(6000, "entry-");
            entries.push(file(b"sub/inner", b"inner"));
            entries.push((b"void".to_vec(), Entry::Directory));
            entries.push((b"link".to_vec(), Entry::Symlink("entry-00001")));
            entries
        }
        ["hamtnested"] => {
            let mut entries: Vec<_> = many(6000, "big/entry-");
            entries.push(file(b"small", b"s"));
            entries
        }
        _ => panic!("{input}"),
    }
}

#[test]
fn directories_have_the_cids_of_kubo() {
    let mut wrong = Vec::new();
    for case in cases("dir") {
        let Arguments { file: options, directory, wraps } = options(case.arguments);
        let mut tree = TreeAssembler::new(directory, wraps).unwrap();
        tree.add_directory(b"tree", Stat::default()).unwrap();
        for (path, entry) in entries(case.input) {
            let path = [b"tree/", &path[..]].concat();
            match entry {
                Entry::File(content) => tree.add(&path, &import_bytes(content.into(), options.clone(), &mut |_| ()).unwrap()).unwrap(),
                Entry::Symlink(target) => tree.add(&path, &symlink(target.as_bytes(), &options).unwrap().1).unwrap(),
                Entry::Directory => tree.add_directory(&path, Stat::default()).unwrap(),
            }
        }
        let assembled = tree.finish(&mut verified_block).unwrap();
        let cid = assembled.roots[0];
        assert_eq!(assembled.directories.last().map(|directory| directory.cid), Some(cid));
        if cid.to_string() != case.cid {
            wrong.push(format!("{} {}: {cid}, Kubo {}", case.input, case.arguments, case.cid));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn identity_holds_only_little() {
    let options = FileOptions { hash: HashFn::IDENTITY, ..FileOptions::v1() };
    assert!(import_bytes(STREAM.slice(..65), options, &mut |_| ()).is_err());
    let v0 = FileOptions { hash: HashFn::BLAKE3, ..FileOptions::default() };
    assert_eq!(FileBuilder::new(v0).err().map(|error| error.to_string()).as_deref(), Some("invalid cid: invalid v0 prefix"));
}

/// `ipfs dag export` of a directory with the one file `a.txt` (`alpha`).
const CAR: &str = concat!(
    "38a265726f6f747381d82a5823001220a55e60ca981c0588f28297d7b851cb9c06ec622dbc155a6131712b3fc2394c246776657273696f6e0155",
    "1220a55e60ca981c0588f28297d7b851cb9c06ec622dbc155a6131712b3fc2394c24122d0a221220fa026ef0a683cdaa27ccbd75c92140c22999",
    "078555f62c01622118e10a504e261205612e747874180d0a0208012f1220fa026ef0a683cdaa27ccbd75c92140c22999078555f62c01622118e1",
    "0a504e260a0b08021205616c7068611805",
);

#[test]
fn a_walk_written_as_car_equals_the_export_of_kubo() {
    let mut store = BTreeMap::new();
    let mut put = |block: Block| drop(store.insert(block.cid, block.data));
    let file = import_bytes(Bytes::from_static(b"alpha"), FileOptions::default(), &mut put).unwrap();
    let mut tree = TreeAssembler::new(DirectoryOptions::default(), true).unwrap();
    tree.add(b"a.txt", &file).unwrap();
    let root = tree.finish(&mut put).unwrap().roots[0];
    let mut stream = car::header(&[root]);
    let mut walker = Walker::new(root, Depth::Recursive).with_window(1);
    while let Some(cid) = walker.next_wanted().pop() {
        let data = store[&cid].clone();
        walker.give(&cid, &data).unwrap();
        car::section(&Block { cid, data }).iter().for_each(|part| stream.extend_from_slice(part));
    }
    assert_eq!(hex::encode(&stream), CAR);
}

/// The directories in the lines of `ipfs add -r` for 6,000 files `entry-%05d` (`x`), `s2/in/f` and empty directories.
#[test]
fn directories_are_reported_in_the_order_of_kubo() {
    let mut tree = TreeAssembler::new(DirectoryOptions::default(), false).unwrap();
    let file = |text: &'static str| import_bytes(Bytes::from_static(text.as_bytes()), FileOptions::default(), &mut |_| ()).unwrap();
    for n in 0..6000 {
        tree.add(format!("ot/entry-{n:05}").as_bytes(), &file("x")).unwrap();
    }
    for n in 0..6 {
        tree.add_directory(format!("ot/s{n}/in").as_bytes(), Stat::default()).unwrap();
    }
    tree.add_directory(b"ot/s3/in/deep", Stat::default()).unwrap();
    tree.add(b"ot/s2/in/f", &file("y")).unwrap();
    let assembled = tree.finish(&mut verified_block).unwrap();
    let paths: Vec<String> = assembled.directories.iter().map(|directory| String::from_utf8_lossy(&directory.path).into_owned()).collect();
    let expected = "s5/in s5 s4/in s4 s0/in s0 s1/in s1 s3/in/deep s3/in s3 s2/in s2".split(' ').map(|path| format!("ot/{path}"));
    assert!(paths.iter().cloned().eq(expected.chain(["ot".to_owned()])), "{paths:?}");
    assert_eq!(assembled.roots[0].to_string(), "QmR27UCSQpSUT1moYckMuWtRaNtZCjkwxLCPMmEETov7WD");
}
