//! The model of a disk that knows what a power cut would leave.

use rand::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::sync::Arc;

/// Number of a file or directory.
pub type Ino = u64;
/// The root directory.
pub const ROOT: Ino = 1;
/// What the disk writes or forgets as a whole.
pub const PAGE: u64 = 4096;

type Page = Arc<[u8]>;

/// A disk with its files.
#[derive(Clone, Debug)]
pub struct Disk {
    nodes: BTreeMap<Ino, Node>,
    /// Files that nobody has open: freed when the last name goes.
    closed: BTreeSet<Ino>,
    next: Ino,
    capacity: u64,
    changes: u64,
    cut_at: Option<u64>,
    is_dead: bool,
}

/// Why a call failed; each has its errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskError {
    /// The power is off (EIO).
    Dead,
    /// No such file or directory (ENOENT).
    NotFound,
    /// It is there already (EEXIST).
    Exists,
    /// The directory has entries (ENOTEMPTY).
    NotEmpty,
    /// A directory where a file is needed, or the other way round (EISDIR, ENOTDIR).
    WrongKind,
    /// The disk is full (ENOSPC).
    Full,
}

/// A file or a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
}

/// What `stat` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Which kind.
    pub kind: Kind,
    /// Length in bytes.
    pub size: u64,
    /// Pages that hold data.
    pub pages: u64,
}

#[derive(Clone, Debug)]
enum Node {
    File(File),
    Directory(Directory),
}

#[derive(Clone, Debug, Default)]
struct File {
    current: Content,
    durable: Content,
    /// Pages that differ, or may.
    dirty: BTreeSet<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Content {
    pages: BTreeMap<u64, Page>,
    size: u64,
}

#[derive(Clone, Debug, Default)]
struct Directory {
    current: BTreeMap<OsString, Ino>,
    durable: BTreeMap<OsString, Ino>,
    /// What leads from durable to current.
    pending: Vec<Change>,
}

/// One change of a directory; each happens as a whole.
#[derive(Clone, Debug)]
enum Change {
    Link(OsString, Ino),
    Unlink(OsString),
    Rename(OsString, OsString),
}

impl Disk {
    /// An empty disk of `capacity` bytes.
    pub fn new(capacity: u64) -> Disk {
        let nodes = BTreeMap::from([(ROOT, Node::Directory(Directory::default()))]);
        Disk { nodes, closed: BTreeSet::new(), next: ROOT + 1, capacity, changes: 0, cut_at: None, is_dead: false }
    }

    /// Cuts the power before the `changes`-th further change (writes, syncs and changes of directories count).
    pub fn cut_after(&mut self, changes: u64) {
        self.cut_at = Some(self.changes + changes);
    }

    /// Cuts the power now: every later call fails.
    pub fn cut(&mut self) {
        self.is_dead = true;
    }

    /// Whether the power was cut.
    pub fn is_dead(&self) -> bool {
        self.is_dead
    }

    /// How many changes were made.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Sets how much fits.
    pub fn set_capacity(&mut self, bytes: u64) {
        self.capacity = bytes;
    }

    /// Capacity and free space in bytes.
    pub fn space(&self) -> (u64, u64) {
        (self.capacity, self.capacity.saturating_sub(self.used()))
    }

    /// What is found when the power is back: all that was synced, and of the rest each piece with probability `luck`.
    pub fn survivor(&self, luck: f64, random: &mut impl Rng) -> Disk {
        let mut survivor = Disk { next: self.next, ..Disk::new(self.capacity) };
        let mut found = vec![ROOT];
        while let Some(ino) = found.pop() {
            let node = match self.nodes.get(&ino) {
                Some(Node::Directory(directory)) => {
                    let entries = directory.surviving(luck, random);
                    found.extend(entries.values().copied());
                    Node::Directory(Directory { current: entries.clone(), durable: entries, pending: Vec::new() })
                }
                Some(Node::File(file)) => {
                    let content = file.surviving(luck, random);
                    Node::File(File { current: content.clone(), durable: content, dirty: BTreeSet::new() })
                }
                None => continue,
            };
            survivor.nodes.insert(ino, node);
        }
        survivor
    }

