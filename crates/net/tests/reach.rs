//! Hosts that cannot be dialled are reached through others: seats, circuits, limits, direct connections in their place.
//!
//! Who "cannot be dialled" here listens nowhere; on loopback that is what a NAT comes to. A NAT itself is in `compat/nat`.
#![allow(clippy::unwrap_used, reason = "a test may stop at anything unexpected")]

mod common;

use common::{TCP, options, start, wait_for, with_psk};
use net::{Host, HostOptions, OpenError, Path, Reachability, Reachable, RelayFor, Stream};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use types::PeerId;

const ECHO: &str = "/test/echo";

/// What relays: its owner says that it can be dialled.
fn relay(base: HostOptions) -> HostOptions {
    let mut options = member(base);
    options.reach.reachable = Reachable::Yes;
    options
}

/// What nobody can dial.
fn hidden(base: HostOptions) -> HostOptions {
    let mut options = behind(base);
    options.listen.clear();
    options
}

/// What listens, and still takes a seat.
fn behind(base: HostOptions) -> HostOptions {
    let mut options = member(base);
    options.reach.reachable = Reachable::No;
    options
}

/// A member that soon asks others to dial it back, and takes loopback for the outside.
fn asking(number: u8) -> HostOptions {
    let mut options = member(options(number));
    options.reach.private_is_outside = true;
    options.reach.ask_every = Duration::from_millis(500);
    options
}

fn member(mut options: HostOptions) -> HostOptions {
    options.reach.is_member = Arc::new(|_| true);
    options.keep_all = true;
    options
}

async fn echoing(options: HostOptions) -> Host {
    let (host, _) = start(options).await;
    let mut incoming = host.accept(&[ECHO]).unwrap();
    tokio::spawn(async move {
        while let Some((_, _, stream)) = incoming.next().await {
            tokio::spawn(echo(stream));
        }
    });
    host
}

async fn echo(stream: Stream) {
    let (mut from, mut to) = tokio::io::split(stream);
    let _ = tokio::io::copy(&mut from, &mut to).await;
    let _ = to.shutdown().await;
}

/// Sends so many bytes there and reads them back.
async fn pass(from: &Host, to: PeerId, length: usize) -> std::io::Result<usize> {
    let (stream, _) = from.open(to, &[ECHO]).await.map_err(std::io::Error::other)?;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let sent = vec![7; length];
    let send = async {
        writer.write_all(&sent).await?;
        writer.shutdown().await
    };
    let mut back = Vec::new();
    let (sent, read) = tokio::join!(send, reader.read_to_end(&mut back));
    sent?;
    read?;
    Ok(back.len())
}

async fn seated(host: &Host, relay: &Host) {
    host.connect(relay.id(), &relay.addresses()).await.unwrap();
    wait_for("a seat", || host.reach().relays.contains(&relay.id())).await;
}

/// Where it is reached through a relay.
fn circuits(host: &Host) -> Vec<String> {
    host.addresses().into_iter().filter(|address| address.contains("/p2p-circuit/")).collect()
}

async fn reached_through_a_third(base: impl Fn(u8) -> HostOptions) {
    let (middle, _) = start(relay(base(1))).await;
    let far = echoing(hidden(base(2))).await;
    let (near, _) = start(hidden(base(3))).await;
    seated(&far, &middle).await;
    wait_for("its address through the relay is told", || !circuits(&far).is_empty()).await;
    assert_eq!(far.reach().state, Reachability::BehindNat);
    assert!(middle.reach().is_relay && !far.reach().is_relay);
    near.connect(far.id(), &far.addresses()).await.unwrap();
    assert_eq!(near.peer_info(&far.id()).unwrap().path, Path::Relayed { by: Some(middle.id()) });
    assert_eq!(pass(&near, far.id(), 3 << 20).await.unwrap(), 3 << 20, "members pass any number of bytes");
    wait_for("the other side knows the way too", || {
        far.peer_info(&near.id()).is_some_and(|info| info.path == Path::Relayed { by: Some(middle.id()) })
    })
    .await;
    wait_for("the relay counts it", || middle.reach().circuits == 1).await;
}

#[tokio::test]
async fn two_hidden_hosts_meet_through_a_third() {
    reached_through_a_third(options).await;
}

#[tokio::test]
async fn two_hidden_hosts_of_a_private_network_meet_through_a_third() {
    reached_through_a_third(|number| with_psk(number, 9)).await;
}

#[tokio::test]
async fn a_seat_is_renewed_before_it_ends() {
    let mut short = relay(options(1));
    short.reach.seat = Duration::from_secs(4);
    let (middle, _) = start(short).await;
    let far = echoing(hidden(options(2))).await;
    seated(&far, &middle).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    let (near, _) = start(hidden(options(3))).await;
    near.connect(far.id(), &circuits(&far)).await.expect("the relay still knows the seat");
    assert_eq!(far.reach().relays, [middle.id()]);
}

