//! Nodes among each other, on the loopback.
#![allow(clippy::unwrap_used, reason = "a test may stop at anything unexpected")]

mod common;

use common::{OnDisk, options};
use ipfs::conformance::sample::{Tree, branch, leaf, raw_of_size};
use ipfs::{Block, BlockError, Blocks, IpfsNode, NodeInfo, PinError, PinTask, Pins, Progress, Source};
use ipfs_embedded::EmbeddedOptions;
use net::blockstream::lane_owner;
use net::{Admission, BlockLane, LaneError, LaneHeader, LaneKind, LaneRefusal};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use types::{ByteCount, Cid, Depth, Owner, PeerId};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_the_promises_about_fetching() {
    let kept = Mutex::new(Vec::new());
    ipfs::conformance::all_fetching(|| async {
        let (one, two) = (OnDisk::networked().await, OnDisk::networked().await);
        one.connect(&two).await;
        let nodes = (one.node.clone() as Arc<dyn IpfsNode>, two.node.clone() as Arc<dyn IpfsNode>);
        kept.lock().push((one, two));
        nodes
    })
    .await;
}

/// A file of `leaves` leaves in two levels; the root comes last.
fn wide(seed: u64, leaves: u64, size: usize) -> Vec<Block> {
    let leaves: Vec<Block> = (0..leaves).map(|index| raw_of_size(seed * 1_000_000 + index, size)).collect();
    let middles: Vec<Block> = leaves.chunks(32).map(|group| branch(&group.iter().collect::<Vec<_>>())).collect();
    let root = branch(&middles.iter().collect::<Vec<_>>());
    [leaves, middles, vec![root]].concat()
}

fn task(root: Cid, holders: &[&OnDisk]) -> PinTask {
    let holders = holders.iter().filter_map(|holder| holder.node.id()).collect();
    PinTask { owner: Owner::User, cid: root, depth: Depth::Recursive, source: Source { holders, ..Source::default() } }
}

fn unwatched() -> Progress {
    Arc::new(watch::Sender::default())
}

