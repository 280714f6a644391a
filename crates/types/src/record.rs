//! Shared state other than pins: signed, versioned registers `(kind, key, author) -> value` (design/state-types.md).
//!
//! First user: who is a member and trusted. Concurrent writers never share a register: the author is part of its key.

use crate::{PeerId, UnixMillis};

/// What a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordKind {
    /// `key` = a peer id's bytes; value = its member document: trusted, or expelled.
    Member,
    /// `key` = a peer id's bytes; value = what people decided about it: in use, cordoned, draining.
    Duty,
    /// `key` is empty; value = whether copies are spread evenly by themselves, now, or not at all.
    Balance,
    /// `key` = an IPNS name's multihash; value = its record, which proves itself by the name's key.
    Name,
    /// `key` is empty; value = how blocks of the shared state are taken that no member signed.
    Signing,
    /// `key` = an owner and a name of its own for what it keeps; value = which CID, and how.
    Claim,
    /// A kind this version does not know: kept and passed on.
    Unknown(u16),
}

/// Which register.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordKey {
    /// What it is about.
    pub kind: RecordKind,
    /// Which one of that kind; at most 256 bytes.
    pub key: Vec<u8>,
    /// Who writes it.
    pub author: PeerId,
}

/// A register with its proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedRecord {
    /// Which register.
    pub key: RecordKey,
    /// Counts the author's writes of this register, from 1; the highest wins.
    pub version: u64,
    /// When it was written, by the author's clock: for people, never for ordering.
    pub written: UnixMillis,
    /// The value, at most 64 KiB; none is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Ed25519 over the canonical bytes (`wire::record`).
    pub signature: Vec<u8>,
}
