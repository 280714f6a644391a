//! Telling the DHT what is here, in time before it is forgotten there.
//!
//! A *round* walks once around the ring: for each region of it (`net::kad`), one search or two find all peers there, and each of them gets all
//! keys of the region that fall to it on one stream. So a round costs by the number of peers, not of keys. The rounds take 22 hours,
//! since records live 48; the first one does not wait. Where a round is lies in the store, so a restart goes on there.
//! What is stored meanwhile is told at once.
//!
//! Memory: a *slice* of the ring is loaded at a time, so that some 100,000 keys are in memory however many there are; each slice
//! costs one pass over the index.

mod keys;

use crate::shared::{Shared, on_disk};
use ipfs::routing::{ProvidePhase, Provided, RoutingStatus};
use net::kad::{Dht, Place, Scope, Told};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use store::{Area, Batch, Durability, Store};
use tokio::sync::Notify;
use types::{Cid, UnixMillis};

/// A round, as in Kubo.
const ROUND: Duration = Duration::from_secs(22 * 3600);
/// Keys of a slice, about; few in the tests, so that there are several.
const SLICE_KEYS: u64 = if cfg!(test) { 50 } else { 100_000 };
/// Keys that wait to be told for the first time; when more come, the next round begins at once and tells all.
const QUEUED_MOST: usize = 50_000;
/// Fresh pins that are walked at once.
const ROOTS_AT_ONCE: usize = 256;
/// What is stored within this time is told together.
const GATHER: Duration = Duration::from_millis(500);
/// How long to wait for peers.
const NO_PEERS: Duration = Duration::from_secs(5);
/// Keys told in one step.
const STEP_MOST: usize = 4096;

/// Which blocks are told; named as in Kubo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// All that are here.
    All,
    /// Those that pins need: what is cached, or was left by an add that failed, is not told.
    Pinned,
    /// The roots of what is pinned.
    Roots,
    /// None.
    None,
}

impl Strategy {
    /// Its name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Strategy::All => "all",
            Strategy::Pinned => "pinned",
            Strategy::Roots => "roots",
            Strategy::None => "none",
        }
    }

    /// By its name.
    pub fn of(name: &str) -> Option<Strategy> {
        [Strategy::All, Strategy::Pinned, Strategy::Roots, Strategy::None].into_iter().find(|strategy| strategy.as_str() == name)
    }
}

/// Telling one DHT.
pub(crate) struct Providing {
    dht: Dht,
    strategy: Strategy,
    shared: Arc<Shared>,
    store: Arc<dyn Store>,
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Default)]
struct State {
    round: Round,
    phase: ProvidePhase,
    ended: Option<UnixMillis>,
    told: Provided,
    searches: u64,
    queue: BTreeMap<Place, Vec<u8>>,
    /// What was pinned and is to be walked for its blocks.
    pinned: BTreeSet<Cid>,
    /// More came than can wait.
    is_over: bool,
}

/// Where a round is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Round {
    begun: UnixMillis,
    /// The first place that was not told.
    at: Option<Place>,
    /// It tells as fast as it can.
    is_hurried: bool,
}

impl Providing {
    /// Tells `dht` from now on; ends with the host.
    pub(crate) fn start(dht: Dht, strategy: Strategy, shared: Arc<Shared>, store: Arc<dyn Store>) -> Arc<Providing> {
        let providing = Arc::new(Providing { dht, strategy, shared, store, state: Mutex::default(), wake: Notify::new() });
        if strategy != Strategy::None {
            tokio::spawn(providing.clone().rounds());
            tokio::spawn(providing.clone().told_at_once());
        }
        providing
    }

    pub(crate) fn scope(&self) -> Scope {
        self.dht.scope()
    }

    /// These blocks are here; `is_root` where they are what was pinned.
    pub(crate) fn stored(&self, cids: &[Cid], is_root: bool) {
        let mut state = self.state.lock();
        match (self.strategy, is_root) {
            (Strategy::None, _) | (Strategy::Roots | Strategy::Pinned, false) => return,
            (Strategy::Pinned, true) if state.pinned.len() + cids.len() > QUEUED_MOST => state.is_over = true,
            (Strategy::Pinned, true) => state.pinned.extend(cids),
            (Strategy::All, _) | (Strategy::Roots, true) => {}
        }
        for cid in cids.iter().filter(|cid| cid.hash().code() != 0) {
            if state.queue.len() >= QUEUED_MOST {
                state.is_over = true;
                break;
            }
            let key = cid.hash().to_bytes();
            state.queue.insert(Place::of(&key), key);
        }
        drop(state);
        self.wake.notify_one();
    }

