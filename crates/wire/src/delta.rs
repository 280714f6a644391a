//! Blocks of the CRDT DAG: a dag-pb node whose links are the heads it was built on and whose data is a delta.
//!
//! Our own blocks carry their author and a signature in field 1001 of the delta, which Go peers take, keep and serve unchanged. Whether
//! a block without one is accepted, and the check of the signature, are the reader's business: [`signing_bytes`] says what is signed.

use crate::cids::{DAG_PB, SHA2_256, cid_from_bytes, sha2_256};
use crate::protobuf::{self as pb, ProtobufError, Reader};
use data_encoding::BASE32_NOPAD;
use types::{Cid, PeerId};

/// The longest block read: what fits one bitswap message. Go commits deltas when they are over 1 MiB.
pub const BLOCK_BYTES_MAX: usize = 4 << 20;

/// The most additions, and the most removals, in a delta: Go commits at 1 MiB, and each of either takes 100 bytes and more.
pub const ELEMENTS_MAX: usize = 64 << 10;
/// The most links of a block. Each is a head that somebody built on; a healthy cluster has a few.
pub const LINKS_MAX: usize = 16 << 10;

/// The field of [`Delta`] that holds our author and signature; Go skips it.
const AUTHOR_FIELD: u32 = 1001;

/// One change of a key: in `elements` the key gets `value`, in `tombstones` the addition `id` of the key is undone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element {
    /// Key of the pin, see [`pin_key`].
    pub key: String,
    /// Empty in additions; in tombstones the [`element_id`] of the block that added.
    pub id: String,
    /// Stored pin in additions; empty in tombstones.
    pub value: Vec<u8>,
}

/// Who made a delta, with the proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorSignature {
    /// The author.
    pub author: PeerId,
    /// Ed25519 over [`signing_bytes`].
    pub signature: Vec<u8>,
}

/// What one block changes. Tombstones apply before elements; of a key named twice the last element counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Additions.
    pub elements: Vec<Element>,
    /// Removals.
    pub tombstones: Vec<Element>,
    /// One more than the highest head below; 1 in a block without links.
    pub priority: u64,
    /// Author and signature, in blocks of Pinfold peers.
    pub author: Option<AuthorSignature>,
}

/// A block of the DAG, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrdtNode {
    /// The heads it was built on.
    pub links: Vec<Cid>,
    /// What it changes.
    pub delta: Delta,
}

