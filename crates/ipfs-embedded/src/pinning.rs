//! One pin on its way: walk what is here, fetch what is not, write the pin when all of it is durable.
//!
//! ```text
//!            ┌──────── walk ◄───────────────┐ links of fetched blocks
//!            ▼                              │
//!   here? ─ yes: count      no: wanted ─► fetching (bounded) ─► append ─► ... ─► sync ─► write the pin
//! ```
//!
//! Where a gateway gave the root, the rest comes as one stream first, if it gives such (`stream`). Runs under a lease, and touches every block before it looks for it (`safety`). Dropped anywhere, it leaves blocks that are garbage
//! and no pin.

mod stream;

use crate::error::{Damage, pin_error, pin_put_error};
use crate::fetching::Fetcher;
use crate::network::Network;
use crate::shared::{Shared, on_disk};
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{FuturesUnordered, StreamExt};
use ipfs::held::{NewPin, PinWrite};
use ipfs::walk::{Visit, Walk};
use ipfs::{Block, BlockError, PinError, PinProgress, PinTask, Pinned, Progress};
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use types::{ByteCount, Cid, Owner};

/// Blocks looked up in one go on a blocking thread.
const LOOKED_UP_AT_ONCE: usize = 64;
/// Such goes before progress is told.
const GOES_PER_ROUND: usize = 16;
/// Fetched bytes that are appended in one go.
const APPENDED_AT_ONCE: usize = 8 << 20;
/// Missing blocks named in an error.
const MISSING_NAMED: usize = 100;

/// Bounds of one pin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PinBounds {
    /// Blocks fetched at once.
    pub(crate) window: usize,
    /// Without any block for so long, the missing ones count as not to be had.
    pub(crate) stall: Duration,
}

type Fetched = (Visit, Result<Bytes, BlockError>);

pub(crate) struct Pinning {
    shared: Arc<Shared>,
    task: PinTask,
    progress: Progress,
    bounds: PinBounds,
    /// None: nobody may be asked.
    network: Option<Arc<Network>>,
    /// Begun when the first block is missing.
    fetcher: Option<Fetcher>,
    was_streamed: bool,
    /// On a blocking thread now and then.
    walk: Option<Walk>,
    wanted: VecDeque<Visit>,
    fetching: FuturesUnordered<BoxFuture<'static, Fetched>>,
    /// What came while others were being stored.
    come: Vec<Fetched>,
    /// What is being fetched, or came and is not stored.
    asked: HashSet<Visit>,
    /// Blocks that nobody had: how many, and the first of them.
    lost: u64,
    lost_named: Vec<Cid>,
    /// Who was asked for the first of them.
    lost_asked: String,
    /// Stored blocks to be replaced when they come.
    damaged: Vec<Cid>,
    size: Pinned,
}

/// What a round on the blocking thread found.
#[derive(Default)]
pub(crate) struct Round {
    pub(crate) blocks: u64,
    pub(crate) bytes: u64,
    pub(crate) missing: Vec<Visit>,
    /// Of these, stored and damaged.
    damaged: Vec<Cid>,
}

impl Pinning {
    pub(crate) fn new(shared: Arc<Shared>, task: PinTask, progress: Progress, bounds: PinBounds, network: Option<Arc<Network>>) -> Pinning {
        let walk = Some(Walk::new(task.cid, task.depth));
        Pinning {
            shared,
            task,
            progress,
            bounds,
            network,
            fetcher: None,
            was_streamed: false,
            walk,
            wanted: VecDeque::new(),
            fetching: FuturesUnordered::new(),
            come: Vec::new(),
            asked: HashSet::new(),
            lost: 0,
            lost_named: Vec::new(),
            lost_asked: String::new(),
            damaged: Vec::new(),
            size: Pinned { blocks: 0, bytes: ByteCount::ZERO },
        }
    }

    pub(crate) async fn run(mut self) -> Result<Pinned, PinError> {
        if matches!(self.task.owner, Owner::Adding(_)) {
            return Err(PinError::Storage(format!("{} cannot hold a pin", self.task.owner)));
        }
        if let Some(size) = self.join().await? {
            self.progress.send_replace(PinProgress { blocks: size.blocks, bytes: size.bytes, missing: 0 });
            return Ok(size);
        }
        let lease = self.shared.safety.begin();
        self.complete().await?;
        if self.lost > 0 {
            return Err(PinError::Missing { cid: self.task.cid, missing: self.lost_named, asked: self.lost_asked });
        }
        let size = self.size;
        self.write().await?;
        drop(lease);
        Ok(size)
    }

