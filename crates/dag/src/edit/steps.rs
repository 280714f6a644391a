//! The machine under every change: work that stops where a block is missing and is taken up when it was given.

use super::{EditError, Edited};
use crate::block::inline_data;
use crate::export::ExportError;
use crate::import::{CidForm, DirectoryRoot};
use crate::{Block, links};
use bytes::Bytes;
use std::collections::{HashMap, HashSet};
use types::Cid;

/// What a [`Steps`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<T> {
    /// Bring this block.
    Need(Cid),
    /// It is done.
    Done(T),
}

/// A piece of work over blocks that others bring.
///
/// Memory: the blocks that were needed, and the new ones. Blocks are believed: whoever brings them has verified them.
pub struct Steps<T> {
    shelf: Shelf,
    work: Box<Work<T>>,
}

/// Runs until a block is missing or to the end. Each run starts again, so that there is no state but what the closure keeps.
type Work<T> = dyn FnMut(&mut Shelf) -> Result<T, Stop> + Send;

/// Why a run ended early.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Blocks are wanted; the shelf knows which.
    Missing,
    Failed(EditError),
}

/// Blocks at hand: those that were given and those that were made.
#[derive(Default)]
pub(crate) struct Shelf {
    given: HashMap<Cid, Bytes>,
    given_bytes: usize,
    made: HashMap<Cid, Bytes>,
    /// The next one last.
    wanted: Vec<Cid>,
}

/// Given blocks that are kept from one change to the next.
const KEPT_BYTES: usize = 16 << 20;

impl<T> Steps<T> {
    pub(crate) fn new(work: impl FnMut(&mut Shelf) -> Result<T, Stop> + Send + 'static) -> Steps<T> {
        Steps { shelf: Shelf::default(), work: Box::new(work) }
    }

    /// What comes next. Until a needed block is given, the answer stays the same; after the end nothing should be asked.
    pub fn step(&mut self) -> Result<Step<T>, EditError> {
        if let Some(cid) = self.shelf.wanted.last() {
            return Ok(Step::Need(*cid));
        }
        match (self.work)(&mut self.shelf) {
            Ok(done) => Ok(Step::Done(done)),
            Err(Stop::Failed(error)) => Err(error),
            Err(Stop::Missing) => {
                self.shelf.wanted.reverse();
                let next = self.shelf.wanted.last().expect("work that stops for a block has asked for it");
                Ok(Step::Need(*next))
            }
        }
    }

    /// Takes a block that is needed.
    pub fn give(&mut self, cid: &Cid, data: Bytes) -> Result<(), EditError> {
        let wanted = self.shelf.wanted.iter().position(|wanted| wanted == cid);
        let at = wanted.ok_or_else(|| ExportError::Unwanted { cid: Box::new(*cid) })?;
        self.shelf.wanted.remove(at);
        self.shelf.given_bytes += data.len();
        self.shelf.given.insert(*cid, data);
        Ok(())
    }

    /// The blocks that are needed in any case, in order: they may be given in any order.
    pub fn upcoming(&self, at_most: usize) -> Vec<Cid> {
        self.shelf.wanted.iter().rev().take(at_most).copied().collect()
    }
}

impl Shelf {
    /// The bytes of a block; asks for it when it is not at hand.
    pub fn get(&mut self, cid: &Cid) -> Result<Bytes, Stop> {
        self.look(cid).ok_or(Stop::Missing)
    }

    /// Asks for all that are not at hand; stops if there are any.
    pub fn get_all<'a>(&mut self, cids: impl Iterator<Item = &'a Cid>) -> Result<(), Stop> {
        let missing = cids.filter(|cid| self.look(cid).is_none()).count();
        if missing == 0 { Ok(()) } else { Err(Stop::Missing) }
    }

    /// The bytes of a block; notes that it is wanted when it is not at hand.
    pub fn look(&mut self, cid: &Cid) -> Option<Bytes> {
        if let Some(data) = inline_data(cid) {
            return Some(Bytes::copy_from_slice(data));
        }
        let found = self.made.get(cid).or_else(|| self.given.get(cid)).cloned();
        if found.is_none() && !self.wanted.contains(cid) {
            self.wanted.push(*cid);
        }
        found
    }

    /// Makes a dag-pb block; `below` is the size of what it links to.
    pub fn make_node(&mut self, form: CidForm, node: Vec<u8>, below: u64) -> Result<DirectoryRoot, Stop> {
        let dag_size = below.saturating_add(node.len() as u64);
        let cid = self.keep(form.node(node)?);
        Ok(DirectoryRoot { cid, dag_size })
    }

    /// Makes a leaf of plain bytes.
    pub fn make_raw(&mut self, form: CidForm, data: Bytes) -> Result<DirectoryRoot, Stop> {
        let dag_size = data.len() as u64;
        let cid = self.keep(form.raw(data)?);
        Ok(DirectoryRoot { cid, dag_size })
    }

    fn keep(&mut self, block: Block) -> Cid {
        self.made.insert(block.cid, block.data);
        block.cid
    }

    /// Forgets given blocks when they are many; what is needed again is asked for again.
    pub fn shrink(&mut self) {
        if self.given_bytes > KEPT_BYTES {
            self.given_bytes = 0;
            self.given.clear();
        }
    }

    /// The end of a change: of the blocks that were made, those below the root.
    pub fn finish(&mut self, root: DirectoryRoot) -> Edited {
        let mut blocks = Vec::new();
        let mut seen = HashSet::new();
        let mut stack = vec![(root.cid, false)];
        while let Some((cid, is_entered)) = stack.pop() {
            if is_entered {
                let data = self.made.get(&cid).cloned().unwrap_or_default();
                blocks.push(Block { cid, data });
                continue;
            }
            let inline = inline_data(&cid).map(Bytes::copy_from_slice);
            let is_inline = inline.is_some();
            let Some(data) = inline.or_else(|| self.made.get(&cid).cloned()) else { continue };
            if !seen.insert(cid) {
                continue;
            }
            if !is_inline {
                stack.push((cid, true));
            }
            // Blocks made here can be read; those inside CIDs may come from elsewhere, and then nothing made here is below.
            let below = links(&cid, &data).unwrap_or_default();
            stack.extend(below.into_iter().rev().map(|cid| (cid, false)));
        }
        self.made.clear();
        Edited { root: root.cid, dag_size: root.dag_size, blocks }
    }
}

impl<E: Into<EditError>> From<E> for Stop {
    fn from(error: E) -> Stop {
        Stop::Failed(error.into())
    }
}
