//! Pins and what became of them.

use super::{address_texts, cid_text, peer_text, peer_texts, read_cid_text};
use crate::cids::BadCidText;
use crate::gotime::GoTime;
use crate::multiaddr::{self, BadMultiaddr};
use crate::pin::{depth_number, depth_of_number};
use crate::{rpc, status};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use types::{BadPeerId, BadReplicas, Depth, PeerId, PinKind, PinOptions, PinState, Replicas, UnixMillis};

/// A pin of the shared state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pin {
    /// Least copies; -1 everywhere, 0 the default.
    pub replication_factor_min: i32,
    /// Most copies.
    pub replication_factor_max: i32,
    /// Label.
    pub name: String,
    /// `recursive` or `direct`.
    pub mode: String,
    /// Size of shards.
    pub shard_size: u64,
    /// Peers the user prefers; not stored, so null in what is read from the state.
    pub user_allocations: Option<Vec<String>>,
    /// Its end.
    pub expire_at: GoTime,
    /// Free pairs.
    pub metadata: Option<BTreeMap<String, String>>,
    /// The pin it replaces.
    pub pin_update: Option<String>,
    /// Addresses of who has it.
    pub origins: Option<Vec<String>>,
    /// Which content.
    pub cid: Option<String>,
    /// Kind, see [`kind_text`].
    #[serde(rename = "type")]
    pub kind: String,
    /// Who should hold it; empty for everybody.
    pub allocations: Option<Vec<String>>,
    /// -1 is everything.
    pub max_depth: i32,
    /// The entry it belongs to.
    pub reference: Option<String>,
    /// When it was written.
    pub timestamp: GoTime,
}

impl Default for Pin {
    /// What a text that leaves fields out means: an ordinary recursive pin.
    fn default() -> Pin {
        Pin {
            replication_factor_min: 0,
            replication_factor_max: 0,
            name: String::new(),
            mode: "recursive".to_owned(),
            shard_size: 0,
            user_allocations: None,
            expire_at: GoTime::ZERO,
            metadata: None,
            pin_update: None,
            origins: None,
            cid: None,
            kind: kind_text(PinKind::Data).to_owned(),
            allocations: None,
            max_depth: -1,
            reference: None,
            timestamp: GoTime::ZERO,
        }
    }
}

