//! Names of blocks and keys in their short forms.

use data_encoding::BASE32_NOPAD;
use std::fmt;
use types::Cid;

/// A block of the DAG: the sha2-256 digest in its CID. All blocks are dag-pb, so nothing else of the CID matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(pub [u8; 32]);

impl BlockId {
    /// From the CID of a dag-pb block hashed by sha2-256; none for any other.
    pub fn of_cid(cid: &Cid) -> Option<BlockId> {
        let is_ours = cid.codec() == wire::cids::DAG_PB && cid.hash().code() == wire::cids::SHA2_256;
        is_ours.then(|| cid.hash().digest().try_into().ok().map(BlockId)).flatten()
    }

    /// The CID as it stands in links and broadcasts.
    pub fn cid(&self) -> Cid {
        let mut bytes = [0; 36];
        bytes[..4].copy_from_slice(&[0x01, 0x70, 0x12, 0x20]);
        bytes[4..].copy_from_slice(&self.0);
        wire::cids::cid_from_bytes(&bytes).expect("a dag-pb prefix and a digest are a CID")
    }

    /// From the id of an element; none for an id that names no block of ours.
    pub(crate) fn of_element_id(id: &str) -> Option<BlockId> {
        let bytes = BASE32_NOPAD.decode(id.strip_prefix('/')?.as_bytes()).ok()?;
        bytes.strip_prefix(&[0x12, 0x20])?.try_into().ok().map(BlockId)
    }

    /// The id of the elements that the block adds.
    pub(crate) fn element_id(&self) -> String {
        wire::delta::element_id(&self.cid())
    }
}

impl fmt::Debug for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.cid())
    }
}

/// The raw key of a key text of the set; none when it names no CID or one that is too long.
pub(crate) fn raw_key(text: &str) -> Option<Vec<u8>> {
    let key = wire::delta::cid_of_key(text).ok()?.to_bytes();
    (key.len() <= crate::contract::KEY_BYTES_MAX).then_some(key)
}

/// Whether these bytes can be a key of the set.
pub(crate) fn is_key(key: &[u8]) -> bool {
    key.len() <= crate::contract::KEY_BYTES_MAX && wire::cids::cid_from_bytes(key).is_some()
}

/// Writes the key text of a raw key over what `text` held.
pub(crate) fn write_key_text(text: &mut String, key: &[u8]) {
    text.clear();
    text.push('/');
    BASE32_NOPAD.encode_append(key, text);
}

/// The key text of a raw key.
#[cfg(test)]
pub(crate) fn key_text(key: &[u8]) -> String {
    let mut text = String::new();
    write_key_text(&mut text, key);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        let id = BlockId([7; 32]);
        assert_eq!(BlockId::of_cid(&id.cid()), Some(id));
        assert_eq!(BlockId::of_element_id(&id.element_id()), Some(id));
        let key = id.cid().to_bytes();
        assert_eq!(key_text(&key), wire::delta::pin_key(&id.cid()));
        assert_eq!(raw_key(&key_text(&key)), Some(key));
    }

    #[test]
    fn other_names_are_not_taken() {
        let raw = Cid::new_v1(0x55, *BlockId([7; 32]).cid().hash());
        assert_eq!(BlockId::of_cid(&raw), None);
        for bad in ["", "/", "/CIQ", "CIQ", "/ciq"] {
            assert_eq!(BlockId::of_element_id(bad), None, "{bad}");
        }
        assert_eq!(raw_key("/not a key"), None);
    }
}
