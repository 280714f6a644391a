//! Writing CAR version 1.

use crate::Block;
use crate::pb::put_cid;
use crate::pb::wire::put_varint;
use bytes::Bytes;
use types::Cid;

/// The beginning of a stream with these roots.
pub fn header(roots: &[Cid]) -> Vec<u8> {
    let mut cbor = vec![0xa2, 0x65];
    cbor.extend_from_slice(b"roots");
    put_cbor_head(&mut cbor, 4, roots.len() as u64);
    for root in roots {
        cbor.extend_from_slice(&[0xd8, 42]);
        put_cbor_head(&mut cbor, 2, root.encoded_len() as u64 + 1);
        cbor.push(0);
        put_cid(&mut cbor, root);
    }
    cbor.push(0x67);
    cbor.extend_from_slice(b"version");
    cbor.push(1);
    let mut out = Vec::with_capacity(cbor.len() + 4);
    put_varint(&mut out, cbor.len() as u64);
    out.extend_from_slice(&cbor);
    out
}

/// What stands before the bytes of a block: length and CID.
pub fn section_head(cid: &Cid, length: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    put_varint(&mut out, (cid.encoded_len() + length) as u64);
    put_cid(&mut out, cid);
    out
}

/// A block as it stands in the stream: head and bytes, the latter shared.
pub fn section(block: &Block) -> [Bytes; 2] {
    [Bytes::from(section_head(&block.cid, block.data.len())), block.data.clone()]
}

fn put_cbor_head(out: &mut Vec<u8>, major: u8, value: u64) {
    let major = major << 5;
    match value {
        0..=23 => out.push(major | value as u8),
        24..=0xff => out.extend_from_slice(&[major | 24, value as u8]),
        0x100..=0xffff => {
            out.push(major | 25);
            out.extend_from_slice(&(value as u16).to_be_bytes());
        }
        _ => {
            out.push(major | 26);
            out.extend_from_slice(&(value as u32).to_be_bytes());
        }
    }
}
