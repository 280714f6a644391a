//! Block lanes: blocks in order to one peer, acknowledged when they are durable there. Protocol `/pinfold/blocks/1`.
//!
//! ```text
//!   sender                                        receiver
//!   header { lease, cluster peer, kind } ───────► LaneSink::begin
//!                                        ◄─────── accepted, or refused
//!   batch of blocks ────────────────────────────► LaneReceiver::put, returns when durable
//!                                        ◄─────── so many blocks are durable
//!   finish ─────────────────────────────────────►
//! ```
//!
//! Batches go by a TCP connection of their own where there is a way (`crate::direct`), else over the stream; answers always over the stream.
//!
//! What is sent and not yet acknowledged is bounded, so a slow receiver holds the sender back. A lane ends with its stream; what was
//! acknowledged before stays acknowledged. The blocks' hashes are *not* checked here: the sink must, before it answers, for it stores them.

mod codec;
mod gate;
mod receive;

pub use gate::{ABANDONED, Admission, LaneGate, lane_owner};
pub use receive::{LaneReceiver, LaneSink, serve_lanes};

use crate::direct::DirectWriter;
use crate::frame;
use crate::host::Host;
use crate::streams::{OpenError, Stream, Traffic};
use bytes::Bytes;
use codec::{Answer, Said};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::AbortHandle;
use types::{ByteCount, Cid, PeerId};

/// The protocol's name.
pub const PROTOCOL: &str = "/pinfold/blocks/1";

/// The largest block that a lane takes.
pub const BLOCK_MAX: usize = 2 << 20;

/// Small blocks are sent together up to this.
const BATCH_BYTES: usize = 1 << 20;

/// How long a refusal may take to be read when the stream has closed for writing.
const REFUSAL_WAIT: Duration = Duration::from_secs(1);

/// What a block costs of the window beside its bytes, so that empty ones are bounded too.
const BLOCK_COST: usize = 128;

/// The first bytes of a lane. Tells the receiver for whom and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneHeader {
    /// The add or repair this belongs to, unique at the cluster peer.
    pub lease: u64,
    /// Who sends, by its id in the cluster. The stream proves the sender's node only: the sink compares.
    pub cluster_peer: PeerId,
    /// Why the blocks come.
    pub kind: LaneKind,
}

/// Why blocks come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneKind {
    /// An add in progress.
    Add,
    /// A further copy of what exists.
    Copy,
}

/// Why a receiver takes no lane, or no more of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LaneRefusal {
    /// No room.
    #[error("no room: {free} free")]
    NoRoom {
        /// What is free.
        free: ByteCount,
    },
    /// The sender is not trusted.
    #[error("the sender is not trusted")]
    NotTrusted,
    /// Nobody has named the sender's node as his own yet: the word for it may be on its way.
    #[error("the sender's node is not known here yet")]
    NotYet,
    /// The lease is not known, or over.
    #[error("the lease is not open")]
    Closed,
    /// Too many lanes of this sender.
    #[error("too many lanes at once")]
    Busy,
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

/// Why a lane ended before its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LaneError {
    /// It could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The receiver refuses.
    #[error("block lane: refused: {0}")]
    Refused(LaneRefusal),
    /// The stream broke, or the receiver stopped answering.
    #[error("block lane: {0}")]
    Lost(String),
    /// A block over 2 MiB.
    #[error("block lane: {cid} has {size} bytes, more than a block may have")]
    TooLarge {
        /// Which.
        cid: Cid,
        /// Its size.
        size: usize,
    },
}

/// The bounds of a lane, at the sender.
#[derive(Clone, Copy, Debug)]
pub struct LaneLimits {
    /// Bytes sent and not yet acknowledged; at least the largest block.
    pub window: usize,
    /// Blocks wait for their acknowledgement no longer than this without any arriving.
    pub stall: Duration,
    /// How long the receiver may take to accept the lane.
    pub begin: Duration,
    /// Whether blocks go by a TCP connection of their own where there is a way.
    pub direct: bool,
}

impl Default for LaneLimits {
    fn default() -> LaneLimits {
        LaneLimits { window: 16 << 20, stall: Duration::from_secs(60), begin: Duration::from_secs(10), direct: true }
    }
}

/// The sending end of a lane. Dropped before [`BlockLane::finish`] it breaks off.
pub struct BlockLane {
    shared: Arc<Shared>,
    is_direct: bool,
    tasks: [AbortHandle; 2],
}

impl std::fmt::Debug for BlockLane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BlockLane({:?})", *self.shared.progress.borrow())
    }
}

struct Shared {
    limits: LaneLimits,
    window: Semaphore,
    queue: Mutex<Queue>,
    wake: Notify,
    progress: watch::Sender<Progress>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<(Cid, Bytes)>,
    /// What each unacknowledged block costs of the window, in order.
    costs: VecDeque<u32>,
    is_finishing: bool,
}

#[derive(Clone, Debug, Default)]
struct Progress {
    sent: u64,
    acknowledged: u64,
    failure: Option<LaneError>,
}

