//! The routing of a node: its DHTs, for searches, records of names and telling what is here; and servers over HTTP that its user named.

use crate::delegated::{Delegated, Found};
use crate::gateways::Gateways;
use crate::providing::{Providing, Strategy};
use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};
use ipfs::routing::{ContentRouting, HttpSources, NodeRouting, Provided, Provider, RoutingStatus};
use ipfs::values::{RoutingError, ValueRouting};
use net::Host;
use net::http::{HttpClient, Url};
use net::kad::{Contact, Dht, DhtOptions, Mode, Scope};
use parking_lot::Mutex;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use types::{Cid, PeerId};

/// Providers of one content that a search brings from each DHT.
const FOUND_MOST: usize = 32;
/// Routers over HTTP are asked when the DHT has had so long: what peers know costs nobody's server anything.
const DHT_FIRST: Duration = Duration::from_secs(1);

/// How a node takes part in routing.
#[derive(Clone, Debug)]
pub struct RoutingOptions {
    /// Whether it answers others in the DHT; none: it takes no part in it.
    pub mode: Option<Mode>,
    /// Peers to begin with: multiaddrs with `/p2p/`.
    pub bootstrap: Vec<String>,
    /// Which blocks are told.
    pub strategy: Strategy,
    /// Servers over HTTP.
    pub http: Option<HttpRouting>,
}

/// Servers over HTTP that are asked.
#[derive(Clone, Debug)]
pub struct HttpRouting {
    /// By this client.
    pub client: HttpClient,
    /// Delegated routers: who has content.
    pub routers: Vec<Url>,
    /// Trustless gateways: blocks.
    pub gateways: Vec<Url>,
    /// Whether gateways that routers name are asked too.
    pub found: Found,
}

/// The routing of a node; it ends with its host.
pub struct Routing {
    dhts: Arc<Dhts>,
    routers: Vec<Arc<Delegated>>,
    pub(crate) gateways: Option<Arc<Gateways>>,
    pub(crate) strategy: Strategy,
    /// None until the node is open.
    providing: Mutex<Vec<Arc<Providing>>>,
}

/// The DHTs, of the local net and of the world; none where the node takes no part.
struct Dhts(Vec<Dht>);

impl Routing {
    /// Takes part from now on. To be called before the host dials.
    pub fn start(host: &Host, options: RoutingOptions) -> Result<Arc<Routing>, net::OpenError> {
        let RoutingOptions { mode, bootstrap, strategy, http } = options;
        let start = |mode, scope| Dht::start(host, DhtOptions { mode, bootstrap: bootstrap.clone(), ..DhtOptions::new(scope) });
        let dhts = match mode {
            Some(mode) => vec![start(mode, Scope::Lan)?, start(mode, Scope::Wan)?],
            None => Vec::new(),
        };
        let (mut routers, mut gateways) = (Vec::new(), None);
        if let Some(HttpRouting { client, routers: named, gateways: urls, found }) = http {
            let asked = Gateways::new(client.clone(), urls, found != Found::No);
            routers = named.into_iter().map(|url| Delegated::new(client.clone(), url, asked.clone(), found)).collect();
            gateways = Some(asked);
        }
        Ok(Arc::new(Routing { dhts: Arc::new(Dhts(dhts)), routers, gateways, strategy, providing: Mutex::default() }))
    }

    pub(crate) fn dhts(&self) -> &[Dht] {
        &self.dhts.0
    }

    pub(crate) fn set_providing(&self, providing: Vec<Arc<Providing>>) {
        *self.providing.lock() = providing;
    }

    /// Whether anybody could say who has content.
    pub(crate) fn can_search(&self) -> bool {
        !self.dhts.0.is_empty() || !self.routers.is_empty()
    }

    /// What is asked in a search: how many peers of it are known, which routers are put aside.
    pub(crate) fn describe(&self) -> String {
        let known: usize = self.dhts.0.iter().map(|dht| dht.status().peers).sum();
        let dht = (!self.dhts.0.is_empty()).then(|| format!("the DHT ({known} peers known)"));
        dht.into_iter().chain(self.routers.iter().map(|router| router.describe())).collect::<Vec<_>>().join(" and ")
    }

    /// Where records of names are asked for: the DHTs as one, and each router.
    pub fn values(self: &Arc<Self>) -> Vec<Arc<dyn ValueRouting>> {
        let dht = (!self.dhts.0.is_empty()).then(|| self.dhts.clone() as Arc<dyn ValueRouting>);
        dht.into_iter().chain(self.routers.iter().map(|router| router.clone() as Arc<dyn ValueRouting>)).collect()
    }

    fn knows_peers(&self) -> bool {
        self.dhts.0.iter().any(|dht| dht.status().peers > 0)
    }
}

fn provider(contact: Contact) -> Provider {
    Provider { node: contact.peer, addresses: contact.addresses }
}

