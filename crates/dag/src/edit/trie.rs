//! A hash trie that is loaded shard by shard, changed in memory and written once.

use super::{EditError, Shelf, Stop};
use crate::export::{Entry, check_shard};
use crate::hamt::{MURMUR3, Shape, bit_field, hash_name};
use crate::import::{CidForm, DirectoryRoot, ImportError};
use crate::pb;
use crate::unixfs::{Kind, Stat, UnixFs};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use types::Cid;

/// Shards asked for at a time when all entries are wanted.
const WINDOW: usize = 32;
/// Shards that wait to be read for all entries; with two entries in each, as it must be, so many hold more than any threshold.
const STUBS_MAX: usize = 1 << 16;

/// The entries of a large directory, by the hashes of their names.
pub(super) struct Trie {
    pub shape: Shape,
    root: Shard,
}

struct Shard {
    form: CidForm,
    slots: BTreeMap<usize, Slot>,
    /// What it was read from, as long as it is unchanged.
    stored: Option<DirectoryRoot>,
}

enum Slot {
    Entry(Entry),
    /// A shard that was not read.
    Stub(DirectoryRoot),
    Shard(Box<Shard>),
}

impl Trie {
    /// A trie without entries.
    pub fn empty(shape: Shape, form: CidForm) -> Trie {
        Trie { shape, root: Shard::empty(form) }
    }

    /// Reads the root; other shards are read when they are wanted.
    pub fn open(cid: &Cid, block: &Bytes) -> Result<Trie, Stop> {
        let node = pb::Node::decode(block).map_err(EditError::decode(cid))?;
        let unixfs = UnixFs::decode(node.data.unwrap_or_default()).map_err(EditError::decode(cid))?;
        let shape = Shape::of(&unixfs).map_err(EditError::decode(cid))?;
        let dag_size = node.links.iter().fold(block.len() as u64, |sum, link| sum.saturating_add(link.tsize));
        let root = Shard::open(&DirectoryRoot { cid: *cid, dag_size }, block, shape, 0)?;
        Ok(Trie { shape, root })
    }

    /// How many slots of the root are taken.
    pub fn root_links(&self) -> usize {
        self.root.slots.len()
    }

    /// Looks an entry up.
    pub fn find(&mut self, name: &[u8], shelf: &mut Shelf) -> Result<Option<Entry>, Stop> {
        let (hash, shape) = (hash_name(name), self.shape);
        let mut shard = &mut self.root;
        for depth in 0.. {
            let slot = shape.slot(hash, depth).ok_or(ImportError::TooDeep)?;
            match shard.slots.get_mut(&slot) {
                None => return Ok(None),
                Some(Slot::Entry(entry)) => return Ok((entry.name == name).then(|| entry.clone())),
                Some(below) => shard = below.load(shape, depth + 1, shelf)?,
            }
        }
        Ok(None)
    }

    /// Puts an entry, also over one of its name. Its way must have been loaded by [`Trie::find`].
    pub fn put(&mut self, entry: Entry, shelf: &mut Shelf) -> Result<(), Stop> {
        let hash = hash_name(&entry.name);
        self.root.put(hash, entry, self.shape, 0, shelf)
    }

    /// Takes an entry out; a shard left with a single entry gives it to the one above.
    pub fn take(&mut self, name: &[u8], shelf: &mut Shelf) -> Result<Option<Entry>, Stop> {
        self.root.take(hash_name(name), name, self.shape, 0, shelf)
    }

