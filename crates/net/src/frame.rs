//! Messages on a stream: an unsigned varint length, then that many bytes.
//!
//! The length is checked against the reader's limit before anything is allocated, and memory grows with what arrives, not with
//! what is promised.

use bytes::{Bytes, BytesMut};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// How much a frame's buffer grows beyond what has arrived.
const GROWTH: usize = 64 << 10;

/// Why no frame was read.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The other side promises more than the reader takes.
    #[error("reading a frame: its length is {length}, the limit is {limit}")]
    TooLong {
        /// What was promised.
        length: u64,
        /// What is taken.
        limit: usize,
    },
    /// The length is no varint.
    #[error("reading a frame: the length is no varint")]
    BadLength,
    /// The stream broke, or ended within a frame.
    #[error("reading a frame")]
    Io(#[from] io::Error),
}

/// Reads one frame of at most `limit` bytes. None at the clean end of the stream.
pub async fn read_frame<S: AsyncRead + Unpin>(stream: &mut S, limit: usize) -> Result<Option<Bytes>, FrameError> {
    let Some(length) = read_length(stream, limit).await? else { return Ok(None) };
    read_body(stream, length).await.map(Some)
}

/// Reads the length of the next frame; for readers that want to wait before they take the body. None at the clean end.
pub async fn read_length<S: AsyncRead + Unpin>(stream: &mut S, limit: usize) -> Result<Option<usize>, FrameError> {
    let mut length = 0u64;
    for shift in (0..u64::BITS).step_by(7) {
        let mut byte = [0];
        if stream.read(&mut byte).await? == 0 {
            return if shift == 0 { Ok(None) } else { Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()) };
        }
        let bits = u64::from(byte[0] & 0x7f);
        if shift == 63 && bits > 1 {
            return Err(FrameError::BadLength);
        }
        length |= bits << shift;
        if byte[0] & 0x80 == 0 {
            return match usize::try_from(length) {
                Ok(length) if length <= limit => Ok(Some(length)),
                _ => Err(FrameError::TooLong { length, limit }),
            };
        }
    }
    Err(FrameError::BadLength)
}

/// Reads the `length` bytes after a length.
pub async fn read_body<S: AsyncRead + Unpin>(stream: &mut S, length: usize) -> Result<Bytes, FrameError> {
    read_body_watched(stream, length, usize::MAX, |_| {}).await
}

/// Reads the `length` bytes after a length, and tells after every `step` bytes how many have arrived.
pub async fn read_body_watched<S: AsyncRead + Unpin>(
    stream: &mut S,
    length: usize,
    step: usize,
    mut arrived: impl FnMut(usize),
) -> Result<Bytes, FrameError> {
    let mut body = BytesMut::with_capacity(length.min(GROWTH));
    let mut told = 0;
    while body.len() < length {
        let missing = length - body.len();
        // Doubling, so that copying stays linear; a promise alone never costs more than the peer has sent.
        body.reserve(missing.min(body.len().max(GROWTH)));
        let taken = (&mut *stream).take(missing as u64).read_buf(&mut body).await?;
        if taken == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        if body.len() - told >= step {
            told = body.len();
            arrived(told);
        }
    }
    Ok(body.freeze())
}

/// Writes one frame and flushes it.
pub async fn write_frame<S: AsyncWrite + Unpin>(stream: &mut S, body: &[u8]) -> io::Result<()> {
    let mut buffer = unsigned_varint::encode::usize_buffer();
    stream.write_all(unsigned_varint::encode::usize(body.len(), &mut buffer)).await?;
    stream.write_all(body).await?;
    stream.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8], limit: usize) -> Result<Option<Bytes>, FrameError> {
        read_frame(&mut &*bytes, limit).await
    }

    #[tokio::test]
    async fn a_frame_reads_back() {
        for length in [0, 1, 127, 128, 70_000, 300_000] {
            let body = vec![7; length];
            let mut wire = Vec::new();
            write_frame(&mut wire, &body).await.unwrap();
            write_frame(&mut wire, b"next").await.unwrap();
            let mut rest = &*wire;
            assert_eq!(read_frame(&mut rest, 300_000).await.unwrap().unwrap(), body);
            assert_eq!(read_frame(&mut rest, 300_000).await.unwrap().unwrap(), &b"next"[..]);
            assert!(read_frame(&mut rest, 300_000).await.unwrap().is_none());
        }
    }

    #[tokio::test]
    async fn too_long_strange_and_cut_frames_are_errors() {
        assert!(matches!(read(&[0x05, 1, 2, 3, 4, 5], 4).await, Err(FrameError::TooLong { length: 5, limit: 4 })));
        assert!(matches!(read(&[0x80, 0x80, 0x80, 0x80, 0x08], 4 << 20).await, Err(FrameError::TooLong { length: 0x8000_0000, .. })));
        assert!(matches!(read(&[0xff; 11], 4).await, Err(FrameError::BadLength)));
        assert!(matches!(read(&[0xff; 9], 4).await, Err(FrameError::Io(_))));
        assert!(matches!(read(&[0x05, 1, 2], 8).await, Err(FrameError::Io(_))));
    }
}
