//! Many streams on one connection: yamux, which gets the frames of others in pieces.
//!
//! A frame of yamux may be as long as the receiver's window, and js-libp2p makes use of that. The muxer here ends the connection with a
//! frame over 1 MiB, so that its windows could not grow beyond; cut into pieces before it sees them, frames may be of any length.

use futures::{AsyncRead, AsyncWrite};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use libp2p::yamux;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// Streams of one connection, both directions. A peer that opens more loses the connection; see `StreamLimits` for our own bound. yamux gives the
/// windows of one connection a GiB and sets 256 KiB aside for each stream: 16 MiB are left by which the windows of busy streams may grow, as
/// much as Go gives one of its streams (160 MB/s at a round trip of 100 ms). With none left (4,096 streams) no stream brings more than 256 KiB in a
/// round trip.
const STREAMS_MAX: usize = 4032;

/// The longest piece: what everybody may send before any window has grown, so that most frames are one.
const PIECE: u32 = 256 << 10;

const HEADER: usize = 12;
const DATA: u8 = 0;
const SYN_OR_ACK: u16 = 1 | 2;
const FIN: u16 = 4;

/// The upgrade of a secured connection.
#[derive(Clone)]
pub(super) struct Muxer(yamux::Config);

impl Muxer {
    pub(super) fn new() -> Muxer {
        let mut config = yamux::Config::default();
        config.set_max_num_streams(STREAMS_MAX);
        Muxer(config)
    }
}

