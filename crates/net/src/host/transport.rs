//! From a socket to an encrypted connection with many streams.
//!
//! TCP: limits of bandwidth ([`crate::throttle`]), private network (when there is a key), then a look at the first bytes, then TLS or Noise, then yamux.
//! Without a key also QUIC, and
//! connections that come in with a ticket are handed over (`side`).
//! Through a relay: private network (its key protects the inner connection too, as in Go), then the same look, Noise or TLS, and yamux. Its
//! bytes were counted when they left on the connection to the relay.
//!
//! The look at the first bytes: everybody's first message is multistream's own name. Where it is not, the sides have different
//! private network keys (or one has none); without this check such a connection mostly hangs until a time-out, since the first
//! decrypted byte is taken for a length.

use super::SideDoor;
use super::muxer::Muxer;
use crate::throttle::{Reach, Throttle, Throttled, ThrottledMuxer};
use futures::future::{BoxFuture, Either};
use futures::{AsyncRead, AsyncWrite, FutureExt};
use libp2p::core::ConnectedPoint;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, DialOpts, ListenerId, OrTransport, PortUse, TransportError, TransportEvent};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo, Version};
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::pnet::{PnetConfig, PnetError, PreSharedKey};
use libp2p::{Multiaddr, PeerId, Transport, dns, noise, quic, relay, tcp, tls, websocket};
use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// Handshakes that take longer are given up.
const HANDSHAKE: Duration = Duration::from_secs(9);

/// Streams that a peer may have open on a QUIC connection; it waits above that.
const QUIC_STREAMS_MAX: u32 = 1024;

/// So much earlier TCP is dialled than QUIC, which needs fewer round trips and would win: TCP has the congestion control that the system's owner
/// chose (where that is BBR a lossy line carries thirty times as much) and costs two thirds of the CPU.
const TCP_FIRST: Duration = Duration::from_millis(400);

/// What everybody says first on a connection.
const FIRST_BYTES: &[u8] = b"\x13/multistream/1.0.0\n";

/// So much earlier direct addresses are dialled than those through relays.
const DIRECT_FIRST: Duration = Duration::from_millis(300);

/// The whole transport; names in addresses are resolved where the system says how.
pub(super) fn build(
    keypair: &Keypair,
    psk: Option<[u8; 32]>,
    side: Option<&Arc<SideDoor>>,
    throttle: &Throttle,
    circuits: relay::client::Transport,
) -> io::Result<Boxed<(PeerId, StreamMuxerBox)>> {
    let direct = match dns::tokio::Transport::system(without_names(keypair, psk, side, throttle)?) {
        Ok(transport) => transport.boxed(),
        Err(error) => {
            tracing::warn!(%error, "no name resolution: only numeric addresses can be dialled");
            without_names(keypair, psk, side, throttle)?
        }
    };
    // A relay's name is resolved when the relay itself is dialled.
    let circuits = through_relays(keypair, psk, circuits)?;
    Ok(OrTransport::new(circuits, direct).map(|either, _| either.into_inner()).boxed())
}

fn through_relays(
    keypair: &Keypair,
    psk: Option<[u8; 32]>,
    circuits: relay::client::Transport,
) -> io::Result<Boxed<(PeerId, StreamMuxerBox)>> {
    let (security, muxer, key) = (Security::new(keypair, psk.is_none())?, Muxer::new(), psk.map(PreSharedKey::new));
    let transport = Later(circuits, DIRECT_FIRST)
        .and_then(move |circuit, _| private_network(circuit, key))
        .upgrade(Version::V1Lazy)
        .authenticate(security)
        .multiplex(muxer)
        .timeout(HANDSHAKE);
    Ok(transport.map(|(id, muxer), _| (id, StreamMuxerBox::new(muxer))).boxed())
}

/// Dials later than asked, so that another kind of address of the same peer wins where there is one. A dial from a listening port is one side
/// of a hole being punched: the other side goes by its moment.
struct Later<T>(T, Duration);

impl<T> Transport for Later<T>
where
    T: Transport + Unpin,
    T::Dial: Send + 'static,
    T::Output: Send + 'static,
    T::Error: Send + 'static,
{
    type Output = T::Output;
    type Error = T::Error;
    type ListenerUpgrade = T::ListenerUpgrade;
    type Dial = BoxFuture<'static, Result<T::Output, T::Error>>;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<Self::Error>> {
        self.0.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.0.remove_listener(id)
    }

    fn dial(&mut self, address: Multiaddr, options: DialOpts) -> Result<Self::Dial, TransportError<Self::Error>> {
        let is_through_relay = address.iter().any(|part| part == Protocol::P2pCircuit);
        let is_at_once = options.port_use == PortUse::Reuse && !is_through_relay;
        let (dial, wait) = (self.0.dial(address, options)?, if is_at_once { Duration::ZERO } else { self.1 });
        Ok(async move {
            tokio::time::sleep(wait).await;
            dial.await
        }
        .boxed())
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        Pin::new(&mut self.0).poll(cx)
    }
}

