//! The laws of the merge: any order, any grouping, restarts in between, blocks again, and always what a naive merge says.

use consensus::conformance::key;
use consensus::crdt::{BlockId, Effect, Event, Machine, MachineOptions};
use consensus::{ViewState, Write};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use store::{Area, MemoryStore, Store};
use types::{Cid, Millis, PeerId};
use wire::delta::{Delta, Element, decode_node, element_id, encode_node, pin_key};

type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

/// The rules as the reference states them, without any cleverness: what is added and not removed; the highest priority, then the
/// greatest value.
fn naive(blocks: &[(Cid, Vec<u8>)]) -> Contents {
    let mut removed = BTreeSet::new();
    let mut added = BTreeMap::new();
    for (cid, bytes) in blocks {
        let delta = decode_node(bytes).expect("a block").delta;
        removed.extend(delta.tombstones.into_iter().map(|tombstone| (tombstone.key, tombstone.id)));
        for element in delta.elements {
            added.insert((element.key, element_id(cid)), (delta.priority, element.value));
        }
    }
    let mut best: BTreeMap<String, (u64, Vec<u8>)> = BTreeMap::new();
    for (name, candidate) in added {
        if !removed.contains(&name) && best.get(&name.0).is_none_or(|best| candidate > *best) {
            best.insert(name.0, candidate);
        }
    }
    best.into_iter().map(|(key, (_, value))| (wire::delta::cid_of_key(&key).expect("a key").to_bytes(), value)).collect()
}

/// Blocks that no block links to.
fn naive_heads(blocks: &[(Cid, Vec<u8>)]) -> BTreeSet<Cid> {
    let linked: BTreeSet<Cid> = blocks.iter().flat_map(|(_, bytes)| decode_node(bytes).expect("a block").links).collect();
    blocks.iter().map(|(cid, _)| *cid).filter(|cid| !linked.contains(cid)).collect()
}

/// A peer made of a machine and a store, driven by hand.
struct Peer {
    store: MemoryStore,
    machine: Machine,
    now: u64,
    effects: VecDeque<Effect>,
}

impl Peer {
    fn new(spacing: u64) -> Peer {
        Peer::over(MemoryStore::new(), spacing)
    }

    fn over(store: MemoryStore, spacing: u64) -> Peer {
        let options = MachineOptions {
            spacing: Millis(spacing),
            spacing_with_others: Millis(spacing),
            rebroadcast: Millis(1 << 40),
            alone: false,
            seed: 1,
            pages_after: 0,
            signer: None,
            authors: None,
        };
        let machine = Machine::open(options, Millis(0), store.snapshot()).expect("opens");
        Peer { store, machine, now: 0, effects: VecDeque::new() }
    }

    fn step(&mut self, events: Vec<Event>) {
        let step = self.machine.step(events, Millis(self.now), self.store.snapshot()).expect("steps");
        self.store.commit(step.batch, step.durability).expect("commits");
        self.effects.extend(step.effects);
    }

    fn contents(&self) -> Contents {
        let entries = consensus::crdt::shown(self.store.snapshot()).scan(Area::Pins, None, b"", usize::MAX).expect("scans");
        entries.into_iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
    }

    fn blocks(&self) -> Vec<(Cid, Vec<u8>)> {
        let blocks = self.store.snapshot().scan(Area::DagBlocks, None, b"", usize::MAX).expect("scans");
        blocks.into_iter().map(|(id, bytes)| (BlockId(id[..].try_into().expect("a digest")).cid(), bytes.to_vec())).collect()
    }

    fn heads(&self) -> BTreeSet<Cid> {
        self.machine.heads().into_iter().collect()
    }
}

fn announced(heads: Vec<Cid>) -> Event {
    Event::Heads { from: PeerId::from_ed25519(&[9; 32]), heads }
}

/// One block of a made-up history; numbers are taken modulo what exists.
#[derive(Clone, Debug)]
struct Made {
    links: Vec<usize>,
    elements: Vec<(u32, u8)>,
    /// Which key, and which block's element: also of blocks that never existed, or come later.
    tombstones: Vec<(u32, usize)>,
    odd_priority: Option<u64>,
}

