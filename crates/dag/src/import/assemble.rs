//! Whole folders: roots of files by path in, in any order; directories out, deepest first.

use super::ImportError;
use super::directory::{DirectoryBuilder, DirectoryOptions, DirectoryRoot, NAME_MAX};
use super::tree::FileRoot;
use crate::Block;
use crate::hamt::hash_name;
use crate::unixfs::Stat;
use std::collections::BTreeMap;
use types::Cid;

/// Levels of directories in one import; also what a path may have.
pub const DEPTH_MAX: usize = 2048;
/// Entries of one import kept in memory: some 100 to 150 bytes each.
pub const ENTRIES_MAX: usize = 8 << 20;

/// Puts files into directories and builds those, as `ipfs add -r` does.
///
/// The caller reports each file when it adds it; [`TreeAssembler::finish`] then gives the directories in Kubo's order, deepest first.
pub struct TreeAssembler {
    options: DirectoryOptions,
    /// The first is the root above all paths; a parent stands before its children.
    open: Vec<Open>,
    /// What stands directly under the root, in order of arrival.
    tops: Vec<Top>,
    wraps: bool,
    entries: usize,
}

struct Open {
    parent: usize,
    name: Box<[u8]>,
    builder: DirectoryBuilder,
    children: BTreeMap<Box<[u8]>, usize>,
    /// Known once it is built.
    is_sharded: bool,
}

enum Top {
    File(FileRoot),
    Directory(usize),
}

/// A directory that was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddedDirectory {
    /// Its path; empty for the one that wraps all.
    pub path: Vec<u8>,
    /// Its root.
    pub cid: Cid,
    /// Bytes of all blocks below.
    pub dag_size: u64,
}

/// All that was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assembled {
    /// The roots: the one wrapping directory, or what stood at the top, in order of arrival. Kubo and Go pin the last one.
    pub roots: Vec<Cid>,
    /// The directories in Kubo's order.
    pub directories: Vec<AddedDirectory>,
}

impl TreeAssembler {
    /// No files yet; with `wraps` everything goes into one nameless directory.
    pub fn new(options: DirectoryOptions, wraps: bool) -> Result<TreeAssembler, ImportError> {
        let root = Open::new(0, b"", &options)?;
        Ok(TreeAssembler { options, open: vec![root], tops: Vec::new(), wraps, entries: 0 })
    }

    /// Puts a file or symlink at `path` (parts divided by `/`). A file without a name is named after its CID.
    pub fn add(&mut self, path: &[u8], root: &FileRoot) -> Result<(), ImportError> {
        let own_name = root.cid.to_string();
        let path = if path.is_empty() { own_name.as_bytes() } else { path };
        let mut names = split(path)?;
        let name = names.pop().ok_or_else(|| bad_path(path, "no name"))?;
        let directory = self.open_path(&names)?;
        self.count_entry()?;
        if directory == 0 && !self.wraps {
            self.tops.push(Top::File(*root));
            return Ok(());
        }
        self.open[directory].builder.add(name, &root.cid, root.dag_size)
    }

    /// Makes sure that there is a directory at `path`, empty unless something is put into it. An empty path is the root itself.
    pub fn add_directory(&mut self, path: &[u8], stat: Stat) -> Result<(), ImportError> {
        let names = split(path)?;
        let directory = self.open_path(&names)?;
        if !stat.is_empty() {
            self.open[directory].builder.set_stat(stat);
        }
        Ok(())
    }

    /// Builds all directories.
    pub fn finish(mut self, out: &mut impl FnMut(Block)) -> Result<Assembled, ImportError> {
        let built = self.build(out)?;
        let order = self.output_order();
        let directory =
            |index: usize| built[index].map(|root| AddedDirectory { path: self.path(index), cid: root.cid, dag_size: root.dag_size });
        let directories = order.into_iter().filter_map(directory).collect();
        let root = |top: &Top| match top {
            Top::File(file) => Some(file.cid),
            Top::Directory(index) => built[*index].map(|root| root.cid),
        };
        let wrapping = built[0].map(|root| root.cid);
        let roots = if self.wraps { wrapping.into_iter().collect() } else { self.tops.iter().filter_map(root).collect() };
        Ok(Assembled { roots, directories })
    }

