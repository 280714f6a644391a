//! Go peers as the own doors show them: who they are, what they hold, and whether they take what this peer writes.

use super::greeting::texts;
use super::lists::GoList;
use super::{GoPeer, GoSide, Side};
use async_trait::async_trait;
use futures::future::join_all;
use ipfs::Block;
use net::gorpc::{CallError, CallLimits, Request, call_collect, call_unary};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use types::{Cid, PeerId, PeerMessage, Pin, PinState};
use wire::gotime::GoTime;
use wire::rpc::PinInfo;
use wire::status::Filter;

/// A status waits no longer for a Go peer; Go itself waits 15 s.
const PATIENCE: Duration = Duration::from_secs(1);
/// For all that a Go peer tries again.
const RECOVER_PATIENCE: Duration = Duration::from_secs(15);
const RECOVERED_MAX: usize = 100_000;

/// Calls of Go's tracker.
pub(super) const STATUS: &str = "Status";
const RECOVER: &str = "Recover";

/// The Go peers of a mixed cluster.
#[async_trait]
pub trait GoMembers: Send + Sync {
    /// Those that are heard of now, by id.
    fn peers(&self) -> Vec<GoPeer>;
    /// How a pin stands on each that may write here. Those that should hold it are asked; who does not answer within a second has
    /// [`PinState::ClusterError`].
    async fn copies(&self, cid: &Cid, pin: Option<&Pin>) -> Vec<GoCopy>;
    /// How all pins stand on each of those. Who does not begin to answer within 5 s, or pauses for 15 s, has
    /// [`PinState::ClusterError`] for each pin that it should hold.
    async fn lists(&self, filter: Filter) -> Vec<GoList>;
    /// Lets those that should hold a pin try again what failed, and says how it stands then, as [`GoMembers::copies`] does.
    async fn recover(&self, cid: &Cid, pin: Option<&Pin>) -> Vec<GoCopy>;
    /// Lets all of those try again what failed; which pins that is.
    async fn recover_all(&self) -> BTreeSet<Cid>;
    /// Takes what the machine says to a peer; gives it back where that is no Go peer. Never waits.
    fn tell(&self, peer: &PeerId, message: PeerMessage) -> Option<PeerMessage>;
    /// Whether the machine takes it for a Go peer.
    fn is_go(&self, peer: &PeerId) -> bool;
    /// Name and node of a Go peer that is heard of.
    fn who(&self, peer: &PeerId) -> Option<(String, Option<PeerId>)>;
    /// Gives blocks to the node of a Go peer until the queue ends. It has them then, though nothing keeps them before their pin comes.
    async fn fill(&self, peer: PeerId, batches: mpsc::Receiver<Arc<Vec<Block>>>) -> Result<(), String>;
}

/// A pin on one Go peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoCopy {
    /// Whose.
    pub peer: PeerId,
    /// Its name.
    pub name: String,
    /// Its node.
    pub node: Option<PeerId>,
    /// Multiaddrs of its node.
    pub node_addresses: Vec<String>,
    /// How it stands there.
    pub state: PinState,
    /// Since when.
    pub since: GoTime,
    /// What went wrong there, or in asking.
    pub error: String,
    /// Attempts so far.
    pub tries: i64,
}

impl GoCopy {
    /// Whose it is; its state is not known yet.
    pub(super) fn of(go: &GoPeer) -> GoCopy {
        GoCopy {
            peer: go.peer,
            name: go.name.clone(),
            node: go.ipfs_id,
            node_addresses: go.node_addresses.clone(),
            state: PinState::ClusterError,
            since: GoTime::ZERO,
            error: String::new(),
            tries: 0,
        }
    }
}

#[async_trait]
impl GoMembers for GoSide {
    fn peers(&self) -> Vec<GoPeer> {
        self.side.go_peers()
    }

    async fn copies(&self, cid: &Cid, pin: Option<&Pin>) -> Vec<GoCopy> {
        join_all(trusted(&self.side).map(|go| copy(&self.side, STATUS, go, cid, pin))).await
    }

    async fn lists(&self, filter: Filter) -> Vec<GoList> {
        join_all(trusted(&self.side).map(|go| GoList::ask(&self.side, go, filter))).await
    }

    async fn recover(&self, cid: &Cid, pin: Option<&Pin>) -> Vec<GoCopy> {
        join_all(trusted(&self.side).map(|go| copy(&self.side, RECOVER, go, cid, pin))).await
    }

