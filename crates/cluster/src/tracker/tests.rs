//! What the tracker owes others and survives: reports, restarts, pages.

use super::QUEUED_MOST;
use crate::testing::{Table, cid, peer, pin_on};
use crate::{Effect, Event, NodeOp, NodeOutcome, Options, SharedChange, ViewState};
use std::num::NonZeroU32;
use types::{Depth, Millis, PeerMessage, Pin, PinOptions, PinState, Replicas};

fn here() -> PinOptions {
    PinOptions { replicas: Replicas::exactly(NonZeroU32::MIN), ..PinOptions::default() }
}

fn told(table: &Table) -> Vec<(types::Cid, PinState)> {
    let reports = table.effects.iter().filter_map(|effect| match effect {
        Effect::TellAll(PeerMessage::Holdings(report)) => Some(&report.copies),
        _ => None,
    });
    reports.flatten().map(|copy| (copy.cid, copy.state)).collect()
}

#[test]
fn changes_are_told_in_batches() {
    let mut table = Table::started(Options::new(peer(0), "", ""));
    for number in 0..500 {
        table.wish(pin_on(cid(number), &[peer(0)], here()));
    }
    table.pass(Millis::seconds(1));
    let messages = table.effects.iter().filter(|effect| matches!(effect, Effect::TellAll(PeerMessage::Holdings(_)))).count();
    assert!(messages <= 2, "{messages} messages");
    let pinned = told(&table).into_iter().filter(|(_, state)| *state == PinState::Pinned).count();
    assert_eq!(pinned, 500);
}

#[test]
fn a_pin_of_others_is_not_talked_about() {
    let mut table = Table::started(Options::new(peer(0), "", ""));
    table.effects.clear();
    table.wish(pin_on(cid(1), &[peer(1)], here()));
    table.pass(Millis::seconds(1));
    assert_eq!(told(&table), []);
}

#[test]
fn a_new_value_of_a_held_pin_is_confirmed_without_work() {
    let mut table = Table::started(Options::new(peer(0), "", ""));
    let pin = pin_on(cid(1), &[peer(0)], here());
    table.wish(pin.clone());
    table.pass(Millis::seconds(1));
    table.effects.clear();
    table.wish(Pin { options: PinOptions { name: "other".to_owned(), ..here() }, ..pin });
    table.pass(Millis::seconds(1));
    assert_eq!(told(&table), [(cid(1), PinState::Pinned)]);
    assert!(!table.effects.iter().any(|effect| matches!(effect, Effect::Node(_, NodeOp::Pin { .. }))));
}

#[test]
fn a_deeper_wish_is_fetched() {
    let mut table = Table::started(Options::new(peer(0), "", ""));
    let pin = Pin { depth: Depth::DIRECT, ..pin_on(cid(1), &[peer(0)], here()) };
    table.wish(pin.clone());
    table.effects.clear();
    table.wish(Pin { depth: Depth::Recursive, ..pin });
    assert!(table.effects.iter().any(|effect| matches!(effect, Effect::Node(_, NodeOp::Pin { depth: Depth::Recursive, .. }))));
}

#[test]
fn the_round_merges_lists_of_many_pages() {
    let mut table = Table::new(Options::new(peer(0), "", ""));
    // Of 5,000: every second is wanted, every third is held, half of these are ours.
    for number in 0..5_000u64 {
        let cid = cid(number);
        if number % 2 == 0 {
            table.shelf.pins.insert(cid.to_bytes(), (pin_on(cid, &[peer(0)], here()), number + 1));
        }
        if number % 3 == 0 {
            table.held.insert(cid.to_bytes());
        }
        if number % 6 < 3 && number % 3 == 0 {
            table.shelf.ledger.insert(cid.to_bytes(), cid);
        }
    }
    table.handle(Event::Shared(SharedChange::View(ViewState::Current)));
    table.pass(Millis::minutes(5));
    for number in 0..5_000 {
        let is_wanted = number % 2 == 0;
        let is_foreign = number % 3 == 0 && number % 6 >= 3;
        assert_eq!(table.holds(&cid(number)), is_wanted || is_foreign, "{number}");
    }
    assert!(table.machine.is_at_rest());
}

#[test]
fn what_was_pinned_just_before_a_crash_is_claimed() {
    let mut table = Table::new(Options::new(peer(0), "", ""));
    table.shelf.pins.insert(cid(1).to_bytes(), (pin_on(cid(1), &[peer(0)], here()), 1));
    table.held.insert(cid(1).to_bytes());
    table.handle(Event::Shared(SharedChange::View(ViewState::Current)));
    table.pass(Millis::minutes(1));
    assert!(table.shelf.ledger.contains_key(&cid(1).to_bytes()));
}

#[test]
fn what_the_user_held_before_serves_the_wish_and_stays_his() {
    let mut table = Table::started(Options::new(peer(0), "", ""));
    table.held.insert(cid(1).to_bytes());
    table.node_works = false;
    table.wish(pin_on(cid(1), &[peer(0)], here()));
    let (op, _) = table.open.remove(0);
    table.handle(Event::Node(op, NodeOutcome::AlreadyHeld { bytes: types::ByteCount(1) }));
    table.node_works = true;
    assert!(table.machine.is_at_rest());
    table.unwish(cid(1));
    table.pass(Millis::minutes(30));
    assert!(table.holds(&cid(1)));
}

