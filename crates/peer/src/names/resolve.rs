//! From a name to content: record by record, link by link, until a CID comes.

use super::dnslink::DnsLinkError;
use super::{Names, now, routing_key, verified};
use std::time::Duration;
use types::{Cid, PeerId};
use wire::gotime::GoTime;
use wire::ipns::{Record, name_from_text, name_text};

/// Names on the way to content, at most; what is deeper is a loop or a joke.
pub const STEPS_MOST: usize = 32;
/// How long all of routing may take for one name.
const ROUTING_LIMIT: Duration = Duration::from_secs(60);
/// The longest path that values may add up to.
const PATH_BYTES_MAX: usize = 8 << 10;

/// How a name is looked up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct How {
    /// Ask nobody outside the cluster.
    pub is_local: bool,
    /// Ask routing even where a member has a record, or one from routing is still fresh.
    pub refresh: bool,
    /// Do not ask routers over HTTP: who asks is such a server itself.
    pub without_http: bool,
}

/// Whose word it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// A record that this peer wrote.
    Own,
    /// A record that another member wrote.
    Cluster,
    /// A record from outside.
    Routing,
    /// The table `[names.dnslink]`.
    Table,
    /// A TXT record.
    Dns,
}

impl From {
    /// In a word.
    pub fn as_str(self) -> &'static str {
        match self {
            From::Own => "own record",
            From::Cluster => "cluster",
            From::Routing => "routing",
            From::Table => "table",
            From::Dns => "dns",
        }
    }
}

/// One name and where it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The name as everybody shows it.
    pub name: String,
    /// The path behind it.
    pub value: String,
    /// Whose word it is.
    pub from: From,
    /// For how long it may be taken for true.
    pub ttl: Duration,
    /// Of records: their version.
    pub sequence: Option<u64>,
    /// Of records: until when they may be believed.
    pub validity: Option<GoTime>,
}

/// Content behind a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Where it begins.
    pub root: Cid,
    /// Names below the root, divided by `/`, from the values on the way; the asker's own path follows.
    pub below: String,
    /// For how long that may be taken for true.
    pub ttl: Duration,
    /// Name by name.
    pub steps: Vec<Step>,
}

/// Why a name leads nowhere; the text names the next step.
#[derive(Debug, thiserror::Error)]
pub enum NameError {
    /// Nobody has a record.
    #[error("no record of {name}: no member of this cluster has published it{asked}")]
    NotFound {
        /// The name.
        name: String,
        /// Who else was asked.
        asked: String,
    },
    /// The record is too old.
    #[error("the record of {name} ended at {validity}: it must be published again by whoever has its key")]
    Expired {
        /// The name.
        name: String,
        /// When.
        validity: GoTime,
    },
    /// Names that lead to each other.
    #[error("the names lead in a circle: {0}")]
    Loop(String),
    /// More names than anybody needs.
    #[error("more than {STEPS_MOST} names behind each other, the last one is {0}")]
    TooDeep(String),
    /// The value is no path to content.
    #[error("{name} leads to {value:?}: {why}")]
    Value {
        /// The name.
        name: String,
        /// What it says.
        value: String,
        /// What is wrong.
        why: String,
    },
    /// A domain name without a link.
    #[error(transparent)]
    DnsLink(#[from] DnsLinkError),
    /// The own disk.
    #[error("reading the records: {0}")]
    Storage(String),
}

impl Names {
    /// Follows a name to content.
    pub async fn resolve(&self, name: &str, how: How) -> Result<Resolved, NameError> {
        let mut steps: Vec<Step> = Vec::new();
        let mut below = String::new();
        let mut next = name.to_owned();
        loop {
            let step = self.step(&next, how).await?;
            if steps.iter().any(|seen| seen.name == step.name) {
                let mut names: Vec<&str> = steps.iter().map(|step| step.name.as_str()).collect();
                names.push(&step.name);
                return Err(NameError::Loop(names.join(" -> ")));
            }
            let fault = |why: &str| NameError::Value { name: step.name.clone(), value: step.value.clone(), why: why.to_owned() };
            let (kind, root, rest) = parts(&step.value).ok_or_else(|| fault("this is no path like /ipfs/<cid> or /ipns/<name>"))?;
            if rest.len() + below.len() >= PATH_BYTES_MAX {
                return Err(fault("the path is too long"));
            }
            below = [rest, &below].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
            let cid = (kind == "ipfs").then(|| wire::cids::cid_from_text(root).map_err(|error| fault(&error.to_string()))).transpose()?;
            let root = root.to_owned();
            steps.push(step);
            if let Some(root) = cid {
                let ttl = steps.iter().map(|step| step.ttl).min().unwrap_or_default();
                return Ok(Resolved { root, below, ttl, steps });
            }
            if steps.len() == STEPS_MOST {
                return Err(NameError::TooDeep(root));
            }
            next = root;
        }
    }

