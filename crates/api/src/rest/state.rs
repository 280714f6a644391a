//! The pinset out and in, as Go's `state export` writes it: one pin a line, while the peer runs.
//!
//! Out: a snapshot, streamed. In: lines are gathered, read and merged in batches; three batches are under way at most (one being
//! received, one read, one written), so memory stays bounded and the client is slowed to what the disk takes. Each batch is durable
//! before its counts are told, so what a client was told of stays, and sending the same again is harmless.
//!
//! A line that is no pin ends the import: everything before it is merged, nothing behind it. With `skip-bad` it is named and left out.

use super::pins::PinPages;
use super::stream::{self, STREAM_ERROR, streamed};
use super::{Answer, Failure, Rest};
use crate::message::{Body, Request, RequestBody, line_of};
use bytes::Bytes;
use futures::stream as streams;
use peer::{Cluster, CommandError, Imported, Moment};
use serde_json::json;
use std::sync::Arc;
use tokio::task::JoinHandle;
use types::{Pin, PinKind};
use wire::export::{LINE_BYTES_MAX, parse_line};
use wire::rest::query::Query;

/// Lines that are read and merged together: as many as fill a delta of the shared state.
const BATCH_LINES: usize = 4096;
const BATCH_BYTES: usize = 2 << 20;

/// Refused lines named in one import.
const REFUSED_NAMED: u64 = 1000;

impl Rest {
    pub(super) async fn export(&self, request: Request) -> Answer {
        let kinds = vec![PinKind::Data, PinKind::Meta, PinKind::ClusterDag, PinKind::Shard];
        stream::answer(PinPages::new(self.cluster.read_pins(Moment::One), kinds), request.trailer).await
    }

    /// Answers when the first batch is merged, so that a wrong file is refused by the status.
    pub(super) async fn import(&self, query: &Query, request: Request) -> Answer {
        let skips_bad = query.bool("skip-bad")?.unwrap_or(false);
        let renews = query.bool("renew")?.unwrap_or(false);
        let import = Import {
            cluster: self.cluster.clone(),
            lines: Lines::new(request.body),
            skips_bad,
            renews,
            reading: None,
            writing: None,
            lines_sent: 0,
            counts: Counts::default(),
            refused_named: 0,
            has_ended: false,
        };
        let (first, import) = import.step().await?;
        let trailer = request.trailer;
        let rest = streams::unfold((Some(first), Some(import)), move |(first, import)| {
            let trailer = trailer.clone();
            async move {
                if let Some(first) = first {
                    return Some((Ok(Bytes::from(first)), (None, import)));
                }
                let import = import?;
                if import.has_ended {
                    trailer.set(STREAM_ERROR, "");
                    return None;
                }
                match import.step().await {
                    Ok((line, import)) => Some((Ok(Bytes::from(line)), (None, Some(import)))),
                    Err(failure) => {
                        trailer.set(STREAM_ERROR, &failure.message);
                        None
                    }
                }
            }
        });
        Ok(streamed(Body::stream(rest)))
    }
}

/// What was merged so far.
#[derive(Clone, Copy, Default)]
struct Counts {
    /// Lines whose outcome is durable or refused.
    lines: u64,
    imported: Imported,
    refused: u64,
}

struct Import {
    cluster: Arc<dyn Cluster>,
    lines: Lines,
    skips_bad: bool,
    renews: bool,
    reading: Option<JoinHandle<Read>>,
    writing: Option<(Batch, JoinHandle<Result<Imported, CommandError>>)>,
    /// Lines handed to reading.
    lines_sent: u64,
    counts: Counts,
    refused_named: u64,
    has_ended: bool,
}

/// Lines that were read.
struct Read {
    pins: Vec<Pin>,
    batch: Batch,
}

/// What is to be told once the pins of a batch are durable.
#[derive(Default)]
struct Batch {
    lines: u64,
    /// Number and reason.
    refused: Vec<(u64, String)>,
    refused_count: u64,
    /// A bad line that ends the import.
    bad: Option<(u64, String)>,
}

impl Import {
    /// Goes on until a batch is durable; the lines that tell it. At the end the last one says so.
    async fn step(mut self) -> Result<(String, Import), Failure> {
        loop {
            let text = self.lines.next().await;
            let text = match text {
                Ok(text) => text,
                Err(why) => {
                    self.drain().await?;
                    let lines = self.counts.lines;
                    return Err(Failure::bad(format!("{why}; {lines} lines before it are merged: it is safe to send all again")));
                }
            };
            let is_last = text.is_none();
            let read = match self.reading.take() {
                Some(reading) => Some(reading.await.map_err(|error| Failure::internal(format!("reading pins: {error}")))?),
                None => None,
            };
            let is_bad = read.as_ref().is_some_and(|read| read.batch.bad.is_some());
            if let Some(text) = text.filter(|_| !is_bad) {
                self.read(text);
            }
            let told = self.wrote().await?;
            if let Some(read) = read {
                self.write(read);
            }
            if is_last || is_bad {
                let more = self.drain().await?;
                self.has_ended = true;
                let told = [told, more].concat();
                return Ok((told + &self.line(true), self));
            }
            if !told.is_empty() {
                return Ok((told, self));
            }
        }
    }

    fn read(&mut self, text: Text) {
        let first = self.lines_sent + 1;
        self.lines_sent += text.lines;
        let skips_bad = self.skips_bad;
        self.reading = Some(tokio::task::spawn_blocking(move || read(&text, first, skips_bad)));
    }

    fn write(&mut self, read: Read) {
        let (cluster, renews) = (self.cluster.clone(), self.renews);
        self.writing = Some((read.batch, tokio::spawn(async move { cluster.import(read.pins, renews).await })));
    }

