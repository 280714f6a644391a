//! The room of one data directory: one limit over everything in it, blocks, state and the rest.
//!
//! ```text
//!   |· segments ·|· state: tables and journal ·|· other files ·|· upkeep ·|· one segment ·|···· free for blocks ····|
//!                                                                                                               limit
//! ```
//! *Upkeep* is what the state may take for a while without anybody asking for more: tables being rewritten, the journal until it is cut,
//! memtables on their way to disk. Blocks leave it free always, so the state can grow into it: whoever keeps more (a wish, a pin) is refused
//! when only what a rewrite needs is left, and what serves to let go (a tombstone, an entry of the index) may pass the limit by less than a
//! hundredth.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use types::ByteCount;

/// Part of the limit by which upkeep may pass it.
const OVERDRAFT: u64 = 128;

/// What is used of a limit, counted by those who use it.
#[derive(Debug)]
pub struct Quota {
    limit: u64,
    /// Files beside segments and state: keys, settings.
    other: u64,
    segments: AtomicU64,
    state: AtomicU64,
    /// What rewriting tables needs.
    rewrite: AtomicU64,
    /// What the journal and memtables may still add.
    growth: AtomicU64,
    /// A store counts its state here itself.
    is_told: AtomicBool,
}

impl Quota {
    /// Nothing is used but `other`.
    pub fn new(limit: ByteCount, other: ByteCount) -> Arc<Quota> {
        Arc::new(Quota {
            limit: limit.get(),
            other: other.get(),
            segments: AtomicU64::default(),
            state: AtomicU64::default(),
            rewrite: AtomicU64::default(),
            growth: AtomicU64::default(),
            is_told: AtomicBool::default(),
        })
    }

    /// The limit.
    pub fn limit(&self) -> ByteCount {
        ByteCount(self.limit)
    }

    /// What the whole directory takes.
    pub fn used(&self) -> ByteCount {
        let parts = [&self.segments, &self.state].map(|part| part.load(Ordering::Relaxed));
        ByteCount(self.other.saturating_add(parts[0]).saturating_add(parts[1]))
    }

    /// What the state takes.
    pub fn state(&self) -> ByteCount {
        ByteCount(self.state.load(Ordering::Relaxed))
    }

    /// What blocks leave free for the state.
    pub fn upkeep(&self) -> ByteCount {
        ByteCount(self.rewrite.load(Ordering::Relaxed).saturating_add(self.growth.load(Ordering::Relaxed)))
    }

    /// What blocks may still add when they leave `segment` for a compaction.
    pub fn free_for_blocks(&self, segment: ByteCount) -> ByteCount {
        self.limit() - self.used() - self.upkeep() - segment
    }

    /// What the state may still add: to keep more, or (`is_upkeep`) to let go and to keep its books.
    pub fn free_for_state(&self, is_upkeep: bool) -> ByteCount {
        let over = if is_upkeep { ByteCount(self.limit / OVERDRAFT) } else { ByteCount::ZERO };
        let rewrite = if is_upkeep { ByteCount::ZERO } else { ByteCount(self.rewrite.load(Ordering::Relaxed)) };
        self.limit() + over - self.used() - rewrite
    }

    /// A store will count its state here.
    pub(crate) fn tell(&self) {
        self.is_told.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_told(&self) -> bool {
        self.is_told.load(Ordering::Relaxed)
    }

    /// The segments take so much.
    pub(crate) fn set_segments(&self, bytes: u64) {
        self.segments.store(bytes, Ordering::Relaxed);
    }

    /// The state was measured.
    pub(crate) fn set_state(&self, state: u64, rewrite: u64, growth: u64) {
        self.state.store(state, Ordering::Relaxed);
        self.rewrite.store(rewrite, Ordering::Relaxed);
        self.growth.store(growth, Ordering::Relaxed);
    }

    /// The state grew since it was measured.
    pub(crate) fn add_state(&self, bytes: u64) {
        self.state.fetch_add(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_stop_before_wishes_and_wishes_before_letting_go() {
        let quota = Quota::new(ByteCount(12_800), ByteCount(100));
        quota.set_segments(5_000);
        quota.set_state(1_000, 500, 700);
        assert_eq!(quota.used(), ByteCount(6_100));
        assert_eq!(quota.free_for_blocks(ByteCount(200)), ByteCount(12_800 - 6_100 - 1_200 - 200));
        assert_eq!(quota.free_for_state(false), ByteCount(12_800 - 6_100 - 500));
        quota.set_segments(11_000);
        assert_eq!((quota.free_for_blocks(ByteCount(200)), quota.free_for_state(false)), (ByteCount::ZERO, ByteCount(200)));
        quota.add_state(200);
        assert_eq!(quota.free_for_state(false), ByteCount::ZERO, "a rewrite still fits");
        quota.add_state(500);
        assert_eq!(quota.free_for_state(true), ByteCount(100), "less than a hundredth over the limit");
    }
}