    /// Finds an entry of a directory.
    pub fn lookup(&mut self, parent: Ino, name: &OsStr) -> Result<Ino, DiskError> {
        self.alive()?;
        let ino = self.directory(parent)?.current.get(name).copied().ok_or(DiskError::NotFound)?;
        self.closed.remove(&ino);
        Ok(ino)
    }

    /// What `stat` shows of a node.
    pub fn attributes(&self, ino: Ino) -> Result<Attributes, DiskError> {
        self.alive()?;
        match self.nodes.get(&ino).ok_or(DiskError::NotFound)? {
            Node::Directory(_) => Ok(Attributes { kind: Kind::Directory, size: 0, pages: 0 }),
            Node::File(file) => Ok(Attributes { kind: Kind::File, size: file.current.size, pages: file.current.pages.len() as u64 }),
        }
    }

    /// The entries of a directory in order.
    pub fn entries(&self, ino: Ino) -> Result<Vec<(OsString, Ino, Kind)>, DiskError> {
        self.alive()?;
        let kind = |ino: &Ino| if matches!(self.nodes.get(ino), Some(Node::File(_))) { Kind::File } else { Kind::Directory };
        Ok(self.directory(ino)?.current.iter().map(|(name, ino)| (name.clone(), *ino, kind(ino))).collect())
    }

    /// Makes a file or directory.
    pub fn create(&mut self, parent: Ino, name: &OsStr, kind: Kind) -> Result<Ino, DiskError> {
        self.change()?;
        let ino = self.next;
        let directory = self.directory_mut(parent)?;
        if directory.current.contains_key(name) {
            return Err(DiskError::Exists);
        }
        directory.apply(Change::Link(name.to_owned(), ino));
        let node = match kind {
            Kind::File => Node::File(File::default()),
            Kind::Directory => Node::Directory(Directory::default()),
        };
        self.nodes.insert(ino, node);
        self.next += 1;
        Ok(ino)
    }

    /// Removes an entry; the content of a file stays for those who have it open.
    pub fn remove(&mut self, parent: Ino, name: &OsStr, kind: Kind) -> Result<(), DiskError> {
        self.change()?;
        let ino = self.directory(parent)?.current.get(name).copied().ok_or(DiskError::NotFound)?;
        match (self.nodes.get(&ino), kind) {
            (Some(Node::Directory(directory)), Kind::Directory) if !directory.current.is_empty() => return Err(DiskError::NotEmpty),
            (Some(Node::Directory(_)), Kind::Directory) | (Some(Node::File(_)), Kind::File) => {}
            _ => return Err(DiskError::WrongKind),
        }
        self.directory_mut(parent)?.apply(Change::Unlink(name.to_owned()));
        Ok(())
    }

    /// Moves an entry, replacing what has the new name. Within one directory a cut finds it under the old or the new name; across two,
    /// each directory remembers for itself.
    pub fn rename(&mut self, from: (Ino, &OsStr), to: (Ino, &OsStr)) -> Result<(), DiskError> {
        self.change()?;
        let ino = self.directory(from.0)?.current.get(from.1).copied().ok_or(DiskError::NotFound)?;
        self.directory(to.0)?;
        if from.0 == to.0 {
            self.directory_mut(from.0)?.apply(Change::Rename(from.1.to_owned(), to.1.to_owned()));
            return Ok(());
        }
        self.directory_mut(to.0)?.apply(Change::Link(to.1.to_owned(), ino));
        self.directory_mut(from.0)?.apply(Change::Unlink(from.1.to_owned()));
        Ok(())
    }

