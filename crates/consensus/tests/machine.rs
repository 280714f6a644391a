//! What the machine decides: what it tells and when, what it fetches, what it refuses, how complete it says it is.

use bytes::Bytes;
use consensus::conformance::key;
use consensus::crdt::{BlockId, Effect, Event, Machine, MachineOptions};
use consensus::{SubmitError, Version, ViewState, Write};
use store::{Area, Batch, Durability, MemoryStore, Store};
use types::{Cid, Millis, PeerId};
use wire::delta::{AuthorSignature, Delta, Element, block_cid, decode_node, encode_node, pin_key};

struct Peer {
    store: MemoryStore,
    machine: Machine,
    now: u64,
    wake: Option<Millis>,
}

impl Peer {
    fn new() -> Peer {
        Peer::over(MemoryStore::new())
    }

    fn over(store: MemoryStore) -> Peer {
        Peer::signing(store, None)
    }

    fn signing(store: MemoryStore, signer: Option<consensus::crdt::Signer>) -> Peer {
        let machine = Machine::open(options(signer), Millis(0), store.snapshot()).expect("opens");
        Peer { store, machine, now: 0, wake: None }
    }

    fn step(&mut self, events: Vec<Event>) -> Vec<Effect> {
        let step = self.machine.step(events, Millis(self.now), self.store.snapshot()).expect("steps");
        self.store.commit(step.batch, step.durability).expect("commits");
        self.wake = step.next_wake;
        step.effects
    }

    fn at(&mut self, now: u64, events: Vec<Event>) -> Vec<Effect> {
        self.now = now;
        self.step(events)
    }

    fn value(&self, number: u32) -> Option<Bytes> {
        consensus::crdt::shown(self.store.snapshot()).get(Area::Pins, &key(number)).expect("reads")
    }
}

fn options(signer: Option<consensus::crdt::Signer>) -> MachineOptions {
    MachineOptions {
        spacing: Millis(10),
        spacing_with_others: Millis(200),
        rebroadcast: Millis(60_000),
        alone: false,
        seed: 1,
        pages_after: 1 << 20,
        signer,
        authors: None,
    }
}

fn someone(number: u8) -> PeerId {
    PeerId::from_ed25519(&[number; 32])
}

fn submit(writes: Vec<Write>) -> Vec<Event> {
    vec![Event::Submit { ticket: 1, writes }]
}

fn put(number: u32, value: &str) -> Vec<Event> {
    submit(vec![Write::put(key(number), value.to_owned())])
}

fn heads(heads: &[Cid]) -> Event {
    Event::Heads { from: someone(9), heads: heads.to_vec() }
}

fn block(links: &[Cid], priority: u64, number: u32, value: &str) -> (Cid, Vec<u8>) {
    let key = pin_key(&Cid::try_from(key(number)).expect("a CID"));
    encode_node(links, &Delta { elements: vec![Element { key, id: String::new(), value: value.into() }], priority, ..Delta::default() })
}

fn came((cid, bytes): &(Cid, Vec<u8>)) -> Event {
    Event::Block { cid: *cid, bytes: bytes.clone().into() }
}

fn fetched(effects: &[Effect]) -> Vec<Cid> {
    effects.iter().filter_map(|effect| if let Effect::Fetch { cid, .. } = effect { Some(*cid) } else { None }).collect()
}

fn told(effects: &[Effect]) -> Vec<Cid> {
    effects.iter().flat_map(|effect| if let Effect::Broadcast(heads) = effect { heads.clone() } else { Vec::new() }).collect()
}

fn is_accepted(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Accepted { ticket: 1 }))
}

#[test]
fn the_first_write_after_a_pause_is_told_at_once_and_the_next_ones_together() {
    let mut peer = Peer::new();
    assert_eq!(told(&peer.at(100, put(1, "a"))), peer.machine.heads());
    for (now, number) in [(101, 2), (103, 3), (109, 4)] {
        let effects = peer.at(now, put(number, "a"));
        assert!(is_accepted(&effects) && told(&effects).is_empty());
        assert_eq!(peer.value(number).as_deref(), Some(&b"a"[..]), "visible before it is told");
        assert_eq!(peer.wake, Some(Millis(110)));
    }
    let head = told(&peer.at(110, Vec::new()));
    assert_eq!(head, peer.machine.heads());
    let bytes = peer.store.get(Area::DagBlocks, &BlockId::of_cid(&head[0]).expect("a block").0).expect("reads").expect("stored");
    let node = decode_node(&bytes).expect("a block");
    assert_eq!((node.delta.elements.len(), node.delta.priority, node.links.len()), (3, 2, 1));
    assert_eq!(told(&peer.at(500, put(5, "a"))).len(), 1);
}

