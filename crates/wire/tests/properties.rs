//! Properties: what is written reads back, and no bytes of a stranger make a reader panic.

use ::bytes::Bytes;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use std::num::NonZeroU32;
use types::*;
use wire::delta::block_cid;

fn a_cid() -> impl Strategy<Value = Cid> {
    (any::<[u8; 4]>(), 0..3u8).prop_map(|(seed, form)| {
        let v1 = block_cid(&seed);
        match form {
            0 => v1,
            1 => Cid::new_v1(0x55, *v1.hash()),
            _ => Cid::new_v0(*v1.hash()).expect("sha2-256 makes a CIDv0"),
        }
    })
}

fn a_peer() -> impl Strategy<Value = PeerId> {
    any::<[u8; 32]>().prop_map(|key| PeerId::from_ed25519(&key))
}

fn some_replicas() -> impl Strategy<Value = Replicas> {
    prop_oneof![
        Just(Replicas::Unset),
        Just(Replicas::Everywhere),
        (1..100u32, 0..100u32).prop_map(|(least, more)| {
            let number = |value| NonZeroU32::new(value).expect("at least 1");
            Replicas::Between { least: number(least), most: number(least + more) }
        }),
    ]
}

fn a_kind() -> impl Strategy<Value = PinKind> {
    prop_oneof![Just(PinKind::Bad), Just(PinKind::Data), Just(PinKind::Meta), Just(PinKind::ClusterDag), Just(PinKind::Shard)]
}

fn a_time() -> impl Strategy<Value = UnixMillis> {
    (0..1u64 << 34).prop_map(UnixMillis::from_seconds)
}

fn some_options() -> impl Strategy<Value = PinOptions> {
    let expires = option::of((1..1u64 << 34).prop_map(UnixMillis::from_seconds));
    let metadata = btree_map(".{0,8}", ".{0,8}", 0..4);
    (some_replicas(), ".{0,12}", any::<u64>(), expires, metadata, option::of(a_cid()), vec(vec(any::<u8>(), 0..20), 0..3)).prop_map(
        |(replicas, name, shard_size, expires, metadata, update, origins)| PinOptions {
            replicas,
            name,
            shard_size,
            prefer: Vec::new(),
            expires,
            metadata,
            update,
            origins,
        },
    )
}

fn a_pin() -> impl Strategy<Value = Pin> {
    let depth = prop_oneof![Just(Depth::Recursive), (0..=i32::MAX as u32).prop_map(Depth::Levels)];
    (a_cid(), a_kind(), some_options(), vec(a_peer(), 0..4), depth, option::of(a_cid()), a_time()).prop_map(
        |(cid, kind, options, placement, depth, reference, created)| Pin { cid, kind, options, placement, depth, reference, created },
    )
}

fn a_reason() -> impl Strategy<Value = Because> {
    prop_oneof![
        any::<u64>().prop_map(|before| Because::Queue { before }),
        any::<[u64; 2]>().prop_map(|[a, b]| Because::NoRoom { needed: ByteCount(a), free: ByteCount(b) }),
        (any::<u64>(), proptest::option::of(a_cid()), "[a-z ]{0,20}").prop_map(|(missing, first, asked)| Because::NoProvider {
            missing,
            first,
            asked
        }),
        ".{0,30}".prop_map(|error| Because::NodeDown { error }),
        Just(Because::Throttled),
        any::<[u32; 2]>().prop_map(|[confirmed, needed]| Because::HandOver { confirmed, needed }),
        any::<[u64; 2]>().prop_map(|[removals, held]| Because::MassRemoval { removals, held }),
        Just(Because::CatchingUp),
        (a_peer(), any::<u64>()).prop_map(|(peer, until)| Because::Grace { peer, until: UnixMillis(until) }),
        any::<[u32; 2]>().prop_map(|[needed, candidates]| Because::NotEnoughPeers { needed, candidates }),
        any::<[u32; 2]>().prop_map(|[seen, known]| Because::Partition { seen, known }),
        Just(Because::Unconfirmed),
        ".{0,30}".prop_map(|error| Because::Failed { error }),
    ]
}

