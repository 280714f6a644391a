//! Calls between peers of a Go cluster (`/ipfscluster/1.0/rpc`): headers, arguments and answers.
//!
//! A stream carries one call: request header, arguments; then pairs of response header and answer. No lengths stand between the values:
//! find their ends with [`crate::msgpack::Scanner`], then read each with [`decode`]. Structs are maps with short keys in Go's order; what is
//! zero is left out. Go's nil lists are none, its empty ones are `Some` of nothing: both occur and print differently.

mod header;
mod node;
mod peers;
mod pin;
mod status;

pub use header::{ErrorKind, Request, Response};
pub use node::{AddedOutput, BlockWithMeta, GcKey, PinLsInfo, RepoGc, RepoStat, RpcError, Version};
pub use peers::{ConnectGraph, Id, IpfsId};
pub use pin::{BadRpcPin, MODE_DIRECT, RpcPin, kind_of_bits};
pub use status::{GlobalPinInfo, PinInfo, PinInfoShort};

use crate::cids::cid_from_bytes;
use crate::msgpack::{MsgpackError, Reader, Writer};
use crate::status::Filter;
use std::collections::BTreeMap;
use types::{Cid, PeerId};

/// The protocol of the streams.
pub const RPC_PROTOCOL: &str = "/ipfscluster/1.0/rpc";
/// The longest header.
pub const HEADER_BYTES_MAX: usize = 64 << 10;
/// The longest value other than a header: blocks are at most 2 MiB.
pub const VALUE_BYTES_MAX: usize = 4 << 20;
/// The longest answer of `RepoGCLocal`, which names every block that was removed: about a million of them.
pub const GC_BYTES_MAX: usize = 64 << 20;
/// The most entries in one list.
pub const ENTRIES_MAX: usize = 1 << 20;

/// A value of a call.
pub trait Message: Sized {
    /// Writes it as Go does.
    fn write(&self, out: &mut Writer);
    /// Reads it from what Go or anyone else wrote.
    fn read(reader: &mut Reader<'_>) -> Result<Self, MsgpackError>;
}

/// Writes one value.
pub fn encode<M: Message>(message: &M) -> Vec<u8> {
    let mut out = Writer::new();
    message.write(&mut out);
    out.into_bytes()
}

/// Reads one value; nothing may follow it.
pub fn decode<M: Message>(bytes: &[u8]) -> Result<M, MsgpackError> {
    let mut reader = Reader::new(bytes);
    let message = M::read(&mut reader)?;
    reader.end()?;
    Ok(message)
}

/// The argument and answer "nothing": an empty map; nil is taken.
impl Message for () {
    fn write(&self, out: &mut Writer) {
        out.map(0);
    }

    fn read(reader: &mut Reader<'_>) -> Result<(), MsgpackError> {
        reader.fields(|_, reader| reader.skip())
    }
}

impl Message for PeerId {
    fn write(&self, out: &mut Writer) {
        out.raw(self.as_bytes());
    }

    fn read(reader: &mut Reader<'_>) -> Result<PeerId, MsgpackError> {
        read_peer(reader)?.ok_or(MsgpackError::Invalid("peer id"))
    }
}

impl Message for Cid {
    fn write(&self, out: &mut Writer) {
        out.raw(&self.to_bytes());
    }

    fn read(reader: &mut Reader<'_>) -> Result<Cid, MsgpackError> {
        read_cid(reader)?.ok_or(MsgpackError::Invalid("CID"))
    }
}

impl Message for Filter {
    fn write(&self, out: &mut Writer) {
        out.int(self.0 as i64);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Filter, MsgpackError> {
        reader.int().map(|bits| Filter(bits as u64))
    }
}

/// A list of peers; nil is empty.
impl Message for Vec<PeerId> {
    fn write(&self, out: &mut Writer) {
        out.array(self.len());
        self.iter().for_each(|peer| out.raw(peer.as_bytes()));
    }

    fn read(reader: &mut Reader<'_>) -> Result<Vec<PeerId>, MsgpackError> {
        Ok(reader.list(ENTRIES_MAX, PeerId::read)?.unwrap_or_default())
    }
}

/// A peer id; nil and empty bytes are none.
pub(crate) fn read_peer(reader: &mut Reader<'_>) -> Result<Option<PeerId>, MsgpackError> {
    match reader.bytes()? {
        [] => Ok(None),
        bytes => PeerId::from_bytes(bytes).map(Some).map_err(|_| MsgpackError::Invalid("peer id")),
    }
}

/// A CID; nil is none (Go's undefined CID), an empty text is an error as in Go.
fn read_cid(reader: &mut Reader<'_>) -> Result<Option<Cid>, MsgpackError> {
    if reader.take_nil() {
        return Ok(None);
    }
    cid_from_bytes(reader.bytes()?).map(Some).ok_or(MsgpackError::Invalid("CID"))
}

fn read_peers(reader: &mut Reader<'_>) -> Result<Option<Vec<PeerId>>, MsgpackError> {
    reader.list(ENTRIES_MAX, PeerId::read)
}

/// Binary multiaddrs.
fn read_addresses(reader: &mut Reader<'_>) -> Result<Option<Vec<Vec<u8>>>, MsgpackError> {
    reader.list(ENTRIES_MAX, |reader| reader.bytes().map(<[u8]>::to_vec))
}

fn read_map<T>(
    reader: &mut Reader<'_>,
    read: impl Fn(&mut Reader<'_>) -> Result<T, MsgpackError>,
) -> Result<Option<BTreeMap<String, T>>, MsgpackError> {
    let Some(count) = reader.map()? else { return Ok(None) };
    let mut map = BTreeMap::new();
    for _ in 0..count {
        let key = reader.text()?.to_owned();
        map.insert(key, read(reader)?);
    }
    Ok(Some(map))
}

fn read_text(reader: &mut Reader<'_>) -> Result<String, MsgpackError> {
    reader.text().map(str::to_owned)
}

/// Peer ids as the writer of lists wants them.
fn raw_peers(peers: Option<&Vec<PeerId>>) -> Option<Vec<&[u8]>> {
    peers.map(|peers| peers.iter().map(PeerId::as_bytes).collect())
}

fn cid_bytes(cid: Option<&Cid>) -> Vec<u8> {
    cid.map(Cid::to_bytes).unwrap_or_default()
}

fn put_text_map(out: &mut Writer, map: &BTreeMap<String, String>) {
    out.map(map.len());
    for (key, value) in map {
        out.text(key);
        out.text(value);
    }
}
