//! What `pinfold.toml` says of routing among strangers (the DHT, routers and gateways over HTTP), and the part it is made of.

use crate::config::{NodeKind, Settings};
use anyhow::{Context, bail};
use ipfs_embedded::{Found, HttpRouting, Mode, Routing, RoutingOptions, Strategy};
use net::http::{HttpClient, HttpOptions, Url};
use net::{Host, Throttle};
use std::path::PathBuf;
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

/// Servers of one kind that may be named: each search asks all routers.
const SERVERS_MOST: usize = 16;

/// The table `[routing]`.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoutingTable {
    mode: Option<String>,
    #[serde(default)]
    bootstrap: Vec<String>,
    provide: Option<String>,
    #[serde(default)]
    delegated: Vec<String>,
    #[serde(default)]
    gateways: Vec<String>,
    ca: Option<PathBuf>,
}

/// Routing as configured.
#[derive(Debug, Clone)]
pub struct RoutingSettings {
    /// None: no part in the DHT.
    mode: Option<Mode>,
    bootstrap: Vec<String>,
    strategy: Strategy,
    delegated: Vec<Url>,
    gateways: Vec<Url>,
    found: Found,
    /// Authorities for TLS that are trusted besides the usual ones.
    ca: Option<PathBuf>,
}

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
        let mut found = Found::No;
        let (mut delegated, mut gateways) = (Vec::new(), Vec::new());
        for text in &table.delegated {
            let mut url = net::http::base(text).context("delegated")?;
            // As some write it; the paths of the protocol begin with it.
            let path = url.path().trim_end_matches("/routing/v1").to_owned();
            url.set_path(&path);
            delegated.push(url);
        }
        for text in &table.gateways {
            match text.as_str() {
                "found" => found = Found::Public,
                "found-anywhere" => found = Found::Anywhere,
                text => {
                    let mut url = net::http::base(text).context("gateways")?;
                    let path = url.path().trim_end_matches("/ipfs").to_owned();
                    url.set_path(&path);
                    gateways.push(url);
                }
            }
        }
        if found != Found::No && delegated.is_empty() {
            bail!("gateways: \"found\" takes those that delegated routers name, and `delegated` names none");
        }
        for (key, urls) in [("delegated", &mut delegated), ("gateways", &mut gateways)] {
            if urls.len() > SERVERS_MOST {
                bail!("{key}: {} servers are more than the {SERVERS_MOST} that are asked", urls.len());
            }
            let mut seen = std::collections::HashSet::new();
            urls.retain(|url| seen.insert(url.clone()));
        }
        Ok(RoutingSettings {
            mode,
            bootstrap,
            strategy,
            delegated,
            gateways,
            found,
            ca: table.ca.filter(|path| !path.as_os_str().is_empty()),
        })
    }

    /// Servers over HTTP, where any are named.
    fn http(&self, throttle: &Throttle) -> anyhow::Result<Option<HttpRouting>> {
        if self.delegated.is_empty() && self.gateways.is_empty() {
            return Ok(None);
        }
        let read = |path: &PathBuf| std::fs::read(path).with_context(|| format!("reading ca {}", path.display()));
        let authorities = self.ca.as_ref().map(read).transpose()?;
        let agent = concat!("pinfold/", env!("CARGO_PKG_VERSION")).to_owned();
        let options = HttpOptions { throttle: throttle.clone(), agent, authorities, ..HttpOptions::default() };
        let client = HttpClient::new(options).with_context(|| match &self.ca {
            Some(path) => format!("reading ca {}", path.display()),
            None => "setting up TLS".to_owned(),
        })?;
        Ok(Some(HttpRouting { client, routers: self.delegated.clone(), gateways: self.gateways.clone(), found: self.found }))
    }
}

