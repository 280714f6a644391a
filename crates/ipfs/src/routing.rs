//! Finding among strangers: who has content and where peers are. The seam between a node and whatever finds them (the DHT, delegated
//! routers), and what doors may ask of it.
//!
//! Values (records of names) are in [`crate::values`]. Nothing that comes from here is believed: a provider is a hint, blocks prove themselves.

use crate::values::RoutingError;
use async_trait::async_trait;
use futures::stream::BoxStream;
use types::{Cid, PeerId, UnixMillis};

/// A node and where it is said to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// Who.
    pub node: PeerId,
    /// Multiaddrs, without `/p2p/`; may be empty.
    pub addresses: Vec<String>,
}

/// Finds content and peers. An implementer bounds its own time and what it brings; whoever asks bounds both again. All may be dropped half-way.
#[async_trait]
pub trait ContentRouting: Send + Sync {
    /// What it is, for people.
    fn label(&self) -> String;
    /// Who has this, as they are found, each once; ends when nobody is left to be asked.
    fn find_providers(&self, cid: &Cid) -> BoxStream<'static, Provider>;
    /// Where a node is; none when it looked and nobody knows it.
    async fn find_peer(&self, node: &PeerId) -> Result<Option<Provider>, RoutingError>;
}

/// The routing of a node as doors see it.
#[async_trait]
pub trait NodeRouting: ContentRouting {
    /// Tells others at once that this is here: how many of them took it. Only the blocks named, not what is below them.
    async fn provide(&self, cids: &[Cid]) -> Result<Provided, RoutingError>;
    /// How it is, one row for each DHT.
    fn status(&self) -> Vec<RoutingStatus>;
}

/// What became of telling others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Provided {
    /// Keys that at least one peer took.
    pub keys: u64,
    /// Keys that nobody took.
    pub failed: u64,
    /// Records that peers took.
    pub records: u64,
}

/// How one DHT is, and how far telling it of what is here has come.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RoutingStatus {
    /// `lan` or `wan`.
    pub scope: &'static str,
    /// Whether it answers others.
    pub is_server: bool,
    /// Whether others could reach this node in it.
    pub is_reachable: bool,
    /// Known peers.
    pub peers: u64,
    /// Records of providers that are kept for others.
    pub records_kept: u64,
    /// Values that are kept for others.
    pub values_kept: u64,
    /// Which blocks are told: `all`, `roots`, `off`.
    pub strategy: &'static str,
    /// What the round of telling is doing.
    pub phase: ProvidePhase,
    /// Which part of the ring this round has passed, from 0 to 1.
    pub passed: f64,
    /// When this round began.
    pub begun: Option<UnixMillis>,
    /// When the last whole round ended.
    pub ended: Option<UnixMillis>,
    /// Keys told in this round.
    pub keys: u64,
    /// Keys that nobody took in this round.
    pub failed: u64,
    /// Records that peers took in this round.
    pub records: u64,
    /// Searches that this round took.
    pub searches: u64,
    /// Keys that wait to be told for the first time.
    pub queued: u64,
}

/// What a round of telling is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProvidePhase {
    /// Nothing is told.
    #[default]
    Off,
    /// It waits until the next keys are due.
    Waiting,
    /// It is telling.
    Telling,
    /// It waits for peers.
    NoPeers,
    /// Others could not reach this node, so nothing is told.
    Unreachable,
}

impl ProvidePhase {
    /// In a word.
    pub fn as_str(self) -> &'static str {
        match self {
            ProvidePhase::Off => "off",
            ProvidePhase::Waiting => "waiting",
            ProvidePhase::Telling => "telling",
            ProvidePhase::NoPeers => "no peers",
            ProvidePhase::Unreachable => "not reachable",
        }
    }
}
