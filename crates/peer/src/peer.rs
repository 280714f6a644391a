//! A running peer: the parts put together, started in order, stopped backwards.

use crate::answering::answer_each;
use crate::bulk;
use crate::claims::Claiming;
use crate::core::Core;
use crate::exchange::RECORDS;
use crate::fill::Fill;
use crate::go::GoMembers;
use crate::handle::{AddSession, ClaimRow, Cluster, CommandError, Identity, Imported, Live, Moment, PinReader, Released, Totals};
use crate::join::{JOIN, Joining};
use crate::limits::{Limits, LimitsAsk, LimitsReport};
use crate::links::{BOOK, Links, MESSAGES};
use crate::looker::Looker;
use crate::moving::Moving;
use crate::names::{ClusterRegisters, Names};
use crate::node::ClusterNode;
use crate::parts::Parts;
use crate::scrub::{Scrub, ScrubAsk, ScrubReport};
use crate::sharded::ShardedAdd;
use crate::submitter::Submitter;
use crate::view;
use crate::waiting::{self, unsettle};
use async_trait::async_trait;
use cluster::{Answer, Balancing, Command, CopyRow, Duty, Event, Explanation, PeerRow, SharedChange, ShortRow, plan};
use consensus::Hint;
use ipfs::IpfsNode;
use net::{Host, Incoming, MessageLimits, Messages, OpenError};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinHandle;
use types::{ByteCount, Cid, Depth, Owner, PeerId, Pin, PinOptions, UnixMillis};

/// How often the own node's space is measured.
const SPACE_EVERY: Duration = Duration::from_secs(2);
/// Not more often than this, however scarce room is.
const SPACE_PAUSE: Duration = Duration::from_millis(50);
/// Pins are counted at most this often, and that takes at most a twentieth of the time.
const COUNT_FRESH: Duration = Duration::from_secs(1);
/// Streams of joins, and of address books, answered at once.
const ANSWERS_AT_ONCE: usize = 64;

/// What takes gossip and connections for the consensus (the CRDT driver). Among Go peers [`crate::go::GoInbound`] stands before it.
pub trait Inbound: Send + Sync + 'static {
    /// A gossip message of one of the host's topics.
    fn gossip(&self, topic: &str, from: PeerId, data: Vec<u8>);
    /// A trusted Pinfold peer handed over a block of the shared state's history.
    fn pushed(&self, from: PeerId, block: Vec<u8>);
    /// A trusted Pinfold peer connected.
    fn connected(&self, peer: PeerId);
    /// A Go peer connected, trusted or not.
    fn go_connected(&self, peer: PeerId);
    /// One of either kind is no longer connected.
    fn disconnected(&self, peer: PeerId);
}

/// What a peer answers on its cluster host. Registered before anybody is dialled, so that no peer finds a protocol missing.
pub struct Protocols {
    messages: Messages,
    received: mpsc::Receiver<(PeerId, Vec<u8>)>,
    joins: Incoming,
    books: Incoming,
    records: Incoming,
}

impl Protocols {
    /// Registers all of them.
    pub fn register(host: &Host) -> Result<Protocols, OpenError> {
        let (messages, received) = Messages::start(host, MESSAGES, MessageLimits::default())?;
        let (joins, books, records) = (host.accept(&[JOIN])?, host.accept(&[BOOK])?, host.accept(&[RECORDS])?);
        Ok(Protocols { messages, received, joins, books, records })
    }
}

impl Protocols {
    /// The channel of messages, for what is told beside the machine.
    pub fn messages(&self) -> Messages {
        self.messages.clone()
    }
}

/// Why and how a peer was asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It runs.
    Running,
    /// It left its cluster and should stop; `purge`: free the disk too.
    Left {
        /// Free the disk too.
        purge: bool,
    },
}

/// A running peer.
pub struct Peer {
    core: Arc<Core>,
    links: Arc<Links>,
    joining: Arc<Joining>,
    moving: Moving,
    claiming: Claiming,
    node_host: Option<Host>,
    cluster: String,
    started: UnixMillis,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    /// How many pins there are, and until when that is taken for true.
    counted: Mutex<Option<(Instant, u64)>>,
    ending: watch::Sender<Ending>,
    scrub: Arc<Scrub>,
    fill: Arc<Fill>,
    limits: Arc<Limits>,
    names: Arc<Names>,
    routing: Option<Arc<dyn ipfs::routing::NodeRouting>>,
}

