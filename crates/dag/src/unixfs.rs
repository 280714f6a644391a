//! UnixFS: what the bytes of a dag-pb node say about files, directories and symlinks.

use crate::DecodeError;
use crate::links::MAX_LINKS;
use crate::pb::wire::{Reader, Value, put_length, put_number, varint_length};

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Bytes of a file, written by trickle and old importers.
    Raw,
    /// A directory with all entries in one node.
    Directory,
    /// A file or a part of one.
    File,
    /// A wrapper of old times; carries no content of ours.
    Metadata,
    /// A symlink; its data is the target.
    Symlink,
    /// A directory, or a part of one, spread over a hash trie.
    HamtShard,
}

/// When a file was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mtime {
    /// Seconds since 1970, negative before.
    pub seconds: i64,
    /// Fraction of a second, below 1,000,000,000.
    pub nanos: u32,
}

/// The optional attributes of a file or directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// Unix permissions with setuid, setgid and sticky; not written when 0 or absent.
    pub mode: Option<u32>,
    /// Time of the last change.
    pub mtime: Option<Mtime>,
}

impl Stat {
    /// Whether nothing would be written.
    pub fn is_empty(&self) -> bool {
        self.mode.unwrap_or_default() == 0 && self.mtime.is_none()
    }
}

/// A decoded UnixFS message, borrowing from its block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixFs<'a> {
    /// What the node is.
    pub kind: Kind,
    /// File bytes, symlink target, or the bit field of a shard.
    pub data: Option<&'a [u8]>,
    /// Bytes of the file below this node.
    pub filesize: Option<u64>,
    /// File bytes below each link.
    pub blocksizes: Vec<u64>,
    /// Hash function of a shard.
    pub hash_type: Option<u64>,
    /// Width of a shard.
    pub fanout: Option<u64>,
    /// Mode and time.
    pub stat: Stat,
}

const WHAT: &str = "unixfs data";

impl<'a> UnixFs<'a> {
    /// A message of `kind` with nothing in it.
    pub fn new(kind: Kind) -> UnixFs<'a> {
        UnixFs { kind, data: None, filesize: None, blocksizes: Vec::new(), hash_type: None, fanout: None, stat: Stat::default() }
    }

    /// Reads the bytes of a dag-pb node. Unknown fields are skipped, as protobuf wants.
    pub fn decode(bytes: &'a [u8]) -> Result<UnixFs<'a>, DecodeError> {
        let mut kind = None;
        let mut unixfs = UnixFs::new(Kind::Raw);
        let mut fields = Reader::new(bytes, WHAT);
        while let Some((number, value)) = fields.field()? {
            match number {
                1 => kind = Some(Kind::from_number(value.varint(WHAT)?)?),
                2 => unixfs.data = Some(value.bytes(WHAT)?),
                3 => unixfs.filesize = Some(value.varint(WHAT)?),
                4 => read_blocksizes(value, &mut unixfs.blocksizes)?,
                5 => unixfs.hash_type = Some(value.varint(WHAT)?),
                6 => unixfs.fanout = Some(value.varint(WHAT)?),
                7 => unixfs.stat.mode = Some(value.varint(WHAT)? as u32),
                8 => unixfs.stat.mtime = Some(Mtime::decode(value.bytes(WHAT)?)?),
                _ => {}
            }
        }
        unixfs.kind = kind.ok_or_else(|| DecodeError::malformed(WHAT, "no type"))?;
        Ok(unixfs)
    }

    /// Writes the message as Kubo does.
    pub fn encode(&self) -> Vec<u8> {
        let data_length = self.data.map_or(0, <[u8]>::len);
        let mut out = Vec::with_capacity(data_length + self.blocksizes.len() * 4 + 48);
        put_number(&mut out, 1, self.kind.number());
        if let Some(data) = self.data {
            put_length(&mut out, 2, data.len());
            out.extend_from_slice(data);
        }
        self.encode_tail(&mut out);
        out
    }

    fn encode_tail(&self, out: &mut Vec<u8>) {
        if let Some(filesize) = self.filesize {
            put_number(out, 3, filesize);
        }
        for blocksize in &self.blocksizes {
            put_number(out, 4, *blocksize);
        }
        if let Some(hash_type) = self.hash_type {
            put_number(out, 5, hash_type);
        }
        if let Some(fanout) = self.fanout {
            put_number(out, 6, fanout);
        }
        if let Some(mode) = self.stat.mode.filter(|mode| *mode != 0) {
            put_number(out, 7, u64::from(mode));
        }
        if let Some(mtime) = self.stat.mtime {
            mtime.encode(out);
        }
    }

    /// The size of the file, where this is one.
    pub fn file_size(&self) -> Option<u64> {
        match self.kind {
            Kind::File | Kind::Raw => Some(self.filesize.unwrap_or(self.data.map_or(0, |data| data.len() as u64))),
            Kind::Symlink => Some(self.data.map_or(0, |target| target.len() as u64)),
            Kind::Directory | Kind::HamtShard | Kind::Metadata => None,
        }
    }
}

