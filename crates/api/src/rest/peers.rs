//! Peers: who is here, how they stand, what they measure.

use super::stream::{self, Pages};
use super::{Answer, Failure, Rest, json, wall};
use crate::message::{Request, Response, line_of};
use ::cluster::{PeerHealth, PeerRow};
use peer::go::GoPeer;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use types::{ByteCount, PeerId, UnixMillis};
use wire::rest::{Alert, ConnectGraph, GlobalRepoGc, Id, IpfsId, Metric, RepoGc, Version};

/// Go's name of the protocol that peers speak; clients show it.
const RPC_PROTOCOL: &str = "/ipfscluster/1.0/rpc";
/// How long a peer's word counts; Go's default for `ping`.
const PING_TTL_MS: u64 = 30_000;
/// Larger bodies than this are no peer ids.
const BODY_MAX: usize = 4 << 10;

pub(super) fn version() -> Response {
    json::value(&Version { version: env!("CARGO_PKG_VERSION").to_owned() })
}

impl Rest {
    pub(super) async fn id(&self) -> Answer {
        Ok(json::value(&self.own_id().await))
    }

    async fn own_id(&self) -> Id {
        let identity = self.cluster.identity().await;
        let peers = ids(&self.cluster.peers(), &self.go_peers());
        let node = IpfsId {
            id: identity.node.map(|node| node.to_string()).unwrap_or_default(),
            addresses: Some(identity.node_addresses),
            error: if identity.node.is_some() { String::new() } else { "the node has no network".to_owned() },
        };
        id(identity.peer, &identity.name, identity.addresses, &peers, String::new(), node)
    }

    /// Those of a mixed cluster.
    pub(super) fn go_peers(&self) -> Vec<GoPeer> {
        self.cluster.go().map(|go| go.peers()).unwrap_or_default()
    }

    pub(super) async fn peers(&self, request: Request) -> Answer {
        let own = self.own_id().await;
        let (rows, go) = (self.cluster.peers(), self.go_peers());
        let all = ids(&rows, &go);
        let mut lines = String::new();
        for row in &rows {
            let line = if row.is_self { own.clone() } else { other_id(row, &all) };
            lines.push_str(&line_of(&line));
        }
        for peer in &go {
            lines.push_str(&line_of(&go_id(peer, &all)));
        }
        stream::answer(Once(Some(lines)), request.trailer).await
    }

    /// Go's peers join by themselves too: this call only shows whether the peer is known.
    pub(super) async fn peer_add(&self, mut request: Request) -> Answer {
        let body = request.body.whole(BODY_MAX).await.map_err(|_| Failure::bad("error decoding request body"))?;
        let body: Value = serde_json::from_slice(&body).map_err(|_| Failure::bad("error decoding request body"))?;
        let peer: PeerId = body["peer_id"].as_str().and_then(|id| id.parse().ok()).ok_or_else(|| Failure::bad("error decoding peer_id"))?;
        let rows = self.cluster.peers();
        let all: Vec<String> = rows.iter().map(|row| row.peer.to_string()).collect();
        match rows.iter().find(|row| row.peer == peer) {
            Some(row) if row.is_self => self.id().await,
            Some(row) => Ok(json::value(&other_id(row, &all))),
            None => Err(Failure::internal(format!("{peer} is not a member: make an invite here (pinfold invite) and join with it there"))),
        }
    }

    pub(super) fn peer_remove(&self, peer: &str) -> Answer {
        let _: PeerId = peer.parse().map_err(|error| Failure::bad(format!("error decoding Peer ID: {error}")))?;
        Err(Failure::internal("crdt consensus component cannot remove peers"))
    }

