//! A block of the DAG as the merge needs it: checked, keys raw, one value for each key.

use super::id::{BlockId, raw_key};
use bytes::Bytes;
use std::collections::BTreeMap;
use wire::delta::NodeDecodeError;

/// The most links of a block. A block links the heads its author knew, which are as many as there were writers at once.
pub const LINKS_MAX: usize = 4096;

/// The highest priority taken, so that one block cannot use up the numbers behind it.
pub const PRIORITY_MAX: u64 = 1 << 62;

/// Values by raw key.
pub type Elements = BTreeMap<Vec<u8>, Bytes>;

/// By raw key, the blocks whose element goes.
pub type Tombstones = BTreeMap<Vec<u8>, Vec<BlockId>>;

/// A checked block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The blocks it was built on.
    pub links: Vec<BlockId>,
    /// Its height.
    pub priority: u64,
    /// What it adds. Of one key twice in a block the last counts: Go's writers mean the last, and only the last can be
    /// told from the bytes on every peer alike.
    pub elements: Elements,
    /// What it removes.
    pub tombstones: Tombstones,
    /// Entries that name no CID or no block: without meaning for a set of pins, so left out.
    pub skipped: usize,
}

/// Why a block is not merged. It is refused by every peer alike, since it follows from the bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The bytes are no block.
    #[error(transparent)]
    Undecodable(#[from] NodeDecodeError),
    /// More than [`LINKS_MAX`].
    #[error("CRDT block: {0} links, at most {LINKS_MAX}")]
    TooManyLinks(usize),
    /// A link to something that cannot be a block.
    #[error("CRDT block: link {0} is not to a dag-pb block hashed by sha2-256")]
    ForeignLink(usize),
    /// Zero, or above [`PRIORITY_MAX`].
    #[error("CRDT block: priority {0} is out of range")]
    Priority(u64),
}

impl Block {
    /// Reads and checks.
    pub fn parse(bytes: &[u8]) -> Result<Block, Refusal> {
        let node = wire::delta::decode_node(bytes)?;
        if node.links.len() > LINKS_MAX {
            return Err(Refusal::TooManyLinks(node.links.len()));
        }
        let mut links = Vec::with_capacity(node.links.len());
        for (number, link) in node.links.iter().enumerate() {
            links.push(BlockId::of_cid(link).ok_or(Refusal::ForeignLink(number))?);
        }
        let delta = node.delta;
        if delta.priority == 0 || delta.priority > PRIORITY_MAX {
            return Err(Refusal::Priority(delta.priority));
        }
        let mut block = Block { links, priority: delta.priority, elements: BTreeMap::new(), tombstones: BTreeMap::new(), skipped: 0 };
        for element in delta.elements {
            match raw_key(&element.key) {
                Some(key) => drop(block.elements.insert(key, element.value.into())),
                None => block.skipped += 1,
            }
        }
        for tombstone in delta.tombstones {
            match (raw_key(&tombstone.key), BlockId::of_element_id(&tombstone.id)) {
                (Some(key), Some(id)) => block.tombstones.entry(key).or_default().push(id),
                _ => block.skipped += 1,
            }
        }
        Ok(block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::key;
    use crate::crdt::id::key_text;
    use types::Cid;
    use wire::delta::{Delta, Element, encode_node};

    fn element(key: &[u8], value: &str) -> Element {
        Element { key: key_text(key), id: String::new(), value: value.into() }
    }

    fn parse(links: &[Cid], delta: &Delta) -> Result<Block, Refusal> {
        Block::parse(&encode_node(links, delta).1)
    }

    #[test]
    fn the_last_of_equal_keys_counts() {
        let elements = vec![element(&key(1), "zzz first"), element(&key(2), "x"), element(&key(1), "aaa last")];
        let block = parse(&[], &Delta { elements, priority: 1, ..Delta::default() }).expect("a block");
        assert_eq!(block.elements[&key(1)], "aaa last");
        assert_eq!(block.elements.len(), 2);
    }

    #[test]
    fn entries_without_meaning_are_left_out() {
        let elements = vec![Element { key: "/hello".into(), ..Element::default() }, element(&key(1), "x")];
        let tombstones = vec![Element { key: key_text(&key(1)), id: "/nonsense".into(), value: Vec::new() }];
        let block = parse(&[], &Delta { elements, tombstones, priority: 1, author: None }).expect("a block");
        assert_eq!((block.elements.len(), block.tombstones.len(), block.skipped), (1, 0, 2));
    }

    #[test]
    fn hostile_blocks_are_refused_with_a_reason() {
        let some = BlockId([1; 32]).cid();
        let raw = Cid::new_v1(0x55, *some.hash());
        let at = |priority| Delta { priority, ..Delta::default() };
        assert_eq!(parse(&[some], &at(0)), Err(Refusal::Priority(0)));
        assert_eq!(parse(&[some], &at(u64::MAX)), Err(Refusal::Priority(u64::MAX)));
        assert_eq!(parse(&[raw], &at(1)), Err(Refusal::ForeignLink(0)));
        let many: Vec<Cid> =
            (0..=LINKS_MAX).map(|n| BlockId([[n as u8, (n >> 8) as u8]; 16].concat().try_into().expect("32")).cid()).collect();
        assert_eq!(parse(&many, &at(1)), Err(Refusal::TooManyLinks(LINKS_MAX + 1)));
        for bytes in [&b""[..], b"\x0a\xff", &vec![0; 3 << 20]] {
            assert!(matches!(Block::parse(bytes), Err(Refusal::Undecodable(_))));
        }
    }
}
