//! Records on disk, their signing and checking: the machine decides which are taken.

use cluster::MemberDocument;
use ed25519_dalek::{Signature, Signer, SigningKey, Verifier, VerifyingKey};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::{Area, Batch, Durability, Store, StoreError};
use types::{PeerId, RecordKey, RecordKind, SignedRecord, UnixMillis};
use wire::reconcile::RecordName;

/// Signs a member record: `author` trusts `peer`, or (with `trusted` false) expels it.
pub fn member(key: &SigningKey, author: PeerId, peer: &PeerId, version: u64, written: UnixMillis, trusted: bool) -> SignedRecord {
    let document = if trusted { MemberDocument::Trusted } else { MemberDocument::Expelled };
    let register = RecordKey { kind: RecordKind::Member, key: peer.as_bytes().to_vec(), author };
    sign(key, register, version, written, document.encode())
}

/// Signs a record; `key` is that of its author.
pub fn sign(key: &SigningKey, register: RecordKey, version: u64, written: UnixMillis, value: Vec<u8>) -> SignedRecord {
    sign_value(key, register, version, written, Some(value))
}

/// The same; no value takes the register back.
pub fn sign_value(key: &SigningKey, register: RecordKey, version: u64, written: UnixMillis, value: Option<Vec<u8>>) -> SignedRecord {
    let mut record = SignedRecord { key: register, version, written, value, signature: Vec::new() };
    record.signature = key.sign(&wire::record::signing_bytes(&record)).to_bytes().to_vec();
    record
}

/// Whether the author really signed it. Authors without an ed25519 id cannot write records.
pub fn verify(record: &SignedRecord) -> bool {
    let key = record.key.author.ed25519().and_then(|key| VerifyingKey::from_bytes(&key).ok());
    let signature = Signature::from_slice(&record.signature).ok();
    let is_signed = match (key, signature) {
        (Some(key), Some(signature)) => key.verify(&wire::record::signing_bytes(record), &signature).is_ok(),
        _ => false,
    };
    is_signed && (record.key.kind != RecordKind::Name || is_of_its_name(record))
}

/// A name's record must be signed by the name's own key too: no member can speak for a name that is not its own.
fn is_of_its_name(record: &SignedRecord) -> bool {
    let Ok(name) = PeerId::from_bytes(&record.key.key) else { return false };
    record.value.as_ref().is_none_or(|value| crate::names::verified(&name, value).is_ok())
}

/// Signs this peer's deltas of the shared state, in the field that Go peers keep and ignore (`wire::delta`).
pub fn delta_signer(key: SigningKey, author: PeerId, cluster: String) -> consensus::crdt::Signer {
    Arc::new(move |links, delta| {
        let signature = key.sign(&wire::delta::signing_bytes(&cluster, &author, links, delta)).to_bytes().to_vec();
        wire::AuthorSignature { author, signature }
    })
}

/// Checks the signatures that [`delta_signer`] makes.
pub fn delta_verifier(cluster: String) -> consensus::crdt::Verifier {
    Arc::new(move |signed, links, delta| {
        let key = signed.author.ed25519().and_then(|key| VerifyingKey::from_bytes(&key).ok());
        let signature = Signature::from_slice(&signed.signature).ok();
        let bytes = || wire::delta::signing_bytes(&cluster, &signed.author, links, delta);
        matches!((key, signature), (Some(key), Some(signature)) if key.verify(&bytes(), &signature).is_ok())
    })
}

fn storage_key(key: &RecordKey) -> Vec<u8> {
    let kind = wire::record::kind_number(key.kind);
    let author = key.author.as_bytes();
    [&kind.to_be_bytes()[..], &(key.key.len() as u16).to_be_bytes(), &key.key, author].concat()
}

/// Writes records durably, with one sync.
pub fn keep<'a>(store: &dyn Store, records: impl IntoIterator<Item = &'a SignedRecord>) -> Result<(), StoreError> {
    let mut batch = Batch::new();
    for record in records {
        batch.put(Area::Records, storage_key(&record.key), wire::record::encode_record(record));
    }
    store.commit(batch, Durability::Synced)
}

/// Names of all records of this disk, as exchanges have them, each with where it lies.
pub fn names(store: &dyn Store) -> Result<BTreeMap<RecordName, Vec<u8>>, StoreError> {
    let mut names = BTreeMap::new();
    pages(store, &[], |key, value| drop(names.insert(wire::reconcile::name_of(value), key.to_vec())))?;
    Ok(names)
}

