//! Trees as tar archives: ustar, with pax headers for what does not fit.

use super::{ArchiveStep, EntryKind, ExportError, TreeEntry, TreeReader, TreeStep};
use crate::unixfs::Mtime;
use bytes::Bytes;
use types::Cid;

const BLOCK: usize = 512;
const NAME: usize = 100;
const PREFIX: usize = 155;
/// Eleven octal digits.
const NUMBER_MAX: u64 = 0o777_7777_7777;

/// Writes what is under a root as a tar archive.
///
/// Files without a mode get 0644, directories 0755, symlinks 0777, as in Kubo.
pub struct TarWriter {
    tree: TreeReader,
    /// The time of entries that have none.
    time: i64,
    /// Bytes of zeros that the last file wants after it.
    padding: usize,
    is_over: bool,
}

impl TarWriter {
    /// An archive of `root`, which is called `name` in it (Kubo: its CID). Entries without a time get `time`, in seconds since 1970.
    pub fn new(root: Cid, name: &[u8], time: i64) -> TarWriter {
        TarWriter { tree: TreeReader::new(root, name), time, padding: 0, is_over: false }
    }

    /// What comes next. Until a needed block is given, the answer stays the same.
    pub fn step(&mut self) -> Result<ArchiveStep, ExportError> {
        if self.is_over {
            return Ok(ArchiveStep::Done);
        }
        Ok(match self.tree.step()? {
            TreeStep::Need(cid) => ArchiveStep::Need(cid),
            TreeStep::Data(data) => ArchiveStep::Data(data),
            TreeStep::Entry(entry) => {
                let mut out = vec![0; std::mem::take(&mut self.padding)];
                self.put_entry(&entry, &mut out);
                ArchiveStep::Data(out.into())
            }
            TreeStep::Done => {
                self.is_over = true;
                ArchiveStep::Data(vec![0; std::mem::take(&mut self.padding) + 2 * BLOCK].into())
            }
        })
    }

    /// Takes the block that is needed.
    pub fn give(&mut self, cid: &Cid, data: &Bytes) -> Result<(), ExportError> {
        self.tree.give(cid, data)
    }

    /// The blocks that will be needed next, as far as they are known: for fetching ahead.
    pub fn upcoming(&self, at_most: usize) -> Vec<Cid> {
        self.tree.upcoming(at_most)
    }

    fn put_entry(&mut self, entry: &TreeEntry, out: &mut Vec<u8>) {
        let (kind, size, target, mode, ending) = match &entry.kind {
            EntryKind::Directory => (b'5', 0, &b""[..], 0o755, "/"),
            EntryKind::File(size) => (b'0', *size, &b""[..], 0o644, ""),
            EntryKind::Symlink(target) => (b'2', 0, &target[..], 0o777, ""),
        };
        self.padding = padding(size);
        let path = [if entry.path.is_empty() { b"." } else { &entry.path[..] }, ending.as_bytes()].concat();
        let mtime = entry.stat.mtime.unwrap_or(Mtime { seconds: self.time, nanos: 0 });
        let seconds = u64::try_from(mtime.seconds).ok().filter(|seconds| *seconds <= NUMBER_MAX && mtime.nanos == 0);
        let mut pax = Vec::new();
        let split = split_path(&path);
        if split.is_none() {
            put_record(&mut pax, "path", &path);
        }
        if target.len() > NAME {
            put_record(&mut pax, "linkpath", target);
        }
        if size > NUMBER_MAX {
            put_record(&mut pax, "size", size.to_string().as_bytes());
        }
        if seconds.is_none() {
            put_record(&mut pax, "mtime", time_text(mtime).as_bytes());
        }
        if !pax.is_empty() {
            put_pax(&pax, out);
        }
        let (prefix, name) = split.unwrap_or((&[], &path[..path.len().min(NAME)]));
        let header = Header {
            prefix,
            name,
            mode: entry.stat.mode.filter(|mode| *mode != 0).unwrap_or(mode) & 0o7777,
            size: if size > NUMBER_MAX { 0 } else { size },
            seconds: seconds.unwrap_or_default(),
            kind,
            target: &target[..target.len().min(NAME)],
        };
        header.put(out);
    }
}

struct Header<'h> {
    prefix: &'h [u8],
    name: &'h [u8],
    mode: u32,
    size: u64,
    seconds: u64,
    kind: u8,
    target: &'h [u8],
}

impl Header<'_> {
    fn put(&self, out: &mut Vec<u8>) {
        let mut block = [0; BLOCK];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, self.name);
        put(100, format!("{:07o}", self.mode).as_bytes());
        put(108, b"0000000");
        put(116, b"0000000");
        put(124, format!("{:011o}", self.size).as_bytes());
        put(136, format!("{:011o}", self.seconds).as_bytes());
        put(148, b"        ");
        put(156, &[self.kind]);
        put(157, self.target);
        put(257, b"ustar\x0000");
        put(345, self.prefix);
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        out.extend_from_slice(&block);
    }
}

/// A header of its own with records for the entry after it.
fn put_pax(records: &[u8], out: &mut Vec<u8>) {
    let size = records.len() as u64;
    Header { prefix: b"", name: b"PaxHeaders/entry", mode: 0o644, size, seconds: 0, kind: b'x', target: b"" }.put(out);
    out.extend_from_slice(records);
    out.resize(out.len() + padding(size), 0);
}

/// `length key=value\n`, where the length counts itself.
fn put_record(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let digits = (1..20).find(|digits| (rest + digits).to_string().len() == *digits).unwrap_or(1);
    out.extend_from_slice(format!("{} {key}=", rest + digits).as_bytes());
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn time_text(mtime: Mtime) -> String {
    let Mtime { seconds, nanos } = mtime;
    match (seconds, nanos) {
        (_, 0) => seconds.to_string(),
        (0.., _) => format!("{seconds}.{nanos:09}"),
        // The fraction goes forward from the second before.
        (..0, _) => {
            let whole = seconds.saturating_add(1);
            format!("-{}.{:09}", whole.unsigned_abs(), 1_000_000_000 - nanos.min(999_999_999))
        }
    }
}

/// The path as ustar divides it: at a slash, 155 bytes before and 100 behind. `None` if it does not fit.
fn split_path(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.len() <= NAME {
        return Some((&[], path));
    }
    let slash = |at: &usize| path[*at] == b'/' && path.len() - at - 1 <= NAME && at + 1 < path.len();
    let at = (0..=PREFIX.min(path.len() - 1)).rev().find(slash)?;
    Some((&path[..at], &path[at + 1..]))
}

fn padding(size: u64) -> usize {
    (size.wrapping_neg() % BLOCK as u64) as usize
}
