//! Finding peers on the local net by multicast DNS, under the service name that Go's peers of the same kind use.
//!
//! One task holds one socket for each address of an interface that the host listens on; when those change (another network, another lease)
//! all are opened anew, which asks and tells at once. Loopback has no sockets: a host that listens there alone is never announced. IPv4 only.
//!
//! Whoever is heard is dialled by the driver; whether it may be talked to is for the private network and the handshake to say.

use crate::peer::is_circuit;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use rand::Rng;
use socket2::{Domain, Socket, Type};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use wire::mdns::{self, Heard};

const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const PORT: u16 = 5353;

/// Interfaces that are served.
const SOCKETS_MAX: usize = 16;

/// Addresses that are told, and that are taken of one peer.
const ADDRESSES_MAX: usize = 16;

/// Peers heard that wait for the driver; more are heard again.
const FOUND_QUEUED: usize = 32;

/// The pause between questions doubles up to this.
const PAUSE_MOST: Duration = Duration::from_secs(60);

/// Everybody hears an answer, so more than one a second tells nobody anything.
const ANSWER_PAUSE: Duration = Duration::from_secs(1);

/// A peer that was dialled is not dialled again before this, however often it is heard.
const DIAL_PAUSE: Duration = Duration::from_secs(20);

/// Peers whose last dial is kept in mind. When as many were dialled within [`DIAL_PAUSE`], others wait.
const DIALLED_MAX: usize = 256;

/// A peer heard, with where it says it is.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) peer: PeerId,
    pub(super) addresses: Vec<Multiaddr>,
}

/// The driver's end. Dropped, the task ends.
pub(super) struct Lan {
    addresses: watch::Sender<Vec<String>>,
    found: mpsc::Receiver<Found>,
    task: JoinHandle<()>,
    dialled: HashMap<PeerId, Instant>,
}

impl Lan {
    pub(super) fn start(service: String, me: PeerId) -> Lan {
        let (addresses, watched) = watch::channel(Vec::new());
        let (sender, found) = mpsc::channel(FOUND_QUEUED);
        let task = tokio::spawn(async move {
            // Ends with the driver, which holds the other ends.
            let _ = run(&service, me, watched, sender).await;
        });
        Lan { addresses, found, task, dialled: HashMap::new() }
    }

    /// Where the host listens.
    pub(super) fn listens(&self, addresses: &[String]) {
        self.addresses.send_if_modified(|known| {
            let changed = known != addresses;
            if changed {
                *known = addresses.to_vec();
            }
            changed
        });
    }

    /// The next peer that was heard. Never ends.
    pub(super) async fn next(&mut self) -> Found {
        match self.found.recv().await {
            Some(found) => found,
            None => std::future::pending().await,
        }
    }

    /// Whether a peer that was heard is to be dialled; it then counts as dialled.
    pub(super) fn is_due(&mut self, peer: PeerId, now: Instant) -> bool {
        self.dialled.retain(|_, at| now.saturating_duration_since(*at) < DIAL_PAUSE);
        if self.dialled.contains_key(&peer) || self.dialled.len() >= DIALLED_MAX {
            return false;
        }
        self.dialled.insert(peer, now);
        true
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The driver is gone.
struct Ended;

async fn run(service: &str, me: PeerId, mut addresses: watch::Receiver<Vec<String>>, found: mpsc::Sender<Found>) -> Result<(), Ended> {
    loop {
        let told = told(&addresses.borrow_and_update());
        let instance = instance();
        let mut sockets = FuturesUnordered::new();
        for interface in interfaces(&told) {
            match open(interface) {
                Ok(socket) => sockets.push(serve(socket, service, &instance, interface, &told, me, &found)),
                Err(error) => tracing::info!(%interface, %error, "peers on this local net are not looked for"),
            }
        }
        tokio::select! {
            changed = addresses.changed() => changed.map_err(|_| Ended)?,
            Some(error) = sockets.next(), if !sockets.is_empty() => {
                tracing::debug!(%error, "looking for peers on the local net");
                tokio::select! {
                    changed = addresses.changed() => changed.map_err(|_| Ended)?,
                    () = tokio::time::sleep(PAUSE_MOST) => {}
                }
            }
        }
    }
}

/// What is told: addresses that others on the net can dial.
fn told(addresses: &[String]) -> Vec<String> {
    let usable = |address: &&String| ip_of(address).is_some_and(|ip| !ip.is_loopback() && !ip.is_unspecified());
    addresses.iter().filter(usable).take(ADDRESSES_MAX).cloned().collect()
}

fn interfaces(told: &[String]) -> BTreeSet<Ipv4Addr> {
    told.iter().filter_map(|address| ip_of(address)).take(SOCKETS_MAX).collect()
}

fn ip_of(address: &str) -> Option<Ipv4Addr> {
    let address: Multiaddr = address.parse().ok()?;
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(ip),
        _ => None,
    }
}

/// A name that says nothing of its peer. Go tells an instance that it knows again only after its lifetime: other addresses get another name.
fn instance() -> String {
    rand::rng().sample_iter(rand::distr::Alphanumeric).take(32).map(|byte| char::from(byte).to_ascii_lowercase()).collect()
}

fn open(interface: Ipv4Addr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    // Other programs of this machine look for their peers there too.
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, PORT).into())?;
    socket.join_multicast_v4(&GROUP, &interface)?;
    socket.set_multicast_if_v4(&interface)?;
    socket.set_multicast_ttl_v4(255)?;
    socket.set_multicast_loop_v4(true)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket.into())
}

