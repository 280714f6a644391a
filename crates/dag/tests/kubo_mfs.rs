//! Known answers: the trees of `ipfs files` (Kubo 0.42.0, each command by itself and flushed) against ours (`kubo-mfs.tsv`).
//!
//! `case`: name, profile of the repository (see [`Kubo::new`]). `op`: what was done and the CID of `/c` after it, or `error`. Bytes come from the stream of kubo.rs: a
//! `write` has path, offset, where in the stream, how many, flags.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use bytes::Bytes;
use common::{STREAM, Store};
use dag::edit::EditError;
use dag::import::{DirectoryOptions, FileOptions, Layout, Profile, SizeEstimate, TreeAssembler, import_bytes};
use dag::mfs::{self, MfsOptions, Op, Path};
use dag::unixfs::{Mtime, Stat};
use types::Cid;

struct Kubo {
    store: Store,
    root: Cid,
    options: MfsOptions,
    file: FileOptions,
}

impl Kubo {
    /// A repository of a profile; those called `small` were configured by hand: directories become tries above 600 bytes.
    fn new(name: &str) -> Kubo {
        let mut options = MfsOptions::default();
        let mut file = FileOptions::default();
        if let Ok(profile) = name.parse::<Profile>() {
            file = profile.file_options();
            options.directory = profile.directory_options();
            options.file.chunker = file.chunker;
            options.file.raw_leaves = Some(file.raw_leaves);
        }
        if name.starts_with("small") {
            options.directory.sharding_size = 600;
        }
        if name == "small-block" {
            file = FileOptions::v1();
            options.file.raw_leaves = Some(true);
            options.directory = DirectoryOptions { size_estimate: SizeEstimate::Block, ..options.directory.with_form(file.form()) };
        }
        let mut store = Store::default();
        let empty = mfs::empty(&options.directory).unwrap();
        let root = store.take(empty);
        Kubo { store, root, options, file }
    }

    /// The options of one command: those of the repository and the flags.
    fn options(&self, flags: &str) -> MfsOptions {
        let mut options = self.options.clone();
        for flag in flags.split_whitespace() {
            match flag {
                "--raw-leaves" => options.file.raw_leaves = Some(true),
                "--raw-leaves=false" => options.file.raw_leaves = Some(false),
                "--cid-version=1" => {
                    options.directory.cid_version = cid::Version::V1;
                }
                _ => {}
            }
        }
        options
    }

    fn import(&mut self, data: Bytes, flags: &str) -> Cid {
        let mut options = self.file.clone();
        for flag in flags.split_whitespace() {
            match flag.split_once('=').unwrap_or((flag, "")) {
                ("--cid-version", _) => (options.cid_version, options.raw_leaves) = (cid::Version::V1, true),
                ("--raw-leaves", _) => options.raw_leaves = true,
                ("--trickle", _) => options.layout = Layout::Trickle,
                ("--chunker", chunker) => options.chunker = chunker.parse().unwrap(),
                ("--max-file-links", width) => options.width = width.parse().unwrap(),
                other => panic!("{other:?}"),
            }
        }
        import_bytes(data, options, &mut |block| self.store.put(block)).unwrap().cid
    }

    fn import_many(&mut self, count: usize, prefix: &str, flags: &str) -> Cid {
        let mut options = self.file.clone();
        if flags == "--cid-version=1" {
            (options.cid_version, options.raw_leaves) = (cid::Version::V1, true);
        }
        let directory = self.options("").directory.with_form(options.form());
        let mut tree = TreeAssembler::new(directory, false).unwrap();
        for n in 0..count {
            let root = import_bytes(n.to_string().into(), options.clone(), &mut |block| self.store.put(block)).unwrap();
            tree.add(format!("tree/{prefix}{n:05}").as_bytes(), &root).unwrap();
        }
        tree.finish(&mut |block| self.store.put(block)).unwrap().roots[0]
    }

    fn run(&mut self, words: &[&str]) -> Result<(), EditError> {
        let path = |text: &str| Path::new(text.as_bytes());
        let has = |flags: &str, flag: &str| flags.split_whitespace().any(|found| found == flag);
        let put = |path, cid| Op::Put { path, cid, dag_size: None, parents: false, replace: false };
        let mut all_flags = "";
        let op = match *words {
            ["mkdir", at, flags] => {
                all_flags = flags;
                Op::Mkdir { path: path(at)?, parents: has(flags, "-p"), stat: Stat::default() }
            }
            ["many", at, count, prefix, flags] => put(path(at)?, self.import_many(count.parse().unwrap(), prefix, flags)),
            ["put", at, content] => put(path(at)?, self.import(Bytes::copy_from_slice(content.as_bytes()), "")),
            ["add", at, length, flags] => put(path(at)?, self.import(STREAM.slice(..length.parse::<usize>().unwrap()), flags)),
            ["cp", from, to, flags] => {
                Op::Copy { from: path(from)?, to: path(to)?, parents: has(flags, "-p"), replace: has(flags, "--force") }
            }
            ["mv", from, to] => Op::Move { from: path(from)?, to: path(to)? },
            ["rm", at, flags] => Op::Remove { path: path(at)?, recursive: has(flags, "-r"), force: has(flags, "--force") },
            ["chmod", at, mode] => {
                let mode = u32::from_str_radix(mode, 8).unwrap();
                Op::SetStat { path: path(at)?, stat: Stat { mode: Some(mode), mtime: None } }
            }
            ["touch", at, seconds] => {
                let mtime = Mtime { seconds: seconds.parse().unwrap(), nanos: 0 };
                Op::SetStat { path: path(at)?, stat: Stat { mode: None, mtime: Some(mtime) } }
            }
            ["write", at, offset, from, length, flags] => {
                all_flags = flags;
                let from: usize = from.parse().unwrap();
                let data = STREAM.slice(from..from + length.parse::<usize>().unwrap());
                let (create, truncate, parents) = (has(flags, "--create"), has(flags, "--truncate"), has(flags, "-p"));
                Op::Write { path: path(at)?, offset: offset.parse().unwrap(), data, create, truncate, parents }
            }
            _ => panic!("{words:?}"),
        };
        let edited = self.store.run(mfs::edit(self.root, vec![op], self.options(all_flags)))?;
        self.root = self.store.take(edited);
        Ok(())
    }

    fn hash(&mut self) -> String {
        let status = self.store.run(mfs::stat(self.root, Path::new(b"/c").unwrap())).unwrap();
        status.cid.to_string()
    }
}

#[test]
fn trees_are_those_of_kubo() {
    let mut wrong = Vec::new();
    let mut kubo = Kubo::new("");
    let mut name = "";
    let mut is_off = false;
    for line in include_str!("kubo-mfs.tsv").lines() {
        let words: Vec<&str> = line.split('\t').collect();
        match words[..] {
            ["case", case, profile] => {
                (name, is_off) = (case, false);
                kubo = Kubo::new(profile);
            }
            ["op", ref op @ .., expected] => {
                let found = match kubo.run(op) {
                    Ok(()) => kubo.hash(),
                    Err(EditError::Read(error)) => panic!("{name}: {op:?}: {error:?}"),
                    Err(_) => "error".to_owned(),
                };
                if found != expected && !is_off {
                    // What follows in this case is another tree.
                    is_off = true;
                    wrong.push(format!("{name}: {op:?}: {found}, Kubo {expected}"));
                }
            }
            _ => panic!("{line}"),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
