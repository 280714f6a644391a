//! One machine on a table: duties, drains, balancing, and repair whose alarm was lost.

use crate::testing::{Table, cid, hello, peer, pin_on};
use crate::{Change, Command, Duty, Effect, Event, LinkState, Options, RepairLimits};
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use types::{
    ByteCount, Cid, HoldingReport, Load, Millis, Offer, PeerId, PeerMessage, Pin, PinOptions, RecordKey, RecordKind, Replicas,
    SignedRecord, UnixMillis,
};

const MIB: u64 = 1 << 20;

fn two() -> PinOptions {
    PinOptions { replicas: Replicas::exactly(NonZeroU32::new(2).expect("two")), ..PinOptions::default() }
}

/// Peer 0 with three others that are up, have 100 MiB each and answered that all is well.
fn four() -> Table {
    four_with(false)
}

/// The same; whether it balances by itself.
fn four_with(balances: bool) -> Table {
    four_limited(RepairLimits { balances, ..RepairLimits::default() })
}

fn four_limited(repair: RepairLimits) -> Table {
    let options = Options { members: (1..4).map(peer).collect(), repair, verify: |_| true, ..Options::new(peer(0), "zero", "test") };
    let mut table = Table::started(options);
    table.handle(Event::Space { limit: ByteCount(100 * MIB), used: ByteCount(0), upkeep: ByteCount(0) });
    for other in (1..4).map(peer) {
        table.handle(Event::Link(other, LinkState::Up));
        table.handle(Event::Message(other, says(0)));
        table.pass(Millis(10));
        let question = table.effects.iter().rev().find_map(|effect| match effect {
            Effect::Tell(to, PeerMessage::AskHoldings { question, .. }) if *to == other => Some(*question),
            _ => None,
        });
        let report = HoldingReport { incarnation: 1, complete: Some(0), answer: question.expect("asked in full"), copies: Vec::new() };
        table.handle(Event::Message(other, PeerMessage::Holdings(report)));
    }
    table
}

/// A hello of a peer with 100 MiB that has so many of them.
fn says(placed: u64) -> PeerMessage {
    let mut message = hello(100 * MIB, placed * MIB, false);
    if let PeerMessage::Hello { load, .. } = &mut message {
        *load = Some(Load { copies: placed, placed: ByteCount(placed * MIB), ..Load::default() });
    }
    message
}

/// The others talk while time passes, and say that they have so much.
fn pass_with(table: &mut Table, others: &[(u8, u64)], seconds: u64) {
    for _ in 0..seconds {
        for (other, placed) in others {
            table.handle(Event::Message(peer(*other), says(*placed)));
        }
        table.pass(Millis::seconds(1));
    }
}

fn decide(table: &mut Table, author: u8, about: u8, version: u64, duty: Duty) {
    let record = SignedRecord {
        key: RecordKey { kind: RecordKind::Duty, key: peer(about).as_bytes().to_vec(), author: peer(author) },
        version,
        written: UnixMillis(0),
        value: Some(duty.as_str().as_bytes().to_vec()),
        signature: Vec::new(),
    };
    if author == 0 {
        table.command(1, Command::SetRecord { record });
    } else {
        table.handle(Event::Message(peer(author), PeerMessage::Records(vec![record])));
    }
}

/// What it wrote since the last look.
fn written(table: &mut Table) -> Vec<Pin> {
    let effects = std::mem::take(&mut table.effects);
    let (writes, others): (Vec<Effect>, Vec<Effect>) = effects.into_iter().partition(|effect| matches!(effect, Effect::Submit(..)));
    table.effects = others;
    let changes = writes.into_iter().filter_map(|effect| if let Effect::Submit(_, changes) = effect { Some(changes) } else { None });
    changes.flatten().filter_map(|change| if let Change::Put(pin) = change { Some(*pin) } else { None }).collect()
}

/// Ten pins of one MiB on the own peer and peer 1, held by both.
fn ten(table: &mut Table) -> Vec<Cid> {
    let cids: Vec<Cid> = (0..10).map(cid).collect();
    for cid in &cids {
        let version = table.wish(pin_on(*cid, &[peer(0), peer(1)], two()));
        table.shelf.sizes.insert(cid.to_bytes(), ByteCount(MIB));
        holds(table, peer(1), *cid, version);
    }
    // A full round counts the sizes.
    pass_with(table, &[(1, 10), (2, 0), (3, 0)], 610);
    table.effects.clear();
    cids
}

