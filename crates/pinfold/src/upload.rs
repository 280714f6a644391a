//! A folder of this disk as one streamed multipart body, as Kubo and Go's ctl send it.
//!
//! A thread of its own reads (bounded: at most [`QUEUE`] chunks wait); nothing is ever held whole. A file that cannot be read,
//! or that changes while it is read, ends the upload with an error that names it: nothing is pinned then. With `skip_errors` it is
//! left out instead and listed; only a large file of which a part was sent already cannot be taken back. [`walk`] looks, this sends.

mod walk;

use crate::client::Body;
use anyhow::{Context, bail};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use std::fs::Metadata;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;
use walk::{Around, show};
pub use walk::{Extent, Walk, measure};

/// Bytes handed to the connection at once; small files share a chunk.
const CHUNK: usize = 1 << 20;
/// Chunks that may wait for the connection.
const QUEUE: usize = 4;
/// Where troubled files are left out, a file up to this size is read whole before any of it is sent.
const HELD_MOST: u64 = 4 << 20;
/// Things left out that are listed; the others are only counted.
const SKIPPED_LISTED: usize = 1000;

/// How far it is, for progress bars.
#[derive(Debug, Default)]
pub struct Sent {
    /// Bytes of file content read and handed on.
    pub bytes: AtomicU64,
    /// Files done.
    pub files: AtomicU64,
}

/// An upload about to begin.
pub struct Upload {
    /// Value for the `Content-Type` header.
    pub content_type: String,
    /// The body.
    pub body: Body,
    /// Counts while it goes.
    pub sent: Arc<Sent>,
    /// Why reading failed, once it did; the peer only sees a broken connection.
    pub failure: Arc<parking::Failure>,
    /// What was left out, and why.
    pub skipped: Arc<Mutex<Skipped>>,
}

/// What an upload left out.
#[derive(Debug, Default)]
pub struct Skipped {
    /// How many things.
    pub count: u64,
    /// The first of them, in words.
    pub listed: Vec<String>,
}

/// The error of the reading thread.
pub mod parking {
    use std::sync::Mutex;

    /// Set once.
    #[derive(Debug, Default)]
    pub struct Failure(Mutex<Option<String>>);

    impl Failure {
        /// Keeps the first error.
        pub fn set(&self, error: String) {
            if let Ok(mut slot) = self.0.lock() {
                slot.get_or_insert(error);
            }
        }

        /// The error, if there was one.
        pub fn take(&self) -> Option<String> {
            self.0.lock().ok().and_then(|mut slot| slot.take())
        }
    }
}

/// Begins an upload of the paths.
pub fn of_paths(paths: Vec<PathBuf>, walk: Walk) -> Upload {
    begin(walk, move |out| {
        for path in &paths {
            let sent = (|| {
                let name = path_name(path)?;
                let metadata = walk::named(path)?;
                if metadata.is_dir() {
                    send_folder(path, &metadata, &name, &mut Around::default(), out)
                } else {
                    send_file(path, &name, &metadata, true, out)
                }
            })();
            out.or_skip(sent)?;
        }
        Ok(())
    })
}

/// Begins an upload of one stream, as a file of that name.
pub fn of_reader(mut reader: impl Read + Send + 'static, name: String) -> Upload {
    begin(Walk::default(), move |out| {
        out.head(name.as_bytes(), "application/octet-stream")?;
        out.copy(&mut reader, None).context("reading standard input")?;
        out.sent.files.fetch_add(1, Ordering::Relaxed);
        out.text("\r\n")
    })
}

fn path_name(path: &Path) -> anyhow::Result<Vec<u8>> {
    if let Some(name) = path.file_name() {
        return Ok(name.as_bytes().to_vec());
    }
    let real = std::fs::canonicalize(path).with_context(|| format!("reading {}", show(path)))?;
    Ok(real.file_name().map(|name| name.as_bytes().to_vec()).unwrap_or_else(|| b"root".to_vec()))
}

fn send_folder(folder: &Path, metadata: &Metadata, name: &[u8], around: &mut Around, out: &mut Out) -> anyhow::Result<()> {
    around.enter(folder, metadata)?;
    let names = match walk::names(folder, out.walk) {
        Ok(names) => names,
        Err(error) => {
            around.leave();
            return Err(error);
        }
    };
    out.head(name, "application/x-directory")?;
    out.text("\r\n")?;
    for path in names {
        let Some(own) = path.file_name() else { continue };
        let name = [name, b"/", own.as_bytes()].concat();
        let sent = send_entry(&path, &name, around, out);
        out.or_skip(sent)?;
    }
    around.leave();
    Ok(())
}

fn send_entry(path: &Path, name: &[u8], around: &mut Around, out: &mut Out) -> anyhow::Result<()> {
    let metadata = walk::entry(path, out.walk)?;
    if metadata.is_dir() {
        return send_folder(path, &metadata, name, around, out);
    }
    if !metadata.is_symlink() {
        return send_file(path, name, &metadata, false, out);
    }
    let target = std::fs::read_link(path).with_context(|| format!("reading the link {}", show(path)))?;
    out.head(name, "application/symlink")?;
    out.bytes(target.as_os_str().as_bytes())?;
    out.text("\r\n")
}