/// The whole dag-pb block of a leaf with `data`: node and message written in one go, so that the data is copied once.
pub fn leaf_block(kind: Kind, data: &[u8], stat: Stat) -> Vec<u8> {
    let mut tail = Vec::with_capacity(40);
    let size = data.len() as u64;
    UnixFs { filesize: Some(size), stat, ..UnixFs::new(kind) }.encode_tail(&mut tail);
    let data_field = if data.is_empty() { 0 } else { 1 + varint_length(size) + data.len() };
    let message = 2 + data_field + tail.len();
    let mut out = Vec::with_capacity(message + 11);
    put_length(&mut out, 1, message);
    put_number(&mut out, 1, kind.number());
    if !data.is_empty() {
        put_length(&mut out, 2, data.len());
        out.extend_from_slice(data);
    }
    out.extend_from_slice(&tail);
    out
}

fn read_blocksizes(value: Value<'_>, sizes: &mut Vec<u64>) -> Result<(), DecodeError> {
    let mut push = |size| {
        if sizes.len() == MAX_LINKS {
            return Err(DecodeError::too_much("block sizes", MAX_LINKS));
        }
        sizes.push(size);
        Ok(())
    };
    match value {
        Value::Varint(size) => push(size),
        Value::Bytes(packed) => {
            let mut packed = Reader::new(packed, WHAT);
            while let Some(size) = packed.packed_varint()? {
                push(size)?;
            }
            Ok(())
        }
        Value::Fixed32(_) | Value::Fixed64(_) => Err(DecodeError::malformed(WHAT, "wrong wire type, varint expected")),
    }
}

impl Kind {
    fn from_number(number: u64) -> Result<Kind, DecodeError> {
        Ok(match number {
            0 => Kind::Raw,
            1 => Kind::Directory,
            2 => Kind::File,
            3 => Kind::Metadata,
            4 => Kind::Symlink,
            5 => Kind::HamtShard,
            _ => return Err(DecodeError::malformed(WHAT, "type that does not exist")),
        })
    }

    fn number(self) -> u64 {
        match self {
            Kind::Raw => 0,
            Kind::Directory => 1,
            Kind::File => 2,
            Kind::Metadata => 3,
            Kind::Symlink => 4,
            Kind::HamtShard => 5,
        }
    }
}

impl Mtime {
    fn decode(bytes: &[u8]) -> Result<Mtime, DecodeError> {
        let mut seconds = None;
        let mut nanos = 0;
        let mut fields = Reader::new(bytes, WHAT);
        while let Some((number, value)) = fields.field()? {
            match (number, value) {
                (1, value) => seconds = Some(value.varint(WHAT)? as i64),
                (2, Value::Fixed32(fraction)) if fraction < 1_000_000_000 => nanos = fraction,
                (2, _) => return Err(DecodeError::malformed(WHAT, "fraction of a second")),
                _ => {}
            }
        }
        let seconds = seconds.ok_or_else(|| DecodeError::malformed(WHAT, "time without seconds"))?;
        Ok(Mtime { seconds, nanos })
    }

    fn encode(self, out: &mut Vec<u8>) {
        let seconds = self.seconds as u64;
        let fraction = if self.nanos > 0 { 5 } else { 0 };
        put_length(out, 8, 1 + varint_length(seconds) + fraction);
        put_number(out, 1, seconds);
        if self.nanos > 0 {
            out.push(2 << 3 | 5);
            out.extend_from_slice(&self.nanos.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::Node;

    #[test]
    fn messages_go_round() {
        let stat = Stat { mode: Some(0o4755), mtime: Some(Mtime { seconds: -5, nanos: 123_456_789 }) };
        let file = UnixFs { data: Some(b"x"), filesize: Some(300), blocksizes: vec![1, 299], stat, ..UnixFs::new(Kind::File) };
        let shard = UnixFs { data: Some(&[1, 2]), hash_type: Some(0x22), fanout: Some(256), ..UnixFs::new(Kind::HamtShard) };
        for message in [file, shard, UnixFs::new(Kind::Directory), UnixFs { data: Some(b""), ..UnixFs::new(Kind::Symlink) }] {
            let bytes = message.encode();
            assert_eq!(UnixFs::decode(&bytes), Ok(message));
        }
    }

    #[test]
    fn packed_block_sizes_are_read_too() {
        let unixfs = UnixFs::decode(b"\x08\x02\x22\x03\x01\xac\x02").map(|unixfs| unixfs.blocksizes);
        assert_eq!(unixfs, Ok(vec![1, 300]));
    }

    #[test]
    fn a_leaf_written_in_one_go_equals_the_two_steps() {
        let stat = Stat { mode: Some(0o644), mtime: Some(Mtime { seconds: 1_700_000_000, nanos: 0 }) };
        for length in [0, 1, 100, 128, 300, 70_000] {
            for stat in [Stat::default(), stat] {
                let data = vec![7; length];
                let whole = Some(&data[..]).filter(|data| !data.is_empty());
                let message = UnixFs { data: whole, filesize: Some(length as u64), stat, ..UnixFs::new(Kind::File) }.encode();
                let node = Node { links: vec![], data: Some(&message) }.encode();
                assert_eq!(leaf_block(Kind::File, &data, stat), node, "{length}");
            }
        }
    }

    #[test]
    fn broken_messages_are_refused() {
        for bytes in [&b""[..], b"\x08\x09", b"\x12\x05a", b"\x08\x02\x42\x00", b"\x08\x02\x1d\x00\x00\x00\x00"] {
            assert!(UnixFs::decode(bytes).is_err(), "{bytes:?}");
        }
    }
}
