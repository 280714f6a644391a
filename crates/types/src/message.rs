//! What Pinfold peers of one cluster tell each other, machine to machine (encoded by `wire::peer`).
//!
//! Every message may be lost, repeated or late: a receiver that acts on one must be right without it too.

use crate::{Because, ByteCount, Cid, PinState, SignedRecord, UnixMillis};

/// How a copy stands on the peer that reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyState {
    /// Which pin.
    pub cid: Cid,
    /// Which value of the pin this speaks of: the first 8 bytes of the sha2-256 of its stored form, big-endian.
    pub version: u64,
    /// The state there.
    pub state: PinState,
    /// Why it waits, where it does.
    pub because: Option<Because>,
    /// When it is tried next, by the reporter's wall clock.
    pub next_try: Option<UnixMillis>,
    /// Attempts so far.
    pub tries: u32,
    /// Since when it is in this state, by the reporter's wall clock.
    pub since: UnixMillis,
}

/// Part of a report of one peer's copies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldingReport {
    /// Counts the reporter's starts: a higher one voids all earlier reports.
    pub incarnation: u64,
    /// Set on the last part of an answer to [`PeerMessage::AskHoldings`]: how many copies all parts named together. If so many
    /// were heard, everything placed on the reporter that they did not name is held. None on unasked updates.
    pub complete: Option<u64>,
    /// The number of the question this answers; 0 on unasked updates.
    pub answer: u64,
    /// Copies that changed, or (in an answer) all that are not as wished. At most 1,000.
    pub copies: Vec<CopyState>,
}

/// The copies that a peer has for the cluster, and what of its room is not for them: what an even spread is computed from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Copies placed on it and held; copies that every peer holds are left out, since they cannot move.
    pub copies: u64,
    /// Their bytes.
    pub placed: ByteCount,
    /// Bytes of copies that it hands over: placed on others and not yet held there.
    pub moving: ByteCount,
    /// Bytes that something else uses of its limit.
    pub foreign: ByteCount,
}

/// What a peer that has too much would give another one, for an even spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// Counts the giver's shipments; differs between its starts.
    pub shipment: u64,
    /// So much in all; of a shipment that was taken up, what is left of it. Zero: it has ended.
    pub bytes: ByteCount,
    /// The smallest copy of it: less is of no use.
    pub least: ByteCount,
    /// What the giver has itself, after everything that it gives to others.
    pub placed: ByteCount,
    /// How much it could have.
    pub capacity: ByteCount,
}

/// One message between Pinfold peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerMessage {
    /// "I am such a peer." Sent on every connection first, and again when something of it changes.
    Hello {
        /// The peer's name for people.
        name: String,
        /// Peer id bytes and dialable multiaddrs (text, with `/p2p/`) of its node host.
        node_addresses: Vec<String>,
        /// Base URL of its HTTP gateway, if it has one that others may show.
        gateway: Option<String>,
        /// Base URL of its REST door.
        api: Option<String>,
        /// Limit of its block store.
        space_limit: ByteCount,
        /// Used of it.
        space_used: ByteCount,
        /// Reserved for adds and pins under way.
        space_reserved: ByteCount,
        /// It takes no new copies (draining or leaving).
        is_draining: bool,
        /// Counts its starts.
        incarnation: u64,
        /// Its wall clock as it speaks.
        clock: UnixMillis,
        /// What it has; none before its first comparison since it started.
        load: Option<Load>,
    },
    /// "Tell me about all your copies, once you have merged at least these heads (CRDT block CIDs)."
    AskHoldings {
        /// Number of the question.
        question: u64,
        /// Heads the asker had.
        heads: Vec<Cid>,
    },
    /// "How do these stand with you?" At most 1,000.
    AskCopies(Vec<Cid>),
    /// Copies, as asked or as they change.
    Holdings(HoldingReport),
    /// "Keep so much room for an add that begins." Repeated with a larger amount as the add grows.
    Reserve {
        /// The add, unique at the asking peer.
        lease: u64,
        /// In all, not on top.
        bytes: ByteCount,
    },
    /// Answer to `Reserve`.
    Reserved {
        /// The add.
        lease: u64,
        /// None when granted.
        refused: Option<Refusal>,
    },
    /// "That add ended" (pinned or not): what is still reserved for it is free.
    Release {
        /// The add.
        lease: u64,
        /// What it brought is pinned, and the receiver has confirmed it: the pin alone keeps it from now on.
        is_kept: bool,
    },
    /// "I would give you so much." Repeated while it is under way.
    Offer(Offer),
    /// Answer to `Offer`: "I keep a place for so much of it."
    Take {
        /// The giver's number.
        shipment: u64,
        /// Zero: nothing.
        bytes: ByteCount,
    },
    /// Records, newest known values; answered with newer ones if the receiver has them.
    Records(Vec<SignedRecord>),
    /// A block of the shared state's history that its sender just made; at most 128 KiB.
    Delta(Vec<u8>),
    /// "I leave: my copies are handed over, remove me."
    Leaving,
}

/// Why a reservation is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No room.
    NoRoom {
        /// Free under the limit, reservations taken off.
        free: ByteCount,
    },
    /// It takes no new copies.
    Draining,
}
