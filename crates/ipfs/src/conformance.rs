//! The promises of [`IpfsNode`], one function each; every implementer runs [`all`] and, if it has a network, [`all_fetching`].
//!
//! Each function takes a fresh, empty node and panics where the promise is broken. A node with a limit also runs
//! [`limit_refuses_with_numbers`].
#![allow(clippy::unwrap_used, reason = "a test suite: a broken promise panics")]

pub mod sample;

use self::sample::{Tree, branch, leaf};
use crate::{BlockError, HeldPin, IpfsNode, PinError, PinProgress, PinTask, Pinned, PutError, Source};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use tokio::sync::watch;
use types::{ByteCount, Cid, Depth, Owner};

/// Runs every promise that one node can show, each on a fresh node from `make`.
pub async fn all<F: Future<Output = Arc<dyn IpfsNode>>>(make: impl Fn() -> F) {
    put_then_get(&*make().await).await;
    putting_twice_is_harmless(&*make().await).await;
    mismatching_data_is_refused(&*make().await).await;
    too_large_a_block_is_refused(&*make().await).await;
    a_missing_block_is_not_local(&*make().await).await;
    twins_of_one_hash_share_their_block(&*make().await).await;
    an_add_is_safe_until_its_release(&*make().await).await;
    garbage_put_again_by_an_add_is_safe(&*make().await).await;
    pinned_content_survives_collection(&*make().await).await;
    unpinned_content_goes_at_collection(&*make().await).await;
    content_goes_with_its_last_owner(&*make().await).await;
    shared_blocks_stay_with_the_other_pin(&*make().await).await;
    depth_says_how_much_is_kept(&*make().await).await;
    a_greater_depth_replaces_a_smaller(&*make().await).await;
    pins_are_sorted_and_resumable(&*make().await).await;
    unpinning_twice_is_fine(&*make().await).await;
    a_cancelled_pin_leaves_no_pin(&*make().await).await;
    a_pin_of_missing_content_names_it(&*make().await).await;
    progress_counts_every_block_once(&*make().await).await;
    pin_here_keeps_only_what_is_complete(&*make().await).await;
    pins_and_collections_at_once_lose_nothing(make().await).await;
}

/// Runs the promises about fetching. `make` gives two fresh nodes that can reach each other; the second is fetched from.
pub async fn all_fetching<F: Future<Output = (Arc<dyn IpfsNode>, Arc<dyn IpfsNode>)>>(make: impl Fn() -> F) {
    let (node, other) = make().await;
    get_fetches_from_another_node(&*node, &*other).await;
    let (node, other) = make().await;
    pin_fetches_what_is_missing(&*node, &*other).await;
    let (node, other) = make().await;
    local_only_never_fetches(&*node, &*other).await;
}

/// What was put is there, and comes back as it was.
pub async fn put_then_get(node: &dyn IpfsNode) {
    let (one, two) = (leaf(1), leaf(2));
    node.put(&Owner::User, vec![one.clone(), two.clone()]).await.unwrap();
    assert_eq!(node.get(&one.cid, &Source::local()).await.unwrap(), one.data);
    assert_eq!(node.get(&two.cid, &Source::default()).await.unwrap(), two.data);
    assert_eq!(node.has(&[two.cid, leaf(3).cid, one.cid]).await.unwrap(), [true, false, true], "in the order of the question");
    node.put(&Owner::User, Vec::new()).await.unwrap();
}

/// A second put of the same block changes nothing.
pub async fn putting_twice_is_harmless(node: &dyn IpfsNode) {
    let block = leaf(1);
    node.put(&Owner::User, vec![block.clone()]).await.unwrap();
    let before = node.space().await.unwrap();
    node.put(&Owner::User, vec![block.clone(), block.clone()]).await.unwrap();
    node.put(&Owner::Adding(1), vec![block.clone()]).await.unwrap();
    node.release(&Owner::Adding(1)).await.unwrap();
    let after = node.space().await.unwrap();
    if after.is_exact {
        assert_eq!(after.blocks, before.blocks);
    }
    assert_eq!(node.get(&block.cid, &Source::local()).await.unwrap(), block.data);
}

