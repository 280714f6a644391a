//! Hosts on real sockets: connections, private networks, streams, gossip.

#![allow(clippy::unwrap_used, reason = "a test may stop at anything unexpected")]

mod common;

use common::*;
use net::{DialError, HostError, HostEvent, HostOptions, OpenError, PublishError};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use types::PeerId;

#[tokio::test]
async fn two_hosts_connect_and_both_say_so() {
    let (first, mut first_events) = start(options(1)).await;
    let (second, mut second_events) = start(options(2)).await;
    assert_eq!(first.id(), PeerId::from_ed25519(&public_key(1)));
    let address = second.addresses().remove(0);
    assert!(address.ends_with(&format!("/p2p/{}", second.id())), "{address}");
    assert_eq!(first.dial(&address).await, Ok(second.id()));
    assert_eq!(first.connected(), [second.id()]);
    loop {
        match first_events.next().await.unwrap() {
            HostEvent::Connected(peer, _) => break assert_eq!(peer, second.id()),
            event => assert_eq!(event, HostEvent::ListenChanged),
        }
    }
    wait_for("the other side is connected too", || second.is_connected(&first.id())).await;
    second.disconnect(first.id()).await;
    let seen = async {
        loop {
            if second_events.next().await.unwrap() == HostEvent::Disconnected(first.id()) {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(5), seen).await.expect("the end is seen");
    wait_for("the other side sees it too", || first.connected().is_empty()).await;
    first.shutdown().await;
    assert_eq!(first.dial(&address).await, Err(DialError::Stopped));
    while let Some(event) = first_events.next().await {
        assert_eq!(event, HostEvent::Disconnected(second.id()));
    }
}

/// What every machine has under the same address (loopback, containers) is this host's or somebody else's here, and answers first.
#[tokio::test]
async fn an_address_at_which_somebody_else_answers_does_not_hide_the_others() {
    let (first, _) = start(options(1)).await;
    let (second, _) = start(options(2)).await;
    let (third, _) = start(options(3)).await;
    let without_peer = |address: String| address.split("/p2p/").next().unwrap().to_owned();
    let addresses = [&first, &third, &second].map(|host| without_peer(host.addresses().remove(0)));
    for _ in 0..10 {
        assert_eq!(first.connect(second.id(), &addresses).await, Ok(()));
        first.disconnect(second.id()).await;
        wait_for("they are apart", || !first.is_connected(&second.id())).await;
    }
    let wrong = first.connect(second.id(), &addresses[1..2]).await;
    assert!(matches!(&wrong, Err(DialError::WrongPeer { obtained, .. }) if *obtained == third.id().to_string()), "{wrong:?}");
}

fn public_key(number: u8) -> [u8; 32] {
    let keypair = libp2p::identity::Keypair::ed25519_from_bytes([number; 32]).unwrap();
    keypair.public().try_into_ed25519().unwrap().to_bytes()
}

#[tokio::test]
async fn the_peer_says_what_it_is() {
    let mut named = options(2);
    named.agent = "pinfold/test".to_owned();
    let (first, second) = pair(options(1), named).await;
    let _incoming = second.accept(&["/late/1"]).unwrap();
    wait_for("agent and late protocol", || {
        let info = first.peer_info(&second.id()).unwrap_or_default();
        info.agent == "pinfold/test" && info.protocols.iter().any(|name| name == "/late/1")
    })
    .await;
}

#[tokio::test]
async fn members_of_one_private_network_connect() {
    let (first, second) = pair(with_psk(1, 7), with_psk(2, 7)).await;
    let mut incoming = second.accept(&["/echo/1"]).unwrap();
    let (mut stream, _) = first.open(second.id(), &["/echo/1"]).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    stream.shutdown().await.unwrap();
    let (_, _, mut other) = incoming.next().await.unwrap();
    let mut text = String::new();
    other.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "hello");
}

#[tokio::test]
async fn another_private_network_is_named_at_once() {
    let cases = [(with_psk(1, 7), with_psk(2, 8)), (with_psk(3, 7), options(4)), (options(5), with_psk(6, 7))];
    for (dialler, listener) in cases {
        let (first, _) = start(dialler).await;
        let (second, _) = start(listener).await;
        let begun = Instant::now();
        let result = first.dial(&second.addresses()[0]).await;
        assert!(matches!(result, Err(DialError::OtherNetwork { .. })), "{result:?}");
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
}

#[tokio::test]
async fn failed_dials_say_why() {
    let (first, _) = start(options(1)).await;
    let (second, _) = start(options(2)).await;
    assert_eq!(first.dial("nonsense").await, Err(DialError::BadAddress("nonsense".to_owned())));
    assert_eq!(first.dial(&first.addresses()[0]).await, Err(DialError::Own));
    let nobody = "/ip4/127.0.0.1/tcp/1";
    assert!(matches!(first.dial(nobody).await, Err(DialError::Unreachable(reason)) if reason.contains(nobody)));
    let stranger = PeerId::from_ed25519(&public_key(9));
    assert_eq!(first.connect(stranger, &[]).await, Err(DialError::NoAddress(stranger)));
    let wrong = second.addresses()[0].replace(&second.id().to_string(), &stranger.to_string());
    assert!(matches!(first.dial(&wrong).await, Err(DialError::WrongPeer { obtained, .. }) if obtained == second.id().to_string()));
    second.block(first.id()).await;
    let _ = first.dial(&second.addresses()[0]).await;
    wait_for("a blocked peer is not kept", || second.connected().is_empty() && first.connected().is_empty()).await;
}

#[tokio::test]
async fn a_taken_port_is_an_error_that_names_it() {
    let (first, _) = start(options(1)).await;
    let address = first.addresses()[0].split("/p2p/").next().unwrap().to_owned();
    let mut second = options(2);
    second.listen = vec![address.clone()];
    let error = net::Host::start(second).await.expect_err("the port is taken");
    assert!(matches!(&error, HostError::Listen { address: named, .. } if *named == address), "{error}");
}

#[tokio::test]
async fn quic_carries_streams_where_there_is_no_secret() {
    let quic = |number| HostOptions { listen: vec!["/ip4/127.0.0.1/udp/0/quic-v1".to_owned()], ..options(number) };
    let (first, second) = pair(quic(1), quic(2)).await;
    let mut incoming = second.accept(&["/echo/1"]).unwrap();
    let (mut stream, _) = first.open(second.id(), &["/echo/1"]).await.unwrap();
    stream.write_all(&[7; 1000]).await.unwrap();
    let (from, _, mut other) = incoming.next().await.unwrap();
    assert_eq!(from, first.id());
    other.read_exact(&mut [0; 1000]).await.unwrap();
}

#[tokio::test]
async fn a_websocket_carries_streams_where_there_is_no_secret() {
    let web = |number| HostOptions { listen: vec!["/ip4/127.0.0.1/tcp/0/ws".to_owned()], ..options(number) };
    let (first, second) = pair(web(1), web(2)).await;
    assert!(second.addresses()[0].contains("/ws/p2p/"), "{:?}", second.addresses());
    let mut incoming = second.accept(&["/echo/1"]).unwrap();
    let (mut stream, _) = first.open(second.id(), &["/echo/1"]).await.unwrap();
    stream.write_all(&[7; 100_000]).await.unwrap();
    let (from, _, mut other) = incoming.next().await.unwrap();
    assert_eq!(from, first.id());
    let mut read = vec![0; 100_000];
    other.read_exact(&mut read).await.unwrap();
    assert!(read.iter().all(|byte| *byte == 7));
}

#[tokio::test]
async fn the_first_name_that_both_speak_is_taken() {
    let (first, second) = pair(options(1), options(2)).await;
    let mut incoming = second.accept(&["/bitswap/1.1", "/bitswap/1.0"]).unwrap();
    let (_stream, name) = first.open(second.id(), &["/bitswap/1.2", "/bitswap/1.1", "/bitswap/1.0"]).await.unwrap();
    assert_eq!(name, "/bitswap/1.1");
    assert_eq!(incoming.next().await.unwrap().1, "/bitswap/1.1");
    let error = first.open(second.id(), &["/other/1"]).await.unwrap_err();
    assert!(matches!(error, OpenError::Unsupported { .. }), "{error}");
    drop(incoming);
    let error = first.open(second.id(), &["/bitswap/1.1"]).await.unwrap_err();
    assert!(matches!(error, OpenError::Unsupported { .. }), "{error}");
    let stranger = PeerId::from_ed25519(&public_key(9));
    assert_eq!(first.open(stranger, &["/bitswap/1.1"]).await.unwrap_err(), OpenError::NotConnected(stranger));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_a_thousand_streams_loses_none() {
    let (first, second) = pair(options(1), options(2)).await;
    let mut incoming = second.accept(&["/burst/1"]).unwrap();
    let openers = (0..1000u32).map(|number| {
        let (first, id) = (first.clone(), second.id());
        tokio::spawn(async move {
            let (mut stream, _) = first.open(id, &["/burst/1"]).await.expect("opens");
            stream.write_all(&number.to_be_bytes()).await.expect("writes");
            stream.shutdown().await.expect("closes");
            // Until the other side has read it all.
            let _ = stream.read(&mut [0]).await;
        })
    });
    let openers: Vec<_> = openers.collect();
    // Long enough for every queue on the way to be full.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut seen = BTreeSet::new();
    while seen.len() < 1000 {
        let (_, _, mut stream) = tokio::time::timeout(Duration::from_secs(10), incoming.next()).await.expect("not lost").unwrap();
        seen.insert(stream.read_u32().await.unwrap());
    }
    for opener in openers {
        opener.await.unwrap();
    }
    assert_eq!(second.stats().streams_refused, 0);
}

#[tokio::test]
async fn a_peer_that_fills_its_queue_does_not_stop_others() {
    let mut small = options(1);
    small.streams.inbound_per_peer = 4;
    let (busy, _) = start(small).await;
    let (greedy, _) = start(options(2)).await;
    let (modest, _) = start(options(3)).await;
    for host in [&greedy, &modest] {
        host.connect(busy.id(), &busy.addresses()).await.unwrap();
    }
    let mut incoming = busy.accept(&["/work/1"]).unwrap();
    let mut held = Vec::new();
    for _ in 0..32 {
        held.push(greedy.open(busy.id(), &["/work/1"]).await.unwrap());
    }
    held.push(modest.open(busy.id(), &["/work/1"]).await.unwrap());
    let mut from_modest = 0;
    for taken in 0..6 {
        let (from, _, _) = tokio::time::timeout(Duration::from_secs(5), incoming.next()).await.expect("something waits").unwrap();
        from_modest += usize::from(from == modest.id());
        assert!(taken < 5 || from_modest == 1, "the modest peer stands behind four, not behind thirty-two");
    }
}

#[tokio::test]
async fn unused_connections_end_and_wanted_ones_stay() {
    let short = |number| HostOptions { idle: Duration::from_millis(100), ..options(number) };
    let (first, second) = pair(short(1), short(2)).await;
    wait_for("the idle connection ends", || first.connected().is_empty()).await;
    first.keep_connected(second.id(), &second.addresses()).await;
    second.keep_connected(first.id(), &[]).await;
    wait_for("the kept one is made", || first.is_connected(&second.id())).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(first.is_connected(&second.id()) && second.is_connected(&first.id()));
}

#[tokio::test]
async fn a_kept_peer_is_dialled_again_after_its_restart() {
    let (first, _) = start(options(1)).await;
    let (second, _) = start(options(2)).await;
    let addresses = second.addresses();
    first.keep_connected(second.id(), &addresses).await;
    wait_for("connected", || first.is_connected(&second.id())).await;
    second.shutdown().await;
    wait_for("its end is seen", || !first.is_connected(&second.id())).await;
    let mut again = options(2);
    again.listen = vec![addresses[0].split("/p2p/").next().unwrap().to_owned()];
    let (second, _) = start(again).await;
    wait_for("connected again", || first.is_connected(&second.id())).await;
    first.let_go(second.id()).await;
}

#[tokio::test]
async fn gossip_reaches_others_and_says_who_signed_it() {
    let (first, _) = start(with_gossip(1, "t")).await;
    let (second, _) = start(with_gossip(2, "t")).await;
    let (third, mut third_events) = start(with_gossip(3, "t")).await;
    assert_eq!(first.publish("t", b"alone".to_vec()).await, Err(PublishError::NoPeers));
    first.connect(second.id(), &second.addresses()).await.unwrap();
    second.connect(third.id(), &third.addresses()).await.unwrap();
    publish_until(&first, "t", &mut third_events, Some((first.id(), second.id()))).await;
    let too_large = first.publish("t", vec![0; 2 << 20]).await;
    assert!(matches!(too_large, Err(PublishError::TooLarge { .. })), "{too_large:?}");
}

/// Publishes until something arrives, as every publisher must: who has just connected has not subscribed yet.
async fn publish_until(host: &net::Host, topic: &str, events: &mut net::HostEvents, expected: Option<(PeerId, PeerId)>) {
    for round in 0u32..30 {
        let _ = host.publish(topic, round.to_be_bytes().to_vec()).await;
        let next = tokio::time::timeout(Duration::from_millis(100), next_gossip(events)).await;
        if let Ok(Some((from, _, forwarded_by))) = next {
            return assert_eq!(Some((from, forwarded_by)), expected);
        }
    }
    assert_eq!(None, expected, "nothing arrived");
}

#[tokio::test]
async fn messages_of_untrusted_signers_are_neither_delivered_nor_forwarded() {
    let (stranger, _) = start(with_gossip(1, "t")).await;
    let (middle, mut middle_events) = start(with_gossip(2, "t")).await;
    let (far, mut far_events) = start(with_gossip(3, "t")).await;
    let untrusted = stranger.id();
    middle.set_gossip_filter("t", Arc::new(move |signer| *signer != untrusted));
    stranger.connect(middle.id(), &middle.addresses()).await.unwrap();
    middle.connect(far.id(), &far.addresses()).await.unwrap();
    publish_until(&stranger, "t", &mut far_events, None).await;
    assert!(tokio::time::timeout(Duration::from_millis(50), next_gossip(&mut middle_events)).await.is_err());
    assert!(middle.stats().gossip_filtered > 0, "it did arrive at the filter");
    publish_until(&far, "t", &mut middle_events, Some((far.id(), far.id()))).await;
}

#[tokio::test]
async fn members_find_each_other_through_one_of_them() {
    let member = |number| HostOptions { listen: vec![TCP.to_owned()], ..HostOptions::cluster([number; 32], Some([7; 32])) };
    let (first, _) = start(member(1)).await;
    let (second, _) = start(member(2)).await;
    let (third, _) = start(member(3)).await;
    second.connect(first.id(), &first.addresses()).await.unwrap();
    third.connect(first.id(), &first.addresses()).await.unwrap();
    wait_for("the two find each other", || second.is_connected(&third.id())).await;
}

#[tokio::test]
async fn two_peers_that_keep_each_other_connect_once_and_stay() {
    let (first, mut events) = start(options(1)).await;
    let (second, _) = start(options(2)).await;
    let (of_first, of_second) = (first.addresses(), second.addresses());
    tokio::join!(first.keep_connected(second.id(), &of_second), second.keep_connected(first.id(), &of_first));
    wait_for("connected", || first.is_connected(&second.id()) && second.is_connected(&first.id())).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    first.shutdown().await;
    let mut changes = Vec::new();
    while let Some(event) = events.next().await {
        match event {
            HostEvent::Connected(..) => changes.push("connected"),
            HostEvent::Disconnected(_) => changes.push("disconnected"),
            _ => {}
        }
    }
    assert_eq!(changes, ["connected"], "one connection, which did not break");
}

/// Passes bytes between a dialler and `to`, until it is told to stop passing them without closing anything.
async fn cable(to: String) -> (String, Arc<std::sync::atomic::AtomicBool>) {
    let port = to.split('/').nth(4).unwrap().to_owned();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("/ip4/127.0.0.1/tcp/{}", listener.local_addr().unwrap().port());
    let is_cut = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flag = is_cut.clone();
    tokio::spawn(async move {
        let (near, _) = listener.accept().await.unwrap();
        let far = tokio::net::TcpStream::connect(format!("127.0.0.1:{port}")).await.unwrap();
        let ((mut near_in, mut near_out), (mut far_in, mut far_out)) = (near.into_split(), far.into_split());
        let back = flag.clone();
        tokio::spawn(async move { pass(&mut far_in, &mut near_out, &back).await });
        pass(&mut near_in, &mut far_out, &flag).await;
    });
    (address, is_cut)
}

async fn pass(from: &mut tokio::net::tcp::OwnedReadHalf, to: &mut tokio::net::tcp::OwnedWriteHalf, is_cut: &std::sync::atomic::AtomicBool) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if is_cut.load(std::sync::atomic::Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn a_pulled_cable_is_noticed() {
    let quick = |number| HostOptions { ping: Duration::from_millis(100), silence: Duration::from_millis(800), ..options(number) };
    let (first, _) = start(quick(1)).await;
    let (second, _) = start(quick(2)).await;
    let (address, is_cut) = cable(second.addresses().remove(0)).await;
    first.keep_connected(second.id(), &[]).await;
    first.dial(&address).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(first.is_connected(&second.id()), "a living connection is not silent");
    let begun = Instant::now();
    is_cut.store(true, std::sync::atomic::Ordering::Relaxed);
    wait_for("both sides notice", || first.connected().is_empty() && second.connected().is_empty()).await;
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn strangers_that_speak_nonsense_to_the_port_do_no_harm() {
    let (host, _) = start(options(1)).await;
    let (other, _) = start(options(2)).await;
    let port = host.addresses()[0].split('/').nth(4).unwrap().to_owned();
    for nonsense in [&b""[..], b"GET / HTTP/1.1\r\n\r\n", &[0xff; 5000], b"\x13/multistream/1.0.0\n\xff\xff\xff"] {
        let mut socket = tokio::net::TcpStream::connect(format!("127.0.0.1:{port}")).await.unwrap();
        let _ = socket.write_all(nonsense).await;
        let _ = socket.shutdown().await;
        let _ = tokio::time::timeout(Duration::from_secs(2), socket.read_to_end(&mut Vec::new())).await.expect("the host hangs up");
    }
    other.connect(host.id(), &host.addresses()).await.unwrap();
}

#[tokio::test]
async fn a_peer_cannot_hold_more_streams_than_its_share() {
    let mut small = options(1);
    small.streams.inbound_open_per_peer = 8;
    let (first, second) = pair(small, options(2)).await;
    let mut incoming = first.accept(&["/work/1"]).unwrap();
    let mut taken = Vec::new();
    let mut opened = Vec::new();
    for _ in 0..12 {
        opened.push(second.open(first.id(), &["/work/1"]).await.unwrap());
    }
    for _ in 0..8 {
        taken.push(incoming.next().await.unwrap());
    }
    assert!(tokio::time::timeout(Duration::from_millis(200), incoming.next()).await.is_err(), "the others wait");
    taken.truncate(4);
    for _ in 0..4 {
        taken.push(tokio::time::timeout(Duration::from_secs(5), incoming.next()).await.expect("now they come").unwrap());
    }
}
