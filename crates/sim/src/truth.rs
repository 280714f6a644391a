//! What was promised to people, and what exists in the world whether a peer knows it or not.

use crate::queue::Time;
use std::collections::BTreeMap;
use types::Cid;

/// What a person was told about a pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// Nothing yet.
    None,
    /// It is kept.
    Kept,
    /// Its removal was asked for.
    Unclear,
    /// It was removed.
    Removed,
}

/// One thing that people pin.
#[derive(Clone, Debug)]
pub struct Item {
    /// Bytes.
    pub size: u64,
    /// Copies wished at least; 0 is everywhere.
    pub least: u32,
    /// Copies wished at most.
    pub most: u32,
    /// What was promised.
    pub promise: Promise,
    /// Nobody in the world has it.
    pub is_unfetchable: bool,
    /// Somebody outside the cluster still has it.
    pub is_outside: bool,
    /// When its last copies were lost with their disks.
    pub lost: Vec<Time>,
}

/// Everything that is pinned.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    /// By CID.
    pub items: BTreeMap<Cid, Item>,
}

impl Truth {
    /// One thing.
    pub fn item(&self, cid: &Cid) -> Option<&Item> {
        self.items.get(cid)
    }

    /// Its size; foreign things are small.
    pub fn size(&self, cid: &Cid) -> u64 {
        self.items.get(cid).map_or(1, |item| item.size)
    }

    /// Notes what was promised.
    pub fn promise(&mut self, cid: &Cid, promise: Promise) {
        if let Some(item) = self.items.get_mut(cid) {
            item.promise = promise;
        }
    }

    /// Whether it was promised to be kept.
    pub fn is_kept(&self, cid: &Cid) -> bool {
        self.items.get(cid).is_some_and(|item| item.promise == Promise::Kept)
    }

    /// So many peers hold it: once there are enough, nobody outside has it any more.
    pub fn held_by(&mut self, cid: &Cid, holders: u32) {
        if let Some(item) = self.items.get_mut(cid)
            && holders >= item.least.max(2)
        {
            item.is_outside = false;
        }
    }

    /// A copy was lost with its disk.
    pub fn lost_copy(&mut self, cid: &Cid, now: Time) {
        if let Some(item) = self.items.get_mut(cid) {
            item.lost.push(now);
        }
    }
}