/// Data that is not what its CID says is refused, and nothing of it stays.
pub async fn mismatching_data_is_refused(node: &dyn IpfsNode) {
    let mut wrong = leaf(1);
    wrong.data = leaf(2).data;
    let cid = wrong.cid;
    match node.put(&Owner::User, vec![wrong]).await {
        Err(PutError::Mismatch { cid: named }) => assert_eq!(named, cid),
        other => panic!("expected Mismatch, got {other:?}"),
    }
    assert_eq!(node.has(&[cid]).await.unwrap(), [false]);
}

/// Blocks above 2 MiB are refused: no node would take them over bitswap.
pub async fn too_large_a_block_is_refused(node: &dyn IpfsNode) {
    let largest = sample::raw(vec![7; 2 << 20]);
    node.put(&Owner::User, vec![largest.clone()]).await.unwrap();
    let above = sample::raw(vec![7; (2 << 20) + 1]);
    match node.put(&Owner::User, vec![above.clone()]).await {
        Err(PutError::Refused { cid, .. }) => assert_eq!(cid, above.cid),
        other => panic!("expected Refused, got {other:?}"),
    }
    assert_eq!(node.has(&[largest.cid, above.cid]).await.unwrap(), [true, false]);
}

/// What is not here and may not be fetched is said to be so.
pub async fn a_missing_block_is_not_local(node: &dyn IpfsNode) {
    let cid = leaf(1).cid;
    match node.get(&cid, &Source::local()).await {
        Err(BlockError::NotLocal { cid: named }) => assert_eq!(named, cid),
        other => panic!("expected NotLocal, got {other:?}"),
    }
}

/// CIDv0 and its v1 twin are one block, but two pins.
pub async fn twins_of_one_hash_share_their_block(node: &dyn IpfsNode) {
    let block = branch(&[]);
    let v0 = Cid::new_v0(*block.cid.hash()).unwrap();
    node.put(&Owner::User, vec![block.clone()]).await.unwrap();
    assert_eq!(node.get(&v0, &Source::local()).await.unwrap(), block.data);
    pin_it(node, &Owner::User, v0, Depth::Recursive).await.unwrap();
    pin_it(node, &Owner::User, block.cid, Depth::Recursive).await.unwrap();
    assert_eq!(all_pins(node, 10).await.len(), 2);
    node.unpin(&Owner::User, &block.cid).await.unwrap();
    node.collect_garbage().await.unwrap();
    assert_eq!(node.has(&[block.cid]).await.unwrap(), [true], "the twin still keeps it");
}

/// What an add has put stays until the add is released, and goes then unless it was pinned.
pub async fn an_add_is_safe_until_its_release(node: &dyn IpfsNode) {
    let (kept, left) = (leaf(1), leaf(2));
    let (first, second) = (Owner::Adding(1), Owner::Adding(2));
    node.put(&first, vec![kept.clone(), left.clone()]).await.unwrap();
    node.put(&second, vec![leaf(3)]).await.unwrap();
    node.collect_garbage().await.unwrap();
    assert_eq!(node.has(&[kept.cid, left.cid, leaf(3).cid]).await.unwrap(), [true, true, true]);
    pin_it(node, &Owner::User, kept.cid, Depth::Recursive).await.unwrap();
    node.release(&first).await.unwrap();
    node.collect_garbage().await.unwrap();
    assert_eq!(node.has(&[kept.cid, leaf(3).cid]).await.unwrap(), [true, true]);
    node.release(&second).await.unwrap();
    node.release(&second).await.unwrap();
    node.collect_garbage().await.unwrap();
    assert_eq!(node.has(&[kept.cid, left.cid, leaf(3).cid]).await.unwrap(), [true, false, false]);
}

