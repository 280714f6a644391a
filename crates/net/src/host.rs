//! The host as others see it: identity, addresses, connections, gossip, streams.
//!
//! [`Host::start`] binds its listeners before it returns and spawns one task that owns libp2p's swarm (`host/driver.rs`). The
//! handle is cheap to clone; [`Host::shutdown`] ends the task, whatever handles still exist.
//!
//! Who stays connected: everybody when [`HostOptions::keep_all`] is set, else peers given to [`Host::keep_connected`] and those
//! with open streams; other connections end after [`HostOptions::idle`].

mod attempt;
mod behaviour;
mod driver;
mod gossip;
mod hop;
mod lan;
mod listen;
mod muxer;
mod options;
mod probes;
mod reachability;
mod reconnect;
mod seats;
mod side;
mod transport;

pub(crate) use side::{Expected, MAGIC, SideDoor, Ticket};

pub use gossip::{GossipOptions, PublishError, message_id};
pub use options::{CLUSTER_SERVICE, HostOptions, NODE_SERVICE};
pub use reachability::{Path, Reach, ReachOptions, Reachability, Reachable, RelayFor};

use crate::peer::theirs;
use crate::streams::{self, Incoming, OpenError, Stream};
use crate::throttle::Throttle;
use driver::Command;
use gossip::Filters;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use types::PeerId;

/// How long [`Host::dial`] and [`Host::connect`] may take.
const DIAL_DEADLINE: Duration = Duration::from_secs(10);

/// Commands that wait for the host's task; callers then wait in line.
const COMMANDS_QUEUED: usize = 256;

/// Events that wait for [`HostEvents::next`] in its channel.
const EVENTS_QUEUED: usize = 256;

/// Peers that said what they speak and were not looked at yet; whoever is slower looks at all.
pub(crate) const IDENTIFIED_QUEUED: usize = 256;

/// Why a host did not start.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A listen or announced address is no multiaddr.
    #[error("starting the network: {address:?} is no multiaddr")]
    BadAddress {
        /// As configured.
        address: String,
    },
    /// Nobody can listen there.
    #[error("starting the network: cannot listen on {address}")]
    Listen {
        /// As configured.
        address: String,
        /// For example that the port is taken.
        #[source]
        source: io::Error,
    },
    /// Listen addresses were given and none can be used.
    #[error("starting the network: none of {addresses:?} can be used{}", if *.private { " in a private network (TCP only)" } else { "" })]
    NothingToListenOn {
        /// As configured.
        addresses: Vec<String>,
        /// Whether a private network excludes them.
        private: bool,
    },
    /// The transports or gossip could not be set up.
    #[error("starting the network: {0}")]
    Setup(String),
}

/// Why no connection was made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// Not a multiaddr.
    #[error("dialling {0:?}: no multiaddr")]
    BadAddress(String),
    /// No address of the peer is known.
    #[error("dialling {0}: no address known")]
    NoAddress(PeerId),
    /// The address is this host's own.
    #[error("dialling: that is this host itself")]
    Own,
    /// Somebody else answered.
    #[error("dialling: expected {expected}, but {obtained} answered at {address}")]
    WrongPeer {
        /// Who was meant.
        expected: String,
        /// Who answered.
        obtained: String,
        /// Where.
        address: String,
    },
    /// The other side has another private network key, or only one of both sides has one: its first bytes are strange, or it hung up
    /// before it said any (as a host does too that is over its limit of connections).
    #[error("dialling {address}: it hung up or spoke strangely at once: most likely another private network (the cluster secrets differ)")]
    OtherNetwork {
        /// Where.
        address: String,
    },
    /// Blocked here, or over the limit of connections.
    #[error("dialling: refused here: {0}")]
    Refused(String),
    /// Nobody answers there.
    #[error("dialling: {0}")]
    Unreachable(String),
    /// No answer within the deadline.
    #[error("dialling: no answer in time")]
    TimedOut,
    /// The host was stopped.
    #[error("dialling: the network is stopped")]
    Stopped,
}

