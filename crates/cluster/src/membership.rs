//! Who is trusted: the peers known at start, and member records written by trusted peers.
//!
//! A record counts when its signature is right and its author was trusted when it arrived; records of others wait, so that
//! the order of arrival of a chain of invitations does not matter. An expulsion by one trusted author stands until the
//! same author takes it back.

use crate::decisions::{Balancing, Decisions, Duty};
use crate::owner::Claims;
use crate::{Effect, Notice, Options, signing};
use std::collections::{BTreeMap, BTreeSet};
use types::{Cid, PeerId, RecordKey, RecordKind, SignedRecord};

/// Records kept beside claims.
const RECORDS_MOST: usize = 16_384;
/// Names (IPNS) among them: however many are published, members and decisions have room.
const NAMES_MOST: usize = RECORDS_MOST / 2;
/// Claims of owners, released ones too: a name that is used again takes no further place. 33 MiB of memory
/// when all are there, 2,100 bytes each (`cargo xtask bench claims`).
const CLAIMS_MOST: usize = 16_384;
/// Bytes of a claim: this version writes some 80, and later ones may add words. The bound on their number is one on memory so.
const CLAIM_BYTES_MOST: usize = 1_024;
/// Records of authors that are not trusted (yet).
const WAITING_MOST: usize = 256;
/// Records in one message.
const MESSAGE_MOST: usize = 256;
/// Bytes of a value.
const VALUE_MOST: usize = 64 << 10;
/// Bytes of a key.
const KEY_MOST: usize = 256;

/// What a member record says: the value of a [`RecordKind::Member`] record is one of these words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberDocument {
    /// May change the shared state and hold copies.
    Trusted,
    /// May not.
    Expelled,
}

impl MemberDocument {
    /// The record's value.
    pub fn encode(self) -> Vec<u8> {
        match self {
            MemberDocument::Trusted => b"trusted".to_vec(),
            MemberDocument::Expelled => b"expelled".to_vec(),
        }
    }

    /// Reads a record's value; words after the first are left for later versions.
    pub fn decode(value: &[u8]) -> Option<MemberDocument> {
        match value.split(|byte| *byte == b' ').next()? {
            b"trusted" => Some(MemberDocument::Trusted),
            b"expelled" => Some(MemberDocument::Expelled),
            _ => None,
        }
    }
}

/// Records and what follows from them.
#[derive(Clone, Debug)]
pub(crate) struct Membership {
    start: BTreeSet<PeerId>,
    records: BTreeMap<RecordKey, SignedRecord>,
    waiting: BTreeMap<RecordKey, SignedRecord>,
    trusted: BTreeSet<PeerId>,
    decisions: Decisions,
    /// How many of the records are of names, and of claims.
    names: usize,
    claimed: usize,
    claims: Claims,
    /// CIDs whose claims changed since this was last asked.
    touched: BTreeSet<Cid>,
}

impl Membership {
    /// From the start list and the records that were stored.
    pub fn new(options: &Options) -> Membership {
        let mut start: BTreeSet<PeerId> = options.members.iter().copied().collect();
        start.insert(options.me);
        let records: BTreeMap<RecordKey, SignedRecord> =
            options.records.iter().take(RECORDS_MOST + CLAIMS_MOST).map(|record| (record.key.clone(), record.clone())).collect();
        let names = records.keys().filter(|key| key.kind == RecordKind::Name).count();
        let claimed = records.keys().filter(|key| key.kind == RecordKind::Claim).count();
        let (waiting, decisions, touched) = (BTreeMap::new(), Decisions::default(), BTreeSet::new());
        let mut claims = Claims::default();
        records.values().for_each(|record| drop(claims.observe(record)));
        let mut membership = Membership { trusted: start.clone(), start, records, waiting, decisions, names, claimed, claims, touched };
        membership.trusted = membership.judge();
        membership.decisions = Decisions::of(membership.records.values());
        membership
    }

    /// Who is trusted, the own peer included.
    pub fn trusted(&self) -> &BTreeSet<PeerId> {
        &self.trusted
    }

    /// What people decided about the peers.
    pub fn decisions(&self) -> &Decisions {
        &self.decisions
    }

