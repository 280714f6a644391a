//! Hints: a bounded broadcast that says when it lost something.

use crate::{Change, Hint, ViewState};
use tokio::sync::broadcast;

/// Changes in one hint.
const CHANGES_MAX: usize = 1024;

/// Hints kept for a slow receiver: about 64,000 changes, some 16 MB of pins, before it is told to compare.
const HINTS_MAX: usize = 64;

/// Gives hints to every receiver.
#[derive(Clone, Debug)]
pub(crate) struct HintSender(broadcast::Sender<Hint>);

impl HintSender {
    pub(crate) fn new() -> HintSender {
        HintSender(broadcast::Sender::new(HINTS_MAX))
    }

    pub(crate) fn receiver(&self) -> Hints {
        Hints(self.0.subscribe())
    }

    pub(crate) fn changes(&self, mut changes: Vec<Change>) {
        if self.0.receiver_count() == 0 {
            return;
        }
        while !changes.is_empty() {
            let rest = changes.split_off(changes.len().min(CHANGES_MAX));
            let _ = self.0.send(Hint::Changes(std::mem::replace(&mut changes, rest)));
        }
    }

    pub(crate) fn state(&self, state: ViewState) {
        let _ = self.0.send(Hint::State(state));
    }

    pub(crate) fn lagged(&self) {
        let _ = self.0.send(Hint::Lagged);
    }
}

/// Receives hints.
#[derive(Debug)]
pub struct Hints(broadcast::Receiver<Hint>);

impl Hints {
    /// The next hint; none once the engine has stopped. May be cancelled without loss.
    pub async fn next(&mut self) -> Option<Hint> {
        match self.0.recv().await {
            Ok(hint) => Some(hint),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(Hint::Lagged),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }

    /// A hint that is already there.
    pub fn try_next(&mut self) -> Option<Hint> {
        match self.0.try_recv() {
            Ok(hint) => Some(hint),
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
        sender.changes(vec![Change { key: vec![1], before: None, after: None }; CHANGES_MAX + 1]);
        for expected in [CHANGES_MAX, 1] {
            assert!(matches!(hints.try_next(), Some(Hint::Changes(changes)) if changes.len() == expected));
        }
        assert_eq!(hints.try_next(), None);
    }
}
