//! Whose blocks count: signatures of authors, what is left out, and that all peers agree in the end.

use bytes::Bytes;
use consensus::ViewState;
use consensus::conformance::key;
use consensus::crdt::{AuthorRules, Effect, Event, Fault, Machine, MachineOptions, Signatures, shown};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use store::{Area, MemoryStore, Store};
use types::{Cid, Millis, PeerId};
use wire::delta::{AuthorSignature, Delta, Element, element_id, encode_node, pin_key, signing_bytes};

fn someone(number: u8) -> PeerId {
    PeerId::from_ed25519(&[number; 32])
}

/// What stands for a signature here: only the right bytes have it.
fn sign(author: PeerId, links: &[Cid], delta: &Delta) -> AuthorSignature {
    let signature = wire::cids::sha2_256(&signing_bytes("home", &author, links, &delta.encode_unsigned())).to_vec();
    AuthorSignature { author, signature }
}

fn rules(required: bool, known: &[u8]) -> AuthorRules {
    let verify = |signed: &AuthorSignature, links: &[Cid], unsigned: &[u8]| {
        signed.signature == wire::cids::sha2_256(&signing_bytes("home", &signed.author, links, unsigned))
    };
    let known = known.iter().map(|number| someone(*number)).collect();
    AuthorRules { signatures: Signatures::new(Arc::new(verify)), required, known, everybody: false }
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum By {
    Nobody,
    Wrong(u8),
    Author(u8),
}

type Block = (Cid, Bytes);

/// A block that gives a key a value and removes what other blocks gave it.
fn block(by: By, below: &[&Block], height: u64, number: u32, value: &str, removes: &[&Block]) -> Block {
    let pin = pin_key(&Cid::try_from(key(number)).expect("a CID"));
    let links: Vec<Cid> = below.iter().map(|(cid, _)| *cid).collect();
    let elements = vec![Element { key: pin.clone(), id: String::new(), value: value.into() }];
    let tombstones = removes.iter().map(|(cid, _)| Element { key: pin.clone(), id: element_id(cid), value: Vec::new() }).collect();
    let mut delta = Delta { elements, tombstones, priority: height, author: None };
    match by {
        By::Nobody => {}
        By::Author(author) => delta.author = Some(sign(someone(author), &links, &delta)),
        By::Wrong(author) => delta.author = Some(AuthorSignature { author: someone(author), signature: vec![7; 32] }),
    }
    let (cid, bytes) = encode_node(&links, &delta);
    (cid, bytes.into())
}

struct Peer {
    store: MemoryStore,
    machine: Machine,
    now: u64,
}

impl Peer {
    fn new(rules: AuthorRules) -> Peer {
        Peer::over(MemoryStore::new(), rules)
    }

    fn over(store: MemoryStore, rules: AuthorRules) -> Peer {
        let options = MachineOptions {
            spacing: Millis(10),
            spacing_with_others: Millis(200),
            rebroadcast: Millis(60_000),
            alone: false,
            pages_after: 1 << 20,
            seed: 1,
            signer: None,
            authors: Some(rules),
        };
        let machine = Machine::open(options, Millis(0), store.snapshot()).expect("opens");
        Peer { store, machine, now: 0 }
    }

    fn step(&mut self, events: Vec<Event>) -> Vec<Effect> {
        self.now += 1;
        let step = self.machine.step(events, Millis(self.now), self.store.snapshot()).expect("steps");
        self.store.commit(step.batch, step.durability).expect("commits");
        step.effects
    }

    /// Hears of a head and gets whatever it asks for; what it found on the way.
    fn hears(&mut self, head: &Block, all: &[Block]) -> Vec<(Cid, Fault, bool)> {
        let mut findings = Vec::new();
        let mut events = vec![Event::Heads { from: someone(9), heads: vec![head.0] }];
        while !events.is_empty() {
            let effects = self.step(std::mem::take(&mut events));
            for effect in effects {
                match effect {
                    Effect::Fetch { cid, .. } => {
                        let bytes = all.iter().find(|(known, _)| *known == cid).expect("known").1.clone();
                        events.push(Event::Block { cid, bytes });
                    }
                    Effect::Finding(finding) => findings.push((finding.block, finding.fault, finding.is_left_out)),
                    _ => {}
                }
            }
        }
        findings
    }

    fn contents(&self) -> BTreeMap<Vec<u8>, Bytes> {
        let rows = shown(self.store.snapshot()).scan(Area::Pins, None, b"", 1000).expect("scans");
        rows.into_iter().map(|(key, value)| (key.to_vec(), value)).collect()
    }

    fn value(&self, number: u32) -> Option<Bytes> {
        self.contents().get(&key(number)).cloned()
    }

    /// All steps that it wants without an event.
    fn settle(&mut self) {
        for _ in 0..100 {
            self.step(Vec::new());
        }
    }
}

#[test]
fn what_nobody_signed_is_left_out_and_what_lies_below_it_is_not() {
    let below = block(By::Author(1), &[], 1, 1, "below", &[]);
    let smuggled = block(By::Nobody, &[&below], 2, 2, "smuggled", &[]);
    let above = block(By::Author(1), &[&smuggled], 3, 3, "above", &[]);
    let all = [below.clone(), smuggled.clone(), above.clone()];
    let mut peer = Peer::new(rules(true, &[1]));
    assert_eq!(peer.hears(&above, &all), [(smuggled.0, Fault::Unsigned, true)]);
    assert_eq!((peer.value(1), peer.value(2), peer.value(3)), (Some("below".into()), None, Some("above".into())));
    assert_eq!((peer.machine.state(), peer.machine.authors().left_out), (ViewState::Current, 1));
    assert!(Machine::has_merged(&*peer.store.snapshot(), &[above.0]).expect("reads"));
    assert!(!Machine::has_merged(&*peer.store.snapshot(), &[smuggled.0]).expect("reads"), "its content is not here");
    assert!(peer.hears(&above, &all).is_empty() && peer.hears(&smuggled, &all).is_empty(), "told once");
    // The cluster takes Go peers in: the same as if it had been so from the beginning.
    peer.step(vec![Event::AcceptUnsigned]);
    assert_eq!((peer.value(2), peer.machine.authors().left_out), (Some("smuggled".into()), 0));
    let mut other = Peer::new(rules(false, &[1]));
    other.hears(&above, &all);
    assert_eq!((peer.contents(), peer.machine.height()), (other.contents(), other.machine.height()));
    assert!(peer.machine.heads().contains(&above.0));
    assert!(Machine::has_merged(&*peer.store.snapshot(), &[above.0, smuggled.0]).expect("reads"));
}

#[test]
fn beside_go_everything_counts_and_a_wrong_signature_is_told() {
    let plain = block(By::Nobody, &[], 1, 1, "of a Go peer", &[]);
    let wrong = block(By::Wrong(1), &[&plain], 2, 2, "wrong", &[]);
    let stranger = block(By::Author(5), &[&wrong], 3, 3, "stranger", &[]);
    let all = [plain, wrong.clone(), stranger.clone()];
    let mut peer = Peer::new(rules(false, &[1]));
    let mut found = peer.hears(&stranger, &all);
    found.sort_by_key(|(_, fault, _)| *fault);
    assert_eq!(found, [(wrong.0, Fault::Wrong, false), (stranger.0, Fault::Stranger, false)]);
    assert_eq!((peer.contents().len(), peer.machine.state()), (3, ViewState::Current));
    let numbers = peer.machine.authors();
    assert_eq!((numbers.unsigned, numbers.wrong, numbers.strangers, numbers.left_out), (1, 1, 1, 0));
    assert_eq!(numbers.findings.len(), 2);
}

#[test]
fn a_new_members_block_waits_for_its_record() {
    let first = block(By::Author(2), &[], 1, 1, "new member", &[]);
    let mut peer = Peer::new(rules(true, &[1]));
    peer.hears(&first, std::slice::from_ref(&first));
    assert_eq!((peer.value(1), peer.machine.state()), (None, ViewState::Unknown), "nothing was merged here");
    let other = block(By::Author(1), &[], 1, 2, "old member", &[]);
    peer.hears(&other, std::slice::from_ref(&other));
    assert_eq!((peer.value(2), peer.machine.state()), (Some("old member".into()), ViewState::CatchingUp));
    peer.step(vec![Event::Authors(BTreeSet::from([someone(3)]))]);
    assert_eq!(peer.value(1), None);
    peer.step(vec![Event::Authors(BTreeSet::from([someone(2)]))]);
    assert_eq!((peer.value(1), peer.machine.state()), (Some("new member".into()), ViewState::Current));
    assert_eq!(peer.machine.heads().len(), 2);
}

#[test]
fn a_stranger_does_not_hold_the_view_up_for_ever() {
    let all = [block(By::Author(1), &[], 1, 1, "old member", &[]), block(By::Author(5), &[], 1, 2, "stranger", &[])];
    let mut peer = Peer::new(rules(true, &[1]));
    all.iter().for_each(|block| drop(peer.hears(block, &all)));
    assert_eq!(peer.machine.state(), ViewState::CatchingUp);
    peer.now += 40_000;
    peer.step(Vec::new());
    assert_eq!((peer.machine.state(), peer.value(2)), (ViewState::Current, None));
}

#[test]
fn a_view_that_is_not_current_does_not_keep_it_awake_for_a_stranger() {
    let alone = block(By::Author(5), &[], 1, 1, "x", &[]);
    let mut peer = Peer::new(rules(true, &[1]));
    peer.hears(&alone, std::slice::from_ref(&alone));
    assert_eq!(peer.machine.authors().left_out, 1);
    peer.now += 60_000;
    let step = peer.machine.step(Vec::new(), Millis(peer.now), peer.store.snapshot()).expect("steps");
    assert_ne!(peer.machine.state(), ViewState::Current, "nothing that counts is here");
    assert!(step.next_wake.is_none_or(|at| at.0 > peer.now), "{:?} at {}", step.next_wake, peer.now);
}

#[test]
fn what_was_left_out_is_taken_up_after_a_restart_too() {
    let blocks: Vec<Block> = (0..600).map(|number| block(By::Nobody, &[], 1, number, "x", &[])).collect();
    let mut peer = Peer::new(rules(true, &[]));
    blocks.iter().for_each(|block| drop(peer.hears(block, &blocks)));
    assert_eq!((peer.contents().len(), peer.machine.authors().left_out), (0, 600));
    let mut peer = Peer::over(peer.store, rules(true, &[]));
    peer.settle();
    assert_eq!((peer.contents().len(), peer.machine.authors().left_out), (0, 600));
    let mut peer = Peer::over(peer.store, rules(false, &[]));
    peer.settle();
    assert_eq!((peer.contents().len(), peer.machine.authors().left_out), (600, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whenever a peer learns of authors, and that unsigned blocks count, it ends with what a peer has that knew it from the start.
    #[test]
    fn all_agree_in_the_end(
        made in prop::collection::vec((0u8..5, 0u32..3, any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<bool>()), 1..14),
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..14),
        relaxes in any::<bool>(),
        restarts in any::<bool>(),
    ) {
        let mut all: Vec<Block> = Vec::new();
        let mut heights: Vec<u64> = Vec::new();
        for (by, number, below, removed, is_first) in made {
            let by = match by { 0 => By::Nobody, 1 => By::Wrong(1), author => By::Author(author) };
            let (links, height, removes) = if all.is_empty() || is_first {
                (vec![], 1, vec![])
            } else {
                let at = below.index(all.len());
                (vec![&all[at]], heights[at] + 1, vec![&all[removed.index(all.len())]])
            };
            let value = format!("{}", all.len());
            let next = block(by, &links, height, number, &value, &removes);
            all.push(next);
            heights.push(height);
        }
        let mut knowing = Peer::new(rules(!relaxes, &[1, 2, 3, 4]));
        all.iter().for_each(|block| drop(knowing.hears(block, &all)));
        let mut learning = Peer::new(rules(true, &[1]));
        for (turn, at) in order.iter().enumerate() {
            learning.hears(&all[at.index(all.len())], &all);
            match turn {
                2 => drop(learning.step(vec![Event::Authors([2, 3].map(someone).into())])),
                4 if restarts => learning = Peer::over(learning.store, rules(true, &[1, 2, 3])),
                6 if relaxes => drop(learning.step(vec![Event::AcceptUnsigned])),
                _ => {}
            }
        }
        learning.step(vec![Event::Authors([1, 2, 3, 4].map(someone).into())]);
        if relaxes {
            learning.step(vec![Event::AcceptUnsigned]);
        }
        all.iter().rev().for_each(|block| drop(learning.hears(block, &all)));
        learning.settle();
        prop_assert_eq!(learning.contents(), knowing.contents());
        prop_assert_eq!(learning.machine.authors().left_out, knowing.machine.authors().left_out);
        prop_assert_eq!(learning.machine.missing(), 0);
    }
}
