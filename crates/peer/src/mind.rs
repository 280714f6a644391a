//! The machine and the wish as the Go side needs them. It ends with the peer: what comes later is lost.

use crate::core::Core;
use crate::go::Mind;
use crate::view::View;
use cluster::{Event, SharedView};
use std::sync::{Arc, Weak};
use store::{Area, Batch, Durability};
use types::{Cid, PeerId, Pin, UnixMillis};
use wire::join::Known;

/// Where the Go peers of this start stand for the next one, in [`Area::Meta`].
const GO_PEERS: &[u8] = b"go-peers";
/// Where they are, in the same place.
const GO_ADDRESSES: &[u8] = b"go-addresses";
/// Peers remembered.
const PEERS_MOST: usize = 4096;

struct CoreMind(Weak<Core>);

impl Core {
    /// This core's machine and wish.
    pub(crate) fn mind(self: &Arc<Core>) -> Arc<dyn Mind> {
        Arc::new(CoreMind(Arc::downgrade(self)))
    }
}

impl Mind for CoreMind {
    fn feed(&self, event: Event) {
        if let Some(core) = self.0.upgrade() {
            core.feed(event);
        }
    }

    fn pin(&self, cid: &Cid) -> Option<(Pin, u64)> {
        let core = self.0.upgrade()?;
        View::new(core.consensus.as_ref(), core.store.as_ref()).pin(cid)
    }

    fn pins_after(&self, after: Option<&Cid>, limit: usize) -> Vec<(Pin, u64)> {
        let Some(core) = self.0.upgrade() else { return Vec::new() };
        View::new(core.consensus.as_ref(), core.store.as_ref()).pins_after(after, limit)
    }

    fn remembered(&self) -> Vec<(PeerId, UnixMillis)> {
        let Some(core) = self.0.upgrade() else { return Vec::new() };
        match core.store.snapshot().get(Area::Meta, GO_PEERS) {
            Ok(stored) => stored.map(|stored| read(&stored)).unwrap_or_default(),
            Err(error) => {
                tracing::warn!(%error, "reading which Go peers there were");
                Vec::new()
            }
        }
    }

    fn remember(&self, peers: &[(PeerId, UnixMillis)]) {
        let Some(core) = self.0.upgrade() else { return };
        let mut batch = Batch::new();
        batch.put(Area::Meta, GO_PEERS, write(peers));
        // Lost with the power it says what was true a little earlier.
        if let Err(error) = core.store.commit(batch, Durability::Buffered) {
            tracing::warn!(%error, "keeping which Go peers there are");
        }
    }

    fn addresses(&self) -> Vec<Known> {
        let Some(core) = self.0.upgrade() else { return Vec::new() };
        let kept = match core.store.snapshot().get(Area::Meta, GO_ADDRESSES) {
            Ok(kept) => kept.unwrap_or_default(),
            Err(error) => {
                tracing::warn!(%error, "reading where Go peers were");
                return Vec::new();
            }
        };
        if kept.is_empty() { Vec::new() } else { wire::join::decode_book(&kept).unwrap_or_default() }
    }

    fn remember_addresses(&self, known: &[Known]) {
        let Some(core) = self.0.upgrade() else { return };
        let mut batch = Batch::new();
        batch.put(Area::Meta, GO_ADDRESSES, wire::join::encode_book(known));
        // Lost with the power they are learned again.
        if let Err(error) = core.store.commit(batch, Durability::Buffered) {
            tracing::warn!(%error, "keeping where Go peers are");
        }
    }
}

/// Each: the length of its id, the id, when it was there last in milliseconds.
fn write(peers: &[(PeerId, UnixMillis)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (peer, heard) in peers.iter().take(PEERS_MOST) {
        let id = peer.as_bytes();
        let Ok(length) = u8::try_from(id.len()) else { continue };
        out.push(length);
        out.extend_from_slice(id);
        out.extend_from_slice(&heard.0.to_be_bytes());
    }
    out
}

/// What reads of it; a damaged entry ends it.
fn read(mut stored: &[u8]) -> Vec<(PeerId, UnixMillis)> {
    let mut peers = Vec::new();
    while let Some((length, rest)) = stored.split_first() {
        let Some((id, rest)) = rest.split_at_checked(usize::from(*length)) else { break };
        let Some((heard, rest)) = rest.split_first_chunk::<8>() else { break };
        let Ok(peer) = PeerId::from_bytes(id) else { break };
        peers.push((peer, UnixMillis(u64::from_be_bytes(*heard))));
        stored = rest;
    }
    peers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_peers_are_remembered_and_what_is_damaged_is_left_out() {
        let peers: Vec<(PeerId, UnixMillis)> =
            (1..4).map(|number| (PeerId::from_ed25519(&[number; 32]), UnixMillis(number.into()))).collect();
        let stored = write(&peers);
        assert_eq!(read(&stored), peers);
        for length in 0..stored.len() {
            assert_eq!(read(&stored[..length]), peers[..length / (stored.len() / 3)]);
        }
        assert!(read(&[3, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0]).is_empty(), "no id");
    }
}
