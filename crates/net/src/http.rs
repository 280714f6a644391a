//! A bounded HTTP/1.1 client: what a node asks servers that its user named, and does not have to trust.
//!
//! ```text
//!   HttpClient::get ─► origin: a slot, then an idle connection or a fresh one ─► request ─► redirect? ─► Answer (head, bounded body)
//!                                       │ name ─► addresses (guard: who sent us there?) ─► TCP under limits of bandwidth ─► TLS 1.3
//! ```
//! - Everything has a bound: time to connect, to the first byte, between bytes and as a whole; bytes of head and body; connections at a host.
//! - A server that the user named may be anywhere. One that another server names (by a redirect or a record) may only be in the world, unless
//!   who named it is in a private net itself: strangers must not make this machine knock at its neighbours.
//! - TLS trusts the usual public authorities and those that the user names besides.
//!
//! Deliberately absent: cookies, proxies, authentication, compression (blocks do not compress, and bombs do), HTTP/2, sending bodies.

mod body;
mod connect;
mod guard;
mod pool;
mod url;

pub use self::body::Body;
pub use self::guard::is_public;
pub use self::url::{BadUrl, base, shown};
pub use ::url::Url;

use self::connect::Connector;
use self::pool::{Lent, Pool};
use crate::throttle::Throttle;
use bytes::Bytes;
use http_body_util::Empty;
use hyper::header::{self, HeaderMap};
use hyper::{Method, Request, Uri};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// The bounds of a client.
#[derive(Clone, Copy, Debug)]
pub struct HttpLimits {
    /// Name, connection and TLS together.
    pub connect: Duration,
    /// From the request to the whole head of the answer: gateways look for content meanwhile.
    pub head: Duration,
    /// Between two parts of a body.
    pub stall: Duration,
    /// All of it, and the time that what may come takes at the rate below: a slow line is no fault of the server.
    pub whole: Duration,
    /// Bytes in a second that are waited for.
    pub rate_least: usize,
    /// Connections at one server at once; more requests wait in line.
    pub connections: usize,
    /// An unused connection is kept for so long; shorter than what servers usually keep it.
    pub idle: Duration,
    /// Redirects that are followed.
    pub redirects: usize,
    /// Bytes of the head of an answer.
    pub head_bytes: usize,
}

impl Default for HttpLimits {
    fn default() -> HttpLimits {
        HttpLimits {
            connect: Duration::from_secs(10),
            head: Duration::from_secs(30),
            stall: Duration::from_secs(15),
            whole: Duration::from_secs(90),
            rate_least: 8 << 10,
            connections: 16,
            idle: Duration::from_secs(20),
            redirects: 3,
            head_bytes: 32 << 10,
        }
    }
}

/// What a client is made of.
#[derive(Clone, Debug, Default)]
pub struct HttpOptions {
    /// Whose limits the bytes keep to and are counted by.
    pub throttle: Throttle,
    /// What it says it is.
    pub agent: String,
    /// Certificates (PEM) of authorities that are trusted besides the usual ones.
    pub authorities: Option<Vec<u8>>,
    /// Bounds.
    pub limits: HttpLimits,
}

/// Why there is no answer, or not all of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// The name leads nowhere.
    #[error("no address of {host}: {why}")]
    Name {
        /// The name.
        host: String,
        /// What the resolver said.
        why: String,
    },
    /// Somebody else sent us to a private net.
    #[error("{host} is in a private net ({address}), and who named it is not: not asked")]
    Private {
        /// The name.
        host: String,
        /// Where it leads.
        address: String,
    },
    /// Nobody listens there.
    #[error("connecting to {host}: {why}")]
    Connect {
        /// The server.
        host: String,
        /// What failed.
        why: String,
    },
    /// It could not prove who it is.
    #[error("TLS with {host}: {why}")]
    Tls {
        /// The server.
        host: String,
        /// What failed.
        why: String,
    },
    /// Too slow.
    #[error("no {what} within {} s", limit.as_secs())]
    Late {
        /// What was waited for.
        what: &'static str,
        /// For how long.
        limit: Duration,
    },
    /// Longer than what was asked for can be.
    #[error("an answer of more than {most} bytes")]
    TooLong {
        /// The limit.
        most: usize,
    },
    /// Not HTTP, or it broke off.
    #[error("the connection failed: {0}")]
    Broken(String),
    /// A redirect that is not followed.
    #[error("a redirect that is not followed: {0}")]
    Redirect(String),
    /// The authorities to be trusted besides cannot be read.
    #[error("reading the certificates of authorities: {0}")]
    Authorities(String),
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Where.
    pub url: &'a Url,
    /// What is taken.
    pub accept: &'a str,
    /// Bytes of the body at most.
    pub most: usize,
    /// The user named it, or one that is in a private net itself did.
    pub may_be_private: bool,
}

/// The head of an answer, and its body to be read.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// What the body is, without parameters, in lower case.
    pub kind: String,
    /// When to come again, where it says so.
    pub retry_after: Option<Duration>,
    /// Bytes of the body, where it says so.
    pub length: Option<u64>,
    /// What follows.
    pub body: Body,
}

