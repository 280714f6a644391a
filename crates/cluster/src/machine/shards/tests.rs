//! Roots with shards on one machine: written with their units, told as one, removed as one.

use crate::machine::{NewRoot, NewUnit};
use crate::shards::{Belongs, owners};
use crate::testing::{Table, cid, hello, peer, pin_on};
use crate::{Answer, Command, Effect, Event, LinkState, Missing, Options};
use std::num::NonZeroU32;
use types::{ByteCount, Cid, Depth, HoldingReport, Millis, PeerId, PeerMessage, Pin, PinKind, PinOptions, PinState, Replicas};

fn copies(least: u32, most: u32) -> PinOptions {
    let number = |count| NonZeroU32::new(count).expect("not zero");
    PinOptions { replicas: Replicas::Between { least: number(least), most: number(most) }, ..PinOptions::default() }
}

/// Three peers with so much room, all known; the own one has the number 0.
fn table(room: u64) -> Table {
    let mut table = Table::started(Options { members: (1..3).map(peer).collect(), ..Options::new(peer(0), "zero", "test") });
    table.handle(Event::Space { limit: ByteCount(room), used: ByteCount(0), upkeep: ByteCount(0) });
    for number in 1..3 {
        table.handle(Event::Link(peer(number), LinkState::Up));
        table.handle(Event::Message(peer(number), hello(room, 0, false)));
        table.pass(Millis(10));
        let question = table.effects.iter().rev().find_map(|effect| match effect {
            Effect::Tell(to, PeerMessage::AskHoldings { question, .. }) if *to == peer(number) => Some(*question),
            _ => None,
        });
        let report = HoldingReport { incarnation: 1, complete: Some(0), answer: question.expect("asked in full"), copies: Vec::new() };
        table.handle(Event::Message(peer(number), PeerMessage::Holdings(report)));
    }
    table.effects.clear();
    table
}

fn answer(table: &Table) -> &Answer {
    let answers = table.effects.iter().rev().find_map(|effect| match effect {
        Effect::Answer(_, answer) => Some(answer),
        _ => None,
    });
    answers.expect("an answer")
}

fn unit(number: u32, list: u64) -> NewUnit {
    NewUnit { cid: cid(list), number, is_spine: false, bytes: ByteCount(1000) }
}

/// Places a unit of an add on this peer or whoever is chosen, and pins it.
fn add_unit(table: &mut Table, add: &str, unit: &NewUnit, options: PinOptions) {
    table.command(1, Command::Place { options, size: Some(ByteCount(1000)) });
    let asked: Vec<(PeerId, u64)> = table
        .effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Tell(peer, PeerMessage::Reserve { lease, .. }) => Some((*peer, *lease)),
            _ => None,
        })
        .collect();
    for (peer, lease) in asked {
        table.handle(Event::Message(peer, PeerMessage::Reserved { lease, refused: None }));
    }
    let Answer::Placed { lease, .. } = answer(table) else { panic!("{:?}", answer(table)) };
    let lease = *lease;
    table.command(2, Command::PinUnit { lease, add: add.to_owned(), unit: unit.clone() });
    table.accept_writes();
    table.command(3, Command::Release { lease, is_kept: true });
    table.effects.clear();
}

/// A root over these lists, added as a whole.
fn add_root(table: &mut Table, root: u64, lists: &[u64], options: PinOptions) {
    let add = format!("add-{root}");
    let units: Vec<NewUnit> = lists.iter().enumerate().map(|(index, list)| unit(index as u32 + 1, *list)).collect();
    for unit in &units {
        add_unit(table, &add, unit, options.clone());
    }
    let root = NewRoot { root: cid(root), options, add, head: cid(root + 500), units, size: ByteCount(5000) };
    let command = Command::PinRoot(Box::new(root));
    table.command(4, command);
    table.accept_writes();
    assert!(matches!(answer(table), Answer::Pinned(pin) if pin.kind == PinKind::Meta), "{:?}", answer(table));
    table.effects.clear();
}

/// The others keep talking meanwhile.
fn pass_minutes(table: &mut Table, minutes: u32) {
    for _ in 0..minutes {
        for other in 1..3 {
            table.handle(Event::Message(peer(other), hello(1 << 40, 0, false)));
        }
        table.pass(Millis::minutes(1));
        table.accept_writes();
    }
}

fn pin(table: &Table, number: u64) -> Option<Pin> {
    table.shelf.pins.get(&cid(number).to_bytes()).map(|(pin, _)| pin.clone())
}

fn roots_of(table: &Table, number: u64) -> Vec<Cid> {
    let mut roots: Vec<Cid> = owners(&pin(table, number).expect("pinned")).iter().filter_map(Belongs::root).collect();
    roots.sort();
    roots
}

