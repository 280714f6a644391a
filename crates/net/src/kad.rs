//! The DHT of IPFS (Kademlia, as go-libp2p-kad-dht speaks it): who has content, where peers are, records of names.
//!
//! ```text
//!   Dht (handle) ──► ask: searches (lookup decides whom) ──► streams, one a question
//!                └─► provide: regions of the ring (region), many keys to each peer on one stream
//!   serve ◄── streams of others: table (peers), records (providers, values)
//!   keep: one task; learns peers from identify, dials the first ones, refreshes the table, forgets what expired
//! ```
//! There are two of them, as in Kubo: one among private addresses and one among public ones ([`Scope`]); they share code and nothing else.
//! The messages are our own and not libp2p's behaviour, since that can neither tell many keys to chosen peers nor keep both scopes' addresses
//! apart.
//!
//! Deliberately absent: which content is told and when (whoever has the blocks decides), believing anything: a provider is only a hint, and a
//! record proves itself.

mod ask;
mod filter;
mod key;
mod lookup;
mod provide;
mod records;
mod region;
mod serve;
mod table;

pub use ask::Search;
pub use filter::Scope;
pub use key::Place;
pub use provide::Told;
pub use region::Region;

use crate::host::Host;
use crate::streams::OpenError;
use ask::without_peer;
use futures::stream::{self, StreamExt};
use libp2p::Multiaddr;
use parking_lot::Mutex;
use records::{Providers, Values};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use table::Table;
use tokio::sync::{Semaphore, broadcast};
use types::{PeerId, UnixMillis};
use wire::ipns::{self, Record};
use wire::kad::{Kind, Message};

/// Questions of this host that are under way at once.
const ASKS_MOST: usize = 128;
/// How often the task looks after things.
const LOOK: Duration = Duration::from_secs(5);
/// How often the table is refreshed, as in Kubo.
const REFRESH: Duration = Duration::from_secs(600);
/// After a peer was learnt while few were known.
const REFRESH_SOON: Duration = Duration::from_millis(300);
/// With fewer known peers the first ones are dialled again.
const FEW: usize = 4;
/// Pauses between such dials.
const DIAL_PAUSE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));
/// Distances that one refresh searches in.
const DEPTHS_MOST: usize = 15;
/// Keys of names begin so.
const NAMES: &[u8] = b"/ipns/";

/// A peer and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// Who.
    pub peer: PeerId,
    /// Multiaddrs, without `/p2p/`.
    pub addresses: Vec<String>,
}

/// Whether this host answers others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It only asks.
    Client,
    /// It asks and answers.
    Server,
    /// It answers where others reach it: always on the local net, else when it knows of a public address.
    Auto,
}

/// How a DHT behaves.
#[derive(Clone, Debug)]
pub struct DhtOptions {
    /// Which of the two.
    pub scope: Scope,
    /// Whether it answers.
    pub mode: Mode,
    /// Peers that are dialled while few are known: multiaddrs with `/p2p/`.
    pub bootstrap: Vec<String>,
    /// Words of providers that are kept for others.
    pub providers_most: usize,
}

impl DhtOptions {
    /// The usual ones of a scope, with nobody to begin with.
    pub fn new(scope: Scope) -> DhtOptions {
        // Each takes some 200 bytes: 40 MB at most.
        DhtOptions { scope, mode: Mode::Auto, bootstrap: Vec::new(), providers_most: 200_000 }
    }
}

/// How a DHT is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DhtStatus {
    /// Which of the two.
    pub scope: Scope,
    /// Whether it answers others.
    pub is_server: bool,
    /// Whether others could reach this host at an address of this scope.
    pub is_reachable: bool,
    /// Known peers.
    pub peers: usize,
    /// Words of providers that are kept for others.
    pub providers: usize,
    /// Values likewise.
    pub values: usize,
}

/// A handle on one DHT of a host; it ends with the host.
#[derive(Clone)]
pub struct Dht {
    inner: Arc<Inner>,
}

struct Inner {
    host: Host,
    options: DhtOptions,
    table: Mutex<Table>,
    providers: Mutex<Providers>,
    values: Mutex<Values>,
    asks: Semaphore,
    is_server: AtomicBool,
    /// Whether this host listens on loopback and nowhere else: then its local net is this machine.
    is_on_loopback: AtomicBool,
}

impl std::fmt::Debug for Dht {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Dht({}, {:?})", self.inner.options.scope.label(), self.inner.host)
    }
}

