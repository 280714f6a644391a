//! What Go peers write too: the shared state, gossip, bitswap, calls.

use crate::values::{some_cids, some_peers, some_pins};
use crate::vectors;
use bytes::Bytes;
use fuzz::same;
use std::fmt::Debug;
use types::Pin;
use wire::bitswap::{self, Message};
use wire::metric::{Alert, Metric, PingValue};
use wire::msgpack::{Reader, Scan, Scanner, scan};
use wire::pubsub::SignedMessage;
use wire::rpc;
use wire::{AuthorSignature, Delta, Element};

pub fn delta(input: &[u8]) -> bool {
    let Ok(delta) = Delta::decode(input) else { return false };
    let written = delta.encode();
    if written.len() <= wire::delta::BLOCK_BYTES_MAX {
        same(Delta::decode(&written), Ok(delta));
    }
    true
}

pub fn deltas() -> Vec<Vec<u8>> {
    let element = |id: &str, value: &[u8]| Element { key: wire::pin_key(&some_cids()[0]), id: id.to_owned(), value: value.to_vec() };
    let own = Delta {
        elements: vec![element("", &wire::encode_pin(&some_pins()[0])), element("", b"")],
        tombstones: vec![element("/CIQ", b"")],
        priority: 7,
        author: Some(AuthorSignature { author: some_peers()[0], signature: vec![9; 64] }),
    };
    let of_go = vectors::crdt_blocks().into_iter().filter_map(|block| wire::decode_node(&block).ok()).map(|node| node.delta.encode());
    of_go.chain([own.encode()]).collect()
}

pub fn crdt_node(input: &[u8]) -> bool {
    let Ok(node) = wire::decode_node(input) else { return false };
    match wire::delta::authorship(input).expect("what reads has an author or none") {
        wire::delta::Authorship::Signed { author, links, unsigned } => {
            same(links, node.links.clone());
            same(Some(author), node.delta.author.clone());
            same(Delta::decode(unsigned).expect("a part of what reads"), Delta { author: None, ..node.delta.clone() });
        }
        wire::delta::Authorship::Unsigned => same(node.delta.author.clone(), None),
        wire::delta::Authorship::Unreadable => {}
    }
    let (cid, block) = wire::encode_node(&node.links, &node.delta);
    assert_eq!(cid, wire::delta::block_cid(&block));
    if block.len() <= wire::delta::BLOCK_BYTES_MAX {
        let again = wire::decode_node(&block).expect("own block");
        // Links are written in order, each once.
        let ordered = |links: &[types::Cid]| links.iter().map(types::Cid::to_bytes).collect::<std::collections::BTreeSet<_>>();
        same(ordered(&again.links), ordered(&node.links));
        same(wire::encode_node(&again.links, &again.delta).1, block);
        same(again.delta, node.delta);
    }
    true
}

pub fn crdt_nodes() -> Vec<Vec<u8>> {
    let links = [some_cids()[0], wire::delta::block_cid(b"another")];
    let deltas = deltas();
    let own = Delta::decode(&deltas[deltas.len() - 1]).expect("own delta");
    vectors::crdt_blocks().into_iter().chain([wire::encode_node(&links, &own).1]).collect()
}

pub fn crdt_block(input: &[u8]) -> bool {
    use consensus::crdt::block::{Block, LINKS_MAX, PRIORITY_MAX};
    let Ok(block) = Block::parse(input) else { return false };
    assert!(block.links.len() <= LINKS_MAX && (1..=PRIORITY_MAX).contains(&block.priority));
    true
}

pub fn heads(input: &[u8]) -> bool {
    let Ok(heads) = wire::decode_heads(input) else { return false };
    same(wire::decode_heads(&wire::encode_heads(&heads)), Ok(heads));
    true
}

pub fn lists_of_heads() -> Vec<Vec<u8>> {
    vectors::gossip().into_iter().chain([wire::encode_heads(&some_cids()), some_cids()[0].to_bytes()]).collect()
}

pub fn pin(input: &[u8]) -> bool {
    let Ok(pin) = wire::decode_pin(input) else { return false };
    same(wire::decode_pin(&wire::encode_pin(&pin)), Ok(pin));
    true
}

pub fn pins() -> Vec<Vec<u8>> {
    vectors::of_hex("pins-protobuf.json").into_iter().chain(some_pins().iter().map(wire::encode_pin)).collect()
}

