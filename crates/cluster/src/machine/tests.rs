//! One machine on a table: what it does with commands, wishes, words of others and time.

use crate::options::{BrakeLimits, PlantedBug};
use crate::testing::{Table, cid, hello, peer, pin_on};
use crate::{
    Answer, Change, Command, DefaultClass, Effect, Event, LinkState, Missing, NodeFailure, NodeOp, NodeOutcome, Notice, Options,
    SharedChange, ViewState,
};
use std::num::NonZeroU32;
use types::{
    Because, ByteCount, CopyState, Depth, HoldingReport, Millis, PeerMessage, Pin, PinKind, PinOptions, PinState, RecordKey, RecordKind,
    Replicas, SignedRecord, UnixMillis,
};

fn options(members: u8) -> Options {
    Options { members: (1..members).map(peer).collect(), ..Options::new(peer(0), "zero", "test") }
}

fn between(least: u32, most: u32) -> PinOptions {
    let number = |count| NonZeroU32::new(count).expect("not zero");
    PinOptions { replicas: Replicas::Between { least: number(least), most: number(most) }, ..PinOptions::default() }
}

/// A started table on which the other members are up and answered that all is well.
fn with_others(options: Options) -> Table {
    let others = options.members.clone();
    let mut table = Table::started(options);
    for other in others {
        meet(&mut table, other);
    }
    table
}

#[test]
fn who_is_heard_for_the_first_time_is_told_and_asked_again() {
    let mut table = Table::started(options(2));
    table.handle(Event::Link(peer(1), LinkState::Up));
    table.pass(Millis(10));
    // It did not yet know that this peer is a member, and heard none of that.
    table.effects.clear();
    let told = |table: &Table| {
        let is_hello = |effect: &&Effect| matches!(effect, Effect::Tell(to, PeerMessage::Hello { .. }) if *to == peer(1));
        let is_question = |effect: &&Effect| matches!(effect, Effect::Tell(to, PeerMessage::AskHoldings { .. }) if *to == peer(1));
        (table.effects.iter().filter(is_hello).count(), table.effects.iter().filter(is_question).count())
    };
    table.handle(Event::Message(peer(1), hello(1 << 40, 0, false)));
    table.pass(Millis(10));
    assert_eq!(told(&table), (1, 1));
    table.handle(Event::Message(peer(1), hello(1 << 40, 0, false)));
    table.pass(Millis(10));
    assert_eq!(told(&table), (1, 1), "once is enough");
}

fn meet(table: &mut Table, other: types::PeerId) {
    table.handle(Event::Link(other, LinkState::Up));
    table.handle(Event::Message(other, hello(1 << 40, 0, false)));
    table.pass(Millis(10));
    answer_full_question(table, other);
}

fn answer_full_question(table: &mut Table, other: types::PeerId) {
    let question = table.effects.iter().rev().find_map(|effect| match effect {
        Effect::Tell(to, PeerMessage::AskHoldings { question, .. }) if *to == other => Some(*question),
        _ => None,
    });
    let report = HoldingReport { incarnation: 1, complete: Some(0), answer: question.expect("asked in full"), copies: Vec::new() };
    table.handle(Event::Message(other, PeerMessage::Holdings(report)));
}

/// The others keep talking while time passes.
fn pass_with(table: &mut Table, others: &[u8], seconds: u64) {
    for _ in 0..seconds {
        for other in others {
            table.handle(Event::Message(peer(*other), hello(1 << 40, 0, false)));
        }
        table.pass(Millis::seconds(1));
    }
}

fn reports(other: u8, number: u64, version: u64, state: PinState) -> Event {
    let copy = CopyState { cid: cid(number), version, state, because: None, next_try: None, tries: 0, since: UnixMillis(0) };
    Event::Message(peer(other), PeerMessage::Holdings(HoldingReport { incarnation: 1, complete: None, answer: 0, copies: vec![copy] }))
}

fn pin_command(number: u64, options: PinOptions) -> Command {
    Command::Pin { cid: cid(number), options, depth: Depth::Recursive, size: None, lease: None }
}

fn answers(table: &Table) -> Vec<&Answer> {
    table.effects.iter().filter_map(|effect| if let Effect::Answer(_, answer) = effect { Some(answer) } else { None }).collect()
}

