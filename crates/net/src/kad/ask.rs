//! Asking: one message to a peer, and searches over many.

use super::filter::Scope;
use super::key::Place;
use super::lookup::Lookup;
use super::{Contact, Dht, valid_record};
use crate::frame::{FrameError, read_frame, write_frame};
use crate::streams::OpenError;
use futures::stream::{FuturesUnordered, StreamExt};
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use types::PeerId;
use wire::ipns::Record;
use wire::kad::{self, Kind, MESSAGE_BYTES_MAX, Message};

/// How long one peer may take, the dial included.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a search may take.
pub(super) const SEARCH: Duration = Duration::from_secs(60);
/// Valid records after which no better one is waited for, as in Kubo.
const QUORUM: usize = 16;
/// Most providers that one search brings.
const FOUND_MOST: usize = 128;

/// Why a peer gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("no connection: {0}")]
    Dial(#[from] crate::host::DialError),
    #[error("{0}")]
    Open(#[from] OpenError),
    #[error("the stream broke: {0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Decode(#[from] kad::KadDecodeError),
    #[error("it hung up without an answer")]
    NoAnswer,
    #[error("no answer within {} s", ANSWER.as_secs())]
    TimedOut,
}

impl AskError {
    fn may_be_of_the_connection(&self) -> bool {
        match self {
            AskError::Open(error) => matches!(error, OpenError::NotConnected(_) | OpenError::Lost { .. }),
            AskError::Io(_) | AskError::Frame(FrameError::Io(_)) | AskError::NoAnswer => true,
            AskError::Dial(_) | AskError::Frame(_) | AskError::Decode(_) | AskError::TimedOut => false,
        }
    }
}

/// A search for providers under way; dropped, it ends.
#[derive(Debug)]
pub struct Search {
    /// Who has it, as they are found; ends with the search.
    pub found: mpsc::Receiver<Contact>,
    asked: Arc<AtomicUsize>,
}

impl Search {
    /// How many peers were asked so far.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Dht {
    /// Searches for who has content (by its multihash): at most `most` of them.
    pub fn find_providers(&self, key: &[u8], most: usize) -> Search {
        let most = most.clamp(1, FOUND_MOST);
        let (sender, found) = mpsc::channel(most);
        let asked = Arc::new(AtomicUsize::new(0));
        let (dht, key, count) = (self.clone(), key.to_vec(), asked.clone());
        tokio::spawn(async move {
            let gone = sender.clone();
            tokio::select! {
                () = dht.search_providers(&key, most, &sender, &count) => {}
                () = gone.closed() => {}
            }
        });
        Search { found, asked }
    }

    async fn search_providers(&self, key: &[u8], most: usize, found: &mpsc::Sender<Contact>, asked: &AtomicUsize) {
        let mut told = HashSet::new();
        let own = self.inner.host.id();
        let mut tell = |contact: Contact| {
            if contact.peer != own && told.insert(contact.peer) {
                // There is room for as many as are told.
                let _ = found.try_send(contact);
            }
            told.len() >= most
        };
        let here = self.inner.providers.lock().of(key, Instant::now());
        if here.into_iter().any(&mut tell) {
            return;
        }
        self.search(key, Kind::GetProviders, |_, answer| {
            asked.fetch_add(1, Ordering::Relaxed);
            self.read_contacts(&answer.providers).into_iter().any(&mut tell)
        })
        .await;
    }

    /// Where a peer is; none when nobody knows it.
    pub async fn find_peer(&self, peer: PeerId) -> Option<Contact> {
        if let Some(known) = self.inner.table.lock().get(&peer) {
            return Some(known);
        }
        let mut found = None;
        let search = self.search(peer.as_bytes(), Kind::FindNode, |_, answer| {
            let named = self.read_contacts(&answer.closer).into_iter().find(|contact| contact.peer == peer);
            found = named.filter(|contact| !contact.addresses.is_empty());
            found.is_some()
        });
        // Boxed: the search is a large future, and this is no place for many.
        Box::pin(search).await;
        found
    }

    /// The best valid record under a key (only `/ipns/` has any), and how many peers were asked.
    pub async fn get_value(&self, key: &[u8]) -> (Option<Vec<u8>>, usize) {
        let mut best: Option<Record> = None;
        let mut take = |value: &[u8]| match valid_record(key, value) {
            Ok(record) => {
                if best.as_ref().is_none_or(|best| best.order(&record).is_lt()) {
                    best = Some(record);
                }
                true
            }
            Err(reason) => {
                tracing::debug!(%reason, "a value of the DHT is not taken");
                false
            }
        };
        if let Some(value) = self.inner.values.lock().get(key, Instant::now()) {
            take(value);
        }
        let (mut valid, mut asked) = (0, 0);
        let search = self.search(key, Kind::GetValue, |_, answer| {
            asked += 1;
            let value = answer.record.as_ref().filter(|(of, _)| of == key);
            valid += usize::from(value.is_some_and(|(_, value)| take(value)));
            valid >= QUORUM
        });
        Box::pin(search).await;
        (best.map(|record| record.bytes().to_vec()), asked)
    }

    /// Stores a value at the peers nearest to its key: how many took it, of how many.
    pub async fn put_value(&self, key: &[u8], value: &[u8]) -> Result<(usize, usize), String> {
        valid_record(key, value)?;
        self.inner.values.lock().put(key, value.to_vec(), Instant::now());
        let nearest = self.closest(key).await;
        let message = Message { record: Some((key.to_vec(), value.to_vec())), ..Message::request(Kind::PutValue, key) };
        let message = &message;
        let puts = nearest.iter().map(|peer| async move {
            let answer = self.ask(peer, message).await;
            // Who takes it says it back.
            answer.is_ok_and(|answer| answer.record.is_some_and(|(_, kept)| kept == value))
        });
        let took = futures::future::join_all(puts).await.into_iter().filter(|took| *took).count();
        Ok((took, nearest.len()))
    }

    /// A search for the peers nearest to `key` by requests of one kind; `each` sees every answer and may end it.
    pub(super) async fn search(&self, key: &[u8], kind: Kind, each: impl FnMut(&Contact, &Message) -> bool) -> Lookup {
        self.search_until(key, kind, Instant::now() + SEARCH, HashSet::new(), each).await
    }

    /// The same, until some time: what was learnt by then counts. Those in `silent` are not asked.
    pub(super) async fn search_until(
        &self,
        key: &[u8],
        kind: Kind,
        until: Instant,
        silent: HashSet<PeerId>,
        mut each: impl FnMut(&Contact, &Message) -> bool,
    ) -> Lookup {
        let target = Place::of(key);
        let request = Message::request(kind, key);
        let known = self.inner.table.lock().closest(&target, usize::MAX);
        let mut lookup = Lookup::new(target, self.inner.host.id(), known, silent);
        let mut asking = FuturesUnordered::new();
        loop {
            while let Some(contact) = lookup.next() {
                let request = &request;
                asking.push(async move {
                    let answer = self.ask(&contact, request).await;
                    (contact, answer)
                });
            }
            if lookup.is_over() {
                break;
            }
            let Ok(Some((contact, answer))) = tokio::time::timeout_at(until.into(), asking.next()).await else { break };
            match answer {
                Ok(answer) => {
                    lookup.answered(&contact.peer, self.read_contacts(&answer.closer));
                    if each(&contact, &answer) {
                        break;
                    }
                }
                Err(error) => {
                    tracing::debug!(peer = %contact.peer, %error, "a peer of the DHT does not answer");
                    lookup.failed(&contact.peer);
                }
            }
        }
        lookup
    }

    /// One request; who answers is known to serve, who does not is forgotten.
    pub(super) async fn ask(&self, to: &Contact, message: &Message) -> Result<Message, AskError> {
        let _turn = self.inner.asks.acquire().await.map_err(|_| AskError::NoAnswer)?;
        let asked = tokio::time::timeout(ANSWER, self.exchange_or_again(to, message)).await.unwrap_or(Err(AskError::TimedOut));
        self.note(to, asked.is_ok());
        asked
    }

    /// A connection that was there may end in the moment of the question: that says nothing about the peer, so it is asked over another one.
    async fn exchange_or_again(&self, to: &Contact, message: &Message) -> Result<Message, AskError> {
        let was_connected = self.inner.host.is_connected(&to.peer);
        match self.exchange(to, message).await {
            Err(error) if was_connected && error.may_be_of_the_connection() => {
                tracing::debug!(peer = %to.peer, %error, "a peer of the DHT is asked again");
                self.exchange(to, message).await
            }
            answered => answered,
        }
    }

    /// Remembers whether a peer serves.
    pub(super) fn note(&self, peer: &Contact, answers: bool) {
        let mut table = self.inner.table.lock();
        match answers {
            true if peer.addresses.is_empty() => {}
            true => _ = table.insert(peer.clone(), Instant::now()),
            false => table.remove(&peer.peer),
        }
    }

    async fn exchange(&self, to: &Contact, message: &Message) -> Result<Message, AskError> {
        let mut stream = self.open(to).await?;
        write_frame(&mut stream, &message.encode()).await?;
        let answer = read_frame(&mut stream, MESSAGE_BYTES_MAX).await?.ok_or(AskError::NoAnswer)?;
        let _ = stream.shutdown().await;
        Ok(kad::decode(&answer)?)
    }

    pub(super) async fn open(&self, to: &Contact) -> Result<crate::Stream, AskError> {
        let host = &self.inner.host;
        host.connect(to.peer, &to.addresses).await?;
        Ok(host.open(to.peer, &[self.inner.options.scope.protocol()]).await?.0)
    }

    /// Peers as others name them, with the addresses that belong to this DHT.
    pub(super) fn read_contacts(&self, contacts: &[kad::Contact]) -> Vec<Contact> {
        contacts.iter().map(|contact| self.read_contact(contact)).collect()
    }

    pub(super) fn read_contact(&self, contact: &kad::Contact) -> Contact {
        let loopback = self.is_on_loopback();
        let read = |bytes: &Vec<u8>| read_address(bytes, self.inner.options.scope, loopback);
        Contact { peer: contact.id, addresses: contact.addresses.iter().filter_map(read).collect() }
    }
}

fn read_address(bytes: &[u8], scope: Scope, loopback: bool) -> Option<String> {
    let address = Multiaddr::try_from(bytes.to_vec()).ok()?;
    scope.takes(&address, loopback).then(|| address.to_string())
}

/// Peers in the form of messages.
pub(super) fn written(contact: &Contact) -> kad::Contact {
    let bytes = |text: &String| text.parse::<Multiaddr>().ok().map(|address| without_peer(address).to_vec());
    kad::Contact { id: contact.peer, addresses: contact.addresses.iter().filter_map(bytes).take(kad::ADDRESSES_MAX).collect() }
}

/// Without the `/p2p/` at its end.
pub(super) fn without_peer(mut address: Multiaddr) -> Multiaddr {
    if let Some(Protocol::P2p(_)) = address.iter().last() {
        address.pop();
    }
    address
}
