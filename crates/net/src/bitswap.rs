//! Bitswap: fetching blocks from peers and serving them, in Kubo's protocol.
//!
//! One engine on one host and one store; a process with two hosts has two engines that never see each other's store.
//!
//! ```text
//!   Session::fetch ──► wants (decides whom to ask) ──► one writer a peer ──► want lists
//!   inbound streams ─► reader: decodes, proves blocks ─► wants (blocks, answers) and served (want lists)
//!   BlockSource ◄───── one sender a peer ◄──────────── served (decides who gets what next)
//! ```
//!
//! - Blocks are proven by their hash before anybody sees them; what nobody asked for is dropped and counted.
//! - A fetch dropped is a want cancelled. A fetch ends with the block, with "not found" or with a time-out, always in bounded time.
//! - Replies travel in messages of about 1 MiB on one long-lived stream a peer, or beside it (`bulk`); a peer that does not read gets no
//!   further blocks read.
//!
//! Deliberately absent: finding providers (callers name them; without names connected peers are asked), storing what was fetched
//! (callers do, and say so with [`Bitswap::have`]).

mod bulk;
mod link;
mod served;
mod session;
mod verify;
mod wants;

pub use session::{FetchError, Session};

use crate::host::{Host, Links};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use served::Served;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, Semaphore, oneshot, watch};
use types::{Cid, PeerId};
use wants::{Failure, Wants};
use wire::bitswap::Message;

/// The names of bitswap, best first.
pub(crate) const PROTOCOLS: [&str; 4] = ["/ipfs/bitswap/1.2.0", "/ipfs/bitswap/1.1.0", "/ipfs/bitswap/1.0.0", "/ipfs/bitswap"];

/// Peers whose ledger is kept; those that left go first.
const LEDGERS_MAX: usize = 4096;

/// Where blocks to be served come from. Both may be called at any time, in any order, and dropped half-way.
#[async_trait]
pub trait BlockSource: Send + Sync + 'static {
    /// The block, if it is here. Never fetches.
    async fn get(&self, cid: &Cid) -> Option<Bytes>;
    /// Its size, if it is here.
    async fn size(&self, cid: &Cid) -> Option<u64>;
}

/// The bounds of an engine.
#[derive(Clone, Copy, Debug)]
pub struct BitswapLimits {
    /// Blocks asked of one peer at once.
    pub peer_blocks: usize,
    /// Bytes asked of one peer at once, by the average of its blocks.
    pub peer_bytes: u64,
    /// A peer that owes something and says nothing for so long loses it to another peer, if there is one.
    pub silence: Duration,
    /// A peer that owes something and says nothing for so long is given up.
    pub patience: Duration,
    /// A fetch waits so long for a named provider that is not connected.
    pub absence: Duration,
    /// Wants kept for one peer that is served; boxo keeps 1,024.
    pub wants_per_peer: usize,
    /// Blocks up to this size are sent to those who only ask whether they are here, as boxo does.
    pub inline_block: u64,
    /// A reply is sent when it has so many bytes.
    pub message_bytes: usize,
    /// Replies in memory at once, for all peers.
    pub messages: usize,
    /// Messages of one peer being read at once.
    pub reads_per_peer: usize,
    /// Blocks that [`Session::fetch_many`] wants at once.
    pub many: usize,
}

impl Default for BitswapLimits {
    fn default() -> BitswapLimits {
        BitswapLimits {
            peer_blocks: 128,
            peer_bytes: 32 << 20,
            silence: Duration::from_secs(5),
            patience: Duration::from_secs(30),
            absence: Duration::from_secs(3),
            wants_per_peer: 16 << 10,
            inline_block: 1024,
            message_bytes: 1 << 20,
            messages: 128,
            reads_per_peer: 4,
            many: 256,
        }
    }
}

/// What was exchanged with a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Bytes of blocks sent to it.
    pub bytes_sent: u64,
    /// Bytes of blocks from it that were wanted.
    pub bytes_received: u64,
    /// Blocks sent to it.
    pub blocks_sent: u64,
    /// Blocks from it that were wanted.
    pub blocks_received: u64,
    /// Blocks from it that nobody waited for: late, double, or unasked.
    pub blocks_unasked: u64,
}