fn writes(table: &Table) -> Vec<&Change> {
    table.effects.iter().filter_map(|effect| if let Effect::Submit(_, changes) = effect { Some(changes) } else { None }).flatten().collect()
}

fn own_state(table: &Table, number: u64) -> (PinState, Option<Because>) {
    let found = table.shelf.pins.get(&cid(number).to_bytes()).map(|(pin, version)| (pin, *version));
    let row = table.machine.status_of(found, &cid(number), table.now).remove(0);
    (row.state, row.because)
}

#[test]
fn a_pin_is_answered_when_it_is_durable_and_then_held() {
    let mut table = Table::started(options(1));
    table.command(1, pin_command(7, PinOptions::default()));
    assert!(answers(&table).is_empty(), "not durable yet");
    assert!(!table.holds(&cid(7)));
    table.accept_writes();
    let Some(Answer::Pinned(pin)) = answers(&table).first().copied() else { panic!("{:?}", table.effects) };
    assert_eq!(pin.placement, [peer(0)]);
    assert!(table.holds(&cid(7)));
    assert_eq!(own_state(&table, 7).0, PinState::Pinned);
    assert!(table.shelf.ledger.contains_key(&cid(7).to_bytes()));
}

#[test]
fn a_write_that_fails_is_said() {
    let mut table = Table::started(options(1));
    table.command(1, pin_command(7, PinOptions::default()));
    let Some(Effect::Submit(id, _)) = table.effects.iter().find(|effect| matches!(effect, Effect::Submit(..))) else { panic!("no write") };
    table.handle(Event::Submitted(*id, Err("disk full".to_owned())));
    assert!(matches!(answers(&table)[..], [Answer::Refused(Missing::NotWritten(_))]));
}

#[test]
fn a_follower_carries_out_what_others_wish_and_writes_nothing() {
    let over = || PinOptions { expires: Some(UnixMillis::from_seconds(1)), ..between(1, 1) };
    let begin = |follower| {
        let mut table = with_others(Options { follower, ..options(3) });
        table.wish(pin_on(cid(1), &[peer(0)], between(1, 1)));
        table.wish(pin_on(cid(2), &[peer(0)], over()));
        table
    };
    let writes = |table: &Table| table.effects.iter().any(|effect| matches!(effect, Effect::Submit(..)));
    let mut table = begin(true);
    for (number, command) in [
        pin_command(7, PinOptions::default()),
        Command::Unpin { cid: cid(1) },
        Command::Place { options: PinOptions::default(), size: None },
        Command::DropUnits { add: "an add".to_owned(), units: vec![cid(1)] },
    ]
    .into_iter()
    .enumerate()
    {
        table.command(number as u64, command);
        let Some(Answer::Refused(why)) = answers(&table).last().copied() else { panic!("{:?}", table.effects) };
        assert_eq!(*why, Missing::Follower);
        assert!(!writes(&table));
    }
    // A pin that is over is removed by a peer that may write, after a while.
    let mut other = begin(false);
    let mut wrote = [false; 2];
    for _ in 0..60 {
        for (table, wrote) in [&mut table, &mut other].into_iter().zip(&mut wrote) {
            table.pass(Millis::minutes(1));
            *wrote |= writes(table);
        }
    }
    assert_eq!(wrote, [false, true]);
    assert!(table.holds(&cid(1)), "it is placed here");
}

#[test]
fn what_nobody_would_take_is_refused_until_somebody_does() {
    let refused = |table: &mut Table, number: u64| {
        table.effects.clear();
        table.command(number, pin_command(number, PinOptions::default()));
        matches!(answers(table).last(), Some(Answer::Refused(Missing::NotTrusted { peers: 2, own })) if *own == peer(0))
    };
    let mut alone = Table::new(options(1));
    alone.handle(Event::Distrusted(2));
    assert!(refused(&mut alone, 1));
    assert!(alone.machine.why_no_writes().is_some_and(|why| why.to_string().contains(&peer(0).to_string())));
    alone.handle(Event::Distrusted(0));
    assert!(!refused(&mut alone, 2));
    let mut among_others = with_others(options(3));
    among_others.handle(Event::Distrusted(2));
    assert!(!refused(&mut among_others, 1), "another member takes it");
}