/// The same as [`DialError`]; what [`Host::connect`] answers.
pub type ConnectError = DialError;

/// What happens on a host. Gossip that is not taken in time is dropped and counted; changes of connections never are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostEvent {
    /// The first connection to a peer, and its address as seen here.
    Connected(PeerId, String),
    /// The last connection to a peer ended.
    Disconnected(PeerId),
    /// A gossip message that passed its topic's filter.
    Gossip {
        /// Its topic.
        topic: String,
        /// Who signed it.
        from: PeerId,
        /// Its bytes.
        data: Vec<u8>,
        /// Who passed it on to us.
        forwarded_by: PeerId,
    },
    /// [`Host::addresses`] changed.
    ListenChanged,
}

/// The events of a host. Dropping it is allowed; events are then not kept.
#[derive(Debug)]
pub struct HostEvents {
    receiver: mpsc::Receiver<HostEvent>,
}

impl HostEvents {
    /// The next event; none when the host stopped.
    pub async fn next(&mut self) -> Option<HostEvent> {
        self.receiver.recv().await
    }
}

/// What a connected peer said of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerInfo {
    /// The address of its first connection, as seen here; of the direct one where there is any.
    pub address: String,
    /// Whether it is connected directly.
    pub path: Path,
    /// Connections with it.
    pub connections: usize,
    /// Its software; empty until it said so.
    pub agent: String,
    /// What it speaks; empty until it said so. At most 128 names.
    pub protocols: Vec<String>,
    /// Where it says it listens. At most 32.
    pub listens: Vec<String>,
    /// The last measured round trip.
    pub round_trip: Option<Duration>,
}

/// Counters of a host, since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connected peers.
    pub peers: usize,
    /// Bytes written to own streams (gossip and other protocols of libp2p are not counted).
    pub bytes_sent: u64,
    /// Bytes read from own streams.
    pub bytes_received: u64,
    /// Inbound streams reset because nobody took them in time.
    pub streams_refused: u64,
    /// Gossip messages not delivered because the owner of [`HostEvents`] was too slow.
    pub gossip_dropped: u64,
    /// Gossip messages that a filter refused.
    pub gossip_filtered: u64,
}

/// Who is connected. For engines inside this crate.
pub(crate) type Links = BTreeMap<PeerId, Link>;

/// That a peer is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// Differs for every time that a peer came.
    pub(crate) number: u64,
    /// How often a direct connection took the place of relayed ones meanwhile. Some software answers over the former alone.
    pub(crate) moves: u32,
}

/// A handle on a running host.
#[derive(Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

/// What handle and task share. The handle holds the only sender of commands.
struct Inner {
    commands: mpsc::Sender<Command>,
    board: Arc<Board>,
}

/// What the task writes and handles read.
struct Board {
    id: PeerId,
    addresses: RwLock<Vec<String>>,
    peers: RwLock<BTreeMap<PeerId, PeerInfo>>,
    reach: RwLock<Reach>,
    filters: RwLock<Filters>,
    links: watch::Sender<Links>,
    /// Peers that said what they speak.
    identified: broadcast::Sender<PeerId>,
    streams: Arc<streams::Shared>,
    /// None in a private network.
    side_door: Option<Arc<SideDoor>>,
    throttle: Throttle,
    gossip_dropped: AtomicU64,
    gossip_filtered: AtomicU64,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Host({})", self.inner.board.id)
    }
}

impl Host {
    /// Starts a host; its listeners are bound when this returns. Must run inside a tokio runtime.
    pub async fn start(options: HostOptions) -> Result<(Host, HostEvents), HostError> {
        let (commands, command_receiver) = mpsc::channel(COMMANDS_QUEUED);
        let (events, receiver) = mpsc::channel(EVENTS_QUEUED);
        let board = driver::start(options, command_receiver, events).await?;
        Ok((Host { inner: Arc::new(Inner { commands, board }) }, HostEvents { receiver }))
    }

