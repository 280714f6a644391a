//! A whole node in memory: for tests of what stands on a node, for the simulator, and as the plainest reading of the promises.
//!
//! Nodes that know each other ([`MemoryNode::meet`]) fetch from each other, as if over a network without delay. Everything
//! happens under one lock; a pin gives way to other tasks now and then, so that it can be cancelled as on a real node.

mod state;

use self::state::State;
use crate::walk::Walk;
use crate::{
    Block, BlockError, Blocks, HeldPin, NodeInfo, PinError, PinProgress, PinTask, Pinned, Pins, Progress, PutError, Source, Space,
};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{SystemTime, UNIX_EPOCH};
use types::{ByteCount, Cid, Depth, Owner, PeerId, UnixMillis};

/// How many blocks a pin takes before other tasks get their turn.
const BLOCKS_PER_TURN: u64 = 16;

/// What a node in memory is like.
#[derive(Clone)]
pub struct MemoryOptions {
    /// Its id on the network of nodes in memory.
    pub id: Option<PeerId>,
    /// The most bytes of blocks it takes.
    pub limit: ByteCount,
    /// Wall time, for the age of pins.
    pub clock: Arc<dyn Fn() -> UnixMillis + Send + Sync>,
}

impl Default for MemoryOptions {
    fn default() -> MemoryOptions {
        MemoryOptions { id: None, limit: ByteCount(u64::MAX), clock: Arc::new(wall_time) }
    }
}

/// A node in memory.
pub struct MemoryNode {
    options: MemoryOptions,
    state: Mutex<State>,
    others: Mutex<BTreeMap<PeerId, Weak<MemoryNode>>>,
    reachable: AtomicBool,
}

impl MemoryNode {
    /// An empty node without limit and network.
    pub fn new() -> Arc<MemoryNode> {
        MemoryNode::with(MemoryOptions::default())
    }

    /// An empty node.
    pub fn with(options: MemoryOptions) -> Arc<MemoryNode> {
        let state = Mutex::new(State::new(options.limit));
        Arc::new(MemoryNode { options, state, others: Mutex::default(), reachable: AtomicBool::new(true) })
    }

    /// Makes two nodes known to each other; both need an id.
    pub fn meet(self: &Arc<Self>, other: &Arc<MemoryNode>) {
        if let (Some(own), Some(its)) = (self.options.id, other.options.id) {
            self.others.lock().insert(its, Arc::downgrade(other));
            other.others.lock().insert(own, Arc::downgrade(self));
        }
    }

    /// Takes the node off the network, or puts it back; it keeps what it has.
    pub fn set_reachable(&self, reachable: bool) {
        self.reachable.store(reachable, Ordering::Relaxed);
    }

    /// Removes a stored block behind the node's back, for tests of what stands on it.
    pub fn lose(&self, cid: &Cid) {
        self.state.lock().lose(cid);
    }

    /// From the other nodes, the holders first; how many were asked.
    fn fetch(&self, cid: &Cid, holders: &[PeerId]) -> Result<Bytes, u32> {
        if !self.reachable.load(Ordering::Relaxed) {
            return Err(0);
        }
        let others = self.others.lock().clone();
        let first = holders.iter().filter_map(|holder| others.get(holder));
        let rest = others.iter().filter(|(id, _)| !holders.contains(id)).map(|(_, other)| other);
        let mut asked = 0;
        for other in first.chain(rest).filter_map(Weak::upgrade) {
            if !other.reachable.load(Ordering::Relaxed) {
                continue;
            }
            asked += 1;
            if let Some(data) = other.state.lock().get(cid) {
                return Ok(data);
            }
        }
        Err(asked)
    }

    /// Brings what `cid` needs here and counts it.
    async fn complete(&self, task: &PinTask, progress: &Progress) -> Result<Pinned, PinError> {
        let mut walk = Walk::new(task.cid, task.depth);
        let mut size = Pinned { blocks: 0, bytes: ByteCount::ZERO };
        let mut missing = Vec::new();
        let mut seen = 0;
        while let Some(visit) = walk.next_visit() {
            let cid = visit.cid;
            if seen % BLOCKS_PER_TURN == 0 {
                tokio::task::yield_now().await;
            }
            seen += 1;
            match self.take(&cid, &task.source) {
                Ok(data) => {
                    if visit.is_first {
                        size.blocks += 1;
                        size.bytes += ByteCount(data.len() as u64);
                    }
                    walk.got(&visit, &data).map_err(|error| PinError::Malformed { cid, reason: error.to_string() })?;
                }
                Err(TakeError::Missing) => missing.push(cid),
                Err(TakeError::NoRoom { needed, free }) => return Err(PinError::NoRoom { cid: task.cid, needed, free }),
            }
            progress.send_replace(PinProgress { blocks: size.blocks, bytes: size.bytes, missing: missing.len() as u64 });
        }
        if missing.is_empty() {
            return Ok(size);
        }
        missing.truncate(100);
        Err(PinError::Missing { cid: task.cid, missing, asked: String::new() })
    }

    /// The block from here, or fetched and kept.
    fn take(&self, cid: &Cid, source: &Source) -> Result<Bytes, TakeError> {
        if let Some(data) = self.state.lock().get(cid) {
            return Ok(data);
        }
        if source.local_only {
            return Err(TakeError::Missing);
        }
        let data = self.fetch(cid, &source.holders).map_err(|_asked| TakeError::Missing)?;
        match self.state.lock().put(&Owner::User, vec![Block { cid: *cid, data: data.clone() }]) {
            Ok(()) => Ok(data),
            Err(PutError::NoRoom { needed, free }) => Err(TakeError::NoRoom { needed, free }),
            Err(_) => Err(TakeError::Missing),
        }
    }
}

