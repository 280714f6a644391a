//! The journals of a store that was not closed, made short before fjall reads them.
//!
//! fjall (3.1) begins a new journal only when one has 64 MB, and after a kill it reads them entry by entry (two microseconds each): two seconds
//! for a million entries, nearly all of which are in tables long since and are passed over. Here those are left out beforehand, at the pace of the
//! disk, so that it reads only what was in memory.
//!
//! ```text
//! journal   batch*, then zeros or a torn batch
//! batch     1 count:4 seqno:8  item{count}  3 checksum:8 "FJL\x03"        numbers little-endian, the checksum (xxh3) over the items
//! item      2 kind:1 compression:1 area:8 key:2 value:4 stored:4  key's bytes  stored bytes
//! ```
//! An item is left out exactly where fjall passes over it: when a table of its area has its sequence number or a later one. A journal in which
//! anything is not as described is left to fjall as it is.

use crate::lock::sync_dir;
use lsm_tree::{AbstractTree, Cache, DescriptorTable, SequenceNumberCounter};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Less is read by fjall in a tenth of a second.
const WORTH: u64 = 4 << 20;
/// What a journal is called while it is written anew.
const UNFINISHED: &str = "shortened";
/// Files of tables open at once.
const TABLES_OPEN: usize = 64;
/// Of tables, only what says which sequence numbers they have is read.
const CACHE: u64 = 1 << 20;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const TRAILER: &[u8; 4] = b"FJL\x03";
/// What stands before the key of an item, its first byte included.
const ITEM_HEADER: usize = 21;

/// The latest sequence number in the tables of an area, by the area's number.
type Tables = BTreeMap<u64, u64>;

/// Leaves out of the journals in `keys` what is in tables; whatever fails, they are good for fjall.
pub(super) fn shorten(keys: &Path) {
    if let Err(error) = try_shorten(keys) {
        tracing::debug!(%error, dir = %keys.display(), "the journal of the store is read as it is");
    }
}

fn try_shorten(keys: &Path) -> io::Result<()> {
    let journals = journals(keys)?;
    if journals.iter().map(|(_, bytes)| bytes).sum::<u64>() < WORTH {
        return Ok(());
    }
    let tables = in_tables(keys)?;
    for (journal, _) in journals {
        shorten_one(&journal, &tables)?;
    }
    sync_dir(keys)
}

/// The journals with what the disk gave to them; what was left unfinished is removed.
fn journals(keys: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(keys)? {
        let path = entry?.path();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("jnl") => found.push((path.clone(), std::fs::metadata(&path)?.blocks() * 512)),
            Some(UNFINISHED) => std::fs::remove_file(&path)?,
            _ => {}
        }
    }
    Ok(found)
}

fn in_tables(keys: &Path) -> io::Result<Tables> {
    let (cache, files) = (Arc::new(Cache::with_capacity_bytes(CACHE)), Arc::new(DescriptorTable::new(TABLES_OPEN)));
    let mut tables = Tables::new();
    for entry in std::fs::read_dir(keys.join("keyspaces"))? {
        let path = entry?.path();
        let number = path.file_name().and_then(|name| name.to_str()?.parse().ok());
        // One without this file was being made; fjall removes it.
        let Some(number) = number.filter(|_| path.join("current").exists()) else { continue };
        let counters = [SequenceNumberCounter::default(), SequenceNumberCounter::default()];
        let [seqno, visible] = counters;
        let tree = lsm_tree::Config::new(&path, seqno, visible).use_cache(cache.clone()).use_descriptor_table(Some(files.clone())).open();
        if let Some(latest) = tree.map_err(io::Error::other)?.get_highest_persisted_seqno() {
            tables.insert(number, latest);
        }
    }
    Ok(tables)
}

/// Writes the journal anew in its own place.
fn shorten_one(journal: &Path, tables: &Tables) -> io::Result<()> {
    let unfinished = journal.with_extension(UNFINISHED);
    let written = write_short(journal, &unfinished, tables).and_then(|()| std::fs::rename(&unfinished, journal));
    if written.is_err() {
        // It may never have been made.
        let _ = std::fs::remove_file(&unfinished);
    }
    written
}

