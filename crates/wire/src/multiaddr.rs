//! Multiaddrs: text to binary and back, for the protocols that peers and nodes use.

use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};
use std::net::{Ipv4Addr, Ipv6Addr};
use types::PeerId;

/// The longest multiaddr, in either form.
pub const MULTIADDR_BYTES_MAX: usize = 4096;

/// Why something is no multiaddr.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadMultiaddr {
    /// Longer than [`MULTIADDR_BYTES_MAX`].
    #[error("multiaddr is too long")]
    TooLong,
    /// Nothing there.
    #[error("empty multiaddr")]
    Empty,
    /// The text does not begin with `/`.
    #[error("failed to parse multiaddr {0:?}: must begin with /")]
    NoSlash(String),
    /// A protocol name that is not known.
    #[error("failed to parse multiaddr {text:?}: unknown protocol {name}")]
    Name {
        /// The whole text.
        text: String,
        /// The name.
        name: String,
    },
    /// A protocol without its value, or with one that it cannot have.
    #[error("failed to parse multiaddr {text:?}: invalid value {value:?} for protocol {name}")]
    Value {
        /// The whole text.
        text: String,
        /// The protocol.
        name: &'static str,
        /// The value.
        value: String,
    },
    /// The bytes are no multiaddr of known protocols.
    #[error("invalid multiaddr bytes at {0}")]
    Bytes(usize),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Nothing,
    Ip4,
    Ip6,
    Port,
    Number64,
    Text,
    /// Text that runs to the end of the address and begins with a slash.
    Path,
    Peer,
    Onion3,
    /// Bytes in multibase base64url.
    Multibase,
}

/// Code, name and value of each protocol known (multiformats/multiaddr, protocols.csv).
const PROTOCOLS: &[(u64, &str, Kind)] = &[
    (4, "ip4", Kind::Ip4),
    (6, "tcp", Kind::Port),
    (33, "dccp", Kind::Port),
    (41, "ip6", Kind::Ip6),
    (42, "ip6zone", Kind::Text),
    (53, "dns", Kind::Text),
    (54, "dns4", Kind::Text),
    (55, "dns6", Kind::Text),
    (56, "dnsaddr", Kind::Text),
    (132, "sctp", Kind::Port),
    (273, "udp", Kind::Port),
    (276, "p2p-webrtc-direct", Kind::Nothing),
    (280, "webrtc-direct", Kind::Nothing),
    (281, "webrtc", Kind::Nothing),
    (290, "p2p-circuit", Kind::Nothing),
    (301, "udt", Kind::Nothing),
    (302, "utp", Kind::Nothing),
    (400, "unix", Kind::Path),
    (421, "p2p", Kind::Peer),
    (443, "https", Kind::Nothing),
    (445, "onion3", Kind::Onion3),
    (448, "tls", Kind::Nothing),
    (449, "sni", Kind::Text),
    (454, "noise", Kind::Nothing),
    (460, "quic", Kind::Nothing),
    (461, "quic-v1", Kind::Nothing),
    (465, "webtransport", Kind::Nothing),
    (466, "certhash", Kind::Multibase),
    (477, "ws", Kind::Nothing),
    (478, "wss", Kind::Nothing),
    (480, "http", Kind::Nothing),
    (777, "memory", Kind::Number64),
];

/// Reads the text form.
pub fn from_text(text: &str) -> Result<Vec<u8>, BadMultiaddr> {
    if text.len() > MULTIADDR_BYTES_MAX {
        return Err(BadMultiaddr::TooLong);
    }
    if text.is_empty() {
        return Err(BadMultiaddr::Empty);
    }
    let mut rest = text.strip_prefix('/').ok_or_else(|| BadMultiaddr::NoSlash(text.to_owned()))?.trim_end_matches('/');
    if rest.is_empty() {
        return Err(BadMultiaddr::Empty);
    }
    let mut out = Vec::with_capacity(text.len());
    while !rest.is_empty() {
        let (name, after) = rest.split_once('/').unwrap_or((rest, ""));
        let canonical = if name == "ipfs" { "p2p" } else { name };
        let Some(&(code, name, kind)) = PROTOCOLS.iter().find(|protocol| protocol.1 == canonical) else {
            return Err(BadMultiaddr::Name { text: text.to_owned(), name: name.to_owned() });
        };
        crate::protobuf::put_varint(&mut out, code);
        let (value, after) = match kind {
            Kind::Nothing => ("", after),
            Kind::Path => (after, ""),
            _ => after.split_once('/').unwrap_or((after, "")),
        };
        put_value(&mut out, kind, value).ok_or_else(|| BadMultiaddr::Value { text: text.to_owned(), name, value: value.to_owned() })?;
        rest = after;
    }
    Ok(out)
}