#[async_trait]
impl ContentRouting for Dhts {
    fn label(&self) -> String {
        "the DHT".to_owned()
    }

    fn find_providers(&self, cid: &Cid) -> BoxStream<'static, Provider> {
        let key = cid.hash().to_bytes();
        let searches = self.0.iter().map(|dht| {
            let search = dht.find_providers(&key, FOUND_MOST);
            stream::unfold(search, |mut search| async move { search.found.recv().await.map(|found| (found, search)) }).boxed()
        });
        let mut told = HashSet::new();
        let found = stream::select_all(searches.collect::<Vec<_>>());
        found.filter_map(move |contact| std::future::ready(told.insert(contact.peer).then(|| provider(contact)))).boxed()
    }

    async fn find_peer(&self, node: &PeerId) -> Result<Option<Provider>, RoutingError> {
        let searches = self.0.iter().map(|dht| Box::pin(dht.find_peer(*node)));
        let found: Vec<Contact> = futures::future::join_all(searches).await.into_iter().flatten().collect();
        let joined = found.into_iter().reduce(|mut one, other| {
            one.addresses.extend(other.addresses);
            one
        });
        Ok(joined.map(provider))
    }
}

/// The DHT, then routers over HTTP.
#[async_trait]
impl ContentRouting for Routing {
    fn label(&self) -> String {
        let dht = (!self.dhts.0.is_empty()).then(|| ContentRouting::label(&*self.dhts));
        dht.into_iter().chain(self.routers.iter().map(|router| ValueRouting::label(&**router))).collect::<Vec<_>>().join(", ")
    }

    fn find_providers(&self, cid: &Cid) -> BoxStream<'static, Provider> {
        let head_start = if self.knows_peers() { DHT_FIRST } else { Duration::ZERO };
        let routers = self.routers.iter().map(|router| {
            let (router, cid) = (router.clone(), *cid);
            let waited = stream::once(tokio::time::sleep(head_start));
            waited.flat_map(move |()| router.providers(&cid)).boxed()
        });
        let searches: Vec<_> = std::iter::once(self.dhts.find_providers(cid)).chain(routers).collect();
        let mut told = HashSet::new();
        let is_news = move |provider: &Provider| std::future::ready(told.insert(provider.node));
        stream::select_all(searches).filter(is_news).boxed()
    }

    async fn find_peer(&self, node: &PeerId) -> Result<Option<Provider>, RoutingError> {
        if let Some(found) = self.dhts.find_peer(node).await? {
            return Ok(Some(found));
        }
        let mut failed = None;
        for router in &self.routers {
            match router.peer(node).await {
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) => {}
                Err(error) => failed = Some(RoutingError(format!("router {}: {error}", ValueRouting::label(&**router)))),
            }
        }
        failed.filter(|_| self.dhts.0.is_empty()).map_or(Ok(None), Err)
    }
}

#[async_trait]
impl NodeRouting for Routing {
    async fn provide(&self, cids: &[Cid]) -> Result<Provided, RoutingError> {
        if self.dhts.0.is_empty() {
            let why = "servers over HTTP are only asked: telling others needs the DHT (bootstrap, mode under [routing] in pinfold.toml)";
            return Err(RoutingError(why.to_owned()));
        }
        let keys: Vec<Vec<u8>> = cids.iter().map(|cid| cid.hash().to_bytes()).collect();
        let mut sum = Provided::default();
        let mut taken = false;
        for dht in self.dhts.0.iter().filter(|dht| dht.status().peers > 0 && dht.status().is_reachable) {
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
        self.dhts.0.iter().map(row).collect()
    }
    fn among_peers(&self) -> Arc<dyn ContentRouting> {
        self.dhts.clone()
    }

    fn over_http(&self) -> HttpSources {
        HttpSources {
            routers: self.routers.iter().map(|router| router.row()).collect(),
            gateways: self.gateways.as_ref().map(|gateways| gateways.rows()).unwrap_or_default(),
        }
    }
}

/// Records of names in the DHTs: whoever of them has the better one counts, and both are told.
#[async_trait]
impl ValueRouting for Dhts {
    fn label(&self) -> String {
        ContentRouting::label(self)
    }

    async fn get_value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, RoutingError> {
        let searches = self.0.iter().map(|dht| Box::pin(dht.get_value(key)));
        let (found, asked): (Vec<Option<Vec<u8>>>, Vec<usize>) = futures::future::join_all(searches).await.into_iter().unzip();
        let best = net::kad::best_record(key, found.into_iter().flatten());
        if best.is_none() && asked.iter().sum::<usize>() == 0 {
            return Err(RoutingError("no peer of it answered".to_owned()));
        }
        Ok(best)
    }

    async fn put_value(&self, key: &[u8], value: &[u8]) -> Result<(), RoutingError> {
        let puts = self.0.iter().map(|dht| Box::pin(dht.put_value(key, value)));
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
