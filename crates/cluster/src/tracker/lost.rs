//! A copy of this peer that turned out not to be whole.

use super::{Doing, Goal, Tracker};
use crate::context::Context;
use crate::{Effect, Notice};
use types::Cid;

impl Tracker {
    /// The node does not hold all of this pin any more: it is fetched again from the other holders, and until then everybody hears that this
    /// copy is not whole.
    pub fn lost(&mut self, cid: Cid, ctx: &mut Context) {
        let Some((pin, version)) = ctx.shared.pin(&cid).filter(|(pin, _)| pin.is_for(&ctx.options.me)) else { return };
        if self.tracks.contains_key(&cid) {
            return;
        }
        ctx.effects.push(Effect::Note(Notice::CopyDamaged { cid }));
        self.begin(cid, Goal::hold(&pin, version), ctx);
        if let Some(track) = self.tracks.get_mut(&cid) {
            track.was_lost = true;
        }
        self.walk.touched(&cid);
        self.enqueue(cid, Doing::Pin, ctx);
    }
}
