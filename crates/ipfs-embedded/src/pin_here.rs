//! Many pins at once of what is here already: one short walk each, one write for all.
//!
//! Runs under a lease and touches every block before it looks for it, as a single pin does (`safety`). Everything here blocks its thread.

use crate::error::{pin_error, pin_put_error};
use crate::shared::Shared;
use ipfs::held::NewPin;
use ipfs::walk::Walk;
use ipfs::{PinError, Pinned};
use std::sync::Arc;
use types::{ByteCount, Cid, Depth, Owner};

/// Blocks walked in one call; what is behind them goes the long way, which tells how far it is and can be cancelled.
const BLOCKS_MOST: u64 = 4_096;

impl Shared {
    /// See `ipfs::Pins::pin_here`.
    pub(crate) fn pin_here(self: &Arc<Self>, owner: &Owner, pins: &[(Cid, Depth)]) -> Result<Vec<Option<Pinned>>, PinError> {
        if matches!(owner, Owner::Adding(_)) {
            return Err(PinError::Storage(format!("{owner} cannot hold a pin")));
        }
        let lease = self.safety.begin();
        let mut found = Vec::with_capacity(pins.len());
        let mut left = BLOCKS_MOST;
        for (cid, depth) in pins {
            found.push(self.whole(cid, *depth, &mut left)?);
        }
        let since = (self.clock)();
        let new_pin = |((cid, depth), size): (&(Cid, Depth), &Option<Pinned>)| {
            size.map(|size| NewPin { owner: owner.clone(), cid: *cid, depth: *depth, size, since })
        };
        let kept: Vec<NewPin> = pins.iter().zip(&found).filter_map(new_pin).collect();
        if let Some(first) = kept.first() {
            self.sync().map_err(|error| pin_put_error(&first.cid, error))?;
            self.held.keep_all(&kept).map_err(|error| pin_error(&first.cid, error))?;
        }
        drop(lease);
        Ok(found)
    }

    /// The size of a DAG of which every block is here; none for others and for one with more than `left` blocks.
    fn whole(&self, cid: &Cid, depth: Depth, left: &mut u64) -> Result<Option<Pinned>, PinError> {
        let mut walk = Walk::new(*cid, depth);
        let mut size = Pinned { blocks: 0, bytes: ByteCount::ZERO };
        while walk.has_more() {
            if *left == 0 {
                return Ok(None);
            }
            let round = match self.walk_round(&mut walk) {
                Ok(round) if round.missing.is_empty() => round,
                Ok(_) | Err(PinError::Malformed { .. }) => return Ok(None),
                Err(error) => return Err(error),
            };
            size.blocks += round.blocks;
            size.bytes += ByteCount(round.bytes);
            *left = left.saturating_sub(round.blocks);
        }
        Ok(Some(size))
    }
}
