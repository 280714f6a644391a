//! How the own peer is reached, and which way leads to another, as JSON.

use ::cluster::PeerRow;
use peer::go::GoPeer;
use peer::{Path, Paths, Reach, Reachability};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use types::PeerId;

/// The ways to all peers, with their names.
pub(super) struct Ways<'a> {
    names: BTreeMap<PeerId, &'a str>,
    own: Option<PeerId>,
    paths: &'a Paths,
}

impl<'a> Ways<'a> {
    pub(super) fn new(rows: &'a [PeerRow], go: &'a [GoPeer], paths: &'a Paths) -> Ways<'a> {
        let members = rows.iter().map(|row| (row.peer, row.name.as_str()));
        let names = members.chain(go.iter().map(|go| (go.peer, go.name.as_str()))).filter(|(_, name)| !name.is_empty()).collect();
        Ways { names, own: rows.iter().find(|row| row.is_self).map(|row| row.peer), paths }
    }

    /// The way to a peer; for the own peer how it is reached.
    pub(super) fn of(&self, peer: &PeerId) -> Value {
        let name = |peer: &PeerId| self.names.get(peer).map_or_else(|| peer.to_string(), |name| (*name).to_owned());
        let paths = self.paths;
        if self.own.as_ref() == Some(peer) {
            let node = paths.node.as_ref().map(reach);
            return json!({ "words": paths.own_words(name), "cluster": reach(&paths.cluster), "node": node });
        }
        let (kind, relay) = match paths.members.get(peer) {
            None => ("none", None),
            Some(Path::Direct) => ("direct", None),
            Some(Path::Relayed { by }) => ("relayed", *by),
        };
        json!({ "words": paths.words_to(peer, name), "kind": kind, "relay": relay.map(|relay| relay.to_string()) })
    }
}

fn reach(reach: &Reach) -> Value {
    let state = match reach.state {
        Reachability::Unknown => "unknown",
        Reachability::Public => "public",
        Reachability::BehindNat => "behind_nat",
    };
    json!({
        "state": state,
        "relays": reach.relays.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "is_relay": reach.is_relay,
        "circuits": reach.circuits,
    })
}