impl Progress {
    fn is_complete(&self) -> bool {
        self.acknowledged == self.sent
    }
}

impl BlockLane {
    /// Opens a lane with the usual limits.
    pub async fn open(host: &Host, peer: PeerId, header: LaneHeader) -> Result<BlockLane, LaneError> {
        BlockLane::open_with(host, peer, header, LaneLimits::default()).await
    }

    /// Opens a lane; returns when the receiver has accepted it.
    pub async fn open_with(host: &Host, peer: PeerId, header: LaneHeader, limits: LaneLimits) -> Result<BlockLane, LaneError> {
        let (mut stream, _) = host.open(peer, &[PROTOCOL]).await?;
        let begin = async {
            frame::write_frame(&mut stream, &codec::encode_header(&header)).await.map_err(lost)?;
            read_answer(&mut stream).await
        };
        let answer = tokio::time::timeout(limits.begin, begin).await;
        match answer.map_err(|_| LaneError::Lost("the receiver did not answer".to_owned()))?? {
            Answer::Accepted(offer) => {
                let direct = match offer {
                    Some(offer) if limits.direct => DirectWriter::open(host, peer, &offer).await,
                    _ => None,
                };
                if direct.is_some() {
                    let mut body = Vec::new();
                    codec::encode_said(&Said::Direct, &mut body);
                    frame::write_frame(&mut stream, &body).await.map_err(lost)?;
                }
                Ok(BlockLane::start(host, stream, direct, limits))
            }
            Answer::Refused(refusal) => Err(LaneError::Refused(refusal)),
            Answer::Durable(_) => Err(LaneError::Lost("a strange answer".to_owned())),
        }
    }

    fn start(host: &Host, stream: Stream, direct: Option<DirectWriter>, limits: LaneLimits) -> BlockLane {
        let window = limits.window.max(BLOCK_MAX + BLOCK_COST);
        let shared = Arc::new(Shared {
            limits,
            window: Semaphore::new(window),
            queue: Mutex::default(),
            wake: Notify::new(),
            progress: watch::Sender::new(Progress::default()),
        });
        let (reader, writer) = tokio::io::split(stream);
        let is_direct = direct.is_some();
        let way = Way { stream: writer, direct, traffic: host.traffic(), body: Vec::new() };
        let write = tokio::spawn(write_all(shared.clone(), way)).abort_handle();
        let read = tokio::spawn(read_all(shared.clone(), reader)).abort_handle();
        BlockLane { shared, is_direct, tasks: [write, read] }
    }

    /// Whether blocks go by a TCP connection of their own.
    pub fn is_direct(&self) -> bool {
        self.is_direct
    }

    /// Sends one block; waits while the window is full. Returns before the block has arrived.
    pub async fn send(&self, cid: Cid, data: Bytes) -> Result<(), LaneError> {
        if data.len() > BLOCK_MAX {
            return Err(LaneError::TooLarge { cid, size: data.len() });
        }
        let cost = (data.len() + BLOCK_COST) as u32;
        match self.shared.window.acquire_many(cost).await {
            Ok(permit) => permit.forget(),
            Err(_) => return Err(self.failure()),
        }
        let mut queue = self.shared.queue.lock();
        queue.waiting.push_back((cid, data));
        queue.costs.push_back(cost);
        self.shared.progress.send_modify(|progress| progress.sent += 1);
        drop(queue);
        self.shared.wake.notify_one();
        Ok(())
    }

    /// How many blocks are durable at the receiver: the first so many that were sent.
    pub fn acknowledged(&self) -> u64 {
        self.shared.progress.borrow().acknowledged
    }

    /// Waits until everything sent is durable at the receiver, and ends the lane.
    pub async fn finish(self) -> Result<(), LaneError> {
        self.shared.queue.lock().is_finishing = true;
        self.shared.wake.notify_one();
        let mut progress = self.shared.progress.subscribe();
        let is_over = |progress: &Progress| progress.is_complete() || progress.failure.is_some();
        let ended = progress.wait_for(is_over).await.map(|progress| progress.clone());
        match ended {
            // The receiver closes the stream when all is stored, which is no failure then.
            Ok(progress) if progress.is_complete() => Ok(()),
            _ => {
                self.tasks.iter().for_each(AbortHandle::abort);
                Err(self.failure())
            }
        }
    }

    fn failure(&self) -> LaneError {
        let failure = self.shared.progress.borrow().failure.clone();
        failure.unwrap_or_else(|| LaneError::Lost("the lane is closed".to_owned()))
    }
}

impl Drop for BlockLane {
    fn drop(&mut self) {
        // A finished lane still says so: its writer ends by itself.
        if !self.shared.queue.lock().is_finishing {
            self.tasks.iter().for_each(AbortHandle::abort);
        }
    }
}

