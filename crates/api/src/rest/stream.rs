//! Streamed lists: newline-delimited JSON, a page at a time, with Go's error trailer.

use super::{Answer, Failure};
use crate::message::{Body, Response, json, no_content};
use crate::trailer::TrailerSlot;
use bytes::Bytes;
use futures::stream;
use hyper::header::{self, HeaderValue};
use tokio::task::JoinHandle;

/// The trailer that tells what went wrong in the middle of a stream.
pub(crate) const STREAM_ERROR: &str = "X-Stream-Error";

/// Makes the pages of a list; runs where blocking is allowed.
pub(crate) trait Pages: Send + 'static {
    /// The lines of the next page (may be none, when a filter lets nothing through); `None` at the end.
    fn next(&mut self) -> Result<Option<Vec<u8>>, Failure>;
}

/// Streams pages. Nothing at all is 204, as Go answers. While a page is on its way the next one is made.
pub(crate) async fn answer<P: Pages>(pages: P, trailer: TrailerSlot) -> Answer {
    let Some((first, pages)) = joined(filled_page(pages)).await? else { return Ok(no_content()) };
    let next = filled_page(pages);
    let rest = stream::unfold((Some(first), Some(next)), move |(first, next)| {
        let trailer = trailer.clone();
        async move {
            if let Some(first) = first {
                return Some((Ok(Bytes::from(first)), (None, next)));
            }
            match joined(next?).await {
                Ok(Some((page, pages))) => Some((Ok(Bytes::from(page)), (None, Some(filled_page(pages))))),
                Ok(None) => {
                    trailer.set(STREAM_ERROR, "");
                    None
                }
                Err(failure) => {
                    trailer.set(STREAM_ERROR, &failure.message);
                    None
                }
            }
        }
    });
    Ok(streamed(Body::stream(rest)))
}

/// A streamed answer with the header that announces the trailer.
pub(crate) fn streamed(body: Body) -> Response {
    let mut response = json(Bytes::new());
    *response.body_mut() = body;
    response.headers_mut().insert(header::TRAILER, HeaderValue::from_static(STREAM_ERROR));
    response
}

/// A page that is being made, and what makes the ones after it.
type Making<P> = JoinHandle<Result<Option<(Vec<u8>, P)>, Failure>>;

/// Begins to make the next page with something in it.
fn filled_page<P: Pages>(mut pages: P) -> Making<P> {
    tokio::task::spawn_blocking(move || {
        loop {
            match pages.next()? {
                None => return Ok(None),
                Some(page) if page.is_empty() => {}
                Some(page) => return Ok(Some((page, pages))),
            }
        }
    })
}

async fn joined<P>(making: Making<P>) -> Result<Option<(Vec<u8>, P)>, Failure> {
    making.await.unwrap_or_else(|error| Err(Failure::internal(format!("reading the list: {error}"))))
}
