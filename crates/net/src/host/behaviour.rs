//! The composed behaviour of a host.

use super::hop::Hop;
use super::probes::Probes;
use super::{HostError, HostOptions, ReachOptions, gossip};
use crate::streams;
use libp2p::identity::Keypair;
use libp2p::kad::store::{MemoryStore, MemoryStoreConfig};
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{StreamProtocol, allow_block_list, autonat, connection_limits, dcutr, identify, kad, ping, relay};
use std::sync::Arc;
use std::time::Duration;

/// What Go's cluster peers find each other with.
pub(super) const LAN_KAD: StreamProtocol = StreamProtocol::new("/ipfs/lan/kad/1.0.0");

/// Connections to one peer: both sides dialling at once makes two, a second address or transport a few more.
const CONNECTIONS_PER_PEER: u32 = 8;

/// Connections whose handshake is under way.
const CONNECTIONS_PENDING: u32 = 256;

#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    // First, so that a refused connection costs the others nothing.
    pub(super) blocked: allow_block_list::Behaviour<allow_block_list::BlockedPeers>,
    pub(super) limits: connection_limits::Behaviour,
    pub(super) identify: identify::Behaviour,
    pub(super) ping: Probes,
    pub(super) kad: Toggle<kad::Behaviour<MemoryStore>>,
    pub(super) gossip: Toggle<gossip::Behaviour>,
    pub(super) streams: streams::Behaviour,
    // How this host is reached: see `reachability`.
    pub(super) hop: Hop,
    pub(super) circuits: relay::client::Behaviour,
    pub(super) autonat: autonat::v1::Behaviour,
    pub(super) dcutr: dcutr::Behaviour,
}

impl Behaviour {
    pub(super) fn new(
        options: &HostOptions,
        keypair: &Keypair,
        shared: Arc<streams::Shared>,
        circuits: relay::client::Behaviour,
    ) -> Result<Behaviour, HostError> {
        let id = keypair.public().to_peer_id();
        let gossip = options.gossip.as_ref().map(|gossip| gossip::behaviour(gossip, keypair)).transpose().map_err(HostError::Setup)?;
        let identify = identify::Config::new("ipfs/0.1.0".to_owned(), keypair.public())
            .with_agent_version(options.agent.clone())
            // Where others say they listen is kept by whoever uses it, which looks at it first.
            .with_cache_size(0)
            .with_push_listen_addr_updates(true)
            .with_hide_listen_addrs(!options.tells_listened);
        let limits = connection_limits::ConnectionLimits::default()
            .with_max_pending_incoming(Some(CONNECTIONS_PENDING))
            .with_max_pending_outgoing(Some(CONNECTIONS_PENDING))
            .with_max_established(Some(options.connections))
            .with_max_established_per_peer(Some(CONNECTIONS_PER_PEER));
        let ping = ping::Config::new().with_interval(options.ping).with_timeout(options.silence);
        Ok(Behaviour {
            blocked: allow_block_list::Behaviour::default(),
            limits: connection_limits::Behaviour::new(limits),
            identify: identify::Behaviour::new(identify),
            ping: Probes::new(ping),
            kad: Toggle::from(options.discovery.then(|| discovery(keypair))),
            gossip: Toggle::from(gossip),
            streams: streams::Behaviour::new(shared),
            hop: Hop::new(id, &options.reach),
            circuits,
            autonat: autonat::v1::Behaviour::new(id, dial_back(&options.reach)),
            dcutr: dcutr::Behaviour::new(id),
        })
    }
}

/// Asking others to dial back, and answering those who ask. A dial into nothing takes its whole time-out, and there are a few.
fn dial_back(options: &ReachOptions) -> autonat::v1::Config {
    autonat::v1::Config {
        timeout: Duration::from_secs(60),
        boot_delay: options.ask_every / 5,
        retry_interval: options.ask_every,
        refresh_interval: options.ask_every * 20,
        throttle_server_period: options.ask_every,
        confidence_max: 1,
        max_peer_addresses: 4,
        throttle_clients_period: options.ask_every * 4,
        throttle_clients_peer_max: 4,
        only_global_ips: !options.private_is_outside,
        // Who is asked is chosen in `driver::reach`.
        use_connected: false,
        ..autonat::v1::Config::default()
    }
}

/// Routing among members. Records that others put here are bounded: this is for finding peers.
fn discovery(keypair: &Keypair) -> kad::Behaviour<MemoryStore> {
    let id = keypair.public().to_peer_id();
    let bounds = MemoryStoreConfig { max_records: 256, max_value_bytes: 16 << 10, ..MemoryStoreConfig::default() };
    let mut config = kad::Config::new(LAN_KAD);
    config.set_query_timeout(Duration::from_secs(20)).set_periodic_bootstrap_interval(Some(Duration::from_secs(30)));
    let mut behaviour = kad::Behaviour::with_config(id, MemoryStore::with_config(id, bounds), config);
    // Among members everybody answers; no need to find out first whether others reach this host.
    behaviour.set_mode(Some(kad::Mode::Server));
    behaviour
}