/// A block that nobody needed before is safe once an add has put it again.
pub async fn garbage_put_again_by_an_add_is_safe(node: &dyn IpfsNode) {
    let (old, other) = (leaf(1), leaf(2));
    node.put(&Owner::User, vec![old.clone(), other.clone()]).await.unwrap();
    node.put(&Owner::Adding(1), vec![old.clone()]).await.unwrap();
    node.collect_garbage().await.unwrap();
    assert_eq!(node.has(&[old.cid, other.cid]).await.unwrap(), [true, false]);
    node.release(&Owner::Adding(1)).await.unwrap();
}

/// A pinned DAG is whole after a collection.
pub async fn pinned_content_survives_collection(node: &dyn IpfsNode) {
    let tree = Tree::new(1);
    tree.put(node).await;
    let pinned = pin_it(node, &Owner::User, tree.root(), Depth::Recursive).await.unwrap();
    assert_eq!(pinned, tree.size());
    node.collect_garbage().await.unwrap();
    tree.check_whole(node).await;
    let held = node.pin_of(&tree.root()).await.unwrap().unwrap();
    assert_eq!((held.cid, held.size), (tree.root(), pinned));
    assert_eq!(owners(&held), [(Owner::User, Depth::Recursive)]);
}

/// What nobody keeps any more goes, and the collection says how much that was.
pub async fn unpinned_content_goes_at_collection(node: &dyn IpfsNode) {
    let tree = Tree::new(1);
    tree.put(node).await;
    pin_it(node, &Owner::User, tree.root(), Depth::Recursive).await.unwrap();
    node.unpin(&Owner::User, &tree.root()).await.unwrap();
    assert_eq!(node.pin_of(&tree.root()).await.unwrap(), None);
    let before = node.space().await.unwrap();
    let freed = node.collect_garbage().await.unwrap();
    tree.check_gone(node).await;
    let after = node.space().await.unwrap();
    if before.is_exact {
        assert!(freed >= tree.size().bytes, "freed {freed} of {}", tree.size().bytes);
        assert_eq!(after.blocks, before.blocks - tree.size().blocks);
    }
}

/// Content stays as long as one of its owners wants it.
pub async fn content_goes_with_its_last_owner(node: &dyn IpfsNode) {
    let tree = Tree::new(1);
    let (cluster, user) = (Owner::Cluster("one".into()), Owner::User);
    tree.put(node).await;
    pin_it(node, &user, tree.root(), Depth::Recursive).await.unwrap();
    pin_it(node, &cluster, tree.root(), Depth::Recursive).await.unwrap();
    let held = node.pin_of(&tree.root()).await.unwrap().unwrap();
    assert_eq!(owners(&held), [(cluster.clone(), Depth::Recursive), (user.clone(), Depth::Recursive)], "sorted by owner");
    node.unpin(&cluster, &tree.root()).await.unwrap();
    node.collect_garbage().await.unwrap();
    tree.check_whole(node).await;
    node.unpin(&user, &tree.root()).await.unwrap();
    node.collect_garbage().await.unwrap();
    tree.check_gone(node).await;
}

/// Blocks that two pinned DAGs share stay with the one that is left.
pub async fn shared_blocks_stay_with_the_other_pin(node: &dyn IpfsNode) {
    let (shared, own) = (leaf(1), leaf(2));
    let (one, two) = (branch(&[&shared, &own]), branch(&[&shared]));
    node.put(&Owner::User, vec![shared.clone(), own.clone(), one.clone(), two.clone()]).await.unwrap();
    for root in [&one, &two] {
        pin_it(node, &Owner::User, root.cid, Depth::Recursive).await.unwrap();
    }
    node.unpin(&Owner::User, &one.cid).await.unwrap();
    node.collect_garbage().await.unwrap();
    assert_eq!(node.has(&[shared.cid, two.cid, own.cid, one.cid]).await.unwrap(), [true, true, false, false]);
}