fn a_copy() -> impl Strategy<Value = CopyState> {
    let times = (option::of(any::<u64>()), any::<u32>(), any::<u64>());
    (a_cid(), any::<u64>(), 0..12usize, option::of(a_reason()), times).prop_map(
        |(cid, version, state, because, (next_try, tries, since))| {
            let (next_try, since) = (next_try.map(UnixMillis), UnixMillis(since));
            CopyState { cid, version, state: PinState::ALL[state], because, next_try, tries, since }
        },
    )
}

fn a_record() -> impl Strategy<Value = SignedRecord> {
    let kind = prop_oneof![
        Just(RecordKind::Member),
        Just(RecordKind::Duty),
        Just(RecordKind::Balance),
        Just(RecordKind::Name),
        (5..=u16::MAX).prop_map(RecordKind::Unknown)
    ];
    let value = option::of(vec(any::<u8>(), 0..200));
    (kind, vec(any::<u8>(), 0..60), a_peer(), any::<[u64; 2]>(), value, vec(any::<u8>(), 0..80)).prop_map(
        |(kind, key, author, [version, written], value, signature)| SignedRecord {
            key: RecordKey { kind, key, author },
            version,
            written: UnixMillis(written),
            value,
            signature,
        },
    )
}

fn a_message() -> impl Strategy<Value = PeerMessage> {
    let load = any::<[u64; 4]>().prop_map(|[copies, placed, moving, foreign]| Load {
        copies,
        placed: ByteCount(placed),
        moving: ByteCount(moving),
        foreign: ByteCount(foreign),
    });
    let hello =
        (".{0,10}", vec(".{0,20}", 0..4), option::of(".{0,10}"), option::of(".{0,10}"), any::<[u64; 5]>(), any::<bool>(), option::of(load))
            .prop_map(|(name, node_addresses, gateway, api, [limit, used, reserved, incarnation, clock], is_draining, load)| {
                PeerMessage::Hello {
                    name,
                    node_addresses,
                    gateway,
                    api,
                    space_limit: ByteCount(limit),
                    space_used: ByteCount(used),
                    space_reserved: ByteCount(reserved),
                    is_draining,
                    incarnation,
                    clock: UnixMillis(clock),
                    load,
                }
            });
    let holdings =
        (any::<[u64; 2]>(), option::of(any::<u64>()), vec(a_copy(), 0..5)).prop_map(|([incarnation, answer], complete, copies)| {
            PeerMessage::Holdings(HoldingReport { incarnation, complete, answer, copies })
        });
    let refusal = prop_oneof![any::<u64>().prop_map(|free| Refusal::NoRoom { free: ByteCount(free) }), Just(Refusal::Draining)];
    prop_oneof![
        hello,
        (any::<u64>(), vec(a_cid(), 0..4)).prop_map(|(question, heads)| PeerMessage::AskHoldings { question, heads }),
        vec(a_cid(), 0..5).prop_map(PeerMessage::AskCopies),
        vec(any::<u8>(), 0..50).prop_map(PeerMessage::Delta),
        holdings,
        any::<[u64; 2]>().prop_map(|[lease, bytes]| PeerMessage::Reserve { lease, bytes: ByteCount(bytes) }),
        (any::<u64>(), option::of(refusal)).prop_map(|(lease, refused)| PeerMessage::Reserved { lease, refused }),
        any::<(u64, bool)>().prop_map(|(lease, is_kept)| PeerMessage::Release { lease, is_kept }),
        any::<(u64, [u64; 4])>().prop_map(|(shipment, [bytes, least, placed, capacity])| {
            let [bytes, least, placed, capacity] = [bytes, least, placed, capacity].map(ByteCount);
            PeerMessage::Offer(Offer { shipment, bytes, least, placed, capacity })
        }),
        any::<[u64; 2]>().prop_map(|[shipment, bytes]| PeerMessage::Take { shipment, bytes: ByteCount(bytes) }),
        vec(a_record(), 0..4).prop_map(PeerMessage::Records),
        Just(PeerMessage::Leaving),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn stored_pins_read_back(pin in a_pin()) {
        let stored = wire::encode_pin(&pin);
        prop_assert_eq!(wire::decode_pin(&stored), Ok(pin));
    }

    #[test]
    fn pins_of_calls_read_back(pin in a_pin(), prefer in vec(a_peer(), 0..3)) {
        let pin = Pin { options: PinOptions { prefer, ..pin.options }, ..pin };
        let read: wire::rpc::RpcPin = wire::rpc::decode(&wire::rpc::encode(&wire::rpc::RpcPin::from(&pin))).expect("own bytes");
        prop_assert_eq!(Pin::try_from(read), Ok(pin));
    }

    #[test]
    fn exported_pins_read_back(pin in a_pin(), prefer in vec(a_peer(), 0..3), port in any::<u16>()) {
        let origins = vec![wire::multiaddr::from_text(&format!("/ip4/1.2.3.4/tcp/{port}")).expect("an address")];
        let pin = Pin { options: PinOptions { prefer, origins, ..pin.options }, ..pin };
        let line = wire::export::export_line(&pin);
        prop_assert!(!line.contains('\n'));
        prop_assert_eq!(wire::export::parse_line(&line).expect("own line"), pin);
    }

    #[test]
    fn blocks_of_the_dag_read_back(
        links in vec(a_cid(), 0..4),
        elements in vec((".{1,9}", ".{0,9}", vec(any::<u8>(), 0..40)), 0..4),
        priority in any::<u64>(),
        author in option::of((a_peer(), vec(any::<u8>(), 0..70))),
    ) {
        let elements: Vec<_> = elements.into_iter().map(|(key, id, value)| wire::Element { key, id, value }).collect();
        let author = author.map(|(author, signature)| wire::AuthorSignature { author, signature });
        let delta = wire::Delta { tombstones: elements.clone(), elements, priority, author };
        let (cid, block) = wire::encode_node(&links, &delta);
        let node = wire::decode_node(&block).expect("own block");
        prop_assert_eq!(&node.delta, &delta);
        prop_assert_eq!(wire::encode_node(&node.links, &node.delta), (cid, block));
    }

    #[test]
    fn bitswap_messages_read_back(
        wants in vec((a_cid(), any::<i32>(), any::<[bool; 3]>()), 0..4),
        blocks in vec((a_cid(), vec(any::<u8>(), 0..300)), 0..4),
        presences in vec((a_cid(), any::<bool>()), 0..4),
        pending_bytes in any::<i32>(),
    ) {
        use wire::bitswap::{Block, Message, Presence, Want, WantKind};
        let want = |(cid, priority, [is_cancel, is_have, send_dont_have]): (Cid, i32, [bool; 3])| {
            let kind = if is_have { WantKind::Have } else { WantKind::Block };
            Want { cid, priority, is_cancel, kind, send_dont_have }
        };
        let message = Message {
            wants: wants.into_iter().map(want).collect(),
            blocks: blocks.into_iter().map(|(cid, data)| Block::new(&cid, data.into())).collect(),
            presences: presences.into_iter().map(|(cid, has)| (cid, if has { Presence::Have } else { Presence::DontHave })).collect(),
            pending_bytes,
            ..Message::default()
        };
        prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
    }

    #[test]
    fn the_end_of_a_value_is_found_however_it_arrives(message in a_message(), cut in any::<prop::sample::Index>()) {
        use wire::msgpack::{Scan, Scanner, scan};
        let value = &wire::peer::encode(&message)[1..];
        let cut = cut.index(value.len());
        let mut scanner = Scanner::new(value.len());
        prop_assert_eq!(scanner.advance(&value[..cut]), Scan::NeedMore);
        prop_assert_eq!(scanner.advance(value), Scan::Complete(value.len()));
        prop_assert_eq!(scan(value, value.len() - 1), Scan::Bad);
    }

    #[test]
    fn times_read_back(seconds in -62_135_596_800i64..253_402_300_800, nanos in 0..1_000_000_000u32) {
        let time = wire::gotime::GoTime::new(seconds, nanos).expect("in range");
        prop_assert_eq!(wire::gotime::GoTime::parse(&time.to_string()), Ok(time));
    }

    #[test]
    fn peer_messages_read_back(message in a_message()) {
        prop_assert_eq!(wire::peer::decode(&wire::peer::encode(&message)), Ok(Some(message)));
    }

    #[test]
    fn records_read_back(record in a_record()) {
        prop_assert_eq!(wire::record::decode_record(&wire::record::encode_record(&record)), Ok(record));
    }

    #[test]
    fn damaged_messages_never_panic(message in a_message(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = wire::peer::encode(&message);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        read_by_all(&bytes);
        read_by_all(&bytes[..at]);
    }

    #[test]
    fn damaged_pins_never_panic(pin in a_pin(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = wire::encode_pin(&pin);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        read_by_all(&bytes);
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        read_by_all(&bytes);
    }

    /// Bytes that look more like protobuf and msgpack than noise does.
    #[test]
    fn structured_bytes_never_panic(bytes in vec(prop::sample::select(&b"\x01\x08\x0a\x0c\x12\x1a\x20\x22\x2a\x32\x81\x82\x91\x92\xa1\xa2\xc0\xc4\xd7\xda\xdc\xdf\xffaceginp{}[]\":,/-0"[..]), 0..60)) {
        read_by_all(&bytes);
    }
}

/// Every reader of the crate; the results do not matter.
fn read_by_all(bytes: &[u8]) {
    let _ = wire::decode_pin(bytes);
    let _ = wire::decode_node(bytes);
    let _ = wire::Delta::decode(bytes);
    let _ = wire::decode_heads(bytes);
    let _ = wire::peer::decode(bytes);
    let mut of_this_format = vec![1];
    of_this_format.extend(bytes);
    let _ = wire::peer::decode(&of_this_format);
    let _ = wire::record::decode_record(&of_this_format);
    let _ = wire::record::decode_record(bytes);
    let _ = wire::bitswap::Message::decode(&Bytes::copy_from_slice(bytes));
    let _ = wire::msgpack::scan(bytes, 100);
    let text = String::from_utf8_lossy(bytes);
    let _ = wire::cid_of_key(&text);
    let _ = wire::cids::cid_from_text(&text);
    let _ = wire::gotime::GoTime::parse(&text);
    let _ = wire::metric::decode_metric(bytes);
    let _ = wire::metric::PingValue::of_json(&text);
    let _ = wire::pubsub::SignedMessage::decode(bytes);
    let _ = wire::raft::decode_snapshot(bytes).last();
    let _ = wire::multiaddr::to_text(bytes);
    let _ = wire::multiaddr::peer_of(bytes);
    let _ = wire::multiaddr::from_text(&text);
    let _ = wire::export::parse_line(&text);
    let query = wire::rest::query::Query::parse(&text);
    let _ = wire::rest::query::add_params(&query, UnixMillis(0));
    let _ = wire::rest::query::parse_duration(&text);
    let _ = wire::status::Filter::parse(&text);
    read_by_all_calls(bytes);
    let _ = wire::identity::decode_identity(&text);
    let _ = wire::identity::decode_private_key(&text);
}

fn read_by_all_calls(bytes: &[u8]) {
    use wire::rpc::{self, decode};
    let _ = decode::<rpc::Request>(bytes);
    let _ = decode::<rpc::Response>(bytes);
    let _ = decode::<rpc::RpcPin>(bytes).map(Pin::try_from);
    let _ = decode::<rpc::PinInfo>(bytes);
    let _ = decode::<rpc::GlobalPinInfo>(bytes).map(|info| wire::rest::GlobalPinInfo::from(&info));
    let _ = decode::<rpc::Id>(bytes).map(|id| wire::rest::Id::from(&id));
    let _ = decode::<rpc::ConnectGraph>(bytes);
    let _ = decode::<rpc::RepoGc>(bytes);
    let _ = decode::<rpc::BlockWithMeta>(bytes);
    let _ = decode::<rpc::RepoStat>(bytes);
    let _ = decode::<wire::metric::Alert>(bytes);
    let _ = decode::<Vec<PeerId>>(bytes);
    let _ = decode::<()>(bytes);
}
