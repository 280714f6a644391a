//! The receiving end of lanes.

use super::codec::{self, Answer, Said};
use super::{LaneHeader, LaneRefusal, PROTOCOL};
use crate::direct::{DirectReader, Offered, while_sender_is_there};
use crate::frame;
use crate::host::{Host, SideDoor};
use crate::streams::{Incoming, OpenError, Stream, Traffic};
use crate::throttle::Throttle;
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use types::{Cid, PeerId};

/// Lanes of one sender at once.
const LANES_PER_PEER: usize = 8;

/// The header must come within this.
const HEADER: Duration = Duration::from_secs(10);

/// A sender that says nothing for so long has lost the lane.
const SILENCE: Duration = Duration::from_secs(300);

/// Frames that are read ahead while a batch is being stored; a frame has at most 2 MiB.
const FRAMES_AHEAD: usize = 6;

/// Bytes that are stored together where frames wait: they share one sync of the disk.
const STORED_AT_ONCE: usize = 8 << 20;

/// The direct connection must come within this after it was announced.
const DIRECT: Duration = Duration::from_secs(10);

/// Where lanes end: decides who may send, and stores.
#[async_trait]
pub trait LaneSink: Send + Sync + 'static {
    /// A node wants to send blocks. `from` is proven, `header` is only claimed: the sink compares the two.
    async fn begin(&self, from: PeerId, header: LaneHeader) -> Result<Box<dyn LaneReceiver>, LaneRefusal>;
}

/// One lane at its sink. Dropped when the lane ends, however it ends.
#[async_trait]
pub trait LaneReceiver: Send {
    /// Stores blocks, in the order sent, and returns when they are durable. *Must check their hashes*: nobody did before. A refusal
    /// ends the lane; none of this batch is then acknowledged. Not called again before it returned; may be dropped half-way.
    async fn put(&mut self, batch: Vec<(Cid, Bytes)>) -> Result<(), LaneRefusal>;
}

/// Takes lanes until the host ends, which ends the task. To be called before peers are dialled.
pub fn serve_lanes(host: &Host, sink: Arc<dyn LaneSink>) -> Result<JoinHandle<()>, OpenError> {
    let incoming = host.accept(&[PROTOCOL])?;
    let beside = Beside { door: host.side_door(), traffic: host.traffic(), throttle: host.throttle().clone() };
    Ok(tokio::spawn(accept(incoming, sink, beside)))
}

/// Where connections come in beside libp2p's.
#[derive(Clone)]
struct Beside {
    /// None on a host that takes none.
    door: Option<Arc<SideDoor>>,
    traffic: Arc<Traffic>,
    throttle: Throttle,
}

async fn accept(mut incoming: Incoming, sink: Arc<dyn LaneSink>, beside: Beside) {
    let open: Arc<Mutex<HashMap<PeerId, usize>>> = Arc::default();
    while let Some((from, _, stream)) = incoming.next().await {
        let place = Place::take(&open, from);
        let (sink, beside) = (sink.clone(), beside.clone());
        tokio::spawn(async move {
            if let Err(error) = lane(from, stream, place, sink, beside).await {
                tracing::debug!(%from, %error, "a block lane ended");
            }
        });
    }
}

/// One of the lanes that a sender may have.
struct Place {
    open: Arc<Mutex<HashMap<PeerId, usize>>>,
    peer: PeerId,
}

impl Place {
    fn take(open: &Arc<Mutex<HashMap<PeerId, usize>>>, peer: PeerId) -> Option<Place> {
        let mut lanes = open.lock();
        let count = lanes.entry(peer).or_default();
        if *count >= LANES_PER_PEER {
            return None;
        }
        *count += 1;
        Some(Place { open: open.clone(), peer })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut lanes = self.open.lock();
        let Some(count) = lanes.get_mut(&self.peer) else { return };
        *count -= 1;
        if *count == 0 {
            lanes.remove(&self.peer);
        }
    }
}

async fn lane(from: PeerId, mut stream: Stream, place: Option<Place>, sink: Arc<dyn LaneSink>, beside: Beside) -> io::Result<()> {
    let body = timeout(HEADER, frame::read_frame(&mut stream, codec::HEADER_MAX)).await?;
    let header = body.as_deref().and_then(codec::decode_header).ok_or_else(|| strange("header"))?;
    if place.is_none() {
        return refuse(&mut stream, LaneRefusal::Busy).await;
    }
    let receiver = match sink.begin(from, header).await {
        Ok(receiver) => receiver,
        Err(refusal) => return refuse(&mut stream, refusal).await,
    };
    let offered = Offered::new(beside.door.as_ref(), &beside.throttle);
    let offer = offered.as_ref().map(Offered::offer);
    frame::write_frame(&mut stream, &codec::encode_answer(&Answer::Accepted(offer))).await?;
    let (reader, mut writer) = tokio::io::split(stream);
    let (sender, said) = mpsc::channel(FRAMES_AHEAD);
    let frames = Frames { stream: reader, is_ended: false, offered, direct: None, traffic: beside.traffic };
    let reading = read_ahead(frames, sender);
    let storing = store(receiver, said, &mut writer);
    let ((), stored) = tokio::join!(reading, storing);
    stored?;
    writer.shutdown().await
}

