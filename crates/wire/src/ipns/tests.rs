use super::*;
use ed25519_dalek::{Signature, Signer, SigningKey, Verifier, VerifyingKey};

fn key() -> SigningKey {
    SigningKey::from_bytes(&[9; 32])
}

fn name() -> PeerId {
    PeerId::from_ed25519(&key().verifying_key().to_bytes())
}

fn check(key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let key = key.strip_prefix(&[8, 1, 0x12, 0x20]).and_then(|key| key.try_into().ok());
    let key = key.and_then(|key| VerifyingKey::from_bytes(key).ok());
    let signature = Signature::from_slice(signature).ok();
    matches!((key, signature), (Some(key), Some(signature)) if key.verify(message, &signature).is_ok())
}

fn entry(sequence: u64, validity: &str) -> Entry {
    Entry { value: b"/ipfs/bafkqaaa".to_vec(), validity: GoTime::parse(validity).expect("a time"), sequence, ttl: Duration::from_secs(300) }
}

fn sign(message: &[u8]) -> Result<Vec<u8>, std::convert::Infallible> {
    Ok(key().sign(message).to_bytes().to_vec())
}

fn made(entry: &Entry) -> Vec<u8> {
    match encode(entry, &name(), b"", sign) {
        Ok(bytes) => bytes,
    }
}

#[test]
fn a_record_reads_back_and_is_its_names() {
    let entry = entry(7, "2030-01-02T03:04:05.5Z");
    let bytes = made(&entry);
    let record = decode(&bytes).expect("own bytes");
    assert_eq!(record.entry, entry);
    assert_eq!(record.bytes(), bytes);
    assert_eq!(record.verify(&name(), check), Ok(()));
    let other = PeerId::from_ed25519(&[3; 32]);
    assert_eq!(record.verify(&other, check), Err(RecordError::Signature));
    assert!(!record.is_expired(entry.validity));
    assert!(record.is_expired(GoTime { nanos: entry.validity.nanos + 1, ..entry.validity }));
}

#[test]
fn no_changed_byte_is_taken() {
    let bytes = made(&entry(7, "2030-01-02T03:04:05Z"));
    let original = decode(&bytes).expect("own bytes");
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        let Ok(record) = decode(&changed) else { continue };
        // The first signature is nobody's business; all else is repeated by what the second one covers.
        if record.verify(&name(), check).is_ok() {
            assert_eq!(record.entry, original.entry, "byte {at}");
        }
    }
}

#[test]
fn the_higher_sequence_counts_then_the_longer_validity() {
    let record = |sequence, validity| decode(&made(&entry(sequence, validity))).expect("own bytes");
    let old = record(1, "2031-01-01T00:00:00Z");
    let newer = record(2, "2030-01-01T00:00:00Z");
    let longer = record(2, "2030-01-01T00:00:00.000000001Z");
    assert_eq!(newer.order(&old), Ordering::Greater);
    assert_eq!(longer.order(&newer), Ordering::Greater);
    assert_eq!(newer.order(&newer), Ordering::Equal);
}

#[test]
fn a_name_that_is_a_hash_needs_its_key_in_the_record() {
    let key_bytes = [&[8, 1, 0x12, 0x20][..], key().verifying_key().as_bytes()].concat();
    let hashed = PeerId::from_bytes(&[&[0x12, 0x20][..], &sha2_256(&key_bytes)].concat()).expect("a name");
    let entry = entry(1, "2030-01-01T00:00:00Z");
    let Ok(with_key) = encode(&entry, &hashed, &key_bytes, sign);
    let record = decode(&with_key).expect("own bytes");
    assert_eq!(record.verify(&hashed, check), Ok(()));
    assert!(matches!(decode(&made(&entry)).expect("own bytes").verify(&hashed, check), Err(RecordError::NoKey(_))));
    let Ok(other_key) = encode(&entry, &hashed, b"another", sign);
    assert!(matches!(decode(&other_key).expect("own bytes").verify(&hashed, check), Err(RecordError::OtherKey(_))));
    // A name that contains its key takes the key in the record only when it is the same.
    assert_eq!(record.verify(&name(), check), Ok(()));
}

/// Writes a field.
type Put<'a> = &'a dyn Fn(&mut Vec<u8>);

