//! The daemon as others see it.

use crate::blocks::{Add, LOCAL};
use crate::front::{self, Front};
use crate::intents::Intents;
use crate::listing::{ADDING, Listing, on_disk};
use crate::pinning::{Turn, Turns, pin_error};
use crate::rpc::{Call, Endpoint, Rpc, RpcError};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::StreamExt;
use ipfs::held::{HeldError, HeldPins};
use ipfs::{Block, BlockError, Blocks, HeldPin, NodeInfo, PinError, PinTask, Pinned, Pins, Progress, PutError, Source, Space};
use net::{BitswapLimits, Host, LaneGate};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use store::{Store, StoreError};
use types::{ByteCount, Cid, Owner, PeerId, UnixMillis};

/// Nodes whose addresses are remembered; beyond, those with the lowest ids are forgotten.
const NODES_KNOWN: usize = 4096;
/// Addresses remembered of one node.
const ADDRESSES_EACH: usize = 16;
/// The daemon dials so many at once for us.
const DIALS_AT_ONCE: usize = 8;
/// One dial of the daemon.
const DIAL: Duration = Duration::from_secs(15);
/// The daemon's numbers are asked for at most so often.
const SPACE_AGE: Duration = Duration::from_secs(2);
/// Between two looks for adds that were abandoned.
const SWEEP: Duration = Duration::from_secs(60);

/// How a daemon is driven.
#[derive(Clone)]
pub struct KuboOptions {
    /// How long an absent daemon is waited for at the start.
    pub start: Duration,
    /// A pin that gets no block for so long fails and names what is missing.
    pub pin_stall: Duration,
    /// A block that a reader waits for.
    pub get_patience: Duration,
    /// The daemon's pins are listed again after so long.
    pub list_age: Duration,
    /// The cluster may use no more of it than this, whatever the daemon's own limit is.
    pub limit: Option<ByteCount>,
    /// Who may send blocks over lanes; without it nobody may.
    pub lanes: Option<LaneGate>,
    /// Bounds of the bitswap before the daemon.
    pub bitswap: BitswapLimits,
    /// Wall time, for the age of pins.
    pub clock: Arc<dyn Fn() -> UnixMillis + Send + Sync>,
}

impl Default for KuboOptions {
    fn default() -> KuboOptions {
        KuboOptions {
            start: Duration::from_secs(30),
            pin_stall: Duration::from_secs(60),
            get_patience: Duration::from_secs(30),
            list_age: Duration::from_secs(20),
            limit: None,
            lanes: None,
            bitswap: BitswapLimits::default(),
            clock: Arc::new(|| UnixMillis(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64))),
        }
    }
}

/// Why the daemon was no help.
#[derive(Debug, thiserror::Error)]
pub enum KuboError {
    /// The call failed.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// The ledger failed.
    #[error("the ledger of pins: {0}")]
    Ledger(#[from] HeldError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The network before the daemon failed.
    #[error("the network before Kubo: {0}")]
    Network(String),
    /// Something else.
    #[error("{0}")]
    Other(String),
}

/// A Kubo daemon.
pub struct KuboNode {
    inner: Arc<Inner>,
    front: Option<Front>,
    sweeper: tokio::task::AbortHandle,
}

pub(crate) struct Inner {
    pub(crate) rpc: Rpc,
    pub(crate) held: Arc<HeldPins>,
    pub(crate) intents: Intents,
    pub(crate) listing: Listing,
    pub(crate) turns: Turns,
    pub(crate) adds: Mutex<BTreeMap<u64, Add>>,
    pub(crate) options: KuboOptions,
    id: PeerId,
    known: Mutex<BTreeMap<PeerId, Vec<String>>>,
    space: Mutex<Option<(Instant, Space)>>,
}

impl KuboNode {
    /// Takes the daemon at `endpoint`; its ledger is in `store`. With a host, members send their blocks to and fetch from that host.
    /// Waits for a daemon that is still starting, and settles what an earlier process left half-way.
    pub async fn open(
        endpoint: Endpoint,
        store: Arc<dyn Store>,
        host: Option<Host>,
        options: KuboOptions,
    ) -> Result<Arc<KuboNode>, KuboError> {
        let rpc = Rpc::new(endpoint);
        let id = wait_for(&rpc, options.start).await?;
        let id = id.id.parse().map_err(|error| KuboError::Other(format!("Kubo's id {:?}: {error}", id.id)))?;
        let inner = Arc::new(Inner {
            rpc,
            held: Arc::new(HeldPins::new(store.clone())),
            intents: Intents::new(store.clone()),
            listing: Listing::new(store),
            turns: Turns::default(),
            adds: Mutex::default(),
            options,
            id,
            known: Mutex::default(),
            space: Mutex::default(),
        });
        inner.settle_all().await?;
        let front = host.map(|host| front::start(host, inner.clone())).transpose()?;
        let sweeper = tokio::spawn(sweep(Arc::downgrade(&inner))).abort_handle();
        Ok(Arc::new(KuboNode { inner, front, sweeper }))
    }

