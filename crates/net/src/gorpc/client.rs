//! The caller's side.

use super::values::{ValueError, Values};
use super::{CallError, CallLimits, RPC_PROTOCOL, Request};
use crate::host::Host;
use crate::streams::Stream;
use bytes::Bytes;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadHalf, WriteHalf};
use types::PeerId;
use wire::rpc::{ErrorKind, HEADER_BYTES_MAX, Response};

/// Calls a method with one argument and one reply.
pub async fn call_unary(
    host: &Host,
    peer: PeerId,
    request: &Request,
    argument: &[u8],
    limits: &CallLimits,
    deadline: Duration,
) -> Result<Bytes, CallError> {
    let call = async {
        let (mut stream, _) = host.open(peer, &[RPC_PROTOCOL]).await?;
        let opening = [wire::rpc::encode(request), argument.to_vec()].concat();
        stream.write_all(&opening).await.map_err(CallError::broken)?;
        stream.flush().await.map_err(CallError::broken)?;
        // The own side stays open until the answer is there: a Go callee takes its end for giving up.
        let mut values = Values::new(&mut stream);
        let reply = next_reply(&mut values, limits).await?.ok_or_else(|| CallError::broken("no answer"))?;
        // The answer is whole; how the stream ends no longer matters.
        let _ = stream.shutdown().await;
        Ok(reply)
    };
    tokio::time::timeout(deadline, call).await.unwrap_or(Err(CallError::TimedOut))
}

/// Begins a streaming call. Dropping both halves gives it up.
pub async fn call_stream(
    host: &Host,
    peer: PeerId,
    request: &Request,
    limits: &CallLimits,
) -> Result<(CallArguments, CallReplies), CallError> {
    let (mut stream, _) = host.open(peer, &[RPC_PROTOCOL]).await?;
    stream.write_all(&wire::rpc::encode(request)).await.map_err(CallError::broken)?;
    let (reader, writer) = tokio::io::split(stream);
    Ok((CallArguments { writer }, CallReplies { values: Values::new(reader), limits: *limits }))
}

/// A streaming call of which all replies fit into memory.
pub async fn call_collect(
    host: &Host,
    peer: PeerId,
    request: &Request,
    arguments: &[&[u8]],
    limits: &CallLimits,
    deadline: Duration,
) -> Result<Vec<Bytes>, CallError> {
    let call = async {
        let (sink, mut replies) = call_stream(host, peer, request, limits).await?;
        // Both at once: a callee may answer before it has read everything, and says why when it refuses to read.
        let (_, collected) = tokio::join!(send_all(sink, arguments), collect(&mut replies, limits));
        collected
    };
    tokio::time::timeout(deadline, call).await.unwrap_or(Err(CallError::TimedOut))
}

async fn send_all(mut sink: CallArguments, arguments: &[&[u8]]) -> Result<(), CallError> {
    for argument in arguments {
        sink.send(argument).await?;
    }
    sink.finish().await
}

async fn collect(replies: &mut CallReplies, limits: &CallLimits) -> Result<Vec<Bytes>, CallError> {
    let mut collected = Vec::new();
    let mut bytes = 0;
    while let Some(reply) = replies.next().await? {
        bytes += reply.len();
        if collected.len() >= limits.replies || bytes > limits.replies_bytes {
            return Err(CallError::broken("too many replies"));
        }
        // Copied: a reply cut from the read buffer would keep all of that buffer.
        collected.push(Bytes::copy_from_slice(&reply));
    }
    Ok(collected)
}

/// Where the arguments of a streaming call go. Dropped without [`CallArguments::finish`], the callee waits for more.
pub struct CallArguments {
    writer: WriteHalf<Stream>,
}

impl CallArguments {
    /// Sends one; waits when the callee is behind. After an error the replies tell why.
    pub async fn send(&mut self, value: &[u8]) -> Result<(), CallError> {
        self.writer.write_all(value).await.map_err(CallError::broken)
    }

    /// There are no more.
    pub async fn finish(mut self) -> Result<(), CallError> {
        self.writer.shutdown().await.map_err(CallError::broken)
    }
}

/// The replies of a streaming call.
pub struct CallReplies {
    values: Values<ReadHalf<Stream>>,
    limits: CallLimits,
}

impl CallReplies {
    /// The next one; none when the call is over and succeeded.
    pub async fn next(&mut self) -> Result<Option<Bytes>, CallError> {
        next_reply(&mut self.values, &self.limits).await
    }
}

/// Reads a header and what follows it.
async fn next_reply<R: AsyncRead + Unpin>(values: &mut Values<R>, limits: &CallLimits) -> Result<Option<Bytes>, CallError> {
    let Some(header) = values.next(HEADER_BYTES_MAX).await.map_err(CallError::broken)? else { return Ok(None) };
    let header: Response = wire::rpc::decode(&header).map_err(CallError::broken)?;
    if !header.is_ok() {
        return Err(failure(header));
    }
    match values.next(limits.value_bytes).await {
        Ok(Some(reply)) => Ok(Some(reply)),
        Ok(None) => Err(CallError::broken(ValueError::Truncated)),
        Err(error) => Err(CallError::broken(error)),
    }
}

fn failure(header: Response) -> CallError {
    /// How go-libp2p-gorpc begins what it says of names that it does not know.
    const UNKNOWN: &str = "rpc: can't find ";
    match header.kind {
        ErrorKind::Method => CallError::Method(header.error),
        ErrorKind::Server if header.error.starts_with(UNKNOWN) => CallError::Unknown(header.error),
        ErrorKind::Server | ErrorKind::Client => CallError::Server(header.error),
        ErrorKind::NotAuthorised => CallError::NotAuthorised(header.error),
    }
}
