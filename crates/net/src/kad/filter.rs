//! Which addresses belong to which of the two DHTs: the one of the local net, and the one of the world.

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use std::net::{IpAddr, Ipv6Addr};

/// One of the two DHTs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// `/ipfs/lan/kad/1.0.0`: peers at private addresses. Nobody outside is ever talked to.
    Lan,
    /// `/ipfs/kad/1.0.0`: peers at public addresses.
    Wan,
}

impl Scope {
    /// The name of its protocol.
    pub fn protocol(self) -> &'static str {
        match self {
            Scope::Lan => "/ipfs/lan/kad/1.0.0",
            Scope::Wan => "/ipfs/kad/1.0.0",
        }
    }

    /// For people.
    pub fn label(self) -> &'static str {
        match self {
            Scope::Lan => "lan",
            Scope::Wan => "wan",
        }
    }

    /// Whether an address belongs here. `loopback`: whether this host is reached there and nowhere else.
    pub(crate) fn takes(self, address: &Multiaddr, loopback: bool) -> bool {
        let class = class(address);
        match self {
            Scope::Lan => class == Class::Private || (loopback && class == Class::Loopback),
            Scope::Wan => class == Class::Public,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Loopback,
    Private,
    Public,
    /// Not an address of a kind that can be told.
    Unknown,
}

pub(crate) fn is_loopback(address: &Multiaddr) -> bool {
    class(address) == Class::Loopback
}

pub(crate) fn is_public(address: &Multiaddr) -> bool {
    class(address) == Class::Public
}

fn class(address: &Multiaddr) -> Class {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => class_of_ip(ip.into()),
        Some(Protocol::Ip6(ip)) => class_of_ip(ip.into()),
        Some(Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) | Protocol::Dnsaddr(name)) => {
            if name == "localhost" || name.ends_with(".localhost") || name.ends_with(".local") { Class::Unknown } else { Class::Public }
        }
        _ => Class::Unknown,
    }
}

fn class_of_ip(ip: IpAddr) -> Class {
    match ip {
        IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => ip.to_ipv4_mapped().map_or(Class::Unknown, |ip| class_of_ip(ip.into())),
        ip if ip.is_loopback() => Class::Loopback,
        ip if ip.is_unspecified() || ip.is_multicast() => Class::Unknown,
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let is_shared = a == 100 && (64..128).contains(&b);
            let is_reserved = a == 0 || a >= 240 || ip.is_documentation() || (a == 198 && (18..20).contains(&b));
            match (ip.is_private() || ip.is_link_local() || is_shared, is_reserved) {
                (true, _) => Class::Private,
                (_, true) => Class::Unknown,
                _ => Class::Public,
            }
        }
        IpAddr::V6(ip) => class_of_ip6(ip),
    }
}

fn class_of_ip6(ip: Ipv6Addr) -> Class {
    let first = ip.segments()[0];
    match () {
        () if ip.is_unique_local() || ip.is_unicast_link_local() => Class::Private,
        () if first == 0x2001 && ip.segments()[1] == 0xdb8 => Class::Unknown,
        () if first & 0xe000 == 0x2000 => Class::Public,
        () => Class::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(address: &str, expected: Class) {
        assert_eq!(class(&address.parse().unwrap()), expected, "{address}");
    }

    #[test]
    fn addresses_are_told_apart() {
        check("/ip4/127.0.0.1/tcp/4001", Class::Loopback);
        check("/ip6/::1/tcp/4001", Class::Loopback);
        check("/ip4/10.1.2.3/udp/4001/quic-v1", Class::Private);
        check("/ip4/172.16.0.1/tcp/1", Class::Private);
        check("/ip4/192.168.1.7/tcp/1", Class::Private);
        check("/ip4/169.254.0.9/tcp/1", Class::Private);
        check("/ip4/100.64.0.1/tcp/1", Class::Private);
        check("/ip6/fd00::1/tcp/1", Class::Private);
        check("/ip6/fe80::1/tcp/1", Class::Private);
        check("/ip6/::ffff:192.168.1.7/tcp/1", Class::Private);
        check("/ip4/8.8.8.8/tcp/1", Class::Public);
        check("/ip6/2606:4700::1111/tcp/1", Class::Public);
        check("/dns4/example.org/tcp/4001", Class::Public);
        check("/dnsaddr/bootstrap.libp2p.io", Class::Public);
        for address in [
            "/ip4/0.0.0.0/tcp/1",
            "/ip4/255.255.255.255/tcp/1",
            "/ip4/192.0.2.1/tcp/1",
            "/ip6/2001:db8::1/tcp/1",
            "/ip6/::/tcp/1",
            "/dns/nas.local/tcp/1",
            "/memory/1",
        ] {
            check(address, Class::Unknown);
        }
    }

    #[test]
    fn each_dht_has_its_own() {
        let taken = |scope: Scope, address: &str, loopback| scope.takes(&address.parse().unwrap(), loopback);
        assert!(taken(Scope::Lan, "/ip4/10.0.0.1/tcp/1", false) && !taken(Scope::Wan, "/ip4/10.0.0.1/tcp/1", false));
        assert!(!taken(Scope::Lan, "/ip4/8.8.8.8/tcp/1", true) && taken(Scope::Wan, "/ip4/8.8.8.8/tcp/1", false));
        assert!(taken(Scope::Lan, "/ip4/127.0.0.1/tcp/1", true) && !taken(Scope::Lan, "/ip4/127.0.0.1/tcp/1", false));
        assert!(!taken(Scope::Wan, "/ip4/127.0.0.1/tcp/1", true));
    }
}
