//! One machine on a table, among Go peers: they are given copies, watched, and replaced.

use crate::testing::{Table, cid, hello, peer, pin_on};
use crate::{Answer, Command, CopyRow, Duty, Effect, Event, GoMember, LinkState, Options, RepairLimits, RequestId};
use std::num::NonZeroU32;
use types::{
    Because, ByteCount, CopyState, Depth, HoldingReport, Millis, PeerId, PeerMessage, Pin, PinOptions, PinState, RecordKey, RecordKind,
    Replicas, SignedRecord, UnixMillis,
};

const ROOM: u64 = 1 << 40;

fn copies(least: u32, most: u32) -> PinOptions {
    let number = |count| NonZeroU32::new(count).expect("not zero");
    PinOptions { replicas: Replicas::Between { least: number(least), most: number(most) }, ..PinOptions::default() }
}

/// Peer 0 alone among Go peers 1, 2 and 3, which may write, and Go peer 4, which may not; all are there.
fn among_go() -> Table {
    let repair = RepairLimits { balances: false, ..RepairLimits::default() };
    let mut table = Table::started(Options { repair, verify: |_| true, ..Options::new(peer(0), "zero", "test") });
    table.handle(Event::Space { limit: ByteCount(ROOM), used: ByteCount(0), upkeep: ByteCount(0) });
    let go = |number| GoMember { peer: peer(number), is_trusted: number < 4 };
    table.handle(Event::GoPeers((1..5).map(go).collect()));
    say(&mut table, &[1, 2, 3, 4]);
    table.pass(Millis(10));
    for number in 1..4 {
        answers_in_full(&mut table, number);
    }
    table
}

/// What the shell says of those that are there.
fn say(table: &mut Table, there: &[u8]) {
    for number in there {
        table.handle(Event::Link(peer(*number), LinkState::Up));
        if *number < 4 {
            table.handle(Event::Message(peer(*number), hello(ROOM, 0, false)));
        }
    }
}

fn answers_in_full(table: &mut Table, number: u8) {
    let asked = |effect: &Effect| match effect {
        Effect::Tell(to, PeerMessage::AskHoldings { question, .. }) if *to == peer(number) => Some(*question),
        _ => None,
    };
    let answer = table.effects.iter().rev().find_map(asked).expect("asked in full");
    let report = HoldingReport { incarnation: 1, complete: Some(0), answer, copies: Vec::new() };
    table.handle(Event::Message(peer(number), PeerMessage::Holdings(report)));
}

fn pass(table: &mut Table, there: &[u8], seconds: u64) {
    for _ in 0..seconds / 2 {
        say(table, there);
        table.pass(Millis::seconds(2));
    }
}

fn falls_silent(table: &mut Table, number: u8) {
    table.handle(Event::Link(peer(number), LinkState::Down));
}

fn holds(table: &mut Table, number: u8, which: u64) {
    let version = table.shelf.pins[&cid(which).to_bytes()].1;
    let copy =
        CopyState { cid: cid(which), version, state: PinState::Pinned, because: None, next_try: None, tries: 0, since: UnixMillis(0) };
    let report = HoldingReport { incarnation: 1, complete: None, answer: 0, copies: vec![copy] };
    table.handle(Event::Message(peer(number), PeerMessage::Holdings(report)));
}

fn placement(table: &Table, which: u64) -> Vec<PeerId> {
    let mut placement = table.shelf.pins[&cid(which).to_bytes()].0.placement.clone();
    placement.sort_unstable();
    placement
}

fn sorted(numbers: &[u8]) -> Vec<PeerId> {
    let mut peers: Vec<PeerId> = numbers.iter().map(|number| peer(*number)).collect();
    peers.sort_unstable();
    peers
}

fn pins(table: &mut Table, which: u64, options: PinOptions) -> Pin {
    table.command(which, Command::Pin { cid: cid(which), options, depth: Depth::Recursive, size: None, lease: None });
    table.accept_writes();
    let pinned = |effect: &Effect| match effect {
        Effect::Answer(_, Answer::Pinned(pin)) if pin.cid == cid(which) => Some(pin.clone()),
        _ => None,
    };
    *table.effects.iter().rev().find_map(pinned).unwrap_or_else(|| panic!("not pinned: {:?}", table.effects))
}

