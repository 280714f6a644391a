//! The machine's words as Go's JSON.

use crate::message::{Response, json as json_response};
use cluster::CopyRow;
use peer::Cluster;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use types::{Because, Cid, Depth, PeerId, Pin, PinKind, PinState, UnixMillis};
use wire::gotime::GoTime;

/// A whole answer out of finished JSON.
pub(super) fn raw(body: impl Into<bytes::Bytes>) -> Response {
    json_response(body)
}

/// A whole answer of one value.
pub(super) fn value(value: &Value) -> Response {
    let mut line = Vec::new();
    push_value(&mut line, value);
    json_response(line)
}

pub(super) fn push_value(out: &mut Vec<u8>, value: &Value) {
    crate::query::push_html_escaped(out, &value.to_string());
    out.push(b'\n');
}

pub(super) fn pin(pin: &Pin) -> Response {
    let mut line = Vec::with_capacity(512);
    push_pin(&mut line, pin);
    json_response(line)
}

/// Appends one line: Go's `Pin`.
pub(super) fn push_pin(out: &mut Vec<u8>, pin: &Pin) {
    let (least, most) = pin.options.replicas.factors();
    push_value(
        out,
        &json!({
            "replication_factor_min": least,
            "replication_factor_max": most,
            "name": pin.options.name,
            "mode": if pin.depth == Depth::DIRECT { "direct" } else { "recursive" },
            "shard_size": pin.options.shard_size,
            "user_allocations": Value::Null,
            "expire_at": time(pin.options.expires.unwrap_or_default()),
            "metadata": metadata(pin),
            "pin_update": pin.options.update.map(|cid| cid.to_string()),
            "origins": origins(pin),
            "cid": pin.cid.to_string(),
            "type": kind(pin.kind),
            "allocations": pin.placement.iter().map(PeerId::to_string).collect::<Vec<_>>(),
            "max_depth": match pin.depth { Depth::Recursive => -1, Depth::Levels(levels) => i64::from(levels) },
            "reference": pin.reference.map(|cid| cid.to_string()),
            "timestamp": time(pin.created),
        }),
    );
}

fn kind(kind: PinKind) -> &'static str {
    match kind {
        PinKind::Bad => "bad-type",
        PinKind::Data => "pin",
        PinKind::Meta => "meta-pin",
        PinKind::ClusterDag => "clusterdag-pin",
        PinKind::Shard => "shard-pin",
    }
}

fn metadata(pin: &Pin) -> Value {
    let pairs = pin.options.metadata.iter().map(|(key, value)| (key.clone(), Value::from(value.clone())));
    Value::Object(pairs.collect::<Map<_, _>>())
}

fn origins(pin: &Pin) -> Value {
    if pin.options.origins.is_empty() {
        return Value::Null;
    }
    Value::from(pin.options.origins.iter().filter_map(|origin| wire::multiaddr::to_text(origin).ok()).collect::<Vec<_>>())
}

pub(super) fn time(at: UnixMillis) -> String {
    GoTime::from(at).to_string()
}

/// What a status says of peers: read once for a page.
pub(super) struct PeerFacts {
    own: Option<PeerId>,
    nodes: BTreeMap<PeerId, (Option<String>, Vec<String>)>,
}

impl PeerFacts {
    pub fn of(cluster: &dyn Cluster) -> PeerFacts {
        let rows = cluster.peers();
        let own = rows.iter().find(|row| row.is_self).map(|row| row.peer);
        let nodes = rows.into_iter().map(|row| (row.peer, (node_id(&row.node_addresses), public(row.node_addresses)))).collect();
        PeerFacts { own, nodes }
    }

    pub fn is_self(&self, peer: &PeerId) -> bool {
        self.own.as_ref() == Some(peer)
    }
}

/// The id behind the last `/p2p/` of a node's addresses.
pub(super) fn node_id(addresses: &[String]) -> Option<String> {
    addresses.iter().find_map(|address| address.rsplit_once("/p2p/").map(|(_, id)| id.to_owned()))
}

/// Without those that only its own machine reaches.
fn public(addresses: Vec<String>) -> Vec<String> {
    addresses.into_iter().filter(|address| !address.starts_with("/ip4/127.") && !address.starts_with("/ip6/::1/")).collect()
}

/// Appends one line: Go's `GlobalPinInfo`.
pub(super) fn push_status(out: &mut Vec<u8>, cid: &Cid, pin: Option<&Pin>, rows: impl Iterator<Item = CopyRow>, facts: &PeerFacts) {
    let mut peers: Vec<(String, Value)> = rows.map(|row| (row.peer.to_string(), copy(&row, facts))).collect();
    peers.sort_by(|(a, _), (b, _)| a.cmp(b));
    let placement = pin.map_or_else(Vec::new, |pin| pin.placement.iter().map(PeerId::to_string).collect());
    push_value(
        out,
        &json!({
            "cid": cid.to_string(),
            "name": pin.map_or("", |pin| &pin.options.name),
            "allocations": placement,
            "origins": pin.map_or(Value::Null, origins),
            "created": time(pin.map_or_else(super::wall, |pin| pin.created)),
            "metadata": pin.map_or(Value::Null, metadata),
            "peer_map": Value::Object(peers.into_iter().collect()),
        }),
    );
}

fn copy(row: &CopyRow, facts: &PeerFacts) -> Value {
    let mut info = Map::new();
    info.insert("peername".into(), row.name.clone().into());
    if let Some((id, addresses)) = facts.nodes.get(&row.peer) {
        if let Some(id) = id {
            info.insert("ipfs_peer_id".into(), id.clone().into());
        }
        if !addresses.is_empty() {
            info.insert("ipfs_peer_addresses".into(), addresses.clone().into());
        }
    }
    info.insert("status".into(), row.state.as_str().into());
    info.insert("timestamp".into(), time(row.since).into());
    info.insert("error".into(), error_of(row).into());
    info.insert("attempt_count".into(), row.tries.into());
    info.insert("priority_pin".into(), false.into());
    Value::Object(info)
}

/// Go's clients take any text here for a failure, so waiting for one's turn says nothing.
fn error_of(row: &CopyRow) -> String {
    match (&row.because, row.state) {
        (Some(Because::Queue { .. } | Because::Unconfirmed | Because::Throttled), _) => String::new(),
        (Some(because), _) => because.to_string(),
        (None, PinState::UnexpectedlyUnpinned) => "the item should be pinned but it is not".to_owned(),
        (None, _) => String::new(),
    }
}
