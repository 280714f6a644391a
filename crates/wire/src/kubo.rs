//! What a Kubo daemon answers over its RPC (`/api/v0`), as far as a peer that drives one reads it.
//!
//! Source: Kubo's RPC reference and live daemons. Fields that are not needed are passed over; what is missing or of another kind is an
//! error, since it would mean that something else answers there.

use base64::Engine;
use serde::Deserialize;
use types::{ByteCount, Cid};

/// An answer that is not what Kubo says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an answer of Kubo to {call}: {reason}")]
pub struct BadAnswer {
    /// The RPC.
    pub call: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

/// A line of `pin/add?progress=true`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PinLine {
    /// Blocks fetched and walked so far; their bytes where the daemon is new enough to say it.
    Progress {
        /// Blocks.
        blocks: u64,
        /// Bytes; 0 when not said.
        bytes: u64,
    },
    /// The end: it is pinned.
    Pinned,
}

/// A line of `pin/ls?stream=true`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedPin {
    /// The root.
    pub cid: Cid,
    /// Its label; empty when it has none, or was not asked for.
    pub name: String,
}

/// `id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeId {
    /// The node's peer id, in base58.
    pub id: String,
    /// Multiaddrs with `/p2p/`.
    pub addresses: Vec<String>,
    /// What it calls itself (`kubo/0.42.0/...`).
    pub agent: String,
}

/// `repo/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RepoStat {
    /// On disk.
    pub used: ByteCount,
    /// The daemon's own limit (`Datastore.StorageMax`).
    pub limit: ByteCount,
}

/// `dag/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DagStat {
    /// Blocks, each counted once.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: ByteCount,
}

/// The message of an answer with an error status; the body itself when it is not Kubo's form.
pub fn error_text(body: &[u8]) -> String {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Shape {
        message: String,
    }
    match serde_json::from_slice::<Shape>(body) {
        Ok(Shape { message }) => message,
        Err(_) => String::from_utf8_lossy(&body[..body.len().min(500)]).trim().to_owned(),
    }
}

/// Reads a line of `pin/add`.
pub fn pin_line(line: &[u8]) -> Result<PinLine, BadAnswer> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Shape {
        #[serde(default)]
        pins: Option<Vec<String>>,
        #[serde(default)]
        progress: u64,
        #[serde(default)]
        bytes: u64,
    }
    let shape: Shape = read("pin/add", line)?;
    Ok(match shape.pins {
        Some(_) => PinLine::Pinned,
        None => PinLine::Progress { blocks: shape.progress, bytes: shape.bytes },
    })
}

/// Reads a line of `pin/ls?stream=true`.
pub fn listed_pin(line: &[u8]) -> Result<ListedPin, BadAnswer> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Shape {
        cid: String,
        #[serde(default)]
        name: String,
    }
    let Shape { cid, name } = read("pin/ls", line)?;
    Ok(ListedPin { cid: cid_of("pin/ls", &cid)?, name })
}

/// Reads a line of `block/put`.
pub fn put_block(line: &[u8]) -> Result<Cid, BadAnswer> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Shape {
        key: String,
    }
    let Shape { key } = read("block/put", line)?;
    cid_of("block/put", &key)
}

/// Reads the size of `block/stat`.
pub fn block_size(body: &[u8]) -> Result<u64, BadAnswer> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Shape {
        size: u64,
    }
    let Shape { size } = read("block/stat", body)?;
    Ok(size)
}

/// Reads `id`.
pub fn node_id(body: &[u8]) -> Result<NodeId, BadAnswer> {
    #[derive(Deserialize)]
    struct Shape {
        #[serde(rename = "ID")]
        id: String,
        #[serde(rename = "Addresses", default)]
        addresses: Option<Vec<String>>,
        #[serde(rename = "AgentVersion", default)]
        agent: String,
    }
    let Shape { id, addresses, agent } = read("id", body)?;
    Ok(NodeId { id, addresses: addresses.unwrap_or_default(), agent })
}

/// Reads `repo/stat`.
pub fn repo_stat(body: &[u8]) -> Result<RepoStat, BadAnswer> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Shape {
        repo_size: u64,
        storage_max: u64,
    }
    let Shape { repo_size, storage_max } = read("repo/stat", body)?;
    Ok(RepoStat { used: ByteCount(repo_size), limit: ByteCount(storage_max) })
}

/// Reads `dag/stat?progress=false`.
pub fn dag_stat(body: &[u8]) -> Result<DagStat, BadAnswer> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Shape {
        unique_blocks: u64,
        total_size: u64,
    }
    let Shape { unique_blocks, total_size } = read("dag/stat", body)?;
    Ok(DagStat { blocks: unique_blocks, bytes: ByteCount(total_size) })
}

/// Reads the root's CID of `files/stat?arg=/`.
pub fn files_root(body: &[u8]) -> Result<Cid, BadAnswer> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Shape {
        hash: String,
    }
    let Shape { hash } = read("files/stat", body)?;
    cid_of("files/stat", &hash)
}

