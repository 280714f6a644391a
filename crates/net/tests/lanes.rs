//! Block lanes on real sockets.

#![allow(clippy::unwrap_used, reason = "a test may stop at anything unexpected")]

mod common;

use async_trait::async_trait;
use bytes::Bytes;
use common::*;
use dag::block::Block;
use dag::hash::HashFn;
use net::blockstream::{BLOCK_MAX, LaneLimits, PROTOCOL};
use net::frame::{read_frame, write_frame};
use net::{BlockLane, Host, HostOptions, LaneError, LaneHeader, LaneKind, LaneReceiver, LaneRefusal, LaneSink, serve_lanes};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;
use types::{ByteCount, Cid, PeerId};

/// Keeps what comes; refuses leases 13 (not trusted) and stops lease 7 after ten blocks.
struct Shelf {
    blocks: Mutex<Vec<(u64, Cid)>>,
    /// Each batch takes one; so a test decides when something is stored.
    permits: Semaphore,
}

struct Lane {
    shelf: Arc<Shelf>,
    lease: u64,
}

struct Sink(Arc<Shelf>);

#[async_trait]
impl LaneSink for Sink {
    async fn begin(&self, from: PeerId, header: LaneHeader) -> Result<Box<dyn LaneReceiver>, LaneRefusal> {
        if header.lease == 13 || from == header.cluster_peer {
            return Err(LaneRefusal::NotTrusted);
        }
        Ok(Box::new(Lane { shelf: self.0.clone(), lease: header.lease }))
    }
}

#[async_trait]
impl LaneReceiver for Lane {
    async fn put(&mut self, batch: Vec<(Cid, Bytes)>) -> Result<(), LaneRefusal> {
        self.shelf.permits.acquire().await.unwrap().forget();
        let mut blocks = self.shelf.blocks.lock();
        if self.lease == 7 && blocks.len() >= 10 {
            return Err(LaneRefusal::NoRoom { free: ByteCount(5) });
        }
        for (cid, data) in batch {
            dag::block::verify(&cid, &data).map_err(|error| LaneRefusal::Failed(error.to_string()))?;
            blocks.push((self.lease, cid));
        }
        Ok(())
    }
}

async fn lanes(permits: usize) -> (Host, Host, Arc<Shelf>) {
    let (from, to) = pair(options(1), options(2)).await;
    let shelf = Arc::new(Shelf { blocks: Mutex::default(), permits: Semaphore::new(permits) });
    serve_lanes(&to, Arc::new(Sink(shelf.clone()))).unwrap();
    (from, to, shelf)
}

fn header(lease: u64) -> LaneHeader {
    LaneHeader { lease, cluster_peer: PeerId::from_ed25519(&[8; 32]), kind: LaneKind::Add }
}