impl UpgradeInfo for Muxer {
    type Info = <yamux::Config as UpgradeInfo>::Info;
    type InfoIter = <yamux::Config as UpgradeInfo>::InfoIter;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.protocol_info()
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> InboundConnectionUpgrade<C> for Muxer {
    type Output = yamux::Muxer<Pieces<C>>;
    type Error = io::Error;
    type Future = <yamux::Config as InboundConnectionUpgrade<Pieces<C>>>::Future;

    fn upgrade_inbound(self, socket: C, info: Self::Info) -> Self::Future {
        self.0.upgrade_inbound(Pieces::new(socket), info)
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> OutboundConnectionUpgrade<C> for Muxer {
    type Output = yamux::Muxer<Pieces<C>>;
    type Error = io::Error;
    type Future = <yamux::Config as OutboundConnectionUpgrade<Pieces<C>>>::Future;

    fn upgrade_outbound(self, socket: C, info: Self::Info) -> Self::Future {
        self.0.upgrade_outbound(Pieces::new(socket), info)
    }
}

/// A connection of yamux whose long data frames are read as several.
pub(super) struct Pieces<S> {
    inner: S,
    next: Next,
    frame: Frame,
}

/// What is read next.
enum Next {
    /// The header of a frame, of which so many bytes are there.
    Header(usize, [u8; HEADER]),
    /// The header of a piece, of which so many bytes were handed on.
    Given(usize, [u8; HEADER]),
    /// So many bytes of a piece.
    Body(u32),
}

/// What is left of the present frame behind the present piece.
#[derive(Clone, Copy, Default)]
struct Frame {
    header: [u8; HEADER],
    left: u32,
}

impl Frame {
    fn is_data(&self) -> bool {
        self.header[1] == DATA
    }

    fn flags(&self) -> u16 {
        u16::from_be_bytes([self.header[2], self.header[3]])
    }

    /// The header of the next piece. What begins a stream stands in the first, what ends it in the last.
    fn next_piece(&mut self) -> [u8; HEADER] {
        let length = self.left.min(PIECE);
        self.left -= length;
        let flags = if self.left == 0 { self.flags() } else { self.flags() & !FIN };
        let mut header = self.header;
        header[2..4].copy_from_slice(&flags.to_be_bytes());
        header[8..].copy_from_slice(&length.to_be_bytes());
        let later = self.flags() & !SYN_OR_ACK;
        self.header[2..4].copy_from_slice(&later.to_be_bytes());
        header
    }
}

fn length_of(header: &[u8; HEADER]) -> u32 {
    u32::from_be_bytes([header[8], header[9], header[10], header[11]])
}

impl<S> Pieces<S> {
    fn new(inner: S) -> Pieces<S> {
        Pieces { inner, next: Next::Header(0, [0; HEADER]), frame: Frame::default() }
    }

    /// What comes behind a piece.
    fn behind_piece(&mut self) -> Next {
        if self.frame.left > 0 { Next::Given(0, self.frame.next_piece()) } else { Next::Header(0, [0; HEADER]) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Pieces<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        loop {
            match &mut this.next {
                Next::Header(read, header) => {
                    match ready!(Pin::new(&mut this.inner).poll_read(cx, &mut header[*read..]))? {
                        0 if *read == 0 => return Poll::Ready(Ok(0)),
                        0 => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                        more => *read += more,
                    }
                    if *read < HEADER {
                        continue;
                    }
                    this.frame = Frame { header: *header, left: length_of(header) };
                    // Of other frames the length is no length.
                    let header = if this.frame.is_data() { this.frame.next_piece() } else { *header };
                    this.next = Next::Given(0, header);
                }
                Next::Given(given, header) => {
                    let length = buf.len().min(HEADER - *given);
                    buf[..length].copy_from_slice(&header[*given..*given + length]);
                    *given += length;
                    if *given == HEADER {
                        let has_body = this.frame.is_data() && length_of(header) > 0;
                        this.next = if has_body { Next::Body(length_of(header)) } else { Next::Header(0, [0; HEADER]) };
                    }
                    return Poll::Ready(Ok(length));
                }
                Next::Body(left) => {
                    let most = buf.len().min(*left as usize);
                    let length = ready!(Pin::new(&mut this.inner).poll_read(cx, &mut buf[..most]))?;
                    *left -= length as u32;
                    if *left == 0 {
                        this.next = this.behind_piece();
                    }
                    return Poll::Ready(Ok(length));
                }
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Pieces<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::executor::block_on;
    use futures::{AsyncReadExt, AsyncWriteExt};
    use libp2p::core::StreamMuxer;
    use std::future::poll_fn;

    const SYN: u16 = 1;
    const ACK: u16 = 2;
    const RST: u16 = 8;
    const WINDOW: u8 = 1;
    const PING: u8 = 2;

    fn header(kind: u8, flags: u16, stream: u32, length: u32) -> Vec<u8> {
        [&[0, kind][..], &flags.to_be_bytes(), &stream.to_be_bytes(), &length.to_be_bytes()].concat()
    }

    fn data(flags: u16, stream: u32, body: &[u8]) -> Vec<u8> {
        [header(DATA, flags, stream, body.len() as u32), body.to_vec()].concat()
    }

    /// Gives at most so many bytes at once.
    struct Slow<'a>(&'a [u8], usize);

    impl AsyncRead for Slow<'_> {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
            let length = buf.len().min(self.1).min(self.0.len());
            let (given, left) = self.0.split_at(length);
            buf[..length].copy_from_slice(given);
            self.0 = left;
            Poll::Ready(Ok(length))
        }
    }

    fn check(input: &[u8], expected: &[u8]) {
        for (given, taken) in [(usize::MAX, 1 << 20), (5, 1 << 20), (usize::MAX, 7), (3, 5)] {
            let mut pieces = Pieces::new(Slow(input, given));
            let (mut out, mut buffer) = (Vec::new(), vec![0; taken]);
            loop {
                match block_on(pieces.read(&mut buffer)).unwrap() {
                    0 => break,
                    length => out.extend_from_slice(&buffer[..length]),
                }
            }
            assert!(out == expected, "{given} and {taken} at once: {} bytes, expected {}", out.len(), expected.len());
        }
    }

    #[test]
    fn short_frames_stay_as_they_are() {
        let frames = [
            data(SYN, 1, b"hello"),
            header(WINDOW, ACK, 1, u32::MAX),
            header(PING, SYN, 0, 0x7fff_ffff),
            data(0, 1, &[]),
            data(FIN, 1, &vec![7; PIECE as usize]),
            header(3, 0, 0, 2),
            // What is no frame at all is the muxer's to judge.
            header(9, 0xffff, 3, 1 << 30),
        ];
        check(&frames.concat(), &frames.concat());
    }

    #[test]
    fn long_frames_come_in_pieces_that_say_the_same() {
        let body: Vec<u8> = (0..2 * PIECE + 5).map(|number| number as u8).collect();
        let (one, two) = (PIECE as usize, 2 * PIECE as usize);
        let pieces = |first: u16, later: u16, last: u16| {
            [data(first, 3, &body[..one]), data(later, 3, &body[one..two]), data(last, 3, &body[two..])].concat()
        };
        for (flags, first, later, last) in
            [(0, 0, 0, 0), (SYN | FIN, SYN, 0, FIN), (ACK, ACK, 0, 0), (FIN, 0, 0, FIN), (RST, RST, RST, RST)]
        {
            let ping = header(PING, 0, 0, 1);
            let input = [data(flags, 3, &body), ping.clone()].concat();
            check(&input, &[pieces(first, later, last), ping].concat());
        }
    }

    #[test]
    fn a_connection_that_ends_within_a_header_is_an_error() {
        let mut pieces = Pieces::new(Slow(&[0, 0, 0], usize::MAX));
        assert_eq!(block_on(pieces.read(&mut [0; 64])).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let cut = data(0, 1, b"some bytes");
        check(&cut[..15], &cut[..15]);
    }

    /// The other side answers pings late (so that windows grow), and sends each window's worth of bytes as one frame, as js-libp2p does.
    #[tokio::test]
    async fn a_frame_as_long_as_a_grown_window_is_taken() {
        const BYTES: usize = 24 << 20;
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let ours = tokio_util::compat::TokioAsyncReadCompatExt::compat(ours);
        let mut muxer = Muxer::new().upgrade_inbound(ours, "/yamux/1.0.0").await.unwrap();
        let sender = tokio::spawn(send_whole_windows(theirs, BYTES));
        let reading = async {
            let mut stream = poll_fn(|cx| Pin::new(&mut muxer).poll_inbound(cx)).await.unwrap();
            let driving = poll_fn(|cx| Pin::new(&mut muxer).poll(cx));
            let reading = async {
                let (mut buffer, mut sum) = (vec![0; 64 << 10], 0);
                while sum < BYTES {
                    sum += stream.read(&mut buffer).await.unwrap();
                }
                stream.close().await.unwrap();
            };
            tokio::select! {
                event = driving => panic!("the connection ended: {:?}", event.err()),
                () = reading => {}
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(60), reading).await.unwrap();
        drop(muxer);
        let longest = sender.await.unwrap();
        assert!(longest > 1 << 20, "the longest frame had {longest} bytes");
    }

    /// Returns the length of the longest frame.
    async fn send_whole_windows(socket: tokio::io::DuplexStream, bytes: usize) -> usize {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut reader, mut writer) = tokio::io::split(socket);
        let (mut window, mut left, mut longest) = (256 << 10, bytes, 0);
        let mut flags = SYN;
        while left > 0 {
            if window > 0 {
                let length = window.min(left);
                // While it is written the other side may have to write too.
                let frame = data(std::mem::take(&mut flags), 1, &vec![7; length]);
                writer.write_all(&frame).await.unwrap();
                (window, left, longest) = (0, left - length, longest.max(length));
                continue;
            }
            let mut header_of = [0; HEADER];
            if reader.read_exact(&mut header_of).await.is_err() {
                break;
            }
            match header_of[1] {
                WINDOW => window += length_of(&header_of) as usize,
                PING => {
                    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
                    writer.write_all(&header(PING, ACK, 0, length_of(&header_of))).await.unwrap();
                }
                _ => {}
            }
        }
        // What is still written to it must find a reader.
        tokio::io::copy(&mut reader, &mut tokio::io::sink()).await.ok();
        longest
    }
}
