//! Life among Go peers: this peer as a complete member of a Go cluster in CRDT mode.
//!
//! The shared wish needs nothing of this: the CRDT speaks Go's bytes. Here is the rest. Go peers take whoever publishes a `ping` for a
//! member, ask it for its id and for the state of its copies, send it the blocks of an add, and place pins on those whose free space
//! they know. What they say of themselves is kept for whoever chooses placements.
//!
//! ```text
//!              calls ──► methods ──► answers (ids, copies)  ──► handle::Cluster
//!   Go peer               └────────► intake (blocks of an add) ──► the own node
//!              calls ◄── members, lists ◄── the own doors (what Go peers hold)
//!              gossip ─► heard ◄──── greeting (asks ids and for trust, connects the nodes)
//!              gossip ◄─ publish
//!              dials ◄── addresses (where they were)
//!   the machine's messages to Go peers ◄──► spokesman, lane (blocks of the own adds)
//! ```
//! Absent: closed methods of Go's own parts among each other, raft, tracing. Start with [`GoSide`].

mod addresses;
mod answers;
mod greeting;
mod heard;
mod intake;
mod lane;
mod lists;
mod members;
mod methods;
mod publish;
mod spokesman;
#[cfg(test)]
mod tests;

pub use heard::GoPeer;
pub use lists::{GoList, GoRow};
pub use members::{GoCopy, GoMembers};
pub use spokesman::Mind;

use crate::handle::Cluster;
use crate::links::MESSAGES;
use crate::peer::Inbound;
use heard::Heard;
use intake::Leases;
use methods::Methods;
use net::gorpc::{CallLimits, RPC_PROTOCOL, Server};
use net::{Host, Incoming, OpenError, PublishError};
use parking_lot::Mutex;
use spokesman::Spokesman;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use types::{Millis, Now, PeerId};
use wire::METRICS_TOPIC;

/// What the Go side is told.
#[derive(Clone)]
pub struct GoOptions {
    /// What this peer says its version is.
    pub version: String,
    /// Whose calls are served beyond the open ones; the same that decides whose announcements of the wish are taken.
    pub trusted: Arc<dyn Fn(&PeerId) -> bool + Send + Sync>,
    /// Told when a Go peer connects: the shared wish is announced to it.
    pub wish: Option<Arc<dyn Inbound>>,
    /// The nodes that the own node is connected to.
    pub swarm_peers: Arc<dyn Fn() -> Vec<PeerId> + Send + Sync>,
    /// How long the blocks of an add are kept for a pin that has not come.
    pub lease: Duration,
    /// The machine, which counts Go peers as holders; none in tests that need none.
    pub mind: Option<Arc<dyn Mind>>,
    /// Go peers that are trusted by their ids: members before they are heard of.
    pub listed: Vec<PeerId>,
    /// Told when it changes: how many Go peers are connected, where none of them takes what this peer writes; else 0.
    pub distrusted: Arc<dyn Fn(u32) + Send + Sync>,
}

impl GoOptions {
    /// With the lease of ten minutes.
    pub fn new(version: &str, trusted: Arc<dyn Fn(&PeerId) -> bool + Send + Sync>) -> GoOptions {
        GoOptions {
            version: version.to_owned(),
            trusted,
            wish: None,
            swarm_peers: Arc::new(Vec::new),
            lease: Duration::from_secs(600),
            mind: None,
            listed: Vec::new(),
            distrusted: Arc::new(|_| ()),
        }
    }
}

/// Calls that Go peers make, taken from the moment of registering: before anybody is dialled, since a protocol that is missing when a
/// peer connects stays missing to it.
pub struct GoStreams(Incoming);

impl GoStreams {
    /// Takes them.
    pub fn register(host: &Host) -> Result<GoStreams, OpenError> {
        host.accept(&[RPC_PROTOCOL]).map(GoStreams)
    }
}

/// This peer among Go peers.
pub struct GoSide {
    side: Arc<Side>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// Gossip and connections of a host that takes part in both topics: the wish's to the consensus, metrics to the Go side once it runs.
pub struct GoInbound {
    wish: Arc<dyn Inbound>,
    go: OnceLock<Arc<GoSide>>,
}

impl GoInbound {
    /// Before the consensus.
    pub fn new(wish: Arc<dyn Inbound>) -> Arc<GoInbound> {
        Arc::new(GoInbound { wish, go: OnceLock::new() })
    }

    /// The Go side runs; once.
    pub fn set(&self, go: Arc<GoSide>) {
        self.go.set(go).ok();
    }
}

impl Inbound for GoInbound {
    fn gossip(&self, topic: &str, from: PeerId, data: Vec<u8>) {
        if topic != METRICS_TOPIC {
            self.wish.gossip(topic, from, data);
        } else if let Some(go) = self.go.get() {
            go.gossip(from, &data);
        }
    }

    fn pushed(&self, from: PeerId, block: Vec<u8>) {
        self.wish.pushed(from, block);
    }