/// A handle on a running engine.
#[derive(Clone)]
pub struct Bitswap {
    engine: Arc<Engine>,
}

impl std::fmt::Debug for Bitswap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bitswap({:?})", self.engine.host)
    }
}

struct Engine {
    host: Host,
    source: Arc<dyn BlockSource>,
    limits: BitswapLimits,
    state: Mutex<State>,
    /// There are wants to watch over.
    awake: Notify,
    replies: Semaphore,
    wants_refused: AtomicU64,
    sent_directly: AtomicU64,
}

struct State {
    /// Who is connected, and whom the machines below know to be.
    links: watch::Receiver<Links>,
    known: Links,
    wants: Wants,
    waiters: HashMap<Cid, Vec<Waiter>>,
    served: Served,
    ledgers: BTreeMap<PeerId, Ledger>,
    /// Tasks that write want lists, and those that send replies; each is woken when there is something to do.
    writers: HashMap<PeerId, Arc<Notify>>,
    senders: HashMap<PeerId, Arc<Notify>>,
    /// How many messages of a peer may still be read at once.
    readers: HashMap<PeerId, Arc<Semaphore>>,
    /// Peers that send replies beside libp2p.
    bulk: HashSet<PeerId>,
    /// Connected peers to which no way leads beside libp2p.
    without_bulk: HashSet<PeerId>,
    next_id: u64,
    is_stopped: bool,
}

struct Waiter {
    id: u64,
    reply: oneshot::Sender<Result<Bytes, FetchError>>,
}

impl Bitswap {
    /// Starts an engine; it ends with the host. To be called before peers are dialled, so that they see that this host speaks bitswap.
    pub fn start(host: Host, source: Arc<dyn BlockSource>, limits: BitswapLimits) -> Bitswap {
        let beside = host.side_door().map(|_| bulk::PROTOCOL);
        let names: Vec<&str> = PROTOCOLS.into_iter().chain(beside).collect();
        let incoming = host.accept(&names).expect("these are protocol names");
        let links = host.links();
        let mut unseen = links.clone();
        // Whoever is connected already must be learnt too.
        unseen.mark_changed();
        let state = State {
            links: unseen,
            known: Links::new(),
            wants: Wants::new(limits),
            waiters: HashMap::new(),
            served: Served::new(limits.wants_per_peer),
            ledgers: BTreeMap::new(),
            writers: HashMap::new(),
            senders: HashMap::new(),
            readers: HashMap::new(),
            bulk: HashSet::new(),
            without_bulk: HashSet::new(),
            next_id: 0,
            is_stopped: false,
        };
        let engine = Arc::new(Engine {
            host,
            source,
            limits,
            state: Mutex::new(state),
            awake: Notify::new(),
            replies: Semaphore::new(limits.messages),
            wants_refused: AtomicU64::new(0),
            sent_directly: AtomicU64::new(0),
        });
        link::spawn(&engine, incoming, links);
        Bitswap { engine }
    }

    /// A session: fetches that belong together, so that whoever had one block is asked first for the next.
    pub fn session(&self) -> Session {
        Session::new(self.engine.clone())
    }

    /// These blocks are in the store: peers that wait for them get them, and so does who fetches them here.
    pub fn have(&self, cids: &[Cid]) {
        let mut state = self.engine.state.lock();
        for peer in state.served.arrived(cids) {
            link::wake_sender(&self.engine, &mut state, peer);
        }
        let fetched: Vec<Cid> = cids.iter().filter(|cid| state.waiters.contains_key(cid)).copied().collect();
        if !fetched.is_empty() {
            link::settle(&self.engine, fetched);
        }
    }

    /// What was exchanged with `peer` so far.
    pub fn ledger(&self, peer: &PeerId) -> Ledger {
        self.engine.state.lock().ledgers.get(peer).copied().unwrap_or_default()
    }