/// While own limits of bandwidth stand, everything may take so many times as long.
const OWN_LIMITS: u32 = 10;

/// How long one request may take.
#[derive(Clone, Copy)]
struct Patience {
    head: Duration,
    stall: Duration,
    whole: Duration,
}

/// Asks servers. Clones share connections.
#[derive(Clone)]
pub struct HttpClient {
    inner: Arc<Inner>,
}

struct Inner {
    connector: Connector,
    pool: Pool,
    agent: String,
    limits: HttpLimits,
}

impl std::fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HttpClient({:?})", self.inner.limits)
    }
}

impl HttpClient {
    /// A client; fails only when the authorities to be trusted besides cannot be read.
    pub fn new(options: HttpOptions) -> Result<HttpClient, HttpError> {
        let HttpOptions { throttle, agent, authorities, limits } = options;
        let connector = Connector::new(throttle, authorities.as_deref(), limits)?;
        let pool = Pool::new(limits);
        Ok(HttpClient { inner: Arc::new(Inner { connector, pool, agent, limits }) })
    }

    /// The answer when its head has come; any status but a followed redirect. Dropped at any time, nothing goes on.
    pub async fn get(&self, ask: Ask<'_>) -> Result<Answer, HttpError> {
        let HttpLimits { head, stall, whole, rate_least, .. } = self.inner.limits;
        let whole = whole + Duration::from_secs((ask.most / rate_least.max(1)) as u64);
        // While own limits stand, it may be they that all wait for.
        let times = if self.inner.connector.throttle.is_limiting() { OWN_LIMITS } else { 1 };
        let patience = Patience { head: head * times, stall: stall * times, whole: whole * times };
        let deadline = Instant::now() + patience.whole;
        let asked = tokio::time::timeout_at(deadline, self.follow(ask, deadline, patience)).await;
        asked.unwrap_or(Err(HttpError::Late { what: "answer", limit: patience.whole }))
    }

    async fn follow(&self, ask: Ask<'_>, deadline: Instant, patience: Patience) -> Result<Answer, HttpError> {
        let (mut url, mut may_be_private) = (ask.url.clone(), ask.may_be_private);
        for _ in 0..=self.inner.limits.redirects {
            let (head, lent, incoming) = self.once(&url, ask.accept, may_be_private, patience.head).await?;
            if !matches!(head.status.as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(Answer {
                    status: head.status.as_u16(),
                    kind: media_type(&head.headers),
                    retry_after: retry_after(&head.headers, SystemTime::now()),
                    length: hyper::body::Body::size_hint(&incoming).exact(),
                    body: Body::new(incoming, lent, ask.most, patience.stall, deadline, patience.whole),
                });
            }
            let location = head.headers.get(header::LOCATION).and_then(|location| location.to_str().ok()).unwrap_or_default();
            url = url::redirected(&url, location).map_err(HttpError::Redirect)?;
            may_be_private = may_be_private && lent.is_private();
        }
        Err(HttpError::Redirect(format!("more than {} in a row", self.inner.limits.redirects)))
    }

    /// One request. A kept connection that its server has closed meanwhile costs another try.
    async fn once(
        &self,
        url: &Url,
        accept: &str,
        may_be_private: bool,
        limit: Duration,
    ) -> Result<(hyper::http::response::Parts, Lent, hyper::body::Incoming), HttpError> {
        let turn = self.inner.pool.turn(url, may_be_private).await;
        loop {
            let (mut connection, is_kept) = match turn.kept().await {
                Some(kept) => (kept, true),
                None => (self.inner.connector.connect(url, may_be_private).await?, false),
            };
            let sent = connection.sender.send_request(self.request(url, accept)?);
            match tokio::time::timeout(limit, sent).await {
                Ok(Ok(response)) => {
                    let (head, incoming) = response.into_parts();
                    return Ok((head, turn.lend(connection), incoming));
                }
                Ok(Err(_)) if is_kept => {}
                Ok(Err(error)) => return Err(HttpError::Broken(chain(&error))),
                Err(_) => return Err(HttpError::Late { what: "answer", limit }),
            }
        }
    }

    fn request(&self, url: &Url, accept: &str) -> Result<Request<Empty<Bytes>>, HttpError> {
        let path = &url[::url::Position::BeforePath..::url::Position::AfterQuery];
        let target: Uri = path.parse().map_err(|error| HttpError::Broken(format!("{path:?}: {error}")))?;
        let host = &url[::url::Position::BeforeHost..::url::Position::AfterPort];
        let request = Request::builder().method(Method::GET).uri(target).header(header::HOST, host);
        // Peers of ours that name each other see by the second that they must not ask in turn.
        let request = request.header(header::ACCEPT, accept).header(header::USER_AGENT, &self.inner.agent).header(header::VIA, VIA);
        request.body(Empty::new()).map_err(|error| HttpError::Broken(error.to_string()))
    }
}

/// What says that a peer of ours asks, in the header `Via`.
pub const VIA: &str = "1.1 pinfold";

fn media_type(headers: &HeaderMap) -> String {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Seconds, or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;
