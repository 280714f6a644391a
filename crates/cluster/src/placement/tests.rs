use super::*;
use crate::testing::{cid, peer};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn candidate(number: u8, free: u64) -> Candidate {
    Candidate {
        peer: peer(number),
        is_up: true,
        is_draining: false,
        is_cordoned: false,
        limit: ByteCount(free),
        free: ByteCount(free),
        capacity: ByteCount(free),
        placed: ByteCount::ZERO,
        domain: None,
    }
}

fn even(count: u8) -> Vec<Candidate> {
    (0..count).map(|number| candidate(number, 1 << 40)).collect()
}

fn numbers(peers: &[PeerId]) -> Vec<u8> {
    peers.iter().map(|peer| peer.ed25519().expect("a key")[0]).collect()
}

#[test]
fn current_holders_that_suffice_stay_as_they_are() {
    let mut candidates = even(5);
    candidates[1].is_up = false;
    let check = |current: &[u8], rules: Rules, expected: &[u8]| {
        let current: Vec<_> = current.iter().map(|number| peer(*number)).collect();
        let placed = place(&cid(1), &candidates, &rules, &current).expect("placed");
        assert_eq!(numbers(&placed.holders), expected, "{current:?}");
    };
    check(&[0, 2], Rules::copies(2, 2, 3), &[0, 2]);
    check(&[0, 1, 2], Rules::copies(2, 2, 3), &[0, 1, 2]); // Go keeps the dead one in the list
    check(&[0, 2, 3, 4], Rules::copies(2, 2, 3), &[0, 2, 3]);
    check(&[0, 1, 2, 3], Rules::copies(2, 2, 3), &[0, 2, 3]);
}

#[test]
fn a_missing_holder_is_replaced_and_the_others_stay() {
    let mut candidates = even(5);
    candidates[1].is_up = false;
    let placed = place(&cid(1), &candidates, &Rules::copies(2, 2, 3), &[peer(0), peer(1)]).expect("placed");
    assert_eq!(placed.holders[0], peer(0));
    assert_eq!(placed.added.len(), 1);
    assert!(![0, 1].contains(&numbers(&placed.added)[0]));
}

#[test]
fn preferred_peers_go_first_if_they_fit() {
    let mut candidates = even(6);
    candidates[4].is_draining = true;
    let rules = Rules { prefer: vec![peer(5), peer(4), peer(3)], ..Rules::copies(3, 3, 3) };
    let placed = place(&cid(9), &candidates, &rules, &[]).expect("placed");
    assert_eq!(numbers(&placed.holders)[..2], [5, 3]);
}

#[test]
fn too_few_is_refused_with_the_reasons() {
    let mut candidates = even(3);
    candidates[0].is_up = false;
    candidates[1].free = ByteCount(5);
    let rules = Rules { size: Some(ByteCount(10)), ..Rules::copies(2, 3, 3) };
    let why = place(&cid(1), &candidates, &rules, &[]).expect_err("too few");
    assert_eq!((why.needed, why.wanted, why.candidates), (2, 3, 1));
    assert_eq!(
        why.unfit,
        [(peer(0), Unfit::Silent), (peer(1), Unfit::NoRoom { needed: ByteCount(10), free: ByteCount(5), limit: candidates[1].limit })]
    );
}

#[test]
fn copies_spread_over_domains() {
    let mut candidates = even(9);
    for (number, candidate) in candidates.iter_mut().enumerate() {
        candidate.domain = Some(["a", "b", "c"][number % 3].to_owned());
    }
    for number in 0..50 {
        let placed = place(&cid(number), &candidates, &Rules::copies(3, 3, 3), &[]).expect("placed");
        let domains: BTreeSet<u8> = numbers(&placed.holders).iter().map(|number| number % 3).collect();
        assert_eq!(domains.len(), 3);
    }
}

fn counts(candidates: &[Candidate], copies: u32, pins: u64) -> BTreeMap<PeerId, u64> {
    let mut counts = BTreeMap::new();
    for number in 0..pins {
        let placed = place(&cid(number), candidates, &Rules::copies(copies, copies, copies), &[]).expect("placed");
        for peer in placed.holders {
            *counts.entry(peer).or_default() += 1;
        }
    }
    counts
}

/// 5,000 pins on disks of these sizes: beyond chance (three sigma of independent draws), no peer is off its feasible share by
/// more than three percent.
fn check_skew(sizes: &[u64], copies: u32) {
    let candidates: Vec<_> = sizes.iter().enumerate().map(|(number, size)| candidate(number as u8, size << 30)).collect();
    let counts = counts(&candidates, copies, 5_000);
    let shares = score::shares(sizes, u64::from(copies));
    for (number, share) in shares.iter().enumerate() {
        let share = *share as f64 / 4_294_967_296.0;
        let expected = 5_000.0 * share;
        let found = counts.get(&peer(number as u8)).copied().unwrap_or(0) as f64;
        let chance = 3.0 * (expected * (1.0 - share)).sqrt();
        assert!((found - expected).abs() <= expected * 0.03 + chance, "{sizes:?} x{copies}: peer {number} has {found} of {expected:.0}");
    }
}

