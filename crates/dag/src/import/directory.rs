//! One directory: entries in, one node or a hash trie out.

use super::ImportError;
use super::options::{CidForm, FileOptions, hand_out};
use crate::hamt::{MURMUR3, Shape, bit_field, hash_name};
use crate::pb::wire::{bytes_field_length, varint_length};
use crate::unixfs::{Kind, Stat, UnixFs};
use crate::{Block, HashFn, pb};
use cid::Version;
use types::Cid;

/// A directory whose names and CIDs take more bytes than this becomes a hash trie.
pub const SHARDING_SIZE: usize = 256 << 10;
/// The longest name; file systems stop at 255, and 256 names of a shard must fit into a block.
pub const NAME_MAX: usize = 4096;

/// How directories are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryOptions {
    /// The version of CIDs.
    pub cid_version: Version,
    /// The hash function; other than sha2-256 needs version 1.
    pub hash: HashFn,
    /// The size from which (and not at which) a directory becomes a trie, as `size_estimate` counts it. 0: never.
    pub sharding_size: usize,
    /// How the size is counted.
    pub size_estimate: SizeEstimate,
    /// With more entries than this a directory becomes a trie whatever its size (unless `sharding_size` is 0); 0: no such bound.
    pub links_max: usize,
    /// How wide the nodes of tries are.
    pub shape: Shape,
    /// Nodes of so many bytes and less live inside their CIDs; 0: none.
    pub inline_limit: usize,
}

/// How the size of a directory is counted to decide whether it becomes a trie. The names are those of Kubo's configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SizeEstimate {
    /// Names and CIDs (`links`).
    #[default]
    Links,
    /// The exact size of the block (`block`).
    Block,
    /// Not at all: only the number of entries counts (`disabled`).
    Disabled,
}

impl SizeEstimate {
    /// What one entry adds.
    pub(crate) fn of_entry(self, name_length: usize, cid_length: usize, tsize: u64) -> usize {
        match self {
            SizeEstimate::Links => name_length + cid_length,
            SizeEstimate::Block => {
                let link = bytes_field_length(cid_length) + bytes_field_length(name_length) + 1 + varint_length(tsize);
                bytes_field_length(link)
            }
            SizeEstimate::Disabled => 0,
        }
    }

    /// What there is without entries.
    pub(crate) fn of_empty(self, stat: Stat) -> usize {
        match self {
            SizeEstimate::Block => bytes_field_length(UnixFs { stat, ..UnixFs::new(Kind::Directory) }.encode().len()),
            SizeEstimate::Links | SizeEstimate::Disabled => 0,
        }
    }
}

impl Default for DirectoryOptions {
    fn default() -> DirectoryOptions {
        DirectoryOptions {
            cid_version: Version::V0,
            hash: HashFn::SHA2_256,
            sharding_size: SHARDING_SIZE,
            size_estimate: SizeEstimate::Links,
            links_max: 0,
            shape: Shape::DEFAULT,
            inline_limit: 0,
        }
    }
}

impl From<&FileOptions> for DirectoryOptions {
    /// The directories around files imported with `options`.
    fn from(options: &FileOptions) -> DirectoryOptions {
        DirectoryOptions::default().with_form(options.form())
    }
}

impl DirectoryOptions {
    /// How the CIDs of its blocks are made.
    pub fn form(&self) -> CidForm {
        CidForm { version: self.cid_version, hash: self.hash, inline_limit: self.inline_limit }
    }

    /// The same with CIDs of another form.
    pub fn with_form(self, form: CidForm) -> DirectoryOptions {
        DirectoryOptions { cid_version: form.version, hash: form.hash, inline_limit: form.inline_limit, ..self }
    }
}

/// A finished directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectoryRoot {
    /// The root.
    pub cid: Cid,
    /// Bytes of its blocks and of all content below.
    pub dag_size: u64,
}

/// Collects the entries of one directory in any order.
///
/// Memory: name, CID and 32 bytes for each entry.
pub struct DirectoryBuilder {
    options: DirectoryOptions,
    stat: Stat,
    entries: Vec<Entry>,
    /// Name and CID of each entry, one after the other.
    text: Vec<u8>,
    /// The size of the entries, as the options count it.
    size: usize,
}

struct Entry {
    start: usize,
    name_length: u32,
    cid_length: u32,
    tsize: u64,
}