fn told(table: &Table, number: u8) -> Vec<&PeerMessage> {
    let to_it = |effect: &'_ Effect| matches!(effect, Effect::Tell(to, _) if *to == peer(number));
    table
        .effects
        .iter()
        .filter(|effect| to_it(effect))
        .filter_map(|effect| if let Effect::Tell(_, message) = effect { Some(message) } else { None })
        .collect()
}

#[test]
fn go_peers_are_given_copies_and_strangers_none() {
    let mut table = among_go();
    let pin = pins(&mut table, 1, copies(4, 4));
    assert_eq!(sorted(&[0, 1, 2, 3]), {
        let mut all = pin.placement.clone();
        all.sort_unstable();
        all
    });
    table.command(2, Command::Pin { cid: cid(2), options: copies(5, 5), depth: Depth::Recursive, size: None, lease: None });
    let refused = table.effects.iter().any(|effect| matches!(effect, Effect::Answer(_, Answer::Refused(_))));
    assert!(refused, "four can hold it, the stranger cannot");
}

#[test]
fn a_go_peer_without_room_or_silent_is_given_nothing() {
    let mut table = among_go();
    table.handle(Event::Message(peer(1), hello(1, 1, false)));
    falls_silent(&mut table, 2);
    for _ in 0..10 {
        table.handle(Event::Link(peer(3), LinkState::Up));
        table.handle(Event::Message(peer(3), hello(ROOM, 0, false)));
        table.pass(Millis::seconds(2));
    }
    for which in 0..10 {
        let mut pin = pins(&mut table, which, copies(2, 2));
        pin.placement.sort_unstable();
        assert_eq!(pin.placement, sorted(&[0, 3]));
    }
}

#[test]
fn what_a_go_peer_holds_is_asked_of_it_and_of_nothing_else() {
    let mut table = among_go();
    table.effects.clear();
    pins(&mut table, 1, copies(4, 4));
    pins(&mut table, 2, PinOptions { replicas: Replicas::Everywhere, ..PinOptions::default() });
    table.wish(pin_on(cid(3), &[peer(0), peer(4)], copies(2, 2)));
    pass(&mut table, &[1, 2, 3, 4], 10);
    let asked = told(&table, 1);
    assert!(!asked.is_empty() && asked.iter().all(|message| **message == PeerMessage::AskCopies(vec![cid(1)])), "{asked:?}");
    assert!(told(&table, 4).is_empty(), "a stranger is asked nothing");
    let (pin, version) = table.shelf.pins[&cid(1).to_bytes()].clone();
    assert_eq!(table.machine.confirmed_copies(&pin, table.now), 1);
    holds(&mut table, 1, 1);
    assert_eq!(table.machine.confirmed_copies(&pin, table.now), 2);
    let rows: Vec<CopyRow> = table.machine.explain(&pin, version, table.now).peers.into_iter().map(|(row, _)| row).collect();
    assert!(rows.iter().any(|row| row.peer == peer(1) && row.state == PinState::Pinned));
    assert!(rows.iter().any(|row| row.peer == peer(2) && row.because == Some(Because::Unconfirmed)));
    let shown: Vec<PeerId> = table.machine.peers(table.now).iter().map(|row| row.peer).collect();
    assert_eq!(shown, [peer(0)], "Go peers have rows of their own at the doors");
}

