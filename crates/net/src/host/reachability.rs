//! Whether others can dial this host, and through whom they reach it where they cannot.
//!
//! ```text
//!   AutoNAT: others dial back ──► a verdict ──► Public: this host relays for others (`hop`)
//!                                          └──► anything else: it reserves seats at up to two relays (`seats`), and its addresses through
//!                                               them are told wherever its others are
//!   a connection through a relay ──► both sides try a direct one (DCUtR) ──► streams move to it, the relayed one is closed unused
//! ```
//! Deliberately absent: asking a router to forward ports. AutoNAT is version 1, which Go's cluster peers, Kubo and this host all speak.
//! libp2p 0.57 has version 2, too, but its client tries an address once and never again, takes no announced ones, keeps whatever strangers
//! say that they see, and asks any of them; its server dials every address that it is told, private ones included.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use types::PeerId;

/// What the owner says about being dialled from outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reachable {
    /// Nothing: others are asked to dial back.
    #[default]
    Auto,
    /// It can be dialled at the addresses it listens on or announces.
    Yes,
    /// It cannot: it is reached through relays.
    No,
}

/// For whom a reachable host relays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RelayFor {
    /// Members generously, strangers a little: enough to arrange a direct connection.
    #[default]
    Everyone,
    /// Members alone.
    Members,
    /// Nobody.
    Nobody,
}

/// How a host is reached from outside, and how it helps others with that.
#[derive(Clone)]
pub struct ReachOptions {
    /// What the owner says.
    pub reachable: Reachable,
    /// Whom it helps when it is reachable.
    pub relay: RelayFor,
    /// Relays to use before members: multiaddrs that end in `/p2p/<id>`.
    pub relays: Vec<String>,
    /// Who is a member: those relay for each other with wide limits, and only their relays are used. Asked on the host's task: it must be
    /// quick.
    pub is_member: Arc<dyn Fn(&PeerId) -> bool + Send + Sync>,
    /// Private and loopback addresses count as being outside: for clusters that span several private nets, and for tests.
    pub private_is_outside: bool,
    /// How long a seat given here lasts until it must be renewed.
    pub seat: Duration,
    /// From one question for the own reachability to the next, until there is an answer.
    pub ask_every: Duration,
}

impl Default for ReachOptions {
    fn default() -> ReachOptions {
        ReachOptions {
            reachable: Reachable::Auto,
            relay: RelayFor::Everyone,
            relays: Vec::new(),
            is_member: Arc::new(|_| false),
            private_is_outside: false,
            seat: Duration::from_secs(3600),
            ask_every: Duration::from_secs(15),
        }
    }
}

impl fmt::Debug for ReachOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReachOptions")
            .field("reachable", &self.reachable)
            .field("relay", &self.relay)
            .field("relays", &self.relays)
            .finish_non_exhaustive()
    }
}

/// Whether others can dial this host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reachability {
    /// Nobody outside said so yet: there is nobody to ask, or all are on the same net.
    #[default]
    Unknown,
    /// It was dialled from outside, or its owner says so.
    Public,
    /// Dials from outside fail, or its owner says so.
    BehindNat,
}

/// How a host is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Whether others can dial it.
    pub state: Reachability,
    /// The relays at which it has a seat.
    pub relays: Vec<PeerId>,
    /// Whether it relays for others.
    pub is_relay: bool,
    /// Circuits that run through it now.
    pub circuits: usize,
}

/// How a connected peer is connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Path {
    /// At least one connection goes straight there.
    #[default]
    Direct,
    /// Every connection goes through a relay.
    Relayed {
        /// Which one, where that is known.
        by: Option<PeerId>,
    },
}