/// Pins cid 1 as `before`, then asks for `after`; the text of the refusal, or "".
fn check_repin(before: Option<Pin>, after: Command, expected: &str) {
    let mut table = with_others(options(3));
    if let Some(pin) = before {
        table.wish(pin);
    }
    table.command(1, after);
    table.accept_writes();
    let found = match answers(&table)[..] {
        [Answer::Refused(missing)] => missing.to_string(),
        [Answer::NotPinned] => "not pinned".to_owned(),
        [Answer::Pinned(_)] => String::new(),
        ref other => panic!("{other:?}"),
    };
    assert!(found.starts_with(expected) && found.is_empty() == expected.is_empty(), "{found:?} is not {expected:?}");
}

#[test]
fn wishes_are_checked_as_go_does() {
    let old = || pin_on(cid(1), &[peer(0), peer(1)], between(2, 2));
    let direct = Command::Pin { cid: cid(1), options: between(1, 1), depth: Depth::DIRECT, size: None, lease: None };
    check_repin(None, pin_command(1, between(1, 2)), "");
    check_repin(Some(old()), pin_command(1, between(1, 2)), "");
    check_repin(
        Some(old()),
        direct.clone(),
        "cannot repin a CID which is already pinned in recursive mode (new pin is pinned as direct). Unpin it first.",
    );
    check_repin(Some(Pin { depth: Depth::DIRECT, ..old() }), pin_command(1, between(1, 2)), "");
    check_repin(
        Some(Pin { kind: PinKind::Shard, ..old() }),
        pin_command(1, between(1, 2)),
        "cannot repin CID with different tracking method, clear state with pin rm to proceed. New: pin. Was: shard-pin",
    );
    let past = PinOptions { expires: Some(UnixMillis::from_seconds(5)), ..between(1, 1) };
    check_repin(None, pin_command(1, past), "pin.ExpireAt set before current time");
    check_repin(
        None,
        pin_command(1, between(4, 5)),
        "not enough peers to allocate CID. Needed at least: 4. Wanted at most: 5. Available candidates: 3.",
    );
    let update = PinOptions { update: Some(cid(9)), ..PinOptions::default() };
    check_repin(None, pin_command(1, update), "not pinned");
}

#[test]
fn a_repin_replaces_the_options_and_keeps_valid_holders() {
    let mut table = with_others(options(4));
    table.wish(pin_on(cid(1), &[peer(2), peer(3)], between(2, 2)));
    table.command(1, pin_command(1, PinOptions { name: "other".to_owned(), ..between(1, 3) }));
    let [Change::Put(pin)] = writes(&table)[..] else { panic!("{:?}", table.effects) };
    assert_eq!(pin.placement, [peer(2), peer(3)]);
    assert_eq!(pin.options.name, "other");
}

#[test]
fn an_update_copies_the_old_pin() {
    let mut table = with_others(options(4));
    table.wish(pin_on(cid(1), &[peer(2), peer(3)], PinOptions { name: "old".to_owned(), ..between(2, 2) }));
    let asked = PinOptions { update: Some(cid(1)), name: "new".to_owned(), ..between(1, 1) };
    table.command(1, pin_command(2, asked));
    let [Change::Put(pin)] = writes(&table)[..] else { panic!("{:?}", table.effects) };
    assert_eq!((pin.cid, &pin.placement[..], &pin.options.name[..]), (cid(2), &[peer(2), peer(3)][..], "new"));
    assert_eq!(pin.options.replicas, between(2, 2).replicas);
    assert_eq!(pin.options.update, Some(cid(1)));
}

#[test]
fn a_removed_pin_is_let_go() {
    let mut table = Table::started(options(1));
    table.command(1, pin_command(7, PinOptions::default()));
    table.accept_writes();
    table.command(2, Command::Unpin { cid: cid(7) });
    table.accept_writes();
    assert!(!table.holds(&cid(7)));
    assert!(table.shelf.ledger.is_empty());
    table.effects.clear();
    table.command(3, Command::Unpin { cid: cid(7) });
    assert!(matches!(answers(&table)[..], [Answer::NotPinned]));
}

#[test]
fn what_the_ledger_does_not_name_is_never_let_go() {
    for (planted, expected) in [(None, true), (Some(PlantedBug::IgnoresLedger), false)] {
        let mut table = Table::new(Options { planted, ..options(1) });
        table.held.insert(cid(5).to_bytes());
        table.handle(Event::Shared(SharedChange::View(ViewState::Current)));
        table.pass(Millis::minutes(30));
        assert_eq!(table.holds(&cid(5)), expected, "{planted:?}");
    }
}

