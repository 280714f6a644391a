//! What the client of an add reads: Go's `AddedOutput` or Kubo's form, as lines or as one array.

use super::AddError;
use crate::message::{Broken, line_of};
use bytes::Bytes;
use futures::Stream;
use serde::Serialize;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc;
use types::{Cid, PeerId};
use wire::rest::AddedOutput;

/// Lines that may wait for a slow reader.
const LINES_MAX: usize = 256;

/// Whose names the lines have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Go's cluster.
    Cluster,
    /// Kubo, as its clients read them from the proxy.
    Kubo,
}

/// Kubo's line.
#[derive(Serialize)]
struct KuboLine<'a> {
    #[serde(rename = "Name")]
    name: &'a str,
    #[serde(rename = "Hash", skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
    #[serde(rename = "Bytes", skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(rename = "Size", skip_serializing_if = "Option::is_none")]
    size: Option<String>,
}

/// Lines on their way to the client.
pub(super) struct Lines {
    shape: Shape,
    to: Destination,
    /// The holders as they were written last: they seldom change between two files.
    holders: (Vec<PeerId>, Vec<String>),
}

enum Destination {
    Stream(mpsc::Sender<Bytes>),
    Array(Vec<u8>),
}

/// The lines of a streamed answer.
pub(super) struct Seen(mpsc::Receiver<Bytes>);

impl Stream for Seen {
    type Item = Result<Bytes, Broken>;
    /// All lines that wait go out together: small files end faster than the client reads.
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut waiting = Vec::new();
        match self.0.poll_recv_many(cx, &mut waiting, LINES_MAX) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(0) => Poll::Ready(None),
            Poll::Ready(1) => Poll::Ready(waiting.pop().map(Ok)),
            Poll::Ready(_) => Poll::Ready(Some(Ok(waiting.concat().into()))),
        }
    }
}

impl Lines {
    pub fn new(is_streamed: bool, shape: Shape) -> (Lines, Seen) {
        let (sender, receiver) = mpsc::channel(LINES_MAX);
        let to = if is_streamed { Destination::Stream(sender) } else { Destination::Array(Vec::new()) };
        (Lines { shape, to, holders: (Vec::new(), Vec::new()) }, Seen(receiver))
    }

    /// A finished file, directory or root.
    pub async fn node(&mut self, name: &str, cid: &Cid, bytes: u64, size: u64, holders: &[PeerId]) -> Result<(), AddError> {
        let is_some = |number: &u64| *number > 0;
        let text = match self.shape {
            Shape::Cluster => {
                if self.holders.0 != holders {
                    self.holders = (holders.to_vec(), holders.iter().map(PeerId::to_string).collect());
                }
                let allocations = self.holders.1.clone();
                line_of(&AddedOutput { name: name.to_owned(), cid: Some(cid.to_string()), bytes, size, allocations })
            }
            Shape::Kubo => {
                let size = Some(size).filter(is_some).map(|size| size.to_string());
                line_of(&KuboLine { name, hash: Some(cid.to_string()), bytes: Some(bytes).filter(is_some), size })
            }
        };
        self.push(text).await
    }

    /// How far a file is.
    pub async fn progress(&mut self, name: &str, bytes: u64) -> Result<(), AddError> {
        self.push(self.progress_text(name, bytes)).await
    }

    /// The same, left out when the client is slow to read.
    pub fn progress_if_read(&mut self, name: &str, bytes: u64) {
        let text = self.progress_text(name, bytes);
        match &mut self.to {
            Destination::Stream(sender) => drop(sender.try_send(text.into())),
            Destination::Array(lines) => push_item(lines, &text),
        }
    }

    fn progress_text(&self, name: &str, bytes: u64) -> String {
        match self.shape {
            Shape::Cluster => line_of(&AddedOutput { name: name.to_owned(), bytes, ..AddedOutput::default() }),
            Shape::Kubo => line_of(&KuboLine { name, hash: None, bytes: Some(bytes).filter(|bytes| *bytes > 0), size: None }),
        }
    }

    async fn push(&mut self, text: String) -> Result<(), AddError> {
        match &mut self.to {
            Destination::Stream(sender) => sender.send(text.into()).await.map_err(|_| AddError::Gone),
            Destination::Array(lines) => {
                push_item(lines, &text);
                Ok(())
            }
        }
    }

    /// The array, if lines were collected; `null` when there is none, as in Go.
    pub fn into_array(self) -> Vec<u8> {
        match self.to {
            Destination::Stream(_) => Vec::new(),
            Destination::Array(lines) if lines.is_empty() => b"null\n".to_vec(),
            Destination::Array(mut lines) => {
                lines.extend_from_slice(b"]\n");
                lines
            }
        }
    }
}

fn push_item(lines: &mut Vec<u8>, text: &str) {
    lines.push(if lines.is_empty() { b'[' } else { b',' });
    lines.extend_from_slice(text.trim_end().as_bytes());
}
