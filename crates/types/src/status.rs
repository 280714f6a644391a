//! What became of a wish on one peer, and why it waits.

use crate::{ByteCount, Cid, PeerId, UnixMillis};
use std::fmt;

/// The state of one pin on one peer. Texts are the reference's status strings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PinState {
    /// The peer's state is not known (it never answered).
    ClusterError,
    /// The last attempt to pin failed and waits for its next try.
    PinError,
    /// The last attempt to let go failed and waits for its next try.
    UnpinError,
    /// Held, complete.
    Pinned,
    /// Being fetched.
    Pinning,
    /// Being let go.
    Unpinning,
    /// Not in the shared state.
    Unpinned,
    /// Another peer should hold it.
    Remote,
    /// Waits for its turn to be fetched.
    PinQueued,
    /// Waits for its turn to be let go.
    UnpinQueued,
    /// The root of sharded content: its shards are held, not itself.
    Sharded,
    /// Should be held, was held, is not.
    UnexpectedlyUnpinned,
}

impl PinState {
    /// All states, in the order of the reference's bits.
    pub const ALL: [PinState; 12] = [
        PinState::ClusterError,
        PinState::PinError,
        PinState::UnpinError,
        PinState::Pinned,
        PinState::Pinning,
        PinState::Unpinning,
        PinState::Unpinned,
        PinState::Remote,
        PinState::PinQueued,
        PinState::UnpinQueued,
        PinState::Sharded,
        PinState::UnexpectedlyUnpinned,
    ];

    /// The reference's status string.
    pub fn as_str(self) -> &'static str {
        match self {
            PinState::ClusterError => "cluster_error",
            PinState::PinError => "pin_error",
            PinState::UnpinError => "unpin_error",
            PinState::Pinned => "pinned",
            PinState::Pinning => "pinning",
            PinState::Unpinning => "unpinning",
            PinState::Unpinned => "unpinned",
            PinState::Remote => "remote",
            PinState::PinQueued => "pin_queued",
            PinState::UnpinQueued => "unpin_queued",
            PinState::Sharded => "sharded",
            PinState::UnexpectedlyUnpinned => "unexpectedly_unpinned",
        }
    }
}

impl fmt::Display for PinState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why something waits. Everything that waits has one of these and a next try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Because {
    /// Its turn has not come: so many before it.
    Queue {
        /// How many operations stand before it.
        before: u64,
    },
    /// The own node has no room.
    NoRoom {
        /// What it needs.
        needed: ByteCount,
        /// What is free under the limit, reservations taken off.
        free: ByteCount,
    },
    /// No known peer or node serves the missing blocks.
    NoProvider {
        /// How many blocks are known to be missing.
        missing: u64,
        /// One of them.
        first: Option<Cid>,
        /// Who was asked for it beside connected nodes, and what was said; empty where nobody was.
        asked: String,
    },
    /// The node that holds the blocks does not answer.
    NodeDown {
        /// What it said, or what was tried.
        error: String,
    },
    /// Held back by a limit of its own kind (repair tokens, bandwidth).
    Throttled,
    /// The copy is kept until the newly placed peers are confirmed to hold it.
    HandOver {
        /// Confirmed holders now.
        confirmed: u32,
        /// Confirmed holders needed before letting go.
        needed: u32,
    },
    /// Too many removals at once: waits for a person (architecture.md, rule 1).
    MassRemoval {
        /// How many removals wait.
        removals: u64,
        /// Of how many held pins.
        held: u64,
    },
    /// The shared state is still being fetched; nothing is let go meanwhile.
    CatchingUp,
    /// A peer that should hold it is silent; repair begins when its grace is over.
    Grace {
        /// The silent peer.
        peer: PeerId,
        /// When repair may begin.
        until: UnixMillis,
    },
    /// Fewer peers fit than the wish needs.
    NotEnoughPeers {
        /// Copies wished at least.
        needed: u32,
        /// Peers that could hold it.
        candidates: u32,
    },
    /// Too many peers are missing at once: this looks like a split, so nothing moves (architecture.md, rule 4).
    Partition {
        /// Members seen.
        seen: u32,
        /// Members known.
        known: u32,
    },
    /// The peer has not said yet that it holds it.
    Unconfirmed,
    /// Anything else that went wrong, in words.
    Failed {
        /// What was attempted and what happened.
        error: String,
    },
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Because::Queue { before } => write!(f, "queued, {before} before it"),
            Because::NoRoom { needed, free } => write!(f, "no room: needs {needed}, free {free}"),
            Because::NoProvider { missing, first, asked } => {
                write!(f, "no reachable peer has the missing blocks ({missing} known")?;
                match first {
                    Some(first) => write!(f, ", one is {first})")?,
                    None => f.write_str(")")?,
                }
                if asked.is_empty() { Ok(()) } else { write!(f, ": {asked}") }
            }
            Because::NodeDown { error } => write!(f, "the node does not answer: {error}"),
            Because::Throttled => f.write_str("held back by the limit for repairs"),
            Because::HandOver { confirmed, needed } => {
                write!(f, "kept until others hold it: {confirmed} of {needed} confirmed")
            }
            Because::MassRemoval { removals, held } => {
                write!(f, "{removals} of {held} held pins would go at once: waits for `pinfold removals approve`")
            }
            Because::CatchingUp => f.write_str("the shared state is still being fetched"),
            Because::Grace { peer, .. } => write!(f, "peer {} is silent; repair begins when its grace is over", peer.short()),
            Because::NotEnoughPeers { needed, candidates } => {
                write!(f, "not enough peers: {needed} copies wanted, {candidates} peers can hold it")
            }
            Because::Partition { seen, known } => {
                write!(f, "only {seen} of {known} members are seen: nothing moves until more are back")
            }
            Because::Unconfirmed => f.write_str("the peer has not confirmed it yet"),
            Because::Failed { error } => f.write_str(error),
        }
    }
}
