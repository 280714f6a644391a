//! Many replies to one peer of our kind: over a TCP connection of their own ([`crate::direct`]).
//!
//! ```text
//!   sender                                    receiver
//!   a stream under PROTOCOL ────────────────►
//!                           ◄──────────────── offer
//!   a connection, frames of one reply each ─► taken like those of other streams
//!   an empty frame: the last ───────────────►
//! ```
//! A sender asks for one when it has much to send; until then, and when it breaks, replies go over bitswap's own stream. What was on its way
//! when it broke is lost without the sender's knowledge: the receiver asks again for what it is owed. Where there is no way, none is tried
//! again on the same connection.

use super::link::{self, PROGRESS, READ};
use super::{Engine, Message};
use crate::direct::{DirectReader, DirectWriter, Offer, Offered, while_sender_is_there};
use crate::frame;
use crate::streams::Stream;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use types::PeerId;
use wire::bitswap::MESSAGE_BYTES_MAX;

/// The name under which a receiver makes its offer.
pub(super) const PROTOCOL: &str = "/pinfold/bitswap-direct/1";

/// Less is not worth the round trips.
const BULK: u64 = 1 << 20;

/// So much goes over the stream meanwhile; then what comes next waits a little for the way.
const MEANWHILE: u64 = 4 << 20;

/// How long it waits. A connection that the other side's network swallows is given up after a second.
const WAIT: Duration = Duration::from_millis(1500);

/// The offer and the connection must each come within this.
const ARRIVAL: Duration = Duration::from_secs(10);

/// The longest offer.
const OFFER_MAX: usize = 256;

/// The sender's end.
#[derive(Default)]
pub(super) enum Bulk {
    /// Little has been sent yet.
    #[default]
    NotYet,
    /// And from so many bytes on, replies wait for it.
    Opening(JoinHandle<Option<Box<Way>>>, u64),
    Open(Box<Way>),
    /// There is no way, or it broke.
    Never,
}

pub(super) struct Way {
    direct: DirectWriter,
    /// Its end says that this end is gone.
    stream: Stream,
}

impl Bulk {
    /// Begins to open a way once there are `bytes` that make it worth it, and takes it when it is open.
    pub(super) async fn consider(&mut self, engine: &Arc<Engine>, peer: PeerId, bytes: u64) {
        if matches!(self, Bulk::NotYet) && bytes >= BULK {
            let is_tried = engine.state.lock().without_bulk.contains(&peer);
            let info = engine.host.peer_info(&peer).filter(|info| !is_tried && info.protocols.iter().any(|name| name == PROTOCOL));
            *self = info.map_or(Bulk::Never, |info| {
                // What goes into QUIC stays in it, and where packets are lost QUIC is slow; through yamux goes what the line takes.
                let meanwhile = if info.address.contains("/quic") { 0 } else { MEANWHILE };
                Bulk::Opening(tokio::spawn(open(engine.clone(), peer)), bytes + meanwhile)
            });
        }
        let Bulk::Opening(opening, waits_from) = self else { return };
        let opened = if opening.is_finished() {
            opening.await
        } else if bytes >= *waits_from {
            // Once: a way that opens later is taken then.
            *waits_from = u64::MAX;
            let Ok(opened) = tokio::time::timeout(WAIT, opening).await else { return };
            opened
        } else {
            return;
        };
        *self = opened.ok().flatten().map_or(Bulk::Never, Bulk::Open);
        if matches!(self, Bulk::Never) {
            engine.state.lock().has_no_bulk(peer);
        }
    }