pub fn pin_key(input: &[u8]) -> bool {
    let Ok(key) = std::str::from_utf8(input) else { return false };
    let Ok(cid) = wire::cid_of_key(key) else { return false };
    same(wire::cid_of_key(&wire::pin_key(&cid)), Ok(cid));
    true
}

pub fn pin_keys() -> Vec<Vec<u8>> {
    some_cids().iter().map(|cid| wire::pin_key(cid).into_bytes()).collect()
}

pub fn raft_snapshot(input: &[u8]) -> bool {
    let pins = wire::raft::decode_snapshot(input).filter(Result::is_ok).count();
    assert!(pins <= input.len());
    pins > 0
}

pub fn raft_snapshots() -> Vec<Vec<u8>> {
    vectors::of_hex("raft-snapshot.json")
}

pub fn export_line(input: &[u8]) -> bool {
    let Ok(line) = std::str::from_utf8(input) else { return false };
    let Ok(pin) = wire::export::parse_line(line) else { return false };
    let written = wire::export::export_line(&pin);
    same(wire::export::parse_line(&written).expect("own line"), pin);
    true
}

pub fn export_lines() -> Vec<Vec<u8>> {
    let own = some_pins().iter().map(wire::export::export_line).map(String::into_bytes).collect::<Vec<_>>();
    vectors::state_export().into_iter().take(20).chain(own).collect()
}

pub fn metric(input: &[u8]) -> bool {
    let Ok(metric) = wire::metric::decode_metric(input) else { return false };
    let written = wire::metric::encode_metric(&metric);
    if written.len() <= wire::metric::METRIC_BYTES_MAX {
        same(wire::metric::decode_metric(&written), Ok(metric));
    }
    true
}

pub fn ping(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else { return false };
    let ping = PingValue::of_json(text);
    same(&PingValue::of_json(&ping.to_json()), &ping);
    ping != PingValue::default()
}

pub fn pings() -> Vec<Vec<u8>> {
    let ping = PingValue { peer_name: "a<b".to_owned(), ipfs_id: "id".to_owned(), ipfs_addresses: vec!["/ip4/1.2.3.4".to_owned()] };
    vec![ping.to_json().into_bytes()]
}

pub fn gossip_message(input: &[u8]) -> bool {
    let Ok(message) = SignedMessage::decode(input) else { return false };
    assert!(message.id().len() <= 16 + message.seqno.len());
    assert!(message.signing_bytes().len() < 2 * input.len() + 64);
    same(SignedMessage::decode(&message.encode()), Ok(message));
    true
}

const SERVICE: &str = "_p2p._udp.local";

pub fn mdns(input: &[u8]) -> bool {
    wire::mdns::hear(input, SERVICE).is_some_and(|heard| heard != wire::mdns::Heard::Nothing)
}

pub fn mdns_packets() -> Vec<Vec<u8>> {
    let addresses = ["/ip4/10.0.0.1/tcp/9096".to_owned(), "/ip6/::1/tcp/1".to_owned()];
    let said = wire::mdns::answer(SERVICE, "somebody", [10, 0, 0, 1].into(), &addresses);
    vec![wire::mdns::question(SERVICE), said]
}

pub fn bitswap(input: &[u8]) -> bool {
    let Ok(message) = Message::decode(&Bytes::copy_from_slice(input)) else { return false };
    for block in &message.blocks {
        let _ = block.prefix.cid(&[7; 64]);
    }
    same(Message::decode(&message.encode()), Ok(message));
    true
}

pub fn bitswap_messages() -> Vec<Vec<u8>> {
    use bitswap::{Block, Presence, Want, WantKind};
    let want = |cid, is_cancel, kind| Want { cid, priority: i32::MIN, is_cancel, kind, send_dont_have: true };
    let [a, b, c, ..] = some_cids()[..] else { return Vec::new() };
    let message = Message {
        wants: vec![want(a, false, WantKind::Block), want(b, true, WantKind::Have)],
        is_full: true,
        blocks_legacy: vec![Bytes::from_static(b"legacy"), Bytes::new()],
        blocks: vec![Block::new(&a, Bytes::from_static(b"data")), Block::new(&c, Bytes::new())],
        presences: vec![(a, Presence::Have), (b, Presence::DontHave)],
        pending_bytes: -5,
    };
    let wants = Message { wants: message.wants.clone(), ..Message::default() };
    let blocks = Message { blocks: message.blocks.clone(), ..Message::default() };
    [message, wants, blocks].iter().map(|message| message.encode().to_vec()).collect()
}

