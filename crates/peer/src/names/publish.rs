//! Publishing: a record made with a key of this peer, on every member's disk, and told to routing.

use super::resolve::parts;
use super::{KeystoreError, Names, now, routing_key, verified};
use crate::handle::CommandError;
use net::keys::{KeyError, NameKey};
use std::time::Duration;
use types::{PeerId, UnixMillis};
use wire::gotime::GoTime;
use wire::ipns::{self, Entry, Record, name_from_text, name_text};

/// How long a record may be believed where nothing is said; as in Kubo.
pub const LIFETIME: Duration = Duration::from_secs(48 * 3600);
/// For how long it may be taken for true without another look where nothing is said; as in Kubo.
pub const TTL: Duration = Duration::from_secs(300);
/// The longest lifetime: a record that nobody can take back should not live for ever.
const LIFETIME_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
/// The longest value: what leaves room for the rest of a record, twice.
const VALUE_BYTES_MAX: usize = 4 << 10;
/// How long routing may take to say which record was the last; a version published elsewhere is rare.
const LAST_LIMIT: Duration = Duration::from_secs(15);
/// How long routing may take to store a record.
const ROUTING_LIMIT: Duration = Duration::from_secs(60);

/// What is to be published.
#[derive(Clone, Debug)]
pub struct Publish {
    /// The key: what people call it, or its IPNS name.
    pub key: String,
    /// Where it leads: `/ipfs/<cid>/…`, `/ipns/<name>/…`, or a CID.
    pub value: String,
    /// How long it may be believed.
    pub lifetime: Duration,
    /// For how long it may be taken for true without another look; none: [`TTL`], or the lifetime if that is less.
    pub ttl: Option<Duration>,
    /// The version; none: one more than the last where the value differs.
    pub sequence: Option<u64>,
}

/// What was published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The name.
    pub name: PeerId,
    /// What the record says.
    pub entry: Entry,
    /// Who was told beside the members, and why not.
    pub told: Vec<(String, Result<(), String>)>,
}

