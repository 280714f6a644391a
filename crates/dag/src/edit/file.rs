//! Changing one file: writing anywhere, cutting, growing with zeros, by the rules of boxo's `DagModifier`.
//!
//! What is overwritten keeps its chunks, what is appended is cut anew and hung on as in the trickle layout. Content decides where boxo errs:
//! - A file that has bytes in its root and more below (a small file of version 0 that was appended to) is changed at the right place; boxo counts
//!   from the first link, and writes elsewhere.
//! - Such a file never becomes its only raw leaf; boxo drops the bytes of the root.
//! - A root wider than the width of new nodes, whose last child is a raw leaf, can be appended to; boxo refuses.

use super::trickle::{Source, append};
use super::{EditError, Edited, Shelf, Steps, Stop};
use crate::chunk::{Chunker, Cutter};
use crate::export::ExportError;
use crate::import::{Child, CidForm, DirectoryRoot, WIDTH};
use crate::unixfs::{Kind, Mtime, Stat, UnixFs, leaf_block};
use crate::{codec, pb};
use bytes::Bytes;
use types::Cid;

/// What `ipfs files write` hands over at once: its buffer of 2 MiB and the read of 32 KiB that makes it overflow. Longer data is cut there, and the
/// cut is a chunk's end. A caller that writes in pieces of a multiple of the chunk size has no short chunks in between.
pub const WRITE_SPAN: usize = (2 << 20) + (32 << 10);
/// Levels of a file.
pub(super) const DEPTH_MAX: u32 = 64;

/// A change to a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileChange {
    /// Writes `data` from `offset` on; a gap before it becomes zeros. All data is in memory at once: write long files in pieces.
    Write {
        /// Where it begins.
        offset: u64,
        /// The bytes.
        data: Bytes,
    },
    /// Cuts the file, or lengthens it with zeros.
    Truncate(u64),
}

/// How files are changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEditOptions {
    /// How what is appended is cut.
    pub chunker: Chunker,
    /// Whether new leaves are plain bytes; `None`: if the file's CID has version 1.
    pub raw_leaves: Option<bool>,
    /// Links of a new inner node. Kubo takes [`WIDTH`] whatever its configuration.
    pub width: usize,
    /// The time to put into files that have one.
    pub now: Option<Mtime>,
}

impl Default for FileEditOptions {
    fn default() -> FileEditOptions {
        FileEditOptions { chunker: Chunker::default(), raw_leaves: None, width: WIDTH, now: None }
    }
}

/// Changes the file under `root`.
pub fn edit(root: Cid, change: FileChange, options: FileEditOptions) -> Steps<Edited> {
    Steps::new(move |shelf| {
        let child = change_file(&root, std::iter::once(change.clone()), &options, shelf)?;
        Ok(shelf.finish(DirectoryRoot { cid: child.cid, dag_size: child.dag_size }))
    })
}

/// How new parts of a file are made.
pub(super) struct Form {
    pub nodes: CidForm,
    pub raw_leaves: bool,
    pub width: usize,
}

impl Form {
    pub fn leaf(&self, chunk: Bytes, shelf: &mut Shelf) -> Result<Child, Stop> {
        let file_size = chunk.len() as u64;
        let root = if self.raw_leaves {
            shelf.make_raw(self.nodes, chunk)?
        } else {
            shelf.make_node(self.nodes, leaf_block(Kind::Raw, &chunk, Stat::default()), 0)?
        };
        Ok(Child { cid: root.cid, file_size, dag_size: root.dag_size })
    }
}

impl Child {
    pub(super) fn is_raw(&self) -> bool {
        self.cid.codec() == codec::RAW
    }
}

/// A node of a file, taken apart.
pub(super) struct FileNode {
    form: CidForm,
    /// `None` for a leaf of plain bytes.
    kind: Option<Kind>,
    data: Option<Bytes>,
    pub children: Vec<Child>,
    stat: Stat,
}

