//! Finding among strangers: who has content and where peers are. The seam between a node and whatever finds them (the DHT, delegated
//! routers), and what doors may ask of it.
//!
//! Values (records of names) are in [`crate::values`]. Nothing that comes from here is believed: a provider is a hint, blocks prove themselves.

use crate::values::RoutingError;
use async_trait::async_trait;
use futures::stream::BoxStream;
use std::sync::Arc;
use std::time::Duration;
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
    /// The part of it that asks peers alone and no servers: for who asks this peer over HTTP itself, because two that name each other would
    /// ask in circles.
    fn among_peers(&self) -> Arc<dyn ContentRouting>;
    /// How the servers are that are asked over HTTP.
    fn over_http(&self) -> HttpSources;
}

/// The servers that are asked over HTTP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpSources {
    /// Delegated routers: they say who has content.
    pub routers: Vec<HttpSource>,
    /// Gateways: they give blocks.
    pub gateways: Vec<HttpSource>,
}

/// A server that is asked over HTTP, and what came of it since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpSource {
    /// Where.
    pub url: String,
    /// A router named it, not the user.
    pub is_found: bool,
    /// Requests.
    pub asked: u64,
    /// Of these, answered with what was asked for.
    pub given: u64,
    /// Of these, answered with "not here".
    pub missed: u64,
    /// Of these, failed.
    pub failed: u64,
    /// Bytes of the blocks it gave.
    pub bytes: u64,
    /// It is put aside for so long.
    pub again_in: Option<Duration>,
    /// Why it was put aside the last time.
    pub why: Option<String>,
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
