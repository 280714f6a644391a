//! Taking the blocks of others' adds over block lanes (`/pinfold/blocks/1`).
//!
//! A lane belongs to an add at its sender. Its blocks are held for an owner that both can name ([`lane_owner`]), so they outlive the lane:
//! until the pin that takes them over is written and the owner released, or nothing of that add has come for [`ABANDONED`].

use crate::node::Intake;
use async_trait::async_trait;
use bytes::Bytes;
use ipfs::{Block, PutError};
use net::{LaneHeader, LaneReceiver, LaneRefusal, LaneSink};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;
use types::{ByteCount, Cid, Owner, PeerId};

/// An add of which nothing has come for so long is over.
pub const ABANDONED: Duration = Duration::from_secs(600);

/// With less room than this no lane begins (or a 32nd of the limit, if that is less): it would break off soon.
const ROOM_LEAST: ByteCount = ByteCount(64 << 20);

/// Who may send: the proven id of the sender's node, and what its header claims.
pub type LaneGate = Arc<dyn Fn(&PeerId, &LaneHeader) -> bool + Send + Sync>;

/// On whose account the blocks of a lane are held: the add `lease` of the peer `sender` (its id in the cluster).
pub fn lane_owner(sender: &PeerId, lease: u64) -> Owner {
    let mut hasher = DefaultHasher::new();
    (sender, lease).hash(&mut hasher);
    // Apart from the numbers of this process's own adds, which count up from zero.
    Owner::Adding(hasher.finish() | 1 << 63)
}

/// The node's end of all lanes.
pub(crate) struct Lanes(pub(crate) Arc<Intake>);

#[async_trait]
impl LaneSink for Lanes {
    async fn begin(&self, from: PeerId, header: LaneHeader) -> Result<Box<dyn LaneReceiver>, LaneRefusal> {
        if !self.0.is_allowed(&from, &header) {
            return Err(LaneRefusal::NotTrusted);
        }
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
        if !self.intake.is_allowed(&self.from, &self.header) {
            return Err(LaneRefusal::NotTrusted);
        }
        let blocks = batch.into_iter().map(|(cid, data)| Block { cid, data }).collect();
        self.intake.put_foreign(&self.owner, blocks).await.map_err(|error| match error {
            PutError::NoRoom { free, .. } => LaneRefusal::NoRoom { free },
            other => LaneRefusal::Failed(other.to_string()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_of_different_senders_have_different_owners() {
        let [one, two] = [1, 2].map(|number| PeerId::from_ed25519(&[number; 32]));
        assert_eq!(lane_owner(&one, 7), lane_owner(&one, 7));
        let owners: std::collections::BTreeSet<Owner> = [lane_owner(&one, 7), lane_owner(&two, 7), lane_owner(&one, 8)].into();
        assert_eq!(owners.len(), 3);
        assert!(!owners.contains(&Owner::Adding(7)));
    }
}
