//! Taking the blocks of others' adds over block lanes (`/pinfold/blocks/1`).
//!
//! A lane belongs to an add at its sender. Its blocks are held for an owner that both can name ([`lane_owner`]), so they outlive the lane:
//! until the pin that takes them over is written and the owner released, or nothing of that add has come for [`ABANDONED`](net::blockstream::ABANDONED).

use crate::node::Intake;
use async_trait::async_trait;
use bytes::Bytes;
use ipfs::{Block, PutError};
use net::blockstream::lane_owner;
use net::{LaneHeader, LaneReceiver, LaneRefusal, LaneSink};
use std::sync::Arc;
use types::{ByteCount, Cid, Owner, PeerId};

/// With less room than this no lane begins (or a 32nd of the limit, if that is less): it would break off soon.
const ROOM_LEAST: ByteCount = ByteCount(64 << 20);

/// The node's end of all lanes.
pub(crate) struct Lanes(pub(crate) Arc<Intake>);

#[async_trait]
impl LaneSink for Lanes {
    async fn begin(&self, from: PeerId, header: LaneHeader) -> Result<Box<dyn LaneReceiver>, LaneRefusal> {
        self.0.admits(&from, &header).check()?;
        let (free, limit) = self.0.room().await.map_err(LaneRefusal::Failed)?;
        if free < ROOM_LEAST.min(ByteCount(limit.get() / 32)) {
            return Err(LaneRefusal::NoRoom { free });
        }
        let owner = lane_owner(&header.cluster_peer, header.lease);
        self.0.keep_open(&owner);
        Ok(Box::new(Lane { intake: self.0.clone(), from, header, owner }))
    }
}

struct Lane {
    intake: Arc<Intake>,
    from: PeerId,
    header: LaneHeader,
    owner: Owner,
}

#[async_trait]
impl LaneReceiver for Lane {
    async fn put(&mut self, batch: Vec<(Cid, Bytes)>) -> Result<(), LaneRefusal> {
        // Trust may end while a lane is open.
        self.intake.admits(&self.from, &self.header).check()?;
        let blocks = batch.into_iter().map(|(cid, data)| Block { cid, data }).collect();
        self.intake.put_foreign(&self.owner, blocks).await.map_err(|error| match error {
            PutError::NoRoom { free, .. } => LaneRefusal::NoRoom { free },
            other => LaneRefusal::Failed(other.to_string()),
        })
    }
}