impl Dht {
    /// Takes part from now on. To be called before peers are dialled, so that they see what this host speaks.
    pub fn start(host: &Host, options: DhtOptions) -> Result<Dht, OpenError> {
        let own = Place::of_peer(&host.id());
        let inner = Arc::new(Inner {
            host: host.clone(),
            table: Mutex::new(Table::new(own)),
            providers: Mutex::new(Providers::new(options.providers_most)),
            values: Mutex::default(),
            asks: Semaphore::new(ASKS_MOST),
            is_server: AtomicBool::new(false),
            is_on_loopback: AtomicBool::new(false),
            options,
        });
        let dht = Dht { inner };
        let server = dht.follow_mode(None)?;
        let learnt = host.identified();
        tokio::spawn(dht.clone().keep(learnt, server));
        Ok(dht)
    }

    /// What it is, for people.
    pub fn label(&self) -> String {
        format!("the DHT ({})", self.scope().label())
    }

    /// Which of the two it is.
    pub fn scope(&self) -> Scope {
        self.inner.options.scope
    }

    /// How it is.
    pub fn status(&self) -> DhtStatus {
        let inner = &self.inner;
        DhtStatus {
            scope: inner.options.scope,
            is_server: inner.is_server.load(Ordering::Relaxed),
            is_reachable: !self.own_contact().addresses.is_empty(),
            peers: inner.table.lock().len(),
            providers: inner.providers.lock().len(),
            values: inner.values.lock().len(),
        }
    }

    /// Waits until the host is stopped.
    pub async fn stopped(&self) {
        self.inner.host.stopped().await;
    }

    /// Whether it is.
    pub fn is_stopped(&self) -> bool {
        self.inner.host.is_stopped()
    }

    /// Asks the peers that were of no use since the last time whether they are still there, then searches for the own neighbours and in every
    /// distance known, which fills the places of those that are not.
    pub async fn refresh(&self) {
        let own = self.inner.host.id();
        let unheard = self.inner.table.lock().unheard(Instant::now(), REFRESH);
        // Not a ping: the protocol has one that must no longer be sent.
        let question = Message::request(Kind::FindNode, own.as_bytes());
        stream::iter(&unheard).for_each_concurrent(ASKS_MOST / 4, |peer| async { _ = self.ask(peer, &question).await }).await;
        self.search(own.as_bytes(), Kind::FindNode, |_, _| false).await;
        let depths = self.inner.table.lock().depths();
        for depth in depths.into_iter().take(DEPTHS_MOST) {
            let key = provide::key_at_depth(&Place::of_peer(&own), depth);
            self.search(&key, Kind::FindNode, |_, _| false).await;
        }
    }

    /// The task: ends with the host.
    async fn keep(self, mut learnt: broadcast::Receiver<PeerId>, mut server: Option<Server>) {
        let mut refresh_at = Instant::now() + REFRESH;
        let mut expire_at = refresh_at;
        let (mut dial_at, mut dial_pause) = (Instant::now(), DIAL_PAUSE.0);
        let mut refreshing = None;
        // The first look comes at once.
        let mut look_at = Instant::now();
        loop {
            tokio::select! {
                () = self.inner.host.stopped() => return,
                peer = learnt.recv() => {
                    let known = self.inner.table.lock().len();
                    match peer {
                        Ok(peer) => self.learn(&peer),
                        Err(broadcast::error::RecvError::Lagged(_)) => self.inner.host.connected().iter().for_each(|peer| self.learn(peer)),
                        Err(broadcast::error::RecvError::Closed) => return,
                    }
                    let is_more = self.inner.table.lock().len() > known;
                    if is_more && known <= table::K {
                        refresh_at = refresh_at.min(Instant::now() + REFRESH_SOON);
                    }
                    continue;
                }
                () = tokio::time::sleep_until(look_at.min(refresh_at).into()) => {}
            }
            let now = Instant::now();
            look_at = now + LOOK;
            if expire_at <= now {
                expire_at = now + REFRESH;
                self.inner.providers.lock().expire(now);
                self.inner.values.lock().expire(now);
            }
            match self.follow_mode(server.take()) {
                Ok(followed) => server = followed,
                Err(error) => tracing::warn!(%error, "answering in the DHT"),
            }
            if self.inner.table.lock().len() >= FEW {
                dial_pause = DIAL_PAUSE.0;
            } else if dial_at <= now && !self.inner.options.bootstrap.is_empty() {
                dial_at = now + dial_pause;
                dial_pause = (dial_pause * 2).min(DIAL_PAUSE.1);
                tokio::spawn(self.clone().bootstrap());
            }
            if refresh_at <= now && refreshing.as_ref().is_none_or(tokio::task::JoinHandle::is_finished) {
                refresh_at = now + REFRESH;
                let dht = self.clone();
                refreshing = Some(tokio::spawn(async move { dht.refresh().await }));
            }
        }
    }

