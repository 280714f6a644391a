//! The callee's side: takes streams, asks the router, answers.

use super::values::Values;
use super::{CallError, CallLimits, RPC_PROTOCOL, Replies, Request};
use crate::host::Host;
use crate::streams::{Incoming, OpenError, Stream};
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::ReadHalf;
use tokio::task::{self, JoinError, JoinSet};
use types::PeerId;
use wire::rpc::ErrorKind;

/// The longest request header: two short names. (Go means to take about 286 bytes.)
const REQUEST_BYTES_MAX: usize = 1024;

/// How a method is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// One argument, one reply.
    Unary,
    /// Any number of both.
    Stream,
    /// The service is known, the method is not.
    UnknownMethod,
    /// The service is not known.
    UnknownService,
}

/// Why a method failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The method's own error, passed on as it is.
    #[error("{0}")]
    Method(String),
    /// An argument does not read.
    #[error("{0}")]
    BadArgument(String),
    /// The caller is gone or too slow; there is nobody to tell.
    #[error("the caller is gone")]
    CallerGone,
}

impl Failure {
    /// The method's own error.
    pub fn method(error: impl std::fmt::Display) -> Failure {
        Failure::Method(error.to_string())
    }

    /// An argument does not read.
    pub fn argument(error: impl std::fmt::Display) -> Failure {
        Failure::BadArgument(error.to_string())
    }
}

impl From<CallError> for Failure {
    fn from(_: CallError) -> Failure {
        Failure::CallerGone
    }
}

/// What is served, and to whom. A call's future is dropped when its caller gives up: it must be safe to cancel anywhere.
#[async_trait]
pub trait Router: Send + Sync + 'static {
    /// Whether and how this can be called.
    fn method(&self, request: &Request) -> Method;
    /// Whether `caller` may call it. Not asked for what is unknown.
    fn authorise(&self, caller: &PeerId, request: &Request) -> bool;
    /// Answers a call of a [`Method::Unary`].
    async fn unary(&self, caller: PeerId, request: &Request, argument: Bytes) -> Result<Vec<u8>, Failure>;
    /// Answers a call of a [`Method::Stream`]; what was sent is flushed, and the stream closed, when it returns.
    async fn stream(&self, caller: PeerId, request: &Request, arguments: &mut Arguments, replies: &mut Replies) -> Result<(), Failure>;
}

/// The arguments of a streaming call, as they come.
pub struct Arguments {
    values: Values<ReadHalf<Stream>>,
    limits: CallLimits,
}

impl Arguments {
    /// The next one; none when the caller has sent all.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        self.read(self.limits.idle).await
    }

    async fn read(&mut self, patience: Duration) -> Result<Option<Bytes>, Failure> {
        let next = tokio::time::timeout(patience, self.values.next(self.limits.value_bytes)).await;
        next.map_err(|_| Failure::CallerGone)?.map_err(Failure::argument)
    }

    /// Waits until the caller ends its direction; for ever when it sends something more instead.
    async fn ended(&mut self) {
        if !self.values.ended().await {
            std::future::pending::<()>().await;
        }
    }
}

/// Serves calls on a host.
pub struct Server<R> {
    incoming: Incoming,
    router: Arc<R>,
    limits: CallLimits,
    calls: JoinSet<()>,
    callers: HashMap<task::Id, PeerId>,
    running: HashMap<PeerId, usize>,
}

impl<R: Router> Server<R> {
    /// Takes streams from now on; they are answered while [`Server::run`] runs.
    pub fn accept(host: &Host, router: Arc<R>, limits: CallLimits) -> Result<Server<R>, OpenError> {
        Ok(Server::over(host.accept(&[RPC_PROTOCOL])?, router, limits))
    }

    /// Answers streams that were accepted under [`RPC_PROTOCOL`] before there was a router.
    pub fn over(incoming: Incoming, router: Arc<R>, limits: CallLimits) -> Server<R> {
        Server { incoming, router, limits, calls: JoinSet::new(), callers: HashMap::new(), running: HashMap::new() }
    }

