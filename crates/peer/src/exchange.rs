//! Records of two Pinfold peers that meet: only what one of them lacks goes over the wire.
//!
//! ```text
//!   asker                                          asked
//!     │ ◄──────────────────────────── ready          │
//!     │ ranges: how all names look ───────────────►  │
//!     │ ◄───── ranges: the same, parts, or names     │   until the asker knows what each one lacks ([`compare`])
//!     │ records that the other lacks ─────────────►  │
//!     │ ◄──────────────────────────── ready          │
//!     │ wanted: names ────────────────────────────►  │
//!     │ ◄───────────────────────────── records       │
//! ```
//! Both peers ask, since an older one does not (it sends everything by itself, and is sent everything). One after the other: whose id is larger asks first,
//! and lets the other begin when that is over, so that what it gave and took is not sent again.
//!
//! Anybody in the private network may ask: a peer that joins does not know yet whom to trust, and records prove themselves. So all is
//! bounded: messages, their number, time, and how many ask at once.

mod compare;
mod shelf;

pub use shelf::CoreShelf;

use async_trait::async_trait;
use compare::Names;
use net::{Host, Incoming, OpenError};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, Semaphore};
use types::{PeerId, SignedRecord};
use wire::reconcile::{Exchange, LONGEST, RECORDS_BYTES, RecordName, WANTED_MAX, decode, encode, name_of};
use wire::record::encode_record;

/// The protocol's name.
pub const RECORDS: &str = "/pinfold/records/1";
/// Members that are answered at once; further ones wait.
const MEMBERS_AT_ONCE: usize = 8;
/// The same for peers that are not trusted (yet).
const STRANGERS_AT_ONCE: usize = 2;
/// Streams of one peer at once: one whose end is not seen yet, and the next.
const STREAMS_OF_ONE: usize = 2;
/// Questions until the differences are known: eight suffice for 100,000 records of which none is common.
const QUESTIONS_MOST: usize = 100;
/// Messages in one exchange, from who asks.
const MESSAGES_MOST: usize = 1_000;
/// Records that are taken of one peer in one exchange.
const TAKEN_MOST: usize = 1 << 17;
/// Records handed over together on this side.
const TOGETHER: usize = 256;
/// One message and its answer take no longer.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// All of them together.
const ALL_WITHIN: Duration = Duration::from_secs(600);

/// The records of this peer.
#[async_trait]
pub trait Shelf: Send + Sync {
    /// Names of all records, each with a key to find it again.
    async fn names(&self) -> Result<BTreeMap<RecordName, Vec<u8>>, String>;
    /// The record under a key, as it is now.
    fn record(&self, key: &[u8]) -> Option<SignedRecord>;
    /// Takes what a peer gave, checked by nobody yet.
    fn take(&self, from: PeerId, records: Vec<SignedRecord>);
    /// Whether the peer is a member.
    fn is_member(&self, peer: &PeerId) -> bool;
}

/// How an exchange went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Both had the same records when it began, or gave so many and took so many.
    Done {
        /// Sent.
        gave: usize,
        /// Received.
        took: usize,
    },
    /// The other does not speak it: it is an older peer, or Go's.
    NotSpoken,
    /// It is not there any more.
    Gone,
}

/// Exchanges records with other peers.
pub struct Exchanges {
    host: Host,
    shelf: Arc<dyn Shelf>,
    /// Peers that are asked; where this one has the larger id also those that are answered.
    busy: Mutex<BTreeSet<PeerId>>,
    /// Streams of each peer that are answered, or wait for it.
    answered: Mutex<BTreeMap<PeerId, usize>>,
    freed: Notify,
    members: Semaphore,
    strangers: Semaphore,
}

/// Held while an exchange with a peer runs.
struct Turn<'a>(&'a Exchanges, PeerId);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.busy.lock().remove(&self.1);
        self.0.freed.notify_waiters();
    }
}

impl Exchanges {
    /// Over a host on which [`RECORDS`] is accepted.
    pub fn new(host: Host, shelf: Arc<dyn Shelf>) -> Exchanges {
        let (members, strangers) = (Semaphore::new(MEMBERS_AT_ONCE), Semaphore::new(STRANGERS_AT_ONCE));
        Exchanges { host, shelf, busy: Mutex::default(), answered: Mutex::default(), freed: Notify::new(), members, strangers }
    }

