//! The operations, each from the root down and back.

use super::path::shown;
use super::{MfsOptions, Op, Path, Status, WRITE_SPAN};
use crate::edit::directory::Directory;
use crate::edit::file::{FileChange, change_file, set_stat};
use crate::edit::{EditError, Edited, Shelf, Stop};
use crate::export::Entry;
use crate::import::{DirectoryOptions, DirectoryRoot};
use crate::unixfs::{Kind, Stat, UnixFs, leaf_block};
use crate::{codec, pb};
use bytes::Bytes;
use types::Cid;

/// The tree between operations.
pub(super) struct Tree {
    root: Cid,
    options: MfsOptions,
}

/// What is done in one directory.
type Work<'w> = dyn FnMut(&mut Directory, &mut Shelf) -> Result<(), Stop> + 'w;

impl Tree {
    pub fn new(root: Cid, options: MfsOptions) -> Tree {
        Tree { root, options }
    }

    /// The root after all operations.
    pub fn finish(&mut self, shelf: &mut Shelf) -> Result<Edited, Stop> {
        let root = described(&self.root, shelf)?;
        Ok(shelf.finish(root))
    }

    /// Does one operation, wholly or not at all.
    pub fn apply(&mut self, op: &Op, shelf: &mut Shelf) -> Result<(), Stop> {
        self.root = match op {
            Op::Mkdir { path, parents, stat } => self.make_directory(path, *parents, *stat, shelf)?,
            Op::Put { path, cid, dag_size, parents, replace } => {
                let dag_size = match dag_size {
                    Some(dag_size) => *dag_size,
                    None => described(cid, shelf)?.dag_size,
                };
                self.put(path, DirectoryRoot { cid: *cid, dag_size }, *parents, *replace, shelf)?
            }
            Op::Copy { from, to, parents, replace } => {
                let cid = self.look_up(from, shelf)?;
                let to = if to.ends_with_slash() || to.is_root() { to.join(from.split()?.1) } else { to.clone() };
                let what = described(&cid, shelf)?;
                self.put(&to, what, *parents, *replace, shelf)?
            }
            Op::Move { from, to } => self.move_entry(from, to, shelf)?,
            Op::Remove { path, recursive, force } => self.remove(path, *recursive, *force, shelf)?,
            Op::Write { path, offset, data, create, truncate, parents } => {
                let change = Writing { offset: *offset, data, create: *create, truncate: *truncate };
                self.write(path, &change, *parents, shelf)?
            }
            Op::Truncate { path, size } => {
                let options = self.options.file.clone();
                self.change_file(
                    path,
                    &mut |cid, shelf| {
                        let file = change_file(cid, std::iter::once(FileChange::Truncate(*size)), &options, shelf)?;
                        Ok(DirectoryRoot { cid: file.cid, dag_size: file.dag_size })
                    },
                    shelf,
                )?
            }
            Op::SetStat { path, stat } if path.is_root() => set_stat(&self.root, *stat, shelf)?.cid,
            Op::SetStat { path, stat } => self.change_file(path, &mut |cid, shelf| set_stat(cid, *stat, shelf), shelf)?,
        };
        Ok(())
    }

    /// Follows a path.
    pub fn look_up(&self, path: &Path, shelf: &mut Shelf) -> Result<Cid, Stop> {
        let mut cid = self.root;
        for (at, name) in path.names().iter().enumerate() {
            if at > 0 && !is_directory(&cid, shelf)? {
                return Err(EditError::NotADirectory(shown(&path.names()[at - 1])).into());
            }
            let entry = Directory::open(&cid, &self.options.directory, shelf)?.find(name, shelf)?;
            cid = entry.ok_or_else(|| EditError::NotFound(path.to_string()))?.cid;
        }
        Ok(cid)
    }

    /// Does `work` in a directory and writes those above it again. With `parents` missing ones are made.
    fn within(&self, names: &[Vec<u8>], parents: bool, work: &mut Work<'_>, shelf: &mut Shelf) -> Result<Cid, Stop> {
        let mut directory = Directory::open(&self.root, &self.options.directory, shelf)?;
        Ok(self.descend(&mut directory, names, parents, work, shelf)?.cid)
    }

