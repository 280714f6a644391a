//! Which addresses are in the world, where anybody may send us, and which are this machine's and its neighbours'.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether an address belongs to the whole world: not this machine's, not a private net's, not one that means something else.
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [one, two, three, _] = address.octets();
    let is_special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
        || address.is_documentation()
        // "This net".
        || one == 0
        // Shared by customers of a carrier (RFC 6598).
        || (one == 100 && (64..128).contains(&two))
        // Assignments of the IETF, and the old relays from 6 to 4.
        || (one == 192 && two == 0 && three == 0)
        || (one == 192 && two == 88 && three == 99)
        // Benchmarks.
        || (one == 198 && (18..20).contains(&two))
        // Reserved.
        || one >= 240;
    !is_special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let parts = address.segments();
    // What carries an address of IPv4 inside leads where that one leads (NAT64, 6to4).
    let inner = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match parts {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => return is_public_v4(inner(high, low)),
        [0x2002, high, low, ..] => return is_public_v4(inner(high, low)),
        _ => {}
    }
    // The world's addresses begin with 001; within, documentation and what the IETF assigns (with Teredo) are not.
    parts[0] & 0xe000 == 0x2000 && !(parts[0] == 0x2001 && (parts[1] == 0x0db8 || parts[1] < 0x0200)) && parts[0] != 0x3fff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_world_is_told_from_neighbours() {
        for (address, public) in [
            ("8.8.8.8", true),
            ("172.32.0.1", true),
            ("100.63.255.255", true),
            ("127.0.0.1", false),
            ("0.0.0.0", false),
            ("0.1.2.3", false),
            ("10.1.2.3", false),
            ("172.16.0.1", false),
            ("192.168.1.1", false),
            ("169.254.169.254", false),
            ("100.64.0.1", false),
            ("192.0.0.8", false),
            ("198.18.0.1", false),
            ("224.0.0.1", false),
            ("240.0.0.1", false),
            ("255.255.255.255", false),
            ("2606:4700::1111", true),
            ("::1", false),
            ("::", false),
            ("fe80::1", false),
            ("fc00::1", false),
            ("ff02::1", false),
            ("2001:db8::1", false),
            ("2001:0:53aa::1", false),
            ("::ffff:127.0.0.1", false),
            ("::ffff:8.8.8.8", true),
            ("64:ff9b::7f00:1", false),
            ("64:ff9b::808:808", true),
            ("2002:a00:1::", false),
        ] {
            assert_eq!(is_public(address.parse().unwrap()), public, "{address}");
        }
    }
}
