//! Where Go peers are: learned from what they answer, kept on disk, dialled when none of them is connected. So this peer finds them again after
//! a start at which the configuration names none, or other places than they are at.

use super::Side;
use futures::{StreamExt, stream};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use types::PeerId;
use wire::join::Known;

/// How often it is looked who was met, and whether somebody is connected.
const LOOK: Duration = Duration::from_secs(5);
/// Nobody was reached: tried again after so long.
const AGAIN: Duration = Duration::from_secs(30);
/// Peers kept, and addresses of each; the rest is learned again from those.
const PEERS_MOST: usize = 256;
const ADDRESSES_MOST: usize = 16;
/// Peers dialled at once.
const AT_ONCE: usize = 4;

/// Runs until dropped.
pub(super) async fn run(side: Arc<Side>) {
    let Some(spokesman) = side.spokesman.clone() else { return };
    let mind = spokesman.mind();
    let read: Vec<Known> = mind.addresses();
    let mut kept: BTreeMap<PeerId, Vec<String>> = read.into_iter().map(|known| (known.peer, known.addresses)).collect();
    // Those that the configuration names are dialled already; they are given a moment.
    tokio::time::sleep(LOOK).await;
    loop {
        if learn(&side, &mut kept) {
            mind.remember_addresses(&kept.iter().map(known).collect::<Vec<_>>());
        }
        let is_alone = side.go_connected().is_empty();
        if is_alone {
            dial(&side, &kept).await;
        }
        tokio::time::sleep(if is_alone { AGAIN } else { LOOK }).await;
    }
}

fn known((peer, addresses): (&PeerId, &Vec<String>)) -> Known {
    Known { peer: *peer, name: String::new(), addresses: addresses.clone() }
}

/// Takes over where the trusted ones say they are; whether that changed anything.
fn learn(side: &Side, kept: &mut BTreeMap<PeerId, Vec<String>>) -> bool {
    let mut has_changed = false;
    for go in side.go_peers().into_iter().filter(|go| go.is_trusted && !go.addresses.is_empty()) {
        let addresses: Vec<String> = go.addresses.into_iter().take(ADDRESSES_MOST).collect();
        let has_room = kept.len() < PEERS_MOST || kept.contains_key(&go.peer);
        if has_room && kept.get(&go.peer) != Some(&addresses) {
            kept.insert(go.peer, addresses);
            has_changed = true;
        }
    }
    // Those that became Pinfold peers are in the members' book; those that are not trusted any more are nobody's.
    let before = kept.len();
    kept.retain(|peer, _| (side.options.trusted)(peer) && !side.is_pinfold(peer));
    has_changed || kept.len() < before
}

async fn dial(side: &Side, kept: &BTreeMap<PeerId, Vec<String>>) {
    let kept: Vec<(PeerId, Vec<String>)> = kept.iter().map(|(peer, addresses)| (*peer, addresses.clone())).collect();
    let dials = kept.into_iter().map(|(peer, addresses)| {
        let host = side.host.clone();
        async move {
            match host.connect(peer, &addresses).await {
                Ok(()) => tracing::info!(%peer, "a Go peer was found again where it was"),
                Err(error) => tracing::debug!(%peer, %error, "a Go peer is not where it was"),
            }
        }
    });
    stream::iter(dials).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
}
