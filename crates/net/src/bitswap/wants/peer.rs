//! What is known of a peer that can be asked for blocks.

use super::BitswapLimits;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use types::Cid;
use wire::bitswap as message;

/// What the average block is thought to weigh until a peer has sent some.
const BLOCK_BYTES_GUESSED: u64 = 256 << 10;

/// Blocks that a peer is asked for at once when nothing is known of it.
pub(super) const WINDOW_FIRST: usize = 32;

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) is_capable: bool,
    pub(super) in_flight: BTreeSet<Cid>,
    pub(super) window: usize,
    pub(super) block_bytes: u64,
    pub(super) round_trip: Duration,
    /// Blocks that it delivered.
    pub(super) delivered: u64,
    /// When it last answered anything, or when it was first asked after it owed nothing.
    pub(super) heard: Instant,
    pub(super) out: BTreeMap<Cid, message::Want>,
}

impl Peer {
    pub(super) fn new(now: Instant) -> Peer {
        Peer {
            is_capable: true,
            in_flight: BTreeSet::new(),
            window: WINDOW_FIRST,
            block_bytes: BLOCK_BYTES_GUESSED,
            round_trip: Duration::ZERO,
            delivered: 0,
            heard: now,
            out: BTreeMap::new(),
        }
    }

    pub(super) fn has_room(&self, limits: &BitswapLimits) -> bool {
        let flying = self.in_flight.len();
        flying < self.window && (flying == 0 || (flying as u64 + 1) * self.block_bytes <= limits.peer_bytes)
    }

    /// Lower is better: filled share of the window first, then speed.
    pub(super) fn load(&self) -> (usize, Duration) {
        (self.in_flight.len() * 1024 / self.window, self.round_trip)
    }
}
