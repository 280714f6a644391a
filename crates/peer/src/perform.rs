//! Operations on the own node, as the machine asked for them: each a task that ends with an outcome.

use crate::core::Core;
use cluster::{Event, NodeFailure, NodeOp, NodeOutcome, OpId};
use ipfs::{HeldPin, PinError, PinProgress, PinTask, Source};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use types::{Cid, Owner, PeerId};

/// How often a running pin tells the machine how far it is.
const PROGRESS: Duration = Duration::from_millis(500);

/// Runs one operation to its end.
pub async fn run(core: &Arc<Core>, id: OpId, operation: NodeOp) -> NodeOutcome {
    match operation {
        NodeOp::Pin { cid, depth, holders } => {
            let mut holders = nodes_of(core, &holders);
            holders.extend(crate::origins::connected(core, &cid).await);
            let source = Source { holders, ..Source::default() };
            let task = PinTask { owner: core.owner.clone(), cid, depth, source };
            pin(core, id, task).await
        }
        // Gathered by the looker; one that came here all the same goes the long way.
        NodeOp::PinHere { .. } => NodeOutcome::NotHere,
        NodeOp::Unpin { cid } => match core.node.unpin(&core.owner, &cid).await {
            Ok(()) => {
                core.mark_garbage();
                NodeOutcome::Unpinned
            }
            Err(error) => NodeOutcome::Failed(failure(error)),
        },
        NodeOp::ListHeld { after, limit } => match held(core, after, limit).await {
            Ok(page) => NodeOutcome::Held(page),
            Err(error) => NodeOutcome::Failed(failure(error)),
        },
    }
}

/// The nodes of cluster peers, in the same order.
pub fn nodes_of(core: &Core, holders: &[PeerId]) -> Vec<PeerId> {
    let go = core.go();
    let of_go = |peer: &PeerId| go.as_ref().filter(|go| go.is_go(peer)).and_then(|go| go.who(peer)?.1);
    holders.iter().flat_map(|peer| core.trust.nodes_of(peer).into_iter().chain(of_go(peer))).collect()
}

async fn pin(core: &Arc<Core>, id: OpId, task: PinTask) -> NodeOutcome {
    let (progress, mut watched) = watch::channel(PinProgress::default());
    let pinning = core.node.pin(task, Arc::new(progress));
    tokio::pin!(pinning);
    let mut tick = tokio::time::interval(PROGRESS);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    tick.tick().await;
    loop {
        tokio::select! {
            outcome = &mut pinning => return match outcome {
                Ok(pinned) => NodeOutcome::Pinned { bytes: pinned.bytes },
                Err(error) => NodeOutcome::Failed(failure(error)),
            },
            _ = tick.tick() => {
                if watched.has_changed().unwrap_or(false) {
                    let now = *watched.borrow_and_update();
                    core.feed(Event::Node(id, NodeOutcome::Progress { blocks: now.blocks, bytes: now.bytes, missing: now.missing }));
                }
            }
        }
    }
}

/// A page of what the node keeps for this cluster: other owners' pins are skipped without ending the page early.
async fn held(core: &Core, after: Option<Cid>, limit: usize) -> Result<Vec<Cid>, PinError> {
    let is_ours = |pin: &HeldPin| pin.owners.iter().any(|(owner, _, _): &(Owner, _, _)| *owner == core.owner);
    let mut cursor = after;
    let mut found = Vec::new();
    while found.len() < limit {
        let asked = limit - found.len();
        let page = core.node.pins(cursor, asked).await?;
        found.extend(page.iter().filter(|pin| is_ours(pin)).map(|pin| pin.cid));
        if page.len() < asked {
            break;
        }
        cursor = page.last().map(|pin| pin.cid);
    }
    Ok(found)
}

/// It travels to every peer for each pin that fails.
fn shortened(mut text: String) -> String {
    const BYTES_MOST: usize = 240;
    if text.len() > BYTES_MOST {
        let end = (0..=BYTES_MOST).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

fn failure(error: PinError) -> NodeFailure {
    match error {
        PinError::Missing { missing, asked, .. } => {
            let first = missing.first().copied();
            NodeFailure::Missing { missing: missing.len() as u64, first, asked: shortened(asked) }
        }
        PinError::NoRoom { needed, free, .. } => NodeFailure::NoRoom { needed, free },
        PinError::Malformed { reason, .. } => NodeFailure::Malformed(reason),
        PinError::Storage(error) => NodeFailure::Node(error),
    }
}
