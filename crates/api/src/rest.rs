//! The REST door: Go's cluster API on `ipfs-cluster-ctl`'s port, and beside it ours under `/pinfold/v1/`.
//!
//! [`route`](Rest::route) is the whole map of paths. Handlers translate: query to options ([`options`]), machine's words to
//! Go's JSON ([`json`]), errors to Go's codes ([`Failure`]). Lists are streamed in pages, so memory does not grow with the
//! number of pins.

pub(crate) mod add;
mod claims;
mod copies;
mod events;
mod json;
mod limits;
mod moving;
mod names;
mod options;
mod ours;
mod paths;
mod peers;
pub(crate) mod pins;
mod resolve;
mod routing;
mod state;
pub(crate) mod stream;
mod upkeep;

pub(crate) use self::resolve::resolve;
use crate::message::{Request, Response, bare, error_json, no_content};
use crate::page;
use crate::query::decode_percent;
use crate::server::{self, Door, ServeOptions};
use hyper::header::{self, HeaderValue};
use hyper::{Method, StatusCode};
use peer::{Cluster, CommandError};
use std::borrow::Cow;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use types::{Cid, UnixMillis};
use wire::rest::query::Query;

/// Live streams of events at once; each costs a task and a place in the broadcast.
const EVENT_STREAMS: usize = 64;

/// Serves the REST door on `options.listener` until `stop`, then drains; the handle ends when that is done.
pub fn serve(options: ServeOptions, cluster: Arc<dyn Cluster>, stop: CancellationToken) -> JoinHandle<()> {
    let recent = page::Recent::follow(cluster.clone(), stop.clone());
    let door = Rest { cluster, recent, event_streams: Arc::new(Semaphore::new(EVENT_STREAMS)), stop: stop.clone() };
    server::serve(options, Arc::new(door), stop)
}

pub(crate) struct Rest {
    pub(crate) cluster: Arc<dyn Cluster>,
    pub(crate) recent: page::Recent,
    event_streams: Arc<Semaphore>,
    stop: CancellationToken,
}

/// An answer that is an error: Go's code and text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub status: StatusCode,
    pub message: String,
}

impl Failure {
    pub fn bad(message: impl Into<String>) -> Failure {
        Failure { status: StatusCode::BAD_REQUEST, message: message.into() }
    }

    pub fn internal(message: impl Into<String>) -> Failure {
        Failure { status: StatusCode::INTERNAL_SERVER_ERROR, message: message.into() }
    }

    pub fn not_pinned() -> Failure {
        CommandError::NotPinned.into()
    }
}

