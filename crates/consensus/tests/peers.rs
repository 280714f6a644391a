//! Peers with tasks, stores and a network: catching up, restarts, a disk that fails, a stop that loses nothing.

use async_trait::async_trait;
use bytes::Bytes;
use consensus::conformance::{agree, contents, key};
use consensus::crdt::{BlockId, CrdtNetwork, CrdtOptions};
use consensus::memory::{MemoryNetwork, Weather};
use consensus::{Consensus, Crdt, Hint, SubmitError, ViewState, Write};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use store::{Area, Batch, Durability, MemoryStore, Snapshot, Store, StoreError};
use tokio::time::Instant;
use types::{ByteCount, Cid, PeerId};
use wire::delta::{Delta, Element, decode_node, encode_node, pin_key};

fn peer(number: u8) -> PeerId {
    PeerId::from_ed25519(&[number; 32])
}

async fn open(network: &Arc<MemoryNetwork>, number: u8, store: Arc<dyn Store>) -> Arc<Crdt> {
    let options = CrdtOptions { rebroadcast: Duration::from_secs(1), ..CrdtOptions::new(peer(number)) };
    let crdt = Crdt::open(store, network.link(peer(number)), options).await.expect("opens");
    let crdt = Arc::new(crdt);
    network.serve(peer(number), &crdt);
    crdt
}

fn block(links: &[Cid], priority: u64, number: u32) -> (Cid, Vec<u8>) {
    let key = pin_key(&Cid::try_from(key(number)).expect("a CID"));
    encode_node(links, &Delta { elements: vec![Element { key, id: String::new(), value: b"x".to_vec() }], priority, ..Delta::default() })
}