    /// Serves until the host stops. Dropping it resets the calls in flight.
    pub async fn run(mut self) {
        loop {
            tokio::select! {
                Some(ended) = self.calls.join_next_with_id() => self.forget(ended),
                next = self.incoming.next() => match next {
                    Some((peer, _, stream)) => self.begin(peer, stream),
                    None => return,
                },
            }
        }
    }

    fn begin(&mut self, peer: PeerId, stream: Stream) {
        let running = self.running.entry(peer).or_default();
        if *running >= self.limits.calls_per_peer || self.calls.len() >= self.limits.calls_total {
            // Dropping the stream resets it; the caller sees a broken call.
            tracing::debug!(%peer, calls = *running, "call refused: too many at once");
            return;
        }
        *running += 1;
        let (router, limits) = (self.router.clone(), self.limits);
        let call = self.calls.spawn(async move {
            if let Err(error) = serve_call(router.as_ref(), peer, stream, limits).await {
                tracing::debug!(%peer, %error, "call ended early");
            }
        });
        self.callers.insert(call.id(), peer);
    }

    fn forget(&mut self, ended: Result<(task::Id, ()), JoinError>) {
        let id = match ended {
            Ok((id, ())) => id,
            Err(error) => {
                tracing::error!(%error, "a call panicked");
                error.id()
            }
        };
        let Some(peer) = self.callers.remove(&id) else { return };
        if let Some(running) = self.running.get_mut(&peer) {
            *running -= 1;
            if *running == 0 {
                self.running.remove(&peer);
            }
        }
    }
}

async fn serve_call<R: Router>(router: &R, peer: PeerId, stream: Stream, limits: CallLimits) -> Result<(), Failure> {
    let (reader, writer) = tokio::io::split(stream);
    let mut values = Values::new(reader);
    let header = tokio::time::timeout(limits.request, values.next(REQUEST_BYTES_MAX)).await;
    let Some(header) = header.map_err(|_| Failure::CallerGone)?.map_err(Failure::argument)? else { return Err(Failure::CallerGone) };
    let request: Request = wire::rpc::decode(&header).map_err(Failure::argument)?;
    let mut arguments = Arguments { values, limits };
    let mut replies = Replies::new(writer, request.clone(), limits.idle);
    let refused = match router.method(&request) {
        Method::UnknownService => Some((ErrorKind::Server, format!("rpc: can't find service {}", request.service))),
        Method::UnknownMethod => Some((ErrorKind::Server, format!("rpc: can't find method {}", request.method))),
        Method::Unary | Method::Stream if !router.authorise(&peer, &request) => {
            let error = format!("client does not have permissions to call {}.{}", request.service, request.method);
            Some((ErrorKind::NotAuthorised, error))
        }
        Method::Unary => failed(unary(router, peer, &request, &mut arguments, &mut replies).await)?,
        Method::Stream => failed(router.stream(peer, &request, &mut arguments, &mut replies).await)?,
    };
    if let Some((kind, error)) = refused {
        replies.fail(kind, &error).await?;
    }
    replies.close().await?;
    Ok(())
}

/// What the caller is told of a failure; an error when there is nobody to tell.
fn failed(outcome: Result<(), Failure>) -> Result<Option<(ErrorKind, String)>, Failure> {
    match outcome {
        Ok(()) => Ok(None),
        Err(Failure::Method(error)) => Ok(Some((ErrorKind::Method, error))),
        Err(Failure::BadArgument(error)) => Ok(Some((ErrorKind::Server, error))),
        Err(Failure::CallerGone) => Err(Failure::CallerGone),
    }
}

async fn unary<R: Router>(
    router: &R,
    peer: PeerId,
    request: &Request,
    arguments: &mut Arguments,
    replies: &mut Replies,
) -> Result<(), Failure> {
    let argument = arguments.read(arguments.limits.request).await?.ok_or(Failure::CallerGone)?;
    let watch = async {
        arguments.ended().await;
        if !replies.is_caller_gone().await {
            // Only its direction is closed; it may still want the answer.
            std::future::pending::<()>().await;
        }
    };
    let reply = tokio::select! {
        reply = router.unary(peer, request, argument) => reply?,
        () = watch => return Err(Failure::CallerGone),
    };
    replies.send(&reply).await?;
    Ok(())
}
