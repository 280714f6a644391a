//! An add that may outgrow every peer: cut into units while it streams, each placed anew.
//!
//! ```text
//!   blocks ─► dag::shards cuts ─► open unit (lanes to its holders)      one at a time
//!                         └────► full unit: last syncs, its pin           two at once, behind
//!                         └────► spine: units of its own, more copies
//! ```
//!
//! As long as nothing was cut, this is an ordinary add with an ordinary pin. What was cut is pinned unit by unit, so that holders keep
//! it through restarts and repair; those pins end by themselves until the root is pinned. No peer ever needs room for more
//! than its units.

use crate::core::Core;
use crate::handle::{AddSession, CommandError};
use crate::spread::{Spread, unpinned};
use async_trait::async_trait;
use bytes::Bytes;
use cluster::{Answer, Command, Missing, NewRoot, NewUnit, shards};
use dag::shards::{Cut, Cutter, End, Head, Shard};
use ipfs::Block;
use net::Host;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;
use types::{ByteCount, Cid, PeerId, Pin, PinOptions, Replicas};

/// Full units that are still being finished while the next one is filled.
const BEHIND: usize = 2;
/// A unit without a place is tried again: numbers of peers that were just filled are a few seconds old.
const PLACE_AGAIN: Duration = Duration::from_secs(2);
const PLACE_TRIES: u32 = 8;
/// When no peer has room for a whole unit, units become smaller, down to this part: what is left on each peer is used.
const LEAST_PART: u64 = 16;
/// How long, and how often, it is looked whether all holders have confirmed a unit.
const CONFIRM_EVERY: Duration = Duration::from_secs(1);
const CONFIRM_LOOKS: u32 = 60;
/// When it is looked whether a root owns all its units.
const CHECKS: [Duration; 3] = [Duration::from_secs(10), Duration::from_secs(60), Duration::from_secs(600)];
/// Bytes of lists kept in memory: those of some 100 TB of usual files.
const LISTS_KEPT: usize = 64 << 20;
/// How often the units of a running add are renewed.
const RENEW: Duration = Duration::from_secs(20 * 60);

/// A running add.
pub struct ShardedAdd {
    core: Arc<Core>,
    node_host: Option<Host>,
    wish: PinOptions,
    /// Whether the client left the number of copies to the cluster: fewer peers than it wants are then enough.
    is_default: bool,
    /// Names the add in the metadata of its units.
    name: String,
    cutter: Option<Cutter>,
    open: Option<Spread>,
    limit: ByteCount,
    /// What a unit has at most now that room is short.
    size: ByteCount,
    closing: JoinSet<Result<NewUnit, CommandError>>,
    /// Begun, in order; the head last.
    units: Vec<NewUnit>,
    shards: Vec<(Cid, u64)>,
    spines: Vec<(Cid, u64)>,
    /// Lists of the units so far, for the head.
    lists: HashMap<Cid, Bytes>,
    lists_bytes: usize,
    renewed: Arc<Mutex<Vec<Cid>>>,
    renewing: Option<AbortOnDropHandle<()>>,
    is_finished: bool,
}

impl ShardedAdd {
    /// Asks for the holders of the first unit.
    pub async fn begin(
        core: Arc<Core>,
        node_host: Option<Host>,
        options: PinOptions,
        size: Option<ByteCount>,
    ) -> Result<ShardedAdd, CommandError> {
        let open = Spread::begin(core.clone(), node_host.clone(), options.clone(), size).await?;
        let limit = open.unit();
        let me = core.links().map(|links| links.host().id()).ok_or(CommandError::Stopping)?;
        let name = shards::add_name(&me, open.lease());
        let wish = PinOptions { replicas: open.options().replicas, prefer: options.prefer, ..PinOptions::default() };
        Ok(ShardedAdd {
            core,
            node_host,
            wish,
            is_default: options.replicas == Replicas::Unset,
            name,
            cutter: Some(Cutter::new(limit.get())),
            open: Some(open),
            limit,
            size: limit,
            closing: JoinSet::new(),
            units: Vec::new(),
            shards: Vec::new(),
            spines: Vec::new(),
            lists: HashMap::new(),
            lists_bytes: 0,
            renewed: Arc::default(),
            renewing: None,
            is_finished: false,
        })
    }

