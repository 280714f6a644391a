//! The callee's answers on their way.

use super::CallError;
use crate::streams::Stream;
use std::pin::Pin;
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt, WriteHalf};
use wire::rpc::{ErrorKind, Request, Response};

/// Replies are sent when so many bytes have gathered: a small one alone would cost a frame each.
const GATHERED: usize = 32 << 10;
/// Nil, which every Go type reads.
const NIL: u8 = 0xc0;

/// Where the replies of a streaming call go.
pub struct Replies {
    writer: WriteHalf<Stream>,
    request: Request,
    header: Vec<u8>,
    gathered: Vec<u8>,
    idle: Duration,
}

impl Replies {
    pub(super) fn new(writer: WriteHalf<Stream>, request: Request, idle: Duration) -> Replies {
        let header = wire::rpc::encode(&Response::ok(&request));
        Replies { writer, request, header, gathered: Vec::new(), idle }
    }

    /// Sends one, later together with others; waits when the caller is behind. An error means that the caller is gone.
    pub async fn send(&mut self, reply: &[u8]) -> Result<(), CallError> {
        self.gathered.extend_from_slice(&self.header);
        self.gathered.extend_from_slice(reply);
        if self.gathered.len() >= GATHERED { self.flush().await } else { Ok(()) }
    }

    /// Sends what has gathered: before waiting for something slow.
    pub async fn flush(&mut self) -> Result<(), CallError> {
        let write = async {
            self.writer.write_all(&self.gathered).await?;
            self.writer.flush().await
        };
        let written = tokio::time::timeout(self.idle, write).await;
        self.gathered.clear();
        written.map_err(|_| CallError::TimedOut)?.map_err(CallError::broken)
    }

    /// Says that the call failed.
    pub(super) async fn fail(&mut self, kind: ErrorKind, error: &str) -> Result<(), CallError> {
        let header = Response::failed(&self.request, kind, error);
        self.gathered.extend(wire::rpc::encode(&header));
        self.gathered.push(NIL);
        self.flush().await
    }

    /// Ends the replies.
    pub(super) async fn close(&mut self) -> Result<(), CallError> {
        self.flush().await?;
        self.writer.shutdown().await.map_err(CallError::broken)
    }

    /// Whether the caller reset the stream, asked after its own direction ended. Costs it an empty frame.
    pub(super) async fn is_caller_gone(&mut self) -> bool {
        std::future::poll_fn(|cx| Pin::new(&mut self.writer).poll_write(cx, &[])).await.is_err()
    }
}
