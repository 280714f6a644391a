//! Streams between two peers, under protocol names that are negotiated when a stream is opened.
//!
//! - Opening tries several names in order of preference and says which one the other side took.
//! - Accepting takes several names into one [`Incoming`] queue. The queue is bounded for each peer and in all; a full queue holds the
//!   negotiation of further streams back (the muxer then holds the sender back), it drops nothing. Only a stream that could not
//!   be taken for [`StreamLimits::inbound_wait`] is reset, counted and logged.
//! - A stream is delivered only when the host knows of its connection.
//! - Outbound streams are bounded for each connection, since a muxer ends the whole connection when its limit is passed.
//!
//! Deliberately absent: dialling (a stream is opened to a connected peer or not at all), framing (see [`crate::frame`]).

mod behaviour;
mod handler;
mod way;

pub(crate) use behaviour::Behaviour;
use way::{InUse, Way};

use crate::peer::theirs;
use handler::OpenRequest;
use libp2p::StreamProtocol;
use libp2p::swarm::ConnectionId;
use parking_lot::{Mutex, RwLock};
use std::collections::{HashMap, HashSet};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt};
use types::PeerId;

/// How much the streams of a host may hold.
#[derive(Clone, Copy, Debug)]
pub struct StreamLimits {
    /// Streams of one peer that wait to be taken from one [`Incoming`]. A waiting stream may hold its first window (256 KiB).
    pub inbound_per_peer: usize,
    /// Streams of all peers that wait to be taken from one [`Incoming`].
    pub inbound_total: usize,
    /// Streams of one peer that are open, waiting or taken. Each may hold a window of unread bytes.
    pub inbound_open_per_peer: usize,
    /// How long a negotiated stream waits for room in its queue before it is reset.
    pub inbound_wait: Duration,
    /// Streams that this host keeps open on one connection; further opens wait. Far below the muxer's own limit (4,032).
    pub outbound_per_connection: usize,
    /// How long an open may take, waiting for the muxer included.
    pub open: Duration,
}

impl Default for StreamLimits {
    fn default() -> StreamLimits {
        StreamLimits {
            inbound_per_peer: 128,
            inbound_total: 1024,
            inbound_open_per_peer: 512,
            inbound_wait: Duration::from_secs(25),
            outbound_per_connection: 1024,
            open: Duration::from_secs(15),
        }
    }
}

/// Why no stream was opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// There is no connection to the peer.
    #[error("opening a stream: not connected to {0}")]
    NotConnected(PeerId),
    /// The peer speaks none of the protocols.
    #[error("opening a stream: {peer} does not speak {protocols:?}")]
    Unsupported {
        /// The peer.
        peer: PeerId,
        /// What was offered.
        protocols: Vec<String>,
    },
    /// The peer did not answer in time.
    #[error("opening a stream: {0} did not answer in time")]
    TimedOut(PeerId),
    /// The connection ended meanwhile.
    #[error("opening a stream: connection to {peer} ended: {reason}")]
    Lost {
        /// The peer.
        peer: PeerId,
        /// What was seen.
        reason: String,
    },
    /// A protocol name does not start with a slash.
    #[error("opening a stream: {0:?} is no protocol name")]
    BadProtocol(String),
}

/// A stream to or from a peer. Dropping it without `shutdown` resets it.
pub struct Stream {
    inner: Compat<libp2p::Stream>,
    traffic: Arc<Traffic>,
    in_use: InUse,
    _slot: Option<OwnedSemaphorePermit>,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stream")
    }
}

impl Stream {
    fn new(inner: libp2p::Stream, traffic: Arc<Traffic>, slot: Option<OwnedSemaphorePermit>, way: &Arc<Way>) -> Stream {
        Stream { inner: inner.compat(), traffic, in_use: way.in_use(), _slot: slot }
    }

