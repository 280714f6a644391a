//! Asks Go peers who they are, and connects the own node with theirs, so that either finds the other's blocks.
//!
//! Go peers do the same with their Kubo nodes some time after a peer appeared; on addresses that are not public they can only learn
//! it by asking, as here.

use super::{GoPeer, Side};
use net::gorpc::{CallError, CallLimits, Request, call_unary};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use types::PeerId;
use wire::rpc::Id;

/// How often it is looked for whom to ask.
const LOOK: Duration = Duration::from_secs(2);
/// Go's patience for the same question.
pub(super) const DEADLINE: Duration = Duration::from_secs(15);
/// A peer is asked again after so long.
const ASK_AGAIN: Duration = Duration::from_secs(300);
/// One that did not answer.
const ASK_AGAIN_FAILED: Duration = Duration::from_secs(15);
/// Nodes are connected again after so long; they end unused connections after about a minute.
const CONNECT_AGAIN: Duration = Duration::from_secs(30);
/// Peers asked at once.
const AT_ONCE: usize = 8;

#[derive(Clone, Copy)]
struct Due {
    ask: Instant,
    connect: Instant,
}

/// Runs until dropped.
pub(super) async fn run(side: Arc<Side>) {
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut due: BTreeMap<PeerId, Due> = BTreeMap::new();
    loop {
        look.tick().await;
        let now = Instant::now();
        let peers = side.go_peers();
        due.retain(|peer, _| peers.iter().any(|go| go.peer == *peer));
        let trusted: Vec<GoPeer> = peers.into_iter().filter(|go| go.is_trusted).collect();
        let meetings = trusted.into_iter().map(|go| {
            let before = due.get(&go.peer).copied().unwrap_or(Due { ask: now, connect: now });
            meet(&side, go, before, now)
        });
        let met: Vec<(PeerId, Due)> =
            futures::StreamExt::collect(futures::StreamExt::buffer_unordered(futures::stream::iter(meetings), AT_ONCE)).await;
        due.extend(met);
    }
}

async fn meet(side: &Side, go: GoPeer, mut due: Due, now: Instant) -> (PeerId, Due) {
    let mut addresses = go.node_addresses;
    if due.ask <= now && side.host.is_connected(&go.peer) {
        due.ask = now + ASK_AGAIN_FAILED;
        match ask_id(side, go.peer).await {
            Ok(id) => {
                due.ask = now + ASK_AGAIN;
                due.connect = now;
                addresses = texts(&id.ipfs.unwrap_or_default().addresses.unwrap_or_default());
                side.heard.lock().set_node_addresses(&go.peer, addresses.clone());
            }
            Err(error) => tracing::debug!(peer = %go.peer, %error, "a Go peer did not say who it is"),
        }
    }
    if due.connect <= now && !addresses.is_empty() {
        due.connect = now + CONNECT_AGAIN;
        // A node that cannot be reached is tried again; it must not hold the others up.
        tokio::time::timeout(DEADLINE, side.cluster.own_node().connect(&addresses)).await.ok();
    }
    (go.peer, due)
}

/// Asks a peer for its id.
pub(super) async fn ask_id(side: &Side, peer: PeerId) -> Result<Id, CallError> {
    let request = Request::new("Cluster", "ID");
    let reply = call_unary(&side.host, peer, &request, &wire::rpc::encode(&()), &CallLimits::default(), DEADLINE).await?;
    wire::rpc::decode(&reply).map_err(|error| CallError::Broken(error.to_string()))
}

/// Addresses as text; those of protocols that are not known are left out.
pub(super) fn texts(addresses: &[Vec<u8>]) -> Vec<String> {
    addresses.iter().filter_map(|address| wire::multiaddr::to_text(address).ok()).collect()
}
