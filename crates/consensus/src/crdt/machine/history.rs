//! How history is fetched: blocks one by one, and stretches of it from Pinfold peers.

use super::{Machine, Round};
use crate::crdt::CrdtError;
use crate::crdt::ancestors::HAVE_MAX;
use crate::crdt::event::Effect;
use crate::crdt::id::BlockId;
use bytes::Bytes;
use types::{Cid, Millis, PeerId};

/// Blocks under way at once, when they are small.
const FETCHES_MAX: usize = 256;

/// Bytes under way at once, by the size of the last blocks.
const FETCH_BYTES: usize = 32 << 20;

/// Stretches of history under way at once, each of up to some megabytes; they overlap where branches meet.
const STRETCHES_MAX: usize = 2;

/// How long a peer that could not give a stretch is not asked for one.
const MUTE: Millis = Millis(10_000);

impl Machine {
    /// Takes of a stretch what is wanted; each block says by its links what is wanted next.
    pub(super) fn stretch_came(&mut self, cid: &Cid, from: PeerId, blocks: Vec<Bytes>, round: &mut Round) -> Result<(), CrdtError> {
        self.stretches.remove(&from);
        let asked = BlockId::of_cid(cid);
        for bytes in blocks {
            self.block_came(&wire::delta::block_cid(&bytes), bytes, round)?;
        }
        if let Some(asked) = asked.filter(|asked| self.wants.contains(asked)) {
            self.wants.stretch_ended(&asked);
            self.mute.insert(from, Millis(round.now.0 + MUTE.0));
        }
        Ok(())
    }

    pub(super) fn fetch(&mut self, round: &mut Round) {
        self.mute.retain(|_, until| *until > round.now);
        if self.paging.is_asked() {
            return;
        }
        while self.wants.missing_linked() > 0
            && self.stretches.len() < STRETCHES_MAX
            && let Some(peer) = self.peer_for_stretch()
            && let Some(id) = self.wants.next_stretch(round.now)
        {
            self.stretches.insert(peer, id);
            let have = self.heads.keys().take(HAVE_MAX).map(BlockId::cid).collect();
            round.effects.push(Effect::FetchStretch { cid: id.cid(), peer, have });
        }
        let most = (FETCH_BYTES / self.block_size.max(1)).clamp(8, FETCHES_MAX);
        while let Some((id, likely)) = self.wants.next_fetch(most, round.now) {
            round.effects.push(Effect::Fetch { cid: id.cid(), likely });
        }
    }

    /// A Pinfold peer that has no question of this kind; another one each time.
    pub(super) fn peer_for_stretch(&mut self) -> Option<PeerId> {
        let is_free = |peer: &PeerId| !self.stretches.contains_key(peer) && !self.mute.contains_key(peer);
        let free: Vec<PeerId> =
            self.peers.iter().filter(|(peer, is_pinfold)| **is_pinfold && is_free(peer)).map(|(peer, _)| *peer).collect();
        let at = (self.chance() * free.len() as f64) as usize;
        free.get(at).copied()
    }
}