#[test]
fn a_drained_peer_re_places_its_own_copies_whoever_decided_it() {
    let mut table = four();
    let cids = ten(&mut table);
    decide(&mut table, 2, 0, 1, Duty::Draining);
    pass_with(&mut table, &[(1, 10), (2, 0), (3, 0)], 15);
    let moved = written(&mut table);
    assert_eq!(moved.len(), cids.len());
    assert!(moved.iter().all(|pin| pin.placement.len() == 2 && pin.placement[0] == peer(1) && pin.placement[1] != peer(0)));
}

#[test]
fn a_drain_that_is_turned_back_moves_nothing_more() {
    let mut table = four();
    ten(&mut table);
    decide(&mut table, 2, 0, 1, Duty::Draining);
    decide(&mut table, 3, 0, 2, Duty::InUse);
    pass_with(&mut table, &[(1, 10), (2, 0), (3, 0)], 60);
    assert!(written(&mut table).iter().all(|pin| pin.placement.contains(&peer(0))));
    assert_eq!(table.machine.next_version(RecordKind::Duty, peer(0).as_bytes()), 3);
}

#[test]
fn decisions_survive_a_restart() {
    let mut table = four();
    decide(&mut table, 0, 0, 1, Duty::Cordoned);
    let records: Vec<SignedRecord> =
        table.effects.iter().filter_map(|effect| if let Effect::Record(record) = effect { Some(record.clone()) } else { None }).collect();
    let options = Options { records, ..Options::new(peer(0), "zero", "test") };
    let again = Table::started(options);
    assert_eq!(again.machine.peers(again.now)[0].duty, Duty::Cordoned);
}

#[test]
fn who_has_too_much_gives_to_the_empty_and_stops() {
    let mut table = four();
    ten(&mut table);
    // Shares of 20 MiB over four peers of 100 MiB: 5 each. The own excess is 5, as is that of peer 1.
    let balance = SignedRecord {
        key: RecordKey { kind: RecordKind::Balance, key: Vec::new(), author: peer(2) },
        version: 1,
        written: UnixMillis(0),
        value: Some(b"now".to_vec()),
        signature: Vec::new(),
    };
    table.handle(Event::Message(peer(2), PeerMessage::Records(vec![balance])));
    pass_with(&mut table, &[(1, 10), (2, 0), (3, 0)], 12);
    assert!(written(&mut table).is_empty(), "nobody has agreed yet");
    let taken = take_all(&mut table);
    assert!(taken.iter().all(|(to, _)| [2, 3].contains(to)) && !taken.is_empty(), "{taken:?}");
    pass_with(&mut table, &[(1, 10), (2, 0), (3, 0)], 2);
    let moved = written(&mut table);
    assert!((4..=5).contains(&moved.len()), "{} moved", moved.len());
    assert!(moved.iter().all(|pin| pin.placement[0] == peer(1) && [peer(2), peer(3)].contains(&pin.placement[1])));
    for pin in moved {
        let version = table.wish(pin.clone());
        holds(&mut table, pin.placement[1], pin.cid, version);
        holds(&mut table, peer(1), pin.cid, version);
    }
    pass_with(&mut table, &[(1, 5), (2, 5), (3, 5)], 12);
    let is_end = |effect: &&Effect| matches!(effect, Effect::Tell(_, PeerMessage::Offer(offer)) if offer.bytes == ByteCount(0));
    assert_eq!(table.effects.iter().filter(is_end).count(), taken.len(), "every shipment was ended");
    table.effects.clear();
    pass_with(&mut table, &[(1, 5), (2, 5), (3, 5)], 700);
    assert!(written(&mut table).is_empty() && offers(&table).is_empty());
}

/// Offers that it made since the last look.
fn offers(table: &Table) -> Vec<(PeerId, Offer)> {
    let offer = |effect: &Effect| match effect {
        Effect::Tell(to, PeerMessage::Offer(offer)) if offer.bytes > ByteCount(0) => Some((*to, *offer)),
        _ => None,
    };
    table.effects.iter().filter_map(offer).collect()
}

/// Everybody takes everything that was offered; who, and how many copies of a MiB.
fn take_all(table: &mut Table) -> Vec<(u8, u64)> {
    let offers = offers(table);
    for (to, Offer { shipment, bytes, .. }) in &offers {
        table.handle(Event::Message(*to, PeerMessage::Take { shipment: *shipment, bytes: *bytes }));
    }
    offers.iter().map(|(to, offer)| (to.ed25519().expect("a key")[0], offer.bytes.get() / MIB)).collect()
}

