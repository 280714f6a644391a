//! Small clusters, every fault, every invariant. Long splits are in `splits`, planted bugs in `bugs`.

mod bugs;
mod large;
mod splits;

use crate::queue::Time;
use crate::scenario::{cid_of, stage};
use crate::truth::{Item, Promise, Truth};
use crate::world::World;
use crate::world::doors::{Wish, options_for};
use crate::{Outcome, Profile, Settings, run};
use cluster::BrakeLimits;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use types::{Cid, PinOptions};

fn small(seed: u64) -> Settings {
    Settings { faults_for: 150_000, grace: 30_000, ..Settings::new(seed, 8, 60) }
}

#[test]
fn an_even_spread_comes_to_rest_under_all_faults() {
    for seed in 1..=6 {
        let outcome = must_be_well(&Settings::new(seed, 12, 300));
        assert!(outcome.numbers.moves > 0 || outcome.numbers.histories_lost > 0, "seed {seed}");
    }
}

/// Nearly everything is removed at once, of which a person knows a minute later.
fn with_mass_removal(seed: u64) -> Settings {
    let brake = BrakeLimits { removals: 3, percent: 5 };
    Settings { profile: Profile::Calm, faults_for: 300_000, mass_removal: true, brake, ..small(seed) }
}

fn must_be_well(settings: &Settings) -> Outcome {
    let outcome = run(settings);
    assert!(
        outcome.violation.is_none(),
        "{}\n  again: {}",
        outcome.violation.map_or(String::new(), |broken| broken.to_string()),
        settings.replay()
    );
    outcome
}

/// A world in which people want `pins` things of `size` bytes with `least` to `most` copies, each at its time, and nothing breaks
/// by itself.
fn wanting(
    settings: &Settings,
    size: u64,
    (least, most): (u32, u32),
    time: impl Fn(u64) -> Time,
    wish: fn(Cid, PinOptions) -> Wish,
) -> World {
    let mut truth = Truth::default();
    let mut wishes = Vec::new();
    for number in 0..settings.pins as u64 {
        let cid = cid_of(settings.seed, number);
        wishes.push((time(number), wish(cid, options_for(least, most))));
        let is_outside = matches!(wishes.last(), Some((_, Wish::Pin(..))));
        truth.items.insert(cid, Item { size, least, most, promise: Promise::None, is_unfetchable: false, is_outside, lost: Vec::new() });
    }
    stage(settings, truth, wishes, ChaCha8Rng::seed_from_u64(settings.seed))
}

/// Lets time pass until `end`, in which no rule may be broken.
fn pass(world: &mut World, end: Time) {
    world.run_until(end);
    must_be_whole(world);
}

fn must_be_whole(world: &World) {
    assert!(world.violation.is_none(), "{}", world.violation.as_ref().map_or(String::new(), ToString::to_string));
}

#[test]
fn small_clusters_survive_every_fault() {
    for seed in 1..=12 {
        let outcome = must_be_well(&small(seed));
        assert!(outcome.kept > 30 && outcome.numbers.crashes > 0, "{outcome:?}");
    }
}

#[test]
fn each_kind_of_fault_alone_is_survived() {
    for profile in [Profile::Calm, Profile::Network, Profile::Crash] {
        for seed in 100..103 {
            must_be_well(&Settings { profile, ..small(seed) });
        }
    }
}

#[test]
fn clusters_of_one_two_and_three_are_clusters() {
    for peers in 1..=3 {
        must_be_well(&Settings { profile: Profile::Network, pins: 20, peers, ..small(7) });
    }
}

#[test]
fn a_mass_removal_waits_until_a_person_approves_it() {
    for seed in 1..=2 {
        let outcome = must_be_well(&with_mass_removal(seed));
        assert!(outcome.numbers.brakes > 0 && outcome.kept < 20, "{outcome:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let first = run(&small(5));
    assert_eq!(first, run(&small(5)));
    assert_ne!(first.trace, run(&small(6)).trace);
}
