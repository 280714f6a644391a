//! The promises of a [`Consensus`], one function each: run against every engine.
//!
//! Functions on one peer get an [`Opener`], so that they can crash its store and open it again; functions on many peers get peers
//! that reach each other, however badly.

use crate::{Change, Consensus, Hint, Hints, Kind, SubmitError, Version, ViewState, Write};
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use store::{Area, MemoryStore, Store};

/// How long peers may take to agree.
const PATIENCE: Duration = Duration::from_secs(30);

/// Opens one peer, alone, over a store.
#[async_trait]
pub trait Opener: Send + Sync {
    /// Opens it.
    async fn open(&self, store: Arc<dyn Store>) -> Arc<dyn Consensus>;
}

/// A key for tests: the raw CID of a raw block.
pub fn key(number: u32) -> Vec<u8> {
    let mut key = vec![0x01, 0x55, 0x12, 0x20];
    key.extend_from_slice(&wire::cids::sha2_256(&number.to_be_bytes()));
    key
}

/// Every promise that one peer can keep.
pub async fn check_one(opener: &dyn Opener) {
    submitted_is_visible(&*opener.open(Arc::new(MemoryStore::new())).await).await;
    later_writes_win(&*opener.open(Arc::new(MemoryStore::new())).await).await;
    all_writes_of_a_submit_or_none(&*opener.open(Arc::new(MemoryStore::new())).await).await;
    hints_tell_every_change(&*opener.open(Arc::new(MemoryStore::new())).await).await;
    expectations_are_kept_or_refused(&*opener.open(Arc::new(MemoryStore::new())).await).await;
    concurrent_submits_all_arrive(opener.open(Arc::new(MemoryStore::new())).await).await;
    acknowledged_survives_a_crash(opener).await;
    stopped_refuses_and_has_kept_all(opener).await;
}

/// Every promise that peers keep together. They should have the same state at the start.
pub async fn check_many(peers: &[Arc<dyn Consensus>]) {
    all_converge(peers).await;
    removal_wins_over_older(peers).await;
    concurrent_writes_of_one_key_converge(peers).await;
}

/// What is accepted is in the view when `submit` returns; what is removed is not.
pub async fn submitted_is_visible(consensus: &dyn Consensus) {
    put(consensus, 1, "one").await;
    assert_eq!(value(consensus, 1).as_deref(), Some(&b"one"[..]));
    assert_eq!(consensus.state(), ViewState::Current);
    remove(consensus, 1).await;
    assert_eq!(value(consensus, 1), None);
    remove(consensus, 1).await;
    put(consensus, 1, "again").await;
    assert_eq!(value(consensus, 1).as_deref(), Some(&b"again"[..]));
}

/// Also when the later value sorts first.
pub async fn later_writes_win(consensus: &dyn Consensus) {
    for text in ["b", "z", "a", "", "m"] {
        put(consensus, 1, text).await;
        assert_eq!(value(consensus, 1).as_deref(), Some(text.as_bytes()));
    }
    let first = Write::put(key(1), "first");
    let receipt = consensus.submit(vec![first, Write::remove(key(1)), Write::put(key(1), "last")]).await;
    let later = consensus.submit(vec![Write::put(key(2), "x")]).await;
    assert!(receipt.expect("accepted").version < later.expect("accepted").version);
    assert_eq!(value(consensus, 1).as_deref(), Some(&b"last"[..]));
}

/// A bad write takes the good ones beside it with it.
pub async fn all_writes_of_a_submit_or_none(consensus: &dyn Consensus) {
    let good = Write::put(key(1), "good");
    for (bad, is_expected) in [
        (Write::put(*b"no cid", "x"), (|error| matches!(error, SubmitError::BadKey)) as fn(&SubmitError) -> bool),
        (Write::put(key(2), vec![0; 1 << 20]), |error| matches!(error, SubmitError::TooLarge { .. })),
    ] {
        let refused = consensus.submit(vec![good.clone(), bad]).await.expect_err("refused");
        assert!(is_expected(&refused), "{refused}");
        assert_eq!(value(consensus, 1), None);
    }
    let many = vec![good; crate::contract::WRITES_MAX + 1];
    assert!(matches!(consensus.submit(many).await, Err(SubmitError::TooLarge { .. })));
}