    /// The daemon's own peer id.
    pub fn daemon(&self) -> PeerId {
        self.inner.id
    }
}

impl Drop for KuboNode {
    fn drop(&mut self) {
        self.sweeper.abort();
    }
}

/// Asks who is there until somebody answers.
async fn wait_for(rpc: &Rpc, patience: Duration) -> Result<wire::kubo::NodeId, KuboError> {
    let begun = Instant::now();
    loop {
        match rpc.call(Call::new("id"), LOCAL).await {
            Ok(body) => return Ok(wire::kubo::node_id(&body).map_err(RpcError::from)?),
            Err(RpcError::Unreachable { authority, reason }) if begun.elapsed() >= patience => {
                let reason = format!("{reason}; start `ipfs daemon` there, or name another with --node kubo=URL");
                return Err(RpcError::Unreachable { authority, reason }.into());
            }
            Err(RpcError::Unreachable { .. }) => tokio::time::sleep(Duration::from_millis(500)).await,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Ends adds whose senders have gone.
async fn sweep(inner: std::sync::Weak<Inner>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(inner) = inner.upgrade() else { return };
        for number in inner.abandoned() {
            if let Err(error) = inner.release_add(number).await {
                tracing::warn!(%error, "blocks of an abandoned add stay pinned at Kubo until the next start");
            }
        }
    }
}

impl Inner {
    /// What an earlier process began: pins that the ledger does not name go, and so does the protection of its adds.
    async fn settle_all(self: &Arc<Self>) -> Result<(), KuboError> {
        let inner = self.clone();
        for cid in on_disk(move || inner.intents.left()).await? {
            let _turn = Turn::take(self, cid).await;
            let inner = self.clone();
            if on_disk(move || -> Result<_, KuboError> { Ok(inner.held.get(&cid)?) }).await?.is_none() {
                self.remove(&cid).await?;
            }
            self.settle(cid).await?;
        }
        let mut lines = self.rpc.lines(Call::new("pin/ls").with("stream", true).with("type", "direct").with("names", true), LOCAL).await?;
        let mut left = Vec::new();
        while let Some(line) = lines.next().await? {
            let pin = wire::kubo::listed_pin(&line).map_err(RpcError::from)?;
            if pin.name == ADDING {
                left.push(pin.cid);
            }
        }
        lines.finish(&self.rpc);
        self.unpin_direct(&left).await
    }

    /// Lets the daemon connect to nodes whose addresses are known.
    pub(crate) async fn reach(&self, nodes: &[PeerId]) {
        let addresses: Vec<String> = {
            let known = self.known.lock();
            nodes.iter().filter_map(|node| known.get(node)).flatten().cloned().collect()
        };
        self.dial(&addresses).await;
    }

    async fn dial(&self, addresses: &[String]) {
        let dials = addresses.iter().map(|address| async move {
            if let Err(error) = self.rpc.call(Call::new("swarm/connect").with("arg", address), DIAL).await {
                tracing::debug!(address, %error, "Kubo cannot reach a node");
            }
        });
        futures::stream::iter(dials).for_each_concurrent(DIALS_AT_ONCE, |dial| dial).await;
    }

    /// Pins as the ledger and the last listing have them: what is only at the daemon is its user's.
    async fn page(self: &Arc<Self>, after: Option<Cid>, limit: usize) -> Result<Vec<HeldPin>, KuboError> {
        if after.is_none() {
            self.listing.refresh(&self.rpc, self.options.list_age, (self.options.clock)()).await?;
        }
        let inner = self.clone();
        let (ours, listed) = on_disk(move || -> Result<_, KuboError> {
            Ok((inner.held.list(after.as_ref(), limit)?, inner.listing.page(after.as_ref(), limit)?))
        })
        .await?;
        // Whichever of the two pages is full ends before the other: behind its end nothing is known of it.
        let end = [(ours.len(), ours.last().map(|held| held.cid)), (listed.len(), listed.last().map(|row| row.cid))]
            .into_iter()
            .filter(|(length, _)| *length >= limit)
            .filter_map(|(_, last)| last.map(|cid| cid.to_bytes()))
            .min();
        let is_known = |cid: &Cid| end.as_ref().is_none_or(|end| cid.to_bytes() <= *end);
        let begun = self.listing.begun();
        let seen: HashSet<Cid> = listed.iter().map(|row| row.cid).collect();
        let mut rows: BTreeMap<Vec<u8>, HeldPin> = BTreeMap::new();
        for row in listed.into_iter().filter(|row| is_known(&row.cid) && !self.intents.is_open(&row.cid)) {
            let size = Pinned { blocks: 0, bytes: ByteCount::ZERO };
            rows.insert(row.cid.to_bytes(), HeldPin { cid: row.cid, owners: vec![(Owner::User, row.depth, UnixMillis(0))], size });
        }
        for held in ours.into_iter().filter(|held| is_known(&held.cid)) {
            let is_younger = held.owners.iter().any(|(_, _, since)| *since >= begun);
            if seen.contains(&held.cid) || is_younger || self.kept_at_daemon(&held.cid).await?.is_some() {
                rows.insert(held.cid.to_bytes(), held);
            } else {
                tracing::warn!(cid = %held.cid, "Kubo does not keep a pin of ours any more");
                rows.remove(&held.cid.to_bytes());
            }
        }
        Ok(rows.into_values().take(limit).collect())
    }
}

#[async_trait]
impl Blocks for KuboNode {
    async fn put(&self, owner: &Owner, blocks: Vec<Block>) -> Result<(), PutError> {
        self.inner.put_blocks(add_of(owner, None), blocks).await
    }

    async fn release(&self, owner: &Owner) -> Result<(), PutError> {
        match owner {
            Owner::Adding(number) => self.inner.release_add(*number).await.map_err(|error| PutError::Storage(error.to_string())),
            _ => Ok(()),
        }
    }

    async fn get(&self, cid: &Cid, source: &Source) -> Result<Bytes, BlockError> {
        self.inner.get_block(cid, source, self.inner.options.get_patience).await
    }

    async fn has(&self, cids: &[Cid]) -> Result<Vec<bool>, BlockError> {
        self.inner.has_blocks(cids).await.map_err(|error| BlockError::Storage(error.to_string()))
    }

    async fn collect_garbage(&self) -> Result<ByteCount, BlockError> {
        self.inner.collect().await.map_err(|error| BlockError::Storage(error.to_string()))
    }
}

#[async_trait]
impl Pins for KuboNode {
    async fn pin(&self, task: PinTask, progress: Progress) -> Result<Pinned, PinError> {
        self.inner.pin_task(task, progress).await
    }

    async fn unpin(&self, owner: &Owner, cid: &Cid) -> Result<(), PinError> {
        self.inner.let_go(owner, cid).await.map_err(pin_error)
    }

    async fn pins(&self, after: Option<Cid>, limit: usize) -> Result<Vec<HeldPin>, PinError> {
        // A page of which everything has gone meanwhile is not the end.
        let mut after = after;
        loop {
            let page = self.inner.page(after, limit).await.map_err(pin_error)?;
            if !page.is_empty() || limit == 0 {
                return Ok(page);
            }
            let (inner, behind) = (self.inner.clone(), after);
            let next = on_disk(move || -> Result<_, KuboError> {
                let ours = inner.held.list(behind.as_ref(), limit)?.pop().map(|held| held.cid);
                let listed = inner.listing.page(behind.as_ref(), limit)?.pop().map(|row| row.cid);
                Ok([ours, listed].into_iter().flatten().min_by_key(Cid::to_bytes))
            });
            match next.await.map_err(pin_error)? {
                Some(cid) => after = Some(cid),
                None => return Ok(Vec::new()),
            }
        }
    }

    async fn pin_of(&self, cid: &Cid) -> Result<Option<HeldPin>, PinError> {
        let (inner, named) = (self.inner.clone(), *cid);
        let held = on_disk(move || -> Result<_, KuboError> { Ok(inner.held.get(&named)?) }).await.map_err(pin_error)?;
        if held.is_some() || self.inner.intents.is_open(cid) {
            return Ok(held);
        }
        let size = Pinned { blocks: 0, bytes: ByteCount::ZERO };
        let depth = self.inner.kept_at_daemon(cid).await.map_err(pin_error)?;
        Ok(depth.map(|depth| HeldPin { cid: *cid, owners: vec![(Owner::User, depth, UnixMillis(0))], size }))
    }

    async fn name_of(&self, cid: &Cid) -> Option<String> {
        let (inner, named) = (self.inner.clone(), *cid);
        let row = on_disk(move || inner.listing.get(&named)).await.ok().flatten();
        row.map(|row| row.name).filter(|name| !name.is_empty())
    }
}

#[async_trait]
impl NodeInfo for KuboNode {
    /// Of the host before the daemon, where there is one: that is where members send to and fetch from.
    fn id(&self) -> Option<PeerId> {
        Some(self.front.as_ref().map_or(self.inner.id, |front| front.host.id()))
    }

    async fn addresses(&self) -> Vec<String> {
        match &self.front {
            Some(front) => front.host.addresses(),
            None => match self.inner.rpc.call(Call::new("id"), LOCAL).await {
                Ok(body) => wire::kubo::node_id(&body).map_or_else(|_| Vec::new(), |id| id.addresses),
                Err(_) => Vec::new(),
            },
        }
    }

    async fn space(&self) -> Result<Space, BlockError> {
        if let Some((at, space)) = *self.inner.space.lock()
            && at.elapsed() < SPACE_AGE
        {
            return Ok(space);
        }
        let stat = self.inner.stat().await.map_err(|error| BlockError::Storage(error.to_string()))?;
        let limit = self.inner.options.limit.map_or(stat.limit, |limit| limit.min(stat.limit));
        let space = Space { limit, used: stat.used, upkeep: ByteCount::ZERO, blocks: 0, is_exact: false };
        *self.inner.space.lock() = Some((Instant::now(), space));
        Ok(space)
    }

    async fn connect(&self, addresses: &[String]) {
        let mut nodes: BTreeMap<PeerId, Vec<String>> = BTreeMap::new();
        let own = self.id();
        for address in addresses {
            let node = address.rsplit_once("/p2p/").and_then(|(_, id)| id.parse::<PeerId>().ok());
            if let Some(node) = node.filter(|node| *node != self.inner.id && Some(*node) != own) {
                nodes.entry(node).or_default().push(address.clone());
            }
        }
        for (node, addresses) in nodes {
            let addresses: Vec<String> = addresses.into_iter().take(ADDRESSES_EACH).collect();
            self.inner.dial(&addresses).await;
            let mut known = self.inner.known.lock();
            known.insert(node, addresses);
            if known.len() > NODES_KNOWN {
                known.pop_first();
            }
        }
    }

    fn collects_itself(&self) -> bool {
        true
    }

    async fn files_root(&self) -> Option<Cid> {
        let body = self.inner.rpc.call(Call::new("files/stat").with("arg", "/"), LOCAL).await.ok()?;
        wire::kubo::files_root(&body).ok()
    }
}

/// The add that an owner is, and how long it may be silent.
pub(crate) fn add_of(owner: &Owner, idle: Option<Duration>) -> Option<(u64, Option<Duration>)> {
    match owner {
        Owner::Adding(number) => Some((*number, idle)),
        _ => None,
    }
}
