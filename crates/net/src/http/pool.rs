//! Connections that are used again, and how many there may be at one server.

use super::HttpLimits;
use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1::SendRequest;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::AbortOnDropHandle;
use url::{Position, Url};

/// Servers remembered; those that nobody asks at the moment go first.
const ORIGINS_MOST: usize = 256;
/// A kept connection is ready at once, or it is not kept.
const READY_LIMIT: Duration = Duration::from_millis(100);

/// A connection to a server.
pub(super) struct Connection {
    pub(super) sender: SendRequest<Empty<Bytes>>,
    /// It leads to this machine or a neighbour.
    pub(super) is_private: bool,
    pub(super) _task: AbortOnDropHandle<()>,
}

pub(super) struct Pool {
    limits: HttpLimits,
    /// By scheme, host and port, and whether it was allowed to be in a private net: what was dialled with less care is not used with more.
    origins: Mutex<HashMap<(String, bool), Arc<Origin>>>,
}

struct Origin {
    slots: Arc<Semaphore>,
    kept: Mutex<Vec<(Instant, Connection)>>,
}

impl Pool {
    pub(super) fn new(limits: HttpLimits) -> Pool {
        Pool { limits, origins: Mutex::default() }
    }

    /// Waits until there may be one more request at this server.
    pub(super) async fn turn(&self, url: &Url, may_be_private: bool) -> Turn {
        let origin = self.origin(url, may_be_private);
        // Nobody closes it.
        let permit = origin.slots.clone().acquire_owned().await.ok();
        Turn { origin, idle: self.limits.idle, _permit: permit }
    }

    fn origin(&self, url: &Url, may_be_private: bool) -> Arc<Origin> {
        let key = (url[..Position::BeforePath].to_owned(), may_be_private);
        let mut origins = self.origins.lock();
        if origins.len() >= ORIGINS_MOST && !origins.contains_key(&key) {
            origins.retain(|_, origin| Arc::strong_count(origin) > 1);
        }
        let fresh = || Arc::new(Origin { slots: Arc::new(Semaphore::new(self.limits.connections.max(1))), kept: Mutex::default() });
        origins.entry(key).or_insert_with(fresh).clone()
    }
}

/// The right to one request at a server.
pub(super) struct Turn {
    origin: Arc<Origin>,
    idle: Duration,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Turn {
    /// A connection from an earlier request, the youngest first.
    pub(super) async fn kept(&self) -> Option<Connection> {
        loop {
            let (since, mut connection) = self.origin.kept.lock().pop()?;
            if since.elapsed() >= self.idle {
                // Those below it are older.
                self.origin.kept.lock().clear();
                return None;
            }
            if let Ok(Ok(())) = tokio::time::timeout(READY_LIMIT, connection.sender.ready()).await {
                return Some(connection);
            }
        }
    }

    pub(super) fn lend(self, connection: Connection) -> Lent {
        Lent { turn: self, connection: Some(connection) }
    }
}

/// A connection that an answer is being read from. Dropped, it is closed, for bytes may be left on it.
pub(super) struct Lent {
    turn: Turn,
    connection: Option<Connection>,
}

impl Lent {
    pub(super) fn is_private(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.is_private)
    }

    /// All was read: others may use it.
    pub(super) fn give_back(mut self) {
        if let Some(connection) = self.connection.take().filter(|connection| !connection.sender.is_closed()) {
            self.turn.origin.kept.lock().push((Instant::now(), connection));
        }
    }
}
