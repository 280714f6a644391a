use super::*;
use crate::testing::{Shelf, cid, peer, pin_on};
use types::PinOptions;

fn at(seconds: u64) -> Now {
    Now { mono: Millis::seconds(seconds), wall: UnixMillis::from_seconds(1_000 + seconds) }
}

fn copy(number: u64, version: u64, state: PinState) -> CopyState {
    CopyState { cid: cid(number), version, state, because: None, next_try: None, tries: 0, since: UnixMillis(0) }
}

fn update(copies: Vec<CopyState>) -> HoldingReport {
    HoldingReport { incarnation: 1, complete: None, answer: 0, copies }
}

/// Holdings in which peer 1 has answered that all is as wished.
fn known() -> (Holdings, Options) {
    let options = Options::new(peer(0), "me", "test");
    let mut holdings = Holdings::default();
    holdings.linked(&peer(1), false, at(0));
    holdings.ask(|_| true, &mut Outbox::default(), &mut Vec::new(), at(0));
    holdings.report(
        &peer(1),
        &HoldingReport { incarnation: 1, complete: Some(0), answer: 1, copies: Vec::new() },
        &Shelf::default(),
        &options,
        at(0),
    );
    assert!(holdings.is_known(&peer(1)));
    (holdings, options)
}

fn wish(holdings: &mut Holdings, number: u64, version: u64, second: u64) -> Vec<PeerId> {
    let pin = pin_on(cid(number), &[peer(1)], PinOptions::default());
    let change = PinChange { cid: cid(number), before: None, after: Some((pin, version)) };
    let options = Options::new(peer(0), "me", "test");
    holdings.wish_changed(&change, Members { ours: &[peer(1)], go: &[] }, &options, at(second))
}

#[test]
fn a_report_of_the_right_version_confirms() {
    for (reported, confirmed) in [(7, true), (6, false)] {
        let (mut holdings, options) = known();
        wish(&mut holdings, 1, 7, 1);
        assert!(!holdings.is_confirmed(&peer(1), &cid(1)));
        holdings.report(&peer(1), &update(vec![copy(1, reported, PinState::Pinned)]), &Shelf::default(), &options, at(1));
        assert_eq!(holdings.is_confirmed(&peer(1), &cid(1)), confirmed, "version {reported}");
    }
}

#[test]
fn what_stays_unconfirmed_is_asked_for_with_growing_pauses() {
    let (mut holdings, _) = known();
    wish(&mut holdings, 1, 7, 0);
    let mut asked = Vec::new();
    for second in 0..40 {
        let mut outbox = Outbox::default();
        holdings.ask(|_| true, &mut outbox, &mut Vec::new(), at(second));
        if outbox.has_questions() {
            asked.push(second);
        }
    }
    assert_eq!(asked, [2, 6, 14, 30]);
}

#[test]
fn a_complete_answer_settles_what_it_does_not_name() {
    let (mut holdings, options) = known();
    wish(&mut holdings, 1, 7, 1);
    wish(&mut holdings, 2, 8, 1);
    holdings.linked(&peer(1), false, at(2));
    holdings.ask(|_| true, &mut Outbox::default(), &mut Vec::new(), at(2));
    wish(&mut holdings, 3, 9, 3);
    let answer = HoldingReport { incarnation: 1, complete: Some(1), answer: 2, copies: vec![copy(2, 8, PinState::PinError)] };
    holdings.report(&peer(1), &answer, &Shelf::default(), &options, at(4));
    assert!(holdings.is_confirmed(&peer(1), &cid(1)), "not named");
    assert_eq!(holdings.exception(&peer(1), &cid(2)).map(|exception| exception.state), Some(PinState::PinError));
    assert!(!holdings.is_confirmed(&peer(1), &cid(3)), "wished after the question");
}

#[test]
fn an_answer_with_a_lost_part_proves_nothing() {
    let (mut holdings, options) = known();
    wish(&mut holdings, 1, 7, 1);
    holdings.linked(&peer(1), false, at(2));
    holdings.ask(|_| true, &mut Outbox::default(), &mut Vec::new(), at(2));
    holdings.report(
        &peer(1),
        &HoldingReport { incarnation: 1, complete: Some(1), answer: 2, copies: Vec::new() },
        &Shelf::default(),
        &options,
        at(3),
    );
    assert!(!holdings.is_confirmed(&peer(1), &cid(1)));
}

#[test]
fn a_new_start_of_the_peer_voids_what_was_known() {
    let (mut holdings, options) = known();
    holdings.report(&peer(1), &HoldingReport { incarnation: 2, ..update(Vec::new()) }, &Shelf::default(), &options, at(1));
    assert!(!holdings.is_known(&peer(1)));
}

