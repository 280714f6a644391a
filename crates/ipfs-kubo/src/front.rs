//! Our own host before the daemon: members need not reach Kubo itself, and Kubo's own network stays as its user set it up.

use crate::node::{Inner, KuboError, add_of};
use async_trait::async_trait;
use bytes::Bytes;
use ipfs::{Block, PutError, Source};
use net::blockstream::{ABANDONED, lane_owner};
use net::{Admission, Bitswap, BlockSource, Host, LaneHeader, LaneReceiver, LaneRefusal, LaneSink};
use std::sync::Arc;
use std::time::Duration;
use types::{ByteCount, Cid, Owner, PeerId};

/// With less room than this no lane begins (or a 32nd of the limit, if that is less): it would break off soon.
const ROOM_LEAST: ByteCount = ByteCount(64 << 20);

/// What answers for the daemon.
pub(crate) struct Front {
    pub(crate) host: Host,
    /// Serves as long as it is here.
    _bitswap: Bitswap,
}

pub(crate) fn start(host: Host, inner: Arc<Inner>) -> Result<Front, KuboError> {
    let bitswap = Bitswap::start(host.clone(), Arc::new(Served(inner.clone())), inner.options.bitswap);
    net::serve_lanes(&host, Arc::new(Lanes(inner))).map_err(|error| KuboError::Network(error.to_string()))?;
    Ok(Front { host, _bitswap: bitswap })
}

struct Served(Arc<Inner>);

#[async_trait]
impl BlockSource for Served {
    async fn get(&self, cid: &Cid) -> Option<Bytes> {
        self.0.get_block(cid, &Source::local(), Duration::ZERO).await.ok()
    }

    async fn size(&self, cid: &Cid) -> Option<u64> {
        self.0.size_of(cid).await.ok().flatten()
    }
}

struct Lanes(Arc<Inner>);

impl Inner {
    fn admits(&self, from: &PeerId, header: &LaneHeader) -> Admission {
        self.options.lanes.as_ref().map_or(Admission::Refused, |gate| gate(from, header))
    }
}

#[async_trait]
impl LaneSink for Lanes {
    async fn begin(&self, from: PeerId, header: LaneHeader) -> Result<Box<dyn LaneReceiver>, LaneRefusal> {
        self.0.admits(&from, &header).check()?;
        let stat = self.0.stat().await.map_err(|error| LaneRefusal::Failed(error.to_string()))?;
        let free = ByteCount(stat.limit.get().saturating_sub(stat.used.get()));
        if free < ROOM_LEAST.min(ByteCount(stat.limit.get() / 32)) {
            return Err(LaneRefusal::NoRoom { free });
        }
        let owner = lane_owner(&header.cluster_peer, header.lease);
        if let Some((number, idle)) = add_of(&owner, Some(ABANDONED)) {
            self.0.keep_open(number, idle);
        }
        Ok(Box::new(Lane { inner: self.0.clone(), from, header, owner }))
    }
}

struct Lane {
    inner: Arc<Inner>,
    from: PeerId,
    header: LaneHeader,
    owner: Owner,
}

#[async_trait]
impl LaneReceiver for Lane {
    async fn put(&mut self, batch: Vec<(Cid, Bytes)>) -> Result<(), LaneRefusal> {
        // Trust may end while a lane is open.
        self.inner.admits(&self.from, &self.header).check()?;
        let blocks = batch.into_iter().map(|(cid, data)| Block { cid, data }).collect();
        self.inner.put_blocks(add_of(&self.owner, Some(ABANDONED)), blocks).await.map_err(|error| match error {
            PutError::NoRoom { free, .. } => LaneRefusal::NoRoom { free },
            other => LaneRefusal::Failed(other.to_string()),
        })
    }
}