    /// It goes through a relay, and there is a direct connection now: whoever holds it for long should open another.
    pub fn is_outdone(&self) -> bool {
        self.in_use.way().is_outdone()
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.traffic.received.fetch_add((buf.filled().len() - before) as u64, Ordering::Relaxed);
        result
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, buf);
        if let Poll::Ready(Ok(written)) = &result {
            self.traffic.sent.fetch_add(*written as u64, Ordering::Relaxed);
        }
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Streams that peers opened to this host under some protocols. Dropping it refuses further ones.
#[derive(Debug)]
pub struct Incoming {
    queue: mpsc::Receiver<Waiting>,
}

impl Incoming {
    /// The next stream, with who opened it and under which name. None when the host stopped, or when a later accept took the names over.
    pub async fn next(&mut self) -> Option<(PeerId, String, Stream)> {
        self.queue.recv().await.map(Waiting::take)
    }
}

impl futures::Stream for Incoming {
    type Item = (PeerId, String, Stream);

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.queue.poll_recv(cx).map(|waiting| waiting.map(Waiting::take))
    }
}

/// A negotiated stream that nobody took yet; holds its peer's place in the queue.
#[derive(Debug)]
struct Waiting {
    peer: PeerId,
    protocol: StreamProtocol,
    stream: Stream,
    _place: OwnedSemaphorePermit,
}

impl Waiting {
    fn take(self) -> (PeerId, String, Stream) {
        (self.peer, self.protocol.as_ref().to_owned(), self.stream)
    }
}

/// Bytes that went through streams.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) sent: AtomicU64,
    pub(crate) received: AtomicU64,
    /// Streams reset because their queue stayed full.
    pub(crate) refused: AtomicU64,
}

/// What handle, behaviour and connection handlers share.
pub(crate) struct Shared {
    limits: StreamLimits,
    keep_all: bool,
    accepted: RwLock<Arc<Accepted>>,
    connections: Mutex<HashMap<libp2p::PeerId, Vec<Connection>>>,
    wanted: RwLock<HashSet<libp2p::PeerId>>,
    inbound_open: Places,
    pub(crate) traffic: Arc<Traffic>,
}

/// The names under which streams are taken, and the queue of each.
#[derive(Default)]
struct Accepted(Vec<(StreamProtocol, Arc<Group>)>);

/// Names accepted together.
struct Group {
    queue: mpsc::Sender<Waiting>,
    places: Places,
}

/// So many places for each peer.
struct Places {
    per_peer: usize,
    peers: Mutex<HashMap<PeerId, Arc<Semaphore>>>,
}

#[derive(Clone)]
struct Connection {
    id: ConnectionId,
    requests: mpsc::Sender<OpenRequest>,
    slots: Arc<Semaphore>,
    way: Arc<Way>,
}

impl Shared {
    pub(crate) fn new(limits: StreamLimits, keep_all: bool) -> Arc<Shared> {
        Arc::new(Shared {
            limits,
            keep_all,
            accepted: RwLock::default(),
            connections: Mutex::default(),
            wanted: RwLock::default(),
            inbound_open: Places::new(limits.inbound_open_per_peer),
            traffic: Arc::default(),
        })
    }

    /// Opens a stream on the peer's oldest living connection, direct before relayed ones, on the next one when that ends meanwhile.
    pub(crate) async fn open(&self, peer: PeerId, protocols: &[&str]) -> Result<(Stream, String), OpenError> {
        let names = protocol_names(protocols)?;
        let id = theirs(&peer).ok_or(OpenError::NotConnected(peer))?;
        let mut failure = OpenError::NotConnected(peer);
        for connection in self.living(&id) {
            match open_on(&connection, peer, names.clone()).await {
                Err(error @ OpenError::Lost { .. }) => failure = error,
                result => return result,
            }
        }
        Err(failure)
    }

    fn living(&self, peer: &libp2p::PeerId) -> Vec<Connection> {
        let connections = self.connections.lock();
        let Some(known) = connections.get(peer) else { return Vec::new() };
        let mut living: Vec<Connection> = known.iter().filter(|connection| !connection.requests.is_closed()).cloned().collect();
        living.sort_by_key(|connection| connection.way.is_relayed());
        living
    }

    /// The host has told that the connection exists: its inbound streams are delivered from now on. Connections run in tasks of their own, so that
    /// their first streams may be ahead of that news; whoever took one would not know the peer, or take it for the one that has just left.
    pub(crate) fn announce(&self, peer: &libp2p::PeerId, id: ConnectionId) {
        let connections = self.connections.lock();
        for connection in connections.get(peer).into_iter().flatten().filter(|connection| connection.id == id) {
            connection.way.set_known();
        }
    }