    /// Gives a peer what it lacks, and takes what this one lacks.
    pub async fn ask(&self, peer: PeerId) -> Result<Outcome, String> {
        let _turn = self.turn(peer).await;
        let mut stream = match self.host.open(peer, &[RECORDS]).await {
            Ok((stream, _)) => stream,
            Err(OpenError::Unsupported { .. }) => return Ok(Outcome::NotSpoken),
            Err(_) if !self.host.is_connected(&peer) => return Ok(Outcome::Gone),
            Err(error) => return Err(error.to_string()),
        };
        match tokio::time::timeout(ALL_WITHIN, ask(&mut stream, self.shelf.as_ref(), peer)).await {
            Ok(Ok((gave, took))) => Ok(Outcome::Done { gave, took }),
            Ok(Err(_)) if !self.host.is_connected(&peer) => Ok(Outcome::Gone),
            Ok(Err(why)) => Err(why),
            Err(_) => Err("it did not end in time".to_owned()),
        }
    }

    /// Answers a peer that opened a stream.
    pub async fn answer<S: AsyncRead + AsyncWrite + Unpin>(&self, peer: PeerId, mut stream: S) -> Result<(), String> {
        if !self.begins(peer) {
            return Err("it asks too often at once".to_owned());
        }
        let answering = async {
            let _place = if self.shelf.is_member(&peer) {
                self.members.acquire().await.map_err(|error| error.to_string())?
            } else {
                self.strangers.try_acquire().map_err(|_| "too many strangers ask".to_owned())?
            };
            let _turn = if self.host.id() > peer { Some(self.turn(peer).await) } else { None };
            answer(&mut stream, self.shelf.as_ref(), peer).await
        };
        let outcome = tokio::time::timeout(ALL_WITHIN, answering).await;
        self.ended(&peer);
        outcome.map_err(|_| "it did not end in time".to_owned())?
    }

    fn begins(&self, peer: PeerId) -> bool {
        let mut answered = self.answered.lock();
        let streams = answered.entry(peer).or_default();
        if *streams >= STREAMS_OF_ONE {
            return false;
        }
        *streams += 1;
        true
    }

    fn ended(&self, peer: &PeerId) {
        let mut answered = self.answered.lock();
        if let Some(streams) = answered.get_mut(peer) {
            *streams -= 1;
            if *streams == 0 {
                answered.remove(peer);
            }
        }
    }

    /// One exchange with a peer at a time: whose id is larger sees to it, and the other one waits at the stream.
    async fn turn(&self, peer: PeerId) -> Turn<'_> {
        loop {
            let freed = self.freed.notified();
            if self.busy.lock().insert(peer) {
                return Turn(self, peer);
            }
            freed.await;
        }
    }
}

/// Answers everybody, until the host stops.
pub async fn serve(exchanges: Arc<Exchanges>, mut asked: Incoming) {
    while let Some((peer, _, stream)) = asked.next().await {
        let exchanges = exchanges.clone();
        tokio::spawn(async move {
            if let Err(why) = exchanges.answer(peer, stream).await {
                tracing::debug!(%peer, %why, "an exchange of records broke off");
            }
        });
    }
}

/// The asker's side; gives how many records it gave and took.
async fn ask<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, shelf: &dyn Shelf, peer: PeerId) -> Result<(usize, usize), String> {
    // The other may have to end another exchange first.
    let Exchange::Ready = hear(stream, ALL_WITHIN).await? else { return Err(odd("before the first question")) };
    let keys = shelf.names().await?;
    let names = Names::new(keys.keys().copied().collect());
    let (mut give, mut want) = (BTreeSet::new(), BTreeSet::new());
    let mut question = names.first();
    for _ in 0..QUESTIONS_MOST {
        if question.is_empty() {
            break;
        }
        let Exchange::Ranges(answer) = talk(stream, Exchange::Ranges(question)).await? else { return Err(odd("to a question")) };
        let compared = names.compare(&answer);
        give.extend(compared.only_here);
        want.extend(compared.only_there.into_iter().take(TAKEN_MOST.saturating_sub(want.len())));
        question = compared.ask;
    }
    // What the other has in an older version is replaced by this, and not wanted any more.
    let gave = give_all(stream, shelf, &keys, give).await?;
    let took = take_all(stream, shelf, peer, want).await?;
    Ok((gave, took))
}

async fn give_all<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    shelf: &dyn Shelf,
    keys: &BTreeMap<RecordName, Vec<u8>>,
    give: BTreeSet<RecordName>,
) -> Result<usize, String> {
    let mut given = 0;
    let mut rest: Vec<RecordName> = give.into_iter().collect();
    while !rest.is_empty() {
        let (records, looked_at) = gathered(shelf, keys, &rest);
        rest.drain(..looked_at);
        if records.is_empty() {
            continue;
        }
        given += records.len();
        let Exchange::Ready = talk(stream, Exchange::Records(records)).await? else { return Err(odd("to records")) };
    }
    Ok(given)
}

