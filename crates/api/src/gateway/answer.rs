//! What all answers of the gateway share: headers, validators, errors in words.

use super::Asked;
use crate::message::{Response, bare, with_type};
use crate::path::PathError;
use dag::export::{ExportError, Found};
use hyper::StatusCode;
use hyper::header::{self, HeaderMap, HeaderValue};
use ipfs::BlockError;
use types::Cid;

/// For what a CID names.
pub(super) const IMMUTABLE: &str = "public, max-age=29030400, immutable";
/// For listings, whose looks may change.
pub(super) const LISTING: &str = "public, max-age=604800, stale-while-revalidate=2678400";

/// An answer that is an error, in words.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub status: StatusCode,
    pub message: String,
}

impl Trouble {
    pub fn new(status: StatusCode, message: &str) -> Trouble {
        Trouble { status, message: message.to_owned() }
    }

    /// Nobody had it in time.
    pub fn late(cid: &Cid) -> Trouble {
        Trouble::new(StatusCode::GATEWAY_TIMEOUT, &format!("{cid}: no peer that is connected gave the content in time; try again later"))
    }
}

impl From<BlockError> for Trouble {
    fn from(error: BlockError) -> Trouble {
        let status = match error {
            BlockError::NotLocal { .. } => StatusCode::PRECONDITION_FAILED,
            BlockError::NotFound { .. } | BlockError::NoProvider { .. } => StatusCode::GATEWAY_TIMEOUT,
            BlockError::OutOfReach { .. } => StatusCode::SERVICE_UNAVAILABLE,
            BlockError::Corrupt { .. } | BlockError::Storage(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Trouble::new(status, &error.to_string())
    }
}

impl From<ExportError> for Trouble {
    fn from(error: ExportError) -> Trouble {
        Trouble::new(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string())
    }
}

impl From<PathError> for Trouble {
    fn from(error: PathError) -> Trouble {
        match error {
            PathError::NoLink { .. } => Trouble::new(StatusCode::NOT_FOUND, &error.to_string()),
            PathError::Block(error) => error.into(),
            PathError::Content(error) => error.into(),
        }
    }
}

impl From<Trouble> for Response {
    fn from(trouble: Trouble) -> Response {
        let mut response = with_type(trouble.status, "text/plain; charset=utf-8", format!("{}\n", trouble.message));
        response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    }
}

/// Sets the headers that every answer with content has; what a name leads to may be other content soon.
pub(super) fn mark(response: &mut Response, asked: &Asked, found: &Found, etag: &str, cache: &'static str) {
    let headers = response.headers_mut();
    match asked.ttl {
        None => drop(headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache))),
        Some(ttl) => set(headers, "cache-control", &format!("public, max-age={}", ttl.as_secs())),
    }
    set(headers, "etag", etag);
    set(headers, "x-ipfs-path", &asked.path);
    let roots: Vec<String> = found.roots.iter().map(Cid::to_string).collect();
    set(headers, "x-ipfs-roots", &roots.join(","));
}

pub(super) fn set(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// Tells a browser to save, under this name.
pub(super) fn attach(response: &mut Response, name: &str) {
    set(response.headers_mut(), "content-disposition", &disposition("attachment", name));
}

/// RFC 6266: a plain name, and the real one escaped where it differs.
pub(super) fn disposition(kind: &str, name: &str) -> String {
    let plain: String =
        name.chars().map(|c| if c.is_ascii() && !c.is_ascii_control() && !matches!(c, '"' | '\\') { c } else { '_' }).collect();
    if plain == name {
        format!("{kind}; filename=\"{plain}\"")
    } else {
        format!("{kind}; filename=\"{plain}\"; filename*=UTF-8''{}", crate::query::encode_segment(name))
    }
}

/// Whether the client has it already (`If-None-Match`, weak comparison).
pub(super) fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    let strong = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let own = strong(etag);
    let values = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|tag| tag.trim() == "*" || strong(tag) == own)
}

pub(super) fn not_modified(asked: &Asked, found: &Found, etag: &str) -> Response {
    let mut response = bare(StatusCode::NOT_MODIFIED);
    mark(&mut response, asked, found, etag, IMMUTABLE);
    response
}