/// Hints, put together, are the view; nothing is hinted that did not change.
pub async fn hints_tell_every_change(consensus: &dyn Consensus) {
    let mut hints = consensus.hints();
    put(consensus, 1, "a").await;
    put(consensus, 1, "a").await;
    put(consensus, 1, "b").await;
    put(consensus, 2, "c").await;
    remove(consensus, 1).await;
    remove(consensus, 3).await;
    let expected = [(1, None, Some("a")), (1, Some("a"), Some("b")), (2, None, Some("c")), (1, Some("b"), None)];
    for (number, before, after) in expected {
        let change = next_change(&mut hints).await;
        assert_eq!(change, Change { key: key(number), before: before.map(Bytes::from), after: after.map(Bytes::from) });
    }
    assert!(!matches!(hints.try_next(), Some(Hint::Changes(_))));
    assert_eq!(hints.seen(), consensus.hinted(), "everything visible is hinted");
    put(consensus, 4, "d").await;
    let hinted = consensus.hinted();
    assert!(hints.seen() < hinted, "what is visible and not hinted yet is counted");
    next_change(&mut hints).await;
    assert_eq!(hints.seen(), hinted);
}

/// A linearizable engine compares, a convergent one refuses.
pub async fn expectations_are_kept_or_refused(consensus: &dyn Consensus) {
    let write = Write { expect: Some(Version(0)), ..Write::put(key(1), "first") };
    let first = consensus.submit(vec![write.clone()]).await;
    let second = consensus.submit(vec![write]).await;
    match consensus.kind() {
        Kind::Linearizable => {
            let receipt = first.expect("the key was absent");
            assert!(matches!(second, Err(SubmitError::Conflict { found, .. }) if found == receipt.version));
        }
        Kind::Convergent => {
            assert!(matches!((first, second), (Err(SubmitError::NotLinearizable), Err(SubmitError::NotLinearizable))));
            assert_eq!(value(consensus, 1), None);
        }
    }
}

/// Many at once, each answered.
pub async fn concurrent_submits_all_arrive(consensus: Arc<dyn Consensus>) {
    const SUBMITS: u32 = 300;
    let submits = (0..SUBMITS).map(|number| {
        let consensus = consensus.clone();
        tokio::spawn(async move { put(&*consensus, number, "x").await })
    });
    for submit in submits.collect::<Vec<_>>() {
        submit.await.expect("accepted");
    }
    assert_eq!(contents(&*consensus).len(), SUBMITS as usize);
}

/// Power may go at any moment after the answer.
pub async fn acknowledged_survives_a_crash(opener: &dyn Opener) {
    let mut store = MemoryStore::new();
    let mut expected = BTreeMap::new();
    for round in 0..5 {
        let consensus = opener.open(Arc::new(store.clone())).await;
        assert_eq!(contents(&*consensus), expected, "round {round}");
        for number in 0..10 {
            put(&*consensus, round * 10 + number, "x").await;
            expected.insert(key(round * 10 + number), Bytes::from("x"));
        }
        put(&*consensus, 0, &format!("round {round}")).await;
        expected.insert(key(0), Bytes::from(format!("round {round}")));
        remove(&*consensus, round * 10 + 1).await;
        expected.remove(&key(round * 10 + 1));
        store = store.crash();
    }
    let consensus = opener.open(Arc::new(store)).await;
    assert_eq!(contents(&*consensus), expected);
    assert_eq!(consensus.state(), ViewState::Current);
}

/// A clean end: what was accepted is there afterwards, what comes later is refused, receivers of hints see the end.
pub async fn stopped_refuses_and_has_kept_all(opener: &dyn Opener) {
    let store = MemoryStore::new();
    let consensus = opener.open(Arc::new(store.clone())).await;
    let mut hints = consensus.hints();
    put(&*consensus, 1, "x").await;
    consensus.stop().await;
    consensus.stop().await;
    assert!(matches!(consensus.submit(vec![Write::put(key(2), "x")]).await, Err(SubmitError::Stopped)));
    drop(consensus);
    while hints.next().await.is_some() {}
    let consensus = opener.open(Arc::new(store.crash())).await;
    assert_eq!(contents(&*consensus), BTreeMap::from([(key(1), Bytes::from("x"))]));
}