/// Why bytes are no CRDT block or delta.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeDecodeError {
    /// Longer than [`BLOCK_BYTES_MAX`].
    #[error("CRDT block: {0} bytes are too long")]
    TooLong(usize),
    /// More than [`ELEMENTS_MAX`] or [`LINKS_MAX`].
    #[error("CRDT block: too many {0}")]
    TooMany(&'static str),
    /// Not protobuf, or a field of the wrong shape.
    #[error("CRDT block: {0}")]
    Protobuf(#[from] ProtobufError),
    /// A link has no CID or a broken one.
    #[error("CRDT block: link {0} has no valid CID")]
    Link(usize),
    /// dag-pb knows only links and data.
    #[error("CRDT block: dag-pb has no field {0}")]
    Field(u32),
    /// dag-pb has one data field.
    #[error("CRDT block: the data must stand exactly once")]
    Data,
}

/// Why a key of the set names no CID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no key of a pin")]
pub struct BadPinKey(pub String);

/// Writes a delta without holding its parts: additions, then removals, then [`DeltaWriter::finish`].
#[derive(Debug, Default)]
pub struct DeltaWriter(Vec<u8>);

impl DeltaWriter {
    /// Room for so many bytes.
    pub fn with_capacity(bytes: usize) -> DeltaWriter {
        DeltaWriter(Vec::with_capacity(bytes))
    }

    /// The key gets `value`.
    pub fn put(&mut self, key: &str, value: &[u8]) {
        put_element(&mut self.0, 1, key, "", value);
    }

    /// The addition `id` of the key is undone.
    pub fn remove(&mut self, key: &str, id: &str) {
        put_element(&mut self.0, 2, key, id, &[]);
    }

    /// The delta without an author: what the author signs, and what [`put_author`] is written behind.
    pub fn finish(mut self, priority: u64) -> Vec<u8> {
        pb::put_uint_if(&mut self.0, 3, priority);
        self.0
    }
}

/// Writes the author behind a delta that has none.
pub fn put_author(delta: &mut Vec<u8>, author: &AuthorSignature) {
    let mut inner = Vec::with_capacity(110);
    pb::put_bytes(&mut inner, 1, author.author.as_bytes());
    pb::put_bytes(&mut inner, 2, &author.signature);
    pb::put_bytes(delta, AUTHOR_FIELD, &inner);
}

impl Delta {
    /// Writes the delta, author last.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.encode_unsigned();
        if let Some(author) = &self.author {
            put_author(&mut out, author);
        }
        out
    }

    /// The same without the author.
    pub fn encode_unsigned(&self) -> Vec<u8> {
        let size = |elements: &[Element]| elements.iter().map(|e| e.key.len() + e.id.len() + e.value.len() + 32).sum::<usize>();
        let mut out = Vec::with_capacity(size(&self.elements) + size(&self.tombstones) + 128);
        for (number, entries) in [(1, &self.elements), (2, &self.tombstones)] {
            for Element { key, id, value } in entries {
                put_element(&mut out, number, key, id, value);
            }
        }
        pb::put_uint_if(&mut out, 3, self.priority);
        out
    }

    /// Reads a delta. An author field that is not ours to understand is taken as none, since Go peers ignore it.
    pub fn decode(bytes: &[u8]) -> Result<Delta, NodeDecodeError> {
        if bytes.len() > BLOCK_BYTES_MAX {
            return Err(NodeDecodeError::TooLong(bytes.len()));
        }
        let mut delta = Delta::default();
        for field in Reader::new(bytes) {
            let field = field?;
            match field.number {
                1 => push(&mut delta.elements, ELEMENTS_MAX, "elements", read_element(field.bytes()?)?)?,
                2 => push(&mut delta.tombstones, ELEMENTS_MAX, "tombstones", read_element(field.bytes()?)?)?,
                3 => delta.priority = field.uint()?,
                AUTHOR_FIELD => delta.author = field.bytes().ok().and_then(read_author),
                _ => {}
            }
        }
        Ok(delta)
    }
}

fn push<T>(list: &mut Vec<T>, most: usize, what: &'static str, entry: T) -> Result<(), NodeDecodeError> {
    if list.len() == most {
        return Err(NodeDecodeError::TooMany(what));
    }
    list.push(entry);
    Ok(())
}

fn put_element(out: &mut Vec<u8>, number: u32, key: &str, id: &str, value: &[u8]) {
    let part = |text: usize| if text == 0 { 0 } else { 1 + pb::varint_len(text as u64) + text };
    pb::put_length(out, number, part(key.len()) + part(id.len()) + part(value.len()));
    pb::put_bytes_if(out, 1, key.as_bytes());
    pb::put_bytes_if(out, 2, id.as_bytes());
    pb::put_bytes_if(out, 3, value);
}

fn read_element(bytes: &[u8]) -> Result<Element, ProtobufError> {
    let mut element = Element::default();
    for field in Reader::new(bytes) {
        let field = field?;
        match field.number {
            1 => element.key = field.text()?.to_owned(),
            2 => element.id = field.text()?.to_owned(),
            3 => element.value = field.bytes()?.to_vec(),
            _ => {}
        }
    }
    Ok(element)
}

fn read_author(bytes: &[u8]) -> Option<AuthorSignature> {
    const SIGNATURE_BYTES_MAX: usize = 512;
    let mut author = None;
    let mut signature = Vec::new();
    for field in Reader::new(bytes) {
        let field = field.ok()?;
        match field.number {
            1 => author = PeerId::from_bytes(field.bytes().ok()?).ok(),
            2 => signature = field.bytes().ok().filter(|bytes| bytes.len() <= SIGNATURE_BYTES_MAX)?.to_vec(),
            _ => {}
        }
    }
    Some(AuthorSignature { author: author?, signature })
}

