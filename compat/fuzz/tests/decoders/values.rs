//! Values of every kind, to be encoded as seeds.

use std::num::NonZeroU32;
use types::*;
use wire::delta::block_cid;

pub fn some_cids() -> Vec<Cid> {
    let v1 = block_cid(b"one");
    let raw = Cid::new_v1(0x55, *block_cid(b"two").hash());
    let v0 = Cid::new_v0(*v1.hash()).expect("sha2-256 makes a CIDv0");
    let inline = Cid::new_v1(0x55, cid::multihash::Multihash::wrap(0, b"inside").expect("short"));
    vec![v1, raw, v0, inline]
}

pub fn some_peers() -> Vec<PeerId> {
    (1..4).map(|n| PeerId::from_ed25519(&[n; 32])).collect()
}

pub fn some_pins() -> Vec<Pin> {
    let number = |value| NonZeroU32::new(value).expect("at least 1");
    let full = PinOptions {
        replicas: Replicas::Between { least: number(2), most: number(3) },
        name: "a name, ä".to_owned(),
        shard_size: 100 << 20,
        prefer: Vec::new(),
        expires: Some(UnixMillis::from_seconds(2_000_000_000)),
        metadata: [("key".to_owned(), "value".to_owned()), (String::new(), "\u{2028}<".to_owned())].into(),
        update: Some(some_cids()[1]),
        origins: vec![wire::multiaddr::from_text("/ip4/1.2.3.4/tcp/4001").expect("an address")],
    };
    let pin = |cid, kind, options, placement, depth, reference| Pin {
        cid,
        kind,
        options,
        placement,
        depth,
        reference,
        created: UnixMillis::from_seconds(1_700_000_000),
    };
    let [a, b, c, ..] = some_cids()[..] else { return Vec::new() };
    let everywhere = PinOptions { replicas: Replicas::Everywhere, ..PinOptions::default() };
    vec![
        pin(a, PinKind::Data, PinOptions::default(), Vec::new(), Depth::Recursive, None),
        pin(b, PinKind::Shard, full, some_peers(), Depth::Levels(0), Some(c)),
        pin(c, PinKind::Meta, everywhere, Vec::new(), Depth::Levels(7), None),
    ]
}

pub fn some_records() -> Vec<SignedRecord> {
    let record = |kind, value: Option<&[u8]>| SignedRecord {
        key: RecordKey { kind, key: b"which".to_vec(), author: some_peers()[0] },
        version: 3,
        written: UnixMillis(1_700_000_000_000),
        value: value.map(<[u8]>::to_vec),
        signature: vec![9; 64],
    };
    vec![record(RecordKind::Member, Some(b"value")), record(RecordKind::Duty, None), record(RecordKind::Unknown(77), Some(b""))]
}

pub fn some_messages() -> Vec<PeerMessage> {
    let cids = some_cids();
    let reasons = [
        None,
        Some(Because::NoRoom { needed: ByteCount(9), free: ByteCount(3) }),
        Some(Because::NoProvider { missing: 4, first: Some(cids[0]), asked: "who".to_owned() }),
        Some(Because::Grace { peer: some_peers()[1], until: UnixMillis(8) }),
        Some(Because::Failed { error: "why".to_owned() }),
    ];
    let copies = reasons.into_iter().enumerate().map(|(n, because)| CopyState {
        cid: cids[n % 4],
        version: 1 << 60 | n as u64,
        state: PinState::PinError,
        because,
        next_try: Some(UnixMillis(5)),
        tries: 3,
        since: UnixMillis(4),
    });
    let hello = |load, gateway| PeerMessage::Hello {
        name: "name".to_owned(),
        node_addresses: vec!["/ip4/127.0.0.1/tcp/1".to_owned(), String::new()],
        gateway,
        api: Some("127.0.0.1:9094".to_owned()),
        space_limit: ByteCount(1 << 40),
        space_used: ByteCount(77),
        space_reserved: ByteCount(0),
        is_draining: true,
        incarnation: 5,
        clock: UnixMillis(1_700_000_000_000),
        load,
    };
    vec![
        hello(Some(Load { copies: 1, placed: ByteCount(2), moving: ByteCount(3), foreign: ByteCount(4) }), Some("g".to_owned())),
        hello(None, None),
        PeerMessage::AskHoldings { question: 9, heads: cids.clone() },
        PeerMessage::AskCopies(cids.clone()),
        PeerMessage::Holdings(HoldingReport { incarnation: 2, complete: Some(9), answer: 9, copies: copies.collect() }),
        PeerMessage::Reserve { lease: 7, bytes: ByteCount(1 << 33) },
        PeerMessage::Reserved { lease: 7, refused: Some(Refusal::NoRoom { free: ByteCount(5) }) },
        PeerMessage::Reserved { lease: 7, refused: None },
        PeerMessage::Release { lease: 7, is_kept: true },
        PeerMessage::Offer(Offer {
            shipment: 1 << 32,
            bytes: ByteCount(9),
            least: ByteCount(1),
            placed: ByteCount(70),
            capacity: ByteCount(99),
        }),
        PeerMessage::Take { shipment: 1 << 32, bytes: ByteCount(9) },
        PeerMessage::Records(some_records()),
        PeerMessage::Leaving,
        PeerMessage::Delta(vec![1, 2, 3]),
    ]
}
