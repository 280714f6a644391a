//! IPNS: names that are public keys, and the signed records that say where a name leads.
//!
//! A record is a protobuf message (`IpnsEntry`) around a dag-cbor document ([`document`]); the second signature covers the document,
//! and fields of the first version repeat it for old readers (<https://specs.ipfs.tech/ipns/ipns-record/>). A record proves itself: who
//! brought it does not matter. Keys and signatures are left to the caller, who alone has the cryptography; [`Record::verify`]
//! says which key must have signed what.
//!
//! Left out: records of the first version alone (nobody may take them any more), and validity of other kinds than an end of life.

mod document;
mod keyfile;
mod name;

pub use self::keyfile::{BadPem, key_file, key_of_file, pem_from_seed, seed_from_pem};
pub use self::name::{BadName, name_from_text, name_text};

use crate::cids::sha2_256;
use crate::gotime::GoTime;
use crate::protobuf::{self, ProtobufError, Reader};
use std::cmp::Ordering;
use std::time::Duration;
use types::PeerId;

/// The longest record that anybody takes.
pub const RECORD_BYTES_MAX: usize = 10 << 10;

/// What the second signature covers, before the document.
const SIGNATURE_PREFIX: &[u8] = b"ipns-signature:";
/// The name of the only kind of validity, which the first signature covers.
const END_OF_LIFE: &[u8] = b"EOL";

/// Numbers of the protobuf's fields.
mod field {
    pub const VALUE: u32 = 1;
    pub const SIGNATURE_V1: u32 = 2;
    pub const VALIDITY_TYPE: u32 = 3;
    pub const VALIDITY: u32 = 4;
    pub const SEQUENCE: u32 = 5;
    pub const TTL: u32 = 6;
    pub const PUBLIC_KEY: u32 = 7;
    pub const SIGNATURE_V2: u32 = 8;
    pub const DATA: u32 = 9;
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where the name leads: a path like `/ipfs/<cid>`.
    pub value: Vec<u8>,
    /// Until when that may be believed.
    pub validity: GoTime,
    /// Counts the versions of the value.
    pub sequence: u64,
    /// For how long it may be taken for true without asking again.
    pub ttl: Duration,
}

/// A record that reads; whether it is signed rightly and still valid is asked separately.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it says.
    pub entry: Entry,
    /// The signer's key in libp2p's protobuf form, where the record carries it.
    pub public_key: Option<Vec<u8>>,
    document: Vec<u8>,
    signature: Vec<u8>,
    bytes: Vec<u8>,
}

/// Why bytes are no record, or not the one of a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Longer than [`RECORD_BYTES_MAX`].
    #[error("ipns record: {0} bytes, more than the {RECORD_BYTES_MAX} that a record may have")]
    TooLong(usize),
    /// No protobuf message.
    #[error("ipns record: {0}")]
    Protobuf(#[from] ProtobufError),
    /// Only fields of the first version, which proves too little.
    #[error("ipns record: it has no {0}, so it proves nothing")]
    Missing(&'static str),
    /// The document is not what a record's is.
    #[error("ipns record: its document is malformed: {0}")]
    Document(&'static str),
    /// A field beside the document says something else.
    #[error("ipns record: its {0} is not the one that was signed")]
    Mismatch(&'static str),
    /// The validity is no time, or of an unknown kind.
    #[error("ipns record: its validity is no end of life")]
    Validity,
    /// The key of the record is not that of the name.
    #[error("ipns record: it carries a key that is not the one of the name {0}")]
    OtherKey(String),
    /// The name is only a hash, and the record does not carry the key.
    #[error("ipns record: it does not carry the key of the name {0}")]
    NoKey(String),
    /// Somebody else signed, or something was changed.
    #[error("ipns record: its signature is wrong")]
    Signature,
}

/// Writes a record of both versions, as everybody reads it. `public_key` is carried along where the name does not contain it;
/// `sign` signs with the name's key.
pub fn encode<E>(entry: &Entry, name: &PeerId, public_key: &[u8], mut sign: impl FnMut(&[u8]) -> Result<Vec<u8>, E>) -> Result<Vec<u8>, E> {
    let validity = entry.validity.to_string();
    let ttl = nanoseconds(entry.ttl);
    let document = document::encode(&entry.value, validity.as_bytes(), entry.sequence, ttl);
    let first = sign(&[&entry.value, validity.as_bytes(), END_OF_LIFE].concat())?;
    let second = sign(&[SIGNATURE_PREFIX, &document].concat())?;
    let mut out = Vec::with_capacity(document.len() * 2 + 256);
    protobuf::put_bytes(&mut out, field::VALUE, &entry.value);
    protobuf::put_bytes(&mut out, field::SIGNATURE_V1, &first);
    protobuf::put_uint(&mut out, field::VALIDITY_TYPE, 0);
    protobuf::put_bytes(&mut out, field::VALIDITY, validity.as_bytes());
    protobuf::put_uint(&mut out, field::SEQUENCE, entry.sequence);
    protobuf::put_uint(&mut out, field::TTL, ttl);
    if name::inline_key(name).is_none() {
        protobuf::put_bytes(&mut out, field::PUBLIC_KEY, public_key);
    }
    protobuf::put_bytes(&mut out, field::SIGNATURE_V2, &second);
    protobuf::put_bytes(&mut out, field::DATA, &document);
    Ok(out)
}

/// The longest that a time to live may be: what Go's 64 signed bits hold.
fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX).min(i64::MAX as u64)
}

/// The fields as they stand; of a repeated one the last counts.
#[derive(Default)]
struct Fields<'a> {
    value: &'a [u8],
    signature_v1: &'a [u8],
    validity_type: u64,
    validity: &'a [u8],
    sequence: u64,
    ttl: u64,
    public_key: &'a [u8],
    signature_v2: &'a [u8],
    data: &'a [u8],
}

