//! The tasks between the machines and the streams.
//!
//! One watches over connections and time, one takes inbound streams (and a reader runs for each), and each peer has at most one writer of
//! want lists and one sender of replies, which end when they have had nothing to do for a while.

use super::bulk::{self, Bulk};
use super::served::Task;
use super::{Engine, Message, PROTOCOLS, State, verify};
use crate::frame;
use crate::host::Links;
use crate::streams::{Incoming, OpenError, Stream};
use bytes::Bytes;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::sync::{Notify, Semaphore, watch};
use types::{Cid, PeerId};
use wire::bitswap::{Block, MESSAGE_BYTES_MAX, Presence, WantKind};

/// How often wants are looked over while there are any.
const TICK: Duration = Duration::from_millis(250);

/// A writer or sender without work ends after this, and its stream with it. Helia resets a stream on which nothing came for 10 s.
const IDLE: Duration = Duration::from_secs(5);

/// Writing one message to a peer takes longer only when the peer does not read.
const WRITE: Duration = Duration::from_secs(60);

/// Between two tries to send what is owed to a connected peer: the first pause, and the longest.
const PAUSE_LEAST: Duration = Duration::from_millis(500);
const PAUSE_MOST: Duration = Duration::from_secs(60);

/// Reading one message, from its length on: a full one on a slow line takes its time.
pub(super) const READ: Duration = Duration::from_secs(300);

/// So many bytes of a message count as a sign of life.
pub(super) const PROGRESS: usize = 64 << 10;

/// Entries of one want list message.
const ENTRIES: usize = 1024;

/// Answers in one reply.
const PRESENCES: usize = 4096;

/// Room in a message for everything but the data of its blocks.
const OVERHEAD: usize = 512 << 10;

pub(super) fn spawn(engine: &Arc<Engine>, incoming: Incoming, links: watch::Receiver<Links>) {
    tokio::spawn(watch_over(engine.clone(), links));
    tokio::spawn(accept(engine.clone(), incoming));
}

/// Tells the machines who is there and what time it is, until the host ends.
async fn watch_over(engine: Arc<Engine>, mut links: watch::Receiver<Links>) {
    loop {
        // The look at the links is part of every act.
        links.mark_unchanged();
        engine.act(|_, _| ());
        loop {
            let has_wants = {
                let state = engine.state.lock();
                if state.is_stopped {
                    return;
                }
                !state.wants.is_empty()
            };
            tokio::select! {
                _ = links.changed() => break,
                () = tokio::time::sleep(TICK), if has_wants => engine.act(|state, now| state.wants.wake(now)),
                () = engine.awake.notified(), if !has_wants => {}
            }
        }
    }
}

/// Takes streams until the host ends; then everything ends.
async fn accept(engine: Arc<Engine>, mut incoming: Incoming) {
    while let Some((peer, protocol, stream)) = incoming.next().await {
        let engine = engine.clone();
        tokio::spawn(async move {
            let ended = match protocol.as_str() {
                bulk::PROTOCOL => bulk::receive(&engine, peer, stream).await.map_err(Into::into),
                _ => read(&engine, peer, stream).await,
            };
            if let Err(error) = ended {
                tracing::debug!(%peer, protocol, %error, "bitswap stream ended");
            }
        });
    }
    let mut state = engine.state.lock();
    state.is_stopped = true;
    let waiting: Vec<Cid> = state.waiters.keys().copied().collect();
    for cid in waiting {
        state.answer(&cid, &Err(super::FetchError::Stopped));
    }
    for task in state.writers.values().chain(state.senders.values()) {
        task.notify_one();
    }
    engine.awake.notify_one();
}

/// Reads the messages of one inbound stream.
async fn read(engine: &Arc<Engine>, peer: PeerId, mut stream: Stream) -> Result<(), frame::FrameError> {
    while let Some(length) = frame::read_length(&mut stream, MESSAGE_BYTES_MAX).await? {
        let permits = engine.state.lock().readers.get(&peer).cloned();
        // A peer that has just left has none; its last messages count for themselves.
        let permits = permits.unwrap_or_else(|| Arc::new(Semaphore::new(1)));
        let Ok(_permit) = permits.acquire().await else { return Ok(()) };
        let arrived = |_| engine.state.lock().wants.heard(&peer, Instant::now());
        let body = tokio::time::timeout(READ, frame::read_body_watched(&mut stream, length, PROGRESS, arrived)).await;
        let body = body.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        match Message::decode(&body) {
            Ok(message) => take_message(engine, peer, message).await,
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error).into()),
        }
    }
    Ok(())
}