/// Makes changes below a root, one after the other.
pub(crate) fn change_file(
    root: &Cid,
    changes: impl Iterator<Item = FileChange>,
    options: &FileEditOptions,
    shelf: &mut Shelf,
) -> Result<Child, Stop> {
    let raw_leaves = options.raw_leaves.unwrap_or(root.version() == cid::Version::V1);
    let form = Form { nodes: CidForm::of(root), raw_leaves, width: options.width.max(2) };
    let mut node = FileNode::open(root, shelf)?;
    for change in changes {
        node = match change {
            FileChange::Truncate(size) => node.resize(size, &form, shelf)?,
            FileChange::Write { offset, data } => node.write_at(offset, data, options.chunker, &form, shelf)?,
        };
    }
    if node.stat.mtime.is_some() && options.now.is_some() {
        node.stat.mtime = options.now;
    }
    if let Some(only) = node.only_raw_leaf(&form) {
        return Ok(only);
    }
    node.write(shelf)
}

fn check_end(end: u64) -> Result<(), EditError> {
    if end > i64::MAX as u64 { Err(EditError::TooLong(end)) } else { Ok(()) }
}

/// Sets mode and time of the file, directory or symlink under a root, as `ipfs files chmod` and `touch` do: a raw leaf becomes a node of version 0.
pub(crate) fn set_stat(root: &Cid, stat: Stat, shelf: &mut Shelf) -> Result<DirectoryRoot, Stop> {
    let block = shelf.get(root)?;
    let changed = |old: Stat| Stat { mode: stat.mode.or(old.mode), mtime: stat.mtime.or(old.mtime) };
    if root.codec() == codec::RAW {
        let form = CidForm { version: cid::Version::V0, hash: crate::HashFn::SHA2_256, inline_limit: 0 };
        return shelf.make_node(form, leaf_block(Kind::File, &block, changed(Stat::default())), 0);
    }
    let node = pb::Node::decode(&block).map_err(EditError::decode(root))?;
    let mut message = UnixFs::decode(node.data.unwrap_or_default()).map_err(EditError::decode(root))?;
    message.stat = changed(message.stat);
    let below = node.links.iter().fold(0u64, |sum, link| sum.saturating_add(link.tsize));
    let message = message.encode();
    shelf.make_node(CidForm::of(root), pb::Node { links: node.links, data: Some(&message) }.encode(), below)
}

fn cut_all(data: Bytes, chunker: Chunker) -> std::collections::VecDeque<Bytes> {
    let mut cutter = Cutter::new(chunker);
    cutter.push(data);
    let mut chunks: std::collections::VecDeque<Bytes> = std::iter::from_fn(|| cutter.cut()).collect();
    chunks.extend(std::iter::from_fn(|| cutter.finish()));
    chunks
}

impl FileNode {
    /// An inner node without children.
    pub fn empty(form: CidForm) -> FileNode {
        FileNode { form, kind: Some(Kind::File), data: None, children: Vec::new(), stat: Stat::default() }
    }

    /// Reads a node.
    pub fn open(cid: &Cid, shelf: &mut Shelf) -> Result<FileNode, Stop> {
        let block = shelf.get(cid)?;
        let form = CidForm::of(cid);
        match cid.codec() {
            codec::RAW => Ok(FileNode { form, kind: None, data: Some(block), children: Vec::new(), stat: Stat::default() }),
            codec::DAG_PB => FileNode::open_pb(cid, form, &block),
            codec => Err(ExportError::Codec { cid: Box::new(*cid), codec }.into()),
        }
    }

