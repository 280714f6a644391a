//! The dag-pb format: a node is a list of named links and some bytes.
//!
//! Written links first, as all nodes on the network are; read in either order. Slices point into the block: a caller with `Bytes` turns them into
//! owned ones by `slice_ref`, without a copy.

pub mod wire;

use crate::hash::DIGEST_MAX;
use crate::links::MAX_LINKS;
use crate::{DecodeError, MAX_BLOCK};
use types::Cid;
use wire::{Reader, bytes_field_length, put_length, put_number, varint_length};

const NODE_DATA: u8 = 1;
const NODE_LINKS: u8 = 2;
const LINK_HASH: u8 = 1;
const LINK_NAME: u8 = 2;
const LINK_TSIZE: u8 = 3;

/// The longest CID in bytes: version, codec, hash code and length, digest.
const CID_BYTES_MAX: usize = 4 * 10 + DIGEST_MAX;

/// A decoded node, borrowing from its block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node<'a> {
    /// The links in the order of the block.
    pub links: Vec<Link<'a>>,
    /// The bytes, usually UnixFS.
    pub data: Option<&'a [u8]>,
}

/// One link of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link<'a> {
    /// Where it points.
    pub cid: Cid,
    /// Its name; any bytes, empty in files.
    pub name: &'a [u8],
    /// The size of all blocks below, as the writer claims.
    pub tsize: u64,
}

