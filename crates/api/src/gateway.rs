//! The gateway door: content by path for browsers, and verifiable blocks and CARs for programs, over any [`IpfsNode`].
//!
//! One request: which form is wanted ([`form`]), where the path leads ([`crate::path`]), what stands there (file, directory,
//! symlink, other), then headers and a stream. Blocks are fetched a few ahead ([`fetch`]) and never gathered, so memory does not
//! grow with files or directories.
//!
//! The whole DAG under an immutable path never changes: answers may be cached for ever, and the CID is the validator.

mod answer;
mod car;
pub(crate) mod content;
mod directory;
mod fetch;
mod file;
mod form;
mod media;
pub(crate) mod names;
mod range;
mod routing;

use self::answer::Trouble;
use self::fetch::Fetcher;
pub(crate) use self::file::open;
use self::form::Form;
use crate::message::{Body, Request, Response, bare, with_type};
use crate::path;
use crate::query::decode_bytes;
use crate::server::{self, Door, ServeOptions};
use bytes::Bytes;
use dag::codec;
use dag::export::Found;
use dag::unixfs::{Kind, UnixFs};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, StatusCode};
use ipfs::{IpfsNode, Source};
use peer::{Cluster, Names};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use types::Cid;
use wire::rest::query::Query;

/// How long a path may take to be followed.
const RESOLVE_LIMIT: Duration = Duration::from_secs(60);

/// Serves the gateway on `options.listener` until `stop`, then drains; the handle ends when that is done.
///
/// Content comes from the cluster as one node; `Cache-Control: only-if-cached` asks this peer's own node alone.
pub fn serve(options: ServeOptions, cluster: Arc<dyn Cluster>, stop: CancellationToken) -> JoinHandle<()> {
    let door = Gateway { node: cluster.node(), own: cluster.own_node(), names: cluster.names(), cluster };
    server::serve(options, Arc::new(door), stop)
}

struct Gateway {
    node: Arc<dyn IpfsNode>,
    own: Arc<dyn IpfsNode>,
    names: Option<Arc<Names>>,
    cluster: Arc<dyn Cluster>,
}

/// What a request asks for, taken apart.
struct Asked {
    /// As it came, escaped.
    path: String,
    /// Of paths that begin with a name: for how long it leads there.
    ttl: Option<Duration>,
    /// Names below the root, divided by `/`, escapes undone.
    names: Vec<u8>,
    root: Cid,
    query: Query,
    headers: HeaderMap,
    is_head: bool,
}

impl Asked {
    fn new(request: &Request, root: Cid, names: Vec<u8>, ttl: Option<Duration>) -> Asked {
        Asked {
            path: request.head.uri.path().to_owned(),
            ttl,
            names,
            root,
            query: Query::parse(request.head.uri.query().unwrap_or_default()),
            is_head: request.head.method == Method::HEAD,
            headers: request.head.headers.clone(),
        }
    }
}

/// The first name of a path and what follows it, without the slashes between.
fn split(path: &str) -> (&str, &str) {
    let path = path.trim_start_matches('/');
    path.split_once('/').unwrap_or((path, ""))
}

impl Door for Gateway {
    async fn answer(self: Arc<Self>, request: Request) -> Response {
        let is_head = request.head.method == Method::HEAD;
        let mut response = self.route(request).await.unwrap_or_else(Response::from);
        if is_head {
            // The length stays; the body is not sent.
            let length = hyper::body::Body::size_hint(response.body()).exact();
            if let (Some(length), false) = (length, response.headers().contains_key(header::CONTENT_LENGTH)) {
                response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
            }
            *response.body_mut() = Body::empty();
        }
        response
    }
}

impl Gateway {
    async fn route(&self, request: Request) -> Result<Response, Trouble> {
        if request.head.method != Method::GET && request.head.method != Method::HEAD {
            let mut response = bare(StatusCode::METHOD_NOT_ALLOWED);
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return Ok(response);
        }
        let path = request.head.uri.path();
        let (root, names) = match path.split('/').nth(1).unwrap_or_default() {
            "ipfs" => split(&path["/ipfs".len()..]),
            "ipns" => return self.named(&request).await,
            "routing" => return self.delegated(&request).await,
            "" => {
                const HELLO: &str = "IPFS gateway: ask for /ipfs/<cid>/<path> or /ipns/<name>/<path>\n";
                return Ok(with_type(StatusCode::OK, "text/plain; charset=utf-8", HELLO));
            }
            "health" => return Ok(bare(StatusCode::NO_CONTENT)),
            "listing.css" => return Ok(directory::style()),
            _ => return Err(Trouble::new(StatusCode::NOT_FOUND, "only paths under /ipfs/ and /ipns/ lead to content")),
        };
        let root = wire::cids::cid_from_text(root)
            .map_err(|error| Trouble::new(StatusCode::BAD_REQUEST, &format!("{root:?} is no CID: {error}")))?;
        self.content(&Asked::new(&request, root, decode_bytes(names.as_bytes()), None)).await
    }

