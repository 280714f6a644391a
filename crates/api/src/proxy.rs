//! The proxy door: the part of Kubo's RPC (`/api/v0`) that the cluster answers as one node, in the forms of Go's proxy.
//!
//! Adds and pins go to the cluster; reads come from it as one node. There is no Kubo behind it to pass the rest on to, so
//! what is not offered is refused in words. Only POST is taken, as Kubo does itself: a link on a page changes nothing.

mod content;
mod pins;

use crate::message::{Body, Request, Response, bare, line_of, with_type};
use crate::query::decode_percent;
use crate::rest::add::{self, Shape};
use crate::rest::{Failure, resolve};
use crate::server::{self, Door, ServeOptions};
use base64::Engine;
use hyper::{Method, StatusCode};
use peer::Cluster;
use serde::Serialize;
use serde_json::json;
use std::borrow::Cow;
use std::sync::Arc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use types::{ByteCount, Cid, PeerId};
use wire::rest::query::Query;

/// Serves the proxy on `options.listener` until `stop`, then drains; the handle ends when that is done.
pub fn serve(options: ServeOptions, cluster: Arc<dyn Cluster>, stop: CancellationToken) -> JoinHandle<()> {
    server::serve(options, Arc::new(Proxy { cluster }), stop)
}

struct Proxy {
    cluster: Arc<dyn Cluster>,
}

/// Go's proxy answers errors in Kubo's form.
impl From<Failure> for KuboError {
    fn from(failure: Failure) -> KuboError {
        let status = if failure.status == StatusCode::BAD_REQUEST { failure.status } else { StatusCode::INTERNAL_SERVER_ERROR };
        KuboError { status, message: failure.message }
    }
}

/// An error as Kubo's clients read it.
#[derive(Debug)]
struct KuboError {
    status: StatusCode,
    message: String,
}

impl KuboError {
    fn new(message: impl Into<String>) -> KuboError {
        KuboError { status: StatusCode::INTERNAL_SERVER_ERROR, message: message.into() }
    }
}

impl From<KuboError> for Response {
    fn from(error: KuboError) -> Response {
        let body = json!({ "Message": error.message, "Code": 0, "Type": "error" });
        with_type(error.status, "application/json", wire::rest::to_go_json(&body))
    }
}

type Answer = Result<Response, KuboError>;

impl Door for Proxy {
    async fn answer(self: Arc<Self>, request: Request) -> Response {
        self.route(request).await.unwrap_or_else(Response::from)
    }
}

impl Proxy {
    async fn route(&self, request: Request) -> Answer {
        let uri = request.head.uri.clone();
        let Some(command) = uri.path().strip_prefix("/api/v0/") else {
            return Ok(with_type(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "404 page not found\n"));
        };
        if request.head.method != Method::POST {
            return Ok(bare(StatusCode::METHOD_NOT_ALLOWED));
        }
        let text = uri.query().unwrap_or_default();
        let query = Query::parse(text);
        let segments: Vec<Cow<'_, str>> = command.trim_end_matches('/').split('/').map(decode_percent).collect();
        let segments: Vec<&str> = segments.iter().map(|segment| &**segment).collect();
        match segments.as_slice() {
            ["add"] => self.add(text, &query, request).await,
            ["pin", "add", path @ ..] => self.pin_add(&arguments(&query, path), &query).await,
            ["pin", "rm", path @ ..] => self.pin_rm(&arguments(&query, path)).await,
            ["pin", "ls", path @ ..] => self.pin_ls(&arguments(&query, path), &query, request).await,
            ["pin", "update"] => self.pin_update(&arguments(&query, &[]), &query).await,
            ["id"] => self.id().await,
            ["version"] => Ok(version()),
            ["repo", "stat"] => Ok(self.repo_stat()),
            ["cat"] => self.cat(&arguments(&query, &[]), &query).await,
            ["block", "get"] => self.block_get(&arguments(&query, &[])).await,
            ["block", "stat"] => self.block_stat(&arguments(&query, &[])).await,
            ["name", "resolve", path @ ..] => self.name_resolve(&arguments(&query, path), &query).await,
            ["resolve"] => {
                let cid = self.resolve_first(&arguments(&query, &[])).await?;
                Ok(whole(&json!({ "Path": format!("/ipfs/{cid}") })))
            }
            _ => Err(KuboError {
                status: StatusCode::NOT_FOUND,
                message: format!("command {:?} is not offered by the cluster: ask the node of one peer", segments.join("/")),
            }),
        }
    }