    /// Who this host is.
    pub fn id(&self) -> PeerId {
        self.inner.board.id
    }

    /// Where it listens, with `/p2p/`; unspecified addresses are expanded to those of the interfaces. Announced ones come last.
    pub fn addresses(&self) -> Vec<String> {
        self.inner.board.addresses.read().clone()
    }

    /// How it is reached from outside.
    pub fn reach(&self) -> Reach {
        self.inner.board.reach.read().clone()
    }

    /// Dials one address; waits for an existing connection too when the address names its peer.
    pub async fn dial(&self, address: &str) -> Result<PeerId, DialError> {
        let parsed = address.parse().map_err(|_| DialError::BadAddress(address.to_owned()))?;
        self.ask(|reply| Command::Dial { address: parsed, reply }).await
    }

    /// Makes sure there is a connection to `peer`; dials the addresses (and those that discovery knows) when there is none.
    pub async fn connect(&self, peer: PeerId, addresses: &[String]) -> Result<(), ConnectError> {
        if self.is_connected(&peer) {
            return Ok(());
        }
        let addresses = parse_addresses(addresses)?;
        self.ask(|reply| Command::Connect { peer, addresses, reply }).await.map(|_| ())
    }

    /// Keeps a connection to `peer` from now on, dialling again with growing pauses (0.2 s to 10 s) whenever there is none. Calling it
    /// again replaces the addresses. Addresses that are no multiaddr are left out.
    pub async fn keep_connected(&self, peer: PeerId, addresses: &[String]) {
        let addresses = addresses.iter().filter_map(|address| address.parse().ok()).collect();
        let _ = self.inner.commands.send(Command::Keep { peer, addresses }).await;
    }

    /// Ends [`Host::keep_connected`]; an existing connection ends when it is idle.
    pub async fn let_go(&self, peer: PeerId) {
        let _ = self.inner.commands.send(Command::LetGo { peer }).await;
    }

    /// Closes all connections to `peer`. One that is kept will be dialled again.
    pub async fn disconnect(&self, peer: PeerId) {
        let _ = self.inner.commands.send(Command::Disconnect { peer }).await;
    }

    /// Closes and refuses connections with `peer` until [`Host::allow`].
    pub async fn block(&self, peer: PeerId) {
        let _ = self.inner.commands.send(Command::Block { peer }).await;
    }

    /// Ends [`Host::block`].
    pub async fn allow(&self, peer: PeerId) {
        let _ = self.inner.commands.send(Command::Allow { peer }).await;
    }

    /// The connected peers, sorted.
    pub fn connected(&self) -> Vec<PeerId> {
        self.inner.board.peers.read().keys().copied().collect()
    }

    /// Whether there is a connection to `peer`.
    pub fn is_connected(&self, peer: &PeerId) -> bool {
        self.inner.board.peers.read().contains_key(peer)
    }

    /// What a connected peer said of itself; none when it is not connected.
    pub fn peer_info(&self, peer: &PeerId) -> Option<PeerInfo> {
        self.inner.board.peers.read().get(peer).cloned()
    }

    /// Opens a stream to a connected peer under the first of `protocols` that it speaks, and says which one that is.
    pub async fn open(&self, peer: PeerId, protocols: &[&str]) -> Result<(Stream, String), OpenError> {
        self.inner.board.streams.open(peer, protocols).await
    }

    /// Takes streams that peers open under `protocols`. To be called before peers are dialled: a name without a taker is refused. A
    /// later call with the same name takes it over.
    pub fn accept(&self, protocols: &[&str]) -> Result<Incoming, OpenError> {
        self.inner.board.streams.accept(protocols)
    }

