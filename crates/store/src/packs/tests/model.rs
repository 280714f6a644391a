//! Random histories against a map, with clean reopenings and power cuts.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug)]
enum Step {
    Put(Vec<u32>),
    Delete(Vec<u32>),
    Sync,
    Compact,
    Scrub,
    Reopen,
    /// The power goes: of each file's unsynced end so many thousandths stay, and a byte of that may be wrong.
    PowerCut {
        kept: u64,
        is_garbled: bool,
    },
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn packs_behave_like_a_map_that_keeps_what_was_synced(steps in proptest::collection::vec(step(), 1..40)) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let numbers = || proptest::collection::vec(0..60u32, 1..20);
    prop_oneof![
        8 => numbers().prop_map(Step::Put),
        3 => numbers().prop_map(Step::Delete),
        3 => Just(Step::Sync),
        2 => Just(Step::Compact),
        1 => Just(Step::Scrub),
        1 => Just(Step::Reopen),
        2 => (0..=1000u64, any::<bool>()).prop_map(|(kept, is_garbled)| Step::PowerCut { kept, is_garbled }),
    ]
}

/// The packs beside what they should hold.
struct World {
    bench: Bench,
    packs: Option<PackStore>,
    held: BTreeSet<u32>,
    /// Held and not deleted since the last sync: must survive.
    synced: BTreeSet<u32>,
    /// What each file held at the last sync.
    durable: BTreeMap<u32, u64>,
}

impl World {
    fn new() -> World {
        let bench = Bench::new();
        let packs = Some(bench.open());
        World { bench, packs, held: BTreeSet::new(), synced: BTreeSet::new(), durable: BTreeMap::new() }
    }

    fn take(&mut self, step: Step) {
        let packs = self.packs.as_ref().expect("open between steps");
        match step {
            Step::Put(numbers) => {
                let wanted: BTreeSet<u32> = numbers.iter().copied().collect();
                let fresh = wanted.difference(&self.held).count();
                assert_eq!(put(packs, &numbers), PutOutcome { written: fresh, already: numbers.len() - fresh });
                self.held.extend(wanted);
            }
            Step::Delete(numbers) => {
                let wanted: BTreeSet<u32> = numbers.iter().copied().collect();
                let names: Vec<Vec<u8>> = numbers.iter().map(|number| name(*number)).collect();
                let deleted = packs.delete(&names.iter().map(|name| &name[..]).collect::<Vec<_>>()).expect("deletes");
                assert_eq!(deleted, wanted.intersection(&self.held).count() as u64);
                self.held.retain(|number| !wanted.contains(number));
                self.synced.retain(|number| !wanted.contains(number));
            }
            Step::Sync => {
                packs.sync().expect("syncs");
                self.is_synced();
            }
            Step::Compact => {
                packs.compact(ByteCount(100_000)).expect("compacts");
                self.is_synced();
            }
            Step::Scrub => assert_eq!(packs.scrub(None, ByteCount(u64::MAX)).expect("scrubs").bad, []),
            Step::Reopen => {
                self.packs = None;
                let packs = self.bench.open();
                assert_eq!(packs.recovered(), Recovered::default());
                self.packs = Some(packs);
                self.is_synced();
            }
            Step::PowerCut { kept, is_garbled } => self.cut_power(kept, is_garbled),
        }
        let held: Vec<u32> = self.held.iter().copied().collect();
        check(self.packs.as_ref().expect("open between steps"), &held);
    }

    fn is_synced(&mut self) {
        self.synced = self.held.clone();
        self.durable = Files::new(self.bench.home.path()).list().expect("lists").into_iter().collect();
    }

    /// Goes on with what a disk would hold after a power cut: the index without what was only buffered, each file with its synced part
    /// and some of the rest.
    fn cut_power(&mut self, kept: u64, is_garbled: bool) {
        let index = Arc::new(self.bench.index.crash());
        let after = Bench { index, ..Bench::new() };
        let (from, to) = (Files::new(self.bench.home.path()), Files::new(after.home.path()));
        for (segment, length) in from.list().expect("lists") {
            let mut bytes = std::fs::read(from.path(segment)).expect("reads");
            let durable = self.durable.get(&segment).copied().unwrap_or(record::SEGMENT_HEADER as u64).min(length);
            bytes.truncate((durable + (length - durable) * kept / 1000) as usize);
            if is_garbled && bytes.len() as u64 > durable {
                let middle = (durable as usize + bytes.len()) / 2;
                bytes[middle] ^= 1;
            }
            std::fs::write(to.path(segment), bytes).expect("writes");
        }
        self.packs = None;
        self.bench = after;
        let packs = self.bench.open();
        let found: BTreeSet<u32> = (0..60).filter(|number| packs.get(&name(*number)).expect("no damage").is_some()).collect();
        assert!(found.is_superset(&self.synced), "lost: {:?}", self.synced.difference(&found));
        self.packs = Some(packs);
        self.held = found;
        self.is_synced();
    }
}
