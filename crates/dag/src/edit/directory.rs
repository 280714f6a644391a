//! Changing one directory, which turns into a hash trie and back by the rules of boxo's `DynamicDirectory`.

use super::trie::Trie;
use super::{EditError, Edited, Shelf, Steps, Stop};
use crate::export::{Entry, ExportError};
use crate::import::{CidForm, DirectoryOptions, DirectoryRoot, ImportError, NAME_MAX, SizeEstimate};
use crate::unixfs::{Kind, Stat, UnixFs};
use crate::{codec, pb};
use types::Cid;

/// A change to a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Puts an entry, also over one of its name.
    Put(Entry),
    /// Removes the entry of this name, which must be there.
    Remove(Vec<u8>),
}

/// Changes the directory under `root`. Of `options` the rules of size count; CIDs keep the form that the root has.
pub fn edit(root: Cid, changes: Vec<Change>, options: DirectoryOptions) -> Steps<Edited> {
    Steps::new(move |shelf| {
        let mut directory = Directory::open(&root, &options, shelf)?;
        directory.prefetch(&changes, shelf)?;
        for change in &changes {
            match change {
                Change::Put(entry) => directory.put(entry.clone(), shelf)?,
                Change::Remove(name) => drop(directory.remove(name, shelf)?),
            }
        }
        let root = directory.write(shelf)?;
        Ok(shelf.finish(root))
    })
}

/// Looks an entry up in the directory under `root`.
pub fn find(root: Cid, name: Vec<u8>) -> Steps<Option<Entry>> {
    let options = DirectoryOptions::default();
    Steps::new(move |shelf| Directory::open(&root, &options, shelf)?.find(&name, shelf))
}

/// A directory that is being changed.
pub(crate) struct Directory {
    options: DirectoryOptions,
    form: CidForm,
    pub stat: Stat,
    body: Body,
    /// What it was read from, as long as it is unchanged.
    stored: Option<DirectoryRoot>,
}

enum Body {
    Plain {
        /// By name.
        entries: Vec<Entry>,
        /// As the options count it.
        size: usize,
    },
    Trie {
        trie: Trie,
        /// By how much names and CIDs grew since it was read. boxo looks whether a trie became small only when this is negative.
        change: i64,
        /// How many links boxo believes there are: of a trie that was read those of its root.
        links: usize,
    },
}

impl Directory {
    /// A directory without entries.
    pub fn empty(form: CidForm, stat: Stat, options: &DirectoryOptions) -> Directory {
        let size = options.size_estimate.of_empty(stat);
        Directory { options: options.clone(), form, stat, body: Body::Plain { entries: Vec::new(), size }, stored: None }
    }

    /// Reads the root.
    pub fn open(cid: &Cid, options: &DirectoryOptions, shelf: &mut Shelf) -> Result<Directory, Stop> {
        let not_a_directory = || ExportError::NotADirectory { cid: Box::new(*cid) };
        if cid.codec() != codec::DAG_PB {
            return Err(not_a_directory().into());
        }
        let block = shelf.get(cid)?;
        let node = pb::Node::decode(&block).map_err(EditError::decode(cid))?;
        let unixfs = UnixFs::decode(node.data.unwrap_or_default()).map_err(EditError::decode(cid))?;
        let body = match unixfs.kind {
            Kind::Directory => Body::plain(node.links.iter().map(|link| link.into()).collect(), unixfs.stat, options),
            Kind::HamtShard => {
                let trie = Trie::open(cid, &block)?;
                let links = trie.root_links();
                Body::Trie { trie, change: 0, links }
            }
            _ => return Err(not_a_directory().into()),
        };
        let dag_size = node.links.iter().fold(block.len() as u64, |sum, link| sum.saturating_add(link.tsize));
        let stored = Some(DirectoryRoot { cid: *cid, dag_size });
        Ok(Directory { options: options.clone(), form: CidForm::of(cid), stat: unixfs.stat, body, stored })
    }