fn write_short(journal: &Path, to: &Path, tables: &Tables) -> io::Result<()> {
    let mut batches = Batches::of(BufReader::with_capacity(1 << 20, File::open(journal)?));
    let mut out = BufWriter::with_capacity(1 << 20, File::create(to)?);
    while let Some(seqno) = batches.next()? {
        let kept = |area: &u64| tables.get(area).is_none_or(|latest| seqno > *latest);
        let items: Vec<&[u8]> =
            batches.items.iter().filter(|(area, _)| kept(area)).map(|(_, range)| &batches.bytes[range.clone()]).collect();
        if !items.is_empty() {
            write_batch(&mut out, seqno, &items)?;
        }
    }
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

fn write_batch(out: &mut impl Write, seqno: u64, items: &[&[u8]]) -> io::Result<()> {
    let mut checksum = xxhash_rust::xxh3::Xxh3::new();
    out.write_all(&[START])?;
    out.write_all(&(items.len() as u32).to_le_bytes())?;
    out.write_all(&seqno.to_le_bytes())?;
    for item in items {
        checksum.update(item);
        out.write_all(item)?;
    }
    out.write_all(&[END])?;
    out.write_all(&checksum.digest().to_le_bytes())?;
    out.write_all(TRAILER)
}

/// Reads a journal, a batch at a time.
struct Batches<R> {
    reader: R,
    /// The items of the present batch as they stand in the journal.
    bytes: Vec<u8>,
    /// Of each its area, and where it lies in them.
    items: Vec<(u64, Range<usize>)>,
}

/// Why there is no batch.
enum Stop {
    /// The journal ends here: with nothing, with zeros, or with a batch that was not written to its end.
    End,
    /// This is not how a journal looks, or it cannot be read.
    Strange(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        if error.kind() == io::ErrorKind::UnexpectedEof { Stop::End } else { Stop::Strange(error) }
    }
}

fn strange(what: &str) -> Stop {
    Stop::Strange(io::Error::new(io::ErrorKind::InvalidData, what))
}

impl<R: Read> Batches<R> {
    fn of(reader: R) -> Batches<R> {
        Batches { reader, bytes: Vec::new(), items: Vec::new() }
    }

    /// The sequence number of the next whole batch, whose items are then here; none at the end.
    fn next(&mut self) -> io::Result<Option<u64>> {
        match self.read() {
            Ok(seqno) => Ok(Some(seqno)),
            Err(Stop::End) => Ok(None),
            Err(Stop::Strange(error)) => Err(error),
        }
    }

    fn read(&mut self) -> Result<u64, Stop> {
        self.bytes.clear();
        self.items.clear();
        if self.array::<1>()? != [START] {
            // fjall too takes whatever else stands between two batches for the end.
            return Err(Stop::End);
        }
        let count = u32::from_le_bytes(self.array()?);
        let seqno = u64::from_le_bytes(self.array()?);
        for _ in 0..count {
            self.item()?;
        }
        match self.array::<1>()? {
            [END] => {}
            [0] => return Err(Stop::End),
            _ => return Err(strange("a batch has other things than it says")),
        }
        let checksum = u64::from_le_bytes(self.array()?);
        if self.array::<4>()? != *TRAILER {
            return Err(Stop::End);
        }
        if xxhash_rust::xxh3::xxh3_64(&self.bytes) != checksum {
            return Err(strange("a batch has another checksum"));
        }
        Ok(seqno)
    }

    fn item(&mut self) -> Result<(), Stop> {
        let mut header = [0; ITEM_HEADER];
        self.reader.read_exact(&mut header[..1])?;
        match header[0] {
            ITEM => {}
            0 => return Err(Stop::End),
            _ => return Err(strange("a batch has other things than items")),
        }
        self.reader.read_exact(&mut header[1..])?;
        let [_, kind, compression, area @ .., k0, k1, _, _, _, _, s0, s1, s2, s3] = header;
        if kind > 1 || compression > 1 {
            return Err(strange("an item is of an unknown kind"));
        }
        let length = u64::from(u16::from_le_bytes([k0, k1])) + u64::from(u32::from_le_bytes([s0, s1, s2, s3]));
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(&header);
        // Grows with what is there, not with what is promised.
        if (&mut self.reader).take(length).read_to_end(&mut self.bytes)? as u64 != length {
            return Err(Stop::End);
        }
        self.items.push((u64::from_le_bytes(area), begin..self.bytes.len()));
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Area, Batch, DiskOptions, DiskStore, Durability, Store};

    fn name(number: u32) -> [u8; 4] {
        number.to_be_bytes()
    }

    fn commit(store: &DiskStore, numbers: Range<u32>, change: impl Fn(&mut Batch, u32)) {
        for first in numbers.clone().step_by(1000) {
            let mut batch = Batch::new();
            (first..numbers.end.min(first + 1000)).for_each(|number| change(&mut batch, number));
            store.commit(batch, Durability::Buffered).expect("commits");
        }
    }

    /// As a kill leaves it.
    fn copied(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).expect("makes");
        for entry in std::fs::read_dir(from).expect("lists").map(|entry| entry.expect("lists")) {
            let to = to.join(entry.file_name());
            if entry.path().is_dir() {
                copied(&entry.path(), &to);
            } else {
                std::fs::copy(entry.path(), to).expect("copies");
            }
        }
    }

    fn length(keys: &Path) -> u64 {
        let journals = journals(keys).expect("lists");
        journals.iter().map(|(path, _)| std::fs::metadata(path).expect("is there").len()).sum()
    }

    #[test]
    fn what_tables_have_is_left_out_and_nothing_else() {
        const COUNT: u32 = 100_000;
        let home = tempfile::tempdir().expect("a directory for the test");
        let (living, killed) = (home.path().join("living"), home.path().join("killed"));
        let store = DiskStore::open(&living, DiskOptions::default()).expect("opens");
        commit(&store, 0..COUNT, |batch, number| {
            batch.put(Area::BlockIndex, name(number), [1; 60]);
            if number % 1000 == 0 {
                batch.put(Area::Meta, name(number), [1]);
            }
        });
        let settled = store.with_engine(|engine| {
            // One area alone has gone to tables.
            engine.areas[Area::BlockIndex as usize].rotate_memtable_and_wait().expect("writes a table");
            Ok(engine.areas[Area::BlockIndex as usize].sealed_memtable_count())
        });
        assert_eq!(settled.expect("open"), 0);
        commit(&store, 500..700, |batch, number| {
            batch.put(Area::BlockIndex, name(number), vec![2; 5000]);
        });
        commit(&store, 600..900, |batch, number| {
            batch.delete(Area::BlockIndex, name(number));
        });
        copied(&living, &killed);
        let before = length(&killed.join("keys"));
        shorten(&killed.join("keys"));
        let after = length(&killed.join("keys"));
        assert!(after > 0 && after < before / 10, "{before} bytes became {after}");
        let again = DiskStore::open(&killed, DiskOptions::default()).expect("opens");
        for area in [Area::BlockIndex, Area::Meta] {
            let all = |store: &DiskStore| store.snapshot().scan(area, None, b"", COUNT as usize * 2).expect("scans");
            assert!(all(&again) == all(&store), "{area:?}");
        }
        assert_eq!(again.get(Area::BlockIndex, &name(550)).expect("reads").as_deref(), Some(&[2; 5000][..]));
        assert_eq!(again.get(Area::BlockIndex, &name(650)).expect("reads"), None);
        assert_eq!(again.snapshot().count(Area::BlockIndex).expect("counts"), u64::from(COUNT) - 300);
    }

    fn item(area: u64, key: &[u8], value: &[u8]) -> Vec<u8> {
        let (keys, values) = ((key.len() as u16).to_le_bytes(), (value.len() as u32).to_le_bytes());
        [&[ITEM, 0, 0][..], &area.to_le_bytes(), &keys, &values, &values, key, value].concat()
    }

    fn batch(seqno: u64, items: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_batch(&mut bytes, seqno, &items.iter().map(Vec::as_slice).collect::<Vec<_>>()).expect("writes");
        bytes
    }

    /// Sequence numbers and how many items each batch has; "strange" at the end where a journal is left as it is.
    fn check(bytes: &[u8], expected: &str) {
        let mut batches = Batches::of(bytes);
        let mut found = String::new();
        loop {
            match batches.next() {
                Ok(Some(seqno)) => found += &format!("{seqno}:{} ", batches.items.len()),
                Ok(None) => break,
                Err(_) => {
                    found += "strange";
                    break;
                }
            }
        }
        assert_eq!(found.trim(), expected);
    }

    #[test]
    fn a_journal_ends_with_nothing_with_zeros_or_with_a_torn_batch() {
        let whole = [batch(7, &[item(1, b"a", b"one"), item(2, b"b", b"")]), batch(9, &[item(1, b"c", &[3; 300])])].concat();
        check(&[], "");
        check(&whole, "7:2 9:1");
        check(&[&whole[..], &[0; 100]].concat(), "7:2 9:1");
        for cut in 1..340 {
            check(&whole[..whole.len() - cut], "7:2");
            let mut zeroed = whole.clone();
            zeroed[whole.len() - cut..].fill(0);
            // Where the tear lies within the data of an item or the checksum, fjall says so itself.
            let mut batches = Batches::of(&zeroed[..]);
            assert!(matches!(batches.next(), Ok(Some(7))));
            assert!(!matches!(batches.next(), Ok(Some(_))), "{cut}");
        }
    }

    #[test]
    fn what_is_not_understood_is_left_as_it_is() {
        let whole = batch(7, &[item(1, b"a", b"one"), item(2, b"b", b"")]);
        let damaged = |at: usize, byte: u8| {
            let mut bytes = whole.clone();
            bytes[at] = byte;
            bytes
        };
        check(&damaged(13, 4), "strange");
        check(&damaged(14, 4), "strange");
        check(&damaged(15, 2), "strange");
        check(&damaged(35, b'x'), "strange");
        check(&damaged(1, 1), "strange");
        check(&damaged(0, ITEM), "");
        let home = tempfile::tempdir().expect("a directory for the test");
        let journal = home.path().join("3.jnl");
        std::fs::write(&journal, damaged(35, b'x')).expect("writes");
        shorten_one(&journal, &Tables::new()).expect_err("another checksum");
        assert_eq!(std::fs::read(&journal).expect("reads"), damaged(35, b'x'));
        assert_eq!(std::fs::read_dir(home.path()).expect("lists").count(), 1, "nothing is left behind");
    }

    /// Understood when there was a batch.
    fn read(input: &[u8]) -> bool {
        let mut batches = Batches::of(input);
        let (mut found, mut written) = (0, Vec::new());
        while let Ok(Some(seqno)) = batches.next() {
            let items: Vec<&[u8]> = batches.items.iter().map(|(_, range)| &batches.bytes[range.clone()]).collect();
            write_batch(&mut written, seqno, &items).expect("writes");
            found += 1;
        }
        assert!(input.starts_with(&written), "batches that do not stand there");
        found > 0
    }

    #[test]
    fn journals_of_any_bytes_give_what_was_written_there() {
        let one = batch(7, &[item(1, b"a", b"one"), item(2, b"b", b"")]);
        let two = [&one[..], &batch(9, &[item(1, b"c", &[3; 300])]), &[0; 40]].concat();
        fuzz::check(fuzz::Target { name: "journal", decode: read }, vec![one, two], fuzz::Plan::of_environment(10_000, 1));
    }

    #[test]
    fn items_stay_by_area_and_number() {
        let home = tempfile::tempdir().expect("a directory for the test");
        let journal = home.path().join("3.jnl");
        let [one, two, three] = [item(1, b"a", b"one"), item(2, b"b", b""), item(3, b"c", b"")];
        let batches = [
            batch(7, &[one.clone(), two.clone(), three.clone()]),
            batch(8, std::slice::from_ref(&one)),
            batch(9, std::slice::from_ref(&one)),
        ];
        std::fs::write(&journal, batches.concat()).expect("writes");
        shorten_one(&journal, &Tables::from([(1, 8), (2, 6)])).expect("shortens");
        let kept = [batch(7, &[two, three]), batch(9, &[one])];
        assert_eq!(std::fs::read(&journal).expect("reads"), kept.concat());
    }
}
