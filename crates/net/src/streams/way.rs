//! How a connection goes, whether the host knows of it, and whether anybody uses it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::sync::watch;

/// The way of one connection.
#[derive(Debug)]
pub(super) struct Way {
    is_relayed: bool,
    /// There is a direct connection to the same peer.
    is_outdone: AtomicBool,
    /// Whoever asks the host finds the peer connected.
    is_known: watch::Sender<bool>,
    streams: AtomicUsize,
}

impl Way {
    pub(super) fn new(is_relayed: bool) -> Way {
        Way { is_relayed, is_outdone: AtomicBool::new(false), is_known: watch::Sender::new(false), streams: AtomicUsize::new(0) }
    }

    /// The host has told that this connection exists.
    pub(super) fn set_known(&self) {
        self.is_known.send_replace(true);
    }

    /// Returns when the host has told that this connection exists.
    pub(super) async fn known(&self) {
        // Fails only when the sender is gone, which is part of this.
        let _ = self.is_known.subscribe().wait_for(|is_known| *is_known).await;
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

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn whoever_waits_for_the_news_of_a_connection_goes_on_when_it_comes() {
        let way = Way::new(false);
        assert!(way.known().now_or_never().is_none());
        tokio::join!(way.known(), async { way.set_known() });
        way.known().await;
    }
}