impl Shared {
    /// The first failure counts; senders that wait learn of it.
    fn fail(&self, failure: LaneError) {
        self.progress.send_if_modified(|progress| {
            let is_first = progress.failure.is_none();
            if is_first {
                progress.failure = Some(failure);
            }
            is_first
        });
        self.window.close();
    }

    /// So many blocks are durable, in all.
    fn acknowledge(&self, count: u64) -> Result<(), LaneError> {
        let mut queue = self.queue.lock();
        let before = self.progress.borrow().acknowledged;
        let Some(fresh) = count.checked_sub(before).filter(|fresh| *fresh <= queue.costs.len() as u64) else {
            return Err(LaneError::Lost("the receiver acknowledged what was not sent".to_owned()));
        };
        let freed: usize = queue.costs.drain(..fresh as usize).map(|cost| cost as usize).sum();
        drop(queue);
        self.window.add_permits(freed);
        self.progress.send_modify(|progress| progress.acknowledged = count);
        Ok(())
    }

    fn owes(&self) -> bool {
        !self.queue.lock().costs.is_empty()
    }

    /// The next blocks to be sent together; none yet, or none ever again.
    fn next_batch(&self) -> Next {
        let mut queue = self.queue.lock();
        let mut batch = Vec::new();
        let mut bytes = 0;
        while let Some((_, data)) = queue.waiting.front()
            && (bytes == 0 || bytes + data.len() + BLOCK_COST <= BATCH_BYTES)
        {
            bytes += data.len() + BLOCK_COST;
            batch.extend(queue.waiting.pop_front());
        }
        match (batch.is_empty(), queue.is_finishing) {
            (false, _) => Next::Batch(batch),
            (true, true) => Next::End,
            (true, false) => Next::Wait,
        }
    }
}

enum Next {
    Batch(Vec<(Cid, Bytes)>),
    Wait,
    End,
}

/// Where batches go.
struct Way {
    stream: WriteHalf<Stream>,
    direct: Option<DirectWriter>,
    traffic: Arc<Traffic>,
    /// Used again for every frame.
    body: Vec<u8>,
}

impl Way {
    async fn send(&mut self, said: &Said) -> std::io::Result<()> {
        if let Some(direct) = &mut self.direct {
            let sent = direct.send(|body| codec::encode_said(said, body)).await?;
            self.traffic.sent.fetch_add(sent as u64, Ordering::Relaxed);
            return Ok(());
        }
        self.body.clear();
        codec::encode_said(said, &mut self.body);
        frame::write_frame(&mut self.stream, &self.body).await
    }

    /// The receiver may have closed first.
    async fn close(&mut self) {
        if let Some(direct) = &mut self.direct {
            let _ = direct.shutdown().await;
        }
        let _ = self.stream.shutdown().await;
    }
}

async fn write_all(shared: Arc<Shared>, mut way: Way) {
    loop {
        let said = match shared.next_batch() {
            Next::Batch(batch) => Said::Batch(batch),
            Next::End => Said::Finish,
            Next::Wait => {
                shared.wake.notified().await;
                continue;
            }
        };
        if let Err(error) = way.send(&said).await {
            // A refusal closes the stream too, and says more: it gets a moment to be read.
            tokio::time::sleep(REFUSAL_WAIT).await;
            return shared.fail(lost(error));
        }
        if said == Said::Finish {
            return way.close().await;
        }
    }
}

async fn read_all(shared: Arc<Shared>, mut stream: ReadHalf<Stream>) {
    loop {
        let answer = answer_or_stall(&shared, &mut stream).await;
        let result = match answer {
            Ok(Answer::Durable(count)) => shared.acknowledge(count),
            Ok(Answer::Refused(refusal)) => Err(LaneError::Refused(refusal)),
            Ok(Answer::Accepted(_)) => Err(LaneError::Lost("a strange answer".to_owned())),
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            return shared.fail(error);
        }
    }
}

/// The next answer, or the end of patience.
async fn answer_or_stall(shared: &Shared, stream: &mut ReadHalf<Stream>) -> Result<Answer, LaneError> {
    let mut answer = std::pin::pin!(read_answer(stream));
    loop {
        let owed = shared.owes();
        match tokio::time::timeout(shared.limits.stall, &mut answer).await {
            Ok(answer) => return answer,
            Err(_) if owed => return Err(LaneError::Lost(format!("nothing was acknowledged for {:?}", shared.limits.stall))),
            Err(_) => {}
        }
    }
}

async fn read_answer<S: tokio::io::AsyncRead + Unpin>(stream: &mut S) -> Result<Answer, LaneError> {
    match frame::read_frame(stream, codec::ANSWER_MAX).await {
        Ok(Some(body)) => codec::decode_answer(&body).ok_or_else(|| LaneError::Lost("a strange answer".to_owned())),
        Ok(None) => Err(LaneError::Lost("the receiver closed the stream".to_owned())),
        Err(error) => Err(LaneError::Lost(error.to_string())),
    }
}

fn lost(error: std::io::Error) -> LaneError {
    LaneError::Lost(error.to_string())
}
