//! The DHT among real hosts on loopback.
#![allow(clippy::unwrap_used, reason = "a test may stop at anything unexpected")]

mod common;

use common::{options, start, wait_for};
use net::Host;
use net::frame::{read_frame, write_frame};
use net::kad::{Contact, Dht, DhtOptions, Mode, Place, Scope};
use net::keys::NameKey;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use types::PeerId;
use wire::kad::{Kind, Message};

/// A host in the DHT of the local net that begins with `first`.
async fn member(number: u8, mode: Mode, first: Option<&Host>) -> (Host, Dht) {
    let (host, _) = start(options(number)).await;
    let bootstrap = first.map(|host| host.addresses()).unwrap_or_default();
    let dht = Dht::start(&host, DhtOptions { mode, bootstrap, ..DhtOptions::new(Scope::Lan) }).unwrap();
    (host, dht)
}

/// So many servers that all know each other, through the first.
async fn network(count: u8) -> Vec<(Host, Dht)> {
    let mut members = vec![member(1, Mode::Auto, None).await];
    for number in 2..=count {
        members.push(member(number, Mode::Auto, Some(&members[0].0)).await);
    }
    // Many hosts on few cores: while all of them greet each other at once, some are too slow for others and forgotten until the next refresh.
    let all = usize::from(count) - 1;
    while members.iter().any(|(_, dht)| dht.status().peers < all) {
        let behind = members.iter().filter(|(_, dht)| dht.status().peers < all);
        futures::future::join_all(behind.map(|(_, dht)| dht.refresh())).await;
    }
    members
}

fn key(number: u32) -> Vec<u8> {
    // A multihash: what a CID is found by.
    [&[0x12, 0x20][..], &Place::of(&number.to_be_bytes()).0].concat()
}