    fn descend(
        &self,
        directory: &mut Directory,
        names: &[Vec<u8>],
        parents: bool,
        work: &mut Work<'_>,
        shelf: &mut Shelf,
    ) -> Result<DirectoryRoot, Stop> {
        let Some((name, rest)) = names.split_first() else {
            work(directory, shelf)?;
            return directory.write(shelf);
        };
        let options = &self.options.directory;
        let mut below = match directory.find(name, shelf)? {
            Some(entry) if !is_directory(&entry.cid, shelf)? => return Err(EditError::NotADirectory(shown(name)).into()),
            Some(entry) => Directory::open(&entry.cid, options, shelf)?,
            None if parents => Directory::empty(options.form(), Stat::default(), options),
            None => return Err(EditError::NotFound(shown(name)).into()),
        };
        let root = self.descend(&mut below, rest, parents, work, shelf)?;
        directory.put(entry(name, root), shelf)?;
        directory.write(shelf)
    }

    fn make_directory(&self, path: &Path, parents: bool, stat: Stat, shelf: &mut Shelf) -> Result<Cid, Stop> {
        if path.is_root() {
            return if parents { Ok(self.root) } else { Err(EditError::Exists("/".to_owned()).into()) };
        }
        let (above, name) = path.split()?;
        let options = &self.options.directory;
        let mut make = |directory: &mut Directory, shelf: &mut Shelf| {
            match directory.find(name, shelf)? {
                Some(old) if parents && is_directory(&old.cid, shelf)? => return Ok(()),
                Some(_) => return Err(EditError::Exists(path.to_string()).into()),
                None => {}
            }
            let made = Directory::empty(options.form(), stat, options).write(shelf)?;
            directory.put(entry(name, made), shelf)
        };
        self.within(above, parents, &mut make, shelf)
    }

    fn put(&self, path: &Path, what: DirectoryRoot, parents: bool, replace: bool, shelf: &mut Shelf) -> Result<Cid, Stop> {
        let (above, name) = path.split()?;
        let mut put = |directory: &mut Directory, shelf: &mut Shelf| {
            if directory.find(name, shelf)?.is_some() {
                if !replace {
                    return Err(EditError::Exists(path.to_string()).into());
                }
                // Two steps as in Kubo: without the old one a trie may become plain.
                directory.remove(name, shelf)?;
            }
            directory.put(entry(name, what), shelf)
        };
        self.within(above, parents, &mut put, shelf)
    }

    fn remove(&self, path: &Path, recursive: bool, force: bool, shelf: &mut Shelf) -> Result<Cid, Stop> {
        let (above, name) = path.split()?;
        let mut remove = |directory: &mut Directory, shelf: &mut Shelf| {
            let Some(old) = directory.find(name, shelf)? else {
                return if force { Ok(()) } else { Err(EditError::NotFound(path.to_string()).into()) };
            };
            // What cannot be read can still be removed by force.
            if !recursive && !force && is_directory(&old.cid, shelf)? {
                return Err(EditError::IsADirectory(path.to_string()).into());
            }
            directory.remove(name, shelf).map(drop)
        };
        match self.within(above, false, &mut remove, shelf) {
            Err(Stop::Failed(EditError::NotFound(_))) if force => Ok(self.root),
            done => done,
        }
    }

    fn move_entry(&self, from: &Path, to: &Path, shelf: &mut Shelf) -> Result<Cid, Stop> {
        let (from_above, from_name) = from.split()?;
        let cid = self.look_up(from, shelf)?;
        let what = described(&cid, shelf)?;
        let mut target = if to.ends_with_slash() || to.is_root() { to.join(from_name) } else { to.clone() };
        let mut is_over_file = false;
        match self.look_up(&target, shelf) {
            Ok(_) if target == *from => return Ok(self.root),
            Ok(old) if is_directory(&old, shelf)? => target = target.join(from_name),
            Ok(_) => is_over_file = true,
            Err(Stop::Failed(EditError::NotFound(_))) => {}
            Err(stop) => return Err(stop),
        }
        if target.is_below(from) {
            return Err(EditError::BadPath { path: target.to_string(), reason: "it lies within what is moved" }.into());
        }
        let (above, name) = target.split()?;
        let is_same_directory = above == from_above;
        let mut put = |directory: &mut Directory, shelf: &mut Shelf| {
            if directory.find(name, shelf)?.is_some() {
                if !is_over_file {
                    return Err(EditError::Exists(target.to_string()).into());
                }
                directory.remove(name, shelf)?;
            }
            directory.put(entry(name, what), shelf)?;
            if is_same_directory { directory.remove(from_name, shelf).map(drop) } else { Ok(()) }
        };
        let root = self.within(above, false, &mut put, shelf)?;
        if is_same_directory {
            return Ok(root);
        }
        let moved = Tree { root, options: self.options.clone() };
        moved.within(from_above, false, &mut |directory, shelf| directory.remove(from_name, shelf).map(drop), shelf)
    }