#[tokio::test]
async fn a_dead_relay_is_replaced_by_another() {
    let mut relays = Vec::new();
    for number in 1..=3 {
        relays.push(start(relay(options(number))).await.0);
    }
    let far = echoing(hidden(options(4))).await;
    for relay in &relays {
        far.connect(relay.id(), &relay.addresses()).await.unwrap();
    }
    wait_for("two seats", || far.reach().relays.len() == 2).await;
    let dead = relays.iter().find(|relay| far.reach().relays.contains(&relay.id())).unwrap();
    dead.shutdown().await;
    let has_moved = || far.reach().relays.len() == 2 && !far.reach().relays.contains(&dead.id());
    wait_for("a seat at the third", has_moved).await;
    let (near, _) = start(hidden(options(5))).await;
    wait_for("the dead one is told no more", || !far.addresses().iter().any(|address| address.contains(&dead.id().to_string()))).await;
    near.connect(far.id(), &circuits(&far)).await.unwrap();
    assert_eq!(pass(&near, far.id(), 1000).await.unwrap(), 1000);
}

#[tokio::test]
async fn strangers_pass_little_and_only_where_they_may() {
    let mut strict = relay(options(1));
    strict.reach.is_member = Arc::new(|_| false);
    let (middle, _) = start(strict.clone()).await;
    let far = echoing(hidden(options(2))).await;
    seated(&far, &middle).await;
    let (near, _) = start(hidden(options(3))).await;
    near.connect(far.id(), &far.addresses()).await.unwrap();
    assert_eq!(pass(&near, far.id(), 20 << 10).await.unwrap(), 20 << 10);
    assert_ne!(pass(&near, far.id(), 200 << 10).await.ok(), Some(200 << 10), "the circuit ends above 128 KiB");
    wait_for("it ended", || !near.is_connected(&far.id())).await;

    let mut members_only = strict;
    members_only.key = [4; 32];
    members_only.reach.relay = RelayFor::Members;
    let (closed, _) = start(members_only).await;
    near.connect(closed.id(), &closed.addresses()).await.unwrap();
    wait_for("it said what it speaks", || near.peer_info(&closed.id()).is_some_and(|info| !info.protocols.is_empty())).await;
    let protocols = near.peer_info(&closed.id()).unwrap().protocols;
    assert!(!protocols.iter().any(|name| name.ends_with("/hop")), "{protocols:?}");
    assert!(closed.reach().is_relay, "for its members");
}

#[tokio::test]
async fn members_and_strangers_reach_each_other_and_who_asks_decides_how_much_passes() {
    let insider = echoing(hidden(options(2))).await;
    let stranger = echoing(hidden(options(3))).await;
    let mut relaying = relay(options(1));
    let member = insider.id();
    relaying.reach.is_member = Arc::new(move |peer| *peer == member);
    let (middle, _) = start(relaying).await;
    seated(&insider, &middle).await;
    seated(&stranger, &middle).await;

    insider.connect(stranger.id(), &circuits(&stranger)).await.unwrap();
    assert_eq!(pass(&insider, stranger.id(), 1 << 20).await.unwrap(), 1 << 20);
    insider.disconnect(stranger.id()).await;
    wait_for("the circuit ended", || middle.reach().circuits == 0).await;

    stranger.connect(insider.id(), &circuits(&insider)).await.unwrap();
    assert_eq!(pass(&stranger, insider.id(), 20 << 10).await.unwrap(), 20 << 10);
    assert_ne!(pass(&stranger, insider.id(), 200 << 10).await.ok(), Some(200 << 10), "the circuit ends above 128 KiB");
}

