//! What a host is told at its start.

use super::{GossipOptions, ReachOptions};
use crate::streams::StreamLimits;
use crate::throttle::Throttle;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What Go's cluster peers call themselves on the local net.
pub const CLUSTER_SERVICE: &str = "_ipfs-cluster-discovery._udp.local";

/// What IPFS nodes call themselves there.
pub const NODE_SERVICE: &str = "_p2p._udp.local";

/// What a host is told at its start. [`HostOptions::cluster`] and [`HostOptions::node`] give the two usual ones.
#[derive(Clone)]
pub struct HostOptions {
    /// The seed of its ed25519 key.
    pub key: [u8; 32],
    /// Multiaddrs to listen on. In a private network only TCP ones are used, the others are named in the log.
    pub listen: Vec<String>,
    /// Further multiaddrs to tell others, where an outside address is known.
    pub announce: Vec<String>,
    /// Whether others are told the addresses that it listens on, too. Relays and the local net are not concerned.
    pub tells_listened: bool,
    /// The key of the private network; without it the host speaks QUIC and TLS too.
    pub psk: Option<[u8; 32]>,
    /// Gossip, if it takes part in any.
    pub gossip: Option<GossipOptions>,
    /// What it says it is.
    pub agent: String,
    /// Whether hosts find each other through `/ipfs/lan/kad/1.0.0`.
    pub discovery: bool,
    /// The service name under which it is found on the local net by multicast DNS ([`CLUSTER_SERVICE`], [`NODE_SERVICE`]); none: it is
    /// not. A host that listens on loopback alone never is.
    pub local_net: Option<&'static str>,
    /// Whether connections stay although nothing uses them: where everybody that can connect is a member.
    pub keep_all: bool,
    /// After so long an unused and unwanted connection ends.
    pub idle: Duration,
    /// How often connections are probed.
    pub ping: Duration,
    /// A connection on which no probe was answered for so long is closed.
    pub silence: Duration,
    /// Connections in all; those to peers given to `keep_connected` come on top.
    pub connections: u32,
    /// Limits on streams.
    pub streams: StreamLimits,
    /// Limits of bandwidth, shared with whoever else has them.
    pub throttle: Throttle,
    /// How it is reached from outside.
    pub reach: ReachOptions,
}

impl HostOptions {
    /// A cluster's host: private network (when there is a secret), discovery, everybody stays connected.
    pub fn cluster(key: [u8; 32], psk: Option<[u8; 32]>) -> HostOptions {
        // Whoever has the secret is a member; without one anybody may come.
        let is_private = psk.is_some();
        let reach = ReachOptions { is_member: Arc::new(move |_| is_private), ..ReachOptions::default() };
        HostOptions { psk, discovery: true, keep_all: true, reach, ..HostOptions::node(key) }
    }

    /// A node's host: open to everybody, idle connections end.
    pub fn node(key: [u8; 32]) -> HostOptions {
        HostOptions {
            key,
            listen: Vec::new(),
            announce: Vec::new(),
            tells_listened: true,
            psk: None,
            gossip: None,
            agent: "pinfold".to_owned(),
            discovery: false,
            local_net: None,
            keep_all: false,
            idle: Duration::from_secs(60),
            ping: Duration::from_secs(2),
            silence: Duration::from_secs(10),
            connections: 1024,
            streams: StreamLimits::default(),
            throttle: Throttle::default(),
            reach: ReachOptions::default(),
        }
    }
}

impl fmt::Debug for HostOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostOptions")
            .field("key", &"***")
            .field("listen", &self.listen)
            .field("psk", &self.psk.map(|_| "***"))
            .field("gossip", &self.gossip)
            .field("agent", &self.agent)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_not_printed() {
        let text = format!("{:?}", HostOptions::cluster([0xab; 32], Some([0xcd; 32])));
        assert!(!text.contains("171") && !text.contains("205") && text.contains("***"), "{text}");
    }
}