    /// What owners claim.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// CIDs whose claims changed since this was last asked.
    pub fn touched(&mut self) -> BTreeSet<Cid> {
        std::mem::take(&mut self.touched)
    }

    /// The version of the next record of a kind about a key, whoever writes it.
    pub fn next_version(&self, kind: RecordKind, key: &[u8]) -> u64 {
        // Only ed25519 ids sign records: none comes before this one.
        let first = RecordKey { kind, key: key.to_vec(), author: PeerId::from_ed25519(&[0; 32]) };
        let about = self.records.range(first..).take_while(|(register, _)| (register.kind, &register.key[..]) == (kind, key));
        about.map(|(_, record)| record.version).max().unwrap_or(0) + 1
    }

    /// Trusts a peer as if it had been trusted from the start; true when that is news.
    pub fn begin_with(&mut self, peer: PeerId, effects: &mut Vec<Effect>) -> bool {
        self.start.insert(peer);
        let trusted = self.judge();
        if trusted == self.trusted {
            return false;
        }
        self.trusted = trusted;
        self.take_waiting(effects);
        self.decisions = Decisions::of(self.records.values());
        effects.push(Effect::Trusted(self.trusted.iter().copied().collect()));
        true
    }

    /// Takes a record of anybody; true when trust or a decision changed. What is refused is noted.
    pub fn take(&mut self, record: SignedRecord, options: &Options, effects: &mut Vec<Effect>) -> bool {
        let key = record.key.clone();
        self.try_take(record, options, effects).unwrap_or_else(|why| {
            effects.push(Effect::Note(Notice::RecordRefused { key, why }));
            false
        })
    }

    /// The same; why it was refused goes to whoever asked.
    pub fn try_take(&mut self, record: SignedRecord, options: &Options, effects: &mut Vec<Effect>) -> Result<bool, String> {
        if !self.check(&record, options)? {
            return Ok(false);
        }
        if !self.trusted.contains(&record.key.author) {
            self.wait(record);
            return Ok(false);
        }
        let is_plain = says_nothing_of_peers(record.key.kind);
        self.accept(record, effects);
        if is_plain {
            // Says nothing about peers; judging all records anew for each name would cost by the square of their number.
            return Ok(false);
        }
        let before = self.trusted.clone();
        self.trusted = self.judge();
        self.take_waiting(effects);
        let decided = std::mem::replace(&mut self.decisions, Decisions::of(self.records.values()));
        if self.trusted == before {
            return Ok(decided != self.decisions);
        }
        effects.push(Effect::Trusted(self.trusted.iter().copied().collect()));
        Ok(true)
    }

    /// What is known newer than these.
    pub fn newer(&self, records: &[SignedRecord]) -> Vec<SignedRecord> {
        let newer = |record: &SignedRecord| self.records.get(&record.key).filter(|own| own.version > record.version).cloned();
        records.iter().take(MESSAGE_MOST).filter_map(newer).collect()
    }

    /// Whether a record is new and sound; its fault otherwise.
    fn check(&self, record: &SignedRecord, options: &Options) -> Result<bool, String> {
        let is_known =
            |records: &BTreeMap<RecordKey, SignedRecord>| records.get(&record.key).is_some_and(|known| known.version >= record.version);
        if is_known(&self.records) || is_known(&self.waiting) {
            return Ok(false);
        }
        let is_claim = record.key.kind == RecordKind::Claim;
        let value_most = if is_claim { CLAIM_BYTES_MOST } else { VALUE_MOST };
        if record.key.key.len() > KEY_MOST || record.value.as_ref().is_some_and(|value| value.len() > value_most) {
            return Err("it is too large".to_owned());
        }
        if record.version == 0 {
            return Err("versions begin at 1".to_owned());
        }
        if !is_claim && self.records.len() - self.claimed >= RECORDS_MOST && !self.records.contains_key(&record.key) {
            return Err("too many records are kept already".to_owned());
        }
        if record.key.kind == RecordKind::Name && self.names >= NAMES_MOST && !self.records.contains_key(&record.key) {
            return Err(format!("{NAMES_MOST} names are kept already"));
        }
        if is_claim && self.claimed >= CLAIMS_MOST && !self.records.contains_key(&record.key) {
            return Err(format!("{CLAIMS_MOST} claims of owners are kept already: use a name again that was released"));
        }
        if !(options.verify)(record) {
            return Err("its signature is wrong".to_owned());
        }
        Ok(true)
    }