#[test]
fn nothing_is_let_go_while_the_view_is_not_current() {
    for view in [ViewState::Unknown, ViewState::CatchingUp] {
        let mut table = Table::new(options(1));
        for number in 0..3 {
            table.held.insert(cid(number).to_bytes());
            table.shelf.ledger.insert(cid(number).to_bytes(), cid(number));
        }
        table.handle(Event::Shared(SharedChange::View(view)));
        table.pass(Millis::minutes(30));
        assert_eq!(table.held.len(), 3, "{view:?}");
        table.handle(Event::Shared(SharedChange::View(ViewState::Current)));
        table.pass(Millis::minutes(1));
        assert_eq!(table.held.len(), 0, "{view:?}, then current");
    }
}

#[test]
fn a_mass_removal_brakes_and_asks() {
    let brake = BrakeLimits { removals: 10, percent: 5 };
    let mut table = Table::started(Options { brake, ..options(1) });
    for number in 0..40 {
        table.wish(pin_on(cid(number), &[peer(0)], between(1, 1)));
    }
    let changes = (0..30).map(|number| crate::PinChange {
        cid: cid(number),
        before: table.shelf.pins.remove(&cid(number).to_bytes()).map(|(pin, _)| pin),
        after: None,
    });
    let changes = changes.collect();
    table.handle(Event::Shared(SharedChange::Pins(changes)));
    table.pass(Millis::minutes(90));
    assert_eq!(table.held.len(), 40, "nothing went");
    assert!(table.effects.iter().any(|effect| matches!(effect, Effect::Note(Notice::RemovalsBraked { removals: 30, held: 40 }))));
    assert_eq!(own_state(&table, 3), (PinState::UnpinQueued, Some(Because::MassRemoval { removals: 30, held: 40 })));
    table.command(1, Command::ApproveRemovals);
    assert_eq!(table.held.len(), 10);
}

#[test]
fn a_lost_copy_is_found_by_the_walk_and_made_again() {
    let mut table = Table::started(options(1));
    table.wish(pin_on(cid(1), &[peer(0)], between(1, 1)));
    table.held.clear();
    table.node_works = false;
    table.pass(Millis::minutes(11));
    assert_eq!(table.open.len(), 1);
    assert_eq!(own_state(&table, 1).0, PinState::Pinning);
}

#[test]
fn a_lost_hint_is_found_by_the_walk() {
    let mut table = Table::started(options(1));
    table.shelf.pins.insert(cid(1).to_bytes(), (pin_on(cid(1), &[peer(0)], between(1, 1)), 5));
    table.pass(Millis::minutes(11));
    assert!(table.holds(&cid(1)));
}

#[test]
fn what_fails_waits_with_a_reason_and_is_tried_again() {
    let mut table = Table::started(options(1));
    table.node_works = false;
    table.wish(pin_on(cid(1), &[peer(0)], between(1, 1)));
    let (op, _) = table.open.remove(0);
    table.handle(Event::Node(op, NodeOutcome::Failed(NodeFailure::Missing { missing: 3, first: None, asked: "who".to_owned() })));
    assert_eq!(own_state(&table, 1), (PinState::PinError, Some(Because::NoProvider { missing: 3, first: None, asked: "who".to_owned() })));
    table.pass(Millis(700));
    assert!(table.open.is_empty(), "too early");
    table.pass(Millis(600));
    assert_eq!(table.open.len(), 1, "tried again after about a second");
}

#[test]
fn recover_tries_again_at_once() {
    let mut table = Table::started(options(1));
    table.node_works = false;
    table.wish(pin_on(cid(1), &[peer(0)], between(1, 1)));
    let (op, _) = table.open.remove(0);
    table.handle(Event::Node(op, NodeOutcome::Failed(NodeFailure::Node("no daemon".to_owned()))));
    table.command(1, Command::Recover { cid: None });
    assert_eq!(table.open.len(), 1);
    assert!(matches!(answers(&table)[..], [Answer::Recovered(cids)] if cids[..] == [cid(1)]));
}