#[test]
fn a_dead_go_holder_is_replaced_and_stays_listed_until_others_have_it() {
    let mut table = among_go();
    table.node_works = false;
    table.wish(pin_on(cid(1), &[peer(1), peer(2)], copies(2, 2)));
    for number in [1, 2] {
        holds(&mut table, number, 1);
    }
    falls_silent(&mut table, 1);
    pass(&mut table, &[2, 3, 4], 590);
    table.accept_writes();
    assert_eq!(placement(&table, 1), sorted(&[1, 2]), "within its grace");
    pass(&mut table, &[2, 3, 4], 120);
    table.accept_writes();
    let after = placement(&table, 1);
    assert_eq!(after.len(), 3, "{after:?}");
    let gained = *after.iter().find(|other| ![peer(1), peer(2)].contains(other)).expect("a third");
    assert!([peer(0), peer(3)].contains(&gained));
    // Nothing more is written while the new holder fetches.
    table.effects.clear();
    pass(&mut table, &[2, 3, 4], 1200);
    assert!(!table.effects.iter().any(|effect| matches!(effect, Effect::Submit(..))), "still not confirmed");
    // Both others have it: now it may go off the list.
    holds(&mut table, 2, 1);
    if gained == peer(3) {
        holds(&mut table, 3, 1);
    } else {
        table.node_works = true;
        table.wish(pin_on(cid(1), &after, copies(2, 2)));
        holds(&mut table, 2, 1);
        pass(&mut table, &[2, 3, 4], 60);
    }
    pass(&mut table, &[2, 3, 4], 1400);
    table.accept_writes();
    assert_eq!(placement(&table, 1), {
        let mut two = vec![peer(2), gained];
        two.sort_unstable();
        two
    });
}

#[test]
fn the_only_holder_comes_back_to_a_pin_that_is_still_its_own() {
    let mut table = among_go();
    table.node_works = false;
    table.wish(pin_on(cid(1), &[peer(1)], copies(1, 1)));
    holds(&mut table, 1, 1);
    falls_silent(&mut table, 1);
    pass(&mut table, &[2, 3, 4], 720);
    table.accept_writes();
    assert_eq!(placement(&table, 1), [peer(1)], "nobody else has it: it is waited for");
    pass(&mut table, &[2, 3, 4], 7_200);
    table.accept_writes();
    assert!(placement(&table, 1).contains(&peer(1)) && placement(&table, 1).len() == 2, "it would let go as it comes back");
    // A client pins it again meanwhile: it still stays.
    pins(&mut table, 1, PinOptions { name: "again".into(), ..copies(1, 1) });
    assert!(placement(&table, 1).contains(&peer(1)));
}

#[test]
fn a_drained_go_peer_keeps_its_copy_until_another_has_it() {
    let mut table = among_go();
    table.wish(pin_on(cid(1), &[peer(1)], copies(1, 1)));
    holds(&mut table, 1, 1);
    let record = SignedRecord {
        key: RecordKey { kind: RecordKind::Duty, key: peer(1).as_bytes().to_vec(), author: peer(0) },
        version: 1,
        written: UnixMillis(0),
        value: Some(Duty::Draining.as_str().as_bytes().to_vec()),
        signature: Vec::new(),
    };
    table.command(9, Command::SetRecord { record });
    pass(&mut table, &[1, 2, 3, 4], 60);
    table.accept_writes();
    let after = placement(&table, 1);
    assert!(after.contains(&peer(1)) && after.len() == 2, "{after:?}");
    let gained = *after.iter().find(|other| **other != peer(1)).expect("a second");
    for number in [2, 3] {
        if gained == peer(number) {
            holds(&mut table, number, 1);
        }
    }
    pass(&mut table, &[1, 2, 3, 4], 60);
    table.accept_writes();
    assert_eq!(placement(&table, 1), [gained]);
}

#[test]
fn a_copy_that_another_gave_to_a_stranger_is_not_taken_for_lost() {
    let mut table = among_go();
    table.wish(pin_on(cid(1), &[peer(4)], copies(1, 1)));
    table.wish(pin_on(cid(2), &[peer(9)], copies(1, 1)));
    pass(&mut table, &[1, 2, 3, 4], 8_000);
    table.accept_writes();
    assert_eq!(placement(&table, 1), [peer(4)]);
    assert_ne!(placement(&table, 2), [peer(9)], "nobody knows that one");
}

