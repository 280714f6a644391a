//! Blocks, space and the other small values.

use super::{ENTRIES_MAX, Message, cid_bytes, raw_peers, read_cid, read_peer, read_peers, read_text};
use crate::msgpack::{Fields, MsgpackError, Reader, Writer};
use types::{Cid, PeerId};

/// A block on its way to a node (Go's `NodeWithMeta`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockWithMeta {
    /// The data.
    pub data: Vec<u8>,
    /// Its name.
    pub cid: Option<Cid>,
    /// Size of everything under it.
    pub size: u64,
}

impl Message for BlockWithMeta {
    /// Written straight to `out`: a block is long, and [`Fields`] would copy it once more.
    fn write(&self, out: &mut Writer) {
        let cid = cid_bytes(self.cid.as_ref());
        let (has_data, has_cid, has_size) = (!self.data.is_empty(), !cid.is_empty(), self.size != 0);
        out.map(usize::from(has_data) + usize::from(has_cid) + usize::from(has_size));
        if has_data {
            out.text("d");
            out.raw(&self.data);
        }
        if has_cid {
            out.text("c");
            out.raw(&cid);
        }
        if has_size {
            out.text("s");
            out.uint(self.size);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<BlockWithMeta, MsgpackError> {
        let mut block = BlockWithMeta::default();
        reader.fields(|key, reader| {
            match key {
                "d" => block.data = reader.bytes()?.to_vec(),
                "c" => block.cid = read_cid(reader)?,
                "s" => block.size = reader.uint()?,
                _ => reader.skip()?,
            }
            Ok::<_, MsgpackError>(())
        })?;
        Ok(block)
    }
}

/// Space of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RepoStat {
    /// Bytes used.
    pub repo_size: u64,
    /// Bytes allowed.
    pub storage_max: u64,
}

impl Message for RepoStat {
    fn write(&self, out: &mut Writer) {
        let mut fields = Fields::new();
        fields.uint_if("r", self.repo_size);
        // A blank in Go's tag: never left out.
        fields.key("s").uint(self.storage_max);
        fields.finish(out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<RepoStat, MsgpackError> {
        let mut stat = RepoStat::default();
        reader.fields(|key, reader| {
            match key {
                "r" => stat.repo_size = reader.uint()?,
                "s" => stat.storage_max = reader.uint()?,
                _ => reader.skip()?,
            }
            Ok::<_, MsgpackError>(())
        })?;
        Ok(stat)
    }
}

/// One block that garbage collection removed, or failed to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GcKey {
    /// Which block.
    pub key: Option<Cid>,
    /// What went wrong.
    pub error: String,
}

impl Message for GcKey {
    fn write(&self, out: &mut Writer) {
        let mut fields = Fields::new();
        fields.raw_if("k", &cid_bytes(self.key.as_ref()));
        fields.raw_if("e", self.error.as_bytes());
        fields.finish(out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<GcKey, MsgpackError> {
        let mut entry = GcKey::default();
        reader.fields(|key, reader| {
            match key {
                "k" => entry.key = read_cid(reader)?,
                "e" => entry.error = read_text(reader)?,
                _ => reader.skip()?,
            }
            Ok::<_, MsgpackError>(())
        })?;
        Ok(entry)
    }
}

/// What garbage collection of one peer's node did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepoGc {
    /// Whose node.
    pub peer: Option<PeerId>,
    /// The peer's name.
    pub peer_name: String,
    /// What was removed.
    pub keys: Option<Vec<GcKey>>,
    /// What went wrong altogether.
    pub error: String,
}

impl Message for RepoGc {
    fn write(&self, out: &mut Writer) {
        let mut fields = Fields::new();
        fields.raw_if("p", self.peer.as_ref().map_or(&[], PeerId::as_bytes));
        fields.raw_if("pn", self.peer_name.as_bytes());
        if let Some(keys) = &self.keys {
            let out = fields.key("k");
            out.array(keys.len());
            keys.iter().for_each(|key| key.write(out));
        }
        fields.raw_if("e", self.error.as_bytes());
        fields.finish(out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<RepoGc, MsgpackError> {
        let mut gc = RepoGc::default();
        reader.fields(|key, reader| {
            match key {
                "p" => gc.peer = read_peer(reader)?,
                "pn" => gc.peer_name = read_text(reader)?,
                "k" => gc.keys = reader.list(ENTRIES_MAX, GcKey::read)?,
                "e" => gc.error = read_text(reader)?,
                _ => reader.skip()?,
            }
            Ok::<_, MsgpackError>(())
        })?;
        Ok(gc)
    }
}

/// How a node holds a pin: 1 error, 2 direct, 3 recursive, 4 indirect, 5 not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PinLsInfo {
    /// Which content.
    pub cid: Option<Cid>,
    /// How.
    pub kind: i64,
}

impl Message for PinLsInfo {
    fn write(&self, out: &mut Writer) {
        let mut fields = Fields::new();
        fields.raw_if("c", &cid_bytes(self.cid.as_ref()));
        fields.int_if("t", self.kind);
        fields.finish(out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<PinLsInfo, MsgpackError> {
        let mut info = PinLsInfo::default();
        reader.fields(|key, reader| {
            match key {
                "c" => info.cid = read_cid(reader)?,
                "t" => info.kind = reader.int()?,
                _ => reader.skip()?,
            }
            Ok::<_, MsgpackError>(())
        })?;
        Ok(info)
    }
}

/// Version of a peer's program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// As people read it.
    pub version: String,
}

impl Message for Version {
    fn write(&self, out: &mut Writer) {
        let mut fields = Fields::new();
        fields.raw_if("v", self.version.as_bytes());
        fields.finish(out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Version, MsgpackError> {
        let mut version = Version::default();
        reader.fields(|key, reader| match key {
            "v" => read_text(reader).map(|text| version.version = text),
            _ => reader.skip(),
        })?;
        Ok(version)
    }
}

/// An error as a value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RpcError {
    /// Number, as in HTTP.
    pub code: i64,
    /// Words.
    pub message: String,
}

impl Message for RpcError {
    fn write(&self, out: &mut Writer) {
        let mut fields = Fields::new();
        fields.int_if("o", self.code);
        fields.raw_if("m", self.message.as_bytes());
        fields.finish(out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<RpcError, MsgpackError> {
        let mut error = RpcError::default();
        reader.fields(|key, reader| {
            match key {
                "o" => error.code = reader.int()?,
                "m" => error.message = read_text(reader)?,
                _ => reader.skip()?,
            }
            Ok::<_, MsgpackError>(())
        })?;
        Ok(error)
    }
}

/// One line about something added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddedOutput {
    /// Its path.
    pub name: String,
    /// Its CID.
    pub cid: Option<Cid>,
    /// Bytes read so far.
    pub bytes: u64,
    /// Size of everything under it.
    pub size: u64,
    /// Who holds it.
    pub allocations: Option<Vec<PeerId>>,
}

impl Message for AddedOutput {
    fn write(&self, out: &mut Writer) {
        let mut fields = Fields::new();
        fields.raw_if("n", self.name.as_bytes());
        fields.raw_if("c", &cid_bytes(self.cid.as_ref()));
        fields.uint_if("b", self.bytes);
        fields.uint_if("s", self.size);
        fields.raws_if("a", raw_peers(self.allocations.as_ref()).as_deref());
        fields.finish(out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<AddedOutput, MsgpackError> {
        let mut added = AddedOutput::default();
        reader.fields(|key, reader| {
            match key {
                "n" => added.name = read_text(reader)?,
                "c" => added.cid = read_cid(reader)?,
                "b" => added.bytes = reader.uint()?,
                "s" => added.size = reader.uint()?,
                "a" => added.allocations = read_peers(reader)?,
                _ => reader.skip()?,
            }
            Ok::<_, MsgpackError>(())
        })?;
        Ok(added)
    }
}
