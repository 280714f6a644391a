//! An add in flight: every block goes to all holders while it is made.
//!
//! One lane per holder, each a task with a bounded queue; the slowest sets the pace within its bound. A lane that breaks is
//! replaced by placement: the new holder gets what is still to come and fetches the rest from the others once it is pinned.

mod lane;

use self::lane::{Batch, Way, fill_own, fill_remote};
use crate::core::Core;
use crate::handle::{AddSession, CommandError};
use async_trait::async_trait;
use cluster::{Answer, Command};
use ipfs::Block;
use net::{Host, LaneHeader, LaneKind};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use types::{ByteCount, Cid, Depth, Owner, PeerId, Pin, PinOptions};

/// Bytes gathered before they go to the lanes: small files share a batch.
const BATCH: usize = 1 << 20;
/// Blocks gathered at most.
const BATCH_BLOCKS: usize = 2048;
/// Batches that may wait for a lane.
const QUEUE: usize = 8;
/// Room is reserved this far ahead of what was sent.
const HEADROOM: ByteCount = ByteCount(64 << 20);

/// A reservation that nothing was heard of ends after ten minutes: a slow add renews it.
const RENEW: Duration = Duration::from_secs(120);

/// A running add.
pub struct Spread {
    core: Arc<Core>,
    node_host: Option<Host>,
    lease: u64,
    options: PinOptions,
    /// What grows beyond this is cut (see [`crate::sharded`]).
    unit: ByteCount,
    lanes: Vec<Lane>,
    gathered: Vec<Block>,
    gathered_bytes: usize,
    sent: ByteCount,
    reserved: ByteCount,
    /// When its reservation was last renewed.
    renewed: Instant,
    is_finished: bool,
}

struct Lane {
    holder: PeerId,
    queue: Option<mpsc::Sender<Batch>>,
    task: JoinHandle<Result<(), String>>,
    /// Whether it was there from the first block.
    is_whole: bool,
}

impl Spread {
    /// Asks for holders and opens a lane to each.
    pub async fn begin(
        core: Arc<Core>,
        node_host: Option<Host>,
        options: PinOptions,
        size: Option<ByteCount>,
    ) -> Result<Spread, CommandError> {
        match core.command(Command::Place { options, size }).await {
            Some(Answer::Placed { lease, holders, options, unit }) => {
                tracing::debug!(lease, ?holders, %unit, "an add has its holders");
                let mut spread = Spread {
                    core,
                    node_host,
                    lease,
                    options: *options,
                    unit,
                    lanes: Vec::new(),
                    gathered: Vec::new(),
                    gathered_bytes: 0,
                    sent: ByteCount::ZERO,
                    reserved: size.unwrap_or(ByteCount::ZERO).min(unit) + headroom(unit),
                    renewed: Instant::now(),
                    is_finished: false,
                };
                for holder in holders {
                    spread.open_lane(holder, true);
                }
                Ok(spread)
            }
            Some(Answer::Refused(why)) => Err(why.into()),
            Some(_) => Err(CommandError::Failed("the placement gave no answer".to_owned())),
            None => Err(CommandError::Stopping),
        }
    }

    fn open_lane(&mut self, holder: PeerId, is_whole: bool) {
        let (queue, batches) = mpsc::channel(QUEUE);
        let links = self.core.links().map(|links| links.host().id());
        let task = if links == Some(holder) {
            tokio::spawn(fill_own(self.core.node.clone(), Owner::Adding(self.lease), batches))
        } else if let Some(go) = self.core.go().filter(|go| go.is_go(&holder)) {
            tokio::spawn(async move { go.fill(holder, batches).await })
        } else {
            let core = self.core.clone();
            let find = move || {
                let node = core.trust.nodes_of(&holder).first().copied()?;
                let addresses = core.links().map(|links| links.node_addresses_of(&holder)).unwrap_or_default();
                Some((node, addresses))
            };
            let way = self.node_host.clone().zip(links).map(|(host, own)| {
                let header = LaneHeader { lease: self.lease, cluster_peer: own, kind: LaneKind::Add };
                Way { host, header, find: Box::new(find) }
            });
            tokio::spawn(fill_remote(way, batches))
        };
        self.lanes.push(Lane { holder, queue: Some(queue), task, is_whole });
    }

