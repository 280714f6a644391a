//! Bitswap engines on real sockets, and strangers that speak it badly.

#![allow(clippy::unwrap_used, reason = "a test may stop at anything unexpected")]

mod common;

use async_trait::async_trait;
use bytes::Bytes;
use common::*;
use dag::block::Block;
use dag::hash::HashFn;
use futures::StreamExt;
use net::frame::{read_frame, write_frame};
use net::{Bitswap, BitswapLimits, BlockSource, FetchError, Host, HostOptions};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use types::Cid;
use wire::bitswap::{self as message, Message, Presence, Want};

#[derive(Default)]
struct Memory(Mutex<BTreeMap<Cid, Bytes>>);

#[async_trait]
impl BlockSource for Memory {
    async fn get(&self, cid: &Cid) -> Option<Bytes> {
        self.0.lock().get(cid).cloned()
    }
    async fn size(&self, cid: &Cid) -> Option<u64> {
        self.0.lock().get(cid).map(|data| data.len() as u64)
    }
}

struct Node {
    host: Host,
    bitswap: Bitswap,
    store: Arc<Memory>,
}

impl Node {
    async fn start(options: HostOptions) -> Node {
        let (host, _) = start(options).await;
        let store = Arc::new(Memory::default());
        let bitswap = Bitswap::start(host.clone(), store.clone(), BitswapLimits::default());
        Node { host, bitswap, store }
    }

    fn hold(&self, blocks: &[Block]) {
        self.store.0.lock().extend(blocks.iter().map(|block| (block.cid, block.data.clone())));
        self.bitswap.have(&blocks.iter().map(|block| block.cid).collect::<Vec<_>>());
    }
}

/// Hosts number 1 to `count`; the first is connected to all others.
async fn nodes(count: u8) -> Vec<Node> {
    let mut nodes: Vec<Node> = Vec::new();
    for number in 1..=count {
        nodes.push(Node::start(HostOptions { keep_all: true, ..options(number) }).await);
    }
    for other in &nodes[1..] {
        nodes[0].host.connect(other.host.id(), &other.host.addresses()).await.unwrap();
    }
    nodes
}

fn blocks(count: u32, size: usize) -> Vec<Block> {
    let data = |number: u32| number.to_be_bytes().iter().copied().cycle().take(size).collect::<Vec<u8>>();
    (0..count).map(|number| Block::new(0x55, HashFn::SHA2_256, data(number).into()).unwrap()).collect()
}

fn cids(blocks: &[Block]) -> Vec<Cid> {
    blocks.iter().map(|block| block.cid).collect()
}

