//! Trees as tar and zip archives, taken apart again by small readers of their own.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use bytes::Bytes;
use common::{STREAM, Store};
use dag::export::{ArchiveStep, ExportError, TarWriter, ZipWriter};
use dag::import::{DirectoryBuilder, DirectoryOptions, FileOptions, TreeAssembler, import_bytes, symlink};
use dag::unixfs::{Mtime, Stat};
use std::collections::BTreeMap;
use types::Cid;

/// Kind, content or target, mode, seconds.
type Entry = (u8, Vec<u8>, u32, i64);

const LONG: &str = "a directory with quite a long name that alone takes most of what the old header has room for, and more";

fn tree(store: &mut Store) -> (Cid, BTreeMap<Vec<u8>, Entry>) {
    let mut tree = TreeAssembler::new(DirectoryOptions::default(), false).unwrap();
    let mut expected = BTreeMap::new();
    expected.insert(b"top/".to_vec(), (b'5', vec![], 0o755, 7));
    let mut add = |path: &[u8], content: &[u8], stat: Stat| {
        let options = FileOptions { chunker: "size-1000".parse().unwrap(), stat, ..FileOptions::default() };
        let root = import_bytes(Bytes::copy_from_slice(content), options, &mut |block| store.put(block)).unwrap();
        let full = [b"top/", path].concat();
        tree.add(&full, &root).unwrap();
        let parents = full.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| full[..=at].to_vec());
        for parent in parents {
            expected.insert(parent, (b'5', vec![], 0o755, 7));
        }
        let seconds = stat.mtime.map_or(7, |mtime| mtime.seconds);
        expected.insert(full, (b'0', content.to_vec(), stat.mode.unwrap_or(0o644), seconds));
    };
    add(b"empty", b"", Stat::default());
    add(b"a/b/c", &STREAM[..5000], Stat { mode: Some(0o4711), mtime: Some(Mtime { seconds: 1_700_000_001, nanos: 0 }) });
    add(b"block", &STREAM[..512], Stat { mode: None, mtime: Some(Mtime { seconds: 1, nanos: 500_000_000 }) });
    add(format!("{LONG}/{LONG}/file").as_bytes(), b"far", Stat::default());
    add(format!("{LONG}/{LONG}").replace("and", "or").as_bytes(), b"far", Stat::default());
    add("\u{fc}n\u{ef}code".as_bytes(), b"u", Stat::default());
    add(b"latin \xe9", b"l", Stat { mode: None, mtime: Some(Mtime { seconds: -100, nanos: 0 }) });
    for target in ["empty", &"far away/".repeat(30)] {
        let (block, root) = symlink(target.as_bytes(), &FileOptions::default()).unwrap();
        store.put(block);
        let path = format!("top/link {}", target.len());
        tree.add(path.as_bytes(), &root).unwrap();
        expected.insert(path.into_bytes(), (b'2', target.as_bytes().to_vec(), 0o777, 7));
    }
    let root = tree.finish(&mut |block| store.put(block)).unwrap().roots[0];
    (root, expected)
}

trait Writer {
    fn step(&mut self) -> Result<ArchiveStep, ExportError>;
    fn give(&mut self, cid: &Cid, data: &Bytes) -> Result<(), ExportError>;
}

impl Writer for TarWriter {
    fn step(&mut self) -> Result<ArchiveStep, ExportError> {
        TarWriter::step(self)
    }
    fn give(&mut self, cid: &Cid, data: &Bytes) -> Result<(), ExportError> {
        TarWriter::give(self, cid, data)
    }
}

impl Writer for ZipWriter {
    fn step(&mut self) -> Result<ArchiveStep, ExportError> {
        ZipWriter::step(self)
    }
    fn give(&mut self, cid: &Cid, data: &Bytes) -> Result<(), ExportError> {
        ZipWriter::give(self, cid, data)
    }
}

fn write(store: &Store, mut writer: impl Writer) -> Result<Vec<u8>, ExportError> {
    let mut out = Vec::new();
    loop {
        match writer.step()? {
            ArchiveStep::Need(cid) => writer.give(&cid, &store.blocks[&cid])?,
            ArchiveStep::Data(data) => out.extend_from_slice(&data),
            ArchiveStep::Done => return Ok(out),
        }
    }
}

fn octal(field: &[u8]) -> u64 {
    u64::from_str_radix(std::str::from_utf8(field).unwrap().trim_matches(['\0', ' ']), 8).unwrap()
}

fn text(field: &[u8]) -> Vec<u8> {
    field.iter().copied().take_while(|byte| *byte != 0).collect()
}

fn pax(mut records: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    while !records.is_empty() {
        let space = records.iter().position(|byte| *byte == b' ').unwrap();
        let length: usize = std::str::from_utf8(&records[..space]).unwrap().parse().unwrap();
        let equals = records.iter().position(|byte| *byte == b'=').unwrap();
        assert_eq!(records[length - 1], b'\n');
        found.insert(String::from_utf8(records[space + 1..equals].to_vec()).unwrap(), records[equals + 1..length - 1].to_vec());
        records = &records[length..];
    }
    found
}