/// A store as a peer with this history has it. Only what serving needs: heads and blocks.
fn history(blocks: &[(Cid, Vec<u8>)], heads: &[(Cid, u64)]) -> MemoryStore {
    let store = MemoryStore::new();
    let mut batch = Batch::new();
    for (cid, bytes) in blocks {
        let id = BlockId::of_cid(cid).expect("a block").0;
        batch.put(Area::DagBlocks, id, bytes);
        let height = decode_node(bytes).expect("a block").delta.priority;
        batch.put(Area::Processed, id, [1, height as u8 | 0x80, (height >> 7) as u8]);
    }
    for (cid, height) in heads {
        assert!(*height < 1 << 14);
        batch.put(Area::Heads, BlockId::of_cid(cid).expect("a block").0, [*height as u8 | 0x80, (*height >> 7) as u8]);
    }
    store.commit(batch, Durability::Synced).expect("commits");
    store
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(600);
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// How long a new peer needs for a history, each way of the network taking 5 ms.
async fn catch_up(network: Arc<MemoryNetwork>, blocks: &[(Cid, Vec<u8>)], heads: &[(Cid, u64)], pins: usize) -> Duration {
    network.set_weather(Weather { delay: Duration::from_millis(5), ..Weather::FINE });
    let _old = open(&network, 1, Arc::new(history(blocks, heads))).await;
    let new = open(&network, 2, Arc::new(MemoryStore::new())).await;
    assert_eq!(new.state(), ViewState::Unknown);
    let mut hints = new.hints();
    let began = Instant::now();
    network.connect(peer(1), peer(2));
    until("catching up", || new.state() == ViewState::Current).await;
    let took = began.elapsed();
    assert_eq!(contents(&*new).len(), pins);
    assert_eq!(new.heads(), _old.heads());
    assert!(new.has_merged(&_old.heads()));
    let first = std::iter::from_fn(|| hints.try_next()).next();
    assert!(matches!(first, Some(Hint::State(ViewState::CatchingUp) | Hint::Lagged)), "{first:?}");
    took
}

#[tokio::test]
async fn a_wide_history_is_fetched_many_blocks_at_a_time() {
    // 20 writers, 100 rounds, each block on top of all of the round before.
    let mut blocks = Vec::new();
    let mut below: Vec<Cid> = Vec::new();
    for round in 0..100 {
        let row: Vec<_> = (0..20).map(|writer| block(&below, round + 1, (round * 20 + writer) as u32)).collect();
        below = row.iter().map(|(cid, _)| *cid).collect();
        blocks.extend(row);
    }
    let heads: Vec<(Cid, u64)> = below.into_iter().map(|cid| (cid, 100)).collect();
    let network = MemoryNetwork::new(Weather::FINE);
    network.refuse_stretches();
    let took = catch_up(network, &blocks, &heads, 2000).await;
    assert!(took < Duration::from_millis(100 * 10 * 4), "a round trip for each round, not for each of 2,000 blocks: {took:?}");
}

#[tokio::test]
async fn told_heads_contain_all_that_was_acknowledged_before() {
    let network = MemoryNetwork::new(Weather::FINE);
    let options = CrdtOptions { spacing: Duration::from_millis(300), ..CrdtOptions::new(peer(1)) };
    let crdt = Crdt::open(Arc::new(MemoryStore::new()), network.link(peer(1)), options).await.expect("opens");
    let put = |number: u32| vec![Write { key: key(number), value: Some(Bytes::from_static(b"x")), expect: None }];
    crdt.submit(put(1)).await.expect("accepted");
    crdt.submit(put(2)).await.expect("accepted");
    assert_eq!((crdt.numbers().pending, crdt.heads().len()), (1, 1), "the second waits for its block");
    assert_eq!(crdt.told_heads(Duration::ZERO).await, None);
    let early = crdt.heads();
    let heads = crdt.told_heads(Duration::from_secs(60)).await.expect("told");
    assert!(heads != early && crdt.numbers().pending == 0);
    assert_eq!(crdt.told_heads(Duration::ZERO).await, Some(heads));
}

fn chain(length: u32) -> (Vec<(Cid, Vec<u8>)>, Cid) {
    let mut blocks: Vec<(Cid, Vec<u8>)> = Vec::new();
    for number in 0..length {
        let links: Vec<Cid> = blocks.last().map(|(cid, _)| *cid).into_iter().collect();
        blocks.push(block(&links, u64::from(number) + 1, number));
    }
    let head = blocks[blocks.len() - 1].0;
    (blocks, head)
}

#[tokio::test]
async fn a_chain_is_taken_in_stretches_among_pinfold_peers() {
    let (blocks, head) = chain(5000);
    let network = MemoryNetwork::new(Weather::FINE);
    let took = catch_up(network.clone(), &blocks, &[(head, 5000)], 5000).await;
    assert!(took < Duration::from_secs(8), "link by link it would be 50 s of round trips: {took:?}");
    assert!(network.counts().0 < 50, "blocks fetched one by one: {}", network.counts().0);
}

#[tokio::test]
async fn a_chain_without_stretches_costs_its_round_trips_and_comes_all_the_same() {
    let (blocks, head) = chain(150);
    let network = MemoryNetwork::new(Weather::FINE);
    network.refuse_stretches();
    let took = catch_up(network.clone(), &blocks, &[(head, 150)], 150).await;
    assert!(took >= Duration::from_millis(150 * 10), "{took:?}");
    assert_eq!(network.counts().0, 150);
}

#[tokio::test]
async fn peers_that_were_apart_agree_when_they_meet() {
    let network = MemoryNetwork::new(Weather { delay: Duration::from_millis(1), loss: 0.1, seed: 5 });
    let mut peers: Vec<Arc<dyn Consensus>> = Vec::new();
    for number in 0..3 {
        peers.push(open(&network, number, Arc::new(MemoryStore::new())).await);
    }
    network.connect(peer(0), peer(1));
    for number in 0..100u32 {
        peers[number as usize % 3].submit(vec![Write::put(key(number % 40), format!("{number}"))]).await.expect("accepted");
    }
    network.disconnect(peer(0), peer(1));
    peers[0].submit(vec![Write::remove(key(0)), Write::remove(key(1))]).await.expect("accepted");
    for (a, b) in [(0, 1), (1, 2), (0, 2)] {
        network.connect(peer(a), peer(b));
    }
    agree(&peers, |contents| contents.len() >= 38).await;
}

#[tokio::test]
async fn one_pin_alone_is_seen_by_the_other_at_once() {
    let network = MemoryNetwork::new(Weather::FINE);
    let (a, b) = (open(&network, 1, Arc::new(MemoryStore::new())).await, open(&network, 2, Arc::new(MemoryStore::new())).await);
    network.connect(peer(1), peer(2));
    a.submit(vec![Write::put(key(0), "first")]).await.expect("accepted");
    until("the first pin", || contents(&*b).len() == 1).await;
    let mut spans = Vec::new();
    for number in 1..20 {
        tokio::time::sleep(Duration::from_millis(15)).await;
        let mut hints = b.hints();
        let began = Instant::now();
        a.submit(vec![Write::put(key(number), "x")]).await.expect("accepted");
        while !matches!(hints.next().await, Some(Hint::Changes(_))) {}
        spans.push(began.elapsed());
    }
    spans.sort_unstable();
    assert!(spans[spans.len() / 2] < Duration::from_millis(50), "{spans:?}");
}

#[tokio::test]
async fn what_was_accepted_before_a_stop_is_told_before_it_ends() {
    let network = MemoryNetwork::new(Weather::FINE);
    let (a, b) = (open(&network, 1, Arc::new(MemoryStore::new())).await, open(&network, 2, Arc::new(MemoryStore::new())).await);
    network.connect(peer(1), peer(2));
    for number in 0..5 {
        a.submit(vec![Write::put(key(number), "x")]).await.expect("accepted");
    }
    a.stop().await;
    until("all five", || contents(&*b).len() == 5).await;
}

/// A store whose disk can be full.
struct Fragile {
    inner: MemoryStore,
    is_full: AtomicBool,
}

impl Store for Fragile {
    fn snapshot(&self) -> Arc<dyn Snapshot> {
        self.inner.snapshot()
    }

    fn commit(&self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        if self.is_full.load(Ordering::SeqCst) {
            return Err(StoreError::DiskFull { needed: batch.size(), free: ByteCount::ZERO });
        }
        self.inner.commit(batch, durability)
    }

    fn disk_bytes(&self) -> Result<ByteCount, StoreError> {
        Ok(ByteCount::ZERO)
    }
}

#[tokio::test]
async fn a_full_disk_refuses_and_when_there_is_room_everything_goes_on() {
    let network = MemoryNetwork::new(Weather::FINE);
    let store = Arc::new(Fragile { inner: MemoryStore::new(), is_full: AtomicBool::new(false) });
    let (a, b) = (open(&network, 1, store.clone()).await, open(&network, 2, Arc::new(MemoryStore::new())).await);
    network.connect(peer(1), peer(2));
    a.submit(vec![Write::put(key(0), "before")]).await.expect("accepted");
    store.is_full.store(true, Ordering::SeqCst);
    for number in 1..4 {
        let refused = a.submit(vec![Write::put(key(number), "during")]).await.expect_err("refused");
        assert!(refused.is_transient() && matches!(refused, SubmitError::Store(StoreError::DiskFull { .. })));
    }
    b.submit(vec![Write::put(key(10), "of the other")]).await.expect("accepted");
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(contents(&*a).len(), 1, "nothing refused is visible");
    store.is_full.store(false, Ordering::SeqCst);
    until("the other's pin", || contents(&*a).contains_key(&key(10))).await;
    a.submit(vec![Write::put(key(5), "after")]).await.expect("accepted");
    until("the own pin", || contents(&*b).contains_key(&key(5))).await;
    assert_eq!(contents(&*a), contents(&*b));
}

/// A network that gives bytes of its own for one block, and says nothing else.
struct Liar {
    answers: Mutex<Vec<(Cid, Vec<u8>)>>,
}

#[async_trait]
impl CrdtNetwork for Liar {
    async fn broadcast(&self, _: Vec<u8>) -> Result<(), String> {
        Err("nobody".to_owned())
    }

    async fn fetch(&self, cid: &Cid, _: Option<PeerId>) -> Result<Bytes, String> {
        let answers = self.answers.lock();
        answers.iter().find(|(name, _)| name == cid).map(|(_, bytes)| bytes.clone().into()).ok_or_else(|| "no".to_owned())
    }

    async fn ask_heads(&self, _: PeerId) -> Result<Vec<u8>, String> {
        panic!("a network that fails inside must not stop the rest")
    }
}

#[tokio::test]
async fn hostile_announcements_and_blocks_leave_the_peer_at_work() {
    let nonsense = (wire::delta::block_cid(b"nonsense"), b"nonsense".to_vec());
    let good = block(&[nonsense.0], 7, 1);
    let network = Arc::new(Liar { answers: Mutex::new(vec![nonsense, good.clone()]) });
    let crdt = Crdt::open(Arc::new(MemoryStore::new()), network, CrdtOptions::new(peer(1))).await.expect("opens");
    crdt.peer_connected(peer(2), true);
    assert!(crdt.heads_received(peer(2), b"\xff\xff\xff".to_vec()).is_err());
    let flood: Vec<Cid> = (0..2000u32).map(|number| block(&[], 1, 10_000 + number).0).collect();
    crdt.heads_received(peer(2), wire::heads::encode_heads(&flood)).expect("heads");
    crdt.heads_received(peer(2), wire::heads::encode_heads(&[good.0])).expect("heads");
    until("the good block", || contents(&crdt).len() == 1).await;
    crdt.submit(vec![Write::put(key(2), "own")]).await.expect("accepted");
    assert_eq!(crdt.numbers().height, 8);
    until("the nonsense below it", || crdt.has_merged(&[good.0])).await;
    assert!(!crdt.has_merged(&flood[..1]));
    crdt.stop().await;
}

#[tokio::test]
async fn a_restart_goes_on_with_a_walk_that_was_cut() {
    let (blocks, head) = chain(300);
    let network = MemoryNetwork::new(Weather { delay: Duration::from_millis(1), ..Weather::FINE });
    network.refuse_stretches();
    let _old = open(&network, 1, Arc::new(history(&blocks, &[(head, 300)]))).await;
    let store = MemoryStore::new();
    let new = open(&network, 2, Arc::new(store.clone())).await;
    network.connect(peer(1), peer(2));
    until("a part", || contents(&*new).len() > 5).await;
    network.disconnect(peer(1), peer(2));
    new.stop().await;
    drop(new);
    let (fetched, _) = network.counts();
    let before = store.snapshot().count(Area::Processed).expect("counts");
    let again = open(&network, 2, Arc::new(store.crash())).await;
    if before < 300 {
        assert_eq!(again.state(), ViewState::CatchingUp);
    }
    network.connect(peer(1), peer(2));
    until("the rest", || again.state() == ViewState::Current).await;
    assert_eq!((contents(&*again).len(), again.heads()), (300, vec![head]));
    assert!(network.counts().0 - fetched <= 300 - before + 10, "nothing is fetched twice");
}
