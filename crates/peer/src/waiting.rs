//! Waits until enough holders have confirmed a pin.

use crate::core::Core;
use crate::handle::{Cluster, Live};
use std::collections::HashSet;
use std::time::Duration;
use types::{Cid, Pin, PinKind, PinState};

/// Returns how many have it when that are `copies`, or the time is over.
pub(crate) async fn wait_copies(peer: &dyn Cluster, core: &Core, cid: &Cid, copies: u32, limit: Duration) -> u32 {
    let mut live = core.live();
    let deadline = tokio::time::Instant::now() + limit;
    loop {
        let (root, confirmed) = count(peer, core, cid);
        if confirmed >= copies {
            // A pin that another peer wrote is visible a moment before the machine knows it, and looks settled until then.
            core.caught_up().await;
            let (_, confirmed) = count(peer, core, cid);
            if confirmed >= copies {
                return confirmed;
            }
        }
        // Looks again when the pin or one of its units changes, and now and then in case a hint was lost.
        let units: HashSet<Cid> = match &root {
            Some(root) => core.read(|machine, _| machine.pieces_of(&root.cid)).into_iter().map(|piece| piece.cid).collect(),
            None => HashSet::new(),
        };
        let changed = async {
            loop {
                match live.recv().await {
                    Ok(Live::Pin(changed)) if changed == *cid || units.contains(&changed) => return,
                    Ok(_) => {}
                    Err(_) => return,
                }
            }
        };
        let nudge = deadline.min(tokio::time::Instant::now() + Duration::from_millis(500));
        // Whether it changed or time passed, the state itself is looked at.
        tokio::time::timeout_at(nudge, changed).await.ok();
        if tokio::time::Instant::now() >= deadline {
            return confirmed;
        }
    }
}

/// Who has it now; and the pin, if it is of shards.
fn count(peer: &dyn Cluster, core: &Core, cid: &Cid) -> (Option<Pin>, u32) {
    let (pin, rows) = peer.status(cid);
    let root = pin.filter(|pin| pin.kind == PinKind::Meta);
    let confirmed = match &root {
        // Of shards: as many as every one of them has.
        Some(root) => core.read(|machine, now| machine.confirmed_copies(root, now)),
        None => rows.iter().filter(|row| row.is_live && row.state == PinState::Pinned).count() as u32,
    };
    (root, confirmed)
}