/// The record that lies there now.
pub fn under(store: &dyn Store, key: &[u8]) -> Option<SignedRecord> {
    let kept = store.snapshot().get(Area::Records, key).ok()??;
    wire::record::decode_record(&kept).ok()
}

/// The version of the kept record that `author` wrote about a member.
pub fn version_of_member(store: &dyn Store, author: PeerId, peer: &PeerId) -> Result<Option<u64>, StoreError> {
    let key = RecordKey { kind: RecordKind::Member, key: peer.as_bytes().to_vec(), author };
    let kept = store.snapshot().get(Area::Records, &storage_key(&key))?;
    Ok(kept.and_then(|kept| wire::record::decode_record(&kept).ok()).map(|record| record.version))
}

/// What everybody wrote about one thing.
pub fn about(store: &dyn Store, kind: RecordKind, key: &[u8]) -> Result<Vec<SignedRecord>, StoreError> {
    let prefix = [&wire::record::kind_number(kind).to_be_bytes()[..], &(key.len() as u16).to_be_bytes(), key].concat();
    scan(store, &prefix)
}

/// Everything of one kind.
pub fn of_kind(store: &dyn Store, kind: RecordKind) -> Result<Vec<SignedRecord>, StoreError> {
    scan(store, &wire::record::kind_number(kind).to_be_bytes())
}

/// All records of this disk; those that do not read are left out and logged.
pub fn load(store: &dyn Store) -> Result<Vec<SignedRecord>, StoreError> {
    scan(store, &[])
}

fn scan(store: &dyn Store, prefix: &[u8]) -> Result<Vec<SignedRecord>, StoreError> {
    let mut records = Vec::new();
    pages(store, prefix, |_, value| match wire::record::decode_record(value) {
        Ok(record) => records.push(record),
        Err(error) => tracing::warn!(%error, "a kept record does not read"),
    })?;
    Ok(records)
}

fn pages(store: &dyn Store, prefix: &[u8], mut each: impl FnMut(&[u8], &[u8])) -> Result<(), StoreError> {
    const PAGE: usize = 1000;
    let snapshot = store.snapshot();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = snapshot.scan(Area::Records, after.as_deref(), prefix, PAGE)?;
        page.iter().for_each(|(key, value)| each(key, value));
        if page.len() < PAGE {
            return Ok(());
        }
        after = page.last().map(|(key, _)| key.to_vec());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_record_fails_its_check() {
        let key = SigningKey::from_bytes(&[5; 32]);
        let author = PeerId::from_ed25519(&key.verifying_key().to_bytes());
        let other = PeerId::from_ed25519(&[6; 32]);
        let record = member(&key, author, &other, 1, UnixMillis(7), true);
        assert!(verify(&record));
        let changed = [
            SignedRecord { version: 2, ..record.clone() },
            SignedRecord { value: None, ..record.clone() },
            SignedRecord { key: RecordKey { author: other, ..record.key.clone() }, ..record.clone() },
        ];
        assert!(changed.iter().all(|record| !verify(record)));
    }

    #[test]
    fn the_signature_of_a_delta_is_its_authors_in_its_cluster() {
        let key = SigningKey::from_bytes(&[5; 32]);
        let author = PeerId::from_ed25519(&key.verifying_key().to_bytes());
        let signed = delta_signer(key, author, "home".to_owned())(&[], b"delta");
        let of = |cluster: &str, signed: &wire::AuthorSignature, delta: &[u8]| delta_verifier(cluster.to_owned())(signed, &[], delta);
        assert!(of("home", &signed, b"delta"));
        assert!(!of("work", &signed, b"delta") && !of("home", &signed, b"other"));
        let stolen = wire::AuthorSignature { author: PeerId::from_ed25519(&[6; 32]), ..signed.clone() };
        let cut = wire::AuthorSignature { signature: signed.signature[1..].to_vec(), ..signed };
        assert!(!of("home", &stolen, b"delta") && !of("home", &cut, b"delta"));
    }

    #[test]
    fn records_are_kept() {
        let store = store::MemoryStore::new();
        let key = SigningKey::from_bytes(&[5; 32]);
        let author = PeerId::from_ed25519(&key.verifying_key().to_bytes());
        let record = member(&key, author, &author, 1, UnixMillis(7), true);
        keep(&store, [&record]).expect("kept");
        assert_eq!(load(&store).expect("loaded"), vec![record]);
    }
}