/// What the author of a delta signs: the cluster (so that a block is worth nothing in another one), the author, the links and the SHA-256 of
/// the delta without its author field ([`Delta::encode_unsigned`]). Ed25519 alone would hash a megabyte twice, and slower.
pub fn signing_bytes(cluster_name: &str, author: &PeerId, links: &[Cid], unsigned: &[u8]) -> Vec<u8> {
    let mut out = b"pinfold-delta:2".to_vec();
    pb::put_bytes(&mut out, 1, cluster_name.as_bytes());
    pb::put_bytes(&mut out, 2, author.as_bytes());
    pb::put_bytes(&mut out, 3, &encode_dag_pb(&sorted(links), &sha2_256(unsigned)));
    out
}

/// Who made a block, by its own word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authorship<'a> {
    /// It names no author, as blocks of Go peers do.
    Unsigned,
    /// It names one; whether the signature is right is not checked here.
    Signed {
        /// The author and the signature.
        author: AuthorSignature,
        /// The links, which are signed too.
        links: Vec<Cid>,
        /// What of the delta is signed: everything before the author.
        unsigned: &'a [u8],
    },
    /// An author that does not read, or behind which the delta goes on: nobody vouches for that.
    Unreadable,
}

/// Who made this block. Takes what [`decode_node`] takes.
pub fn authorship(block: &[u8]) -> Result<Authorship<'_>, NodeDecodeError> {
    let mut links = Vec::new();
    let mut data: Option<&[u8]> = None;
    for field in Reader::new(block) {
        let field = field?;
        match field.number {
            1 => data = Some(field.bytes()?),
            2 if links.len() == LINKS_MAX => return Err(NodeDecodeError::TooMany("links")),
            2 => links.push(read_link(field.bytes()?)?.ok_or(NodeDecodeError::Link(links.len()))?),
            other => return Err(NodeDecodeError::Field(other)),
        }
    }
    let data = data.ok_or(NodeDecodeError::Data)?;
    let mut reader = Reader::new(data);
    loop {
        let unsigned = &data[..data.len() - reader.rest().len()];
        let Some(field) = reader.next() else { return Ok(Authorship::Unsigned) };
        let field = field?;
        if field.number != AUTHOR_FIELD {
            continue;
        }
        let author = field.bytes().ok().and_then(read_author).filter(|_| reader.rest().is_empty());
        return Ok(author.map_or(Authorship::Unreadable, |author| Authorship::Signed { author, links, unsigned }));
    }
}

/// Writes a block and names it. Links are put in the order of their bytes, each once.
pub fn encode_node(links: &[Cid], delta: &Delta) -> (Cid, Vec<u8>) {
    encode_node_of(links, &delta.encode())
}

/// The same of an encoded delta.
pub fn encode_node_of(links: &[Cid], delta: &[u8]) -> (Cid, Vec<u8>) {
    let block = encode_dag_pb(&sorted(links), delta);
    (block_cid(&block), block)
}

/// The CID of a block of the DAG: dag-pb, sha2-256.
pub fn block_cid(block: &[u8]) -> Cid {
    let digest = sha2_256(block);
    let multihash = cid::multihash::Multihash::<64>::wrap(SHA2_256, &digest).expect("32 bytes fit a multihash of 64");
    Cid::new_v1(DAG_PB, multihash)
}

fn sorted(links: &[Cid]) -> Vec<Vec<u8>> {
    let mut links: Vec<Vec<u8>> = links.iter().map(Cid::to_bytes).collect();
    links.sort_unstable();
    links.dedup();
    links
}

fn encode_dag_pb(links: &[Vec<u8>], data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(links.len() * 44 + data.len() + 8);
    for link in links {
        let mut inner = Vec::with_capacity(42);
        pb::put_bytes(&mut inner, 1, link);
        // Go writes the empty name and the zero size.
        pb::put_bytes(&mut inner, 2, b"");
        pb::put_uint(&mut inner, 3, 0);
        pb::put_bytes(&mut out, 2, &inner);
    }
    pb::put_bytes(&mut out, 1, data);
    out
}

