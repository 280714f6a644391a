//! Stretches of history: a block and what lies below it, in one answer between Pinfold peers.

use super::World;
use crate::queue::{Packet, Place, What};
use bytes::Bytes;
use consensus::crdt::block::Block;
use consensus::crdt::{self, BlockId};
use std::collections::BTreeSet;
use std::rc::Rc;
use store::{Area, Store};
use types::Cid;

/// A question is given up after so long.
const ANSWER_WITHIN: u64 = 5_000;
/// Blocks in one answer.
const BLOCKS_MOST: usize = 64;

impl World {
    pub(super) fn fetch_stretch(&mut self, place: Place, cid: Cid, other: Option<Place>, have: Vec<Cid>) {
        let life = self.peers[place].life;
        let (Some(other), Some(running)) = (other, self.peers[place].running.as_mut()) else { return };
        running.stretches_asked.insert((cid, other));
        self.send(place, other, &Packet::WantStretch(cid, Rc::new(have)));
        self.at(self.now + ANSWER_WITHIN, What::StretchLate(place, life, cid, other));
    }

    /// Answers from the own disk, highest blocks first, so that each comes after one that links to it.
    pub(super) fn stretch_wanted(&mut self, from: Place, to: Place, cid: Cid, have: &[Cid]) {
        let have: BTreeSet<BlockId> = have.iter().filter_map(BlockId::of_cid).collect();
        let mut blocks = Vec::new();
        let mut seen: BTreeSet<BlockId> = BlockId::of_cid(&cid).into_iter().collect();
        let mut next: BTreeSet<(u64, BlockId)> = seen.iter().map(|id| (u64::MAX, *id)).collect();
        while let Some((_, id)) = next.pop_last() {
            let Ok(Some(bytes)) = self.peers[to].store.get(Area::DagBlocks, &id.0) else { continue };
            let links = self.shape(&id, &bytes).1.clone();
            blocks.push(bytes);
            if blocks.len() == BLOCKS_MOST {
                break;
            }
            for link in links {
                if have.contains(&link) || !seen.insert(link) {
                    continue;
                }
                if let Ok(Some(bytes)) = self.peers[to].store.get(Area::DagBlocks, &link.0) {
                    next.insert((self.shape(&link, &bytes).0, link));
                }
            }
        }
        self.send(to, from, &Packet::Stretch(cid, Rc::new(blocks)));
    }

    /// Priority and links of a block.
    pub(super) fn shape(&mut self, id: &BlockId, bytes: &[u8]) -> &(u64, Vec<BlockId>) {
        self.shapes.entry(*id).or_insert_with(|| Block::parse(bytes).map(|block| (block.priority, block.links)).unwrap_or_default())
    }

    pub(super) fn stretch_came(&mut self, from: Place, to: Place, cid: Cid, blocks: &[Bytes]) {
        if self.peers[to].running.as_mut().is_some_and(|running| running.stretches_asked.remove(&(cid, from))) {
            let from = self.peers[from].id;
            self.tell_crdt(to, crdt::Event::Stretch { cid, from, blocks: blocks.to_vec() });
        }
    }

    pub(super) fn stretch_late(&mut self, place: Place, life: u32, cid: Cid, other: Place) {
        if self.lives(place, life)
            && self.peers[place].running.as_mut().is_some_and(|running| running.stretches_asked.remove(&(cid, other)))
        {
            let from = self.peers[other].id;
            self.tell_crdt(place, crdt::Event::Stretch { cid, from, blocks: Vec::new() });
        }
    }
}
