//! Server-sent events: what changed, for pages and waiting programs.
//!
//! Nothing is replayed: a stream begins with `refresh` (read everything anew), and a reader that fell behind gets `refresh`
//! again. Changes of pins are gathered for a moment, so that a burst costs a reader little.

use super::{Answer, Failure, Rest};
use crate::message::{Body, Request, with_type};
use bytes::Bytes;
use futures::{StreamExt, stream};
use hyper::StatusCode;
use hyper::header::{self, HeaderValue};
use peer::Live;
use serde_json::json;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use types::Cid;

/// Changes are gathered for so long before they are told.
const GATHER: Duration = Duration::from_millis(250);
/// More changed pins than this at once are told as `refresh`.
const PINS_MAX: usize = 100;
/// A comment is sent after so long a silence, so that proxies keep the stream and dead readers are found.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

impl Rest {
    pub(super) fn events(&self, _request: Request) -> Answer {
        let Ok(permit) = self.event_streams.clone().try_acquire_owned() else {
            return Err(Failure {
                status: StatusCode::SERVICE_UNAVAILABLE,
                message: "too many live streams at once: try again later".into(),
            });
        };
        let first = stream::once(async { Ok(Bytes::from_static(b"retry: 2000\nevent: refresh\ndata: {}\n\n")) });
        let later = stream::unfold((self.cluster.live(), permit), |(mut live, permit)| async move {
            let text = next_text(&mut live).await?;
            Some((Ok(Bytes::from(text)), (live, permit)))
        });
        let mut response = with_type(StatusCode::OK, "text/event-stream", Bytes::new());
        *response.body_mut() = Body::stream(first.chain(later).take_until(self.stop.clone().cancelled_owned()));
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    }
}

#[derive(Default)]
struct Gathered {
    pins: BTreeSet<Cid>,
    has_peers: bool,
    is_refresh: bool,
    notices: String,
}

impl Gathered {
    fn take(&mut self, event: Result<Live, RecvError>) {
        match event {
            Ok(Live::Pin(cid)) if self.pins.len() < PINS_MAX => {
                self.pins.insert(cid);
            }
            Ok(Live::Pin(_)) | Err(_) => self.is_refresh = true,
            Ok(Live::Peers) => self.has_peers = true,
            Ok(Live::Notice(at, notice, text)) => {
                let data = json!({ "at": super::json::time(at), "kind": crate::page::notice_kind(&notice), "text": text });
                let _ = write!(self.notices, "event: notice\ndata: {data}\n\n");
            }
        }
    }

    fn into_text(self) -> String {
        let mut text = self.notices;
        if self.is_refresh {
            text.push_str("event: refresh\ndata: {}\n\n");
            return text;
        }
        if self.has_peers {
            text.push_str("event: peers\ndata: {}\n\n");
        }
        if !self.pins.is_empty() {
            let cids: Vec<String> = self.pins.iter().map(Cid::to_string).collect();
            let _ = write!(text, "event: pins\ndata: {}\n\n", json!({ "cids": cids }));
        }
        text
    }
}

/// Waits for something, gathers what comes with it; none when the peer ends.
async fn next_text(live: &mut Receiver<Live>) -> Option<String> {
    let mut gathered = Gathered::default();
    match tokio::time::timeout(KEEP_ALIVE, live.recv()).await {
        Err(_) => return Some(": still here\n\n".to_owned()),
        Ok(Err(RecvError::Closed)) => return None,
        Ok(event) => gathered.take(event),
    }
    let until = tokio::time::Instant::now() + GATHER;
    while let Ok(event) = tokio::time::timeout_at(until, live.recv()).await {
        if matches!(event, Err(RecvError::Closed)) {
            break;
        }
        gathered.take(event);
        if gathered.is_refresh {
            tokio::time::sleep_until(until).await;
            // What else waits is part of the refresh.
            while let Ok(event) = live.try_recv() {
                if let Live::Notice(..) = event {
                    gathered.take(Ok(event));
                }
            }
            break;
        }
    }
    Some(gathered.into_text())
}
