//! The distance of blocks beside Go peers, shared by all who write: Go follows so many blocks a second from all of them together.

use super::Machine;
use crate::crdt::id::BlockId;
use std::collections::BTreeMap;
use types::{Millis, PeerId};
use wire::delta::{Authorship, authorship};

/// Who wrote within this counts as a writer. Longer than the longest distance, so that who keeps it is still counted.
const WRITES: Millis = Millis(6_000);
/// So many writers share the distance; with more of them the sum comes closer.
const WRITERS_MAX: usize = 16;

/// Others that wrote lately, and when last.
#[derive(Default)]
pub(super) struct Writers(BTreeMap<PeerId, Millis>);

impl Writers {
    fn wrote(&mut self, writer: PeerId, now: Millis) {
        self.forget(now);
        if self.0.len() < WRITERS_MAX || self.0.contains_key(&writer) {
            self.0.insert(writer, now);
        }
    }

    fn forget(&mut self, now: Millis) {
        self.0.retain(|_, at| now.0 < at.0.saturating_add(WRITES.0));
    }

    /// This peer and the others that write.
    fn count(&mut self, now: Millis) -> u64 {
        self.forget(now);
        1 + self.0.len() as u64
    }
}

impl Machine {
    /// A block that somebody told as a head just now was merged: its author writes. What comes by a walk through history was written earlier.
    pub(super) fn note_writer(&mut self, id: &BlockId, bytes: &[u8], now: Millis) {
        if !self.has_others() || self.wants.is_linked(id) {
            return;
        }
        let writer = match authorship(bytes) {
            Ok(Authorship::Signed { author, .. }) => Some(author.author),
            // A Go peer's, told by itself first.
            _ => self.wants.likely(id),
        };
        if let Some(writer) = writer {
            self.writers.wrote(writer, now);
        }
    }

    /// How long after a block of its own this peer makes the next: each of so many writers at so many times the distance gives one block in each
    /// distance, and none is left without.
    pub(super) fn distance(&mut self, now: Millis) -> Millis {
        if !self.has_others() {
            return self.options.spacing;
        }
        Millis(self.options.spacing_with_others.0 * self.writers.count(now))
    }
}
