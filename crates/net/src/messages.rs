//! Messages between peers: ordered, bounded, and lost with the connection.
//!
//! One long-lived stream to each peer carries what this host sends there; what peers send comes out of one queue. A stream that
//! breaks while the connection lives is opened again, and what was being written is written again: so a message may come twice. When
//! the connection ends, what was queued is dropped: a peer that returns gets no old news. Whoever needs more must ask and answer.

use crate::frame;
use crate::host::{Host, Links};
use crate::streams::{Incoming, OpenError, Stream};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use types::PeerId;

/// Messages that wait in the queue of received ones; when it is full, the senders are held back.
const RECEIVED_QUEUED: usize = 256;

/// Messages are written together up to this.
const BATCH_BYTES: usize = 256 << 10;

/// A peer that does not take a batch for so long loses the stream.
const WRITE: Duration = Duration::from_secs(30);

/// A message that has begun must be complete after this.
const READ: Duration = Duration::from_secs(60);

/// Pauses before a stream is opened again.
const PAUSE_LEAST: Duration = Duration::from_millis(200);
const PAUSE_MOST: Duration = Duration::from_secs(5);

/// The bounds of a channel of messages.
#[derive(Clone, Copy, Debug)]
pub struct MessageLimits {
    /// The longest message.
    pub message: usize,
    /// Messages that wait for one peer.
    pub queued: usize,
    /// Bytes that wait for one peer.
    pub queued_bytes: usize,
}

impl Default for MessageLimits {
    fn default() -> MessageLimits {
        MessageLimits { message: 4 << 20, queued: 1024, queued_bytes: 16 << 20 }
    }
}

/// Why a message was not taken for sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// There is no connection to the peer.
    #[error("sending a message: not connected to {0}")]
    NotConnected(PeerId),
    /// The peer does not speak the protocol.
    #[error("sending a message: {0} does not speak the protocol")]
    Unsupported(PeerId),
    /// Too much waits for the peer already.
    #[error("sending a message: the queue for {0} is full")]
    Full(PeerId),
    /// Longer than a message may be.
    #[error("sending a message: {length} bytes are over the limit of {limit}")]
    TooLong {
        /// Its length.
        length: usize,
        /// The limit.
        limit: usize,
    },
}

/// What peers sent: from whom (proven), and the bytes.
pub type Received = mpsc::Receiver<(PeerId, Vec<u8>)>;

/// Sends messages under one protocol name. Clones send through the same streams.
#[derive(Clone)]
pub struct Messages {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Messages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Messages({})", self.shared.protocol)
    }
}

struct Shared {
    host: Host,
    protocol: String,
    limits: MessageLimits,
    links: watch::Receiver<Links>,
    queues: Mutex<HashMap<PeerId, Queue>>,
    /// One message of a peer is read at a time, whatever number of streams it opens.
    reading: Mutex<HashMap<PeerId, Arc<Semaphore>>>,
}

/// What waits for one peer on one connection.
struct Queue {
    link: u64,
    waiting: VecDeque<Vec<u8>>,
    bytes: usize,
    wake: Arc<Notify>,
    /// The peer does not speak the protocol.
    is_refused: bool,
}

impl Messages {
    /// Starts sending and receiving under `protocol`; ends with the host. To be called before peers are dialled. Received messages
    /// come out of the receiver with who sent them; while nobody takes them, their senders are held back.
    pub fn start(host: &Host, protocol: &str, limits: MessageLimits) -> Result<(Messages, Received), OpenError> {
        let incoming = host.accept(&[protocol])?;
        let (sender, receiver) = mpsc::channel(RECEIVED_QUEUED);
        let shared = Arc::new(Shared {
            host: host.clone(),
            protocol: protocol.to_owned(),
            limits,
            links: host.links(),
            queues: Mutex::default(),
            reading: Mutex::default(),
        });
        tokio::spawn(accept(shared.clone(), incoming, sender));
        Ok((Messages { shared }, receiver))
    }

    /// Puts a message into the peer's queue. Does not wait; accepted is not yet received.
    pub fn send(&self, peer: PeerId, message: Vec<u8>) -> Result<(), SendError> {
        let limits = &self.shared.limits;
        if message.len() > limits.message {
            return Err(SendError::TooLong { length: message.len(), limit: limits.message });
        }
        let link = self.shared.links.borrow().get(&peer).map(|link| link.number).ok_or(SendError::NotConnected(peer))?;
        let mut queues = self.shared.queues.lock();
        if queues.get(&peer).is_none_or(|queue| queue.link != link) {
            // The first message of this connection; a writer of an earlier one ends by itself.
            let wake = Arc::new(Notify::new());
            tokio::spawn(write_all(self.shared.clone(), peer, link, wake.clone()));
            queues.insert(peer, Queue { link, waiting: VecDeque::new(), bytes: 0, wake, is_refused: false });
        }
        let Some(queue) = queues.get_mut(&peer) else { return Err(SendError::NotConnected(peer)) };
        if queue.is_refused {
            return Err(SendError::Unsupported(peer));
        }
        if queue.waiting.len() >= limits.queued || queue.bytes + message.len() > limits.queued_bytes {
            return Err(SendError::Full(peer));
        }
        queue.bytes += message.len();
        queue.waiting.push_back(message);
        queue.wake.notify_one();
        Ok(())
    }
}

