//! The node among other nodes: serving its blocks over bitswap, fetching from holders, remembering where they are.

use crate::finding::Finder;
use crate::shared::{Shared, on_disk};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt};
use ipfs::BlockError;
use net::Host;
use net::bitswap::{Bitswap, BitswapLimits, BlockSource, FetchError, Session};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
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
}

impl Network {
    pub(crate) fn start(host: Host, shared: Arc<Shared>, limits: BitswapLimits, finder: Option<Arc<Finder>>) -> Network {
        let bitswap = Bitswap::start(host.clone(), Arc::new(Served(shared)), limits);
        Network { host, bitswap, known: Mutex::default(), finder }
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

    /// A session that asks `holders` first; returns when one of them is connected, or none can be.
    pub(crate) async fn fetcher(self: &Arc<Self>, holders: &[PeerId]) -> Fetcher {
        let session = self.bitswap.session();
        let own = self.host.id();
        let holders: Vec<PeerId> = holders.iter().filter(|holder| **holder != own).take(HOLDERS_MOST).copied().collect();
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
        Fetcher { session, finder: self.finder.clone(), misses: Arc::default() }
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

/// Searches in vain after which a session searches no more: what it wants is nowhere, and thousands of blocks may be missing.
const MISSES_MOST: usize = 16;

/// One session of fetching: named holders, then whoever is connected, then those that routing finds.
#[derive(Clone)]
pub(crate) struct Fetcher {
    session: Session,
    finder: Option<Arc<Finder>>,
    misses: Arc<AtomicUsize>,
}

impl Fetcher {
    /// The block, proven by its hash.
    pub(crate) fn fetch(&self, cid: Cid) -> impl Future<Output = Result<Bytes, BlockError>> + Send + use<> {
        let Fetcher { session, finder, misses } = self.clone();
        async move {
            let failed = match session.fetch(cid).await {
                Ok(data) => return Ok(data),
                Err(error) => error,
            };
            let asked = match &failed {
                FetchError::NotFound { asked } => u32::try_from(*asked).unwrap_or(u32::MAX),
                FetchError::Timeout => 1,
                FetchError::Unprovable(_) | FetchError::Stopped => return Err(BlockError::NotFound { cid, asked: 0 }),
            };
            let Some(finder) = finder else { return Err(BlockError::NotFound { cid, asked }) };
            if misses.load(Ordering::Relaxed) >= MISSES_MOST {
                let routing = format!("and searched for none of it after {MISSES_MOST} other blocks were found nowhere");
                return Err(BlockError::NoProvider { cid, asked, routing });
            }
            match finder.find(&cid).await {
                Ok(providers) => {
                    session.add_providers(&providers);
                    let named = providers.len();
                    session.fetch(cid).await.map_err(|error| {
                        let routing = format!("and {named} that the DHT named, which did not give it ({error})");
                        BlockError::NoProvider { cid, asked, routing }
                    })
                }
                Err(routing) => {
                    misses.fetch_add(1, Ordering::Relaxed);
                    Err(BlockError::NoProvider { cid, asked, routing })
                }
            }
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