    /// Where one name leads.
    pub async fn step(&self, name: &str, how: How) -> Result<Step, NameError> {
        if let Ok(key) = name_from_text(name) {
            let (record, from) = self.record(&key, how).await?;
            let shown = name_text(&key);
            let value = String::from_utf8(record.entry.value.clone()).map_err(|_| NameError::Value {
                name: shown.clone(),
                value: String::from_utf8_lossy(&record.entry.value).into_owned(),
                why: "this is no text".to_owned(),
            })?;
            let left = left_until(record.entry.validity);
            let (sequence, validity) = (Some(record.entry.sequence), Some(record.entry.validity));
            return Ok(Step { name: shown, value, from, ttl: record.entry.ttl.min(left), sequence, validity });
        }
        let link = self.links.of(name, how.is_local).await?;
        let from = if link.is_from_table { From::Table } else { From::Dns };
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        Ok(Step { name, value: link.value, from, ttl: link.ttl, sequence: None, validity: None })
    }

    /// The record of a name that counts, and whose word it is: those of the members first, then routing.
    pub async fn record(&self, name: &PeerId, how: How) -> Result<(Record, From), NameError> {
        let now = now();
        let (mut best, mut ended) = (None, None);
        for written in self.registers.of(name).map_err(NameError::Storage)? {
            match verified(name, &written.record) {
                Ok(record) if record.is_expired(now) => ended = ended.max(Some(record.entry.validity)),
                Ok(record) => take_better(&mut best, record, if written.is_mine { From::Own } else { From::Cluster }),
                Err(error) => tracing::warn!(name = %name_text(name), %error, "a kept record is not its name's"),
            }
        }
        if let (Some(best), false) = (&best, how.refresh) {
            return Ok(best.clone());
        }
        if !how.refresh
            && let Some(record) = self.cache.get(name).filter(|record| !record.is_expired(now))
        {
            return Ok((record, From::Routing));
        }
        let mut failures = Vec::new();
        if !how.is_local && !self.routing.is_empty() {
            let (found, failed) = self.ask_routing(name, how).await;
            failures = failed;
            if let Some(record) = found {
                self.cache.put(*name, record.clone());
                take_better(&mut best, record, From::Routing);
            }
        }
        if let Some(best) = best {
            return Ok(best);
        }
        let name = name_text(name);
        match ended {
            Some(validity) => Err(NameError::Expired { name, validity }),
            None => Err(NameError::NotFound { name, asked: self.who_was_asked(how, &failures) }),
        }
    }

    fn who_was_asked(&self, how: How, failures: &[String]) -> String {
        match (self.routing.is_empty(), how.is_local, failures) {
            (true, _, _) => ", and this peer has no routing set up that could be asked".to_owned(),
            (false, true, _) => ", and only the cluster was asked".to_owned(),
            (false, false, []) => format!(", and {} found none", self.routing().join(", ")),
            (false, false, failures) => format!("; {}", failures.join("; ")),
        }
    }

    /// The best record that all routers find within the limit, and what those said that failed.
    async fn ask_routing(&self, name: &PeerId, how: How) -> (Option<Record>, Vec<String>) {
        let key = routing_key(name);
        let ask = |router: &std::sync::Arc<dyn ipfs::values::ValueRouting>| {
            let (router, key) = (router.clone(), key.clone());
            async move {
                let answer = tokio::time::timeout(ROUTING_LIMIT, router.get_value(&key)).await;
                let label = router.label();
                match answer {
                    Ok(Ok(value)) => Ok(value),
                    Ok(Err(error)) => Err(format!("{label}: {error}")),
                    Err(_) => Err(format!("{label} gave no answer within {} s", ROUTING_LIMIT.as_secs())),
                }
            }
        };
        let (mut best, mut failures) = (None, Vec::new());
        for answer in
            futures::future::join_all(self.routing.iter().filter(|router| !(how.without_http && router.is_over_http())).map(ask)).await
        {
            match answer {
                Ok(None) => {}
                Ok(Some(value)) => match verified(name, &value) {
                    Ok(record) if record.is_expired(now()) => {
                        failures.push(format!("a record was found that ended at {}", record.entry.validity));
                    }
                    Ok(record) => take_better(&mut best, record, From::Routing),
                    Err(error) => failures.push(format!("a record was found that is refused: {error}")),
                },
                Err(failure) => failures.push(failure),
            }
        }
        (best.map(|(record, _)| record), failures)
    }
}

fn take_better(best: &mut Option<(Record, From)>, record: Record, from: From) {
    if best.as_ref().is_none_or(|(known, _)| record.order(known).is_gt()) {
        *best = Some((record, from));
    }
}

/// How long until a moment; zero when it has passed.
fn left_until(moment: GoTime) -> Duration {
    let left = moment.to_millis().0.saturating_sub(crate::clock::wall().0);
    Duration::from_millis(left)
}

/// `/ipfs/<root>/<rest>` taken apart; `ipns` likewise.
pub(super) fn parts(path: &str) -> Option<(&str, &str, &str)> {
    let (kind, rest) = path.strip_prefix('/')?.split_once('/')?;
    let (root, rest) = rest.split_once('/').unwrap_or((rest, ""));
    let is_kind = matches!(kind, "ipfs" | "ipns");
    (is_kind && !root.is_empty()).then_some((kind, root, rest.trim_matches('/')))
}
