//! Adds that are larger than any peer.

use super::{must_be_well, small};
use crate::{Profile, Settings};
use cluster::RepairLimits;

const GIB: u64 = 1 << 30;

/// Four equal peers that have nothing, and one add of so many bytes with so many copies. Nothing moves later: what is seen is where the
/// add put it.
pub(super) fn one_add(seed: u64, bytes: u64, copies: u32) -> Settings {
    let repair = RepairLimits { balances: false, ..small(seed).repair };
    Settings { profile: Profile::Calm, pins: 0, peers: 4, sites: 0, disk: Some(GIB), repair, large: vec![(bytes, copies)], ..small(seed) }
}

#[test]
fn a_large_add_fills_equal_peers_alike() {
    for seed in 1..=6 {
        must_be_well(&one_add(seed, 3 * GIB, 1));
        must_be_well(&one_add(seed, 3 * GIB / 2, 2));
    }
}

#[test]
fn a_large_add_fits_while_a_part_of_a_unit_is_left_on_each_peer() {
    for seed in 1..=3 {
        must_be_well(&one_add(seed, 4 * GIB / 100 * 95, 1));
        must_be_well(&one_add(seed, 2 * GIB / 100 * 95, 2));
    }
}

#[test]
fn several_large_adds_at_a_time_find_their_places() {
    for seed in 1..=4 {
        let adds = vec![(GIB + GIB / 4, 1), (GIB / 2, 1), (GIB / 2, 2)];
        must_be_well(&Settings { large: adds, ..one_add(seed, 0, 1) });
    }
}

#[test]
fn what_a_large_add_left_uneven_on_unequal_disks_comes_to_rest() {
    for seed in 1..=3 {
        let settings = Settings { pins: 60, peers: 8, disk: None, large: vec![(12 * GIB, 2)], ..small(seed) };
        must_be_well(&Settings { profile: Profile::Calm, ..settings });
    }
}