pub(super) async fn take_message(engine: &Arc<Engine>, peer: PeerId, mut message: Message) {
    if !message.blocks.is_empty() || !message.blocks_legacy.is_empty() {
        take_blocks(engine, peer, &mut message).await;
    }
    engine.act(|state, now| {
        state.wants.is_capable(&peer);
        for (cid, presence) in &message.presences {
            match presence {
                Presence::Have => state.wants.have(peer, cid, now),
                Presence::DontHave => state.wants.dont_have(peer, cid, now),
            }
        }
        // Who left meanwhile is not kept in mind.
        let is_connected = state.known.contains_key(&peer);
        let has_list = !message.wants.is_empty() || message.is_full;
        if has_list && is_connected && state.served.take(peer, std::mem::take(&mut message.wants), message.is_full) {
            wake_sender(engine, state, peer);
        }
        engine.wants_refused.store(state.served.refused, Ordering::Relaxed);
    });
}

async fn take_blocks(engine: &Arc<Engine>, peer: PeerId, message: &mut Message) {
    let count = (message.blocks.len() + message.blocks_legacy.len()) as u64;
    {
        let mut state = engine.state.lock();
        if state.wants.is_empty() {
            // Not worth hashing.
            state.ledger(peer).blocks_unasked += count;
            return;
        }
    }
    let proven = verify::prove(message).await;
    engine.act(|state, now| {
        let mut useful = 0;
        for block in proven {
            let size = block.data.len() as u64;
            let cids = state.wants.block(peer, &block.hash, size, now);
            if !cids.is_empty() {
                useful += 1;
                let ledger = state.ledger(peer);
                ledger.blocks_received += 1;
                ledger.bytes_received += size;
            }
            for cid in cids {
                state.answer(&cid, &Ok(block.data.clone()));
            }
        }
        state.ledger(peer).blocks_unasked += count - useful;
    });
}

/// Gives blocks that came into the store to those who fetch them.
pub(super) fn settle(engine: &Arc<Engine>, cids: Vec<Cid>) {
    let engine = engine.clone();
    tokio::spawn(async move {
        for cid in cids {
            let Some(data) = engine.source.get(&cid).await else { continue };
            engine.act(|state, now| {
                state.wants.settle(&cid, now);
                state.answer(&cid, &Ok(data));
            });
        }
    });
}

/// There is something to write to `peer`.
pub(super) fn wake_writer(engine: &Arc<Engine>, state: &mut State, peer: PeerId) {
    if let Some(running) = state.writers.get(&peer) {
        return running.notify_one();
    }
    let wake = Arc::new(Notify::new());
    state.writers.insert(peer, wake.clone());
    tokio::spawn(write_wants(engine.clone(), peer, wake));
}

/// Writes want lists to one peer, until it has had nothing to write for a while.
async fn write_wants(engine: Arc<Engine>, peer: PeerId, wake: Arc<Notify>) {
    let mut stream = None;
    loop {
        let wants = engine.state.lock().wants.outgoing(&peer, ENTRIES);
        if wants.is_empty() {
            let is_idle = tokio::time::timeout(IDLE, wake.notified()).await.is_err();
            if (is_idle || engine.state.lock().is_stopped) && end_task(&engine, &wake, |state| &mut state.writers, &peer) {
                return end_stream(stream).await;
            }
            continue;
        }
        let message = Message { wants, ..Message::default() };
        if let Err(error) = write(&engine, peer, &mut stream, &message.encode()).await {
            tracing::debug!(%peer, %error, "writing a want list");
            let speaks_bitswap = !matches!(error, WriteError::Open(OpenError::Unsupported { .. }));
            return engine.act(|state, now| {
                state.writers.remove(&peer);
                state.wants.unreachable(&peer, speaks_bitswap, now);
            });
        }
    }
}

