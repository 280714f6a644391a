//! Waits until enough holders have confirmed a pin.

use crate::core::Core;
use crate::handle::{Cluster, Live};
use std::collections::HashSet;
use std::time::Duration;
use types::Cid;

/// Returns how many have it when that are `copies`, or the time is over.
pub(crate) async fn wait_copies(peer: &dyn Cluster, core: &Core, cid: &Cid, copies: u32, limit: Duration) -> u32 {
    let mut live = core.live();
    let deadline = tokio::time::Instant::now() + limit;
    loop {
        let (pin, rows) = peer.status(cid);
        let root = pin.filter(|pin| pin.kind == types::PinKind::Meta);
        let confirmed = match &root {
            // Of shards: as many as every one of them has.
            Some(root) => core.read(|machine, now| machine.confirmed_copies(root, now)),
            None => rows.iter().filter(|row| row.is_live && row.state == types::PinState::Pinned).count() as u32,
        };
        if confirmed >= copies {
            return confirmed;
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