fn pushed(effects: &[Effect]) -> Vec<(Vec<PeerId>, Cid)> {
    let push = |effect: &Effect| match effect {
        Effect::Push { peers, bytes } => Some((peers.clone(), wire::delta::block_cid(bytes))),
        _ => None,
    };
    effects.iter().filter_map(push).collect()
}

#[test]
fn own_blocks_are_handed_to_pinfold_peers_and_a_burst_is_told_once() {
    let mut peer = Peer::new();
    peer.at(0, vec![Event::Connected { peer: someone(1), is_pinfold: true }, Event::Heads { from: someone(1), heads: Vec::new() }]);
    let (mut handed, mut heads) = (Vec::new(), Vec::new());
    for (step, number) in (0..20).enumerate() {
        let effects = peer.at(2_000 + 10 * step as u64, put(number, "a"));
        let pushed = pushed(&effects);
        assert_eq!(
            pushed.iter().map(|(peers, cid)| (&peers[..], *cid)).collect::<Vec<_>>(),
            [(&[someone(1)][..], peer.machine.heads()[0])]
        );
        handed.extend(pushed);
        heads.extend(told(&effects));
    }
    assert_eq!((handed.len(), heads.len()), (20, 1), "told once in a tenth of a second");
    assert_eq!(told(&peer.at(2_300, Vec::new())), peer.machine.heads());
    assert_eq!(peer.wake, Some(Millis(5_300)));
    assert_eq!(told(&peer.at(5_300, Vec::new())), peer.machine.heads(), "and when the burst has settled");
}

#[test]
fn a_block_that_is_handed_over_needs_no_fetch_and_what_lies_below_it_is_fetched() {
    let (below, lost) = (block(&[], 1, 1, "a"), block(&[], 1, 2, "b"));
    let top = block(&[below.0, lost.0], 2, 3, "c");
    let handed = |(_, bytes): &(Cid, Vec<u8>)| Event::Pushed { from: someone(9), bytes: bytes.clone().into() };
    let mut peer = Peer::new();
    assert!(fetched(&peer.at(0, vec![handed(&below)])).is_empty());
    assert_eq!(peer.value(1).as_deref(), Some(&b"a"[..]));
    assert_eq!(fetched(&peer.at(1, vec![handed(&top), handed(&top), handed(&below)])), [lost.0]);
    assert_eq!(peer.value(3).as_deref(), Some(&b"c"[..]));
    peer.at(2, vec![came(&lost)]);
    assert_eq!(peer.machine.heads(), [top.0]);
    // What does not read is refused for good, and takes nothing with it.
    let effects = peer.at(3, vec![Event::Pushed { from: someone(9), bytes: b"nonsense".to_vec().into() }]);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::BlockRefused { .. })));
    assert_eq!(peer.machine.heads(), [top.0]);
}

#[test]
fn beside_go_peers_blocks_keep_their_distance_and_a_burst_ends_with_the_heads() {
    let mut peer = Peer::new();
    peer.at(0, vec![Event::Connected { peer: someone(1), is_pinfold: false }]);
    assert_eq!(told(&peer.at(2_000, put(1, "a"))).len(), 1);
    assert!(told(&peer.at(2_001, put(2, "a"))).is_empty());
    assert_eq!(peer.wake, Some(Millis(2_200)));
    assert_eq!(told(&peer.at(2_200, Vec::new())).len(), 1);
    assert_eq!(peer.wake, Some(Millis(5_200)));
    assert_eq!(told(&peer.at(5_200, Vec::new())), peer.machine.heads());
}

