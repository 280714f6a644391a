//! Addresses that the owner has others dial, where they are not the ones listened on: a forwarded port, a name.

use anyhow::{Context, bail};
use wire::multiaddr;

/// The word that stands for the addresses listened on.
const LISTENED: &str = "listened";

/// Which of the two hosts announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Speaks TCP alone.
    Cluster,
    /// Speaks QUIC, too.
    Swarm,
}

impl Side {
    /// Whether this host can have others dial an address.
    pub fn takes(self, address: &str) -> bool {
        check(self, address).is_ok()
    }
}

/// What one host tells others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Announced {
    /// Multiaddrs that the owner gives.
    pub addresses: Vec<String>,
    /// Whether the ones listened on are told, too.
    pub tells_listened: bool,
}

impl Announced {
    /// Out of the words of flags and file; none: where it listens.
    pub fn of(side: Side, words: &[String]) -> anyhow::Result<Announced> {
        let addresses: Vec<String> = words.iter().filter(|word| *word != LISTENED).cloned().collect();
        for address in &addresses {
            check(side, address).with_context(|| format!("announcing {address:?} (give a multiaddr, or `{LISTENED}`)"))?;
        }
        Ok(Announced { tells_listened: words.is_empty() || addresses.len() < words.len(), addresses })
    }
}

/// Whether others can dial it at all.
fn check(side: Side, address: &str) -> anyhow::Result<()> {
    multiaddr::from_text(address)?;
    let parts: Vec<&str> = address.trim_end_matches('/').split('/').skip(1).collect();
    let [kind, host, transport @ ("tcp" | "udp"), port, rest @ ..] = parts.as_slice() else {
        bail!("others need a host and a port to dial")
    };
    if !matches!(*kind, "ip4" | "ip6" | "dns" | "dns4" | "dns6") || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_unspecified()) {
        bail!("{host} is no place that can be dialled: give an IP address or a name");
    }
    if *port == "0" {
        bail!("port 0 cannot be dialled: give the port that leads here");
    }
    match (side, *transport, rest) {
        (_, "tcp", []) | (Side::Swarm, "udp", ["quic-v1"]) => Ok(()),
        (Side::Cluster, ..) => bail!("others dial the cluster's network by TCP: /ip4/<address>/tcp/<port>"),
        (Side::Swarm, ..) => bail!("others dial the node by TCP or QUIC: /ip4/<address>/tcp/<port> or /ip4/<address>/udp/<port>/quic-v1"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(side: Side, words: &[&str]) -> Result<Announced, String> {
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        Announced::of(side, &words).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn what_is_said_is_told_and_what_is_listened_on_only_where_that_is_said() {
        let (one, name) = ("/ip4/203.0.113.7/tcp/9096", "/dns4/nas.example.org/udp/4001/quic-v1");
        for (side, words, addresses, tells_listened) in [
            (Side::Cluster, &[][..], &[][..], true),
            (Side::Cluster, &[one], &[one], false),
            (Side::Cluster, &["listened", one], &[one], true),
            (Side::Swarm, &[one, name], &[one, name], false),
            (Side::Swarm, &["listened"], &[], true),
        ] {
            let told = of(side, words).expect("reads");
            assert_eq!(
                (told.addresses.as_slice(), told.tells_listened),
                (&addresses.iter().map(ToString::to_string).collect::<Vec<_>>()[..], tells_listened)
            );
        }
    }

    #[test]
    fn what_nobody_can_dial_is_refused_with_the_reason() {
        for (side, word, reason) in [
            (Side::Cluster, "203.0.113.7:9096", "must begin with /"),
            (Side::Cluster, "/ip4/0.0.0.0/tcp/9096", "no place that can be dialled"),
            (Side::Cluster, "/ip6/::/tcp/9096", "no place that can be dialled"),
            (Side::Cluster, "/ip4/203.0.113.7/tcp/0", "port 0"),
            (Side::Cluster, "/ip4/203.0.113.7", "a port"),
            (Side::Cluster, "/ip4/203.0.113.7/udp/4001/quic-v1", "by TCP"),
            (Side::Swarm, "/ip4/203.0.113.7/udp/4001", "TCP or QUIC"),
            (Side::Swarm, "/ip4/203.0.113.7/tcp/4001/ws", "TCP or QUIC"),
        ] {
            let said = of(side, &[word]).expect_err(word);
            assert!(said.contains(reason) && said.contains(word), "{said}");
        }
    }
}
