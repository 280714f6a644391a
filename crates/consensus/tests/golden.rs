//! The DAG captured from live Go peers, merged block by block in many orders, gives what the Go peer exported.

use consensus::crdt::{Effect, Event, Machine, MachineOptions};
use std::collections::BTreeMap;
use store::{Area, MemoryStore, Store};
use types::{Cid, Depth, Millis, PeerId, Pin, PinKind, Replicas, UnixMillis};

const CAR: &[u8] = include_bytes!("vectors/crdt-dag.car");
const EXPORT: &str = include_str!("vectors/state-export.ndjson");

/// Blocks of the CAR, oldest first.
fn blocks() -> Vec<(Cid, Vec<u8>)> {
    let mut rest = CAR;
    let mut sections = std::iter::from_fn(|| {
        let (mut length, mut shift) = (0usize, 0);
        loop {
            let (&byte, after) = rest.split_first()?;
            rest = after;
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                break;
            }
        }
        let (section, after) = rest.split_at(length);
        rest = after;
        Some(section)
    });
    sections.next().expect("a header");
    let split = |mut section: &[u8]| (Cid::read_bytes(&mut section).expect("a CID"), section.to_vec());
    sections.map(split).collect()
}

fn machine(store: &MemoryStore) -> Machine {
    let options = MachineOptions {
        spacing: Millis(10),
        spacing_with_others: Millis(200),
        rebroadcast: Millis::minutes(1),
        alone: false,
        seed: 1,
        pages_after: 1 << 20,
        signer: None,
        authors: None,
    };
    Machine::open(options, Millis(0), store.snapshot()).expect("opens")
}

/// Merges the blocks in this order: each is announced, so that it is taken whatever else is known.
fn merge<'b>(store: &MemoryStore, machine: &mut Machine, order: impl Iterator<Item = &'b (Cid, Vec<u8>)>) {
    for (cid, bytes) in order {
        let announced = Event::Heads { from: PeerId::from_ed25519(&[9; 32]), heads: vec![*cid] };
        let came = Event::Block { cid: *cid, bytes: bytes.clone().into() };
        let step = machine.step(vec![announced, came], Millis(5), store.snapshot()).expect("steps");
        assert!(!step.effects.iter().any(|effect| matches!(effect, Effect::BlockRefused { .. })));
        store.commit(step.batch, step.durability).expect("commits");
    }
}

fn contents(store: &MemoryStore) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let entries = consensus::crdt::shown(store.snapshot()).scan(Area::Pins, None, b"", usize::MAX).expect("scans");
    entries.into_iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
}

/// Compares all fields of a pin with a line of the export.
fn check(pin: &Pin, line: &serde_json::Value) {
    assert_eq!(pin.cid.to_string(), line["cid"]);
    assert_eq!(pin.options.name, line["name"]);
    let factors = (line["replication_factor_min"].as_i64(), line["replication_factor_max"].as_i64());
    let (min, max) = pin.options.replicas.factors();
    assert_eq!((Some(min.into()), Some(max.into())), factors, "{line}");
    let kind = match pin.kind {
        PinKind::Data => "pin",
        PinKind::Meta => "meta-pin",
        PinKind::ClusterDag => "clusterdag-pin",
        PinKind::Shard => "shard-pin",
        PinKind::Bad => "bad",
    };
    assert_eq!(kind, line["type"]);
    let depth = if let Depth::Levels(levels) = pin.depth { i64::from(levels) } else { -1 };
    assert_eq!(Some(depth), line["max_depth"].as_i64(), "{line}");
    assert_eq!(Some(pin.options.shard_size), line["shard_size"].as_u64());
    let texts = |value: &serde_json::Value| -> Vec<String> {
        value.as_array().into_iter().flatten().map(|text| text.as_str().expect("text").to_owned()).collect()
    };
    assert_eq!(pin.placement.iter().map(PeerId::to_string).collect::<Vec<_>>(), texts(&line["allocations"]));
    assert_eq!(pin.options.origins.len(), texts(&line["origins"]).len());
    let cid = |cid: &Option<Cid>| cid.map_or(serde_json::Value::Null, |cid| cid.to_string().into());
    assert_eq!(cid(&pin.reference), line["reference"]);
    assert_eq!(cid(&pin.options.update), line["pin_update"]);
    let metadata: BTreeMap<String, String> = line["metadata"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.as_str().expect("text").to_owned()))
        .collect();
    assert_eq!(pin.options.metadata, metadata);
    assert_eq!(seconds(line["timestamp"].as_str().expect("text")), pin.created.seconds(), "{line}");
    assert_eq!(seconds(line["expire_at"].as_str().expect("text")), pin.options.expires.map_or(0, UnixMillis::seconds));
}