/// Reads a line of `routing/get`: the value, where it is not a step of the search.
pub fn routing_value(line: &[u8]) -> Result<Option<Vec<u8>>, BadAnswer> {
    const VALUE: u64 = 5;
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Shape {
        r#type: u64,
        #[serde(default)]
        extra: String,
    }
    let Shape { r#type, extra } = read("routing/get", line)?;
    if r#type != VALUE || extra.is_empty() {
        return Ok(None);
    }
    let value = base64::engine::general_purpose::STANDARD.decode(extra);
    value.map(Some).map_err(|error| BadAnswer { call: "routing/get", reason: error.to_string() })
}

/// Finds the CID at the end of an error about a missing block (`... ipld: could not find <cid>`), whatever stands before it.
pub fn missing_block(message: &str) -> Option<Cid> {
    let (_, behind) = message.rsplit_once("could not find ")?;
    Cid::try_from(behind.split_whitespace().next()?).ok()
}

/// Whether an error says that there is no such pin.
pub fn is_not_pinned(message: &str) -> bool {
    message.contains("is not pinned") || message.contains("not pinned or pinned indirectly")
}

fn read<'a, T: Deserialize<'a>>(call: &'static str, body: &'a [u8]) -> Result<T, BadAnswer> {
    serde_json::from_slice(body).map_err(|error| BadAnswer { call, reason: error.to_string() })
}

fn cid_of(call: &'static str, text: &str) -> Result<Cid, BadAnswer> {
    Cid::try_from(text).map_err(|error| BadAnswer { call, reason: format!("{text:?} is no CID: {error}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CID: &str = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy";

    #[test]
    fn lines_of_a_pin_are_progress_and_then_the_end() {
        assert_eq!(pin_line(br#"{"Progress":3,"Bytes":614}"#), Ok(PinLine::Progress { blocks: 3, bytes: 614 }));
        assert_eq!(pin_line(br#"{"Progress":3}"#), Ok(PinLine::Progress { blocks: 3, bytes: 0 }), "before Kubo 0.36");
        assert_eq!(pin_line(format!(r#"{{"Pins":["{CID}"]}}"#).as_bytes()), Ok(PinLine::Pinned));
        assert!(pin_line(b"<html>").is_err());
    }

    #[test]
    fn listed_pins_have_a_cid_and_perhaps_a_name() {
        let cid = Cid::try_from(CID).expect("a CID");
        let line = format!(r#"{{"Cid":"{CID}","Type":"recursive","Name":"site"}}"#);
        assert_eq!(listed_pin(line.as_bytes()), Ok(ListedPin { cid, name: "site".to_owned() }));
        assert!(listed_pin(br#"{"Cid":"no"}"#).is_err());
    }

    #[test]
    fn a_value_is_the_last_step_of_a_search() {
        assert_eq!(routing_value(br#"{"ID":"","Type":5,"Responses":null,"Extra":"aGVsbG8="}"#), Ok(Some(b"hello".to_vec())));
        for step in [&br#"{"ID":"12D3KooW","Type":1,"Responses":null,"Extra":"x"}"#[..], br#"{"ID":"12D3KooW","Type":5,"Extra":""}"#] {
            assert_eq!(routing_value(step), Ok(None));
        }
        assert!(routing_value(br#"{"Type":5,"Extra":"!"}"#).is_err() && routing_value(b"{}").is_err());
    }

    #[test]
    fn errors_name_the_missing_block() {
        let body =
            format!(r#"{{"Message":"pin: block was not found locally (offline): ipld: could not find {CID}","Code":0,"Type":"error"}}"#);
        assert_eq!(missing_block(&error_text(body.as_bytes())).map(|cid| cid.to_string()).as_deref(), Some(CID));
        assert_eq!(missing_block("context deadline exceeded"), None);
        assert_eq!(error_text(b"404 page not found\n"), "404 page not found");
    }

    #[test]
    fn numbers_come_from_where_kubo_puts_them() {
        let stat = repo_stat(br#"{"RepoSize":30613,"StorageMax":10000000000,"NumObjects":0,"RepoPath":"","Version":""}"#);
        assert_eq!(stat, Ok(RepoStat { used: ByteCount(30613), limit: ByteCount(10_000_000_000) }));
        let stat = dag_stat(br#"{"UniqueBlocks":3,"TotalSize":614,"Ratio":1,"DagStats":[]}"#);
        assert_eq!(stat, Ok(DagStat { blocks: 3, bytes: ByteCount(614) }));
        let id = node_id(br#"{"ID":"12D3KooW","Addresses":null,"AgentVersion":"kubo/0.44.0"}"#).expect("read");
        assert_eq!((id.id.as_str(), id.addresses.len(), id.agent.as_str()), ("12D3KooW", 0, "kubo/0.44.0"));
    }
}
