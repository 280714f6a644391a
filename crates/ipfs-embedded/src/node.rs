//! The node as others see it.

use crate::OpenError;
use crate::collect::CollectError;
use crate::error::chain;
use crate::finding::Finder;
use crate::network::Network;
use crate::pinning::{PinBounds, Pinning};
use crate::providing::Providing;
use crate::receive::Lanes;
use crate::routing::Routing;
use crate::safety::Safety;
use crate::shared::{Shared, on_disk, verified};
use async_trait::async_trait;
use bytes::Bytes;
use ipfs::held::HeldPins;
use ipfs::{
    Block, BlockError, Blocks, BrokenPin, CheckedBlocks, CheckedPins, HeldPin, NodeInfo, PinError, PinTask, Pinned, Pins, Progress,
    PutError, Source, Space,
};
use net::bitswap::{Bitswap, BitswapLimits};
use net::blockstream::ABANDONED;
use net::{Admission, Host, LaneGate, LaneHeader};
use parking_lot::{Mutex, RwLock};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use store::{PackStore, Store};
use types::{ByteCount, Cid, Depth, Owner, PeerId, UnixMillis};

/// Damaged blocks that one collection fetches again before it gives up.
const REPAIRS_PER_COLLECTION: usize = 16;

/// How a node behaves.
#[derive(Clone)]
pub struct EmbeddedOptions {
    /// Blocks that one pin fetches at once.
    pub pin_window: usize,
    /// A pin that gets no block for so long fails and names what is missing.
    pub pin_stall: Duration,
    /// Whether blocks fetched for a reader are kept (as garbage, until the next collection).
    pub keep_fetched: bool,
    /// Who may send blocks over lanes; without it nobody may. See [`EmbeddedNode::allow_lanes`].
    pub lanes: Option<LaneGate>,
    /// Bounds of bitswap.
    pub bitswap: BitswapLimits,
    /// Finds providers among strangers and tells them what is here; on the node's host.
    pub routing: Option<Arc<Routing>>,
    /// Wall time, for the age of pins.
    pub clock: Arc<dyn Fn() -> UnixMillis + Send + Sync>,
}

impl Default for EmbeddedOptions {
    fn default() -> EmbeddedOptions {
        EmbeddedOptions {
            pin_window: 128,
            pin_stall: Duration::from_secs(60),
            keep_fetched: false,
            lanes: None,
            bitswap: BitswapLimits::default(),
            routing: None,
            clock: Arc::new(wall_time),
        }
    }
}

/// A node on this disk and, if it has a network, among others.
pub struct EmbeddedNode {
    shared: Arc<Shared>,
    intake: Arc<Intake>,
    network: Option<Arc<Network>>,
    options: EmbeddedOptions,
    /// Whoever asks for a collection while one runs waits for its own.
    collections: tokio::sync::Mutex<()>,
}

impl EmbeddedNode {
    /// A node over `packs`, with its pins in `store`; with a host it serves and fetches blocks. To be called before the host dials.
    pub fn open(
        store: Arc<dyn Store>,
        packs: Arc<PackStore>,
        network: Option<Host>,
        options: EmbeddedOptions,
    ) -> Result<Arc<EmbeddedNode>, OpenError> {
        let shared = Arc::new(Shared {
            packs,
            held: Arc::new(HeldPins::new(store.clone())),
            safety: Safety::new(),
            clock: options.clock.clone(),
            collecting: Mutex::new(()),
        });
        let network = network.map(|host| {
            let gateways = options.routing.as_ref().and_then(|routing| routing.gateways.clone());
            let searching = options.routing.clone().filter(|routing| routing.can_search());
            let finder = searching.map(|routing| Finder::new(host.clone(), routing));
            Arc::new(Network::start(host, shared.clone(), options.bitswap, finder, gateways))
        });
        let providing = match &options.routing {
            Some(routing) => {
                let start = |dht: &net::kad::Dht| Providing::start(dht.clone(), routing.strategy, shared.clone(), store.clone());
                let providing: Vec<Arc<Providing>> = routing.dhts().iter().map(start).collect();
                routing.set_providing(providing.clone());
                providing
            }
            None => Vec::new(),
        };
        let intake = Arc::new(Intake {
            shared: shared.clone(),
            bitswap: network.as_ref().map(|network| network.bitswap.clone()),
            gate: RwLock::new(options.lanes.clone()),
            providing,
        });
        if let Some(network) = &network {
            // The task ends with the host.
            net::serve_lanes(&network.host, Arc::new(Lanes(intake.clone()))).map_err(|error| OpenError::Network(chain(&error)))?;
        }
        Ok(Arc::new(EmbeddedNode { shared, intake, network, options, collections: tokio::sync::Mutex::new(()) }))
    }

