//! Every engine keeps every promise.

use async_trait::async_trait;
use consensus::conformance::{self, Opener};
use consensus::crdt::CrdtOptions;
use consensus::memory::{MemoryNetwork, Weather};
use consensus::{Consensus, Crdt, Single};
use std::sync::Arc;
use std::time::Duration;
use store::{MemoryStore, Store};
use types::PeerId;

struct OpenSingle;

#[async_trait]
impl Opener for OpenSingle {
    async fn open(&self, store: Arc<dyn Store>) -> Arc<dyn Consensus> {
        Arc::new(Single::open(store).expect("opens"))
    }
}

struct OpenCrdt {
    spacing: Duration,
}

#[async_trait]
impl Opener for OpenCrdt {
    async fn open(&self, store: Arc<dyn Store>) -> Arc<dyn Consensus> {
        let me = peer(1);
        let options = CrdtOptions { spacing: self.spacing, alone: true, ..CrdtOptions::new(me) };
        Arc::new(Crdt::open(store, MemoryNetwork::new(Weather::FINE).link(me), options).await.expect("opens"))
    }
}

fn peer(number: u8) -> PeerId {
    PeerId::from_ed25519(&[number; 32])
}

async fn peers(count: u8, weather: Weather) -> (Arc<MemoryNetwork>, Vec<Arc<dyn Consensus>>) {
    let network = MemoryNetwork::new(weather);
    let mut peers: Vec<Arc<dyn Consensus>> = Vec::new();
    for number in 0..count {
        let options = CrdtOptions { rebroadcast: Duration::from_millis(300), ..CrdtOptions::new(peer(number)) };
        let crdt = Crdt::open(Arc::new(MemoryStore::new()), network.link(peer(number)), options).await.expect("opens");
        let crdt = Arc::new(crdt);
        network.serve(peer(number), &crdt);
        peers.push(crdt);
    }
    for a in 0..count {
        for b in 0..a {
            network.connect(peer(a), peer(b));
        }
    }
    (network, peers)
}

#[tokio::test]
async fn single_keeps_every_promise() {
    conformance::check_one(&OpenSingle).await;
}

#[tokio::test]
async fn crdt_keeps_every_promise_of_one_peer() {
    conformance::check_one(&OpenCrdt { spacing: Duration::from_millis(10) }).await;
}

#[tokio::test]
async fn crdt_keeps_them_while_nothing_but_the_journal_is_written() {
    conformance::check_one(&OpenCrdt { spacing: Duration::from_secs(3600) }).await;
}

#[tokio::test]
async fn crdt_peers_agree_in_fine_weather() {
    let (_network, peers) = peers(3, Weather::FINE).await;
    conformance::check_many(&peers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crdt_peers_agree_though_much_is_lost() {
    let (_network, peers) = peers(4, Weather { delay: Duration::from_millis(2), loss: 0.3, seed: 7 }).await;
    conformance::check_many(&peers).await;
    for peer in &peers {
        peer.stop().await;
    }
}
