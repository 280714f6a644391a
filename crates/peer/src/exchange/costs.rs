//! What exchanges cost: bytes both ways and time, beside sending everything. `cargo xtask bench wire --only records` prints it.

use super::*;
use crate::records;
use std::time::Instant;
use store::MemoryStore;
use types::{PeerMessage, RecordKey, RecordKind, UnixMillis};

/// A shelf over a store, which takes everything unchecked: checking a signature costs each new record the same, however it came.
#[derive(Default)]
struct Unchecked(MemoryStore);

#[async_trait]
impl Shelf for Unchecked {
    async fn names(&self) -> Result<BTreeMap<RecordName, Vec<u8>>, String> {
        records::names(&self.0).map_err(|error| error.to_string())
    }
    fn record(&self, key: &[u8]) -> Option<SignedRecord> {
        records::under(&self.0, key)
    }
    fn take(&self, _: PeerId, taken: Vec<SignedRecord>) {
        records::keep(&self.0, &taken).expect("kept");
    }
    fn is_member(&self, _: &PeerId) -> bool {
        true
    }
}

/// A claim of usual length.
fn claim(number: u64, version: u64) -> SignedRecord {
    let key = RecordKey {
        kind: RecordKind::Claim,
        key: format!("anna/site number {number}").into_bytes(),
        author: PeerId::from_ed25519(&[9; 32]),
    };
    SignedRecord { key, version, written: UnixMillis(number), value: Some(vec![1; 64]), signature: vec![8; 64] }
}

fn filled(claims: impl Iterator<Item = SignedRecord>) -> Unchecked {
    let shelf = Unchecked::default();
    let claims: Vec<SignedRecord> = claims.collect();
    records::keep(&shelf.0, &claims).expect("kept");
    shelf
}

/// What an older peer is sent: everything, by the shell and by the machine, in both directions.
fn whole(shelf: &Unchecked) -> usize {
    let all = records::load(&shelf.0).expect("they read");
    2 * all.chunks(200).map(|part| wire::peer::encode(&PeerMessage::Records(part.to_vec())).len()).sum::<usize>()
}

async fn measure(name: &str, one: Unchecked, other: Unchecked) {
    let (from, to) = (PeerId::from_ed25519(&[1; 32]), PeerId::from_ed25519(&[2; 32]));
    let before = whole(&one) + whole(&other);
    let (mut here, mut left) = tokio::io::duplex(1 << 20);
    let (mut right, mut there) = tokio::io::duplex(1 << 20);
    let begun = Instant::now();
    let asking = async {
        let outcome = ask(&mut here, &one, to).await;
        drop(here);
        outcome
    };
    let answering = async {
        let outcome = answer(&mut there, &other, from).await;
        drop(there);
        outcome
    };
    let (numbers, answered, passed) = tokio::join!(asking, answering, tokio::io::copy_bidirectional(&mut left, &mut right));
    let took = begun.elapsed();
    answered.expect("it comes to an end");
    let ((gave, taken), (up, down)) = (numbers.expect("it comes to an end"), passed.expect("a pipe"));
    assert_eq!(records::names(&one.0).expect("they read").len(), records::names(&other.0).expect("they read").len());
    println!(
        "{name}: {} bytes ({up} up, {down} down) in {:.1} ms, {gave} given, {taken} taken; everything, as older peers send it: {before} bytes",
        up + down,
        took.as_secs_f64() * 1000.0
    );
}

#[tokio::test]
#[ignore = "a measurement"]
async fn what_exchanges_of_records_cost() {
    for count in [0, 100, 4_096, 100_000] {
        let all = || (0..count).map(|number| claim(number, 1));
        measure(&format!("{count} records, the same"), filled(all()), filled(all())).await;
        if count > 0 {
            let changed = |number| claim(number, if number == count / 2 { 2 } else { 1 });
            measure(&format!("{count} records, one differs"), filled((0..count).map(changed)), filled(all())).await;
            let others = (count..2 * count).map(|number| claim(number, 1));
            measure(&format!("{count} records, none in common"), filled(all()), filled(others)).await;
        }
    }
}