#[test]
fn no_key_stands_twice_in_a_block_and_what_came_to_nothing_is_not_told() {
    let mut peer = Peer::new();
    peer.at(0, put(9, "x"));
    let writes = ["z", "y", "a"].map(|value| Write::put(key(1), value)).to_vec();
    peer.at(1, submit(writes));
    peer.at(2, submit(vec![Write::put(key(2), "short"), Write::remove(key(2)), Write::remove(key(3))]));
    let head = told(&peer.at(20, Vec::new()));
    let bytes = peer.store.get(Area::DagBlocks, &BlockId::of_cid(&head[0]).expect("a block").0).expect("reads").expect("stored");
    let delta = decode_node(&bytes).expect("a block").delta;
    let values: Vec<_> = delta.elements.iter().map(|element| &element.value[..]).collect();
    assert_eq!((values, delta.tombstones.len()), (vec![&b"a"[..]], 0));
    assert_eq!((peer.value(1).as_deref(), peer.value(2)), (Some(&b"a"[..]), None));
    // A removal of what is not there makes no block at all.
    assert!(told(&peer.at(100, submit(vec![Write::remove(key(3))]))).is_empty());
    peer.at(200, submit(vec![Write::put(key(2), "short"), Write::remove(key(2))]));
    assert!(told(&peer.at(300, Vec::new())).is_empty());
    assert_eq!(peer.store.snapshot().count(Area::Intents).expect("counts"), 0);
}

#[test]
fn a_pending_wish_shows_whatever_is_merged_meanwhile_and_wins_when_told() {
    for own in [Some("own"), None] {
        let mut peer = Peer::new();
        let base = block(&[], 1, 1, "base");
        peer.at(0, vec![heads(&[base.0]), came(&base)]);
        peer.at(1, put(2, "opens the pause"));
        peer.at(2, submit(vec![Write { key: key(1), value: own.map(Bytes::from), expect: None }]));
        let other = block(&[base.0], 50, 1, "zzz of somebody else");
        peer.at(3, vec![heads(&[other.0]), came(&other)]);
        assert_eq!(peer.value(1), own.map(Bytes::from));
        let effects = peer.at(30, Vec::new());
        assert_eq!(told(&effects).len(), 1);
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::Changed(_))), "nothing changes when it is told");
        assert_eq!(peer.value(1), own.map(Bytes::from));
        assert_eq!(peer.machine.height(), 51);
    }
}

#[test]
fn an_add_that_the_remover_did_not_know_survives() {
    let mut remover = Peer::new();
    let base = block(&[], 1, 1, "base");
    let unknown = block(&[base.0], 2, 1, "unknown");
    remover.at(0, vec![heads(&[base.0]), came(&base)]);
    let removal = told(&remover.at(50, submit(vec![Write::remove(key(1))])));
    assert_eq!((removal.len(), remover.value(1)), (1, None));
    remover.at(60, vec![heads(&[unknown.0]), came(&unknown)]);
    assert_eq!(remover.value(1).as_deref(), Some(&b"unknown"[..]));
    let mut both = removal;
    both.push(unknown.0);
    both.sort_by_key(Cid::to_bytes);
    assert_eq!(remover.machine.heads(), both);
}

#[test]
fn what_is_acknowledged_and_not_told_is_told_after_a_crash() {
    let mut peer = Peer::new();
    peer.at(0, submit(vec![Write::put(key(1), "old")]));
    peer.at(1, submit(vec![Write::put(key(2), "kept"), Write::remove(key(1))]));
    assert_eq!(peer.machine.pending(), 2);
    let mut again = Peer::over(peer.store.crash());
    assert_eq!((again.machine.pending(), again.value(1), again.value(2).as_deref()), (2, None, Some(&b"kept"[..])));
    assert_eq!(told(&again.step(Vec::new())).len(), 1);
    // The block is not synced: a second crash brings the wishes back, and the same block is made again.
    let first = again.machine.heads();
    let mut third = Peer::over(again.store.crash());
    third.step(Vec::new());
    assert_eq!(third.machine.heads(), first);
    assert_eq!((third.machine.pending(), third.value(1), third.value(2).as_deref()), (0, None, Some(&b"kept"[..])));
}