impl From<CommandError> for Failure {
    /// Go answers 500 to everything but unknown pins; what only asks for another try or another peer is 503.
    fn from(error: CommandError) -> Failure {
        let status = match &error {
            CommandError::NotPinned => StatusCode::NOT_FOUND,
            CommandError::Refused(cluster::Missing::Busy | cluster::Missing::Leaving) | CommandError::Stopping => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Failure { status, message: error.to_string() }
    }
}

impl From<Failure> for Response {
    fn from(failure: Failure) -> Response {
        error_json(failure.status, &failure.message)
    }
}

pub(crate) type Answer = Result<Response, Failure>;

impl Door for Rest {
    async fn answer(self: Arc<Self>, request: Request) -> Response {
        self.route(request).await.unwrap_or_else(Response::from)
    }
}

impl Rest {
    async fn route(self: Arc<Self>, request: Request) -> Answer {
        let uri = request.head.uri.clone();
        let path = uri.path();
        if path.len() > 1 && path.ends_with('/') {
            return Ok(without_trailing_slash(path, uri.query()));
        }
        let query = Query::parse(uri.query().unwrap_or_default());
        let segments: Vec<Cow<'_, str>> = path.split('/').skip(1).map(decode_percent).collect();
        let segments: Vec<&str> = segments.iter().map(|segment| &**segment).collect();
        let (get, post, delete) =
            (request.head.method == Method::GET, request.head.method == Method::POST, request.head.method == Method::DELETE);
        match segments.as_slice() {
            ["pins", "recover"] if post => self.recover_all(&query, request).await,
            ["pins", cid, "recover"] if post => self.recover(cid, &query).await,
            ["pins", cid] if post => self.pin(parse_cid(cid)?, &query).await,
            ["pins", kind @ ("ipfs" | "ipns" | "ipld"), path @ ..] if post && !path.is_empty() => {
                options::pin(&query, wall())?;
                let cid = resolve(&*self.cluster, kind, path).await?;
                self.pin(cid, &query).await
            }
            ["pins", cid] if delete && !query.get("owner").is_empty() => self.release(parse_cid(cid)?, &query).await,
            ["pins", cid] if delete => self.unpin(parse_cid(cid)?).await,
            ["pins", kind @ ("ipfs" | "ipns" | "ipld"), path @ ..] if delete && !path.is_empty() => {
                let cid = resolve(&*self.cluster, kind, path).await?;
                if query.get("owner").is_empty() { self.unpin(cid).await } else { self.release(cid, &query).await }
            }
            ["pins", cid] if get => self.status(cid, &query).await,
            ["pins"] if get => self.statuses(&query, request).await,
            ["allocations"] if get => self.allocations(&query, request).await,
            ["allocations", cid] if get => self.allocation(cid).await,
            ["add"] if post => add::answer(&self.cluster, &query, request, add::Shape::Cluster).await,
            ["id"] if get => self.id().await,
            ["version"] if get => Ok(peers::version()),
            ["health"] if get => Ok(no_content()),
            ["health", "graph"] if get => self.graph().await,
            ["health", "alerts"] if get => Ok(self.alerts()),
            ["health", "bandwidth"] if get => Ok(json::raw("{}\n")),
            ["peers"] if get => self.peers(request).await,
            ["peers"] if post => self.peer_add(request).await,
            ["peers", peer] if delete => self.peer_remove(peer),
            ["monitor", "metrics"] if get => Ok(self.metric_names()),
            ["monitor", "metrics", name] if get => Ok(self.metrics(name)),
            ["ipfs", "gc"] if post => self.collect_garbage().await,
            ["token"] if post => Err(Failure { status: StatusCode::UNAUTHORIZED, message: "unauthorized".into() }),
            ["pinfold", "v1", rest @ ..] => self.ours(rest, &query, request).await,
            [""] if get => Ok(page::index(&self, &query).await),
            ["pins" | "allocations" | "id" | "version" | "health" | "peers" | "ipfs" | "monitor" | "token" | "", ..] => {
                Ok(if is_known(&segments) { bare(StatusCode::METHOD_NOT_ALLOWED) } else { not_found() })
            }
            _ => Ok(not_found()),
        }
    }
}

/// Whether a path exists with another method.
fn is_known(segments: &[&str]) -> bool {
    matches!(
        segments,
        ["pins" | "allocations" | "id" | "version" | "health" | "peers" | "token" | ""]
            | ["pins" | "allocations" | "peers", _]
            | ["pins", _, "recover"]
            | ["pins", "ipfs" | "ipns" | "ipld", _, ..]
            | ["health", "graph" | "alerts" | "bandwidth"]
            | ["monitor", "metrics"]
            | ["monitor", "metrics", _]
            | ["ipfs", "gc"]
    )
}

pub(crate) fn not_found() -> Response {
    error_json(StatusCode::NOT_FOUND, "not found")
}

fn without_trailing_slash(path: &str, query: Option<&str>) -> Response {
    let mut response = bare(StatusCode::TEMPORARY_REDIRECT);
    // One leading slash: `//host/` would lead elsewhere.
    let mut location = format!("/{}", path.trim_matches('/'));
    if let Some(query) = query {
        location.push('?');
        location.push_str(query);
    }
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// Reads a CID as Go does.
pub(crate) fn parse_cid(text: &str) -> Result<Cid, Failure> {
    wire::cids::cid_from_text(text).map_err(|error| Failure::bad(format!("error decoding Cid: {error}")))
}

/// Wall time; doors may read the clock, machines may not.
pub(crate) fn wall() -> UnixMillis {
    peer::clock::wall()
}