/// Writes anywhere are, in the end, everywhere.
pub async fn all_converge(peers: &[Arc<dyn Consensus>]) {
    let before = contents(&*peers[0]);
    for number in 0..60u32 {
        let peer = &*peers[number as usize % peers.len()];
        put(peer, 1000 + number, &format!("from {number}")).await;
    }
    let agreed = agree(peers, |contents| contents.len() >= before.len() + 60).await;
    for number in 0..60u32 {
        assert_eq!(agreed[&key(1000 + number)], format!("from {number}"));
    }
}

/// A peer that has seen a value removes it everywhere, and a later value comes back.
pub async fn removal_wins_over_older(peers: &[Arc<dyn Consensus>]) {
    let (first, last) = (&*peers[0], &*peers[peers.len() - 1]);
    put(first, 1, "older").await;
    agree(peers, |contents| contents.contains_key(&key(1))).await;
    remove(last, 1).await;
    assert_eq!(value(last, 1), None);
    agree(peers, |contents| !contents.contains_key(&key(1))).await;
    put(first, 1, "newer").await;
    agree(peers, |contents| contents.get(&key(1)).is_some_and(|value| value == "newer")).await;
}

/// Everybody writes the same key at once, some several times: one of the last values stands everywhere.
pub async fn concurrent_writes_of_one_key_converge(peers: &[Arc<dyn Consensus>]) {
    for round in 0..3 {
        for (number, peer) in peers.iter().enumerate() {
            put(&**peer, 7, &format!("peer {number} round {round}")).await;
        }
    }
    let agreed = agree(peers, |contents| contents.contains_key(&key(7))).await;
    assert!(agreed[&key(7)].ends_with(b"round 2"), "{:?}", agreed[&key(7)]);
}

/// Waits until all peers have the same wish and `is_expected` of it; returns it.
pub async fn agree(peers: &[Arc<dyn Consensus>], is_expected: impl Fn(&BTreeMap<Vec<u8>, Bytes>) -> bool) -> BTreeMap<Vec<u8>, Bytes> {
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        let views: Vec<_> = peers.iter().map(|peer| contents(&**peer)).collect();
        let heads: Vec<_> = peers.iter().map(|peer| peer.heads()).collect();
        let is_same =
            views.iter().all(|view| *view == views[0]) && peers.iter().all(|peer| heads.iter().all(|heads| peer.has_merged(heads)));
        if is_same && is_expected(&views[0]) {
            return views.into_iter().next().unwrap_or_default();
        }
        let sizes: Vec<_> = views.iter().map(BTreeMap::len).collect();
        assert!(tokio::time::Instant::now() < end, "peers do not agree: sizes {sizes:?}, heads {heads:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The whole wish of a peer.
pub fn contents(consensus: &dyn Consensus) -> BTreeMap<Vec<u8>, Bytes> {
    let entries = consensus.view().scan(Area::Pins, None, b"", usize::MAX).expect("the view is readable");
    entries.into_iter().map(|(key, value)| (key.to_vec(), value)).collect()
}

async fn put(consensus: &dyn Consensus, number: u32, text: &str) {
    consensus.submit(vec![Write::put(key(number), text.to_owned())]).await.expect("accepted");
}

async fn remove(consensus: &dyn Consensus, number: u32) {
    consensus.submit(vec![Write::remove(key(number))]).await.expect("accepted");
}

fn value(consensus: &dyn Consensus, number: u32) -> Option<Bytes> {
    consensus.view().get(Area::Pins, &key(number)).expect("the view is readable")
}

async fn next_change(hints: &mut Hints) -> Change {
    loop {
        match tokio::time::timeout(PATIENCE, hints.next()).await.expect("a hint in time") {
            Some(Hint::Changes(changes)) => {
                assert_eq!(changes.len(), 1, "one change was made at a time");
                return changes.into_iter().next().expect("one change");
            }
            Some(Hint::State(_)) => {}
            other => panic!("no hint but {other:?}"),
        }
    }
}
