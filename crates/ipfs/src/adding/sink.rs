//! Where the blocks of an add go.

use crate::{Block, IpfsNode, PutError};
use async_trait::async_trait;
use std::error::Error;
use std::sync::Arc;
use tokio::task::JoinSet;
use types::Owner;

/// Why a sink took no more; callers that must tell kinds apart know which sink it was and downcast.
pub type SinkError = Box<dyn Error + Send + Sync>;

/// Puts on their way to a node at once: one is written while the one before becomes durable.
const PUTS_AT_ONCE: usize = 3;

/// Takes the blocks of an add, in order.
#[async_trait]
pub trait BlockSink: Send {
    /// Takes blocks that were hashed here. Returning means that they are on their way, not that they are durable; it waits when the
    /// sink is behind its bound. After an error the add is over.
    async fn put(&mut self, blocks: Vec<Block>) -> Result<(), SinkError>;
}

/// Gathers everything, for tests and small things.
#[async_trait]
impl BlockSink for Vec<Block> {
    async fn put(&mut self, blocks: Vec<Block>) -> Result<(), SinkError> {
        self.extend(blocks);
        Ok(())
    }
}

/// A node as a sink, on the account of one owner; several puts overlap.
pub struct NodeSink {
    node: Arc<dyn IpfsNode>,
    owner: Owner,
    puts: JoinSet<Result<(), PutError>>,
}

impl NodeSink {
    /// A sink into `node`.
    pub fn new(node: Arc<dyn IpfsNode>, owner: Owner) -> NodeSink {
        NodeSink { node, owner, puts: JoinSet::new() }
    }

    /// Waits until every block is durable. Without it, dropping the sink calls off what is still on its way.
    pub async fn finish(mut self) -> Result<(), PutError> {
        while !self.puts.is_empty() {
            self.end_one().await?;
        }
        Ok(())
    }

    async fn end_one(&mut self) -> Result<(), PutError> {
        match self.puts.join_next().await {
            Some(Ok(put)) => put,
            Some(Err(stopped)) => Err(PutError::Storage(stopped.to_string())),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl BlockSink for NodeSink {
    async fn put(&mut self, blocks: Vec<Block>) -> Result<(), SinkError> {
        while self.puts.len() >= PUTS_AT_ONCE {
            self.end_one().await?;
        }
        let (node, owner) = (self.node.clone(), self.owner.clone());
        self.puts.spawn(async move { node.put_hashed(&owner, blocks).await });
        Ok(())
    }
}
