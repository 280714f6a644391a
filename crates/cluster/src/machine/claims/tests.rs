use crate::owner::{Claim, has_owners, register_key};
use crate::testing::{Table, cid, peer};
use crate::{Change, Command, Effect, Event, Options};
use std::num::NonZeroU32;
use types::{ByteCount, Cid, Millis, Pin, PinOptions, RecordKey, RecordKind, Replicas, SignedRecord, UnixMillis};

fn table() -> Table {
    let mut table = Table::started(Options { verify: |_| true, ..Options::new(peer(0), "zero", "test") });
    table.handle(Event::Space { limit: ByteCount(1 << 40), used: ByteCount(0), upkeep: ByteCount(0) });
    table
}

fn claims(table: &mut Table, request: u64, owner: &str, version: u64, claimed: Option<Cid>) {
    let replicas = Replicas::exactly(NonZeroU32::MIN);
    let value = claimed.map(|cid| Claim { cid, replicas, expires: None }.encode());
    let key = RecordKey { kind: RecordKind::Claim, key: register_key(owner, "a"), author: peer(0) };
    let record = SignedRecord { key, version, written: UnixMillis(0), value, signature: Vec::new() };
    table.command(request, Command::SetRecord { record });
}

fn follow(table: &mut Table, request: u64, cid: Cid) {
    table.command(request, Command::FollowClaims { cid, wished: Box::default() });
    table.accept_writes();
}

fn pin(table: &Table, cid: Cid) -> Option<Pin> {
    table.shelf.pins.get(&cid.to_bytes()).map(|(pin, _)| pin.clone())
}

fn removes(table: &Table, cid: Cid) -> bool {
    let is_it = |change: &Change| matches!(change, Change::Remove(removed) if *removed == cid);
    table.effects.iter().any(|effect| matches!(effect, Effect::Submit(_, changes) if changes.iter().any(is_it)))
}

#[test]
fn a_claimed_pin_that_somebody_removes_comes_back_and_is_never_let_go() {
    let mut table = table();
    claims(&mut table, 1, "anna", 1, Some(cid(7)));
    follow(&mut table, 2, cid(7));
    table.pass(Millis::seconds(2));
    assert!(table.holds(&cid(7)) && pin(&table, cid(7)).is_some_and(|pin| has_owners(&pin)));
    let lets_go = |table: &Table| table.effects.iter().any(|effect| matches!(effect, Effect::Node(_, crate::NodeOp::Unpin { .. })));
    table.effects.clear();
    table.unwish(cid(7));
    table.pass(Millis(10));
    assert!(table.holds(&cid(7)) && !lets_go(&table));
    table.accept_writes();
    table.pass(Millis::minutes(30));
    assert!(pin(&table, cid(7)).is_some() && table.holds(&cid(7)) && !lets_go(&table));
    // With the claim the pin goes, and the copy.
    claims(&mut table, 3, "anna", 2, None);
    follow(&mut table, 4, cid(7));
    table.pass(Millis::minutes(30));
    assert!(pin(&table, cid(7)).is_none() && !table.holds(&cid(7)));
}

#[test]
fn who_was_asked_for_a_claim_and_died_is_made_good_by_the_others() {
    let mut table = table();
    claims(&mut table, 1, "anna", 1, Some(cid(7)));
    table.pass(Millis::seconds(5));
    assert!(pin(&table, cid(7)).is_none(), "whoever was asked writes it");
    table.pass(Millis::seconds(10));
    table.accept_writes();
    assert!(pin(&table, cid(7)).is_some_and(|pin| has_owners(&pin)));
    // The same when it was released.
    claims(&mut table, 2, "anna", 2, None);
    table.pass(Millis::seconds(15));
    assert!(removes(&table, cid(7)));
}

#[test]
fn a_claim_released_meanwhile_lets_the_removed_pin_go() {
    let mut table = table();
    claims(&mut table, 1, "anna", 1, Some(cid(7)));
    follow(&mut table, 2, cid(7));
    table.pass(Millis::seconds(2));
    table.unwish(cid(7));
    claims(&mut table, 3, "anna", 2, None);
    table.effects.retain(|effect| !matches!(effect, Effect::Submit(..)));
    table.pass(Millis::minutes(30));
    assert!(!table.holds(&cid(7)) && pin(&table, cid(7)).is_none());
}

#[test]
fn a_wish_of_the_cluster_keeps_the_owners() {
    let mut table = table();
    claims(&mut table, 1, "anna", 1, Some(cid(7)));
    follow(&mut table, 2, cid(7));
    let options = PinOptions { name: "mine".to_owned(), ..PinOptions::default() };
    table.command(3, Command::Pin { cid: cid(7), options, depth: types::Depth::Recursive, size: None, lease: None });
    table.accept_writes();
    assert!(pin(&table, cid(7)).is_some_and(|pin| has_owners(&pin) && pin.options.name == "mine"));
    table.command(4, Command::Unpin { cid: cid(7) });
    table.accept_writes();
    assert!(pin(&table, cid(7)).is_some_and(|pin| has_owners(&pin) && pin.options.name == "a"));
    table.command(5, Command::Unpin { cid: cid(7) });
    table.accept_writes();
    assert!(pin(&table, cid(7)).is_some(), "it is kept for its owner alone");
}
