//! A host that speaks as a Go peer would, and this peer's Go side over a cluster in memory.

mod holding;

use super::*;
use crate::handle::{AddSession, CommandError, Identity, Live, Totals};
use ::bytes::Bytes;
use async_trait::async_trait;
use cluster::{Balancing, CopyRow, Duty, Event, Explanation, PeerHealth, PeerRow, plan};
use dag::hash::HashFn;
use ipfs::memory::MemoryNode;
use ipfs::{Block, Blocks, IpfsNode, PinProgress, PinTask, Pins, Source};
use net::gorpc::{Arguments, CallError, Failure, Method, Replies, Request, Router, call_collect, call_unary};
use net::{GossipOptions, HostEvent, HostEvents, HostOptions};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use tokio::sync::broadcast;
use types::{Because, ByteCount, Cid, Depth, Owner, Pin, PinKind, PinOptions, PinState, Replicas, UnixMillis};
use wire::metric::{Metric, PingValue, decode_metric, encode_metric};
use wire::rpc::{BlockWithMeta, Id, IpfsId, Message, PinInfo, PinInfoShort, RepoGc, RepoStat, RpcPin, Version, encode};
use wire::status::{Filter, bit};

const DEADLINE: Duration = Duration::from_secs(5);
const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

fn peer(number: u8) -> PeerId {
    PeerId::from_ed25519(&[number; 32])
}

fn block(text: &str) -> Block {
    Block::new(0x55, HashFn::SHA2_256, Bytes::copy_from_slice(text.as_bytes())).unwrap()
}

/// A cluster of this peer and one other Pinfold peer, in memory.
struct Twin {
    me: PeerId,
    node: Arc<MemoryNode>,
    pins: Mutex<BTreeMap<Cid, Pin>>,
    waiting: Mutex<BTreeMap<Cid, Because>>,
    live: broadcast::Sender<Live>,
}

impl Twin {
    fn new(me: PeerId) -> Arc<Twin> {
        Arc::new(Twin { me, node: MemoryNode::new(), pins: Mutex::default(), waiting: Mutex::default(), live: broadcast::channel(16).0 })
    }

    fn write(&self, cid: Cid, placement: &[PeerId], kind: PinKind) {
        let options = PinOptions {
            name: "a pin".into(),
            replicas: if placement.is_empty() { Replicas::Everywhere } else { Replicas::default() },
            ..PinOptions::default()
        };
        let pin = Pin { cid, kind, options, placement: placement.to_vec(), depth: Depth::Recursive, reference: None, created: NOW };
        self.pins.lock().insert(cid, pin);
    }

    /// What the tracker does when a pin's blocks are here.
    async fn hold(&self, cid: Cid) {
        let task = PinTask { owner: Owner::Cluster("twins".into()), cid, depth: Depth::Recursive, source: Source::local() };
        self.node.pin(task, Arc::new(tokio::sync::watch::Sender::new(PinProgress::default()))).await.unwrap();
        self.live.send(Live::Pin(cid)).ok();
    }

    fn row(&self, pin: Option<&Pin>, cid: &Cid) -> CopyRow {
        let because = self.waiting.lock().get(cid).cloned();
        let state = match (pin, &because) {
            (None, _) => PinState::Unpinned,
            (Some(_), Some(Because::Failed { .. })) => PinState::PinError,
            (Some(_), Some(_)) => PinState::PinQueued,
            (Some(_), None) => PinState::Pinned,
        };
        CopyRow {
            peer: self.me,
            name: "own".into(),
            state,
            because,
            next_try: None,
            tries: 3,
            since: NOW,
            as_of: NOW,
            is_live: true,
            progress: None,
            is_placed: true,
        }
    }
}

struct Read(std::vec::IntoIter<Pin>);

impl crate::PinReader for Read {
    fn next(&mut self, limit: usize, each: &mut dyn FnMut(&Pin)) -> Result<usize, CommandError> {
        Ok(self.0.by_ref().take(limit).map(|pin| each(&pin)).count())
    }
}

#[async_trait]
impl Cluster for Twin {
    async fn identity(&self) -> Identity {
        Identity {
            peer: self.me,
            name: "own".into(),
            cluster: "twins".into(),
            addresses: vec![format!("/ip4/127.0.0.1/tcp/9096/p2p/{}", self.me)],
            node: Some(peer(91)),
            node_addresses: vec![format!("/ip4/10.0.0.1/tcp/4001/p2p/{}", peer(91)), format!("/ip4/127.0.0.1/tcp/4001/p2p/{}", peer(91))],
            started: NOW,
        }
    }

    fn peers(&self) -> Vec<PeerRow> {
        let row = |peer: PeerId, name: &str| PeerRow {
            peer,
            name: name.into(),
            is_self: peer == self.me,
            health: PeerHealth::Up,
            duty: Duty::InUse,
            load: None,
            heard: NOW,
            clock_ahead: Some(0),
            node_addresses: Vec::new(),
            gateway: None,
            api: None,
            space_limit: ByteCount(10_000),
            space_used: ByteCount(3000),
            space_reserved: ByteCount(1000),
            exceptions: 200_000,
        };
        vec![row(self.me, "own"), row(peer(50), "other")]
    }

