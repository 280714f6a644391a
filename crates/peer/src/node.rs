//! The cluster as one node: reads come from here or from the members' nodes, a pin is a pin of the cluster.
//!
//! What gateways and other doors stand on. Blocks put here stay on the own node until a pin places them.

use crate::core::Core;
use crate::view;
use ::bytes::Bytes;
use async_trait::async_trait;
use cluster::{Answer, Command};
use ipfs::{Block, BlockError, Blocks, HeldPin, NodeInfo, PinError, PinTask, Pinned, Pins, Progress, PutError, Source, Space};
use std::sync::Arc;
use std::time::Duration;
use types::{ByteCount, Cid, Owner, PeerId, PinOptions};

/// Members' nodes asked for a block at most.
const ASKED: usize = 32;
/// How long a block is looked for that only silent peers hold: somebody may have it by chance.
const OUT_OF_REACH: Duration = Duration::from_secs(1);

/// The cluster, seen as a node.
pub struct ClusterNode {
    core: Arc<Core>,
}

impl ClusterNode {
    /// Over a running core.
    pub fn new(core: Arc<Core>) -> ClusterNode {
        ClusterNode { core }
    }

    /// The named holders first, then every member's node; silent members only when `all` are to be asked.
    fn source(&self, asked: &Source, all: bool) -> Source {
        let mut holders = asked.holders.clone();
        let members = self.core.trust.members();
        let live: Vec<PeerId> = self.core.read(|machine, _| members.iter().filter(|member| machine.is_live(member)).copied().collect());
        for member in if all { members } else { live } {
            for node in self.core.trust.nodes_of(&member) {
                if holders.len() < ASKED && !holders.contains(&node) && Some(node) != self.core.node.id() {
                    holders.push(node);
                }
            }
        }
        Source { local_only: false, holders, ..asked.clone() }
    }
}

#[async_trait]
impl Blocks for ClusterNode {
    async fn put(&self, owner: &Owner, blocks: Vec<Block>) -> Result<(), PutError> {
        self.core.node.put(owner, blocks).await
    }

    async fn release(&self, owner: &Owner) -> Result<(), PutError> {
        self.core.node.release(owner).await
    }

    async fn get(&self, cid: &Cid, source: &Source) -> Result<Bytes, BlockError> {
        match self.core.node.get(cid, &Source::local()).await {
            Err(BlockError::NotLocal { .. } | BlockError::Corrupt { .. }) if !source.local_only => self.fetch(cid, source).await,
            other => other,
        }
    }

    async fn has(&self, cids: &[Cid]) -> Result<Vec<bool>, BlockError> {
        self.core.node.has(cids).await
    }

    async fn collect_garbage(&self) -> Result<ByteCount, BlockError> {
        self.core.node.collect_garbage().await
    }
}

fn failed(why: impl ToString) -> PinError {
    PinError::Storage(why.to_string())
}

#[async_trait]
impl Pins for ClusterNode {
    async fn pin(&self, task: PinTask, _progress: Progress) -> Result<Pinned, PinError> {
        let command = Command::Pin { cid: task.cid, options: PinOptions::default(), depth: task.depth, size: None, lease: None };
        match self.core.command(command).await {
            // Sizes are known to the holders, not to the wish.
            Some(Answer::Pinned(_)) => Ok(Pinned { blocks: 0, bytes: ByteCount::ZERO }),
            Some(Answer::Refused(why)) => Err(failed(why)),
            _ => Err(failed("this peer is stopping")),
        }
    }

    async fn unpin(&self, _owner: &Owner, cid: &Cid) -> Result<(), PinError> {
        match self.core.command(Command::Unpin { cid: *cid }).await {
            Some(Answer::Unpinned(_) | Answer::NotPinned) => Ok(()),
            Some(Answer::Refused(why)) => Err(failed(why)),
            _ => Err(failed("this peer is stopping")),
        }
    }

    async fn pins(&self, after: Option<Cid>, limit: usize) -> Result<Vec<HeldPin>, PinError> {
        let page = view::pins_after(self.core.consensus.view().as_ref(), after.as_ref(), limit);
        Ok(page.into_iter().map(|(pin, _)| self.held(&pin)).collect())
    }

    async fn pin_of(&self, cid: &Cid) -> Result<Option<HeldPin>, PinError> {
        let stored = self.core.consensus.view().get(store::Area::Pins, &cid.to_bytes()).map_err(failed)?;
        Ok(stored.and_then(|stored| view::read_pin(&cid.to_bytes(), &stored)).map(|(pin, _)| self.held(&pin)))
    }
}

impl ClusterNode {
    /// Asks the members that are heard of, then the others too. What only silent peers hold is said at once, with their names.
    async fn fetch(&self, cid: &Cid, source: &Source) -> Result<Bytes, BlockError> {
        if let Some(why) = self.core.reach.why_not(&self.core, cid).await {
            let all = self.source(source, true);
            return match tokio::time::timeout(OUT_OF_REACH, self.core.node.get(cid, &all)).await {
                Ok(Ok(data)) => Ok(data),
                _ => Err(BlockError::OutOfReach { cid: *cid, why }),
            };
        }
        match self.core.node.get(cid, &self.source(source, false)).await {
            Err(BlockError::NotFound { .. } | BlockError::NoProvider { .. }) => {
                match self.core.node.get(cid, &self.source(source, true)).await {
                    Err(missing @ (BlockError::NotFound { .. } | BlockError::NoProvider { .. })) => {
                        Err(match self.core.reach.suspects(&self.core) {
                            Some(why) => BlockError::OutOfReach { cid: *cid, why },
                            None => missing,
                        })
                    }
                    other => other,
                }
            }
            other => other,
        }
    }

    fn held(&self, pin: &types::Pin) -> HeldPin {
        HeldPin {
            cid: pin.cid,
            owners: vec![(self.core.owner.clone(), pin.depth, pin.created)],
            size: Pinned { blocks: 0, bytes: ByteCount::ZERO },
        }
    }
}

#[async_trait]
impl NodeInfo for ClusterNode {
    fn id(&self) -> Option<PeerId> {
        self.core.node.id()
    }

    async fn addresses(&self) -> Vec<String> {
        self.core.node.addresses().await
    }

    /// Summed over the members that said their numbers; not exact, since theirs are as old as their last word.
    async fn space(&self) -> Result<Space, BlockError> {
        let mut space = self.core.node.space().await?;
        for peer in self.core.read(|machine, now| machine.peers(now)) {
            if !peer.is_self {
                space.limit += peer.space_limit;
                space.used += peer.space_used;
                space.is_exact = false;
            }
        }
        Ok(space)
    }

    async fn connect(&self, addresses: &[String]) {
        self.core.node.connect(addresses).await;
    }
}
