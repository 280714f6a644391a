//! Nodes that a pin names as having its content (Go's `origins`): the own node connects with them before it fetches, for nobody else tells where
//! they are.

use crate::core::Core;
use crate::view::read_pin;
use std::time::Duration;
use store::Area;
use types::{Cid, PeerId};
use wire::multiaddr;

/// As many as Go connects with.
const ORIGINS_MOST: usize = 10;

/// Those that have not answered until then are asked without waiting.
const WAIT: Duration = Duration::from_secs(10);

/// The nodes that have the content of a pin according to whoever wished it; connected, where they answer.
pub(crate) async fn connected(core: &Core, cid: &Cid) -> Vec<PeerId> {
    let key = cid.to_bytes();
    // What does not read has no origins; whoever carries the pin out says why.
    let stored = core.consensus.view().get(Area::Pins, &key).ok().flatten();
    let Some((pin, _)) = stored.and_then(|stored| read_pin(&key, &stored)) else { return Vec::new() };
    let origins = &pin.options.origins[..pin.options.origins.len().min(ORIGINS_MOST)];
    if origins.is_empty() {
        return Vec::new();
    }
    let addresses: Vec<String> = origins.iter().filter_map(|origin| multiaddr::to_text(origin).ok()).collect();
    if tokio::time::timeout(WAIT, core.node.connect(&addresses)).await.is_err() {
        tracing::debug!(%cid, "not every origin answered");
    }
    origins.iter().filter_map(|origin| multiaddr::peer_of(origin)).collect()
}
