//! The newest notices, so that a page that is opened late shows what just happened. A window for people, not a record.

use cluster::Notice;
use peer::{Cluster, Live};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use types::UnixMillis;

/// Notices shown.
const KEPT: usize = 50;

/// One notice.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub at: UnixMillis,
    pub kind: &'static str,
    pub text: String,
}

/// The newest notices of this peer.
#[derive(Clone, Default)]
pub(crate) struct Recent(Arc<Mutex<VecDeque<Shown>>>);

impl Recent {
    /// Follows the live events until `stop`.
    pub fn follow(cluster: Arc<dyn Cluster>, stop: CancellationToken) -> Recent {
        let recent = Recent::default();
        let kept = recent.clone();
        let mut live = cluster.live_notices();
        tokio::spawn(stop.run_until_cancelled_owned(async move {
            loop {
                match live.recv().await {
                    Ok(Live::Notice(at, notice, text)) => kept.push(Shown { at, kind: notice_kind(&notice), text }),
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                }
            }
        }));
        recent
    }

    fn push(&self, shown: Shown) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.truncate(KEPT - 1);
        kept.push_front(shown);
    }

    /// Newest first.
    pub fn newest(&self) -> Vec<Shown> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// How a notice is marked: `good`, `warn`, `bad` or `info`.
pub(crate) fn notice_kind(notice: &Notice) -> &'static str {
    match notice {
        Notice::PeerBack(_) | Notice::Repaired { .. } => "good",
        Notice::PeerSuspect(_) | Notice::RecordRefused { .. } | Notice::Author { .. } => "warn",
        Notice::PeerDown(_) | Notice::PinFailed { .. } | Notice::CopyDamaged { .. } | Notice::RemovalsBraked { .. } => "bad",
        Notice::Repairing { .. }
        | Notice::Membership { .. }
        | Notice::Duty { .. }
        | Notice::Balancing { .. }
        | Notice::SigningEnds { .. } => "info",
    }
}