#[test]
fn an_own_block_that_a_crash_took_is_not_doubled_when_others_tell_of_it() {
    let mut peer = Peer::new();
    peer.at(0, put(1, "a"));
    peer.at(1, put(2, "b"));
    let crashed = peer.store.crash();
    let lost = told(&peer.at(20, Vec::new()));
    let mut again = Peer::over(crashed);
    again.step(vec![heads(&lost)]);
    assert_eq!(again.machine.heads(), lost, "the same wishes over the same heads are the same block");
    assert!(fetched(&again.step(Vec::new())).is_empty());
    assert_eq!(again.machine.state(), ViewState::Current);
}

#[test]
fn the_view_says_how_complete_it_is() {
    let mut peer = Peer::new();
    assert_eq!(peer.machine.state(), ViewState::Unknown);
    let below = block(&[], 1, 1, "a");
    let top = block(&[below.0], 2, 2, "b");
    let effects = peer.at(10, vec![heads(&[top.0])]);
    assert_eq!(fetched(&effects), [top.0]);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::State(ViewState::CatchingUp))));
    let merged = |peer: &Peer, head: &Cid| Machine::has_merged(&*peer.store.snapshot(), &[*head]).expect("reads");
    assert_eq!(fetched(&peer.at(11, vec![came(&top)])), [below.0]);
    assert_eq!((peer.machine.state(), merged(&peer, &top.0)), (ViewState::CatchingUp, false));
    let effects = peer.at(12, vec![came(&below)]);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::State(ViewState::Current))));
    assert!(merged(&peer, &top.0) && merged(&peer, &below.0) && !merged(&peer, &block(&[], 1, 3, "c").0));
    // A single block of news does not make the view incomplete, unless it does not come.
    let news = block(&[top.0], 3, 3, "c");
    peer.at(20, vec![heads(&[news.0])]);
    assert_eq!(peer.machine.state(), ViewState::Current);
    assert_eq!(peer.wake, Some(Millis(520)));
    peer.at(520, Vec::new());
    assert_eq!(peer.machine.state(), ViewState::CatchingUp);
}

#[test]
fn missing_history_is_fetched_again_after_a_restart() {
    let mut peer = Peer::new();
    let below = block(&[], 1, 1, "a");
    let top = block(&[below.0], 2, 2, "b");
    peer.at(10, vec![heads(&[top.0]), came(&top)]);
    let mut again = Peer::over(peer.store.clone());
    assert_eq!(again.machine.state(), ViewState::CatchingUp);
    assert_eq!(fetched(&again.step(Vec::new())), [below.0]);
    again.step(vec![came(&below)]);
    assert_eq!((again.machine.state(), again.machine.heads()), (ViewState::Current, vec![top.0]));
}

#[test]
fn a_block_that_cannot_be_read_is_refused_once_and_the_rest_goes_on() {
    let mut peer = Peer::new();
    let damaged = (block_cid(b"\x0a\xff"), b"\x0a\xff".to_vec());
    let greedy = block(&[], u64::MAX, 5, "x");
    let top = block(&[damaged.0, greedy.0], 2, 1, "good");
    let effects = peer.at(0, vec![heads(&[top.0]), came(&top), came(&damaged), came(&greedy)]);
    assert_eq!(effects.iter().filter(|effect| matches!(effect, Effect::BlockRefused { .. })).count(), 2);
    assert_eq!((peer.value(1).as_deref(), peer.value(5)), (Some(&b"good"[..]), None));
    assert_eq!((peer.machine.state(), peer.machine.height()), (ViewState::Current, 2));
    // Told again, also after a restart, it is not fetched again.
    for mut peer in [Peer::over(peer.store.clone()), peer] {
        assert!(fetched(&peer.step(vec![heads(&[damaged.0, greedy.0])])).is_empty());
        assert_eq!(peer.machine.heads(), [top.0]);
    }
}

#[test]
fn blocks_nobody_asked_for_are_not_merged() {
    let mut peer = Peer::new();
    peer.at(0, vec![came(&block(&[], 1, 1, "a"))]);
    assert_eq!(peer.value(1), None);
}