    /// Marks the relayed connections of a peer as outdone (or not any more), and says which of those are in nobody's use.
    pub(crate) fn outdo(&self, peer: &libp2p::PeerId, has_direct: bool) -> Vec<ConnectionId> {
        let connections = self.connections.lock();
        let relayed = connections.get(peer).into_iter().flatten().filter(|connection| connection.way.is_relayed());
        let unused = relayed.filter(|connection| {
            connection.way.set_outdone(has_direct);
            connection.way.is_unused()
        });
        unused.map(|connection| connection.id).collect()
    }

    /// Takes streams under these names from now on; names taken before go over to the new queue.
    pub(crate) fn accept(&self, protocols: &[&str]) -> Result<Incoming, OpenError> {
        let names = protocol_names(protocols)?;
        let (sender, queue) = mpsc::channel(self.limits.inbound_total);
        let group = Arc::new(Group { queue: sender, places: Places::new(self.limits.inbound_per_peer) });
        let mut accepted = self.accepted.write();
        let kept = accepted.0.iter().filter(|(name, other)| !names.contains(name) && !other.queue.is_closed()).cloned();
        let added = names.iter().map(|name| (name.clone(), group.clone()));
        *accepted = Arc::new(Accepted(kept.chain(added).collect()));
        Ok(Incoming { queue })
    }

    /// Whether the connection stays although nothing is open on it.
    fn is_wanted(&self, peer: &libp2p::PeerId) -> bool {
        self.keep_all || self.wanted.read().contains(peer)
    }

    pub(crate) fn want(&self, peer: libp2p::PeerId, wanted: bool) {
        let mut set = self.wanted.write();
        if wanted {
            set.insert(peer);
        } else {
            set.remove(&peer);
        }
    }

    /// Ends all queues: whoever reads an [`Incoming`] gets to its end.
    pub(crate) fn stop(&self) {
        *self.accepted.write() = Arc::default();
        self.connections.lock().clear();
    }
}

fn protocol_names(protocols: &[&str]) -> Result<Vec<StreamProtocol>, OpenError> {
    protocols
        .iter()
        .map(|name| StreamProtocol::try_from_owned((*name).to_owned()).map_err(|_| OpenError::BadProtocol((*name).to_owned())))
        .collect()
}

async fn open_on(connection: &Connection, peer: PeerId, names: Vec<StreamProtocol>) -> Result<(Stream, String), OpenError> {
    let lost = |reason: &str| OpenError::Lost { peer, reason: reason.to_owned() };
    let slot = connection.slots.clone().acquire_owned().await.map_err(|_| lost("closed"))?;
    let (reply, answer) = oneshot::channel();
    let request = OpenRequest { peer, names, slot, reply };
    connection.requests.send(request).await.map_err(|_| lost("closed"))?;
    answer.await.map_err(|_| lost("closed while the stream was being opened"))?
}

impl Places {
    fn new(per_peer: usize) -> Places {
        Places { per_peer, peers: Mutex::default() }
    }

    /// A place for the peer, once there is one.
    async fn take(&self, peer: PeerId) -> Option<OwnedSemaphorePermit> {
        /// Above so many peers those that hold no place are forgotten.
        const PEERS_REMEMBERED: usize = 1024;
        let places = {
            let mut peers = self.peers.lock();
            if peers.len() > PEERS_REMEMBERED {
                peers.retain(|_, places| Arc::strong_count(places) > 1);
            }
            peers.entry(peer).or_insert_with(|| Arc::new(Semaphore::new(self.per_peer))).clone()
        };
        // A permit holds the semaphore, so the count above stays over one while a place is taken.
        places.acquire_owned().await.ok()
    }
}

impl Group {
    /// Puts the stream into the queue, once there is room for it and for one more open stream of the peer.
    async fn deliver(&self, peer: PeerId, protocol: StreamProtocol, stream: libp2p::Stream, shared: &Shared, way: &Arc<Way>) {
        way.known().await;
        let Some(slot) = shared.inbound_open.take(peer).await else { return };
        let Some(place) = self.places.take(peer).await else { return };
        let stream = Stream::new(stream, shared.traffic.clone(), Some(slot), way);
        // Fails only when nobody accepts any more: the stream is reset, as if its name had not been offered.
        let _ = self.queue.send(Waiting { peer, protocol, stream, _place: place }).await;
    }
}