impl Peer {
    /// Starts all tasks (see [`crate::tasks`]); ready when it returns.
    pub async fn start(parts: Parts) -> Result<Arc<Peer>, String> {
        let owner = Owner::Cluster(parts.cluster.clone());
        let (me, name) = (parts.host.id(), parts.own.name.clone());
        let records = parts.machine.records.clone();
        let core = Core::new(parts.machine, parts.consensus, parts.node, parts.store, parts.trust, owner);
        core.know_first_authors(&records, me);
        let Protocols { messages, received, joins, books, records: records_asked } = parts.protocols;
        let links = Links::new(parts.host.clone(), messages, &core, parts.inbound.clone(), parts.own);
        let moving = Moving::new(core.clone(), parts.key.clone(), parts.host.id());
        let claiming = Claiming::new(core.clone(), parts.key.clone(), me);
        let registers = ClusterRegisters::new(core.clone(), parts.key.clone(), me);
        let joining = Joining::new(core.clone(), links.clone(), parts.key, parts.secret, parts.cluster.clone());
        let peer = Arc::new(Peer {
            started: core.now().wall,
            core: core.clone(),
            links: links.clone(),
            joining: joining.clone(),
            moving,
            claiming,
            node_host: parts.node_host,
            cluster: parts.cluster,
            tasks: Mutex::new(Vec::new()),
            counted: Mutex::new(None),
            ending: watch::Sender::new(Ending::Running),
            scrub: Scrub::new(core.clone(), parts.scrub),
            fill: Fill::new(core.clone()),
            limits: Limits::new(core.clone(), parts.limits),
            names: Names::new(parts.names, Arc::new(registers)),
            routing: parts.routing,
        });
        links.set_node_addresses(core.node.addresses().await);
        peer.measure_space().await;

        let mut tasks = vec![
            tokio::spawn(take_hints(core.clone())),
            tokio::spawn(core.clone().run_clock()),
            tokio::spawn(Submitter::run(core.clone())),
            tokio::spawn(Looker::run(core.clone())),
            tokio::spawn(crate::addresses::run(links.clone(), parts.inbound, parts.host_events)),
            tokio::spawn(take_messages(links.clone(), received)),
            tokio::spawn(crate::garbage::collect(core.clone())),
            tokio::spawn(crate::garbage::rest(core.clone())),
            tokio::spawn(peer.scrub.clone().run()),
            tokio::spawn(peer.fill.clone().run()),
            tokio::spawn(peer.limits.clone().run()),
            tokio::spawn(peer.names.clone().run()),
            tokio::spawn(answer_each(joins, ANSWERS_AT_ONCE, {
                let joining = joining.clone();
                move |peer, stream| joining.clone().answer(peer, stream)
            })),
            tokio::spawn(answer_each(books, ANSWERS_AT_ONCE, {
                let links = links.clone();
                move |peer, stream| links.clone().answer_book(peer, stream)
            })),
            tokio::spawn(crate::exchange::serve(links.exchanges(), records_asked)),
            tokio::spawn(crate::adopt::run(core.clone(), parts.adopt, me, name)),
        ];
        let measured = Arc::downgrade(&peer);
        tasks.push(tokio::spawn(async move {
            loop {
                tokio::time::sleep(SPACE_PAUSE).await;
                let Some(peer) = measured.upgrade() else { return };
                let core = peer.core.clone();
                drop(peer);
                tokio::time::timeout(SPACE_EVERY, core.measure.notified()).await.ok();
                drop(core);
                let Some(peer) = measured.upgrade() else { return };
                peer.measure_space().await;
            }
        }));
        peer.tasks.lock().extend(tasks);
        core.feed(Event::Shared(SharedChange::View(view_state(core.consensus.state()))));
        if !parts.welcome.is_empty() {
            joining.welcomed(&parts.welcome).await?;
        }
        for connected in parts.host.connected() {
            links.connected(connected);
        }
        links.keep_connections().await;
        Ok(peer)
    }

    /// How it is to end; changes once.
    pub fn ending(&self) -> watch::Receiver<Ending> {
        self.ending.subscribe()
    }

    /// The recent notices, oldest first.
    pub fn notices(&self) -> Vec<(UnixMillis, cluster::Notice, String)> {
        self.core.notices()
    }

    /// Stops: the machine issues nothing more, operations end, then the tasks. Doors are stopped before, stores after.
    pub async fn stop(&self) {
        let tasks: Vec<JoinHandle<()>> = std::mem::take(&mut *self.tasks.lock());
        for task in &tasks {
            task.abort();
        }
        for task in tasks {
            // Aborted tasks answer with an error that says so.
            task.await.ok();
        }
        self.core.stop_operations();
        self.core.consensus.stop().await;
    }