    async fn bootstrap(self) {
        let host = &self.inner.host;
        let dials = self.inner.options.bootstrap.iter().map(|address| async move {
            if let Err(error) = host.dial(address).await {
                tracing::debug!(address, %error, "a first peer of the DHT is not reached");
            }
        });
        futures::future::join_all(dials).await;
    }

    /// Takes a connected peer in when it serves this DHT and is reached in its scope.
    fn learn(&self, peer: &PeerId) {
        let Some(info) = self.inner.host.peer_info(peer) else { return };
        let scope = self.inner.options.scope;
        if !info.protocols.iter().any(|name| name == scope.protocol()) {
            return;
        }
        // Who comes from a public address says nothing about the local net.
        let is_here = scope == Scope::Wan || info.address.parse().is_ok_and(|address| scope.takes(&address, true));
        if let Some(contact) = self.connected_contact(peer).filter(|_| is_here) {
            self.inner.table.lock().insert(contact, Instant::now());
        }
    }

    /// Where a connected peer says it listens, in this scope; none where nowhere.
    fn connected_contact(&self, peer: &PeerId) -> Option<Contact> {
        let info = self.inner.host.peer_info(peer)?;
        let addresses = self.in_scope(&info.listens);
        (!addresses.is_empty()).then_some(Contact { peer: *peer, addresses })
    }

    /// Where others reach this host, in this scope.
    fn own_contact(&self) -> Contact {
        Contact { peer: self.inner.host.id(), addresses: self.in_scope(&self.inner.host.addresses()) }
    }

    fn in_scope(&self, addresses: &[String]) -> Vec<String> {
        let loopback = self.is_on_loopback();
        let read = addresses.iter().filter_map(|text| text.parse::<Multiaddr>().ok()).map(without_peer);
        let mut kept: Vec<String> =
            read.filter(|address| self.inner.options.scope.takes(address, loopback)).map(|address| address.to_string()).collect();
        kept.dedup();
        kept.truncate(wire::kad::ADDRESSES_MAX);
        kept
    }

    fn is_on_loopback(&self) -> bool {
        self.inner.is_on_loopback.load(Ordering::Relaxed)
    }

    /// Begins or ends to answer, as the mode and the own addresses say.
    fn follow_mode(&self, server: Option<Server>) -> Result<Option<Server>, OpenError> {
        let inner = &self.inner;
        let own: Vec<Multiaddr> = inner.host.addresses().iter().filter_map(|text| text.parse().ok()).collect();
        inner.is_on_loopback.store(!own.is_empty() && own.iter().all(filter::is_loopback), Ordering::Relaxed);
        let has_public = || own.iter().any(filter::is_public);
        let is_wanted = match (inner.options.mode, inner.options.scope) {
            (Mode::Client, _) => false,
            (Mode::Server, _) | (Mode::Auto, Scope::Lan) => true,
            (Mode::Auto, Scope::Wan) => has_public(),
        };
        inner.is_server.store(is_wanted, Ordering::Relaxed);
        match (server, is_wanted) {
            (None, true) => {
                let incoming = inner.host.accept(&[inner.options.scope.protocol()])?;
                Ok(Some(Server(tokio::spawn(serve::serve(self.clone(), incoming)))))
            }
            (server, true) => Ok(server),
            (_, false) => Ok(None),
        }
    }
}

/// The task that answers; dropped, it ends, and the name is no longer offered.
struct Server(tokio::task::JoinHandle<()>);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The best of some values under a key, of those that are valid.
pub fn best_record(key: &[u8], values: impl Iterator<Item = Vec<u8>>) -> Option<Vec<u8>> {
    let records = values.filter_map(|value| valid_record(key, &value).ok());
    records.max_by(Record::order).map(|record| record.bytes().to_vec())
}

/// A record of a name that is its key's and has not ended; other kinds of values are not kept.
fn valid_record(key: &[u8], value: &[u8]) -> Result<Record, String> {
    let name = key.strip_prefix(NAMES).and_then(|name| PeerId::from_bytes(name).ok());
    let name = name.ok_or("only records of names are kept")?;
    let record = ipns::decode(value).map_err(|error| error.to_string())?;
    record.verify(&name, crate::keys::is_signed).map_err(|error| error.to_string())?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64);
    if record.is_expired(UnixMillis(now).into()) {
        return Err("the record has ended".to_owned());
    }
    Ok(record)
}
