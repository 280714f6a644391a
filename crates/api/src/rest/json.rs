//! The machine's words in the shapes of `wire::rest`.

use crate::message::{Response, json as json_response, line_of};
use cluster::CopyRow;
use peer::Cluster;
use peer::go::GoCopy;
use serde::Serialize;
use std::collections::BTreeMap;
use types::{Because, Cid, PeerId, Pin, PinState, UnixMillis};
use wire::gotime::GoTime;
use wire::rest::{GlobalPinInfo, PinInfoShort};

/// A whole answer out of finished JSON.
pub(super) fn raw(body: impl Into<bytes::Bytes>) -> Response {
    json_response(body)
}

/// A whole answer of one value.
pub(super) fn value<T: Serialize + ?Sized>(value: &T) -> Response {
    json_response(line_of(value))
}

pub(super) fn pin(pin: &Pin) -> Response {
    value(&wire::rest::Pin::from(pin))
}

pub(super) fn time(at: UnixMillis) -> String {
    GoTime::from(at).to_string()
}

/// What a status says of peers: read once for a page.
pub(super) struct PeerFacts {
    own: Option<PeerId>,
    /// Name, id of the node, its addresses.
    peers: BTreeMap<PeerId, (String, String, Vec<String>)>,
}

impl PeerFacts {
    pub fn of(cluster: &dyn Cluster) -> PeerFacts {
        let rows = cluster.peers();
        let own = rows.iter().find(|row| row.is_self).map(|row| row.peer);
        let facts = |row: cluster::PeerRow| (row.name, node_id(&row.node_addresses), public(row.node_addresses));
        PeerFacts { own, peers: rows.into_iter().map(|row| (row.peer, facts(row))).collect() }
    }

    pub fn is_self(&self, peer: &PeerId) -> bool {
        self.own.as_ref() == Some(peer)
    }

    /// Name, id of the node, its addresses; empty where they are not known.
    pub fn of_peer(&self, peer: &PeerId) -> (&str, &str, &[String]) {
        self.peers.get(peer).map_or(("", "", &[]), |(name, node, addresses)| (name, node, addresses))
    }

    fn copy(&self, row: &CopyRow) -> PinInfoShort {
        let (_, ipfs_peer_id, ipfs_peer_addresses) = self.peers.get(&row.peer).cloned().unwrap_or_default();
        PinInfoShort {
            peername: row.name.clone(),
            ipfs_peer_id,
            ipfs_peer_addresses,
            status: row.state.as_str().to_owned(),
            timestamp: row.since.into(),
            error: error_text(row.because.as_ref(), row.state),
            attempt_count: i64::from(row.tries),
            priority_pin: false,
        }
    }
}

/// The id behind the last `/p2p/` of a node's addresses; empty when there is none.
pub(super) fn node_id(addresses: &[String]) -> String {
    addresses.iter().find_map(|address| address.rsplit_once("/p2p/").map(|(_, id)| id.to_owned())).unwrap_or_default()
}

/// Without those that only its own machine reaches.
pub(super) fn public(addresses: Vec<String>) -> Vec<String> {
    addresses.into_iter().filter(|address| !address.starts_with("/ip4/127.") && !address.starts_with("/ip6/::1/")).collect()
}

/// Appends one line: Go's `GlobalPinInfo`, with the copies of Go peers. A CID that is not pinned has an empty list of placements and was
/// made now, as in Go.
pub(super) fn push_status(
    out: &mut String,
    cid: &Cid,
    pin: Option<&Pin>,
    rows: impl Iterator<Item = CopyRow>,
    go: Vec<GoCopy>,
    facts: &PeerFacts,
) {
    let unknown = || GlobalPinInfo {
        cid: Some(cid.to_string()),
        allocations: Some(Vec::new()),
        created: super::wall().into(),
        ..GlobalPinInfo::default()
    };
    let mut info = pin.map_or_else(unknown, GlobalPinInfo::of_pin);
    info.peer_map = rows.map(|row| (row.peer.to_string(), facts.copy(&row))).collect();
    info.peer_map.extend(go.into_iter().map(|copy| (copy.peer.to_string(), go_copy(copy))));
    out.push_str(&line_of(&info));
}

fn go_copy(copy: GoCopy) -> PinInfoShort {
    PinInfoShort {
        peername: copy.name,
        ipfs_peer_id: copy.node.map(|node| node.to_string()).unwrap_or_default(),
        ipfs_peer_addresses: public(copy.node_addresses),
        status: copy.state.as_str().to_owned(),
        timestamp: copy.since,
        error: copy.error,
        attempt_count: copy.tries,
        priority_pin: false,
    }
}

/// Go's clients take any text here for a failure, so waiting for one's turn says nothing.
pub(super) fn error_text(because: Option<&Because>, state: PinState) -> String {
    match (because, state) {
        (Some(Because::Queue { .. } | Because::Unconfirmed | Because::Throttled), _) => String::new(),
        (Some(because), _) => because.to_string(),
        (None, PinState::UnexpectedlyUnpinned) => "the item should be pinned but it is not".to_owned(),
        (None, _) => String::new(),
    }
}