fn read_tar(archive: &[u8]) -> BTreeMap<Vec<u8>, Entry> {
    assert_eq!(archive.len() % 512, 0);
    let mut entries = BTreeMap::new();
    let mut extra = BTreeMap::new();
    let mut at = 0;
    while archive[at] != 0 {
        let header = &archive[at..at + 512];
        let sum: u64 = header.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u64::from(*byte) }).sum();
        assert_eq!(octal(&header[148..156]), sum);
        assert_eq!(&header[257..265], b"ustar\x0000");
        let size = octal(&header[124..136]) as usize;
        let content = archive[at + 512..at + 512 + size].to_vec();
        at += 512 + size.next_multiple_of(512);
        if header[156] == b'x' {
            extra = pax(&content);
            continue;
        }
        let extra = std::mem::take(&mut extra);
        let (prefix, name) = (text(&header[345..500]), text(&header[..100]));
        let path = if prefix.is_empty() { name } else { [&prefix[..], b"/", &name].concat() };
        let path = extra.get("path").cloned().unwrap_or(path);
        let seconds = extra.get("mtime").map(|time| String::from_utf8(time.clone()).unwrap());
        let seconds = seconds.map_or(octal(&header[136..148]) as i64, |time| time.split('.').next().unwrap().parse().unwrap());
        let target = extra.get("linkpath").cloned().unwrap_or_else(|| text(&header[157..257]));
        let content = if header[156] == b'2' { target } else { content };
        assert!(entries.insert(path, (header[156], content, octal(&header[100..108]) as u32, seconds)).is_none());
    }
    assert!(archive[at..].iter().all(|byte| *byte == 0) && archive.len() - at == 1024);
    entries
}

fn number<const N: usize>(data: &[u8], at: usize) -> usize {
    data[at..at + N].iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte))
}

fn read_zip(archive: &[u8]) -> BTreeMap<Vec<u8>, Entry> {
    let end = archive.len() - 22;
    assert_eq!(&archive[end..end + 4], b"PK\x05\x06");
    let mut entries = BTreeMap::new();
    let mut at = number::<4>(archive, end + 16);
    assert_eq!(at + number::<4>(archive, end + 12), end);
    for _ in 0..number::<2>(archive, end + 10) {
        let listed = &archive[at..];
        assert_eq!(&listed[..4], b"PK\x01\x02");
        let (name, extra) = (number::<2>(listed, 28), number::<2>(listed, 30));
        let path = listed[46..46 + name].to_vec();
        let flags = number::<2>(listed, 8);
        assert_eq!(flags & 1 << 11 != 0, std::str::from_utf8(&path).is_ok());
        let seconds = if extra == 9 { i64::from(number::<4>(listed, 46 + name + 5) as i32) } else { 7 };
        let mode = number::<4>(listed, 38) >> 16;
        let size = number::<4>(listed, 24);
        assert_eq!((size, number::<2>(listed, 10)), (number::<4>(listed, 20), 0));
        let local = &archive[number::<4>(listed, 42)..];
        assert_eq!((&local[..4], &local[30..30 + name], number::<2>(local, 6)), (&b"PK\x03\x04"[..], &path[..], flags));
        let start = 30 + name + number::<2>(local, 28);
        let content = local[start..start + size].to_vec();
        let sum = crc32fast::hash(&content) as usize;
        assert_eq!(sum, number::<4>(listed, 16));
        if flags & 8 != 0 {
            let tail = &local[start + size..];
            assert_eq!((&tail[..4], number::<4>(tail, 4), number::<4>(tail, 8)), (&b"PK\x07\x08"[..], sum, size));
        }
        let kind = match mode >> 12 {
            0o04 => b'5',
            0o10 => b'0',
            0o12 => b'2',
            other => panic!("{other:o}"),
        };
        assert!(entries.insert(path, (kind, content, (mode & 0o7777) as u32, seconds)).is_none());
        at += 46 + name + extra;
    }
    assert_eq!(at, end);
    entries
}

#[test]
fn a_tar_archive_holds_the_tree() {
    let mut store = Store::default();
    let (root, expected) = tree(&mut store);
    let archive = write(&store, TarWriter::new(root, b"top", 7)).unwrap();
    assert_eq!(read_tar(&archive), expected);
}

#[test]
fn a_zip_archive_holds_the_tree() {
    let mut store = Store::default();
    let (root, expected) = tree(&mut store);
    let archive = write(&store, ZipWriter::new(root, b"top")).unwrap();
    assert_eq!(read_zip(&archive), expected);
    let without_name = read_zip(&write(&store, ZipWriter::new(root, b"")).unwrap());
    assert_eq!(without_name.len(), expected.len() - 1);
    assert_eq!(without_name[&b"a/b/c"[..]], expected[&b"top/a/b/c"[..]]);
}

#[test]
fn a_single_file_is_an_archive_too() {
    let mut store = Store::default();
    let file = import_bytes(Bytes::from_static(b"alone"), FileOptions::v1(), &mut |block| store.put(block)).unwrap().cid;
    let expected = BTreeMap::from([(b"f".to_vec(), (b'0', b"alone".to_vec(), 0o644, 7))]);
    assert_eq!(read_tar(&write(&store, TarWriter::new(file, b"f", 7)).unwrap()), expected);
    assert_eq!(read_zip(&write(&store, ZipWriter::new(file, b"f")).unwrap()), expected);
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let mut store = Store::default();
    let file = import_bytes(Bytes::from_static(b"x"), FileOptions::v1(), &mut |block| store.put(block)).unwrap();
    for name in ["..", ".", "", "a/../../b", "/etc", "nul\0"] {
        let mut directory = DirectoryBuilder::new(DirectoryOptions::default()).unwrap();
        directory.add(name.as_bytes(), &file.cid, 1).unwrap();
        let root = directory.finish(&mut |block| store.put(block)).unwrap().cid;
        let bad = Err(ExportError::BadName { name: name.to_owned() });
        assert_eq!(write(&store, TarWriter::new(root, b"t", 0)), bad);
        assert_eq!(write(&store, ZipWriter::new(root, b"t")), bad);
    }
}
