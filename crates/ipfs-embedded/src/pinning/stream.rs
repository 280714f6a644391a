//! A pin of what only a gateway has: its blocks come as one stream, where the gateway gives such.
//!
//! The walk goes along with the stream: a block is taken when the walk has met it and it is missing. What does not come, because the stream
//! ends early or is not in the walk's order, is fetched block by block afterwards.

use super::{Fetched, Pinning};
use ipfs::walk::{Visit, Walk};
use ipfs::{Block, PinError};
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use types::Depth;

/// Without any block that is wanted for so long, the stream is left.
const QUIET: Duration = Duration::from_secs(10);
/// So many blocks are looked for ahead of the stream.
const AHEAD: usize = 1024;
/// Blocks in a row that the walk has not met.
const STRAYS_MOST: usize = 1024;

impl Pinning {
    /// Takes what a gateway streams of the DAG, when it was the one that gave the root.
    pub(super) async fn stream_from_gateway(&mut self) -> Result<(), PinError> {
        // Once: a stream begins at the root each time.
        if self.size.blocks != 1 || self.task.depth != Depth::Recursive || std::mem::replace(&mut self.was_streamed, true) {
            return Ok(());
        }
        let Some(mut car) = (match &self.fetcher {
            Some(fetcher) => fetcher.car(&self.task.cid).await,
            None => None,
        }) else {
            return Ok(());
        };
        let (mut useful, mut strays) = (Instant::now(), 0);
        while strays < STRAYS_MOST
            && let Ok(Some(blocks)) = tokio::time::timeout_at((useful + QUIET).into(), car.next()).await
        {
            let mut taken: Vec<Fetched> = Vec::new();
            for block in blocks {
                match self.visit_of(&block, &mut taken).await? {
                    Some(visit) => {
                        taken.push((visit, Ok(block.data)));
                        (useful, strays) = (Instant::now(), 0);
                    }
                    None => strays += 1,
                }
            }
            self.store_fetched(taken).await?;
            self.tell();
        }
        Ok(())
    }

    /// The visit that wants the block. When none does yet, the walk goes on, with all that was taken before.
    async fn visit_of(&mut self, block: &Block, taken: &mut Vec<Fetched>) -> Result<Option<Visit>, PinError> {
        loop {
            if let Some(visit) = take_from(&mut self.wanted, block) {
                return Ok(Some(visit));
            }
            self.store_fetched(std::mem::take(taken)).await?;
            if self.wanted.len() >= AHEAD || !self.walk.as_ref().is_some_and(Walk::has_more) {
                return Ok(None);
            }
            self.walk_here().await?;
        }
    }
}

/// What the walk met last is what comes next.
fn take_from(wanted: &mut VecDeque<Visit>, block: &Block) -> Option<Visit> {
    let place = wanted.iter().rposition(|visit| visit.cid == block.cid)?;
    wanted.remove(place)
}
