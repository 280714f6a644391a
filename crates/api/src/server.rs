//! Accepts connections, keeps the limits, asks the guard, hands requests to a door, drains on stop.

use crate::crowd::{Busy, Crowd, Seat};
use crate::guard::{Credentials, Guard};
use crate::linger::Linger;
use crate::message::{Body, Request, RequestBody, Response, error_json};
use crate::stall::Stall;
use crate::trailer::{TrailerIo, TrailerSlot};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

/// How a door listens and whom it lets in.
pub struct ServeOptions {
    /// Already bound (see [`crate::guard::check_listen`] for which addresses may be).
    pub listener: TcpListener,
    /// Host names by which clients may call this door, beside IP literals and `localhost`.
    pub names: Vec<String>,
    /// Foreign origins (`https://example.org`) whose pages may read and write here; `*` for any.
    pub origins: Vec<String>,
    /// When set, every request must carry one of them (basic authentication).
    pub credentials: Option<Credentials>,
    /// Bounds on what strangers may use.
    pub limits: Limits,
}

impl ServeOptions {
    /// The usual ones: no extra names, no foreign origins, no credentials.
    pub fn new(listener: TcpListener) -> ServeOptions {
        ServeOptions { listener, names: Vec::new(), origins: Vec::new(), credentials: None, limits: Limits::default() }
    }
}

/// Bounds on what strangers may use of a door.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Open connections; a further one takes the place of the longest idle, or waits while none is idle.
    pub connections: usize,
    /// Requests being answered, streams included; further ones get 503.
    pub requests: usize,
    /// Requests with a body among them: slow senders must leave room for those who only ask.
    pub uploads: usize,
    /// Bytes of a request's head; more gets 431.
    pub head_bytes: usize,
    /// How long a connection may be silent between requests, or take to send a head.
    pub idle: Duration,
    /// How long a client may pause while it sends a body, or leave an answer unread.
    pub body_idle: Duration,
    /// How long requests in flight may go on after the stop.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 4096,                   // about 100 KB each at worst
            requests: 1024,                      // more at once only add to each other's latency
            uploads: 512,                        // half of them
            head_bytes: 96 << 10,                // a URI has at most 64 KiB: `GET /pins?cids=` with 1,000 CIDs
            idle: Duration::from_secs(120),      // Go's default
            body_idle: Duration::from_secs(120), // a client that packs a tree may think for a while
            drain: Duration::from_secs(10),
        }
    }
}

/// Something that answers requests.
pub(crate) trait Door: Send + Sync + 'static {
    /// Answers one request. Cancelled by drop when the client goes away.
    fn answer(self: Arc<Self>, request: Request) -> impl Future<Output = Response> + Send;
}

/// Runs a door until `stop`; the handle ends when the last request has, or the drain time is over.
pub(crate) fn serve<D: Door>(options: ServeOptions, door: Arc<D>, stop: CancellationToken) -> JoinHandle<()> {
    let shared = Arc::new(Shared {
        door,
        guard: Guard::new(options.names, options.origins, options.credentials),
        requests: Arc::new(Semaphore::new(options.limits.requests)),
        uploads: Arc::new(Semaphore::new(options.limits.uploads)),
        limits: options.limits,
    });
    tokio::spawn(accept_until(options.listener, shared, stop))
}

struct Shared<D> {
    door: Arc<D>,
    guard: Guard,
    requests: Arc<Semaphore>,
    uploads: Arc<Semaphore>,
    limits: Limits,
}

async fn accept_until<D: Door>(listener: TcpListener, shared: Arc<Shared<D>>, stop: CancellationToken) {
    let crowd = Crowd::new(shared.limits.connections);
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            stream = next_stream(&listener, &crowd) => stream,
        };
        while connections.try_join_next().is_some() {}
        let Some((stream, seat)) = stream else { break };
        let (shared, stop) = (shared.clone(), stop.clone());
        connections.spawn(async move {
            serve_connection(stream, &seat, shared, stop).await;
            drop(seat);
        });
    }
    drop(listener);
    let drained = tokio::time::timeout(shared.limits.drain, async { while connections.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::info!(open = connections.len(), "connections cut at the end of the drain time");
        connections.shutdown().await;
    }
}

/// The next connection and a place for it; further ones wait meanwhile in the backlog of the kernel.
async fn next_stream(listener: &TcpListener, crowd: &Arc<Crowd>) -> Option<(TcpStream, Seat)> {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return Some((stream, crowd.seat().await?)),
            Err(error) => {
                // Out of descriptors, or a client that went away while waiting: neither ends the door.
                tracing::debug!(%error, "accepting a connection");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

async fn serve_connection<D: Door>(stream: TcpStream, seat: &Seat, shared: Arc<Shared<D>>, stop: CancellationToken) {
    let _ = stream.set_nodelay(true);
    let slot = TrailerSlot::default();
    let io = TokioIo::new(TrailerIo::new(Stall::new(Linger::new(stream), shared.limits.body_idle), slot.clone()));
    let limits = shared.limits;
    let (marker, cut) = (seat.marker(), seat.cut());
    let service = service_fn(move |request| {
        let (shared, slot, busy) = (shared.clone(), slot.clone(), marker());
        async move { Ok::<_, Infallible>(answer(&shared, request, slot, busy).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle)
        .max_header_size(limits.head_bytes)
        .serve_connection(io, service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = cut.cancelled() => return,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

async fn answer<D: Door>(shared: &Shared<D>, request: hyper::Request<Incoming>, slot: TrailerSlot, busy: Busy) -> Response {
    let (head, body) = request.into_parts();
    let origin = match shared.guard.check(&head) {
        Ok(origin) => origin,
        Err(refusal) => return refusal.into_response(),
    };
    if head.method == Method::OPTIONS
        && let Some(origin) = &origin
    {
        return shared.guard.preflight(origin);
    }
    let Ok(permit) = shared.requests.clone().try_acquire_owned() else { return too_many("requests") };
    let upload = match body.is_end_stream() {
        true => None,
        false => match shared.uploads.clone().try_acquire_owned() {
            Ok(upload) => Some(upload),
            Err(_) => return too_many("uploads"),
        },
    };
    let request = Request { head, body: RequestBody::new(body, shared.limits.body_idle), trailer: slot };
    let mut response = shared.door.clone().answer(request).await;
    if let Some(origin) = &origin {
        shared.guard.let_read(origin, &mut response);
    }
    response.map(|body: Body| body.holding((permit, upload, busy)))
}

fn too_many(what: &str) -> Response {
    let mut response = error_json(StatusCode::SERVICE_UNAVAILABLE, &format!("too many {what} at once: try again"));
    response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
    response
}
