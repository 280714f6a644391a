//! The node among other nodes: serving its blocks over bitswap, remembering where holders are.

use crate::fetching::{Activity, Fetcher};
use crate::finding::Finder;
use crate::gateways::Gateways;
use crate::shared::{Shared, on_disk};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt};
use ipfs::Source;
use net::Host;
use net::bitswap::{Bitswap, BitswapLimits, BlockSource};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use types::{Cid, PeerId};

/// Nodes whose addresses are remembered; beyond, those with the lowest ids are forgotten, which costs a fetch its short cut.
const NODES_KNOWN: usize = 4096;
/// Addresses remembered of one node.
const ADDRESSES_EACH: usize = 16;
/// Nodes dialled at once.
const DIALS_AT_ONCE: usize = 16;
/// Holders that one fetch connects to.
const HOLDERS_MOST: usize = 32;

pub(crate) struct Network {
    pub(crate) host: Host,
    pub(crate) bitswap: Bitswap,
    known: Mutex<BTreeMap<PeerId, Vec<String>>>,
    /// Finds providers among strangers, where routing is on.
    finder: Option<Arc<Finder>>,
    /// Give blocks over HTTP, where the user named any.
    gateways: Option<Arc<Gateways>>,
    activity: Activity,
}

impl Network {
    pub(crate) fn start(
        host: Host,
        shared: Arc<Shared>,
        limits: BitswapLimits,
        finder: Option<Arc<Finder>>,
        gateways: Option<Arc<Gateways>>,
    ) -> Network {
        let bitswap = Bitswap::start(host.clone(), Arc::new(Served(shared)), limits);
        Network { host, bitswap, known: Mutex::default(), finder, gateways, activity: Activity::new() }
    }

    /// Remembers and dials; who does not answer is left out.
    pub(crate) async fn connect(&self, addresses: &[String]) {
        let mut nodes: BTreeMap<PeerId, Vec<String>> = BTreeMap::new();
        for address in addresses {
            if let Some(node) = node_of(address) {
                nodes.entry(node).or_default().push(address.clone());
            }
        }
        nodes.remove(&self.host.id());
        for (node, addresses) in &nodes {
            self.remember(*node, addresses);
        }
        let nodes = futures::stream::iter(nodes.into_keys());
        nodes.for_each_concurrent(DIALS_AT_ONCE, |node| self.reach(node)).await;
    }

    /// A session that asks the named holders first; returns when one of them is connected, or none can be.
    pub(crate) async fn fetcher(self: &Arc<Self>, source: &Source) -> Fetcher {
        let session = self.bitswap.session();
        let own = self.host.id();
        let holders: Vec<PeerId> = source.holders.iter().filter(|holder| **holder != own).take(HOLDERS_MOST).copied().collect();
        session.add_providers(&holders);
        let mut dials: FuturesUnordered<_> = holders
            .iter()
            .filter(|holder| !self.host.is_connected(holder))
            .map(|holder| {
                let (network, holder) = (self.clone(), *holder);
                tokio::spawn(async move { network.reach(holder).await })
            })
            .collect();
        // The other dials go on in their tasks, each until the host's deadline.
        while !holders.iter().any(|holder| self.host.is_connected(holder)) && dials.next().await.is_some() {}
        session.add_providers(&holders);
        let gateways = self.gateways.clone().filter(|_| !source.without_http);
        Fetcher::new(session, self.activity.clone(), self.finder.clone(), gateways)
    }

    async fn reach(&self, node: PeerId) {
        let addresses = self.known.lock().get(&node).cloned().unwrap_or_default();
        if let Err(error) = self.host.connect(node, &addresses).await {
            tracing::debug!(%node, %error, "a node cannot be reached");
        }
    }

    fn remember(&self, node: PeerId, addresses: &[String]) {
        let mut known = self.known.lock();
        let mut addresses = addresses.to_vec();
        addresses.truncate(ADDRESSES_EACH);
        known.insert(node, addresses);
        if known.len() > NODES_KNOWN {
            known.pop_first();
        }
    }
}

/// What others may have of this node: everything.
struct Served(Arc<Shared>);

#[async_trait]
impl BlockSource for Served {
    async fn get(&self, cid: &Cid) -> Option<Bytes> {
        let (shared, cid) = (self.0.clone(), *cid);
        on_disk(move || {
            shared.read(&cid).unwrap_or_else(|error| {
                tracing::warn!(%cid, %error, "a block that another node asked for cannot be read");
                None
            })
        })
        .await
    }

    async fn size(&self, cid: &Cid) -> Option<u64> {
        let (shared, cid) = (self.0.clone(), *cid);
        on_disk(move || shared.packs.size(&cid.hash().to_bytes()).ok().flatten()).await
    }
}

/// The node that an address ends with.
fn node_of(address: &str) -> Option<PeerId> {
    let (_, id) = address.rsplit_once("/p2p/")?;
    id.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_its_node_at_the_end() {
        let id = PeerId::from_ed25519(&[7; 32]);
        assert_eq!(node_of(&format!("/ip4/127.0.0.1/tcp/4001/p2p/{id}")), Some(id));
        assert_eq!(node_of(&format!("/ip4/1.2.3.4/tcp/1/p2p/{}/p2p-circuit/p2p/{id}", PeerId::from_ed25519(&[8; 32]))), Some(id));
        for address in ["/ip4/127.0.0.1/tcp/4001", "/p2p/", "/p2p/x/tcp/1", ""] {
            assert_eq!(node_of(address), None, "{address}");
        }
    }
}