#[test]
fn nothing_moves_when_most_go_peers_are_out_of_sight() {
    let mut table = among_go();
    table.wish(pin_on(cid(1), &[peer(1)], copies(1, 1)));
    for number in 1..4 {
        falls_silent(&mut table, number);
    }
    table.effects.clear();
    pass(&mut table, &[4], 3600);
    assert!(!table.effects.iter().any(|effect| matches!(effect, Effect::Submit(..))), "one of four members, whoever else is there");
}

#[test]
fn go_peers_hear_nothing_of_what_pinfold_peers_tell_each_other() {
    let mut table = among_go();
    pass(&mut table, &[1, 2, 3, 4], 30);
    for number in 1..5 {
        assert!(
            told(&table, number).iter().all(|message| matches!(message, PeerMessage::AskHoldings { .. })),
            "{:?}",
            told(&table, number)
        );
    }
    // Nor is anything else taken from them.
    let record = SignedRecord {
        key: RecordKey { kind: RecordKind::Member, key: peer(8).as_bytes().to_vec(), author: peer(1) },
        version: 1,
        written: UnixMillis(0),
        value: Some(b"trusted".to_vec()),
        signature: Vec::new(),
    };
    table.handle(Event::Message(peer(1), PeerMessage::Records(vec![record])));
    table.handle(Event::Message(peer(1), PeerMessage::Leaving));
    assert_eq!(table.machine.trusted(), [peer(0)]);
    let mut pin = pins(&mut table, 1, copies(4, 4));
    pin.placement.sort_unstable();
    assert_eq!(pin.placement, sorted(&[0, 1, 2, 3]), "still there");
}

#[test]
fn a_go_peer_that_became_a_pinfold_peer_is_a_member_with_its_place_in_the_pins() {
    let mut table = among_go();
    table.wish(pin_on(cid(1), &[peer(1), peer(2)], copies(2, 2)));
    table.handle(Event::Ours(peer(1)));
    let go = |number| GoMember { peer: peer(number), is_trusted: true };
    table.handle(Event::GoPeers(vec![go(2), go(3)]));
    table.effects.clear();
    table.handle(Event::Link(peer(1), LinkState::Up));
    table.handle(Event::Message(peer(1), hello(ROOM, 0, false)));
    table.pass(Millis(10));
    assert!(told(&table, 1).iter().any(|message| matches!(message, PeerMessage::Hello { .. })), "as to any member");
    let mut shown: Vec<PeerId> = table.machine.peers(table.now).iter().map(|row| row.peer).collect();
    shown.sort_unstable();
    assert_eq!(shown, sorted(&[0, 1]));
    for _ in 0..500 {
        table.handle(Event::Message(peer(1), hello(ROOM, 0, false)));
        say(&mut table, &[2, 3]);
        table.pass(Millis::seconds(2));
    }
    table.accept_writes();
    assert_eq!(placement(&table, 1), sorted(&[1, 2]));
}

#[test]
fn copies_spread_over_the_groups_that_go_peers_name() {
    let mut table = among_go();
    let placed = |table: &mut Table, number: u64| {
        table.handle(Event::Command(
            RequestId(number),
            Command::Pin { cid: cid(number), options: copies(2, 2), depth: Depth::Recursive, size: None, lease: None },
        ));
        let pinned = |effect: &Effect| match effect {
            Effect::Submit(_, changes) => changes.iter().find_map(|change| match change {
                crate::Change::Put(pin) if pin.cid == cid(number) => Some(pin.placement.clone()),
                _ => None,
            }),
            _ => None,
        };
        table.effects.iter().rev().find_map(pinned).expect("written")
    };
    let both = |placement: &[PeerId]| placement.contains(&peer(1)) && placement.contains(&peer(2));
    assert!((0..60).any(|number| both(&placed(&mut table, number))), "without groups they are as good as any");
    let groups = [(1, "rack1"), (2, "rack1"), (3, "rack2")].map(|(number, group)| (peer(number), group.to_owned()));
    table.handle(Event::Domains(groups.into()));
    assert!((100..160).all(|number| !both(&placed(&mut table, number))));
}
