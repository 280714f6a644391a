//! Blocks, a few ahead of need.

use super::answer::Trouble;
use bytes::Bytes;
use ipfs::{BlockError, IpfsNode, Source};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::task::AbortOnDropHandle;
use types::Cid;

/// Blocks fetched ahead: 2 MiB of usual ones, 16 MiB at worst.
pub(super) const AHEAD: usize = 8;
/// How long one block may take.
const BLOCK_LIMIT: Duration = Duration::from_secs(30);

/// Gets blocks of one answer. What was begun and is not needed any more is called off with it.
pub(super) struct Fetcher {
    node: Arc<dyn IpfsNode>,
    source: Source,
    ahead: HashMap<Cid, AbortOnDropHandle<Result<Bytes, BlockError>>>,
}

impl Fetcher {
    pub fn new(node: Arc<dyn IpfsNode>, source: Source) -> Fetcher {
        Fetcher { node, source, ahead: HashMap::new() }
    }

    pub fn node(&self) -> &dyn IpfsNode {
        &*self.node
    }

    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The block.
    pub async fn get(&self, cid: &Cid) -> Result<Bytes, Trouble> {
        let got = crate::path::block(&*self.node, cid, &self.source);
        Ok(tokio::time::timeout(BLOCK_LIMIT, got).await.map_err(|_| Trouble::late(cid))??)
    }

    /// The block, while those that will be needed next are already on their way.
    pub async fn get_with_next(&mut self, cid: &Cid, next: Vec<Cid>) -> Result<Bytes, Trouble> {
        let begun = self.ahead.remove(cid);
        for cid in next {
            if self.ahead.len() >= AHEAD {
                break;
            }
            self.ahead.entry(cid).or_insert_with(|| {
                let (node, source) = (self.node.clone(), self.source.clone());
                AbortOnDropHandle::new(tokio::spawn(async move { node.get(&cid, &source).await }))
            });
        }
        let Some(begun) = begun else { return self.get(cid).await };
        match tokio::time::timeout(BLOCK_LIMIT, begun).await {
            Ok(Ok(got)) => Ok(got?),
            // The runtime is stopping.
            Ok(Err(_)) => self.get(cid).await,
            Err(_) => Err(Trouble::late(cid)),
        }
    }
}
