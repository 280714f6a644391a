//! A folder of this disk as one streamed multipart body, as Kubo and Go's ctl send it.
//!
//! A thread of its own reads (bounded: at most [`QUEUE`] chunks wait); nothing is ever held whole. A file that cannot be read,
//! or that changes while it is read, ends the upload with an error that names it: nothing is pinned then.

use crate::client::Body;
use anyhow::{Context, bail};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;

/// Bytes handed to the connection at once; small files share a chunk.
const CHUNK: usize = 1 << 20;
/// Chunks that may wait for the connection.
const QUEUE: usize = 4;

/// What an upload will send.
#[derive(Debug, Default, Clone, Copy)]
pub struct Extent {
    /// Bytes in files.
    pub bytes: u64,
    /// Files.
    pub files: u64,
}

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

/// Options of the walk.
#[derive(Debug, Clone, Copy, Default)]
pub struct Walk {
    /// Leave out names that begin with a dot (below the named paths).
    pub no_hidden: bool,
}

/// Adds up what is under the paths.
pub fn measure(paths: &[PathBuf], walk: Walk) -> anyhow::Result<Extent> {
    let mut extent = Extent::default();
    for path in paths {
        let metadata = std::fs::metadata(path).with_context(|| format!("reading {}", path.display()))?;
        if metadata.is_dir() {
            measure_folder(path, walk, &mut extent)?;
        } else {
            extent.bytes += metadata.len();
            extent.files += 1;
        }
    }
    Ok(extent)
}

fn measure_folder(folder: &Path, walk: Walk, extent: &mut Extent) -> anyhow::Result<()> {
    for (path, metadata) in entries(folder, walk)? {
        if metadata.is_dir() {
            measure_folder(&path, walk, extent)?;
        } else if metadata.is_file() {
            extent.bytes += metadata.len();
            extent.files += 1;
        }
    }
    Ok(())
}

/// The entries of a folder, sorted by name, symbolic links not followed.
fn entries(folder: &Path, walk: Walk) -> anyhow::Result<Vec<(PathBuf, Metadata)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("reading the folder {}", folder.display()))? {
        let entry = entry.with_context(|| format!("reading the folder {}", folder.display()))?;
        if walk.no_hidden && entry.file_name().as_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        let metadata = std::fs::symlink_metadata(&path).with_context(|| format!("reading {}", path.display()))?;
        found.push((path, metadata));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

/// Begins an upload of the paths.
pub fn of_paths(paths: Vec<PathBuf>, walk: Walk) -> Upload {
    begin(move |out| {
        for path in &paths {
            let name = path_name(path)?;
            let metadata = std::fs::metadata(path).with_context(|| format!("reading {}", path.display()))?;
            if metadata.is_dir() {
                send_folder(path, &name, walk, out)?;
            } else {
                send_file(path, &name, &metadata, out)?;
            }
        }
        Ok(())
    })
}

/// Begins an upload of one stream, as a file of that name.
pub fn of_reader(mut reader: impl Read + Send + 'static, name: String) -> Upload {
    begin(move |out| {
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
    let real = std::fs::canonicalize(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(real.file_name().map(|name| name.as_bytes().to_vec()).unwrap_or_else(|| b"root".to_vec()))
}

fn send_folder(folder: &Path, name: &[u8], walk: Walk, out: &mut Out) -> anyhow::Result<()> {
    out.head(name, "application/x-directory")?;
    out.text("\r\n")?;
    for (path, metadata) in entries(folder, walk)? {
        let Some(own) = path.file_name() else { continue };
        let name = [name, b"/", own.as_bytes()].concat();
        if metadata.is_dir() {
            send_folder(&path, &name, walk, out)?;
        } else if metadata.is_symlink() {
            let target = std::fs::read_link(&path).with_context(|| format!("reading the link {}", path.display()))?;
            out.head(&name, "application/symlink")?;
            out.bytes(target.as_os_str().as_bytes())?;
            out.text("\r\n")?;
        } else if metadata.is_file() {
            send_file(&path, &name, &metadata, out)?;
        } else {
            // Sockets, pipes and devices have no content that could be kept.
            eprintln!("left out: {} is neither file, folder nor link", path.display());
        }
    }
    Ok(())
}

fn send_file(path: &Path, name: &[u8], before: &Metadata, out: &mut Out) -> anyhow::Result<()> {
    let mut file = File::open(path).with_context(|| format!("reading {}", path.display()))?;
    out.head(name, "application/octet-stream")?;
    let length = before.is_file().then_some(before.len());
    let read = out.copy(&mut file, length).with_context(|| format!("reading {}", path.display()))?;
    let after = file.metadata().with_context(|| format!("reading {}", path.display()))?;
    if before.is_file() && (read != before.len() || after.len() != before.len() || after.modified().ok() != before.modified().ok()) {
        bail!("{} changed while it was read: nothing was added; try again when it is at rest", path.display());
    }
    out.sent.files.fetch_add(1, Ordering::Relaxed);
    out.text("\r\n")
}

/// The peer ended the connection: its answer says why, not this.
#[derive(Debug, thiserror::Error)]
#[error("the peer closed the connection")]
struct PeerGone;

/// The writing end: gathers small pieces into chunks.
struct Out {
    boundary: String,
    gathered: BytesMut,
    queue: mpsc::Sender<Result<Frame<Bytes>, std::io::Error>>,
    sent: Arc<Sent>,
}

impl Out {
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
        if self.gathered.len() >= CHUNK { self.flush() } else { Ok(()) }
    }

    /// Copies at most `length` bytes and one more, so that a file that grew is noticed.
    fn copy(&mut self, reader: &mut dyn Read, length: Option<u64>) -> anyhow::Result<u64> {
        let mut total = 0;
        loop {
            let filled = self.gathered.len();
            self.gathered.resize(filled + (CHUNK - filled).max(4096), 0);
            let read = match reader.read(&mut self.gathered[filled..]) {
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => 0,
                Err(error) => return Err(error.into()),
            };
            self.gathered.truncate(filled + read);
            total += read as u64;
            self.sent.bytes.fetch_add(read as u64, Ordering::Relaxed);
            if self.gathered.len() >= CHUNK {
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
        self.queue.blocking_send(Ok(Frame::data(chunk))).map_err(|_| PeerGone.into())
    }
}

fn begin(work: impl FnOnce(&mut Out) -> anyhow::Result<()> + Send + 'static) -> Upload {
    let mut random = [0; 16];
    // A boundary need only be unlikely in the content; the process id and time would do as well.
    if getrandom::fill(&mut random).is_err() {
        random[..4].copy_from_slice(&std::process::id().to_be_bytes());
    }
    let boundary = format!("pinfold-{}", hex::encode(random));
    let (queue, chunks) = mpsc::channel(QUEUE);
    let sent = Arc::new(Sent::default());
    let failure = Arc::new(parking::Failure::default());
    let mut out = Out { boundary: boundary.clone(), gathered: BytesMut::with_capacity(CHUNK), queue, sent: sent.clone() };
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
    }
}
