//! What is judged about one pin.

use super::judge::{Verdict, judge};
use crate::Options;
use crate::adding::Adding;
use crate::health::Health;
use crate::holdings::Holdings;
use crate::look::Look;
use crate::options::RepairLimits;
use crate::space::Space;
use crate::testing::{Shelf, cid, hello, peer, pin_on};
use crate::tracker::Tracker;
use std::num::NonZeroU32;
use types::{Because, CopyState, HoldingReport, Millis, Now, PeerId, Pin, PinKind, PinOptions, PinState, Replicas, UnixMillis};

/// Six peers; peer 0 looks. Letters say how each is: `u` up, `s` silent within grace, `x` silent beyond it, `d` draining,
/// `g` gone, `f` up without room for the copy, `q` silent beyond grace, its last word was that it waits for the copy.
fn check(peers: &str, placed: &[u8], least: u32, most: u32, expected: &str) {
    check_kind(PinKind::Data, peers, placed, least, most, expected);
}

fn check_kind(kind: PinKind, peers: &str, placed: &[u8], least: u32, most: u32, expected: &str) {
    let options = Options {
        members: (1..peers.len() as u8).map(peer).collect(),
        repair: RepairLimits { balances: false, ..RepairLimits::default() },
        ..Options::new(peer(0), "", "")
    };
    let at = |seconds| Now { mono: Millis::seconds(seconds), wall: UnixMillis::from_seconds(seconds) };
    let mut members: std::collections::BTreeSet<PeerId> = options.members.iter().copied().collect();
    members.insert(peer(0));
    let mut health = Health::new(&members, &peer(0), at(0));
    let mut holdings = Holdings::default();
    let placement: Vec<PeerId> = placed.iter().map(|number| peer(*number)).collect();
    let number = |count| NonZeroU32::new(count).expect("not zero");
    let wish = PinOptions { replicas: Replicas::Between { least: number(least), most: number(most) }, ..PinOptions::default() };
    let pin = Pin { kind, ..pin_on(cid(1), &placement, wish) };
    let shelf = Shelf { pins: [(cid(1).to_bytes(), (pin.clone(), 1))].into(), ..Shelf::default() };
    for (index, how) in peers.bytes().enumerate().skip(1) {
        let other = peer(index as u8);
        health.hello(&other, &hello(1 << 40, 0, how == b'd'), &options, at(0));
        match how {
            b'x' | b'q' => {}
            b's' => health.heard(&other, at(900), &mut Vec::new()),
            _ => health.heard(&other, at(1000), &mut Vec::new()),
        }
        if how == b'g' {
            health.left(&other);
        }
        if let b'f' | b'q' = how {
            let no_room = || Because::NoRoom { needed: types::ByteCount(2), free: types::ByteCount(1) };
            let (state, because) = if how == b'f' { (PinState::PinError, Some(no_room())) } else { (PinState::PinQueued, None) };
            let copy = CopyState { cid: cid(1), version: 1, state, because, next_try: None, tries: 1, since: UnixMillis(0) };
            holdings.report(
                &other,
                &HoldingReport { incarnation: 1, complete: None, answer: 0, copies: vec![copy] },
                &shelf,
                &options,
                at(1000),
            );
        }
    }
    health.tick(&options, at(1001), &mut Vec::new());
    let decisions = crate::decisions::Decisions::default();
    let look = Look {
        options: &options,
        tracker: &Tracker::new(),
        holdings: &holdings,
        health: &health,
        space: &Space::default(),
        adding: &Adding::default(),
        is_leaving: peers.starts_with('d'),
        decisions: &decisions,
        now: at(1001),
    };
    let found = match judge(&pin, None, None, look) {
        Verdict::Fine => "fine".to_owned(),
        Verdict::Replace { placement, lost, gained, .. } => {
            let kept = placement.iter().filter(|peer| !gained.contains(peer)).map(|peer| peer.ed25519().expect("a key")[0].to_string());
            let kept: Vec<String> = kept.collect();
            let lost: Vec<String> = lost.iter().map(|peer| peer.ed25519().expect("a key")[0].to_string()).collect();
            format!("keep {} lose {} gain {}", kept.join(""), lost.join(""), gained.len())
        }
        other => format!("{other:?}").split([' ', '(']).next().unwrap_or_default().to_lowercase(),
    };
    assert_eq!(found, expected, "{peers} placed {placed:?} {least}..{most}");
}

#[test]
fn enough_copies_are_left_alone() {
    check("uuuuuu", &[1, 2], 2, 3, "fine");
    check("usuuuu", &[1, 2], 2, 3, "fine"); // silent within grace
    check("uxuuuu", &[1, 2, 3], 2, 3, "fine"); // one of three is dead, two suffice
}

#[test]
fn a_lost_holder_is_replaced_by_the_fewest() {
    check("uxuuuu", &[1, 2], 2, 3, "keep 2 lose 1 gain 1");
    check("uxxuuu", &[1, 2, 3], 3, 3, "keep 3 lose 12 gain 2");
    check("ufuuuu", &[1, 2], 2, 3, "keep 2 lose 1 gain 1");
}

#[test]
fn who_leaves_or_left_is_replaced_in_any_case() {
    check("uduuuu", &[1, 2], 2, 3, "keep 2 lose 1 gain 1");
    check("uduuuu", &[1, 2, 3], 2, 3, "keep 23 lose 1 gain 0");
    check("uguuuu", &[1, 2, 3], 2, 3, "keep 23 lose 1 gain 0");
    check("duuuuu", &[0, 2], 2, 3, "keep 2 lose 0 gain 1");
}

#[test]
fn without_enough_others_the_silent_stay_listed_and_count_when_they_return() {
    check("uxuxxx", &[1, 2], 2, 3, "keep 2 lose 1 gain 1"); // the own peer takes it
    check("uxxxxx", &[0, 1], 2, 3, "hopeless");
    check("uuxxuu", &[1, 2, 3], 5, 5, "keep 12 lose 3 gain 3");
}

#[test]
fn what_no_peer_in_reach_has_waits_for_those_who_have_it() {
    check("uxuuuu", &[1], 1, 1, "hopeless");
    check("uxxuuu", &[1, 2], 2, 3, "hopeless");
    check("usxuuu", &[1, 2], 2, 3, "hopeless"); // one of them within grace
    check("ugxuuu", &[1, 2], 2, 3, "hopeless"); // one of them gone
    check("uquuuu", &[1], 1, 1, "keep  lose 1 gain 1"); // it never had it
    check("uqxuuu", &[1, 2], 2, 3, "hopeless"); // the other has it
    check("ugguuu", &[1, 2], 2, 3, "keep  lose 12 gain 2"); // nobody comes back: it may be found elsewhere
}

#[test]
fn a_shard_that_nobody_can_give_keeps_its_placement() {
    check_kind(PinKind::Shard, "uxuuuu", &[1], 1, 1, "hopeless");
    check_kind(PinKind::Shard, "uxxuuu", &[1, 2], 2, 3, "hopeless");
    check_kind(PinKind::Shard, "uxuuuu", &[1, 2], 2, 3, "keep 2 lose 1 gain 1");
    check_kind(PinKind::Shard, "uduuuu", &[1], 1, 1, "keep  lose 1 gain 1");
}