/// Messages of the DHT: what is read is bounded, so it reads back as it is.
pub fn kad(input: &[u8]) -> bool {
    let Ok(message) = wire::kad::decode(input) else { return false };
    same(wire::kad::decode(&message.encode()), Ok(message));
    true
}

pub fn kad_messages() -> Vec<Vec<u8>> {
    use wire::kad::{Contact, Kind, Message};
    let contact =
        |number: u8| Contact { id: types::PeerId::from_ed25519(&[number; 32]), addresses: vec![vec![4, 10, 0, 0, number, 6, 15, 161]] };
    let request = Message::request(Kind::GetProviders, b"\x12\x03key");
    let answer = Message { closer: vec![contact(1), contact(2)], providers: vec![contact(3)], ..request.clone() };
    let value = Message { record: Some((b"/ipns/x".to_vec(), b"value".to_vec())), ..Message::request(Kind::PutValue, b"/ipns/x") };
    [request, answer, value].iter().map(Message::encode).collect()
}

/// A value of every kind of call; whoever calls chooses the kind by the method's name.
pub fn rpc_values(input: &[u8]) -> bool {
    let calls = [
        value::<rpc::Request>(input),
        value::<rpc::Response>(input),
        value::<rpc::RpcPin>(input),
        value::<rpc::PinInfo>(input),
        value::<rpc::GlobalPinInfo>(input),
        value::<rpc::Id>(input),
        value::<rpc::ConnectGraph>(input),
        value::<rpc::RepoGc>(input),
        value::<rpc::BlockWithMeta>(input),
        value::<rpc::RepoStat>(input),
        value::<Metric>(input),
        value::<Alert>(input),
        value::<Vec<types::PeerId>>(input),
        value::<types::PeerId>(input),
        value::<types::Cid>(input),
        value::<wire::status::Filter>(input),
        value::<()>(input),
    ];
    // What a door makes of it.
    let _ = rpc::decode::<rpc::RpcPin>(input).map(|pin| (wire::rest::Pin::from(&pin), Pin::try_from(pin)));
    let _ = rpc::decode::<rpc::GlobalPinInfo>(input).map(|info| wire::rest::to_go_json(&wire::rest::GlobalPinInfo::from(&info)));
    let _ = rpc::decode::<rpc::Id>(input).map(|id| wire::rest::to_go_json(&wire::rest::Id::from(&id)));
    calls.contains(&true)
}

fn value<M: rpc::Message + PartialEq + Debug>(input: &[u8]) -> bool {
    let Ok(value) = rpc::decode::<M>(input) else { return false };
    same(rpc::decode(&rpc::encode(&value)), Ok(value));
    true
}

/// A stream of values without lengths: where each ends must not depend on how it arrives.
pub fn rpc_frames(mut input: &[u8]) -> bool {
    const LIMIT: usize = 32 << 10;
    // Longer streams than this are those of a mutator that likes repetition.
    const VALUES: usize = 64;
    let mut heads = 0;
    for _ in 0..VALUES {
        if input.is_empty() {
            break;
        }
        let found = scan(input, LIMIT);
        let mut scanner = Scanner::new(LIMIT);
        let mut growing = Scan::NeedMore;
        // Cuts that differ from input to input.
        let step = 1 + usize::from(input[0] % 29);
        let mut end = 0;
        while growing == Scan::NeedMore && end < input.len() {
            end = (end + step).min(input.len());
            growing = scanner.advance(&input[..end]);
        }
        same(growing, found);
        let Scan::Complete(length) = found else { break };
        assert!(length <= input.len() && length > 0);
        let mut reader = Reader::new(input);
        assert_eq!(reader.skip(), Ok(()));
        assert_eq!(reader.rest().len(), input.len() - length);
        heads += usize::from(rpc::decode::<rpc::Request>(&input[..length]).is_ok_and(|request| request != rpc::Request::default()));
        heads += usize::from(rpc::decode::<rpc::Response>(&input[..length]).is_ok_and(|response| response.request.is_some()));
        input = &input[length..];
    }
    heads > 0
}