/// A direct pin keeps its root, a pin of one level also the blocks linked from it.
pub async fn depth_says_how_much_is_kept(node: &dyn IpfsNode) {
    for (seed, depth, kept_levels) in [(1, Depth::DIRECT, 1), (2, Depth::Levels(1), 2), (3, Depth::Levels(2), 3), (4, Depth::Levels(9), 3)]
    {
        let tree = Tree::new(seed);
        tree.put(node).await;
        let pinned = pin_it(node, &Owner::User, tree.root(), depth).await.unwrap();
        node.collect_garbage().await.unwrap();
        let mut blocks = 0;
        for (level, cids) in tree.levels().iter().enumerate() {
            let kept = level < kept_levels;
            assert_eq!(node.has(cids).await.unwrap(), vec![kept; cids.len()], "{depth:?}, level {level}");
            blocks += if kept { cids.len() as u64 } else { 0 };
        }
        assert_eq!(pinned.blocks, blocks, "{depth:?}");
    }
}

/// A second pin of one owner may make it deeper, and never shallower.
pub async fn a_greater_depth_replaces_a_smaller(node: &dyn IpfsNode) {
    let tree = Tree::new(1);
    tree.put(node).await;
    for (asked, expected) in [
        (Depth::DIRECT, Depth::DIRECT),
        (Depth::Levels(1), Depth::Levels(1)),
        (Depth::DIRECT, Depth::Levels(1)),
        (Depth::Recursive, Depth::Recursive),
        (Depth::Levels(1), Depth::Recursive),
    ] {
        pin_it(node, &Owner::User, tree.root(), asked).await.unwrap();
        let held = node.pin_of(&tree.root()).await.unwrap().unwrap();
        assert_eq!(owners(&held), [(Owner::User, expected)], "asked for {asked:?}");
    }
    node.collect_garbage().await.unwrap();
    tree.check_whole(node).await;
}

/// Pages of any size give the same list, in the order of the CIDs' bytes.
pub async fn pins_are_sorted_and_resumable(node: &dyn IpfsNode) {
    let leaves: Vec<_> = (0..20).map(leaf).collect();
    node.put(&Owner::User, leaves.clone()).await.unwrap();
    let mut expected: Vec<Cid> = leaves.iter().map(|block| block.cid).collect();
    for cid in &expected {
        pin_it(node, &Owner::User, *cid, Depth::Recursive).await.unwrap();
    }
    expected.sort_by_key(Cid::to_bytes);
    for limit in [1, 7, 20, 100] {
        assert_eq!(all_pins(node, limit).await, expected, "pages of {limit}");
    }
    assert_eq!(node.pins(Some(*expected.last().unwrap()), 10).await.unwrap(), []);
    let between = node.pins(Some(expected[3]), 2).await.unwrap();
    assert_eq!(between.iter().map(|held| held.cid).collect::<Vec<_>>(), expected[4..6]);
}

/// Unpinning what is not pinned, for this owner or at all, is no error and changes nothing.
pub async fn unpinning_twice_is_fine(node: &dyn IpfsNode) {
    let block = leaf(1);
    node.put(&Owner::User, vec![block.clone()]).await.unwrap();
    node.unpin(&Owner::User, &block.cid).await.unwrap();
    pin_it(node, &Owner::User, block.cid, Depth::Recursive).await.unwrap();
    node.unpin(&Owner::Cluster("other".into()), &block.cid).await.unwrap();
    assert!(node.pin_of(&block.cid).await.unwrap().is_some(), "another owner's unpin takes nothing");
    node.unpin(&Owner::User, &block.cid).await.unwrap();
    node.unpin(&Owner::User, &block.cid).await.unwrap();
    assert_eq!(node.pin_of(&block.cid).await.unwrap(), None);
}

