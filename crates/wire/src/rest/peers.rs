//! Who peers are and how they are linked.

use super::{address_texts, peer_text, peer_texts};
use crate::rpc;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use types::PeerId;

/// A peer about its node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IpfsId {
    /// The node.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Its addresses.
    pub addresses: Option<Vec<String>>,
    /// Why it is not known.
    pub error: String,
}

/// A peer about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Id {
    /// The peer.
    pub id: String,
    /// Its addresses, with `/p2p/`.
    pub addresses: Option<Vec<String>>,
    /// All members it knows, itself among them.
    pub cluster_peers: Option<Vec<String>>,
    /// Their addresses.
    pub cluster_peers_addresses: Option<Vec<String>>,
    /// Of its program.
    pub version: String,
    /// Of its program.
    pub commit: String,
    /// Go's name of the peer protocol.
    pub rpc_protocol_version: String,
    /// Why it did not answer.
    pub error: String,
    /// Its node.
    pub ipfs: Option<IpfsId>,
    /// Its name.
    pub peername: String,
}

impl From<&rpc::IpfsId> for IpfsId {
    fn from(ipfs: &rpc::IpfsId) -> IpfsId {
        IpfsId { id: peer_text(ipfs.id.as_ref()), addresses: ipfs.addresses.as_deref().map(address_texts), error: ipfs.error.clone() }
    }
}

impl From<&rpc::Id> for Id {
    fn from(id: &rpc::Id) -> Id {
        Id {
            id: peer_text(id.id.as_ref()),
            addresses: id.addresses.as_deref().map(address_texts),
            cluster_peers: id.cluster_peers.as_deref().map(peer_texts),
            cluster_peers_addresses: id.cluster_peers_addresses.as_deref().map(address_texts),
            version: id.version.clone(),
            commit: id.commit.clone(),
            rpc_protocol_version: id.rpc_protocol_version.clone(),
            error: id.error.clone(),
            ipfs: id.ipfs.as_ref().map(IpfsId::from),
            peername: id.peer_name.clone(),
        }
    }
}

/// Who is linked to whom. Keys are peer ids.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConnectGraph {
    /// Who asks.
    pub cluster_id: String,
    /// Names of peers.
    pub id_to_peername: Option<BTreeMap<String, String>>,
    /// Links between nodes.
    pub ipfs_links: Option<BTreeMap<String, Vec<String>>>,
    /// Links between peers.
    pub cluster_links: Option<BTreeMap<String, Vec<String>>>,
    /// Which peers are trusted.
    pub cluster_trust_links: Option<BTreeMap<String, bool>>,
    /// The node of each peer.
    pub cluster_to_ipfs: Option<BTreeMap<String, String>>,
}

impl From<&rpc::ConnectGraph> for ConnectGraph {
    fn from(graph: &rpc::ConnectGraph) -> ConnectGraph {
        let links = |links: Option<&BTreeMap<String, Vec<PeerId>>>| {
            links.map(|links| links.iter().map(|(from, to)| (from.clone(), peer_texts(to))).collect())
        };
        let nodes = |nodes: &BTreeMap<String, PeerId>| nodes.iter().map(|(peer, node)| (peer.clone(), node.to_string())).collect();
        ConnectGraph {
            cluster_id: peer_text(graph.cluster_id.as_ref()),
            id_to_peername: graph.names.clone(),
            ipfs_links: links(graph.ipfs_links.as_ref()),
            cluster_links: links(graph.cluster_links.as_ref()),
            cluster_trust_links: graph.cluster_trust_links.clone(),
            cluster_to_ipfs: graph.cluster_to_ipfs.as_ref().map(nodes),
        }
    }
}