    async fn content(&self, asked: &Asked) -> Result<Response, Trouble> {
        let form = Form::of(&asked.query, &asked.headers)?;
        let is_local = form::is_only_if_cached(&asked.headers);
        let (node, source) = if is_local {
            (self.own.clone(), Source::local())
        } else {
            (self.node.clone(), Source { without_http: form::is_from_a_peer(&asked.headers), ..Source::default() })
        };
        let mut on_the_way = Vec::new();
        let keep = matches!(form, Form::Car(_));
        let resolved = path::resolve(&*node, asked.root, &asked.names, &source, |cid, data| {
            if keep {
                on_the_way.push((cid, data));
            }
        });
        let found = tokio::time::timeout(RESOLVE_LIMIT, resolved).await.map_err(|_| Trouble::late(&asked.root))??;
        let etag = form.etag(&found.cid);
        if answer::is_known(&asked.headers, &etag) {
            return Ok(answer::not_modified(asked, &found, &etag));
        }
        let fetcher = Fetcher::new(node, source);
        let mut response = match form {
            Form::Raw => raw(fetcher.get(&found.cid).await?, &found.cid),
            Form::Car(wanted) => car::answer(fetcher, &found, on_the_way, wanted).await?,
            Form::Content => return self.unixfs(asked, found, fetcher).await,
            Form::Record => return Err(names::no_record_of_content()),
        };
        answer::mark(&mut response, asked, &found, &etag, answer::IMMUTABLE);
        Ok(response)
    }

    /// What browsers see.
    async fn unixfs(&self, asked: &Asked, found: Found, fetcher: Fetcher) -> Result<Response, Trouble> {
        if found.inside > 0 {
            return Err(Trouble::new(StatusCode::NOT_ACCEPTABLE, "the path ends inside a block: ask for the block with ?format=raw"));
        }
        let block = fetcher.get(&found.cid).await?;
        match kind(&found.cid, &block)? {
            What::File => file::answer(asked, &found, &found.cid, block, fetcher, file::name_of(asked)).await,
            What::Directory => directory::answer(asked, found, fetcher).await,
            What::Symlink(target) => {
                let mut response = with_type(StatusCode::OK, "inode/symlink", target);
                answer::mark(&mut response, asked, &found, &Form::Content.etag(&found.cid), answer::IMMUTABLE);
                Ok(response)
            }
            What::Other(media) => {
                let mut response = with_type(StatusCode::OK, media, block);
                answer::mark(&mut response, asked, &found, &Form::Content.etag(&found.cid), answer::IMMUTABLE);
                response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
                Ok(response)
            }
        }
    }
}

fn raw(block: Bytes, cid: &Cid) -> Response {
    let mut response = with_type(StatusCode::OK, "application/vnd.ipld.raw", block);
    answer::attach(&mut response, &format!("{cid}.bin"));
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// What a block is to a browser.
enum What {
    File,
    Directory,
    Symlink(Vec<u8>),
    /// Data that is no file, with its media type.
    Other(&'static str),
}

fn kind(cid: &Cid, block: &[u8]) -> Result<What, Trouble> {
    match cid.codec() {
        codec::RAW => return Ok(What::File),
        codec::DAG_PB => {}
        codec::DAG_CBOR => return Ok(What::Other("application/vnd.ipld.dag-cbor")),
        codec::DAG_JSON => return Ok(What::Other("application/vnd.ipld.dag-json")),
        other => {
            return Err(Trouble::new(
                StatusCode::NOT_ACCEPTABLE,
                &format!("codec 0x{other:x} is shown as a block only: ask with ?format=raw"),
            ));
        }
    }
    let malformed = |error: dag::DecodeError| Trouble::new(StatusCode::INTERNAL_SERVER_ERROR, &format!("{cid} is malformed: {error}"));
    let Some(data) = dag::pb::scan(block, |_| Ok(())).map_err(malformed)? else { return Ok(What::Other("application/vnd.ipld.raw")) };
    Ok(match UnixFs::decode(data) {
        Ok(unixfs) => match unixfs.kind {
            Kind::File | Kind::Raw => What::File,
            Kind::Directory | Kind::HamtShard => What::Directory,
            Kind::Symlink => What::Symlink(unixfs.data.unwrap_or_default().to_vec()),
            Kind::Metadata => What::Other("application/vnd.ipld.raw"),
        },
        Err(_) => What::Other("application/vnd.ipld.raw"),
    })
}