    /// All entries, unless `goes_on` says no to one of them. What is read for it is not kept.
    pub fn entries(&self, shelf: &mut Shelf, mut goes_on: impl FnMut(&Entry) -> bool) -> Result<Option<Vec<Entry>>, Stop> {
        let mut entries = Vec::new();
        // The highest first: they hold the most entries.
        let mut stubs = VecDeque::new();
        if !self.root.collect(0, &mut entries, &mut stubs, &mut goes_on) {
            return Ok(None);
        }
        while !stubs.is_empty() {
            if stubs.len() > STUBS_MAX {
                return Ok(None);
            }
            shelf.get_all(stubs.iter().take(WINDOW).map(|(stub, _): &(DirectoryRoot, u32)| &stub.cid))?;
            for _ in 0..WINDOW {
                let Some((stub, depth)) = stubs.pop_front() else { break };
                let shard = Shard::open(&stub, &shelf.get(&stub.cid)?, self.shape, depth)?;
                if !shard.collect(depth, &mut entries, &mut stubs, &mut goes_on) {
                    return Ok(None);
                }
            }
        }
        Ok(Some(entries))
    }

    /// Writes what changed.
    pub fn write(&mut self, stat: Stat, shelf: &mut Shelf) -> Result<DirectoryRoot, Stop> {
        self.root.write(stat, self.shape, shelf)
    }

    /// The root has to be written again.
    pub fn touch(&mut self) {
        self.root.stored = None;
    }
}

impl Slot {
    fn load(&mut self, shape: Shape, depth: u32, shelf: &mut Shelf) -> Result<&mut Shard, Stop> {
        if let Slot::Stub(stub) = self {
            let shard = Shard::open(stub, &shelf.get(&stub.cid)?, shape, depth)?;
            *self = Slot::Shard(Box::new(shard));
        }
        match self {
            Slot::Shard(shard) => Ok(shard),
            Slot::Entry(_) | Slot::Stub(_) => unreachable!("entries are told apart before, stubs were just loaded"),
        }
    }
}

impl Shard {
    fn empty(form: CidForm) -> Shard {
        Shard { form, slots: BTreeMap::new(), stored: None }
    }

    fn open(stored: &DirectoryRoot, block: &Bytes, shape: Shape, depth: u32) -> Result<Shard, Stop> {
        const WHAT: &str = "directory shard";
        let cid = &stored.cid;
        let node = pb::Node::decode(block).map_err(EditError::decode(cid))?;
        let unixfs = UnixFs::decode(node.data.unwrap_or_default()).map_err(EditError::decode(cid))?;
        let own = Shape::of(&unixfs).map_err(EditError::decode(cid))?;
        check_shard(cid, &node, own, shape, depth)?;
        let mut slots = BTreeMap::new();
        for link in &node.links {
            let split = link.name.split_at_checked(shape.prefix_length());
            let (prefix, name) = split.ok_or_else(|| EditError::malformed(cid, WHAT, "name without its slot"))?;
            let slot = std::str::from_utf8(prefix).ok().and_then(|prefix| usize::from_str_radix(prefix, 16).ok());
            let slot = slot.filter(|slot| *slot < shape.width());
            let slot = slot.ok_or_else(|| EditError::malformed(cid, WHAT, "slot that does not exist"))?;
            let child = if name.is_empty() {
                Slot::Stub(DirectoryRoot { cid: link.cid, dag_size: link.tsize })
            } else {
                Slot::Entry(Entry { name: name.to_vec(), cid: link.cid, tsize: link.tsize })
            };
            if slots.insert(slot, child).is_some() {
                return Err(EditError::malformed(cid, WHAT, "slot taken twice").into());
            }
        }
        Ok(Shard { form: CidForm::of(cid), slots, stored: Some(*stored) })
    }

    fn put(&mut self, hash: u64, entry: Entry, shape: Shape, depth: u32, shelf: &mut Shelf) -> Result<(), Stop> {
        let slot = shape.slot(hash, depth).ok_or(ImportError::TooDeep)?;
        let form = self.form;
        match self.slots.get_mut(&slot) {
            Some(Slot::Entry(old)) if old.name != entry.name => {
                let mut below = Shard::empty(form);
                let old = old.clone();
                below.put(hash_name(&old.name), old, shape, depth + 1, shelf)?;
                below.put(hash, entry, shape, depth + 1, shelf)?;
                self.slots.insert(slot, Slot::Shard(Box::new(below)));
            }
            None | Some(Slot::Entry(_)) => drop(self.slots.insert(slot, Slot::Entry(entry))),
            Some(below) => below.load(shape, depth + 1, shelf)?.put(hash, entry, shape, depth + 1, shelf)?,
        }
        self.stored = None;
        Ok(())
    }

