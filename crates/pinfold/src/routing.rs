//! What `pinfold.toml` says of routing among strangers, and the part it is made of.

use crate::config::{NodeKind, Settings};
use anyhow::{Context, bail};
use ipfs_embedded::{Mode, Routing, RoutingOptions, Strategy};
use net::Host;
use std::sync::Arc;

/// The peers with which Kubo begins, for `bootstrap = ["public"]`.
const PUBLIC: [&str; 6] = [
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmNnooDu7bfjPFoTZYxMNLWUQJyrVwtbZg5gBMjTezGAJN",
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmQCU2EcMqAqQPR2i9bChDtGNJchTbq5TbXJJ16u19uLTa",
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmbLHAnMoJPWSCR5Zhtx6BHJX9KiKNN6tpvbUcqanj75Nb",
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmcZf59bWwK5XFi76CZX8cbJ4BhTzzA3gU1ZjYZcYW3dwt",
    "/dnsaddr/va1.bootstrap.libp2p.io/p2p/12D3KooWKnDdG3iXw9eTFijk3EWSunZcFi54Zka4wmtqtt6rPxc8",
    "/ip4/104.131.131.82/tcp/4001/p2p/QmaCpDMGvV2BGHeYERUEnRQAwe3N8SzbUtfsmvsqQLuvuJ",
];

/// The table `[routing]`.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoutingTable {
    mode: Option<String>,
    #[serde(default)]
    bootstrap: Vec<String>,
    provide: Option<String>,
}

/// Routing as configured; none: off.
#[derive(Debug, Clone, Default)]
pub struct RoutingSettings(Option<RoutingOptions>);

impl RoutingSettings {
    /// Reads the table.
    pub fn of(table: RoutingTable) -> anyhow::Result<RoutingSettings> {
        let mode = match table.mode.as_deref().unwrap_or("auto") {
            "off" => None,
            "client" => Some(Mode::Client),
            "server" => Some(Mode::Server),
            // Without anybody to begin with there is nobody to ask, and a cluster for itself talks to no strangers.
            "auto" if table.bootstrap.is_empty() => None,
            "auto" => Some(Mode::Auto),
            other => bail!("mode {other:?} is none of off, client, server, auto"),
        };
        let provide = table.provide.as_deref().unwrap_or("all");
        let Some(strategy) = Strategy::of(provide) else { bail!("provide {provide:?} is none of all, pinned, roots, none") };
        let mut bootstrap = Vec::new();
        for address in table.bootstrap {
            match address.as_str() {
                "public" => bootstrap.extend(PUBLIC.map(str::to_owned)),
                text if wire::multiaddr::from_text(text).is_ok() && text.contains("/p2p/") => bootstrap.push(address),
                text => bail!("bootstrap: {text:?} is neither \"public\" nor an address like /ip4/10.0.0.7/tcp/4001/p2p/12D3Koo…"),
            }
        }
        Ok(RoutingSettings(mode.map(|mode| RoutingOptions { mode, bootstrap, strategy })))
    }
}

/// The routing of the embedded node, where it is on. A daemon does its own. To be called before the host dials.
pub fn start(settings: &Settings, host: &Host) -> anyhow::Result<Option<Arc<Routing>>> {
    let NodeKind::Embedded = settings.node else { return Ok(None) };
    let options = settings.routing.0.clone();
    options.map(|options| Routing::start(host, options)).transpose().context("taking part in the DHT")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_read_and_mistakes_named() {
        let read = |text: &str| RoutingSettings::of(toml::from_str(text).expect("a table")).map_err(|error| format!("{error:#}"));
        assert!(read("").expect("it reads").0.is_none(), "nobody to begin with: off");
        let first = "/ip4/10.0.0.7/tcp/4001/p2p/12D3KooWKnDdG3iXw9eTFijk3EWSunZcFi54Zka4wmtqtt6rPxc8";
        let options = read(&format!("bootstrap = [\"{first}\"]\nprovide = \"roots\"")).expect("it reads").0.expect("on");
        assert_eq!((options.mode, options.strategy, options.bootstrap), (Mode::Auto, Strategy::Roots, vec![first.to_owned()]));
        assert_eq!(read("bootstrap = [\"public\"]").expect("it reads").0.expect("on").bootstrap.len(), PUBLIC.len());
        assert!(read("mode = \"off\"\nbootstrap = [\"public\"]").expect("it reads").0.is_none());
        assert_eq!(read("mode = \"server\"").expect("it reads").0.expect("on").mode, Mode::Server);
        assert!(read("mode = \"on\"").expect_err("refused").contains("none of off"));
        assert!(read("bootstrap = [\"10.0.0.7:4001\"]").expect_err("refused").contains("10.0.0.7:4001"));
        assert!(read("provide = \"pins\"").expect_err("refused").contains("none of all"));
        for (name, strategy) in [("all", Strategy::All), ("pinned", Strategy::Pinned), ("roots", Strategy::Roots), ("none", Strategy::None)]
        {
            let options = read(&format!("mode = \"client\"\nprovide = {name:?}")).expect("it reads").0.expect("on");
            assert_eq!((options.strategy, strategy.as_str()), (strategy, name));
        }
        assert!(PUBLIC.iter().all(|address| wire::multiaddr::from_text(address).is_ok()));
    }
}
