//! Plans of small clusters, and that the sums are right.

use super::*;
use crate::testing::{cid, peer, pin_on};
use std::num::NonZeroU32;
use types::PinOptions;

const MIB: u64 = 1 << 20;

/// Peers with `limit` and `placed` in MiB.
fn start(peers: &[(u64, u64)]) -> Start {
    let mebibytes = |amount: u64| ByteCount(amount * MIB);
    let candidate = |(index, (limit, placed)): (usize, &(u64, u64))| Candidate {
        peer: peer(index as u8),
        is_up: true,
        is_draining: false,
        is_cordoned: false,
        limit: mebibytes(*limit),
        free: mebibytes(limit - placed),
        capacity: mebibytes(*limit),
        placed: mebibytes(*placed),
        domain: None,
    };
    let load = |(index, (_, placed)): (usize, &(u64, u64))| {
        (peer(index as u8), Load { copies: *placed, placed: mebibytes(*placed), moving: ByteCount::ZERO, foreign: ByteCount::ZERO })
    };
    Start {
        candidates: peers.iter().enumerate().map(candidate).collect(),
        loads: peers.iter().enumerate().map(load).collect(),
        lost: BTreeSet::new(),
        class: DefaultClass::default(),
        copies: 2_000,
        bytes_per_minute: 60 * MIB,
        pins_per_minute: 600,
    }
}

fn copies(least: u32, most: u32) -> PinOptions {
    let number = |count| NonZeroU32::new(count).expect("not zero");
    PinOptions { replicas: Replicas::Between { least: number(least), most: number(most) }, ..PinOptions::default() }
}

/// Pins of one MiB, on these peers.
fn plan(start: Start, goal: Goal, placements: impl Iterator<Item = Vec<u8>>) -> Plan {
    let mut planner = Planner::new(start, goal);
    for (number, placement) in placements.enumerate() {
        let placement: Vec<PeerId> = placement.iter().map(|number| peer(*number)).collect();
        planner.pin(&pin_on(cid(number as u64), &placement, copies(2, 2)), Some(ByteCount(MIB)));
    }
    planner.finish()
}

fn after(plan: &Plan) -> Vec<u64> {
    plan.fills.iter().map(|fill| fill.after.get() / MIB).collect()
}

#[test]
fn a_drain_says_what_goes_where_and_how_long_it_takes() {
    let placements = (0..300).map(|number| if number < 120 { vec![0, 1] } else { vec![2, 3] });
    let plan = plan(start(&[(1000, 120), (1000, 120), (1000, 180), (1000, 180)]), Goal::Drain(peer(0)), placements);
    assert_eq!((plan.pins, plan.moves, plan.bytes, plan.estimated), (300, 120, ByteCount(120 * MIB), 0));
    assert_eq!(plan.time, Millis::seconds(120), "one MiB a second");
    assert!(plan.routes.iter().all(|route| route.from == peer(0) && [peer(2), peer(3)].contains(&route.to)), "{:?}", plan.routes);
    assert_eq!(plan.routes.iter().map(|route| route.copies).sum::<u64>(), 120);
    let after = after(&plan);
    assert_eq!((after[0], after[1], after[2] + after[3]), (0, 120, 480));
    assert!(plan.stranded.is_empty());
}

#[test]
fn what_has_nowhere_to_go_is_named_with_the_reason() {
    let pins = || (0..20).map(|_| vec![0, 1]);
    let two = plan(start(&[(100, 20), (100, 20)]), Goal::Drain(peer(0)), pins());
    assert_eq!((two.moves, two.stranded[0].copies, two.stranded[0].examples.len()), (0, 20, NAMED));
    assert!(two.stranded[0].why.contains("only 1 other peers"), "{:?}", two.stranded);
    let small = plan(start(&[(100, 20), (100, 20), (5, 0)]), Goal::Drain(peer(0)), pins());
    assert_eq!((small.moves, small.stranded[0].copies), (5, 15));
    assert!(small.stranded[0].why.contains("no peer has room"), "{:?}", small.stranded);
    assert_eq!(after(&small), [15, 20, 5]);
}

#[test]
fn copies_beyond_the_least_are_let_go_and_only_copies_are_counted() {
    let mut planner = Planner::new(start(&[(100, 2), (100, 2), (100, 2)]), Goal::Drain(peer(0)));
    planner.pin(&pin_on(cid(1), &[peer(0), peer(1), peer(2)], copies(2, 3)), Some(ByteCount(MIB)));
    planner.pin(&pin_on(cid(2), &[peer(0)], copies(1, 1)), Some(ByteCount(MIB)));
    planner.pin(&pin_on(cid(3), &[], PinOptions { replicas: Replicas::Everywhere, ..PinOptions::default() }), None);
    let plan = planner.finish();
    assert_eq!((plan.dropped, plan.moves, plan.only_copies, plan.everywhere), (1, 1, 1, 1));
}

#[test]
fn sizes_that_are_not_known_are_the_average_and_said_to_be() {
    let said = start(&[(100, 10), (100, 10), (100, 0)]);
    let mut not_said = said.clone();
    not_said.loads.remove(&peer(0));
    for start in [said, not_said] {
        let mut planner = Planner::new(start, Goal::Drain(peer(0)));
        for number in 0..10 {
            planner.pin(&pin_on(cid(number), &[peer(0), peer(1)], copies(2, 2)), None);
        }
        let plan = planner.finish();
        assert_eq!((plan.moves, plan.estimated, plan.bytes), (10, 10, ByteCount(10 * MIB)));
    }
}

#[test]
fn a_new_empty_peer_gets_its_share_and_nothing_else_moves() {
    let placements = (0..300).map(|number| vec![[0, 1], [1, 2], [0, 2]][number % 3].to_vec());
    let plan = plan(start(&[(1000, 200), (1000, 200), (1000, 200), (1000, 0)]), Goal::Balance, placements);
    assert!((148..=150).contains(&plan.moves), "{}", plan.moves);
    assert!(plan.routes.iter().all(|route| route.to == peer(3)));
    assert!(after(&plan).iter().all(|placed| (150..=152).contains(placed) || *placed == 148 || *placed == 149), "{:?}", plan.fills);
}

/// Figures of `cargo xtask bench plan`; what reading the pins from disk costs comes on top.
#[test]
#[ignore = "a measurement"]
fn a_million_pins_are_planned() {
    let pins: Vec<Pin> = (0..1_000_000u64)
        .map(|number| {
            let first = (number % 10) as u8;
            let second = ((number / 10) % 9) as u8;
            let second = if second >= first { second + 1 } else { second };
            pin_on(cid(number), &[peer(first), peer(second)], copies(2, 3))
        })
        .collect();
    for (name, goal, placed) in
        [("drain of one of ten peers", Goal::Drain(peer(3)), 200_000), ("even spread of ten peers", Goal::Balance, 100_000)]
    {
        let mut peers = vec![(1_000_000, 200_000); 10];
        peers[0].1 = placed;
        let begun = cpu_seconds();
        let mut planner = Planner::new(start(&peers), goal);
        for pin in &pins {
            planner.pin(pin, pin.placement.contains(&peer(0)).then_some(ByteCount(MIB)));
        }
        let plan = planner.finish();
        println!("{name}: {} moves of {} pins, {:.2} CPU-seconds", plan.moves, plan.pins, cpu_seconds() - begun);
        assert!(plan.moves > 0 && plan.stranded.is_empty());
    }
}

/// CPU seconds of this process so far.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields[index].parse::<f64>().expect("a number");
    (ticks(11) + ticks(12)) / 100.0
}
