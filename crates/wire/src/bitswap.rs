//! Bitswap messages (1.2.0, and what 1.1.0 and 1.0.0 have of them).
//!
//! Reading takes the message as [`Bytes`] and hands block data out as slices of it. Blocks are not hashed here: a [`Block`] carries the
//! [`Prefix`] from which the reader makes the CID once it knows the digest. Framing (a varint length before each message) is the caller's;
//! [`MESSAGE_BYTES_MAX`] is the bound for it.

use crate::cids::cid_from_bytes;
use crate::protobuf::{self as pb, Field, ProtobufError, Reader};
use bytes::Bytes;
use types::Cid;

/// The longest message, as in boxo.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// The most entries of one kind in a message: boxo sends far fewer.
pub const ENTRIES_MAX: usize = 16 << 10;

/// What is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WantKind {
    /// The block itself.
    #[default]
    Block,
    /// Only whether the peer has it.
    Have,
}

/// One wish, or its cancellation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// Which block.
    pub cid: Cid,
    /// Higher is served first.
    pub priority: i32,
    /// No longer wanted.
    pub is_cancel: bool,
    /// Block or answer.
    pub kind: WantKind,
    /// An answer is wanted also when the peer does not have it.
    pub send_dont_have: bool,
}

/// Whether a peer has a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It has.
    Have,
    /// It has not.
    DontHave,
}

/// The CID of a block without its digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// CID version.
    pub version: u64,
    /// Codec of the block.
    pub codec: u64,
    /// Multihash code.
    pub hash: u64,
    /// Length of the digest.
    pub digest_length: usize,
}

/// A block with the prefix of its CID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// CID without digest.
    pub prefix: Prefix,
    /// The data; a slice of the message it came in.
    pub data: Bytes,
}

/// One message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Wishes and cancellations.
    pub wants: Vec<Want>,
    /// `wants` replaces all earlier wishes of the sender.
    pub is_full: bool,
    /// Blocks of 1.0.0: sha2-256, CIDv0.
    pub blocks_legacy: Vec<Bytes>,
    /// Blocks.
    pub blocks: Vec<Block>,
    /// Answers to `Have` wishes.
    pub presences: Vec<(Cid, Presence)>,
    /// Bytes the sender still has queued for the receiver.
    pub pending_bytes: i32,
}

