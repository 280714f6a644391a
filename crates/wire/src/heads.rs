//! The broadcast of CRDT heads.

use crate::cids::cid_from_bytes;
use crate::protobuf::{self as pb, ProtobufError, Reader};
use types::Cid;

/// The most heads taken from one broadcast. Gossip messages end at 1 MiB, which is about 26,000 heads; a healthy cluster has a few.
pub const HEADS_MAX: usize = 4096;

/// Why bytes are no broadcast of heads.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadsDecodeError {
    /// Not protobuf.
    #[error("heads: {0}")]
    Protobuf(#[from] ProtobufError),
    /// An entry is no CID.
    #[error("heads: entry {0} is no CID")]
    Cid(usize),
    /// More than [`HEADS_MAX`].
    #[error("heads: more than {HEADS_MAX} in one message")]
    TooMany,
}

/// Writes a broadcast.
pub fn encode_heads(heads: &[Cid]) -> Vec<u8> {
    let mut out = Vec::with_capacity(heads.len() * 40);
    for head in heads {
        let mut entry = Vec::with_capacity(38);
        pb::put_bytes(&mut entry, 1, &head.to_bytes());
        pb::put_bytes(&mut out, 1, &entry);
    }
    out
}

/// Reads a broadcast; a bare CID is what very old peers send.
pub fn decode_heads(bytes: &[u8]) -> Result<Vec<Cid>, HeadsDecodeError> {
    if let Some(head) = cid_from_bytes(bytes) {
        return Ok(vec![head]);
    }
    let mut heads = Vec::new();
    for field in Reader::new(bytes) {
        let field = field?;
        if field.number != 1 {
            continue;
        }
        if heads.len() == HEADS_MAX {
            return Err(HeadsDecodeError::TooMany);
        }
        let mut head = None;
        for part in Reader::new(field.bytes()?) {
            let part = part?;
            if part.number == 1 {
                head = cid_from_bytes(part.bytes()?);
            }
        }
        heads.push(head.ok_or(HeadsDecodeError::Cid(heads.len()))?);
    }
    Ok(heads)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cids::cid_from_text;

    #[test]
    fn a_bare_cid_is_a_head() {
        let head = cid_from_text("bafybeibgaply4qkuuhkenvfjwtqpo6wvw4esolrcgbgrlolztqnx6oxw2y").expect("a CID");
        assert_eq!(decode_heads(&head.to_bytes()), Ok(vec![head]));
    }

    #[test]
    fn too_many_heads_are_refused() {
        let head = cid_from_text("bafybeibgaply4qkuuhkenvfjwtqpo6wvw4esolrcgbgrlolztqnx6oxw2y").expect("a CID");
        assert_eq!(decode_heads(&encode_heads(&vec![head; HEADS_MAX])).map(|heads| heads.len()), Ok(HEADS_MAX));
        assert_eq!(decode_heads(&encode_heads(&vec![head; HEADS_MAX + 1])), Err(HeadsDecodeError::TooMany));
        assert_eq!(decode_heads(&[0x0a, 2, 0x0a, 0]), Err(HeadsDecodeError::Cid(0)));
    }
}
