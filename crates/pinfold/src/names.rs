//! What `pinfold.toml` says of names, and the parts they are made of.

use crate::config::{Keys, NodeKind, Settings};
use crate::units::parse_duration;
use anyhow::{Context, bail};
use ipfs::values::ValueRouting;
use ipfs_embedded::Routing;
use peer::names::{DnsLink, Keystore};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The port of DNS.
const DNS_PORT: u16 = 53;
/// Where the keys lie, below the data directory.
const KEYS: &str = "keys";

/// The table `[names]`.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamesTable {
    renew_every: Option<String>,
    #[serde(default)]
    dns: Vec<String>,
    #[serde(default)]
    dnslink: BTreeMap<String, String>,
}

/// Names as configured.
#[derive(Debug, Clone)]
pub struct NameSettings {
    /// A published record is made anew at least so often.
    pub renew_every: Duration,
    /// Servers that are asked for DNSLinks; none: the system's.
    pub dns: Vec<SocketAddr>,
    /// Names that are known without DNS, and where they lead.
    pub dnslink: BTreeMap<String, String>,
}

impl NameSettings {
    /// Reads the table.
    pub fn of(table: NamesTable) -> anyhow::Result<NameSettings> {
        let renew_every = parse_duration(table.renew_every.as_deref().unwrap_or("4h")).context("renew_every")?;
        if renew_every < Duration::from_secs(1) {
            bail!("renew_every must be at least a second");
        }
        for (name, value) in &table.dnslink {
            if !value.starts_with("/ipfs/") && !value.starts_with("/ipns/") {
                bail!("dnslink: {name:?} leads to {value:?}: write a path like /ipfs/<cid> or /ipns/<name>");
            }
        }
        let dns = table.dns.iter().map(|text| server(text)).collect::<Result<_, _>>()?;
        Ok(NameSettings { renew_every, dns, dnslink: table.dnslink })
    }
}

fn server(text: &str) -> anyhow::Result<SocketAddr> {
    let with_port = || text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, DNS_PORT));
    text.parse().or_else(|_| with_port()).with_context(|| format!("dns: {text:?} is no address like 1.1.1.1 or 127.0.0.1:5353"))
}

/// The keys of a data directory; `own` is the seed of the node's identity.
pub fn keystore(dir: &Path, own: Option<[u8; 32]>) -> Keystore {
    Keystore::new(dir.join(KEYS), own)
}

/// What the peer makes its names of.
pub fn options(settings: &Settings, keys: &Keys, found: Option<Arc<Routing>>) -> peer::NamesOptions {
    let names = &settings.names;
    let routing: Vec<Arc<dyn ValueRouting>> = match &settings.node {
        NodeKind::Embedded => found.map(|routing| routing.values()).unwrap_or_default(),
        NodeKind::Kubo(endpoint) => vec![Arc::new(ipfs_kubo::KuboRouting::new(endpoint.clone()))],
    };
    peer::NamesOptions {
        keys: keystore(&settings.dir, Some(keys.node)),
        links: DnsLink::new(names.dnslink.clone(), Arc::new(net::dns::Dns::new(&names.dns))),
        routing,
        renew_every: names.renew_every,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_read_and_mistakes_named() {
        let read = |text: &str| NameSettings::of(toml::from_str(text).expect("a table")).map_err(|error| format!("{error:#}"));
        let settings = read("dns = [\"1.1.1.1\", \"[::1]:5353\"]\nrenew_every = \"90s\"").expect("it reads");
        assert_eq!(settings.dns, ["1.1.1.1:53".parse().expect("an address"), "[::1]:5353".parse().expect("an address")]);
        assert_eq!(settings.renew_every, Duration::from_secs(90));
        assert!(read("dns = [\"dns.example.org\"]").expect_err("refused").contains("no address like"));
        assert!(read("[dnslink]\n\"a.org\" = \"bafy\"").expect_err("refused").contains("a.org"));
        assert!(read("renew_every = \"0s\"").is_err());
    }
}
