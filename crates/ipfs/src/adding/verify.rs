//! Blocks that others made, verified on all cores, given back in their order.

use crate::Block;
use dag::HashMismatch;
use futures::stream::{FuturesOrdered, StreamExt};
use tokio::task::JoinHandle;

/// Bytes that are verified in one go on one core: about a millisecond.
const PORTION: usize = 1 << 20;
/// Blocks that are, however small.
const PORTION_BLOCKS: usize = 1024;

/// Why blocks did not come back.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// One of them is not what its CID says.
    #[error(transparent)]
    Mismatch(#[from] HashMismatch),
    /// A worker ended early: the process is stopping.
    #[error("verifying was interrupted")]
    Interrupted,
}

/// Takes blocks, gives them back verified. At most two portions for each core are on their way, so memory is bounded.
pub struct Verifier {
    gathered: Vec<Block>,
    bytes: usize,
    on_their_way: FuturesOrdered<JoinHandle<Result<Vec<Block>, HashMismatch>>>,
    window: usize,
}

impl Default for Verifier {
    fn default() -> Verifier {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Verifier { gathered: Vec::new(), bytes: 0, on_their_way: FuturesOrdered::new(), window: 2 * cores }
    }
}

impl Verifier {
    /// Takes the next block; what has become ready comes back, in order, mostly nothing.
    pub async fn push(&mut self, block: Block) -> Result<Vec<Block>, VerifyError> {
        self.bytes += block.data.len();
        self.gathered.push(block);
        if self.bytes < PORTION && self.gathered.len() < PORTION_BLOCKS {
            return Ok(Vec::new());
        }
        let ready = if self.on_their_way.len() >= self.window { self.next().await? } else { None };
        self.begin_portion();
        Ok(ready.unwrap_or_default())
    }

    /// The next blocks after the last push; none when all came back.
    pub async fn finish(&mut self) -> Result<Option<Vec<Block>>, VerifyError> {
        self.begin_portion();
        self.next().await
    }

    fn begin_portion(&mut self) {
        let blocks = std::mem::take(&mut self.gathered);
        self.bytes = 0;
        if !blocks.is_empty() {
            self.on_their_way.push_back(tokio::task::spawn_blocking(move || {
                blocks.iter().try_for_each(|block| dag::verify(&block.cid, &block.data))?;
                Ok(blocks)
            }));
        }
    }

    async fn next(&mut self) -> Result<Option<Vec<Block>>, VerifyError> {
        match self.on_their_way.next().await {
            None => Ok(None),
            Some(portion) => Ok(Some(portion.map_err(|_| VerifyError::Interrupted)??)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::sample::{leaf, raw};
    use bytes::Bytes;

    async fn through(blocks: &[Block]) -> Result<Vec<Block>, VerifyError> {
        let (mut verifier, mut back) = (Verifier::default(), Vec::new());
        for block in blocks {
            back.extend(verifier.push(block.clone()).await?);
        }
        while let Some(more) = verifier.finish().await? {
            back.extend(more);
        }
        Ok(back)
    }

    #[tokio::test]
    async fn blocks_come_back_in_their_order() {
        assert_eq!(through(&[]).await.unwrap(), []);
        let mut blocks: Vec<Block> = (0..3000).map(leaf).collect();
        blocks.extend((0..20u8).map(|n| raw(Bytes::from(vec![n; 400_000]))));
        assert_eq!(through(&blocks).await.unwrap(), blocks);
    }

    #[tokio::test]
    async fn a_forged_block_is_named() {
        let mut blocks: Vec<Block> = (0..10).map(leaf).collect();
        blocks[7].data = Bytes::from_static(b"something else");
        let cid = blocks[7].cid;
        assert!(matches!(through(&blocks).await, Err(VerifyError::Mismatch(HashMismatch::Differs { cid: named })) if named == cid));
    }
}