fn put_value(out: &mut Vec<u8>, kind: Kind, value: &str) -> Option<()> {
    let mut counted = |bytes: &[u8]| {
        crate::protobuf::put_varint(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    };
    match kind {
        Kind::Nothing => {}
        Kind::Ip4 => out.extend(value.parse::<Ipv4Addr>().ok()?.octets()),
        Kind::Ip6 => out.extend(value.parse::<Ipv6Addr>().ok()?.octets()),
        Kind::Port => out.extend(value.parse::<u16>().ok()?.to_be_bytes()),
        Kind::Number64 => out.extend(value.parse::<u64>().ok()?.to_be_bytes()),
        Kind::Text => counted(Some(value).filter(|value| !value.is_empty())?.as_bytes()),
        Kind::Path => counted(format!("/{value}").as_bytes()),
        Kind::Peer => counted(value.parse::<PeerId>().ok()?.as_bytes()),
        Kind::Onion3 => {
            let (host, port) = value.split_once(':')?;
            let host = BASE32_NOPAD.decode(host.to_ascii_uppercase().as_bytes()).ok().filter(|host| host.len() == 35)?;
            let port = port.parse::<u16>().ok().filter(|port| *port != 0)?;
            out.extend(host);
            out.extend(port.to_be_bytes());
        }
        Kind::Multibase => counted(&BASE64URL_NOPAD.decode(value.strip_prefix('u')?.as_bytes()).ok()?),
    }
    Some(())
}

/// Writes the text form of a binary multiaddr.
pub fn to_text(bytes: &[u8]) -> Result<String, BadMultiaddr> {
    if bytes.len() > MULTIADDR_BYTES_MAX {
        return Err(BadMultiaddr::TooLong);
    }
    if bytes.is_empty() {
        return Err(BadMultiaddr::Empty);
    }
    let mut text = String::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let at = bytes.len() - rest.len();
        let (name, value, after) = read_part(rest).ok_or(BadMultiaddr::Bytes(at))?;
        text.push('/');
        text.push_str(name);
        if !value.is_empty() && !value.starts_with('/') {
            text.push('/');
        }
        text.push_str(&value);
        rest = after;
    }
    Ok(text)
}

fn read_part(bytes: &[u8]) -> Option<(&'static str, String, &[u8])> {
    let (code, rest) = unsigned_varint::decode::u64(bytes).ok()?;
    let &(_, name, kind) = PROTOCOLS.iter().find(|protocol| protocol.0 == code)?;
    let counted = |rest| {
        let (length, rest) = unsigned_varint::decode::usize(rest).ok()?;
        <[u8]>::split_at_checked(rest, length)
    };
    let (value, rest) = match kind {
        Kind::Nothing => (String::new(), rest),
        Kind::Ip4 => rest.split_first_chunk::<4>().map(|(octets, rest)| (Ipv4Addr::from(*octets).to_string(), rest))?,
        Kind::Ip6 => rest.split_first_chunk::<16>().map(|(octets, rest)| (Ipv6Addr::from(*octets).to_string(), rest))?,
        Kind::Port => rest.split_first_chunk::<2>().map(|(port, rest)| (u16::from_be_bytes(*port).to_string(), rest))?,
        Kind::Number64 => rest.split_first_chunk::<8>().map(|(number, rest)| (u64::from_be_bytes(*number).to_string(), rest))?,
        Kind::Text => {
            let (value, rest) = counted(rest)?;
            let value = std::str::from_utf8(value).ok().filter(|value| !value.is_empty() && !value.contains('/'))?;
            (value.to_owned(), rest)
        }
        Kind::Path => {
            let (value, rest) = counted(rest)?;
            (std::str::from_utf8(value).ok().filter(|value| value.starts_with('/'))?.to_owned(), rest)
        }
        Kind::Peer => {
            let (value, rest) = counted(rest)?;
            (PeerId::from_bytes(value).ok()?.to_string(), rest)
        }
        Kind::Onion3 => {
            let (value, rest) = rest.split_first_chunk::<37>()?;
            let (host, port) = value.split_at(35);
            let port = Some(u16::from_be_bytes(port.try_into().ok()?)).filter(|port| *port != 0)?;
            (format!("{}:{port}", BASE32_NOPAD.encode(host).to_ascii_lowercase()), rest)
        }
        Kind::Multibase => {
            let (value, rest) = counted(rest)?;
            (format!("u{}", BASE64URL_NOPAD.encode(value)), rest)
        }
    };
    Some((name, value, rest))
}

