//! The machine and the wish as the Go side needs them. It ends with the peer: what comes later is lost.

use crate::core::Core;
use crate::go::Mind;
use crate::view::View;
use cluster::{Event, SharedView};
use std::sync::{Arc, Weak};
use types::{Cid, Pin};

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
}
