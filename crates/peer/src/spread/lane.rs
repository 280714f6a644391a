//! The tasks behind the lanes of an add: one fills the own node, one for each other holder fills a block stream to its node.

use ipfs::adding::{BlockSink, NodeSink};
use ipfs::{Block, IpfsNode};
use net::{BlockLane, Host, LaneError, LaneHeader, LaneRefusal};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use types::{Owner, PeerId};

/// Blocks that all lanes share.
pub(super) type Batch = Arc<Vec<Block>>;

/// Bytes that the own node stores together: one sync for all of it.
const GROUP: usize = 8 << 20;

/// The first pause before a lane is tried again; each further one is twice as long, at most [`PAUSE_MOST`].
const PAUSE_FIRST: Duration = Duration::from_millis(20);
const PAUSE_MOST: Duration = Duration::from_secs(1);

/// How long a holder may know too little of us (or we of it) to take a lane: a hello is said on connect and every few seconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Fills the own node until the queue ends; everything is durable then.
pub(super) async fn fill_own(node: Arc<dyn IpfsNode>, owner: Owner, mut batches: mpsc::Receiver<Batch>) -> Result<(), String> {
    // The adding pipeline made these CIDs from the data itself.
    let mut sink = NodeSink::new(node, owner);
    while let Some(group) = next_group(&mut batches).await {
        sink.put(group).await.map_err(|error| error.to_string())?;
    }
    sink.finish().await.map_err(|error| error.to_string())
}

/// Takes a batch and whatever else waits, up to so many bytes.
async fn next_group(batches: &mut mpsc::Receiver<Batch>) -> Option<Vec<Block>> {
    let mut group: Vec<Block> = batches.recv().await?.as_ref().clone();
    let mut bytes: usize = group.iter().map(|block| block.data.len()).sum();
    while bytes < GROUP {
        let Ok(more) = batches.try_recv() else { break };
        bytes += more.iter().map(|block| block.data.len()).sum::<usize>();
        group.extend(more.iter().cloned());
    }
    Some(group)
}

/// How a holder is reached.
pub(super) struct Way {
    pub(super) host: Host,
    pub(super) header: LaneHeader,
    /// Its node and where that is reached; none while it has not said so.
    pub(super) find: Box<dyn Fn() -> Option<(PeerId, Vec<String>)> + Send + Sync>,
}

/// Fills the node of another holder until the queue ends; everything is durable there then.
pub(super) async fn fill_remote(way: Option<Way>, mut batches: mpsc::Receiver<Batch>) -> Result<(), String> {
    let way = way.ok_or_else(|| "this peer has no network".to_owned())?;
    let lane = way.open(PATIENCE).await?;
    let fill = async {
        while let Some(batch) = batches.recv().await {
            for block in batch.iter() {
                lane.send(block.cid, block.data.clone()).await?;
            }
        }
        lane.finish().await
    };
    fill.await.map_err(|error: LaneError| error.to_string())
}

