//! Trees as zip archives: stored, not compressed; zip64 where numbers need it.

use super::{ArchiveStep, EntryKind, ExportError, TreeEntry, TreeReader, TreeStep};
use bytes::Bytes;
use crc32fast::Hasher;
use types::Cid;

/// Bytes of the list at the end of an archive, which is kept in memory: some 2 million entries.
const LIST_MAX: usize = 256 << 20;
const U32: u64 = u32::MAX as u64;
/// Names are UTF-8.
const FLAG_UTF8: u16 = 1 << 11;
/// Sum and sizes come after the content.
const FLAG_DESCRIPTOR: u16 = 1 << 3;
/// Made on Unix, version 4.5.
const MADE_BY: u16 = 3 << 8 | 45;

/// Writes what is under a root as a zip archive. Modes and times of entries are kept where they were stored.
pub struct ZipWriter {
    tree: TreeReader,
    /// Bytes given so far.
    offset: u64,
    list: Vec<u8>,
    entries: u64,
    open: Option<Open>,
    is_over: bool,
}

/// The entry whose content is being written.
struct Open {
    name: Vec<u8>,
    flags: u16,
    time: u32,
    mtime: Option<u32>,
    mode: u32,
    size: u64,
    start: u64,
    sum: Hasher,
}

impl ZipWriter {
    /// An archive of `root`, which is called `name` in it; with an empty name what is in a directory stands at the top.
    pub fn new(root: Cid, name: &[u8]) -> ZipWriter {
        ZipWriter { tree: TreeReader::new(root, name), offset: 0, list: Vec::new(), entries: 0, open: None, is_over: false }
    }

    /// What comes next. Until a needed block is given, the answer stays the same.
    pub fn step(&mut self) -> Result<ArchiveStep, ExportError> {
        let data = loop {
            if self.is_over {
                return Ok(ArchiveStep::Done);
            }
            let data = match self.tree.step()? {
                TreeStep::Need(cid) => return Ok(ArchiveStep::Need(cid)),
                TreeStep::Data(data) => {
                    if let Some(open) = &mut self.open {
                        open.sum.update(&data);
                    }
                    data
                }
                TreeStep::Entry(entry) => self.put_entry(entry)?.into(),
                TreeStep::Done => {
                    self.is_over = true;
                    self.put_end()?.into()
                }
            };
            if !data.is_empty() {
                break data;
            }
        };
        self.offset += data.len() as u64;
        Ok(ArchiveStep::Data(data))
    }

    /// Takes the block that is needed.
    pub fn give(&mut self, cid: &Cid, data: &Bytes) -> Result<(), ExportError> {
        self.tree.give(cid, data)
    }

    /// The blocks that will be needed next, as far as they are known: for fetching ahead.
    pub fn upcoming(&self, at_most: usize) -> Vec<Cid> {
        self.tree.upcoming(at_most)
    }

    /// The end of the entry before, and the beginning of this one.
    fn put_entry(&mut self, entry: TreeEntry) -> Result<Vec<u8>, ExportError> {
        let mut out = self.close_entry()?;
        let (kind, ending, size) = match &entry.kind {
            EntryKind::Directory => (0o040_755, &b"/"[..], 0),
            EntryKind::File(size) => (0o100_644, &b""[..], *size),
            EntryKind::Symlink(target) => (0o120_777, &b""[..], target.len() as u64),
        };
        if entry.path.is_empty() && entry.kind == EntryKind::Directory {
            return Ok(out);
        }
        let name = match &entry.path[..] {
            b"" => entry.cid.to_string().into_bytes(),
            path => [path, ending].concat(),
        };
        if name.len() > usize::from(u16::MAX) {
            return Err(ExportError::BadName { name: String::from_utf8_lossy(&name[..256]).into_owned() });
        }
        let utf8 = if std::str::from_utf8(&name).is_ok() { FLAG_UTF8 } else { 0 };
        let has_content = entry.kind != EntryKind::Directory;
        let flags = utf8 | if has_content { FLAG_DESCRIPTOR } else { 0 };
        let seconds = entry.stat.mtime.map(|mtime| mtime.seconds);
        let mode = entry.stat.mode.filter(|mode| *mode != 0).map_or(kind, |mode| kind & 0o170_000 | mode & 0o7777);
        let mut open = Open {
            flags,
            time: dos_time(seconds.unwrap_or_default()),
            mtime: seconds.and_then(|seconds| i32::try_from(seconds).ok()).map(|seconds| seconds as u32),
            mode,
            size,
            start: self.offset + out.len() as u64,
            sum: Hasher::new(),
            name,
        };
        open.put_head(&mut out);
        if let EntryKind::Symlink(target) = &entry.kind {
            open.sum.update(target);
            out.extend_from_slice(target);
        }
        self.open = Some(open);
        Ok(out)
    }

    fn close_entry(&mut self) -> Result<Vec<u8>, ExportError> {
        let mut out = Vec::new();
        let Some(open) = self.open.take() else { return Ok(out) };
        let sum = open.sum.clone().finalize();
        open.put_tail(sum, &mut out);
        open.put_listed(sum, &mut self.list);
        self.entries += 1;
        if self.list.len() > LIST_MAX { Err(ExportError::TooMany) } else { Ok(out) }
    }