/// Why bytes are no bitswap message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BitswapDecodeError {
    /// Longer than [`MESSAGE_BYTES_MAX`].
    #[error("bitswap message: {0} bytes are too long")]
    TooLong(usize),
    /// Not protobuf, or a field of the wrong shape.
    #[error("bitswap message: {0}")]
    Protobuf(#[from] ProtobufError),
    /// An entry has no CID or a broken one.
    #[error("bitswap message: {0} entry without a valid CID")]
    Cid(&'static str),
    /// The prefix of a block is broken.
    #[error("bitswap message: invalid block prefix")]
    Prefix,
    /// More than [`ENTRIES_MAX`] entries of a kind.
    #[error("bitswap message: too many {0} entries")]
    TooMany(&'static str),
}

impl Prefix {
    /// The prefix of a CID.
    pub fn of(cid: &Cid) -> Prefix {
        let digest_length = usize::from(cid.hash().size());
        Prefix { version: cid.version().into(), codec: cid.codec(), hash: cid.hash().code(), digest_length }
    }

    /// The CID that this prefix and a digest make; none if they do not fit together.
    pub fn cid(&self, digest: &[u8]) -> Option<Cid> {
        let digest = digest.get(..self.digest_length)?;
        let hash = cid::multihash::Multihash::<64>::wrap(self.hash, digest).ok()?;
        let version = cid::Version::try_from(self.version).ok()?;
        Cid::new(version, self.codec, hash).ok()
    }

    /// Its bytes: four varints.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(8);
        for number in [self.version, self.codec, self.hash, self.digest_length as u64] {
            pb::put_varint(&mut out, number);
        }
        out
    }

    fn decode(bytes: &[u8]) -> Option<Prefix> {
        const DIGEST_BYTES_MAX: usize = 64;
        let (version, rest) = unsigned_varint::decode::u64(bytes).ok()?;
        let (codec, rest) = unsigned_varint::decode::u64(rest).ok()?;
        let (hash, rest) = unsigned_varint::decode::u64(rest).ok()?;
        let (digest_length, rest) = unsigned_varint::decode::usize(rest).ok()?;
        let is_good = rest.is_empty() && version <= 1 && digest_length <= DIGEST_BYTES_MAX;
        is_good.then_some(Prefix { version, codec, hash, digest_length })
    }
}

impl Want {
    /// Asks for the block.
    pub fn block(cid: Cid, priority: i32) -> Want {
        Want { cid, priority, is_cancel: false, kind: WantKind::Block, send_dont_have: true }
    }

    /// Asks whether the peer has the block.
    pub fn have(cid: Cid, priority: i32) -> Want {
        Want { kind: WantKind::Have, ..Want::block(cid, priority) }
    }

    /// Takes a wish back.
    pub fn cancel(cid: Cid) -> Want {
        Want { cid, priority: 0, is_cancel: true, kind: WantKind::Block, send_dont_have: false }
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(56);
        pb::put_bytes(&mut out, 1, &self.cid.to_bytes());
        pb::put_int32_if(&mut out, 2, self.priority);
        pb::put_uint_if(&mut out, 3, self.is_cancel.into());
        pb::put_uint_if(&mut out, 4, (self.kind == WantKind::Have).into());
        pb::put_uint_if(&mut out, 5, self.send_dont_have.into());
        out
    }

    fn decode(bytes: &[u8]) -> Result<Want, BitswapDecodeError> {
        let mut cid = None;
        let mut want = Want { cid: Cid::default(), priority: 0, is_cancel: false, kind: WantKind::Block, send_dont_have: false };
        for field in Reader::new(bytes) {
            let field = field?;
            match field.number {
                1 => cid = cid_from_bytes(field.bytes()?),
                2 => want.priority = field.int32()?,
                3 => want.is_cancel = field.uint()? != 0,
                4 => want.kind = if field.uint()? == 1 { WantKind::Have } else { WantKind::Block },
                5 => want.send_dont_have = field.uint()? != 0,
                _ => {}
            }
        }
        want.cid = cid.ok_or(BitswapDecodeError::Cid("wantlist"))?;
        Ok(want)
    }
}

impl Block {
    /// A block that is known by `cid`.
    pub fn new(cid: &Cid, data: Bytes) -> Block {
        Block { prefix: Prefix::of(cid), data }
    }

    /// How many bytes the block takes in a message.
    pub fn encoded_len(&self) -> usize {
        let inner = self.inner_len();
        1 + pb::varint_len(inner as u64) + inner
    }

    fn inner_len(&self) -> usize {
        let prefix = self.prefix.encode().len();
        2 + prefix + 1 + pb::varint_len(self.data.len() as u64) + self.data.len()
    }

    fn decode(field: &Field<'_>, message: &Bytes) -> Result<Block, BitswapDecodeError> {
        let mut prefix = None;
        let mut data = Bytes::new();
        for part in Reader::new(field.bytes()?) {
            let part = part?;
            match part.number {
                1 => prefix = Prefix::decode(part.bytes()?),
                2 => data = slice_of(message, part.bytes()?),
                _ => {}
            }
        }
        Ok(Block { prefix: prefix.ok_or(BitswapDecodeError::Prefix)?, data })
    }
}

impl Message {
    /// Whether it says nothing at all.
    pub fn is_empty(&self) -> bool {
        self.wants.is_empty() && !self.is_full && self.blocks_legacy.is_empty() && self.blocks.is_empty() && self.presences.is_empty()
    }

    /// Writes the message, without the length before it.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        self.append_to(&mut out);
        out.into()
    }

    /// Appends what [`Message::encode`] writes.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        let data: usize = self.blocks.iter().map(Block::encoded_len).sum();
        let legacy: usize = self.blocks_legacy.iter().map(|block| block.len() + 10).sum();
        out.reserve(data + legacy + (self.wants.len() + self.presences.len()) * 60 + 16);
        let mut head = Vec::with_capacity(64);
        let mut list = Vec::with_capacity(self.wants.len() * 56);
        for want in &self.wants {
            pb::put_bytes(&mut list, 1, &want.encode());
        }
        pb::put_uint_if(&mut list, 2, self.is_full.into());
        // Written when it is empty too, as Go does: boxo 0.30 (Kubo 0.35, ipfs-cluster 1.1.4) crashes on a message without it.
        pb::put_bytes(&mut head, 1, &list);
        for block in &self.blocks_legacy {
            pb::put_length(&mut head, 2, block.len());
            out.extend_from_slice(&head);
            head.clear();
            out.extend_from_slice(block);
        }
        for block in &self.blocks {
            pb::put_length(&mut head, 3, block.inner_len());
            pb::put_bytes(&mut head, 1, &block.prefix.encode());
            pb::put_length(&mut head, 2, block.data.len());
            out.extend_from_slice(&head);
            head.clear();
            out.extend_from_slice(&block.data);
        }
        for (cid, presence) in &self.presences {
            let mut entry = Vec::with_capacity(42);
            pb::put_bytes(&mut entry, 1, &cid.to_bytes());
            pb::put_uint_if(&mut entry, 2, (*presence == Presence::DontHave).into());
            pb::put_bytes(&mut head, 4, &entry);
        }
        pb::put_int32_if(&mut head, 5, self.pending_bytes);
        out.extend_from_slice(&head);
    }

    /// Reads a message that came without the length before it.
    pub fn decode(bytes: &Bytes) -> Result<Message, BitswapDecodeError> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(BitswapDecodeError::TooLong(bytes.len()));
        }
        let mut message = Message::default();
        for field in Reader::new(bytes) {
            let field = field?;
            match field.number {
                1 => message.read_wantlist(field.bytes()?)?,
                2 => push(&mut message.blocks_legacy, "legacy block", slice_of(bytes, field.bytes()?))?,
                3 => push(&mut message.blocks, "block", Block::decode(&field, bytes)?)?,
                4 => push(&mut message.presences, "presence", read_presence(field.bytes()?)?)?,
                5 => message.pending_bytes = field.int32()?,
                _ => {}
            }
        }
        Ok(message)
    }

    fn read_wantlist(&mut self, bytes: &[u8]) -> Result<(), BitswapDecodeError> {
        for field in Reader::new(bytes) {
            let field = field?;
            match field.number {
                1 => push(&mut self.wants, "wantlist", Want::decode(field.bytes()?)?)?,
                2 => self.is_full = field.uint()? != 0,
                _ => {}
            }
        }
        Ok(())
    }
}