    async fn flush(&mut self) -> Result<(), CommandError> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let batch: Batch = Arc::new(std::mem::take(&mut self.gathered));
        self.sent += ByteCount(self.gathered_bytes as u64);
        self.gathered_bytes = 0;
        self.grow();
        let mut broken = Vec::new();
        for lane in &mut self.lanes {
            let Some(queue) = &lane.queue else { continue };
            if queue.send(batch.clone()).await.is_err() {
                lane.queue = None;
                broken.push(lane.holder);
            }
        }
        for holder in broken {
            self.replace(holder).await?;
        }
        Ok(())
    }

    fn grow(&mut self) {
        let headroom = headroom(self.unit);
        let needed = (self.sent + headroom).min(self.unit.max(self.sent));
        let must_grow = self.sent + ByteCount(headroom.0 / 2) > self.reserved;
        if must_grow || self.renewed.elapsed() > RENEW {
            let needed = if must_grow { needed } else { self.reserved.min(self.unit) };
            self.reserved = self.reserved.max(needed);
            self.renewed = Instant::now();
            let (core, lease) = (self.core.clone(), self.lease);
            // The answer says only that it was asked: a holder without room refuses the blocks themselves.
            tokio::spawn(async move { core.command(Command::Grow { lease, bytes: needed }).await });
        }
    }

    /// The number of its reservation.
    pub(crate) fn lease(&self) -> u64 {
        self.lease
    }

    /// What its placement resolved of the wish.
    pub(crate) fn options(&self) -> &PinOptions {
        &self.options
    }

    /// What grows beyond this is cut.
    pub(crate) fn unit(&self) -> ByteCount {
        self.unit
    }

    /// The pin of what it brought is written: its blocks stay safe here until the tracker has them.
    pub(crate) fn pinned(mut self, root: Cid) {
        self.is_finished = true;
        release_when_pinned(self.core.clone(), self.lease, root);
    }

    /// A lane ended before its time: say why, and let placement choose another holder.
    async fn replace(&mut self, broken: PeerId) -> Result<(), CommandError> {
        let Some(index) = self.lanes.iter().position(|lane| lane.holder == broken) else { return Ok(()) };
        let lane = self.lanes.remove(index);
        let why = match lane.task.await {
            Ok(Err(why)) => why,
            Ok(Ok(())) => "it ended early".to_owned(),
            Err(error) => error.to_string(),
        };
        tracing::warn!(peer = %broken, why, "a holder of an add broke off");
        match self.core.command(Command::Replace { lease: self.lease, broken }).await {
            Some(Answer::Placed { holders, .. }) => {
                for holder in holders {
                    if !self.lanes.iter().any(|lane| lane.holder == holder) {
                        self.open_lane(holder, false);
                    }
                }
            }
            Some(Answer::Refused(refused)) => tracing::warn!(%refused, "no other holder for an add"),
            Some(_) => {}
            None => return Err(CommandError::Stopping),
        }
        if self.lanes.iter().any(|lane| lane.is_whole) {
            return Ok(());
        }
        Err(CommandError::Failed(format!("no holder took all of it; the last said: {why}")))
    }
}

#[async_trait]
impl AddSession for Spread {
    fn holders(&self) -> Vec<PeerId> {
        self.lanes.iter().map(|lane| lane.holder).collect()
    }

    async fn put(&mut self, blocks: Vec<Block>) -> Result<(), CommandError> {
        for block in blocks {
            self.gathered_bytes += block.data.len();
            self.gathered.push(block);
            if self.gathered_bytes >= BATCH || self.gathered.len() >= BATCH_BLOCKS {
                self.flush().await?;
            }
        }
        Ok(())
    }