/// The routing of the embedded node, where it is on. A daemon does its own. To be called before the host dials.
pub fn start(settings: &Settings, host: &Host, throttle: &Throttle) -> anyhow::Result<Option<Arc<Routing>>> {
    let routing = &settings.routing;
    let NodeKind::Embedded = settings.node else {
        if !routing.delegated.is_empty() || !routing.gateways.is_empty() {
            tracing::warn!(
                "delegated and gateways under [routing] are for the embedded node: the daemon of --node asks whom its own settings name"
            );
        }
        return Ok(None);
    };
    let http = routing.http(throttle).context("reading [routing] in pinfold.toml")?;
    if routing.mode.is_none() && http.is_none() {
        return Ok(None);
    }
    let options = RoutingOptions { mode: routing.mode, bootstrap: routing.bootstrap.clone(), strategy: routing.strategy, http };
    Routing::start(host, options).context("taking part in the DHT").map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_read_and_mistakes_named() {
        let read = |text: &str| RoutingSettings::of(toml::from_str(text).expect("a table")).map_err(|error| format!("{error:#}"));
        let nothing = read("").expect("it reads");
        assert!(nothing.mode.is_none() && nothing.http(&Throttle::default()).expect("no file").is_none(), "nobody to begin with: off");
        let first = "/ip4/10.0.0.7/tcp/4001/p2p/12D3KooWKnDdG3iXw9eTFijk3EWSunZcFi54Zka4wmtqtt6rPxc8";
        let settings = read(&format!("bootstrap = [\"{first}\"]\nprovide = \"roots\"")).expect("it reads");
        assert_eq!((settings.mode, settings.strategy, settings.bootstrap), (Some(Mode::Auto), Strategy::Roots, vec![first.to_owned()]));
        assert_eq!(read("bootstrap = [\"public\"]").expect("it reads").bootstrap.len(), PUBLIC.len());
        assert!(read("mode = \"off\"\nbootstrap = [\"public\"]").expect("it reads").mode.is_none());
        assert_eq!(read("mode = \"server\"").expect("it reads").mode, Some(Mode::Server));
        assert!(read("mode = \"on\"").expect_err("refused").contains("none of off"));
        assert!(read("bootstrap = [\"10.0.0.7:4001\"]").expect_err("refused").contains("10.0.0.7:4001"));
        assert!(read("provide = \"pins\"").expect_err("refused").contains("none of all"));
        for (name, strategy) in [("all", Strategy::All), ("pinned", Strategy::Pinned), ("roots", Strategy::Roots), ("none", Strategy::None)]
        {
            let settings = read(&format!("mode = \"client\"\nprovide = {name:?}")).expect("it reads");
            assert_eq!((settings.strategy, strategy.as_str()), (strategy, name));
        }
        assert!(PUBLIC.iter().all(|address| wire::multiaddr::from_text(address).is_ok()));
    }

    #[test]
    fn servers_over_http_are_read_and_mistakes_named() {
        let read = |text: &str| RoutingSettings::of(toml::from_str(text).expect("a table")).map_err(|error| format!("{error:#}"));
        let shown = |urls: &[Url]| urls.iter().map(net::http::shown).collect::<Vec<_>>();
        let text = r#"delegated = ["https://a.org/routing/v1/", "https://a.org"]
            gateways = ["http://10.0.0.7:8080/ipfs/", "found", "https://b.org/sub"]"#;
        let settings = read(text).expect("it reads");
        assert_eq!(shown(&settings.delegated), ["https://a.org"]);
        assert_eq!(shown(&settings.gateways), ["http://10.0.0.7:8080", "https://b.org/sub"]);
        assert_eq!((settings.found, settings.mode), (Found::Public, None));
        assert!(settings.http(&Throttle::default()).expect("no file is read").is_some());
        let anywhere = read("delegated = [\"http://a\"]\ngateways = [\"found-anywhere\"]").expect("it reads");
        assert_eq!(anywhere.found, Found::Anywhere);
        for (text, why) in [
            ("delegated = [\"a.org\"]", "delegated: \"a.org\" is no URL"),
            ("gateways = [\"ftp://a.org\"]", "gateways: \"ftp://a.org\" is neither http nor https"),
            ("gateways = [\"https://me:secret@a.org\"]", "carries a password"),
            ("gateways = [\"found\"]", "`delegated` names none"),
        ] {
            let error = read(text).expect_err("refused");
            assert!(error.contains(why), "{text}: {error}");
        }
        let many: Vec<String> = (0..=SERVERS_MOST).map(|number| format!("\"http://host{number}\"")).collect();
        assert!(read(&format!("gateways = [{}]", many.join(","))).expect_err("refused").contains("17 servers"));
        let folder = tempfile::tempdir().expect("a folder");
        let ca = folder.path().join("ca.pem");
        let with_ca = || read(&format!("gateways = [\"https://a\"]\nca = {ca:?}")).expect("it reads").http(&Throttle::default());
        assert!(format!("{:#}", with_ca().expect_err("no file")).contains("reading ca"));
        std::fs::write(&ca, "no certificate").expect("written");
        assert!(format!("{:#}", with_ca().expect_err("no certificate")).contains("BEGIN CERTIFICATE"));
    }
}
