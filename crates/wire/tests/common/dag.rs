//! The recorded DAG: reading it and merging it by Go's rules.

use std::collections::{BTreeMap, BTreeSet};
use types::Cid;
use wire::CrdtNode;
use wire::cids::cid_from_bytes;

/// Go's rules: an addition is alive unless some block undoes it; the highest priority wins, then the greater bytes; of a key that a
/// delta names twice the last element counts.
pub fn merge(blocks: &[(Cid, CrdtNode)]) -> BTreeMap<String, Vec<u8>> {
    let undone: BTreeSet<(&str, &str)> = blocks
        .iter()
        .flat_map(|(_, node)| &node.delta.tombstones)
        .map(|tombstone| (tombstone.key.as_str(), tombstone.id.as_str()))
        .collect();
    let mut alive: BTreeMap<&str, (u64, &[u8])> = BTreeMap::new();
    for (cid, node) in blocks {
        let id = wire::element_id(cid);
        let last: BTreeMap<&str, &[u8]> =
            node.delta.elements.iter().map(|element| (element.key.as_str(), element.value.as_slice())).collect();
        for (key, value) in last {
            let candidate = (node.delta.priority, value);
            let is_alive = !undone.contains(&(key, id.as_str()));
            if is_alive && alive.get(key).is_none_or(|best| *best < candidate) {
                alive.insert(key, candidate);
            }
        }
    }
    alive.into_iter().map(|(key, (_, value))| (key.to_owned(), value.to_vec())).collect()
}

/// All blocks of the recorded DAG, by a tiny CARv1 reader; each must be what its CID says and be rebuilt from what was read of it.
pub fn blocks() -> Vec<(Cid, CrdtNode)> {
    let car = super::file("crdt-dag.car");
    let mut blocks = Vec::new();
    let mut rest = skip_section(&car).1;
    while !rest.is_empty() {
        let (section, after) = skip_section(rest);
        rest = after;
        const CID_BYTES: usize = 36;
        let (cid, block) = section.split_at(CID_BYTES);
        let cid = cid_from_bytes(cid).expect("a CID");
        assert_eq!(wire::delta::block_cid(block), cid);
        let node = wire::decode_node(block).expect("a block");
        assert_eq!(wire::encode_node(&node.links, &node.delta), (cid, block.to_vec()));
        blocks.push((cid, node));
    }
    assert_eq!(blocks.len(), 82);
    blocks
}

fn skip_section(bytes: &[u8]) -> (&[u8], &[u8]) {
    let mut length = 0;
    for (index, byte) in bytes.iter().enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if *byte < 0x80 {
            return bytes[index + 1..].split_at(length);
        }
    }
    panic!("the CAR ends inside a length");
}