/// Asks and answers on one interface, until that fails.
async fn serve(
    socket: UdpSocket,
    service: &str,
    instance: &str,
    interface: Ipv4Addr,
    told: &[String],
    me: PeerId,
    found: &mpsc::Sender<Found>,
) -> io::Error {
    let question = mdns::question(service);
    let answer = mdns::answer(service, instance, interface, told);
    let group = SocketAddrV4::new(GROUP, PORT);
    let mut buffer = vec![0; 9000];
    let mut next_question = Instant::now();
    let mut pause = Duration::from_secs(1);
    // The first one tells everybody that this peer is here.
    let mut next_answer = Some(Instant::now());
    let mut last_answer = None;
    loop {
        let wake = next_answer.map_or(next_question, |at: Instant| at.min(next_question));
        let received = tokio::select! {
            received = socket.recv_from(&mut buffer) => Some(received),
            () = tokio::time::sleep_until(wake.into()) => None,
        };
        let now = Instant::now();
        let sent = match received {
            Some(Err(error)) => return error,
            Some(Ok((length, _))) => {
                match mdns::hear(&buffer[..length], service) {
                    Some(Heard::Question) => {
                        // All that are asked at once answer at slightly different times.
                        let spread = Duration::from_millis(rand::random_range(20..120));
                        let earliest = last_answer.map_or(now, |last: Instant| last + ANSWER_PAUSE);
                        next_answer = next_answer.or(Some(earliest.max(now) + spread));
                    }
                    // A full queue: whoever is there is heard again.
                    Some(Heard::Addresses(addresses)) => {
                        by_peer(&addresses, me).for_each(|peer| _ = found.try_send(peer));
                    }
                    Some(Heard::Nothing) | None => {}
                }
                continue;
            }
            None if next_answer.is_some_and(|at| at <= now) => {
                next_answer = None;
                last_answer = Some(now);
                socket.send_to(&answer, group).await
            }
            None => {
                next_question = now + pause;
                pause = (pause * 2).min(PAUSE_MOST);
                socket.send_to(&question, group).await
            }
        };
        if let Err(error) = sent {
            return error;
        }
    }
}

/// Whom these addresses belong to. Those without a peer, of this host, and of the machine that says them alone are left out.
fn by_peer(addresses: &[String], me: PeerId) -> impl Iterator<Item = Found> {
    let mut peers: BTreeMap<PeerId, Vec<Multiaddr>> = BTreeMap::new();
    for address in addresses.iter().filter(|address| ip_of(address).is_some_and(|ip| !ip.is_loopback())) {
        let Ok(address) = address.parse::<Multiaddr>() else { continue };
        let Some(Protocol::P2p(peer)) = address.iter().last() else { continue };
        // Through a relay it is not on this net.
        if peer != me && !is_circuit(&address) {
            let known = peers.entry(peer).or_default();
            if known.len() < ADDRESSES_MAX {
                known.push(address);
            }
        }
    }
    peers.into_iter().map(|(peer, addresses)| Found { peer, addresses })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u8) -> PeerId {
        libp2p::identity::Keypair::ed25519_from_bytes([number; 32]).unwrap().public().to_peer_id()
    }

    #[test]
    fn only_direct_addresses_of_others_are_taken() {
        let (me, other, relay) = (peer(1), peer(2), peer(3));
        let addresses = [
            format!("/ip4/10.0.0.2/tcp/9096/p2p/{other}"),
            format!("/ip4/127.0.0.1/tcp/9096/p2p/{other}"),
            format!("/ip4/10.0.0.3/tcp/9096/p2p/{relay}/p2p-circuit/p2p/{other}"),
            format!("/ip4/10.0.0.1/tcp/9096/p2p/{me}"),
            "/ip4/10.0.0.4/tcp/9096".to_owned(),
            "nothing".to_owned(),
        ];
        let found: Vec<Found> = by_peer(&addresses, me).collect();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].peer, found[0].addresses.len()), (other, 1));
    }

    #[test]
    fn loopback_is_not_told_and_has_no_socket() {
        let addresses =
            ["/ip4/127.0.0.1/tcp/1", "/ip6/::1/tcp/1", "/ip4/192.168.1.7/tcp/1", "/ip4/192.168.1.7/udp/1/quic-v1"].map(str::to_owned);
        let told = told(&addresses);
        assert_eq!(told, addresses[2..]);
        assert_eq!(interfaces(&told), BTreeSet::from([Ipv4Addr::new(192, 168, 1, 7)]));
    }

    #[tokio::test]
    async fn a_peer_heard_often_is_dialled_once_in_a_while() {
        let mut lan = Lan::start("_test._udp.local".to_owned(), peer(1));
        let now = Instant::now();
        assert!(lan.is_due(peer(2), now));
        assert!(!lan.is_due(peer(2), now + DIAL_PAUSE / 2));
        assert!(lan.is_due(peer(2), now + DIAL_PAUSE));
        for _ in 0..2 * DIALLED_MAX {
            lan.is_due(PeerId::random(), now + DIAL_PAUSE);
        }
        assert!(lan.dialled.len() <= DIALLED_MAX && !lan.is_due(peer(3), now + DIAL_PAUSE));
    }
}
