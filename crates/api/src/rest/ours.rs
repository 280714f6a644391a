//! `/pinfold/v1/`: what Go's API has no words for.

use super::paths::Ways;
use super::{Answer, Failure, Rest, json, not_found, parse_cid};
use crate::gateway::content::{self, Wanted};
use crate::message::{Request, Response, bare};
use crate::page;
use crate::query::go_duration;
use ::cluster::plan::Goal;
use ::cluster::{CopyRow, Duty, Explanation, PeerRow, PieceRow};
use hyper::{Method, StatusCode};
use peer::go::GoPeer;
use serde_json::{Map, Value, json};
use std::time::Duration;
use types::{ByteCount, UnixMillis};
use wire::rest::query::Query;

/// The longest wait of one request; clients ask again.
const WAIT_MAX: Duration = Duration::from_secs(600);
const WAIT_DEFAULT: Duration = Duration::from_secs(10);
const INVITE_DEFAULT: Duration = Duration::from_secs(24 * 3600);
const INVITE_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

impl Rest {
    pub(super) async fn ours(&self, path: &[&str], query: &Query, request: Request) -> Answer {
        let method = request.head.method.clone();
        let (get, post) = (method == Method::GET, method == Method::POST);
        match path {
            ["why", cid] if get => self.why(cid).await,
            ["peers"] if get => {
                let forecasts = self.cluster.forecasts();
                let (rows, go, paths) = (self.cluster.peers(), self.go_peers(), self.cluster.paths());
                let ways = Ways::new(&rows, &go, &paths);
                let ours = rows.iter().map(|row| peer_row(row, forecasts.get(&row.peer).copied(), ways.of(&row.peer)));
                let others = go.iter().map(|go| go_row(go, self.cluster.duty(&go.peer), ways.of(&go.peer)));
                Ok(json::value(&Value::from(ours.chain(others).collect::<Vec<_>>())))
            }
            ["limits"] if get || post || method == Method::DELETE => self.limits(&method, query).await,
            ["scrub"] if get || post || method == Method::DELETE => self.scrub(&method, query).await,
            ["claims"] if get => self.claims(query),
            ["status"] if get => self.totals().await,
            ["wait", cid] if get => self.wait(cid, query).await,
            ["cat", ..] if get => Ok(self.content(Wanted::Bytes, &request).await),
            ["ls", ..] if get => Ok(self.content(Wanted::List, &request).await),
            ["stat", ..] if get => Ok(self.content(Wanted::Stat, &request).await),
            ["events"] if get => self.events(request),
            ["state"] if get => self.export(request).await,
            ["state"] if post => self.import(query, request).await,
            ["invite"] if post => {
                let ttl = span(query, "ttl", INVITE_DEFAULT)?.min(INVITE_MAX);
                Ok(json::value(&json!({ "invite": self.cluster.invite(ttl).await? })))
            }
            ["leave"] if post => {
                let purges = query.bool("purge")?.unwrap_or(false);
                let forces = query.bool("force")?.unwrap_or(false);
                Ok(json::value(&json!({ "stranded": self.cluster.leave(purges, forces).await? })))
            }
            ["removals", "approve"] if post => {
                self.cluster.approve_removals().await?;
                Ok(crate::message::no_content())
            }
            ["peers", peer, "drain"] if post => self.set_duty(peer, Duty::Draining).await,
            ["peers", peer, "cordon"] if post => self.set_duty(peer, Duty::Cordoned).await,
            ["peers", peer, "uncordon"] if post => self.set_duty(peer, Duty::InUse).await,
            ["keys", ..] | ["names", ..] | ["records", _] => self.named(path, query, request).await,
            ["routing", ..] => self.routed(path, query, &method).await,
            ["rebalance"] if get => self.balancing(),
            ["rebalance"] if post => self.set_balancing(query).await,
            ["plan", "drain", peer] if get => self.plan_drain(peer).await,
            ["plan", "rebalance"] if get => self.plan(Goal::Balance).await,
            ["page.js"] if get => Ok(page::script()),
            ["page.css"] if get => Ok(page::style()),
            ["icon.svg"] if get => Ok(page::icon()),
            ["why" | "wait", _]
            | ["cat" | "ls" | "stat", _, ..]
            | [
                "claims" | "peers" | "limits" | "scrub" | "status" | "events" | "state" | "invite" | "leave" | "page.js" | "page.css"
                | "icon.svg",
            ]
            | ["rebalance"]
            | ["peers", _, "drain" | "cordon" | "uncordon"]
            | ["plan", "drain", _]
            | ["plan", "rebalance"]
            | ["removals", "approve"] => Ok(bare(StatusCode::METHOD_NOT_ALLOWED)),
            _ => Ok(not_found()),
        }
    }

