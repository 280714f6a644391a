//! Garbage collection: mark what the pins need, remove what nobody needs, give the space back. Runs beside everything else.
//!
//! Order matters: the lease is taken first, then the table of pins is read. A pin that was written before is in the table; one that
//! is written later has touched its blocks under a lease of its own, and the epochs of those touches stay until the collection ends
//! (`safety`).
//!
//! Memory: two bytes for each block of the node, and 15 to 30 for each block of the pinned DAGs that has links.

use crate::bloom::Bloom;
use crate::error::Damage;
use crate::shared::Shared;
use ipfs::walk::{Visit, Walk};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use store::packs::PackError;
use types::{ByteCount, Cid};

/// Pins read from the table at once.
const PINS_PER_PAGE: usize = 1000;
/// Blocks listed at once.
const BLOCKS_PER_PAGE: usize = 4096;
/// Blocks removed at once: whoever puts or pins waits that long (about a millisecond).
const BLOCKS_PER_SWEEP: usize = 512;
/// Bytes that one step of compaction rewrites.
const COMPACT_STEP: ByteCount = ByteCount(256 << 20);

/// What a pinned block that cannot be read means for a walk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unreadable {
    /// What it needs is unknown: nothing may be removed.
    Ends,
    /// What hangs below it is left out.
    IsPassedBy,
}

/// Why a collection did not come to its end. What it removed until then was garbage.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CollectError {
    /// A pinned block cannot be read, so what hangs below it is unknown; nothing was removed.
    #[error("{0}")]
    Unreadable(Cid),
    /// Called off.
    #[error("the collection was called off")]
    CalledOff,
    /// The disk or the table failed.
    #[error("{0}")]
    Failed(String),
}

impl Shared {
    /// Removes garbage; bytes of the removed blocks. Blocks its thread until `stop` is set or it is done.
    pub(crate) fn collect(&self, stop: &AtomicBool) -> Result<ByteCount, CollectError> {
        let _only_one = self.collecting.lock();
        self.safety.release_abandoned(Instant::now());
        let _lease = self.safety.begin();
        let marks = self.mark(&|| stop.load(Ordering::Relaxed), Unreadable::Ends)?;
        let freed = self.remove_unmarked(&marks, stop)?;
        while !stop.load(Ordering::Relaxed) && self.packs.compact(COMPACT_STEP).map_err(failed)? > ByteCount::ZERO {}
        Ok(freed)
    }

    /// Every block that a pin needs, as far as the pins can be read; none when `stop` says so.
    pub(crate) fn pinned(&self, stop: &dyn Fn() -> bool) -> Result<Bloom, CollectError> {
        self.mark(stop, Unreadable::IsPassedBy)
    }

    fn mark(&self, stop: &dyn Fn() -> bool, unreadable: Unreadable) -> Result<Bloom, CollectError> {
        let blocks = self.packs.stats().map_err(failed)?.blocks;
        let marks = Bloom::for_entries(blocks);
        let mut walk = Walk::unbegun().without_counting_leaves();
        let mut after = None;
        loop {
            let page = self.held.list(after.as_ref(), PINS_PER_PAGE).map_err(failed)?;
            let Some(last) = page.last() else { return Ok(marks) };
            after = Some(last.cid);
            for held in &page {
                if let Some(depth) = held.deepest() {
                    walk.add_root(held.cid, depth);
                    self.each_reachable(&mut walk, stop, unreadable, |cid| marks.insert(&cid.hash().to_bytes()))?;
                }
            }
        }
    }

    /// Calls `each` for what the roots of a walk need; damaged and missing blocks are passed by.
    pub(crate) fn reachable(&self, walk: &mut Walk, stop: &dyn Fn() -> bool, each: impl FnMut(&Cid)) -> Result<(), CollectError> {
        self.each_reachable(walk, stop, Unreadable::IsPassedBy, each)
    }

    fn each_reachable(
        &self,
        walk: &mut Walk,
        stop: &dyn Fn() -> bool,
        unreadable: Unreadable,
        mut each: impl FnMut(&Cid),
    ) -> Result<(), CollectError> {
        while let Some(visit) = walk.next_visit() {
            if stop() {
                return Err(CollectError::CalledOff);
            }
            each(&visit.cid);
            if visit.needs_data() {
                match self.follow(walk, &visit) {
                    Err(CollectError::Unreadable(_)) if unreadable == Unreadable::IsPassedBy => {}
                    followed => followed?,
                }
            }
        }
        Ok(())
    }

    fn follow(&self, walk: &mut Walk, visit: &Visit) -> Result<(), CollectError> {
        let data = match self.read(&visit.cid) {
            Ok(Some(data)) => data,
            Ok(None) | Err(Damage::Corrupt) => return Err(CollectError::Unreadable(visit.cid)),
            Err(Damage::Failed(reason)) => return Err(CollectError::Failed(reason)),
        };
        walk.got(visit, &data).map_err(|_| CollectError::Unreadable(visit.cid))
    }

    fn remove_unmarked(&self, marks: &Bloom, stop: &AtomicBool) -> Result<ByteCount, CollectError> {
        let mut freed = ByteCount::ZERO;
        let mut after = None;
        loop {
            let page = self.packs.blocks(after.as_deref(), BLOCKS_PER_PAGE).map_err(failed)?;
            let Some((last, _)) = page.last() else { return Ok(freed) };
            after = Some(last.clone());
            let garbage: Vec<Garbage> =
                page.into_iter().filter(|(key, _)| !marks.may_contain(key)).map(|(key, size)| Garbage { key, size }).collect();
            for group in garbage.chunks(BLOCKS_PER_SWEEP) {
                if stop.load(Ordering::Relaxed) {
                    return Err(CollectError::CalledOff);
                }
                freed += self.safety.sweep(group.to_vec(), |group| self.delete(&group)).map_err(failed)?;
            }
        }
    }

    fn delete(&self, group: &[Garbage]) -> Result<ByteCount, PackError> {
        if !group.is_empty() {
            let keys: Vec<&[u8]> = group.iter().map(|garbage| &garbage.key[..]).collect();
            self.packs.delete(&keys)?;
        }
        Ok(ByteCount(group.iter().map(|garbage| garbage.size).sum()))
    }
}

#[derive(Clone)]
struct Garbage {
    key: bytes::Bytes,
    size: u64,
}

impl AsRef<[u8]> for Garbage {
    fn as_ref(&self) -> &[u8] {
        &self.key
    }
}

fn failed(error: impl std::error::Error) -> CollectError {
    CollectError::Failed(crate::error::chain(&error))
}