fn fields(bytes: &[u8]) -> Result<Fields<'_>, ProtobufError> {
    let mut fields = Fields::default();
    for field in Reader::new(bytes) {
        let field = field?;
        match field.number {
            field::VALUE => fields.value = field.bytes()?,
            field::SIGNATURE_V1 => fields.signature_v1 = field.bytes()?,
            field::VALIDITY_TYPE => fields.validity_type = field.uint()?,
            field::VALIDITY => fields.validity = field.bytes()?,
            field::SEQUENCE => fields.sequence = field.uint()?,
            field::TTL => fields.ttl = field.uint()?,
            field::PUBLIC_KEY => fields.public_key = field.bytes()?,
            field::SIGNATURE_V2 => fields.signature_v2 = field.bytes()?,
            field::DATA => fields.data = field.bytes()?,
            _ => {}
        }
    }
    Ok(fields)
}

/// Reads a record. Neither signature nor time are looked at.
pub fn decode(bytes: &[u8]) -> Result<Record, RecordError> {
    if bytes.len() > RECORD_BYTES_MAX {
        return Err(RecordError::TooLong(bytes.len()));
    }
    let fields = fields(bytes)?;
    if fields.signature_v2.is_empty() {
        return Err(RecordError::Missing("second signature"));
    }
    if fields.data.is_empty() {
        return Err(RecordError::Missing("signed document"));
    }
    let document = document::decode(fields.data).map_err(RecordError::Document)?;
    // A record for old readers repeats the document; one of the second version alone leaves all of it out.
    if !fields.signature_v1.is_empty() || !fields.value.is_empty() {
        for (name, equal) in [
            ("value", fields.value == document.value),
            ("validity", fields.validity == document.validity),
            ("kind of validity", fields.validity_type == document.validity_type),
            ("sequence", fields.sequence == document.sequence),
            ("time to live", fields.ttl == document.ttl),
        ] {
            if !equal {
                return Err(RecordError::Mismatch(name));
            }
        }
    }
    if document.validity_type != 0 {
        return Err(RecordError::Validity);
    }
    let validity = std::str::from_utf8(document.validity).ok().and_then(|text| GoTime::parse(text).ok());
    Ok(Record {
        entry: Entry {
            value: document.value.to_vec(),
            validity: validity.ok_or(RecordError::Validity)?,
            sequence: document.sequence,
            ttl: Duration::from_nanos(document.ttl),
        },
        public_key: (!fields.public_key.is_empty()).then(|| fields.public_key.to_vec()),
        document: fields.data.to_vec(),
        signature: fields.signature_v2.to_vec(),
        bytes: bytes.to_vec(),
    })
}

impl Record {
    /// The record as it travels.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Checks that the owner of `name` made it: `check` is given a public key (libp2p's protobuf form), what must have been signed,
    /// and the signature.
    pub fn verify(&self, name: &PeerId, check: impl FnOnce(&[u8], &[u8], &[u8]) -> bool) -> Result<(), RecordError> {
        let message = [SIGNATURE_PREFIX, &self.document].concat();
        if check(self.key_of(name)?, &message, &self.signature) { Ok(()) } else { Err(RecordError::Signature) }
    }

    /// The key that belongs to the name: inside it, or in the record and proved by the name's hash.
    fn key_of<'a>(&'a self, name: &'a PeerId) -> Result<&'a [u8], RecordError> {
        let carried = self.public_key.as_deref();
        match (name::inline_key(name), carried) {
            (Some(key), Some(carried)) if key != carried => Err(RecordError::OtherKey(name_text(name))),
            (Some(key), _) => Ok(key),
            (None, None) => Err(RecordError::NoKey(name_text(name))),
            (None, Some(carried)) => {
                let is_its = name.as_bytes().get(2..).is_some_and(|digest| *digest == sha2_256(carried));
                if is_its { Ok(carried) } else { Err(RecordError::OtherKey(name_text(name))) }
            }
        }
    }

    /// Whether it may no longer be believed.
    pub fn is_expired(&self, now: GoTime) -> bool {
        now > self.entry.validity
    }

    /// Which of two records of one name counts: the higher sequence, then the longer validity, then any fixed order.
    pub fn order(&self, other: &Record) -> Ordering {
        let rank = |record: &Record| (record.entry.sequence, record.entry.validity);
        rank(self).cmp(&rank(other)).then_with(|| self.bytes.cmp(&other.bytes))
    }
}

#[cfg(test)]
mod tests;
