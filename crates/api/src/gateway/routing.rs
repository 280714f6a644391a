//! `/routing/v1`: delegated routing over HTTP (specs.ipfs.tech/routing/http-routing-v1), reading only. Whoever asks is told which members hold
//! content, where they are, and then what the DHT says, where it is on. Other delegated routers are not asked on anybody's behalf: two that name
//! each other would ask in circles.
//!
//! Records of names are given out and never taken: the gateway is for everybody, and what members keep is not.

use super::answer::{Trouble, set};
use super::{Gateway, names, split};
use crate::message::{Body, Request, Response, with_type};
use cluster::PeerRow;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use hyper::header::ACCEPT;
use hyper::{Method, StatusCode};
use ipfs::routing::Provider;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::time::Duration;
use types::{Cid, PeerId, PinState};

/// A search ends after so long, with what was found.
const SEARCH: Duration = Duration::from_secs(20);
/// Providers in one answer: the specification's limit for lists.
const PROVIDERS_MOST: usize = 100;
/// Found in the DHT beyond the members, enough for a client that dials one.
const STRANGERS_MOST: usize = 20;

impl Gateway {
    /// Answers below `/routing/v1/`.
    pub(super) async fn delegated(&self, request: &Request) -> Result<Response, Trouble> {
        let rest = request.head.uri.path().strip_prefix("/routing/v1/").unwrap_or_default();
        let (kind, what) = split(rest);
        match kind {
            "providers" => {
                let cid: Cid = what.parse().map_err(|_| bad(&format!("{what:?} is no CID")))?;
                let rows = self.providers(&cid).await.map(|provider| row(&provider, &["transport-bitswap"]));
                Ok(answer(request, "Providers", rows.boxed()).await)
            }
            "peers" => {
                let node: PeerId = what.parse().map_err(|_| bad(&format!("{what:?} is no peer id")))?;
                let found: Vec<Value> = self.peer(&node).await.iter().map(|found| row(found, &[])).collect();
                Ok(answer(request, "Peers", stream::iter(found).boxed()).await)
            }
            "ipns" => names::record_of(self, what, request).await,
            _ => Err(Trouble::new(StatusCode::NOT_FOUND, "ask for /routing/v1/providers/<cid>, /peers/<peer id> or /ipns/<name>")),
        }
    }

    /// The members that hold it, then those that the DHT names.
    async fn providers(&self, cid: &Cid) -> BoxStream<'static, Provider> {
        let (pin, copies) = self.cluster.status(cid).await;
        let holders: HashSet<PeerId> =
            copies.iter().filter(|copy| pin.is_some() && copy.state == PinState::Pinned && copy.is_live).map(|copy| copy.peer).collect();
        let is_here = self.own.has(&[*cid]).await.is_ok_and(|has| has == [true]);
        let members = self.members().await.into_iter();
        let holding = members.filter(|(peer, is_self, _)| holders.contains(peer) || (*is_self && is_here));
        let members: Vec<Provider> = holding.map(|(_, _, member)| member).collect();
        let mut told: HashSet<PeerId> = HashSet::new();
        let strangers = match self.cluster.routing() {
            Some(routing) => routing.among_peers().find_providers(cid).take(STRANGERS_MOST).take_until(tokio::time::sleep(SEARCH)).boxed(),
            None => stream::empty().boxed(),
        };
        let all = stream::iter(members).chain(strangers).filter(move |found| std::future::ready(told.insert(found.node)));
        all.take(PROVIDERS_MOST).boxed()
    }

    /// Members whose node is known, and whether each is this peer.
    async fn members(&self) -> Vec<(PeerId, bool, Provider)> {
        let own = self.cluster.identity().await.node_addresses;
        let addresses = |row: &PeerRow| if row.is_self { member(&own) } else { member(&row.node_addresses) };
        self.cluster.peers().iter().filter_map(|row| Some((row.peer, row.is_self, addresses(row)?))).collect()
    }

    async fn peer(&self, node: &PeerId) -> Option<Provider> {
        let known = self.members().await.into_iter().map(|(_, _, member)| member).find(|member| member.node == *node);
        match (known, self.cluster.routing()) {
            (Some(known), _) => Some(known),
            (None, Some(routing)) => tokio::time::timeout(SEARCH, routing.among_peers().find_peer(node)).await.ok()?.ok()?,
            (None, None) => None,
        }
    }
}

/// A member's node; none where it never said one.
fn member(addresses: &[String]) -> Option<Provider> {
    let node = addresses.first()?.rsplit_once("/p2p/")?.1.parse().ok()?;
    let bare = |address: &String| address.rsplit_once("/p2p/").map_or(address.clone(), |(bare, _)| bare.to_owned());
    Some(Provider { node, addresses: addresses.iter().map(bare).collect() })
}

fn row(provider: &Provider, protocols: &[&str]) -> Value {
    json!({ "Schema": "peer", "ID": provider.node.to_string(), "Addrs": provider.addresses, "Protocols": protocols })
}

/// One list, or a line as each is found, as the client asks for.
async fn answer(request: &Request, name: &'static str, rows: BoxStream<'static, Value>) -> Response {
    const LINES: &str = "application/x-ndjson";
    let accepts = request.head.headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let wants_lines =
        accepts.flat_map(|value| value.split(',')).any(|kind| kind.split(';').next().is_some_and(|kind| kind.trim() == LINES));
    let mut response = if wants_lines && request.head.method == Method::GET {
        let mut response = with_type(StatusCode::OK, LINES, "");
        *response.body_mut() = Body::stream(rows.map(|row| Ok(format!("{row}\n").into())));
        response
    } else {
        let rows: Vec<Value> = rows.collect().await;
        with_type(StatusCode::OK, "application/json", json!({ name: rows }).to_string())
    };
    // Who holds what changes soon, and whoever asks again must learn it.
    set(response.headers_mut(), "cache-control", "public, max-age=15");
    set(response.headers_mut(), "vary", "Accept");
    response
}

fn bad(message: &str) -> Trouble {
    Trouble::new(StatusCode::BAD_REQUEST, message)
}