    fn totals(&self) -> Totals {
        Totals::default()
    }

    async fn pin(&self, cid: Cid, options: PinOptions, depth: Depth) -> Result<Pin, CommandError> {
        let placement = options.prefer.clone();
        let pin = Pin { cid, kind: PinKind::Data, options, placement, depth, reference: None, created: NOW };
        self.pins.lock().insert(cid, pin.clone());
        Ok(pin)
    }

    async fn unpin(&self, cid: Cid) -> Result<Pin, CommandError> {
        self.pins.lock().remove(&cid).ok_or(CommandError::NotPinned)
    }

    async fn recover(&self, cid: Option<Cid>) -> Result<Vec<Cid>, CommandError> {
        let mut waiting = self.waiting.lock();
        let again: Vec<Cid> = waiting.keys().filter(|own| cid.is_none_or(|cid| cid == **own)).copied().collect();
        waiting.retain(|own, _| !again.contains(own));
        Ok(again)
    }

    async fn add(&self, _: PinOptions, _: Option<ByteCount>, _: bool) -> Result<Box<dyn AddSession>, CommandError> {
        Err(CommandError::Stopping)
    }

    fn pin_of(&self, cid: &Cid) -> Option<Pin> {
        self.pins.lock().get(cid).cloned()
    }

    fn pins(&self, after: Option<&Cid>, limit: usize) -> Vec<Pin> {
        self.pins.lock().values().filter(|pin| after.is_none_or(|after| pin.cid > *after)).take(limit).cloned().collect()
    }

    async fn status(&self, cid: &Cid) -> (Option<Pin>, Vec<CopyRow>) {
        let pin = self.pin_of(cid);
        let row = self.row(pin.as_ref(), cid);
        (pin, vec![row])
    }

    async fn status_page(&self, pins: &[Pin]) -> Vec<Vec<CopyRow>> {
        pins.iter().map(|pin| vec![self.row(Some(pin), &pin.cid)]).collect()
    }

    fn read_pins(&self, _: crate::Moment) -> Box<dyn crate::PinReader> {
        Box::new(Read(self.pins(None, usize::MAX).into_iter()))
    }

    async fn import(&self, _: Vec<Pin>, _: bool) -> Result<crate::Imported, CommandError> {
        Err(CommandError::Stopping)
    }

    async fn why(&self, _: &Cid) -> Option<Explanation> {
        None
    }

    async fn wait_copies(&self, _: &Cid, _: u32, _: Duration) -> u32 {
        0
    }

    fn live(&self) -> broadcast::Receiver<Live> {
        self.live.subscribe()
    }

    async fn invite(&self, _: Duration) -> Result<String, CommandError> {
        Err(CommandError::Stopping)
    }

    async fn leave(&self, _: bool, _: bool) -> Result<u64, CommandError> {
        Err(CommandError::Stopping)
    }

    async fn approve_removals(&self) -> Result<(), CommandError> {
        Ok(())
    }

    async fn set_duty(&self, _: PeerId, _: Duty) -> Result<(), CommandError> {
        Err(CommandError::Stopping)
    }

    async fn set_balancing(&self, _: Balancing) -> Result<(), CommandError> {
        Err(CommandError::Stopping)
    }

    fn balancing(&self) -> Balancing {
        Balancing::Auto
    }

    async fn plan(&self, _: plan::Goal) -> Result<plan::Plan, CommandError> {
        Err(CommandError::Stopping)
    }

    fn node(&self) -> Arc<dyn IpfsNode> {
        self.node.clone()
    }

    fn own_node(&self) -> Arc<dyn IpfsNode> {
        self.node.clone()
    }
}

/// Answers `Cluster.ID` as a Go peer.
struct GoLike {
    id: PeerId,
    /// Whether this peer is in its list.
    trusts: Arc<AtomicBool>,
    /// How its pins stand, for lists.
    list: Arc<Mutex<Vec<PinInfo>>>,
    /// The blocks that it was sent; the one after so many is refused.
    blocks: Arc<Mutex<(Vec<Cid>, usize)>>,
}

#[async_trait]
impl Router for GoLike {
    fn method(&self, request: &Request) -> Method {
        if ["StatusAll", "RecoverAllLocal", "BlockStream"].contains(&&*request.method) { Method::Stream } else { Method::Unary }
    }

    fn authorise(&self, _: &PeerId, request: &Request) -> bool {
        *request == Request::new("Cluster", "ID") || self.trusts.load(Ordering::Relaxed)
    }

