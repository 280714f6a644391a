use super::*;
use crate::Write;
use crate::conformance::key;
use crate::crdt::event::{Effect, Event, MachineOptions};
use crate::crdt::machine::Machine;
use store::{MemoryStore, Store};
use types::{Cid, Millis, PeerId};

/// A machine and its store, driven by hand.
struct Peer {
    store: MemoryStore,
    machine: Machine,
    now: u64,
}

impl Peer {
    fn over(store: MemoryStore) -> Peer {
        let (spacing, rebroadcast) = (Millis(0), Millis(1 << 40));
        let options = MachineOptions {
            spacing,
            spacing_with_others: spacing,
            rebroadcast,
            alone: false,
            seed: 1,
            pages_after: 1,
            signer: None,
            authors: None,
        };
        let machine = Machine::open(options, Millis(0), store.snapshot()).expect("opens");
        Peer { store, machine, now: 0 }
    }

    /// One that has written these keys, a block for each.
    fn with(numbers: std::ops::Range<u32>) -> Peer {
        let mut peer = Peer::over(MemoryStore::new());
        for number in numbers {
            peer.write(Write::put(key(number), format!("{number}")));
        }
        peer
    }

    fn write(&mut self, write: Write) {
        self.now += 1;
        self.step(vec![Event::Submit { ticket: 1, writes: vec![write] }]);
    }

    fn step(&mut self, events: Vec<Event>) -> Vec<Effect> {
        let step = self.machine.step(events, Millis(self.now), self.store.snapshot()).expect("steps");
        self.store.commit(step.batch, step.durability).expect("commits");
        step.effects
    }

    fn shown(&self) -> Vec<(Bytes, Bytes)> {
        row::shown(self.store.snapshot()).scan(Area::Pins, None, b"", usize::MAX).expect("scans")
    }

    /// Meets `giver` and hears its heads; then answers what is asked: blocks by `giver`, pages as `page` makes them of its own, until
    /// nothing more is asked or there were `most` answers. How many pages came.
    fn join(&mut self, giver: &Peer, most: usize, page: &dyn Fn(Vec<u8>) -> Vec<u8>) -> usize {
        let mut effects = self.step(vec![Event::Connected { peer: someone(), is_pinfold: true }]);
        effects.extend(self.step(vec![Event::Heads { from: someone(), heads: giver.machine.heads() }]));
        let mut pages = 0;
        let stored = |id: &BlockId| giver.store.get(Area::DagBlocks, &id.0).expect("reads").expect("stored");
        for _ in 0..most {
            let asked = effects.iter().position(|effect| {
                matches!(effect, Effect::Fetch { .. } | Effect::FetchStretch { .. } | Effect::FetchPage { .. } | Effect::Mended(_))
            });
            let Some(at) = asked else { break };
            let event = match effects.remove(at) {
                Effect::Fetch { cid, .. } => Event::Block { cid, bytes: stored(&BlockId::of_cid(&cid).expect("a block")) },
                Effect::FetchStretch { cid, peer, .. } => Event::Stretch { cid, from: peer, blocks: Vec::new() },
                Effect::FetchPage { peer, after } => {
                    pages += 1;
                    Event::Page { from: peer, bytes: page(answer(giver.store.snapshot(), &after).expect("reads")).into() }
                }
                _ => continue,
            };
            effects.extend(self.step(vec![event]));
        }
        pages
    }
}

fn someone() -> PeerId {
    PeerId::from_ed25519(&[9; 32])
}

fn honest(page: Vec<u8>) -> Vec<u8> {
    page
}

/// A row that an honest page would not have.
type Lie<'a> = (Vec<u8>, Entry, &'a str);

