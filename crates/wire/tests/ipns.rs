//! Records that Kubo wrote, and ours beside them.

mod common;

use common::{bytes, entries, text};
use ed25519_dalek::{Signature, Signer, SigningKey, Verifier, VerifyingKey};
use proptest::collection::vec;
use proptest::prelude::*;
use std::time::Duration;
use types::PeerId;
use wire::gotime::GoTime;
use wire::ipns::{Entry, decode, encode, name_from_text, name_text};

fn check(key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let key = key.strip_prefix(&[8, 1, 0x12, 0x20]).and_then(|key| key.try_into().ok()).and_then(|key| VerifyingKey::from_bytes(key).ok());
    let signature = Signature::from_slice(signature).ok();
    matches!((key, signature), (Some(key), Some(signature)) if key.verify(message, &signature).is_ok())
}

#[test]
fn records_of_kubo_read_as_kubo_shows_them() {
    for vector in entries("ipns.json") {
        let record = decode(&bytes(&vector, "record")).expect("Kubo's record");
        assert_eq!(String::from_utf8_lossy(&record.entry.value), text(&vector, "value"));
        assert_eq!(record.entry.validity.to_string(), text(&vector, "validity"));
        assert_eq!(Some(record.entry.sequence), vector["sequence"].as_u64());
        assert_eq!(Some(record.entry.ttl.as_secs()), vector["ttl_seconds"].as_u64());
        let name = name_from_text(text(&vector, "name")).expect("Kubo's name");
        assert_eq!(name_text(&name), text(&vector, "name"));
        // Signatures of other kinds are checked in `net`; which key must have signed is decided here for all of them.
        let mut asked = false;
        let by_anybody = record.verify(&name, |_, _, _| {
            asked = true;
            true
        });
        assert!(by_anybody.is_ok() && asked);
        if text(&vector, "key").starts_with("ed25519") {
            assert_eq!(record.verify(&name, check), Ok(()));
        }
    }
}

/// Ed25519 signs the same bytes the same way: our record of the same key and content is Kubo's, byte for byte.
#[test]
fn our_record_is_kubos_byte_for_byte() {
    let vector = &entries("ipns.json")[0];
    let key = SigningKey::from_bytes(bytes(vector, "private_key")[4..36].try_into().expect("a seed"));
    let name = PeerId::from_ed25519(&key.verifying_key().to_bytes());
    let entry = Entry {
        value: text(vector, "value").as_bytes().to_vec(),
        validity: GoTime::parse(text(vector, "validity")).expect("a time"),
        sequence: 2,
        ttl: Duration::from_secs(420),
    };
    let made = encode(&entry, &name, b"", |message| Ok::<_, std::convert::Infallible>(key.sign(message).to_bytes().to_vec()));
    let Ok(made) = made;
    assert_eq!(hex::encode(made), text(vector, "record"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn records_read_back(value in vec(any::<u8>(), 0..2000), seconds in 0i64..253_402_300_800, nanos in 0u32..1_000_000_000,
                         sequence: u64, ttl in 0u64..i64::MAX as u64, seed: [u8; 32]) {
        let key = SigningKey::from_bytes(&seed);
        let name = PeerId::from_ed25519(&key.verifying_key().to_bytes());
        let entry = Entry { value, validity: GoTime { seconds, nanos }, sequence, ttl: Duration::from_nanos(ttl) };
        let made = encode(&entry, &name, b"", |message| Ok::<_, std::convert::Infallible>(key.sign(message).to_bytes().to_vec()));
        let Ok(made) = made;
        let record = decode(&made).expect("own bytes");
        prop_assert_eq!(&record.entry, &entry);
        prop_assert_eq!(record.verify(&name, check), Ok(()));
        prop_assert_eq!(name_from_text(&name_text(&name)), Ok(name));
    }
}