fn made() -> impl Strategy<Value = Made> {
    let links = prop::collection::vec(0usize..1000, 0..3);
    let elements = prop::collection::vec((0u32..4, 0u8..4), 0..4);
    let tombstones = prop::collection::vec((0u32..4, 0usize..1000), 0..5);
    (links, elements, tombstones, prop::option::weighted(0.1, 1u64..6)).prop_map(|(links, elements, tombstones, odd_priority)| Made {
        links,
        elements,
        tombstones,
        odd_priority,
    })
}

fn build(history: &[Made]) -> Vec<(Cid, Vec<u8>)> {
    let mut blocks: Vec<(Cid, Vec<u8>)> = Vec::new();
    let mut heights = Vec::new();
    for (number, made) in history.iter().enumerate() {
        let links: BTreeSet<usize> = made.links.iter().filter(|_| number > 0).map(|link| number - 1 - link % number.min(4)).collect();
        let height = links.iter().map(|link| heights[*link]).max().unwrap_or(0) + 1;
        let priority = made.odd_priority.unwrap_or(height);
        let key_text = |number: u32| pin_key(&Cid::try_from(key(number)).expect("a CID"));
        let mut delta = Delta { priority, ..Delta::default() };
        for (number, value) in &made.elements {
            delta.elements.push(Element { key: key_text(*number), id: String::new(), value: vec![*value] });
        }
        for (number, block) in &made.tombstones {
            let of = blocks.get(block % (blocks.len() + 1)).map_or(BlockId([3; 32]).cid(), |(cid, _)| *cid);
            delta.tombstones.push(Element { key: key_text(*number), id: element_id(&of), value: Vec::new() });
        }
        let links: Vec<Cid> = links.iter().map(|link| blocks[*link].0).collect();
        let block = encode_node(&links, &delta);
        heights.push(priority);
        if !blocks.contains(&block) {
            blocks.push(block);
        } else {
            heights.pop();
            // An equal block would be the same block: make it another one, so that numbers stay in step.
            delta.elements.push(Element { key: key_text(100 + number as u32), id: String::new(), value: vec![1] });
            blocks.push(encode_node(&links, &delta));
            heights.push(priority);
        }
    }
    blocks
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    /// Commutative, associative, idempotent, and equal to the naive merge, at every point on the way.
    #[test]
    fn any_order_and_grouping_gives_what_the_naive_merge_gives(
        history in prop::collection::vec(made(), 1..14),
        order in prop::collection::vec(0usize..1000, 30),
        group in prop::collection::vec((1usize..4, any::<bool>()), 30),
    ) {
        let blocks = build(&history);
        let mut left: Vec<usize> = (0..blocks.len()).collect();
        let mut merged: Vec<(Cid, Vec<u8>)> = Vec::new();
        let mut peer = Peer::new(10);
        for (size, restarts) in group {
            let mut events = Vec::new();
            for _ in 0..size.min(left.len()) {
                let block = blocks[left.remove(order[left.len() % order.len()] % left.len())].clone();
                events.push(announced(vec![block.0]));
                events.push(Event::Block { cid: block.0, bytes: block.1.clone().into() });
                merged.push(block);
            }
            // Once more, what is already known.
            if let Some((cid, bytes)) = merged.first() {
                events.push(announced(vec![*cid]));
                events.push(Event::Block { cid: *cid, bytes: bytes.clone().into() });
            }
            peer.step(events);
            prop_assert_eq!(peer.contents(), naive(&merged));
            prop_assert_eq!(peer.machine.pins(), peer.contents().len() as u64);
            prop_assert_eq!(peer.machine.missing() == 0, missing(&merged).is_empty());
            if restarts {
                peer = Peer::over(peer.store.clone(), 10);
            }
        }
        prop_assert!(left.is_empty());
        prop_assert_eq!(peer.heads(), naive_heads(&blocks));
        prop_assert_eq!(peer.machine.state(), ViewState::Current);
    }

    /// A peer that joins takes pages of the set from peers that have merged more or less of the history, while blocks come in any order, and is
    /// restarted; in the end it has what the naive merge gives, and found nothing wrong in the pages.
    #[test]
    fn pages_of_any_moment_and_blocks_in_any_order_give_what_the_naive_merge_gives(
        history in prop::collection::vec(made(), 2..14),
        order in prop::collection::vec(0usize..1000, 30),
        turns in prop::collection::vec((0usize..3, 0usize..1000), 40),
        restart_at in prop::option::of(0usize..30),
    ) {
        let blocks = build(&history);
        let giver = PeerId::from_ed25519(&[7; 32]);
        // Without gaps: who misses history gives no pages.
        let givers: Vec<Peer> = (1..=blocks.len()).map(|length| {
            let mut peer = Peer::new(10);
            for (cid, bytes) in &blocks[..length] {
                peer.step(vec![announced(vec![*cid]), Event::Block { cid: *cid, bytes: bytes.clone().into() }]);
            }
            peer
        }).collect();
        let mut peer = Peer::new(10);
        peer.step(vec![Event::Connected { peer: giver, is_pinfold: true }]);
        let mut left: Vec<usize> = (0..blocks.len()).collect();
        let mut pages = 0;
        for (number, (what, choice)) in turns.into_iter().enumerate() {
            let asked = peer.effects.iter().position(|effect| matches!(effect, Effect::FetchPage { .. }));
            if let Some(at) = asked.filter(|_| what == 0 || left.is_empty()) {
                let Some(Effect::FetchPage { after, .. }) = peer.effects.remove(at) else { unreachable!("it stands there") };
                let giver_now = &givers[choice % givers.len()];
                let bytes = consensus::crdt::page(giver_now.store.snapshot(), &after).expect("reads");
                pages += 1;
                peer.step(vec![Event::Page { from: giver, bytes: bytes.into() }]);
            } else if !left.is_empty() {
                let (cid, bytes) = &blocks[left.remove(order[left.len() % order.len()] % left.len())];
                peer.step(vec![announced(vec![*cid]), Event::Block { cid: *cid, bytes: bytes.clone().into() }]);
            }
            if restart_at == Some(number) {
                peer = Peer::over(peer.store.clone(), 10);
            }
        }
        prop_assert!(left.is_empty());
        while let Some(effect) = peer.effects.pop_front() {
            if let Effect::FetchPage { peer: asked, .. } = effect {
                peer.step(vec![Event::Page { from: asked, bytes: Vec::new().into() }]);
            }
        }
        peer.step(Vec::new());
        prop_assert_eq!(peer.contents(), naive(&blocks), "{} pages", pages);
        prop_assert_eq!(peer.heads(), naive_heads(&blocks));
        prop_assert_eq!((peer.machine.unsure(), peer.machine.mended()), (None, 0));
        prop_assert_eq!(peer.machine.pins(), peer.contents().len() as u64);
        let rows = |peer: &Peer, area| peer.store.snapshot().scan(area, None, b"", usize::MAX).expect("scans");
        let walked = givers.last().expect("one at least");
        for area in [Area::Tombstones, Area::Processed, Area::DagBlocks] {
            prop_assert_eq!(rows(&peer, area), rows(walked, area));
        }
    }

    /// Peers that write, remove, crash and hear of each other only now and then: every own write shows at once and stays until
    /// something newer is merged, and in the end all have what the naive merge makes of all their blocks.
    #[test]
    fn peers_that_write_and_crash_agree_in_the_end(
        steps in prop::collection::vec((0usize..3, 0u32..5, prop::option::of(0u8..9), 0u8..10, any::<bool>()), 1..40),
    ) {
        let mut peers: Vec<Peer> = (0..3).map(|_| Peer::new(25)).collect();
        for (at, number, value, action, is_late) in steps {
            for peer in &mut peers {
                peer.now += if is_late { 30 } else { 5 };
            }
            match action {
                0..6 => {
                    let write = Write { key: key(number), value: value.map(|value| vec![value].into()), expect: None };
                    peers[at].step(vec![Event::Submit { ticket: 1, writes: vec![write] }]);
                    prop_assert_eq!(peers[at].contents().get(&key(number)).cloned(), value.map(|value| vec![value]));
                    prop_assert_eq!(peers[at].machine.pins(), peers[at].contents().len() as u64);
                }
                6..8 => sync(&mut peers, at, (at + 1) % 3),
                8 => {
                    let before = peers[at].contents();
                    peers[at] = Peer { now: 0, ..Peer::over(peers[at].store.clone(), 25) };
                    prop_assert_eq!(peers[at].contents(), before);
                }
                _ => {
                    // Power cut: what was acknowledged is there, told or not.
                    let store = peers[at].store.crash();
                    peers[at] = Peer::over(store, 25);
                }
            }
        }
        for _ in 0..4 {
            for (from, to) in [(0, 1), (1, 2), (2, 0)] {
                peers[from].now += 100;
                peers[from].step(Vec::new());
                sync(&mut peers, from, to);
            }
        }
        let blocks: BTreeMap<Cid, Vec<u8>> = peers.iter().flat_map(Peer::blocks).collect();
        let blocks: Vec<(Cid, Vec<u8>)> = blocks.into_iter().collect();
        for peer in &peers {
            prop_assert_eq!(peer.contents(), naive(&blocks));
            prop_assert_eq!(peer.heads(), peers[0].heads());
            prop_assert_eq!((peer.machine.missing(), peer.machine.pending()), (0, 0));
        }
    }
}