    async fn measure_space(&self) {
        match self.core.node.space().await {
            Ok(space) => self.core.feed(Event::Space { limit: space.limit, used: space.used, upkeep: space.upkeep }),
            Err(error) => tracing::warn!(%error, "measuring the node's space"),
        }
        self.links.set_node_addresses(self.core.node.addresses().await);
    }

    fn count_pins(&self) -> u64 {
        if let Some(pins) = self.core.consensus.counted() {
            return pins;
        }
        let mut counted = self.counted.lock();
        match *counted {
            Some((until, pins)) if Instant::now() < until => pins,
            _ => {
                let begun = Instant::now();
                let pins = bulk::count(self.core.consensus.view().as_ref());
                // A page that is looked at asks each second; counting many pins must not become the main work.
                *counted = Some((Instant::now() + COUNT_FRESH.max(begun.elapsed() * 20), pins));
                pins
            }
        }
    }
}

fn view_state(state: consensus::ViewState) -> cluster::ViewState {
    match state {
        consensus::ViewState::Unknown => cluster::ViewState::Unknown,
        consensus::ViewState::CatchingUp => cluster::ViewState::CatchingUp,
        consensus::ViewState::Current => cluster::ViewState::Current,
    }
}

async fn take_hints(core: Arc<Core>) {
    let mut hints = core.consensus.hints();
    core.hinted(hints.seen());
    while let Some(hint) = hints.next().await {
        let change = match hint {
            Hint::Finding(finding) => {
                core.found(finding);
                core.hinted(hints.seen());
                continue;
            }
            Hint::Changes(changes) => SharedChange::Pins(changes.into_iter().filter_map(pin_change).collect()),
            Hint::Lagged => SharedChange::Lagged,
            Hint::State(state) => SharedChange::View(view_state(state)),
        };
        core.feed(Event::Shared(change));
        core.hinted(hints.seen());
    }
}

fn pin_change(change: consensus::Change) -> Option<cluster::PinChange> {
    let cid = Cid::try_from(change.key.as_slice()).ok()?;
    let read = |stored: Option<::bytes::Bytes>| stored.and_then(|stored| view::read_pin(&change.key, &stored));
    let is_removal = change.after.is_none();
    let after = read(change.after.clone());
    // A value that does not read is no removal: nothing is let go because of it.
    if after.is_none() && !is_removal {
        return None;
    }
    Some(cluster::PinChange { cid, before: read(change.before.clone()).map(|(pin, _)| pin), after })
}

async fn take_messages(links: Arc<Links>, mut received: mpsc::Receiver<(PeerId, Vec<u8>)>) {
    while let Some((peer, bytes)) = received.recv().await {
        links.received(peer, &bytes).await;
    }
}

fn unexpected() -> CommandError {
    CommandError::Failed("the machine gave an answer of another kind".to_owned())
}

#[async_trait]
impl Cluster for Peer {
    async fn identity(&self) -> Identity {
        Identity {
            peer: self.links.host().id(),
            name: self.links.own().name.clone(),
            cluster: self.cluster.clone(),
            addresses: self.links.host().addresses(),
            node: self.core.node.id(),
            node_addresses: self.core.node.addresses().await,
            started: self.started,
        }
    }

    fn peers(&self) -> Vec<PeerRow> {
        let mut rows = self.core.read(|machine, now| machine.peers(now));
        for row in &mut rows {
            if let Some(name) = self.links.name_of(&row.peer).filter(|_| row.name.is_empty()) {
                row.name = name;
            }
            if row.is_self {
                let own = self.links.own();
                (row.gateway, row.api) = (own.gateway.clone(), own.api.clone());
            }
        }
        rows
    }

    fn totals(&self) -> Totals {
        let (waiting, short, parts) =
            self.core.read(|machine, _| (machine.exceptions_count(), machine.short_count(), machine.pieces_count()));
        // Shards are parts of what people pinned.
        let authors = self.core.consensus.authors();
        let wrongly_signed = if authors.required { 0 } else { authors.wrong };
        let consensus::TakenOver { unsure, mended } = self.core.consensus.taken_over();
        let pins = self.count_pins().saturating_sub(parts);
        Totals { pins, short, waiting, left_out: authors.left_out, wrongly_signed, unsure, mended }
    }

    async fn pin(&self, cid: Cid, options: PinOptions, depth: Depth) -> Result<Pin, CommandError> {
        match self.core.command(Command::Pin { cid, options, depth, size: None, lease: None }).await {
            Some(Answer::Pinned(pin)) => Ok(*pin),
            Some(Answer::NotPinned) => Err(CommandError::NotPinned),
            Some(Answer::Refused(why)) => Err(why.into()),
            Some(_) => Err(unexpected()),
            None => Err(CommandError::Stopping),
        }
    }

