//! The node on a disk, alone.
#![allow(clippy::unwrap_used, reason = "a test may stop at anything unexpected")]

mod common;

use common::{OnDisk, damage, open, options};
use ipfs::conformance::sample::{Tree, branch, leaf, noise, raw_of_size};
use ipfs::{BlockError, Blocks, IpfsNode, NodeInfo, PinError, PinTask, Pins, Source};
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::watch;
use types::{ByteCount, Cid, Depth, Owner};

fn task(cid: Cid) -> PinTask {
    PinTask { owner: Owner::User, cid, depth: Depth::Recursive, source: Source::default() }
}

fn unwatched() -> ipfs::Progress {
    Arc::new(watch::Sender::default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_the_promises_of_a_node() {
    let folders = Mutex::new(Vec::new());
    ipfs::conformance::all(|| async {
        let on_disk = OnDisk::new();
        let node = on_disk.node.clone();
        folders.lock().push(on_disk);
        node as Arc<dyn IpfsNode>
    })
    .await;
}

#[tokio::test]
async fn refuses_above_its_limit_and_says_why_a_pin_does_not_fit() {
    let on_disk = OnDisk::with(ByteCount(32 << 20), None, options());
    ipfs::conformance::limit_refuses_with_numbers(&*on_disk.node).await;
}

#[tokio::test]
async fn many_pins_of_what_is_here_are_kept_together() {
    let on_disk = OnDisk::new();
    let kept = ipfs::conformance::pin_here_keeps_only_what_is_complete(&*on_disk.node).await;
    assert_eq!(kept, [false, true, false, true, true]);
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_reopening() {
    let on_disk = OnDisk::new();
    let tree = Tree::new(1);
    tree.put(&*on_disk.node).await;
    on_disk.node.put(&Owner::Adding(1), vec![leaf(7)]).await.unwrap();
    let size = on_disk.node.pin(task(tree.root()), unwatched()).await.unwrap();
    let dir = on_disk.dir;
    drop(on_disk.node);

    let node = open(dir.path(), ByteCount(1 << 40), None, options());
    tree.check_whole(&*node).await;
    let held = node.pin_of(&tree.root()).await.unwrap().unwrap();
    assert_eq!(held.size, size);
    assert!(held.owners[0].2.0 > 1_600_000_000_000, "since {:?}", held.owners[0].2);
    node.collect_garbage().await.unwrap();
    tree.check_whole(&*node).await;
    assert_eq!(node.has(&[leaf(7).cid]).await.unwrap(), [false], "an add ends with the process");
}

#[tokio::test]
async fn a_damaged_block_is_said_to_be_damaged_and_stops_a_collection() {
    let on_disk = OnDisk::new();
    let root = branch(&[&leaf(1)]);
    let big = raw_of_size(1, 100_000);
    on_disk.node.put(&Owner::User, vec![root.clone(), leaf(1), big.clone()]).await.unwrap();
    on_disk.node.pin(task(root.cid), unwatched()).await.unwrap();
    damage(&on_disk, &big.data[1000..1100]);
    damage(&on_disk, &root.data);
    let node = &on_disk.node;
    for cid in [big.cid, root.cid] {
        assert!(matches!(node.get(&cid, &Source::default()).await, Err(BlockError::Corrupt { cid: named }) if named == cid));
    }
    // Nobody knows any more what the root keeps, so nothing may go.
    let collected = node.collect_garbage().await;
    assert!(matches!(collected, Err(BlockError::Corrupt { cid }) if cid == root.cid), "{collected:?}");
    assert_eq!(node.has(&[leaf(1).cid, big.cid]).await.unwrap(), [true, true]);
    node.unpin(&Owner::User, &root.cid).await.unwrap();
    node.collect_garbage().await.unwrap();
    assert_eq!(node.has(&[leaf(1).cid, big.cid]).await.unwrap(), [false, false]);
}

#[tokio::test]
async fn a_block_that_cannot_be_read_as_what_it_claims_fails_the_pin() {
    let on_disk = OnDisk::new();
    let strange = dag::Block::new(dag::codec::DAG_PB, dag::HashFn::SHA2_256, noise(1, 500).into()).unwrap();
    let root = branch(&[&strange]);
    on_disk.node.put(&Owner::User, vec![strange.clone(), root.clone()]).await.unwrap();
    let pinned = on_disk.node.pin(task(root.cid), unwatched()).await;
    assert!(matches!(&pinned, Err(PinError::Malformed { cid, .. }) if *cid == strange.cid), "{pinned:?}");
    assert!(on_disk.node.pins(None, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn space_is_counted_and_comes_back() {
    let on_disk = OnDisk::with(ByteCount(256 << 20), None, options());
    let node = &on_disk.node;
    let blocks: Vec<_> = (0..64).map(|seed| raw_of_size(seed, 256 << 10)).collect();
    node.put(&Owner::User, blocks).await.unwrap();
    let full = node.space().await.unwrap();
    assert_eq!((full.blocks, full.is_exact, full.limit), (64, true, ByteCount(256 << 20)));
    assert!(full.used >= ByteCount(16 << 20));
    assert_eq!(node.collect_garbage().await.unwrap(), ByteCount(16 << 20));
    let empty = node.space().await.unwrap();
    assert_eq!(empty.blocks, 0);
    assert!(empty.used + ByteCount(10 << 20) < full.used, "{} used before, {} after", full.used, empty.used);
}

#[tokio::test]
async fn content_inside_a_cid_is_always_here() {
    let on_disk = OnDisk::new();
    let inline = dag::Block::new(dag::codec::RAW, dag::HashFn::IDENTITY, "abc".into()).unwrap();
    let node = &on_disk.node;
    assert_eq!(node.has(&[inline.cid]).await.unwrap(), [true]);
    assert_eq!(node.get(&inline.cid, &Source::local()).await.unwrap(), inline.data);
    node.put(&Owner::User, vec![inline.clone()]).await.unwrap();
    assert_eq!(node.space().await.unwrap().blocks, 0);
    let root = branch(&[&inline, &leaf(1)]);
    node.put(&Owner::User, vec![root.clone(), leaf(1)]).await.unwrap();
    assert_eq!(node.pin(task(root.cid), unwatched()).await.unwrap().blocks, 2);
}
