//! The pin as it is passed in calls.

use super::{Message, cid_bytes, put_text_map, raw_peers, read_addresses, read_cid, read_map, read_peers, read_text};
use crate::gotime::GoTime;
use crate::msgpack::{Fields, MsgpackError, Reader, Writer};
use crate::pin::{depth_number, depth_of_number};
use std::collections::BTreeMap;
use types::{BadReplicas, Cid, Depth, PeerId, Pin, PinKind, PinOptions, Replicas, UnixMillis};

/// Go's mode of direct pins; 0 is recursive.
pub const MODE_DIRECT: i64 = 1;

/// A pin with all of Go's fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RpcPin {
    /// Factors: least and most copies.
    pub replication: (i64, i64),
    /// Label.
    pub name: String,
    /// 0 recursive, 1 direct. What counts is `max_depth`.
    pub mode: i64,
    /// Size of shards.
    pub shard_size: u64,
    /// Peers the user prefers.
    pub user_allocations: Option<Vec<PeerId>>,
    /// Its end.
    pub expire_at: GoTime,
    /// Free pairs.
    pub metadata: BTreeMap<String, String>,
    /// The pin it replaces.
    pub update: Option<Cid>,
    /// Binary multiaddrs of who has it.
    pub origins: Option<Vec<Vec<u8>>>,
    /// Which content; Go's undefined CID is none.
    pub cid: Option<Cid>,
    /// Kind as bits: 1 bad, 2 data, 4 meta, 8 cluster DAG, 16 shard.
    pub kind_bits: u64,
    /// Who should hold it.
    pub allocations: Option<Vec<PeerId>>,
    /// -1 is everything.
    pub max_depth: i64,
    /// The entry it belongs to.
    pub reference: Option<Cid>,
    /// When it was written.
    pub timestamp: GoTime,
}

/// Why a pin of a call is none of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRpcPin {
    /// The CID is undefined.
    #[error("the pin has no CID")]
    Cid,
    /// The factors make no sense.
    #[error("{0}")]
    Replicas(#[from] BadReplicas),
}

impl Message for RpcPin {
    fn write(&self, out: &mut Writer) {
        let mut fields = Fields::new();
        fields.int_if("rn", self.replication.0);
        fields.int_if("rx", self.replication.1);
        fields.raw_if("n", self.name.as_bytes());
        fields.int_if("o", self.mode);
        fields.uint_if("s", self.shard_size);
        fields.raws_if("ua", raw_peers(self.user_allocations.as_ref()).as_deref());
        fields.time_if("e", self.expire_at);
        if !self.metadata.is_empty() {
            put_text_map(fields.key("m"), &self.metadata);
        }
        fields.raw_if("pu", &cid_bytes(self.update.as_ref()));
        fields.raws_if("g", self.origins.as_deref());
        fields.raw_if("c", &cid_bytes(self.cid.as_ref()));
        fields.uint_if("t", self.kind_bits);
        fields.raws_if("a", raw_peers(self.allocations.as_ref()).as_deref());
        fields.int_if("d", self.max_depth);
        fields.raw_if("r", &cid_bytes(self.reference.as_ref()));
        fields.time_if("i", self.timestamp);
        fields.finish(out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<RpcPin, MsgpackError> {
        let mut pin = RpcPin::default();
        reader.fields(|key, reader| {
            match key {
                "rn" => pin.replication.0 = reader.int()?,
                "rx" => pin.replication.1 = reader.int()?,
                "n" => pin.name = read_text(reader)?,
                "o" => pin.mode = reader.int()?,
                "s" => pin.shard_size = reader.uint()?,
                "ua" => pin.user_allocations = read_peers(reader)?,
                "e" => pin.expire_at = reader.time()?,
                "m" => pin.metadata = read_map(reader, read_text)?.unwrap_or_default(),
                "pu" => pin.update = read_cid(reader)?,
                "g" => pin.origins = read_addresses(reader)?,
                "c" => pin.cid = read_cid(reader)?,
                "t" => pin.kind_bits = reader.uint()?,
                "a" => pin.allocations = read_peers(reader)?,
                "d" => pin.max_depth = reader.int()?,
                "r" => pin.reference = read_cid(reader)?,
                "i" => pin.timestamp = reader.time()?,
                _ => reader.skip()?,
            }
            Ok::<_, MsgpackError>(())
        })?;
        Ok(pin)
    }
}

impl From<&Pin> for RpcPin {
    fn from(pin: &Pin) -> RpcPin {
        let options = &pin.options;
        let (least, most) = options.replicas.factors();
        RpcPin {
            replication: (least.into(), most.into()),
            name: options.name.clone(),
            mode: if pin.depth == Depth::DIRECT { MODE_DIRECT } else { 0 },
            shard_size: options.shard_size,
            user_allocations: (!options.prefer.is_empty()).then(|| options.prefer.clone()),
            expire_at: options.expires.into(),
            metadata: options.metadata.clone(),
            update: options.update,
            origins: (!options.origins.is_empty()).then(|| options.origins.clone()),
            cid: Some(pin.cid),
            kind_bits: kind_bits(pin.kind),
            allocations: Some(pin.placement.clone()),
            max_depth: depth_number(pin.depth).into(),
            reference: pin.reference,
            timestamp: pin.created.into(),
        }
    }
}

impl TryFrom<RpcPin> for Pin {
    type Error = BadRpcPin;

    fn try_from(pin: RpcPin) -> Result<Pin, BadRpcPin> {
        let factor = |factor: i64| i32::try_from(factor).unwrap_or(if factor < 0 { i32::MIN } else { i32::MAX });
        let options = PinOptions {
            replicas: Replicas::from_factors(factor(pin.replication.0), factor(pin.replication.1))?,
            name: pin.name,
            shard_size: pin.shard_size,
            prefer: pin.user_allocations.unwrap_or_default(),
            expires: pin.expire_at.to_millis_if().filter(|end| *end != UnixMillis(0)),
            metadata: pin.metadata,
            update: pin.update,
            origins: pin.origins.unwrap_or_default(),
        };
        Ok(Pin {
            cid: pin.cid.ok_or(BadRpcPin::Cid)?,
            kind: kind_of_bits(pin.kind_bits),
            options,
            placement: pin.allocations.unwrap_or_default(),
            depth: depth_of_number(factor(pin.max_depth)),
            reference: pin.reference,
            created: pin.timestamp.to_millis(),
        })
    }
}

fn kind_bits(kind: PinKind) -> u64 {
    match kind {
        PinKind::Bad => 1,
        PinKind::Data => 2,
        PinKind::Meta => 4,
        PinKind::ClusterDag => 8,
        PinKind::Shard => 16,
    }
}

/// The kind of Go's bits.
pub fn kind_of_bits(bits: u64) -> PinKind {
    match bits {
        2 => PinKind::Data,
        4 => PinKind::Meta,
        8 => PinKind::ClusterDag,
        16 => PinKind::Shard,
        _ => PinKind::Bad,
    }
}