/// What the merged blocks link to and is not among them.
fn missing(blocks: &[(Cid, Vec<u8>)]) -> BTreeSet<Cid> {
    let links = blocks.iter().flat_map(|(_, bytes)| decode_node(bytes).expect("a block").links);
    links.filter(|link| !blocks.iter().any(|(cid, _)| cid == link)).collect()
}

/// `to` hears the heads of `from` and fetches from it until it wants nothing more.
fn sync(peers: &mut [Peer], from: usize, to: usize) {
    let heads = peers[from].machine.heads();
    peers[to].effects.clear();
    peers[to].step(vec![announced(heads)]);
    while let Some(effect) = peers[to].effects.pop_front() {
        let Effect::Fetch { cid, .. } = effect else { continue };
        let id = BlockId::of_cid(&cid).expect("a block");
        let event = match peers[from].store.get(Area::DagBlocks, &id.0).expect("reads") {
            Some(bytes) => Event::Block { cid, bytes },
            None => Event::FetchFailed { cid },
        };
        peers[to].step(vec![event]);
    }
}

/// One peer writes a key 100 times without a removal, another removes it: nothing comes back, in either order of arrival.
#[test]
fn a_key_written_many_times_is_removed_whole() {
    let mut writer = Peer::new(0);
    for number in 0..100u8 {
        writer.now += 1;
        writer.step(vec![Event::Submit { ticket: 1, writes: vec![Write::put(key(1), vec![number])] }]);
    }
    let old = writer.blocks();
    assert_eq!(old.len(), 100);
    writer.now += 1;
    writer.step(vec![Event::Submit { ticket: 1, writes: vec![Write::remove(key(1))] }]);
    let all = writer.blocks();
    assert_eq!(all.len(), 101);
    assert!(naive(&all).is_empty() && writer.contents().is_empty());
    assert_eq!(writer.store.snapshot().count(Area::Elements).expect("counts"), 0);
    for order in [all.clone(), all.iter().rev().cloned().collect()] {
        let mut reader = Peer::new(0);
        for (cid, bytes) in order {
            reader.step(vec![announced(vec![cid]), Event::Block { cid, bytes: bytes.into() }]);
        }
        assert!(reader.contents().is_empty());
        assert_eq!(reader.store.snapshot().count(Area::Elements).expect("counts"), 0);
        assert_eq!(reader.store.snapshot().count(Area::Tombstones).expect("counts"), 0);
        assert_eq!(reader.heads(), writer.heads());
    }
}