    fn take(&mut self, hash: u64, name: &[u8], shape: Shape, depth: u32, shelf: &mut Shelf) -> Result<Option<Entry>, Stop> {
        let slot = shape.slot(hash, depth).ok_or(ImportError::TooDeep)?;
        let taken = match self.slots.get_mut(&slot) {
            None => None,
            Some(Slot::Entry(entry)) if entry.name != name => None,
            Some(Slot::Entry(_)) => match self.slots.remove(&slot) {
                Some(Slot::Entry(entry)) => Some(entry),
                _ => None,
            },
            Some(below) => {
                let shard = below.load(shape, depth + 1, shelf)?;
                let taken = shard.take(hash, name, shape, depth + 1, shelf)?;
                if taken.is_some() {
                    match shard.only_entry() {
                        Some(entry) => *below = Slot::Entry(entry),
                        None if shard.slots.is_empty() => drop(self.slots.remove(&slot)),
                        None => {}
                    }
                }
                taken
            }
        };
        if taken.is_some() {
            self.stored = None;
        }
        Ok(taken)
    }

    fn only_entry(&mut self) -> Option<Entry> {
        match self.slots.first_key_value() {
            Some((_, Slot::Entry(entry))) if self.slots.len() == 1 => Some(entry.clone()),
            _ => None,
        }
    }

    fn collect(
        &self,
        depth: u32,
        entries: &mut Vec<Entry>,
        stubs: &mut VecDeque<(DirectoryRoot, u32)>,
        goes_on: &mut impl FnMut(&Entry) -> bool,
    ) -> bool {
        self.slots.values().all(|slot| match slot {
            Slot::Entry(entry) => {
                entries.push(entry.clone());
                goes_on(entry)
            }
            Slot::Stub(stub) => {
                stubs.push_back((*stub, depth + 1));
                true
            }
            Slot::Shard(shard) => shard.collect(depth + 1, entries, stubs, goes_on),
        })
    }

    fn write(&mut self, stat: Stat, shape: Shape, shelf: &mut Shelf) -> Result<DirectoryRoot, Stop> {
        if let Some(stored) = self.stored {
            return Ok(stored);
        }
        let mut children = Vec::with_capacity(self.slots.len());
        for (slot, child) in &mut self.slots {
            let mut name = shape.prefix(*slot);
            children.push(match child {
                Slot::Entry(entry) => {
                    name.extend_from_slice(&entry.name);
                    (name, entry.cid, entry.tsize)
                }
                Slot::Stub(stub) => (name, stub.cid, stub.dag_size),
                Slot::Shard(shard) => {
                    let root = shard.write(Stat::default(), shape, shelf)?;
                    (name, root.cid, root.dag_size)
                }
            });
        }
        let field = bit_field(self.slots.keys().copied(), shape);
        let fanout = Some(shape.width() as u64);
        let message = UnixFs { data: Some(&field), hash_type: Some(MURMUR3), fanout, stat, ..UnixFs::new(Kind::HamtShard) }.encode();
        let links: Vec<_> = children.iter().map(|(name, cid, tsize)| pb::Link { cid: *cid, name, tsize: *tsize }).collect();
        let below = links.iter().fold(0u64, |sum, link| sum.saturating_add(link.tsize));
        let root = shelf.make_node(self.form, pb::Node { links, data: Some(&message) }.encode(), below)?;
        self.stored = Some(root);
        Ok(root)
    }
}