    async fn unary(&self, _: PeerId, request: &Request, argument: Bytes) -> Result<Vec<u8>, Failure> {
        if *request == Request::new("PinTracker", "Status") || *request == Request::new("PinTracker", "Recover") {
            let cid: Cid = wire::rpc::decode(&argument).unwrap();
            let attempt_count = if request.method == "Recover" { 3 } else { 2 };
            let short = PinInfoShort { status: bit(PinState::Pinned), attempt_count, ..PinInfoShort::default() };
            return Ok(encode(&PinInfo { cid: Some(cid), peer: Some(self.id), short, ..PinInfo::default() }));
        }
        if *request == Request::new("IPFSConnector", "RepoStat") {
            return Ok(encode(&RepoStat { repo_size: 400, storage_max: 1000 }));
        }
        assert_eq!(*request, Request::new("Cluster", "ID"));
        let address = wire::multiaddr::from_text(&format!("/ip4/127.0.0.1/tcp/7/p2p/{}", peer(92))).unwrap();
        let ipfs = IpfsId { id: Some(peer(92)), addresses: Some(vec![address]), error: String::new() };
        Ok(encode(&Id { id: Some(self.id), peer_name: "go1".into(), version: "1.1.6".into(), ipfs: Some(ipfs), ..Id::default() }))
    }

    async fn stream(&self, _: PeerId, request: &Request, arguments: &mut Arguments, replies: &mut Replies) -> Result<(), Failure> {
        if request.method == "BlockStream" {
            while let Some(argument) = arguments.next().await? {
                let block: BlockWithMeta = wire::rpc::decode(&argument).unwrap();
                let mut blocks = self.blocks.lock();
                if blocks.0.len() == blocks.1 {
                    return Err(Failure::method("the disk is full"));
                }
                blocks.0.push(block.cid.unwrap());
            }
            return Ok(());
        }
        let filter = match &*request.method {
            "StatusAll" => wire::rpc::decode(&arguments.next().await?.unwrap()).unwrap(),
            _ => Filter(bit(PinState::PinError)),
        };
        let list = self.list.lock().clone();
        for info in list.iter().filter(|info| filter.has(wire::status::of_bit(info.short.status).unwrap())) {
            replies.send(&encode(info)).await?;
        }
        Ok(())
    }
}

/// What the consensus is told.
#[derive(Default)]
struct Wish(Mutex<Vec<String>>);

impl Inbound for Wish {
    fn gossip(&self, topic: &str, _: PeerId, _: Vec<u8>) {
        self.0.lock().push(topic.to_owned());
    }

    fn pushed(&self, _: PeerId, _: Vec<u8>) {}

    fn connected(&self, _: PeerId) {}

    fn go_connected(&self, peer: PeerId) {
        self.0.lock().push(format!("+{peer}"));
    }

    fn disconnected(&self, peer: PeerId) {
        self.0.lock().push(format!("-{peer}"));
    }
}

/// The machine's ear.
#[derive(Default)]
struct Ear {
    heard: Mutex<Vec<Event>>,
    kept: Mutex<Vec<PeerId>>,
    twin: OnceLock<Arc<Twin>>,
}

impl Mind for Ear {
    fn feed(&self, event: Event) {
        self.heard.lock().push(event);
    }

    fn pin(&self, cid: &Cid) -> Option<(Pin, u64)> {
        Some((self.twin.get()?.pin_of(cid)?, 7))
    }

    fn pins_after(&self, after: Option<&Cid>, limit: usize) -> Vec<(Pin, u64)> {
        let pins = self.twin.get().map(|twin| twin.pins(after, limit)).unwrap_or_default();
        pins.into_iter().map(|pin| (pin, 7)).collect()
    }

    fn remembered(&self) -> Vec<(PeerId, UnixMillis)> {
        vec![(peer(60), crate::clock::wall()), (peer(61), UnixMillis(1))]
    }

    fn remember(&self, peers: &[(PeerId, UnixMillis)]) {
        *self.kept.lock() = peers.iter().map(|(peer, _)| *peer).collect();
    }
}

struct Pair {
    ear: Arc<Ear>,
    go_blocks: Arc<Mutex<(Vec<Cid>, usize)>>,
    go: Host,
    go_events: HostEvents,
    own: PeerId,
    twin: Arc<Twin>,
    side: Arc<GoSide>,
    wish: Arc<Wish>,
    go_trusts: Arc<AtomicBool>,
    go_list: Arc<Mutex<Vec<PinInfo>>>,
    distrusted: Arc<AtomicU32>,
}

async fn host(number: u8) -> (Host, HostEvents) {
    let mut options = HostOptions::node([number; 32]);
    options.listen = vec!["/ip4/127.0.0.1/tcp/0".into()];
    options.keep_all = true;
    options.gossip = Some(GossipOptions { heartbeat: Duration::from_millis(200), ..GossipOptions::new([METRICS_TOPIC]) });
    Host::start(options).await.unwrap()
}

/// A Go-like peer connected to this one; trusted or not.
async fn pair(is_trusted: bool) -> Pair {
    pair_with(is_trusted, Duration::from_secs(600)).await
}

async fn pair_with(is_trusted: bool, lease: Duration) -> Pair {
    pair_of(is_trusted, lease, true).await
}

