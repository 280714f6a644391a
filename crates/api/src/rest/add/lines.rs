//! What the client of an add reads: Go's `AddedOutput`, as lines or as one array.

use super::AddError;
use crate::message::Broken;
use bytes::Bytes;
use futures::Stream;
use serde_json::{Map, Value};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc;
use types::{Cid, PeerId};

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
        let mut line = Map::new();
        line.insert("name".into(), name.into());
        line.insert("cid".into(), cid.to_string().into());
        if bytes > 0 {
            line.insert("bytes".into(), bytes.into());
        }
        if size > 0 {
            line.insert("size".into(), size.into());
        }
        if !holders.is_empty() {
            line.insert("allocations".into(), holders.iter().map(PeerId::to_string).collect::<Vec<_>>().into());
        }
        self.push(Value::Object(line)).await
    }

    /// How far a file is.
    pub async fn progress(&mut self, name: &str, bytes: u64) -> Result<(), AddError> {
        let mut line = Map::new();
        line.insert("name".into(), name.into());
        line.insert("cid".into(), Value::Null);
        if bytes > 0 {
            line.insert("bytes".into(), bytes.into());
        }
        self.push(Value::Object(line)).await
    }

    async fn push(&mut self, line: Value) -> Result<(), AddError> {
        let mut text = Vec::new();
        super::json::push_value(&mut text, &line);
        match self {
            Lines::Stream(sender) => sender.send(text.into()).await.map_err(|_| AddError::Gone),
            Lines::Array(lines) => {
                text.pop();
                lines.push(if lines.is_empty() { b'[' } else { b',' });
                lines.extend_from_slice(&text);
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