impl Way {
    /// Opens the lane. Two members that have just met may not have heard each other's hello, which names the node: that is waited for
    /// (the queue of the lane holds the add back meanwhile); whatever else is wrong counts at once.
    async fn open(&self, patience: Duration) -> Result<BlockLane, String> {
        let (mut pause, mut waited) = (PAUSE_FIRST, Duration::ZERO);
        loop {
            let why = match (self.find)() {
                None => "its node is not known yet".to_owned(),
                Some((node, addresses)) => {
                    self.host.connect(node, &addresses).await.map_err(|error| error.to_string())?;
                    match BlockLane::open(&self.host, node, self.header).await {
                        Ok(lane) => return Ok(lane),
                        Err(LaneError::Refused(LaneRefusal::NotYet)) => LaneError::Refused(LaneRefusal::NotYet).to_string(),
                        Err(error) => return Err(error.to_string()),
                    }
                }
            };
            tracing::debug!(lease = self.header.lease, why, ?pause, "a lane is tried again");
            if waited >= patience {
                return Err(format!("{why}, after {} s", waited.as_secs()));
            }
            tokio::time::sleep(pause).await;
            waited += pause;
            pause = (pause * 2).min(PAUSE_MOST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;
    use bytes::Bytes;
    use dag::{HashFn, codec};
    use net::{HostOptions, LaneKind, LaneReceiver, LaneSink, serve_lanes};
    use parking_lot::Mutex;
    use std::sync::atomic::{AtomicU32, Ordering};
    use types::Cid;

    /// Refuses the first lanes as `refusal` says, then takes what comes.
    struct Holder {
        refusals: AtomicU32,
        refusal: LaneRefusal,
        taken: Arc<Mutex<Vec<Cid>>>,
    }

    struct Lane(Arc<Mutex<Vec<Cid>>>);

    #[async_trait]
    impl LaneSink for Holder {
        async fn begin(&self, _: PeerId, _: LaneHeader) -> Result<Box<dyn LaneReceiver>, LaneRefusal> {
            let is_left = |left: u32| left.checked_sub(1);
            match self.refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, is_left) {
                Ok(_) => Err(self.refusal.clone()),
                Err(_) => Ok(Box::new(Lane(self.taken.clone()))),
            }
        }
    }

    #[async_trait]
    impl LaneReceiver for Lane {
        async fn put(&mut self, batch: Vec<(Cid, Bytes)>) -> Result<(), LaneRefusal> {
            self.0.lock().extend(batch.into_iter().map(|(cid, _)| cid));
            Ok(())
        }
    }

    struct Scene {
        _to: Host,
        way: Way,
        taken: Arc<Mutex<Vec<Cid>>>,
        left: Arc<Holder>,
        asked: Arc<AtomicU32>,
    }

    /// A holder that refuses `refusals` times; whose node is known here after `unknown` look-ups.
    async fn scene(refusals: u32, refusal: LaneRefusal, unknown: u32) -> Scene {
        let host = |number| HostOptions { listen: vec!["/ip4/127.0.0.1/tcp/0".to_owned()], ..HostOptions::node([number; 32]) };
        let (from, _) = Host::start(host(1)).await.expect("starts");
        let (to, _) = Host::start(host(2)).await.expect("starts");
        let taken = Arc::new(Mutex::default());
        let left = Arc::new(Holder { refusals: AtomicU32::new(refusals), refusal, taken: taken.clone() });
        serve_lanes(&to, left.clone()).expect("serves");
        let (node, addresses, asked) = (to.id(), to.addresses(), Arc::new(AtomicU32::new(0)));
        let counter = asked.clone();
        let find = move || (counter.fetch_add(1, Ordering::SeqCst) >= unknown).then(|| (node, addresses.clone()));
        let header = LaneHeader { lease: 1, cluster_peer: PeerId::from_ed25519(&[9; 32]), kind: LaneKind::Add };
        Scene { _to: to, way: Way { host: from, header, find: Box::new(find) }, taken, left, asked }
    }

    fn batch(number: u8) -> (Batch, Cid) {
        let block = Block::new(codec::RAW, HashFn::SHA2_256, Bytes::from(vec![number; 1000])).expect("known");
        let cid = block.cid;
        (Arc::new(vec![block]), cid)
    }

    #[tokio::test]
    async fn a_lane_waits_until_both_have_heard_the_others_hello() {
        let scene = scene(3, LaneRefusal::NotYet, 2).await;
        let (queue, batches) = mpsc::channel(8);
        let mut sent = Vec::new();
        for number in 0..5 {
            let (batch, cid) = batch(number);
            sent.push(cid);
            queue.send(batch).await.expect("room");
        }
        drop(queue);
        assert_eq!(fill_remote(Some(scene.way), batches).await, Ok(()));
        assert_eq!(*scene.taken.lock(), sent, "everything once, in order");
        assert_eq!(scene.asked.load(Ordering::SeqCst), 2 + 3 + 1, "twice unknown, three times refused, then taken");
    }

    #[tokio::test]
    async fn patience_ends_and_other_refusals_count_at_once() {
        let scene = scene(u32::MAX, LaneRefusal::NotYet, 0).await;
        let said = scene.way.open(Duration::from_millis(100)).await.expect_err("never admitted");
        assert!(said.contains("not known here yet"), "{said}");
        assert!(u32::MAX - scene.left.refusals.load(Ordering::SeqCst) >= 3, "tried again");
        let unknown = self::scene(0, LaneRefusal::NotYet, u32::MAX).await;
        let said = unknown.way.open(Duration::from_millis(100)).await.expect_err("never known");
        assert!(said.contains("not known yet"), "{said}");
        let refused = self::scene(u32::MAX, LaneRefusal::NotTrusted, 0).await;
        let said = refused.way.open(PATIENCE).await.expect_err("a stranger");
        assert!(said.contains("not trusted"), "{said}");
        assert_eq!(u32::MAX - refused.left.refusals.load(Ordering::SeqCst), 1, "once");
    }
}
