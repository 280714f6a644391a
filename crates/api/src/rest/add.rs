//! `POST /add`: a multipart stream in, blocks to the holders, lines out.
//!
//! Nothing is whole in memory: parts arrive in pieces, files are cut and hashed as they come, blocks leave in batches, and the
//! slowest holder sets the pace. [`files`] makes DAGs of files and folders, [`car`] takes one that is made already, [`lines`]
//! is what the client reads meanwhile.

mod car;
mod files;
mod lines;

use self::lines::Lines;
use super::options::{self, AddOptions};
use super::stream::{STREAM_ERROR, streamed};
use super::{Answer, Failure, Rest, json, wall};
use crate::message::{Body, Request};
use crate::multipart::{MultipartError, PartHead, Parts, Piece};
use crate::query::Query;
use dag::{Block, HashFn};
use dag::import::{FileOptions, Layout};
use futures::{StreamExt, stream};
use hyper::Uri;
use hyper::header::{self, HeaderValue};
use peer::{AddSession, Cluster};
use std::sync::Arc;
use std::time::Duration;
use types::{ByteCount, Cid};

/// Blocks leave in batches of about so many bytes: large enough for one write of the store, small enough for the memory.
const BATCH_BYTES: usize = 2 << 20;
/// … or so many blocks.
const BATCH_BLOCKS: usize = 512;
/// How much of a refused upload is read, so that its client gets to read why.
const DISCARD_MAX: usize = 1 << 20;
/// How long `wait=` waits for holders.
const WAIT_LIMIT: Duration = Duration::from_secs(600);

impl Rest {
    pub(super) async fn add(&self, uri: &Uri, request: Request) -> Answer {
        let query = Query::parse(uri.query());
        let options = options::add(&query, wall())?;
        let import = import_options(&options)?;
        if options.is_car && options.wraps {
            return Err(Failure::bad("cannot wrap a CAR file upload"));
        }
        let size = request.head.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok()).map(ByteCount);
        let content_type = request.head.headers.get(header::CONTENT_TYPE).map(|value| value.as_bytes().to_vec());
        let mut parts = Parts::new(request.body, content_type.as_deref()).map_err(|error| Failure::bad(error.to_string()))?;
        let first = match parts.next().await {
            Ok(Piece::Head(head)) => head,
            Ok(_) => return Err(Failure::bad("nothing to add: the request has no parts")),
            Err(error) => return Err(Failure::bad(format!("reading the request: {error}"))),
        };
        let session = match self.cluster.add(options.pin.clone(), size, options.is_local).await {
            Ok(session) => session,
            Err(error) => {
                parts.discard(DISCARD_MAX).await;
                return Err(error.into());
            }
        };
        let is_streamed = options.is_streamed;
        let (lines, seen) = Lines::new(is_streamed);
        let adding = Adding { cluster: self.cluster.clone(), options, import, parts, out: Outgoing::new(session, lines) };
        if is_streamed { Ok(stream_answer(adding, first, seen, request.trailer)) } else { array_answer(adding, first).await }
    }
}

/// The lines as they come; what goes wrong is told at the end.
fn stream_answer(adding: Adding, first: PartHead, seen: lines::Seen, trailer: crate::trailer::TrailerSlot) -> crate::message::Response {
    let work = async move {
        if let Err(error) = adding.run(first).await {
            trailer.set(STREAM_ERROR, &error.to_string());
        }
    };
    let work = stream::once(work).filter_map(|()| async { None });
    let mut response = streamed(Body::stream(stream::select(seen, work)));
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    headers.insert("x-chunked-output", HeaderValue::from_static("1"));
    response
}

/// All lines as one array, once everything went well.
async fn array_answer(adding: Adding, first: PartHead) -> Answer {
    let lines = adding.run(first).await.map_err(|error| Failure::internal(error.to_string()))?;
    let mut response = json::raw(lines);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    Ok(response)
}