fn without_names(
    keypair: &Keypair,
    psk: Option<[u8; 32]>,
    side: Option<&Arc<SideDoor>>,
    throttle: &Throttle,
) -> io::Result<Boxed<(PeerId, StreamMuxerBox)>> {
    let (security, muxer, key) = (Security::new(keypair, psk.is_none())?, Muxer::new(), psk.map(PreSharedKey::new));
    let side = side.cloned();
    let limits = throttle.clone();
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .and_then(move |socket, point| {
            let side = side.clone().filter(|_| point.is_listener());
            let limits = limits.clone();
            let reach = reach(&limits, &point);
            async move {
                let socket = match side {
                    Some(side) => side.pass(socket).await?,
                    None => socket,
                };
                private_network(Throttled::new(socket, limits, reach), key).await
            }
        })
        .upgrade(Version::V1Lazy)
        .authenticate(security)
        .multiplex(muxer)
        .timeout(HANDSHAKE)
        .map(|(id, muxer), _| (id, StreamMuxerBox::new(muxer)));
    if psk.is_some() {
        return Ok(tcp.boxed());
    }
    let mut config = quic::Config::new(keypair);
    config.handshake_timeout = HANDSHAKE;
    config.max_concurrent_stream_limit = QUIC_STREAMS_MAX;
    let limits = throttle.clone();
    let quic = Later(quic::tokio::Transport::new(config), TCP_FIRST).map(move |(id, muxer), point| {
        let reach = reach(&limits, &point);
        (id, StreamMuxerBox::new(ThrottledMuxer::new(StreamMuxerBox::new(muxer), limits.clone(), reach)))
    });
    let limits = throttle.clone();
    let web = websocket::Config::new(tcp::tokio::Transport::new(tcp::Config::default().nodelay(true)))
        .and_then(move |socket, point| {
            let reach = reach(&limits, &point);
            futures::future::ready(Ok::<_, io::Error>(Throttled::new(socket, limits.clone(), reach)))
        })
        .upgrade(Version::V1Lazy)
        .authenticate(Security::new(keypair, true)?)
        .multiplex(Muxer::new())
        .timeout(HANDSHAKE)
        .map(|(id, muxer), _| (id, StreamMuxerBox::new(muxer)));
    // A WebSocket is for those who pass nothing else; any other address goes first.
    let direct = OrTransport::new(tcp, quic).map(|either, _| either.into_inner());
    Ok(OrTransport::new(Later(web, TCP_FIRST), direct).map(|either, _| either.into_inner()).boxed())
}

/// Which net the other end is on; what has no address of its own goes by the wider one.
fn reach(throttle: &Throttle, point: &ConnectedPoint) -> Reach {
    let address = point.get_remote_address().iter().find_map(|part| match part {
        Protocol::Ip4(address) => Some(address.into()),
        Protocol::Ip6(address) => Some(address.into()),
        _ => None,
    });
    address.map_or(Reach::Wan, |address| throttle.reach(address))
}

/// The other side is in another private network, or only one of both sides is in one.
#[derive(Debug, thiserror::Error)]
#[error("{OTHER_NETWORK}")]
struct OtherNetwork;

const OTHER_NETWORK: &str = "most likely another private network";

/// Whether `error`, or what caused it, says that the other side is in another private network. Known by its text: several of the
/// layers that wrap it on the way give no access to what they wrap.
pub(super) fn is_other_network(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.to_string().contains(OTHER_NETWORK) {
            return true;
        }
        next = error.source();
    }
    false
}

async fn private_network<S>(socket: S, key: Option<PreSharedKey>) -> io::Result<Guarded<Either<libp2p::pnet::PnetOutput<S>, S>>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let socket = match key {
        Some(key) => Either::Left(PnetConfig::new(key).handshake(socket).await.map_err(handshake_error)?),
        None => Either::Right(socket),
    };
    Ok(Guarded { inner: socket, checked: 0 })
}

/// Where nobody has a key, our nonce is taken for strange bytes and the other side hangs up.
fn handshake_error(error: PnetError) -> io::Error {
    match error {
        PnetError::HandshakeError(error) | PnetError::IoError(error) => or_other_network(error),
    }
}

/// Hanging up before anything was said.
fn or_other_network(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe => {
            io::Error::new(io::ErrorKind::InvalidData, OtherNetwork)
        }
        _ => error,
    }
}

/// A socket whose first received bytes must be [`FIRST_BYTES`].
struct Guarded<S> {
    inner: S,
    checked: usize,
}