/// The message without one of its fields, and with another in its place.
fn changed(bytes: &[u8], number: u32, instead: Option<Put<'_>>) -> Vec<u8> {
    let mut out = Vec::new();
    for field in Reader::new(bytes).map(|field| field.expect("own bytes")) {
        match field.value {
            _ if field.number == number => {}
            protobuf::Value::Bytes(content) => protobuf::put_bytes(&mut out, field.number, content),
            protobuf::Value::Varint(content) => protobuf::put_uint(&mut out, field.number, content),
            _ => panic!("no such field"),
        }
    }
    if let Some(put) = instead {
        put(&mut out);
    }
    out
}

#[test]
fn what_is_no_record_is_named() {
    let bytes = made(&entry(5, "2030-01-01T00:00:00Z"));
    let fault = |number, instead: Option<Put<'_>>| decode(&changed(&bytes, number, instead)).map(|record| record.entry.sequence);
    assert_eq!(fault(field::SIGNATURE_V2, None), Err(RecordError::Missing("second signature")));
    assert_eq!(fault(field::DATA, None), Err(RecordError::Missing("signed document")));
    assert_eq!(fault(field::SEQUENCE, Some(&|out| protobuf::put_uint(out, field::SEQUENCE, 6))), Err(RecordError::Mismatch("sequence")));
    assert_eq!(fault(field::TTL, None), Err(RecordError::Mismatch("time to live")));
    assert_eq!(fault(field::VALUE, Some(&|out| protobuf::put_bytes(out, field::VALUE, b"/ipfs/x"))), Err(RecordError::Mismatch("value")));
    // Without both signs of the first version its other fields say nothing.
    let bare = changed(&changed(&bytes, field::VALUE, None), field::SIGNATURE_V1, None);
    assert_eq!(decode(&changed(&bare, field::SEQUENCE, None)).map(|record| record.entry.sequence), Ok(5));
    let document = |document: &[u8]| {
        let mut out = changed(&bare, field::DATA, None);
        protobuf::put_bytes(&mut out, field::DATA, document);
        decode(&out).map(|record| record.entry.sequence)
    };
    let good = document::encode(b"/ipfs/x", b"2030-01-01T00:00:00Z", 8, 1);
    assert_eq!(document(&good), Ok(8));
    for at in 1..good.len() {
        assert!(matches!(document(&good[..at]), Err(RecordError::Document(_))), "{at}");
    }
    assert!(matches!(document(&[&good[..], &[0]].concat()), Err(RecordError::Document(_))));
    assert_eq!(document(&document::encode(b"/ipfs/x", b"tomorrow", 8, 1)), Err(RecordError::Validity));
    assert!(matches!(document(&document::encode(b"/ipfs/x", b"2030-01-01T00:00:00Z", 8, u64::MAX)), Err(RecordError::Document(_))));
    // A map of six pairs: one that is not known, of nested things.
    let mut more = good.clone();
    more[0] = 0xa6;
    more.extend([0x61, b'x', 0x82, 0xa1, 0x61, b'y', 0xf6, 0xd8, 0x2a, 0x41, 0]);
    assert_eq!(document(&more), Ok(8));
    let mut doubled = good.clone();
    doubled[0] = 0xa6;
    doubled.extend([0x63, b'T', b'T', b'L', 1]);
    assert_eq!(document(&doubled), Err(RecordError::Document("a key stands there twice")));
    assert_eq!(decode(&vec![0; RECORD_BYTES_MAX + 1]), Err(RecordError::TooLong(RECORD_BYTES_MAX + 1)));
}

#[test]
fn names_read_and_write_as_kubos() {
    let text = "k51qzi5uqu5dh8l6sz5pr1l9kn7ud9wj2g2rum86w1gdc72vmpgtiuuzg13jme";
    let name = name_from_text(text).expect("a name");
    assert_eq!(name_text(&name), text);
    assert_eq!(name_from_text(&name.to_string()), Ok(name));
    let hashed = "k2k4r8lpbzjire93q4jirr546u8qrirpu41x75rf11lctxly8vjzrva5";
    assert_eq!(name_text(&name_from_text(hashed).expect("a name")), hashed);
    for bad in ["", "example.org", "bafkreicysg23kiwv34eg2d7qweipxwosdo2py4ldv42nbauguluen5v6am", "k51"] {
        assert!(name_from_text(bad).is_err(), "{bad}");
    }
}