async fn check_whole(node: &OnDisk, blocks: &[Block]) {
    for block in blocks {
        assert_eq!(node.node.get(&block.cid, &Source::local()).await.unwrap(), block.data);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pin_goes_on_with_the_second_holder_when_the_first_dies() {
    let (node, first, second) = (OnDisk::networked().await, OnDisk::networked().await, OnDisk::networked().await);
    let blocks = wide(1, 300, 64 << 10);
    for holder in [&first, &second] {
        holder.node.put_verified(&Owner::User, blocks.clone()).await.unwrap();
        node.connect(holder).await;
    }
    let progress = Arc::new(watch::Sender::default());
    let root = blocks.last().unwrap().cid;
    let pin = tokio::spawn({
        let (node, task, progress) = (node.node.clone(), task(root, &[&first, &second]), progress.clone());
        async move { node.pin(task, progress).await }
    });
    let mut watched = progress.subscribe();
    watched.wait_for(|progress| progress.blocks >= 20).await.unwrap();
    first.host.as_ref().unwrap().shutdown().await;
    let pinned = pin.await.unwrap().unwrap();
    assert_eq!(pinned.blocks, blocks.len() as u64);
    node.node.collect_garbage().await.unwrap();
    check_whole(&node, &blocks).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_is_known_and_not_connected_is_dialled() {
    let (node, holder) = (OnDisk::networked().await, OnDisk::networked().await);
    let tree = Tree::new(1);
    tree.put(&*holder.node).await;
    node.connect(&holder).await;
    let id = holder.node.id().unwrap();
    node.host.as_ref().unwrap().disconnect(id).await;
    while node.host.as_ref().unwrap().is_connected(&id) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let pinned = node.node.pin(task(tree.root(), &[&holder]), unwatched()).await.unwrap();
    assert_eq!(pinned, tree.size());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_missing_blocks_are_named_and_the_others_fetched() {
    let (node, holder) = (OnDisk::networked().await, OnDisk::networked().await);
    node.connect(&holder).await;
    let blocks = wide(2, 64, 1000);
    let (gone, there): (Vec<Block>, Vec<Block>) =
        blocks.iter().cloned().partition(|block| [3, 40].map(|at| blocks[at].cid).contains(&block.cid));
    holder.node.put_verified(&Owner::User, there.clone()).await.unwrap();
    let root = blocks.last().unwrap().cid;
    let pinned = node.node.pin(task(root, &[&holder]), unwatched()).await;
    let Err(PinError::Missing { mut missing, .. }) = pinned else { panic!("expected Missing, got {pinned:?}") };
    let mut expected: Vec<Cid> = gone.iter().map(|block| block.cid).collect();
    missing.sort();
    expected.sort();
    assert_eq!(missing, expected);
    check_whole(&node, &there).await;
    assert!(node.node.pins(None, 10).await.unwrap().is_empty());

    node.node.put_verified(&Owner::User, gone).await.unwrap();
    assert_eq!(node.node.pin(task(root, &[]), unwatched()).await.unwrap().blocks, blocks.len() as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pin_that_does_not_fit_says_how_much_room_there_is() {
    let limit = ByteCount(16 << 20);
    let (node, holder) = (OnDisk::networked_with(limit).await, OnDisk::networked().await);
    node.connect(&holder).await;
    let blocks = wide(3, 200, 128 << 10);
    holder.node.put_verified(&Owner::User, blocks.clone()).await.unwrap();
    let root = blocks.last().unwrap().cid;
    match node.node.pin(task(root, &[&holder]), unwatched()).await {
        Err(PinError::NoRoom { cid, needed, free }) => assert!(cid == root && needed > free && free < limit, "needs {needed}, free {free}"),
        other => panic!("expected NoRoom, got {other:?}"),
    }
    let space = node.node.space().await.unwrap();
    assert!(space.used <= limit, "used {}", space.used);
    node.node.collect_garbage().await.unwrap();
    assert_eq!(node.node.space().await.unwrap().blocks, 0, "what was fetched is garbage");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_pin_stops_fetching_and_leaves_only_garbage() {
    let (node, holder) = (OnDisk::networked().await, OnDisk::networked().await);
    node.connect(&holder).await;
    let blocks = wide(4, 300, 64 << 10);
    holder.node.put_verified(&Owner::User, blocks.clone()).await.unwrap();
    let progress = Arc::new(watch::Sender::default());
    let pin = tokio::spawn({
        let (node, task, progress) = (node.node.clone(), task(blocks.last().unwrap().cid, &[&holder]), progress.clone());
        async move { node.pin(task, progress).await }
    });
    progress.subscribe().wait_for(|progress| progress.blocks >= 10).await.unwrap();
    pin.abort();
    assert!(pin.await.unwrap_err().is_cancelled());
    assert_eq!(node.node.bitswap().unwrap().fetching(), 0);
    node.node.collect_garbage().await.unwrap();
    assert_eq!(node.node.space().await.unwrap().blocks, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collection_takes_nothing_from_a_pin_on_its_way() {
    let (node, holder) = (OnDisk::networked().await, OnDisk::networked().await);
    node.connect(&holder).await;
    let blocks = wide(5, 200, 16 << 10);
    holder.node.put_verified(&Owner::User, blocks.clone()).await.unwrap();
    // Half of it is here already, as garbage.
    node.node.put_verified(&Owner::User, blocks.iter().step_by(2).cloned().collect()).await.unwrap();
    let is_done = Arc::new(AtomicBool::new(false));
    let collecting = tokio::spawn({
        let (node, is_done) = (node.node.clone(), is_done.clone());
        async move {
            let mut rounds = 0;
            while !is_done.load(Ordering::Relaxed) || rounds < 3 {
                node.collect_garbage().await.unwrap();
                rounds += 1;
            }
        }
    });
    let pinned = node.node.pin(task(blocks.last().unwrap().cid, &[&holder]), unwatched()).await.unwrap();
    is_done.store(true, Ordering::Relaxed);
    collecting.await.unwrap();
    assert_eq!(pinned.blocks, blocks.len() as u64);
    check_whole(&node, &blocks).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_block_is_fetched_again_and_put_right() {
    let (node, holder) = (OnDisk::networked().await, OnDisk::networked().await);
    node.connect(&holder).await;
    let block = raw_of_size(1, 50_000);
    let root = branch(&[&block]);
    for one in [&node, &holder] {
        one.node.put_verified(&Owner::User, vec![block.clone(), root.clone()]).await.unwrap();
    }
    node.node.pin(task(root.cid, &[]), unwatched()).await.unwrap();
    for damaged in [&block, &root] {
        common::damage(&node, &damaged.data);
        let read = node.node.get(&damaged.cid, &Source::local()).await;
        assert!(matches!(read, Err(BlockError::Corrupt { .. })), "{read:?}");
    }
    assert_eq!(node.node.get(&block.cid, &Source::default()).await.unwrap(), block.data);
    // The root is put right by the collection, which must know what it keeps.
    node.node.collect_garbage().await.unwrap();
    check_whole(&node, &[block, root]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_reader_fetches_is_kept_only_when_asked_for() {
    let holder = OnDisk::networked().await;
    holder.node.put(&Owner::User, vec![leaf(1)]).await.unwrap();
    for keep_fetched in [false, true] {
        let node = OnDisk::with(ByteCount(1 << 40), Some(common::host().await), EmbeddedOptions { keep_fetched, ..options() });
        node.connect(&holder).await;
        assert_eq!(node.node.get(&leaf(1).cid, &Source::default()).await.unwrap(), leaf(1).data);
        assert_eq!(node.node.has(&[leaf(1).cid]).await.unwrap(), [keep_fetched]);
    }
}

fn header(lease: u64) -> LaneHeader {
    LaneHeader { lease, cluster_peer: cluster_peer(), kind: LaneKind::Add }
}

fn cluster_peer() -> PeerId {
    PeerId::from_ed25519(&[99; 32])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_of_a_lane_are_safe_until_their_owner_is_released() {
    let (sender, receiver) = (OnDisk::networked().await, OnDisk::networked().await);
    sender.connect(&receiver).await;
    let (host, to) = (sender.host.as_ref().unwrap(), receiver.node.id().unwrap());
    let refused = BlockLane::open(host, to, header(7)).await;
    assert!(matches!(refused, Err(LaneError::Refused(LaneRefusal::NotTrusted))), "{refused:?}");

    let known = sender.node.id().unwrap();
    receiver.node.allow_lanes(Arc::new(move |from, header| match *from == known {
        true if header.cluster_peer == cluster_peer() => Admission::Admitted,
        true => Admission::Refused,
        false => Admission::NotYet,
    }));
    let lane = BlockLane::open(host, to, header(7)).await.unwrap();
    let blocks = wide(6, 40, 100_000);
    for block in &blocks {
        lane.send(block.cid, block.data.clone()).await.unwrap();
    }
    lane.finish().await.unwrap();
    receiver.node.collect_garbage().await.unwrap();
    check_whole(&receiver, &blocks).await;
    receiver.node.release(&lane_owner(&cluster_peer(), 7)).await.unwrap();
    receiver.node.collect_garbage().await.unwrap();
    assert_eq!(receiver.node.space().await.unwrap().blocks, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_with_a_wrong_block_or_without_room_is_refused() {
    let (sender, receiver) = (OnDisk::networked().await, OnDisk::networked_with(ByteCount(16 << 20)).await);
    receiver.node.allow_lanes(Arc::new(|_, _| Admission::Admitted));
    sender.connect(&receiver).await;
    let (host, to) = (sender.host.as_ref().unwrap(), receiver.node.id().unwrap());

    let lane = BlockLane::open(host, to, header(1)).await.unwrap();
    lane.send(leaf(1).cid, leaf(2).data).await.unwrap();
    let ended = lane.finish().await;
    assert!(matches!(&ended, Err(LaneError::Refused(LaneRefusal::Failed(why))) if why.contains("does not match")), "{ended:?}");
    assert_eq!(receiver.node.has(&[leaf(1).cid, leaf(2).cid]).await.unwrap(), [false, false]);

    let lane = BlockLane::open(host, to, header(2)).await.unwrap();
    let mut ended = Ok(());
    for seed in 0..100 {
        let block = raw_of_size(seed, 256 << 10);
        ended = lane.send(block.cid, block.data).await;
        if ended.is_err() {
            break;
        }
    }
    if ended.is_ok() {
        ended = lane.finish().await;
    }
    assert!(matches!(ended, Err(LaneError::Refused(LaneRefusal::NoRoom { .. }))), "{ended:?}");
    assert!(receiver.node.space().await.unwrap().used <= ByteCount(16 << 20));
    // A batch that does not fit may leave more room than a lane needs to begin.
    let mut seed = 100;
    while receiver.node.put(&Owner::User, vec![raw_of_size(seed, 64 << 10)]).await.is_ok() {
        seed += 1;
    }
    let again = BlockLane::open(host, to, header(3)).await;
    assert!(matches!(again, Err(LaneError::Refused(LaneRefusal::NoRoom { .. }))), "{again:?}");
}
