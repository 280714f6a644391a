//! What records say about the authors of the shared state: who they are, and whether their signatures are asked for.

use std::collections::BTreeSet;
use types::{PeerId, RecordKey, RecordKind, SignedRecord};

/// The value of a [`RecordKind::Signing`] record: what no member signed counts too, for good.
pub const AUDITED: &[u8] = b"audited";

/// Whether an accepted record ends that only signed blocks count.
pub fn ends_signing(record: &SignedRecord) -> bool {
    record.key.kind == RecordKind::Signing && record.value.as_deref() == Some(AUDITED)
}

/// Who is or was a member, by an accepted record: an expulsion takes nothing back that was written before.
pub fn author_of(key: &RecordKey) -> Option<PeerId> {
    if key.kind != RecordKind::Member {
        return None;
    }
    PeerId::from_bytes(&key.key).ok()
}

/// All authors that accepted records make known.
pub fn authors<'a>(records: impl IntoIterator<Item = &'a SignedRecord>) -> BTreeSet<PeerId> {
    records.into_iter().filter_map(|record| author_of(&record.key)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemberDocument;
    use crate::testing::peer;
    use types::UnixMillis;

    #[test]
    fn the_expelled_stay_authors() {
        let record = |kind, key: &[u8], value: &[u8]| SignedRecord {
            key: RecordKey { kind, key: key.to_vec(), author: peer(1) },
            version: 1,
            written: UnixMillis(0),
            value: Some(value.to_vec()),
            signature: Vec::new(),
        };
        let records = [
            record(RecordKind::Member, peer(2).as_bytes(), &MemberDocument::Trusted.encode()),
            record(RecordKind::Member, peer(3).as_bytes(), &MemberDocument::Expelled.encode()),
            record(RecordKind::Duty, peer(4).as_bytes(), b"draining"),
            record(RecordKind::Signing, b"", AUDITED),
        ];
        assert_eq!(authors(&records), [peer(2), peer(3)].into());
        assert!(ends_signing(&records[3]) && !records[..3].iter().any(ends_signing));
    }
}