fn block(number: u32, size: usize) -> Block {
    let data: Vec<u8> = number.to_be_bytes().iter().copied().cycle().take(size).collect();
    Block::new(0x55, HashFn::SHA2_256, data.into()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_sent_is_durable_when_finish_returns() {
    let (from, to, shelf) = lanes(Semaphore::MAX_PERMITS).await;
    wait_for("the receiver has said where it listens", || from.peer_info(&to.id()).is_some_and(|info| !info.listens.is_empty())).await;
    // By a connection of its own and over the stream: the bytes through the stream tell which.
    for direct in [true, false] {
        shelf.blocks.lock().clear();
        send_all_sizes(&from, &to, &shelf, LaneLimits { direct, ..LaneLimits::default() }).await;
        let (sent, received) = (from.stats().bytes_sent, to.stats().bytes_received);
        assert!(sent > 30 << 20 && received > 30 << 20, "both ways are counted: {sent} {received}");
    }
}

async fn send_all_sizes(from: &Host, to: &Host, shelf: &Shelf, limits: LaneLimits) {
    let lane = BlockLane::open_with(from, to.id(), header(1), limits).await.unwrap();
    assert_eq!(lane.is_direct(), limits.direct);
    let mut sent = Vec::new();
    for number in 0..500 {
        let size = [0, 1, 300, 40_000, 262_144][number as usize % 5];
        let block = block(number, size);
        sent.push((1, block.cid));
        lane.send(block.cid, block.data).await.unwrap();
    }
    let largest = block(9, BLOCK_MAX);
    sent.push((1, largest.cid));
    lane.send(largest.cid, largest.data).await.unwrap();
    lane.finish().await.unwrap();
    assert!(*shelf.blocks.lock() == sent, "all, in order");
}

#[tokio::test]
async fn without_a_way_to_the_port_blocks_take_the_stream() {
    let udp = |number| HostOptions { listen: vec!["/ip4/127.0.0.1/udp/0/quic-v1".to_owned()], ..options(number) };
    let (from, to) = pair(udp(1), udp(2)).await;
    let shelf = Arc::new(Shelf { blocks: Mutex::default(), permits: Semaphore::new(Semaphore::MAX_PERMITS) });
    serve_lanes(&to, Arc::new(Sink(shelf.clone()))).unwrap();
    let lane = BlockLane::open(&from, to.id(), header(1)).await.unwrap();
    assert!(!lane.is_direct());
    let block = block(1, 300_000);
    lane.send(block.cid, block.data).await.unwrap();
    lane.finish().await.unwrap();
    assert_eq!(*shelf.blocks.lock(), [(1, block.cid)]);
}

#[tokio::test]
async fn an_empty_lane_finishes() {
    let (from, to, _) = lanes(0).await;
    BlockLane::open(&from, to.id(), header(1)).await.unwrap().finish().await.unwrap();
}

#[tokio::test]
async fn a_slow_receiver_holds_the_sender_back() {
    let (from, to, shelf) = lanes(0).await;
    let limits = LaneLimits { window: 8 << 20, ..LaneLimits::default() };
    let lane = Arc::new(BlockLane::open_with(&from, to.id(), header(1), limits).await.unwrap());
    let (sender, sent) = (lane.clone(), Arc::new(Mutex::new(0)));
    let counter = sent.clone();
    let sending = tokio::spawn(async move {
        for number in 0..64 {
            let block = block(number, 1 << 20);
            sender.send(block.cid, block.data).await.unwrap();
            *counter.lock() += 1;
        }
    });
    wait_for("the window is full", || *sent.lock() == 7).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!((*sent.lock(), lane.acknowledged()), (7, 0), "8 MiB, less what stands beside the bytes");
    shelf.permits.add_permits(1);
    // Batches that wait are stored together, so one permit frees one or several.
    wait_for("as many more as are stored", || lane.acknowledged() > 0 && *sent.lock() == 7 + lane.acknowledged()).await;
    shelf.permits.add_permits(64);
    sending.await.unwrap();
    Arc::into_inner(lane).unwrap().finish().await.unwrap();
    assert_eq!(shelf.blocks.lock().len(), 64);
}

#[tokio::test]
async fn a_refusal_comes_back_with_its_kind() {
    let (from, to, shelf) = lanes(Semaphore::MAX_PERMITS).await;
    let refused = BlockLane::open(&from, to.id(), header(13)).await.unwrap_err();
    assert_eq!(refused, LaneError::Refused(LaneRefusal::NotTrusted));

    let lane = BlockLane::open(&from, to.id(), header(7)).await.unwrap();
    let failure = loop {
        let block = block(1, 1 << 20);
        if let Err(error) = lane.send(block.cid, block.data).await {
            break error;
        }
    };
    assert_eq!(failure, LaneError::Refused(LaneRefusal::NoRoom { free: ByteCount(5) }));
    assert_eq!(lane.acknowledged() as usize, shelf.blocks.lock().len());
    assert_eq!(lane.finish().await, Err(failure));

    let lane = BlockLane::open(&from, to.id(), header(1)).await.unwrap();
    lane.send(block(1, 10).cid, Bytes::from_static(b"something else")).await.unwrap();
    assert!(matches!(lane.finish().await, Err(LaneError::Refused(LaneRefusal::Failed(reason))) if reason.contains("does not match")));
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_here() {
    let (from, to, _) = lanes(9).await;
    let lane = BlockLane::open(&from, to.id(), header(1)).await.unwrap();
    let large = Bytes::from(vec![0; BLOCK_MAX + 1]);
    let cid = block(1, 1).cid;
    assert_eq!(lane.send(cid, large).await, Err(LaneError::TooLarge { cid, size: BLOCK_MAX + 1 }));
    let stranger = PeerId::from_ed25519(&[9; 32]);
    assert!(matches!(BlockLane::open(&from, stranger, header(1)).await, Err(LaneError::Open(_))));
}

#[tokio::test]
async fn a_lost_receiver_and_one_that_stops_answering_are_errors() {
    let (from, to, _) = lanes(0).await;
    let limits = LaneLimits { stall: Duration::from_millis(200), ..LaneLimits::default() };
    let stalled = BlockLane::open_with(&from, to.id(), header(1), limits).await.unwrap();
    let lost = BlockLane::open(&from, to.id(), header(2)).await.unwrap();
    for lane in [&stalled, &lost] {
        let block = block(1, 10);
        lane.send(block.cid, block.data).await.unwrap();
    }
    assert!(matches!(stalled.finish().await, Err(LaneError::Lost(reason)) if reason.contains("acknowledged")));
    to.shutdown().await;
    assert!(matches!(lost.finish().await, Err(LaneError::Lost(_))));
}

#[tokio::test]
async fn lanes_of_one_sender_are_bounded() {
    let (from, to, _) = lanes(0).await;
    let mut open = Vec::new();
    for lease in 20..28 {
        open.push(BlockLane::open(&from, to.id(), header(lease)).await.unwrap());
    }
    assert_eq!(BlockLane::open(&from, to.id(), header(30)).await.unwrap_err(), LaneError::Refused(LaneRefusal::Busy));
    open.pop();
    for _ in 0..100 {
        match BlockLane::open(&from, to.id(), header(30)).await {
            Ok(_) => return,
            Err(error) => assert_eq!(error, LaneError::Refused(LaneRefusal::Busy)),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("a lane that broke off frees its place");
}

#[tokio::test]
async fn garbage_ends_its_lane_only() {
    let (from, to, _) = lanes(Semaphore::MAX_PERMITS).await;
    for garbage in [&b"\x80\x80\x80\x80\x08"[..], b"\x03abc", b""] {
        let (mut stream, _) = from.open(to.id(), &[PROTOCOL]).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        stream.shutdown().await.unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(5), read_frame(&mut stream, 100)).await.expect("the stream ends");
        assert!(!matches!(ended, Ok(Some(_))), "{ended:?}");
    }
    // A good header, then a frame that promises 2 GiB.
    let (mut stream, _) = from.open(to.id(), &[PROTOCOL]).await.unwrap();
    let mut good = vec![1, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    good.extend_from_slice(PeerId::from_ed25519(&[8; 32]).as_bytes());
    write_frame(&mut stream, &good).await.unwrap();
    assert!(read_frame(&mut stream, 100).await.unwrap().is_some(), "accepted");
    stream.write_all(b"\x80\x80\x80\x80\x08").await.unwrap();
    stream.flush().await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(5), read_frame(&mut stream, 100)).await.expect("the stream ends");
    assert!(!matches!(ended, Ok(Some(_))), "{ended:?}");
    BlockLane::open(&from, to.id(), header(1)).await.unwrap().finish().await.unwrap();
}