#[test]
fn many_links_are_fetched_at_once_within_the_bound() {
    let mut peer = Peer::new();
    let parents: Vec<_> = (0..1000).map(|number| block(&[], 1, number, "x")).collect();
    let links: Vec<Cid> = parents.iter().map(|(cid, _)| *cid).collect();
    let top = block(&links, 2, 5000, "top");
    let effects = peer.at(0, vec![heads(&[top.0]), came(&top)]);
    assert_eq!(fetched(&effects).len(), 256);
    let under_way = fetched(&effects);
    assert!(fetched(&peer.at(1, Vec::new())).is_empty());
    let arrived = parents.iter().find(|(cid, _)| *cid == under_way[1]).map(came).expect("one of them");
    let next = fetched(&peer.at(2, vec![Event::FetchFailed { cid: under_way[0] }, arrived]));
    assert_eq!(next.len(), 2, "one for each that ended");
    // Big blocks: fewer at once.
    let big = "v".repeat(400_000);
    let mut peer = Peer::new();
    let bigs: Vec<_> = (0..40).map(|number| block(&[], 1, number, &big)).collect();
    peer.at(0, vec![heads(&bigs.iter().map(|(cid, _)| *cid).collect::<Vec<_>>())]);
    peer.at(1, bigs.iter().map(came).collect());
    let at_once = fetched(&peer.at(2, vec![heads(&[top.0]), came(&top)])).len();
    assert!((80..100).contains(&at_once), "about 32 MiB: {at_once}");
}

#[test]
fn heads_are_told_to_those_who_come_and_again_when_nobody_listened() {
    let mut peer = Peer::new();
    let head = told(&peer.at(0, put(1, "a")));
    peer.at(1, vec![Event::Broadcast { is_sent: false }]);
    assert!(peer.wake.is_some_and(|wake| wake.0 > 40_000), "with nobody connected there is nobody to tell: {:?}", peer.wake);
    let effects = peer.at(100, vec![Event::Connected { peer: someone(1), is_pinfold: true }]);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::AskHeads(peer) if *peer == someone(1))));
    assert_eq!(told(&peer.at(1_100, Vec::new())), head);
    peer.at(1_110, vec![Event::Broadcast { is_sent: false }]);
    assert_eq!(told(&peer.at(2_110, Vec::new())), head);
    peer.at(2_120, vec![Event::Broadcast { is_sent: true }]);
    assert!(peer.wake.is_some_and(|wake| wake.0 > 40_000));
    // A peer that does not tell its heads is asked again, not for ever.
    let (mut asked, mut failed) = (0, vec![Event::AskFailed { peer: someone(1) }]);
    for now in (3_000..100_000).step_by(500) {
        let effects = peer.at(now, std::mem::take(&mut failed));
        if effects.iter().any(|effect| matches!(effect, Effect::AskHeads(_))) {
            asked += 1;
            failed.push(Event::AskFailed { peer: someone(1) });
        }
    }
    assert_eq!(asked, 4);
}

#[test]
fn heads_that_others_told_are_not_told_again_in_that_round() {
    let mut peer = Peer::new();
    let one = block(&[], 1, 1, "a");
    let two = block(&[], 1, 2, "b");
    peer.at(0, vec![heads(&[one.0, two.0]), came(&one), came(&two)]);
    peer.at(10, vec![heads(&[one.0])]);
    let round = peer.wake.expect("a round").0;
    assert!((42_000..78_010).contains(&round), "{round}");
    assert_eq!(told(&peer.at(round, Vec::new())), [two.0]);
    let next = peer.wake.expect("a round").0;
    assert_eq!(told(&peer.at(next, Vec::new())).len(), 2);
    peer.at(next + 10, vec![heads(&[one.0, two.0])]);
    let last = peer.wake.expect("a round").0;
    assert!(told(&peer.at(last, Vec::new())).is_empty());
}

#[test]
fn expectations_are_refused_with_all_writes_beside_them() {
    let mut peer = Peer::new();
    let writes = vec![Write::put(key(1), "a"), Write { expect: Some(Version(0)), ..Write::put(key(2), "b") }];
    let effects = peer.step(submit(writes));
    assert!(matches!(effects[..], [Effect::Refused { ticket: 1, error: SubmitError::NotLinearizable }]));
    assert_eq!(peer.value(1), None);
}