    async fn unpin(&self, cid: Cid) -> Result<Pin, CommandError> {
        match self.core.command(Command::Unpin { cid }).await {
            Some(Answer::Unpinned(pin)) => Ok(*pin),
            Some(Answer::NotPinned) => Err(CommandError::NotPinned),
            Some(Answer::Refused(why)) => Err(why.into()),
            Some(_) => Err(unexpected()),
            None => Err(CommandError::Stopping),
        }
    }

    async fn claim(&self, cid: Cid, owner: &str, name: &str, options: PinOptions) -> Result<Pin, CommandError> {
        self.claiming.claim(cid, owner, name, options).await
    }

    async fn release(&self, owner: &str, what: Released) -> Result<Vec<Pin>, CommandError> {
        self.claiming.release(owner, what).await
    }

    fn claims(&self, owner: Option<&str>) -> Vec<ClaimRow> {
        self.claiming.rows(owner)
    }

    async fn recover(&self, cid: Option<Cid>) -> Result<Vec<Cid>, CommandError> {
        match self.core.command(Command::Recover { cid }).await {
            Some(Answer::Recovered(cids)) => Ok(cids),
            Some(Answer::Refused(why)) => Err(why.into()),
            Some(_) => Err(unexpected()),
            None => Err(CommandError::Stopping),
        }
    }

    async fn add(&self, mut options: PinOptions, size: Option<ByteCount>, local: bool) -> Result<Box<dyn AddSession>, CommandError> {
        if local && options.prefer.is_empty() {
            options.prefer.push(self.links.host().id());
        }
        let add = ShardedAdd::begin(self.core.clone(), self.node_host.clone(), options, size).await?;
        Ok(Box::new(add))
    }

    fn pin_of(&self, cid: &Cid) -> Option<Pin> {
        waiting::pin_now(&self.core, cid).map(|(pin, _)| pin)
    }

    fn pins(&self, after: Option<&Cid>, limit: usize) -> Vec<Pin> {
        view::pins_after(self.core.consensus.view().as_ref(), after, limit).into_iter().map(|(pin, _)| pin).collect()
    }

    async fn status(&self, cid: &Cid) -> (Option<Pin>, Vec<CopyRow>) {
        let (pin, is_told) = waiting::told_pin(&self.core, cid).await;
        let known = pin.as_ref().map(|(pin, version)| (pin, *version));
        let mut rows = self.core.read(|machine, now| machine.status_of(known, cid, now));
        unsettle(rows.iter_mut().map(|row| (&mut row.state, &mut row.because)), is_told);
        (pin.map(|(pin, _)| pin), self.named(rows))
    }

    async fn status_page(&self, pins: &[Pin]) -> Vec<Vec<CopyRow>> {
        let is_told = self.core.caught_up().await;
        let rows: Vec<Vec<CopyRow>> = self.core.read(|machine, now| {
            let of = |pin: &Pin| machine.status_of(Some((pin, wire::pin::pin_version(&wire::pin::encode_pin(pin)))), &pin.cid, now);
            pins.iter().map(of).collect()
        });
        let named = |mut rows: Vec<CopyRow>| {
            unsettle(rows.iter_mut().map(|row| (&mut row.state, &mut row.because)), is_told);
            self.named(rows)
        };
        rows.into_iter().map(named).collect()
    }

    async fn short_rows(&self, pins: &[Pin], rows: &mut Vec<ShortRow>) -> usize {
        let before = rows.len();
        let is_told = self.core.caught_up().await;
        let view = view::View::new(self.core.consensus.as_ref(), self.core.store.as_ref());
        self.core.read(|machine, now| machine.short_rows(pins, now, &|cid| cluster::SharedView::is_ours(&view, cid), rows));
        unsettle(rows.iter_mut().skip(before).map(|row| (&mut row.state, &mut row.because)), is_told);
        (rows.len() - before).checked_div(pins.len()).unwrap_or(0)
    }

    fn read_pins(&self, moment: Moment) -> Box<dyn PinReader> {
        Box::new(bulk::Reader::new(self.core.consensus.clone(), moment))
    }

    async fn import(&self, pins: Vec<Pin>, renews: bool) -> Result<Imported, CommandError> {
        bulk::import(&self.core, pins, renews).await
    }

    async fn why(&self, cid: &Cid) -> Option<Explanation> {
        let (pin, version) = waiting::told_pin(&self.core, cid).await.0?;
        let mut why = self.core.read(|machine, now| machine.explain(&pin, version, now));
        for (row, _) in &mut why.peers {
            if let Some(name) = self.links.name_of(&row.peer).filter(|_| row.name.is_empty()) {
                row.name = name;
            }
        }
        Some(why)
    }