impl DirectoryBuilder {
    /// An empty directory.
    pub fn new(options: DirectoryOptions) -> Result<DirectoryBuilder, ImportError> {
        options.form().check()?;
        Ok(DirectoryBuilder { options, stat: Stat::default(), entries: Vec::new(), text: Vec::new(), size: 0 })
    }

    /// Sets mode and time.
    pub fn set_stat(&mut self, stat: Stat) {
        self.stat = stat;
    }

    /// Adds an entry; `tsize` is the `dag_size` of what it points to. Two entries of one name are found at [`DirectoryBuilder::finish`].
    pub fn add(&mut self, name: &[u8], cid: &Cid, tsize: u64) -> Result<(), ImportError> {
        if name.len() > NAME_MAX {
            return Err(ImportError::NameTooLong { length: name.len() });
        }
        let start = self.text.len();
        self.text.extend_from_slice(name);
        pb::put_cid(&mut self.text, cid);
        let cid_length = (self.text.len() - start - name.len()) as u32;
        self.size += self.options.size_estimate.of_entry(name.len(), cid_length as usize, tsize);
        self.entries.push(Entry { start, name_length: name.len() as u32, cid_length, tsize });
        Ok(())
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether it is so large that it becomes a trie.
    pub fn is_sharded(&self) -> bool {
        let options = &self.options;
        let is_wide = options.links_max > 0 && self.entries.len() > options.links_max;
        let size = self.size + options.size_estimate.of_empty(self.stat);
        options.sharding_size > 0 && (is_wide || size > options.sharding_size)
    }

    /// Writes the directory; the root comes out last.
    pub fn finish(mut self, out: &mut impl FnMut(Block)) -> Result<DirectoryRoot, ImportError> {
        self.sort()?;
        if self.is_sharded() { self.write_trie(out) } else { self.write_plain(out) }
    }

    fn sort(&mut self) -> Result<(), ImportError> {
        let text = &self.text;
        self.entries.sort_unstable_by(|a, b| a.name(text).cmp(b.name(text)));
        let twin = self.entries.windows(2).find(|pair| pair[0].name(text) == pair[1].name(text));
        twin.map_or(Ok(()), |pair| Err(ImportError::Duplicate(String::from_utf8_lossy(pair[0].name(text)).into_owned())))
    }

    fn write_plain(&self, out: &mut impl FnMut(Block)) -> Result<DirectoryRoot, ImportError> {
        let message = UnixFs { stat: self.stat, ..UnixFs::new(Kind::Directory) }.encode();
        let links: Vec<_> = self.entries.iter().map(|entry| entry.link(&self.text)).collect();
        self.write_node(links, &message, out)
    }

    fn write_trie(&self, out: &mut impl FnMut(Block)) -> Result<DirectoryRoot, ImportError> {
        let mut hashed: Vec<_> = self.entries.iter().map(|entry| (hash_name(entry.name(&self.text)), entry)).collect();
        hashed.sort_by_key(|(hash, _)| *hash);
        self.write_shard(&hashed, 0, out)
    }

    /// Writes the shard of `hashed`, which agree in all bits above `depth`. Goes no deeper than a hash has bits.
    fn write_shard(&self, hashed: &[(u64, &Entry)], depth: u32, out: &mut impl FnMut(Block)) -> Result<DirectoryRoot, ImportError> {
        let shape = self.options.shape;
        let mut children = Vec::with_capacity(hashed.len().min(shape.width()));
        for group in hashed.chunk_by(|(a, _), (b, _)| shape.slot(*a, depth) == shape.slot(*b, depth)) {
            let slot = shape.slot(group[0].0, depth).ok_or(ImportError::TooDeep)?;
            let child = match group {
                [(_, entry)] => ShardChild::Entry(slot, entry),
                several => ShardChild::Shard(slot, self.write_shard(several, depth + 1, out)?),
            };
            children.push(child);
        }
        let names: Vec<Vec<u8>> = children.iter().map(|child| child.link_name(shape, &self.text)).collect();
        let links = children.iter().zip(&names).map(|(child, name)| child.link(name, &self.text)).collect();
        let field = bit_field(children.iter().map(ShardChild::slot), shape);
        let stat = if depth == 0 { self.stat } else { Stat::default() };
        let fanout = Some(shape.width() as u64);
        let message = UnixFs { data: Some(&field), hash_type: Some(MURMUR3), fanout, stat, ..UnixFs::new(Kind::HamtShard) }.encode();
        self.write_node(links, &message, out)
    }

    fn write_node(&self, links: Vec<pb::Link<'_>>, message: &[u8], out: &mut impl FnMut(Block)) -> Result<DirectoryRoot, ImportError> {
        let below = links.iter().fold(0u64, |sum, link| sum.saturating_add(link.tsize));
        let node = pb::Node { links, data: Some(message) }.encode();
        let dag_size = below.saturating_add(node.len() as u64);
        let block = self.options.form().node(node)?;
        let cid = block.cid;
        hand_out(block, out);
        Ok(DirectoryRoot { cid, dag_size })
    }
}

impl Entry {
    fn name<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        &text[self.start..self.start + self.name_length as usize]
    }