/// A page with these rows beside its own, and only those own ones that `keeps` names.
fn with_rows(page: Vec<u8>, keeps: &dyn Fn(&[u8]) -> bool, more: &[Lie]) -> Vec<u8> {
    let page = decode_page(&page.into()).expect("a page");
    let (mut out, mut blocks) = (Vec::new(), BTreeMap::new());
    for PageRow { key, entry, value } in page.rows.iter().filter(|row| keeps(&row.key)) {
        put_row(&mut out, &mut blocks, key, *entry, value);
    }
    for (key, entry, value) in more {
        put_row(&mut out, &mut blocks, key, *entry, value.as_bytes());
    }
    page.heads.iter().for_each(|head| put_bytes(&mut out, 4, &head.0));
    put_bytes(&mut out, 3, &page.last.unwrap_or_default());
    out
}

#[test]
fn all_is_shown_before_the_history_is_read_and_sure_after() {
    let giver = Peer::with(0..200);
    let mut peer = Peer::over(MemoryStore::new());
    assert!(peer.join(&giver, 4, &honest) > 0);
    assert_eq!(peer.shown(), giver.shown(), "after a block, a refused stretch and a page");
    assert!(peer.machine.unsure().is_some_and(|unsure| unsure > 190), "{:?}", peer.machine.unsure());
    assert!(peer.machine.missing() > 0);
    assert!(answer(peer.store.snapshot(), b"").expect("reads").is_empty(), "what is unsure is given to nobody");
    // A restart goes on with the comparison, and asks for no more pages.
    let mut peer = Peer::over(peer.store);
    assert!(peer.machine.unsure().is_some_and(|unsure| unsure > 190));
    assert_eq!(peer.join(&giver, 10_000, &honest), 0);
    assert_eq!((peer.machine.unsure(), peer.machine.mended(), peer.machine.missing()), (None, 0, 0));
    assert_eq!(peer.shown(), giver.shown());
    assert_eq!(peer.machine.heads(), giver.machine.heads());
    assert!(!answer(peer.store.snapshot(), b"").expect("reads").is_empty());
}

#[test]
fn wishes_of_the_joining_peer_stand_above_pages() {
    let giver = Peer::with(0..50);
    let mut peer = Peer::over(MemoryStore::new());
    peer.join(&giver, 4, &honest);
    peer.write(Write::put(key(7), "mine".to_owned()));
    peer.write(Write::remove(key(8)));
    // The answers that were under way are lost with the restart.
    let mut peer = Peer { now: 100, ..Peer::over(peer.store) };
    peer.join(&giver, 10_000, &honest);
    peer.now += 100;
    peer.step(Vec::new());
    let shown: BTreeMap<Bytes, Bytes> = peer.shown().into_iter().collect();
    assert_eq!(shown.get(&key(7)[..]).map(|value| &value[..]), Some(&b"mine"[..]));
    assert_eq!((shown.len(), shown.contains_key(&key(8)[..])), (49, false));
    assert_eq!((peer.machine.unsure(), peer.machine.mended()), (None, 0));
}

#[test]
fn what_a_page_says_wrongly_is_put_right() {
    let giver = Peer::with(0..30);
    let truth = giver.shown();
    let stranger = BlockId([5; 32]);
    let page = decode_page(&answer(giver.store.snapshot(), b"").expect("reads").into()).expect("a page");
    let third = page.rows.iter().find(|row| row.entry.priority == 3).expect("in it").entry;
    let lies: [(&str, Vec<Lie>); 4] = [
        ("of a block that nobody made", vec![(key(900), Entry { priority: 3, block: stranger }, "false")]),
        ("of a block that does not say it", vec![(key(901), third, "false")]),
        ("another value", vec![(key(3), Entry { priority: 9999, block: stranger }, "false")]),
        ("many of them", (0..5000).map(|number| (key(1000 + number), Entry { priority: 4, block: stranger }, "false")).collect()),
    ];
    for (what, rows) in lies {
        let lie = |page| with_rows(page, &|given| rows.iter().all(|(key, ..)| &key[..] != given), &rows);
        let mut peer = Peer::over(MemoryStore::new());
        assert!(peer.join(&giver, 100_000, &lie) > 0);
        for _ in 0..10 {
            peer.step(Vec::new());
        }
        assert_eq!(peer.shown(), truth, "{what}");
        assert_eq!(peer.machine.unsure(), None, "{what}");
        assert_eq!(peer.machine.mended(), rows.len() as u64, "{what}");
    }
}