    fn wait(&mut self, record: SignedRecord) {
        // Names leave room for the records that make their author trusted; they come again when they are renewed, and with each connection.
        let names = self.waiting.keys().filter(|key| says_nothing_of_peers(key.kind)).count();
        let has_room = !says_nothing_of_peers(record.key.kind) || names < WAITING_MOST / 2;
        if has_room && self.waiting.len() < WAITING_MOST {
            self.waiting.insert(record.key.clone(), record);
        }
    }

    fn accept(&mut self, record: SignedRecord, effects: &mut Vec<Effect>) {
        if let Some((peer, document)) = member_of(&record) {
            let trusted = document == MemberDocument::Trusted;
            effects.push(Effect::Note(Notice::Membership { peer, by: record.key.author, trusted }));
        }
        let value = record.value.as_deref().unwrap_or_default();
        match (record.key.kind, Duty::decode(value), Balancing::decode(value), PeerId::from_bytes(&record.key.key)) {
            (RecordKind::Duty, Some(duty), _, Ok(peer)) => effects.push(Effect::Note(Notice::Duty { peer, by: record.key.author, duty })),
            (RecordKind::Balance, _, Some(mode), _) => effects.push(Effect::Note(Notice::Balancing { by: record.key.author, mode })),
            (RecordKind::Signing, ..) if signing::ends_signing(&record) => {
                effects.push(Effect::Note(Notice::SigningEnds { by: record.key.author }));
            }
            _ => {}
        }
        effects.push(Effect::Record(record.clone()));
        self.touched.extend(self.claims.observe(&record));
        let kind = record.key.kind;
        let is_first = self.records.insert(record.key.clone(), record).is_none();
        self.names += usize::from(kind == RecordKind::Name && is_first);
        self.claimed += usize::from(kind == RecordKind::Claim && is_first);
    }

    /// Accepts records that waited for their author, as long as that makes more authors trusted.
    fn take_waiting(&mut self, effects: &mut Vec<Effect>) {
        loop {
            let Some(key) = self.waiting.keys().find(|key| self.trusted.contains(&key.author)).cloned() else { return };
            if let Some(record) = self.waiting.remove(&key) {
                self.accept(record, effects);
                self.trusted = self.judge();
            }
        }
    }

    /// Trust that follows from the accepted records: invited and not expelled. An accepted record counts although its
    /// author was expelled later.
    fn judge(&self) -> BTreeSet<PeerId> {
        let mut trusted = self.start.clone();
        let documents: Vec<(PeerId, MemberDocument)> = self.records.values().filter_map(member_of).collect();
        trusted.extend(documents.iter().filter(|(_, document)| *document == MemberDocument::Trusted).map(|(peer, _)| *peer));
        for (peer, document) in documents {
            if document == MemberDocument::Expelled {
                trusted.remove(&peer);
            }
        }
        trusted
    }
}

/// Such a record changes neither trust nor what was decided about peers.
fn says_nothing_of_peers(kind: RecordKind) -> bool {
    matches!(kind, RecordKind::Name | RecordKind::Claim)
}