enum TakeError {
    Missing,
    NoRoom { needed: ByteCount, free: ByteCount },
}

#[async_trait]
impl Blocks for MemoryNode {
    async fn put(&self, owner: &Owner, blocks: Vec<Block>) -> Result<(), PutError> {
        for block in &blocks {
            check(block)?;
        }
        self.state.lock().put(owner, blocks)
    }

    async fn release(&self, owner: &Owner) -> Result<(), PutError> {
        self.state.lock().release(owner);
        Ok(())
    }

    async fn get(&self, cid: &Cid, source: &Source) -> Result<Bytes, BlockError> {
        if let Some(data) = self.state.lock().get(cid) {
            return Ok(data);
        }
        if source.local_only {
            return Err(BlockError::NotLocal { cid: *cid });
        }
        self.fetch(cid, &source.holders).map_err(|asked| BlockError::NotFound { cid: *cid, asked })
    }

    async fn has(&self, cids: &[Cid]) -> Result<Vec<bool>, BlockError> {
        let state = self.state.lock();
        Ok(cids.iter().map(|cid| state.get(cid).is_some()).collect())
    }

    async fn collect_garbage(&self) -> Result<ByteCount, BlockError> {
        Ok(self.state.lock().collect_garbage())
    }
}

#[async_trait]
impl Pins for MemoryNode {
    async fn pin(&self, task: PinTask, progress: Progress) -> Result<Pinned, PinError> {
        // The running pin keeps what it has found and fetched, until it is written or dropped.
        let running = Running::begin(self, &task);
        let size = self.complete(&task, &progress).await?;
        let size = self.state.lock().keep(&task, size, (self.options.clock)());
        drop(running);
        Ok(size)
    }

    async fn pin_here(&self, owner: &Owner, pins: &[(Cid, Depth)]) -> Result<Vec<Option<Pinned>>, PinError> {
        let mut kept = Vec::with_capacity(pins.len());
        for (cid, depth) in pins {
            let task = PinTask { owner: owner.clone(), cid: *cid, depth: *depth, source: Source::local() };
            kept.push(self.pin(task, Progress::default()).await.ok());
        }
        Ok(kept)
    }

    async fn unpin(&self, owner: &Owner, cid: &Cid) -> Result<(), PinError> {
        self.state.lock().let_go(owner, cid);
        Ok(())
    }

    async fn pins(&self, after: Option<Cid>, limit: usize) -> Result<Vec<HeldPin>, PinError> {
        Ok(self.state.lock().pins(after, limit))
    }

    async fn pin_of(&self, cid: &Cid) -> Result<Option<HeldPin>, PinError> {
        Ok(self.state.lock().pin_of(cid))
    }
}

#[async_trait]
impl NodeInfo for MemoryNode {
    fn id(&self) -> Option<PeerId> {
        self.options.id
    }

    async fn addresses(&self) -> Vec<String> {
        self.options.id.iter().map(|id| format!("/memory/0/p2p/{id}")).collect()
    }

    async fn space(&self) -> Result<Space, BlockError> {
        Ok(self.state.lock().space())
    }

    async fn connect(&self, _addresses: &[String]) {}
}

/// A pin that runs: registered while this lives.
struct Running<'a> {
    node: &'a MemoryNode,
    number: u64,
}

impl<'a> Running<'a> {
    fn begin(node: &'a MemoryNode, task: &PinTask) -> Running<'a> {
        Running { node, number: node.state.lock().begin_pin(task) }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.node.state.lock().end_pin(self.number);
    }
}

fn check(block: &Block) -> Result<(), PutError> {
    let cid = block.cid;
    dag::verify(&cid, &block.data).map_err(|error| match error {
        dag::HashMismatch::Differs { .. } => PutError::Mismatch { cid },
        other => PutError::Refused { cid, reason: other.to_string() },
    })
}

fn wall_time() -> UnixMillis {
    UnixMillis(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::IpfsNode;
    use crate::conformance::{self, sample};

    #[tokio::test]
    async fn keeps_the_promises_of_a_node() {
        conformance::all(|| async { MemoryNode::new() as Arc<dyn IpfsNode> }).await;
    }

    #[tokio::test]
    async fn keeps_the_promises_about_fetching() {
        conformance::all_fetching(|| async {
            let [one, two] = [1, 2].map(|number| {
                let id = Some(PeerId::from_ed25519(&[number; 32]));
                MemoryNode::with(MemoryOptions { id, ..MemoryOptions::default() })
            });
            one.meet(&two);
            (one as Arc<dyn IpfsNode>, two as Arc<dyn IpfsNode>)
        })
        .await;
    }

    #[tokio::test]
    async fn refuses_above_its_limit() {
        let node = MemoryNode::with(MemoryOptions { limit: ByteCount(4 << 20), ..MemoryOptions::default() });
        conformance::limit_refuses_with_numbers(&*node).await;
    }

    #[tokio::test]
    async fn an_unreachable_node_is_not_asked() {
        let [one, two] = [1, 2].map(|number| {
            let id = Some(PeerId::from_ed25519(&[number; 32]));
            MemoryNode::with(MemoryOptions { id, ..MemoryOptions::default() })
        });
        one.meet(&two);
        let block = sample::leaf(1);
        two.put(&Owner::User, vec![block.clone()]).await.unwrap();
        two.set_reachable(false);
        assert!(matches!(one.get(&block.cid, &Source::default()).await, Err(BlockError::NotFound { asked: 0, .. })));
        two.set_reachable(true);
        assert_eq!(one.get(&block.cid, &Source::default()).await.unwrap(), block.data);
        two.lose(&block.cid);
        assert!(matches!(one.get(&block.cid, &Source::default()).await, Err(BlockError::NotFound { asked: 1, .. })));
    }
}