/// Writes what waits for a peer, until this connection with it ends.
async fn write_all(shared: Arc<Shared>, peer: PeerId, link: u64, wake: Arc<Notify>) {
    let mut links = shared.links.clone();
    let ended = links.wait_for(|links| links.get(&peer).map(|link| link.number) != Some(link));
    tokio::select! {
        _ = ended => {}
        () = write_while_connected(&shared, peer, link, &wake) => {}
    }
    let mut queues = shared.queues.lock();
    if let Some(queue) = queues.get(&peer)
        && queue.link == link
        && !queue.is_refused
    {
        queues.remove(&peer);
    }
}

async fn write_while_connected(shared: &Shared, peer: PeerId, link: u64, wake: &Notify) {
    let mut stream: Option<Stream> = None;
    let mut pause = PAUSE_LEAST;
    let mut batch = Vec::new();
    loop {
        if batch.is_empty() {
            batch = take_batch(shared, &peer, link);
        }
        if batch.is_empty() {
            wake.notified().await;
            continue;
        }
        match write_batch(shared, peer, &mut stream, &batch).await {
            Ok(()) => {
                batch.clear();
                pause = PAUSE_LEAST;
            }
            Err(WriteError::Open(OpenError::Unsupported { .. })) => {
                tracing::debug!(%peer, protocol = shared.protocol, "the peer does not take messages");
                return refuse(shared, &peer, link);
            }
            Err(error) => {
                tracing::debug!(%peer, %error, "sending messages");
                stream = None;
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MOST);
            }
        }
    }
}

/// The next messages as frames, together.
fn take_batch(shared: &Shared, peer: &PeerId, link: u64) -> Vec<u8> {
    let mut batch = Vec::new();
    let mut queues = shared.queues.lock();
    let Some(queue) = queues.get_mut(peer).filter(|queue| queue.link == link) else { return batch };
    while let Some(message) = queue.waiting.front()
        && (batch.is_empty() || batch.len() + message.len() <= BATCH_BYTES)
    {
        queue.bytes -= message.len();
        let mut buffer = unsigned_varint::encode::usize_buffer();
        batch.extend_from_slice(unsigned_varint::encode::usize(message.len(), &mut buffer));
        batch.extend_from_slice(message);
        queue.waiting.pop_front();
    }
    batch
}

#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("the peer does not read")]
    TimedOut,
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

async fn write_batch(shared: &Shared, peer: PeerId, stream: &mut Option<Stream>, batch: &[u8]) -> Result<(), WriteError> {
    if let Some(relayed) = stream.take_if(|stream| stream.is_outdone()) {
        end(relayed);
    }
    if stream.is_none() {
        *stream = Some(shared.host.open(peer, &[&shared.protocol]).await?.0);
    }
    let Some(open) = stream else { return Ok(()) };
    let write = async {
        open.write_all(batch).await?;
        open.flush().await
    };
    Ok(tokio::time::timeout(WRITE, write).await.map_err(|_| WriteError::TimedOut)??)
}

/// Ends a stream with all that was written to it; what comes on the next one may pass it.
fn end(mut stream: Stream) {
    tokio::spawn(async move { tokio::time::timeout(WRITE, stream.shutdown()).await });
}

/// Nothing more is taken for this peer on this connection.
fn refuse(shared: &Shared, peer: &PeerId, link: u64) {
    if let Some(queue) = shared.queues.lock().get_mut(peer).filter(|queue| queue.link == link) {
        queue.is_refused = true;
        queue.waiting.clear();
        queue.bytes = 0;
    }
}

async fn accept(shared: Arc<Shared>, mut incoming: Incoming, sender: mpsc::Sender<(PeerId, Vec<u8>)>) {
    /// Above so many peers those that send nothing at the moment are forgotten.
    const PEERS_REMEMBERED: usize = 1024;
    while let Some((peer, _, stream)) = incoming.next().await {
        let turn = {
            let mut reading = shared.reading.lock();
            if reading.len() > PEERS_REMEMBERED {
                reading.retain(|_, turn| Arc::strong_count(turn) > 1);
            }
            reading.entry(peer).or_insert_with(|| Arc::new(Semaphore::new(1))).clone()
        };
        let (sender, limit) = (sender.clone(), shared.limits.message);
        tokio::spawn(async move {
            if let Err(error) = read_all(peer, stream, &turn, limit, &sender).await {
                tracing::debug!(%peer, %error, "a stream of messages ended");
            }
        });
    }
    // The queues go with the host; refused ones too.
    shared.queues.lock().clear();
}

async fn read_all(
    peer: PeerId,
    mut stream: Stream,
    turn: &Semaphore,
    limit: usize,
    sender: &mpsc::Sender<(PeerId, Vec<u8>)>,
) -> Result<(), frame::FrameError> {
    while let Some(length) = frame::read_length(&mut stream, limit).await? {
        let Ok(_turn) = turn.acquire().await else { return Ok(()) };
        let body = tokio::time::timeout(READ, frame::read_body(&mut stream, length)).await;
        let body = body.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
        if sender.send((peer, body.into())).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}
