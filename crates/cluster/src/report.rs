//! What doors show: copies, peers, explanations. Read from the machine between events, never through its loop.

use crate::decisions::Duty;
use types::{Because, ByteCount, Cid, Load, PeerId, PinState, UnixMillis};

/// One pin on one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyRow {
    /// Which peer.
    pub peer: PeerId,
    /// Its name for people; empty when it never said one.
    pub name: String,
    /// The state there.
    pub state: PinState,
    /// Why it waits, where it does.
    pub because: Option<Because>,
    /// When it is tried next (wall time of this peer).
    pub next_try: Option<UnixMillis>,
    /// Attempts so far.
    pub tries: u32,
    /// Since when.
    pub since: UnixMillis,
    /// Age of the knowledge: when the peer was last heard of; equals now for the own peer and live ones.
    pub as_of: UnixMillis,
    /// Whether the peer is being heard of now; when not, the row is the last known state.
    pub is_live: bool,
    /// Progress of a running fetch: blocks here, bytes here, blocks known to be missing.
    pub progress: Option<(u64, ByteCount, u64)>,
    /// Whether the peer is in the pin's placement (the others are `remote`, or still hold what they will let go).
    pub is_placed: bool,
}

/// One pin on one peer, in short: what lists show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShortRow {
    /// Which peer.
    pub peer: PeerId,
    /// The state there.
    pub state: PinState,
    /// Why it waits, where it does.
    pub because: Option<Because>,
    /// Attempts so far.
    pub tries: u32,
    /// Since when.
    pub since: UnixMillis,
}

/// How a peer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeerHealth {
    /// Heard of now.
    Up,
    /// Silent, within grace.
    Suspect,
    /// Silent beyond grace: its copies are being replaced.
    Down,
    /// Up, and taking no new copies.
    Cordoned,
    /// Up, and handing its copies over.
    Draining,
    /// Left or expelled.
    Gone,
}

impl PeerHealth {
    /// A word for tables and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            PeerHealth::Up => "up",
            PeerHealth::Suspect => "suspect",
            PeerHealth::Down => "down",
            PeerHealth::Cordoned => "cordoned",
            PeerHealth::Draining => "draining",
            PeerHealth::Gone => "gone",
        }
    }
}

/// One member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerRow {
    /// Who.
    pub peer: PeerId,
    /// Name for people.
    pub name: String,
    /// Whether this is the own peer.
    pub is_self: bool,
    /// How it stands.
    pub health: PeerHealth,
    /// Last heard of, wall time of this peer.
    pub heard: UnixMillis,
    /// How far its clock is ahead of this peer's, in milliseconds; none where it never said.
    pub clock_ahead: Option<i64>,
    /// Multiaddrs of its node.
    pub node_addresses: Vec<String>,
    /// Its gateway, if it says one.
    pub gateway: Option<String>,
    /// Its REST door, if it says one.
    pub api: Option<String>,
    /// Hard limit of its store; zero when it never said one.
    pub space_limit: ByteCount,
    /// Used.
    pub space_used: ByteCount,
    /// Reserved.
    pub space_reserved: ByteCount,
    /// What people decided about it.
    pub duty: Duty,
    /// The copies it has for the cluster; none before it has counted them.
    pub load: Option<Load>,
    /// Copies on it that are not as wished (queued, waiting, failing, unconfirmed).
    pub exceptions: u64,
}

/// Why a pin is where it is, and what happens next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Which pin.
    pub cid: Cid,
    /// The policy class that gave its rules (`default` until policies exist), and the rules in words.
    pub class: String,
    /// Copies wished: least and most; none when everywhere.
    pub wished: Option<(u32, u32)>,
    /// Copies confirmed now.
    pub confirmed: u32,
    /// One sentence on the whole: safe, being copied, short of copies and why.
    pub summary: String,
    /// Every member: whether placed, its state, and why it was chosen or not (score, filter), in words.
    pub peers: Vec<(CopyRow, String)>,
    /// What will happen next, each with a time where one is known.
    pub next: Vec<(String, Option<UnixMillis>)>,
    /// The shards of a root that was cut; empty for an ordinary pin.
    pub pieces: Vec<PieceRow>,
}

/// One shard of a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PieceRow {
    /// Its list.
    pub cid: Cid,
    /// What people call it: "shard 3 of 31".
    pub name: String,
    /// Its bytes.
    pub bytes: ByteCount,
    /// Who should hold it.
    pub holders: Vec<PeerId>,
    /// Confirmed copies on peers that are heard of now.
    pub confirmed: u32,
    /// Copies wished at least.
    pub least: u32,
    /// What is wrong, in words.
    pub trouble: Option<String>,
}