#[test]
fn slots_bound_the_fetches_and_a_stalled_one_gives_its_slot_up() {
    let mut table = Table::started(Options { concurrent_pins: 2, ..options(1) });
    table.node_works = false;
    for number in 0..5 {
        table.wish(pin_on(cid(number), &[peer(0)], between(1, 1)));
    }
    let fetched = |table: &Table| -> Vec<types::Cid> {
        table.open.iter().filter_map(|(_, op)| if let NodeOp::Pin { cid, .. } = op { Some(*cid) } else { None }).collect()
    };
    assert_eq!(fetched(&table), [cid(0), cid(1)]);
    assert!(matches!(own_state(&table, 4), (PinState::PinQueued, Some(Because::Queue { before: 2 }))));
    table.pass(Millis(120_500));
    assert!(table.effects.iter().any(|effect| matches!(effect, Effect::Cancel(_))));
    assert!(fetched(&table).contains(&cid(2)) && fetched(&table).contains(&cid(3)));
}

#[test]
fn a_wish_that_changes_its_mind_cancels_and_ends_right() {
    let mut table = Table::started(options(2));
    table.node_works = false;
    table.wish(pin_on(cid(1), &[peer(0)], between(1, 1)));
    assert_eq!(table.open.len(), 1);
    table.unwish(cid(1));
    assert!(table.open.is_empty(), "cancelled");
    assert!(table.machine.is_at_rest());
    table.wish(pin_on(cid(1), &[peer(0)], between(1, 1)));
    assert_eq!(table.open.len(), 1, "wished again");
}

#[test]
fn a_replaced_copy_is_kept_until_the_new_holders_confirm() {
    for (planted, kept) in [(None, true), (Some(PlantedBug::LetsGoEarly), false)] {
        let mut table = with_others(Options { planted, ..options(4) });
        table.wish(pin_on(cid(1), &[peer(0), peer(1)], between(2, 2)));
        assert!(table.holds(&cid(1)));
        let version = table.wish(pin_on(cid(1), &[peer(1), peer(2)], between(2, 2)));
        pass_with(&mut table, &[1, 2, 3], 20);
        assert_eq!(table.holds(&cid(1)), kept, "{planted:?}");
        if kept {
            assert_eq!(own_state(&table, 1).1, Some(Because::HandOver { confirmed: 0, needed: 2 }));
            table.handle(reports(1, 1, version, PinState::Pinned));
            table.handle(reports(2, 1, version - 1, PinState::Pinned));
            pass_with(&mut table, &[1, 2, 3], 5);
            assert!(table.holds(&cid(1)), "one confirmed, the other spoke of an old version");
            table.handle(reports(2, 1, version, PinState::Pinned));
            pass_with(&mut table, &[1, 2, 3], 1);
            assert!(!table.holds(&cid(1)));
        }
    }
}

#[test]
fn the_default_class_is_met_as_far_as_possible_and_healed_later() {
    let mut table = Table::started(options(3));
    table.command(1, pin_command(1, PinOptions::default()));
    table.accept_writes();
    let (pin, version) = table.shelf.pins[&cid(1).to_bytes()].clone();
    assert_eq!((pin.placement.clone(), pin.options.replicas), (vec![peer(0)], DefaultClass::default().replicas()));
    table.pass(Millis::seconds(40));
    assert_eq!(table.machine.short_count(), 1);
    let words = table.machine.explain(&pin, version, table.now).summary;
    assert!(words.contains("short of copies"), "{words}");
    meet(&mut table, peer(1));
    meet(&mut table, peer(2));
    pass_with(&mut table, &[1, 2], 60);
    let healed = writes(&table).iter().any(|change| matches!(change, Change::Put(pin) if pin.placement.len() == 2));
    assert!(healed, "{:?}", writes(&table));
}

#[test]
fn a_dead_peers_pins_get_new_holders_after_the_grace() {
    for (planted, cut_off, moved) in [(None, false, true), (None, true, false), (Some(PlantedBug::IgnoresPartition), true, true)] {
        let mut table = with_others(Options { planted, ..options(6) });
        for number in 0..10 {
            table.wish(pin_on(cid(number), &[peer(0), peer(1)], between(2, 2)));
        }
        table.effects.clear();
        let alive: &[u8] = if cut_off { &[2] } else { &[2, 3, 4, 5] };
        pass_with(&mut table, alive, 590);
        assert!(writes(&table).is_empty(), "within grace");
        pass_with(&mut table, alive, 120);
        let puts: Vec<_> =
            writes(&table).into_iter().filter_map(|change| if let Change::Put(pin) = change { Some(pin) } else { None }).collect();
        assert_eq!(!puts.is_empty(), moved, "{planted:?} {cut_off}");
        assert!(puts.iter().all(|pin| pin.placement.contains(&peer(0)) && !pin.placement.contains(&peer(1)) && pin.placement.len() == 2));
    }
}

