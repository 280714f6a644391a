//! What people decided about the peers: who takes new copies, who hands its copies over, and whether copies are balanced.
//!
//! Signed records, so that any member can decide, a restart forgets nothing, and everything can be turned back at any time.
//! A decision's version is one more than that of the last one known about the same thing, whoever made it; so the latest
//! wins, and of two made at the same moment the one of the greater author.

use std::collections::BTreeMap;
use types::{PeerId, RecordKind, SignedRecord};

/// What a peer is there for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Duty {
    /// Takes and holds copies.
    #[default]
    InUse,
    /// Keeps what it has and takes no new copies.
    Cordoned,
    /// Takes no new copies and hands over those it has.
    Draining,
}

impl Duty {
    /// The word for tables, JSON and the record's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Duty::InUse => "in-use",
            Duty::Cordoned => "cordoned",
            Duty::Draining => "draining",
        }
    }

    /// Reads a record's value; words after the first are left for later versions.
    pub fn decode(value: &[u8]) -> Option<Duty> {
        let word = value.split(|byte| *byte == b' ').next()?;
        [Duty::InUse, Duty::Cordoned, Duty::Draining].into_iter().find(|duty| duty.as_str().as_bytes() == word)
    }
}

/// Whether copies move to peers that hold less than their share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Balancing {
    /// When a peer is clearly off its share.
    #[default]
    Auto,
    /// Until every peer has its share; then as `Auto`.
    Now,
    /// Never.
    Off,
}

impl Balancing {
    /// The word for JSON and the record's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Balancing::Auto => "auto",
            Balancing::Now => "now",
            Balancing::Off => "off",
        }
    }

    /// Reads a word.
    pub fn decode(value: &[u8]) -> Option<Balancing> {
        let word = value.split(|byte| *byte == b' ').next()?;
        [Balancing::Auto, Balancing::Now, Balancing::Off].into_iter().find(|mode| mode.as_str().as_bytes() == word)
    }
}

/// What follows from the accepted records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Decisions {
    duties: BTreeMap<PeerId, Duty>,
    balancing: Balancing,
    balancing_version: u64,
}

impl Decisions {
    /// Judges all records.
    pub fn of<'a>(records: impl Iterator<Item = &'a SignedRecord>) -> Decisions {
        let mut latest: BTreeMap<(RecordKind, &[u8]), &SignedRecord> = BTreeMap::new();
        for record in records.filter(|record| matches!(record.key.kind, RecordKind::Duty | RecordKind::Balance)) {
            let best = latest.entry((record.key.kind, record.key.key.as_slice())).or_insert(record);
            if (record.version, record.key.author) > (best.version, best.key.author) {
                *best = record;
            }
        }
        let mut decisions = Decisions::default();
        for ((kind, key), record) in latest {
            let value = record.value.as_deref().unwrap_or_default();
            match kind {
                RecordKind::Duty => {
                    if let (Ok(peer), Some(duty)) = (PeerId::from_bytes(key), Duty::decode(value)) {
                        decisions.duties.insert(peer, duty);
                    }
                }
                _ if key.is_empty() => {
                    decisions.balancing = Balancing::decode(value).unwrap_or_default();
                    decisions.balancing_version = record.version;
                }
                _ => {}
            }
        }
        decisions
    }

    /// What was decided about a peer.
    pub fn duty(&self, peer: &PeerId) -> Duty {
        self.duties.get(peer).copied().unwrap_or_default()
    }

    /// Whether copies are balanced, and which decision says so.
    pub fn balancing(&self) -> (Balancing, u64) {
        (self.balancing, self.balancing_version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::peer;
    use types::{RecordKey, UnixMillis};

    fn record(author: u8, kind: RecordKind, key: &[u8], version: u64, value: &str) -> SignedRecord {
        SignedRecord {
            key: RecordKey { kind, key: key.to_vec(), author: peer(author) },
            version,
            written: UnixMillis(0),
            value: Some(value.as_bytes().to_vec()),
            signature: Vec::new(),
        }
    }

    /// Decisions about peer 9 as (author, version, word), and what holds.
    fn check(decided: &[(u8, u64, &str)], expected: Duty) {
        let records: Vec<SignedRecord> =
            decided.iter().map(|(author, version, word)| record(*author, RecordKind::Duty, peer(9).as_bytes(), *version, word)).collect();
        assert_eq!(Decisions::of(records.iter()).duty(&peer(9)), expected, "{decided:?}");
        assert_eq!(Decisions::of(records.iter().rev()).duty(&peer(9)), expected, "in any order: {decided:?}");
    }

    #[test]
    fn the_latest_decision_wins_whoever_made_it() {
        check(&[], Duty::InUse);
        check(&[(1, 1, "draining")], Duty::Draining);
        check(&[(1, 1, "draining"), (2, 2, "in-use")], Duty::InUse);
        check(&[(1, 3, "draining"), (2, 2, "in-use")], Duty::Draining);
        check(&[(1, 1, "draining"), (2, 2, "cordoned since monday")], Duty::Cordoned);
        check(&[(1, 1, "something of a later version")], Duty::InUse);
    }

    #[test]
    fn balancing_is_decided_for_all() {
        let records = [record(1, RecordKind::Balance, b"", 1, "off"), record(2, RecordKind::Balance, b"", 2, "now")];
        assert_eq!(Decisions::of(records.iter()).balancing(), (Balancing::Now, 2));
        assert_eq!(Decisions::of(records[..1].iter()).balancing(), (Balancing::Off, 1));
    }
}