/// Reads a block.
pub fn decode_node(block: &[u8]) -> Result<CrdtNode, NodeDecodeError> {
    if block.len() > BLOCK_BYTES_MAX {
        return Err(NodeDecodeError::TooLong(block.len()));
    }
    let mut links = Vec::new();
    let mut data = None;
    for field in Reader::new(block) {
        let field = field?;
        match field.number {
            1 if data.is_none() => data = Some(field.bytes()?),
            1 => return Err(NodeDecodeError::Data),
            2 => {
                let link = read_link(field.bytes()?)?.ok_or(NodeDecodeError::Link(links.len()))?;
                push(&mut links, LINKS_MAX, "links", link)?;
            }
            other => return Err(NodeDecodeError::Field(other)),
        }
    }
    let delta = Delta::decode(data.ok_or(NodeDecodeError::Data)?)?;
    Ok(CrdtNode { links, delta })
}

fn read_link(bytes: &[u8]) -> Result<Option<Cid>, ProtobufError> {
    let mut link = None;
    for field in Reader::new(bytes) {
        let field = field?;
        if field.number == 1 {
            link = cid_from_bytes(field.bytes()?);
        }
    }
    Ok(link)
}

/// The key of a pin in the set: `/` and base32 of the whole CID, so a CIDv0 and its v1 twin are two keys.
pub fn pin_key(cid: &Cid) -> String {
    slash_base32(&cid.to_bytes())
}

/// The CID a key stands for.
pub fn cid_of_key(key: &str) -> Result<Cid, BadPinKey> {
    let bytes = key.strip_prefix('/').and_then(|letters| BASE32_NOPAD.decode(letters.as_bytes()).ok());
    bytes.and_then(|bytes| cid_from_bytes(&bytes)).ok_or_else(|| BadPinKey(key.chars().take(80).collect()))
}

/// The id of what a block adds: `/` and base32 of the block's multihash.
pub fn element_id(block: &Cid) -> String {
    slash_base32(&block.hash().to_bytes())
}