async fn take_all<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    shelf: &dyn Shelf,
    peer: PeerId,
    mut want: BTreeSet<RecordName>,
) -> Result<usize, String> {
    let mut taken = 0;
    while !want.is_empty() {
        let wanted: Vec<RecordName> = want.iter().take(WANTED_MAX).copied().collect();
        let last = *wanted.last().unwrap_or(&[0; 16]);
        let Exchange::Records(records) = talk(stream, Exchange::Wanted(wanted)).await? else { return Err(odd("to what is wanted")) };
        let named = records.into_iter().map(|record| (name_of(&encode_record(&record)), record));
        let records: Vec<(RecordName, SignedRecord)> = named.filter(|(name, _)| want.contains(name)).collect();
        // Answers come in the order of what was wanted: what was passed over is not there any more.
        let until = records.iter().map(|(name, _)| *name).max().unwrap_or(last);
        want.retain(|name| *name > until);
        taken += records.len();
        hand_over(shelf, peer, records.into_iter().map(|(_, record)| record).collect());
    }
    Ok(taken)
}

/// The asked one's side, until the asker is done.
async fn answer<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, shelf: &dyn Shelf, peer: PeerId) -> Result<(), String> {
    say(stream, &Exchange::Ready).await?;
    let mut held: Option<(Names, BTreeMap<RecordName, Vec<u8>>)> = None;
    let mut taken = 0;
    for _ in 0..MESSAGES_MOST {
        let Some(message) = hear_next(stream, ANSWER_WITHIN).await? else { return Ok(()) };
        let (names, keys) = match held.as_ref() {
            Some(held) => held,
            None => {
                let keys = shelf.names().await?;
                held.insert((Names::new(keys.keys().copied().collect()), keys))
            }
        };
        let answer = match message {
            Exchange::Ranges(ranges) => Exchange::Ranges(names.answer(&ranges)),
            Exchange::Wanted(wanted) => Exchange::Records(gathered(shelf, keys, &wanted).0),
            Exchange::Records(records) => {
                taken += records.len();
                if taken > TAKEN_MOST {
                    return Err(format!("{peer} gives more than {TAKEN_MOST} records"));
                }
                hand_over(shelf, peer, records);
                Exchange::Ready
            }
            Exchange::Ready => return Err(odd("from who asks")),
        };
        say(stream, &answer).await?;
    }
    Err(format!("{peer} asks too much"))
}

/// The first of these records that fit into one message, and how many names that took.
fn gathered(shelf: &dyn Shelf, keys: &BTreeMap<RecordName, Vec<u8>>, names: &[RecordName]) -> (Vec<SignedRecord>, usize) {
    let (mut records, mut bytes, mut looked_at) = (Vec::new(), 0, 0);
    for name in names {
        if bytes >= RECORDS_BYTES {
            break;
        }
        looked_at += 1;
        let Some(record) = keys.get(name).and_then(|key| shelf.record(key)) else { continue };
        let encoded = encode_record(&record);
        // Written again since the names were read: it goes its own way.
        if name_of(&encoded) == *name {
            bytes += encoded.len();
            records.push(record);
        }
    }
    (records, looked_at)
}

fn hand_over(shelf: &dyn Shelf, peer: PeerId, mut records: Vec<SignedRecord>) {
    while !records.is_empty() {
        let rest = records.split_off(records.len().min(TOGETHER));
        shelf.take(peer, std::mem::replace(&mut records, rest));
    }
}

async fn talk<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, message: Exchange) -> Result<Exchange, String> {
    say(stream, &message).await?;
    hear(stream, ANSWER_WITHIN).await
}

async fn say<S: AsyncWrite + Unpin>(stream: &mut S, message: &Exchange) -> Result<(), String> {
    let bytes = encode(message);
    let written = tokio::time::timeout(ANSWER_WITHIN, net::frame::write_frame(stream, &bytes)).await;
    written.map_err(|_| "it takes nothing".to_owned())?.map_err(|error| error.to_string())
}

async fn hear<S: AsyncRead + Unpin>(stream: &mut S, within: Duration) -> Result<Exchange, String> {
    hear_next(stream, within).await?.ok_or_else(|| "it ended without an answer".to_owned())
}

async fn hear_next<S: AsyncRead + Unpin>(stream: &mut S, within: Duration) -> Result<Option<Exchange>, String> {
    let read = tokio::time::timeout(within, net::frame::read_frame(stream, LONGEST)).await;
    let frame = read.map_err(|_| "it says nothing".to_owned())?.map_err(|error| error.to_string())?;
    frame.map(|frame| decode(&frame).map_err(|error| error.to_string())).transpose()
}

fn odd(when: &str) -> String {
    format!("a message of another kind {when}")
}

#[cfg(test)]
mod costs;
#[cfg(test)]
mod tests;