    fn open_path(&mut self, names: &[&[u8]]) -> Result<usize, ImportError> {
        let mut directory = 0;
        for name in names {
            directory = match self.open[directory].children.get(*name) {
                Some(child) => *child,
                None => self.open_child(directory, name)?,
            };
        }
        Ok(directory)
    }

    fn open_child(&mut self, parent: usize, name: &[u8]) -> Result<usize, ImportError> {
        self.count_entry()?;
        let child = self.open.len();
        self.open.push(Open::new(parent, name, &self.options)?);
        self.open[parent].children.insert(name.into(), child);
        if parent == 0 {
            self.tops.push(Top::Directory(child));
        }
        Ok(child)
    }

    fn count_entry(&mut self) -> Result<(), ImportError> {
        self.entries += 1;
        if self.entries > ENTRIES_MAX { Err(ImportError::TooMany { limit: ENTRIES_MAX }) } else { Ok(()) }
    }

    /// Children were opened after their parents, so the way back meets them first. The root is written only if it is wanted.
    fn build(&mut self, out: &mut impl FnMut(Block)) -> Result<Vec<Option<DirectoryRoot>>, ImportError> {
        let mut built = vec![None; self.open.len()];
        let last = usize::from(!self.wraps);
        for index in (last..self.open.len()).rev() {
            let open = &mut self.open[index];
            open.is_sharded = open.builder.is_sharded();
            let empty = DirectoryBuilder::new(self.options.clone())?;
            let root = std::mem::replace(&mut open.builder, empty).finish(out)?;
            built[index] = Some(root);
            let (parent, name) = (open.parent, open.name.clone());
            if index > 0 && (parent > 0 || self.wraps) {
                self.open[parent].builder.add(&name, &root.cid, root.dag_size)?;
            }
        }
        Ok(built)
    }

    /// All directories but an unwanted root, children before parents, otherwise in the order in which Kubo lists entries: by name, in a trie by hash.
    fn output_order(&self) -> Vec<usize> {
        let mut order = Vec::with_capacity(self.open.len());
        let mut pending: Vec<usize> = if self.wraps { vec![0] } else { self.tops.iter().filter_map(Top::directory).collect() };
        // Parents before children, last child first; turned round at the end.
        while let Some(index) = pending.pop() {
            order.push(index);
            pending.extend(self.listed_children(index));
        }
        order.reverse();
        order
    }

    fn listed_children(&self, index: usize) -> Vec<usize> {
        let open = &self.open[index];
        let mut children: Vec<_> = open.children.iter().collect();
        if open.is_sharded {
            children.sort_by_key(|(name, _)| hash_name(name));
        }
        children.into_iter().map(|(_, index)| *index).collect()
    }

    fn path(&self, index: usize) -> Vec<u8> {
        let mut names = Vec::new();
        let mut at = index;
        while at > 0 {
            names.push(&self.open[at].name[..]);
            at = self.open[at].parent;
        }
        names.reverse();
        names.join(&b'/')
    }
}

impl Open {
    fn new(parent: usize, name: &[u8], options: &DirectoryOptions) -> Result<Open, ImportError> {
        Ok(Open {
            parent,
            name: name.into(),
            builder: DirectoryBuilder::new(options.clone())?,
            children: BTreeMap::new(),
            is_sharded: false,
        })
    }
}

impl Top {
    fn directory(&self) -> Option<usize> {
        if let Top::Directory(index) = self { Some(*index) } else { None }
    }
}

/// The parts of a path. Doubled and leading slashes and `.` mean nothing; `..` is refused.
fn split(path: &[u8]) -> Result<Vec<&[u8]>, ImportError> {
    let names: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".").collect();
    if names.contains(&&b".."[..]) {
        return Err(bad_path(path, "it leads upwards"));
    }
    if names.len() > DEPTH_MAX {
        return Err(bad_path(path, "it is too deep"));
    }
    match names.iter().find(|name| name.len() > NAME_MAX) {
        Some(name) => Err(ImportError::NameTooLong { length: name.len() }),
        None => Ok(names),
    }
}