    /// Asks at once for all that the changes will read.
    pub fn prefetch(&mut self, changes: &[Change], shelf: &mut Shelf) -> Result<(), Stop> {
        let Body::Trie { trie, .. } = &mut self.body else { return Ok(()) };
        let mut is_whole = true;
        for change in changes {
            let name = match change {
                Change::Put(entry) => &entry.name,
                Change::Remove(name) => name,
            };
            match trie.find(name, shelf) {
                Ok(_) => {}
                Err(Stop::Missing) => is_whole = false,
                Err(failed) => return Err(failed),
            }
        }
        if is_whole { Ok(()) } else { Err(Stop::Missing) }
    }

    /// Looks an entry up.
    pub fn find(&mut self, name: &[u8], shelf: &mut Shelf) -> Result<Option<Entry>, Stop> {
        match &mut self.body {
            Body::Plain { entries, .. } => Ok(position(entries, name).ok().map(|at| entries[at].clone())),
            Body::Trie { trie, .. } => trie.find(name, shelf),
        }
    }

    /// Puts an entry, also over one of its name.
    pub fn put(&mut self, entry: Entry, shelf: &mut Shelf) -> Result<(), Stop> {
        if entry.name.len() > NAME_MAX || entry.name.is_empty() {
            return Err(ImportError::NameTooLong { length: entry.name.len() }.into());
        }
        let old = self.find(&entry.name, shelf)?;
        if old.as_ref() == Some(&entry) {
            return Ok(());
        }
        self.stored = None;
        if matches!(self.body, Body::Trie { .. }) {
            self.shrink_for(old.as_ref(), Some(&entry), shelf)?;
        } else if self.grows_too_large(old.as_ref(), &entry) {
            self.spread(shelf)?;
        }
        self.body.put(entry, old, self.options.size_estimate, shelf)
    }

    /// Removes an entry.
    pub fn remove(&mut self, name: &[u8], shelf: &mut Shelf) -> Result<Entry, Stop> {
        let found = self.find(name, shelf)?;
        let old = found.ok_or_else(|| EditError::NotFound(String::from_utf8_lossy(name).into_owned()))?;
        self.stored = None;
        self.shrink_for(Some(&old), None, shelf)?;
        match &mut self.body {
            Body::Plain { entries, size } => {
                let at = position(entries, name).map_err(|_| EditError::NotFound(String::from_utf8_lossy(name).into_owned()))?;
                *size = size.saturating_sub(self.options.size_estimate.of(&old, name.len()));
                entries.remove(at);
                // Doubles of a name, which only a broken writer leaves, go with it.
                entries.retain(|entry| entry.name != name);
            }
            Body::Trie { trie, change, links } => {
                trie.take(name, shelf)?;
                *change -= (trie.shape.prefix_length() + links_size(&old)) as i64;
                *links = links.saturating_sub(1);
            }
        }
        Ok(old)
    }

    /// Writes what changed.
    pub fn write(&mut self, shelf: &mut Shelf) -> Result<DirectoryRoot, Stop> {
        if let Some(stored) = self.stored {
            return Ok(stored);
        }
        let root = match &mut self.body {
            Body::Trie { trie, .. } => {
                trie.touch();
                trie.write(self.stat, shelf)?
            }
            Body::Plain { entries, .. } => {
                let message = UnixFs { stat: self.stat, ..UnixFs::new(Kind::Directory) }.encode();
                let link = |entry: &'_ Entry| -> pb::Link<'_> { pb::Link { cid: entry.cid, name: &[], tsize: entry.tsize } };
                let links: Vec<_> = entries.iter().map(|entry| pb::Link { name: &entry.name, ..link(entry) }).collect();
                let below = links.iter().fold(0u64, |sum, link| sum.saturating_add(link.tsize));
                shelf.make_node(self.form, pb::Node { links, data: Some(&message) }.encode(), below)?
            }
        };
        self.stored = Some(root);
        Ok(root)
    }

    fn grows_too_large(&self, old: Option<&Entry>, new: &Entry) -> bool {
        let Body::Plain { entries, size } = &self.body else { return false };
        let options = &self.options;
        let estimate = options.size_estimate;
        let less = old.map_or(0, |old| estimate.of(old, old.name.len()));
        let size = size.saturating_sub(less) + estimate.of(new, new.name.len());
        let is_wide = options.links_max > 0 && old.is_none() && entries.len() + 1 > options.links_max;
        let is_large = estimate != SizeEstimate::Disabled && size > options.sharding_size;
        options.sharding_size > 0 && (is_wide || is_large)
    }

