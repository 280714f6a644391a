//! What the owner says about how the peer is reached.

use anyhow::bail;
use net::{ReachOptions, Reachable, RelayFor};
use peer::Trust;
use std::sync::Arc;

/// `reachable`, `relay` and the relays of both hosts.
#[derive(Clone, Debug)]
pub struct ReachSettings {
    reachable: Reachable,
    relay: RelayFor,
    cluster_relays: Vec<String>,
    swarm_relays: Vec<String>,
}

impl ReachSettings {
    /// Out of the words of flags and file.
    pub fn of(
        reachable: Option<&str>,
        relay: Option<&str>,
        cluster_relays: Option<Vec<String>>,
        swarm_relays: Option<Vec<String>>,
    ) -> anyhow::Result<ReachSettings> {
        let reachable = match reachable.unwrap_or("auto") {
            "auto" => Reachable::Auto,
            "yes" => Reachable::Yes,
            "no" => Reachable::No,
            other => bail!("reachable = {other:?}: write auto, yes or no"),
        };
        let relay = match relay.unwrap_or("everyone") {
            "everyone" => RelayFor::Everyone,
            "members" => RelayFor::Members,
            "off" => RelayFor::Nobody,
            other => bail!("relay = {other:?}: write everyone, members or off"),
        };
        let (cluster_relays, swarm_relays) = (cluster_relays.unwrap_or_default(), swarm_relays.unwrap_or_default());
        for relay in cluster_relays.iter().chain(&swarm_relays) {
            if !relay.contains("/p2p/") {
                bail!("{relay:?} is no relay: its multiaddr must end in /p2p/<id>");
            }
        }
        Ok(ReachSettings { reachable, relay, cluster_relays, swarm_relays })
    }

    /// For the cluster host, whose `usual` ones say who is a member.
    pub fn cluster(&self, usual: ReachOptions) -> ReachOptions {
        ReachOptions { reachable: self.reachable, relay: self.relay, relays: self.cluster_relays.clone(), ..usual }
    }

    /// For the node: members are those whose hello named their node.
    pub fn node(&self, trust: &Trust) -> ReachOptions {
        let trust = trust.clone();
        let is_member = Arc::new(move |node: &types::PeerId| trust.member_of_node(node).is_some());
        let relays = self.swarm_relays.clone();
        ReachOptions { reachable: self.reachable, relay: self.relay, relays, is_member, ..ReachOptions::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_file_are_read_or_refused_with_the_choice() {
        let of = |reachable, relay, relays: Option<&str>| {
            ReachSettings::of(reachable, relay, relays.map(|relay| vec![relay.to_owned()]), None).map_err(|error| error.to_string())
        };
        let default = of(None, None, None).expect("reads");
        assert_eq!((default.reachable, default.relay), (Reachable::Auto, RelayFor::Everyone));
        let said = of(Some("no"), Some("off"), Some("/ip4/1.2.3.4/tcp/1/p2p/x")).expect("reads");
        assert_eq!((said.reachable, said.relay, said.cluster_relays.len()), (Reachable::No, RelayFor::Nobody, 1));
        for (refused, word) in [
            (of(Some("maybe"), None, None), "auto, yes or no"),
            (of(None, Some("me"), None), "everyone, members or off"),
            (of(None, None, Some("/ip4/1.2.3.4/tcp/1")), "/p2p/<id>"),
        ] {
            assert!(refused.expect_err("refused").contains(word));
        }
    }
}