#[test]
fn units_end_by_themselves_until_their_root_is_pinned() {
    let mut table = table(1 << 40);
    add_unit(&mut table, "add-1", &unit(1, 11), copies(1, 1));
    let under_way = pin(&table, 11).expect("pinned");
    assert_eq!(under_way.kind, PinKind::Shard);
    assert!(under_way.options.expires.is_some_and(|end| end > table.now.wall));
    assert_eq!(under_way.placement.len(), 1);
    let root = |units| {
        let add = "add-1".to_owned();
        Command::PinRoot(Box::new(NewRoot { root: cid(1), options: copies(1, 1), add, head: cid(501), units, size: ByteCount(9) }))
    };
    table.command(4, root(vec![unit(1, 11), unit(2, 12)]));
    assert!(matches!(answer(&table), Answer::Refused(Missing::BadWish(why)) if why.contains("shard 2")), "a unit that is gone");
    table.command(5, root(vec![unit(1, 11)]));
    table.accept_writes();
    assert_eq!(pin(&table, 11).expect("pinned").options.expires, None);
    assert_eq!(roots_of(&table, 11), [cid(1)]);
    let root = pin(&table, 1).expect("pinned");
    assert_eq!((root.kind, root.reference, root.placement.len()), (PinKind::Meta, Some(cid(501)), 0));
}

#[test]
fn units_of_an_add_that_broke_off_go_at_once_or_with_time() {
    let mut table = table(1 << 40);
    add_unit(&mut table, "add-1", &unit(1, 11), copies(1, 1));
    add_unit(&mut table, "add-2", &unit(1, 11), copies(1, 1));
    table.command(4, Command::DropUnits { add: "add-1".to_owned(), units: vec![cid(11)] });
    table.accept_writes();
    assert!(pin(&table, 11).is_some(), "another add has the same shard");
    table.pass(Millis::minutes(30));
    table.command(5, Command::RenewUnits { units: vec![cid(11)] });
    table.accept_writes();
    let ends = |table: &Table| pin(table, 11).and_then(|pin| pin.options.expires).expect("ends");
    assert!(ends(&table).0 >= table.now.wall.0 + Millis::minutes(59).0);
    pass_minutes(&mut table, 200);
    assert!(pin(&table, 11).is_none(), "nobody renewed it");
}

#[test]
fn a_root_takes_its_units_along_but_not_those_of_others() {
    let mut table = table(1 << 40);
    add_root(&mut table, 1, &[11, 12], copies(1, 1));
    add_root(&mut table, 2, &[12, 13], copies(2, 2));
    assert_eq!(
        roots_of(&table, 12),
        [cid(1), cid(2)].into_iter().collect::<std::collections::BTreeSet<_>>().into_iter().collect::<Vec<_>>()
    );
    assert_eq!(pin(&table, 12).expect("pinned").options.replicas.factors(), (2, 2), "the most copies");
    table.command(5, Command::Unpin { cid: cid(11) });
    assert!(matches!(answer(&table), Answer::Refused(_)), "a shard is no wish of its own");
    table.command(6, Command::Unpin { cid: cid(1) });
    table.accept_writes();
    assert_eq!([1, 2, 11, 12, 13].map(|number| pin(&table, number).is_some()), [false, true, false, true, true]);
    assert_eq!(roots_of(&table, 12), [cid(2)]);
    table.command(7, Command::Unpin { cid: cid(2) });
    table.accept_writes();
    assert!(table.shelf.pins.is_empty());
}

#[test]
fn a_root_that_expires_takes_its_units_along() {
    let mut table = table(1 << 40);
    let end = types::UnixMillis(table.now.wall.0 + Millis::minutes(5).0);
    add_root(&mut table, 1, &[11, 12], PinOptions { expires: Some(end), ..copies(1, 1) });
    pass_minutes(&mut table, 40);
    assert!(table.shelf.pins.is_empty(), "{:?}", table.shelf.pins.values().map(|(pin, _)| pin.cid).collect::<Vec<_>>());
}

#[test]
fn an_owner_that_a_write_elsewhere_did_not_know_is_put_back() {
    let mut table = table(1 << 40);
    add_root(&mut table, 1, &[11], copies(1, 1));
    let mut other = pin(&table, 11).expect("pinned");
    other.options.metadata.clear();
    let belongs = Belongs { owner: cid(2).to_string(), number: 1, is_spine: false, bytes: ByteCount(1000), head: Some(cid(502)) };
    crate::shards::add_owner(&mut other, &belongs);
    table.wish(other);
    table.accept_writes();
    let mut expected = vec![cid(1), cid(2)];
    expected.sort();
    assert_eq!(roots_of(&table, 11), expected);
}

#[test]
fn another_cutting_of_a_root_replaces_the_first() {
    let mut table = table(1 << 40);
    add_root(&mut table, 1, &[11, 12], copies(1, 1));
    let units = vec![unit(1, 21)];
    add_unit(&mut table, "add-x", &units[0], copies(1, 1));
    let add = "add-x".to_owned();
    let root = NewRoot { root: cid(1), options: copies(1, 1), add, head: cid(777), units, size: ByteCount(1) };
    let command = Command::PinRoot(Box::new(root));
    table.command(4, command);
    table.accept_writes();
    assert_eq!([1, 11, 12, 21].map(|number| pin(&table, number).is_some()), [true, false, false, true]);
}