    /// Reads at most `length` bytes at `offset`.
    pub fn read(&self, ino: Ino, offset: u64, length: u64) -> Result<Vec<u8>, DiskError> {
        self.alive()?;
        let content = &self.file(ino)?.current;
        let end = content.size.min(offset.saturating_add(length));
        let mut bytes = Vec::with_capacity(end.saturating_sub(offset) as usize);
        let mut at = offset;
        while at < end {
            let within = (at % PAGE) as usize;
            let count = (PAGE as usize - within).min((end - at) as usize);
            match content.pages.get(&(at / PAGE)) {
                Some(page) => bytes.extend_from_slice(&page[within..within + count]),
                None => bytes.resize(bytes.len() + count, 0),
            }
            at += count as u64;
        }
        Ok(bytes)
    }

    /// Writes all of `data` at `offset`, or nothing when the disk is full.
    pub fn write(&mut self, ino: Ino, offset: u64, data: &[u8]) -> Result<(), DiskError> {
        self.change()?;
        let (_, free) = self.space();
        let file = self.file_mut(ino)?;
        let touched = offset / PAGE..=(offset + data.len() as u64).saturating_sub(1) / PAGE;
        let fresh = touched.filter(|page| !file.current.pages.contains_key(page)).count() as u64;
        if fresh * PAGE > free {
            return Err(DiskError::Full);
        }
        file.write(offset, data);
        Ok(())
    }

    /// Cuts or extends a file.
    pub fn resize(&mut self, ino: Ino, size: u64) -> Result<(), DiskError> {
        self.change()?;
        self.file_mut(ino)?.resize(size);
        Ok(())
    }

    /// Makes a file's bytes and size, or a directory's entries, survive.
    pub fn sync(&mut self, ino: Ino) -> Result<(), DiskError> {
        self.change()?;
        match self.nodes.get_mut(&ino).ok_or(DiskError::NotFound)? {
            Node::File(file) => file.sync(),
            Node::Directory(directory) => {
                directory.durable = directory.current.clone();
                directory.pending.clear();
                self.free_nameless();
            }
        }
        Ok(())
    }

    fn used(&self) -> u64 {
        // Files without a name count until they are forgotten, as on a real disk while they are open.
        let pages = self.nodes.values().map(|node| if let Node::File(file) = node { file.current.pages.len() } else { 1 });
        pages.sum::<usize>() as u64 * PAGE
    }

    /// Tells that nobody has `ino` open any more: it is freed, unless a directory names it, now or after a cut.
    pub fn forget(&mut self, ino: Ino) {
        self.closed.insert(ino);
        self.free_nameless();
    }

    fn free_nameless(&mut self) {
        let is_named = |ino: &Ino| self.nodes.values().any(|node| matches!(node, Node::Directory(directory) if directory.names(*ino)));
        let nameless: Vec<Ino> = self.closed.iter().copied().filter(|ino| *ino != ROOT && !is_named(ino)).collect();
        for ino in nameless {
            self.closed.remove(&ino);
            self.nodes.remove(&ino);
        }
    }

    fn alive(&self) -> Result<(), DiskError> {
        if self.is_dead { Err(DiskError::Dead) } else { Ok(()) }
    }

    fn change(&mut self) -> Result<(), DiskError> {
        if self.cut_at.is_some_and(|cut| self.changes >= cut) {
            self.is_dead = true;
        }
        self.alive()?;
        self.changes += 1;
        Ok(())
    }

    fn directory(&self, ino: Ino) -> Result<&Directory, DiskError> {
        match self.nodes.get(&ino) {
            Some(Node::Directory(directory)) => Ok(directory),
            Some(Node::File(_)) => Err(DiskError::WrongKind),
            None => Err(DiskError::NotFound),
        }
    }

    fn directory_mut(&mut self, ino: Ino) -> Result<&mut Directory, DiskError> {
        match self.nodes.get_mut(&ino) {
            Some(Node::Directory(directory)) => Ok(directory),
            Some(Node::File(_)) => Err(DiskError::WrongKind),
            None => Err(DiskError::NotFound),
        }
    }