    async fn recover_all(&self) -> BTreeSet<Cid> {
        join_all(trusted(&self.side).map(|go| recover_all(&self.side, go))).await.into_iter().flatten().collect()
    }

    fn tell(&self, peer: &PeerId, message: PeerMessage) -> Option<PeerMessage> {
        match &self.side.spokesman {
            Some(spokesman) => spokesman.tell(peer, message),
            None => Some(message),
        }
    }

    fn is_go(&self, peer: &PeerId) -> bool {
        self.side.spokesman.as_ref().is_some_and(|spokesman| spokesman.speaks_for(peer))
    }

    fn who(&self, peer: &PeerId) -> Option<(String, Option<PeerId>)> {
        self.side.heard.lock().who(peer)
    }

    async fn fill(&self, peer: PeerId, batches: mpsc::Receiver<Arc<Vec<Block>>>) -> Result<(), String> {
        super::lane::fill(&self.side, peer, batches).await
    }
}

fn trusted(side: &Side) -> impl Iterator<Item = GoPeer> + use<> {
    side.go_peers().into_iter().filter(|go| go.is_trusted)
}

/// What a peer tries again; nothing when it does not answer.
async fn recover_all(side: &Side, go: GoPeer) -> Vec<Cid> {
    let request = Request::new("Cluster", "RecoverAllLocal");
    let limits = CallLimits { replies: RECOVERED_MAX, ..CallLimits::default() };
    match call_collect(&side.host, go.peer, &request, &[], &limits, RECOVER_PATIENCE).await {
        Ok(replies) => replies.iter().filter_map(|reply| wire::rpc::decode::<PinInfo>(reply).ok()?.cid).collect(),
        Err(error) => {
            tracing::info!(peer = %go.name, %error, "asking a Go peer to try its pins again");
            Vec::new()
        }
    }
}

/// Asks one peer by `method` for its copy, if it should have one.
async fn copy(side: &Side, method: &str, go: GoPeer, cid: &Cid, pin: Option<&Pin>) -> GoCopy {
    let copy = |state: PinState, error: String| GoCopy { state, error, since: GoTime::from(side.now().wall), ..GoCopy::of(&go) };
    match pin {
        None => copy(PinState::Unpinned, String::new()),
        Some(pin) if !pin.placement.is_empty() && !pin.placement.contains(&go.peer) => copy(PinState::Remote, String::new()),
        Some(_) => match ask(side, go.peer, method, cid).await {
            Ok(info) => {
                let state = wire::status::of_bit(info.short.status).unwrap_or(PinState::ClusterError);
                let told = texts(&info.short.ipfs_addresses.unwrap_or_default());
                GoCopy {
                    since: info.short.timestamp,
                    tries: info.short.attempt_count,
                    node_addresses: told,
                    ..copy(state, info.short.error)
                }
            }
            Err(error) => copy(PinState::ClusterError, error.to_string()),
        },
    }
}

/// A call of a peer's tracker about one pin.
pub(super) async fn ask(side: &Side, peer: PeerId, method: &str, cid: &Cid) -> Result<PinInfo, CallError> {
    let request = Request::new("PinTracker", method);
    let reply = call_unary(&side.host, peer, &request, &wire::rpc::encode(cid), &CallLimits::default(), PATIENCE).await?;
    wire::rpc::decode(&reply).map_err(|error| CallError::Broken(error.to_string()))
}

/// Whether a peer takes what this one writes. Go has no call that says so; it serves this one to those in its `trusted_peers` alone.
pub(super) async fn ask_trust(side: &Side, peer: PeerId) -> Option<bool> {
    // A CID that holds its own, empty, content: asking for it costs nothing.
    let nothing: Cid = "bafkqaaa".parse().ok()?;
    match ask(side, peer, STATUS, &nothing).await {
        Ok(_) | Err(CallError::Method(_)) => Some(true),
        Err(CallError::NotAuthorised(_)) => Some(false),
        Err(_) => None,
    }
}

/// How many of those that may write here are connected, where none of them takes what this peer writes; else 0.
pub(super) fn distrusted(side: &Side) -> u32 {
    let connected = side.go_connected();
    let here: Vec<GoPeer> = side.go_peers().into_iter().filter(|go| go.is_trusted && connected.contains(&go.peer)).collect();
    if here.iter().all(|go| go.trusts_us == Some(false)) { here.len() as u32 } else { 0 }
}
