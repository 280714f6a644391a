//! How a connection goes, and whether anybody uses it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The way of one connection.
#[derive(Debug)]
pub(super) struct Way {
    is_relayed: bool,
    /// There is a direct connection to the same peer.
    is_outdone: AtomicBool,
    streams: AtomicUsize,
}

impl Way {
    pub(super) fn new(is_relayed: bool) -> Way {
        Way { is_relayed, is_outdone: AtomicBool::new(false), streams: AtomicUsize::new(0) }
    }

    pub(super) fn is_relayed(&self) -> bool {
        self.is_relayed
    }

    pub(super) fn is_outdone(&self) -> bool {
        self.is_outdone.load(Ordering::Relaxed)
    }

    pub(super) fn set_outdone(&self, is_outdone: bool) {
        self.is_outdone.store(is_outdone, Ordering::Relaxed);
    }

    pub(super) fn is_unused(&self) -> bool {
        self.streams.load(Ordering::Relaxed) == 0
    }

    /// One more stream.
    pub(super) fn in_use(self: &Arc<Way>) -> InUse {
        self.streams.fetch_add(1, Ordering::Relaxed);
        InUse(self.clone())
    }
}

/// A stream that is open on a connection.
#[derive(Debug)]
pub(super) struct InUse(Arc<Way>);

impl InUse {
    pub(super) fn way(&self) -> &Way {
        &self.0
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}