    async fn wait_copies(&self, cid: &Cid, copies: u32, limit: Duration) -> u32 {
        crate::waiting::wait_copies(self, &self.core, cid, copies, limit).await
    }

    fn live(&self) -> broadcast::Receiver<Live> {
        self.core.live()
    }

    fn live_notices(&self) -> broadcast::Receiver<Live> {
        self.core.live_notices()
    }

    async fn invite(&self, ttl: Duration) -> Result<String, CommandError> {
        self.joining.invite(ttl).map_err(CommandError::Failed)
    }

    async fn leave(&self, purge: bool, force: bool) -> Result<u64, CommandError> {
        match self.core.command(Command::Leave { force }).await {
            Some(Answer::Left { stranded }) => {
                // The answer should reach the one who asked before the doors close.
                let ending = self.ending.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    ending.send_replace(Ending::Left { purge });
                });
                Ok(stranded)
            }
            Some(Answer::Refused(why)) => Err(why.into()),
            Some(_) => Err(unexpected()),
            None => Err(CommandError::Stopping),
        }
    }

    async fn approve_removals(&self) -> Result<(), CommandError> {
        match self.core.command(Command::ApproveRemovals).await {
            Some(_) => Ok(()),
            None => Err(CommandError::Stopping),
        }
    }

    fn paths(&self) -> crate::Paths {
        crate::Paths::of(self.links.host(), self.node_host.as_ref())
    }

    fn forecasts(&self) -> BTreeMap<PeerId, UnixMillis> {
        self.fill.forecasts()
    }

    async fn limits(&self, ask: LimitsAsk) -> Result<LimitsReport, CommandError> {
        self.limits.ask(ask).map_err(CommandError::Failed)
    }

    async fn scrub(&self, ask: ScrubAsk) -> Result<ScrubReport, CommandError> {
        Ok(self.scrub.ask(ask).await)
    }

    async fn set_duty(&self, peer: PeerId, duty: Duty) -> Result<(), CommandError> {
        self.moving.set_duty(&peer, duty).await
    }

    fn duty(&self, peer: &PeerId) -> Duty {
        self.core.read(|machine, _| machine.duty(peer))
    }

    fn pins_held(&self) -> u64 {
        let view = view::View::new(self.core.consensus.as_ref(), self.core.store.as_ref());
        cluster::SharedView::ledger_count(&view)
    }

    fn authors(&self) -> consensus::AuthorNumbers {
        self.core.consensus.authors()
    }

    async fn set_balancing(&self, mode: Balancing) -> Result<(), CommandError> {
        self.moving.set_balancing(mode).await
    }

    fn balancing(&self) -> Balancing {
        self.core.read(|machine, _| machine.balancing())
    }

    async fn plan(&self, goal: plan::Goal) -> Result<plan::Plan, CommandError> {
        self.moving.plan(goal).await
    }

    fn go(&self) -> Option<Arc<dyn GoMembers>> {
        self.core.go()
    }

    fn node(&self) -> Arc<dyn IpfsNode> {
        Arc::new(ClusterNode::new(self.core.clone()))
    }

    fn names(&self) -> Option<Arc<Names>> {
        Some(self.names.clone())
    }

    fn routing(&self) -> Option<Arc<dyn ipfs::routing::NodeRouting>> {
        self.routing.clone()
    }

    fn own_node(&self) -> Arc<dyn IpfsNode> {
        self.core.node.clone()
    }
}

impl Peer {
    /// Tells the doors of the Go peers of a mixed cluster; once.
    pub fn set_go(&self, go: Weak<dyn GoMembers>) {
        self.core.set_go(go);
    }

    /// Decides for the whole cluster, and for good, that blocks of the shared state count without a member's signature too.
    pub async fn accept_unsigned(&self) -> Result<(), CommandError> {
        self.moving.accept_unsigned().await
    }

    /// What the Go side tells the machine and reads of it.
    pub fn mind(&self) -> Arc<dyn crate::go::Mind> {
        self.core.mind()
    }

    /// So many Go peers are connected, and none of them takes what this peer writes.
    pub fn distrusted(&self, peers: u32) {
        self.core.feed(Event::Distrusted(peers));
    }

    fn named(&self, mut rows: Vec<CopyRow>) -> Vec<CopyRow> {
        for row in &mut rows {
            if let Some(name) = self.links.name_of(&row.peer).filter(|_| row.name.is_empty()) {
                row.name = name;
            }
        }
        rows
    }
}
