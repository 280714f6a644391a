//! The receiving end of lanes.

use super::codec::{self, Answer, Said};
use super::{LaneHeader, LaneRefusal, PROTOCOL};
use crate::frame;
use crate::host::Host;
use crate::streams::{Incoming, OpenError, Stream};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
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
const FRAMES_AHEAD: usize = 2;

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
    Ok(tokio::spawn(accept(incoming, sink)))
}

async fn accept(mut incoming: Incoming, sink: Arc<dyn LaneSink>) {
    let open: Arc<Mutex<HashMap<PeerId, usize>>> = Arc::default();
    while let Some((from, _, stream)) = incoming.next().await {
        let place = Place::take(&open, from);
        let sink = sink.clone();
        tokio::spawn(async move {
            if let Err(error) = lane(from, stream, place, sink).await {
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

async fn lane(from: PeerId, mut stream: Stream, place: Option<Place>, sink: Arc<dyn LaneSink>) -> io::Result<()> {
    let body = timeout(HEADER, frame::read_frame(&mut stream, codec::HEADER_MAX)).await?;
    let header = body.as_deref().and_then(codec::decode_header).ok_or_else(|| strange("header"))?;
    if place.is_none() {
        return refuse(&mut stream, LaneRefusal::Busy).await;
    }
    let receiver = match sink.begin(from, header).await {
        Ok(receiver) => receiver,
        Err(refusal) => return refuse(&mut stream, refusal).await,
    };
    frame::write_frame(&mut stream, &codec::encode_answer(&Answer::Accepted)).await?;
    let (reader, mut writer) = tokio::io::split(stream);
    let (sender, said) = mpsc::channel(FRAMES_AHEAD);
    let reading = read_ahead(reader, sender);
    let storing = store(receiver, said, &mut writer);
    let ((), stored) = tokio::join!(reading, storing);
    stored?;
    writer.shutdown().await
}

/// Reads frames while the ones before are stored; ends when the lane does.
async fn read_ahead(mut stream: ReadHalf<Stream>, sender: mpsc::Sender<io::Result<Said>>) {
    loop {
        let read = async {
            let body = timeout(SILENCE, frame::read_frame(&mut stream, codec::BATCH_MAX)).await?;
            let body = body.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
            codec::decode_said(&body).ok_or_else(|| strange("frame"))
        };
        let said = tokio::select! {
            said = read => said,
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
    while let Some(next) = said.recv().await {
        let Said::Batch(batch) = next? else { return Ok(()) };
        let count = batch.len() as u64;
        if let Err(refusal) = receiver.put(batch).await {
            return refuse(stream, refusal).await;
        }
        durable += count;
        frame::write_frame(stream, &codec::encode_answer(&Answer::Durable(durable))).await?;
    }
    Ok(())
}

async fn refuse<S: tokio::io::AsyncWrite + Unpin>(stream: &mut S, refusal: LaneRefusal) -> io::Result<()> {
    frame::write_frame(stream, &codec::encode_answer(&Answer::Refused(refusal))).await?;
    stream.shutdown().await
}

async fn timeout<T>(limit: Duration, read: impl Future<Output = Result<T, frame::FrameError>>) -> io::Result<T> {
    match tokio::time::timeout(limit, read).await {
        Ok(result) => result.map_err(io::Error::other),
        Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut)),
    }
}

fn strange(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("strange {what} of a block lane"))
}
