//! DNSLink: names of the domain name system that lead to content (<https://dnslink.org/>), from a table of the configuration or from TXT
//! records of `_dnslink.<name>`.

use async_trait::async_trait;
use net::dns::{Dns, DnsError, Texts};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What a link begins with in a TXT record.
const MARK: &str = "dnslink=";
/// For how long the table of the configuration holds: until the next start.
const TABLE_TTL: Duration = Duration::from_secs(60);
/// How long all servers may take for one name.
const LIMIT: Duration = Duration::from_secs(20);

/// Whoever knows the texts of a name.
#[async_trait]
pub trait TxtLookup: Send + Sync {
    /// The texts; none when there is no such name.
    async fn texts(&self, name: &str) -> Result<Texts, DnsError>;
}

#[async_trait]
impl TxtLookup for Dns {
    async fn texts(&self, name: &str) -> Result<Texts, DnsError> {
        Dns::texts(self, name).await
    }
}

/// Why a name has no link.
#[derive(Debug, thiserror::Error)]
pub enum DnsLinkError {
    /// Not a name that DNS could have.
    #[error("{0:?} is neither an IPNS name nor a domain name")]
    BadName(String),
    /// It is not there, or says nothing of content.
    #[error("{0} has no DNSLink: set a TXT record _dnslink.{0} with \"dnslink=/ipfs/<cid>\", or [names.dnslink] in pinfold.toml")]
    None(String),
    /// DNS did not answer.
    #[error(transparent)]
    Dns(#[from] DnsError),
    /// It took too long.
    #[error("DNS gave no answer for {name} within {} s", LIMIT.as_secs())]
    Late {
        /// What was asked for.
        name: String,
    },
}

/// Where names of DNS are looked up.
pub struct DnsLink {
    table: BTreeMap<String, String>,
    dns: Arc<dyn TxtLookup>,
}

/// A link and for how long it holds.
pub(super) struct Link {
    pub value: String,
    pub ttl: Duration,
    pub is_from_table: bool,
}

impl DnsLink {
    /// The table wins over DNS.
    pub fn new(table: BTreeMap<String, String>, dns: Arc<dyn TxtLookup>) -> DnsLink {
        let table = table.into_iter().map(|(name, value)| (lower(&name), value)).collect();
        DnsLink { table, dns }
    }

    pub(super) async fn of(&self, name: &str, is_local: bool) -> Result<Link, DnsLinkError> {
        let name = lower(name);
        if let Some(value) = self.table.get(&name) {
            return Ok(Link { value: value.clone(), ttl: TABLE_TTL, is_from_table: true });
        }
        if !is_domain(&name) {
            return Err(DnsLinkError::BadName(name.chars().take(80).collect()));
        }
        if is_local {
            return Err(DnsLinkError::None(name));
        }
        let asked = format!("_dnslink.{name}");
        let found = tokio::time::timeout(LIMIT, self.dns.texts(&asked)).await.map_err(|_| DnsLinkError::Late { name: name.clone() })??;
        // Of several the first in the order of letters, so that everybody takes the same.
        let value = found.texts.iter().filter_map(|text| link_in(text)).min();
        match value {
            Some(value) => Ok(Link { value: value.to_owned(), ttl: found.ttl, is_from_table: false }),
            None => Err(DnsLinkError::None(name)),
        }
    }
}

fn lower(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// The path in a TXT record; none when it speaks of something else.
fn link_in(text: &str) -> Option<&str> {
    let value = text.trim().strip_prefix(MARK)?.trim();
    (value.starts_with("/ipfs/") || value.starts_with("/ipns/")).then_some(value)
}

/// At least two labels of letters, digits, `-` and `_` (RFC 1035's lengths; the prefix `_dnslink.` must fit too).
fn is_domain(name: &str) -> bool {
    const LONGEST: usize = 253 - "_dnslink.".len();
    let is_label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    name.len() <= LONGEST && name.contains('.') && name.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_dns_can_have_are_asked_for() {
        for name in ["example.org", "a.b-c.d_e.f", "xn--bcher-kva.example"] {
            assert!(is_domain(name), "{name}");
        }
        let long = format!("{}.org", "a".repeat(64));
        for name in ["", "localhost", ".", "a..b", ".a.b", "ex ample.org", "bücher.example", long.as_str(), &"a.".repeat(200)] {
            assert!(!is_domain(name), "{name}");
        }
    }

    #[test]
    fn links_are_read_from_texts() {
        assert_eq!(link_in("dnslink=/ipfs/bafy/a b"), Some("/ipfs/bafy/a b"));
        assert_eq!(link_in(" dnslink= /ipns/example.org "), Some("/ipns/example.org"));
        for text in ["v=spf1 -all", "dnslink=", "dnslink=bafy", "dnslink=/dns4/x", "DNSLINK=/ipfs/x"] {
            assert_eq!(link_in(text), None, "{text}");
        }
    }
}
