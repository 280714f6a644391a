//! `/pinfold/v1/keys`, `/names`, `/records`: keys of this peer, names of all.
//!
//! Secret halves of keys never pass a door: importing and exporting them is for the command line on the peer's own machine.

use super::ours::span;
use super::{Answer, Failure, Rest, json, not_found, resolve};
use crate::gateway::names::status;
use crate::message::{BodyError, Request, bare, with_type};
use hyper::{Method, StatusCode};
use peer::Names;
use peer::names::{How, KeyInfo, KeystoreError, LIFETIME, NameError, Publish, PublishError, Published, Step};
use serde_json::{Value, json};
use std::sync::Arc;
use wire::gotime::GoTime;
use wire::ipns::{Entry, RECORD_BYTES_MAX, name_from_text, name_text};
use wire::rest::query::Query;

impl Rest {
    /// The part of the map below `/pinfold/v1/` that is about names.
    pub(super) async fn named(&self, path: &[&str], query: &Query, request: Request) -> Answer {
        let names = self.cluster.names().ok_or_else(not_here)?;
        let method = request.head.method.clone();
        let (get, post, delete) = (method == Method::GET, method == Method::POST, method == Method::DELETE);
        match path {
            ["keys"] if get => {
                let keys = off_thread(&names, |names| names.keys().list()).await?;
                Ok(json::value(&json!({ "keys": keys.iter().map(key_value).collect::<Vec<_>>() })))
            }
            ["keys", key] if post => {
                let key = (*key).to_owned();
                Ok(json::value(&key_value(&off_thread(&names, move |names| names.keys().generate(&key)).await?)))
            }
            ["keys", key] if delete => {
                let key = (*key).to_owned();
                off_thread(&names, move |names| names.keys().remove(&key)).await?;
                Ok(crate::message::no_content())
            }
            ["keys", key, "rename"] if post => {
                let (from, to) = ((*key).to_owned(), query.get("to").to_owned());
                off_thread(&names, move |names| names.keys().rename(&from, &to)).await?;
                Ok(crate::message::no_content())
            }
            ["names"] if get => published(&names),
            ["names"] if post => self.publish(&names, query).await,
            ["names", name] if get => resolved(&names, name, query).await,
            ["records", name] if get => {
                let key = name_from_text(name).map_err(|error| Failure::bad(error.to_string()))?;
                let (record, _) = names.record(&key, how(query)?).await?;
                Ok(with_type(StatusCode::OK, "application/vnd.ipfs.ipns-record", record.bytes().to_vec()))
            }
            ["records", name] if post => {
                let mut request = request;
                let record = request.body.whole(RECORD_BYTES_MAX).await.map_err(|error| match error {
                    BodyError::TooLarge(most) => Failure::bad(format!("a record has at most {most} bytes")),
                    other => Failure::bad(other.to_string()),
                })?;
                Ok(json::value(&published_value(&names.put(name, &record).await?)))
            }
            ["keys"] | ["keys", _] | ["keys", _, "rename"] | ["names"] | ["names", _] | ["records", _] => {
                Ok(bare(StatusCode::METHOD_NOT_ALLOWED))
            }
            _ => Ok(not_found()),
        }
    }

    async fn publish(&self, names: &Arc<Names>, query: &Query) -> Answer {
        let asked = Publish {
            key: if query.get("key").is_empty() { peer::names::SELF.to_owned() } else { query.get("key").to_owned() },
            value: query.get("path").to_owned(),
            lifetime: span(query, "lifetime", LIFETIME)?,
            ttl: if query.get("ttl").is_empty() { None } else { Some(span(query, "ttl", LIFETIME)?) },
            sequence: match query.get("sequence") {
                "" => None,
                text => Some(text.parse().map_err(|_| Failure::bad(format!("parameter sequence invalid: {text:?} is no number")))?),
            },
        };
        if query.bool("resolve")?.unwrap_or(true) {
            self.leads_somewhere(&asked.value).await?;
        }
        Ok(json::value(&published_value(&names.publish(&asked).await?)))
    }

    /// A name that leads nowhere is most often a slip: the path is followed first.
    async fn leads_somewhere(&self, path: &str) -> Result<(), Failure> {
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (kind, rest) = match segments.as_slice() {
            [kind @ ("ipfs" | "ipns"), rest @ ..] => (*kind, rest),
            rest => ("ipfs", rest),
        };
        let hint = |failure: Failure| Failure {
            status: StatusCode::BAD_REQUEST,
            message: format!("{path:?} leads nowhere here: {}; `--resolve=false` publishes it all the same", failure.message),
        };
        resolve(&*self.cluster, kind, rest).await.map(|_| ()).map_err(hint)
    }
}