fn send_file(path: &Path, name: &[u8], before: &Metadata, is_named: bool, out: &mut Out) -> anyhow::Result<()> {
    let mut file = walk::open(path, before, out.walk, is_named)?;
    let mark = out.begin_part(before);
    let sent = send_content(path, name, before, &mut file, out);
    let sent = out.end_part(mark, sent);
    if sent.is_ok() {
        out.sent.files.fetch_add(1, Ordering::Relaxed);
    }
    sent
}

fn send_content(path: &Path, name: &[u8], before: &Metadata, file: &mut std::fs::File, out: &mut Out) -> anyhow::Result<()> {
    out.head(name, "application/octet-stream")?;
    let length = before.is_file().then_some(before.len());
    let read = out.copy(file, length).with_context(|| format!("reading {}", show(path)))?;
    let after = file.metadata().with_context(|| format!("reading {}", show(path)))?;
    if before.is_file() && (read != before.len() || after.len() != before.len() || after.modified().ok() != before.modified().ok()) {
        bail!("{} changed while it was read: nothing was added; try again when it is at rest", show(path));
    }
    out.text("\r\n")
}

/// The peer ended the connection: its answer says why, not this.
#[derive(Debug, thiserror::Error)]
#[error("the peer closed the connection")]
struct PeerGone;

/// What even `skip_errors` cannot go on from.
#[derive(Debug, thiserror::Error)]
#[error("the add was given up")]
struct Fatal;

/// The writing end: gathers small pieces into chunks.
struct Out {
    boundary: String,
    gathered: BytesMut,
    queue: mpsc::Sender<Result<Frame<Bytes>, std::io::Error>>,
    sent: Arc<Sent>,
    walk: Walk,
    skipped: Arc<Mutex<Skipped>>,
    /// Chunks handed on.
    flushed: u64,
    /// Nothing is handed on until the part is whole.
    is_holding: bool,
}

/// Where a part begins, so that it can be taken back.
struct Mark {
    flushed: u64,
    gathered: usize,
    bytes: u64,
}

impl Out {
    /// A file begins; where troubled ones are left out, a small one is held until it is whole.
    fn begin_part(&mut self, metadata: &Metadata) -> Mark {
        self.is_holding = self.walk.skip_errors && metadata.len() <= HELD_MOST;
        Mark { flushed: self.flushed, gathered: self.gathered.len(), bytes: self.sent.bytes.load(Ordering::Relaxed) }
    }

    /// A file ended: taken back if it failed and none of it has gone.
    fn end_part(&mut self, mark: Mark, outcome: anyhow::Result<()>) -> anyhow::Result<()> {
        self.is_holding = false;
        match outcome {
            Ok(()) if self.gathered.len() >= CHUNK => self.flush(),
            Ok(()) => Ok(()),
            Err(error) if self.flushed == mark.flushed => {
                self.gathered.truncate(mark.gathered);
                self.sent.bytes.store(mark.bytes, Ordering::Relaxed);
                Err(error)
            }
            Err(error) if self.walk.skip_errors && !error.is::<PeerGone>() => {
                Err(error.context("a part of it was sent already, so it cannot be left out").context(Fatal))
            }
            Err(error) => Err(error),
        }
    }

    /// Notes a trouble and goes on, where that was asked for.
    fn or_skip(&mut self, outcome: anyhow::Result<()>) -> anyhow::Result<()> {
        match outcome {
            Err(error) if self.walk.skip_errors && !error.is::<PeerGone>() && !error.is::<Fatal>() => {
                if let Ok(mut skipped) = self.skipped.lock() {
                    skipped.count += 1;
                    if skipped.listed.len() < SKIPPED_LISTED {
                        skipped.listed.push(format!("{error:#}"));
                    }
                }
                Ok(())
            }
            other => other,
        }
    }

    fn head(&mut self, name: &[u8], content_type: &str) -> anyhow::Result<()> {
        let mut escaped = String::with_capacity(name.len());
        for byte in name {
            if byte.is_ascii_alphanumeric() || b"-._~/".contains(byte) {
                escaped.push(char::from(*byte));
            } else {
                escaped.push_str(&format!("%{byte:02X}"));
            }
        }
        let head = format!(
            "--{}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{escaped}\"\r\nContent-Type: {content_type}\r\n\r\n",
            self.boundary
        );
        self.text(&head)
    }

    fn text(&mut self, text: &str) -> anyhow::Result<()> {
        self.bytes(text.as_bytes())
    }

    fn bytes(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= CHUNK && !self.is_holding { self.flush() } else { Ok(()) }
    }

