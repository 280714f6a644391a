//! Appending to a file by the rules of boxo's trickle layout, whatever layout the file has.
//!
//! Where boxo counts layers in a way of its own (a layer is left out after a full one, and the rest of a layer is one step flatter), so does this:
//! the CIDs depend on it.

use super::file::{DEPTH_MAX, FileNode, Form};
use super::{Shelf, Stop};
use crate::export::ExportError;
use crate::import::Child;
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};

/// Subtrees of one depth.
const REPEAT: usize = 4;
/// Bytes of the leaves that fill a gap.
pub(super) const ZERO_LEAF: u64 = 4096;

/// What is appended.
pub(super) struct Source<'a> {
    form: &'a Form,
    what: What,
    /// How deep the last child of a last child lies.
    level: u32,
}

enum What {
    Chunks(VecDeque<Bytes>),
    Zeros {
        left: u64,
        leaf: Option<Child>,
        /// Full subtrees by depth: they are all alike.
        full: HashMap<i64, Child>,
    },
}

impl<'a> Source<'a> {
    pub fn chunks(form: &'a Form, chunks: VecDeque<Bytes>) -> Source<'a> {
        Source { form, what: What::Chunks(chunks), level: 0 }
    }

    pub fn zeros(form: &'a Form, length: u64) -> Source<'a> {
        Source { form, what: What::Zeros { left: length, leaf: None, full: HashMap::new() }, level: 0 }
    }

    fn is_done(&self) -> bool {
        match &self.what {
            What::Chunks(chunks) => chunks.is_empty(),
            What::Zeros { left, .. } => *left == 0,
        }
    }

    fn next_leaf(&mut self, shelf: &mut Shelf) -> Result<Option<Child>, Stop> {
        match &mut self.what {
            What::Chunks(chunks) => chunks.pop_front().map(|chunk| self.form.leaf(chunk, shelf)).transpose(),
            What::Zeros { left: 0, .. } => Ok(None),
            What::Zeros { left, leaf: Some(leaf), .. } if *left >= ZERO_LEAF => {
                *left -= ZERO_LEAF;
                Ok(Some(*leaf))
            }
            What::Zeros { left, leaf, .. } => {
                let length = ZERO_LEAF.min(*left);
                let child = self.form.leaf(vec![0; length as usize].into(), shelf)?;
                *left -= length;
                *leaf = (length == ZERO_LEAF).then_some(child);
                Ok(Some(child))
            }
        }
    }

    /// A new subtree up to `depth`. Of zeros, one that is full is built once.
    fn subtree(&mut self, depth: i64, shelf: &mut Shelf) -> Result<Child, Stop> {
        let width = self.form.width;
        let is_full = matches!(&self.what, What::Zeros { left, .. } if *left / ZERO_LEAF >= capacity(depth, width));
        if let What::Zeros { left, full, .. } = &mut self.what
            && is_full
            && let Some(child) = full.get(&depth)
        {
            *left -= child.file_size;
            return Ok(*child);
        }
        let mut node = FileNode::empty(self.form.nodes);
        fill(&mut node, depth, self, shelf)?;
        let child = node.write(shelf)?;
        if let What::Zeros { full, .. } = &mut self.what
            && is_full
        {
            full.insert(depth, child);
        }
        Ok(child)
    }
}

/// Leaves below a subtree of `depth` that is full: each layer has four times all that is before it.
fn capacity(depth: i64, width: usize) -> u64 {
    let layers = u32::try_from(depth.clamp(1, 64) - 1).unwrap_or_default();
    (width as u64).saturating_mul((REPEAT as u64 + 1).saturating_pow(layers))
}

/// Appends to a whole file.
pub(super) fn append(root: &mut FileNode, source: &mut Source<'_>, shelf: &mut Shelf) -> Result<(), Stop> {
    let (mut depth, repeat) = position(root, source.form.width);
    if depth == 0 {
        fill_leaves(root, source, shelf)?;
        if source.is_done() {
            return Ok(());
        }
        depth = 1;
    }
    fill_last(root, depth - 1, repeat, source, shelf)?;
    let first = depth + 1;
    add_layers(root, first.., source, shelf)
}

/// Appends to a subtree, the last child of a node.
fn append_below(node: &mut FileNode, depth_max: i64, source: &mut Source<'_>, shelf: &mut Shelf) -> Result<(), Stop> {
    if depth_max == 0 || source.is_done() {
        return Ok(());
    }
    let (mut depth, repeat) = position(node, source.form.width);
    if depth == 0 {
        fill_leaves(node, source, shelf)?;
        depth = 1;
    }
    if depth == depth_max {
        return Ok(());
    }
    fill_last(node, depth, repeat, source, shelf)?;
    let first = depth + i64::from(!source.is_done());
    add_layers(node, first..depth_max, source, shelf)
}

fn fill_last(node: &mut FileNode, depth: i64, repeat: usize, source: &mut Source<'_>, shelf: &mut Shelf) -> Result<(), Stop> {
    if node.children.len() <= source.form.width {
        return Ok(());
    }
    if let Some(last) = node.children.last().copied()
        && !last.is_raw()
    {
        source.level += 1;
        if source.level > DEPTH_MAX {
            return Err(ExportError::TooDeep { cid: Box::new(last.cid) }.into());
        }
        let mut below = FileNode::open(&last.cid, shelf)?;
        append_below(&mut below, depth - 1, source, shelf)?;
        node.children.pop();
        node.children.push(below.write(shelf)?);
    }
    if repeat != 0 {
        for _ in repeat..REPEAT {
            if source.is_done() {
                break;
            }
            node.children.push(source.subtree(depth, shelf)?);
        }
    }
    Ok(())
}

fn add_layers(node: &mut FileNode, depths: impl Iterator<Item = i64>, source: &mut Source<'_>, shelf: &mut Shelf) -> Result<(), Stop> {
    for depth in depths {
        for _ in 0..REPEAT {
            if source.is_done() {
                return Ok(());
            }
            node.children.push(source.subtree(depth, shelf)?);
        }
    }
    Ok(())
}

fn fill(node: &mut FileNode, depth_max: i64, source: &mut Source<'_>, shelf: &mut Shelf) -> Result<(), Stop> {
    fill_leaves(node, source, shelf)?;
    add_layers(node, 1..depth_max, source, shelf)
}

fn fill_leaves(node: &mut FileNode, source: &mut Source<'_>, shelf: &mut Shelf) -> Result<(), Stop> {
    while node.children.len() < source.form.width {
        let Some(leaf) = source.next_leaf(shelf)? else { break };
        node.children.push(leaf);
    }
    Ok(())
}

/// Which layer comes next in a node (0: leaves), and how many subtrees of it there are.
fn position(node: &FileNode, width: usize) -> (i64, usize) {
    match node.children.len().checked_sub(width) {
        None => (0, 0),
        Some(subtrees) => ((subtrees / REPEAT + 1) as i64, subtrees % REPEAT),
    }
}
