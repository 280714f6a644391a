//! Which addresses to listen on, and whether they are free, before work starts.

use super::{HostError, HostOptions};
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

/// The addresses to listen on. In a private network only TCP ones can be used: a configuration made for Go names QUIC ones too,
/// which have no effect there either.
pub(super) fn usable(options: &HostOptions) -> Result<Vec<Multiaddr>, HostError> {
    let mut addresses = Vec::new();
    for text in &options.listen {
        let address: Multiaddr = text.parse().map_err(|_| HostError::BadAddress { address: text.clone() })?;
        match kind(&address) {
            Kind::Tcp => addresses.push(address),
            Kind::Quic | Kind::Web if options.psk.is_none() => addresses.push(address),
            _ => tracing::info!(address = text, "not listened on: this host has no such transport"),
        }
    }
    if addresses.is_empty() && !options.listen.is_empty() {
        return Err(HostError::NothingToListenOn { addresses: options.listen.clone(), private: options.psk.is_some() });
    }
    for address in &addresses {
        check_free(address).map_err(|source| HostError::Listen { address: address.to_string(), source })?;
    }
    Ok(addresses)
}

enum Kind {
    Tcp,
    Quic,
    /// A WebSocket without TLS of its own: libp2p's handshake protects it, and who wants TLS puts it before.
    Web,
    Other,
}

fn kind(address: &Multiaddr) -> Kind {
    let parts: Vec<Protocol<'_>> = address.iter().collect();
    match parts.as_slice() {
        [_, Protocol::Tcp(_)] | [_, Protocol::Tcp(_), Protocol::P2p(_)] => Kind::Tcp,
        [_, Protocol::Udp(_), Protocol::QuicV1] | [_, Protocol::Udp(_), Protocol::QuicV1, Protocol::P2p(_)] => Kind::Quic,
        [_, Protocol::Tcp(_), Protocol::Ws(path)] | [_, Protocol::Tcp(_), Protocol::Ws(path), Protocol::P2p(_)] if path == "/" => Kind::Web,
        _ => Kind::Other,
    }
}

/// libp2p binds with SO_REUSEPORT, so a second process of the same user would share a port and take half of the connections. A plain
/// bind finds that out.
fn check_free(address: &Multiaddr) -> io::Result<()> {
    let Some((socket, is_udp)) = socket_address(address) else { return Ok(()) };
    if socket.port() == 0 {
        return Ok(());
    }
    if is_udp { UdpSocket::bind(socket).map(drop) } else { TcpListener::bind(socket).map(drop) }
}

fn socket_address(address: &Multiaddr) -> Option<(SocketAddr, bool)> {
    let mut parts = address.iter();
    let ip: IpAddr = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) => Some((SocketAddr::new(ip, port), false)),
        Protocol::Udp(port) => Some((SocketAddr::new(ip, port), true)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(listen: &[&str], private: bool, expected: Result<usize, &str>) {
        let mut options = HostOptions::cluster([1; 32], private.then_some([2; 32]));
        options.listen = listen.iter().map(|address| (*address).to_owned()).collect();
        match (usable(&options), expected) {
            (Ok(addresses), Ok(count)) => assert_eq!(addresses.len(), count, "{listen:?}"),
            (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{error}"),
            (result, _) => panic!("{listen:?}: {result:?}"),
        }
    }

    #[test]
    fn addresses_that_a_host_can_use() {
        check(&[], true, Ok(0));
        check(&["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic"], true, Ok(1));
        check(&["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"], false, Ok(2));
        check(&["/ip4/127.0.0.1/tcp/0/ws"], false, Ok(1));
        check(&["/ip4/127.0.0.1/tcp/0/ws", "/ip4/127.0.0.1/tcp/0"], true, Ok(1));
        check(&["/ip4/127.0.0.1/udp/0/quic-v1"], true, Err("private network"));
        check(&["127.0.0.1:4001"], false, Err("no multiaddr"));
    }

    #[test]
    fn a_taken_port_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("/ip4/127.0.0.1/tcp/{}", taken.local_addr().unwrap().port());
        check(&[&address], false, Err(&address));
    }
}
