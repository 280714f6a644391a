//! Streams that keep to a [`Throttle`].

use super::{Reach, Throttle, Way};
use futures::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Sleep;

/// Nobody sleeps longer than this at once, so that a limit that was lifted is noticed.
const SLEEP_MOST: Duration = Duration::from_millis(250);

/// A socket or stream under limits.
pub(crate) struct Throttled<S> {
    inner: S,
    throttle: Throttle,
    reach: Reach,
    up: Option<Pin<Box<Sleep>>>,
    down: Option<Pin<Box<Sleep>>>,
}

impl<S> Throttled<S> {
    pub(crate) fn new(inner: S, throttle: Throttle, reach: Reach) -> Throttled<S> {
        Throttled { inner, throttle, reach, up: None, down: None }
    }

    /// Ready with the bytes that may go now.
    fn poll_grant(&mut self, way: Way, cx: &mut Context<'_>) -> Poll<usize> {
        let sleep = match way {
            Way::Up => &mut self.up,
            Way::Down => &mut self.down,
        };
        loop {
            if let Some(sleeping) = sleep {
                match sleeping.as_mut().poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(()) => *sleep = None,
                }
            }
            match self.throttle.grant(self.reach, way) {
                Ok(bytes) => return Poll::Ready(bytes),
                // The timer ticks in milliseconds.
                Err(wait) => *sleep = Some(Box::pin(tokio::time::sleep(wait.clamp(Duration::from_millis(1), SLEEP_MOST)))),
            }
        }
    }

    fn charged(&self, way: Way, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &outcome {
            self.throttle.charge(self.reach, way, *bytes);
        }
        outcome
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Throttled<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let Poll::Ready(most) = self.poll_grant(Way::Down, cx) else { return Poll::Pending };
        let length = buf.len().min(most);
        let outcome = Pin::new(&mut self.inner).poll_read(cx, &mut buf[..length]);
        self.charged(Way::Down, outcome)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Throttled<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let Poll::Ready(most) = self.poll_grant(Way::Up, cx) else { return Poll::Pending };
        let outcome = Pin::new(&mut self.inner).poll_write(cx, &buf[..buf.len().min(most)]);
        self.charged(Way::Up, outcome)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let Poll::Ready(most) = self.poll_grant(Way::Up, cx) else { return Poll::Pending };
        let outcome = if bufs.iter().map(|buf| buf.len()).fold(0, usize::saturating_add) <= most {
            Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
        } else {
            let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| &buf[..buf.len().min(most)]);
            Pin::new(&mut self.inner).poll_write(cx, first)
        };
        self.charged(Way::Up, outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

/// A connection whose streams are under limits.
pub(crate) struct ThrottledMuxer<M> {
    inner: M,
    throttle: Throttle,
    reach: Reach,
}

impl<M> ThrottledMuxer<M> {
    pub(crate) fn new(inner: M, throttle: Throttle, reach: Reach) -> ThrottledMuxer<M> {
        ThrottledMuxer { inner, throttle, reach }
    }
}

impl<M> StreamMuxer for ThrottledMuxer<M>
where
    M: StreamMuxer + Unpin,
    M::Substream: Unpin,
{
    type Substream = Throttled<M::Substream>;
    type Error = M::Error;

    fn poll_inbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Self::Substream, Self::Error>> {
        let opened = Pin::new(&mut self.inner).poll_inbound(cx);
        opened.map_ok(|stream| Throttled::new(stream, self.throttle.clone(), self.reach))
    }

    fn poll_outbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Self::Substream, Self::Error>> {
        let opened = Pin::new(&mut self.inner).poll_outbound(cx);
        opened.map_ok(|stream| Throttled::new(stream, self.throttle.clone(), self.reach))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, Self::Error>> {
        Pin::new(&mut self.inner).poll(cx)
    }
}