    async fn take(&mut self, cut: Cut) -> Result<(), CommandError> {
        match cut {
            Cut::Block(block) => self.open().await?.put(vec![block]).await,
            Cut::Full(shard) => self.close(shard).await,
            Cut::Spine(shard, blocks) => {
                let number = self.spines.len() as u32 + 1;
                self.spines.push((shard.list.cid, shard.bytes));
                self.keep_list(&shard.list);
                self.add_spine(number, shard, blocks).await
            }
        }
    }

    /// The unit that is being filled; begun when its first block comes.
    async fn open(&mut self) -> Result<&mut Spread, CommandError> {
        if self.open.is_none() {
            let least = ByteCount((self.limit.0 / LEAST_PART).max(shards::UNIT_LEAST.0).min(self.size.0));
            let (open, size) = self.place(self.wish.clone(), self.size, least).await?;
            self.open = Some(open);
            if size < self.size {
                tracing::debug!(%size, "no peer has room for a larger shard");
                self.size = size;
                self.cutter.iter_mut().for_each(|cutter| cutter.set_limit(size.get()));
            }
        }
        self.open.as_mut().ok_or(CommandError::Stopping)
    }

    /// Holders for a unit of `size`, or of half of it and so on down to `least` where nobody has room for more.
    async fn place(&self, wish: PinOptions, mut size: ByteCount, least: ByteCount) -> Result<(Spread, ByteCount), CommandError> {
        let mut wish = PinOptions { shard_size: self.size.get(), ..wish };
        let mut tries = 0;
        loop {
            match Spread::begin(self.core.clone(), self.node_host.clone(), wish.clone(), Some(size)).await {
                Err(CommandError::Refused(Missing::NotEnoughPeers { .. })) if self.is_default && wish.replicas != Replicas::Unset => {
                    wish.replicas = Replicas::Unset;
                    continue;
                }
                Err(CommandError::Refused(Missing::NotEnoughPeers { .. })) if tries > 0 && size.0 / 2 >= least.0 => {
                    size = ByteCount(size.0 / 2);
                    wish.shard_size = size.get();
                    continue;
                }
                Err(CommandError::Refused(Missing::NotEnoughPeers { .. })) if tries < PLACE_TRIES => tries += 1,
                other => return other.map(|spread| (spread, size)),
            }
            tokio::time::sleep(PLACE_AGAIN).await;
        }
    }

    fn keep_list(&mut self, list: &Block) {
        if self.lists_bytes + list.data.len() <= LISTS_KEPT {
            self.lists_bytes += list.data.len();
            self.lists.insert(list.cid, list.data.clone());
        }
    }

    /// The open unit is full.
    async fn close(&mut self, shard: Shard) -> Result<(), CommandError> {
        self.keep_list(&shard.list);
        let unit = self.open().await?;
        unit.put(vec![shard.list.clone()]).await?;
        let Some(unit) = self.open.take() else { return Ok(()) };
        let number = self.shards.len() as u32 + 1;
        self.shards.push((shard.list.cid, shard.bytes));
        let new = NewUnit { cid: shard.list.cid, number, is_spine: false, bytes: ByteCount(shard.bytes) };
        self.close_behind(unit, new).await
    }

    async fn add_spine(&mut self, number: u32, shard: Shard, mut blocks: Vec<Block>) -> Result<(), CommandError> {
        let wish = PinOptions { replicas: shards::spine_copies(self.wish.replicas), ..self.wish.clone() };
        let bytes = ByteCount(shard.bytes);
        let (mut unit, _) = self.place(wish, bytes, bytes).await?;
        let new = NewUnit { cid: shard.list.cid, number, is_spine: true, bytes };
        blocks.push(shard.list);
        unit.put(blocks).await?;
        self.close_behind(unit, new).await
    }

    /// The last syncs of a unit and its pin, while the next one is filled.
    async fn close_behind(&mut self, unit: Spread, new: NewUnit) -> Result<(), CommandError> {
        while self.closing.len() >= BEHIND {
            self.closed_one().await?;
        }
        let (core, name) = (self.core.clone(), self.name.clone());
        self.closing.spawn(close_unit(core, name, unit, new));
        Ok(())
    }