#[test]
fn five_thousand_pins_fill_unequal_disks_alike() {
    check_skew(&[1, 1, 1, 1], 1);
    check_skew(&[1, 2, 3, 4], 1);
    check_skew(&[1, 2, 3, 4], 2);
    check_skew(&[1, 1, 2, 2, 4, 4, 8, 8, 8, 8], 3);
    check_skew(&[1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4], 3);
    check_skew(&[1, 1, 1, 5, 5], 2);
}

#[test]
fn a_joining_peer_moves_nothing_between_the_others() {
    let old = even(9);
    let new = even(10);
    for number in 0..300 {
        let rules = Rules::copies(2, 2, 2);
        let before = place(&cid(number), &old, &rules, &[]).expect("placed").holders;
        let after = place(&cid(number), &new, &rules, &[]).expect("placed").holders;
        let moved: Vec<u8> = numbers(&after).into_iter().filter(|peer| !numbers(&before).contains(peer)).collect();
        assert!(moved.is_empty() || moved == [9], "{before:?} {after:?}");
    }
}

#[test]
fn a_leaving_peer_moves_only_its_own_pins() {
    let all = even(10);
    let mut without = even(10);
    without[3].is_up = false;
    for number in 0..300 {
        let rules = Rules::copies(2, 2, 2);
        let before = place(&cid(number), &all, &rules, &[]).expect("placed").holders;
        let after = place(&cid(number), &without, &rules, &[]).expect("placed").holders;
        if !numbers(&before).contains(&3) {
            assert_eq!(BTreeSet::from_iter(before), BTreeSet::from_iter(after));
        }
    }
}

#[test]
fn a_cordoned_holder_stays_and_gets_nothing_new() {
    let mut candidates = even(4);
    candidates[1].is_cordoned = true;
    let placed = place(&cid(1), &candidates, &Rules::copies(2, 2, 3), &[peer(1), peer(2)]).expect("placed");
    assert_eq!(numbers(&placed.holders), [1, 2]);
    for number in 0..100 {
        let placed = place(&cid(number), &candidates, &Rules::copies(3, 3, 3), &[]).expect("placed");
        assert!(!placed.holders.contains(&peer(1)));
    }
}

#[test]
fn who_has_too_much_gets_less_of_what_comes() {
    let mut candidates = even(3);
    for (candidate, placed) in candidates.iter_mut().zip([30u64, 30, 45]) {
        candidate.placed = ByteCount(placed << 30);
        candidate.capacity = ByteCount(100 << 30);
    }
    let counts = counts(&candidates, 1, 2_000);
    let of = |number: u8| counts.get(&peer(number)).copied().unwrap_or(0);
    assert!(of(2) * 2 < of(0) && of(2) * 2 < of(1), "{counts:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_placement_keeps_the_rules(
        frees in proptest::collection::vec(0u64..2_000, 1..20),
        least in 1u32..5,
        extra in 0u32..3,
        size in 0u64..1_500,
        number in 0u64..1_000,
        downs in proptest::collection::vec(any::<bool>(), 20),
        current in proptest::collection::btree_set(0u8..20, 0..5),
    ) {
        let candidates: Vec<Candidate> = frees
            .iter()
            .enumerate()
            .map(|(index, free)| Candidate { is_up: !downs[index], limit: ByteCount(2_000), ..candidate(index as u8, *free) })
            .collect();
        let rules = Rules { size: Some(ByteCount(size)), ..Rules::copies(least, least + extra, least + extra) };
        let current: Vec<PeerId> = current.iter().map(|number| peer(*number)).collect();
        let first = place(&cid(number), &candidates, &rules, &current);
        prop_assert_eq!(&first, &place(&cid(number), &candidates, &rules, &current), "the same every time");
        if let Ok(placed) = first {
            let distinct: BTreeSet<_> = placed.holders.iter().collect();
            prop_assert_eq!(distinct.len(), placed.holders.len(), "never the same peer twice");
            prop_assert!(placed.holders.len() as u32 <= rules.most);
            for added in &placed.added {
                let chosen = candidates.iter().find(|candidate| candidate.peer == *added).expect("a candidate");
                prop_assert!(chosen.is_up && chosen.free.get() >= size, "never over the free space");
            }
        }
    }
}