/// Whom a member record is about, and what it says.
fn member_of(record: &SignedRecord) -> Option<(PeerId, MemberDocument)> {
    if record.key.kind != RecordKind::Member {
        return None;
    }
    let peer = PeerId::from_bytes(&record.key.key).ok()?;
    Some((peer, MemberDocument::decode(record.value.as_deref()?)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::peer;
    use types::UnixMillis;

    fn record(author: u8, about: u8, version: u64, document: MemberDocument) -> SignedRecord {
        SignedRecord {
            key: RecordKey { kind: RecordKind::Member, key: peer(about).as_bytes().to_vec(), author: peer(author) },
            version,
            written: UnixMillis(0),
            value: Some(document.encode()),
            signature: b"right".to_vec(),
        }
    }

    /// Peer 0 is here and trusts 1 from the start; `+12` means 1 trusts 2 (version 1), `-` expels (version 2).
    fn check(records: &str, expected: &[u8]) {
        let options = Options { members: vec![peer(1)], verify: |record| record.signature == b"right", ..Options::new(peer(0), "", "") };
        let mut membership = Membership::new(&options);
        let mut effects = Vec::new();
        for text in records.split_whitespace() {
            let digits: Vec<u8> = text.bytes().skip(1).map(|digit| digit - b'0').collect();
            let is_trust = text.starts_with(['+', '*']);
            let document = if is_trust { MemberDocument::Trusted } else { MemberDocument::Expelled };
            let version = match text.as_bytes()[0] {
                b'+' => 1,
                b'-' => 2,
                _ => 3,
            };
            membership.take(record(digits[0], digits[1], version, document), &options, &mut effects);
        }
        let expected: BTreeSet<PeerId> = expected.iter().map(|number| peer(*number)).collect();
        assert_eq!(membership.trusted(), &expected, "{records}");
        let stored: Vec<SignedRecord> = membership.records.values().cloned().collect();
        let again = Membership::new(&Options { records: stored, ..options });
        assert_eq!(again.trusted(), &expected, "after a restart: {records}");
    }

    #[test]
    fn trust_follows_the_records_of_trusted_authors() {
        check("", &[0, 1]);
        check("+12", &[0, 1, 2]);
        check("+23", &[0, 1]); // 2 is a stranger
        check("+12 +23", &[0, 1, 2, 3]);
        check("+23 +12", &[0, 1, 2, 3]); // the other way round
        check("+12 -12", &[0, 1]);
        check("-12 +12", &[0, 1]); // an old version comes late
        check("+12 -12 *12", &[0, 1, 2]); // taken back by the same author
        check("+12 -02", &[0, 1]); // one expulsion suffices
        check("+12 +23 -12", &[0, 1, 3]); // whom the expelled one invited stays
    }

    #[test]
    fn who_is_found_to_be_trusted_brings_whom_it_trusts_and_the_expelled_stay_out() {
        let options = Options { verify: |record| record.signature == b"right", ..Options::new(peer(0), "", "") };
        let mut membership = Membership::new(&options);
        let mut effects = Vec::new();
        membership.take(record(1, 2, 1, MemberDocument::Trusted), &options, &mut effects);
        membership.take(record(0, 3, 1, MemberDocument::Expelled), &options, &mut effects);
        assert!(membership.begin_with(peer(1), &mut effects));
        assert_eq!(membership.trusted(), &[0, 1, 2].map(peer).into());
        assert!(matches!(effects.last(), Some(Effect::Trusted(all)) if all.len() == 3));
        assert!(!membership.begin_with(peer(1), &mut effects) && !membership.begin_with(peer(3), &mut effects));
    }

    #[test]
    fn names_leave_room_for_members() {
        let options = Options { verify: |_| true, ..Options::new(peer(0), "", "") };
        let mut membership = Membership::new(&options);
        let mut effects = Vec::new();
        let name = |number: usize, version: u64| SignedRecord {
            key: RecordKey { kind: RecordKind::Name, key: number.to_be_bytes().to_vec(), author: peer(0) },
            ..record(0, 0, version, MemberDocument::Trusted)
        };
        for number in 0..=NAMES_MOST {
            assert!(!membership.take(name(number, 1), &options, &mut effects), "nothing about peers");
        }
        assert_eq!(membership.records.len(), NAMES_MOST);
        assert!(matches!(effects.last(), Some(Effect::Note(Notice::RecordRefused { why, .. })) if why.contains("names")));
        membership.take(name(1, 2), &options, &mut effects);
        assert_eq!((membership.records.len(), membership.names), (NAMES_MOST, NAMES_MOST));
        assert!(membership.take(record(0, 1, 1, MemberDocument::Trusted), &options, &mut effects));
        let stored = membership.records.values().cloned().collect();
        assert_eq!(Membership::new(&Options { records: stored, ..options }).names, NAMES_MOST);
    }

    fn claim(number: usize, version: u64, value: Option<Vec<u8>>) -> SignedRecord {
        let key = crate::owner::register_key("anna", &format!("site number {number}"));
        SignedRecord {
            key: RecordKey { kind: RecordKind::Claim, key, author: peer(0) },
            value,
            signature: vec![8; 64],
            ..record(0, 0, version, MemberDocument::Trusted)
        }
    }

    fn kept(number: usize) -> Option<Vec<u8>> {
        let cid = crate::testing::cid(number as u64);
        Some(crate::owner::Claim { cid, replicas: types::Replicas::Unset, expires: None }.encode())
    }

    #[test]
    fn claims_have_a_bound_of_their_own() {
        let options = Options { verify: |_| true, ..Options::new(peer(0), "", "") };
        let mut membership = Membership::new(&options);
        let mut effects = Vec::new();
        let large = claim(0, 1, Some(vec![b'x'; CLAIM_BYTES_MOST + 1]));
        assert!(membership.try_take(large, &options, &mut effects).is_err());
        for number in 0..CLAIMS_MOST {
            membership.try_take(claim(number, 1, None), &options, &mut effects).expect("it has a place");
        }
        assert!(membership.try_take(claim(CLAIMS_MOST, 1, kept(1)), &options, &mut effects).is_err());
        // A name that was released is used again, and everything else has its places.
        membership.try_take(claim(7, 2, kept(7)), &options, &mut effects).expect("no further place");
        assert!(membership.claims().get("anna", "site number 7", UnixMillis(0)).is_some());
        assert!(membership.take(record(0, 1, 1, MemberDocument::Trusted), &options, &mut effects));
        assert_eq!(membership.next_version(RecordKind::Claim, b"anna/site number 7"), 3);
        assert_eq!(membership.next_version(RecordKind::Claim, b"anna/site number"), 1);
        let stored = membership.records.values().cloned().collect();
        let again = Membership::new(&Options { records: stored, ..options });
        assert_eq!((again.records.len(), again.claimed), (CLAIMS_MOST + 1, CLAIMS_MOST));
    }

    #[test]
    #[ignore = "a measurement"]
    fn what_many_claims_take() {
        let resident = || {
            let said = std::fs::read_to_string("/proc/self/statm").expect("Linux says it");
            let pages: u64 = said.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number");
            pages * 4096
        };
        let options = Options { verify: |_| true, ..Options::new(peer(0), "", "") };
        let mut membership = Membership::new(&options);
        let before = resident();
        for number in 0..CLAIMS_MOST {
            membership.take(claim(number, 1, kept(number)), &options, &mut Vec::new());
        }
        let taken = resident() - before;
        assert_eq!(membership.claims().all(UnixMillis(0)).count(), CLAIMS_MOST);
        println!("{CLAIMS_MOST} claims take {} KiB of memory, {} bytes each", taken >> 10, taken / CLAIMS_MOST as u64);
    }

    #[test]
    fn names_of_one_who_is_not_trusted_yet_wait_and_leave_room_for_trust() {
        let options = Options { members: vec![peer(1)], verify: |_| true, ..Options::new(peer(0), "", "") };
        let mut membership = Membership::new(&options);
        let mut effects = Vec::new();
        for number in 0..2 * WAITING_MOST {
            let key = RecordKey { kind: RecordKind::Name, key: number.to_be_bytes().to_vec(), author: peer(3) };
            membership.take(SignedRecord { key, ..record(3, 0, 1, MemberDocument::Trusted) }, &options, &mut effects);
        }
        assert_eq!((membership.waiting.len(), membership.names), (WAITING_MOST / 2, 0));
        membership.take(record(2, 3, 1, MemberDocument::Trusted), &options, &mut effects);
        membership.take(record(1, 2, 1, MemberDocument::Trusted), &options, &mut effects);
        assert!(membership.trusted().contains(&peer(3)), "the chain of trust had room");
        assert_eq!((membership.waiting.len(), membership.names), (0, WAITING_MOST / 2));
    }

    #[test]
    fn a_wrong_signature_is_refused_and_said() {
        let options = Options { verify: |_| false, ..Options::new(peer(0), "", "") };
        let mut membership = Membership::new(&options);
        let mut effects = Vec::new();
        assert!(!membership.take(record(0, 2, 1, MemberDocument::Trusted), &options, &mut effects));
        assert!(matches!(effects[..], [Effect::Note(Notice::RecordRefused { .. })]));
    }
}