    async fn closed_one(&mut self) -> Result<(), CommandError> {
        match self.closing.join_next().await {
            Some(Ok(closed)) => {
                let unit = closed?;
                self.renewed.lock().push(unit.cid);
                self.units.push(unit);
                if self.renewing.is_none() {
                    let renewing = tokio::spawn(renew(self.core.clone(), self.renewed.clone()));
                    self.renewing = Some(AbortOnDropHandle::new(renewing));
                }
                Ok(())
            }
            Some(Err(error)) => Err(CommandError::Failed(format!("finishing a shard: {error}"))),
            None => Ok(()),
        }
    }

    /// All units are there: the head, and then the root.
    async fn finish_cut(
        &mut self,
        root: Cid,
        options: PinOptions,
        size: ByteCount,
        last: Option<Shard>,
        spine: Vec<Block>,
    ) -> Result<Pin, CommandError> {
        match last {
            Some(shard) => self.close(shard).await?,
            None => self.open = None,
        }
        let cids = spine.iter().map(|block| block.cid).collect();
        let head = Head { root, size: size.get(), shards: self.shards.clone(), spines: self.spines.clone(), spine: cids };
        let head = head.block().map_err(|error| CommandError::Failed(format!("writing the list of shards: {error}")))?;
        while !self.closing.is_empty() {
            self.closed_one().await?;
        }
        // The head keeps the lists of all units, so that each can be found with any holder gone.
        let mut blocks = spine;
        blocks.extend(self.lists().await?);
        let bytes = blocks.iter().map(|block| block.data.len() as u64).sum::<u64>() + head.data.len() as u64;
        let (cid, number) = (head.cid, self.spines.len() as u32 + 1);
        self.add_spine(number, Shard { list: head, bytes }, blocks).await?;
        while !self.closing.is_empty() {
            self.closed_one().await?;
        }
        let new = NewRoot { root, options, add: self.name.clone(), head: cid, units: self.units.clone(), size };
        let command = Command::PinRoot(Box::new(new));
        match self.core.command(command.clone()).await {
            Some(Answer::Pinned(pin)) => {
                let units: HashSet<Cid> = self.units.iter().map(|unit| unit.cid).collect();
                tokio::spawn(check_root(self.core.clone(), root, units.len(), command));
                Ok(*pin)
            }
            Some(Answer::Refused(why)) => Err(why.into()),
            Some(_) => Err(CommandError::Failed("the pin gave no answer".to_owned())),
            None => Err(CommandError::Stopping),
        }
    }

    /// The list blocks of all units; those that were not kept are read back from their holders.
    async fn lists(&self) -> Result<Vec<Block>, CommandError> {
        let node = crate::node::ClusterNode::new(self.core.clone());
        let mut blocks = Vec::with_capacity(self.units.len());
        for unit in &self.units {
            if let Some(data) = self.lists.get(&unit.cid) {
                blocks.push(Block { cid: unit.cid, data: data.clone() });
                continue;
            }
            let got = ipfs::Blocks::get(&node, &unit.cid, &ipfs::Source::default()).await;
            let data = got.map_err(|error| CommandError::Failed(format!("reading the list of a shard: {error}")))?;
            blocks.push(Block { cid: unit.cid, data });
        }
        Ok(blocks)
    }
}

/// Waits for the holders of a full unit and pins it.
async fn close_unit(core: Arc<Core>, name: String, mut unit: Spread, new: NewUnit) -> Result<NewUnit, CommandError> {
    unit.complete().await?;
    let lease = unit.lease();
    match core.command(Command::PinUnit { lease, add: name, unit: new.clone() }).await {
        Some(Answer::Pinned(pin)) => {
            unit.pinned(new.cid);
            tokio::spawn(release_unit(core, lease, pin));
            Ok(new)
        }
        Some(Answer::Refused(why)) => Err(why.into()),
        Some(_) => Err(CommandError::Failed("the pin of a shard gave no answer".to_owned())),
        None => Err(CommandError::Stopping),
    }
}