    /// Turns a plain directory into a trie.
    fn spread(&mut self, shelf: &mut Shelf) -> Result<(), Stop> {
        let Body::Plain { entries, .. } = &mut self.body else { return Ok(()) };
        let links = entries.len();
        let mut trie = Trie::empty(self.options.shape, self.form);
        for entry in std::mem::take(entries) {
            trie.put(entry, shelf)?;
        }
        self.body = Body::Trie { trie, change: 0, links };
        Ok(())
    }

    /// Turns a trie into a plain directory if it will be small. boxo counts the name of the old entry with its slot, and that of the new one
    /// not at all; entries put over others are put twice there, which mends it for them.
    fn shrink_for(&mut self, old: Option<&Entry>, new: Option<&Entry>, shelf: &mut Shelf) -> Result<(), Stop> {
        let Body::Trie { trie, change, links } = &self.body else { return Ok(()) };
        let options = &self.options;
        if options.sharding_size == 0 {
            return Ok(());
        }
        let estimate = options.size_estimate;
        let links_after = links + usize::from(new.is_some()) - usize::from(old.is_some()).min(*links);
        let is_wide = options.links_max > 0 && links_after > options.links_max;
        let is_disabled = estimate == SizeEstimate::Disabled;
        let prefix = trie.shape.prefix_length();
        let less = old.map_or(0, |old| estimate.of(old, old.name.len() + prefix) as i64);
        let more = new.map_or(0, |new| estimate.of(new, if old.is_some() { new.name.len() + prefix } else { 0 }) as i64);
        let seen_change = new.map_or(0, |new| estimate.of(new, 0) as i64) - less;
        let is_asked = if is_disabled { options.links_max > 0 } else { change + seen_change < 0 };
        if is_wide || !is_asked {
            return Ok(());
        }
        let most = if is_disabled { i64::MAX } else { options.sharding_size as i64 };
        let mut size = estimate.of_empty(self.stat) as i64 + more - less;
        let entries = trie.entries(shelf, |entry| {
            size += estimate.of(entry, entry.name.len()) as i64;
            size <= most
        })?;
        if let Some(entries) = entries {
            self.body = Body::plain(entries, self.stat, options);
        }
        Ok(())
    }
}

impl Body {
    fn plain(mut entries: Vec<Entry>, stat: Stat, options: &DirectoryOptions) -> Body {
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let estimate = options.size_estimate;
        let size = entries.iter().map(|entry| estimate.of(entry, entry.name.len())).sum::<usize>();
        Body::Plain { entries, size: size + estimate.of_empty(stat) }
    }

    fn put(&mut self, new: Entry, old: Option<Entry>, estimate: SizeEstimate, shelf: &mut Shelf) -> Result<(), Stop> {
        match self {
            Body::Plain { entries, size } => {
                *size += estimate.of(&new, new.name.len());
                match position(entries, &new.name) {
                    Ok(at) => {
                        *size = size.saturating_sub(estimate.of(&entries[at], new.name.len()));
                        entries[at] = new;
                    }
                    Err(at) => entries.insert(at, new),
                }
            }
            Body::Trie { trie, change, links } => {
                *change += links_size(&new) as i64;
                match old {
                    Some(old) => *change -= (trie.shape.prefix_length() + links_size(&old)) as i64,
                    None => *links += 1,
                }
                trie.put(new, shelf)?;
            }
        }
        Ok(())
    }
}

impl SizeEstimate {
    fn of(self, entry: &Entry, name_length: usize) -> usize {
        self.of_entry(name_length, entry.cid.encoded_len(), entry.tsize)
    }
}

impl From<&pb::Link<'_>> for Entry {
    fn from(link: &pb::Link<'_>) -> Entry {
        Entry { name: link.name.to_vec(), cid: link.cid, tsize: link.tsize }
    }
}

fn links_size(entry: &Entry) -> usize {
    entry.name.len() + entry.cid.encoded_len()
}

fn position(entries: &[Entry], name: &[u8]) -> Result<usize, usize> {
    entries.binary_search_by(|entry| entry.name.as_slice().cmp(name))
}
