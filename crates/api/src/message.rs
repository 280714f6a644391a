//! Requests and answers as doors see them.

use crate::trailer::TrailerSlot;
use bytes::Bytes;
use futures::Stream;
use futures::stream::BoxStream;
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::http::request::Parts;
use hyper::{StatusCode, header};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// A request that passed the guard.
pub(crate) struct Request {
    pub head: Parts,
    pub body: RequestBody,
    /// Where a streamed answer leaves its trailer.
    pub trailer: TrailerSlot,
}

/// An answer.
pub(crate) type Response = hyper::Response<Body>;

/// Why a streamed answer broke off; the client sees an incomplete message.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Broken(pub String);

/// Why a request's body could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the client sent nothing for {} s", .0.as_secs())]
    Idle(Duration),
    #[error("reading the request: {0}")]
    Connection(#[from] hyper::Error),
    #[error("the request is larger than {0} bytes")]
    TooLarge(usize),
}

/// The body of a request; a client that pauses too long is cut.
pub(crate) struct RequestBody {
    incoming: Incoming,
    idle: Duration,
}

impl RequestBody {
    pub fn new(incoming: Incoming, idle: Duration) -> RequestBody {
        RequestBody { incoming, idle }
    }

    /// The next piece; none at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        loop {
            let frame = match tokio::time::timeout(self.idle, self.incoming.frame()).await {
                Ok(frame) => frame,
                Err(_) => return Err(BodyError::Idle(self.idle)),
            };
            match frame {
                None => return Ok(None),
                Some(frame) => {
                    if let Ok(data) = frame?.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// All of a body that may be at most `limit` bytes.
    pub async fn whole(&mut self, limit: usize) -> Result<Vec<u8>, BodyError> {
        let mut whole = Vec::new();
        while let Some(data) = self.next().await? {
            if whole.len() + data.len() > limit {
                return Err(BodyError::TooLarge(limit));
            }
            whole.extend_from_slice(&data);
        }
        Ok(whole)
    }
}

/// The body of an answer: known, or streamed.
pub(crate) struct Body {
    content: Content,
    held: Option<Box<dyn Send + Sync>>,
}

enum Content {
    Whole(Bytes),
    Stream { stream: BoxStream<'static, Result<Bytes, Broken>>, length: Option<u64> },
}

impl Body {
    pub fn empty() -> Body {
        Body::whole(Bytes::new())
    }

    pub fn whole(bytes: impl Into<Bytes>) -> Body {
        Body { content: Content::Whole(bytes.into()), held: None }
    }

    pub fn stream(stream: impl Stream<Item = Result<Bytes, Broken>> + Send + 'static) -> Body {
        Body { content: Content::Stream { stream: Box::pin(stream), length: None }, held: None }
    }

    /// A stream of known length.
    pub fn sized(stream: impl Stream<Item = Result<Bytes, Broken>> + Send + 'static, length: u64) -> Body {
        Body { content: Content::Stream { stream: Box::pin(stream), length: Some(length) }, held: None }
    }

    /// Keeps `held` (places, marks) until the body has been sent.
    pub fn holding(mut self, held: impl Send + Sync + 'static) -> Body {
        self.held = Some(Box::new(held));
        self
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match &mut self.content {
            Content::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Content::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Content::Stream { stream, .. } => stream.as_mut().poll_next(cx).map(|next| next.map(|data| data.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.content, Content::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Stream { length: Some(length), .. } => SizeHint::with_exact(*length),
            Content::Stream { length: None, .. } => SizeHint::default(),
        }
    }
}

/// An answer with a status and a body of one type.
pub(crate) fn with_type(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(Body::whole(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}

/// An answer of one JSON document.
pub(crate) fn json(body: impl Into<Bytes>) -> Response {
    with_type(StatusCode::OK, "application/json", body)
}

/// An answer without a body.
pub(crate) fn no_content() -> Response {
    with_type(StatusCode::NO_CONTENT, "application/json", Bytes::new())
}

/// Only a status.
pub(crate) fn bare(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// Go's error body: `{"code":404,"message":"…"}`.
pub(crate) fn error_json(status: StatusCode, message: &str) -> Response {
    let error = wire::rest::Error { code: status.as_u16(), message: message.to_owned() };
    with_type(status, "application/json", line_of(&error))
}

/// One line of JSON, as Go prints it.
pub(crate) fn line_of<T: serde::Serialize + ?Sized>(value: &T) -> String {
    let mut line = wire::rest::to_go_json(value);
    line.push('\n');
    line
}