fn import_options(options: &AddOptions) -> Result<FileOptions, Failure> {
    let cid_version = match options.cid_version {
        0 => cid::Version::V0,
        1 => cid::Version::V1,
        other => return Err(Failure::bad(format!("bad CID Version: unknown CID version: {other}"))),
    };
    let import = FileOptions {
        cid_version,
        hash: HashFn::from_name(&options.hash).map_err(|error| Failure::bad(error.to_string()))?,
        raw_leaves: options.raw_leaves,
        chunker: options.chunker.parse().map_err(|error: dag::chunk::ChunkerError| Failure::bad(error.to_string()))?,
        layout: if options.is_trickle { Layout::Trickle } else { Layout::Balanced },
        ..FileOptions::default()
    };
    import.check().map_err(|error| Failure::bad(error.to_string()))?;
    Ok(import)
}

/// Why an add ended without a pin. Clients see the text.
#[derive(Debug, thiserror::Error)]
pub(super) enum AddError {
    #[error("reading the request: {0}")]
    Request(#[from] MultipartError),
    #[error(transparent)]
    Import(#[from] dag::import::ImportError),
    #[error("{0}")]
    Car(String),
    #[error(transparent)]
    Cluster(#[from] peer::CommandError),
    #[error("the target of symlink {0:?} is longer than 4096 bytes")]
    LongSymlink(String),
    #[error("the client went away")]
    Gone,
    #[error("added and pinned, but only {have} of {wanted} copies were confirmed in {} s", WAIT_LIMIT.as_secs())]
    NotConfirmed { have: u32, wanted: u32 },
}

/// One add under way.
struct Adding {
    cluster: Arc<dyn Cluster>,
    options: AddOptions,
    import: FileOptions,
    parts: Parts,
    out: Outgoing,
}

/// What an add made.
struct Made {
    root: Cid,
    /// Bytes of its DAG.
    size: u64,
}

impl Adding {
    /// Adds everything and pins the last root; the collected lines, where they were not streamed.
    async fn run(mut self, first: PartHead) -> Result<Vec<u8>, AddError> {
        let added = if self.options.is_car { self.add_car().await } else { self.add_files(first).await };
        let made = match added {
            Ok(made) => made,
            Err(error) => {
                self.parts.discard(DISCARD_MAX).await;
                return Err(error);
            }
        };
        self.out.flush().await?;
        let Outgoing { session, lines, .. } = self.out;
        session.finish(made.root, self.options.pin, ByteCount(made.size), self.options.pins).await?;
        let wanted = self.options.wait;
        if wanted > 0 && self.options.pins {
            let have = self.cluster.wait_copies(&made.root, wanted, WAIT_LIMIT).await;
            if have < wanted {
                return Err(AddError::NotConfirmed { have, wanted });
            }
        }
        Ok(lines.into_array())
    }
}

/// Blocks and lines on their way out.
struct Outgoing {
    session: Box<dyn AddSession>,
    lines: Lines,
    batch: Vec<Block>,
    batch_bytes: usize,
}

impl Outgoing {
    fn new(session: Box<dyn AddSession>, lines: Lines) -> Outgoing {
        Outgoing { session, lines, batch: Vec::new(), batch_bytes: 0 }
    }

    /// Takes a block; [`Outgoing::pass_on`] sends it.
    fn take(&mut self, block: Block) {
        self.batch_bytes += block.data.len();
        self.batch.push(block);
    }

    /// Sends what was taken when it is enough for a batch.
    async fn pass_on(&mut self) -> Result<(), AddError> {
        if self.batch_bytes >= BATCH_BYTES || self.batch.len() >= BATCH_BLOCKS { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), AddError> {
        self.batch_bytes = 0;
        let mut rest = std::mem::take(&mut self.batch);
        while !rest.is_empty() {
            let after = rest.split_off(rest.len().min(BATCH_BLOCKS));
            self.session.put(std::mem::replace(&mut rest, after)).await?;
        }
        Ok(())
    }

    /// Tells the client of a finished node.
    async fn line(&mut self, name: &str, cid: &Cid, bytes: u64, size: u64) -> Result<(), AddError> {
        let holders = self.session.holders();
        self.lines.node(name, cid, bytes, size, &holders).await
    }
}
