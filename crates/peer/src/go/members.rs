//! Go peers as the own doors show them: who they are, what they hold, and whether they take what this peer writes.

use super::greeting::texts;
use super::{GoPeer, GoSide, Side};
use async_trait::async_trait;
use futures::future::join_all;
use net::gorpc::{CallError, CallLimits, Request, call_unary};
use std::time::Duration;
use types::{Cid, PeerId, Pin, PinState};
use wire::gotime::GoTime;
use wire::rpc::PinInfo;

/// A status waits no longer for a Go peer; Go itself waits 15 s.
const PATIENCE: Duration = Duration::from_secs(1);

/// The Go peers of a mixed cluster.
#[async_trait]
pub trait GoMembers: Send + Sync {
    /// Those that are heard of now, by id.
    fn peers(&self) -> Vec<GoPeer>;
    /// How a pin stands on each that may write here. Those that should hold it are asked; who does not answer within a second has
    /// [`PinState::ClusterError`].
    async fn copies(&self, cid: &Cid, pin: Option<&Pin>) -> Vec<GoCopy>;
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

#[async_trait]
impl GoMembers for GoSide {
    fn peers(&self) -> Vec<GoPeer> {
        self.side.go_peers()
    }

    async fn copies(&self, cid: &Cid, pin: Option<&Pin>) -> Vec<GoCopy> {
        let peers = self.side.go_peers().into_iter().filter(|go| go.is_trusted);
        join_all(peers.map(|go| copy(&self.side, go, cid, pin))).await
    }
}

async fn copy(side: &Side, go: GoPeer, cid: &Cid, pin: Option<&Pin>) -> GoCopy {
    let node_addresses = go.node_addresses.clone();
    let copy = |state: PinState, error: String| GoCopy {
        peer: go.peer,
        name: go.name.clone(),
        node: go.ipfs_id,
        node_addresses: node_addresses.clone(),
        state,
        since: GoTime::from(side.now().wall),
        error,
        tries: 0,
    };
    match pin {
        None => copy(PinState::Unpinned, String::new()),
        Some(pin) if !pin.placement.is_empty() && !pin.placement.contains(&go.peer) => copy(PinState::Remote, String::new()),
        Some(_) => match ask_status(side, go.peer, cid).await {
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

async fn ask_status(side: &Side, peer: PeerId, cid: &Cid) -> Result<PinInfo, CallError> {
    let request = Request::new("PinTracker", "Status");
    let reply = call_unary(&side.host, peer, &request, &wire::rpc::encode(cid), &CallLimits::default(), PATIENCE).await?;
    wire::rpc::decode(&reply).map_err(|error| CallError::Broken(error.to_string()))
}

/// Whether a peer takes what this one writes. Go has no call that says so; it serves this one to those in its `trusted_peers` alone.
pub(super) async fn ask_trust(side: &Side, peer: PeerId) -> Option<bool> {
    // A CID that holds its own, empty, content: asking for it costs nothing.
    let nothing: Cid = "bafkqaaa".parse().ok()?;
    match ask_status(side, peer, &nothing).await {
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
