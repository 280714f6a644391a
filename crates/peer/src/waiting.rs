//! Waits: until the machine knows what is asked about, until enough holders have confirmed a pin.

use crate::core::Core;
use crate::handle::{Cluster, Live};
use std::collections::HashSet;
use std::time::Duration;
use store::Area;
use types::{Because, Cid, Pin, PinKind, PinState};

/// A pin as the shared state has it now, with its version.
pub(crate) fn pin_now(core: &Core, cid: &Cid) -> Option<(Pin, u64)> {
    let key = cid.to_bytes();
    let stored = core.consensus.view().get(Area::Pins, &key).ok()??;
    crate::view::read_pin(&key, &stored)
}

/// The same once the machine knows of it, and whether it does: a wish is visible a moment before, and looks settled until then.
pub(crate) async fn told_pin(core: &Core, cid: &Cid) -> (Option<(Pin, u64)>, bool) {
    /// A pin that is written over and over is shown as it was a moment ago.
    const LOOKS: usize = 4;
    let mut pin = pin_now(core, cid);
    for _ in 0..LOOKS {
        if !core.caught_up().await {
            return (pin, false);
        }
        // What came meanwhile has changed what the machine says of it.
        let now = pin_now(core, cid);
        if now.as_ref().map(|(_, version)| version) == pin.as_ref().map(|(_, version)| version) {
            break;
        }
        pin = now;
    }
    (pin, true)
}

/// What a machine says that was not told of the newest wish is no confirmation.
pub(crate) fn unsettle<'a>(rows: impl Iterator<Item = (&'a mut PinState, &'a mut Option<Because>)>, is_told: bool) {
    for (state, because) in rows.filter(|(state, _)| !is_told && **state == PinState::Pinned) {
        (*state, *because) = (PinState::PinQueued, Some(Because::Unconfirmed));
    }
}

/// Returns how many have it when that are `copies`, or the time is over.
pub(crate) async fn wait_copies(peer: &dyn Cluster, core: &Core, cid: &Cid, copies: u32, limit: Duration) -> u32 {
    let mut live = core.live();
    let deadline = tokio::time::Instant::now() + limit;
    loop {
        let (root, confirmed) = count(peer, core, cid).await;
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

/// Who has it now; and the pin, if it is of shards.
async fn count(peer: &dyn Cluster, core: &Core, cid: &Cid) -> (Option<Pin>, u32) {
    let (pin, rows) = peer.status(cid).await;
    let root = pin.filter(|pin| pin.kind == PinKind::Meta);
    let confirmed = match &root {
        // Of shards: as many as every one of them has.
        Some(root) => core.read(|machine, now| machine.confirmed_copies(root, now)),
        None => rows.iter().filter(|row| row.is_live && row.state == PinState::Pinned).count() as u32,
    };
    (root, confirmed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::Trust;
    use cluster::{Event, SharedChange, ViewState};
    use consensus::{Consensus, Single, Write};
    use ipfs::memory::MemoryNode;
    use std::sync::Arc;
    use store::MemoryStore;
    use types::{Depth, Owner, PeerId, PinOptions, UnixMillis};

    #[tokio::test]
    async fn a_pin_is_shown_when_the_machine_knows_of_it() {
        let store = Arc::new(MemoryStore::new());
        let single = Arc::new(Single::open(store.clone()).expect("opens"));
        let mut hints = single.hints();
        let me = PeerId::from_ed25519(&[1; 32]);
        let core =
            Core::new(cluster::Options::new(me, "one", "test"), single.clone(), MemoryNode::new(), store, Trust::default(), Owner::User);
        core.feed(Event::Shared(SharedChange::View(ViewState::Current)));
        // A raw CID with its one byte inside.
        let cid = Cid::try_from(&[1, 0x55, 0, 1, 7][..]).expect("a CID");
        assert_eq!(told_pin(&core, &cid).await, (None, true), "nothing is behind");
        let pin = Pin {
            cid,
            kind: PinKind::Data,
            options: PinOptions::default(),
            placement: vec![me],
            depth: Depth::Recursive,
            reference: None,
            created: UnixMillis(1_700_000_000_000),
        };
        single.submit(vec![Write::put(cid.to_bytes(), wire::pin::encode_pin(&pin))]).await.expect("written");
        hints.next().await.expect("a hint");
        let asking = core.clone();
        let asked = tokio::spawn(async move { told_pin(&asking, &cid).await });
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!asked.is_finished(), "the machine, which has no word about it, would call it settled");
        core.hinted(hints.seen());
        let (told, is_told) = asked.await.expect("ends");
        assert!(is_told && told.is_some_and(|(told, _)| told.cid == cid));
    }

    #[test]
    fn nothing_is_confirmed_by_a_machine_that_is_behind() {
        for (is_told, state) in [(true, PinState::Pinned), (false, PinState::PinQueued)] {
            let mut rows = [(PinState::Pinned, None), (PinState::Remote, None)];
            unsettle(rows.iter_mut().map(|(state, because)| (state, because)), is_told);
            assert_eq!((rows[0].0, rows[1].0), (state, PinState::Remote));
            assert_eq!(rows[0].1.is_some(), !is_told);
        }
    }
}
