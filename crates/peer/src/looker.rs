//! Looks at the own node, gathered: what is here already is kept with one write for many pins.

use crate::core::Core;
use cluster::{Event, NodeOutcome, OpId};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use types::{Cid, Depth};

/// Pins in one write.
const TOGETHER: usize = 1_000;
/// From the begin of one write to the begin of the next. The first look after a pause goes at once; in a burst the fsyncs are left to
/// the wishes, whose senders wait for them.
const SPACING: Duration = Duration::from_millis(10);

/// What waits. Bounded by the machine, which has at most 1,000 looks under way.
#[derive(Default)]
pub(crate) struct Looker {
    waiting: Mutex<Vec<(OpId, Cid, Depth)>>,
    more: Notify,
}

impl Looker {
    /// Takes a look over; never waits.
    pub(crate) fn push(&self, id: OpId, cid: Cid, depth: Depth) {
        self.waiting.lock().push((id, cid, depth));
        self.more.notify_one();
    }

    fn take(&self) -> Vec<(OpId, Cid, Depth)> {
        let mut waiting = self.waiting.lock();
        let count = waiting.len().min(TOGETHER);
        waiting.drain(..count).collect()
    }

    /// Hands looks to the node and tells the machine what it found, until dropped.
    pub(crate) async fn run(core: Arc<Core>) {
        let mut next = Instant::now();
        loop {
            let looks = core.looker.take();
            if looks.is_empty() {
                core.looker.more.notified().await;
                tokio::time::sleep_until(next).await;
                continue;
            }
            next = Instant::now() + SPACING;
            let pins: Vec<(Cid, Depth)> = looks.iter().map(|(_, cid, depth)| (*cid, *depth)).collect();
            let found = core.node.pin_here(&core.owner, &pins).await.unwrap_or_else(|error| {
                tracing::warn!(%error, "looking for pins that are here");
                Vec::new()
            });
            let outcome = |at: usize| match found.get(at) {
                Some(Some(pinned)) => NodeOutcome::Pinned { bytes: pinned.bytes },
                _ => NodeOutcome::NotHere,
            };
            core.feed_together(looks.iter().enumerate().map(|(at, (id, ..))| Event::Node(*id, outcome(at))).collect());
            tokio::time::sleep_until(next).await;
        }
    }
}
