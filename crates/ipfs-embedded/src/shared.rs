//! What the tasks and the blocking threads of one node share: the disk side, without any network.
//!
//! Everything here blocks its thread; [`on_disk`] brings it there.

use crate::error::{Damage, check, put_error};
use crate::safety::Safety;
use bytes::Bytes;
use dag::block::inline_data;
use ipfs::held::HeldPins;
use ipfs::{Block, PutError};
use parking_lot::Mutex;
use std::sync::Arc;
use store::PackStore;
use store::packs::PackError;
use types::{Cid, UnixMillis};

/// Above so many bytes blocks are verified on several cores: about a millisecond on one.
const VERIFY_PORTION: usize = 1 << 20;

pub(crate) struct Shared {
    pub(crate) packs: Arc<PackStore>,
    pub(crate) held: Arc<HeldPins>,
    pub(crate) safety: Arc<Safety>,
    pub(crate) clock: Arc<dyn Fn() -> UnixMillis + Send + Sync>,
    /// Held by the collection that runs.
    pub(crate) collecting: Mutex<()>,
}

impl Shared {
    /// A block of this disk.
    pub(crate) fn read(&self, cid: &Cid) -> Result<Option<Bytes>, Damage> {
        if let Some(data) = inline_data(cid) {
            return Ok(Some(Bytes::copy_from_slice(data)));
        }
        Ok(self.packs.get(&cid.hash().to_bytes())?)
    }

    pub(crate) fn has(&self, cids: &[Cid]) -> Result<Vec<bool>, PackError> {
        let keys: Vec<Vec<u8>> = cids.iter().map(|cid| cid.hash().to_bytes()).collect();
        let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        let mut has = self.packs.has_many(&keys)?;
        for (cid, has) in cids.iter().zip(&mut has) {
            *has |= inline_data(cid).is_some();
        }
        Ok(has)
    }

    /// Appends blocks that match their CIDs; durable after the next sync. With `touch` a collection leaves them alone until the lease ends
    /// under which the caller runs.
    pub(crate) fn append(&self, blocks: &[Block], touch: bool) -> Result<(), PutError> {
        let keys: Vec<Vec<u8>> = blocks.iter().map(|block| block.cid.hash().to_bytes()).collect();
        if touch {
            self.safety.touch(&keys);
        }
        let stored = blocks.iter().zip(&keys).filter(|(block, _)| inline_data(&block.cid).is_none());
        let records: Vec<(&[u8], &[u8])> = stored.map(|(block, key)| (&key[..], &block.data[..])).collect();
        self.packs.put(&records).map_err(put_error)?;
        Ok(())
    }

    pub(crate) fn sync(&self) -> Result<(), PutError> {
        self.packs.sync().map_err(|error| put_error(error.into()))
    }

    /// Puts right data in the place of a damaged block; durable after the next sync.
    pub(crate) fn replace(&self, block: &Block) -> Result<(), PutError> {
        let key = block.cid.hash().to_bytes();
        self.packs.delete(&[&key]).map_err(|error| put_error(error.into()))?;
        self.append(std::slice::from_ref(block), false)
    }

    /// Appends and syncs on a blocking thread; the CIDs of the blocks.
    pub(crate) async fn store(self: &Arc<Self>, blocks: Vec<Block>, touch: bool) -> Result<Vec<Cid>, PutError> {
        let shared = self.clone();
        on_disk(move || {
            shared.append(&blocks, touch)?;
            shared.sync()?;
            Ok(blocks.iter().map(|block| block.cid).collect())
        })
        .await
    }
}

/// Runs blocking work on a thread that may block. Work that has begun goes on when its caller is dropped.
pub(crate) async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime stops: nobody will look at an answer any more.
            Err(_) => std::future::pending().await,
        },
    }
}

/// Checks blocks against their CIDs, many bytes on several cores; gives them back.
pub(crate) async fn verified(blocks: Vec<Block>) -> Result<Vec<Block>, PutError> {
    let check_all = |blocks: &[Block]| blocks.iter().try_for_each(|block| check(&block.cid, &block.data));
    let bytes: usize = blocks.iter().map(|block| block.data.len()).sum();
    let blocks = Arc::new(blocks);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let parts = (bytes / VERIFY_PORTION).clamp(1, cores).min(blocks.len().max(1));
    let size = blocks.len().div_ceil(parts).max(1);
    let checks = (0..blocks.len()).step_by(size).map(|start| {
        let blocks = blocks.clone();
        on_disk(move || check_all(&blocks[start..(start + size).min(blocks.len())]))
    });
    futures::future::try_join_all(checks).await?;
    Ok(Arc::try_unwrap(blocks).unwrap_or_else(|shared| shared.to_vec()))
}
