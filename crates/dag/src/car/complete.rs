//! Whether an archive holds all that lies below its roots.

use crate::block::inline_data;
use crate::walk::{BLOCKS_MAX, WalkError, key};
use crate::{Block, links};
use std::collections::{BTreeMap, HashMap};
use types::Cid;

/// Follows an archive block by block, in any order. Blocks below no root count for nothing.
///
/// Memory: some 60 bytes for each block where parents come before children, as archives usually are; the links of a block are kept only while no
/// parent of it was seen.
pub struct Completeness {
    /// Known to lie below a root, by a piece of the digest.
    reached: HashMap<[u64; 2], Reached>,
    /// Reached, but not there: in the order in which they were met.
    missing: BTreeMap<u64, Cid>,
    /// There, but not reached: with their links.
    apart: HashMap<[u64; 2], Vec<Cid>>,
    /// How many links those are.
    apart_links: usize,
    met: u64,
    blocks_max: usize,
}

#[derive(Clone, Copy)]
enum Reached {
    Missing(u64),
    There,
}

impl Completeness {
    /// Nothing is there yet.
    pub fn new(roots: &[Cid]) -> Result<Completeness, WalkError> {
        let mut completeness = Completeness {
            reached: HashMap::new(),
            missing: BTreeMap::new(),
            apart: HashMap::new(),
            apart_links: 0,
            met: 0,
            blocks_max: BLOCKS_MAX,
        };
        completeness.reach(roots.to_vec())?;
        Ok(completeness)
    }

    /// Gives up on archives with more blocks (or more links whose block nothing reaches) than this.
    pub fn with_blocks_max(mut self, blocks: usize) -> Completeness {
        self.blocks_max = blocks;
        self
    }

    /// Takes the next block of the archive; whether it is the first time that it comes.
    pub fn add(&mut self, block: &Block) -> Result<bool, WalkError> {
        let key = key(&block.cid);
        let is_known = matches!(self.reached.get(&key), Some(Reached::There)) || self.apart.contains_key(&key);
        if is_known || inline_data(&block.cid).is_some() {
            return Ok(false);
        }
        let links = links(&block.cid, &block.data).map_err(|source| WalkError::Decode { cid: Box::new(block.cid), source })?;
        match self.reached.get_mut(&key) {
            Some(reached) => {
                if let Reached::Missing(order) = std::mem::replace(reached, Reached::There) {
                    self.missing.remove(&order);
                }
                self.reach(links)?;
            }
            None => {
                self.check_count()?;
                self.apart_links += links.len();
                self.apart.insert(key, links);
            }
        }
        Ok(true)
    }

    /// The first block that is missing so far, in the order in which links were met; `None` if all is there.
    pub fn first_missing(&self) -> Option<&Cid> {
        self.missing.values().next()
    }

    /// All blocks known to be missing so far. Below each may be more.
    pub fn missing(&self) -> impl Iterator<Item = &Cid> {
        self.missing.values()
    }

    fn reach(&mut self, links: Vec<Cid>) -> Result<(), WalkError> {
        let mut stack = links;
        stack.reverse();
        while let Some(cid) = stack.pop() {
            if let Some(data) = inline_data(&cid) {
                // What lies inside a CID and cannot be read has no links.
                stack.extend(crate::links(&cid, data).unwrap_or_default().into_iter().rev());
                continue;
            }
            let key = key(&cid);
            if self.reached.contains_key(&key) {
                continue;
            }
            self.check_count()?;
            match self.apart.remove(&key) {
                Some(links) => {
                    self.apart_links -= links.len();
                    self.reached.insert(key, Reached::There);
                    stack.extend(links.into_iter().rev());
                }
                None => {
                    self.reached.insert(key, Reached::Missing(self.met));
                    self.missing.insert(self.met, cid);
                    self.met += 1;
                }
            }
        }
        Ok(())
    }

    fn check_count(&self) -> Result<(), WalkError> {
        let count = self.reached.len() + self.apart.len() + self.apart_links;
        if count >= self.blocks_max { Err(WalkError::TooLarge { limit: self.blocks_max }) } else { Ok(()) }
    }
}