/// However far it was, a pin that is dropped before its answer leaves nothing behind.
pub async fn a_cancelled_pin_leaves_no_pin(node: &dyn IpfsNode) {
    let mut finished = false;
    for polls in 1..200 {
        let tree = Tree::new(polls);
        tree.put(node).await;
        finished = poll_times(pin_it(node, &Owner::User, tree.root(), Depth::Recursive), polls).await.is_some();
        assert_eq!(node.pin_of(&tree.root()).await.unwrap().is_some(), finished, "dropped after {polls} polls");
        if finished {
            break;
        }
    }
    assert!(finished, "a pin of seven blocks ends within 200 polls");
    assert_eq!(all_pins(node, 10).await.len(), 1, "only the last one was finished");
}

/// A pin fails when blocks are missing, says which, and leaves no pin.
pub async fn a_pin_of_missing_content_names_it(node: &dyn IpfsNode) {
    let (here, gone) = (leaf(1), leaf(2));
    let root = branch(&[&here, &gone]);
    node.put(&Owner::User, vec![here, root.clone()]).await.unwrap();
    let task = PinTask { owner: Owner::User, cid: root.cid, depth: Depth::Recursive, source: Source::local() };
    match node.pin(task, Arc::new(watch::Sender::default())).await {
        Err(PinError::Missing { cid, missing, .. }) => assert_eq!((cid, missing), (root.cid, vec![gone.cid])),
        other => panic!("expected Missing, got {other:?}"),
    }
    assert_eq!(node.pin_of(&root.cid).await.unwrap(), None);
    node.put(&Owner::User, vec![gone]).await.unwrap();
    pin_it(node, &Owner::User, root.cid, Depth::Recursive).await.unwrap();
}

/// Of many pins at once none is kept whose blocks are not all here, and what is said to be kept is. Which were, in the order of the
/// question: (not complete, complete, not here, complete and held by another, complete to its depth).
pub async fn pin_here_keeps_only_what_is_complete(node: &dyn IpfsNode) -> Vec<bool> {
    let (tree, gone, alone) = (Tree::new(1), leaf(100), leaf(101));
    let partly = branch(&[&alone, &gone]);
    tree.put(node).await;
    node.put(&Owner::User, vec![alone.clone(), partly.clone()]).await.unwrap();
    let cluster = Owner::Cluster("one".into());
    pin_it(node, &Owner::User, alone.cid, Depth::Recursive).await.unwrap();
    let asked = [
        (partly.cid, Depth::Recursive),
        (tree.root(), Depth::Recursive),
        (gone.cid, Depth::DIRECT),
        (alone.cid, Depth::Recursive),
        (partly.cid, Depth::DIRECT),
    ];
    let kept: Vec<bool> = node.pin_here(&cluster, &asked).await.unwrap().iter().map(Option::is_some).collect();
    assert_eq!(kept.len(), asked.len());
    for ((cid, depth), kept) in asked.iter().zip(&kept) {
        let held = node.pin_of(cid).await.unwrap();
        let is_held = held.is_some_and(|held| owners(&held).contains(&(cluster.clone(), *depth)));
        assert_eq!(is_held, *kept, "{cid} {depth:?}");
    }
    assert_eq!((kept[0], kept[2]), (false, false), "not complete");
    assert_eq!(node.pin_here(&cluster, &[]).await.unwrap(), []);
    node.collect_garbage().await.unwrap();
    if kept[1] {
        tree.check_whole(node).await;
        assert_eq!(node.pin_of(&tree.root()).await.unwrap().unwrap().size.blocks, 7);
    }
    kept
}