    async fn add(&self, text: &str, query: &Query, request: Request) -> Answer {
        let is_set =
            |name: &'static str| query.bool(name).map(|flag| flag == Some(true)).map_err(|error| KuboError::from(Failure::from(error)));
        if is_set("only-hash")? || is_set("inline")? {
            return Err(KuboError::new("only-hash and inline are not offered: nothing was added"));
        }
        // The first of a name counts: Kubo's words stand before what the client sent.
        let mut ours = Vec::new();
        if query.bool("pin").map_err(Failure::from)? == Some(false) {
            ours.push("no-pin=true".to_owned());
        }
        if is_set("trickle")? {
            ours.push("layout=trickle".to_owned());
        }
        if !query.get("pin-name").is_empty() {
            ours.push(format!("name={}", crate::query::encode_segment(query.get("pin-name"))));
        }
        // Kubo's `mode` and `nocopy` speak of files.
        ours.push("mode=recursive".to_owned());
        ours.push(text.to_owned());
        Ok(add::answer(&self.cluster, &Query::parse(&ours.join("&")), request, Shape::Kubo).await?)
    }

    async fn id(&self) -> Answer {
        let identity = self.cluster.identity().await;
        let id = identity.node.unwrap_or(identity.peer);
        Ok(whole(&json!({
            "ID": id.to_string(),
            "PublicKey": public_key(&id),
            "Addresses": identity.node_addresses,
            "AgentVersion": concat!("pinfold/", env!("CARGO_PKG_VERSION")),
            "Protocols": [],
        })))
    }

    /// Summed over the peers that say it.
    fn repo_stat(&self) -> Response {
        let rows = self.cluster.peers();
        let sum = |of: fn(&cluster::PeerRow) -> ByteCount| rows.iter().map(of).fold(ByteCount::ZERO, |sum, next| sum + next).get();
        whole(&json!({ "RepoSize": sum(|row| row.space_used), "StorageMax": sum(|row| row.space_limit) }))
    }

    /// Where a name leads, as a path; without `recursive` only the next step.
    async fn name_resolve(&self, arguments: &[String], query: &Query) -> Answer {
        let first = arguments.first().ok_or_else(|| missing("name"))?;
        let (name, rest) = first.trim_start_matches("/ipns/").split_once('/').unwrap_or((first.trim_start_matches("/ipns/"), ""));
        let names = self.cluster.names().ok_or_else(|| KuboError::new("this peer knows no names"))?;
        let refresh = query.bool("nocache").map_err(Failure::from)?.unwrap_or(false);
        let how = peer::names::How { refresh, ..peer::names::How::default() };
        let fault = |error: peer::names::NameError| KuboError::new(error.to_string());
        let path = match query.bool("recursive").map_err(Failure::from)?.unwrap_or(true) {
            true => {
                let resolved = names.resolve(name, how).await.map_err(fault)?;
                [&format!("/ipfs/{}", resolved.root), resolved.below.as_str()].join("/")
            }
            false => names.step(name, how).await.map_err(fault)?.value,
        };
        let path = [path.trim_end_matches('/'), rest].join("/");
        Ok(whole(&json!({ "Path": path.trim_end_matches('/') })))
    }

    async fn resolve_first(&self, arguments: &[String]) -> Result<Cid, KuboError> {
        let first = arguments.first().ok_or_else(|| missing("ipfs-path"))?;
        self.resolve(first).await
    }

    /// A CID, or a path with or without `/ipfs/`.
    async fn resolve(&self, text: &str) -> Result<Cid, KuboError> {
        let parts: Vec<&str> = text.trim_matches('/').split('/').collect();
        let (kind, path) = match parts.as_slice() {
            [kind @ ("ipfs" | "ipns" | "ipld"), path @ ..] => (*kind, path),
            path => ("ipfs", path),
        };
        Ok(resolve(&*self.cluster, kind, path).await?)
    }
}

/// The arguments of a command: in the path, or as `arg`s.
fn arguments(query: &Query, path: &[&str]) -> Vec<String> {
    let in_path = if path.is_empty() { None } else { Some(path.join("/")) };
    let named = query.pairs().iter().filter(|(name, _)| name == "arg").map(|(_, value)| value.clone());
    in_path.into_iter().chain(named).collect()
}

fn missing(name: &str) -> KuboError {
    KuboError { status: StatusCode::BAD_REQUEST, message: format!("argument \"{name}\" is required") }
}

/// One object; Go's proxy ends it without a line break.
fn whole<T: Serialize>(value: &T) -> Response {
    with_type(StatusCode::OK, "application/json", line_of(value).trim_end().to_owned())
}

fn version() -> Response {
    whole(&json!({
        "Version": env!("CARGO_PKG_VERSION"),
        "Commit": "",
        "Repo": "",
        "System": format!("{}/{}", std::env::consts::ARCH, std::env::consts::OS),
        "Golang": "",
    }))
}

/// The key inside an ed25519 id, as libp2p writes keys; empty for other ids.
fn public_key(id: &PeerId) -> String {
    let encode = |key: [u8; 32]| base64::engine::general_purpose::STANDARD.encode([&[0x08, 0x01, 0x12, 0x20], &key[..]].concat());
    id.ed25519().map(encode).unwrap_or_default()
}

/// Bytes as Kubo streams them.
fn stream(body: Body) -> Response {
    let mut response = with_type(StatusCode::OK, "text/plain", "");
    *response.body_mut() = body;
    response.headers_mut().insert("x-stream-output", hyper::header::HeaderValue::from_static("1"));
    response
}