fn not_here() -> Failure {
    Failure { status: StatusCode::NOT_IMPLEMENTED, message: "this peer knows no names".to_owned() }
}

/// Keys lie in files: reading and syncing them is not for the threads that answer.
async fn off_thread<T: Send + 'static>(
    names: &Arc<Names>,
    work: impl FnOnce(&Names) -> Result<T, KeystoreError> + Send + 'static,
) -> Result<T, Failure> {
    let names = names.clone();
    let done = tokio::task::spawn_blocking(move || work(&names)).await;
    Ok(done.map_err(|error| Failure::internal(format!("working on keys: {error}")))??)
}

fn how(query: &Query) -> Result<How, Failure> {
    Ok(How { is_local: query.bool("local")?.unwrap_or(false), refresh: query.bool("refresh")?.unwrap_or(false), ..How::default() })
}

async fn resolved(names: &Arc<Names>, name: &str, query: &Query) -> Answer {
    if query.bool("recursive")?.unwrap_or(true) {
        let resolved = names.resolve(name, how(query)?).await?;
        let path = match resolved.below.as_str() {
            "" => format!("/ipfs/{}", resolved.root),
            below => format!("/ipfs/{}/{below}", resolved.root),
        };
        let steps: Vec<Value> = resolved.steps.iter().map(step_value).collect();
        return Ok(json::value(&json!({ "path": path, "ttl_seconds": resolved.ttl.as_secs(), "steps": steps })));
    }
    let step = names.step(name, how(query)?).await?;
    Ok(json::value(&json!({ "path": step.value, "ttl_seconds": step.ttl.as_secs(), "steps": [step_value(&step)] })))
}

fn published(names: &Names) -> Answer {
    let keys = names.keys().list()?;
    let row = |(name, record, at): (types::PeerId, wire::ipns::Record, types::UnixMillis)| {
        let mut value = entry_value(&name, &record.entry);
        value["key"] = keys.iter().find(|info| info.name == name).map(|info| info.key.clone()).into();
        value["written"] = json::time(at).into();
        value["ended"] = record.is_expired(GoTime::from(super::wall())).into();
        value
    };
    let rows: Vec<Value> = names.published()?.into_iter().map(row).collect();
    Ok(json::value(&json!({ "names": rows, "routing": names.routing() })))
}

fn key_value(info: &KeyInfo) -> Value {
    json!({ "key": info.key, "name": name_text(&info.name), "type": info.kind })
}

fn entry_value(name: &types::PeerId, entry: &Entry) -> Value {
    json!({
        "name": name_text(name),
        "value": String::from_utf8_lossy(&entry.value),
        "sequence": entry.sequence,
        "validity": entry.validity.to_string(),
        "ttl_seconds": entry.ttl.as_secs(),
    })
}

fn published_value(published: &Published) -> Value {
    let mut value = entry_value(&published.name, &published.entry);
    let told = |(router, outcome): &(String, Result<(), String>)| json!({ "router": router, "error": outcome.as_ref().err() });
    value["told"] = published.told.iter().map(told).collect::<Vec<_>>().into();
    value
}

fn step_value(step: &Step) -> Value {
    json!({
        "name": step.name,
        "value": step.value,
        "from": step.from.as_str(),
        "ttl_seconds": step.ttl.as_secs(),
        "sequence": step.sequence,
        "validity": step.validity.map(|validity| validity.to_string()),
    })
}

impl From<NameError> for Failure {
    fn from(error: NameError) -> Failure {
        Failure { status: status(&error), message: error.to_string() }
    }
}

impl From<KeystoreError> for Failure {
    fn from(error: KeystoreError) -> Failure {
        let status = match &error {
            KeystoreError::Unknown(_) => StatusCode::NOT_FOUND,
            KeystoreError::Exists(_) => StatusCode::CONFLICT,
            KeystoreError::BadName(_) | KeystoreError::IsSelf(_) => StatusCode::BAD_REQUEST,
            KeystoreError::Key { .. } | KeystoreError::Disk { .. } | KeystoreError::Random(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Failure { status, message: error.to_string() }
    }
}

impl From<PublishError> for Failure {
    fn from(error: PublishError) -> Failure {
        match error {
            PublishError::Keystore(error) => error.into(),
            PublishError::Cluster(error) => error.into(),
            PublishError::Key(_) | PublishError::Storage(_) => Failure::internal(error.to_string()),
            PublishError::Value { .. } | PublishError::Times(_) | PublishError::Sequence { .. } | PublishError::Refused(_) => {
                Failure::bad(error.to_string())
            }
        }
    }
}