/// Whether the task may end: nobody woke it meanwhile.
fn end_task(
    engine: &Engine,
    wake: &Arc<Notify>,
    tasks: impl FnOnce(&mut State) -> &mut HashMap<PeerId, Arc<Notify>>,
    peer: &PeerId,
) -> bool {
    let mut state = engine.state.lock();
    let was_woken = futures::FutureExt::now_or_never(wake.notified()).is_some();
    if was_woken && !state.is_stopped {
        return false;
    }
    tasks(&mut state).remove(peer);
    true
}

#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("the peer does not read")]
    TimedOut,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Writes one message, on the open stream or a new one. A stream that the peer has ended is replaced once, as boxo does; a message that
/// was lost on it would never be asked for again.
async fn write(engine: &Engine, peer: PeerId, stream: &mut Option<Stream>, message: &Bytes) -> Result<(), WriteError> {
    if let Some(open) = stream {
        match write_to(open, message).await {
            Err(WriteError::Io(error)) => tracing::debug!(%peer, %error, "a bitswap stream has ended, opening another"),
            other => return other,
        }
    }
    let open = stream.insert(engine.host.open(peer, &PROTOCOLS).await?.0);
    write_to(open, message).await
}

async fn write_to(stream: &mut Stream, message: &Bytes) -> Result<(), WriteError> {
    match tokio::time::timeout(WRITE, frame::write_frame(stream, message)).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(WriteError::TimedOut),
    }
}

/// Ends a stream in order: one that is only dropped is reset, and a Go peer that is busy then loses what it has not read yet.
async fn end_stream(stream: Option<Stream>) {
    if let Some(mut stream) = stream {
        // The peer may be gone.
        let _ = tokio::time::timeout(IDLE, stream.shutdown()).await;
    }
}

/// There is something to answer to `peer`.
pub(super) fn wake_sender(engine: &Arc<Engine>, state: &mut State, peer: PeerId) {
    if let Some(running) = state.senders.get(&peer) {
        return running.notify_one();
    }
    let wake = Arc::new(Notify::new());
    state.senders.insert(peer, wake.clone());
    tokio::spawn(send_replies(engine.clone(), peer, wake));
}

/// What the protocol of a stream can say.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialect {
    /// 1.2.0: blocks with prefix, answers.
    Full,
    /// 1.1.0: blocks with prefix.
    Blocks,
    /// Before: blocks of CIDv0 only.
    Legacy,
}

impl Dialect {
    fn of(protocol: &str) -> Dialect {
        match protocol {
            "/ipfs/bitswap/1.2.0" => Dialect::Full,
            "/ipfs/bitswap/1.1.0" => Dialect::Blocks,
            _ => Dialect::Legacy,
        }
    }
}

/// Sends replies to one peer, until there has been nothing to send for a while. What could not be sent is owed for as long as the peer is
/// connected: it counts it as asked, and has no other sign that it was lost.
async fn send_replies(engine: Arc<Engine>, peer: PeerId, wake: Arc<Notify>) {
    let mut pause = PAUSE_LEAST;
    while let Err(error) = send_owed(&engine, peer, &wake, &mut pause).await {
        tracing::debug!(%peer, %error, ?pause, "sending replies");
        let takes_none = matches!(error, WriteError::Open(OpenError::Unsupported { .. }));
        let is_over = engine.act(|state, _| {
            let is_over = takes_none || state.is_stopped || !state.known.contains_key(&peer);
            if is_over {
                state.senders.remove(&peer);
                state.served.forget(&peer);
            }
            is_over
        });
        if is_over {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MOST);
    }
}

/// While one reply is written the next is gathered. Every one that was written makes the next `pause` short.
async fn send_owed(engine: &Arc<Engine>, peer: PeerId, wake: &Arc<Notify>, pause: &mut Duration) -> Result<(), WriteError> {
    let (stream, protocol) = engine.host.open(peer, &PROTOCOLS).await?;
    let (mut stream, dialect) = (Some(stream), Dialect::of(&protocol));
    let (mut bulk, mut sent) = (Bulk::default(), 0);
    let mut reply = gather(engine, peer, dialect).await;
    loop {
        if reply.message.is_empty() {
            let is_idle = tokio::time::timeout(IDLE, wake.notified()).await.is_err();
            if (is_idle || engine.state.lock().is_stopped) && end_task(engine, wake, |state| &mut state.senders, &peer) {
                bulk.end().await;
                end_stream(stream).await;
                return Ok(());
            }
            reply = gather(engine, peer, dialect).await;
            continue;
        }
        if dialect == Dialect::Full {
            bulk.consider(engine, peer, sent + reply.bytes).await;
        }
        let writing = write_reply(engine, peer, &mut bulk, &mut stream, &reply.message);
        let (written, next) = tokio::join!(writing, gather(engine, peer, dialect));
        if let Err(error) = written {
            let mut state = engine.state.lock();
            for task in reply.tasks.into_iter().chain(next.tasks) {
                state.served.owe_again(peer, task);
            }
            return Err(error);
        }
        *pause = PAUSE_LEAST;
        let mut state = engine.state.lock();
        let ledger = state.ledger(peer);
        ledger.blocks_sent += reply.blocks;
        ledger.bytes_sent += reply.bytes;
        drop(state);
        sent += reply.bytes;
        reply = next;
    }
}

