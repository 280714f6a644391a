//! What Go peers are told: ids of peers, states of copies.

use super::{GoPeer, Side};
use crate::handle::Identity;
use cluster::{CopyRow, PeerHealth, PeerRow};
use std::net::{Ipv4Addr, Ipv6Addr};
use types::{Cid, PeerId, Pin, PinKind, PinState};
use wire::rpc::{Id, IpfsId, PinInfo, PinInfoShort, RPC_PROTOCOL};

/// The own peer in every answer of one call.
pub(super) struct Own {
    pub(super) identity: Identity,
    version: String,
    members: Vec<PeerId>,
}

impl Own {
    /// Asks once.
    pub(super) async fn of(side: &Side) -> Own {
        let identity = side.cluster.identity().await;
        let rows = side.cluster.peers();
        let members = members(identity.peer, &rows, &side.go_peers());
        Own { identity, version: side.options.version.clone(), members }
    }

    /// The own id.
    pub(super) fn id(&self) -> Id {
        let identity = &self.identity;
        let ipfs = IpfsId {
            id: identity.node,
            addresses: Some(binary(&identity.node_addresses)),
            error: if identity.node.is_some() { String::new() } else { "the node has no network".to_owned() },
        };
        Id { ipfs: Some(ipfs), ..self.id_of(identity.peer, &identity.name, &identity.addresses) }
    }

    /// The id of another Pinfold peer, as far as it is known here.
    pub(super) fn other_id(&self, row: &PeerRow, addresses: &[String]) -> Id {
        let error = match row.health {
            PeerHealth::Up | PeerHealth::Cordoned | PeerHealth::Draining => String::new(),
            health => format!("the peer is {}", health.as_str()),
        };
        let node = row.node_addresses.iter().find_map(|address| crate::links::peer_of(address));
        let ipfs = IpfsId { id: node, addresses: Some(binary(&row.node_addresses)), error: String::new() };
        Id { ipfs: Some(ipfs), error, ..self.id_of(row.peer, &row.name, addresses) }
    }

    /// A Go peer that did not answer.
    pub(super) fn silent_id(&self, go: &GoPeer, error: String) -> Id {
        Id { error, ..self.id_of(go.peer, &go.name, &[]) }
    }

    fn id_of(&self, peer: PeerId, name: &str, addresses: &[String]) -> Id {
        Id {
            id: Some(peer),
            addresses: Some(binary(addresses)),
            // Never empty, the asked peer is among them: Go shows one fewer.
            cluster_peers: Some(self.members.clone()),
            cluster_peers_addresses: Some(Vec::new()),
            version: self.version.clone(),
            rpc_protocol_version: RPC_PROTOCOL.to_owned(),
            peer_name: name.to_owned(),
            ..Id::default()
        }
    }

    /// How a pin stands here. Everything known of the pin is filled in: Go shows what the last answer said.
    pub(super) fn pin_info(&self, cid: &Cid, pin: Option<&Pin>, rows: &[CopyRow]) -> PinInfo {
        let row = rows.iter().find(|row| row.peer == self.identity.peer);
        let state = state(pin, row, &self.identity.peer);
        let is_bad = matches!(state, PinState::PinError | PinState::UnpinError | PinState::ClusterError);
        let node_addresses = binary(&public(&self.identity.node_addresses));
        let short = PinInfoShort {
            peer_name: self.identity.name.clone(),
            ipfs_id: self.identity.node,
            ipfs_addresses: (!node_addresses.is_empty()).then_some(node_addresses),
            status: wire::status::bit(state),
            timestamp: row.map(|row| row.since.into()).unwrap_or_default(),
            error: row.and_then(|row| row.because.as_ref()).filter(|_| is_bad).map(ToString::to_string).unwrap_or_default(),
            attempt_count: row.map_or(0, |row| row.tries.into()),
            is_priority: false,
        };
        let info = PinInfo { cid: Some(*cid), peer: Some(self.identity.peer), short, ..PinInfo::default() };
        let Some(pin) = pin else { return info };
        PinInfo {
            name: pin.options.name.clone(),
            allocations: Some(pin.placement.clone()),
            origins: (!pin.options.origins.is_empty()).then(|| pin.options.origins.clone()),
            created: pin.created.into(),
            metadata: pin.options.metadata.clone(),
            ..info
        }
    }
}

/// How a pin stands here in Go's terms: what this peer still holds of a pin that is placed elsewhere is `remote` to them.
pub(super) fn state(pin: Option<&Pin>, row: Option<&CopyRow>, me: &PeerId) -> PinState {
    match pin {
        None => PinState::Unpinned,
        Some(pin) if pin.kind == PinKind::Meta => PinState::Sharded,
        Some(pin) if !pin.is_for(me) => PinState::Remote,
        // Without a word of the machine it has not looked at it yet.
        Some(_) => row.map_or(PinState::PinQueued, |row| row.state),
    }
}

/// Everybody, the own peer first.
fn members(me: PeerId, rows: &[PeerRow], go: &[GoPeer]) -> Vec<PeerId> {
    let ours = rows.iter().filter(|row| !row.is_self && row.health != PeerHealth::Gone).map(|row| row.peer);
    std::iter::once(me).chain(ours).chain(go.iter().map(|go| go.peer)).collect()
}

/// Multiaddrs in their binary form; what does not read is left out.
pub(super) fn binary(addresses: &[String]) -> Vec<Vec<u8>> {
    addresses.iter().filter_map(|address| wire::multiaddr::from_text(address).ok()).collect()
}

/// Addresses that mean the same to every peer: Go publishes no others.
pub(super) fn public(addresses: &[String]) -> Vec<String> {
    addresses.iter().filter(|address| is_public(address)).cloned().collect()
}

fn is_public(address: &str) -> bool {
    let mut parts = address.split('/').skip(1);
    match (parts.next(), parts.next()) {
        (Some("ip4"), Some(ip)) => ip.parse().is_ok_and(|ip: Ipv4Addr| {
            !(ip.is_loopback() || ip.is_unspecified() || ip.is_link_local() || ip.is_multicast() || ip.is_broadcast())
        }),
        (Some("ip6"), Some(ip)) => ip
            .parse()
            .is_ok_and(|ip: Ipv6Addr| !(ip.is_loopback() || ip.is_unspecified() || ip.is_unicast_link_local() || ip.is_multicast())),
        (Some("dns" | "dns4" | "dns6" | "dnsaddr"), Some(_)) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_mean_the_same_everywhere_are_published() {
        for (address, expected) in [
            ("/ip4/10.1.2.3/tcp/4001", true),
            ("/ip4/8.8.8.8/udp/4001/quic-v1", true),
            ("/ip4/127.0.0.1/tcp/4001", false),
            ("/ip4/0.0.0.0/tcp/4001", false),
            ("/ip4/169.254.1.1/tcp/4001", false),
            ("/ip6/2001:db8::1/tcp/4001", true),
            ("/ip6/::1/tcp/4001", false),
            ("/ip6/fe80::1/tcp/4001", false),
            ("/dns4/node.example/tcp/4001", true),
            ("/unix/socket", false),
            ("nonsense", false),
        ] {
            assert_eq!(is_public(address), expected, "{address}");
        }
    }
}