    fn file(&self, ino: Ino) -> Result<&File, DiskError> {
        match self.nodes.get(&ino) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Directory(_)) => Err(DiskError::WrongKind),
            None => Err(DiskError::NotFound),
        }
    }

    fn file_mut(&mut self, ino: Ino) -> Result<&mut File, DiskError> {
        match self.nodes.get_mut(&ino) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Directory(_)) => Err(DiskError::WrongKind),
            None => Err(DiskError::NotFound),
        }
    }
}

impl File {
    fn write(&mut self, offset: u64, data: &[u8]) {
        let (mut at, mut rest) = (offset, data);
        while !rest.is_empty() {
            let (number, within) = (at / PAGE, (at % PAGE) as usize);
            let (now, later) = rest.split_at(rest.len().min(PAGE as usize - within));
            let page: Page = if now.len() as u64 == PAGE {
                now.into()
            } else {
                let mut page = self.current.pages.get(&number).map_or_else(|| vec![0; PAGE as usize], |page| page.to_vec());
                page[within..within + now.len()].copy_from_slice(now);
                page.into()
            };
            self.current.pages.insert(number, page);
            self.dirty.insert(number);
            at += now.len() as u64;
            rest = later;
        }
        self.current.size = self.current.size.max(offset + data.len() as u64);
    }

    fn resize(&mut self, size: u64) {
        if size < self.current.size {
            let beyond = self.current.pages.split_off(&size.div_ceil(PAGE));
            self.dirty.extend(beyond.into_keys());
            let within = (size % PAGE) as usize;
            if within > 0
                && let Some(page) = self.current.pages.get_mut(&(size / PAGE))
            {
                let mut cut = page.to_vec();
                cut[within..].fill(0);
                *page = cut.into();
                self.dirty.insert(size / PAGE);
            }
        }
        self.current.size = size;
    }

    fn sync(&mut self) {
        for number in std::mem::take(&mut self.dirty) {
            self.durable.take(&self.current, number);
        }
        self.durable.size = self.current.size;
    }

    fn surviving(&self, luck: f64, random: &mut impl Rng) -> Content {
        let mut content = self.durable.clone();
        for number in &self.dirty {
            if random.random_bool(luck) {
                content.take(&self.current, *number);
            }
        }
        if random.random_bool(luck) {
            content.size = self.current.size;
        }
        // Pages beyond the size that was kept are not part of the file.
        content.pages.split_off(&content.size.div_ceil(PAGE));
        content
    }
}

impl Content {
    fn take(&mut self, from: &Content, number: u64) {
        match from.pages.get(&number) {
            Some(page) => self.pages.insert(number, page.clone()),
            None => self.pages.remove(&number),
        };
    }
}

impl Directory {
    fn names(&self, ino: Ino) -> bool {
        let pending = self.pending.iter().any(|change| matches!(change, Change::Link(_, linked) if *linked == ino));
        pending || self.current.values().chain(self.durable.values()).any(|named| *named == ino)
    }

    fn apply(&mut self, change: Change) {
        change.apply(&mut self.current);
        self.pending.push(change);
    }

    fn surviving(&self, luck: f64, random: &mut impl Rng) -> BTreeMap<OsString, Ino> {
        let mut entries = self.durable.clone();
        for change in &self.pending {
            if !random.random_bool(luck) {
                break;
            }
            change.apply(&mut entries);
        }
        entries
    }
}