#[test]
fn a_value_or_height_that_its_block_does_not_give_is_put_right_by_the_block() {
    let giver = Peer::with(0..30);
    let page = decode_page(&answer(giver.store.snapshot(), b"").expect("reads").into()).expect("a page");
    let row = page.rows.iter().find(|row| row.entry.priority == 3).expect("in it");
    for (priority, value) in [(3, "false"), (77, "2"), (77, "false"), (1, "2")] {
        let entry = Entry { priority, block: row.entry.block };
        let lie = |page| with_rows(page, &|given| given != &row.key[..], &[(row.key.to_vec(), entry, value)]);
        let mut peer = Peer::over(MemoryStore::new());
        assert!(peer.join(&giver, 10_000, &lie) > 0);
        assert_eq!(peer.shown(), giver.shown(), "{priority} {value}");
        assert_eq!((peer.machine.unsure(), peer.machine.mended()), (None, 1), "{priority} {value}");
    }
}

#[test]
fn what_a_page_leaves_out_comes_with_the_history() {
    let giver = Peer::with(0..30);
    let lie = |page| with_rows(page, &|key| key[5] % 2 == 0, &[]);
    let mut peer = Peer::over(MemoryStore::new());
    assert!(peer.join(&giver, 10_000, &lie) > 0);
    assert_eq!((peer.shown(), peer.machine.unsure(), peer.machine.mended()), (giver.shown(), None, 0));
}

#[test]
fn who_had_the_whole_set_once_asks_for_no_pages() {
    let mut giver = Peer::with(0..1);
    let mut peer = Peer::over(MemoryStore::new());
    assert_eq!(peer.join(&giver, 10_000, &honest), 0, "a short history is no reason");
    for number in 1..50 {
        giver.write(Write::put(key(number), format!("{number}")));
    }
    assert_eq!(peer.join(&giver, 10_000, &honest), 0);
    assert_eq!((peer.shown(), peer.machine.unsure()), (giver.shown(), None));
}

#[test]
fn pages_that_do_not_come_or_do_not_go_on_end() {
    let giver = Peer::with(0..30);
    let nothing = |_| Vec::new();
    let again = |page: Vec<u8>| {
        let mut page = with_rows(page, &|_| true, &[]);
        put_bytes(&mut page, 3, &key(1));
        page
    };
    for (page, most) in [(&nothing as &dyn Fn(Vec<u8>) -> Vec<u8>, 3), (&again, 2)] {
        let mut peer = Peer::over(MemoryStore::new());
        let pages = peer.join(&giver, 10_000, page);
        assert!((1..=most).contains(&pages), "{pages}");
        assert_eq!((peer.shown(), peer.machine.unsure()), (giver.shown(), None));
    }
}

