//! Whose blocks of the shared state count: a member's signature is asked for in a cluster of Pinfold peers, until it takes Go peers in.

mod common;

use common::{Peer, meet, until};
use ed25519_dalek::SigningKey;
use net::{Host, HostOptions, MessageLimits, Messages};
use std::time::Duration;
use types::{Cid, Depth, PeerId, PeerMessage, Pin, PinKind, PinOptions, UnixMillis};
use wire::delta::{Delta, Element, encode_node, pin_key};

const SECRET: &str = "6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b";
const LIMIT: Duration = Duration::from_secs(60);

fn content(number: u8) -> Cid {
    let digest = wire::cids::sha2_256(&[number]);
    format!("f01551220{}", digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>()).parse().expect("a CID")
}

/// A block that pins a CID, signed by this key.
fn block(number: u8, signed_by: Option<&SigningKey>) -> Vec<u8> {
    let cid = content(number);
    let options = PinOptions { name: format!("pin-{number}"), ..PinOptions::default() };
    let created = UnixMillis::from_seconds(1_700_000_000);
    let pin = Pin { cid, kind: PinKind::Data, options, placement: Vec::new(), depth: Depth::Recursive, reference: None, created };
    let elements = vec![Element { key: pin_key(&cid), id: String::new(), value: wire::pin::encode_pin(&pin) }];
    let mut delta = Delta { elements, priority: 1, ..Delta::default() };
    if let Some(key) = signed_by {
        let author = PeerId::from_ed25519(&key.verifying_key().to_bytes());
        delta.author = Some(peer::records::delta_signer(key.clone(), author, "pinfold".to_owned())(&[], &delta.encode_unsigned()));
    }
    encode_node(&[], &delta).1
}

fn authors(peer: &Peer) -> serde_json::Value {
    let (status, body) = peer.get("/pinfold/v1/status");
    assert_eq!(status, 200);
    serde_json::from_slice::<serde_json::Value>(&body).expect("JSON")["authors"].clone()
}

fn names(peer: &Peer) -> Vec<String> {
    let said = peer.say(&["pin", "ls", "--json"]);
    let mut names: Vec<String> = said
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["name"].as_str().unwrap_or_default().to_owned())
        .collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_member_signed_is_left_out_and_shown_until_go_peers_are_taken_in() {
    let folder = tempfile::tempdir().expect("a folder");
    let one = Peer::start(folder.path(), "one", &["up"], &["--secret", SECRET]);
    let two = Peer::join(folder.path(), "two", &one.invite());
    let peers = [one, two];
    meet(&peers);
    assert!(peers.iter().all(|peer| authors(peer)["signatures"] == "required"), "founded so, and learned when joining");
    let [one, two] = peers;
    // Somebody got hold of a member's place: it hands over what it likes.
    let identity = std::fs::read_to_string(two.dir.join("identity.json")).expect("an identity");
    let seed = wire::identity::decode_identity(&identity).expect("reads").seed();
    let key = SigningKey::from_bytes(&seed);
    let addresses_of_two = two.same_addresses();
    assert_eq!(two.terminate(), Some(0));
    let options = HostOptions { listen: vec!["/ip4/127.0.0.1/tcp/0".to_owned()], ..HostOptions::cluster(seed, Some([0x6b; 32])) };
    let (host, mut events) = Host::start(options).await.expect("starts");
    tokio::spawn(async move { while events.next().await.is_some() {} });
    let (messages, _received) = Messages::start(&host, peer::links::MESSAGES, MessageLimits::default()).expect("registers");
    let victim: PeerId = one.id().parse().expect("an id");
    let address = one.ready["cluster"][0].as_str().expect("an address").to_owned();
    host.connect(victim, &[address]).await.expect("connects");
    let hand_over = |block: Vec<u8>| messages.send(victim, wire::peer::encode(&PeerMessage::Delta(block))).expect("sent");
    hand_over(block(1, None));
    hand_over(block(2, Some(&SigningKey::from_bytes(&[9; 32]))));
    hand_over(block(3, Some(&key)));
    until("the signed one counts", LIMIT, || (names(&one) == ["pin-3"]).then_some(()));
    until("the others are told of", LIMIT, || (authors(&one)["left_out"] == 2).then_some(()));
    let found = authors(&one)["findings"].as_array().expect("a list").clone();
    let faults: Vec<&str> = found.iter().filter_map(|finding| finding["fault"].as_str()).collect();
    assert_eq!(faults, ["nobody signed it", "its author was never a member"]);
    assert!(one.say(&["status"]).contains("2 blocks of the shared state left out"), "{}", one.say(&["status"]));
    let log = std::fs::read_to_string(folder.path().join("one.log")).expect("a log");
    assert!(log.contains("nobody signed it; it is left out"), "{log}");
    drop(messages);
    host.shutdown().await;

    // The other takes a Go peer in: that ends it for both, and both have the same in the end.
    take_go_peer_in(&folder.path().join("two"));
    let flags: Vec<&str> = addresses_of_two.iter().map(String::as_str).collect();
    let two = Peer::start(folder.path(), "two", &["up"], &flags);
    until("all counts on both", LIMIT, || ([&one, &two].map(names) == [["pin-1", "pin-2", "pin-3"]; 2]).then_some(()));
    assert!([&one, &two].iter().all(|peer| authors(peer)["signatures"] == "audited" && authors(peer)["left_out"] == 0));
    let again = one.same_addresses();
    assert_eq!(one.terminate(), Some(0));
    let one = Peer::again(folder.path(), "one", &again);
    assert_eq!((authors(&one)["signatures"].as_str(), names(&one).len()), (Some("audited"), 3), "for good");
    let three = Peer::join(folder.path(), "three", &one.invite());
    until("who joins later is told", LIMIT, || (names(&three).len() == 3).then_some(()));
    assert_eq!(authors(&three)["signatures"], "audited");
}

fn take_go_peer_in(dir: &std::path::Path) {
    let path = dir.join("pinfold.toml");
    let kept = std::fs::read_to_string(&path).expect("a configuration");
    let line = "trusted_peers = [\"12D3KooWEmVZaeSx9U4c7FmrWRbXx6ZGGWhvSifwCSbY54u5mQkH\"]\n";
    std::fs::write(&path, format!("{line}{kept}")).expect("written");
}