    pub(crate) fn status(&self) -> RoutingStatus {
        let state = self.state.lock();
        let at = state.round.at.map_or(1.0, |place| place.fraction());
        RoutingStatus {
            strategy: self.strategy.as_str(),
            phase: state.phase,
            passed: at,
            begun: (state.round.begun.0 > 0).then_some(state.round.begun),
            ended: state.ended,
            keys: state.told.keys,
            failed: state.told.failed,
            records: state.told.records,
            searches: state.searches,
            queued: state.queue.len() as u64,
            ..RoutingStatus::default()
        }
    }

    async fn told_at_once(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = self.wake.notified() => {}
                () = self.dht.stopped() => return,
            }
            tokio::time::sleep(GATHER).await;
            self.gather_pinned().await;
            loop {
                if !self.can_tell() {
                    self.pause(NO_PEERS).await;
                    if self.dht.is_stopped() {
                        return;
                    }
                    continue;
                }
                let keys: Vec<(Place, Vec<u8>)> = {
                    let mut state = self.state.lock();
                    std::iter::from_fn(|| state.queue.pop_first()).take(STEP_MOST).collect()
                };
                if keys.is_empty() {
                    break;
                }
                let told = Box::pin(tell_sorted(&self.dht, keys)).await;
                tracing::debug!(?told, scope = self.dht.scope().label(), "told the DHT what was stored");
            }
            let mut state = self.state.lock();
            if std::mem::take(&mut state.is_over) {
                state.round = Round { begun: self.now(), at: Some(Place([0; 32])), is_hurried: true };
            }
        }
    }

    /// Queues the blocks below what was pinned.
    async fn gather_pinned(&self) {
        loop {
            let (roots, room) = {
                let mut state = self.state.lock();
                let roots: Vec<Cid> = std::iter::from_fn(|| state.pinned.pop_first()).take(ROOTS_AT_ONCE).collect();
                (roots, QUEUED_MOST.saturating_sub(state.queue.len()))
            };
            if roots.is_empty() || self.dht.is_stopped() {
                return;
            }
            let (shared, dht) = (self.shared.clone(), self.dht.clone());
            let gathered = on_disk(move || keys::below(&shared, &roots, room, &|| dht.is_stopped())).await;
            let mut state = self.state.lock();
            match gathered {
                Ok(keys) => state.queue.extend(keys.into_iter().map(|key| (Place::of(&key), key))),
                Err(keys::BelowError::TooMany) => state.is_over = true,
                Err(keys::BelowError::Failed(error)) => {
                    tracing::warn!(error, "what was pinned cannot be read, and is told in the next round");
                }
            }
        }
    }

    /// Whether anybody would take what is told.
    fn can_tell(&self) -> bool {
        let status = self.dht.status();
        let phase = match (status.peers > 0, status.is_reachable) {
            (false, _) => Some(ProvidePhase::NoPeers),
            (_, false) => Some(ProvidePhase::Unreachable),
            _ => None,
        };
        if let Some(phase) = phase {
            self.state.lock().phase = phase;
        }
        phase.is_none()
    }

    async fn rounds(self: Arc<Self>) {
        let kept = self.load();
        self.state.lock().round = kept.unwrap_or(Round { begun: self.now(), at: Some(Place([0; 32])), is_hurried: true });
        while !self.dht.is_stopped() {
            let Some(at) = self.state.lock().round.at else {
                self.wait_for_the_next_round().await;
                continue;
            };
            if !self.can_tell() {
                self.pause(NO_PEERS).await;
                continue;
            }
            match self.slice(at).await {
                Ok((keys, last)) => self.walk(keys, last).await,
                Err(error) => {
                    tracing::warn!(error, "the blocks to be told to the DHT cannot be read");
                    self.pause(NO_PEERS).await;
                }
            }
        }
    }

    async fn wait_for_the_next_round(&self) {
        let next = UnixMillis(self.state.lock().round.begun.0 + ROUND.as_millis() as u64);
        self.state.lock().phase = ProvidePhase::Waiting;
        if self.now() >= next {
            let mut state = self.state.lock();
            state.round = Round { begun: (self.shared.clock)(), at: Some(Place([0; 32])), is_hurried: false };
            (state.told, state.searches) = (Provided::default(), 0);
            return;
        }
        self.pause(Duration::from_millis(next.0 - self.now().0)).await;
    }

    /// Sleeps, but not for long: the round may be begun anew, and the host may stop.
    async fn pause(&self, most: Duration) {
        const LONGEST: Duration = Duration::from_secs(10);
        tokio::select! {
            () = tokio::time::sleep(most.min(LONGEST)) => {}
            () = self.dht.stopped() => {}
        }
    }

    /// Tells the keys of a slice, each when its place is due.
    async fn walk(&self, keys: Vec<(Place, Vec<u8>)>, last: Place) {
        let mut rest = &keys[..];
        let round = self.state.lock().round;
        while let Some((first, key)) = rest.first() {
            let is_same = |now: Round| now.begun == round.begun && now.is_hurried == round.is_hurried;
            if self.dht.is_stopped() || !is_same(self.state.lock().round) {
                return;
            }
            let due = round.begun.0 + (ROUND.as_millis() as f64 * first.fraction()) as u64;
            if !round.is_hurried && self.now().0 < due {
                self.state.lock().phase = ProvidePhase::Waiting;
                self.pause(Duration::from_millis(due - self.now().0)).await;
                continue;
            }
            if !self.can_tell() {
                self.pause(NO_PEERS).await;
                continue;
            }
            self.state.lock().phase = ProvidePhase::Telling;
            let region = Box::pin(self.dht.region(key)).await;
            let (now, later) = rest.split_at(rest.partition_point(|(place, _)| *place <= region.last));
            let mut told = Told::default();
            for step in now.chunks(STEP_MOST) {
                let keys: Vec<Vec<u8>> = step.iter().map(|(_, key)| key.clone()).collect();
                add(&mut told, Box::pin(self.dht.tell(&region, &keys)).await);
            }
            let mut state = self.state.lock();
            count(&mut state.told, told);
            state.searches += region.searches as u64;
            rest = later;
            let passed = if later.is_empty() { last } else { region.last };
            if state.round.begun == round.begun {
                state.round.at = passed.next();
            }
            drop(state);
            self.keep();
        }
        let mut state = self.state.lock();
        if state.round.begun == round.begun {
            state.round.at = last.next();
        }
        if state.round.at.is_none() {
            state.ended = Some((self.shared.clock)());
            tracing::info!(
                scope = self.dht.scope().label(),
                keys = state.told.keys,
                searches = state.searches,
                "a round of telling the DHT has ended"
            );
        }
        drop(state);
        self.keep();
    }

    /// The keys of the slice of the ring that begins at `from`, in order, and its last place.
    async fn slice(&self, from: Place) -> Result<(Vec<(Place, Vec<u8>)>, Place), String> {
        let (shared, strategy, dht) = (self.shared.clone(), self.strategy, self.dht.clone());
        on_disk(move || {
            let stop = || dht.is_stopped();
            let total = match strategy {
                Strategy::All | Strategy::Pinned => shared.packs.stats().map_err(|error| error.to_string())?.blocks,
                _ => {
                    let mut count = 0;
                    keys::each(&shared, strategy, &stop, |_| count += 1)?;
                    count
                }
            };
            let slices = (total / SLICE_KEYS + 1).next_power_of_two();
            let (_, last) = from.range(slices.trailing_zeros() as usize);
            let mut keys = Vec::new();
            keys::each(&shared, strategy, &stop, |key| {
                let place = Place::of(key);
                if from <= place && place <= last {
                    keys.push((place, key.to_vec()));
                }
            })?;
            keys.sort_unstable();
            Ok((keys, last))
        })
        .await
    }

    fn now(&self) -> UnixMillis {
        (self.shared.clock)()
    }

    fn key(&self) -> Vec<u8> {
        format!("provided/{}/{}", self.dht.scope().label(), self.strategy.as_str()).into_bytes()
    }

    /// Where the round is: lost with a power cut it costs telling some again.
    fn keep(&self) {
        let round = self.state.lock().round;
        let mut value = round.begun.0.to_be_bytes().to_vec();
        value.push(u8::from(round.is_hurried));
        value.extend(round.at.iter().flat_map(|place| place.0));
        let mut batch = Batch::new();
        batch.put(Area::Meta, self.key(), value);
        if let Err(error) = self.store.commit(batch, Durability::Buffered) {
            tracing::warn!(%error, "where telling the DHT has come to cannot be kept");
        }
    }

    fn load(&self) -> Option<Round> {
        let value = self.store.snapshot().get(Area::Meta, &self.key()).ok()??;
        let begun = UnixMillis(u64::from_be_bytes(value.get(..8)?.try_into().ok()?));
        let is_hurried = *value.get(8)? == 1;
        let at = value.get(9..41).and_then(|bytes| Some(Place(bytes.try_into().ok()?)));
        Some(Round { begun, at, is_hurried })
    }
}