    /// Publishes to a topic. Own messages do not come back as events.
    pub async fn publish(&self, topic: &str, data: Vec<u8>) -> Result<(), PublishError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Publish { topic: topic.to_owned(), data, reply };
        self.inner.commands.send(command).await.map_err(|_| PublishError::Stopped)?;
        answer.await.map_err(|_| PublishError::Stopped)?
    }

    /// Takes part in a further topic.
    pub async fn subscribe(&self, topic: &str) -> Result<(), PublishError> {
        let (reply, answer) = oneshot::channel();
        self.inner.commands.send(Command::Subscribe { topic: topic.to_owned(), reply }).await.map_err(|_| PublishError::Stopped)?;
        answer.await.map_err(|_| PublishError::Stopped)?
    }

    /// Messages of `topic` are delivered and forwarded only when `trusted` says so of their signer. Asked on the host's task for each
    /// message: it must be quick and must not block.
    pub fn set_gossip_filter(&self, topic: &str, trusted: Arc<dyn Fn(&PeerId) -> bool + Send + Sync>) {
        self.inner.board.filters.write().insert(topic.to_owned(), trusted);
    }

    /// Counters since the start.
    pub fn stats(&self) -> Stats {
        let board = &self.inner.board;
        let traffic = &board.streams.traffic;
        Stats {
            peers: board.peers.read().len(),
            bytes_sent: traffic.sent.load(Ordering::Relaxed),
            bytes_received: traffic.received.load(Ordering::Relaxed),
            streams_refused: traffic.refused.load(Ordering::Relaxed),
            gossip_dropped: board.gossip_dropped.load(Ordering::Relaxed),
            gossip_filtered: board.gossip_filtered.load(Ordering::Relaxed),
        }
    }

    /// Closes all connections and listeners and ends every [`Incoming`] and the events. Twice is fine.
    pub async fn shutdown(&self) {
        let (reply, answer) = oneshot::channel();
        if self.inner.commands.send(Command::Shutdown { reply }).await.is_ok() {
            let _ = answer.await;
        }
    }

    /// Who is connected, and its changes.
    pub(crate) fn links(&self) -> watch::Receiver<Links> {
        self.inner.board.links.subscribe()
    }

    /// Peers as they say what they speak and where they listen, each time they do.
    pub(crate) fn identified(&self) -> broadcast::Receiver<PeerId> {
        self.inner.board.identified.subscribe()
    }

    /// Waits until the host is stopped.
    pub(crate) async fn stopped(&self) {
        self.inner.commands.closed().await;
    }

    /// Whether it is.
    pub(crate) fn is_stopped(&self) -> bool {
        self.inner.commands.is_closed()
    }

    /// Where connections beside libp2p's come in.
    pub(crate) fn side_door(&self) -> Option<Arc<SideDoor>> {
        self.inner.board.side_door.clone()
    }

    /// The limits of bandwidth of its connections.
    pub(crate) fn throttle(&self) -> &Throttle {
        &self.inner.board.throttle
    }

    /// Where bytes are counted.
    pub(crate) fn traffic(&self) -> Arc<streams::Traffic> {
        self.inner.board.streams.traffic.clone()
    }

    async fn ask(&self, command: impl FnOnce(oneshot::Sender<Result<PeerId, DialError>>) -> Command) -> Result<PeerId, DialError> {
        let (reply, answer) = oneshot::channel();
        self.inner.commands.send(command(reply)).await.map_err(|_| DialError::Stopped)?;
        match tokio::time::timeout(DIAL_DEADLINE, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(DialError::Stopped),
            Err(_) => Err(DialError::TimedOut),
        }
    }
}

fn parse_addresses(addresses: &[String]) -> Result<Vec<libp2p::Multiaddr>, DialError> {
    addresses.iter().map(|address| address.parse().map_err(|_| DialError::BadAddress(address.clone()))).collect()
}

/// Whether `peer` can be a libp2p peer at all.
fn known_kind(peer: &PeerId) -> Option<libp2p::PeerId> {
    theirs(peer)
}
