//! Fetching: what callers hold.

use super::wants::SessionId;
use super::{Engine, Waiter, verify};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use std::sync::Arc;
use tokio::sync::oneshot;
use types::{Cid, PeerId};

/// Why a block was not fetched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// Nobody who could be asked has it.
    #[error("fetching a block: none of the {asked} peers asked has it")]
    NotFound {
        /// How many peers said so.
        asked: usize,
    },
    /// Some peer that was asked never answered, and nobody else has it.
    #[error("fetching a block: no answer in time")]
    Timeout,
    /// Its hash function is not known here or its digest is too short, so no block could be proven.
    #[error("fetching a block: no block could prove a CID with hash function {0:#x}")]
    Unprovable(u64),
    /// The host was stopped.
    #[error("fetching a block: the network is stopped")]
    Stopped,
}

/// Fetches that belong together. Clones are the same session.
#[derive(Clone)]
pub struct Session {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Arc<Engine>,
    id: SessionId,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.engine.state.lock().wants.end(self.id);
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({})", self.inner.id)
    }
}

impl Session {
    pub(super) fn new(engine: Arc<Engine>) -> Session {
        let id = {
            let mut state = engine.state.lock();
            state.next_id += 1;
            state.next_id
        };
        Session { inner: Arc::new(Inner { engine, id }) }
    }

    /// These peers are asked first. They need a connection; see `Host::connect`.
    pub fn add_providers(&self, peers: &[PeerId]) {
        self.inner.engine.act(|state, now| state.wants.providers(self.inner.id, peers, now));
    }

    /// Fetches one block, proven by its hash. Dropping the future cancels the want, unless others wait for the block too.
    pub async fn fetch(&self, cid: Cid) -> Result<Bytes, FetchError> {
        if let Some(data) = verify::inline(&cid) {
            return Ok(data);
        }
        if !verify::is_provable(&cid) {
            return Err(FetchError::Unprovable(cid.hash().code()));
        }
        let (waiting, answer) = Waiting::begin(self.inner.clone(), cid)?;
        let result = answer.await.unwrap_or(Err(FetchError::Stopped));
        // Answered: nothing is left to be cancelled.
        waiting.defuse();
        result
    }

    /// Fetches many blocks, as they come. Works through the list with a bounded number of wants at once, as fast as results are taken.
    pub fn fetch_many(&self, cids: Vec<Cid>) -> BoxStream<'static, (Cid, Result<Bytes, FetchError>)> {
        let session = self.clone();
        let many = self.inner.engine.limits.many;
        let fetches = futures::stream::iter(cids).map(move |cid| {
            let session = session.clone();
            async move { (cid, session.fetch(cid).await) }
        });
        fetches.buffer_unordered(many).boxed()
    }
}

/// One fetch under way; dropped before its answer it takes its wish back.
struct Waiting {
    session: Option<Arc<Inner>>,
    cid: Cid,
    id: u64,
}

impl Waiting {
    fn begin(session: Arc<Inner>, cid: Cid) -> Result<(Waiting, oneshot::Receiver<Result<Bytes, FetchError>>), FetchError> {
        let (reply, answer) = oneshot::channel();
        let engine = session.engine.clone();
        let id = engine.act(|state, now| {
            if state.is_stopped {
                return Err(FetchError::Stopped);
            }
            state.next_id += 1;
            let id = state.next_id;
            state.waiters.entry(cid).or_default().push(Waiter { id, reply });
            state.wants.add(session.id, cid, now);
            Ok(id)
        })?;
        engine.awake.notify_one();
        Ok((Waiting { session: Some(session), cid, id }, answer))
    }

    fn defuse(mut self) {
        self.session = None;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else { return };
        session.engine.act(|state, now| {
            let Some(waiters) = state.waiters.get_mut(&self.cid) else { return };
            let before = waiters.len();
            waiters.retain(|waiter| waiter.id != self.id);
            let was_waiting = waiters.len() < before;
            if waiters.is_empty() {
                state.waiters.remove(&self.cid);
            }
            if was_waiting {
                state.wants.remove(session.id, &self.cid, now);
            }
        });
    }
}