    /// What stands at `/pinfold/v1/<word>/<cid>/<path>`; the path as it came, since names may be any bytes.
    async fn content(&self, wanted: Wanted, request: &Request) -> Response {
        let path = request.head.uri.path().splitn(5, '/').nth(4).unwrap_or_default();
        content::answer(&*self.cluster, wanted, path).await
    }

    async fn why(&self, cid: &str) -> Answer {
        let explanation = self.cluster.why(&parse_cid(cid)?).await.ok_or_else(Failure::not_pinned)?;
        Ok(json::value(&explanation_value(&explanation)))
    }

    async fn totals(&self) -> Answer {
        let identity = self.cluster.identity().await;
        let totals = self.cluster.totals();
        let health = page::Health::of(&self.cluster.peers(), &totals);
        Ok(json::value(&json!({
            "cluster": identity.cluster,
            "peer": identity.peer.to_string(),
            "name": identity.name,
            "version": env!("CARGO_PKG_VERSION"),
            "started": json::time(identity.started),
            "health": health.level.as_str(),
            "summary": health.sentence,
            "reasons": health.reasons,
            "pins": totals.pins,
            "short": totals.short,
            "waiting": totals.waiting,
            "unsure": totals.unsure,
            "mended": totals.mended,
            "authors": authors_value(&self.cluster.authors()),
        })))
    }

    async fn wait(&self, cid: &str, query: &Query) -> Answer {
        let cid = parse_cid(cid)?;
        let copies = copies(query)?;
        let limit = span(query, "timeout", WAIT_DEFAULT)?.min(WAIT_MAX);
        let pin = self.cluster.pin_of(&cid).ok_or_else(Failure::not_pinned)?;
        let confirmed = self.cluster.wait_copies(&cid, copies, limit).await;
        Ok(json::value(&json!({
            "cid": pin.cid.to_string(),
            "copies": confirmed,
            "wanted": copies,
            "done": confirmed >= copies,
        })))
    }
}

/// Whose blocks of the shared state count, and what was found.
fn authors_value(authors: &peer::AuthorNumbers) -> Value {
    let finding = |finding: &peer::Finding| {
        json!({
            "block": finding.block.to_string(),
            "author": finding.author.map(|author| author.to_string()),
            "fault": finding.fault.to_string(),
            "left_out": finding.is_left_out,
        })
    };
    json!({
        "signatures": if authors.required { "required" } else { "audited" },
        "left_out": authors.left_out,
        "unsigned": authors.unsigned,
        "wrong": authors.wrong,
        "strangers": authors.strangers,
        "findings": authors.findings.iter().map(finding).collect::<Vec<_>>(),
    })
}

fn copies(query: &Query) -> Result<u32, Failure> {
    u32::try_from(query.int("copies")?.unwrap_or(1)).map_err(|_| Failure::bad("parameter copies invalid"))
}

pub(super) fn span(query: &Query, name: &str, default: Duration) -> Result<Duration, Failure> {
    match query.get(name) {
        "" => Ok(default),
        text => {
            go_duration(text).ok_or_else(|| Failure::bad(format!("parameter {name} invalid: {text:?} is no duration like 10s or 1h30m")))
        }
    }
}

