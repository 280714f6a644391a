//! Inner nodes of files: leaves in order in, the nodes above them out.

use super::options::{FileOptions, Layout, hand_out};
use super::{ImportError, sole_leaf};
use crate::unixfs::{Kind, Stat, UnixFs};
use crate::{Block, pb};
use bytes::Bytes;
use types::Cid;

/// What a parent needs to know of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Child {
    /// Its name.
    pub cid: Cid,
    /// Bytes of the file in and below it.
    pub file_size: u64,
    /// Bytes of its block and all blocks below it.
    pub dag_size: u64,
}

/// A whole file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileRoot {
    /// The root.
    pub cid: Cid,
    /// Bytes of the file.
    pub size: u64,
    /// Bytes of all its blocks (doubles counted each time), which is what directories say of it.
    pub dag_size: u64,
}

/// Builds the nodes above the leaves of one file. Memory: one open node for each level.
pub struct TreeBuilder {
    options: FileOptions,
    state: State,
    leaves: u64,
}

enum State {
    /// The open node of each level, lowest first.
    Balanced(Vec<Vec<Child>>),
    /// The open nodes from the root down.
    Trickle(Vec<Open>),
}

/// A node of the trickle layout that is being filled: first with leaves, then with subtrees of growing depth, [`REPEAT`] of each.
#[derive(Default)]
struct Open {
    children: Vec<Child>,
    /// Subtrees of this depth or more do not fit below; the root has no such bound.
    depth_end: Option<u32>,
    /// Depth of the next subtree; 0 while leaves are added.
    depth: u32,
    /// Subtrees of that depth so far.
    repeated: u32,
}

/// Subtrees of one depth in the trickle layout.
const REPEAT: u32 = 4;

impl TreeBuilder {
    /// A tree without leaves.
    pub fn new(mut options: FileOptions) -> Result<TreeBuilder, ImportError> {
        options.check()?;
        options.width = options.width.max(2);
        let state = match options.layout {
            Layout::Balanced => State::Balanced(Vec::new()),
            Layout::Trickle => State::Trickle(vec![Open::default()]),
        };
        Ok(TreeBuilder { options, state, leaves: 0 })
    }

    /// Adds the next leaf of the file; nodes that are full come out.
    pub fn push_leaf(&mut self, leaf: Child, out: &mut impl FnMut(Block)) -> Result<(), ImportError> {
        self.leaves += 1;
        match &mut self.state {
            State::Balanced(levels) => push_balanced(levels, 0, leaf, &self.options, out),
            State::Trickle(open) => push_trickle(open, leaf, &self.options, out),
        }
    }

    /// Closes the tree. Without leaves it is the empty file.
    pub fn finish(self, out: &mut impl FnMut(Block)) -> Result<FileRoot, ImportError> {
        let root = match self.state {
            State::Balanced(_) if self.leaves == 0 => {
                let leaf = sole_leaf(Bytes::new(), &self.options)?;
                let root = leaf.child();
                hand_out(leaf.block, out);
                root
            }
            State::Balanced(levels) => finish_balanced(levels, &self.options, out)?,
            State::Trickle(open) => finish_trickle(open, &self.options, out)?,
        };
        Ok(FileRoot { cid: root.cid, size: root.file_size, dag_size: root.dag_size })
    }
}

/// A full node is closed only when its next sibling comes, because the last node may be the root.
fn push_balanced(
    levels: &mut Vec<Vec<Child>>,
    mut level: usize,
    mut child: Child,
    options: &FileOptions,
    out: &mut impl FnMut(Block),
) -> Result<(), ImportError> {
    loop {
        if level == levels.len() {
            levels.push(Vec::new());
        }
        if levels[level].len() < options.width {
            levels[level].push(child);
            return Ok(());
        }
        let full = std::mem::replace(&mut levels[level], vec![child]);
        child = close(&full, Stat::default(), options, out)?;
        level += 1;
    }
}

fn finish_balanced(mut levels: Vec<Vec<Child>>, options: &FileOptions, out: &mut impl FnMut(Block)) -> Result<Child, ImportError> {
    let mut level = 0;
    loop {
        let open = std::mem::take(&mut levels[level]);
        let is_top = level + 1 == levels.len();
        match open[..] {
            [only] if is_top => return Ok(only),
            _ if is_top => return close(&open, options.stat, options, out),
            _ => {
                let node = close(&open, Stat::default(), options, out)?;
                push_balanced(&mut levels, level + 1, node, options, out)?;
                level += 1;
            }
        }
    }
}

fn push_trickle(open: &mut Vec<Open>, leaf: Child, options: &FileOptions, out: &mut impl FnMut(Block)) -> Result<(), ImportError> {
    while let Some(mut last) = open.pop() {
        if last.depth == 0 && last.children.len() < options.width {
            last.children.push(leaf);
            open.push(last);
            return Ok(());
        }
        last.depth = last.depth.max(1);
        if last.depth_end.is_none_or(|end| last.depth < end) {
            let child = Open { depth_end: Some(last.depth), ..Open::default() };
            open.push(last);
            open.push(child);
        } else {
            close_into_parent(open, &last, options, out)?;
        }
    }
    Ok(())
}

fn close_into_parent(open: &mut [Open], full: &Open, options: &FileOptions, out: &mut impl FnMut(Block)) -> Result<(), ImportError> {
    let node = close(&full.children, Stat::default(), options, out)?;
    if let Some(parent) = open.last_mut() {
        parent.children.push(node);
        parent.repeated += 1;
        if parent.repeated == REPEAT {
            parent.repeated = 0;
            parent.depth += 1;
        }
    }
    Ok(())
}

fn finish_trickle(mut open: Vec<Open>, options: &FileOptions, out: &mut impl FnMut(Block)) -> Result<Child, ImportError> {
    while open.len() > 1 {
        if let Some(last) = open.pop() {
            close_into_parent(&mut open, &last, options, out)?;
        }
    }
    let root = open.pop().unwrap_or_default();
    close(&root.children, options.stat, options, out)
}

/// Writes an inner node.
fn close(children: &[Child], stat: Stat, options: &FileOptions, out: &mut impl FnMut(Block)) -> Result<Child, ImportError> {
    let blocksizes: Vec<u64> = children.iter().map(|child| child.file_size).collect();
    let file_size = blocksizes.iter().sum();
    let message = UnixFs { filesize: Some(file_size), blocksizes, stat, ..UnixFs::new(Kind::File) }.encode();
    let links = children.iter().map(|child| pb::Link { cid: child.cid, name: b"", tsize: child.dag_size }).collect();
    let node = pb::Node { links, data: Some(&message) }.encode();
    let below: u64 = children.iter().map(|child| child.dag_size).sum();
    let dag_size = below + node.len() as u64;
    let block = options.form().node(node)?;
    let cid = block.cid;
    hand_out(block, out);
    Ok(Child { cid, file_size, dag_size })
}