    /// Stores blocks whose CIDs the caller has computed from their data itself; durable when it returns.
    pub async fn put_verified(&self, owner: &Owner, blocks: Vec<Block>) -> Result<(), PutError> {
        self.intake.put_verified(owner, blocks, None).await
    }

    /// Decides from now on who may send blocks over lanes; without it nobody may.
    pub fn allow_lanes(&self, gate: LaneGate) {
        *self.intake.gate.write() = Some(gate);
    }

    /// The bitswap engine, if the node has a network: for its counters.
    pub fn bitswap(&self) -> Option<&Bitswap> {
        self.network.as_ref().map(|network| &network.bitswap)
    }

    /// Fetches a block that is not here, or is damaged here.
    async fn fetch(&self, cid: &Cid, source: &Source, is_damaged: bool) -> Result<Bytes, BlockError> {
        let Some(network) = self.network.as_ref().filter(|_| !source.local_only) else {
            return Err(match (is_damaged, source.local_only) {
                (true, _) => BlockError::Corrupt { cid: *cid },
                (false, true) => BlockError::NotLocal { cid: *cid },
                (false, false) => BlockError::NotFound { cid: *cid, asked: 0 },
            });
        };
        let data = network.fetcher(source).await.fetch(*cid).await?;
        if is_damaged || self.options.keep_fetched {
            self.keep(Block { cid: *cid, data: data.clone() }, is_damaged).await;
        }
        Ok(data)
    }

    /// Writes a fetched block down; the reader has it even if that fails.
    async fn keep(&self, block: Block, is_damaged: bool) {
        let (shared, cid) = (self.shared.clone(), block.cid);
        let kept =
            on_disk(move || if is_damaged { shared.replace(&block).and_then(|()| shared.sync()) } else { shared.append(&[block], false) });
        if let Err(error) = kept.await {
            tracing::warn!(%cid, %error, "a fetched block could not be kept");
        }
    }

    /// One try of a collection; it stops soon after the caller has gone.
    async fn collect_once(&self) -> Result<ByteCount, CollectError> {
        let stop = Arc::new(AtomicBool::new(false));
        let _stop_when_dropped = StopWhenDropped(stop.clone());
        let shared = self.shared.clone();
        on_disk(move || shared.collect(&stop)).await
    }
}

/// The way in: whatever blocks come, from callers or over lanes.
pub(crate) struct Intake {
    shared: Arc<Shared>,
    bitswap: Option<Bitswap>,
    gate: RwLock<Option<LaneGate>>,
    providing: Vec<Arc<Providing>>,
}

impl Intake {
    async fn put_verified(&self, owner: &Owner, blocks: Vec<Block>, idle: Option<Duration>) -> Result<(), PutError> {
        if blocks.is_empty() {
            return Ok(());
        }
        if let Owner::Adding(add) = owner {
            self.shared.safety.keep_add(*add, idle, Instant::now());
        }
        let cids = self.shared.store(blocks, matches!(owner, Owner::Adding(_))).await?;
        if let Some(bitswap) = &self.bitswap {
            bitswap.have(&cids);
        }
        self.stored(&cids, false);
        Ok(())
    }

