//! Adds on one machine: who is asked, who is chosen, what is freed.

use crate::testing::{Table, cid, hello, peer};
use crate::{Answer, Command, Effect, Event, LinkState, Missing, Options};
use std::num::NonZeroU32;
use types::{ByteCount, Depth, Millis, PeerId, PeerMessage, PinOptions, Refusal, Replicas};

fn three_copies() -> PinOptions {
    PinOptions { replicas: Replicas::exactly(NonZeroU32::new(3).expect("three")), ..PinOptions::default() }
}

fn measure(table: &mut Table) {
    table.handle(Event::Space { limit: ByteCount(1 << 40), used: ByteCount(0), upkeep: ByteCount(0) });
}

fn table(members: u8) -> Table {
    let mut table = Table::started(Options { members: (1..members).map(peer).collect(), ..Options::new(peer(0), "", "") });
    measure(&mut table);
    for number in 1..members {
        table.handle(Event::Link(peer(number), LinkState::Up));
        table.handle(Event::Message(peer(number), hello(1 << 40, 0, false)));
    }
    table.effects.clear();
    table
}

/// Peers asked since the last look, with their lease.
fn asked(table: &mut Table) -> Vec<(PeerId, u64)> {
    let asked = table.effects.iter().filter_map(|effect| match effect {
        Effect::Tell(peer, PeerMessage::Reserve { lease, .. }) => Some((*peer, *lease)),
        _ => None,
    });
    let asked = asked.collect();
    table.effects.retain(|effect| !matches!(effect, Effect::Tell(_, PeerMessage::Reserve { .. })));
    asked
}

fn grant(table: &mut Table, asked: &[(PeerId, u64)], refused: Option<Refusal>) {
    for (peer, lease) in asked {
        table.handle(Event::Message(*peer, PeerMessage::Reserved { lease: *lease, refused: refused.clone() }));
    }
}

fn placed(table: &Table) -> Option<(u64, Vec<PeerId>)> {
    table.effects.iter().rev().find_map(|effect| match effect {
        Effect::Answer(_, Answer::Placed { lease, holders, .. }) => Some((*lease, holders.clone())),
        _ => None,
    })
}

/// An add with three copies among eight peers whose holders have granted.
fn begun() -> (Table, u64, Vec<PeerId>) {
    let mut table = table(8);
    table.command(1, Command::Place { options: three_copies(), size: Some(ByteCount(1000)) });
    let first = asked(&mut table);
    grant(&mut table, &first, None);
    let (lease, holders) = placed(&table).expect("placed");
    (table, lease, holders)
}

#[test]
fn holders_are_answered_once_all_have_granted() {
    let mut table = table(8);
    table.command(1, Command::Place { options: three_copies(), size: Some(ByteCount(1000)) });
    let first = asked(&mut table);
    grant(&mut table, &first[1..], None);
    assert_eq!(placed(&table), None);
    grant(&mut table, &first[..1], None);
    assert_eq!(placed(&table).expect("placed").1.len(), 3);
}

#[test]
fn who_refuses_or_is_silent_is_replaced() {
    for is_silent in [false, true] {
        let mut table = table(8);
        table.command(1, Command::Place { options: three_copies(), size: Some(ByteCount(1000)) });
        let first = asked(&mut table);
        grant(&mut table, &first[1..], None);
        if is_silent {
            table.pass(Millis::seconds(2));
        } else {
            grant(&mut table, &first[..1], Some(Refusal::NoRoom { free: ByteCount(1) }));
        }
        let second = asked(&mut table);
        grant(&mut table, &second, None);
        let (_, holders) = placed(&table).expect("placed");
        assert_eq!(holders.len(), 3);
        assert!(!holders.contains(&first[0].0), "silent: {is_silent}");
    }
}

#[test]
fn when_too_few_can_take_it_all_are_freed_and_the_reasons_said() {
    let mut table = table(3);
    table.command(1, Command::Place { options: three_copies(), size: Some(ByteCount(1000)) });
    let first = asked(&mut table);
    grant(&mut table, &first[..1], None);
    grant(&mut table, &first[1..], Some(Refusal::NoRoom { free: ByteCount(5) }));
    let refused = table.effects.iter().find_map(|effect| match effect {
        Effect::Answer(_, Answer::Refused(missing)) => Some(missing.clone()),
        _ => None,
    });
    let Some(Missing::NotEnoughPeers { needed: 3, candidates: 2, detail, .. }) = refused else { panic!("{refused:?}") };
    assert!(detail.contains("free 5 B)"), "{detail}");
    assert!(table.effects.iter().any(|effect| matches!(effect, Effect::Tell(peer, PeerMessage::Release { .. }) if *peer == first[0].0)));
    measure(&mut table);
    assert_eq!(table.machine.peers(table.now)[0].space_reserved, ByteCount(0));
}

#[test]
fn growing_asks_for_more_and_a_refusal_brings_a_new_holder() {
    let (mut table, lease, holders) = begun();
    table.command(2, Command::Grow { lease, bytes: ByteCount(5000) });
    let again = asked(&mut table);
    grant(&mut table, &again, None);
    assert!(table.effects.iter().any(|effect| matches!(effect, Effect::Answer(_, Answer::Done))));
    table.command(3, Command::Grow { lease, bytes: ByteCount(9000) });
    let again = asked(&mut table);
    grant(&mut table, &again[1..], None);
    grant(&mut table, &again[..1], Some(Refusal::Draining));
    let new = asked(&mut table);
    assert_eq!(new.len(), 1);
    grant(&mut table, &new, None);
    let (_, after) = placed(&table).expect("placed anew");
    assert!(after.len() == 3 && after != holders && !after.contains(&again[0].0));
}

#[test]
fn a_broken_lane_gets_a_new_holder() {
    let (mut table, lease, holders) = begun();
    let broken = holders[0];
    table.command(2, Command::Replace { lease, broken });
    let new = asked(&mut table);
    grant(&mut table, &new, None);
    let (_, after) = placed(&table).expect("placed anew");
    assert!(after.len() == 3 && !after.contains(&broken));
}

#[test]
fn the_pin_of_an_add_keeps_its_holders_and_frees_the_rest() {
    let (mut table, lease, holders) = begun();
    table.command(2, Command::Pin { cid: cid(1), options: three_copies(), depth: Depth::Recursive, size: None, lease: Some(lease) });
    table.accept_writes();
    let pin = &table.shelf.pins[&cid(1).to_bytes()].0;
    assert_eq!(pin.placement, holders);
    let released = table.effects.iter().filter(|effect| matches!(effect, Effect::Tell(_, PeerMessage::Release { .. }))).count();
    assert_eq!(released, holders.iter().filter(|holder| **holder != peer(0)).count());
}

#[test]
fn a_forgotten_add_ends_by_itself() {
    let (mut table, lease, _) = begun();
    table.pass(Millis::minutes(11));
    table.command(2, Command::Grow { lease, bytes: ByteCount(5000) });
    assert!(table.effects.iter().any(|effect| matches!(effect, Effect::Answer(_, Answer::Refused(Missing::BadWish(_))))));
}
