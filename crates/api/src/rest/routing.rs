//! `/pinfold/v1/routing`: who has content, where nodes are, and telling others what is here, among strangers.

use super::{Answer, Failure, Rest, json, not_found};
use crate::message::bare;
use futures::StreamExt;
use hyper::{Method, StatusCode};
use ipfs::routing::{HttpSource, NodeRouting, Provider, RoutingStatus};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use types::{Cid, PeerId, UnixMillis};
use wire::rest::query::Query;

/// A search ends after so long, with what was found.
const SEARCH: Duration = Duration::from_secs(30);
const PROVIDERS_DEFAULT: usize = 20;
const PROVIDERS_MOST: usize = 100;

impl Rest {
    pub(super) async fn routed(&self, path: &[&str], query: &Query, method: &Method) -> Answer {
        let (get, post) = (method == Method::GET, method == Method::POST);
        match path {
            ["routing"] if get => {
                let routing = self.cluster.routing();
                let rows = routing.as_ref().map(|routing| routing.status()).unwrap_or_default();
                let http = routing.as_ref().map(|routing| routing.over_http()).unwrap_or_default();
                let now = peer::clock::wall();
                let servers = |sources: &[HttpSource]| sources.iter().map(|source| server(source, now)).collect::<Vec<_>>();
                Ok(json::value(&json!({
                    "on": routing.is_some(),
                    "dht": rows.iter().map(row).collect::<Vec<_>>(),
                    "routers": servers(&http.routers),
                    "gateways": servers(&http.gateways),
                })))
            }
            ["routing", "providers", cid] if get => {
                let most = match query.get("most") {
                    "" => PROVIDERS_DEFAULT,
                    text => text.parse().map_err(|_| Failure::bad(format!("parameter most invalid: {text:?} is no number")))?,
                };
                let found =
                    self.on()?.find_providers(&cid_of(cid)?).take(most.clamp(1, PROVIDERS_MOST)).take_until(tokio::time::sleep(SEARCH));
                let found: Vec<Value> = found.map(|provider| provider_value(&provider)).collect().await;
                Ok(json::value(&Value::from(found)))
            }
            ["routing", "peer", node] if get => {
                let node: PeerId = node.parse().map_err(|_| Failure::bad(format!("{node:?} is no peer id")))?;
                let routing = self.on()?;
                let search = tokio::time::timeout(SEARCH, routing.find_peer(&node));
                match search.await {
                    Ok(Ok(Some(found))) => Ok(json::value(&provider_value(&found))),
                    Ok(Ok(None)) => {
                        Err(Failure { status: StatusCode::NOT_FOUND, message: format!("nobody who was asked knows where {node} is") })
                    }
                    Ok(Err(error)) => Err(Failure::internal(error.to_string())),
                    Err(_) => Err(Failure {
                        status: StatusCode::GATEWAY_TIMEOUT,
                        message: format!("looking for {node}: no answer within {} s", SEARCH.as_secs()),
                    }),
                }
            }
            ["routing", "provide", cid] if post => {
                let cid = cid_of(cid)?;
                if self.cluster.own_node().has(&[cid]).await.map_err(|error| Failure::internal(error.to_string()))? != [true] {
                    return Err(Failure::bad(format!("{cid} is not on this peer's own node, so others must not be told that it is")));
                }
                let told = self.on()?.provide(&[cid]).await;
                let told = told.map_err(|error| Failure { status: StatusCode::SERVICE_UNAVAILABLE, message: error.to_string() })?;
                Ok(json::value(&json!({ "cid": cid.to_string(), "records": told.records, "failed": told.failed })))
            }
            ["routing"] | ["routing", "providers" | "peer" | "provide", _] => Ok(bare(StatusCode::METHOD_NOT_ALLOWED)),
            _ => Ok(not_found()),
        }
    }

    fn on(&self) -> Result<Arc<dyn NodeRouting>, Failure> {
        self.cluster.routing().ok_or_else(|| Failure {
            status: StatusCode::NOT_IMPLEMENTED,
            message: "routing is off on this peer: name peers to begin with under [routing] in pinfold.toml, or \"public\", or `delegated` routers".to_owned(),
        })
    }
}

fn cid_of(text: &str) -> Result<Cid, Failure> {
    text.parse().map_err(|_| Failure::bad(format!("{text:?} is no CID")))
}

fn provider_value(provider: &Provider) -> Value {
    json!({ "node": provider.node.to_string(), "addresses": provider.addresses })
}

/// A server over HTTP. Until when it is put aside stands there only while it is.
fn server(source: &HttpSource, now: UnixMillis) -> Value {
    let until = source.again_in.filter(|again| !again.is_zero()).map(|again| {
        let again = u64::try_from(again.as_millis()).unwrap_or(u64::MAX);
        json::time(UnixMillis(now.0.saturating_add(again)))
    });
    json!({
        "url": source.url,
        "found": source.is_found,
        "state": if until.is_some() { "put aside" } else { "ok" },
        "until": until,
        "reason": source.why,
        "asked": source.asked,
        "given": source.given,
        "missed": source.missed,
        "failed": source.failed,
        "bytes": source.bytes,
    })
}

fn row(status: &RoutingStatus) -> Value {
    json!({
        "scope": status.scope,
        "server": status.is_server,
        "reachable": status.is_reachable,
        "peers": status.peers,
        "records_kept": status.records_kept,
        "values_kept": status.values_kept,
        "provide": {
            "strategy": status.strategy,
            "phase": status.phase.as_str(),
            "passed": status.passed,
            "begun": status.begun.map(json::time),
            "ended": status.ended.map(json::time),
            "keys": status.keys,
            "failed": status.failed,
            "records": status.records,
            "searches": status.searches,
            "queued": status.queued,
        },
    })
}