/// Tells keys region by region.
pub(crate) async fn tell(dht: &Dht, keys: Vec<Vec<u8>>) -> Provided {
    let mut sorted: Vec<(Place, Vec<u8>)> = keys.into_iter().map(|key| (Place::of(&key), key)).collect();
    sorted.sort_unstable();
    Box::pin(tell_sorted(dht, sorted)).await
}

async fn tell_sorted(dht: &Dht, keys: Vec<(Place, Vec<u8>)>) -> Provided {
    let mut sum = Provided::default();
    let mut rest = &keys[..];
    while let Some((_, first)) = rest.first() {
        let region = Box::pin(dht.region(first)).await;
        let (now, later) = rest.split_at(rest.partition_point(|(place, _)| *place <= region.last));
        let keys: Vec<Vec<u8>> = now.iter().map(|(_, key)| key.clone()).collect();
        count(&mut sum, Box::pin(dht.tell(&region, &keys)).await);
        rest = later;
    }
    sum
}

fn count(sum: &mut Provided, told: Told) {
    sum.keys += told.keys as u64;
    sum.failed += told.failed as u64;
    sum.records += told.records as u64;
}

fn add(sum: &mut Told, told: Told) {
    sum.keys += told.keys;
    sum.failed += told.failed;
    sum.records += told.records;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::safety::Safety;
    use ipfs::Block;
    use ipfs::conformance::sample::Tree;
    use ipfs::held::{HeldPins, NewPin};
    use net::kad::{DhtOptions, Mode};
    use net::{Host, HostOptions};
    use std::path::Path;
    use store::{DiskOptions, DiskStore, PackOptions, PackStore};
    use types::{ByteCount, Depth, Owner};

    async fn dht(number: u8, mode: Mode, bootstrap: Vec<String>) -> (Host, Dht) {
        let options = HostOptions { listen: vec!["/ip4/127.0.0.1/tcp/0".to_owned()], ..HostOptions::node([number; 32]) };
        let (host, _) = Host::start(options).await.unwrap();
        let dht = Dht::start(&host, DhtOptions { mode, bootstrap, ..DhtOptions::new(Scope::Lan) }).unwrap();
        (host, dht)
    }

    fn pin(cid: Cid) -> NewPin {
        NewPin {
            owner: Owner::User,
            cid,
            depth: Depth::Recursive,
            size: ipfs::Pinned { blocks: 1, bytes: ByteCount(1) },
            since: UnixMillis(1),
        }
    }

    /// A disk with so many blocks.
    fn disk(dir: &Path, blocks: u32) -> (Arc<Shared>, Arc<dyn Store>) {
        let store: Arc<dyn Store> = Arc::new(DiskStore::open(&dir.join("state"), DiskOptions::default()).unwrap());
        let packs = PackStore::open(&dir.join("packs"), store.clone(), PackOptions::with_limit(ByteCount(1 << 40))).unwrap();
        let shared = Arc::new(Shared {
            packs: Arc::new(packs),
            held: Arc::new(HeldPins::new(store.clone())),
            safety: Safety::new(),
            clock: Arc::new(|| UnixMillis(1_000_000)),
            collecting: Mutex::new(()),
        });
        let blocks: Vec<Block> = (0..blocks).map(|number| ipfs::conformance::sample::leaf(u64::from(number))).collect();
        shared.append(&blocks, false).unwrap();
        (shared, store)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_round_tells_every_block_once_and_a_restart_goes_on_where_it_was() {
        const BLOCKS: u32 = 300;
        let (server_host, server) = dht(91, Mode::Server, Vec::new()).await;
        let (_host, client) = dht(92, Mode::Client, server_host.addresses()).await;
        while client.status().peers == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let folder = tempfile::tempdir().unwrap();
        let (shared, store) = disk(folder.path(), BLOCKS);
        let whole = Providing {
            dht: client.clone(),
            strategy: Strategy::All,
            shared: shared.clone(),
            store: store.clone(),
            state: Mutex::default(),
            wake: Notify::new(),
        };
        // Slices divide the ring, and each has its keys alone.
        let (mut at, mut seen, mut slices) = (Some(Place([0; 32])), 0, 0);
        while let Some(from) = at {
            let (keys, last) = whole.slice(from).await.unwrap();
            assert!(keys.iter().all(|(place, _)| from <= *place && *place <= last) && keys.is_sorted());
            (seen, slices, at) = (seen + keys.len(), slices + 1, last.next());
        }
        assert_eq!((seen, slices), (BLOCKS as usize, 8));

        // A round that a restart found in its middle tells the rest.
        let mut middle = Place([0; 32]);
        middle.0[0] = 0x80;
        whole.state.lock().round = Round { begun: UnixMillis(1_000_000), at: Some(middle), is_hurried: true };
        whole.keep();
        assert_eq!(whole.load(), Some(whole.state.lock().round));
        let after = |from: Place| {
            let mut count = 0;
            keys::each(&shared, Strategy::All, &|| false, |key| count += usize::from(Place::of(key) >= from)).unwrap();
            count
        };
        let running = Providing::start(client.clone(), Strategy::All, shared.clone(), store.clone());
        while running.status().ended.is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!((1..BLOCKS as usize).contains(&after(middle)));
        assert_eq!((running.status().keys, server.status().providers), (after(middle) as u64, after(middle)));

        // The next one tells all, what was told before included; nothing is kept twice.
        running.state.lock().round = Round { begun: UnixMillis(1_000_000), at: Some(Place([0; 32])), is_hurried: true };
        running.state.lock().ended = None;
        while running.status().ended.is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(server.status().providers, BLOCKS as usize);
        assert_eq!(running.load().map(|round| round.at), Some(None), "it is over");

        // What is stored later is told at once, unless only roots are.
        let later: Vec<Cid> = (1000..1005).map(|number| ipfs::conformance::sample::leaf(number).cid).collect();
        running.stored(&later, false);
        while server.status().providers < BLOCKS as usize + later.len() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let roots = Providing { strategy: Strategy::Roots, ..whole };
        roots.stored(&later, false);
        assert_eq!(roots.status().queued, 0);
        roots.stored(&later[..1], true);
        assert_eq!(roots.status().queued, 1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn each_strategy_tells_its_blocks_at_once_and_in_a_round() {
        let (server_host, server) = dht(93, Mode::Server, Vec::new()).await;
        let (_host, client) = dht(94, Mode::Client, server_host.addresses()).await;
        while client.status().peers == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let folder = tempfile::tempdir().unwrap();
        // Five blocks that nobody pinned; a tree of seven; a pin whose tree is damaged: one of its branches is not here.
        let (shared, store) = disk(folder.path(), 5);
        let (tree, damaged) = (Tree::new(1), Tree::new(2));
        shared.append(tree.blocks(), false).unwrap();
        let [_, branches, leaves] = damaged.levels();
        let here: Vec<Block> = damaged.blocks().iter().filter(|block| block.cid != branches[0]).cloned().collect();
        shared.append(&here, false).unwrap();
        for root in [tree.root(), damaged.root()] {
            shared.held.keep_all(&[pin(root)]).unwrap();
        }
        let blocks = |strategy| {
            let mut keys = BTreeSet::new();
            keys::each(&shared, strategy, &|| false, |key| _ = keys.insert(key.to_vec())).unwrap();
            keys
        };
        let of = |cids: &[Cid]| cids.iter().map(|cid| cid.hash().to_bytes()).collect::<BTreeSet<_>>();
        let whole: Vec<Cid> = tree.blocks().iter().map(|block| block.cid).collect();
        assert_eq!(blocks(Strategy::All).len(), 5 + 7 + 6);
        // What is behind the gap is not known to be pinned.
        let readable: Vec<Cid> = here.iter().map(|block| block.cid).filter(|cid| !leaves[..2].contains(cid)).collect();
        assert_eq!(blocks(Strategy::Pinned), of(&[&whole[..], &readable].concat()));
        assert_eq!(blocks(Strategy::Roots), of(&[tree.root(), damaged.root()]));
        assert!(blocks(Strategy::None).is_empty());

        // Told by a round; then a fresh pin's blocks at once, without what merely is here.
        let running = Providing::start(client.clone(), Strategy::Pinned, shared.clone(), store.clone());
        while running.status().ended.is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(server.status().providers, 7 + 4);
        let fresh = Tree::new(3);
        shared.append(fresh.blocks(), false).unwrap();
        running.stored(&fresh.blocks().iter().map(|block| block.cid).collect::<Vec<_>>(), false);
        assert_eq!(running.status().queued, 0);
        shared.held.keep_all(&[pin(fresh.root())]).unwrap();
        running.stored(&[fresh.root()], true);
        while server.status().providers < 7 + 4 + 7 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(running.status().strategy, "pinned");
    }
}
