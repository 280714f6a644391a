//! What became of pins: one peer's word, and all of them together.

use super::{Message, cid_bytes, put_text_map, raw_peers, read_addresses, read_cid, read_map, read_peer, read_peers, read_text};
use crate::gotime::GoTime;
use crate::msgpack::{Fields, MsgpackError, Reader, Writer};
use std::collections::BTreeMap;
use types::{Cid, PeerId};

/// The part that differs from peer to peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PinInfoShort {
    /// Its name.
    pub peer_name: String,
    /// The id of its node.
    pub ipfs_id: Option<PeerId>,
    /// Binary multiaddrs of its node.
    pub ipfs_addresses: Option<Vec<Vec<u8>>>,
    /// The state's bit (`crate::status`); 0 is undefined.
    pub status: u64,
    /// Since when.
    pub timestamp: GoTime,
    /// What went wrong.
    pub error: String,
    /// Attempts so far.
    pub attempt_count: i64,
    /// Whether it stands in the queue that goes first.
    pub is_priority: bool,
}

/// One pin on one peer. Fill every field that is known: Go takes name, allocations and the rest from whichever answer came last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PinInfo {
    /// Which content.
    pub cid: Option<Cid>,
    /// Label of the pin.
    pub name: String,
    /// Whose word this is.
    pub peer: Option<PeerId>,
    /// Who should hold it.
    pub allocations: Option<Vec<PeerId>>,
    /// Binary multiaddrs of who has it.
    pub origins: Option<Vec<Vec<u8>>>,
    /// When the pin was written.
    pub created: GoTime,
    /// Free pairs of the pin.
    pub metadata: BTreeMap<String, String>,
    /// How it stands there.
    pub short: PinInfoShort,
}

/// One pin on all peers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GlobalPinInfo {
    /// Which content.
    pub cid: Option<Cid>,
    /// Label of the pin.
    pub name: String,
    /// Who should hold it.
    pub allocations: Option<Vec<PeerId>>,
    /// Binary multiaddrs of who has it.
    pub origins: Option<Vec<Vec<u8>>>,
    /// When the pin was written.
    pub created: GoTime,
    /// Free pairs of the pin.
    pub metadata: BTreeMap<String, String>,
    /// How it stands, by peer id in base58.
    pub peers: BTreeMap<String, PinInfoShort>,
}

impl PinInfoShort {
    fn put(&self, fields: &mut Fields) {
        fields.raw_if("pn", self.peer_name.as_bytes());
        fields.raw_if("i", self.ipfs_id.as_ref().map_or(&[], PeerId::as_bytes));
        fields.raws_if("ia", self.ipfs_addresses.as_deref());
        fields.int_if("st", self.status as i64);
        fields.time_if("ts", self.timestamp);
        fields.raw_if("e", self.error.as_bytes());
        fields.int_if("a", self.attempt_count);
        fields.bool_if("y", self.is_priority);
    }

    fn read_field(&mut self, key: &str, reader: &mut Reader<'_>) -> Result<(), MsgpackError> {
        match key {
            "pn" => self.peer_name = read_text(reader)?,
            "i" => self.ipfs_id = read_peer(reader)?,
            "ia" => self.ipfs_addresses = read_addresses(reader)?,
            "st" => self.status = reader.uint()?,
            "ts" => self.timestamp = reader.time()?,
            "e" => self.error = read_text(reader)?,
            "a" => self.attempt_count = reader.int()?,
            "y" => self.is_priority = reader.bool()?,
            _ => reader.skip()?,
        }
        Ok(())
    }
}

impl Message for PinInfoShort {
    fn write(&self, out: &mut Writer) {
        let mut fields = Fields::new();
        self.put(&mut fields);
        fields.finish(out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<PinInfoShort, MsgpackError> {
        let mut short = PinInfoShort::default();
        reader.fields(|key, reader| short.read_field(key, reader))?;
        Ok(short)
    }
}

impl Message for PinInfo {
    fn write(&self, out: &mut Writer) {
        let mut fields = Fields::new();
        fields.raw_if("c", &cid_bytes(self.cid.as_ref()));
        fields.raw_if("m", self.name.as_bytes());
        fields.raw_if("p", self.peer.as_ref().map_or(&[], PeerId::as_bytes));
        fields.raws_if("o", raw_peers(self.allocations.as_ref()).as_deref());
        fields.raws_if("g", self.origins.as_deref());
        fields.time_if("t", self.created);
        if !self.metadata.is_empty() {
            put_text_map(fields.key("md"), &self.metadata);
        }
        self.short.put(&mut fields);
        fields.finish(out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<PinInfo, MsgpackError> {
        let mut info = PinInfo::default();
        reader.fields(|key, reader| {
            match key {
                "c" => info.cid = read_cid(reader)?,
                "m" => info.name = read_text(reader)?,
                "p" => info.peer = read_peer(reader)?,
                "o" => info.allocations = read_peers(reader)?,
                "g" => info.origins = read_addresses(reader)?,
                "t" => info.created = reader.time()?,
                "md" => info.metadata = read_map(reader, read_text)?.unwrap_or_default(),
                key => info.short.read_field(key, reader)?,
            }
            Ok::<_, MsgpackError>(())
        })?;
        Ok(info)
    }
}

impl Message for GlobalPinInfo {
    fn write(&self, out: &mut Writer) {
        let mut fields = Fields::new();
        fields.raw_if("c", &cid_bytes(self.cid.as_ref()));
        fields.raw_if("n", self.name.as_bytes());
        fields.raws_if("a", raw_peers(self.allocations.as_ref()).as_deref());
        fields.raws_if("g", self.origins.as_deref());
        fields.time_if("t", self.created);
        if !self.metadata.is_empty() {
            put_text_map(fields.key("m"), &self.metadata);
        }
        if !self.peers.is_empty() {
            let out = fields.key("pm");
            out.map(self.peers.len());
            for (peer, short) in &self.peers {
                out.text(peer);
                short.write(out);
            }
        }
        fields.finish(out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<GlobalPinInfo, MsgpackError> {
        let mut info = GlobalPinInfo::default();
        reader.fields(|key, reader| {
            match key {
                "c" => info.cid = read_cid(reader)?,
                "n" => info.name = read_text(reader)?,
                "a" => info.allocations = read_peers(reader)?,
                "g" => info.origins = read_addresses(reader)?,
                "t" => info.created = reader.time()?,
                "m" => info.metadata = read_map(reader, read_text)?.unwrap_or_default(),
                "pm" => info.peers = read_map(reader, PinInfoShort::read)?.unwrap_or_default(),
                _ => reader.skip()?,
            }
            Ok::<_, MsgpackError>(())
        })?;
        Ok(info)
    }
}