/// What a sender says, by whichever way.
struct Frames {
    stream: ReadHalf<Stream>,
    is_ended: bool,
    offered: Option<Offered>,
    direct: Option<DirectReader>,
    traffic: Arc<Traffic>,
}

impl Frames {
    async fn next(&mut self) -> io::Result<Said> {
        loop {
            let body = match &mut self.direct {
                Some(direct) => {
                    let next = async {
                        let head = direct.head().await?;
                        direct.body(head, |_| ()).await
                    };
                    let body = timeout(SILENCE, while_sender_is_there(next, &mut self.stream, &mut self.is_ended)).await?;
                    self.traffic.received.fetch_add(body.len() as u64, Ordering::Relaxed);
                    body
                }
                None => {
                    let body = timeout(SILENCE, frame::read_frame(&mut self.stream, codec::BATCH_MAX)).await?;
                    body.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?
                }
            };
            match codec::decode_said(&body).ok_or_else(|| strange("frame"))? {
                Said::Direct => self.take_direct().await?,
                said => return Ok(said),
            }
        }
    }

    async fn take_direct(&mut self) -> io::Result<()> {
        let offered = self.offered.take().ok_or_else(|| strange("turn"))?;
        self.direct = Some(timeout(DIRECT, offered.arrived(codec::BATCH_MAX)).await?);
        Ok(())
    }
}

/// Reads frames while the ones before are stored; ends when the lane does.
async fn read_ahead(mut frames: Frames, sender: mpsc::Sender<io::Result<Said>>) {
    loop {
        let said = tokio::select! {
            said = frames.next() => said,
            () = sender.closed() => return,
        };
        let is_last = !matches!(said, Ok(Said::Batch(_)));
        if sender.send(said).await.is_err() || is_last {
            return;
        }
    }
}

/// Stores what comes and acknowledges it.
async fn store(
    mut receiver: Box<dyn LaneReceiver>,
    mut said: mpsc::Receiver<io::Result<Said>>,
    stream: &mut WriteHalf<Stream>,
) -> io::Result<()> {
    let mut durable = 0u64;
    let mut next = said.recv().await;
    while let Some(Said::Batch(first)) = next.take().transpose()? {
        let mut bytes = size_of_batch(&first);
        let mut batches = vec![first];
        while bytes < STORED_AT_ONCE && next.is_none() {
            match said.try_recv() {
                Ok(Ok(Said::Batch(more))) => {
                    bytes += size_of_batch(&more);
                    batches.push(more);
                }
                // Its turn is after what came before it.
                Ok(other) => next = Some(other),
                Err(_) => break,
            }
        }
        if let Err(refusal) = store_together(receiver.as_mut(), batches, &mut durable, stream).await? {
            return refuse(stream, refusal).await;
        }
        if next.is_none() {
            next = said.recv().await;
        }
    }
    Ok(())
}

/// Stores batches as one. Where there is no room for all of them, each by itself, so that what room there is gets used.
async fn store_together(
    receiver: &mut dyn LaneReceiver,
    batches: Vec<Vec<(Cid, Bytes)>>,
    durable: &mut u64,
    stream: &mut WriteHalf<Stream>,
) -> io::Result<Result<(), LaneRefusal>> {
    let rounds = match receiver.put(batches.concat()).await {
        Ok(()) => {
            *durable += batches.iter().map(|batch| batch.len() as u64).sum::<u64>();
            frame::write_frame(stream, &codec::encode_answer(&Answer::Durable(*durable))).await?;
            return Ok(Ok(()));
        }
        Err(LaneRefusal::NoRoom { .. }) if batches.len() > 1 => batches,
        Err(refusal) => return Ok(Err(refusal)),
    };
    for batch in rounds {
        let count = batch.len() as u64;
        if let Err(refusal) = receiver.put(batch).await {
            return Ok(Err(refusal));
        }
        *durable += count;
        frame::write_frame(stream, &codec::encode_answer(&Answer::Durable(*durable))).await?;
    }
    Ok(Ok(()))
}

fn size_of_batch(batch: &[(Cid, Bytes)]) -> usize {
    batch.iter().map(|(_, data)| data.len()).sum()
}

async fn refuse<S: tokio::io::AsyncWrite + Unpin>(stream: &mut S, refusal: LaneRefusal) -> io::Result<()> {
    frame::write_frame(stream, &codec::encode_answer(&Answer::Refused(refusal))).await?;
    stream.shutdown().await
}

async fn timeout<T, E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    limit: Duration,
    read: impl Future<Output = Result<T, E>>,
) -> io::Result<T> {
    match tokio::time::timeout(limit, read).await {
        Ok(result) => result.map_err(io::Error::other),
        Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut)),
    }
}

fn strange(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("strange {what} of a block lane"))
}