#[test]
fn at_rest_there_is_nothing_to_do() {
    let mut table = Table::started(Options::new(peer(0), "", ""));
    for number in 0..20 {
        table.wish(pin_on(cid(number), &[peer(0)], here()));
    }
    table.pass(Millis::seconds(5));
    table.effects.clear();
    table.pass(Millis::minutes(60));
    let work: Vec<_> = table.effects.iter().filter(|effect| !matches!(effect, Effect::Node(_, NodeOp::ListHeld { .. }))).collect();
    assert!(work.is_empty(), "{work:?}");
}

#[test]
fn a_confirmation_is_void_once_its_peer_fell_silent() {
    let options = Options { members: vec![peer(1), peer(2)], ..Options::new(peer(0), "", "") };
    let mut table = Table::started(options);
    for other in [1, 2] {
        table.handle(Event::Link(peer(other), crate::LinkState::Up));
    }
    let two = PinOptions { replicas: Replicas::exactly(NonZeroU32::new(2).expect("two")), ..PinOptions::default() };
    table.wish(pin_on(cid(1), &[peer(0), peer(1)], two.clone()));
    let version = table.wish(pin_on(cid(1), &[peer(1), peer(2)], two));
    let confirms = |table: &mut Table, other: u8| {
        let copy = types::CopyState {
            cid: cid(1),
            version,
            state: PinState::Pinned,
            because: None,
            next_try: None,
            tries: 0,
            since: table.now.wall,
        };
        let report = types::HoldingReport { incarnation: 1, complete: None, answer: 0, copies: vec![copy] };
        table.handle(Event::Message(peer(other), PeerMessage::Holdings(report)));
    };
    confirms(&mut table, 1);
    table.pass(Millis::seconds(20));
    // Peer 1 fell silent and is heard again, by another word; peer 2 confirms.
    table.handle(Event::Message(peer(1), PeerMessage::Release { lease: 1, is_kept: false }));
    confirms(&mut table, 2);
    table.pass(Millis::seconds(1));
    assert!(table.holds(&cid(1)), "peer 1 may have let it go meanwhile");
    confirms(&mut table, 1);
    table.pass(Millis::seconds(1));
    assert!(!table.holds(&cid(1)));
}

#[test]
fn a_peer_that_comes_back_is_asked_soon_for_what_was_missing() {
    let options = Options { members: vec![peer(1)], ..Options::new(peer(0), "", "") };
    let mut table = Table::started(options);
    table.node_works = false;
    table.wish(pin_on(cid(1), &[peer(0), peer(1)], here()));
    for _ in 0..10 {
        let (op, _) = table.open.remove(0);
        table.handle(Event::Node(op, NodeOutcome::Failed(crate::NodeFailure::Missing { missing: 1, first: None, asked: String::new() })));
        while table.open.is_empty() {
            table.pass(Millis::seconds(1));
        }
    }
    let (op, _) = table.open.remove(0);
    table.handle(Event::Node(op, NodeOutcome::Failed(crate::NodeFailure::Missing { missing: 1, first: None, asked: String::new() })));
    table.pass(Millis::seconds(20));
    assert!(table.open.is_empty(), "the next try is minutes away");
    table.handle(Event::Message(peer(1), PeerMessage::Release { lease: 1, is_kept: false }));
    table.pass(Millis::seconds(5));
    assert_eq!(table.open.len(), 1);
}

#[test]
fn a_hand_over_whose_end_was_not_hinted_ends_all_the_same() {
    let mut table = Table::started(Options { members: vec![peer(1), peer(2)], ..Options::new(peer(0), "", "") });
    let pin = pin_on(cid(1), &[peer(0)], here());
    table.wish(pin.clone());
    table.wish(Pin { placement: vec![peer(1)], ..pin.clone() });
    assert!(!table.machine.is_at_rest(), "kept until peer 1 has it");
    table.shelf.pins.insert(cid(1).to_bytes(), (pin, 77));
    table.handle(Event::Shared(SharedChange::Lagged));
    table.pass(Millis::minutes(2));
    assert!(table.holds(&cid(1)));
    assert!(table.machine.unsettled(table.now).is_empty(), "{:?}", table.machine.unsettled(table.now));
}

#[test]
fn more_pins_than_have_a_place_are_taken_up_by_the_walk() {
    let mut table = Table::started(Options::new(peer(0), "", ""));
    let count = QUEUED_MOST as u64 + 3_000;
    table.node_works = false;
    let pins: Vec<Pin> = (0..count).map(|number| pin_on(cid(number), &[peer(0)], here())).collect();
    for pin in &pins {
        table.wish(pin.clone());
    }
    let tracked = table.machine.unsettled(table.now).len();
    assert!(tracked <= QUEUED_MOST + table.open.len(), "{tracked} tracks");
    assert!(!table.machine.has_compared(), "a full answer would leave out what has no place");
    let state = |table: &Table, is_ours: bool| {
        let mut rows = Vec::new();
        table.machine.short_rows(&pins[pins.len() - 1..], table.now, &|_| is_ours, &mut rows);
        rows[0].state
    };
    assert_eq!((state(&table, false), state(&table, true)), (PinState::PinQueued, PinState::Pinned), "only the ledger knows");

    table.node_works = true;
    for (op, node_op) in std::mem::take(&mut table.open) {
        if let NodeOp::Pin { cid, .. } = node_op {
            table.held.insert(cid.to_bytes());
            table.handle(Event::Node(op, NodeOutcome::Pinned { bytes: types::ByteCount(1) }));
        }
    }
    table.pass(Millis::minutes(2));
    assert!(pins.iter().all(|pin| table.holds(&pin.cid)));
    assert_eq!(table.shelf.ledger.len() as u64, count);
    assert!(table.machine.is_at_rest() && table.machine.has_compared());
    assert_eq!(state(&table, false), PinState::Pinned);
}
