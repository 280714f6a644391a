//! A file, symlink or whole tree in order: each entry before its content, a directory before what is in it.

use super::{DirectoryReader, ExportError, FileReader, FileStep, ListStep};
use crate::block::inline_data;
use crate::unixfs::{Kind, Stat, UnixFs};
use crate::{codec, pb};
use bytes::Bytes;
use types::Cid;

/// Directories inside each other.
const DEPTH_MAX: usize = 2048;

/// What an entry of a tree is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A file of so many bytes, which follow.
    File(u64),
    /// A symlink with its target.
    Symlink(Vec<u8>),
}

/// An entry of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeEntry {
    /// The name that was given to the root, and the names below it, divided by `/`. Empty for a root without a name.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Mode and time, where they were stored.
    pub stat: Stat,
    /// Its root.
    pub cid: Cid,
}

/// What a [`TreeReader`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TreeStep {
    /// Bring this block.
    Need(Cid),
    /// The next entry.
    Entry(TreeEntry),
    /// The next bytes of the file that was named last.
    Data(Bytes),
    /// All was given.
    Done,
}

/// Reads a tree in order. Holds what its readers hold: the entries of one block for each level.
pub struct TreeReader {
    /// What is to be read next: from its root block on.
    next: Option<(Cid, Vec<u8>)>,
    /// What was read of it.
    entered: Option<TreeEntry>,
    file: Option<FileReader>,
    /// The open directories with their paths.
    open: Vec<(DirectoryReader, Vec<u8>)>,
}

impl TreeReader {
    /// Reads what is under `root`; its own path is `name`.
    pub fn new(root: Cid, name: &[u8]) -> TreeReader {
        TreeReader { next: Some((root, name.to_vec())), entered: None, file: None, open: Vec::new() }
    }

    /// What comes next. Until a needed block is given, the answer stays the same.
    pub fn step(&mut self) -> Result<TreeStep, ExportError> {
        loop {
            if let Some(entry) = self.entered.take() {
                return Ok(TreeStep::Entry(entry));
            }
            if let Some((cid, _)) = &self.next {
                let Some(data) = inline_data(cid).map(Bytes::copy_from_slice) else { return Ok(TreeStep::Need(*cid)) };
                let cid = *cid;
                return self.enter(&cid, &data).map(TreeStep::Entry);
            }
            if let Some(file) = &mut self.file {
                match file.step()? {
                    FileStep::Need(cid) => return Ok(TreeStep::Need(cid)),
                    FileStep::Data(data) => return Ok(TreeStep::Data(data)),
                    FileStep::Done => self.file = None,
                }
            }
            let Some((directory, path)) = self.open.last_mut() else { return Ok(TreeStep::Done) };
            match directory.step()? {
                ListStep::Need(cid) => return Ok(TreeStep::Need(cid)),
                ListStep::Done => drop(self.open.pop()),
                ListStep::Entry(entry) => {
                    if matches!(&entry.name[..], b"" | b"." | b"..") || entry.name.iter().any(|byte| matches!(byte, b'/' | 0)) {
                        return Err(ExportError::BadName { name: String::from_utf8_lossy(&entry.name).into_owned() });
                    }
                    let separator = if path.is_empty() { &b""[..] } else { b"/" };
                    self.next = Some((entry.cid, [path, separator, &entry.name].concat()));
                }
            }
        }
    }

    /// Takes the block that is needed.
    pub fn give(&mut self, cid: &Cid, data: &Bytes) -> Result<(), ExportError> {
        match (&self.next, &mut self.file, self.open.last_mut()) {
            (Some((wanted, _)), ..) if wanted == cid => {
                self.entered = Some(self.enter(cid, data)?);
                Ok(())
            }
            (None, Some(file), _) => file.give(cid, data),
            (None, None, Some((directory, _))) => directory.give(cid, data),
            _ => Err(ExportError::Unwanted { cid: Box::new(*cid) }),
        }
    }

    /// The blocks that will be needed next, as far as they are known: for fetching ahead.
    pub fn upcoming(&self, at_most: usize) -> Vec<Cid> {
        match (&self.next, &self.file, self.open.last()) {
            (Some((cid, _)), ..) => vec![*cid],
            (None, Some(file), _) => file.upcoming(at_most),
            (None, None, Some((directory, _))) => directory.upcoming(at_most),
            (None, None, None) => Vec::new(),
        }
    }

    fn enter(&mut self, cid: &Cid, block: &Bytes) -> Result<TreeEntry, ExportError> {
        let path = self.next.take().map(|(_, path)| path).unwrap_or_default();
        let (kind, stat) = match cid.codec() {
            codec::RAW => (EntryKind::File(block.len() as u64), Stat::default()),
            codec::DAG_PB => self.look_inside(cid, block)?,
            codec => return Err(ExportError::Codec { cid: Box::new(*cid), codec }),
        };
        match kind {
            EntryKind::File(_) => self.file = Some(open_file(cid, block)?),
            EntryKind::Directory if self.open.len() == DEPTH_MAX => return Err(ExportError::too_deep(cid)),
            EntryKind::Directory => self.open.push((open_directory(cid, block)?, path.clone())),
            EntryKind::Symlink(_) => {}
        }
        Ok(TreeEntry { path, kind, stat, cid: *cid })
    }

    fn look_inside(&self, cid: &Cid, block: &Bytes) -> Result<(EntryKind, Stat), ExportError> {
        let node = pb::Node::decode(block).map_err(ExportError::decode(cid))?;
        let message = UnixFs::decode(node.data.unwrap_or_default()).map_err(ExportError::decode(cid))?;
        let kind = match message.kind {
            Kind::Directory | Kind::HamtShard => EntryKind::Directory,
            Kind::Symlink => EntryKind::Symlink(message.data.unwrap_or_default().to_vec()),
            // The size that counts is the one that the reader will keep to.
            Kind::File | Kind::Raw => EntryKind::File(open_file(cid, block)?.size().unwrap_or_default()),
            Kind::Metadata => return Err(ExportError::NotAFile { cid: Box::new(*cid), kind: message.kind }),
        };
        Ok((kind, message.stat))
    }
}

fn open_file(cid: &Cid, block: &Bytes) -> Result<FileReader, ExportError> {
    let mut file = FileReader::new(*cid, 0..u64::MAX);
    file.give(cid, block)?;
    Ok(file)
}

fn open_directory(cid: &Cid, block: &Bytes) -> Result<DirectoryReader, ExportError> {
    let mut directory = DirectoryReader::new(*cid);
    directory.give(cid, block)?;
    Ok(directory)
}