async fn pair_of(is_trusted: bool, lease: Duration, is_trusting: bool) -> Pair {
    let (own, mut own_events) = host(1).await;
    let (go, go_events) = host(2).await;
    let twin = Twin::new(own.id());
    let trusted = go.id();
    let options = GoOptions { lease, ..GoOptions::new("9.9", Arc::new(move |peer| is_trusted && *peer == trusted)) };
    let wish = Arc::new(Wish::default());
    let distrusted = Arc::<AtomicU32>::default();
    let told = distrusted.clone();
    let ear = Arc::new(Ear::default());
    ear.twin.set(twin.clone()).ok();
    let options = GoOptions {
        swarm_peers: Arc::new(|| vec![peer(93)]),
        mind: Some(ear.clone()),
        wish: Some(wish.clone()),
        distrusted: Arc::new(move |peers| told.store(peers, Ordering::Relaxed)),
        ..options
    };
    let inbound = GoInbound::new(wish.clone());
    let streams = GoStreams::register(&own).unwrap();
    let side = Arc::new(GoSide::start(own.clone(), streams, twin.clone(), options).await.unwrap());
    let go_trusts = Arc::new(AtomicBool::new(is_trusting));
    let go_list = Arc::<Mutex<Vec<PinInfo>>>::default();
    let go_blocks = Arc::new(Mutex::new((Vec::new(), usize::MAX)));
    let go_like = GoLike { id: go.id(), trusts: go_trusts.clone(), list: go_list.clone(), blocks: go_blocks.clone() };
    let server = net::gorpc::Server::accept(&go, Arc::new(go_like), CallLimits::default()).unwrap();
    tokio::spawn(server.run());
    inbound.set(side.clone());
    tokio::spawn(async move {
        while let Some(event) = own_events.next().await {
            if let HostEvent::Gossip { topic, from, data, .. } = event {
                inbound.gossip(&topic, from, data);
            }
        }
    });
    go.connect(own.id(), &own.addresses()).await.unwrap();
    Pair { ear, go_blocks, go, go_events, own: own.id(), twin, side, wish, go_trusts, go_list, distrusted }
}

impl Pair {
    async fn call<A: Message, R: Message>(&self, service: &str, method: &str, argument: &A) -> Result<R, CallError> {
        let request = Request::new(service, method);
        let reply = call_unary(&self.go, self.own, &request, &encode(argument), &CallLimits::default(), DEADLINE).await?;
        Ok(wire::rpc::decode(&reply).unwrap())
    }

    async fn stream<R: Message>(&self, service: &str, method: &str, arguments: &[Vec<u8>]) -> Result<Vec<R>, CallError> {
        let request = Request::new(service, method);
        let arguments: Vec<&[u8]> = arguments.iter().map(Vec::as_slice).collect();
        let replies = call_collect(&self.go, self.own, &request, &arguments, &CallLimits::default(), DEADLINE).await?;
        Ok(replies.iter().map(|reply| wire::rpc::decode(reply).unwrap()).collect())
    }

    async fn send_blocks(&self, blocks: &[Block]) -> Result<Vec<()>, CallError> {
        let argument = |block: &Block| encode(&BlockWithMeta { data: block.data.to_vec(), cid: Some(block.cid), size: 1 });
        self.stream("IPFSConnector", "BlockStream", &blocks.iter().map(argument).collect::<Vec<_>>()).await
    }
}

