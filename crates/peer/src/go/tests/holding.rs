//! Go peers as holders: what the machine is told in their name, and the blocks that they are sent.

use super::*;
use cluster::{GoMember, LinkState};
use types::{HoldingReport, PeerMessage, Refusal};

/// A trusted pair of which the machine has heard.
async fn met() -> Pair {
    let pair = pair(true).await;
    let go = pair.go.id();
    let free = Metric { name: "freespace".into(), peer: Some(go), value: "600".into(), expire: i64::MAX, valid: true, ..Metric::default() };
    wait_for("the machine hears its room", async || {
        pair.go.publish(METRICS_TOPIC, encode_metric(&free)).await.ok();
        tokio::time::sleep(Duration::from_millis(100)).await;
        pair.ear.heard.lock().iter().any(|event| matches!(event, Event::Message(_, PeerMessage::Hello { space_used: ByteCount(400), .. })))
    })
    .await;
    pair
}

async fn reported(pair: &Pair) -> HoldingReport {
    let found = || {
        let heard = pair.ear.heard.lock();
        heard.iter().rev().find_map(|event| match event {
            Event::Message(peer, PeerMessage::Holdings(report)) if *peer == pair.go.id() => Some(report.clone()),
            _ => None,
        })
    };
    wait_for("a report", async || found().is_some()).await;
    found().expect("just seen")
}

#[tokio::test]
async fn the_machine_hears_of_go_peers_in_its_own_words() {
    let pair = met().await;
    let go = pair.go.id();
    {
        let heard = pair.ear.heard.lock();
        let told = heard.iter().rev().find_map(|event| if let Event::GoPeers(go) = event { Some(go.clone()) } else { None });
        let mut told = told.expect("told who there is");
        told.sort_by_key(|member| member.peer != go);
        // One that was there before this start is out of sight; one that was not for a week is none.
        assert_eq!(told, [(go, true), (peer(60), false)].map(|(peer, is_trusted)| GoMember { peer, is_trusted }));
        assert!(pair.ear.kept.lock().contains(&go) && !pair.ear.kept.lock().contains(&peer(61)));
        assert!(heard.iter().any(|event| matches!(event, Event::Link(peer, LinkState::Up) if *peer == go)));
        let hello = heard.iter().rev().find_map(|event| match event {
            Event::Message(peer, PeerMessage::Hello { name, space_limit, node_addresses, .. }) if *peer == go => {
                Some((name.clone(), *space_limit, node_addresses.len()))
            }
            _ => None,
        });
        assert_eq!(hello, Some(("go1".to_owned(), ByteCount(1000), 1)));
    }
    let told = |message: PeerMessage| pair.side.tell(&go, message);
    assert_eq!(pair.side.tell(&peer(50), PeerMessage::Leaving), Some(PeerMessage::Leaving), "no Go peer");
    assert_eq!(told(PeerMessage::Leaving), None, "nothing that Go knows");
    for (bytes, refused) in [(600, None), (601, Some(Refusal::NoRoom { free: ByteCount(600) }))] {
        told(PeerMessage::Reserve { lease: bytes, bytes: ByteCount(bytes) });
        let answer = PeerMessage::Reserved { lease: bytes, refused };
        wait_for("its answer", async || {
            pair.ear.heard.lock().iter().any(|event| matches!(event, Event::Message(peer, said) if *peer == go && *said == answer))
        })
        .await;
    }
    assert_eq!(pair.side.who(&go), Some(("go1".to_owned(), Some(peer(92)))));
    pair.side.side.heard.lock().trusts(&go, false);
    wait_for("one that does not take what is written here is a stranger", async || {
        let is_stranger = |event: &Event| matches!(event, Event::GoPeers(all) if all.contains(&GoMember { peer: go, is_trusted: false }));
        pair.ear.heard.lock().iter().any(is_stranger)
    })
    .await;
}

#[tokio::test]
async fn what_a_go_peer_holds_is_reported_with_the_version_of_the_wish() {
    let pair = met().await;
    let go = pair.go.id();
    let held = block("held").cid;
    pair.twin.write(held, &[go], PinKind::Data);
    pair.side.tell(&go, PeerMessage::AskCopies(vec![held]));
    let report = reported(&pair).await;
    let [copy] = report.copies.as_slice() else { panic!("one: {report:?}") };
    assert_eq!((copy.cid, copy.version, copy.state, report.complete, report.answer), (held, 7, PinState::Pinned, None, 0));
}

