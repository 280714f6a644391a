//! What goes to other peers in batches: changed copies to all, questions about copies to one.

use crate::Effect;
use std::collections::{BTreeMap, BTreeSet};
use types::{Because, Cid, CopyState, HoldingReport, Millis, Now, PeerId, PeerMessage, PinState};

/// Copies or CIDs in one message.
pub(crate) const MESSAGE_MOST: usize = 1_000;

/// Copies on their way (queued, being fetched) are told so late: most are held by then, and one message tells it.
const ON_THE_WAY: Millis = Millis::seconds(1);

/// Gathers messages between two flushes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outbox {
    copies: BTreeMap<Cid, CopyState>,
    asks: BTreeMap<PeerId, BTreeSet<Cid>>,
    flushed: Option<Millis>,
    /// Since when something waits, and whether it is more than being on the way.
    waits: Option<Millis>,
    is_urgent: bool,
}

impl Outbox {
    /// A copy here changed; a later change of the same copy replaces it.
    pub fn report(&mut self, copy: CopyState, now: Now) {
        let has_reason = !matches!(copy.because, None | Some(Because::Queue { .. }));
        let is_on_the_way =
            !has_reason && matches!(copy.state, PinState::PinQueued | PinState::Pinning | PinState::UnpinQueued | PinState::Unpinning);
        self.is_urgent |= !is_on_the_way;
        self.waits = self.waits.or(Some(now.mono));
        self.copies.insert(copy.cid, copy);
    }

    /// How does this stand with you?
    pub fn ask(&mut self, peer: PeerId, cid: Cid) {
        self.asks.entry(peer).or_default().insert(cid);
    }

    /// Sends what was gathered: the first change at once, more of them at most once per `gather`.
    pub fn flush(&mut self, incarnation: u64, gather: Millis, now: Now, effects: &mut Vec<Effect>) {
        for (peer, cids) in std::mem::take(&mut self.asks) {
            let cids: Vec<Cid> = cids.into_iter().collect();
            for part in cids.chunks(MESSAGE_MOST) {
                effects.push(Effect::Tell(peer, PeerMessage::AskCopies(part.to_vec())));
            }
        }
        if self.copies.is_empty() || self.flush_at(gather).is_some_and(|at| at > now.mono) {
            return;
        }
        self.flushed = Some(now.mono);
        self.waits = None;
        self.is_urgent = false;
        let copies: Vec<CopyState> = std::mem::take(&mut self.copies).into_values().collect();
        for part in copies.chunks(MESSAGE_MOST) {
            let report = HoldingReport { incarnation, complete: None, answer: 0, copies: part.to_vec() };
            effects.push(Effect::TellAll(PeerMessage::Holdings(report)));
        }
    }

    /// When the gathered changes are to be sent.
    pub fn next_wake(&self, gather: Millis) -> Option<Millis> {
        if self.copies.is_empty() {
            return None;
        }
        Some(self.flush_at(gather).unwrap_or_default())
    }

    fn flush_at(&self, gather: Millis) -> Option<Millis> {
        if self.copies.len() >= MESSAGE_MOST {
            return None;
        }
        if !self.is_urgent {
            return self.waits.map(|since| Millis(since.0.saturating_add(ON_THE_WAY.0)));
        }
        self.flushed.map(|at| Millis(at.0.saturating_add(gather.0)))
    }

    /// Whether a question waits to be sent.
    #[cfg(test)]
    pub fn has_questions(&self) -> bool {
        !self.asks.is_empty()
    }
}
