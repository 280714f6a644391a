//! `POST /add`: a multipart stream in, blocks to the holders, lines out.
//!
//! Nothing is whole in memory: parts arrive in pieces, files are cut and hashed as they come, blocks leave in batches, and the
//! slowest holder sets the pace. [`files`] makes DAGs of files and folders as [`importing`] says, [`car`] takes one that is made already, [`lines`] is
//! what the client reads meanwhile.

mod car;
mod files;
mod importing;
mod lines;

use self::importing::{Import, import_options};
use self::lines::Lines;
pub(crate) use self::lines::Shape;
use super::options::{self, AddOptions};
use super::stream::{STREAM_ERROR, streamed};
use super::{Answer, Failure, json, wall};
use crate::message::{Body, Request};
use crate::multipart::{MultipartError, PartHead, Parts, Piece};
use async_trait::async_trait;
use dag::Block;
use futures::{StreamExt, stream};
use hyper::header::{self, HeaderValue};
use ipfs::adding::{Adder, BlockSink, SinkError};
use peer::{AddSession, Cluster, CommandError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use types::{ByteCount, Cid, PeerId};
use wire::rest::query::{AddFormat, Query};

/// How long `wait=` waits for holders.
const WAIT_LIMIT: Duration = Duration::from_secs(600);

/// Answers an add; `query` has the cluster's names.
pub(crate) async fn answer(cluster: &Arc<dyn Cluster>, query: &Query, request: Request, shape: Shape) -> Answer {
    let options = options::add(query, wall())?;
    let import = import_options(query, &options.params)?;
    if options.params.format == AddFormat::Car && options.params.wrap {
        return Err(Failure::bad("cannot wrap a CAR file upload"));
    }
    // A streamed body says no length; our own client says what it measured, so that a full cluster refuses before the first byte.
    let said = request.head.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let size = said.or_else(|| query.get("expected-size").parse().ok()).map(ByteCount);
    let content_type = request.head.headers.get(header::CONTENT_TYPE).map(|value| value.as_bytes().to_vec());
    let mut parts = Parts::new(request.body, content_type.as_deref()).map_err(|error| Failure::bad(error.to_string()))?;
    let first = match parts.next().await {
        Ok(Piece::Head(head)) => head,
        Ok(_) => return Err(Failure::bad("nothing to add: the request has no parts")),
        Err(error) => return Err(Failure::bad(format!("reading the request: {error}"))),
    };
    let session = cluster.add(options.params.options.clone(), size, options.params.local).await?;
    let is_streamed = options.params.stream_channels;
    let (lines, seen) = Lines::new(is_streamed, shape);
    let adding = Adding { cluster: cluster.clone(), options, import, parts, session, lines };
    if is_streamed { Ok(stream_answer(adding, first, seen, request.trailer)) } else { array_answer(adding, first).await }
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

/// Why an add ended without a pin. Clients see the text.
#[derive(Debug, thiserror::Error)]
pub(super) enum AddError {
    #[error("reading the request: {0}")]
    Request(#[from] MultipartError),
    #[error("{0}")]
    Adding(String),
    #[error(transparent)]
    Import(#[from] dag::import::ImportError),
    #[error(transparent)]
    Cluster(#[from] CommandError),
    #[error("the target of symlink {0:?} is longer than 4096 bytes")]
    LongSymlink(String),
    #[error("nothing was added")]
    Nothing,
    #[error("the client went away")]
    Gone,
    #[error("added and pinned, but only {have} of {wanted} copies were confirmed in {} s", WAIT_LIMIT.as_secs())]
    NotConfirmed { have: u32, wanted: u32 },
}

impl From<ipfs::adding::AddError> for AddError {
    /// The innermost cause is what the client can act on.
    fn from(error: ipfs::adding::AddError) -> AddError {
        let mut cause: &dyn std::error::Error = &error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        AddError::Adding(cause.to_string())
    }
}

/// One add under way.
struct Adding {
    cluster: Arc<dyn Cluster>,
    options: AddOptions,
    import: Import,
    parts: Parts,
    session: Box<dyn AddSession>,
    lines: Lines,
}

/// What an add made.
struct Made {
    root: Cid,
    /// Bytes of its DAG.
    size: u64,
}

impl Adding {
    /// Adds everything and pins the last root; the collected lines, where they were not streamed.
    async fn run(self, first: PartHead) -> Result<Vec<u8>, AddError> {
        let Adding { cluster, options, import, mut parts, session, mut lines } = self;
        let pins = !options.params.no_pin;
        let holders = Holders::new(session.holders());
        let mut sink = Spread { session, holders: holders.clone() };
        let mut adder = Adder::new(&mut sink);
        let mut out = Out { lines: &mut lines, holders: &holders };
        let made = if options.params.format == AddFormat::Car {
            car::add(&mut parts, first, pins, &mut adder, &mut out).await
        } else {
            files::add(&mut parts, first, &options.params, &import, &mut adder, &mut out).await
        };
        let made = made?;
        adder.finish().await?;
        sink.session.finish(made.root, options.params.options, ByteCount(made.size), pins).await?;
        if options.wait > 0 && pins {
            let have = cluster.wait_copies(&made.root, options.wait, WAIT_LIMIT).await;
            if have < options.wait {
                return Err(AddError::NotConfirmed { have, wanted: options.wait });
            }
        }
        Ok(lines.into_array())
    }
}

/// Who takes the blocks, as last heard from the session.
#[derive(Clone)]
struct Holders(Arc<Mutex<Vec<PeerId>>>);

impl Holders {
    fn new(holders: Vec<PeerId>) -> Holders {
        Holders(Arc::new(Mutex::new(holders)))
    }

    fn set(&self, holders: Vec<PeerId>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = holders;
    }

    fn get(&self) -> Vec<PeerId> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The holders as a sink.
struct Spread {
    session: Box<dyn AddSession>,
    holders: Holders,
}

#[async_trait]
impl BlockSink for Spread {
    async fn put(&mut self, blocks: Vec<Block>) -> Result<(), SinkError> {
        self.session.put(blocks).await?;
        self.holders.set(self.session.holders());
        Ok(())
    }
}

/// Lines with the holders of the moment.
struct Out<'a> {
    lines: &'a mut Lines,
    holders: &'a Holders,
}

impl Out<'_> {
    /// Tells the client of a finished node.
    async fn line(&mut self, name: &str, cid: &Cid, bytes: u64, size: u64) -> Result<(), AddError> {
        self.lines.node(name, cid, bytes, size, &self.holders.get()).await
    }
}