/// The last progress equals the answer; a block that is linked twice counts once.
pub async fn progress_counts_every_block_once(node: &dyn IpfsNode) {
    let one = leaf(1);
    let middle = branch(&[&one, &one]);
    let root = branch(&[&middle, &one, &middle]);
    node.put(&Owner::User, vec![one.clone(), middle.clone(), root.clone()]).await.unwrap();
    let progress = Arc::new(watch::Sender::default());
    let task = PinTask { owner: Owner::User, cid: root.cid, depth: Depth::Recursive, source: Source::local() };
    let pinned = node.pin(task, progress.clone()).await.unwrap();
    let bytes = ByteCount((one.data.len() + middle.data.len() + root.data.len()) as u64);
    assert_eq!(pinned, Pinned { blocks: 3, bytes });
    assert_eq!(*progress.borrow(), PinProgress { blocks: 3, bytes, missing: 0 });
}

/// Adds, pins and collections that overlap: what is pinned in the end is whole.
pub async fn pins_and_collections_at_once_lose_nothing(node: Arc<dyn IpfsNode>) {
    let collector = tokio::spawn({
        let node = node.clone();
        async move {
            for _ in 0..20 {
                node.collect_garbage().await.unwrap();
                tokio::task::yield_now().await;
            }
        }
    });
    let adders = (0..4_u64).map(|adder| {
        let node = node.clone();
        tokio::spawn(async move {
            for round in 0..5 {
                // Adders share every second tree, so that one's garbage is the other's content.
                let tree = Tree::new(if round % 2 == 0 { 1000 + round } else { adder * 100 + round });
                let owner = Owner::Adding(adder * 100 + round);
                for block in tree.blocks() {
                    node.put(&owner, vec![block.clone()]).await.unwrap();
                }
                let cluster = Owner::Cluster(format!("cluster {adder}"));
                pin_it(&*node, &cluster, tree.root(), Depth::Recursive).await.unwrap();
                node.release(&owner).await.unwrap();
                if round == 2 {
                    node.unpin(&cluster, &tree.root()).await.unwrap();
                } else {
                    tree.check_whole(&*node).await;
                }
            }
        })
    });
    for adder in adders.collect::<Vec<_>>() {
        adder.await.unwrap();
    }
    collector.await.unwrap();
    node.collect_garbage().await.unwrap();
    for adder in 0..4_u64 {
        for round in [0, 1, 3, 4] {
            Tree::new(if round % 2 == 0 { 1000 + round } else { adder * 100 + round }).check_whole(&*node).await;
        }
    }
    Tree::new(1002).check_gone(&*node).await;
}

/// Above its limit a node refuses with the numbers, and keeps working; `node` is empty and has a limit of at most 64 MiB.
pub async fn limit_refuses_with_numbers(node: &dyn IpfsNode) {
    let limit = node.space().await.unwrap().limit;
    assert!(limit <= ByteCount(64 << 20), "this check fills the node");
    let size = 256 << 10;
    let mut stored = Vec::new();
    let refused = loop {
        let block = sample::raw_of_size(stored.len() as u64, size);
        match node.put(&Owner::User, vec![block.clone()]).await {
            Ok(()) => stored.push(block),
            Err(error) => break error,
        }
        assert!(stored.len() as u64 * size as u64 <= limit.get(), "more was stored than the limit allows");
    };
    match refused {
        PutError::NoRoom { needed, free } => {
            assert!(needed >= ByteCount(size as u64), "needs {needed}");
            assert!(free < needed && free < limit, "free {free}");
        }
        other => panic!("expected NoRoom, got {other:?}"),
    }
    assert!(!stored.is_empty());
    assert!(node.space().await.unwrap().used <= limit);
    for block in &stored {
        assert_eq!(node.get(&block.cid, &Source::local()).await.unwrap(), block.data);
    }
    node.collect_garbage().await.unwrap();
    node.put(&Owner::User, vec![sample::raw_of_size(0, size)]).await.unwrap();
}