/// Frees what a unit reserved, and tells its holders that its pin alone keeps it once all have confirmed.
async fn release_unit(core: Arc<Core>, lease: u64, pin: Box<Pin>) {
    core.command(Command::Arrived { lease }).await;
    let mut is_kept = false;
    for _ in 0..CONFIRM_LOOKS {
        // Taken back already: nobody will confirm it.
        if matches!(core.consensus.view().get(store::Area::Pins, &pin.cid.to_bytes()), Ok(None)) {
            break;
        }
        let confirmed = core.read(|machine, now| machine.confirmed_copies(&pin, now));
        // What everybody is to hold may not have come to those who took part in the add.
        is_kept = !pin.is_everywhere() && confirmed as usize >= pin.placement.len().max(1);
        if is_kept {
            break;
        }
        tokio::time::sleep(CONFIRM_EVERY).await;
    }
    core.command(Command::Release { lease, is_kept }).await;
}

/// A write of another peer (a repair) may have stood beside that of the root and taken a unit's owner away: looks a few times, and
/// writes again.
async fn check_root(core: Arc<Core>, root: Cid, units: usize, command: Command) {
    for wait in CHECKS {
        tokio::time::sleep(wait).await;
        let is_there = core.consensus.view().get(store::Area::Pins, &root.to_bytes()).is_ok_and(|pin| pin.is_some());
        let owned = core.read(|machine, _| machine.pieces_of(&root).len());
        if is_there && owned < units {
            tracing::warn!(%root, owned, units, "a root did not own all its shards: written again");
            core.command(command.clone()).await;
        }
    }
}

/// Keeps the units of a slow add from ending.
async fn renew(core: Arc<Core>, units: Arc<Mutex<Vec<Cid>>>) {
    loop {
        tokio::time::sleep(RENEW).await;
        let units = units.lock().clone();
        core.command(Command::RenewUnits { units }).await;
    }
}

#[async_trait]
impl AddSession for ShardedAdd {
    fn holders(&self) -> Vec<PeerId> {
        self.open.as_ref().map(AddSession::holders).unwrap_or_default()
    }

    async fn put(&mut self, blocks: Vec<Block>) -> Result<(), CommandError> {
        let mut cuts = Vec::with_capacity(blocks.len());
        for block in blocks {
            let Some(cutter) = &mut self.cutter else { return Err(CommandError::Stopping) };
            let cid = block.cid;
            cutter.push(block, &mut cuts).map_err(|error| CommandError::Failed(format!("cutting at {cid}: {error}")))?;
        }
        let mut run: Vec<Block> = Vec::with_capacity(cuts.len());
        for cut in cuts {
            match cut {
                Cut::Block(block) => run.push(block),
                other => {
                    if !run.is_empty() {
                        self.open().await?.put(std::mem::take(&mut run)).await?;
                    }
                    self.take(other).await?;
                }
            }
        }
        if run.is_empty() { Ok(()) } else { self.open().await?.put(run).await }
    }

    async fn finish(mut self: Box<Self>, root: Cid, options: PinOptions, size: ByteCount, pin: bool) -> Result<Pin, CommandError> {
        let Some(cutter) = self.cutter.take() else { return Err(CommandError::Stopping) };
        let end = cutter.finish().map_err(|error| CommandError::Failed(format!("listing the last shard: {error}")))?;
        match end {
            End::Whole => {
                self.is_finished = true;
                let Some(open) = self.open.take() else { return Err(CommandError::Stopping) };
                Box::new(open).finish(root, options, size, pin).await
            }
            End::Parts { last, spine } if pin => {
                let options = PinOptions { replicas: self.wish.replicas, shard_size: self.limit.get(), ..options };
                let pin = self.finish_cut(root, options, size, last, spine).await?;
                self.is_finished = true;
                Ok(pin)
            }
            // Without a pin its units end with this session.
            End::Parts { .. } => Ok(unpinned(root, options, Vec::new(), self.core.now().wall)),
        }
    }
}

impl Drop for ShardedAdd {
    /// An add that broke off takes its units along.
    fn drop(&mut self) {
        if self.is_finished {
            return;
        }
        let mut closing = std::mem::take(&mut self.closing);
        let mut units: Vec<Cid> = self.units.iter().map(|unit| unit.cid).collect();
        let (core, add) = (self.core.clone(), self.name.clone());
        if (units.is_empty() && closing.is_empty()) || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        tokio::spawn(async move {
            // What is being pinned just now is known only when that is done.
            while let Some(closed) = closing.join_next().await {
                units.extend(closed.ok().and_then(Result::ok).map(|unit| unit.cid));
            }
            core.command(Command::DropUnits { add, units }).await;
        });
    }
}
