//! A node as the cluster sees it: a disk of so many bytes, pins, and content that people pinned there themselves.
//!
//! There are two kinds. Like the embedded node, one knows owners: it lists what the cluster owns, and content goes with its
//! last owner. Like a Kubo, the other knows none: it lists all pins, says that something was held before, and lets go of
//! whatever it is told; what a person pinned there is safe only as long as the cluster does not touch it.

use std::collections::BTreeMap;
use std::ops::Bound;
use types::Cid;

/// What a node keeps.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// Pins. Durable.
    held: BTreeMap<Cid, Held>,
    /// Blocks of adds that are not pinned yet.
    loose: BTreeMap<Cid, u64>,
    /// Room taken by fetches under way.
    coming: BTreeMap<Cid, u64>,
    used: u64,
    /// Bytes it may take.
    pub limit: u64,
    /// Whether it knows owners.
    pub has_owners: bool,
}

/// A pin and whose it is.
#[derive(Clone, Copy, Debug)]
struct Held {
    size: u64,
    is_of_cluster: bool,
    is_of_person: bool,
}

impl Node {
    /// An empty node.
    pub fn new(limit: u64, has_owners: bool) -> Node {
        Node { limit, has_owners, ..Node::default() }
    }

    /// A person pins something.
    pub fn pin_foreign(&mut self, cid: Cid, size: u64) {
        self.hold(cid, size).is_of_person = true;
    }

    /// Bytes on disk, and those of fetches under way.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// Whether all of a pin is here and pinned.
    pub fn holds(&self, cid: &Cid) -> bool {
        self.held.contains_key(cid)
    }

    /// Whether all blocks are here, pinned or not.
    pub fn has_blocks(&self, cid: &Cid) -> bool {
        self.holds(cid) || self.loose.contains_key(cid)
    }

    /// Whether a person pinned it.
    pub fn is_foreign(&self, cid: &Cid) -> bool {
        self.held.get(cid).is_some_and(|held| held.is_of_person)
    }

    /// Begins a fetch; the free bytes when they do not suffice.
    pub fn begin(&mut self, cid: &Cid, size: u64) -> Result<(), u64> {
        if self.has_blocks(cid) {
            return Ok(());
        }
        let free = self.limit.saturating_sub(self.used);
        if size > free {
            return Err(free);
        }
        self.used += size;
        self.used -= self.coming.insert(*cid, size).unwrap_or(0);
        Ok(())
    }

    /// A fetch ends without a pin.
    pub fn abandon(&mut self, cid: &Cid) {
        self.used -= self.coming.remove(cid).unwrap_or(0);
    }

    /// A fetch is complete: pinned for the cluster and durable.
    pub fn finish(&mut self, cid: &Cid, size: u64) {
        self.hold(*cid, size).is_of_cluster = true;
    }

    fn hold(&mut self, cid: Cid, size: u64) -> &mut Held {
        self.used -= self.coming.remove(&cid).unwrap_or(0) + self.loose.remove(&cid).unwrap_or(0);
        let used = &mut self.used;
        self.held.entry(cid).or_insert_with(|| {
            *used += size;
            Held { size, is_of_cluster: false, is_of_person: false }
        })
    }

    /// Blocks of an add came.
    pub fn put_loose(&mut self, cid: &Cid, size: u64) -> bool {
        if self.has_blocks(cid) {
            return true;
        }
        let has_room = self.limit.saturating_sub(self.used) >= size;
        if has_room {
            self.loose.insert(*cid, size);
            self.used += size;
        }
        has_room
    }

    /// The cluster lets go. Who knows owners keeps what a person still wants; who does not is left without it.
    pub fn unpin(&mut self, cid: &Cid) {
        let Some(held) = self.held.get_mut(cid) else { return };
        held.is_of_cluster = false;
        if !(held.is_of_person && self.has_owners) {
            self.used -= held.size;
            self.held.remove(cid);
        }
    }

    /// A page of all pins, or of the cluster's where owners are known.
    pub fn page(&self, after: Option<&Cid>, limit: usize) -> Vec<Cid> {
        let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(*after));
        let listed = self.held.range((from, Bound::Unbounded)).filter(|(_, held)| held.is_of_cluster || !self.has_owners);
        listed.take(limit).map(|(cid, _)| *cid).collect()
    }

    /// The power goes: fetches are lost; pins and the blocks of adds, which were durable when they were taken, are not.
    pub fn crash(&mut self) {
        self.used -= std::mem::take(&mut self.coming).values().sum::<u64>();
    }

    /// The disk is replaced by an empty one.
    pub fn lose_disk(&mut self) {
        *self = Node::new(self.limit, self.has_owners);
    }

    /// All pins, whoever made them.
    pub fn pins(&self) -> impl Iterator<Item = &Cid> {
        self.held.keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cid::multihash::Multihash;

    fn cid(number: u8) -> Cid {
        Cid::new_v1(0x55, Multihash::wrap(0x12, &[number; 32]).expect("32 bytes fit"))
    }

    /// A person pinned 1; the cluster pins and lets go of 1 and 2. What is held, what was listed meanwhile, what is used.
    fn check(has_owners: bool, held: [bool; 2], listed: &[u8], used: u64) {
        let mut node = Node::new(100, has_owners);
        node.pin_foreign(cid(1), 10);
        assert!(node.begin(&cid(2), 20).is_ok() && node.begin(&cid(3), 90).is_err());
        node.finish(&cid(2), 20);
        node.pin_foreign(cid(4), 1);
        assert_eq!(node.page(None, 9), listed.iter().map(|number| cid(*number)).collect::<Vec<_>>());
        node.finish(&cid(1), 10);
        node.unpin(&cid(1));
        node.unpin(&cid(2));
        assert_eq!([node.holds(&cid(1)), node.holds(&cid(2))], held);
        assert_eq!(node.used(), used);
    }

    #[test]
    fn content_goes_with_its_last_owner_where_owners_are_known() {
        check(true, [true, false], &[2], 11);
        check(false, [false, false], &[1, 2, 4], 1);
    }

    #[test]
    fn what_is_used_follows_fetches_adds_and_crashes() {
        let mut node = Node::new(100, true);
        assert!(node.put_loose(&cid(1), 30));
        assert!(node.begin(&cid(2), 40).is_ok());
        assert!(!node.put_loose(&cid(3), 40));
        node.crash();
        assert_eq!(node.used(), 30);
        node.finish(&cid(1), 30);
        assert!(node.begin(&cid(4), 70).is_ok());
        node.abandon(&cid(4));
        assert_eq!(node.used(), 30);
    }
}
