//! Hints: a bounded broadcast that says when it lost something.

use crate::crdt::Finding;
use crate::{Change, Hint, ViewState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::broadcast;

/// Changes in one hint.
const CHANGES_MAX: usize = 1024;

/// Hints kept for a slow receiver: about 64,000 changes, some 16 MB of pins, before it is told to compare.
const HINTS_MAX: usize = 64;

/// Gives hints to every receiver. Used by one writer: what it is about to make visible it announces first, then it commits, then it hints.
#[derive(Clone, Debug)]
pub(crate) struct HintSender {
    sender: broadcast::Sender<(u64, Hint)>,
    /// Commits that were begun.
    announced: Arc<AtomicU64>,
}

impl HintSender {
    pub(crate) fn new() -> HintSender {
        HintSender { sender: broadcast::Sender::new(HINTS_MAX), announced: Arc::default() }
    }

    pub(crate) fn receiver(&self) -> Hints {
        let receiver = self.sender.subscribe();
        Hints { receiver, seen: self.announced() }
    }

    /// Changes will be visible in a moment, and hinted after that.
    pub(crate) fn announce(&self) {
        self.announced.fetch_add(1, Ordering::AcqRel);
    }

    /// How often changes were announced.
    pub(crate) fn announced(&self) -> u64 {
        self.announced.load(Ordering::Acquire)
    }

    pub(crate) fn changes(&self, mut changes: Vec<Change>) {
        if self.sender.receiver_count() == 0 {
            return;
        }
        while !changes.is_empty() {
            let rest = changes.split_off(changes.len().min(CHANGES_MAX));
            let part = std::mem::replace(&mut changes, rest);
            // Only the last part tells all that was announced.
            let before = self.announced() - u64::from(!changes.is_empty());
            let _ = self.sender.send((before, Hint::Changes(part)));
        }
    }

    pub(crate) fn state(&self, state: ViewState) {
        let _ = self.sender.send((self.announced(), Hint::State(state)));
    }

    pub(crate) fn finding(&self, finding: Finding) {
        let _ = self.sender.send((self.announced(), Hint::Finding(finding)));
    }

    pub(crate) fn lagged(&self) {
        let _ = self.sender.send((self.announced(), Hint::Lagged));
    }
}

/// Receives hints.
#[derive(Debug)]
pub struct Hints {
    receiver: broadcast::Receiver<(u64, Hint)>,
    seen: u64,
}

impl Hints {
    /// The next hint; none once the engine has stopped. May be cancelled without loss.
    pub async fn next(&mut self) -> Option<Hint> {
        match self.receiver.recv().await {
            Ok((seen, hint)) => {
                self.seen = seen;
                Some(hint)
            }
            Err(broadcast::error::RecvError::Lagged(_)) => Some(Hint::Lagged),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }

    /// Up to which of [`crate::Consensus::hinted`] the hints taken so far tell everything.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// A hint that is already there.
    pub fn try_next(&mut self) -> Option<Hint> {
        match self.receiver.try_recv() {
            Ok((seen, hint)) => {
                self.seen = seen;
                Some(hint)
            }
            Err(broadcast::error::TryRecvError::Lagged(_)) => Some(Hint::Lagged),
            Err(broadcast::error::TryRecvError::Empty | broadcast::error::TryRecvError::Closed) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_receiver_is_told_that_it_lost_hints() {
        let sender = HintSender::new();
        let mut hints = sender.receiver();
        for _ in 0..=HINTS_MAX {
            sender.state(ViewState::Current);
        }
        assert_eq!(hints.next().await, Some(Hint::Lagged));
        assert_eq!(hints.next().await, Some(Hint::State(ViewState::Current)));
        drop(sender);
        while hints.next().await.is_some() {}
    }

    #[tokio::test]
    async fn many_changes_come_in_portions() {
        let sender = HintSender::new();
        let mut hints = sender.receiver();
        sender.announce();
        sender.changes(vec![Change { key: vec![1], before: None, after: None }; CHANGES_MAX + 1]);
        for (expected, seen) in [(CHANGES_MAX, 0), (1, 1)] {
            assert!(matches!(hints.try_next(), Some(Hint::Changes(changes)) if changes.len() == expected));
            assert_eq!(hints.seen(), seen);
        }
        assert_eq!(hints.try_next(), None);
    }
}
