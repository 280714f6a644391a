//! Writers beside a Go peer share the distance of blocks: the sum stays what Go follows, and each has its turns.

use bytes::Bytes;
use consensus::Write;
use consensus::conformance::key;
use consensus::crdt::{Effect, Event, Machine, MachineOptions, Signer};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use store::{MemoryStore, Store};
use types::{Cid, Millis, PeerId};
use wire::delta::AuthorSignature;

const SPACING: u64 = 200;

fn peer(number: usize) -> PeerId {
    PeerId::from_ed25519(&[number as u8 + 1; 32])
}

/// What a machine did at some time.
struct Told {
    from: usize,
    blocks: Vec<Bytes>,
    heads: Vec<Cid>,
}

/// So many writers, each with a wish every 50 ms for a minute, a Go peer beside them; how many blocks each made. `pushes`: blocks are handed over, not
/// fetched.
fn blocks_made(writers: usize, pushes: bool) -> Vec<usize> {
    let go = PeerId::from_ed25519(&[200; 32]);
    let mut peers: Vec<(Machine, MemoryStore)> = (0..writers)
        .map(|number| {
            let author = peer(number);
            let signer: Signer = Arc::new(move |_: &[Cid], _: &[u8]| AuthorSignature { author, signature: vec![1; 64] });
            let options = MachineOptions {
                spacing: Millis(10),
                spacing_with_others: Millis(SPACING),
                rebroadcast: Millis(600_000),
                alone: false,
                pages_after: 1 << 20,
                seed: number as u64 + 1,
                signer: Some(signer),
                authors: None,
            };
            let store = MemoryStore::new();
            (Machine::open(options, Millis(0), store.snapshot()).expect("opens"), store)
        })
        .collect();
    let mut made = vec![0; writers];
    let mut known: BTreeMap<Cid, Bytes> = BTreeMap::new();
    let mut seen: BTreeSet<Cid> = BTreeSet::new();
    let mut inboxes: Vec<Vec<Event>> = (0..writers)
        .map(|number| {
            let others =
                (0..writers).filter(|other| *other != number).map(|other| Event::Connected { peer: peer(other), is_pinfold: true });
            others.chain([Event::Connected { peer: go, is_pinfold: false }]).collect()
        })
        .collect();
    for now in (0..60_000u64).step_by(10) {
        let mut all = Vec::new();
        for (number, (machine, store)) in peers.iter_mut().enumerate() {
            let mut events = std::mem::take(&mut inboxes[number]);
            if now % 50 == 0 {
                let write = Write::put(key((number * 100_000) as u32 + (now / 50) as u32), "x");
                events.push(Event::Submit { ticket: now + 1, writes: vec![write] });
            }
            let step = machine.step(events, Millis(now), store.snapshot()).expect("steps");
            store.commit(step.batch, step.durability).expect("commits");
            let mut told = Told { from: number, blocks: Vec::new(), heads: Vec::new() };
            for effect in step.effects {
                match effect {
                    Effect::Push { bytes, .. } => {
                        known.insert(wire::delta::block_cid(&bytes), bytes.clone());
                        told.blocks.push(bytes);
                    }
                    Effect::Broadcast(heads) => told.heads.extend(heads),
                    Effect::Fetch { cid, .. } => {
                        if let Some(bytes) = known.get(&cid) {
                            inboxes[number].push(Event::Block { cid, bytes: bytes.clone() });
                        }
                    }
                    _ => {}
                }
            }
            made[number] += told.blocks.iter().filter(|bytes| seen.insert(wire::delta::block_cid(bytes))).count();
            all.push(told);
        }
        for told in all {
            for (_, inbox) in inboxes.iter_mut().enumerate().filter(|(number, _)| *number != told.from) {
                let from = peer(told.from);
                if pushes {
                    inbox.extend(told.blocks.iter().map(|bytes| Event::Pushed { from, bytes: bytes.clone() }));
                }
                if !told.heads.is_empty() {
                    inbox.push(Event::Heads { from, heads: told.heads.clone() });
                }
            }
        }
    }
    made
}

#[test]
fn one_writer_has_the_distance_for_itself() {
    let made = blocks_made(1, true);
    // Alone nobody is handed a block.
    assert_eq!(made, [0]);
    let made = blocks_made(2, true);
    assert!(made.iter().all(|made| *made > 100), "{made:?}");
}

#[test]
fn the_sum_of_all_writers_keeps_the_distance_and_each_has_its_turns() {
    for (writers, pushes) in [(2, true), (5, true), (5, false), (12, true)] {
        let made = blocks_made(writers, pushes);
        let (sum, fair) = (made.iter().sum::<usize>(), 60_000 / SPACING as usize);
        assert!(sum < fair + fair / 4 + 2 * writers, "{writers} writers made {sum} blocks, one would make {fair}: {made:?}");
        let least = made.iter().min().expect("some");
        assert!(*least * writers * 2 > fair, "each has its turns: {made:?}");
    }
}
