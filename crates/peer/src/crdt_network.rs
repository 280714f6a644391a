//! The CRDT's network over the cluster host: heads by gossip, blocks by bitswap, heads on request between Pinfold peers.

use crate::answering::answer_each;
use crate::peer::Inbound;
use async_trait::async_trait;
use bytes::Bytes;
use consensus::crdt::{Crdt, CrdtNetwork};
use net::bitswap::{Bitswap, BlockSource};
use net::{Host, Incoming, Messages, PublishError};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use types::{Cid, PeerId, PeerMessage};

/// Protocol by which Pinfold peers ask for heads, instead of waiting for the minutely broadcast.
pub const HEADS: &str = "/pinfold/heads/1";
/// Protocol by which Pinfold peers ask for a stretch of history at once.
pub const STRETCH: &str = "/pinfold/stretch/1";
/// Protocol by which a joining Pinfold peer asks for a page of the set.
pub const PAGE: &str = "/pinfold/page/1";
/// A question about a stretch names some CIDs.
const QUESTION_LONGEST: usize = 1 << 20;
/// An answer holds at most 3.1 MiB (`Crdt::stretch`, `Crdt::page`).
const STRETCH_LONGEST: usize = 4 << 20;
const STRETCH_DEADLINE: Duration = Duration::from_secs(30);
/// Answers being made at once; further askers wait.
const ANSWERS_AT_ONCE: usize = 8;
/// A heads message holds at most so much (1 MiB, as gossip).
const HEADS_LONGEST: usize = 1 << 20;
const ASK_DEADLINE: Duration = Duration::from_secs(10);
/// A block of the DAG is looked for so long before the driver tries again.
const FETCH_DEADLINE: Duration = Duration::from_secs(30);

/// Serves the CRDT's own blocks to bitswap; empty until the CRDT is open.
#[derive(Clone, Default)]
pub struct DagBlocks(Arc<OnceLock<Arc<Crdt>>>);

impl DagBlocks {
    /// The CRDT is open now.
    pub fn set(&self, crdt: Arc<Crdt>) {
        self.0.set(crdt).ok();
    }
}

#[async_trait]
impl BlockSource for DagBlocks {
    async fn get(&self, cid: &Cid) -> Option<Bytes> {
        self.0.get()?.block(cid)
    }

    async fn size(&self, cid: &Cid) -> Option<u64> {
        self.0.get()?.block(cid).map(|block| block.len() as u64)
    }
}

/// The network side of a CRDT.
pub struct ClusterNetwork {
    host: Host,
    bitswap: Bitswap,
    messages: Messages,
    topic: String,
}

impl ClusterNetwork {
    /// Over a host whose gossip has the topic.
    pub fn new(host: Host, bitswap: Bitswap, messages: Messages, topic: String) -> Arc<ClusterNetwork> {
        Arc::new(ClusterNetwork { host, bitswap, messages, topic })
    }
}