    pub(super) async fn graph(&self) -> Answer {
        let identity = self.cluster.identity().await;
        let rows = self.cluster.peers();
        let own = identity.peer.to_string();
        let mut names = BTreeMap::new();
        let mut links = BTreeMap::new();
        let mut trust = BTreeMap::new();
        let mut nodes = BTreeMap::new();
        let mut seen = Vec::new();
        for row in &rows {
            let id = row.peer.to_string();
            let is_seen = row.is_self || is_heard(row.health);
            if is_seen {
                names.insert(id.clone(), row.name.clone());
                let node = if row.is_self {
                    identity.node.map(|node| node.to_string()).unwrap_or_default()
                } else {
                    json::node_id(&row.node_addresses)
                };
                if !node.is_empty() {
                    nodes.insert(id.clone(), node);
                }
            }
            if is_seen && !row.is_self {
                seen.push(id.clone());
            }
            if !row.is_self {
                trust.insert(id.clone(), row.health != PeerHealth::Gone);
            }
            // What others see is only theirs to say.
            links.insert(id, Vec::new());
        }
        links.insert(own.clone(), seen);
        Ok(json::value(&ConnectGraph {
            cluster_id: own,
            id_to_peername: Some(names),
            ipfs_links: Some(nodes.values().map(|node| (node.clone(), Vec::new())).collect()),
            cluster_links: Some(links),
            cluster_trust_links: Some(trust),
            cluster_to_ipfs: Some(nodes),
        }))
    }

    /// Peers that are silent, as Go's alerts: the newest first. The same at every door, since nothing is remembered.
    pub(super) fn alerts(&self) -> Response {
        let mut rows: Vec<PeerRow> = self.cluster.peers();
        rows.retain(|row| !row.is_self && matches!(row.health, PeerHealth::Suspect | PeerHealth::Down));
        rows.sort_by_key(|row| std::cmp::Reverse(row.heard));
        let alert =
            |row: &PeerRow| Alert { metric: ping(row, false), triggered_at: UnixMillis(row.heard.0.saturating_add(PING_TTL_MS)).into() };
        json::value(&rows.iter().map(alert).collect::<Vec<_>>())
    }

    pub(super) fn metric_names(&self) -> Response {
        let mut names: BTreeSet<String> = ["freespace", "numpin", "ping", "pinqueue"].map(str::to_owned).into();
        names.extend(self.go_peers().iter().flat_map(|go| go.tags.keys()).map(|tag| format!("tag:{tag}")));
        json::value(&names)
    }

    pub(super) fn metrics(&self, name: &str) -> Response {
        let mut rows: Vec<PeerRow> = self.cluster.peers().into_iter().filter(|row| row.is_self || is_heard(row.health)).collect();
        rows.sort_by_cached_key(|row| row.peer.to_string());
        let mut metrics: Vec<Metric> = match name {
            "ping" => rows.iter().map(|row| ping(row, true)).collect(),
            // What others hold is not told beyond what is not as wished.
            "numpin" => {
                rows.iter().filter(|row| row.is_self).map(|row| metric(name, row, self.cluster.pins_held().to_string(), 0, true)).collect()
            }
            "pinqueue" => rows.iter().map(|row| metric(name, row, row.exceptions.to_string(), 0, true)).collect(),
            "freespace" => rows.iter().filter(|row| row.space_limit != ByteCount::ZERO).map(free_space).collect(),
            _ => Vec::new(),
        };
        metrics.extend(self.go_peers().iter().filter_map(|go| go_metric(name, go)));
        json::value(&metrics)
    }

    pub(super) async fn collect_garbage(&self) -> Answer {
        let identity = self.cluster.identity().await;
        let freed = self.cluster.own_node().collect_garbage().await;
        let own = RepoGc {
            peer: identity.peer.to_string(),
            peername: identity.name,
            keys: Some(Vec::new()),
            error: freed.err().map(|error| error.to_string()).unwrap_or_default(),
        };
        Ok(json::value(&GlobalRepoGc { peer_map: BTreeMap::from([(own.peer.clone(), own)]) }))
    }
}

/// All members, those of both kinds.
fn ids(rows: &[PeerRow], go: &[GoPeer]) -> Vec<String> {
    rows.iter().map(|row| row.peer).chain(go.iter().map(|go| go.peer)).map(|peer| peer.to_string()).collect()
}

