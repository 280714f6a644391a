//! Trailers for clients that do not ask for them.
//!
//! Go's clients read the trailer `X-Stream-Error` of streamed answers but do not send `TE: trailers`, and hyper sends
//! trailers only to those who do. So a streamed answer leaves its trailer in the connection's [`TrailerSlot`] just before it
//! ends, and [`TrailerIo`] puts it into the end of the chunked message (`0\r\n` … `\r\n`) as that passes by.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How a chunked message ends when it has no trailer.
const END: &[u8] = b"0\r\n\r\n";
/// A trailer's value is cut there; a client's header limit must not eat the reason.
const LONGEST_VALUE: usize = 4 << 10;

/// Where the streamed answer under way on a connection leaves its trailer.
#[derive(Clone, Default)]
pub(crate) struct TrailerSlot(Arc<Slot>);

#[derive(Default)]
struct Slot {
    is_set: AtomicBool,
    line: Mutex<Vec<u8>>,
}

impl TrailerSlot {
    /// Sets the trailer of the answer that is about to end. To be called before its stream ends, not earlier than its last
    /// item.
    pub fn set(&self, name: &str, value: &str) {
        let value: String = value.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let mut cut = value.len().min(LONGEST_VALUE);
        while !value.is_char_boundary(cut) {
            cut -= 1;
        }
        let line = format!("{name}: {}\r\n", value[..cut].trim());
        *self.0.line.lock().unwrap_or_else(PoisonError::into_inner) = line.into_bytes();
        self.0.is_set.store(true, Ordering::Release);
    }

    fn take_into(&self, bytes: &mut Vec<u8>) {
        bytes.append(&mut self.0.line.lock().unwrap_or_else(PoisonError::into_inner));
        self.0.is_set.store(false, Ordering::Release);
    }
}

/// A connection whose outgoing messages get the trailer of its slot.
pub(crate) struct TrailerIo<S> {
    inner: S,
    slot: TrailerSlot,
    /// Bytes taken from the writer and not yet passed on; only while a trailer is being sent.
    held: Vec<u8>,
    sent: usize,
}

impl<S: AsyncWrite + Unpin> TrailerIo<S> {
    pub fn new(inner: S, slot: TrailerSlot) -> TrailerIo<S> {
        TrailerIo { inner, slot, held: Vec::new(), sent: 0 }
    }

    fn poll_send_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.held.len() {
            let written = std::task::ready!(Pin::new(&mut self.inner).poll_write(cx, &self.held[self.sent..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += written;
        }
        self.held.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }

    /// Takes all of `parts` when they bring the end of the message whose trailer is set: how many bytes that were.
    fn take_end(&mut self, parts: &[io::IoSlice<'_>]) -> Option<usize> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let mut last = [0; END.len()];
        let tail = parts.iter().rev().flat_map(|part| part.iter().rev());
        let mut found = 0;
        for (place, byte) in last.iter_mut().rev().zip(tail) {
            *place = *byte;
            found += 1;
        }
        if found < END.len() || last != *END {
            return None;
        }
        self.held.reserve(length + 128);
        for part in parts {
            self.held.extend_from_slice(part);
        }
        self.held.truncate(length - 2);
        self.slot.take_into(&mut self.held);
        self.held.extend_from_slice(b"\r\n");
        Some(length)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TrailerIo<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TrailerIo<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if !self.held.is_empty() {
            std::task::ready!(self.poll_send_held(cx))?;
        }
        if self.slot.0.is_set.load(Ordering::Acquire)
            && let Some(length) = self.take_end(bufs)
        {
            // Taken over: what cannot be sent at once goes with the next write or flush.
            if let Poll::Ready(Err(error)) = self.poll_send_held(cx) {
                return Poll::Ready(Err(error));
            }
            return Poll::Ready(Ok(length));
        }
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.poll_send_held(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.poll_send_held(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn check(trailer: Option<&str>, writes: &[&str], expected: &str) {
        let (near, mut far) = tokio::io::duplex(7); // small: writes are taken in part
        let slot = TrailerSlot::default();
        let mut io = TrailerIo::new(near, slot.clone());
        let sending = async {
            for write in writes {
                if let (Some(value), true) = (trailer, write.ends_with("0\r\n\r\n")) {
                    slot.set("X-E", value);
                }
                io.write_all(write.as_bytes()).await.unwrap();
            }
            io.flush().await.unwrap();
            drop(io);
        };
        let mut seen = String::new();
        let reading = far.read_to_string(&mut seen);
        let ((), read) = tokio::join!(sending, reading);
        read.unwrap();
        assert_eq!(seen, expected);
    }

    #[tokio::test]
    async fn trailers_are_put_before_the_end() {
        check(None, &["3\r\nabc\r\n0\r\n\r\n"], "3\r\nabc\r\n0\r\n\r\n").await;
        check(Some(""), &["3\r\nabc\r\n0\r\n\r\n"], "3\r\nabc\r\n0\r\nX-E: \r\n\r\n").await;
        check(Some("a\r\nb"), &["3\r\nabc\r\n", "0\r\n\r\n", "HTTP/1.1"], "3\r\nabc\r\n0\r\nX-E: a  b\r\n\r\nHTTP/1.1").await;
    }
}