async fn found(dht: &Dht, key: &[u8]) -> BTreeSet<PeerId> {
    let mut search = dht.find_providers(key, 100);
    let mut found = BTreeSet::new();
    while let Some(Contact { peer, addresses }) = search.found.recv().await {
        assert!(!addresses.is_empty(), "{peer} without an address");
        found.insert(peer);
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_told_to_the_nearest_peers_is_found_by_strangers_and_so_are_peers() {
    // One network for all of it: most of the time goes into its handshakes.
    let mut members = network(22).await;
    let (provider, dht) = member(100, Mode::Client, Some(&members[3].0)).await;
    wait_for("it knows somebody", || dht.status().peers > 0).await;
    let mut keys: Vec<Vec<u8>> = (0..500).map(key).collect();
    keys.sort_by_key(|key| Place::of(key));
    let (mut rest, mut searches) = (&keys[..], 0);
    while let Some(first) = rest.first() {
        let region = dht.region(first).await;
        assert!(region.peers.len() >= 20, "{} of 22 servers found", region.peers.len());
        let (now, later) = rest.split_at(rest.partition_point(|key| Place::of(key) <= region.last));
        let told = dht.tell(&region, now).await;
        assert_eq!((told.keys, told.failed, told.peers_failed), (now.len(), 0, 0));
        searches += region.searches;
        rest = later;
    }
    assert!(searches <= 12, "{searches} searches for 500 keys among 22 peers");
    // Every key lies at exactly its nearest peers: one who asks only one of these is answered.
    let kept: usize = members.iter().map(|(_, dht)| dht.status().providers).sum();
    assert_eq!(kept, 500 * 20);
    let (_asker_host, asker) = member(101, Mode::Client, Some(&members[19].0)).await;
    wait_for("it knows somebody", || asker.status().peers > 0).await;
    for number in (0..500).step_by(23) {
        assert_eq!(found(&asker, &key(number)).await, BTreeSet::from([provider.id()]), "key {number}");
    }
    assert!(found(&asker, &key(7777)).await.is_empty());
    // A client asks, and is in nobody's table.
    for (_, dht) in &members[..2] {
        assert!(dht.closest(provider.id().as_bytes()).await.iter().all(|contact| contact.peer != provider.id()));
    }
    let wanted = &members[17].0;
    let contact = asker.find_peer(wanted.id()).await.expect("found");
    let expected: BTreeSet<String> = wanted.addresses().iter().map(|text| text.split("/p2p/").next().unwrap().to_owned()).collect();
    assert_eq!(contact.addresses.into_iter().collect::<BTreeSet<_>>(), expected);
    assert_eq!(asker.find_peer(PeerId::from_ed25519(&[200; 32])).await, None);
    // Peers that die are passed by and forgotten.
    for (host, _) in members.drain(4..9) {
        host.shutdown().await;
    }
    let expected: BTreeSet<PeerId> = members.iter().map(|(host, _)| host.id()).collect();
    for key in [&b"anything"[..], b"any other"] {
        let closest: BTreeSet<PeerId> = asker.closest(key).await.iter().map(|contact| contact.peer).collect();
        assert_eq!(closest, expected);
    }
    // So does one who knows nobody yet, while the others still name those that died.
    let (_late_host, late) = member(102, Mode::Client, Some(&members[0].0)).await;
    wait_for("it knows somebody", || late.status().peers > 0).await;
    let closest: BTreeSet<PeerId> = late.closest(b"anything").await.iter().map(|contact| contact.peer).collect();
    assert_eq!(closest, expected);
}

fn record(name: &NameKey, sequence: u64, value: &str) -> Vec<u8> {
    let validity = wire::gotime::GoTime::parse("2100-01-01T00:00:00Z").unwrap();
    let entry = wire::ipns::Entry { value: value.as_bytes().to_vec(), validity, sequence, ttl: Duration::from_secs(60) };
    wire::ipns::encode(&entry, &name.name(), &name.public(), |message| name.sign(message)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_names_are_kept_checked_and_the_newest_counts() {
    let members = network(8).await;
    let name = NameKey::from_seed([9; 32]).unwrap();
    let of_name = [b"/ipns/", name.name().as_bytes()].concat();
    let (first, second) = (record(&name, 1, "/ipfs/bafkqaaa"), record(&name, 2, "/ipfs/bafkqabi"));
    assert_eq!(members[2].1.put_value(&of_name, &second).await.unwrap(), (7, 7));
    // An older one is refused by all who have the newer.
    assert_eq!(members[3].1.put_value(&of_name, &first).await.unwrap().0, 0);
    assert_eq!(members[7].1.get_value(&of_name).await.0, Some(second));
    // What is no record, or another name's, is not even sent.
    assert!(members[1].1.put_value(&of_name, b"junk").await.is_err());
    let other = [b"/ipns/", NameKey::from_seed([8; 32]).unwrap().name().as_bytes()].concat();
    assert!(members[1].1.put_value(&other, &first).await.is_err());
    assert!(members[1].1.put_value(b"/pk/x", &first).await.is_err());
    assert_eq!(members[1].1.get_value(&other).await.0, None);
}

/// Speaks to a server without any care.
async fn say(host: &Host, to: &Host, messages: &[Message]) -> Option<Message> {
    host.connect(to.id(), &to.addresses()).await.unwrap();
    let (mut stream, _) = host.open(to.id(), &[Scope::Lan.protocol()]).await.unwrap();
    for message in messages {
        write_frame(&mut stream, &message.encode()).await.ok()?;
    }
    let _ = stream.shutdown().await;
    let answer = read_frame(&mut stream, 1 << 20).await.ok()??;
    wire::kad::decode(&answer).ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_can_neither_speak_for_others_nor_fill_the_memory() {
    let (server, _) = start(options(50)).await;
    let dht = Dht::start(&server, DhtOptions { providers_most: 300, ..DhtOptions::new(Scope::Lan) }).unwrap();
    let (stranger, _) = start(options(51)).await;
    let (honest, honest_dht) = member(52, Mode::Client, Some(&server)).await;
    let binary = |text: &String| text.split("/p2p/").next().unwrap().parse::<libp2p::Multiaddr>().unwrap().to_vec();
    let contact = |host: &Host| wire::kad::Contact { id: host.id(), addresses: host.addresses().iter().map(binary).collect() };
    wait_for("it knows the server", || honest_dht.status().peers > 0).await;
    let region = honest_dht.region(&key(1)).await;
    assert_eq!(honest_dht.tell(&region, &[key(1)]).await.keys, 1);

    let add = |number: u32, host: &Host| Message { providers: vec![contact(host)], ..Message::request(Kind::AddProvider, &key(number)) };
    let asked = Message::request(Kind::GetProviders, &key(2));
    assert_eq!(say(&stranger, &server, &[add(2, &honest), asked.clone()]).await, None, "the stream is reset");
    assert!(say(&stranger, &server, std::slice::from_ref(&asked)).await.unwrap().providers.is_empty());

    let mut flood: Vec<Message> = (1000..6000).map(|number| add(number, &stranger)).collect();
    flood.push(Message::request(Kind::GetProviders, &key(1)));
    let answer = say(&stranger, &server, &flood).await.unwrap();
    assert_eq!(answer.providers.iter().map(|contact| contact.id).collect::<Vec<_>>(), [honest.id()], "what others said stays");
    assert_eq!(dht.status().providers, 300);

    // Values that are no records, addresses of another scope, keys that are none.
    let junk = Message { record: Some((b"/ipns/x".to_vec(), vec![0; 9000])), ..Message::request(Kind::PutValue, b"/ipns/x") };
    assert_eq!(say(&stranger, &server, &[junk]).await, None);
    assert_eq!(say(&stranger, &server, &[Message::request(Kind::FindNode, b"")]).await, None);
    let public =
        wire::kad::Contact { id: stranger.id(), addresses: vec!["/ip4/8.8.8.8/tcp/1".parse::<libp2p::Multiaddr>().unwrap().to_vec()] };
    let add = Message { providers: vec![public], ..Message::request(Kind::AddProvider, &key(3)) };
    let answer = say(&stranger, &server, &[add, Message::request(Kind::GetProviders, &key(3))]).await.unwrap();
    assert!(answer.providers.is_empty(), "an address that leads out of the local net is not told on it");
    assert_eq!(dht.status().values, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_are_known_clients_are_not_and_auto_serves_the_world_only_from_a_public_address() {
    let (first, _) = start(options(60)).await;
    let server = Dht::start(&first, DhtOptions::new(Scope::Lan)).unwrap();
    let wan = Dht::start(&first, DhtOptions::new(Scope::Wan)).unwrap();
    let (second, client) = member(61, Mode::Client, Some(&first)).await;
    wait_for("the client knows the server", || client.status().peers == 1).await;
    assert!(server.status().is_server && !client.status().is_server);
    assert_eq!(server.status().peers, 0);
    assert!(!wan.status().is_server && !wan.status().is_reachable, "loopback is no place in the world");
    let protocols = second.peer_info(&first.id()).unwrap().protocols;
    assert!(protocols.contains(&Scope::Lan.protocol().to_owned()) && !protocols.contains(&Scope::Wan.protocol().to_owned()));

    let announced = net::HostOptions { announce: vec!["/ip4/8.8.8.8/tcp/4001".to_owned()], ..options(62) };
    let (public, _) = start(announced).await;
    let wan = Dht::start(&public, DhtOptions::new(Scope::Wan)).unwrap();
    assert!(wan.status().is_server && wan.status().is_reachable);
    let forced = Dht::start(&public, DhtOptions { mode: Mode::Client, ..DhtOptions::new(Scope::Lan) }).unwrap();
    assert!(!forced.status().is_server);
}