fn peer_row(row: &PeerRow, full_at: Option<UnixMillis>, way: Value) -> Value {
    json!({
        "peer": row.peer.to_string(),
        "name": row.name,
        "self": row.is_self,
        "health": row.health.as_str(),
        "heard": json::time(row.heard),
        "heard_ms_ago": (row.heard.0 > 0).then(|| super::wall().0.saturating_sub(row.heard.0)),
        "clock_ahead_seconds": row.clock_ahead.map(|ahead| ahead / 1000),
        "node_addresses": row.node_addresses,
        "way": way,
        "gateway": row.gateway,
        "api": row.api,
        "space": {
            "limit": row.space_limit.get(),
            "used": row.space_used.get(),
            "reserved": row.space_reserved.get(),
            "full_at": full_at.map(json::time),
            "forecast": full_at.map(|at| ::cluster::forecast::in_words(at, super::wall())),
        },
        "duty": row.duty.as_str(),
        "load": row.load.map(|load| json!({
            "copies": load.copies, "placed": load.placed.get(), "moving": load.moving.get(), "foreign": load.foreign.get(),
        })),
        "exceptions": row.exceptions,
    })
}

/// A Go peer of a mixed cluster. What it does not say is absent.
fn go_row(go: &GoPeer, duty: Duty, way: Value) -> Value {
    json!({
        "peer": go.peer.to_string(),
        "name": go.name,
        "self": false,
        "kind": "go",
        "health": if duty == Duty::InUse { "up" } else { duty.as_str() },
        "duty": duty.as_str(),
        "heard": json::time(go.heard),
        "heard_ms_ago": super::wall().0.saturating_sub(go.heard.0),
        "node_addresses": go.node_addresses,
        "way": way,
        "space": { "free": go.free_space.map(ByteCount::get) },
        "version": go.version,
        "tags": go.tags,
        "pins_held": go.pins_held,
        "pins_queued": go.pins_queued,
        "is_trusted": go.is_trusted,
        "trusts_us": go.trusts_us,
    })
}

fn explanation_value(explanation: &Explanation) -> Value {
    let wished = explanation.wished.map(|(least, most)| json!({ "least": least, "most": most }));
    let peers: Vec<Value> = explanation.peers.iter().map(|(row, reason)| copy_value(row, reason)).collect();
    let next: Vec<Value> = explanation.next.iter().map(|(what, at)| json!({ "what": what, "at": at.map(json::time) })).collect();
    json!({
        "cid": explanation.cid.to_string(),
        "class": explanation.class,
        "wished": wished,
        "confirmed": explanation.confirmed,
        "summary": explanation.summary,
        "peers": peers,
        "next": next,
        "shards": explanation.pieces.iter().map(piece_value).collect::<Vec<_>>(),
    })
}

fn piece_value(piece: &PieceRow) -> Value {
    json!({
        "name": piece.name,
        "cid": piece.cid.to_string(),
        "bytes": piece.bytes.get(),
        "holders": piece.holders.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "confirmed": piece.confirmed,
        "least": piece.least,
        "trouble": piece.trouble,
    })
}

fn copy_value(row: &CopyRow, reason: &str) -> Value {
    let time = |at: Option<UnixMillis>| at.map(json::time);
    let mut value = Map::new();
    value.insert("peer".into(), row.peer.to_string().into());
    value.insert("name".into(), row.name.clone().into());
    value.insert("placed".into(), row.is_placed.into());
    value.insert("state".into(), row.state.as_str().into());
    value.insert("reason".into(), reason.into());
    value.insert("because".into(), row.because.as_ref().map(ToString::to_string).into());
    value.insert("next_try".into(), time(row.next_try).into());
    value.insert("tries".into(), row.tries.into());
    value.insert("since".into(), json::time(row.since).into());
    value.insert("as_of".into(), json::time(row.as_of).into());
    value.insert("live".into(), row.is_live.into());
    if let Some((blocks, bytes, missing)) = row.progress {
        value.insert("progress".into(), json!({ "blocks": blocks, "bytes": bytes.get(), "missing": missing }));
    }
    Value::Object(value)
}