#[test]
fn a_peer_that_lost_its_place_holds_until_it_says_otherwise() {
    let (mut holdings, options) = known();
    let before = pin_on(cid(1), &[peer(1)], PinOptions::default());
    let after = pin_on(cid(1), &[peer(2)], PinOptions::default());
    let change = PinChange { cid: cid(1), before: Some(before), after: Some((after, 8)) };
    holdings.wish_changed(&change, Members { ours: &[peer(1), peer(2)], go: &[] }, &options, at(1));
    assert_eq!(holdings.leaving_holders(&cid(1)).collect::<Vec<_>>(), [peer(1)]);
    holdings.report(&peer(1), &update(vec![copy(1, 8, PinState::Unpinned)]), &Shelf::default(), &options, at(2));
    assert_eq!(holdings.leaving_holders(&cid(1)).count(), 0);
}

#[test]
fn a_late_report_of_letting_go_does_not_stick() {
    let (mut holdings, options) = known();
    let mut shelf = Shelf::default();
    let pin = pin_on(cid(1), &[peer(1)], PinOptions::default());
    shelf.pins.insert(cid(1).to_bytes(), (pin, 8));
    holdings.report(&peer(1), &update(vec![copy(1, 7, PinState::UnpinQueued)]), &shelf, &options, at(1));
    assert!(!holdings.is_confirmed(&peer(1), &cid(1)));
    holdings.report(&peer(1), &update(vec![copy(1, 8, PinState::Pinned)]), &shelf, &options, at(2));
    assert!(holdings.is_confirmed(&peer(1), &cid(1)));
}

#[test]
fn a_report_before_the_wish_confirms_it_at_once() {
    use PinState::{PinError, Pinned, Pinning, Remote, Unpinned};
    // What was said before the wish of version 7 came, and whether it is confirmed with it.
    type Case = (&'static str, &'static [(u64, PinState)], bool);
    let cases: [Case; 8] = [
        ("held", &[(7, Pinned)], true),
        ("on its way, then held", &[(7, Pinning), (7, Pinned)], true),
        ("failed, then held", &[(7, PinError), (7, Pinned)], true),
        ("another version", &[(6, Pinned)], false),
        ("superseded by another version", &[(7, Pinned), (8, Pinned)], false),
        ("held no more", &[(7, Pinned), (7, Unpinned)], false),
        ("not placed any more", &[(7, Pinned), (8, Remote)], false),
        ("failed since", &[(7, Pinned), (7, PinError)], false),
    ];
    for (name, said, is_confirmed) in cases {
        let (mut holdings, options) = known();
        for (version, state) in said {
            holdings.report(&peer(1), &update(vec![copy(1, *version, *state)]), &Shelf::default(), &options, at(1));
            assert_eq!(holdings.leaving_holders(&cid(1)).count(), 0, "{name}: it lets nothing go");
        }
        let confirmed = wish(&mut holdings, 1, 7, 2);
        assert_eq!(confirmed == [peer(1)], is_confirmed, "{name}");
        assert_eq!(holdings.is_confirmed(&peer(1), &cid(1)), is_confirmed, "{name}");
        // The other wish comes next, and is confirmed by what was said of it.
        if said.last() == Some(&(8, Pinned)) {
            wish(&mut holdings, 1, 8, 3);
            assert!(holdings.is_confirmed(&peer(1), &cid(1)), "{name}");
        }
    }
}

#[test]
fn what_fails_is_known_with_the_wish() {
    let (mut holdings, options) = known();
    holdings.report(&peer(1), &update(vec![copy(1, 7, PinState::PinError)]), &Shelf::default(), &options, at(1));
    assert_eq!(holdings.exceptions_count(), 0, "nobody wishes it yet");
    wish(&mut holdings, 1, 7, 2);
    assert_eq!(holdings.exception(&peer(1), &cid(1)).map(|exception| exception.state), Some(PinState::PinError));
}

#[test]
fn what_was_said_before_a_gap_confirms_nothing() {
    let gaps: [fn(&mut Holdings, &Options); 6] = [
        |holdings, _| holdings.linked(&peer(1), false, at(1)),
        |holdings, _| holdings.linked(&peer(1), true, at(1)),
        |holdings, options| {
            holdings.report(&peer(1), &HoldingReport { incarnation: 2, ..update(Vec::new()) }, &Shelf::default(), options, at(1));
        },
        |holdings, _| holdings.silent(&[peer(1)]),
        |holdings, _| holdings.lagged(at(1)),
        |holdings, _| holdings.remove_peer(&peer(1)),
    ];
    for (number, gap) in gaps.into_iter().enumerate() {
        let (mut holdings, options) = known();
        holdings.report(&peer(1), &update(vec![copy(1, 7, PinState::Pinned)]), &Shelf::default(), &options, at(1));
        gap(&mut holdings, &options);
        assert_eq!(wish(&mut holdings, 1, 7, 2), [], "gap {number}");
    }
    let (mut holdings, options) = known();
    holdings.report(&peer(1), &update(vec![copy(1, 7, PinState::Pinned)]), &Shelf::default(), &options, at(1));
    assert_eq!(wish(&mut holdings, 1, 7, 60), [], "too long ago");
}
