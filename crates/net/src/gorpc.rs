//! Calls between peers of a Go cluster, over streams under [`RPC_PROTOCOL`]: one stream is one call.
//!
//! What a method means is absent: arguments and replies are msgpack values as bytes (`wire::rpc` reads and writes them). No lengths stand
//! between values; their ends are found by scanning, under a limit, so that a stranger's promise costs no memory.
//!
//! ```text
//! one answer    caller:  request, argument, keeps its side open     callee:  header, reply
//! streaming     caller:  request, arguments..., closes its side     callee:  (header, reply)..., closes
//! ```
//!
//! A caller gives up by resetting the stream, which is what dropping it does. Two things of the muxer (yamux 0.14) stand in the way: it shows
//! a reset to a reader as the end of the stream, so only a write tells the two apart; and it does not reset a stream whose own direction
//! was closed already, so a callee that still sends then is ended by its own [`CallLimits::idle`].
//!
//! Start with [`call_unary`], then [`Server`].

mod client;
mod replies;
mod server;
mod values;

pub use client::{CallArguments, CallReplies, call_collect, call_stream, call_unary};
pub use replies::Replies;
pub use server::{Arguments, Failure, Method, Router, Server};
pub use wire::rpc::{RPC_PROTOCOL, Request};

use crate::streams::OpenError;
use std::time::Duration;

/// Bounds on calls, of either side.
#[derive(Clone, Copy, Debug)]
pub struct CallLimits {
    /// The longest argument or reply.
    pub value_bytes: usize,
    /// The most replies that [`call_collect`] takes, and their bytes together: a full list of a large pinset.
    pub replies: usize,
    /// Bytes of all replies that [`call_collect`] takes.
    pub replies_bytes: usize,
    /// How long a caller may take for its request header, and for the argument of a call with one answer.
    pub request: Duration,
    /// How long a stream may stand still: no argument comes, or no reply is taken.
    pub idle: Duration,
    /// Calls of one peer served at once; further streams are reset.
    pub calls_per_peer: usize,
    /// Calls of all peers served at once; further streams are reset.
    pub calls_total: usize,
}

impl Default for CallLimits {
    fn default() -> CallLimits {
        CallLimits {
            value_bytes: wire::rpc::VALUE_BYTES_MAX,
            replies: 1 << 20,
            replies_bytes: 256 << 20,
            request: Duration::from_secs(15),
            // A Go peer sends an add's blocks while its user uploads them.
            idle: Duration::from_secs(600),
            // A Go peer opens a stream for each status it is asked, as many at once as its clients ask.
            calls_per_peer: 256,
            calls_total: 1024,
        }
    }
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The method said so.
    #[error("{0}")]
    Method(String),
    /// The callee did not get to the method, for example because the argument did not read.
    #[error("the peer could not take the call: {0}")]
    Server(String),
    /// The callee knows no such service or method.
    #[error("the peer does not know the call: {0}")]
    Unknown(String),
    /// The callee does not trust us with this.
    #[error("the peer refused: {0}")]
    NotAuthorised(String),
    /// No stream.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// No answer in time.
    #[error("the peer did not answer in time")]
    TimedOut,
    /// The stream ended early or carried something else.
    #[error("the call broke: {0}")]
    Broken(String),
}

impl CallError {
    pub(crate) fn broken(error: impl std::fmt::Display) -> CallError {
        CallError::Broken(error.to_string())
    }
}
