//! Records of names, keys as people hand them over, files of a Kubo repository.

use crate::vectors;
use fuzz::same;
use types::PeerId;
use wire::gotime::GoTime;
use wire::ipns::{self, Entry};

pub fn ipns_record(input: &[u8]) -> bool {
    let Ok(record) = ipns::decode(input) else { return false };
    same(record.bytes(), input);
    // Any key could be asked for; which one it is must not depend on the signature.
    let name = PeerId::from_ed25519(&[5; 32]);
    assert!(record.verify(&name, |_, _, _| false).is_err());
    // What it says, written by us, is a record that says the same.
    let written = ipns::encode(&record.entry, &name, b"", |_| Ok::<_, std::convert::Infallible>(vec![1; 64]));
    let Ok(written) = written;
    if written.len() <= ipns::RECORD_BYTES_MAX {
        same(ipns::decode(&written).map(|again| again.entry), Ok(record.entry));
    }
    true
}

pub fn ipns_records() -> Vec<Vec<u8>> {
    let entry = |value: &[u8], sequence| Entry {
        value: value.to_vec(),
        validity: GoTime { seconds: 1_900_000_000, nanos: 1 },
        sequence,
        ttl: std::time::Duration::from_secs(300),
    };
    let own = [entry(b"/ipfs/bafkqaaa", 0), entry(b"", u64::MAX), entry(&[b'/'; 300], 70_000)];
    let name = PeerId::from_ed25519(&[5; 32]);
    let own = own.iter().map(|entry| match ipns::encode(entry, &name, b"", |_| Ok::<_, std::convert::Infallible>(vec![1; 64])) {
        Ok(bytes) => bytes,
    });
    vectors::ipns_records().into_iter().chain(own).collect()
}

pub fn ipns_name(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else { return false };
    let is_file = ipns::key_of_file(text).is_some_and(|name| {
        same(ipns::key_of_file(&ipns::key_file(&name)), Some(name));
        true
    });
    let Ok(name) = ipns::name_from_text(text) else { return is_file };
    same(ipns::name_from_text(&ipns::name_text(&name)), Ok(name));
    true
}

pub fn ipns_names() -> Vec<Vec<u8>> {
    let names =
        ["k51qzi5uqu5dh8l6sz5pr1l9kn7ud9wj2g2rum86w1gdc72vmpgtiuuzg13jme", "k2k4r8lpbzjire93q4jirr546u8qrirpu41x75rf11lctxly8vjzrva5"];
    names.iter().map(|name| name.as_bytes().to_vec()).chain([ipns::key_file("site").into_bytes()]).collect()
}

pub fn key_pem(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else { return false };
    let Ok(seed) = ipns::seed_from_pem(text) else { return false };
    same(ipns::seed_from_pem(&ipns::pem_from_seed(&seed)), Ok(seed));
    true
}

pub fn key_pems() -> Vec<Vec<u8>> {
    vec![ipns::pem_from_seed(&[7; 32]).into_bytes()]
}

pub fn flatfs_file(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else { return false };
    let is_rule = wire::flatfs::is_sharding(text);
    let Some(cid) = wire::flatfs::block_of_file(text) else { return is_rule };
    same(wire::flatfs::block_of_file(&wire::flatfs::file_of_block(&cid)), Some(cid));
    true
}

pub fn flatfs_files() -> Vec<Vec<u8>> {
    let file = "CIQFRENVWURNLXYINUH7BMIQ7PM5EG5U7RYWHLZU2CBINIXII33L4AY.data";
    vec![file.as_bytes().to_vec(), b"/repo/flatfs/shard/v1/next-to-last/2".to_vec()]
}