impl Change {
    fn apply(&self, entries: &mut BTreeMap<OsString, Ino>) {
        match self {
            Change::Link(name, ino) => drop(entries.insert(name.clone(), *ino)),
            Change::Unlink(name) => drop(entries.remove(name)),
            Change::Rename(from, to) => {
                if let Some(ino) = entries.remove(from) {
                    entries.insert(to.clone(), ino);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    /// Runs a story of calls and shows the files a cut would leave: without luck, and with all of it.
    ///
    /// `create a`, `write a text`, `size a 2`, `sync a`, `sync /`, `move a b`, `remove a`.
    fn check(story: &str, without_luck: &str, with_luck: &str) {
        let mut disk = Disk::new(1 << 20);
        for step in story.split(", ") {
            let words: Vec<&str> = step.split(' ').collect();
            let ino = |disk: &mut Disk| disk.lookup(ROOT, words[1].as_ref()).expect("the story names what is there");
            let done = match words[0] {
                "create" => disk.create(ROOT, words[1].as_ref(), Kind::File).map(drop),
                "write" => {
                    let ino = ino(&mut disk);
                    let end = disk.attributes(ino).expect("is there").size;
                    disk.write(ino, end, words[2].as_bytes())
                }
                "size" => {
                    let ino = ino(&mut disk);
                    disk.resize(ino, words[2].parse().expect("a number"))
                }
                "sync" if words[1] == "/" => disk.sync(ROOT),
                "sync" => {
                    let ino = ino(&mut disk);
                    disk.sync(ino)
                }
                "move" => disk.rename((ROOT, words[1].as_ref()), (ROOT, words[2].as_ref())),
                _ => disk.remove(ROOT, words[1].as_ref(), Kind::File),
            };
            done.expect("the story goes on");
        }
        for (luck, expected) in [(0.0, without_luck), (1.0, with_luck)] {
            let left = disk.survivor(luck, &mut ChaCha8Rng::seed_from_u64(1));
            let files = left.entries(ROOT).expect("the root is there").into_iter().map(|(name, ino, _)| {
                let bytes = left.read(ino, 0, 100).expect("reads");
                format!("{}={}", name.to_string_lossy(), String::from_utf8_lossy(&bytes).replace('\0', "_"))
            });
            assert_eq!(files.collect::<Vec<_>>().join(" "), expected, "{story}, luck {luck}");
        }
    }

    #[test]
    fn only_what_was_synced_is_sure_to_survive() {
        check("create a, write a x", "", "a=x");
        check("create a, write a x, sync a", "", "a=x");
        check("create a, write a x, sync /", "a=", "a=x");
        check("create a, write a x, sync a, sync /, write a y", "a=x", "a=xy");
        check("create a, sync /, write a x, sync a, size a 3", "a=x", "a=x__");
        check("create a, sync /, write a xyz, sync a, size a 1", "a=xyz", "a=x");
        check("create a, write a x, sync a, sync /, move a b", "a=x", "b=x");
        check("create a, write a x, sync a, sync /, move a b, sync /", "b=x", "b=x");
        check("create a, write a x, sync a, sync /, remove a", "a=x", "");
        check("create a, write a x, sync a, sync /, create b, write b y, sync b, move b a", "a=x", "a=y");
    }

    #[test]
    fn the_power_goes_at_the_chosen_change_and_stays_off() {
        let mut disk = Disk::new(1 << 20);
        disk.cut_after(2);
        let ino = disk.create(ROOT, "a".as_ref(), Kind::File).expect("first change");
        disk.write(ino, 0, b"x").expect("second change");
        assert_eq!(disk.sync(ino), Err(DiskError::Dead));
        assert_eq!(disk.read(ino, 0, 1), Err(DiskError::Dead));
        assert!(disk.is_dead());
    }

    #[test]
    fn a_full_disk_takes_no_more() {
        let mut disk = Disk::new(3 * PAGE);
        let ino = disk.create(ROOT, "a".as_ref(), Kind::File).expect("creates");
        disk.write(ino, 0, &[1; 2 * PAGE as usize]).expect("fits beside the root");
        assert_eq!(disk.write(ino, 2 * PAGE, b"x"), Err(DiskError::Full));
        disk.write(ino, 0, b"over").expect("needs no new page");
        disk.remove(ROOT, "a".as_ref(), Kind::File).expect("removes");
        disk.forget(ino);
        assert_eq!(disk.space(), (3 * PAGE, 0), "a cut could bring its name back");
        disk.sync(ROOT).expect("syncs");
        assert_eq!(disk.space(), (3 * PAGE, 2 * PAGE));
    }
}
