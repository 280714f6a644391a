//! Splits of an hour with a grace of ten minutes: nothing moves at first, what can be repaired is repaired then, and the healed
//! cluster comes back to its copies without having lost one.

use super::{pass, wanting};
use crate::faults::{Fault, Profile};
use crate::queue::{Place, Time, What};
use crate::scenario::Settings;
use crate::world::World;
use crate::world::doors::Wish;
use cluster::RepairLimits;
use std::collections::BTreeMap;
use types::{Cid, Millis};

const GRACE: Time = 600_000;
const HOUR: Time = 3_600_000;
/// Everything is pinned and confirmed by then.
const SPLIT: Time = 300_000;
/// After the split everything is as wished again within this time.
const HEALED_WITHIN: Time = 900_000;
/// Then nothing may happen for so long.
const REST: Time = 130_000;

/// Four peers that hold all pins twice, and who holds each.
fn four_peers(pins: usize) -> (World, BTreeMap<Cid, Vec<Place>>) {
    let repair = RepairLimits { walk_busy: Millis::minutes(1), trim_after: Millis::seconds(30), ..RepairLimits::default() };
    let settings = Settings { profile: Profile::Calm, grace: GRACE, sites: 0, disk: Some(1 << 40), repair, ..Settings::new(1, 4, pins) };
    let mut world = wanting(&settings, 1 << 20, (2, 3), |number| 3_000 + number * 60_000 / pins as u64, Wish::Pin);
    pass(&mut world, SPLIT);
    let held = held(&world);
    assert!(held.len() == pins && held.values().all(|holders| holders.len() == 2), "two copies of everything");
    (world, held)
}

fn held(world: &World) -> BTreeMap<Cid, Vec<Place>> {
    let holders = |cid: &Cid| (0..world.peers.len()).filter(|place| world.peers[*place].node.holds(cid)).collect();
    world.truth.items.keys().map(|cid| (*cid, holders(cid))).collect()
}

fn breaks(world: &mut World, fault: Fault) {
    world.at(world.now, What::Fault(fault));
}

/// Copies made, copies let go, and writes by repair so far.
fn moves(world: &World) -> (u64, u64, u64) {
    (world.numbers.pinned, world.numbers.unpinned, world.numbers.repairs)
}

/// The links are mended; everything comes back to two or three copies where the wish has them, and rests.
fn heals(mut world: World) {
    breaks(&mut world, Fault::Mend);
    let healed = world.now + HEALED_WITHIN;
    pass(&mut world, healed);
    world.look_at_the_end();
    world.must_rest = true;
    pass(&mut world, healed + REST);
    for (cid, holders) in held(&world) {
        assert!((2..=3).contains(&holders.len()), "{cid} is on {holders:?}");
    }
}

#[test]
fn a_split_of_two_and_two_for_an_hour_loses_no_copy() {
    let (mut world, before) = four_peers(10_000);
    let quiet = moves(&world);
    breaks(&mut world, Fault::Island(vec![0, 1]));
    pass(&mut world, SPLIT + GRACE - 10_000);
    assert_eq!(moves(&world), quiet, "nothing moves during the grace");
    pass(&mut world, SPLIT + HOUR);
    let across = before.values().filter(|holders| holders[0] < 2 && holders[1] >= 2).count() as u64;
    let (made, let_go, written) = moves(&world);
    assert_eq!(made - quiet.0, 2 * across, "each side makes its second copy of what it has once, and no other");
    assert_eq!(let_go, quiet.1);
    assert_eq!(written - quiet.2, 2 * across, "each side writes those once, and nothing of what only the other side has");
    for (cid, holders) in held(&world) {
        assert!(before[&cid].iter().all(|place| holders.contains(place)), "{cid} was on {:?} and is on {holders:?}", before[&cid]);
    }
    heals(world);
}

#[test]
fn of_three_and_one_the_three_repair_and_the_one_waits() {
    let (mut world, before) = four_peers(1_000);
    let quiet = moves(&world);
    breaks(&mut world, Fault::Island(vec![3]));
    pass(&mut world, SPLIT + GRACE - 10_000);
    assert_eq!(moves(&world), quiet, "nothing moves during the grace");
    pass(&mut world, SPLIT + HOUR);
    let lost = before.values().filter(|holders| holders.contains(&3)).count() as u64;
    assert_eq!(moves(&world), (quiet.0 + lost, quiet.1, quiet.2 + lost), "one write and one copy for each that peer 3 holds");
    for (cid, holders) in held(&world) {
        assert!(holders.iter().filter(|place| **place != 3).count() == 2, "{cid} is on {holders:?}");
        assert_eq!(holders.contains(&3), before[&cid].contains(&3), "peer 3 changes nothing");
    }
    heals(world);
}

#[test]
fn who_is_heard_and_does_not_hear_loses_no_copy() {
    let (mut world, before) = four_peers(1_000);
    let quiet = moves(&world);
    for (from, to) in [(0, 2), (0, 3), (1, 2), (1, 3)] {
        breaks(&mut world, Fault::OneWay(from, to));
    }
    pass(&mut world, SPLIT + GRACE - 10_000);
    assert_eq!(moves(&world), quiet, "nothing moves during the grace");
    pass(&mut world, SPLIT + HOUR);
    assert!(moves(&world).0 > quiet.0, "those who do not hear the others repair");
    for (cid, holders) in held(&world) {
        // Who hears that two others hold it may let go.
        assert!(holders.len() >= 2, "{cid} was on {:?} and is on {holders:?}", before[&cid]);
    }
    heals(world);
}

#[test]
fn flapping_links_move_nothing() {
    let (mut world, before) = four_peers(1_000);
    let quiet = moves(&world);
    while world.now < SPLIT + HOUR {
        let now = world.now;
        breaks(&mut world, Fault::Island(vec![0, 1]));
        pass(&mut world, now + 20_000);
        breaks(&mut world, Fault::Mend);
        pass(&mut world, now + 40_000);
    }
    assert_eq!(moves(&world), quiet);
    assert_eq!(held(&world), before);
    heals(world);
}
