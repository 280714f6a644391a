//! What a collection must not take although no pin names it: blocks that an add has put, or that a pin on its way has seen.
//!
//! Every add and every running pin holds a *lease*. Whatever they put or rely on is *touched* first: noted in the current *epoch*, a
//! set of limited size ([`Bloom`]). An epoch is kept as long as a lease is open that began in it or before; so memory is about two
//! bytes for each block touched since the oldest open lease began, and nothing is kept for each lease.
//!
//! A collection holds a lease itself, so all epochs of its beginning stay until its end: what a pin touched and wrote into the table
//! meanwhile is safe although the collection has read the table before. It removes blocks in small groups behind
//! [`Safety::sweep`], which nobody's touch can overlap. So after a touch, a block that is seen is there to stay.

use crate::bloom::Bloom;
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Touches that the first epoch takes.
const EPOCH_FIRST: u64 = 1 << 16;
/// Touches that any epoch takes: 2 MiB of memory.
const EPOCH_MOST: u64 = 1 << 20;
/// Touches between two looks at the room of an epoch, which may be overfilled by so many.
const TOUCHES_AT_ONCE: usize = 1024;

/// All leases and epochs of a node.
pub(crate) struct Safety {
    leases: Mutex<Leases>,
    /// Read while blocks are touched, written while a group is removed.
    gate: RwLock<()>,
}

struct Leases {
    /// The current epoch is the last.
    epochs: VecDeque<Arc<Epoch>>,
    /// The epoch in which each open lease began, by the lease's number.
    open: BTreeMap<u64, u64>,
    next_lease: u64,
    next_epoch: u64,
    /// The leases of adds: they end by being released, not with a task.
    adds: BTreeMap<u64, AddLease>,
}

struct AddLease {
    lease: u64,
    ends: Option<Idle>,
}

/// An add that may be abandoned.
#[derive(Clone, Copy)]
struct Idle {
    after: Duration,
    touched: Instant,
}

struct Epoch {
    number: u64,
    touched: Bloom,
    room: Mutex<u64>,
}

/// An open lease; ends when dropped.
pub(crate) struct Lease {
    safety: Arc<Safety>,
    number: u64,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.safety.leases.lock().end(self.number);
    }
}

impl Safety {
    pub(crate) fn new() -> Arc<Safety> {
        let mut leases = Leases { epochs: VecDeque::new(), open: BTreeMap::new(), next_lease: 0, next_epoch: 0, adds: BTreeMap::new() };
        leases.begin_epoch(EPOCH_FIRST);
        Arc::new(Safety { leases: Mutex::new(leases), gate: RwLock::new(()) })
    }

    /// Opens a lease for a task.
    pub(crate) fn begin(self: &Arc<Self>) -> Lease {
        let number = self.leases.lock().begin();
        Lease { safety: self.clone(), number }
    }

    /// Opens the lease of an add, or keeps it open. With `idle` it ends by itself after so long without another call.
    pub(crate) fn keep_add(&self, add: u64, idle: Option<Duration>, now: Instant) {
        let mut leases = self.leases.lock();
        let ends = idle.map(|after| Idle { after, touched: now });
        match leases.adds.get_mut(&add) {
            Some(known) => known.ends = ends,
            None => {
                let lease = leases.begin();
                leases.adds.insert(add, AddLease { lease, ends });
            }
        }
    }

    /// Ends the lease of an add; twice is fine.
    pub(crate) fn release_add(&self, add: u64) {
        let mut leases = self.leases.lock();
        if let Some(known) = leases.adds.remove(&add) {
            leases.end(known.lease);
        }
    }

    /// Ends the leases of abandoned adds; how many there were.
    pub(crate) fn release_abandoned(&self, now: Instant) -> usize {
        let mut leases = self.leases.lock();
        let is_over = |known: &AddLease| known.ends.is_some_and(|idle| now.saturating_duration_since(idle.touched) >= idle.after);
        let over: Vec<u64> = leases.adds.iter().filter(|(_, known)| is_over(known)).map(|(add, _)| *add).collect();
        for add in &over {
            if let Some(known) = leases.adds.remove(add) {
                leases.end(known.lease);
            }
        }
        over.len()
    }

    /// Notes that whoever calls (under an open lease) needs these blocks. Waits for the group that is being removed.
    pub(crate) fn touch<K: AsRef<[u8]>>(&self, blocks: &[K]) {
        let _no_sweep = self.gate.read();
        for group in blocks.chunks(TOUCHES_AT_ONCE) {
            let epoch = self.leases.lock().epoch_for(group.len() as u64);
            if let Some(epoch) = epoch {
                group.iter().for_each(|block| epoch.touched.insert(block.as_ref()));
            }
        }
    }

