//! The Go peers that an administrator trusts, and what follows from having any.

use anyhow::bail;
use std::collections::{BTreeMap, BTreeSet};
use types::PeerId;

/// Who is trusted beside the members: `trusted_peers` of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GoPeers {
    /// Everybody in the private network.
    everybody: bool,
    peers: BTreeSet<PeerId>,
    addresses: BTreeMap<PeerId, Vec<String>>,
}

impl GoPeers {
    /// Reads peer ids, multiaddrs that end in `/p2p/<id>`, and `*`.
    pub fn parse(entries: &[String]) -> anyhow::Result<GoPeers> {
        let mut go = GoPeers::default();
        for entry in entries {
            if entry == "*" {
                go.everybody = true;
            } else if let Ok(peer) = entry.parse() {
                go.peers.insert(peer);
            } else if let Some(peer) = wire::multiaddr::from_text(entry).ok().and_then(|address| wire::multiaddr::peer_of(&address)) {
                go.peers.insert(peer);
                go.addresses.entry(peer).or_default().push(entry.clone());
            } else {
                bail!("trusted_peers: {entry:?} is no peer id, no multiaddr with /p2p/<id>, and not \"*\"");
            }
        }
        Ok(go)
    }

    /// Whether this is a cluster of Pinfold peers alone.
    pub fn is_empty(&self) -> bool {
        !self.everybody && self.peers.is_empty()
    }

    /// Whether the peer may write to the shared wish.
    pub fn trusts(&self, peer: &PeerId) -> bool {
        self.everybody || self.peers.contains(peer)
    }

    /// Whether everybody in the private network is.
    pub fn trusts_everybody(&self) -> bool {
        self.everybody
    }

    /// Those that are named.
    pub fn ids(&self) -> impl Iterator<Item = &PeerId> {
        self.peers.iter()
    }

    /// Those to stay connected to, and where.
    pub fn addresses(&self) -> impl Iterator<Item = (&PeerId, &Vec<String>)> {
        self.addresses.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_addresses_and_everybody_are_read() {
        let [first, second, third] = [1, 2, 3].map(|number| PeerId::from_ed25519(&[number; 32]));
        let address = format!("/ip4/10.0.0.1/tcp/9096/p2p/{second}");
        let go = GoPeers::parse(&[first.to_string(), address.clone()]).expect("read");
        assert!(go.trusts(&first) && go.trusts(&second) && !go.trusts(&third) && !go.is_empty());
        assert_eq!(go.addresses().collect::<Vec<_>>(), [(&second, &vec![address])]);
        assert!(GoPeers::parse(&["*".to_owned()]).expect("read").trusts(&third));
        assert!(GoPeers::parse(&[]).expect("read").is_empty());
        for bad in ["nonsense", "/ip4/10.0.0.1/tcp/9096", ""] {
            assert!(GoPeers::parse(&[bad.to_owned()]).is_err(), "{bad:?}");
        }
    }
}