/// The peer that the last `/p2p/` of a binary multiaddr names.
pub fn peer_of(bytes: &[u8]) -> Option<PeerId> {
    let mut peer = None;
    let mut rest = bytes;
    while !rest.is_empty() {
        let (name, value, after) = read_part(rest)?;
        if name == "p2p" {
            peer = value.parse().ok();
        }
        rest = after;
    }
    peer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_back() {
        for text in [
            "/ip4/127.0.0.1/tcp/9096",
            "/ip4/127.0.0.1/tcp/21001/p2p/12D3KooWLexZxErBeBfq8UYTECWJnUK8i1FQB8mxGGjQ8qzU1YbG",
            "/dns4/example.org/tcp/4001/p2p/QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSupNKC",
            "/ip6/2001:db8::1/udp/4001/quic-v1",
            "/ip6/::1/udp/4001/quic-v1/webtransport/certhash/uEiAkH5a4DPGKUuOBjYw0CgwjvcJCJMD2K_1aluKR_tpevQ",
            "/ip4/1.2.3.4/tcp/1/p2p/QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSupNKC/p2p-circuit",
            "/unix/tmp/a/socket",
            "/dns/example.org/tcp/443/tls/sni/example.org/ws",
            "/memory/7",
        ] {
            let bytes = from_text(text).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(to_text(&bytes).as_deref(), Ok(text));
        }
    }

    #[test]
    fn the_last_peer_is_the_one_meant() {
        let relay = "QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSupNKC";
        let target = "12D3KooWLexZxErBeBfq8UYTECWJnUK8i1FQB8mxGGjQ8qzU1YbG";
        let bytes = from_text(&format!("/ip4/1.2.3.4/tcp/1/p2p/{relay}/p2p-circuit/p2p/{target}")).expect("an address");
        assert_eq!(peer_of(&bytes).map(|peer| peer.to_string()).as_deref(), Some(target));
        assert_eq!(peer_of(&from_text("/ip4/1.2.3.4").expect("an address")), None);
    }

    #[test]
    fn the_old_name_of_p2p_is_taken() {
        let id = "QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSupNKC";
        assert_eq!(from_text(&format!("/ipfs/{id}")), from_text(&format!("/p2p/{id}")));
    }

    #[test]
    fn texts_and_bytes_that_are_no_address_are_refused() {
        for text in ["", "/", "ip4/1.2.3.4", "/ip4", "/ip4/1.2.3", "/tcp/70000", "/nothing/1", "/p2p/x", "/dns4//tcp/1", "/onion3/abc:1"] {
            assert!(from_text(text).is_err(), "{text}");
        }
        for bytes in [
            &[][..],
            &[4, 1, 2, 3],
            &[0x99, 0x99, 0x99],
            &[53, 9, b'a'],
            &[53, 0],
            &[0xa5, 3, 2, 1, 1],
            &[&[0xbd, 3][..], &[0; 37]].concat(),
        ] {
            assert!(to_text(bytes).is_err(), "{bytes:?}");
        }
    }
}