    /// What is kept to this depth already needs no walk.
    async fn join(&mut self) -> Result<Option<Pinned>, PinError> {
        let write = PinWrite::new(self.shared.held.clone(), self.new_pin());
        let writing = write.writing();
        let joined = on_disk(move || writing.join()).await;
        write.finish();
        joined.map_err(|error| pin_error(&self.task.cid, error))
    }

    async fn write(&mut self) -> Result<(), PinError> {
        let write = PinWrite::new(self.shared.held.clone(), self.new_pin());
        let (shared, writing, root) = (self.shared.clone(), write.writing(), self.task.cid);
        let written = on_disk(move || {
            shared.sync().map_err(|error| pin_put_error(&root, error))?;
            writing.keep().map_err(|error| pin_error(&root, error))
        })
        .await;
        write.finish();
        written
    }

    fn new_pin(&self) -> NewPin {
        let PinTask { owner, cid, depth, .. } = &self.task;
        NewPin { owner: owner.clone(), cid: *cid, depth: *depth, size: self.size, since: (self.shared.clock)() }
    }

    /// Until every block is here or known to be missing.
    async fn complete(&mut self) -> Result<(), PinError> {
        loop {
            // Walking ahead of the fetching is bounded by what waits to be fetched.
            let can_walk = self.walk.as_ref().is_some_and(Walk::has_more);
            if can_walk && self.wanted.len() < self.bounds.window {
                self.walk_here().await?;
                self.stream_from_gateway().await?;
                self.fetch_wanted().await;
                continue;
            }
            self.fetch_wanted().await;
            if self.fetching.is_empty() && self.come.is_empty() {
                return Ok(());
            }
            self.take_fetched().await?;
        }
    }

    /// Counts blocks that are here, notes those that are not.
    async fn walk_here(&mut self) -> Result<(), PinError> {
        let Some(mut walk) = self.walk.take() else { return Ok(()) };
        let shared = self.shared.clone();
        let (walk, round) = on_disk(move || {
            let round = shared.walk_round(&mut walk);
            (walk, round)
        })
        .await;
        self.walk = Some(walk);
        let round = round?;
        self.size.blocks += round.blocks;
        self.size.bytes += ByteCount(round.bytes);
        if self.network.is_some() {
            self.wanted.extend(round.missing);
        } else {
            round.missing.iter().for_each(|visit| self.lose(visit));
        }
        self.damaged.extend(round.damaged);
        self.tell();
        Ok(())
    }

    async fn fetch_wanted(&mut self) {
        if self.fetcher.is_none()
            && !self.wanted.is_empty()
            && let Some(network) = &self.network
        {
            self.fetcher = Some(network.fetcher(&self.task.source).await);
        }
        let Some(fetcher) = &self.fetcher else { return };
        while self.fetching.len() + self.come.len() < self.bounds.window {
            let Some(visit) = self.wanted.pop_front() else { return };
            let fetched = fetcher.fetch(visit.cid);
            self.asked.insert(visit);
            self.fetching.push(async move { (visit, fetched.await) }.boxed());
        }
    }

    /// Waits for fetched blocks and stores as many as have come. Meanwhile further ones are on their way.
    async fn take_fetched(&mut self) -> Result<(), PinError> {
        if self.come.is_empty() {
            match tokio::time::timeout(self.bounds.stall, self.fetching.next()).await {
                Ok(first) => self.come.extend(first),
                Err(_) => {
                    self.give_up();
                    return Ok(());
                }
            }
        }
        let size = |fetched: &Fetched| fetched.1.as_ref().map_or(0, Bytes::len);
        let mut bytes: usize = self.come.iter().map(size).sum();
        while bytes < APPENDED_AT_ONCE
            && let Some(Some(fetched)) = self.fetching.next().now_or_never()
        {
            bytes += size(&fetched);
            self.come.push(fetched);
        }
        let taken = std::mem::take(&mut self.come);
        self.fetch_wanted().await;
        let mut fetching = std::mem::take(&mut self.fetching);
        let mut come = Vec::new();
        let stored = {
            let mut storing = std::pin::pin!(self.store_fetched(taken));
            loop {
                tokio::select! {
                    stored = storing.as_mut() => break stored,
                    Some(fetched) = fetching.next() => come.push(fetched),
                }
            }
        };
        (self.fetching, self.come) = (fetching, come);
        stored?;
        self.tell();
        Ok(())
    }