    /// Tells others what is here.
    fn stored(&self, cids: &[Cid], is_root: bool) {
        self.providing.iter().for_each(|providing| providing.stored(cids, is_root));
    }

    /// Checks and stores what a lane brought.
    pub(crate) async fn put_foreign(&self, owner: &Owner, blocks: Vec<Block>) -> Result<(), PutError> {
        self.put_verified(owner, verified(blocks).await?, Some(ABANDONED)).await
    }

    pub(crate) fn admits(&self, from: &PeerId, header: &LaneHeader) -> Admission {
        let gate = self.gate.read().clone();
        gate.map_or(Admission::Refused, |gate| gate(from, header))
    }

    pub(crate) fn keep_open(&self, owner: &Owner) {
        if let Owner::Adding(add) = owner {
            self.shared.safety.keep_add(*add, Some(ABANDONED), Instant::now());
        }
    }

    /// What is free, and the limit.
    pub(crate) async fn room(&self) -> Result<(ByteCount, ByteCount), String> {
        let shared = self.shared.clone();
        let stats = on_disk(move || shared.packs.stats()).await.map_err(|error| chain(&error))?;
        Ok((stats.free, stats.limit))
    }
}

struct StopWhenDropped(Arc<AtomicBool>);

impl Drop for StopWhenDropped {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[async_trait]
impl Blocks for EmbeddedNode {
    async fn put(&self, owner: &Owner, blocks: Vec<Block>) -> Result<(), PutError> {
        self.put_verified(owner, verified(blocks).await?).await
    }

    async fn put_hashed(&self, owner: &Owner, blocks: Vec<Block>) -> Result<(), PutError> {
        self.put_verified(owner, blocks).await
    }

    async fn release(&self, owner: &Owner) -> Result<(), PutError> {
        if let Owner::Adding(add) = owner {
            self.shared.safety.release_add(*add);
        }
        Ok(())
    }

    async fn get(&self, cid: &Cid, source: &Source) -> Result<Bytes, BlockError> {
        let (shared, wanted) = (self.shared.clone(), *cid);
        match on_disk(move || shared.read(&wanted)).await {
            Ok(Some(data)) => Ok(data),
            Ok(None) => self.fetch(cid, source, false).await,
            Err(crate::error::Damage::Corrupt) => {
                tracing::warn!(%cid, "a stored block is damaged");
                self.fetch(cid, source, true).await
            }
            Err(failed) => Err(failed.of(cid)),
        }
    }

    async fn has(&self, cids: &[Cid]) -> Result<Vec<bool>, BlockError> {
        let (shared, cids) = (self.shared.clone(), cids.to_vec());
        on_disk(move || shared.has(&cids)).await.map_err(|error| BlockError::Storage(chain(&error)))
    }

    async fn check_blocks(&self, after: Option<Bytes>, budget: ByteCount) -> Result<CheckedBlocks, BlockError> {
        let shared = self.shared.clone();
        on_disk(move || shared.check_blocks(after.as_deref(), budget)).await.map_err(BlockError::Storage)
    }

    async fn restore(&self, cid: &Cid, source: &Source) -> Result<(), BlockError> {
        let data = self.get(cid, source).await?;
        let shared = self.shared.clone();
        let block = Block { cid: *cid, data };
        on_disk(move || shared.append(&[block], false).and_then(|()| shared.sync()))
            .await
            .map_err(|error| BlockError::Storage(chain(&error)))
    }

    fn has_lost_blocks(&self) -> bool {
        let recovered = self.shared.packs.recovered();
        recovered.segments_lost > 0 || recovered.bytes_damaged > 0 || recovered.blocks_lost > 0
    }