/// A peer says that it holds this.
fn holds(table: &mut Table, other: PeerId, cid: Cid, version: u64) {
    let copy =
        types::CopyState { cid, version, state: types::PinState::Pinned, because: None, next_try: None, tries: 0, since: UnixMillis(0) };
    let report = HoldingReport { incarnation: 1, complete: None, answer: 0, copies: vec![copy] };
    table.handle(Event::Message(other, PeerMessage::Holdings(report)));
}

#[test]
fn by_itself_it_gives_to_who_is_clearly_below_its_share_what_that_one_agrees_to_take() {
    let mut table = four_with(true);
    ten(&mut table);
    let mut made = 0;
    while made < 2 {
        table.effects.clear();
        pass_with(&mut table, &[(1, 10), (2, 0), (3, 0)], 1);
        made += usize::from(!offers(&table).is_empty());
        assert!(table.now.mono < Millis::minutes(30), "who does not answer is asked again");
    }
    let all: u64 = offers(&table).iter().map(|(_, offer)| offer.bytes.get()).sum();
    let (to, offer) = offers(&table)[0];
    assert_eq!(offer.placed.get() + all, 10 * MIB, "what stays is told with it");
    assert!(written(&mut table).is_empty());
    // An answer to another shipment, one of a part, and one that comes too late.
    for (number, bytes, expected) in [(offer.shipment + 100, 5, 0), (offer.shipment, 2, 2), (offer.shipment, 5, 0)] {
        table.handle(Event::Message(to, PeerMessage::Take { shipment: number, bytes: ByteCount(bytes * MIB) }));
        pass_with(&mut table, &[(1, 10), (2, 0), (3, 0)], 1);
        assert_eq!(written(&mut table).len(), expected);
    }
}

/// Peer 3, which has four more pins, is lost; whether something is offered to peer 2, which has nothing, in the minutes after that.
fn offers_after_a_loss(repair: RepairLimits) -> bool {
    let mut table = four_limited(repair);
    let lost: Vec<Cid> = (20..24).map(cid).collect();
    for cid in &lost {
        let version = table.wish(pin_on(*cid, &[peer(0), peer(3)], two()));
        table.shelf.sizes.insert(cid.to_bytes(), ByteCount(MIB));
        holds(&mut table, peer(3), *cid, version);
    }
    ten(&mut table);
    let mut offered = 0;
    for _ in 0..1_000 {
        if table.machine.peers(table.now).iter().any(|row| row.peer == peer(3) && row.health == crate::PeerHealth::Down) {
            offered += offers(&table).len();
        }
        table.effects.clear();
        pass_with(&mut table, &[(1, 10), (2, 0)], 1);
    }
    offered > 0
}

#[test]
fn nothing_is_offered_while_lost_copies_wait_for_their_repair() {
    assert!(offers_after_a_loss(RepairLimits::default()), "after the repair was ordered it goes on");
    assert!(!offers_after_a_loss(RepairLimits { bytes_per_minute: 0, ..RepairLimits::default() }));
}

#[test]
fn who_does_not_tell_its_limit_is_offered_a_share_and_not_everything() {
    let mut table = four_with(true);
    ten(&mut table);
    let mut unlimited = says(0);
    if let PeerMessage::Hello { space_limit, .. } = &mut unlimited {
        *space_limit = ByteCount(0);
    }
    let mut offered = BTreeMap::new();
    for _ in 0..120 {
        table.effects.clear();
        table.handle(Event::Message(peer(2), unlimited.clone()));
        pass_with(&mut table, &[(1, 10), (3, 0)], 1);
        offered.extend(offers(&table).iter().map(|(to, offer)| (*to, offer.bytes.get() / MIB)));
    }
    // Twenty in all: a share is five.
    assert!(offered.values().sum::<u64>() <= 5 && !offered.is_empty(), "{offered:?}");
}

#[test]
fn who_refuses_is_left_alone_for_longer_and_longer() {
    let mut table = four_with(true);
    ten(&mut table);
    let mut asked = Vec::new();
    for second in 0..3_600u64 {
        for (to, Offer { shipment, .. }) in offers(&table) {
            asked.push((to, second));
            table.handle(Event::Message(to, PeerMessage::Take { shipment, bytes: ByteCount(0) }));
        }
        table.effects.clear();
        pass_with(&mut table, &[(1, 10), (2, 0), (3, 0)], 1);
    }
    let of = |number: u8| asked.iter().filter(|(to, _)| *to == peer(number)).map(|(_, second)| *second).collect::<Vec<_>>();
    assert!((3..=12).contains(&of(2).len()), "in an hour: {:?}", of(2));
    assert!(of(2).windows(3).all(|times| times[2] - times[1] + 30 >= times[1] - times[0]), "{:?}", of(2));
}