/// A get takes the block from a node that has it.
pub async fn get_fetches_from_another_node(node: &dyn IpfsNode, other: &dyn IpfsNode) {
    let block = leaf(1);
    other.put(&Owner::User, vec![block.clone()]).await.unwrap();
    assert_eq!(node.get(&block.cid, &from(other)).await.unwrap(), block.data);
    match node.get(&leaf(2).cid, &from(other)).await {
        Err(BlockError::NotFound { cid, .. }) => assert_eq!(cid, leaf(2).cid),
        other => panic!("expected NotFound, got {other:?}"),
    }
}

/// A pin brings the whole DAG, and needs nobody afterwards.
pub async fn pin_fetches_what_is_missing(node: &dyn IpfsNode, other: &dyn IpfsNode) {
    let tree = Tree::new(1);
    tree.put(other).await;
    node.put(&Owner::User, tree.blocks()[..2].to_vec()).await.unwrap();
    let progress = Arc::new(watch::Sender::default());
    let task = PinTask { owner: Owner::User, cid: tree.root(), depth: Depth::Recursive, source: from(other) };
    assert_eq!(node.pin(task, progress.clone()).await.unwrap(), tree.size());
    assert_eq!(progress.borrow().blocks, tree.size().blocks);
    node.collect_garbage().await.unwrap();
    tree.check_whole(node).await;

    let root = branch(&[&leaf(1000), &leaf(1001)]);
    other.put(&Owner::User, vec![root.clone(), leaf(1000)]).await.unwrap();
    let task = PinTask { owner: Owner::User, cid: root.cid, depth: Depth::Recursive, source: from(other) };
    match node.pin(task, Arc::new(watch::Sender::default())).await {
        Err(PinError::Missing { missing, .. }) => assert_eq!(missing, [leaf(1001).cid]),
        other => panic!("expected Missing, got {other:?}"),
    }
    assert_eq!(node.pin_of(&root.cid).await.unwrap(), None);
}

/// With `local_only` nothing is asked of anybody, however near it is.
pub async fn local_only_never_fetches(node: &dyn IpfsNode, other: &dyn IpfsNode) {
    let tree = Tree::new(1);
    tree.put(other).await;
    let source = Source { local_only: true, ..from(other) };
    assert!(matches!(node.get(&tree.root(), &source).await, Err(BlockError::NotLocal { .. })));
    let task = PinTask { owner: Owner::User, cid: tree.root(), depth: Depth::Recursive, source };
    match node.pin(task, Arc::new(watch::Sender::default())).await {
        Err(PinError::Missing { missing, .. }) => assert_eq!(missing, [tree.root()]),
        other => panic!("expected Missing, got {other:?}"),
    }
    tree.check_gone(node).await;
}

/// Pins from what is here.
async fn pin_it(node: &dyn IpfsNode, owner: &Owner, cid: Cid, depth: Depth) -> Result<Pinned, PinError> {
    let task = PinTask { owner: owner.clone(), cid, depth, source: Source::default() };
    node.pin(task, Arc::new(watch::Sender::default())).await
}

fn from(other: &dyn IpfsNode) -> Source {
    Source { holders: other.id().into_iter().collect(), ..Source::default() }
}

async fn all_pins(node: &dyn IpfsNode, limit: usize) -> Vec<Cid> {
    let mut cids: Vec<Cid> = Vec::new();
    loop {
        let page = node.pins(cids.last().copied(), limit).await.unwrap();
        assert!(page.len() <= limit);
        if page.is_empty() {
            return cids;
        }
        cids.extend(page.iter().map(|held| held.cid));
    }
}

fn owners(held: &HeldPin) -> Vec<(Owner, Depth)> {
    held.owners.iter().map(|(owner, depth, _)| (owner.clone(), *depth)).collect()
}

/// Polls `future` at most `times` times, then drops it.
async fn poll_times<T>(future: impl Future<Output = T>, times: u64) -> Option<T> {
    let mut future = pin!(future);
    let mut left = times;
    std::future::poll_fn(move |context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}
