//! `/ipns/<name>/<path>`: content behind a name, and the name's signed record for those who check it themselves.

use super::answer::{self, Trouble};
use super::form::{self, Form};
use super::{Asked, Gateway, split};
use crate::message::{Request, Response, with_type};
use crate::query::{decode_bytes, decode_percent};
use hyper::header;
use hyper::{Method, StatusCode};
use peer::Names;
use peer::names::{How, NameError};
use std::sync::Arc;
use wire::ipns::{name_from_text, name_text};
use wire::rest::query::Query;

impl From<NameError> for Trouble {
    fn from(error: NameError) -> Trouble {
        Trouble::new(status(&error), &error.to_string())
    }
}

/// What an error of names is in HTTP.
pub(crate) fn status(error: &NameError) -> StatusCode {
    use peer::names::DnsLinkError::{BadName, Dns, Late, None};
    match error {
        NameError::NotFound { .. } | NameError::DnsLink(None(_)) => StatusCode::NOT_FOUND,
        NameError::DnsLink(BadName(_)) => StatusCode::BAD_REQUEST,
        NameError::DnsLink(Late { .. }) => StatusCode::GATEWAY_TIMEOUT,
        NameError::DnsLink(Dns(_)) => StatusCode::BAD_GATEWAY,
        NameError::Loop(_) | NameError::TooDeep(_) => StatusCode::LOOP_DETECTED,
        NameError::Expired { .. } | NameError::Value { .. } => StatusCode::BAD_GATEWAY,
        NameError::Storage(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Routers over HTTP are not asked for who asks as one.
fn how(headers: &header::HeaderMap) -> How {
    How { is_local: form::is_only_if_cached(headers), without_http: form::is_from_a_peer(headers), ..How::default() }
}

pub(super) fn no_record_of_content() -> Trouble {
    Trouble::new(StatusCode::BAD_REQUEST, "only a name has a record: ask for /ipns/<name> with this form")
}

impl Gateway {
    /// Answers for `/ipns/<name>/<path>`.
    pub(super) async fn named(&self, request: &Request) -> Result<Response, Trouble> {
        let none = || Trouble::new(StatusCode::NOT_IMPLEMENTED, "this peer knows no names");
        let names = self.names.as_ref().ok_or_else(none)?;
        let query = Query::parse(request.head.uri.query().unwrap_or_default());
        let how = how(&request.head.headers);
        let (name, rest) = split(&request.head.uri.path()["/ipns".len()..]);
        let name = decode_percent(name);
        if Form::of(&query, &request.head.headers)? == Form::Record {
            return record(names, &name, rest, how, request).await;
        }
        let resolved = names.resolve(&name, how).await?;
        let mut path = resolved.below.into_bytes();
        if !path.is_empty() && !rest.is_empty() {
            path.push(b'/');
        }
        path.extend(decode_bytes(rest.as_bytes()));
        self.content(&Asked::new(request, resolved.root, path, Some(resolved.ttl))).await
    }
}

/// The record of a name for who asks for nothing else.
pub(super) async fn record_of(gateway: &Gateway, name: &str, request: &Request) -> Result<Response, Trouble> {
    let names = gateway.names.as_ref().ok_or_else(|| Trouble::new(StatusCode::NOT_IMPLEMENTED, "this peer knows no names"))?;
    let how = how(&request.head.headers);
    record(names, &decode_percent(name), "", how, request).await
}

/// The record itself: verifiable by whoever gets it, so any cache may have it as long as it says.
async fn record(names: &Arc<Names>, name: &str, rest: &str, how: How, request: &Request) -> Result<Response, Trouble> {
    let key = name_from_text(name).map_err(|error| Trouble::new(StatusCode::BAD_REQUEST, &error.to_string()))?;
    if !rest.trim_matches('/').is_empty() {
        return Err(Trouble::new(StatusCode::BAD_REQUEST, "a record is of a whole name: leave the path behind it away"));
    }
    let (record, _) = names.record(&key, how).await?;
    let digest = wire::cids::sha2_256(record.bytes());
    let etag = format!("\"{}\"", digest[..16].iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    let mut response = if answer::is_known(&request.head.headers, &etag) && request.head.method == Method::GET {
        crate::message::bare(StatusCode::NOT_MODIFIED)
    } else {
        let mut response = with_type(StatusCode::OK, form::RECORD, record.bytes().to_vec());
        answer::attach(&mut response, &format!("{}.ipns-record", name_text(&key)));
        response
    };
    let headers = response.headers_mut();
    let left = record.entry.validity.to_millis().0.saturating_sub(peer::clock::wall().0) / 1000;
    answer::set(headers, "cache-control", &format!("public, max-age={}", record.entry.ttl.as_secs().min(left)));
    answer::set(headers, "etag", &etag);
    answer::set(headers, "x-ipfs-path", request.head.uri.path());
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    Ok(response)
}
