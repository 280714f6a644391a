//! Who peers are and how they are linked.

use super::{Message, raw_peers, read_addresses, read_map, read_peer, read_peers, read_text};
use crate::msgpack::{Fields, MsgpackError, Reader, Writer};
use std::collections::BTreeMap;
use types::PeerId;

/// A peer about its node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IpfsId {
    /// The node.
    pub id: Option<PeerId>,
    /// Its binary multiaddrs with `/p2p/`: Go nodes are told to dial them.
    pub addresses: Option<Vec<Vec<u8>>>,
    /// Why it is not known.
    pub error: String,
}

/// A peer about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Id {
    /// The peer.
    pub id: Option<PeerId>,
    /// Its binary multiaddrs with `/p2p/`.
    pub addresses: Option<Vec<Vec<u8>>>,
    /// All members it knows, itself among them (Go's `peers ls` takes one off).
    pub cluster_peers: Option<Vec<PeerId>>,
    /// Their binary multiaddrs.
    pub cluster_peers_addresses: Option<Vec<Vec<u8>>>,
    /// Of its program.
    pub version: String,
    /// Of its program.
    pub commit: String,
    /// [`super::RPC_PROTOCOL`].
    pub rpc_protocol_version: String,
    /// Why it did not answer.
    pub error: String,
    /// Its node.
    pub ipfs: Option<IpfsId>,
    /// Its name.
    pub peer_name: String,
}

impl Message for IpfsId {
    fn write(&self, out: &mut Writer) {
        let mut fields = Fields::new();
        fields.raw_if("i", self.id.as_ref().map_or(&[], PeerId::as_bytes));
        fields.raws_if("a", self.addresses.as_deref());
        fields.raw_if("e", self.error.as_bytes());
        fields.finish(out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<IpfsId, MsgpackError> {
        let mut ipfs = IpfsId::default();
        reader.fields(|key, reader| {
            match key {
                "i" => ipfs.id = read_peer(reader)?,
                "a" => ipfs.addresses = read_addresses(reader)?,
                "e" => ipfs.error = read_text(reader)?,
                _ => reader.skip()?,
            }
            Ok::<_, MsgpackError>(())
        })?;
        Ok(ipfs)
    }
}

impl Message for Id {
    fn write(&self, out: &mut Writer) {
        let mut fields = Fields::new();
        fields.raw_if("i", self.id.as_ref().map_or(&[], PeerId::as_bytes));
        fields.raws_if("a", self.addresses.as_deref());
        fields.raws_if("cp", raw_peers(self.cluster_peers.as_ref()).as_deref());
        fields.raws_if("cpa", self.cluster_peers_addresses.as_deref());
        fields.raw_if("v", self.version.as_bytes());
        fields.raw_if("c", self.commit.as_bytes());
        fields.raw_if("rv", self.rpc_protocol_version.as_bytes());
        fields.raw_if("e", self.error.as_bytes());
        if let Some(ipfs) = &self.ipfs {
            ipfs.write(fields.key("ip"));
        }
        fields.raw_if("pn", self.peer_name.as_bytes());
        fields.finish(out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Id, MsgpackError> {
        let mut id = Id::default();
        reader.fields(|key, reader| {
            match key {
                "i" => id.id = read_peer(reader)?,
                "a" => id.addresses = read_addresses(reader)?,
                "cp" => id.cluster_peers = read_peers(reader)?,
                "cpa" => id.cluster_peers_addresses = read_addresses(reader)?,
                "v" => id.version = read_text(reader)?,
                "c" => id.commit = read_text(reader)?,
                "rv" => id.rpc_protocol_version = read_text(reader)?,
                "e" => id.error = read_text(reader)?,
                "ip" => id.ipfs = if reader.take_nil() { None } else { Some(IpfsId::read(reader)?) },
                "pn" => id.peer_name = read_text(reader)?,
                _ => reader.skip()?,
            }
            Ok::<_, MsgpackError>(())
        })?;
        Ok(id)
    }
}

/// Who is linked to whom. Keys are peer ids in base58.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectGraph {
    /// Who asks.
    pub cluster_id: Option<PeerId>,
    /// Names of peers.
    pub names: Option<BTreeMap<String, String>>,
    /// Links between nodes.
    pub ipfs_links: Option<BTreeMap<String, Vec<PeerId>>>,
    /// Links between peers.
    pub cluster_links: Option<BTreeMap<String, Vec<PeerId>>>,
    /// Which peers are trusted.
    pub cluster_trust_links: Option<BTreeMap<String, bool>>,
    /// The node of each peer.
    pub cluster_to_ipfs: Option<BTreeMap<String, PeerId>>,
}

impl Message for ConnectGraph {
    fn write(&self, out: &mut Writer) {
        let mut fields = Fields::new();
        fields.raw_if("id", self.cluster_id.as_ref().map_or(&[], PeerId::as_bytes));
        put_map(&mut fields, "ip", self.names.as_ref(), |out, name| out.text(name));
        put_map(&mut fields, "il", self.ipfs_links.as_ref(), |out, peers| peers.write(out));
        put_map(&mut fields, "cl", self.cluster_links.as_ref(), |out, peers| peers.write(out));
        put_map(&mut fields, "ctl", self.cluster_trust_links.as_ref(), |out, trust| out.bool(*trust));
        put_map(&mut fields, "ci", self.cluster_to_ipfs.as_ref(), |out, peer| peer.write(out));
        fields.finish(out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<ConnectGraph, MsgpackError> {
        let mut graph = ConnectGraph::default();
        reader.fields(|key, reader| {
            match key {
                "id" => graph.cluster_id = read_peer(reader)?,
                "ip" => graph.names = read_map(reader, read_text)?,
                "il" => graph.ipfs_links = read_map(reader, Vec::read)?,
                "cl" => graph.cluster_links = read_map(reader, Vec::read)?,
                "ctl" => graph.cluster_trust_links = read_map(reader, |reader| reader.bool())?,
                "ci" => graph.cluster_to_ipfs = read_map(reader, PeerId::read)?,
                _ => reader.skip()?,
            }
            Ok::<_, MsgpackError>(())
        })?;
        Ok(graph)
    }
}

fn put_map<T>(fields: &mut Fields, key: &str, map: Option<&BTreeMap<String, T>>, put: impl Fn(&mut Writer, &T)) {
    let Some(map) = map else { return };
    let out = fields.key(key);
    out.map(map.len());
    for (key, value) in map {
        out.text(key);
        put(out, value);
    }
}