    async fn finish(mut self: Box<Self>, root: Cid, mut options: PinOptions, size: ByteCount, pin: bool) -> Result<Pin, CommandError> {
        self.complete().await?;
        // What was asked for again by the caller wins; what placement resolved fills the rest.
        if options.replicas == types::Replicas::Unset {
            options.replicas = self.options.replicas;
        }
        if !pin {
            let holders = self.holders();
            return Ok(unpinned(root, options, holders, self.core.now().wall));
        }
        let command = Command::Pin { cid: root, options, depth: Depth::Recursive, size: Some(size), lease: Some(self.lease) };
        match self.core.command(command).await {
            Some(Answer::Pinned(pin)) => {
                self.is_finished = true;
                release_when_pinned(self.core.clone(), self.lease, root);
                Ok(*pin)
            }
            Some(Answer::Refused(why)) => Err(why.into()),
            Some(_) => Err(CommandError::Failed("the pin gave no answer".to_owned())),
            None => Err(CommandError::Stopping),
        }
    }
}

impl Spread {
    /// Waits until at least one holder has everything durably, and says good-bye to those that broke off.
    pub(crate) async fn complete(&mut self) -> Result<(), CommandError> {
        self.flush().await?;
        for lane in &mut self.lanes {
            lane.queue = None;
        }
        let mut whole = 0;
        let mut why = String::new();
        let mut broken = Vec::new();
        for lane in &mut self.lanes {
            let ended = (&mut lane.task).await;
            tracing::debug!(lease = self.lease, holder = %lane.holder, "a lane ended");
            match ended {
                Ok(Ok(())) => whole += usize::from(lane.is_whole),
                Ok(Err(error)) => {
                    tracing::warn!(peer = %lane.holder, error, "a holder of an add broke off at its end");
                    broken.push(lane.holder);
                    why = error;
                }
                Err(error) => why = error.to_string(),
            }
        }
        if whole == 0 {
            return Err(CommandError::Failed(format!("no holder took all of it; the last said: {why}")));
        }
        // A holder that broke off at the very end stays out of the placement where another can be found; else it fetches later.
        for broken in broken {
            self.core.command(Command::Replace { lease: self.lease, broken }).await;
        }
        Ok(())
    }
}

/// Room that is reserved ahead of what was sent: less where units are small.
fn headroom(unit: ByteCount) -> ByteCount {
    HEADROOM.min(ByteCount(unit.0 / 4))
}

pub(crate) fn unpinned(cid: Cid, options: PinOptions, placement: Vec<PeerId>, created: types::UnixMillis) -> Pin {
    Pin { cid, kind: types::PinKind::Data, options, placement, depth: Depth::Recursive, reference: None, created }
}

/// The own blocks stay safe from garbage collection until the tracker has pinned them.
fn release_when_pinned(core: Arc<Core>, lease: u64, root: Cid) {
    tokio::spawn(async move {
        const STEP: std::time::Duration = std::time::Duration::from_millis(500);
        const STEPS: usize = 1200;
        for _ in 0..STEPS {
            let held = core.node.pin_of(&root).await.ok().flatten();
            if held.is_some_and(|held| held.owners.iter().any(|(owner, _, _)| *owner == core.owner)) {
                break;
            }
            // Taken back before it was pinned: nobody will pin it, and its blocks must not be kept from the collection.
            if matches!(core.consensus.view().get(store::Area::Pins, &root.to_bytes()), Ok(None)) {
                break;
            }
            tokio::time::sleep(STEP).await;
        }
        core.node.release(&Owner::Adding(lease)).await.ok();
    });
}

impl Drop for Spread {
    fn drop(&mut self) {
        if self.is_finished {
            return;
        }
        for lane in &self.lanes {
            lane.task.abort();
        }
        let (core, lease) = (self.core.clone(), self.lease);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                core.command(Command::Release { lease, is_kept: false }).await;
                core.node.release(&Owner::Adding(lease)).await.ok();
                core.mark_garbage();
            });
        }
    }
}
