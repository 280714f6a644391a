//! What Pinfold peers of the version before say and read: bytes that must stay as they are, since peers of two versions share a cluster while
//! it is brought to the next one.

use types::{PeerId, PeerMessage, RecordKey, RecordKind, SignedRecord, UnixMillis};

/// Everything that a peer before `/pinfold/records/1` is sent when it connects, and sends itself: a member, and a claim that was released.
const RECORDS: &str = concat!(
    "01920892da0074010001002600240801122006060606060606060606060606060606060606060606060606060606060606062600240801",
    "1220050505050505050505050505050505050505050505050505050505050505050500000000000000010000018bcfe5687b0100000007",
    "74727573746564000408080808da004c0100060009616e6e612f7369746526002408011220050505050505050505050505050505050505",
    "050505050505050505050505050500000000000000020000018bcfe5687b00000408080808",
);

#[test]
fn records_are_sent_and_read_whole_as_before() {
    let record = |kind, key: &[u8], version, value: Option<&[u8]>| SignedRecord {
        key: RecordKey { kind, key: key.to_vec(), author: PeerId::from_ed25519(&[5; 32]) },
        version,
        written: UnixMillis(1_700_000_000_123),
        value: value.map(<[u8]>::to_vec),
        signature: vec![8; 4],
    };
    let member = PeerId::from_ed25519(&[6; 32]);
    let message = PeerMessage::Records(vec![
        record(RecordKind::Member, member.as_bytes(), 1, Some(b"trusted")),
        record(RecordKind::Claim, b"anna/site", 2, None),
    ]);
    assert_eq!(hex::encode(wire::peer::encode(&message)), RECORDS);
    assert_eq!(wire::peer::decode(&hex::decode(RECORDS).expect("hex")), Ok(Some(message)));
}