#[test]
fn a_block_stays_within_its_size_and_the_rest_follows() {
    let mut peer = Peer::new();
    let value = "v".repeat(300_000);
    peer.step(submit((0..10).map(|number| Write::put(key(number), value.clone())).collect()));
    let mut blocks = 1;
    while peer.machine.pending() > 0 {
        peer.now += 10;
        blocks += told(&peer.step(Vec::new())).len();
    }
    assert_eq!(blocks, 4, "three values of 300 kB in each");
    let sizes = peer.store.snapshot().scan(Area::DagBlocks, None, b"", 10).expect("scans");
    assert!(sizes.iter().all(|(_, block)| block.len() <= 1 << 20));
}

#[test]
fn own_blocks_carry_the_signature_of_their_author() {
    let author = someone(4);
    let signer: consensus::crdt::Signer = std::sync::Arc::new(move |links: &[Cid], delta: &[u8]| {
        let signed = wire::delta::signing_bytes("home", &author, links, delta);
        AuthorSignature { author, signature: wire::cids::sha2_256(&signed).to_vec() }
    });
    let mut peer = Peer::signing(MemoryStore::new(), Some(signer));
    peer.at(0, put(1, "a"));
    let head = told(&peer.at(100, put(2, "b")));
    let bytes = peer.store.get(Area::DagBlocks, &BlockId::of_cid(&head[0]).expect("a block").0).expect("reads").expect("stored");
    let mut node = decode_node(&bytes).expect("a block");
    let signature = node.delta.author.take().expect("signed");
    assert_eq!(node.links.len(), 1);
    let expected = wire::cids::sha2_256(&wire::delta::signing_bytes("home", &author, &node.links, &node.delta.encode_unsigned()));
    assert_eq!((signature.author, &signature.signature[..]), (author, &expected[..]));
}

#[test]
fn a_chain_is_asked_for_in_stretches_of_pinfold_peers_only() {
    let chain: Vec<_> = (1..=6u64).fold(Vec::new(), |mut chain: Vec<(Cid, Vec<u8>)>, height| {
        let links: Vec<Cid> = chain.last().map(|(cid, _)| *cid).into_iter().collect();
        chain.push(block(&links, height, height as u32, "x"));
        chain
    });
    let stretches = |effects: &[Effect]| -> Vec<(Cid, PeerId)> {
        effects
            .iter()
            .filter_map(|effect| if let Effect::FetchStretch { cid, peer, .. } = effect { Some((*cid, *peer)) } else { None })
            .collect()
    };
    let blocks =
        |range: std::ops::Range<usize>| -> Vec<Bytes> { chain[range].iter().rev().map(|(_, bytes)| bytes.clone().into()).collect() };
    let mut peer = Peer::new();
    peer.at(0, vec![Event::Connected { peer: someone(1), is_pinfold: false }, heads(&[chain[5].0])]);
    let effects = peer.at(1, vec![came(&chain[5])]);
    assert_eq!((fetched(&effects), stretches(&effects)), (vec![chain[4].0], vec![]));
    peer.at(2, vec![came(&chain[4]), Event::Connected { peer: someone(2), is_pinfold: true }]);
    // The next missing one is already being fetched by itself; the one below goes as a stretch.
    let mut peer = Peer::over(peer.store.clone());
    let effects = peer.at(0, vec![Event::Connected { peer: someone(2), is_pinfold: true }]);
    assert_eq!((fetched(&effects), stretches(&effects)), (vec![], vec![(chain[3].0, someone(2))]));
    // What was not asked for is not merged, whatever else the answer holds.
    let mut answer = blocks(1..4);
    answer.push(block(&[], 9, 99, "smuggled").1.into());
    let effects = peer.at(1, vec![Event::Stretch { cid: chain[3].0, from: someone(2), blocks: answer }]);
    assert_eq!(stretches(&effects), [(chain[0].0, someone(2))]);
    assert_eq!((peer.value(2).as_deref(), peer.value(99)), (Some(&b"x"[..]), None));
    // An empty answer: fetched by itself, and that peer is left alone for a while.
    let effects = peer.at(2, vec![Event::Stretch { cid: chain[0].0, from: someone(2), blocks: Vec::new() }]);
    assert_eq!((fetched(&effects), stretches(&effects)), (vec![chain[0].0], vec![]));
    peer.at(3, vec![came(&chain[0])]);
    assert_eq!((peer.machine.state(), peer.machine.heads()), (ViewState::Current, vec![chain[5].0]));
}