#[tokio::test]
async fn a_member_that_is_known_late_gets_its_share() {
    let is_known = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut late = relay(options(1));
    let known = is_known.clone();
    late.reach.is_member = Arc::new(move |_| known.load(std::sync::atomic::Ordering::Relaxed));
    let (middle, _) = start(late).await;
    let far = echoing(hidden(options(2))).await;
    seated(&far, &middle).await;
    let (near, _) = start(hidden(options(3))).await;
    near.connect(middle.id(), &middle.addresses()).await.unwrap();
    is_known.store(true, std::sync::atomic::Ordering::Relaxed);
    for _ in 0..100 {
        // The first attempts end with the connections that were judged before.
        let _ = near.connect(far.id(), &far.addresses()).await;
        if pass(&near, far.id(), 1 << 20).await.ok() == Some(1 << 20) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("still treated as strangers");
}

#[tokio::test]
async fn relays_of_strangers_are_not_used_unless_configured() {
    let (middle, _) = start(relay(options(1))).await;
    let mut wary = hidden(options(2));
    wary.reach.is_member = Arc::new(|_| false);
    let (far, _) = start(wary.clone()).await;
    far.connect(middle.id(), &middle.addresses()).await.unwrap();
    wait_for("it said what it speaks", || far.peer_info(&middle.id()).is_some_and(|info| !info.protocols.is_empty())).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(far.reach().relays.is_empty());

    wary.key = [3; 32];
    wary.reach.relays = middle.addresses();
    let (far, _) = start(wary).await;
    wait_for("a configured relay is dialled and used", || far.reach().relays == [middle.id()]).await;
}

#[tokio::test]
async fn a_direct_connection_takes_the_place_of_a_relayed_one() {
    for psk in [None, Some(9)] {
        let base = |number| psk.map_or_else(|| options(number), |psk| with_psk(number, psk));
        let (middle, _) = start(relay(base(1))).await;
        let far = echoing(behind(base(2))).await;
        seated(&far, &middle).await;
        let (near, _) = start(behind(base(3))).await;
        near.connect(middle.id(), &middle.addresses()).await.unwrap();
        wait_for("what the relay sees of both", || middle.peer_info(&near.id()).is_some_and(|info| !info.agent.is_empty())).await;
        near.connect(far.id(), &circuits(&far)).await.unwrap();
        let is_direct = |host: &Host, peer| host.peer_info(&peer).is_some_and(|info| info.path == Path::Direct);
        wait_for("direct", || is_direct(&near, far.id()) && is_direct(&far, near.id())).await;
        assert_eq!(pass(&near, far.id(), 1 << 20).await.unwrap(), 1 << 20);
        wait_for("the relayed one is closed", || middle.reach().circuits == 0).await;
        middle.shutdown().await;
        wait_for("the relay is gone", || !near.is_connected(&middle.id())).await;
        assert_eq!(pass(&near, far.id(), 1 << 20).await.unwrap(), 1 << 20, "without the relay");
    }
}

#[tokio::test]
async fn others_say_whether_a_host_can_be_dialled() {
    let (one, _) = start(asking(1)).await;
    let (two, _) = start(asking(2)).await;
    assert_eq!(one.reach().state, Reachability::Unknown);
    one.connect(two.id(), &two.addresses()).await.unwrap();
    wait_for("dialled back", || one.reach().state == Reachability::Public && two.reach().state == Reachability::Public).await;
    assert!(one.reach().is_relay);
    let single = |host: &Host, peer| host.peer_info(&peer).is_some_and(|info| info.connections == 1);
    wait_for("the connections of the dial-backs are closed", || single(&one, two.id()) && single(&two, one.id())).await;

    let (hidden, _) = start(HostOptions { listen: Vec::new(), ..asking(3) }).await;
    hidden.connect(one.id(), &one.addresses()).await.unwrap();
    wait_for("not dialled back", || hidden.reach().state == Reachability::BehindNat).await;
    wait_for("so it takes a seat", || hidden.reach().relays == [one.id()]).await;
    assert!(!hidden.reach().is_relay);
}

#[tokio::test]
async fn what_is_announced_is_told_instead_of_what_others_dialled_back() {
    let announce = vec!["/ip4/203.0.113.7/tcp/9096".to_owned()];
    let (one, _) = start(HostOptions { announce, tells_listened: false, ..asking(1) }).await;
    let (two, _) = start(asking(2)).await;
    one.connect(two.id(), &two.addresses()).await.unwrap();
    wait_for("dialled back where it listens", || one.reach().state == Reachability::Public).await;
    let own = format!("/ip4/203.0.113.7/tcp/9096/p2p/{}", one.id());
    assert_eq!(one.addresses(), [own.as_str()]);
    wait_for("told", || two.peer_info(&one.id()).is_some_and(|info| info.listens == ["/ip4/203.0.113.7/tcp/9096"])).await;
}

#[tokio::test]
async fn a_host_without_members_asks_strangers() {
    let asking = |number, is_member: bool| {
        let mut options = options(number);
        options.keep_all = true;
        options.reach.is_member = Arc::new(move |_| is_member);
        options.reach.private_is_outside = true;
        options.reach.ask_every = Duration::from_millis(500);
        options
    };
    let (one, _) = start(asking(1, false)).await;
    let (stranger, _) = start(asking(2, false)).await;
    one.connect(stranger.id(), &stranger.addresses()).await.unwrap();
    wait_for("a lone host asks strangers", || one.reach().state == Reachability::Public).await;
    let (hidden, _) = start(HostOptions { listen: Vec::new(), ..asking(3, false) }).await;
    hidden.connect(one.id(), &one.addresses()).await.unwrap();
    wait_for("whatever they say", || hidden.reach().state == Reachability::BehindNat).await;
}

#[tokio::test]
async fn a_host_nobody_could_ask_about_says_that_it_does_not_know() {
    let (one, _) = start(member(options(1))).await;
    let (two, _) = start(HostOptions { listen: vec![TCP.to_owned()], ..member(options(2)) }).await;
    one.connect(two.id(), &two.addresses()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(one.reach().state, Reachability::Unknown, "neighbours on one net say nothing about the outside");
    assert!(matches!(one.open(two.id(), &[ECHO]).await, Err(OpenError::Unsupported { .. })));
}