#[async_trait]
impl CrdtNetwork for ClusterNetwork {
    async fn broadcast(&self, message: Vec<u8>) -> Result<(), String> {
        match self.host.publish(&self.topic, message).await {
            Ok(()) => Ok(()),
            // Nobody is there to hear it; whoever comes asks for the heads.
            Err(PublishError::NoPeers) if self.host.connected().is_empty() => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn push(&self, peers: &[PeerId], block: Bytes) {
        let message = wire::peer::encode(&PeerMessage::Delta(block.into()));
        for peer in peers {
            if let Err(error) = self.messages.send(*peer, message.clone()) {
                tracing::debug!(%peer, %error, "a block of the shared state was not handed over");
            }
        }
    }

    async fn fetch(&self, cid: &Cid, likely: Option<PeerId>) -> Result<Bytes, String> {
        let session = self.bitswap.session();
        let connected = self.host.connected();
        let providers: Vec<PeerId> = likely.into_iter().chain(connected.into_iter().filter(|peer| Some(*peer) != likely)).collect();
        session.add_providers(&providers);
        match tokio::time::timeout(FETCH_DEADLINE, session.fetch(*cid)).await {
            Ok(block) => block.map_err(|error| error.to_string()),
            Err(_) => Err(format!("block {cid} of the shared state did not come within {} s", FETCH_DEADLINE.as_secs())),
        }
    }

    async fn ask_heads(&self, peer: PeerId) -> Result<Vec<u8>, String> {
        let ask = async {
            let (mut stream, _) = self.host.open(peer, &[HEADS]).await.map_err(|error| error.to_string())?;
            let message = net::frame::read_frame(&mut stream, HEADS_LONGEST).await.map_err(|error| error.to_string())?;
            Ok(message.map(|message| message.to_vec()).unwrap_or_default())
        };
        tokio::time::timeout(ASK_DEADLINE, ask).await.map_err(|_| "no answer in time".to_owned())?
    }

    async fn ask_stretch(&self, peer: PeerId, question: Vec<u8>) -> Result<Vec<u8>, String> {
        self.ask(peer, STRETCH, &question).await
    }

    async fn ask_page(&self, peer: PeerId, after: Vec<u8>) -> Result<Vec<u8>, String> {
        self.ask(peer, PAGE, &after).await
    }
}

impl ClusterNetwork {
    async fn ask(&self, peer: PeerId, protocol: &'static str, question: &[u8]) -> Result<Vec<u8>, String> {
        let ask = async {
            let (mut stream, _) = self.host.open(peer, &[protocol]).await.map_err(|error| error.to_string())?;
            net::frame::write_frame(&mut stream, question).await.map_err(|error| error.to_string())?;
            let answer = net::frame::read_frame(&mut stream, STRETCH_LONGEST).await.map_err(|error| error.to_string())?;
            Ok(answer.map(|answer| answer.to_vec()).unwrap_or_default())
        };
        tokio::time::timeout(STRETCH_DEADLINE, ask).await.map_err(|_| "no answer in time".to_owned())?
    }
}

/// Answers those who ask for stretches of history, until the host stops.
pub async fn answer_stretches(crdt: Arc<Crdt>, asked: Incoming) {
    answer_questions(asked, move |question| crdt.stretch(question)).await;
}

/// Answers those who ask for pages of the set, until the host stops.
pub async fn answer_pages(crdt: Arc<Crdt>, asked: Incoming) {
    answer_questions(asked, move |after| crdt.page(after)).await;
}

async fn answer_questions(asked: Incoming, answer: impl Fn(&[u8]) -> Vec<u8> + Send + Sync + 'static) {
    let answer = Arc::new(answer);
    let answer_one = move |_, mut stream| {
        let answer = answer.clone();
        async move {
            let answering = async {
                let question = net::frame::read_frame(&mut stream, QUESTION_LONGEST).await.ok()??;
                let answer = tokio::task::spawn_blocking(move || answer(&question)).await.ok()?;
                net::frame::write_frame(&mut stream, &answer).await.ok()
            };
            // An asker that went away, or is too slow, asks again.
            tokio::time::timeout(STRETCH_DEADLINE, answering).await.ok();
        }
    };
    answer_each(asked, ANSWERS_AT_ONCE, answer_one).await;
}

/// Answers those who ask for heads, until the host stops.
pub async fn answer_heads(crdt: Arc<Crdt>, mut asked: Incoming) {
    while let Some((_, _, mut stream)) = asked.next().await {
        let heads = crdt.heads_message();
        tokio::spawn(async move {
            // An asker that went away needs no answer.
            tokio::time::timeout(ASK_DEADLINE, net::frame::write_frame(&mut stream, &heads)).await.ok();
        });
    }
}

/// Takes gossip and connections for the CRDT.
pub struct CrdtInbound(pub Arc<Crdt>);

impl Inbound for CrdtInbound {
    fn gossip(&self, _topic: &str, from: PeerId, data: Vec<u8>) {
        if let Err(error) = self.0.heads_received(from, data) {
            tracing::warn!(peer = %from, %error, "a heads message does not read");
        }
    }

    fn pushed(&self, from: PeerId, block: Vec<u8>) {
        self.0.block_pushed(from, block.into());
    }

    fn connected(&self, peer: PeerId) {
        self.0.peer_connected(peer, true);
    }

    fn go_connected(&self, peer: PeerId) {
        self.0.peer_connected(peer, false);
    }

    fn disconnected(&self, peer: PeerId) {
        self.0.peer_disconnected(peer);
    }
}