    /// The sum of all ledgers (those of peers long gone are left out).
    pub fn total(&self) -> Ledger {
        let state = self.engine.state.lock();
        state.ledgers.values().fold(Ledger::default(), |sum, ledger| Ledger {
            bytes_sent: sum.bytes_sent + ledger.bytes_sent,
            bytes_received: sum.bytes_received + ledger.bytes_received,
            blocks_sent: sum.blocks_sent + ledger.blocks_sent,
            blocks_received: sum.blocks_received + ledger.blocks_received,
            blocks_unasked: sum.blocks_unasked + ledger.blocks_unasked,
        })
    }

    /// Wants of peers that were not taken, because they had too many.
    pub fn wants_refused(&self) -> u64 {
        self.engine.wants_refused.load(Ordering::Relaxed)
    }

    /// Bytes of replies that went over TCP connections of their own.
    pub fn sent_directly(&self) -> u64 {
        self.engine.sent_directly.load(Ordering::Relaxed)
    }

    /// Blocks that are being fetched.
    pub fn fetching(&self) -> usize {
        self.engine.state.lock().waiters.len()
    }
}

impl Engine {
    /// Learns who came and went, changes the state, then does what the machine of wants says. Without the first, a fetch right after
    /// a dial would find nobody to ask and fail.
    fn act<T>(self: &Arc<Self>, change: impl FnOnce(&mut State, Instant) -> T) -> T {
        let mut state = self.state.lock();
        let now = Instant::now();
        state.learn_links(self.limits.reads_per_peer, now);
        let result = change(&mut state, now);
        for (cid, failure) in state.wants.take_failures() {
            let error = match failure {
                Failure::NotFound { asked } => FetchError::NotFound { asked },
                Failure::TimedOut => FetchError::Timeout,
            };
            state.answer(&cid, &Err(error));
        }
        for peer in state.wants.take_dirty() {
            link::wake_writer(self, &mut state, peer);
        }
        result
    }
}

impl State {
    /// A peer that left and came again between two looks has another number: what it owed must be asked again. So must what one owes that
    /// has a direct connection at last: Go's bitswap neither answers over a relay nor comes back to it.
    fn learn_links(&mut self, reads_per_peer: usize, now: Instant) {
        if !self.links.has_changed().unwrap_or(false) {
            return;
        }
        let connected = self.links.borrow_and_update().clone();
        for (peer, link) in std::mem::take(&mut self.known) {
            let now_there = connected.get(&peer);
            if now_there.is_none_or(|now_there| now_there.number != link.number) {
                self.wants.disconnected(&peer, now);
                self.served.forget(&peer);
                self.readers.remove(&peer);
                self.without_bulk.remove(&peer);
            } else if now_there != Some(&link) {
                self.wants.ask_again(&peer, now);
            }
        }
        for peer in connected.keys().filter(|peer| !self.readers.contains_key(peer)).copied().collect::<Vec<_>>() {
            self.readers.insert(peer, Arc::new(Semaphore::new(reads_per_peer)));
            self.wants.connected(peer, now);
        }
        self.known = connected;
    }

    /// No way leads to `peer` beside libp2p, as long as this connection lasts.
    fn has_no_bulk(&mut self, peer: PeerId) {
        if self.known.contains_key(&peer) {
            self.without_bulk.insert(peer);
        }
    }

    /// Gives everybody who waits for `cid` the result.
    fn answer(&mut self, cid: &Cid, result: &Result<Bytes, FetchError>) {
        for waiter in self.waiters.remove(cid).into_iter().flatten() {
            // Who is gone has dropped its fetch at this moment.
            let _ = waiter.reply.send(result.clone());
        }
    }

    fn ledger(&mut self, peer: PeerId) -> &mut Ledger {
        if self.ledgers.len() >= LEDGERS_MAX && !self.ledgers.contains_key(&peer) {
            let gone = self.ledgers.keys().find(|known| !self.readers.contains_key(known)).copied();
            if let Some(gone) = gone.or_else(|| self.ledgers.keys().next().copied()) {
                self.ledgers.remove(&gone);
            }
        }
        self.ledgers.entry(peer).or_default()
    }
}