impl<S> Guarded<S> {
    /// Looks at what was just received.
    fn check(&mut self, result: io::Result<&[u8]>) -> io::Result<()> {
        let expected = &FIRST_BYTES[self.checked..];
        let other_network = || io::Error::new(io::ErrorKind::InvalidData, OtherNetwork);
        match result {
            // The other side saw strange bytes first and hung up before it said anything.
            Ok([]) => Err(other_network()),
            Err(error) => Err(or_other_network(error)),
            Ok(received) => {
                let length = received.len().min(expected.len());
                self.checked += length;
                if received[..length] == expected[..length] { Ok(()) } else { Err(other_network()) }
            }
        }
    }
}

impl<S> Guarded<S> {
    /// A side that hangs up before it said anything has seen strange bytes, whether that shows while reading or while writing.
    fn or_hung_up<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match result {
            Poll::Ready(Err(error)) if self.checked == 0 => Poll::Ready(Err(or_other_network(error))),
            other => other,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let Poll::Ready(result) = Pin::new(&mut this.inner).poll_read(cx, buf) else { return Poll::Pending };
        if this.checked == FIRST_BYTES.len() || buf.is_empty() {
            return Poll::Ready(result);
        }
        Poll::Ready(match result {
            Ok(length) => this.check(Ok(&buf[..length])).map(|()| length),
            Err(error) => this.check(Err(error)).map(|()| 0),
        })
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.or_hung_up(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.or_hung_up(flushed)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

/// TLS (faster where the processor has AES) before Noise; in a private network Noise alone.
#[derive(Clone)]
struct Security {
    noise: noise::Config,
    tls: Option<tls::Config>,
}

impl Security {
    fn new(keypair: &Keypair, with_tls: bool) -> io::Result<Security> {
        Ok(Security {
            noise: noise::Config::new(keypair).map_err(io::Error::other)?,
            tls: if with_tls { Some(tls::Config::new(keypair).map_err(io::Error::other)?) } else { None },
        })
    }
}

const TLS: &str = "/tls/1.0.0";
const NOISE: &str = "/noise";

impl UpgradeInfo for Security {
    type Info = &'static str;
    type InfoIter = Vec<&'static str>;

    fn protocol_info(&self) -> Vec<&'static str> {
        if self.tls.is_some() { vec![TLS, NOISE] } else { vec![NOISE] }
    }
}

type Secured<C> = (PeerId, Either<tls::TlsStream<C>, noise::Output<C>>);

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> InboundConnectionUpgrade<C> for Security {
    type Output = Secured<C>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Secured<C>>>;

    fn upgrade_inbound(self, socket: C, info: &'static str) -> Self::Future {
        match self.tls {
            Some(tls) if info == TLS => secured_by_tls(tls.upgrade_inbound(socket, info)).boxed(),
            _ => secured_by_noise(self.noise.upgrade_inbound(socket, info)).boxed(),
        }
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> OutboundConnectionUpgrade<C> for Security {
    type Output = Secured<C>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Secured<C>>>;

    fn upgrade_outbound(self, socket: C, info: &'static str) -> Self::Future {
        match self.tls {
            Some(tls) if info == TLS => secured_by_tls(tls.upgrade_outbound(socket, info)).boxed(),
            _ => secured_by_noise(self.noise.upgrade_outbound(socket, info)).boxed(),
        }
    }
}

async fn secured_by_tls<C, E>(handshake: impl Future<Output = Result<(PeerId, tls::TlsStream<C>), E>>) -> io::Result<Secured<C>>
where
    E: Error + Send + Sync + 'static,
{
    handshake.await.map(|(id, stream)| (id, Either::Left(stream))).map_err(io::Error::other)
}

async fn secured_by_noise<C, E>(handshake: impl Future<Output = Result<(PeerId, noise::Output<C>), E>>) -> io::Result<Secured<C>>
where
    E: Error + Send + Sync + 'static,
{
    handshake.await.map(|(id, stream)| (id, Either::Right(stream))).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(received: &[&[u8]], expected: &str) {
        let mut guarded = Guarded { inner: (), checked: 0 };
        let mut result = "fine";
        for received in received {
            if let Err(error) = guarded.check(Ok(received)) {
                result = if is_other_network(&error) { "other network" } else { "other error" };
                break;
            }
        }
        assert_eq!(result, expected, "{received:?}");
    }

    #[test]
    fn another_private_network_shows_in_the_first_byte() {
        check(&[b"\x13/multistream/1.0.0\n\x07/noise\n"], "fine");
        check(&[b"\x13/multi", b"stream/1.0.0\n"], "fine");
        check(&[b"\x91"], "other network");
        check(&[b"\x13/multi", b"something"], "other network");
        check(&[b""], "other network");
    }
}