#[test]
fn a_submit_that_is_a_batch_is_a_block_at_once_and_skips_the_journal() {
    let mut peer = Peer::new();
    peer.at(100, put(7, "a"));
    assert!(told(&peer.at(101, put(8, "pending"))).is_empty());
    let batch = |value: &str| (0..2_000).filter(|number| *number != 8).map(|number| Write::put(key(number), value.to_owned())).collect();
    let effects = peer.at(102, submit(batch("b")));
    assert!(is_accepted(&effects));
    assert_eq!(told(&effects).len(), 1, "without waiting for its turn");
    assert_eq!([7, 8, 1_999].map(|number| peer.value(number)), [Some("b".into()), Some("pending".into()), Some("b".into())]);
    assert_eq!(peer.store.snapshot().count(Area::Intents).expect("counts"), 1, "only the one that waited");
    let mut other = Peer::new();
    let blocks: Vec<Event> = peer
        .store
        .snapshot()
        .scan(Area::DagBlocks, None, b"", 10)
        .expect("reads")
        .into_iter()
        .map(|(_, bytes)| Event::Block { cid: block_cid(&bytes), bytes })
        .collect();
    other.at(1, vec![heads(&peer.machine.heads())]);
    for _ in 0..2 {
        other.step(blocks.clone());
    }
    assert_eq!([7, 8, 1_999].map(|number| other.value(number)), [Some("b".into()), None, Some("b".into())]);

    // A key with a pending wish, a key twice, a removal: one after the other, as if they had come alone.
    let mut overlapping: Vec<Write> = batch("c");
    overlapping.push(Write::put(key(8), "c"));
    let mut twice: Vec<Write> = batch("d");
    twice.push(Write::put(key(7), "e"));
    let mut removing: Vec<Write> = batch("f");
    removing.push(Write::remove(key(7)));
    for (now, writes, seen) in [(103, overlapping, Some("c")), (104, twice, Some("e")), (105, removing, None)] {
        let effects = peer.at(now, submit(writes));
        assert!(is_accepted(&effects));
        assert_eq!(peer.value(7), seen.map(Bytes::from));
    }
}

#[test]
fn many_wishes_of_one_step_are_a_block_at_once_and_skip_the_journal() {
    let wishes = |count: u32| -> Vec<Event> {
        let wish = |number| Event::Submit { ticket: 1, writes: vec![Write::put(key(number), "b")] };
        (10..10 + count).map(wish).collect()
    };
    let pending = |peer: &Peer| peer.store.snapshot().count(Area::Intents).expect("counts");
    // Few wait for their turn, since each block costs every peer something.
    for (count, beside_go, is_told) in [(20, false, false), (48, false, true), (48, true, false)] {
        let mut peer = Peer::new();
        if beside_go {
            peer.at(0, vec![Event::Connected { peer: someone(1), is_pinfold: false }]);
        }
        assert_eq!(told(&peer.at(2_000, put(1, "a"))).len(), 1);
        assert!(told(&peer.at(2_001, put(2, "a"))).is_empty());
        let effects = peer.at(2_002, wishes(count));
        assert_eq!(effects.iter().filter(|effect| matches!(effect, Effect::Accepted { .. })).count(), count as usize);
        assert_eq!((told(&effects).len(), pending(&peer)), if is_told { (1, 0) } else { (0, u64::from(count) + 1) }, "{count} {beside_go}");
        assert_eq!([2, 10, 9 + count].map(|number| peer.value(number)), [Some("a".into()), Some("b".into()), Some("b".into())]);
    }
}

#[test]
fn a_state_of_another_layout_is_refused_and_says_what_to_do() {
    let mut peer = Peer::new();
    peer.step(put(1, "a"));
    let mut batch = Batch::new();
    batch.delete(Area::Meta, "crdt/rows");
    peer.store.commit(batch, Durability::Buffered).expect("commits");
    let error = Machine::open(options(None), Millis(0), peer.store.snapshot()).err().expect("refused").to_string();
    assert!(error.contains("layout 1, this version reads 2") && error.contains("pinfold state export"), "{error}");
}
