//! A gentle end of connections.
//!
//! A socket that is closed while its client still sends answers with a reset, and the reset destroys the answer that the client
//! has not read yet: whoever is refused in the middle of an upload would see a broken connection instead of the reason. So the
//! writing half is closed first, and what still arrives is read away for a while.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// How long a client may go on sending after the answer.
const TIME_MAX: Duration = Duration::from_secs(1);
/// … and how much.
const BYTES_MAX: usize = 64 << 20;

/// A connection that is read away before it closes.
pub(crate) struct Linger<S> {
    inner: S,
    ending: Option<Ending>,
}

struct Ending {
    until: Pin<Box<Sleep>>,
    left: usize,
}

impl<S> Linger<S> {
    pub fn new(inner: S) -> Linger<S> {
        Linger { inner, ending: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Linger<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Linger<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.ending.is_none() {
            ready!(Pin::new(&mut this.inner).poll_shutdown(cx))?;
        }
        let ending = this
            .ending
            .get_or_insert_with(|| Ending { until: Box::pin(tokio::time::sleep_until(Instant::now() + TIME_MAX)), left: BYTES_MAX });
        let mut space = [std::mem::MaybeUninit::uninit(); 16 << 10];
        while ending.left > 0 && ending.until.as_mut().poll(cx).is_pending() {
            let mut buf = ReadBuf::uninit(&mut space);
            match Pin::new(&mut this.inner).poll_read(cx, &mut buf) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => ending.left = ending.left.saturating_sub(buf.filled().len()),
                Poll::Ready(_) => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}