/// Why a pin in JSON is none of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRestPin {
    /// No CID at all.
    #[error("the pin has no cid")]
    NoCid,
    /// A text that is no CID.
    #[error("{field}: {source}")]
    Cid {
        /// Of which field.
        field: &'static str,
        /// What is wrong.
        #[source]
        source: BadCidText,
    },
    /// A text that is no peer id.
    #[error("{field}: {source}")]
    Peer {
        /// Of which field.
        field: &'static str,
        /// What is wrong.
        #[source]
        source: BadPeerId,
    },
    /// An origin that is no multiaddr.
    #[error("origins: {0}")]
    Origin(#[from] BadMultiaddr),
    /// The factors make no sense.
    #[error("{0}")]
    Replicas(#[from] BadReplicas),
}

impl From<&types::Pin> for Pin {
    /// As Go prints what it reads from the shared state: empty lists, null metadata.
    fn from(pin: &types::Pin) -> Pin {
        let options = &pin.options;
        let (least, most) = options.replicas.factors();
        Pin {
            replication_factor_min: least,
            replication_factor_max: most,
            name: options.name.clone(),
            mode: mode_text(pin.depth).to_owned(),
            shard_size: options.shard_size,
            user_allocations: (!options.prefer.is_empty()).then(|| peer_texts(&options.prefer)),
            expire_at: options.expires.into(),
            metadata: (!options.metadata.is_empty()).then(|| options.metadata.clone()),
            pin_update: cid_text(options.update.as_ref()),
            origins: Some(address_texts(&options.origins)),
            cid: Some(pin.cid.to_string()),
            kind: kind_text(pin.kind).to_owned(),
            allocations: Some(peer_texts(&pin.placement)),
            max_depth: depth_number(pin.depth),
            reference: cid_text(pin.reference.as_ref()),
            timestamp: pin.created.into(),
        }
    }
}

impl TryFrom<&Pin> for types::Pin {
    type Error = BadRestPin;

    fn try_from(pin: &Pin) -> Result<types::Pin, BadRestPin> {
        let cid = |field, text: &Option<String>| read_cid_text(text.as_deref()).map_err(|source| BadRestPin::Cid { field, source });
        let origins = pin.origins.as_deref().unwrap_or_default();
        let options = PinOptions {
            replicas: Replicas::from_factors(pin.replication_factor_min, pin.replication_factor_max)?,
            name: pin.name.clone(),
            shard_size: pin.shard_size,
            prefer: read_peers("user_allocations", pin.user_allocations.as_deref())?,
            expires: pin.expire_at.to_millis_if().filter(|end| *end != UnixMillis(0)),
            metadata: pin.metadata.clone().unwrap_or_default(),
            update: cid("pin_update", &pin.pin_update)?,
            origins: origins.iter().map(|origin| multiaddr::from_text(origin)).collect::<Result<_, _>>()?,
        };
        Ok(types::Pin {
            cid: cid("cid", &pin.cid)?.ok_or(BadRestPin::NoCid)?,
            kind: kind_of_text(&pin.kind),
            options,
            placement: read_peers("allocations", pin.allocations.as_deref())?,
            depth: depth_of_number(pin.max_depth),
            reference: cid("reference", &pin.reference)?,
            created: pin.timestamp.to_millis(),
        })
    }
}

fn read_peers(field: &'static str, texts: Option<&[String]>) -> Result<Vec<PeerId>, BadRestPin> {
    let read = |text: &String| text.parse().map_err(|source| BadRestPin::Peer { field, source });
    texts.unwrap_or_default().iter().map(read).collect()
}

/// Go's mode of a depth.
fn mode_text(depth: Depth) -> &'static str {
    if depth == Depth::DIRECT { "direct" } else { "recursive" }
}

/// Go's name of a kind.
pub fn kind_text(kind: PinKind) -> &'static str {
    match kind {
        PinKind::Bad => "bad-type",
        PinKind::Data => "pin",
        PinKind::Meta => "meta-pin",
        PinKind::ClusterDag => "clusterdag-pin",
        PinKind::Shard => "shard-pin",
    }
}

/// The kind with a name.
pub fn kind_of_text(text: &str) -> PinKind {
    match text {
        "pin" => PinKind::Data,
        "meta-pin" => PinKind::Meta,
        "clusterdag-pin" => PinKind::ClusterDag,
        "shard-pin" => PinKind::Shard,
        _ => PinKind::Bad,
    }
}

/// How a pin stands on one peer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PinInfoShort {
    /// The peer's name.
    pub peername: String,
    /// Its node.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ipfs_peer_id: String,
    /// Addresses of its node; only DNS and global-unicast ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ipfs_peer_addresses: Vec<String>,
    /// One of the status texts.
    pub status: String,
    /// Since when.
    pub timestamp: GoTime,
    /// What went wrong.
    pub error: String,
    /// Attempts so far.
    pub attempt_count: i64,
    /// Whether it stands in the queue that goes first.
    pub priority_pin: bool,
}

/// One pin on one peer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PinInfo {
    /// Which content.
    pub cid: Option<String>,
    /// Label of the pin.
    pub name: String,
    /// Whose word this is.
    pub peer: String,
    /// Who should hold it.
    pub allocations: Option<Vec<String>>,
    /// Addresses of who has it.
    pub origins: Option<Vec<String>>,
    /// When the pin was written.
    pub created: GoTime,
    /// Free pairs.
    pub metadata: Option<BTreeMap<String, String>>,
    /// How it stands there.
    #[serde(flatten)]
    pub short: PinInfoShort,
}

