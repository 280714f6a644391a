//! Cutting a stream into msgpack values.

use bytes::{Bytes, BytesMut};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};
use wire::msgpack::{Scan, Scanner};

/// Least room for a read.
const CHUNK: usize = 8 << 10;
/// Most room made ahead of what has arrived.
const CHUNK_MAX: usize = 1 << 20;

/// Why no value was read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ValueError {
    /// Not msgpack, or longer than the limit.
    #[error("not msgpack, or longer than {limit} bytes")]
    Bad { limit: usize },
    /// The stream ended inside a value.
    #[error("the stream ended inside a value")]
    Truncated,
    /// The stream broke.
    #[error("reading: {0}")]
    Io(#[from] io::Error),
}

/// Reads values one after the other.
pub(super) struct Values<R> {
    source: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> Values<R> {
    pub(super) fn new(source: R) -> Values<R> {
        Values { source, buffer: BytesMut::new() }
    }

    /// The next value, at most `limit` bytes; none at a clean end. Cancel by drop: what has arrived is kept.
    pub(super) async fn next(&mut self, limit: usize) -> Result<Option<Bytes>, ValueError> {
        let mut scanner = Scanner::new(limit);
        loop {
            if !self.buffer.is_empty() {
                match scanner.advance(&self.buffer) {
                    Scan::Complete(length) => return Ok(Some(self.buffer.split_to(length).freeze())),
                    Scan::Bad => return Err(ValueError::Bad { limit }),
                    Scan::NeedMore => {}
                }
            }
            // Doubling, so that copying stays linear; memory grows with what has arrived.
            self.buffer.reserve(self.buffer.len().clamp(CHUNK, CHUNK_MAX));
            if self.source.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(ValueError::Truncated) };
            }
        }
    }

    /// Waits until the other side's direction ends (true) or it sends something more (false).
    pub(super) async fn ended(&mut self) -> bool {
        if !self.buffer.is_empty() {
            return false;
        }
        let mut byte = [0];
        !matches!(self.source.read(&mut byte).await, Ok(1..))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads all of `stream`, which comes in pieces of `piece` bytes: the values, and how it ended.
    async fn read(stream: &[u8], piece: usize, limit: usize) -> (Vec<Vec<u8>>, Option<ValueError>) {
        let (mut far, near) = tokio::io::duplex(piece);
        let stream = stream.to_vec();
        let writer = tokio::spawn(async move { tokio::io::AsyncWriteExt::write_all(&mut far, &stream).await });
        let mut values = Values::new(near);
        let mut found = Vec::new();
        let end = loop {
            match values.next(limit).await {
                Ok(Some(value)) => found.push(value.to_vec()),
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        writer.abort();
        (found, end)
    }

    #[tokio::test]
    async fn values_are_found_however_they_are_cut() {
        for piece in [1, 3, 4096] {
            let (values, end) = read(&[0x80, 0xa2, 1, 2, 0x92, 0xc0, 0x05, 0xc0], piece, 10).await;
            assert_eq!(values, [vec![0x80], vec![0xa2, 1, 2], vec![0x92, 0xc0, 0x05], vec![0xc0]]);
            assert!(end.is_none());
        }
    }

    #[tokio::test]
    async fn a_half_value_is_truncated() {
        let (values, end) = read(&[0x80, 0xa9, 1, 2], 4096, 10).await;
        assert_eq!(values.len(), 1);
        assert!(matches!(end, Some(ValueError::Truncated)));
    }

    #[tokio::test]
    async fn long_and_strange_values_are_refused_before_they_arrive() {
        for stream in [&[0xdb, 0x7f, 0xff, 0xff, 0xff][..], &[0xdd, 0xff, 0xff, 0xff, 0xff], &[0xc1], &[0xab; 11], &[0x91; 64]] {
            let (values, end) = read(stream, 4096, 10).await;
            assert!(values.is_empty());
            assert!(matches!(end, Some(ValueError::Bad { limit: 10 })), "{stream:02x?}: {end:?}");
        }
    }
}