#[test]
fn status_needs_no_call_and_shows_a_silent_peer_as_last_known() {
    let mut table = with_others(options(3));
    let version = table.wish(pin_on(cid(1), &[peer(1), peer(2)], between(2, 2)));
    table.handle(reports(1, 1, version, PinState::Pinned));
    table.handle(reports(2, 1, version, PinState::Pinning));
    table.pass(Millis::seconds(60));
    let (pin, version) = table.shelf.pins[&cid(1).to_bytes()].clone();
    let rows = table.machine.status_of(Some((&pin, version)), &cid(1), table.now);
    let shown: Vec<_> = rows.iter().map(|row| (row.state, row.is_live, row.is_placed)).collect();
    assert_eq!(shown, [(PinState::Remote, true, false), (PinState::Pinned, false, true), (PinState::Pinning, false, true)]);
}

#[test]
fn full_questions_are_answered_with_what_is_not_as_wished() {
    let mut table = with_others(options(2));
    table.node_works = false;
    table.wish(pin_on(cid(1), &[peer(0)], between(1, 1)));
    table.effects.clear();
    table.handle(Event::Message(peer(1), PeerMessage::AskHoldings { question: 77, heads: Vec::new() }));
    let told = table.effects.iter().find_map(|effect| match effect {
        Effect::Tell(to, PeerMessage::Holdings(report)) if *to == peer(1) && report.answer == 77 => Some(report.clone()),
        _ => None,
    });
    let report = told.expect("answered");
    assert_eq!(report.complete, Some(1));
    assert_eq!((report.copies[0].cid, report.copies[0].state), (cid(1), PinState::Pinning));
}

#[test]
fn an_expired_pin_is_removed_by_the_closest_peer() {
    let mut table = Table::started(options(1));
    let end = UnixMillis(table.now.wall.0 + 60_000);
    table.wish(pin_on(cid(1), &[peer(0)], PinOptions { expires: Some(end), ..between(1, 1) }));
    table.pass(Millis::seconds(50));
    assert!(writes(&table).is_empty());
    // Not with the next quiet walk, which is minutes away.
    table.pass(Millis::seconds(45));
    assert!(matches!(writes(&table)[..], [Change::Remove(_), ..]));
}

#[test]
fn a_full_node_waits_with_the_numbers() {
    let mut table = Table::started(options(1));
    table.handle(Event::Space { limit: ByteCount(1000), used: ByteCount(1000), upkeep: ByteCount(0) });
    table.wish(pin_on(cid(1), &[peer(0)], between(1, 1)));
    assert!(!table.holds(&cid(1)));
    assert!(matches!(own_state(&table, 1), (PinState::PinQueued, Some(Because::NoRoom { free: ByteCount(0), .. }))));
    table.handle(Event::Space { limit: ByteCount(1000), used: ByteCount(500), upkeep: ByteCount(0) });
    table.pass(Millis::seconds(31));
    assert!(table.holds(&cid(1)));
}

#[test]
fn leaving_hands_everything_over_first() {
    let mut table = with_others(options(3));
    table.wish(pin_on(cid(1), &[peer(0), peer(1)], between(2, 2)));
    table.handle(reports(1, 1, 2, PinState::Pinned));
    table.effects.clear();
    table.command(9, Command::Leave { force: false });
    pass_with(&mut table, &[1, 2], 10);
    assert!(answers(&table).is_empty(), "still placed here");
    let version = table.wish(pin_on(cid(1), &[peer(1), peer(2)], between(2, 2)));
    pass_with(&mut table, &[1, 2], 3);
    assert!(answers(&table).is_empty(), "not confirmed elsewhere");
    table.handle(reports(1, 1, version, PinState::Pinned));
    table.handle(reports(2, 1, version, PinState::Pinned));
    pass_with(&mut table, &[1, 2], 10);
    assert!(matches!(answers(&table)[..], [Answer::Left { stranded: 0 }]), "{:?}", answers(&table));
}

