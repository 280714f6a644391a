//! What the client of an add reads: Go's `AddedOutput`, as lines or as one array.

use super::AddError;
use crate::message::{Broken, line_of};
use bytes::Bytes;
use futures::Stream;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc;
use types::{Cid, PeerId};
use wire::rest::AddedOutput;

/// Lines that may wait for a slow reader.
const LINES_MAX: usize = 256;

/// Where lines go.
pub(super) enum Lines {
    Stream(mpsc::Sender<Bytes>),
    Array(Vec<u8>),
}

/// The lines of a streamed answer.
pub(super) struct Seen(mpsc::Receiver<Bytes>);

impl Stream for Seen {
    type Item = Result<Bytes, Broken>;
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|line| line.map(Ok))
    }
}

impl Lines {
    pub fn new(is_streamed: bool) -> (Lines, Seen) {
        let (sender, receiver) = mpsc::channel(LINES_MAX);
        (if is_streamed { Lines::Stream(sender) } else { Lines::Array(Vec::new()) }, Seen(receiver))
    }

    /// A finished file, directory or root.
    pub async fn node(&mut self, name: &str, cid: &Cid, bytes: u64, size: u64, holders: &[PeerId]) -> Result<(), AddError> {
        let allocations = holders.iter().map(PeerId::to_string).collect();
        self.push(line_of(&AddedOutput { name: name.to_owned(), cid: Some(cid.to_string()), bytes, size, allocations })).await
    }

    /// How far a file is.
    pub async fn progress(&mut self, name: &str, bytes: u64) -> Result<(), AddError> {
        self.push(progress_text(name, bytes)).await
    }

    /// The same, left out when the client is slow to read.
    pub fn progress_if_read(&mut self, name: &str, bytes: u64) {
        let text = progress_text(name, bytes);
        match self {
            Lines::Stream(sender) => drop(sender.try_send(text.into())),
            Lines::Array(lines) => push_item(lines, &text),
        }
    }

    async fn push(&mut self, text: String) -> Result<(), AddError> {
        match self {
            Lines::Stream(sender) => sender.send(text.into()).await.map_err(|_| AddError::Gone),
            Lines::Array(lines) => {
                push_item(lines, &text);
                Ok(())
            }
        }
    }

    /// The array, if lines were collected; `null` when there is none, as in Go.
    pub fn into_array(self) -> Vec<u8> {
        match self {
            Lines::Stream(_) => Vec::new(),
            Lines::Array(lines) if lines.is_empty() => b"null\n".to_vec(),
            Lines::Array(mut lines) => {
                lines.extend_from_slice(b"]\n");
                lines
            }
        }
    }
}

fn progress_text(name: &str, bytes: u64) -> String {
    line_of(&AddedOutput { name: name.to_owned(), bytes, ..AddedOutput::default() })
}

fn push_item(lines: &mut Vec<u8>, text: &str) {
    lines.push(if lines.is_empty() { b'[' } else { b',' });
    lines.extend_from_slice(text.trim_end().as_bytes());
}