    /// Hands those of `blocks` to `remove` that nobody has touched; nobody can touch them meanwhile.
    pub(crate) fn sweep<B: AsRef<[u8]>, R>(&self, blocks: Vec<B>, remove: impl FnOnce(Vec<B>) -> R) -> R {
        let _no_touch = self.gate.write();
        let epochs: Vec<Arc<Epoch>> = self.leases.lock().epochs.iter().cloned().collect();
        let is_touched = |block: &B| epochs.iter().any(|epoch| epoch.touched.may_contain(block.as_ref()));
        remove(blocks.into_iter().filter(|block| !is_touched(block)).collect())
    }
}

impl Leases {
    fn begin(&mut self) -> u64 {
        let lease = self.next_lease;
        self.next_lease += 1;
        let epoch = self.epochs.back().map_or(0, |epoch| epoch.number);
        self.open.insert(lease, epoch);
        lease
    }

    fn end(&mut self, lease: u64) {
        self.open.remove(&lease);
        match self.open.values().min() {
            Some(oldest) => self.epochs.retain(|epoch| epoch.number >= *oldest),
            None => {
                let is_used = self.epochs.back().is_some_and(|epoch| *epoch.room.lock() < EPOCH_FIRST);
                if self.epochs.len() > 1 || is_used {
                    self.epochs.clear();
                    self.begin_epoch(EPOCH_FIRST);
                }
            }
        }
    }

    fn begin_epoch(&mut self, room: u64) {
        let number = self.next_epoch;
        self.next_epoch += 1;
        self.epochs.push_back(Arc::new(Epoch { number, touched: Bloom::for_entries(room), room: Mutex::new(room) }));
    }

    /// The current epoch, with room taken for `count` touches.
    fn epoch_for(&mut self, count: u64) -> Option<Arc<Epoch>> {
        let has_room = self.epochs.back().is_some_and(|epoch| *epoch.room.lock() > 0);
        if !has_room {
            self.begin_epoch((EPOCH_FIRST << self.epochs.len().min(8)).min(EPOCH_MOST));
        }
        let epoch = self.epochs.back()?;
        let mut room = epoch.room.lock();
        *room = room.saturating_sub(count);
        drop(room);
        Some(epoch.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(safety: &Safety, numbers: std::ops::Range<u64>) {
        safety.touch(&numbers.map(u64::to_le_bytes).collect::<Vec<_>>());
    }

    /// How many of these a sweep would take.
    fn sweepable(safety: &Safety, numbers: std::ops::Range<u64>) -> usize {
        safety.sweep(numbers.map(u64::to_le_bytes).collect(), |left| left.len())
    }

    fn epochs(safety: &Safety) -> usize {
        safety.leases.lock().epochs.len()
    }

    #[test]
    fn touched_blocks_are_safe_until_the_last_lease_that_could_know_them_ends() {
        let safety = Safety::new();
        let first = safety.begin();
        touch(&safety, 0..10);
        let second = safety.begin();
        touch(&safety, 10..20);
        assert_eq!(sweepable(&safety, 0..30), 10);
        drop(first);
        assert_eq!(sweepable(&safety, 0..30), 10, "one epoch: the second lease keeps all of it");
        drop(second);
        assert_eq!(sweepable(&safety, 0..30), 30);
    }

    #[test]
    fn leases_that_follow_each_other_without_a_gap_do_not_pile_up() {
        let safety = Safety::new();
        let mut lease = safety.begin();
        let each = EPOCH_FIRST + 10_000;
        for round in 0..8 {
            touch(&safety, round * each..(round + 1) * each);
            lease = safety.begin();
            assert!(epochs(&safety) <= 3, "{} epochs", epochs(&safety));
        }
        assert!(sweepable(&safety, 0..1000) > 900, "what old leases touched is free");
        assert_eq!(sweepable(&safety, 8 * each - 1000..8 * each), 0, "the lease before the last was open then");
        drop(lease);
        assert_eq!(epochs(&safety), 1);
    }

    #[test]
    fn adds_end_by_release_or_when_they_are_abandoned() {
        let safety = Safety::new();
        let start = Instant::now();
        let later = |seconds| start + Duration::from_secs(seconds);
        let idle = Some(Duration::from_secs(600));
        safety.keep_add(1, None, start);
        safety.keep_add(2, idle, start);
        safety.keep_add(3, idle, start);
        touch(&safety, 0..5);
        safety.keep_add(3, idle, later(300));
        assert_eq!(safety.release_abandoned(later(599)), 0);
        assert_eq!(safety.release_abandoned(later(600)), 1);
        assert_eq!(safety.release_abandoned(later(900)), 1);
        assert_eq!(sweepable(&safety, 0..5), 0, "the first has no time limit");
        safety.release_add(1);
        safety.release_add(1);
        assert_eq!(sweepable(&safety, 0..5), 5);
    }
}