    /// Copies at most `length` bytes and one more, so that a file that grew is noticed.
    fn copy(&mut self, reader: &mut dyn Read, length: Option<u64>) -> anyhow::Result<u64> {
        let mut total = 0;
        loop {
            let filled = self.gathered.len();
            self.gathered.resize(filled + CHUNK.saturating_sub(filled).max(4096), 0);
            let read = match reader.read(&mut self.gathered[filled..]) {
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {
                    self.gathered.truncate(filled);
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            self.gathered.truncate(filled + read);
            total += read as u64;
            self.sent.bytes.fetch_add(read as u64, Ordering::Relaxed);
            if self.gathered.len() >= CHUNK && !self.is_holding {
                self.flush()?;
            }
            if read == 0 || length.is_some_and(|length| total > length) {
                return Ok(total);
            }
        }
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        let chunk = self.gathered.split().freeze();
        if chunk.is_empty() {
            return Ok(());
        }
        self.gathered.reserve(CHUNK);
        self.flushed += 1;
        self.queue.blocking_send(Ok(Frame::data(chunk))).map_err(|_| PeerGone.into())
    }
}

fn begin(walk: Walk, work: impl FnOnce(&mut Out) -> anyhow::Result<()> + Send + 'static) -> Upload {
    let mut random = [0; 16];
    // A boundary need only be unlikely in the content; the process id and time would do as well.
    if getrandom::fill(&mut random).is_err() {
        random[..4].copy_from_slice(&std::process::id().to_be_bytes());
    }
    let boundary = format!("pinfold-{}", hex::encode(random));
    let (queue, chunks) = mpsc::channel(QUEUE);
    let sent = Arc::new(Sent::default());
    let failure = Arc::new(parking::Failure::default());
    let skipped = Arc::new(Mutex::new(Skipped::default()));
    let mut out = Out {
        boundary: boundary.clone(),
        gathered: BytesMut::with_capacity(CHUNK),
        queue,
        sent: sent.clone(),
        walk,
        skipped: skipped.clone(),
        flushed: 0,
        is_holding: false,
    };
    let failed = failure.clone();
    std::thread::spawn(move || {
        let done = work(&mut out).and_then(|()| {
            let end = format!("--{}--\r\n", out.boundary);
            out.text(&end)?;
            out.flush()
        });
        if let Err(error) = done {
            let text = format!("{error:#}");
            if error.downcast_ref::<PeerGone>().is_none() {
                failed.set(text.clone());
            }
            // Breaks the body off, so that the peer never takes a part for the whole.
            out.queue.blocking_send(Err(std::io::Error::other(text))).ok();
        }
    });
    let stream = futures::stream::unfold(chunks, |mut chunks| async move { chunks.recv().await.map(|chunk| (chunk, chunks)) });
    Upload {
        content_type: format!("multipart/form-data; boundary={boundary}"),
        body: StreamBody::new(stream.boxed()).boxed_unsync(),
        sent,
        failure,
        skipped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    async fn sent(walk: Walk, work: impl FnOnce(&mut Out) -> anyhow::Result<()> + Send + 'static) -> (Result<String, String>, Skipped) {
        let upload = begin(walk, work);
        let body = upload.body.collect().await.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned());
        let skipped = std::mem::take(&mut *upload.skipped.lock().expect("not poisoned"));
        (body.map_err(|error| error.to_string()), skipped)
    }

    /// A file of `size` bytes that fails at its end, between two that do not.
    fn three_files(size: usize) -> impl FnOnce(&mut Out) -> anyhow::Result<()> + Send + 'static {
        move |out: &mut Out| {
            let folder = tempfile::tempdir()?;
            let path = folder.path().join("file");
            std::fs::write(&path, vec![b'x'; size])?;
            let metadata = std::fs::metadata(&path)?;
            for (name, fails) in [("first", false), ("second", true), ("third", false)] {
                let mark = out.begin_part(&metadata);
                let mut written =
                    out.head(name.as_bytes(), "text/plain").and_then(|()| out.copy(&mut std::fs::File::open(&path)?, None).map(|_| ()));
                if fails && written.is_ok() {
                    written = Err(anyhow::anyhow!("second changed"));
                }
                let ended = out.end_part(mark, written);
                out.or_skip(ended)?;
            }
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_troubled_file_is_taken_back_whole_or_ends_the_add() {
        let skips = Walk { skip_errors: true, ..Walk::default() };
        let (body, skipped) = sent(skips, three_files(100)).await;
        let body = body.expect("it goes on");
        assert!(body.contains("first") && body.contains("third") && !body.contains("second"), "{body}");
        assert_eq!((skipped.count, &skipped.listed[..]), (1, &["second changed".to_owned()][..]));
        let (body, skipped) = sent(skips, three_files(3 << 20)).await;
        assert!(body.is_ok_and(|body| !body.contains("second")) && skipped.count == 1, "held until it is whole");
        let (body, skipped) = sent(skips, three_files(HELD_MOST as usize + 1)).await;
        assert!(body.is_err_and(|error| error.contains("a part of it was sent already")), "too large to hold");
        assert_eq!(skipped.count, 0);
        let (body, _) = sent(Walk::default(), three_files(100)).await;
        assert!(body.is_err_and(|error| error.contains("second changed")));
    }
}