#[test]
fn a_lone_peer_stays_unless_forced_and_says_what_would_be_left_behind() {
    let mut table = Table::started(options(1));
    table.wish(pin_on(cid(1), &[peer(0)], between(1, 1)));
    table.command(9, Command::Leave { force: false });
    table.pass(Millis::seconds(20));
    let [Answer::Refused(why @ Missing::CannotLeave { pins: 1, only_here: 1, .. })] = answers(&table)[..] else {
        panic!("{:?}", answers(&table))
    };
    assert!(why.to_string().contains("There are no other peers") && why.to_string().contains("--force"), "{why}");
    table.command(10, pin_command(2, PinOptions::default()));
    table.pass(Millis::seconds(1));
    assert!(!answers(&table).iter().any(|answer| matches!(answer, Answer::Refused(Missing::Leaving))), "it works as before");
    table.command(11, Command::Leave { force: true });
    table.pass(Millis::minutes(1));
    assert!(matches!(answers(&table).last(), Some(Answer::Left { stranded: 1.. })), "{:?}", answers(&table));
    table.command(12, pin_command(3, PinOptions::default()));
    assert!(matches!(answers(&table).last(), Some(Answer::Refused(Missing::Leaving))));
}

#[test]
fn who_cannot_take_what_a_leaving_peer_holds_is_named() {
    let mut table = with_others(options(3));
    table.wish(pin_on(cid(1), &[peer(0)], between(1, 1)));
    table.handle(Event::Message(peer(1), hello(1000, 1000, false)));
    table.command(9, Command::Leave { force: false });
    for _ in 0..30 {
        // Peer 2 is silent, peer 1 is full.
        table.handle(Event::Message(peer(1), hello(1000, 1000, false)));
        table.pass(Millis::seconds(1));
    }
    let said = format!("{:?}", answers(&table));
    assert!(said.contains("CannotLeave") && said.contains("is silent") && said.contains("has no room"), "{said}");
}

#[test]
fn whoever_asks_for_a_record_that_is_refused_hears_why() {
    let mut table = Table::started(options(2));
    let record = SignedRecord {
        key: RecordKey { kind: RecordKind::Duty, key: peer(1).as_bytes().to_vec(), author: peer(0) },
        version: 1,
        written: UnixMillis(0),
        value: Some(b"in-use".to_vec()),
        signature: Vec::new(),
    };
    table.command(9, Command::SetRecord { record });
    let said = answers(&table);
    assert!(matches!(&said[..], [Answer::Refused(Missing::NotWritten(why))] if why.contains("signature")), "{said:?}");
}

#[test]
fn a_drained_peers_pins_are_placed_elsewhere() {
    let mut table = with_others(options(4));
    table.wish(pin_on(cid(1), &[peer(1), peer(2)], between(2, 2)));
    table.effects.clear();
    for _ in 0..30 {
        table.handle(Event::Message(peer(1), hello(1 << 40, 0, true)));
        pass_with(&mut table, &[2, 3], 1);
    }
    let [Change::Put(pin), ..] = writes(&table)[..] else { panic!("{:?}", writes(&table)) };
    assert!(pin.placement.contains(&peer(2)) && !pin.placement.contains(&peer(1)) && pin.placement.len() == 2);
}

#[test]
fn history_that_never_comes_stops_letting_go_but_not_repair() {
    let mut table = with_others(options(4));
    table.wish(pin_on(cid(1), &[peer(0), peer(1)], between(2, 2)));
    table.wish(pin_on(cid(2), &[peer(0), peer(2)], between(2, 2)));
    table.handle(Event::Shared(SharedChange::View(ViewState::CatchingUp)));
    table.effects.clear();
    pass_with(&mut table, &[2, 3], 1_700);
    assert!(writes(&table).is_empty(), "for three graces it may still come");
    table.unwish(cid(2));
    pass_with(&mut table, &[2, 3], 300);
    assert!(matches!(writes(&table)[..], [Change::Put(pin), ..] if pin.cid == cid(1)), "{:?}", writes(&table));
    assert!(table.holds(&cid(2)));
    assert_eq!(own_state(&table, 2).1, Some(Because::CatchingUp));
}