/// A Go peer, as it said itself.
fn go_id(go: &GoPeer, peers: &[String]) -> Id {
    let node = IpfsId {
        id: go.ipfs_id.map(|node| node.to_string()).unwrap_or_default(),
        addresses: Some(go.node_addresses.clone()),
        error: String::new(),
    };
    Id { version: go.version.clone(), ..id(go.peer, &go.name, go.addresses.clone(), peers, String::new(), node) }
}

fn is_heard(health: PeerHealth) -> bool {
    matches!(health, PeerHealth::Up | PeerHealth::Cordoned | PeerHealth::Draining)
}

fn id(peer: PeerId, name: &str, addresses: Vec<String>, peers: &[String], error: String, node: IpfsId) -> Id {
    Id {
        id: peer.to_string(),
        addresses: Some(addresses),
        cluster_peers: Some(peers.to_vec()),
        cluster_peers_addresses: Some(Vec::new()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: String::new(),
        rpc_protocol_version: RPC_PROTOCOL.to_owned(),
        error,
        ipfs: Some(node),
        peername: name.to_owned(),
    }
}

fn other_id(row: &PeerRow, peers: &[String]) -> Id {
    let error = match row.health {
        PeerHealth::Up | PeerHealth::Cordoned | PeerHealth::Draining => String::new(),
        health => format!("the peer is {}: last heard of {}", health.as_str(), json::time(row.heard)),
    };
    let node = IpfsId { id: json::node_id(&row.node_addresses), addresses: Some(row.node_addresses.clone()), error: String::new() };
    id(row.peer, &row.name, Vec::new(), peers, error, node)
}

fn metric(name: &str, row: &PeerRow, value: String, weight: i64, valid: bool) -> Metric {
    let heard = if row.is_self { wall() } else { row.heard };
    Metric {
        name: name.to_owned(),
        peer: row.peer.to_string(),
        value,
        expire: nanos(heard.0.saturating_add(PING_TTL_MS)),
        valid,
        weight,
        partitionable: false,
        received_at: nanos(heard.0),
    }
}

fn nanos(millis: u64) -> i64 {
    i64::try_from(millis.saturating_mul(1_000_000)).unwrap_or(i64::MAX)
}

fn ping(row: &PeerRow, is_valid: bool) -> Metric {
    let mut value = Map::new();
    if !row.name.is_empty() {
        value.insert("peer_name".into(), row.name.clone().into());
    }
    let node = json::node_id(&row.node_addresses);
    if !node.is_empty() {
        value.insert("ipfs_id".into(), node.into());
        value.insert("ipfs_addresses".into(), row.node_addresses.clone().into());
    }
    metric("ping", row, Value::Object(value).to_string(), 0, is_valid)
}

fn free_space(row: &PeerRow) -> Metric {
    let free = (row.space_limit - row.space_used - row.space_reserved).get();
    metric("freespace", row, free.to_string(), i64::try_from(free).unwrap_or(i64::MAX), true)
}

/// The last word of a Go peer, with the span that Go gives it.
fn go_metric(name: &str, go: &GoPeer) -> Option<Metric> {
    let (value, weight) = match (name, go.free_space) {
        ("ping", _) => {
            let node = go.ipfs_id.map(|node| node.to_string()).unwrap_or_default();
            let value = json!({ "peer_name": go.name, "ipfs_id": node, "ipfs_addresses": go.node_addresses });
            (value.to_string(), 0)
        }
        ("pinqueue", _) => (go.pins_queued.to_string(), 0),
        ("numpin", _) => (go.pins_held?.to_string(), 0),
        (name, _) if name.starts_with("tag:") => (go.tags.get(&name["tag:".len()..])?.clone(), 0),
        ("freespace", Some(free)) => (free.get().to_string(), i64::try_from(free.get()).unwrap_or(i64::MAX)),
        _ => return None,
    };
    Some(Metric {
        name: name.to_owned(),
        peer: go.peer.to_string(),
        value,
        expire: nanos(go.heard.0.saturating_add(PING_TTL_MS)),
        valid: true,
        weight,
        partitionable: name.starts_with("tag:"),
        received_at: nanos(go.heard.0),
    })
}

struct Once(Option<String>);

impl Pages for Once {
    fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        Ok(self.0.take().map(String::into_bytes))
    }
}