    fn write(&self, path: &Path, change: &Writing<'_>, parents: bool, shelf: &mut Shelf) -> Result<Cid, Stop> {
        let (above, name) = path.split()?;
        let form = self.options.file_form.unwrap_or_else(|| self.options.directory.form());
        let options = &self.options.file;
        let mut write = |directory: &mut Directory, shelf: &mut Shelf| {
            let old = match directory.find(name, shelf)? {
                Some(old) if is_directory(&old.cid, shelf)? => return Err(EditError::IsADirectory(path.to_string()).into()),
                Some(old) => old.cid,
                None if change.create => shelf.make_node(form, leaf_block(Kind::File, b"", Stat::default()), 0)?.cid,
                None => return Err(EditError::NotFound(path.to_string()).into()),
            };
            let file = change_file(&old, change.steps(), options, shelf)?;
            directory.put(entry(name, DirectoryRoot { cid: file.cid, dag_size: file.dag_size }), shelf)
        };
        self.within(above, parents, &mut write, shelf)
    }

    fn change_file(
        &self,
        path: &Path,
        change: &mut dyn FnMut(&Cid, &mut Shelf) -> Result<DirectoryRoot, Stop>,
        shelf: &mut Shelf,
    ) -> Result<Cid, Stop> {
        let (above, name) = path.split()?;
        let mut work = |directory: &mut Directory, shelf: &mut Shelf| {
            let old = directory.find(name, shelf)?.ok_or_else(|| EditError::NotFound(path.to_string()))?;
            let new = change(&old.cid, shelf)?;
            directory.put(entry(name, new), shelf)
        };
        self.within(above, false, &mut work, shelf)
    }
}

/// What is written into one file.
struct Writing<'d> {
    offset: u64,
    data: &'d Bytes,
    create: bool,
    truncate: bool,
}

impl Writing<'_> {
    /// Piece by piece, as Kubo does it.
    fn steps(&self) -> impl Iterator<Item = FileChange> {
        let emptied = self.truncate.then_some(FileChange::Truncate(0));
        let pieces = self.data.len().div_ceil(WRITE_SPAN).max(1);
        let piece = |at: usize| {
            let start = at * WRITE_SPAN;
            let data = self.data.slice(start..self.data.len().min(start + WRITE_SPAN));
            FileChange::Write { offset: self.offset.saturating_add(start as u64), data }
        };
        emptied.into_iter().chain((0..pieces).map(piece))
    }
}

/// An empty directory.
pub(super) fn empty(options: &DirectoryOptions) -> Result<Edited, EditError> {
    let mut shelf = Shelf::default();
    match Directory::empty(options.form(), Stat::default(), options).write(&mut shelf) {
        Ok(root) => Ok(shelf.finish(root)),
        Err(Stop::Failed(error)) => Err(error),
        Err(Stop::Missing) => unreachable!("an empty directory reads nothing"),
    }
}

/// What the root block says.
pub(super) fn status(cid: &Cid, shelf: &mut Shelf) -> Result<Status, Stop> {
    let block = shelf.get(cid)?;
    let length = block.len() as u64;
    if cid.codec() != codec::DAG_PB {
        return Ok(Status { cid: *cid, kind: Kind::Raw, size: length, dag_size: length, links: 0, stat: Stat::default() });
    }
    let node = pb::Node::decode(&block).map_err(EditError::decode(cid))?;
    let message = UnixFs::decode(node.data.unwrap_or_default()).map_err(EditError::decode(cid))?;
    let dag_size = node.links.iter().fold(length, |sum, link| sum.saturating_add(link.tsize));
    let size = message.file_size().unwrap_or_default();
    Ok(Status { cid: *cid, kind: message.kind, size, dag_size, links: node.links.len(), stat: message.stat })
}

fn described(cid: &Cid, shelf: &mut Shelf) -> Result<DirectoryRoot, Stop> {
    let status = status(cid, shelf)?;
    Ok(DirectoryRoot { cid: *cid, dag_size: status.dag_size })
}

fn is_directory(cid: &Cid, shelf: &mut Shelf) -> Result<bool, Stop> {
    if cid.codec() == codec::RAW {
        return Ok(false);
    }
    Ok(matches!(status(cid, shelf)?.kind, Kind::Directory | Kind::HamtShard))
}

fn entry(name: &[u8], root: DirectoryRoot) -> Entry {
    Entry { name: name.to_vec(), cid: root.cid, tsize: root.dag_size }
}