fn seconds(text: &str) -> u64 {
    wire::gotime::GoTime::parse(text).expect("a time").to_millis().seconds()
}

#[test]
fn merging_the_captured_dag_gives_what_go_exported() {
    let store = MemoryStore::new();
    let mut machine = machine(&store);
    let blocks = blocks();
    assert_eq!(blocks.len(), 82);
    merge(&store, &mut machine, blocks.iter());
    assert_eq!(machine.heads(), [blocks[81].0], "one head, the root");
    assert_eq!(machine.missing(), 0);
    let mut merged = contents(&store);
    for line in EXPORT.lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let cid: Cid = line["cid"].as_str().expect("text").parse().expect("a CID");
        let value = merged.remove(&cid.to_bytes()).expect("in the merged state");
        let mut pin = wire::pin::decode_pin(&value).expect("a pin");
        pin.cid = cid;
        check(&pin, &line);
    }
    assert!(merged.is_empty(), "nothing beyond the export");
}

#[test]
fn every_order_of_blocks_gives_the_same() {
    let blocks = blocks();
    let reference = MemoryStore::new();
    let mut first = machine(&reference);
    merge(&reference, &mut first, blocks.iter());
    let mut orders: Vec<Vec<usize>> = vec![(0..82).rev().collect(), (0..82).map(|at| at * 31 % 82).collect()];
    for seed in 1..30u64 {
        let mut order: Vec<(u64, usize)> =
            (0..82).map(|at| ((at as u64 + 1).wrapping_mul(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1).rotate_left(23), at)).collect();
        order.sort_unstable();
        orders.push(order.into_iter().map(|(_, at)| at).collect());
    }
    for order in orders {
        let store = MemoryStore::new();
        let mut machine = machine(&store);
        merge(&store, &mut machine, order.iter().map(|at| &blocks[*at]));
        assert_eq!(contents(&store), contents(&reference), "{order:?}");
        assert_eq!(machine.heads(), first.heads());
        assert_eq!(machine.missing(), 0);
        assert_eq!(store.snapshot().count(Area::Tombstones).expect("counts"), 0, "every tombstone found its element");
    }
}

#[test]
fn blocks_that_come_again_change_nothing() {
    let blocks = blocks();
    let store = MemoryStore::new();
    let mut machine = machine(&store);
    merge(&store, &mut machine, blocks.iter());
    let before = contents(&store);
    for (cid, bytes) in &blocks {
        let events = vec![
            Event::Heads { from: PeerId::from_ed25519(&[9; 32]), heads: vec![*cid] },
            Event::Block { cid: *cid, bytes: bytes.clone().into() },
        ];
        let step = machine.step(events, Millis(6), store.snapshot()).expect("steps");
        assert!(step.batch.is_empty() && step.effects.is_empty());
    }
    assert_eq!(contents(&store), before);
    // Also after a restart.
    assert_eq!(self::machine(&store).heads(), machine.heads());
}

#[test]
fn replicas_of_the_export_are_read() {
    // Guards the comparison itself: the export has both kinds.
    let pins: Vec<Pin> = {
        let store = MemoryStore::new();
        let mut machine = machine(&store);
        merge(&store, &mut machine, blocks().iter());
        contents(&store).values().map(|value| wire::pin::decode_pin(value).expect("a pin")).collect()
    };
    assert!(pins.iter().any(|pin| pin.options.replicas == Replicas::Everywhere));
    assert!(pins.iter().any(|pin| pin.depth == Depth::DIRECT));
}
