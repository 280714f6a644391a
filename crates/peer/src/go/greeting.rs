//! Asks Go peers who they are, and connects the own node with theirs, so that either finds the other's blocks.
//!
//! Go peers do the same with their Kubo nodes some time after a peer appeared; on addresses that are not public they can only learn
//! it by asking, as here.

use super::heard::Met;
use super::{Side, members};
use futures::{StreamExt, stream};
use net::gorpc::{CallError, CallLimits, Request, call_unary};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use types::PeerId;
use wire::rpc::{Id, RepoStat};

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
    let mut told = 0;
    let mut ours: BTreeMap<PeerId, Instant> = BTreeMap::new();
    loop {
        look.tick().await;
        let now = Instant::now();
        find_ours(&side, &mut ours, now).await;
        let peers = to_meet(&side);
        due.retain(|peer, _| peers.contains_key(peer));
        let meetings = peers.into_iter().map(|(peer, addresses)| {
            let before = due.get(&peer).copied().unwrap_or(Due { ask: now, connect: now });
            meet(&side, peer, addresses, before, now)
        });
        let met: Vec<(PeerId, Due)> = stream::iter(meetings).buffer_unordered(AT_ONCE).collect().await;
        due.extend(met);
        let distrusted = members::distrusted(&side);
        if std::mem::replace(&mut told, distrusted) != distrusted {
            tracing::info!(peers = distrusted, "Go peers that are connected, of which none takes what this one writes");
            (side.options.distrusted)(distrusted);
        }
    }
}

/// Trusted Go peers, those that are connected and not heard of yet among them, with the addresses of their nodes as far as known.
fn to_meet(side: &Side) -> BTreeMap<PeerId, Vec<String>> {
    let connected = side.go_connected().into_iter().filter(|peer| (side.options.trusted)(peer)).map(|peer| (peer, Vec::new()));
    let heard = side.go_peers().into_iter().filter(|go| go.is_trusted).map(|go| (go.peer, go.node_addresses));
    connected.chain(heard).collect()
}

/// Pinfold peers that the configuration trusts and nobody invited (Go peers that were migrated one by one, say): where that is mutual they
/// are members.
async fn find_ours(side: &Side, asked: &mut BTreeMap<PeerId, Instant>, now: Instant) {
    let Some(spokesman) = &side.spokesman else { return };
    let found = side.pinfold_strangers();
    asked.retain(|peer, _| found.contains(peer));
    for peer in found.into_iter().filter(|peer| (side.options.trusted)(peer)) {
        if asked.get(&peer).is_some_and(|due| *due > now) {
            continue;
        }
        let is_first = asked.insert(peer, now + ASK_AGAIN_FAILED).is_none();
        match members::ask_trust(side, peer).await {
            Some(true) => {
                tracing::info!(%peer, "a Pinfold peer that is trusted by configuration, and trusts this one, is a member");
                spokesman.is_ours(peer);
            }
            Some(false) if is_first => {
                let own = side.host.id();
                tracing::warn!(%peer, "a Pinfold peer that is trusted here does not trust this one: put {own} into its `trusted_peers`");
            }
            _ => {}
        }
    }
}

async fn meet(side: &Side, peer: PeerId, mut addresses: Vec<String>, mut due: Due, now: Instant) -> (PeerId, Due) {
    if due.ask <= now && side.host.is_connected(&peer) {
        due.ask = now + ASK_AGAIN_FAILED;
        match ask_id(side, peer).await {
            Ok(id) => {
                due.connect = now;
                let ipfs = id.ipfs.unwrap_or_default();
                addresses = texts(&ipfs.addresses.unwrap_or_default());
                let told = Met {
                    name: id.peer_name,
                    ipfs_id: ipfs.id,
                    node_addresses: addresses.clone(),
                    addresses: texts(&id.addresses.unwrap_or_default()),
                    version: id.version,
                };
                side.heard.lock().met(peer, told, side.now());
                let trusts_us = members::ask_trust(side, peer).await;
                if let Some(trusts_us) = trusts_us {
                    side.heard.lock().trusts(&peer, trusts_us);
                }
                if trusts_us == Some(true)
                    && let Ok(room) = ask_room(side, peer).await
                {
                    side.heard.lock().room(&peer, room);
                }
                // Whoever is to be told to trust this peer wants to see soon that it was heard.
                due.ask = now + if trusts_us == Some(true) { ASK_AGAIN } else { ASK_AGAIN_FAILED };
            }
            Err(error) => tracing::debug!(%peer, %error, "a Go peer did not say who it is"),
        }
    }
    if due.connect <= now && !addresses.is_empty() {
        due.connect = now + CONNECT_AGAIN;
        // A node that cannot be reached is tried again; it must not hold the others up.
        tokio::time::timeout(DEADLINE, side.cluster.own_node().connect(&addresses)).await.ok();
    }
    (peer, due)
}

/// Asks a peer for its id.
pub(super) async fn ask_id(side: &Side, peer: PeerId) -> Result<Id, CallError> {
    let request = Request::new("Cluster", "ID");
    let reply = call_unary(&side.host, peer, &request, &wire::rpc::encode(&()), &CallLimits::default(), DEADLINE).await?;
    wire::rpc::decode(&reply).map_err(|error| CallError::Broken(error.to_string()))
}

/// Asks a peer how large its node is. Its metrics say only what is free.
async fn ask_room(side: &Side, peer: PeerId) -> Result<RepoStat, CallError> {
    let request = Request::new("IPFSConnector", "RepoStat");
    let reply = call_unary(&side.host, peer, &request, &wire::rpc::encode(&()), &CallLimits::default(), DEADLINE).await?;
    wire::rpc::decode(&reply).map_err(|error| CallError::Broken(error.to_string()))
}

/// Addresses as text; those of protocols that are not known are left out.
pub(super) fn texts(addresses: &[Vec<u8>]) -> Vec<String> {
    addresses.iter().filter_map(|address| wire::multiaddr::to_text(address).ok()).collect()
}
