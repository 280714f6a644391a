//! The small objects.

use super::{cid_text, peer_text, peer_texts};
use crate::gotime::GoTime;
use crate::{metric, rpc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What went wrong, as the body of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    /// The HTTP status.
    pub code: u16,
    /// Words that clients show and compare.
    pub message: String,
}

/// Version of the program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// As people read it.
    pub version: String,
}

/// One line about something added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AddedOutput {
    /// Its path; empty for the wrapping directory.
    pub name: String,
    /// Its CID; null in progress lines.
    pub cid: Option<String>,
    /// Bytes read so far.
    #[serde(skip_serializing_if = "is_zero")]
    pub bytes: u64,
    /// Size of everything under it.
    #[serde(skip_serializing_if = "is_zero")]
    pub size: u64,
    /// Who holds it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allocations: Vec<String>,
}

impl From<&rpc::AddedOutput> for AddedOutput {
    fn from(added: &rpc::AddedOutput) -> AddedOutput {
        AddedOutput {
            name: added.name.clone(),
            cid: cid_text(added.cid.as_ref()),
            bytes: added.bytes,
            size: added.size,
            allocations: peer_texts(added.allocations.as_deref().unwrap_or_default()),
        }
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A value that a peer says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Metric {
    /// Which one.
    pub name: String,
    /// Of whom.
    pub peer: String,
    /// The value.
    pub value: String,
    /// Its end, nanoseconds since 1970.
    pub expire: i64,
    /// Whether it says anything.
    pub valid: bool,
    /// What allocation sorts by.
    pub weight: i64,
    /// Whether allocation spreads over its values.
    pub partitionable: bool,
    /// When it came, nanoseconds since 1970.
    pub received_at: i64,
}

impl From<&metric::Metric> for Metric {
    fn from(metric: &metric::Metric) -> Metric {
        Metric {
            name: metric.name.clone(),
            peer: peer_text(metric.peer.as_ref()),
            value: metric.value.clone(),
            expire: metric.expire,
            valid: metric.valid,
            weight: metric.weight,
            partitionable: metric.partitionable,
            received_at: metric.received_at,
        }
    }
}

/// A metric that ended without a successor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Alert {
    /// The metric.
    #[serde(flatten)]
    pub metric: Metric,
    /// When this was noticed.
    pub triggered_at: GoTime,
}

impl From<&metric::Alert> for Alert {
    fn from(alert: &metric::Alert) -> Alert {
        Alert { metric: (&alert.metric).into(), triggered_at: alert.triggered_at }
    }
}

/// Bytes passed under one protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bandwidth {
    /// Bytes received.
    pub total_in: i64,
    /// Bytes sent.
    pub total_out: i64,
    /// Bytes received a second.
    pub rate_in: f64,
    /// Bytes sent a second.
    pub rate_out: f64,
}

/// One block that garbage collection removed, or failed to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RepoGcKey {
    /// Which block.
    pub key: Option<String>,
    /// What went wrong.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
}

/// What garbage collection of one peer's node did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RepoGc {
    /// Whose node.
    pub peer: String,
    /// The peer's name.
    pub peername: String,
    /// What was removed.
    pub keys: Option<Vec<RepoGcKey>>,
    /// What went wrong altogether.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
}

impl From<&rpc::RepoGc> for RepoGc {
    fn from(gc: &rpc::RepoGc) -> RepoGc {
        let keys = gc.keys.as_ref().map(|keys| {
            let text = |entry: &rpc::GcKey| RepoGcKey { key: cid_text(entry.key.as_ref()), error: entry.error.clone() };
            keys.iter().map(text).collect()
        });
        RepoGc { peer: peer_text(gc.peer.as_ref()), peername: gc.peer_name.clone(), keys, error: gc.error.clone() }
    }
}

/// What garbage collection did everywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GlobalRepoGc {
    /// By peer id.
    pub peer_map: BTreeMap<String, RepoGc>,
}