    /// When a pinned block turns out to be missing or damaged, it is fetched again first: without it nobody knows what it keeps.
    async fn collect_garbage(&self) -> Result<ByteCount, BlockError> {
        let _turn = self.collections.lock().await;
        for _ in 0..REPAIRS_PER_COLLECTION {
            match self.collect_once().await {
                Ok(freed) => return Ok(freed),
                Err(CollectError::Unreadable(cid)) => {
                    let source = Source { local_only: self.network.is_none(), ..Source::default() };
                    self.fetch(&cid, &source, true).await?;
                }
                Err(other) => return Err(BlockError::Storage(chain(&other))),
            }
        }
        Err(BlockError::Storage("collecting garbage: too many pinned blocks are damaged".to_owned()))
    }
}

#[async_trait]
impl Pins for EmbeddedNode {
    async fn check_pins(&self, after: Option<Cid>, budget: ByteCount) -> Result<CheckedPins, PinError> {
        let shared = self.shared.clone();
        on_disk(move || shared.check_pins(after, budget)).await.map_err(PinError::Storage)
    }

    async fn broken(&self, limit: usize) -> Result<Vec<BrokenPin>, PinError> {
        let held = self.shared.held.clone();
        on_disk(move || held.broken.list(limit)).await.map_err(|error| PinError::Storage(chain(&error)))
    }

    async fn pin(&self, task: PinTask, progress: Progress) -> Result<Pinned, PinError> {
        let bounds = PinBounds { window: self.options.pin_window.max(1), stall: self.options.pin_stall };
        let network = self.network.clone().filter(|_| !task.source.local_only);
        let root = task.cid;
        let pinned = Pinning::new(self.shared.clone(), task, progress, bounds, network).run().await?;
        self.intake.stored(&[root], true);
        Ok(pinned)
    }

    async fn pin_here(&self, owner: &Owner, pins: &[(Cid, Depth)]) -> Result<Vec<Option<Pinned>>, PinError> {
        let (shared, owner, pins) = (self.shared.clone(), owner.clone(), pins.to_vec());
        let roots: Vec<Cid> = pins.iter().map(|(cid, _)| *cid).collect();
        let kept = on_disk(move || shared.pin_here(&owner, &pins)).await?;
        let kept_roots: Vec<Cid> = roots.into_iter().zip(&kept).filter(|(_, kept)| kept.is_some()).map(|(cid, _)| cid).collect();
        self.intake.stored(&kept_roots, true);
        Ok(kept)
    }

    async fn unpin(&self, owner: &Owner, cid: &Cid) -> Result<(), PinError> {
        let (held, owner, cid) = (self.shared.held.clone(), owner.clone(), *cid);
        on_disk(move || held.let_go(&owner, &cid)).await.map_err(|error| PinError::Storage(chain(&error)))
    }

    async fn pins(&self, after: Option<Cid>, limit: usize) -> Result<Vec<HeldPin>, PinError> {
        let held = self.shared.held.clone();
        on_disk(move || held.list(after.as_ref(), limit)).await.map_err(|error| PinError::Storage(chain(&error)))
    }

    async fn pin_of(&self, cid: &Cid) -> Result<Option<HeldPin>, PinError> {
        let (held, cid) = (self.shared.held.clone(), *cid);
        on_disk(move || held.get(&cid)).await.map_err(|error| PinError::Storage(chain(&error)))
    }
}

#[async_trait]
impl NodeInfo for EmbeddedNode {
    fn id(&self) -> Option<PeerId> {
        self.network.as_ref().map(|network| network.host.id())
    }

    async fn addresses(&self) -> Vec<String> {
        self.network.as_ref().map_or_else(Vec::new, |network| network.host.addresses())
    }

    async fn space(&self) -> Result<Space, BlockError> {
        let shared = self.shared.clone();
        let stats = on_disk(move || shared.packs.stats()).await.map_err(|error| BlockError::Storage(chain(&error)))?;
        let upkeep = stats.limit - stats.bytes_disk - stats.free;
        Ok(Space { limit: stats.limit, used: stats.bytes_disk, upkeep, blocks: stats.blocks, is_exact: true })
    }

    async fn connect(&self, addresses: &[String]) {
        if let Some(network) = &self.network {
            network.connect(addresses).await;
        }
    }
}

fn wall_time() -> UnixMillis {
    UnixMillis(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64))
}
