//! Submits that wait for the next commit. All that wait are taken at once and share its fsync, so no timer is needed: while one
//! commit is under way the next group gathers.

use crate::{Receipt, SubmitError, Write, contract};
use tokio::sync::{mpsc, oneshot, watch};

/// Submits that may wait; behind them `submit` itself waits. Enough for a few groups of busy doors.
const SUBMITS_MAX: usize = 4096;

/// A submit and where its answer goes.
pub(crate) struct Submit {
    pub(crate) writes: Vec<Write>,
    pub(crate) answer: oneshot::Sender<Result<Receipt, SubmitError>>,
}

/// The submitting side.
#[derive(Clone)]
pub(crate) struct SubmitQueue(mpsc::Sender<Submit>);

impl SubmitQueue {
    pub(crate) fn new() -> (SubmitQueue, mpsc::Receiver<Submit>) {
        let (sender, receiver) = mpsc::channel(SUBMITS_MAX);
        (SubmitQueue(sender), receiver)
    }

    /// Checks, hands over, waits for the answer.
    pub(crate) async fn submit(&self, writes: Vec<Write>) -> Result<Receipt, SubmitError> {
        contract::check(&writes)?;
        let (answer, answered) = oneshot::channel();
        self.0.send(Submit { writes, answer }).await.map_err(|_| SubmitError::Stopped)?;
        answered.await.unwrap_or(Err(SubmitError::Stopped))
    }
}

/// Waits until an engine is asked to stop, or was dropped.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