    fn put_end(&mut self) -> Result<Vec<u8>, ExportError> {
        let mut out = self.close_entry()?;
        let start = self.offset + out.len() as u64;
        out.append(&mut self.list);
        let end = self.offset + out.len() as u64;
        let size = end - start;
        if self.entries >= u64::from(u16::MAX) || size >= U32 || start >= U32 {
            put32(&mut out, 0x0606_4b50);
            put64(&mut out, 44);
            put16(&mut out, MADE_BY);
            put16(&mut out, 45);
            put64(&mut out, 0);
            put64(&mut out, self.entries);
            put64(&mut out, self.entries);
            put64(&mut out, size);
            put64(&mut out, start);
            put32(&mut out, 0x0706_4b50);
            put32(&mut out, 0);
            put64(&mut out, end);
            put32(&mut out, 1);
        }
        let entries = self.entries.min(u64::from(u16::MAX)) as u16;
        put32(&mut out, 0x0605_4b50);
        put32(&mut out, 0);
        put16(&mut out, entries);
        put16(&mut out, entries);
        put32(&mut out, size.min(U32) as u32);
        put32(&mut out, start.min(U32) as u32);
        put16(&mut out, 0);
        Ok(out)
    }
}

impl Open {
    fn is_large(&self) -> bool {
        self.size >= U32
    }

    fn put_head(&self, out: &mut Vec<u8>) {
        let mut extra = Vec::new();
        if self.is_large() {
            put16(&mut extra, 1);
            put16(&mut extra, 16);
            put64(&mut extra, self.size);
            put64(&mut extra, self.size);
        }
        self.put_time(&mut extra);
        put32(out, 0x0403_4b50);
        self.put_common(0, if self.is_large() { self.size } else { 0 }, extra.len(), out);
        out.extend_from_slice(&self.name);
        out.append(&mut extra);
    }

    /// What both headers have in the same order. Sum and size before the content are 0: the descriptor tells them.
    fn put_common(&self, sum: u32, size: u64, extra: usize, out: &mut Vec<u8>) {
        put16(out, if self.is_large() { 45 } else { 20 });
        put16(out, self.flags);
        put16(out, 0);
        put32(out, self.time);
        put32(out, sum);
        put32(out, size.min(U32) as u32);
        put32(out, size.min(U32) as u32);
        put16(out, self.name.len() as u16);
        put16(out, extra as u16);
    }

    fn put_time(&self, extra: &mut Vec<u8>) {
        if let Some(mtime) = self.mtime {
            put16(extra, 0x5455);
            put16(extra, 5);
            extra.push(1);
            put32(extra, mtime);
        }
    }

    fn put_tail(&self, sum: u32, out: &mut Vec<u8>) {
        if self.flags & FLAG_DESCRIPTOR == 0 {
            return;
        }
        put32(out, 0x0807_4b50);
        put32(out, sum);
        for _ in 0..2 {
            if self.is_large() {
                put64(out, self.size);
            } else {
                put32(out, self.size as u32);
            }
        }
    }

    fn put_listed(&self, sum: u32, list: &mut Vec<u8>) {
        let mut large = Vec::new();
        if self.is_large() {
            put64(&mut large, self.size);
            put64(&mut large, self.size);
        }
        if self.start >= U32 {
            put64(&mut large, self.start);
        }
        let mut extra = Vec::new();
        if !large.is_empty() {
            put16(&mut extra, 1);
            put16(&mut extra, large.len() as u16);
            extra.append(&mut large);
        }
        self.put_time(&mut extra);
        put32(list, 0x0201_4b50);
        put16(list, MADE_BY);
        self.put_common(sum, self.size, extra.len(), list);
        put16(list, 0);
        put16(list, 0);
        put16(list, 0);
        let is_directory = self.mode & 0o170_000 == 0o040_000;
        put32(list, self.mode << 16 | if is_directory { 0x10 } else { 0 });
        put32(list, self.start.min(U32) as u32);
        list.extend_from_slice(&self.name);
        list.append(&mut extra);
    }
}

/// Date and time as DOS keeps them, from 1980 to 2107, in UTC.
fn dos_time(seconds: i64) -> u32 {
    const FIRST: i64 = 315_532_800;
    const LAST: i64 = 4_354_819_198;
    let seconds = seconds.clamp(FIRST, LAST);
    let (days, second) = (seconds / 86_400, (seconds % 86_400) as u32);
    // Days are counted from March of the year 0, so that leap days end a year.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year_of_era = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day + 2) / 153;
    let day = (day - (153 * month + 2) / 5 + 1) as u32;
    let month = (if month < 10 { month + 3 } else { month - 9 }) as u32;
    let year = (year_of_era + era * 400) as u32 + u32::from(month <= 2);
    let date = (year - 1980) << 9 | month << 5 | day;
    date << 16 | (second / 3600) << 11 | (second / 60 % 60) << 5 | (second % 60 / 2)
}

fn put16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_dos_keeps_them() {
        let parts = |seconds| {
            let time = dos_time(seconds);
            let (date, time) = (time >> 16, time & 0xffff);
            ((date >> 9) + 1980, date >> 5 & 15, date & 31, time >> 11, time >> 5 & 63, (time & 31) * 2)
        };
        assert_eq!(parts(1_700_000_000), (2023, 11, 14, 22, 13, 20));
        assert_eq!(parts(951_782_399), (2000, 2, 28, 23, 59, 58));
        assert_eq!(parts(951_782_400), (2000, 2, 29, 0, 0, 0));
        assert_eq!(parts(951_868_800), (2000, 3, 1, 0, 0, 0));
        assert_eq!(parts(-5), (1980, 1, 1, 0, 0, 0));
        assert_eq!(parts(i64::MAX), (2107, 12, 31, 23, 59, 58));
    }
}
