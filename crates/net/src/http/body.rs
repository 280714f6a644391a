//! The body of an answer, within its bounds.

use super::pool::Lent;
use super::{HttpError, chain};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use std::time::Duration;
use tokio::time::Instant;

/// Reserved at once for a body whose length the server told; more only as it comes.
const RESERVED_MOST: u64 = 256 << 10;

/// The body of an answer. Dropped before its end it closes the connection.
pub struct Body {
    incoming: Incoming,
    lent: Option<Lent>,
    is_private: bool,
    most: usize,
    left: usize,
    stall: Duration,
    deadline: Instant,
    whole: Duration,
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Body({} bytes may come)", self.left)
    }
}

impl Body {
    pub(super) fn new(incoming: Incoming, lent: Lent, most: usize, stall: Duration, deadline: Instant, whole: Duration) -> Body {
        Body { incoming, is_private: lent.is_private(), lent: Some(lent), most, left: most, stall, deadline, whole }
    }

    /// Whether the server is this machine or a neighbour.
    pub fn is_private(&self) -> bool {
        self.is_private
    }

    /// The next part; none at the end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, HttpError> {
        // Told beforehand: not a byte of it is read.
        if self.incoming.size_hint().lower() > self.left as u64 {
            return Err(HttpError::TooLong { most: self.most });
        }
        loop {
            let limit = self.deadline.min(Instant::now() + self.stall);
            let frame = match tokio::time::timeout_at(limit, self.incoming.frame()).await {
                Err(_) if limit == self.deadline => return Err(HttpError::Late { what: "end of the answer", limit: self.whole }),
                Err(_) => return Err(HttpError::Late { what: "further byte", limit: self.stall }),
                Ok(Some(Err(error))) => return Err(HttpError::Broken(chain(&error))),
                Ok(Some(Ok(frame))) => frame,
                Ok(None) => {
                    if let Some(lent) = self.lent.take() {
                        lent.give_back();
                    }
                    return Ok(None);
                }
            };
            let Ok(data) = frame.into_data() else { continue };
            let Some(left) = self.left.checked_sub(data.len()) else { return Err(HttpError::TooLong { most: self.most }) };
            self.left = left;
            return Ok(Some(data));
        }
    }

    /// All of it.
    pub async fn all(mut self) -> Result<Bytes, HttpError> {
        let told = self.incoming.size_hint().lower().min(RESERVED_MOST);
        let mut all = BytesMut::with_capacity(usize::try_from(told).unwrap_or(0));
        while let Some(data) = self.chunk().await? {
            all.extend_from_slice(&data);
        }
        Ok(all.freeze())
    }
}
