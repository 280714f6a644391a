//! Bugs planted on purpose: each is found by the invariant of the rule that it breaks.

use super::{must_be_well, must_be_whole, small, wanting, with_mass_removal};
use crate::invariants::Violation;
use crate::world::World;
use crate::world::doors::Wish;
use crate::{Invariant, Profile, Settings, run};
use cluster::PlantedBug;
use consensus::crdt;

/// With the bug planted, some seed of a small set breaks this rule, and that seed breaks none without the bug.
fn must_be_found_in(seeds: impl Iterator<Item = Settings>, plant: impl Fn(Settings) -> Settings, expected: Invariant) {
    let mut others = Vec::new();
    for settings in seeds {
        match run(&plant(settings.clone())).violation {
            Some(violation) if violation.invariant == expected => {
                must_be_well(&settings);
                return;
            }
            other => others.extend(other),
        }
    }
    panic!("it was not found as {}, but {others:?}", expected.name());
}

fn must_be_found(bug: PlantedBug, profile: Profile, expected: Invariant) {
    let seeds = (1..=12).map(|seed| Settings { profile, ..small(seed) });
    must_be_found_in(seeds, |settings| Settings { planted: Some(bug), ..settings }, expected);
}

fn must_be_found_in_crdt(bug: crdt::PlantedBug, profile: Profile, expected: Invariant) {
    let seeds = (1..=12).map(|seed| Settings { profile, ..small(seed) });
    must_be_found_in(seeds, |settings| Settings { planted_in_crdt: Some(bug), ..settings }, expected);
}

// Rule 1: nothing is let go by difference alone.

#[test]
fn removing_without_the_ledger_is_found() {
    must_be_found(PlantedBug::IgnoresLedger, Profile::Calm, Invariant::LetsGoKnowingly);
}

#[test]
fn letting_go_before_others_confirmed_is_found() {
    must_be_found(PlantedBug::LetsGoEarly, Profile::All, Invariant::NeverLastCopy);
}

#[test]
fn letting_go_while_catching_up_is_found() {
    must_be_found(PlantedBug::ActsWhileCatchingUp, Profile::All, Invariant::LetsGoKnowingly);
}

#[test]
fn a_mass_removal_without_a_brake_is_found() {
    let plant = |settings| Settings { planted: Some(PlantedBug::IgnoresBrake), ..settings };
    must_be_found_in((1..=3).map(with_mass_removal), plant, Invariant::MassRemovalBrakes);
}

// Rule 2: owners.

#[test]
fn taking_what_a_person_held_for_its_own_is_found() {
    must_be_found(PlantedBug::ClaimsForeign, Profile::All, Invariant::NothingForeignRemoved);
}

// Rule 3: acknowledged is on disk.

#[test]
fn answering_before_the_disk_has_it_is_found() {
    must_be_found(PlantedBug::AnswersEarly, Profile::Crash, Invariant::AcknowledgedIsKept);
}

// An even spread: what moves was agreed, and what is given counts.

#[test]
fn placing_shards_without_what_was_given_already_is_found() {
    let seeds = (1..=4).map(|seed| super::large::one_add(seed, 3 << 30, 1));
    must_be_found_in(seeds, |settings| Settings { planted: Some(PlantedBug::ForgetsGiven), ..settings }, Invariant::ShardsFit);
}

#[test]
fn moving_copies_to_who_did_not_agree_is_found() {
    let seeds = (1..=12).map(|seed| Settings { profile: Profile::Calm, ..small(seed) });
    must_be_found_in(seeds, |settings| Settings { planted: Some(PlantedBug::IgnoresTakers), ..settings }, Invariant::TakersAgree);
}

// Rule 4: partitions move nothing at once.

#[test]
fn moving_in_a_partition_is_found() {
    must_be_found(PlantedBug::IgnoresPartition, Profile::Network, Invariant::PartitionsMoveNothing);
}

#[test]
fn giving_up_a_silent_peer_at_once_is_found() {
    let seeds = (1..=12).map(|seed| Settings { grace: 60_000, ..small(seed) });
    must_be_found_in(seeds, |settings| Settings { planted: Some(PlantedBug::IgnoresGrace), ..settings }, Invariant::GraceIsWaited);
}

#[test]
fn giving_up_a_missing_site_like_a_peer_is_found() {
    let seeds = (1..=12).map(|seed| Settings { sites: 3, profile: Profile::Network, grace: 70_000, faults_for: 400_000, ..small(seed) });
    must_be_found_in(seeds, |settings| Settings { planted: Some(PlantedBug::IgnoresDomains), ..settings }, Invariant::SitesGetTime);
}

// Rule 5: who repairs.

#[test]
fn all_repairing_at_once_is_found() {
    must_be_found(PlantedBug::IgnoresRank, Profile::Crash, Invariant::RepairersTakeTurns);
}

// Rule 6: status from exceptions.

#[test]
fn showing_a_silent_peer_as_live_is_found() {
    must_be_found(PlantedBug::ShowsSilentAsLive, Profile::All, Invariant::StatusHasItsAge);
}

#[test]
fn taking_a_word_about_another_wish_for_this_one_is_found() {
    must_be_found(PlantedBug::TakesAnyEarlyWord, Profile::All, Invariant::ConfirmedByItsWord);
}

// Rule 7: limits.

/// People add at the same moment through two peers, which know nothing of each other's adds; each disk has room for two things.
fn add_to_small_disks(seed: u64, planted: Option<PlantedBug>) -> World {
    let settings = Settings { disk: Some(96 << 20), sites: 0, planted, ..Settings::new(seed, 9, 24) };
    let mut world = wanting(&settings, 40 << 20, (1, 1), |_| 20_000, Wish::Add);
    world.run_until(200_000);
    world
}

#[test]
fn promising_the_same_room_twice_is_found() {
    // Which disks are chosen follows from the seed; with some of them more adds meet on one than it has room for.
    let found: Vec<_> = (1..=8).map(|seed| add_to_small_disks(seed, Some(PlantedBug::ForgetsPromises)).violation).collect();
    let is_found = |violation: &Violation| violation.invariant == Invariant::WithinLimits;
    assert!(found.iter().flatten().any(is_found), "{found:?}");
    (1..=8).for_each(|seed| must_be_whole(&add_to_small_disks(seed, None)));
}

// Rule 8: catching up, and that all come to the same.

#[test]
fn another_winner_among_equals_is_found() {
    must_be_found_in_crdt(crdt::PlantedBug::KeepsFirstOfEquals, Profile::All, Invariant::Converged);
}

#[test]
fn not_asking_again_for_missing_history_is_found() {
    must_be_found_in_crdt(crdt::PlantedBug::NeverFetchesAgain, Profile::Network, Invariant::CatchesUp);
}