    /// Waits for the batch that is being written; what is to be told of it. A bad line ends it all here.
    async fn wrote(&mut self) -> Result<String, Failure> {
        let Some((batch, writing)) = self.writing.take() else { return Ok(String::new()) };
        let written = writing.await.map_err(|error| Failure::internal(format!("writing pins: {error}")))?;
        let imported = written.map_err(|error| self.said(Failure::from(error), batch.lines))?;
        self.counts.lines += batch.lines;
        self.counts.imported.added += imported.added;
        self.counts.imported.changed += imported.changed;
        self.counts.imported.same += imported.same;
        self.counts.refused += batch.refused_count;
        let mut told = String::new();
        for (number, reason) in batch.refused {
            if self.refused_named < REFUSED_NAMED {
                self.refused_named += 1;
                told.push_str(&line_of(&json!({ "line": number, "refused": reason })));
            }
        }
        if let Some((number, reason)) = batch.bad {
            let text = format!(
                "line {number} is no pin: {reason}; the {} lines before it are merged and nothing behind it: correct it and send all again, or \
                 say skip-bad to leave such lines out",
                self.counts.lines
            );
            return Err(Failure::bad(text));
        }
        told.push_str(&self.line(false));
        Ok(told)
    }

    /// Reads and writes what was received.
    async fn drain(&mut self) -> Result<String, Failure> {
        let mut told = self.wrote().await?;
        if let Some(reading) = self.reading.take() {
            let read = reading.await.map_err(|error| Failure::internal(format!("reading pins: {error}")))?;
            self.write(read);
            told.push_str(&self.wrote().await?);
        }
        Ok(told)
    }

    fn line(&self, is_done: bool) -> String {
        let Counts { lines, imported, refused } = self.counts;
        let Imported { added, changed, same } = imported;
        line_of(&json!({ "lines": lines, "added": added, "changed": changed, "same": same, "refused": refused, "done": is_done }))
    }

    /// A failure of the store, with what is merged already.
    fn said(&self, failure: Failure, lines: u64) -> Failure {
        let (first, last) = (self.counts.lines + 1, self.counts.lines + lines);
        let message = format!("{} (lines {first} to {last}; those before are merged: it is safe to send all again)", failure.message);
        Failure { message, ..failure }
    }
}

/// Reads lines up to the first bad one, or all but the bad ones.
fn read(text: &Text, first: u64, skips_bad: bool) -> Read {
    let mut read = Read { pins: Vec::with_capacity(text.lines as usize), batch: Batch::default() };
    for (number, line) in (first..).zip(text.bytes.split_inclusive(|byte| *byte == b'\n')) {
        match read_line(line) {
            Ok(pin) => read.pins.extend(pin),
            Err(reason) if skips_bad => {
                read.batch.refused_count += 1;
                if read.batch.refused.len() < REFUSED_NAMED as usize {
                    read.batch.refused.push((number, reason));
                }
            }
            Err(reason) => {
                read.batch.bad = Some((number, reason));
                return read;
            }
        }
        read.batch.lines += 1;
    }
    read
}

/// None for an empty line.
fn read_line(line: &[u8]) -> Result<Option<Pin>, String> {
    let line = std::str::from_utf8(line).map_err(|_| "it is not UTF-8".to_owned())?.trim();
    if line.is_empty() {
        return Ok(None);
    }
    let pin = parse_line(line).map_err(|error| error.to_string())?;
    match pin.kind {
        PinKind::Bad => Err("its type is none of pin, meta-pin, clusterdag-pin, shard-pin".to_owned()),
        _ => Ok(Some(pin)),
    }
}

/// Whole lines.
#[derive(Default)]
struct Text {
    bytes: Vec<u8>,
    lines: u64,
}

/// Cuts a body into batches of whole lines.
struct Lines {
    body: RequestBody,
    bytes: Vec<u8>,
    /// So much of `bytes` is looked through; the end of the last whole line in it, and how many there are.
    seen: usize,
    end: usize,
    lines: u64,
    is_over: bool,
}

impl Lines {
    fn new(body: RequestBody) -> Lines {
        Lines { body, bytes: Vec::new(), seen: 0, end: 0, lines: 0, is_over: false }
    }

    /// The next batch; none at the end. A text says why the body cannot be read on.
    async fn next(&mut self) -> Result<Option<Text>, String> {
        while !self.look() && !self.is_over {
            match self.body.next().await {
                Ok(Some(piece)) => self.bytes.extend_from_slice(&piece),
                Ok(None) => self.is_over = true,
                Err(error) => return Err(error.to_string()),
            }
            if self.bytes.len() - self.end > LINE_BYTES_MAX {
                return Err(format!("a line is longer than {LINE_BYTES_MAX} bytes"));
            }
        }
        if self.is_over && self.lines == 0 && self.seen > 0 {
            // The last line may lack its newline.
            (self.end, self.lines) = (self.bytes.len(), 1);
        } else if self.is_over && self.lines == 0 {
            return Ok(None);
        }
        let rest = self.bytes.split_off(self.end);
        let bytes = std::mem::replace(&mut self.bytes, rest);
        let text = Text { bytes, lines: self.lines };
        (self.seen, self.end, self.lines) = (0, 0, 0);
        Ok(Some(text))
    }

    /// Looks for whole lines; true when there are enough for a batch.
    fn look(&mut self) -> bool {
        while self.lines < BATCH_LINES as u64 && self.end < BATCH_BYTES {
            match memchr::memchr(b'\n', &self.bytes[self.seen..]) {
                Some(at) => {
                    self.seen += at + 1;
                    self.end = self.seen;
                    self.lines += 1;
                }
                None => {
                    self.seen = self.bytes.len();
                    return false;
                }
            }
        }
        true
    }
}