async fn fetch_all(session: &net::Session, blocks: &[Block]) -> usize {
    let wanted: BTreeMap<Cid, &Bytes> = blocks.iter().map(|block| (block.cid, &block.data)).collect();
    let results = session.fetch_many(cids(blocks));
    results.filter(|(cid, result)| std::future::ready(result.as_ref().ok() == wanted.get(cid).copied())).count().await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_blocks_come_from_a_named_peer() {
    let nodes = nodes(2).await;
    let blocks = blocks(2000, 4096);
    nodes[1].hold(&blocks);
    let session = nodes[0].bitswap.session();
    session.add_providers(&[nodes[1].host.id()]);
    assert_eq!(fetch_all(&session, &blocks).await, 2000);
    let received = nodes[0].bitswap.ledger(&nodes[1].host.id());
    assert_eq!((received.blocks_received, received.bytes_received, received.blocks_unasked), (2000, 2000 * 4096, 0));
    wait_for("the sender counts it too", || nodes[1].bitswap.total().blocks_sent == 2000).await;
}

/// Whoever is connected when a fetch begins is asked, also in the very moment of the dial.
#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_right_after_a_dial_asks_the_peer_that_was_dialled() {
    let holder = Node::start(options(1)).await;
    let blocks = blocks(1, 100);
    holder.hold(&blocks);
    for number in 2..=40 {
        let node = Node::start(options(number)).await;
        node.host.connect(holder.host.id(), &holder.host.addresses()).await.unwrap();
        let fetched = node.bitswap.session().fetch(blocks[0].cid).await;
        assert_eq!(fetched.as_ref(), Ok(&blocks[0].data), "node {number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_providers_share_and_no_block_comes_twice() {
    let nodes = nodes(3).await;
    let blocks = blocks(1000, 16 << 10);
    nodes[1].hold(&blocks);
    nodes[2].hold(&blocks);
    let session = nodes[0].bitswap.session();
    session.add_providers(&[nodes[1].host.id(), nodes[2].host.id()]);
    assert_eq!(fetch_all(&session, &blocks).await, 1000);
    let total = nodes[0].bitswap.total();
    assert_eq!((total.blocks_received, total.blocks_unasked), (1000, 0));
    for node in &nodes[1..] {
        assert!(nodes[0].bitswap.ledger(&node.host.id()).blocks_received > 100, "both work");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_dies_in_the_middle_is_replaced() {
    let nodes = nodes(3).await;
    let blocks = blocks(1000, 32 << 10);
    nodes[1].hold(&blocks);
    nodes[2].hold(&blocks);
    let session = nodes[0].bitswap.session();
    session.add_providers(&[nodes[1].host.id(), nodes[2].host.id()]);
    let mut results = session.fetch_many(cids(&blocks));
    for _ in 0..200 {
        assert!(results.next().await.unwrap().1.is_ok());
    }
    nodes[1].host.shutdown().await;
    assert_eq!(results.filter(|(_, result)| std::future::ready(result.is_ok())).count().await, 800);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_comes_back_is_asked_again() {
    let nodes = nodes(2).await;
    let blocks = blocks(50, 100);
    let session = nodes[0].bitswap.session();
    session.add_providers(&[nodes[1].host.id()]);
    nodes[1].hold(&blocks);
    nodes[0].host.disconnect(nodes[1].host.id()).await;
    wait_for("disconnected", || !nodes[0].host.is_connected(&nodes[1].host.id())).await;
    let fetching = tokio::spawn({
        let blocks = blocks.clone();
        async move { fetch_all(&session, &blocks).await }
    });
    wait_for("all are wanted", || nodes[0].bitswap.fetching() == 50).await;
    nodes[0].host.connect(nodes[1].host.id(), &nodes[1].host.addresses()).await.unwrap();
    assert_eq!(fetching.await.unwrap(), 50);
}

#[tokio::test]
async fn what_nobody_has_is_not_found_soon() {
    let nodes = nodes(3).await;
    let block = blocks(1, 10).remove(0);
    let session = nodes[0].bitswap.session();
    session.add_providers(&[nodes[1].host.id()]);
    let begun = Instant::now();
    assert_eq!(session.fetch(block.cid).await, Err(FetchError::NotFound { asked: 2 }));
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert_eq!(nodes[0].bitswap.fetching(), 0);
}

#[tokio::test]
async fn who_has_it_is_found_among_the_connected() {
    let nodes = nodes(4).await;
    let blocks = blocks(20, 5000);
    nodes[3].hold(&blocks);
    let session = nodes[0].bitswap.session();
    assert_eq!(fetch_all(&session, &blocks).await, 20);
    assert_eq!(nodes[0].bitswap.total().blocks_unasked, 0);
}

#[tokio::test]
async fn waiters_for_one_block_share_one_want() {
    let nodes = nodes(2).await;
    let block = blocks(1, 5000).remove(0);
    nodes[1].hold(std::slice::from_ref(&block));
    let fetches = (0..20).map(|_| {
        let session = nodes[0].bitswap.session();
        session.add_providers(&[nodes[1].host.id()]);
        async move { session.fetch(block.cid).await }
    });
    let results = futures::future::join_all(fetches).await;
    assert!(results.iter().all(|result| result.as_ref() == Ok(&block.data)));
    assert_eq!(nodes[0].bitswap.ledger(&nodes[1].host.id()).blocks_received, 1);
}

#[tokio::test]
async fn a_block_that_is_put_here_ends_its_fetch() {
    let node = Node::start(options(1)).await;
    let stranger = Stranger::of(&node).await;
    let block = blocks(1, 5000).remove(0);
    let session = node.bitswap.session();
    session.add_providers(&[stranger.host.id()]);
    let cid = block.cid;
    let fetching = tokio::spawn(async move { session.fetch(cid).await });
    wait_for("it is wanted", || node.bitswap.fetching() == 1).await;
    node.hold(std::slice::from_ref(&block));
    assert_eq!(fetching.await.unwrap(), Ok(block.data));
}

#[tokio::test]
async fn inline_cids_need_no_peer_and_unprovable_ones_are_refused() {
    let nodes = nodes(1).await;
    let session = nodes[0].bitswap.session();
    let inline = Block::new(0x55, HashFn::IDENTITY, Bytes::from_static(b"inside")).unwrap();
    assert_eq!(session.fetch(inline.cid).await, Ok(inline.data));
    let md5 = Cid::new_v1(0x55, cid::multihash::Multihash::wrap(0xd5, &[1; 16]).unwrap());
    assert_eq!(session.fetch(md5).await, Err(FetchError::Unprovable(0xd5)));
    nodes[0].host.shutdown().await;
    let block = blocks(1, 10).remove(0);
    let stopped = async {
        while session.fetch(block.cid).await != Err(FetchError::Stopped) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), stopped).await.unwrap();
}

/// A host that speaks bitswap by hand.
struct Stranger {
    host: Host,
    incoming: net::Incoming,
    out: net::Stream,
    replies: Option<net::Stream>,
}

impl Stranger {
    async fn of(node: &Node) -> Stranger {
        let (host, _) = start(options(99)).await;
        let incoming = host.accept(&["/ipfs/bitswap/1.2.0"]).unwrap();
        host.connect(node.host.id(), &node.host.addresses()).await.unwrap();
        let (out, _) = host.open(node.host.id(), &["/ipfs/bitswap/1.2.0"]).await.unwrap();
        Stranger { host, incoming, out, replies: None }
    }

    async fn say(&mut self, message: Message) {
        write_frame(&mut self.out, &message.encode()).await.unwrap();
    }

    async fn wants(&mut self, wants: Vec<Want>) {
        self.say(Message { wants, ..Message::default() }).await;
    }

    async fn hear(&mut self) -> Message {
        let next = async {
            if self.replies.is_none() {
                self.replies = Some(self.incoming.next().await.unwrap().2);
            }
            let body = read_frame(self.replies.as_mut().unwrap(), 4 << 20).await.unwrap().unwrap();
            Message::decode(&body).unwrap()
        };
        tokio::time::timeout(Duration::from_secs(5), next).await.expect("an answer")
    }
}

#[tokio::test]
async fn answers_are_those_of_kubo() {
    let node = Node::start(options(1)).await;
    let (small, large, absent) = (blocks(1, 1024).remove(0), blocks(1, 1025).remove(0), blocks(1, 7).remove(0));
    node.hold(&[small.clone(), large.clone()]);
    let mut stranger = Stranger::of(&node).await;
    let silent = Want { send_dont_have: false, ..Want::block(blocks(2, 9).remove(1).cid, 1) };
    stranger.wants(vec![Want::have(small.cid, 9), Want::have(large.cid, 9), Want::have(absent.cid, 9), silent]).await;
    let reply = stranger.hear().await;
    assert_eq!(reply.blocks, [message::Block::new(&small.cid, small.data.clone())]);
    assert_eq!(
        BTreeSet::from_iter(reply.presences.iter().map(|(cid, presence)| (*cid, *presence == Presence::Have))),
        BTreeSet::from([(large.cid, true), (absent.cid, false)])
    );
    node.hold(std::slice::from_ref(&absent));
    let reply = stranger.hear().await;
    assert_eq!(reply.blocks, [message::Block::new(&absent.cid, absent.data.clone())], "small, so it comes itself");
}

/// Helia ends the stream of replies when nothing came for 10 s.
#[tokio::test]
async fn a_reply_comes_on_another_stream_when_the_peer_has_ended_the_first() {
    let node = Node::start(options(1)).await;
    let blocks = blocks(2, 5000);
    node.hold(&blocks);
    let mut stranger = Stranger::of(&node).await;
    for block in &blocks {
        stranger.wants(vec![Want::block(block.cid, 1)]).await;
        assert_eq!(stranger.hear().await.blocks, [message::Block::new(&block.cid, block.data.clone())]);
        stranger.replies = None;
        // Until the end of the stream is over there.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// More than a stream takes in before it is read, so that the sender sees its end.
#[tokio::test]
async fn a_reply_that_was_lost_on_stream_after_stream_is_owed_until_it_is_taken() {
    let node = Node::start(options(1)).await;
    let block = blocks(1, 1 << 20).remove(0);
    node.hold(std::slice::from_ref(&block));
    let mut stranger = Stranger::of(&node).await;
    stranger.wants(vec![Want::block(block.cid, 1)]).await;
    for _ in 0..5 {
        let lost = tokio::time::timeout(Duration::from_secs(5), stranger.incoming.next()).await.expect("another try");
        drop(lost);
    }
    assert_eq!(stranger.hear().await.blocks, [message::Block::new(&block.cid, block.data.clone())]);
}

#[tokio::test]
async fn streams_without_work_are_ended_and_not_reset() {
    let node = Node::start(options(1)).await;
    let (here, absent) = (blocks(1, 5000).remove(0), blocks(1, 7).remove(0));
    node.hold(std::slice::from_ref(&here));
    let mut stranger = Stranger::of(&node).await;
    let session = node.bitswap.session();
    session.add_providers(&[stranger.host.id()]);
    stranger.wants(vec![Want::block(here.cid, 1)]).await;
    let _ = tokio::time::timeout(Duration::from_millis(500), session.fetch(absent.cid)).await;
    // One of them brings replies, the other want lists.
    for _ in 0..2 {
        let (_, _, mut stream) = stranger.incoming.next().await.unwrap();
        while read_frame(&mut stream, 4 << 20).await.unwrap().is_some() {}
        // After a reset nothing could be written to it.
        stream.write_all(b"x").await.expect("half open still");
    }
}

#[tokio::test]
async fn wants_over_the_limit_are_said_to_be_absent() {
    let (host, _) = start(options(1)).await;
    let store = Arc::new(Memory::default());
    let bitswap = Bitswap::start(host.clone(), store.clone(), BitswapLimits { wants_per_peer: 2, ..BitswapLimits::default() });
    let node = Node { host, bitswap, store };
    let blocks = blocks(4, 5000);
    let mut stranger = Stranger::of(&node).await;
    stranger
        .wants(cids(&blocks).into_iter().map(|cid| Want { send_dont_have: cid == blocks[2].cid, ..Want::block(cid, 1) }).collect())
        .await;
    assert_eq!(stranger.hear().await.presences, [(blocks[2].cid, Presence::DontHave)]);
    assert_eq!(node.bitswap.wants_refused(), 2);
    node.hold(&blocks);
    assert_eq!(stranger.hear().await.blocks.len(), 2, "those within the limit");
}

/// What it wants may be read before this host has noticed that it went and came again.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_goes_and_comes_again_at_once_is_answered() {
    let node = Node::start(options(1)).await;
    let block = blocks(1, 5000).remove(0);
    node.hold(std::slice::from_ref(&block));
    let mut stranger = Stranger::of(&node).await;
    for round in 0..50 {
        stranger.wants(vec![Want::block(block.cid, 1)]).await;
        assert_eq!(stranger.hear().await.blocks.len(), 1, "{round}");
        stranger.host.disconnect(node.host.id()).await;
        wait_for("the connection is gone", || !stranger.host.is_connected(&node.host.id())).await;
        stranger.host.connect(node.host.id(), &node.host.addresses()).await.unwrap();
        stranger.out = stranger.host.open(node.host.id(), &["/ipfs/bitswap/1.2.0"]).await.unwrap().0;
        stranger.replies = None;
    }
}

#[tokio::test]
async fn a_cancelled_want_is_not_answered_later() {
    let node = Node::start(options(1)).await;
    let blocks = blocks(2, 5000);
    let mut stranger = Stranger::of(&node).await;
    stranger.wants(cids(&blocks).into_iter().map(|cid| Want::block(cid, 1)).collect()).await;
    assert_eq!(stranger.hear().await.presences.len(), 2);
    // The fresh question after the cancellation shows that the cancellation was read.
    stranger.wants(vec![Want::cancel(blocks[0].cid), Want::have(blocks[1].cid, 1)]).await;
    assert_eq!(stranger.hear().await.presences, [(blocks[1].cid, Presence::DontHave)]);
    node.hold(&blocks);
    let reply = stranger.hear().await;
    let wanted = message::Block::new(&blocks[1].cid, blocks[1].data.clone());
    assert_eq!((reply.blocks, reply.presences), (vec![wanted], vec![]), "asking who has it takes no want for the block back");
}

#[tokio::test]
async fn replies_stay_under_the_limit_of_a_message() {
    let node = Node::start(options(1)).await;
    let blocks = blocks(12, 2 << 20);
    node.hold(&blocks);
    let mut stranger = Stranger::of(&node).await;
    stranger.wants(cids(&blocks).into_iter().map(|cid| Want::block(cid, 1)).collect()).await;
    let mut seen = 0;
    while seen < blocks.len() {
        seen += stranger.hear().await.blocks.len();
    }
}

#[tokio::test]
async fn blocks_nobody_asked_for_are_dropped_and_counted() {
    let node = Node::start(options(1)).await;
    let mut stranger = Stranger::of(&node).await;
    let [wanted, forged, unasked] = <[Block; 3]>::try_from(blocks(3, 100)).ok().unwrap();
    let session = node.bitswap.session();
    session.add_providers(&[stranger.host.id()]);
    let fetching = tokio::spawn({
        let cid = wanted.cid;
        async move { session.fetch(cid).await }
    });
    assert_eq!(stranger.hear().await.wants, [Want::block(wanted.cid, 1)]);
    let lie = message::Block::new(&wanted.cid, forged.data.clone());
    stranger.say(Message { blocks: vec![lie, message::Block::new(&unasked.cid, unasked.data)], ..Message::default() }).await;
    wait_for("both are counted", || node.bitswap.ledger(&stranger.host.id()).blocks_unasked == 2).await;
    assert!(!fetching.is_finished());
    stranger.say(Message { blocks: vec![message::Block::new(&wanted.cid, wanted.data.clone())], ..Message::default() }).await;
    assert_eq!(fetching.await.unwrap(), Ok(wanted.data));
}

#[tokio::test]
async fn a_dropped_fetch_is_cancelled_at_the_peer() {
    let node = Node::start(options(1)).await;
    let mut stranger = Stranger::of(&node).await;
    let block = blocks(1, 100).remove(0);
    let session = node.bitswap.session();
    session.add_providers(&[stranger.host.id()]);
    let fetching = tokio::spawn(async move { session.fetch(block.cid).await });
    stranger.hear().await;
    fetching.abort();
    assert_eq!(stranger.hear().await.wants, [Want::cancel(block.cid)]);
    assert_eq!(node.bitswap.fetching(), 0);
}

#[tokio::test]
async fn garbage_and_huge_frames_end_their_stream_only() {
    let node = Node::start(options(1)).await;
    let block = blocks(1, 5000).remove(0);
    node.hold(std::slice::from_ref(&block));
    let mut stranger = Stranger::of(&node).await;
    for garbage in [&[0x80, 0x80, 0x80, 0x80, 0x08][..], &[0x03, 0xff, 0xff, 0xff], &[0xff; 16]] {
        let (mut stream, _) = stranger.host.open(node.host.id(), &["/ipfs/bitswap/1.2.0"]).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        stream.flush().await.unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(5), read_frame(&mut stream, 10)).await.expect("the stream ends");
        assert!(!matches!(ended, Ok(Some(_))), "{ended:?}");
    }
    stranger.wants(vec![Want::block(block.cid, 1)]).await;
    assert_eq!(stranger.hear().await.blocks.len(), 1);
    assert!(stranger.host.is_connected(&node.host.id()));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_bytes_go_beside_libp2p_and_arrive_whole() {
    let nodes = nodes(2).await;
    let (taker, giver) = (&nodes[0], &nodes[1]);
    wait_for("what both speak", || giver.host.peer_info(&taker.host.id()).is_some_and(|info| !info.protocols.is_empty())).await;
    let blocks = blocks(300, 256 << 10);
    giver.hold(&blocks);
    let session = taker.bitswap.session();
    session.add_providers(&[giver.host.id()]);
    assert_eq!(fetch_all(&session, &blocks).await, 300);
    let received = taker.bitswap.ledger(&giver.host.id());
    assert_eq!((received.blocks_received, received.bytes_received, received.blocks_unasked), (300, 300 * (256 << 10), 0));
    assert!(giver.bitswap.sent_directly() > 10 << 20, "{} bytes", giver.bitswap.sent_directly());
    assert_eq!(taker.bitswap.sent_directly(), 0);
}

/// A TCP connection beside libp2p's, for which `node` made an offer.
async fn direct_way(stranger: &Stranger, node: &Node) -> tokio::net::TcpStream {
    let offer = loop {
        let (mut stream, _) = stranger.host.open(node.host.id(), &[DIRECT]).await.unwrap();
        // None while the way before is being ended.
        if let Some(offer) = read_frame(&mut stream, 256).await.unwrap() {
            // Its end would say that the stranger is gone.
            std::mem::forget(stream);
            break offer;
        }
    };
    assert_eq!(offer.len(), 48);
    let address = node.host.addresses().remove(0);
    let port: u16 = address.split('/').nth(4).unwrap().parse().unwrap();
    let mut socket = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    socket.write_all(&[&b"\0pinfold"[..], &offer[..16]].concat()).await.unwrap();
    socket
}

const DIRECT: &str = "/pinfold/bitswap-direct/1";

#[tokio::test]
async fn what_may_be_lost_on_a_direct_way_is_asked_for_again() {
    let node = Node::start(options(1)).await;
    let mut stranger = Stranger::of(&node).await;
    let block = blocks(1, 5000).remove(0);
    let session = node.bitswap.session();
    session.add_providers(&[stranger.host.id()]);
    let cid = block.cid;
    let fetching = tokio::spawn(async move { session.fetch(cid).await });
    assert_eq!(stranger.hear().await.wants, [Want::block(cid, 1)]);
    let garbage = [&[0, 0, 0, 20][..], &[7; 20]].concat();
    for said in [&b""[..], &[0, 0], &[0xff; 4], &garbage] {
        let mut socket = direct_way(&stranger, &node).await;
        socket.write_all(said).await.unwrap();
        socket.shutdown().await.unwrap();
        assert_eq!(stranger.hear().await.wants, [Want::block(cid, 1)], "{said:?}");
    }
    stranger.say(Message { blocks: vec![message::Block::new(&cid, block.data.clone())], ..Message::default() }).await;
    assert_eq!(fetching.await.unwrap(), Ok(block.data));
}

#[tokio::test]
async fn a_peer_has_one_direct_way_and_none_into_a_private_network() {
    let node = Node::start(options(1)).await;
    let stranger = Stranger::of(&node).await;
    let _first = direct_way(&stranger, &node).await;
    let (mut second, _) = stranger.host.open(node.host.id(), &[DIRECT]).await.unwrap();
    assert!(read_frame(&mut second, 256).await.unwrap().is_none(), "no second offer");
    let private = Node::start(with_psk(2, 7)).await;
    let (member, _) = start(with_psk(3, 7)).await;
    member.connect(private.host.id(), &private.host.addresses()).await.unwrap();
    assert!(member.open(private.host.id(), &[DIRECT]).await.is_err());
}