    fn connected(&self, peer: PeerId) {
        self.wish.connected(peer);
    }

    fn go_connected(&self, peer: PeerId) {
        self.wish.go_connected(peer);
    }

    fn disconnected(&self, peer: PeerId) {
        self.wish.disconnected(peer);
    }
}

/// What the parts share.
struct Side {
    host: Host,
    cluster: Arc<dyn Cluster>,
    options: GoOptions,
    heard: Mutex<Heard>,
    leases: Leases,
    spokesman: Option<Arc<Spokesman>>,
    started: Instant,
}

impl GoSide {
    /// Serves calls, publishes metrics where a Go peer may hear them. The host needs gossip.
    pub async fn start(host: Host, streams: GoStreams, cluster: Arc<dyn Cluster>, options: GoOptions) -> Result<GoSide, PublishError> {
        host.subscribe(METRICS_TOPIC).await?;
        let leases = Leases::new(cluster.own_node(), options.lease);
        let spokesman = options.mind.clone().map(|mind| Arc::new(Spokesman::new(mind, options.listed.clone())));
        let side = Arc::new(Side { host, cluster, options, heard: Mutex::default(), leases, spokesman, started: Instant::now() });
        let server = Server::over(streams.0, Arc::new(Methods(side.clone())), CallLimits::default());
        let tasks = vec![
            tokio::spawn(server.run()),
            tokio::spawn(publish::run(side.clone())),
            tokio::spawn(greeting::run(side.clone())),
            tokio::spawn(addresses::run(side.clone())),
            tokio::spawn(intake::let_go(side.clone())),
            tokio::spawn(spokesman::run(side.clone())),
        ];
        Ok(GoSide { side, tasks: Mutex::new(tasks) })
    }

    /// Takes a gossip message of the metrics topic, which `from` signed.
    pub fn gossip(&self, from: PeerId, data: &[u8]) {
        let side = &self.side;
        if from == side.host.id() {
            return;
        }
        if let Err(error) = side.heard.lock().take(from, data, side.now()) {
            tracing::debug!(peer = %from, %error, "a metric was not taken");
        }
    }

    /// Ends its tasks; calls in flight are reset.
    pub async fn stop(&self) {
        let tasks: Vec<JoinHandle<()>> = std::mem::take(&mut *self.tasks.lock());
        for task in &tasks {
            task.abort();
        }
        for task in tasks {
            // Aborted tasks answer with an error that says so.
            task.await.ok();
        }
    }
}

impl Side {
    fn now(&self) -> Now {
        Now { mono: Millis(self.started.elapsed().as_millis() as u64), wall: crate::clock::wall() }
    }

    /// Everybody who is heard of and is no Pinfold peer: those publish the same metrics.
    fn go_peers(&self) -> Vec<GoPeer> {
        let ours: BTreeSet<PeerId> = self.cluster.peers().into_iter().map(|row| row.peer).collect();
        let mut peers = self.heard.lock().live(self.now());
        peers.retain(|go| !ours.contains(&go.peer) && !self.is_pinfold(&go.peer));
        for go in &mut peers {
            go.is_trusted = (self.options.trusted)(&go.peer);
        }
        peers
    }

    /// Everybody who was ever heard of and is no Pinfold peer, and whether it takes what this peer writes.
    fn go_known(&self) -> BTreeMap<PeerId, Option<bool>> {
        let ours: BTreeSet<PeerId> = self.cluster.peers().into_iter().map(|row| row.peer).collect();
        let mut known = self.heard.lock().known();
        known.retain(|peer, _| !ours.contains(peer) && !self.is_pinfold(peer));
        known
    }

    /// Connected peers that speak Go's calls and not ours.
    fn go_connected(&self) -> BTreeSet<PeerId> {
        let speaks_go = |peer: &PeerId| {
            let info = self.host.peer_info(peer).unwrap_or_default();
            info.protocols.iter().any(|name| name == RPC_PROTOCOL) && !info.protocols.iter().any(|name| name == MESSAGES)
        };
        self.host.connected().into_iter().filter(speaks_go).collect()
    }

    /// Connected Pinfold peers that speak Go's calls too and are no members.
    fn pinfold_strangers(&self) -> Vec<PeerId> {
        let ours: BTreeSet<PeerId> = self.cluster.peers().into_iter().map(|row| row.peer).collect();
        let speaks_both = |peer: &PeerId| {
            let info = self.host.peer_info(peer).unwrap_or_default();
            [RPC_PROTOCOL, MESSAGES].iter().all(|name| info.protocols.iter().any(|spoken| spoken == name))
        };
        self.host.connected().into_iter().filter(|peer| !ours.contains(peer) && speaks_both(peer)).collect()
    }

    fn is_pinfold(&self, peer: &PeerId) -> bool {
        self.host.peer_info(peer).is_some_and(|info| info.protocols.iter().any(|name| name == MESSAGES))
    }
}
