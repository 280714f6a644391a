//! What a node in memory holds, and its garbage collection; plain state behind the node's lock.

use crate::walk::{Walk, covers};
use crate::{Block, HeldPin, PinTask, Pinned, PutError, Space};
use bytes::Bytes;
use dag::HashFn;
use dag::block::inline_data;
use std::collections::{BTreeMap, HashMap, HashSet};
use types::{ByteCount, Cid, Depth, Owner, UnixMillis};

/// The name of a block without version and codec: twins share their content.
type Key = Vec<u8>;

pub(super) struct State {
    limit: ByteCount,
    used: ByteCount,
    blocks: HashMap<Key, Bytes>,
    adding: BTreeMap<Owner, HashSet<Key>>,
    pins: BTreeMap<Vec<u8>, HeldPin>,
    running: BTreeMap<u64, (Cid, Depth)>,
    pins_begun: u64,
}

impl State {
    pub(super) fn new(limit: ByteCount) -> State {
        State {
            limit,
            used: ByteCount::ZERO,
            blocks: HashMap::new(),
            adding: BTreeMap::new(),
            pins: BTreeMap::new(),
            running: BTreeMap::new(),
            pins_begun: 0,
        }
    }

    pub(super) fn get(&self, cid: &Cid) -> Option<Bytes> {
        inline_data(cid).map(Bytes::copy_from_slice).or_else(|| self.blocks.get(&key(cid)).cloned())
    }

    /// All of them or none; they match their CIDs.
    pub(super) fn put(&mut self, owner: &Owner, blocks: Vec<Block>) -> Result<(), PutError> {
        let stored = || blocks.iter().filter(|block| block.cid.hash().code() != HashFn::IDENTITY.code());
        let new: HashMap<Key, &Bytes> =
            stored().map(|block| (key(&block.cid), &block.data)).filter(|(key, _)| !self.blocks.contains_key(key)).collect();
        let needed = ByteCount(new.values().map(|data| data.len() as u64).sum());
        let free = self.limit - self.used;
        if needed > free {
            return Err(PutError::NoRoom { needed, free });
        }
        if matches!(owner, Owner::Adding(_)) {
            self.adding.entry(owner.clone()).or_default().extend(stored().map(|block| key(&block.cid)));
        }
        let new: Vec<(Key, Bytes)> = new.into_iter().map(|(key, data)| (key, data.clone())).collect();
        self.blocks.extend(new);
        self.used += needed;
        Ok(())
    }

    pub(super) fn release(&mut self, owner: &Owner) {
        self.adding.remove(owner);
    }

    pub(super) fn lose(&mut self, cid: &Cid) {
        if let Some(data) = self.blocks.remove(&key(cid)) {
            self.used = self.used - ByteCount(data.len() as u64);
        }
    }

    pub(super) fn begin_pin(&mut self, task: &PinTask) -> u64 {
        self.pins_begun += 1;
        self.running.insert(self.pins_begun, (task.cid, task.depth));
        self.pins_begun
    }

    pub(super) fn end_pin(&mut self, number: u64) {
        self.running.remove(&number);
    }

    /// Writes a pin whose blocks are all here; its size.
    pub(super) fn keep(&mut self, task: &PinTask, size: Pinned, now: UnixMillis) -> Pinned {
        let held = self.pins.entry(task.cid.to_bytes()).or_insert_with(|| HeldPin { cid: task.cid, owners: Vec::new(), size });
        if held.deepest().is_none_or(|before| covers(task.depth, before)) {
            held.size = size;
        }
        held.add_owner(task.owner.clone(), task.depth, now);
        size
    }

    pub(super) fn let_go(&mut self, owner: &Owner, cid: &Cid) {
        let key = cid.to_bytes();
        if let Some(held) = self.pins.get_mut(&key) {
            held.remove_owner(owner);
            if held.owners.is_empty() {
                self.pins.remove(&key);
            }
        }
    }

    pub(super) fn pins(&self, after: Option<Cid>, limit: usize) -> Vec<HeldPin> {
        use std::ops::Bound::{Excluded, Unbounded};
        let start = after.map_or(Unbounded, |cid| Excluded(cid.to_bytes()));
        self.pins.range((start, Unbounded)).take(limit).map(|(_, held)| held.clone()).collect()
    }

    pub(super) fn pin_of(&self, cid: &Cid) -> Option<HeldPin> {
        self.pins.get(&cid.to_bytes()).cloned()
    }

    pub(super) fn space(&self) -> Space {
        Space { limit: self.limit, used: self.used, upkeep: ByteCount::ZERO, blocks: self.blocks.len() as u64, is_exact: true }
    }

    /// Removes what no pin, no running pin and no open add needs.
    ///
    /// A running pin keeps all that can be reached from its root now. What it has not reached it will look for, and fetch again.
    pub(super) fn collect_garbage(&mut self) -> ByteCount {
        let mut needed: HashSet<Key> = self.adding.values().flatten().cloned().collect();
        let held = self.pins.values().filter_map(|held| Some((held.cid, held.deepest()?)));
        for (root, depth) in held.chain(self.running.values().copied()) {
            let mut walk = Walk::new(root, depth);
            while let Some(visit) = walk.next_visit() {
                needed.insert(key(&visit.cid));
                if let Some(data) = self.get(&visit.cid) {
                    // A malformed block was no part of a finished pin; nothing below it is known.
                    let _ = walk.got(&visit, &data);
                }
            }
        }
        let before = self.used;
        self.blocks.retain(|key, _| needed.contains(key));
        self.used = ByteCount(self.blocks.values().map(|data| data.len() as u64).sum());
        before - self.used
    }
}

fn key(cid: &Cid) -> Key {
    cid.hash().to_bytes()
}
