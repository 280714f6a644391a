//! Peers: who is here, how they stand, what they measure.

use super::stream::{self, Pages};
use super::{Answer, Failure, Rest, json, wall};
use crate::message::{Request, Response};
use ::cluster::{PeerHealth, PeerRow};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use types::{ByteCount, PeerId, UnixMillis};

/// Go's name of the protocol that peers speak; clients show it.
const RPC_PROTOCOL: &str = "/ipfscluster/1.0/rpc";
/// How long a peer's word counts; Go's default for `ping`.
const PING_TTL_MS: u64 = 30_000;
/// Larger bodies than this are no peer ids.
const BODY_MAX: usize = 4 << 10;

pub(super) fn version() -> Response {
    json::value(&json!({ "version": env!("CARGO_PKG_VERSION") }))
}

pub(super) fn metric_names() -> Response {
    json::value(&json!(["freespace", "ping"]))
}

impl Rest {
    pub(super) async fn id(&self) -> Answer {
        Ok(json::value(&self.own_id().await))
    }

    async fn own_id(&self) -> Value {
        let identity = self.cluster.identity().await;
        let peers: Vec<String> = self.cluster.peers().iter().map(|row| row.peer.to_string()).collect();
        let node = json!({
            "id": identity.node.map(|node| node.to_string()).unwrap_or_default(),
            "addresses": identity.node_addresses,
            "error": if identity.node.is_some() { "" } else { "the node has no network" },
        });
        id_value(identity.peer, &identity.name, identity.addresses, &peers, "", node)
    }

    pub(super) async fn peers(&self, request: Request) -> Answer {
        let own = self.own_id().await;
        let rows = self.cluster.peers();
        let all: Vec<String> = rows.iter().map(|row| row.peer.to_string()).collect();
        let mut lines = Vec::new();
        for row in &rows {
            let line = if row.is_self { own.clone() } else { other_id(row, &all) };
            json::push_value(&mut lines, &line);
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
                let node = if row.is_self { identity.node.map(|node| node.to_string()) } else { json::node_id(&row.node_addresses) };
                nodes.extend(node.map(|node| (id.clone(), node)));
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
        let node_links: BTreeMap<&String, Vec<String>> = nodes.values().map(|node| (node, Vec::new())).collect();
        Ok(json::value(&json!({
            "cluster_id": own,
            "id_to_peername": names,
            "ipfs_links": node_links,
            "cluster_links": links,
            "cluster_trust_links": trust,
            "cluster_to_ipfs": nodes,
        })))
    }

    /// Peers that are silent, as Go's alerts: the newest first. The same at every door, since nothing is remembered.
    pub(super) fn alerts(&self) -> Response {
        let mut rows: Vec<PeerRow> = self.cluster.peers();
        rows.retain(|row| !row.is_self && matches!(row.health, PeerHealth::Suspect | PeerHealth::Down));
        rows.sort_by_key(|row| std::cmp::Reverse(row.heard));
        let alerts: Vec<Value> = rows
            .iter()
            .map(|row| {
                let mut alert = ping(row, false);
                alert["triggered_at"] = json::time(UnixMillis(row.heard.0.saturating_add(PING_TTL_MS))).into();
                alert
            })
            .collect();
        json::value(&Value::from(alerts))
    }

    pub(super) fn metrics(&self, name: &str) -> Response {
        let mut rows: Vec<PeerRow> = self.cluster.peers().into_iter().filter(|row| row.is_self || is_heard(row.health)).collect();
        rows.sort_by_cached_key(|row| row.peer.to_string());
        let metrics: Vec<Value> = match name {
            "ping" => rows.iter().map(|row| ping(row, true)).collect(),
            "freespace" => rows.iter().filter(|row| row.space_limit != ByteCount::ZERO).map(free_space).collect(),
            _ => Vec::new(),
        };
        json::value(&Value::from(metrics))
    }

    pub(super) async fn collect_garbage(&self) -> Answer {
        let identity = self.cluster.identity().await;
        let freed = self.cluster.own_node().collect_garbage().await;
        let mut own = json!({ "peer": identity.peer.to_string(), "peername": identity.name, "keys": [] });
        if let Err(error) = freed {
            own["error"] = error.to_string().into();
        }
        Ok(json::value(&json!({ "peer_map": { identity.peer.to_string(): own } })))
    }
}

fn is_heard(health: PeerHealth) -> bool {
    matches!(health, PeerHealth::Up | PeerHealth::Draining)
}

fn id_value(peer: PeerId, name: &str, addresses: Vec<String>, peers: &[String], error: &str, node: Value) -> Value {
    json!({
        "id": peer.to_string(),
        "addresses": addresses,
        "cluster_peers": peers,
        "cluster_peers_addresses": [],
        "version": env!("CARGO_PKG_VERSION"),
        "commit": "",
        "rpc_protocol_version": RPC_PROTOCOL,
        "error": error,
        "ipfs": node,
        "peername": name,
    })
}

fn other_id(row: &PeerRow, peers: &[String]) -> Value {
    let error = match row.health {
        PeerHealth::Up | PeerHealth::Draining => String::new(),
        health => format!("the peer is {}: last heard of {}", health.as_str(), json::time(row.heard)),
    };
    let node = json!({
        "id": json::node_id(&row.node_addresses).unwrap_or_default(),
        "addresses": row.node_addresses,
        "error": "",
    });
    id_value(row.peer, &row.name, Vec::new(), peers, &error, node)
}

fn metric(name: &str, row: &PeerRow, value: String, weight: i64, is_valid: bool) -> Value {
    let heard = if row.is_self { wall() } else { row.heard };
    json!({
        "name": name,
        "peer": row.peer.to_string(),
        "value": value,
        "expire": nanos(heard.0.saturating_add(PING_TTL_MS)),
        "valid": is_valid,
        "weight": weight,
        "partitionable": false,
        "received_at": nanos(heard.0),
    })
}

fn nanos(millis: u64) -> i64 {
    i64::try_from(millis.saturating_mul(1_000_000)).unwrap_or(i64::MAX)
}

fn ping(row: &PeerRow, is_valid: bool) -> Value {
    let mut value = json!({});
    if !row.name.is_empty() {
        value["peer_name"] = row.name.clone().into();
    }
    if let Some(id) = json::node_id(&row.node_addresses) {
        value["ipfs_id"] = id.into();
        value["ipfs_addresses"] = row.node_addresses.clone().into();
    }
    metric("ping", row, value.to_string(), 0, is_valid)
}

fn free_space(row: &PeerRow) -> Value {
    let free = (row.space_limit - row.space_used - row.space_reserved).get();
    metric("freespace", row, free.to_string(), i64::try_from(free).unwrap_or(i64::MAX), true)
}

struct Once(Option<Vec<u8>>);

impl Pages for Once {
    fn next(&mut self) -> Option<Vec<u8>> {
        self.0.take()
    }
}