    /// Sends a reply, if there is a way; else it is to take the stream.
    pub(super) async fn send(&mut self, engine: &Engine, peer: PeerId, message: &Message) -> bool {
        let Bulk::Open(way) = self else { return false };
        match way.direct.send(|frame| message.append_to(frame)).await {
            Ok(bytes) => {
                engine.host.traffic().sent.fetch_add(bytes as u64, Ordering::Relaxed);
                engine.sent_directly.fetch_add(bytes as u64, Ordering::Relaxed);
                true
            }
            Err(error) => {
                tracing::debug!(%peer, %error, "replies take bitswap's stream again");
                *self = Bulk::Never;
                engine.state.lock().has_no_bulk(peer);
                false
            }
        }
    }

    /// Nothing more comes.
    pub(super) async fn end(self) {
        if let Bulk::Open(mut way) = self {
            // The receiver may be gone.
            let _ = way.direct.send(|_| ()).await;
            let _ = way.direct.shutdown().await;
            let _ = way.stream.shutdown().await;
        }
    }
}

async fn open(engine: Arc<Engine>, peer: PeerId) -> Option<Box<Way>> {
    let (mut stream, _) = engine.host.open(peer, &[PROTOCOL]).await.ok()?;
    let offer = tokio::time::timeout(ARRIVAL, frame::read_frame(&mut stream, OFFER_MAX)).await.ok()?.ok()??;
    let direct = DirectWriter::open(&engine.host, peer, &Offer::decode(&offer)?).await?;
    Some(Box::new(Way { direct, stream }))
}

/// Makes an offer, and takes what comes by it. One way for each peer.
pub(super) async fn receive(engine: &Arc<Engine>, peer: PeerId, mut stream: Stream) -> io::Result<()> {
    let Some(_place) = Place::take(engine, peer) else { return stream.shutdown().await };
    let door = engine.host.side_door();
    let Some(offered) = Offered::new(door.as_ref(), engine.host.throttle()) else { return stream.shutdown().await };
    frame::write_frame(&mut stream, &offered.offer().encode()).await?;
    let arrived = offered.arrived(MESSAGE_BYTES_MAX);
    let mut direct = tokio::time::timeout(ARRIVAL, arrived).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let taken = take_all(engine, peer, &mut direct, &mut stream).await;
    if taken.is_err() {
        engine.act(|state, now| state.wants.ask_again(&peer, now));
    }
    taken
}

async fn take_all(engine: &Arc<Engine>, peer: PeerId, direct: &mut DirectReader, stream: &mut Stream) -> io::Result<()> {
    let mut is_ended = false;
    loop {
        let head = while_sender_is_there(direct.head(), stream, &mut is_ended).await?;
        let permits = engine.state.lock().readers.get(&peer).cloned();
        let permits = permits.unwrap_or_else(|| Arc::new(Semaphore::new(1)));
        let Ok(permit) = permits.acquire_owned().await else { return Ok(()) };
        let mut come = 0;
        let arrived = |bytes: usize| {
            come += bytes;
            if come >= PROGRESS {
                come = 0;
                engine.state.lock().wants.heard(&peer, std::time::Instant::now());
            }
        };
        let body = while_sender_is_there(direct.body(head, arrived), stream, &mut is_ended);
        let body = tokio::time::timeout(READ, body).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        if body.is_empty() {
            return Ok(());
        }
        engine.host.traffic().received.fetch_add(body.len() as u64, Ordering::Relaxed);
        let message = Message::decode(&body).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        if !message.wants.is_empty() || !message.presences.is_empty() || message.is_full {
            link::take_message(engine, peer, message).await;
            continue;
        }
        // The order of blocks says nothing: the next ones are read while these are proven.
        let engine = engine.clone();
        tokio::spawn(async move {
            link::take_message(&engine, peer, message).await;
            drop(permit);
        });
    }
}

/// The one way that a peer may have.
struct Place {
    engine: Arc<Engine>,
    peer: PeerId,
}

impl Place {
    fn take(engine: &Arc<Engine>, peer: PeerId) -> Option<Place> {
        engine.state.lock().bulk.insert(peer).then(|| Place { engine: engine.clone(), peer })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.engine.state.lock().bulk.remove(&self.peer);
    }
}