    fn cid(&self, text: &[u8]) -> Cid {
        let start = self.start + self.name_length as usize;
        pb::read_cid(&text[start..start + self.cid_length as usize]).expect("written by `add`")
    }

    fn link<'a>(&self, text: &'a [u8]) -> pb::Link<'a> {
        pb::Link { cid: self.cid(text), name: self.name(text), tsize: self.tsize }
    }
}

/// What fills a slot of a shard.
enum ShardChild<'e> {
    Entry(usize, &'e Entry),
    Shard(usize, DirectoryRoot),
}

impl ShardChild<'_> {
    fn slot(&self) -> usize {
        match self {
            ShardChild::Entry(slot, _) | ShardChild::Shard(slot, _) => *slot,
        }
    }

    fn link_name(&self, shape: Shape, text: &[u8]) -> Vec<u8> {
        let mut name = shape.prefix(self.slot());
        if let ShardChild::Entry(_, entry) = self {
            name.extend_from_slice(entry.name(text));
        }
        name
    }

    fn link<'a>(&self, name: &'a [u8], text: &[u8]) -> pb::Link<'a> {
        match self {
            ShardChild::Entry(_, entry) => pb::Link { cid: entry.cid(text), name, tsize: entry.tsize },
            ShardChild::Shard(_, shard) => pb::Link { cid: shard.cid, name, tsize: shard.dag_size },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;
    use bytes::Bytes;

    fn leaf() -> Cid {
        Block::new(codec::RAW, HashFn::SHA2_256, Bytes::from_static(b"leaf")).expect("known").cid
    }

    fn directory(names: impl Iterator<Item = String>) -> DirectoryBuilder {
        let mut directory = DirectoryBuilder::new(DirectoryOptions::default()).expect("v0");
        for name in names {
            directory.add(name.as_bytes(), &leaf(), 4).expect("short");
        }
        directory
    }

    #[test]
    fn the_order_of_entries_does_not_matter() {
        for count in [10, 8000] {
            let forth = directory((0..count).map(|n| format!("name {n}"))).finish(&mut |_| ()).expect("fits");
            let back = directory((0..count).rev().map(|n| format!("name {n}"))).finish(&mut |_| ()).expect("fits");
            assert_eq!(forth, back);
        }
    }

    #[test]
    fn it_becomes_a_trie_above_the_threshold_and_not_at_it() {
        // 28 bytes of name and 36 of CID: 4,096 entries are 256 KiB.
        let at = directory((0..4096).map(|n| format!("{n:028}")));
        assert!(!at.is_sharded());
        let above = directory((0..4097).map(|n| format!("{n:028}")));
        assert!(above.is_sharded());
        let mut blocks = 0;
        above.finish(&mut |_| blocks += 1).expect("fits");
        assert!(blocks > 256, "{blocks}");
    }

    #[test]
    fn two_entries_of_one_name_are_refused() {
        let twins = directory(["a", "b", "a"].into_iter().map(str::to_owned));
        assert_eq!(twins.finish(&mut |_| ()), Err(ImportError::Duplicate("a".to_owned())));
    }

    #[test]
    fn endless_names_are_refused() {
        let mut directory = directory([].into_iter());
        let name = vec![b'x'; NAME_MAX + 1];
        assert_eq!(directory.add(&name, &leaf(), 0), Err(ImportError::NameTooLong { length: NAME_MAX + 1 }));
    }
}