#[tokio::test]
async fn a_whole_list_names_what_is_not_as_wished_and_what_go_has_not_heard_of() {
    let pair = met().await;
    let go = pair.go.id();
    let [held, failed, unheard, elsewhere, everywhere] =
        ["held", "failed", "unheard", "elsewhere", "everywhere"].map(|text| block(text).cid);
    for cid in [held, failed, unheard] {
        pair.twin.write(cid, &[go], PinKind::Data);
    }
    pair.twin.write(elsewhere, &[pair.own], PinKind::Data);
    pair.twin.write(everywhere, &[], PinKind::Data);
    let info = |cid, state, error: &str| {
        let short = PinInfoShort { status: bit(state), error: error.into(), attempt_count: 3, ..PinInfoShort::default() };
        PinInfo { cid: Some(cid), peer: Some(go), short, ..PinInfo::default() }
    };
    *pair.go_list.lock() = vec![info(held, PinState::Pinned, ""), info(failed, PinState::PinError, "no room")];
    pair.side.tell(&go, PeerMessage::AskHoldings { question: 5, heads: Vec::new() });
    let report = reported(&pair).await;
    assert_eq!((report.complete, report.answer), (Some(2), 5));
    let mut copies: Vec<_> = report.copies.iter().map(|copy| (copy.cid, copy.state, copy.because.clone(), copy.tries)).collect();
    copies.sort_by_key(|(cid, ..)| *cid != failed);
    let why = Because::Failed { error: "no room".to_owned() };
    let expected = [(failed, PinState::PinError, Some(why), 3), (unheard, PinState::PinQueued, Some(Because::Unconfirmed), 0)];
    assert_eq!(copies, expected, "not the one that is held, nor those that are placed elsewhere or everywhere");
    // Without a list nothing is said: the machine asks again.
    pair.ear.heard.lock().clear();
    pair.go_trusts.store(false, Ordering::Relaxed);
    pair.side.tell(&go, PeerMessage::AskHoldings { question: 6, heads: Vec::new() });
    pair.side.tell(&go, PeerMessage::Reserve { lease: 1, bytes: ByteCount(1) });
    let is_answer = |event: &Event| matches!(event, Event::Message(_, PeerMessage::Reserved { .. }));
    wait_for("what was asked later is answered", async || pair.ear.heard.lock().iter().any(is_answer)).await;
    let is_report = |event: &Event| matches!(event, Event::Message(_, PeerMessage::Holdings(_)));
    assert!(!pair.ear.heard.lock().iter().any(is_report));
}

#[tokio::test]
async fn blocks_of_an_add_go_to_the_node_of_a_go_peer() {
    let pair = met().await;
    let go = pair.go.id();
    let blocks: Vec<Block> = (0..50).map(|number| block(&format!("block {number}"))).collect();
    let send = async |blocks: &[Block]| {
        let (queue, batches) = tokio::sync::mpsc::channel(2);
        let filling = tokio::spawn({
            let side = pair.side.clone();
            async move { side.fill(go, batches).await }
        });
        for part in blocks.chunks(7) {
            // A stream that broke off takes no more.
            queue.send(Arc::new(part.to_vec())).await.ok();
        }
        drop(queue);
        filling.await.expect("ends")
    };
    assert_eq!(send(&blocks).await, Ok(()));
    assert_eq!(pair.go_blocks.lock().0, blocks.iter().map(|block| block.cid).collect::<Vec<_>>(), "all of them, in order");
    assert_eq!(send(&[]).await, Ok(()), "nothing to send is no call");
    *pair.go_blocks.lock() = (Vec::new(), 20);
    let why = send(&blocks).await.expect_err("refused in the middle");
    assert!(why.contains("the disk is full"), "{why}");
    pair.go_trusts.store(false, Ordering::Relaxed);
    let why = send(&blocks).await.expect_err("not trusted");
    assert!(why.contains("permissions"), "{why}");
}
