//! Group commit: whoever comes first writes for all who came meanwhile.

use crate::{Batch, StoreError};
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;

/// Batches written together are at most about this large, so that one caller's latency is bounded whatever others bring.
const GROUP: u64 = 32 << 20;

#[derive(Default)]
pub(super) struct Group {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<(Batch, Slot)>,
    is_writing: bool,
}

/// Where a caller finds its outcome.
type Slot = Arc<Mutex<Option<Result<(), StoreError>>>>;

impl Group {
    /// Returns when `batch` was written by `write`, in this thread or by another caller; `write` gets whole batches, joined in order.
    pub(super) fn commit(&self, batch: Batch, write: impl Fn(Batch) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let slot = Slot::default();
        let mut queue = self.queue.lock();
        queue.waiting.push((batch, slot.clone()));
        loop {
            if let Some(outcome) = slot.lock().take() {
                return outcome;
            }
            if queue.is_writing {
                self.changed.wait(&mut queue);
                continue;
            }
            let (together, slots) = queue.take_group();
            queue.is_writing = true;
            drop(queue);
            let outcome = write(together);
            for slot in slots {
                *slot.lock() = Some(outcome.clone());
            }
            queue = self.queue.lock();
            queue.is_writing = false;
            self.changed.notify_all();
        }
    }
}

impl Queue {
    fn take_group(&mut self) -> (Batch, Vec<Slot>) {
        let mut bytes = 0;
        let fits = self.waiting.iter().take_while(|(batch, _)| {
            let is_first = bytes == 0;
            bytes += batch.size().get() + 1;
            is_first || bytes <= GROUP
        });
        let count = fits.count();
        let mut together = Batch::new();
        let mut slots = Vec::with_capacity(count);
        for (batch, slot) in self.waiting.drain(..count) {
            together.append(batch);
            slots.push(slot);
        }
        (together, slots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Area;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use types::ByteCount;

    #[test]
    fn callers_that_come_during_a_write_share_the_next_one() {
        let group = Group::default();
        let (writes, keys) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for number in 0..8u8 {
                let (group, writes, keys) = (&group, &writes, &keys);
                scope.spawn(move || {
                    let mut batch = Batch::new();
                    batch.put(Area::Pins, [number], []);
                    let write = |together: Batch| {
                        if writes.fetch_add(1, Ordering::SeqCst) == 0 {
                            while group.queue.lock().waiting.len() < 7 {
                                std::thread::yield_now();
                            }
                        }
                        keys.fetch_add(together.len(), Ordering::SeqCst);
                        Ok(())
                    };
                    group.commit(batch, write).expect("written");
                });
            }
        });
        assert_eq!((writes.into_inner(), keys.into_inner()), (2, 8));
    }

    #[test]
    fn a_failure_reaches_everybody_of_the_group_and_nobody_later() {
        let group = Group::default();
        let full = StoreError::DiskFull { needed: ByteCount(2), free: ByteCount(1) };
        group.commit(Batch::new(), |_| Err(full.clone())).expect_err("full");
        group.commit(Batch::new(), |_| Ok(())).expect("room again");
    }
}