/// Writes a reply beside libp2p where there is a way, else on the stream.
async fn write_reply(
    engine: &Engine,
    peer: PeerId,
    bulk: &mut Bulk,
    stream: &mut Option<Stream>,
    message: &Message,
) -> Result<(), WriteError> {
    if bulk.send(engine, peer, message).await {
        return Ok(());
    }
    write(engine, peer, stream, &message.encode()).await
}

/// A reply being put together; holds its share of the memory for replies.
struct Reply<'a> {
    message: Message,
    /// What it answers.
    tasks: Vec<Task>,
    blocks: u64,
    bytes: u64,
    _share: Option<tokio::sync::SemaphorePermit<'a>>,
}

/// Puts together the next reply to `peer`; empty when nothing is to be said.
async fn gather(engine: &Engine, peer: PeerId, dialect: Dialect) -> Reply<'_> {
    let mut reply = Reply { message: Message::default(), tasks: Vec::new(), blocks: 0, bytes: 0, _share: None };
    let mut first = engine.state.lock().served.next(&peer);
    if first.is_none() {
        return reply;
    }
    // Never closed.
    reply._share = engine.replies.acquire().await.ok();
    while let Some(task) = first.take().or_else(|| engine.state.lock().served.next(&peer)) {
        let is_taken = answer(engine, &peer, task, dialect, &mut reply).await;
        if !is_taken {
            engine.state.lock().served.put_back(&peer, &task.cid);
            break;
        }
        reply.tasks.push(task);
        if reply.bytes as usize >= engine.limits.message_bytes || reply.message.presences.len() >= PRESENCES {
            break;
        }
    }
    reply
}

/// Adds the answer to one want. False when the reply has no room for it.
async fn answer(engine: &Engine, peer: &PeerId, task: Task, dialect: Dialect, reply: &mut Reply<'_>) -> bool {
    if task.is_refused {
        return say_absent(task, dialect, reply);
    }
    let most = MESSAGE_BYTES_MAX - OVERHEAD;
    let size = match engine.source.size(&task.cid).await {
        Some(size) if size <= most as u64 => size as usize,
        // What does not fit into any message is as good as not here.
        _ => return say_absent(task, dialect, reply),
    };
    let is_block = task.kind == WantKind::Block || size as u64 <= engine.limits.inline_block || dialect != Dialect::Full;
    if !is_block {
        reply.message.presences.push((task.cid, Presence::Have));
        engine.state.lock().served.told_have(peer, &task.cid);
        return true;
    }
    if reply.bytes as usize + size > most {
        return false;
    }
    let Some(data) = engine.source.get(&task.cid).await else { return say_absent(task, dialect, reply) };
    if reply.bytes as usize + data.len() > most {
        return say_absent(task, dialect, reply);
    }
    reply.blocks += 1;
    reply.bytes += data.len() as u64;
    match dialect {
        Dialect::Legacy => reply.message.blocks_legacy.push(data),
        Dialect::Full | Dialect::Blocks => reply.message.blocks.push(Block::new(&task.cid, data)),
    }
    engine.state.lock().served.remove(peer, &task.cid);
    true
}

/// The want stays, for the block may come.
fn say_absent(task: Task, dialect: Dialect, reply: &mut Reply<'_>) -> bool {
    if task.send_dont_have && dialect == Dialect::Full {
        reply.message.presences.push((task.cid, Presence::DontHave));
    }
    true
}
