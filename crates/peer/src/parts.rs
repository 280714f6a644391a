//! What a peer is made of: the implementers of all seams, put together by whoever starts it.

use crate::limits::LimitsOptions;
use crate::links::OwnFacts;
use crate::names::NamesOptions;
use crate::peer::{Inbound, Protocols};
use crate::scrub::ScrubOptions;
use crate::trust::Trust;
use consensus::Consensus;
use ed25519_dalek::SigningKey;
use ipfs::IpfsNode;
use net::{Host, HostEvents};
use std::sync::Arc;
use store::Store;
use wire::join::Known;

/// Everything a peer is made of; made by the binary, which alone knows the implementers.
pub struct Parts {
    /// Identity key of the cluster host.
    pub key: SigningKey,
    /// Key of the private network, for invites.
    pub secret: [u8; 32],
    /// The cluster's name.
    pub cluster: String,
    /// What this peer says of itself.
    pub own: OwnFacts,
    /// What the machine is told: identity, records of this disk, class, limits.
    pub machine: cluster::Options,
    /// Who is trusted; shared with gossip filters and lanes.
    pub trust: Trust,
    /// State of this disk.
    pub store: Arc<dyn Store>,
    /// The shared wish.
    pub consensus: Arc<dyn Consensus>,
    /// Takes gossip for it.
    pub inbound: Arc<dyn Inbound>,
    /// The own node.
    pub node: Arc<dyn IpfsNode>,
    /// Whether what the node's user keeps there becomes the cluster's too.
    pub adopt: crate::Adopt,
    /// The node's host, for lanes; none without a network.
    pub node_host: Option<Host>,
    /// The cluster host.
    pub host: Host,
    /// Its events.
    pub host_events: HostEvents,
    /// What it answers.
    pub protocols: Protocols,
    /// Members named by a welcome, when this start is a join.
    pub welcome: Vec<Known>,
    /// How the stored blocks are looked after.
    pub scrub: ScrubOptions,
    /// Limits of bandwidth.
    pub limits: LimitsOptions,
    /// Keys and names.
    pub names: NamesOptions,
    /// The own node's routing among strangers; none where it is off.
    pub routing: Option<Arc<dyn ipfs::routing::NodeRouting>>,
}
