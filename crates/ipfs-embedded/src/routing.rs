//! The routing of a node: its DHTs, for searches, records of names and telling what is here.

use crate::providing::{Providing, Strategy};
use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};
use ipfs::routing::{ContentRouting, NodeRouting, Provided, Provider, RoutingStatus};
use ipfs::values::{RoutingError, ValueRouting};
use net::Host;
use net::kad::{Contact, Dht, DhtOptions, Mode, Scope};
use parking_lot::Mutex;
use std::collections::HashSet;
use std::sync::Arc;
use types::{Cid, PeerId};

/// Providers of one content that a search brings from each DHT.
const FOUND_MOST: usize = 32;

/// How a node takes part in routing.
#[derive(Clone, Debug)]
pub struct RoutingOptions {
    /// Whether it answers others.
    pub mode: Mode,
    /// Peers to begin with: multiaddrs with `/p2p/`.
    pub bootstrap: Vec<String>,
    /// Which blocks are told.
    pub strategy: Strategy,
}

/// The routing of a node; it ends with its host.
pub struct Routing {
    dhts: Vec<Dht>,
    pub(crate) strategy: Strategy,
    /// None until the node is open.
    providing: Mutex<Vec<Arc<Providing>>>,
}

impl Routing {
    /// Takes part from now on. To be called before the host dials.
    pub fn start(host: &Host, options: RoutingOptions) -> Result<Arc<Routing>, net::OpenError> {
        let start = |scope| {
            let bootstrap = options.bootstrap.clone();
            Dht::start(host, DhtOptions { mode: options.mode, bootstrap, ..DhtOptions::new(scope) })
        };
        let dhts = vec![start(Scope::Lan)?, start(Scope::Wan)?];
        Ok(Arc::new(Routing { dhts, strategy: options.strategy, providing: Mutex::default() }))
    }

    pub(crate) fn dhts(&self) -> &[Dht] {
        &self.dhts
    }

    pub(crate) fn set_providing(&self, providing: Vec<Arc<Providing>>) {
        *self.providing.lock() = providing;
    }

    /// What is asked in a search, and how many peers of it are known.
    pub(crate) fn describe(&self) -> String {
        let known: usize = self.dhts.iter().map(|dht| dht.status().peers).sum();
        format!("the DHT ({known} peers known)")
    }
}

fn provider(contact: Contact) -> Provider {
    Provider { node: contact.peer, addresses: contact.addresses }
}

#[async_trait]
impl ContentRouting for Routing {
    fn label(&self) -> String {
        "the DHT".to_owned()
    }

    fn find_providers(&self, cid: &Cid) -> BoxStream<'static, Provider> {
        let key = cid.hash().to_bytes();
        let searches = self.dhts.iter().map(|dht| {
            let search = dht.find_providers(&key, FOUND_MOST);
            stream::unfold(search, |mut search| async move { search.found.recv().await.map(|found| (found, search)) }).boxed()
        });
        let mut told = HashSet::new();
        let found = stream::select_all(searches.collect::<Vec<_>>());
        found.filter_map(move |contact| std::future::ready(told.insert(contact.peer).then(|| provider(contact)))).boxed()
    }

    async fn find_peer(&self, node: &PeerId) -> Result<Option<Provider>, RoutingError> {
        let searches = self.dhts.iter().map(|dht| Box::pin(dht.find_peer(*node)));
        let found: Vec<Contact> = futures::future::join_all(searches).await.into_iter().flatten().collect();
        let joined = found.into_iter().reduce(|mut one, other| {
            one.addresses.extend(other.addresses);
            one
        });
        Ok(joined.map(provider))
    }
}

#[async_trait]
impl NodeRouting for Routing {
    async fn provide(&self, cids: &[Cid]) -> Result<Provided, RoutingError> {
        let keys: Vec<Vec<u8>> = cids.iter().map(|cid| cid.hash().to_bytes()).collect();
        let mut sum = Provided::default();
        let mut taken = false;
        for dht in self.dhts.iter().filter(|dht| dht.status().peers > 0 && dht.status().is_reachable) {
            let told = crate::providing::tell(dht, keys.clone()).await;
            sum.records += told.records;
            // A key counts once, however many DHTs took it.
            sum.keys = sum.keys.max(told.keys);
            taken = true;
        }
        if !taken {
            let why = "telling the DHT: no peer of it is known yet, or none could reach this node; `pinfold routing status` says more";
            return Err(RoutingError(why.to_owned()));
        }
        sum.failed = keys.len() as u64 - sum.keys;
        Ok(sum)
    }

    fn status(&self) -> Vec<RoutingStatus> {
        let providing = self.providing.lock();
        let row = |dht: &Dht| {
            let status = dht.status();
            let telling = providing.iter().find(|providing| providing.scope() == status.scope);
            RoutingStatus {
                scope: status.scope.label(),
                is_server: status.is_server,
                is_reachable: status.is_reachable,
                peers: status.peers as u64,
                records_kept: status.providers as u64,
                values_kept: status.values as u64,
                ..telling.map(|telling| telling.status()).unwrap_or_default()
            }
        };
        self.dhts.iter().map(row).collect()
    }
}

/// Records of names in the DHTs: whoever of them has the better one counts, and both are told.
#[async_trait]
impl ValueRouting for Routing {
    fn label(&self) -> String {
        ContentRouting::label(self)
    }

    async fn get_value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, RoutingError> {
        let searches = self.dhts.iter().map(|dht| Box::pin(dht.get_value(key)));
        let (found, asked): (Vec<Option<Vec<u8>>>, Vec<usize>) = futures::future::join_all(searches).await.into_iter().unzip();
        let best = net::kad::best_record(key, found.into_iter().flatten());
        if best.is_none() && asked.iter().sum::<usize>() == 0 {
            return Err(RoutingError("no peer of it answered".to_owned()));
        }
        Ok(best)
    }

    async fn put_value(&self, key: &[u8], value: &[u8]) -> Result<(), RoutingError> {
        let puts = self.dhts.iter().map(|dht| Box::pin(dht.put_value(key, value)));
        let (mut taken, mut asked) = (0, 0);
        for put in futures::future::join_all(puts).await {
            let (took, of) = put.map_err(RoutingError)?;
            (taken, asked) = (taken + took, asked + of);
        }
        match (taken, asked) {
            (0, 0) => Err(RoutingError("no peer of it is known; the record is told again when it is renewed".to_owned())),
            (0, asked) => Err(RoutingError(format!("none of the {asked} nearest peers took the record"))),
            _ => Ok(()),
        }
    }
}
