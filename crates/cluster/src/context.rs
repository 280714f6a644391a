//! What every part is handed with an event: the time, the view, where effects go.

use crate::options::PlantedBug;
use crate::outbox::Outbox;
use crate::{Effect, OpId, Options, SharedView, SubmitId, ViewState};
use types::{Millis, Now};

/// History that is missing for so many graces is taken for lost.
const LOST_GRACES: u64 = 3;

/// Numbers of questions to the shell, never used twice.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ids {
    ops: u64,
    submits: u64,
    leases: u64,
}

impl Ids {
    /// A number for an operation on the node.
    pub fn op(&mut self) -> OpId {
        self.ops += 1;
        OpId(self.ops)
    }

    /// A number for a write.
    pub fn submit(&mut self) -> SubmitId {
        self.submits += 1;
        SubmitId(self.submits)
    }

    /// A number for an add; differs between starts of the peer.
    pub fn lease(&mut self, incarnation: u64) -> u64 {
        self.leases += 1;
        (incarnation << 32) | (self.leases & 0xffff_ffff)
    }
}

/// Handed through all parts while one event is worked on.
pub(crate) struct Context<'a> {
    pub now: Now,
    pub view: ViewState,
    /// Since when the view is as it is.
    pub view_since: Millis,
    pub shared: &'a dyn SharedView,
    pub effects: &'a mut Vec<Effect>,
    pub ids: &'a mut Ids,
    pub options: &'a Options,
    pub outbox: &'a mut Outbox,
}

impl Context<'_> {
    /// Whether everything announced has been merged, so that absence means something.
    pub fn is_current(&self) -> bool {
        let is_planted = self.options.planted == Some(PlantedBug::ActsWhileCatchingUp) && self.view == ViewState::CatchingUp;
        self.view == ViewState::Current || is_planted
    }

    /// Whether pins may be re-placed: the view is current, or it has been catching up for so long that the missing part of the
    /// history must be lost with its disks. (Letting go still waits: only a complete view tells what is not wanted.)
    pub fn may_repair(&self) -> bool {
        let waited = self.now.mono.0.saturating_sub(self.view_since.0);
        self.is_current() || (self.view == ViewState::CatchingUp && waited > self.options.grace.0.saturating_mul(LOST_GRACES))
    }
}
