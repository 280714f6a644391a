//! The blocks of an add that a Go peer sends here. They are kept until their pin has come and is held, or for the lease.

use super::Side;
use crate::handle::Live;
use ipfs::{Block, IpfsNode};
use net::gorpc::{Arguments, Failure};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::broadcast::error::RecvError;
use types::{Cid, Owner};
use wire::rpc::BlockWithMeta;

/// Blocks are stored in batches of so many bytes: each batch is made durable once.
const BATCH_BYTES: usize = 1 << 20;
/// And of at most so many blocks.
const BATCH_BLOCKS: usize = 1024;
/// The root is among the last blocks of an add: Go sends it again, then an empty directory and a wrapper.
const LAST: usize = 8;
/// Leases kept after their stream ended; beyond it the oldest goes early.
const LEASES_MOST: usize = 20_000;
/// Between two looks for leases that are over.
const LOOK: Duration = Duration::from_secs(5);
/// Apart from the numbers of the machine's adds (small) and of lanes (highest bit).
const FIRST_NUMBER: u64 = 1 << 62;

/// Adds of Go peers whose pin has not come.
pub(super) struct Leases {
    node: Arc<dyn IpfsNode>,
    lease: Duration,
    next: AtomicU64,
    ended: Mutex<Ended>,
}

/// Leases of streams that ended, oldest first, and by the blocks that may be their root.
#[derive(Default)]
struct Ended {
    leases: BTreeMap<u64, (Instant, VecDeque<Cid>)>,
    by_root: BTreeMap<Cid, BTreeSet<u64>>,
}

impl Ended {
    fn insert(&mut self, number: u64, until: Instant, last: VecDeque<Cid>) {
        for cid in &last {
            self.by_root.entry(*cid).or_default().insert(number);
        }
        self.leases.insert(number, (until, last));
    }

    fn remove(&mut self, number: u64) {
        let Some((_, last)) = self.leases.remove(&number) else { return };
        for cid in last {
            if let Some(numbers) = self.by_root.get_mut(&cid) {
                numbers.remove(&number);
                if numbers.is_empty() {
                    self.by_root.remove(&cid);
                }
            }
        }
    }

    fn over(&self, now: Instant) -> Vec<u64> {
        let surplus = self.leases.len().saturating_sub(LEASES_MOST);
        let numbered = self.leases.iter().enumerate();
        numbered.filter(|(at, (_, (until, _)))| *at < surplus || *until <= now).map(|(_, (number, _))| *number).collect()
    }

    fn of_root(&self, cid: &Cid) -> Vec<u64> {
        self.by_root.get(cid).map(|numbers| numbers.iter().copied().collect()).unwrap_or_default()
    }
}

/// One add while its stream runs; its lease runs from its end, however it ends.
struct Intake<'a> {
    leases: &'a Leases,
    number: u64,
    last: VecDeque<Cid>,
}

impl Drop for Intake<'_> {
    fn drop(&mut self) {
        let until = Instant::now() + self.leases.lease;
        self.leases.ended.lock().insert(self.number, until, std::mem::take(&mut self.last));
    }
}

impl Leases {
    pub(super) fn new(node: Arc<dyn IpfsNode>, lease: Duration) -> Leases {
        Leases { node, lease, next: AtomicU64::new(FIRST_NUMBER), ended: Mutex::default() }
    }

    /// Stores the blocks of one stream.
    pub(super) async fn take(&self, arguments: &mut Arguments) -> Result<(), Failure> {
        let Some(first) = arguments.next().await? else {
            return Err(Failure::method("BlockStream: no blocks to peek in block channel"));
        };
        let mut intake = Intake { leases: self, number: self.next.fetch_add(1, Ordering::Relaxed), last: VecDeque::new() };
        let mut batch = Vec::new();
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(argument) = next {
            let block = read(&argument)?;
            bytes += block.data.len();
            batch.push(block);
            if bytes >= BATCH_BYTES || batch.len() >= BATCH_BLOCKS {
                intake.store(std::mem::take(&mut batch)).await?;
                bytes = 0;
            }
            next = arguments.next().await?;
        }
        intake.store(batch).await
    }

    async fn release(&self, number: u64) {
        self.ended.lock().remove(number);
        if let Err(error) = self.node.release(&Owner::Adding(number)).await {
            tracing::warn!(%error, "letting go of the blocks of a Go peer's add");
        }
    }

    async fn root_held(&self, cid: &Cid) {
        let numbers = self.ended.lock().of_root(cid);
        if numbers.is_empty() {
            return;
        }
        let held = self.node.pin_of(cid).await.ok().flatten();
        if held.is_some_and(|held| held.owners.iter().any(|(owner, ..)| matches!(owner, Owner::Cluster(_)))) {
            for number in numbers {
                self.release(number).await;
            }
        }
    }

    async fn let_go_of_old(&self) {
        let over = self.ended.lock().over(Instant::now());
        for number in over {
            self.release(number).await;
        }
    }

    /// Adds whose stream ended and whose lease runs.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.ended.lock().leases.len()
    }
}

impl Intake<'_> {
    async fn store(&mut self, batch: Vec<Block>) -> Result<(), Failure> {
        for block in &batch {
            self.last.push_back(block.cid);
            if self.last.len() > LAST {
                self.last.pop_front();
            }
        }
        self.leases.node.put(&Owner::Adding(self.number), batch).await.map_err(Failure::method)
    }
}

fn read(argument: &[u8]) -> Result<Block, Failure> {
    let block: BlockWithMeta = wire::rpc::decode(argument).map_err(Failure::argument)?;
    let cid = block.cid.ok_or_else(|| Failure::argument("a block without a CID"))?;
    // The node refuses data that is not what the CID says.
    Ok(Block { cid, data: block.data.into() })
}

/// Ends leases: at once when the root is held, else when they are over.
pub(super) async fn let_go(side: Arc<Side>) {
    let mut live = side.cluster.live();
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            event = live.recv() => match event {
                Ok(Live::Pin(cid)) => side.leases.root_held(&cid).await,
                // What was missed costs the space until the lease is over.
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
            _ = look.tick() => side.leases.let_go_of_old().await,
        }
    }
}