fn slash_base32(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(2 + bytes.len() * 8 / 5 + 1);
    out.push('/');
    BASE32_NOPAD.encode_append(bytes, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed() -> Delta {
        let author = PeerId::from_ed25519(&[3; 32]);
        Delta {
            elements: vec![Element { key: "/AFKRE".into(), id: String::new(), value: vec![1, 2] }],
            tombstones: vec![Element { key: "/AFKRE".into(), id: "/CIQ".into(), value: Vec::new() }],
            priority: 7,
            author: Some(AuthorSignature { author, signature: vec![9; 64] }),
        }
    }

    #[test]
    fn a_signed_block_reads_back() {
        let parent = block_cid(b"parent");
        let other = block_cid(b"other");
        let (cid, block) = encode_node(&[parent, other, parent], &signed());
        assert_eq!(cid, block_cid(&block));
        let node = decode_node(&block).expect("own block");
        assert_eq!(node.delta, signed());
        let mut links = [parent, other];
        links.sort_by_key(Cid::to_bytes);
        assert_eq!(node.links, links);
    }

    #[test]
    fn the_author_field_is_what_go_peers_were_seen_to_take() {
        let mut plain = signed();
        plain.author = None;
        // tag 2 bytes, length 1, content 106 bytes: 38 of the peer id, 64 of the signature, two headers.
        assert_eq!(signed().encode().len() - plain.encode().len(), 3 + 106);
    }

    #[test]
    fn what_is_signed_does_not_hold_the_signature_but_everything_else() {
        let delta = signed();
        let author = PeerId::from_ed25519(&[3; 32]);
        let parent = block_cid(b"parent");
        let bytes = signing_bytes("home", &author, &[parent], &delta.encode_unsigned());
        let mut other_signature = delta.clone();
        other_signature.author = None;
        assert_eq!(signing_bytes("home", &author, &[parent], &other_signature.encode_unsigned()), bytes);
        let mut raised = delta.clone();
        raised.priority += 1;
        for other in [
            signing_bytes("work", &author, &[parent], &delta.encode_unsigned()),
            signing_bytes("home", &PeerId::from_ed25519(&[4; 32]), &[parent], &delta.encode_unsigned()),
            signing_bytes("home", &author, &[], &delta.encode_unsigned()),
            signing_bytes("home", &author, &[parent], &raised.encode_unsigned()),
        ] {
            assert_ne!(other, bytes);
        }
    }

    #[test]
    fn written_piece_by_piece_it_is_the_same() {
        let delta = signed();
        let mut writer = DeltaWriter::default();
        delta.elements.iter().for_each(|element| writer.put(&element.key, &element.value));
        delta.tombstones.iter().for_each(|tombstone| writer.remove(&tombstone.key, &tombstone.id));
        let mut written = writer.finish(delta.priority);
        assert_eq!(written, delta.encode_unsigned());
        put_author(&mut written, delta.author.as_ref().expect("signed"));
        assert_eq!(written, delta.encode());
        assert_eq!(encode_node_of(&[], &written), encode_node(&[], &delta));
    }

    #[test]
    fn a_block_tells_its_author_and_what_is_signed() {
        let parent = block_cid(b"parent");
        let delta = signed();
        let (_, block) = encode_node(&[parent], &delta);
        let author = delta.author.clone().expect("signed");
        let unsigned = delta.encode_unsigned();
        assert_eq!(authorship(&block), Ok(Authorship::Signed { author, links: vec![parent], unsigned: &unsigned }));
        assert_eq!(authorship(&encode_node_of(&[], &unsigned).1), Ok(Authorship::Unsigned));
        // What follows the author would be taken and is not signed.
        let mut longer = delta.encode();
        put_element(&mut longer, 1, "/AFKRE", "", b"smuggled");
        assert_eq!(Delta::decode(&longer).map(|delta| delta.elements.len()), Ok(2));
        assert_eq!(authorship(&encode_node_of(&[], &longer).1), Ok(Authorship::Unreadable));
        let mut foreign = unsigned;
        pb::put_bytes(&mut foreign, AUTHOR_FIELD, b"something else");
        assert_eq!(authorship(&encode_node_of(&[], &foreign).1), Ok(Authorship::Unreadable));
        for length in 0..block.len() {
            assert!(authorship(&block[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn a_foreign_author_field_is_no_author_and_no_error() {
        let mut bytes = signed().encode_unsigned();
        pb::put_bytes(&mut bytes, AUTHOR_FIELD, b"something else");
        assert_eq!(Delta::decode(&bytes).map(|delta| delta.author), Ok(None));
    }

    #[test]
    fn damaged_blocks_are_named() {
        for (block, error) in [
            (&[][..], NodeDecodeError::Data),
            (&[0x0a, 0, 0x0a, 0], NodeDecodeError::Data),
            (&[0x12, 0, 0x0a, 0], NodeDecodeError::Link(0)),
            (&[0x1a, 0], NodeDecodeError::Field(3)),
            (&[0x0a, 7], NodeDecodeError::Protobuf(ProtobufError::Truncated)),
        ] {
            assert_eq!(decode_node(block), Err(error));
        }
    }

    #[test]
    fn empty_elements_do_not_fill_the_memory() {
        assert_eq!(Delta::decode(&[0x0a, 0].repeat(ELEMENTS_MAX)).map(|delta| delta.elements.len()), Ok(ELEMENTS_MAX));
        assert_eq!(Delta::decode(&[0x0a, 0].repeat(ELEMENTS_MAX + 1)), Err(NodeDecodeError::TooMany("elements")));
        let link = [0x12, 6, 0x0a, 4, 0x01, 0x55, 0, 0];
        assert_eq!(decode_node(&link.repeat(LINKS_MAX + 1)), Err(NodeDecodeError::TooMany("links")));
    }

    #[test]
    fn keys_name_their_cids() {
        let cid = block_cid(b"x");
        assert_eq!(cid_of_key(&pin_key(&cid)), Ok(cid));
        for bad in ["", "/", "AFKRE", "/afkre", "/AFKRE="] {
            assert!(cid_of_key(bad).is_err(), "{bad}");
        }
    }
}