async fn wait_for(what: &str, holds: impl AsyncFn() -> bool) {
    for _ in 0..1500 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

#[tokio::test]
async fn strangers_may_ask_who_is_there_and_no_more() {
    let pair = pair(false).await;
    let id: Id = pair.call("Cluster", "ID", &()).await.unwrap();
    assert_eq!(id.id, Some(pair.own));
    assert_eq!(pair.stream::<Id>("Cluster", "IDStream", &[]).await.unwrap(), [id]);
    assert_eq!(pair.call("Cluster", "Version", &()).await, Ok(Version { version: "9.9".into() }));
    let joined: Id = pair.call("Cluster", "PeerAdd", &pair.go.id()).await.unwrap();
    assert_eq!((joined.id, &*joined.peer_name), (Some(pair.go.id()), "go1"), "asked back");
    let cid = block("x").cid;
    let pin = RpcPin { cid: Some(cid), ..RpcPin::default() };
    for (refused, method) in [
        (pair.call::<_, PinInfo>("PinTracker", "Status", &cid).await.map(|_| ()), "PinTracker.Status"),
        (pair.call("Consensus", "LogPin", &pin).await, "Consensus.LogPin"),
        (pair.call("Consensus", "LogUnpin", &pin).await, "Consensus.LogUnpin"),
        (pair.call::<_, RepoGc>("Cluster", "RepoGCLocal", &()).await.map(|_| ()), "Cluster.RepoGCLocal"),
        (pair.send_blocks(&[block("x")]).await.map(|_| ()), "IPFSConnector.BlockStream"),
        (pair.stream::<PinInfo>("PinTracker", "StatusAll", &[encode(&Filter(0))]).await.map(|_| ()), "PinTracker.StatusAll"),
        (pair.stream::<Id>("Cluster", "Peers", &[]).await.map(|_| ()), "Cluster.Peers"),
    ] {
        let words = format!("client does not have permissions to call {method}");
        assert_eq!(refused, Err(CallError::NotAuthorised(words)));
    }
    assert!(pair.twin.pins.lock().is_empty());
}

#[tokio::test]
async fn closed_methods_are_refused_and_unknown_ones_unknown() {
    let pair = pair(true).await;
    let refused = pair.call::<_, ()>("Cluster", "Pin", &()).await;
    assert_eq!(refused, Err(CallError::NotAuthorised("client does not have permissions to call Cluster.Pin".into())));
    let refused = pair.stream::<()>("Cluster", "Pins", &[]).await;
    assert!(matches!(refused, Err(CallError::NotAuthorised(_))), "{refused:?}");
    assert_eq!(pair.call::<_, ()>("Cluster", "Nosuch", &()).await, Err(CallError::Unknown("rpc: can't find method Nosuch".into())));
    assert_eq!(pair.call::<_, ()>("Nosuch", "ID", &()).await, Err(CallError::Unknown("rpc: can't find service Nosuch".into())));
    let refused = pair.call::<_, PinInfo>("PinTracker", "Status", &vec![peer(1)]).await;
    assert!(matches!(refused, Err(CallError::Server(_))), "{refused:?}");
    let refused = pair.call::<_, ()>("Cluster", "PeerRemove", &peer(1)).await;
    assert_eq!(refused, Err(CallError::Method("crdt consensus component cannot remove peers".into())));
    assert_eq!(pair.call::<_, ()>("Consensus", "AddPeer", &peer(1)).await, Ok(()));
}

#[tokio::test]
async fn an_id_names_the_own_peer_among_the_members() {
    let pair = pair(true).await;
    let id: Id = pair.call("Cluster", "ID", &()).await.unwrap();
    assert_eq!(id.cluster_peers, Some(vec![pair.own, peer(50)]));
    assert_eq!((&*id.peer_name, &*id.version, &*id.rpc_protocol_version), ("own", "9.9", "/ipfscluster/1.0/rpc"));
    let ipfs = id.ipfs.unwrap();
    assert_eq!((ipfs.id, ipfs.addresses.map(|addresses| addresses.len())), (Some(peer(91)), Some(2)));
    let peers: Vec<Id> = pair.stream("Cluster", "Peers", &[]).await.unwrap();
    assert_eq!(peers.iter().map(|id| &*id.peer_name).collect::<Vec<_>>(), ["own", "other"]);
}

#[tokio::test]
async fn a_copy_is_what_go_calls_it() {
    let pair = pair(true).await;
    let [held, elsewhere, everywhere, meta, failed, queued, unknown] =
        ["held", "elsewhere", "everywhere", "meta", "failed", "queued", "unknown"].map(|text| block(text).cid);
    pair.twin.write(held, &[pair.own], PinKind::Data);
    pair.twin.write(elsewhere, &[peer(7)], PinKind::Data);
    pair.twin.write(everywhere, &[], PinKind::Data);
    pair.twin.write(meta, &[], PinKind::Meta);
    pair.twin.write(failed, &[pair.own], PinKind::Data);
    pair.twin.write(queued, &[pair.own], PinKind::Data);
    pair.twin.waiting.lock().insert(failed, Because::Failed { error: "a bad day".into() });
    pair.twin.waiting.lock().insert(queued, Because::Throttled);
    for (cid, status, error, name) in [
        (held, 16, "", "a pin"),
        (elsewhere, 256, "", "a pin"),
        (everywhere, 16, "", "a pin"),
        (meta, 2048, "", "a pin"),
        (failed, 4, "a bad day", "a pin"),
        (queued, 512, "", "a pin"),
        (unknown, 128, "", ""),
    ] {
        let info: PinInfo = pair.call("PinTracker", "Status", &cid).await.unwrap();
        assert_eq!((info.short.status, &*info.short.error, &*info.name), (status, error, name));
        assert_eq!((info.cid, info.peer, &*info.short.peer_name), (Some(cid), Some(pair.own), "own"));
        assert_eq!(info.short.ipfs_addresses.map(|addresses| addresses.len()), Some(1), "public ones only");
    }
    for (filter, expected) in [(0, 6), (16, 2), (256, 1), (14, 1), (2048, 1), (14 | 512, 2), (128, 0)] {
        let infos: Vec<PinInfo> = pair.stream("PinTracker", "StatusAll", &[encode(&Filter(filter))]).await.unwrap();
        assert_eq!(infos.len(), expected, "filter {filter}");
    }
    let info: PinInfo = pair.call("PinTracker", "Recover", &failed).await.unwrap();
    assert_eq!(info.short.status, 16);
    let infos: Vec<PinInfo> = pair.stream("Cluster", "RecoverAllLocal", &[]).await.unwrap();
    assert_eq!(infos.iter().map(|info| info.cid.unwrap()).collect::<Vec<_>>(), [queued]);
}

#[tokio::test]
async fn long_lists_come_whole() {
    let pair = pair(true).await;
    for number in 0..1203 {
        pair.twin.write(block(&number.to_string()).cid, &[pair.own], PinKind::Data);
    }
    let infos: Vec<PinInfo> = pair.stream("PinTracker", "StatusAll", &[encode(&Filter(0))]).await.unwrap();
    let cids: BTreeSet<Cid> = infos.iter().filter_map(|info| info.cid).collect();
    assert_eq!((infos.len(), cids.len()), (1203, 1203));
}

#[tokio::test]
async fn pins_are_written_for_peers_that_cannot() {
    let pair = pair(true).await;
    let cid = block("x").cid;
    let pin = RpcPin { cid: Some(cid), kind_bits: 2, max_depth: -1, replication: (-1, -1), name: "theirs".into(), ..RpcPin::default() };
    assert_eq!(pair.call("Consensus", "LogPin", &pin).await, Ok(()));
    let written = pair.twin.pin_of(&cid).unwrap();
    assert_eq!((&*written.options.name, written.depth, written.options.replicas), ("theirs", Depth::Recursive, Replicas::Everywhere));
    let placed = RpcPin { allocations: Some(vec![peer(7)]), replication: (1, 1), ..pin.clone() };
    assert_eq!(pair.call("Consensus", "LogPin", &placed).await, Ok(()));
    assert_eq!(pair.twin.pin_of(&cid).unwrap().placement, [peer(7)]);
    for (bad, words) in [
        (RpcPin { cid: None, ..pin.clone() }, "the pin has no CID"),
        (RpcPin { kind_bits: 16, ..pin.clone() }, "only pins of ordinary content are written for other peers"),
    ] {
        assert_eq!(pair.call::<_, ()>("Consensus", "LogPin", &bad).await, Err(CallError::Method(words.into())));
    }
    for _ in 0..2 {
        assert_eq!(pair.call("Consensus", "LogUnpin", &pin).await, Ok(()), "twice is fine");
        assert_eq!(pair.twin.pin_of(&cid), None);
    }
}

#[tokio::test]
async fn the_node_is_told_about() {
    let pair = pair(true).await;
    let kept = block("four");
    pair.twin.node.put(&Owner::Adding(1), vec![kept]).await.unwrap();
    let stat: RepoStat = pair.call("IPFSConnector", "RepoStat", &()).await.unwrap();
    let space = ipfs::NodeInfo::space(pair.twin.node.as_ref()).await.unwrap();
    assert_eq!((stat.repo_size, stat.storage_max), (space.used.0, space.limit.0));
    assert_eq!(pair.call("IPFSConnector", "SwarmPeers", &()).await, Ok(vec![peer(93)]));
    let gc: RepoGc = pair.call("Cluster", "RepoGCLocal", &()).await.unwrap();
    assert_eq!((gc.peer, &*gc.peer_name, &*gc.error), (Some(pair.own), "own", ""));
}

#[tokio::test]
async fn blocks_of_an_add_are_kept_until_their_pin_is_held() {
    let pair = pair(true).await;
    let blocks: Vec<Block> = (0..20).map(|number| block(&format!("block {number}"))).collect();
    let (root, first) = (blocks[19].cid, blocks[0].cid);
    for _ in 0..2 {
        assert_eq!(pair.send_blocks(&blocks).await, Ok(vec![]), "twice is fine");
    }
    pair.twin.node.collect_garbage().await.unwrap();
    assert!(pair.twin.node.has(&[first, root]).await.unwrap().iter().all(|has| *has), "nothing is lost before the pin");
    assert_eq!(pair.side.side.leases.count(), 2);
    pair.twin.hold(root).await;
    wait_for("the leases end", async || pair.side.side.leases.count() == 0).await;
    pair.twin.node.collect_garbage().await.unwrap();
    assert_eq!(pair.twin.node.has(&[first, root]).await.unwrap(), [false, true], "only the pin is left");
}

#[tokio::test]
async fn blocks_without_a_pin_go_after_the_lease() {
    let pair = pair_with(true, Duration::from_millis(200)).await;
    let orphan = block("orphan");
    pair.send_blocks(std::slice::from_ref(&orphan)).await.unwrap();
    wait_for("it is garbage", async || {
        pair.twin.node.collect_garbage().await.unwrap();
        pair.twin.node.has(&[orphan.cid]).await.unwrap() == [false]
    })
    .await;
}

#[tokio::test]
async fn strange_block_streams_are_refused() {
    let pair = pair(true).await;
    let refused = pair.send_blocks(&[]).await;
    assert_eq!(refused, Err(CallError::Method("BlockStream: no blocks to peek in block channel".into())));
    let lie = Block { cid: block("one").cid, data: Bytes::from_static(b"another") };
    assert!(matches!(pair.send_blocks(&[block("fine"), lie]).await, Err(CallError::Method(_))));
    let nameless = encode(&BlockWithMeta { data: b"x".to_vec(), cid: None, size: 1 });
    let refused = pair.stream::<()>("IPFSConnector", "BlockStream", &[nameless]).await;
    assert!(matches!(refused, Err(CallError::Server(_))), "{refused:?}");
    let refused = pair.stream::<()>("IPFSConnector", "BlockStream", &[encode(&peer(1))]).await;
    assert!(matches!(refused, Err(CallError::Server(_))), "{refused:?}");
}

#[tokio::test]
async fn go_peers_hear_what_makes_a_member() {
    let mut pair = pair(true).await;
    let mut heard: BTreeMap<String, Metric> = BTreeMap::new();
    let listen = async {
        while heard.len() < 4 {
            let Some(HostEvent::Gossip { from, data, .. }) = pair.go_events.next().await else { continue };
            let metric = decode_metric(&data).unwrap();
            assert_eq!((from, metric.peer, metric.valid), (pair.own, Some(pair.own), true));
            heard.insert(metric.name.clone(), metric);
        }
    };
    tokio::time::timeout(Duration::from_secs(10), listen).await.expect("four metrics");
    let ping = PingValue::of_json(&heard["ping"].value);
    assert_eq!((&*ping.peer_name, ping.ipfs_id), ("own", peer(91).to_string()));
    assert_eq!(ping.ipfs_addresses, [format!("/ip4/10.0.0.1/tcp/4001/p2p/{}", peer(91))]);
    assert_eq!((&*heard["freespace"].value, heard["freespace"].weight), ("6000", 6000));
    assert_eq!((&*heard["pinqueue"].value, heard["pinqueue"].weight), ("200000", -2));
    assert_eq!((&*heard["tag:group"].value, heard["tag:group"].partitionable), ("default", true));
    let ends_in = heard["ping"].expire / 1_000_000 - pair.side.side.now().wall.0 as i64;
    assert!((20_000..=30_000).contains(&ends_in), "{ends_in}");
}

#[tokio::test]
async fn go_peers_are_known_by_their_metrics_and_asked_for_their_nodes() {
    let pair = pair(true).await;
    let metric = |name: &str, value: &str, peer: PeerId| Metric {
        name: name.into(),
        peer: Some(peer),
        value: value.into(),
        expire: i64::MAX,
        valid: true,
        ..Metric::default()
    };
    let go = pair.go.id();
    wait_for("the metrics arrive", async || {
        for metric in [metric("ping", r#"{"peer_name":"go1"}"#, go), metric("freespace", "123", go), metric("ping", "{}", peer(77))] {
            pair.go.publish(METRICS_TOPIC, encode_metric(&metric)).await.ok();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        pair.side.peers().iter().any(|go| go.free_space.is_some() && !go.node_addresses.is_empty())
    })
    .await;
    let peers = pair.side.peers();
    let [known] = peers.as_slice() else { panic!("one peer, not the one it spoke for: {peers:?}") };
    assert_eq!((known.peer, &*known.name, known.free_space, known.is_trusted), (go, "go1", Some(ByteCount(123)), true));
    assert_eq!(known.node_addresses, [format!("/ip4/127.0.0.1/tcp/7/p2p/{}", peer(92))]);
    let id: Id = pair.call("Cluster", "ID", &()).await.unwrap();
    assert_eq!(id.cluster_peers, Some(vec![pair.own, peer(50), go]));
    let peers: Vec<Id> = pair.stream("Cluster", "Peers", &[]).await.unwrap();
    assert_eq!(peers.iter().map(|id| &*id.peer_name).collect::<Vec<_>>(), ["own", "other", "go1"]);
    pair.side.stop().await;
}

#[tokio::test]
async fn copies_of_go_peers_are_asked_of_them_where_they_should_hold_them() {
    let pair = pair(true).await;
    let go = pair.go.id();
    wait_for("it is met", async || pair.side.peers().iter().any(|go| go.trusts_us == Some(true))).await;
    let [everywhere, there, elsewhere, none] = ["everywhere", "there", "elsewhere", "none"].map(|text| block(text).cid);
    pair.twin.write(everywhere, &[], PinKind::Data);
    pair.twin.write(there, &[go], PinKind::Data);
    pair.twin.write(elsewhere, &[pair.own], PinKind::Data);
    for (cid, state, tries) in
        [(everywhere, PinState::Pinned, 2), (there, PinState::Pinned, 2), (elsewhere, PinState::Remote, 0), (none, PinState::Unpinned, 0)]
    {
        let pin = pair.twin.pin_of(&cid);
        let copies = pair.side.copies(&cid, pin.as_ref()).await;
        let [copy] = copies.as_slice() else { panic!("one Go peer: {copies:?}") };
        assert_eq!((copy.peer, &*copy.name, copy.state, copy.tries, &*copy.error), (go, "go1", state, tries, ""));
    }
    pair.go_trusts.store(false, Ordering::Relaxed);
    let copies = pair.side.copies(&everywhere, pair.twin.pin_of(&everywhere).as_ref()).await;
    assert_eq!(copies[0].state, PinState::ClusterError);
    assert!(copies[0].error.contains("permissions"), "{}", copies[0].error);
}

#[tokio::test]
async fn all_pins_on_a_go_peer_are_told_from_its_list() {
    let pair = pair(true).await;
    let go = pair.go.id();
    wait_for("it is met", async || pair.side.peers().iter().any(|go| go.trusts_us == Some(true))).await;
    let [held, failed, unheard, elsewhere] = ["held", "failed", "unheard", "elsewhere"].map(|text| block(text).cid);
    for cid in [held, failed, unheard] {
        pair.twin.write(cid, &[], PinKind::Data);
    }
    pair.twin.write(elsewhere, &[pair.own], PinKind::Data);
    let info = |cid, state, error: &str| {
        let short = PinInfoShort { status: bit(state), error: error.into(), attempt_count: 3, ..PinInfoShort::default() };
        PinInfo { cid: Some(cid), peer: Some(go), short, ..PinInfo::default() }
    };
    *pair.go_list.lock() = vec![info(held, PinState::Pinned, ""), info(failed, PinState::PinError, "no room")];
    let now = UnixMillis(7_000);
    let states = async |filter: Filter| {
        let lists = pair.side.lists(filter).await;
        let [list] = lists.as_slice() else { panic!("one Go peer: {}", lists.len()) };
        assert_eq!((list.head().peer, &*list.head().name), (go, "go1"));
        [held, failed, unheard, elsewhere].map(|cid| {
            let pin = pair.twin.pin_of(&cid).unwrap();
            list.row(&pin, now).map(|row| (row.state, row.error.into_owned(), row.tries))
        })
    };
    let error = |state| Some((state, "no room".to_owned(), 3));
    let plain = |state| Some((state, String::new(), 0));
    let all = [plain(PinState::Pinned), error(PinState::PinError), plain(PinState::Unpinned), plain(PinState::Remote)];
    assert_eq!(states(Filter::ALL).await, all);
    assert_eq!(states(Filter(bit(PinState::Unpinned))).await, all, "what is unknown is only told from the whole");
    assert_eq!(states(Filter(14)).await, [None, error(PinState::PinError), None, plain(PinState::Remote)]);
    let copies = pair.side.recover(&failed, pair.twin.pin_of(&failed).as_ref()).await;
    assert_eq!((copies[0].peer, copies[0].state, copies[0].tries), (go, PinState::Pinned, 3), "asked by another call");
    assert_eq!(pair.side.recover_all().await, BTreeSet::from([failed]));
    pair.go_trusts.store(false, Ordering::Relaxed);
    let refused = states(Filter::ALL).await;
    let [Some((PinState::ClusterError, why, 0)), _, _, there] = &refused else { panic!("{refused:?}") };
    assert!(why.contains("permissions"), "{why}");
    assert_eq!(*there, plain(PinState::Remote));
}

#[tokio::test]
async fn who_does_not_take_what_this_peer_writes_is_known_while_it_is_here() {
    let pair = pair_of(true, Duration::from_secs(600), false).await;
    wait_for("it does not trust this peer", async || pair.side.peers().iter().any(|go| go.trusts_us == Some(false))).await;
    let distrusted = || pair.distrusted.load(Ordering::Relaxed);
    wait_for("that is told", async || distrusted() == 1).await;
    pair.go.disconnect(pair.own).await;
    wait_for("and that it left", async || distrusted() == 0).await;
}

#[tokio::test]
async fn the_consensus_is_told_of_go_peers_and_gets_its_own_topic_alone() {
    let pair = pair(true).await;
    let go = pair.go.id();
    let told = || pair.wish.0.lock().clone();
    wait_for("it is told", async || told() == [format!("+{go}")]).await;
    let inbound = GoInbound::new(pair.wish.clone());
    inbound.gossip("wish", go, Vec::new());
    inbound.gossip(METRICS_TOPIC, go, Vec::new());
    pair.go.disconnect(pair.own).await;
    wait_for("and of the end", async || told() == [format!("+{go}"), "wish".to_owned(), format!("-{go}")]).await;
    let strangers = crate::go::tests::pair(false).await;
    wait_for("followers are told too", async || *strangers.wish.0.lock() == [format!("+{}", strangers.go.id())]).await;
}

#[test]
fn metrics_recorded_from_go_peers_are_taken() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../wire/tests/vectors/gossip.json");
    let all: Vec<serde_json::Value> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut heard = Heard::default();
    let now = Now { mono: Millis(1), wall: NOW };
    for one in all.iter().filter(|one| one["topic"] == METRICS_TOPIC) {
        let data = hex::decode(one["data_hex"].as_str().unwrap()).unwrap();
        heard.take(one["from"].as_str().unwrap().parse().unwrap(), &data, now).unwrap();
    }
    let peers: BTreeMap<String, GoPeer> = heard.live(now).into_iter().map(|go| (go.name.clone(), go)).collect();
    assert_eq!(peers.keys().map(String::as_str).collect::<Vec<_>>(), ["go1", "go2", "rust-spike"]);
    let go1 = &peers["go1"];
    assert_eq!(
        (go1.free_space, go1.tags.get("group").map(String::as_str), go1.pins_queued),
        (Some(ByteCount(9_999_489_193)), Some("default"), 0)
    );
    assert!(go1.ipfs_id.is_some());
}
