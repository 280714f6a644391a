//! Whether this cluster counts only blocks that a member signed: decided when it is founded, learned when it is joined, ended for good
//! when a peer takes Go peers in or brings a history that is not signed.

use crate::go_peers::GoPeers;
use cluster::signing;
use consensus::crdt::{AuthorRules, Signatures, Verifier};
use std::collections::BTreeSet;
use store::{Area, Batch, Durability, Store};
use types::{PeerId, RecordKind, SignedRecord};

/// What was settled, in [`Area::Meta`].
const KEY: &[u8] = b"signing";
const REQUIRED: &[u8] = b"required";
const AUDITED: &[u8] = b"audited";

/// What holds from this start on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signing {
    /// What no member signed is left out.
    pub required: bool,
    /// The others count only signed blocks, and must be told that this ends.
    pub ends: bool,
}

/// Settles it. `is_all_pinfold`: no Go peers are trusted. `told`: what the inviter said, when this start was let in.
pub fn settle(
    store: &dyn Store,
    records: &[SignedRecord],
    is_all_pinfold: bool,
    is_join: bool,
    told: Option<bool>,
) -> anyhow::Result<Signing> {
    let kept = store.snapshot().get(Area::Meta, KEY)?.map(|kept| kept.as_ref() == REQUIRED);
    let has_history = !store.snapshot().scan(Area::Processed, None, b"", 1)?.is_empty();
    let is_member = records.iter().any(|record| record.key.kind == RecordKind::Member);
    let settled = match (kept, told) {
        // A history that was not signed from its beginning is taken along into the cluster that is joined.
        (Some(false), Some(_)) => false,
        (None, Some(_)) if has_history => false,
        (_, Some(told)) => told,
        (Some(kept), None) => kept,
        (None, None) => !has_history && !is_member && !is_join && is_all_pinfold,
    };
    let mut batch = Batch::new();
    batch.put(Area::Meta, KEY, if settled { REQUIRED } else { AUDITED });
    store.commit(batch, Durability::Synced)?;
    let has_ended = records.iter().any(signing::ends_signing);
    let required = settled && is_all_pinfold && !has_ended;
    let others_require = settled || told == Some(true);
    Ok(Signing { required, ends: others_require && !required && !has_ended })
}

impl Signing {
    /// What the shared state is asked to look at.
    pub fn rules(self, verify: Verifier, records: &[SignedRecord], me: PeerId, go: &GoPeers) -> AuthorRules {
        let mut known: BTreeSet<PeerId> = signing::authors(records);
        known.insert(me);
        known.extend(go.ids().copied());
        AuthorRules { signatures: Signatures::new(verify), required: self.required, known, everybody: go.trusts_everybody() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::MemoryStore;
    use types::{RecordKey, UnixMillis};

    fn record(kind: RecordKind, value: &[u8]) -> SignedRecord {
        let author = PeerId::from_ed25519(&[1; 32]);
        let key = RecordKey { kind, key: author.as_bytes().to_vec(), author };
        SignedRecord { key, version: 1, written: UnixMillis(0), value: Some(value.to_vec()), signature: Vec::new() }
    }

    fn check(store: &MemoryStore, records: &[SignedRecord], is_all_pinfold: bool, told: Option<bool>, expected: (bool, bool)) {
        let settled = settle(store, records, is_all_pinfold, told.is_some(), told).expect("settled");
        assert_eq!((settled.required, settled.ends), expected, "{told:?}");
    }

    fn with_history() -> MemoryStore {
        let store = MemoryStore::new();
        let mut batch = Batch::new();
        batch.put(Area::Processed, "block", [1, 1]);
        store.commit(batch, Durability::Buffered).expect("commits");
        store
    }

    #[test]
    fn a_founder_asks_for_signatures_until_go_peers_are_taken_in() {
        let store = MemoryStore::new();
        check(&store, &[], true, None, (true, false));
        check(&store, &[], true, None, (true, false));
        check(&store, &[], false, None, (false, true));
        let ended = record(RecordKind::Signing, signing::AUDITED);
        check(&store, std::slice::from_ref(&ended), false, None, (false, false));
        check(&store, &[ended], true, None, (false, false));
        check(&MemoryStore::new(), &[], false, None, (false, false));
    }

    #[test]
    fn a_joiner_does_as_it_is_told_unless_it_brings_an_unsigned_history() {
        check(&MemoryStore::new(), &[], true, Some(true), (true, false));
        check(&MemoryStore::new(), &[], true, Some(false), (false, false));
        check(&MemoryStore::new(), &[], false, Some(true), (false, true));
        check(&with_history(), &[], true, Some(true), (false, true));
        let store = MemoryStore::new();
        check(&store, &[], true, Some(true), (true, false));
        check(&store, &[record(RecordKind::Member, b"trusted")], true, None, (true, false));
    }

    #[test]
    fn a_state_of_before_is_not_judged_by_what_it_did_not_know() {
        check(&with_history(), &[], true, None, (false, false));
        check(&MemoryStore::new(), &[record(RecordKind::Member, b"trusted")], true, None, (false, false));
    }
}