#[test]
fn two_givers_do_not_fill_the_same_place() {
    let mut table = four();
    // A walk counts copies; the own load is known after a round.
    table.wish(pin_on(cid(1), &[peer(1), peer(2)], two()));
    pass_with(&mut table, &[(1, 12), (2, 12), (3, 12)], 660);
    let offer = |shipment: u64, mebibytes: u64| Offer {
        shipment,
        bytes: ByteCount(mebibytes * MIB),
        least: ByteCount(MIB),
        placed: ByteCount(9 * MIB),
        capacity: ByteCount(100 * MIB),
    };
    let mut ask = |giver: u8, offer: Offer| {
        table.effects.clear();
        table.handle(Event::Message(peer(giver), PeerMessage::Offer(offer)));
        let answer = |effect: &Effect| match effect {
            Effect::Tell(to, PeerMessage::Take { shipment, bytes }) if (*to, *shipment) == (peer(giver), offer.shipment) => {
                Some(bytes.get() / MIB)
            }
            _ => None,
        };
        table.effects.iter().find_map(answer)
    };
    // It has nothing, and its share of 36 MiB is 9.
    assert_eq!(ask(1, offer(1, 3)), Some(3));
    assert_eq!(ask(2, offer(1, 10)), Some(6), "what is on its way counts");
    assert_eq!(ask(3, offer(1, 3)), Some(0));
    assert_eq!(ask(2, offer(1, 10)), Some(6), "asked again, the answer is the same");
    assert_eq!(ask(2, offer(1, 1)), Some(1), "most of it has come");
    assert_eq!(ask(3, offer(2, 3)), Some(3));
    assert_eq!(ask(3, offer(2, 0)), None);
    assert_eq!(ask(1, offer(2, 9)), Some(8), "a new shipment takes the place of the one before");
}

#[test]
fn who_is_cordoned_takes_nothing() {
    let mut table = four();
    table.wish(pin_on(cid(1), &[peer(1), peer(2)], two()));
    pass_with(&mut table, &[(1, 12), (2, 12), (3, 12)], 660);
    decide(&mut table, 2, 0, 1, Duty::Cordoned);
    table.effects.clear();
    let offer =
        Offer { shipment: 1, bytes: ByteCount(MIB), least: ByteCount(MIB), placed: ByteCount(9 * MIB), capacity: ByteCount(100 * MIB) };
    table.handle(Event::Message(peer(1), PeerMessage::Offer(offer)));
    let answer = |effect: &Effect| matches!(effect, Effect::Tell(_, PeerMessage::Take { bytes, .. }) if *bytes == ByteCount(0));
    assert!(table.effects.iter().any(answer));
}

#[test]
fn a_lost_holder_is_replaced_within_a_second_of_being_known_lost() {
    let mut table = four();
    ten(&mut table);
    let mut first = None;
    for second in 0..700 {
        pass_with(&mut table, &[(2, 0), (3, 0)], 1);
        let is_down = table.effects.iter().any(|effect| matches!(effect, Effect::Note(crate::Notice::PeerDown(_))));
        first = first.or(is_down.then_some(second));
        if first.is_some_and(|first| second > first) {
            break;
        }
    }
    assert!(first.is_some());
    assert!(!written(&mut table).is_empty());
}

#[test]
fn a_lost_copy_whose_alarm_was_lost_is_found_by_the_slow_walk() {
    let mut table = four();
    // Peer 1 is silent beyond its grace, and the walk that this begins is over.
    pass_with(&mut table, &[(2, 0), (3, 0)], 1_300);
    table.effects.clear();
    // A pin on it comes into the wish, and no hint tells of it.
    for number in 0..20 {
        table.shelf.pins.insert(cid(number).to_bytes(), (pin_on(cid(number), &[peer(1), peer(2)], two()), number + 1));
    }
    pass_with(&mut table, &[(2, 0), (3, 0)], 1_300);
    let written = written(&mut table);
    // Those for which this peer is the first in rank, at least.
    assert!(!written.is_empty());
    assert!(written.iter().all(|pin| !pin.placement.contains(&peer(1)) && pin.placement.contains(&peer(2)) && pin.placement.len() == 2));
}