fn bad_path(path: &[u8], reason: &'static str) -> ImportError {
    let shown = &path[..path.len().min(256)];
    ImportError::BadPath { path: String::from_utf8_lossy(shown).into_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::{FileOptions, import_bytes};
    use bytes::Bytes;

    fn file(text: &'static str) -> FileRoot {
        import_bytes(Bytes::from_static(text.as_bytes()), FileOptions::default(), &mut |_| ()).expect("defaults")
    }

    fn assemble(paths: &[&str], wraps: bool) -> Result<Vec<String>, ImportError> {
        let mut tree = TreeAssembler::new(DirectoryOptions::default(), wraps)?;
        for path in paths {
            match path.strip_suffix('/') {
                Some(directory) => tree.add_directory(directory.as_bytes(), Stat::default())?,
                None => tree.add(path.as_bytes(), &file("x"))?,
            }
        }
        let mut blocks = Vec::new();
        let assembled = tree.finish(&mut |block| blocks.push(block.cid))?;
        assert_eq!(blocks.len(), assembled.directories.len(), "one block for each directory");
        assert!(assembled.directories.iter().all(|directory| blocks.contains(&directory.cid)));
        Ok(assembled.directories.into_iter().map(|directory| String::from_utf8_lossy(&directory.path).into_owned()).collect())
    }

    fn check(paths: &[&str], wraps: bool, expected: &[&str]) {
        assert_eq!(assemble(paths, wraps), Ok(expected.iter().map(|path| (*path).to_owned()).collect()), "{paths:?}");
    }

    #[test]
    fn directories_come_deepest_first() {
        check(&["a/x", "a/b/y", "a/b/c/z"], false, &["a/b/c", "a/b", "a"]);
        check(&["a/z/1", "a/b/2", "c/"], false, &["a/b", "a/z", "a", "c"]);
        check(&["x"], false, &[]);
        check(&["x", "d/y"], true, &["d", ""]);
        check(&[], true, &[""]);
        check(&["//a/./b//c"], false, &["a/b", "a"]);
    }

    #[test]
    fn the_order_of_paths_does_not_matter() {
        let paths = ["t/a", "t/m/b", "t/m/n/c", "t/z", "t/e/"];
        let root = |order: &[&str]| {
            let mut tree = TreeAssembler::new(DirectoryOptions::default(), false).expect("v0");
            for path in order {
                match path.strip_suffix('/') {
                    Some(directory) => tree.add_directory(directory.as_bytes(), Stat::default()).expect("new"),
                    None => tree.add(path.as_bytes(), &file("x")).expect("new"),
                }
            }
            tree.finish(&mut |_| ()).expect("no twins").roots
        };
        let mut back = paths;
        back.reverse();
        assert_eq!(root(&paths), root(&back));
    }

    #[test]
    fn roots_are_the_tops_in_order_of_arrival() {
        let mut tree = TreeAssembler::new(DirectoryOptions::default(), false).expect("v0");
        let (one, two) = (file("one"), file("two"));
        tree.add(b"z", &one).expect("new");
        tree.add(b"d/x", &one).expect("new");
        tree.add(b"a", &two).expect("new");
        let assembled = tree.finish(&mut |_| ()).expect("no twins");
        assert_eq!(assembled.roots, [one.cid, assembled.directories[0].cid, two.cid]);
    }

    #[test]
    fn bad_trees_are_refused() {
        assert_eq!(assemble(&["a/x", "a/x"], false), Err(ImportError::Duplicate("x".to_owned())));
        assert_eq!(assemble(&["a/x", "a/x/y"], false), Err(ImportError::Duplicate("x".to_owned())));
        assert!(matches!(assemble(&["a/../../x"], false), Err(ImportError::BadPath { .. })));
        assert!(matches!(assemble(&["a/".repeat(DEPTH_MAX + 1).as_str()], false), Err(ImportError::BadPath { .. })));
        assert!(matches!(assemble(&[&"x".repeat(NAME_MAX + 1)], false), Err(ImportError::NameTooLong { .. })));
        assert!(matches!(assemble(&["/"], false), Ok(directories) if directories.is_empty()));
    }
}
