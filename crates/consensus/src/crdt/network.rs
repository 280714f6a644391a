//! The network as the CRDT sees it.

use async_trait::async_trait;
use bytes::Bytes;
use types::{Cid, PeerId};

/// What the CRDT asks of a network; `peer` adapts the cluster's host to it.
///
/// All calls may fail, be late, or be cancelled. Calls run side by side: up to 256 fetches at once.
#[async_trait]
pub trait CrdtNetwork: Send + Sync + 'static {
    /// Tells all peers of the cluster. An error says that it reached nobody (no peer has subscribed yet): it is repeated.
    async fn broadcast(&self, message: Vec<u8>) -> Result<(), String>;

    /// Hands a block to these Pinfold peers, which take it by [`Crdt::block_pushed`](super::Crdt::block_pushed). Does not wait; what is lost is
    /// told later by `broadcast`, so a network that offers no such thing may leave it out.
    fn push(&self, peers: &[PeerId], block: Bytes) {
        let _ = (peers, block);
    }

    /// Brings a block of the DAG whose bytes were checked against its CID, from `likely` or anybody else.
    async fn fetch(&self, cid: &Cid, likely: Option<PeerId>) -> Result<Bytes, String>;

    /// Asks a Pinfold peer for its heads; the answer is what its [`Crdt::heads_message`](super::Crdt::heads_message) gives.
    async fn ask_heads(&self, peer: PeerId) -> Result<Vec<u8>, String>;

    /// Asks a Pinfold peer for a stretch of history; the answer is what its [`Crdt::stretch`](super::Crdt::stretch) gives for this question, at most
    /// 3.1 MiB. Without it the history is walked link by link.
    async fn ask_stretch(&self, peer: PeerId, question: Vec<u8>) -> Result<Vec<u8>, String> {
        let _ = (peer, question);
        Err("not offered".to_owned())
    }

    /// Asks a Pinfold peer for a page of the set; the answer is what its [`Crdt::page`](super::Crdt::page) gives behind this key, at most 3.1 MiB.
    /// Without it all comes by the history.
    async fn ask_page(&self, peer: PeerId, after: Vec<u8>) -> Result<Vec<u8>, String> {
        let _ = (peer, after);
        Err("not offered".to_owned())
    }
}