/// One pin on all peers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GlobalPinInfo {
    /// Which content.
    pub cid: Option<String>,
    /// Label of the pin.
    pub name: String,
    /// Who should hold it.
    pub allocations: Option<Vec<String>>,
    /// Addresses of who has it.
    pub origins: Option<Vec<String>>,
    /// When the pin was written.
    pub created: GoTime,
    /// Free pairs.
    pub metadata: Option<BTreeMap<String, String>>,
    /// How it stands, by peer id.
    pub peer_map: BTreeMap<String, PinInfoShort>,
}

impl GlobalPinInfo {
    /// The part that comes from the pin itself; peers are to be filled in.
    pub fn of_pin(pin: &types::Pin) -> GlobalPinInfo {
        let Pin { cid, name, allocations, origins, metadata, timestamp, .. } = Pin::from(pin);
        GlobalPinInfo { cid, name, allocations, origins, created: timestamp, metadata, peer_map: BTreeMap::new() }
    }
}

/// The text of a state's bit; 0 and the unknown are `undefined`.
fn status_text(bit: u64) -> &'static str {
    status::of_bit(bit).map_or("undefined", PinState::as_str)
}

impl From<&rpc::PinInfoShort> for PinInfoShort {
    fn from(short: &rpc::PinInfoShort) -> PinInfoShort {
        PinInfoShort {
            peername: short.peer_name.clone(),
            ipfs_peer_id: peer_text(short.ipfs_id.as_ref()),
            ipfs_peer_addresses: address_texts(short.ipfs_addresses.as_deref().unwrap_or_default()),
            status: status_text(short.status).to_owned(),
            timestamp: short.timestamp,
            error: short.error.clone(),
            attempt_count: short.attempt_count,
            priority_pin: short.is_priority,
        }
    }
}

fn metadata_or_null(metadata: &BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    (!metadata.is_empty()).then(|| metadata.clone())
}

impl From<&rpc::PinInfo> for PinInfo {
    fn from(info: &rpc::PinInfo) -> PinInfo {
        PinInfo {
            cid: cid_text(info.cid.as_ref()),
            name: info.name.clone(),
            peer: peer_text(info.peer.as_ref()),
            allocations: info.allocations.as_deref().map(peer_texts),
            origins: info.origins.as_deref().map(address_texts),
            created: info.created,
            metadata: metadata_or_null(&info.metadata),
            short: (&info.short).into(),
        }
    }
}

impl From<&rpc::GlobalPinInfo> for GlobalPinInfo {
    fn from(info: &rpc::GlobalPinInfo) -> GlobalPinInfo {
        GlobalPinInfo {
            cid: cid_text(info.cid.as_ref()),
            name: info.name.clone(),
            allocations: info.allocations.as_deref().map(peer_texts),
            origins: info.origins.as_deref().map(address_texts),
            created: info.created,
            metadata: metadata_or_null(&info.metadata),
            peer_map: info.peers.iter().map(|(peer, short)| (peer.clone(), short.into())).collect(),
        }
    }
}

impl From<&rpc::RpcPin> for Pin {
    fn from(pin: &rpc::RpcPin) -> Pin {
        let number = |number: i64| i32::try_from(number).unwrap_or(if number < 0 { i32::MIN } else { i32::MAX });
        Pin {
            replication_factor_min: number(pin.replication.0),
            replication_factor_max: number(pin.replication.1),
            name: pin.name.clone(),
            mode: if pin.mode == rpc::MODE_DIRECT { "direct" } else { "recursive" }.to_owned(),
            shard_size: pin.shard_size,
            user_allocations: pin.user_allocations.as_deref().map(peer_texts),
            expire_at: pin.expire_at,
            metadata: metadata_or_null(&pin.metadata),
            pin_update: cid_text(pin.update.as_ref()),
            origins: pin.origins.as_deref().map(address_texts),
            cid: cid_text(pin.cid.as_ref()),
            kind: kind_text(rpc::kind_of_bits(pin.kind_bits)).to_owned(),
            allocations: pin.allocations.as_deref().map(peer_texts),
            max_depth: number(pin.max_depth),
            reference: cid_text(pin.reference.as_ref()),
            timestamp: pin.timestamp,
        }
    }
}