#[test]
fn a_root_is_told_as_one_and_names_the_shard_that_is_out_of_reach() {
    let mut table = table(1 << 40);
    // On named peers, so that the test knows who is missed.
    let owned = |list: u64, number: u32, holder: u8| {
        let mut pin = Pin { kind: PinKind::Shard, ..pin_on(cid(list), &[peer(holder)], copies(1, 1)) };
        let belongs = Belongs { owner: cid(1).to_string(), number, is_spine: false, bytes: ByteCount(1), head: Some(cid(501)) };
        crate::shards::add_owner(&mut pin, &belongs);
        pin
    };
    for (list, number, holder) in [(11, 1, 1), (12, 2, 2)] {
        let version = table.wish(owned(list, number, holder));
        let copy = types::CopyState {
            cid: cid(list),
            version,
            state: PinState::Pinned,
            because: None,
            next_try: None,
            tries: 0,
            since: types::UnixMillis(0),
        };
        let report = HoldingReport { incarnation: 1, complete: None, answer: 0, copies: vec![copy] };
        table.handle(Event::Message(peer(holder), PeerMessage::Holdings(report)));
    }
    let root = Pin {
        kind: PinKind::Meta,
        placement: Vec::new(),
        depth: Depth::DIRECT,
        reference: Some(cid(501)),
        ..pin_on(cid(1), &[], copies(1, 1))
    };
    let version = table.wish(root.clone());
    let states: Vec<PinState> = table.machine.status_of(Some((&root, version)), &cid(1), table.now).iter().map(|row| row.state).collect();
    assert_eq!(states, [PinState::Remote, PinState::Pinned, PinState::Pinned]);
    assert_eq!(table.machine.confirmed_copies(&root, table.now), 1);
    assert!(table.machine.unreachable_pieces(table.now).is_empty());
    for _ in 0..30 {
        table.handle(Event::Message(peer(1), hello(1 << 40, 0, false)));
        table.pass(Millis::seconds(1));
    }
    let lost = table.machine.unreachable_pieces(table.now);
    let [(of, list, words)] = &lost[..] else { panic!("{lost:?}") };
    assert_eq!((of, list), (&cid(1), &cid(12)));
    assert!(words.starts_with("shard 2 of 2 of ") && words.contains("held only by") && words.ends_with("ago"), "{words}");
    let why = table.machine.explain(&root, version, table.now);
    assert!(why.summary.contains("shard 2 of 2") && why.pieces.len() == 2, "{}", why.summary);
    assert_eq!(why.confirmed, 0);
    // Handed over to the silent one, which has not confirmed it: who is heard of has it still.
    table.wish(owned(11, 1, 2));
    let lost = table.machine.unreachable_pieces(table.now);
    assert!(lost.iter().map(|(_, list, _)| *list).eq([cid(12)]), "{lost:?}");
    let why = table.machine.explain(&root, version, table.now);
    assert!(!why.summary.contains("shard 1 of 2 of"), "{}", why.summary);
    table.wish(owned(13, 3, 2));
    assert_eq!(table.machine.unreachable_pieces(table.now).len(), 2, "what nobody else has had");
}

#[test]
fn copies_of_a_root_are_those_of_its_units() {
    let mut table = table(1 << 40);
    add_root(&mut table, 1, &[11, 12], copies(1, 1));
    let options = PinOptions { name: "photos".to_owned(), ..copies(2, 2) };
    table.command(5, Command::Pin { cid: cid(1), options, depth: Depth::Recursive, size: None, lease: None });
    table.accept_writes();
    assert!(matches!(answer(&table), Answer::Pinned(_)), "{:?}", answer(&table));
    for number in [11, 12] {
        let unit = pin(&table, number).expect("pinned");
        assert_eq!((unit.placement.len(), unit.options.replicas.factors()), (2, (2, 2)));
    }
    let root = pin(&table, 1).expect("pinned");
    assert_eq!((root.kind, root.options.name.as_str()), (PinKind::Meta, "photos"));
    assert_eq!(root.options.metadata.get(crate::shards::COUNT).map(String::as_str), Some("2"));
}

#[test]
fn what_all_peers_together_cannot_hold_is_refused_with_the_numbers() {
    let mut table = table(100 << 20);
    let place = |copies: PinOptions, mebibytes: u64| Command::Place { options: copies, size: Some(ByteCount(mebibytes << 20)) };
    table.command(1, place(copies(2, 2), 160));
    assert!(
        matches!(answer(&table), Answer::Refused(Missing::NotEnoughPeers { detail, .. }) if detail.contains("300")),
        "{:?}",
        answer(&table)
    );
    table.effects.clear();
    table.command(2, place(copies(1, 1), 160));
    let reserves = table.effects.iter().any(|effect| {
        matches!(effect, Effect::Answer(_, Answer::Placed { unit, .. }) if unit.get() < 13 << 20)
            || matches!(effect, Effect::Tell(_, PeerMessage::Reserve { bytes, .. }) if bytes.get() < 13 << 20)
    });
    assert!(reserves, "larger than any peer, and no peer is asked for more than a unit: {:?}", table.effects);
}