    async fn store_fetched(&mut self, taken: Vec<Fetched>) -> Result<(), PinError> {
        let mut blocks = Vec::with_capacity(taken.len());
        for (visit, data) in taken {
            self.asked.remove(&visit);
            match data {
                Ok(data) => blocks.push((visit, data)),
                Err(error) => {
                    if let (true, BlockError::NoProvider { routing, .. }) = (self.lost == 0, error) {
                        self.lost_asked = routing;
                    }
                    self.lose(&visit);
                }
            }
        }
        let Some(mut walk) = self.walk.take() else { return Ok(()) };
        for (visit, data) in &blocks {
            if visit.is_first {
                self.size.blocks += 1;
                self.size.bytes += ByteCount(data.len() as u64);
            }
        }
        let (shared, root, damaged) = (self.shared.clone(), self.task.cid, self.damaged.clone());
        let walk = on_disk(move || {
            let block = |(visit, data): &(Visit, Bytes)| Block { cid: visit.cid, data: data.clone() };
            let (damaged, new): (Vec<Block>, Vec<Block>) = blocks.iter().map(block).partition(|block| damaged.contains(&block.cid));
            // The walk has touched them already.
            shared
                .append(&new, false)
                .and_then(|()| damaged.iter().try_for_each(|block| shared.replace(block)))
                .map_err(|error| pin_put_error(&root, error))?;
            for (visit, data) in &blocks {
                walk.got(visit, data).map_err(|error| PinError::Malformed { cid: visit.cid, reason: error.to_string() })?;
            }
            Ok(walk)
        })
        .await?;
        self.walk = Some(walk);
        Ok(())
    }

    /// Nothing came for a long time: what is asked for or waits counts as missing, and nothing more is looked for.
    fn give_up(&mut self) {
        self.fetching.clear();
        self.come.clear();
        if self.lost == 0 {
            self.lost_asked = format!("nothing came for {} s", self.bounds.stall.as_secs());
        }
        self.walk = None;
        let waiting: Vec<Visit> = self.asked.drain().chain(self.wanted.drain(..)).collect();
        waiting.iter().for_each(|visit| self.lose(visit));
    }

    fn lose(&mut self, visit: &Visit) {
        self.lost += 1;
        if self.lost_named.len() < MISSING_NAMED {
            self.lost_named.push(visit.cid);
        }
    }

    fn tell(&self) {
        let missing = self.lost + (self.wanted.len() + self.asked.len()) as u64;
        self.progress.send_replace(PinProgress { blocks: self.size.blocks, bytes: self.size.bytes, missing });
    }
}

impl Shared {
    /// Walks on through blocks that are here.
    pub(crate) fn walk_round(&self, walk: &mut Walk) -> Result<Round, PinError> {
        let mut round = Round::default();
        for _ in 0..GOES_PER_ROUND {
            let visits: Vec<Visit> = std::iter::from_fn(|| walk.next_visit()).take(LOOKED_UP_AT_ONCE).collect();
            if visits.is_empty() {
                break;
            }
            let keys: Vec<Vec<u8>> = visits.iter().map(|visit| visit.cid.hash().to_bytes()).collect();
            self.safety.touch(&keys);
            for (visit, key) in visits.iter().zip(&keys) {
                match self.look(walk, visit, key, &mut round.damaged)? {
                    Some(bytes) if visit.is_first => {
                        round.blocks += 1;
                        round.bytes += bytes;
                    }
                    Some(_) => {}
                    None => round.missing.push(*visit),
                }
            }
            if !round.missing.is_empty() {
                break;
            }
        }
        Ok(round)
    }

    /// The size of a block that is here; its links go to the walk.
    fn look(&self, walk: &mut Walk, visit: &Visit, key: &[u8], damaged: &mut Vec<Cid>) -> Result<Option<u64>, PinError> {
        let storage = |error: store::packs::PackError| PinError::Storage(crate::error::chain(&error));
        if !visit.needs_data() {
            return self.packs.size(key).map_err(storage);
        }
        let data = match self.read(&visit.cid) {
            Ok(Some(data)) => data,
            Ok(None) => return Ok(None),
            Err(Damage::Corrupt) => {
                tracing::warn!(cid = %visit.cid, "a stored block is damaged; it is fetched again if it can be");
                damaged.push(visit.cid);
                return Ok(None);
            }
            Err(Damage::Failed(reason)) => return Err(PinError::Storage(reason)),
        };
        walk.got(visit, &data).map_err(|error| PinError::Malformed { cid: visit.cid, reason: error.to_string() })?;
        Ok(Some(data.len() as u64))
    }
}