impl<'a> Node<'a> {
    /// Reads a block.
    pub fn decode(block: &'a [u8]) -> Result<Node<'a>, DecodeError> {
        let mut node = Node::default();
        node.data = scan(block, |link| {
            node.links.push(link);
            Ok(())
        })?;
        Ok(node)
    }

    /// Writes the canonical block; the links must be in order already.
    pub fn encode(&self) -> Vec<u8> {
        let length = self.links.iter().map(Link::field_length).sum::<usize>() + self.data.map_or(0, |data| bytes_field_length(data.len()));
        let mut out = Vec::with_capacity(length);
        for link in &self.links {
            link.encode(&mut out);
        }
        if let Some(data) = self.data {
            put_length(&mut out, NODE_DATA, data.len());
            out.extend_from_slice(data);
        }
        out
    }
}

/// Reads a block, handing each link to `on_link`; returns the node's bytes. For readers that keep no list.
pub fn scan<'a>(block: &'a [u8], mut on_link: impl FnMut(Link<'a>) -> Result<(), DecodeError>) -> Result<Option<&'a [u8]>, DecodeError> {
    const WHAT: &str = "dag-pb node";
    if block.len() > MAX_BLOCK {
        return Err(DecodeError::too_much("bytes in a dag-pb node", MAX_BLOCK));
    }
    let mut data = None;
    let mut links = 0;
    let mut links_are_over = false;
    let mut fields = Reader::new(block, WHAT);
    while let Some((number, value)) = fields.field()? {
        let bytes = value.bytes(WHAT)?;
        match u8::try_from(number) {
            Ok(NODE_LINKS) if links_are_over => return Err(DecodeError::malformed(WHAT, "links on both sides of the data")),
            Ok(NODE_LINKS) if links == MAX_LINKS => return Err(DecodeError::too_much("links in a dag-pb node", MAX_LINKS)),
            Ok(NODE_LINKS) => {
                links += 1;
                on_link(Link::decode(bytes)?)?;
            }
            Ok(NODE_DATA) if data.is_some() => return Err(DecodeError::malformed(WHAT, "data twice")),
            Ok(NODE_DATA) => {
                links_are_over = links > 0;
                data = Some(bytes);
            }
            _ => return Err(DecodeError::malformed(WHAT, "field that does not exist")),
        }
    }
    Ok(data)
}

impl<'a> Link<'a> {
    fn decode(bytes: &'a [u8]) -> Result<Link<'a>, DecodeError> {
        const WHAT: &str = "dag-pb link";
        let mut fields = Reader::new(bytes, WHAT);
        let (mut cid, mut name, mut tsize) = (None, None, None);
        while let Some((number, value)) = fields.field()? {
            let again = match u8::try_from(number) {
                Ok(LINK_HASH) => cid.replace(read_cid(value.bytes(WHAT)?)?).is_some(),
                Ok(LINK_NAME) => name.replace(value.bytes(WHAT)?).is_some(),
                Ok(LINK_TSIZE) => tsize.replace(value.varint(WHAT)?).is_some(),
                _ => return Err(DecodeError::malformed(WHAT, "field that does not exist")),
            };
            if again {
                return Err(DecodeError::malformed(WHAT, "field twice"));
            }
        }
        let cid = cid.ok_or_else(|| DecodeError::malformed(WHAT, "no CID"))?;
        Ok(Link { cid, name: name.unwrap_or_default(), tsize: tsize.unwrap_or_default() })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_length(out, NODE_LINKS, self.length());
        put_length(out, LINK_HASH, self.cid.encoded_len());
        put_cid(out, &self.cid);
        put_length(out, LINK_NAME, self.name.len());
        out.extend_from_slice(self.name);
        put_number(out, LINK_TSIZE, self.tsize);
    }

    fn length(&self) -> usize {
        bytes_field_length(self.cid.encoded_len()) + bytes_field_length(self.name.len()) + 1 + varint_length(self.tsize)
    }

    fn field_length(&self) -> usize {
        bytes_field_length(self.length())
    }
}

/// Reads a CID that fills `bytes` to the end.
pub(crate) fn read_cid(mut bytes: &[u8]) -> Result<Cid, DecodeError> {
    let cid = Cid::read_bytes(&mut bytes).map_err(|error| DecodeError::Link(error.to_string()))?;
    if bytes.is_empty() { Ok(cid) } else { Err(DecodeError::Link("bytes after the CID".to_owned())) }
}

/// Appends a CID's bytes.
pub(crate) fn put_cid(out: &mut Vec<u8>, cid: &Cid) {
    let mut buffer = [0; CID_BYTES_MAX];
    let mut rest = &mut buffer[..];
    let written = cid.write_bytes(&mut rest).unwrap_or_default();
    out.extend_from_slice(&buffer[..written]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Block, HashFn, codec};

    fn cid() -> Cid {
        Block::new(codec::RAW, HashFn::SHA2_256, bytes::Bytes::from_static(b"x")).expect("known").cid
    }

    #[test]
    fn nodes_go_round() {
        let links = vec![Link { cid: cid(), name: b"", tsize: 0 }, Link { cid: cid(), name: b"a\xff", tsize: u64::MAX }];
        for node in [
            Node::default(),
            Node { links: links.clone(), data: None },
            Node { links, data: Some(b"bytes") },
            Node { links: vec![], data: Some(b"") },
        ] {
            let block = node.encode();
            assert_eq!(Node::decode(&block).as_ref(), Ok(&node));
        }
    }

    #[test]
    fn data_may_stand_before_the_links() {
        let node = Node { links: vec![Link { cid: cid(), name: b"n", tsize: 7 }], data: Some(b"d") };
        let block = node.encode();
        let (links, data) = block.split_at(block.len() - 3);
        let swapped = [data, links].concat();
        assert_eq!(Node::decode(&swapped), Ok(node));
        let both = [links, data, links].concat();
        assert_eq!(Node::decode(&both), Err(DecodeError::malformed("dag-pb node", "links on both sides of the data")));
    }

    #[test]
    fn broken_nodes_are_refused() {
        for (block, reason) in [
            (&b"\x0a\x01d\x0a\x01d"[..], "data twice"),
            (b"\x1a\x00", "field that does not exist"),
            (b"\x08\x01", "wrong wire type, bytes expected"),
            (b"\x12\x00", "no CID"),
            (b"\x12\x04\x12\x00\x12\x00", "field twice"),
            (b"\x0b", "wire type that does not exist"),
        ] {
            let Err(DecodeError::Malformed { reason: found, .. }) = Node::decode(block) else { panic!("{reason}") };
            assert_eq!(found, reason);
        }
        assert_eq!(Node::decode(b"\x0a\x05d"), Err(DecodeError::truncated("dag-pb node")));
        assert!(matches!(Node::decode(b"\x12\x03\x0a\x01\x01"), Err(DecodeError::Link(_))));
    }
}
