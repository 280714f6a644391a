//! The blocks of an add on their way to a Go peer: its `BlockStream` puts them into its node.

use super::Side;
use ipfs::Block;
use net::gorpc::{CallError, CallLimits, CallReplies, Request, call_stream};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use types::PeerId;
use wire::rpc::BlockWithMeta;

/// A block that is not taken for so long: it has stopped.
const STALLED: Duration = Duration::from_secs(60);
/// What it took last is stored within this.
const STORES_WITHIN: Duration = Duration::from_secs(300);

/// Fills the node of a Go peer until the queue ends; it has everything then. Dropped early, the stream is reset and the peer keeps what it got
/// until its next collection.
pub(super) async fn fill(side: &Side, peer: PeerId, mut batches: mpsc::Receiver<Arc<Vec<Block>>>) -> Result<(), String> {
    let Some(mut batch) = batches.recv().await else { return Ok(()) };
    let request = Request::new("IPFSConnector", "BlockStream");
    let opened = call_stream(&side.host, peer, &request, &CallLimits::default()).await;
    let (mut sink, mut replies) = opened.map_err(|error| error.to_string())?;
    let send = async {
        let mut has_sent = false;
        loop {
            for block in batch.iter().filter(|block| !types::is_inline(&block.cid)) {
                let data = block.data.to_vec();
                let size = data.len() as u64;
                let argument = wire::rpc::encode(&BlockWithMeta { data, cid: Some(block.cid), size });
                tokio::time::timeout(STALLED, sink.send(&argument)).await.unwrap_or(Err(CallError::TimedOut))?;
                has_sent = true;
            }
            match batches.recv().await {
                Some(next) => batch = next,
                None => break,
            }
        }
        sink.finish().await.map(|()| has_sent)
    };
    let ended = until_end(&mut replies);
    tokio::pin!(ended);
    let sent = tokio::select! {
        // It says why it reads no more; what was sent meanwhile fails only later.
        end = &mut ended => return Err(end.err().unwrap_or_else(|| "it ended early".to_owned())),
        sent = send => sent,
    };
    match tokio::time::timeout(STORES_WITHIN, ended).await {
        // Go refuses a stream without blocks.
        Ok(Err(_)) if matches!(sent, Ok(false)) => Ok(()),
        Ok(Err(why)) => Err(why),
        Ok(Ok(())) => sent.map(|_| ()).map_err(|error| error.to_string()),
        Err(_) => Err("it did not say that it has stored everything".to_owned()),
    }
}

async fn until_end(replies: &mut CallReplies) -> Result<(), String> {
    loop {
        match replies.next().await {
            Ok(Some(_)) => {}
            Ok(None) => return Ok(()),
            Err(error) => return Err(error.to_string()),
        }
    }
}
