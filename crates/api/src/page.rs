//! The live status page at `/` of the REST door: is it safe, who is here, what is kept, what is being repaired.
//!
//! Rendered here, readable without JavaScript; a small module ([`script`]) listens to `/pinfold/v1/events` and swaps in what
//! changed. It only shows: nothing on it changes anything. No inline script or style, nothing from elsewhere.

mod health;
mod listing;
mod recent;
mod view;

pub(crate) use health::Health;
pub(crate) use recent::{Recent, notice_kind};

use crate::message::{Response, with_type};
use crate::rest::{Rest, wall};
use hyper::StatusCode;
use hyper::header::{self, HeaderValue};
use listing::Listing;
use wire::rest::query::Query;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// The page.
pub(crate) async fn index(rest: &Rest, query: &Query) -> Response {
    let identity = rest.cluster.identity().await;
    let wanted = listing::Wanted::parse(query);
    let cluster = rest.cluster.clone();
    let listed = tokio::task::spawn_blocking(move || Listing::read(&*cluster, wanted)).await;
    let listed = match listed {
        Ok(listed) => listed,
        Err(error) => {
            tracing::error!(%error, "the status page could not list the pins");
            return crate::message::error_json(StatusCode::INTERNAL_SERVER_ERROR, "the pins could not be listed");
        }
    };
    let peers = rest.cluster.peers();
    let totals = rest.cluster.totals();
    let state = view::State {
        identity: &identity,
        health: &Health::of(&peers, &totals),
        peers: &peers,
        forecasts: &rest.cluster.forecasts(),
        totals: &totals,
        listing: &listed,
        notices: &rest.recent.newest(),
        now: wall(),
    };
    let mut response = with_type(StatusCode::OK, "text/html; charset=utf-8", view::page(&state).into_string());
    guard(&mut response);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The module that keeps the page fresh.
pub(crate) fn script() -> Response {
    asset("text/javascript; charset=utf-8", include_str!("page/page.js"))
}

/// The looks.
pub(crate) fn style() -> Response {
    asset("text/css; charset=utf-8", include_str!("page/page.css"))
}

/// The mark of the page.
pub(crate) fn icon() -> Response {
    asset("image/svg+xml", include_str!("page/icon.svg"))
}

fn asset(content_type: &'static str, text: &'static str) -> Response {
    let mut response = with_type(StatusCode::OK, content_type, text);
    guard(&mut response);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

fn guard(response: &mut Response) {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
}