    fn open_pb(cid: &Cid, form: CidForm, block: &Bytes) -> Result<FileNode, Stop> {
        let node = pb::Node::decode(block).map_err(EditError::decode(cid))?;
        let message = UnixFs::decode(node.data.unwrap_or_default()).map_err(EditError::decode(cid))?;
        if !matches!(message.kind, Kind::File | Kind::Raw) {
            return Err(ExportError::NotAFile { cid: Box::new(*cid), kind: message.kind }.into());
        }
        if message.blocksizes.len() != node.links.len() {
            return Err(EditError::malformed(cid, "file", "not as many sizes as links").into());
        }
        let data = message.data.map(|data| block.slice_ref(data));
        let own = data.as_ref().map_or(0, Bytes::len) as u64;
        let sum = message.blocksizes.iter().try_fold(own, |sum, size| sum.checked_add(*size));
        if sum.is_none_or(|sum| sum > i64::MAX as u64) {
            return Err(EditError::malformed(cid, "file", "sizes beyond 63 bits").into());
        }
        let child = |(link, file_size): (&pb::Link<'_>, &u64)| Child { cid: link.cid, file_size: *file_size, dag_size: link.tsize };
        let children = node.links.iter().zip(&message.blocksizes).map(child).collect();
        Ok(FileNode { form, kind: Some(message.kind), data, children, stat: message.stat })
    }

    fn own_size(&self) -> u64 {
        self.data.as_ref().map_or(0, Bytes::len) as u64
    }

    fn size(&self) -> u64 {
        self.own_size() + self.children.iter().map(|child| child.file_size).sum::<u64>()
    }

    fn resize(self, wanted: u64, form: &Form, shelf: &mut Shelf) -> Result<FileNode, Stop> {
        check_end(wanted)?;
        let size = self.size();
        match wanted.checked_sub(size) {
            Some(0) => Ok(self),
            Some(more) => self.grow(Source::zeros(form, more), form, shelf),
            None => {
                self.ask_for(wanted..wanted + 1, 0, shelf)?;
                self.cut(wanted, shelf)
            }
        }
    }

    fn write_at(mut self, offset: u64, mut data: Bytes, chunker: Chunker, form: &Form, shelf: &mut Shelf) -> Result<FileNode, Stop> {
        let end = offset.saturating_add(data.len() as u64);
        check_end(end)?;
        let size = self.size();
        self.ask_for(offset..end, 0, shelf)?;
        if offset > size {
            self = self.grow(Source::zeros(form, offset - size), form, shelf)?;
        }
        self.overwrite(offset, &mut data, shelf)?;
        if data.is_empty() {
            return Ok(self);
        }
        self.grow(Source::chunks(form, cut_all(data, chunker)), form, shelf)
    }

    /// Writes the node.
    pub fn write(&self, shelf: &mut Shelf) -> Result<Child, Stop> {
        let file_size = self.size();
        let Some(kind) = self.kind else {
            let root = shelf.make_raw(self.form, self.data.clone().unwrap_or_default())?;
            return Ok(Child { cid: root.cid, file_size, dag_size: root.dag_size });
        };
        let blocksizes = self.children.iter().map(|child| child.file_size).collect();
        let data = self.data.as_deref();
        let message = UnixFs { data, filesize: Some(file_size), blocksizes, stat: self.stat, ..UnixFs::new(kind) }.encode();
        let links = self.children.iter().map(|child| pb::Link { cid: child.cid, name: b"", tsize: child.dag_size }).collect();
        let below = self.children.iter().fold(0u64, |sum, child| sum.saturating_add(child.dag_size));
        let root = shelf.make_node(self.form, pb::Node { links, data: Some(&message) }.encode(), below)?;
        Ok(Child { cid: root.cid, file_size, dag_size: root.dag_size })
    }

    /// Asks for all nodes below that hold bytes of `range`, many at a time, so that the work after it runs once.
    fn ask_for(&self, range: std::ops::Range<u64>, depth: u32, shelf: &mut Shelf) -> Result<(), Stop> {
        let mut is_whole = true;
        let mut start = self.own_size();
        for child in &self.children {
            let end = start + child.file_size;
            if start < range.end && range.start < end {
                is_whole &= child.ask_for(range.start.saturating_sub(start)..range.end - start, depth, shelf)?;
            }
            start = end;
        }
        if is_whole { Ok(()) } else { Err(Stop::Missing) }
    }

    /// Writes over bytes that are there; what does not fit is left in `data`.
    fn overwrite(&mut self, offset: u64, data: &mut Bytes, shelf: &mut Shelf) -> Result<(), Stop> {
        let own = self.own_size();
        if let Some(held) = self.data.as_ref().filter(|_| offset < own && !data.is_empty()) {
            let from = offset as usize;
            let part = data.split_to(data.len().min(held.len() - from));
            let mut changed = held.to_vec();
            changed[from..from + part.len()].copy_from_slice(&part);
            self.data = Some(changed.into());
        }
        let mut start = own;
        let mut offset = offset.max(own);
        for child in &mut self.children {
            let end = start + child.file_size;
            if offset < end && !data.is_empty() {
                let mut node = FileNode::open_checked(child, shelf)?;
                node.overwrite(offset - start, data, shelf)?;
                // The size of what is below stays as it was written, as in boxo; it differs only if a CID got another length.
                child.cid = node.write(shelf)?.cid;
                offset = end;
            }
            start = end;
        }
        Ok(())
    }

    /// Cuts off what is beyond `size`. As in boxo, a cut leaf that is no raw one gets a CID of version 0, and a cut at the end of a chunk leaves an
    /// empty one after it.
    fn cut(mut self, size: u64, shelf: &mut Shelf) -> Result<FileNode, Stop> {
        let own = self.own_size();
        if self.children.is_empty() || size < own {
            let kept = usize::try_from(size.min(own)).unwrap_or(usize::MAX);
            self.data = self.data.map(|data| data.slice(..kept.min(data.len())));
            self.children.clear();
            if self.kind.is_some() {
                self.form = CidForm { version: cid::Version::V0, hash: crate::HashFn::SHA2_256, inline_limit: 0 };
            }
            return Ok(self);
        }
        let mut start = own;
        for at in 0..self.children.len() {
            let child = self.children[at];
            if size < start + child.file_size {
                let cut = FileNode::open_checked(&child, shelf)?.cut(size - start, shelf)?;
                self.children.truncate(at);
                self.children.push(cut.write(shelf)?);
                break;
            }
            start += child.file_size;
        }
        Ok(self)
    }

    /// Appends; a leaf of plain bytes becomes the first child of a node.
    fn grow(self, mut source: Source<'_>, form: &Form, shelf: &mut Shelf) -> Result<FileNode, Stop> {
        let mut root = match self.kind {
            Some(_) => self,
            None => FileNode { children: vec![self.write(shelf)?], ..FileNode::empty(form.nodes) },
        };
        append(&mut root, &mut source, shelf)?;
        Ok(root)
    }

    /// The only child, if it can stand for the file: this is what `ipfs add` makes of a short file.
    fn only_raw_leaf(&self, form: &Form) -> Option<Child> {
        match self.children[..] {
            [only] if form.raw_leaves && only.is_raw() && self.own_size() == 0 && self.stat.is_empty() => Some(only),
            _ => None,
        }
    }

    fn open_checked(child: &Child, shelf: &mut Shelf) -> Result<FileNode, Stop> {
        let node = FileNode::open(&child.cid, shelf)?;
        let found = node.size();
        if found == child.file_size {
            return Ok(node);
        }
        Err(ExportError::WrongSize { cid: Box::new(child.cid), expected: child.file_size, found }.into())
    }
}

impl Child {
    /// Whether all that holds bytes of the range is at hand.
    fn ask_for(&self, range: std::ops::Range<u64>, depth: u32, shelf: &mut Shelf) -> Result<bool, Stop> {
        if depth > DEPTH_MAX {
            return Err(ExportError::TooDeep { cid: Box::new(self.cid) }.into());
        }
        if shelf.look(&self.cid).is_none() {
            return Ok(false);
        }
        match FileNode::open_checked(self, shelf)?.ask_for(range, depth + 1, shelf) {
            Ok(()) => Ok(true),
            Err(Stop::Missing) => Ok(false),
            Err(failed) => Err(failed),
        }
    }
}