#[test]
fn what_only_the_lost_giver_of_a_page_had_goes_in_the_end() {
    let mut giver = Peer::with(0..30);
    let heads: Vec<Cid> = giver.machine.heads();
    let known = giver.shown();
    let old = giver.store.crash();
    giver.write(Write::put(key(500), "lost".to_owned()));
    // The page is of the later moment, the history of the earlier one: the giver is gone before its last block went out.
    let late = giver.store.snapshot();
    let mut peer = Peer::over(MemoryStore::new());
    let old = Peer::over(old);
    assert_eq!(old.machine.heads(), heads);
    let page = |_| answer(late.clone(), b"").expect("reads");
    peer.step(vec![Event::Connected { peer: someone(), is_pinfold: true }]);
    let mut effects = peer.step(vec![Event::Heads { from: someone(), heads }]);
    while !effects.is_empty() {
        let event = match effects.remove(0) {
            Effect::Fetch { cid, .. } => match old.store.get(Area::DagBlocks, &BlockId::of_cid(&cid).expect("a block").0).expect("reads") {
                Some(bytes) => Event::Block { cid, bytes },
                None => Event::FetchFailed { cid },
            },
            Effect::FetchStretch { cid, peer, .. } => Event::Stretch { cid, from: peer, blocks: Vec::new() },
            Effect::FetchPage { peer, .. } => Event::Page { from: peer, bytes: page(()).into() },
            _ => continue,
        };
        effects.extend(peer.step(vec![event]));
    }
    assert_eq!((peer.shown().len(), peer.machine.unsure()), (31, Some(1)), "it may still come");
    for _ in 0..40 {
        peer.now += 60_000;
        let fetches = peer.step(Vec::new()).into_iter().filter_map(|effect| match effect {
            Effect::Fetch { cid, .. } => Some(Event::FetchFailed { cid }),
            _ => None,
        });
        let fetches = fetches.collect();
        peer.step(fetches);
    }
    assert_eq!((peer.shown(), peer.machine.unsure(), peer.machine.mended()), (known, None, 1));
}

#[test]
fn pages_are_bounded_and_follow_each_other() {
    let mut giver = Peer::over(MemoryStore::new());
    let writes = |range: std::ops::Range<u32>| range.map(|number| Write::put(key(number), vec![b'x'; 300])).collect::<Vec<_>>();
    for part in 0..8 {
        giver.now += 1;
        giver.step(vec![Event::Submit { ticket: 1, writes: writes(part * 1000..part * 1000 + 1000) }]);
    }
    giver.now += 1;
    while giver.machine.pending() > 0 {
        giver.step(Vec::new());
    }
    let (mut after, mut rows, mut pages) = (Vec::new(), Vec::new(), 0);
    loop {
        let page = answer(giver.store.snapshot(), &after).expect("reads");
        assert!(page.len() < 3 << 20);
        let page = decode_page(&page.into()).expect("a page");
        pages += 1;
        rows.extend(page.rows.into_iter().map(|row| (row.key, row.value)));
        match page.last {
            Some(last) => after = last.to_vec(),
            None => break,
        }
    }
    assert!(pages > 1);
    assert_eq!(rows, giver.shown());
}

#[test]
fn pages_of_strangers_are_bounded() {
    fn read(input: &[u8]) -> bool {
        let Some(page) = decode_page(&Bytes::copy_from_slice(input)) else { return false };
        assert!(page.rows.len() <= 2 * PAGE_ROWS && page.heads.len() <= HEADS_MAX);
        assert!(page.rows.iter().map(|row| row.key.len() + row.value.len()).sum::<usize>() <= input.len());
        let mut peer = Peer::over(MemoryStore::new());
        let mut round = Draft::new(peer.store.snapshot());
        let (journal, mut values, mut changes, mut unsure) = (Journal::default(), Default::default(), Vec::new(), Unsure::default());
        let mut set = Set { draft: &mut round, values: &mut values, journal: &journal, changes: &mut changes, unsure: Some(&mut unsure) };
        set.take_page(page).expect("takes it");
        peer.store.commit(round.into_batch(), store::Durability::Buffered).expect("commits");
        peer.step(Vec::new());
        true
    }
    let giver = Peer::with(0..5);
    let page = answer(giver.store.snapshot(), b"").expect("reads");
    let lie = with_rows(page.clone(), &|_| true, &[(key(9), Entry { priority: PRIORITY_MAX, block: BlockId([3; 32]) }, "")]);
    fuzz::check(fuzz::Target { name: "set_page", decode: read }, vec![page, lie], fuzz::Plan::of_environment(2_000, 1));
}
