//! A node as the cluster sees it: a disk of so many bytes, pins, and content that people pinned there themselves.
//!
//! Like a Kubo, it lists all pins and knows no owners; what a person pinned is `foreign` to the cluster.

use std::collections::{BTreeMap, BTreeSet};
use types::Cid;

/// What a node keeps.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// Pins by CID bytes, with their sizes. Durable.
    held: BTreeMap<Vec<u8>, (Cid, u64)>,
    /// Those among them that a person made.
    foreign: BTreeSet<Cid>,
    /// Blocks of adds that are not pinned yet.
    loose: BTreeMap<Cid, u64>,
    /// Room taken by fetches under way.
    coming: BTreeMap<Cid, u64>,
    /// Bytes it may take.
    pub limit: u64,
}

impl Node {
    /// An empty node.
    pub fn new(limit: u64) -> Node {
        Node { limit, ..Node::default() }
    }

    /// A person pins something.
    pub fn pin_foreign(&mut self, cid: Cid, size: u64) {
        self.held.insert(cid.to_bytes(), (cid, size));
        self.foreign.insert(cid);
    }

    /// Bytes on disk.
    pub fn used(&self) -> u64 {
        self.held.values().map(|(_, size)| size).sum::<u64>() + self.loose.values().sum::<u64>() + self.coming.values().sum::<u64>()
    }

    /// Whether all of a pin is here and pinned.
    pub fn holds(&self, cid: &Cid) -> bool {
        self.held.contains_key(&cid.to_bytes())
    }

    /// Whether all blocks are here, pinned or not.
    pub fn has_blocks(&self, cid: &Cid) -> bool {
        self.holds(cid) || self.loose.contains_key(cid)
    }

    /// Whether a person pinned it.
    pub fn is_foreign(&self, cid: &Cid) -> bool {
        self.foreign.contains(cid)
    }

    /// Foreign pins.
    pub fn foreign(&self) -> impl Iterator<Item = &Cid> {
        self.foreign.iter()
    }

    /// Begins a fetch; the free bytes when they do not suffice.
    pub fn begin(&mut self, cid: &Cid, size: u64) -> Result<(), u64> {
        if self.has_blocks(cid) {
            return Ok(());
        }
        let free = self.limit.saturating_sub(self.used());
        if size > free {
            return Err(free);
        }
        self.coming.insert(*cid, size);
        Ok(())
    }

    /// A fetch ends without a pin.
    pub fn abandon(&mut self, cid: &Cid) {
        self.coming.remove(cid);
    }

    /// A fetch is complete: pinned and durable.
    pub fn finish(&mut self, cid: &Cid, size: u64) {
        self.coming.remove(cid);
        self.loose.remove(cid);
        self.held.insert(cid.to_bytes(), (*cid, size));
    }

    /// Blocks of an add came.
    pub fn put_loose(&mut self, cid: &Cid, size: u64) -> bool {
        if self.has_blocks(cid) {
            return true;
        }
        let has_room = self.limit.saturating_sub(self.used()) >= size;
        if has_room {
            self.loose.insert(*cid, size);
        }
        has_room
    }

    /// The cluster lets go.
    pub fn unpin(&mut self, cid: &Cid) {
        self.held.remove(&cid.to_bytes());
        self.foreign.remove(cid);
    }

    /// A page of all pins.
    pub fn page(&self, after: Option<&Cid>, limit: usize) -> Vec<Cid> {
        let after = after.map(Cid::to_bytes);
        let from = after.clone().unwrap_or_default();
        self.held.range(from..).filter(|(key, _)| Some(*key) != after.as_ref()).take(limit).map(|(_, (cid, _))| *cid).collect()
    }

    /// The power goes: fetches are lost; pins and the blocks of adds, which were durable when they were taken, are not.
    pub fn crash(&mut self) {
        self.coming.clear();
    }

    /// The cluster's pins: everything but the foreign.
    pub fn cluster_pins(&self) -> impl Iterator<Item = &Cid> {
        self.held.values().map(|(cid, _)| cid).filter(|cid| !self.foreign.contains(cid))
    }
}