fn read_presence(bytes: &[u8]) -> Result<(Cid, Presence), BitswapDecodeError> {
    let mut cid = None;
    let mut presence = Presence::Have;
    for field in Reader::new(bytes) {
        let field = field?;
        match field.number {
            1 => cid = cid_from_bytes(field.bytes()?),
            2 => presence = if field.uint()? == 0 { Presence::Have } else { Presence::DontHave },
            _ => {}
        }
    }
    Ok((cid.ok_or(BitswapDecodeError::Cid("presence"))?, presence))
}

fn push<T>(list: &mut Vec<T>, what: &'static str, entry: T) -> Result<(), BitswapDecodeError> {
    if list.len() == ENTRIES_MAX {
        return Err(BitswapDecodeError::TooMany(what));
    }
    list.push(entry);
    Ok(())
}

/// `part` as a share of the message it lies in, without a copy. (`slice_ref` panics on the empty slice of another buffer.)
fn slice_of(message: &Bytes, part: &[u8]) -> Bytes {
    if part.is_empty() { Bytes::new() } else { message.slice_ref(part) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::block_cid;

    fn full_message() -> Message {
        let (a, b) = (block_cid(b"a"), block_cid(b"b"));
        Message {
            wants: vec![Want::block(a, 5), Want::have(b, i32::MIN), Want::cancel(a)],
            is_full: true,
            blocks_legacy: vec![Bytes::from_static(b"old"), Bytes::new()],
            blocks: vec![Block::new(&a, Bytes::from(vec![7; 300])), Block::new(&b, Bytes::new())],
            presences: vec![(a, Presence::Have), (b, Presence::DontHave)],
            pending_bytes: 77,
        }
    }

    #[test]
    fn messages_read_back() {
        for message in [full_message(), Message::default()] {
            assert_eq!(Message::decode(&message.encode()), Ok(message));
        }
    }

    #[test]
    fn block_data_is_a_share_of_the_message() {
        let bytes = full_message().encode();
        let message = Message::decode(&bytes).expect("own message");
        let (start, end) = (bytes.as_ptr() as usize, bytes.as_ptr() as usize + bytes.len());
        let data = message.blocks[0].data.as_ptr() as usize;
        assert!((start..end).contains(&data));
    }

    #[test]
    fn a_want_is_written_as_boxo_writes_it() {
        let cid = block_cid(b"a");
        let bytes = Message { wants: vec![Want::have(cid, 1)], ..Message::default() }.encode();
        let expected = format!("0a2c0a2a0a24{}100120012801", hex::encode(cid.to_bytes()));
        // list 46 bytes: entry header 2, cid 38, priority 2, kind 2, send-dont-have 2.
        assert_eq!(hex::encode(&bytes), expected.replacen("0a2c0a2a", "0a2e0a2c", 1));
    }

    #[test]
    fn every_message_has_a_list_of_wants_for_peers_that_crash_without_one() {
        let cid = block_cid(b"a");
        let blocks = Message { blocks: vec![Block::new(&cid, Bytes::from_static(b"a"))], ..Message::default() };
        let presences = Message { presences: vec![(cid, Presence::Have)], ..Message::default() };
        for message in [blocks, presences, Message { blocks_legacy: vec![Bytes::from_static(b"a")], ..Message::default() }] {
            assert_eq!(message.encode()[..2], [0x0a, 0]);
        }
    }

    #[test]
    fn a_block_prefix_is_the_cid_without_digest() {
        let cid = block_cid(b"a");
        assert_eq!(Prefix::of(&cid).encode(), [0x01, 0x70, 0x12, 0x20]);
        assert_eq!(Prefix::of(&cid).cid(cid.hash().digest()), Some(cid));
        assert_eq!(Prefix::of(&cid).cid(&[0; 5]), None);
    }

    #[test]
    fn bounds_are_kept() {
        let cid = block_cid(b"a");
        let too_many = Message { wants: vec![Want::cancel(cid); ENTRIES_MAX + 1], ..Message::default() }.encode();
        assert_eq!(Message::decode(&too_many), Err(BitswapDecodeError::TooMany("wantlist")));
        let too_long = Bytes::from(vec![0; MESSAGE_BYTES_MAX + 1]);
        assert_eq!(Message::decode(&too_long), Err(BitswapDecodeError::TooLong(MESSAGE_BYTES_MAX + 1)));
        for (bytes, error) in [
            (&[0x0a, 2, 0x0a, 0][..], BitswapDecodeError::Cid("wantlist")),
            (&[0x22, 0], BitswapDecodeError::Cid("presence")),
            (&[0x1a, 2, 0x12, 0], BitswapDecodeError::Prefix),
            (&[0x1a, 3, 0x0a, 1, 5], BitswapDecodeError::Prefix),
        ] {
            assert_eq!(Message::decode(&Bytes::copy_from_slice(bytes)), Err(error));
        }
    }
}