/// Why it was not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// No such key, or it does nothing.
    #[error(transparent)]
    Keystore(#[from] KeystoreError),
    /// It does not sign.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The value leads nowhere.
    #[error("{value:?} cannot be published: {why}")]
    Value {
        /// As given.
        value: String,
        /// What is wrong.
        why: String,
    },
    /// A time that makes no sense.
    #[error("{0}")]
    Times(String),
    /// A sequence that nobody would take.
    #[error("sequence {wanted} is not above {last}, the one of the record that stands: readers would go on with that one")]
    Sequence {
        /// As given.
        wanted: u64,
        /// The last one.
        last: u64,
    },
    /// A record of somebody else that is not taken.
    #[error("{0}")]
    Refused(String),
    /// The registers of the cluster.
    #[error(transparent)]
    Cluster(#[from] CommandError),
    /// The own disk.
    #[error("reading the records: {0}")]
    Storage(String),
}

impl Names {
    /// Publishes; on this disk when it returns, with the members soon after.
    pub async fn publish(&self, asked: &Publish) -> Result<Published, PublishError> {
        let key = self.keys.find(&asked.key)?;
        let value = value_of(&asked.value)?;
        if asked.lifetime.is_zero() || asked.lifetime > LIFETIME_MAX {
            return Err(PublishError::Times("the lifetime must be more than nothing and at most 100 years".to_owned()));
        }
        let ttl = asked.ttl.unwrap_or(TTL.min(asked.lifetime));
        if ttl > asked.lifetime {
            return Err(PublishError::Times("the ttl is longer than the lifetime".to_owned()));
        }
        let one_at_a_time = self.publishing.lock().await;
        let last = self.last(&key.name()).await?;
        let validity = after(crate::clock::wall(), asked.lifetime);
        let mut entry = Entry { value: value.into_bytes(), validity, sequence: 0, ttl };
        if let Some(last) = &last {
            entry.sequence = last.entry.sequence.saturating_add(u64::from(last.entry.value != entry.value));
        }
        if let Some(wanted) = asked.sequence {
            if let Some(last) = last.as_ref().map(|last| last.entry.sequence).filter(|last| wanted <= *last) {
                return Err(PublishError::Sequence { wanted, last });
            }
            entry.sequence = wanted;
        }
        let mut record = sign(&key, &entry)?;
        if last.is_some_and(|last| record.order(&last).is_le()) {
            // The same value for a shorter time: only a higher sequence makes readers take it.
            entry.sequence = entry.sequence.saturating_add(1);
            record = sign(&key, &entry)?;
        }
        self.registers.write(&key.name(), Some(record.bytes().to_vec())).await?;
        drop(one_at_a_time);
        self.published.notify_one();
        let told = self.tell_routing(&key.name(), record.bytes()).await;
        Ok(Published { name: key.name(), entry, told })
    }

    /// Takes a record that somebody else made, for all members, and tells it to routing; nobody here can renew it.
    pub async fn put(&self, name: &str, bytes: &[u8]) -> Result<Published, PublishError> {
        let refused = |why: String| PublishError::Refused(why);
        let name = name_from_text(name).map_err(|error| refused(error.to_string()))?;
        let record = verified(&name, bytes).map_err(|error| refused(error.to_string()))?;
        if record.is_expired(now()) {
            return Err(refused(format!("the record ended at {}: it must be published again", record.entry.validity)));
        }
        let one_at_a_time = self.publishing.lock().await;
        if let Some(known) = self.known(&name)?.filter(|known| record.order(known).is_lt()) {
            let (sequence, validity) = (known.entry.sequence, known.entry.validity);
            return Err(refused(format!("a better record is known: sequence {sequence}, valid until {validity}")));
        }
        self.registers.write(&name, Some(bytes.to_vec())).await?;
        drop(one_at_a_time);
        self.published.notify_one();
        let told = self.tell_routing(&name, bytes).await;
        Ok(Published { name, entry: record.entry, told })
    }

    /// The best record of the members, ended or not.
    pub(super) fn known(&self, name: &PeerId) -> Result<Option<Record>, PublishError> {
        let written = self.registers.of(name).map_err(PublishError::Storage)?;
        let records = written.iter().filter_map(|written| verified(name, &written.record).ok());
        Ok(records.max_by(Record::order))
    }

    /// The same with what routing has: another program may have published with the same key.
    async fn last(&self, name: &PeerId) -> Result<Option<Record>, PublishError> {
        let known = self.known(name)?;
        if self.routing.is_empty() {
            return Ok(known);
        }
        let how = super::How { refresh: true, ..super::How::default() };
        // Nobody else has one, or nobody answers in time: the own one is the last.
        let asked = tokio::time::timeout(LAST_LIMIT, self.record(name, how)).await;
        let elsewhere = asked.ok().and_then(Result::ok).map(|(record, _)| record);
        Ok(known.into_iter().chain(elsewhere).max_by(Record::order))
    }

    /// Tells routing, every router at once but those that are only asked.
    pub(super) async fn tell_routing(&self, name: &PeerId, record: &[u8]) -> Vec<(String, Result<(), String>)> {
        let key = routing_key(name);
        let tell = |router: &std::sync::Arc<dyn ipfs::values::ValueRouting>| {
            let (router, key) = (router.clone(), key.clone());
            async move {
                let told = tokio::time::timeout(ROUTING_LIMIT, router.put_value(&key, record)).await;
                let told = told.map_err(|_| format!("no answer within {} s", ROUTING_LIMIT.as_secs()));
                (router.label(), told.and_then(|told| told.map_err(|error| error.to_string())))
            }
        };
        futures::future::join_all(self.routing.iter().filter(|router| !router.is_over_http()).map(tell)).await
    }
}

/// Signs what a record says; it is read and checked as any reader does.
pub(super) fn sign(key: &NameKey, entry: &Entry) -> Result<Record, PublishError> {
    let bytes = ipns::encode(entry, &key.name(), &key.public(), |message| key.sign(message))?;
    verified(&key.name(), &bytes).map_err(|error| PublishError::Refused(format!("{}: {error}", name_text(&key.name()))))
}

/// A moment after another.
pub(super) fn after(moment: UnixMillis, span: Duration) -> GoTime {
    let span = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    GoTime::from(UnixMillis(moment.0.saturating_add(span)))
}

/// The path in its usual form; a bare CID is taken too.
fn value_of(typed: &str) -> Result<String, PublishError> {
    let fault = |why: String| PublishError::Value { value: typed.chars().take(200).collect(), why };
    let path = if typed.starts_with('/') { typed.to_owned() } else { format!("/ipfs/{typed}") };
    if path.len() > VALUE_BYTES_MAX {
        return Err(fault(format!("a path of more than {VALUE_BYTES_MAX} bytes does not fit into a record")));
    }
    let (kind, root, rest) = parts(&path).ok_or_else(|| fault("write /ipfs/<cid>, /ipns/<name>, or a CID".to_owned()))?;
    let root = match kind {
        "ipfs" => wire::cids::cid_from_text(root).map_err(|error| fault(error.to_string()))?.to_string(),
        _ => name_from_text(root).map_or_else(|_| root.to_owned(), |name| name_text(&name)),
    };
    Ok(if rest.is_empty() { format!("/{kind}/{root}") } else { format!("/{kind}/{root}/{rest}") })
}
