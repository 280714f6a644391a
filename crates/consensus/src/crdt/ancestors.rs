//! Stretches of history between Pinfold peers: "this block and what lies below it, down to what I have", in one answer.
//!
//! A chain in which each block links only the one before costs a round trip for each block when it is walked by links; a Pinfold
//! peer gives some hundred blocks at a time. The asker names every block by its bytes and merges only what the links above it
//! call for, so an answer can be useless but not harmful. Go peers are not asked; there the walk goes link by link.

use super::CrdtError;
use super::alive::take_varint;
use super::block::Block;
use super::id::BlockId;
use bytes::Bytes;
use std::collections::BTreeSet;
use store::{Area, Snapshot};
use types::Cid;
use wire::heads::{decode_heads, encode_heads};
use wire::protobuf::{Reader, put_bytes};

/// Blocks in one answer, and bytes after which none is added. An answer is below 3.1 MiB, as one block has at most 2 MiB.
const ANSWER_BLOCKS_MAX: usize = 512;
const ANSWER_BYTES: usize = 1 << 20;

/// Heads of the asker in one question; more of them would only stop the walk a little earlier.
pub(crate) const HAVE_MAX: usize = 64;

/// Writes a question: the block asked for, then what the asker has.
pub(crate) fn encode_question(asked: &Cid, have: &[Cid]) -> Vec<u8> {
    let mut cids = vec![*asked];
    cids.extend(have.iter().take(HAVE_MAX));
    encode_heads(&cids)
}

/// Answers a question from the own store; nothing when it is no question or the block is not here.
pub(crate) fn answer(view: &dyn Snapshot, question: &[u8]) -> Result<Vec<u8>, CrdtError> {
    let cids = decode_heads(question).unwrap_or_default();
    let mut ids = cids.iter().take(HAVE_MAX + 1).filter_map(BlockId::of_cid);
    let Some(asked) = ids.next() else { return Ok(Vec::new()) };
    let have: BTreeSet<BlockId> = ids.collect();
    let mut next = BTreeSet::from([(u64::MAX, asked)]);
    let mut seen = BTreeSet::from([asked]);
    let mut out = Vec::new();
    for _ in 0..ANSWER_BLOCKS_MAX {
        // Highest first, so that each block comes after one that links to it.
        let Some((_, id)) = next.pop_last() else { break };
        let Some(bytes) = view.get(Area::DagBlocks, &id.0)? else { continue };
        if !out.is_empty() && out.len() + bytes.len() > ANSWER_BYTES {
            break;
        }
        put_bytes(&mut out, 1, &bytes);
        let links = Block::parse(&bytes).map(|block| block.links).unwrap_or_default();
        for link in links {
            if !have.contains(&link) && seen.insert(link) {
                next.insert((height(view, &link)?, link));
            }
        }
    }
    Ok(out)
}

/// Reads an answer; what cannot be read ends it.
pub(crate) fn decode_answer(answer: &Bytes) -> Vec<Bytes> {
    let mut blocks = Vec::new();
    for field in Reader::new(answer) {
        let Ok(bytes) = field.and_then(|field| field.bytes()) else { break };
        if blocks.len() == ANSWER_BLOCKS_MAX {
            break;
        }
        blocks.push(answer.slice_ref(bytes));
    }
    blocks
}

fn height(view: &dyn Snapshot, id: &BlockId) -> Result<u64, CrdtError> {
    let row = view.get(Area::Processed, &id.0)?;
    Ok(row.as_deref().and_then(|row| take_varint(&mut row.get(1..)?)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::{Batch, Durability, MemoryStore, Store};
    use wire::delta::{Delta, encode_node};

    /// A chain of blocks, the oldest first, in a store.
    fn chain(length: u64) -> (MemoryStore, Vec<Cid>) {
        let store = MemoryStore::new();
        let mut batch = Batch::new();
        let mut cids: Vec<Cid> = Vec::new();
        for height in 1..=length {
            let links: Vec<Cid> = cids.last().copied().into_iter().collect();
            let (cid, bytes) = encode_node(&links, &Delta { priority: height, ..Delta::default() });
            let id = BlockId::of_cid(&cid).expect("a block");
            batch.put(Area::DagBlocks, id.0, bytes);
            batch.put(Area::Processed, id.0, [&[1], &super::super::alive::varint(height)[..]].concat());
            cids.push(cid);
        }
        store.commit(batch, Durability::Buffered).expect("commits");
        (store, cids)
    }

    fn ask(store: &MemoryStore, asked: &Cid, have: &[Cid]) -> Vec<Cid> {
        let answer = answer(&*store.snapshot(), &encode_question(asked, have)).expect("reads");
        decode_answer(&answer.into()).iter().map(|bytes| wire::delta::block_cid(bytes)).collect()
    }

    #[test]
    fn an_answer_goes_down_to_what_the_asker_has() {
        let (store, chain) = chain(10);
        assert_eq!(ask(&store, &chain[8], &[chain[5]]), [chain[8], chain[7], chain[6]]);
        assert_eq!(ask(&store, &chain[1], &[chain[5]]), [chain[1], chain[0]]);
        let unknown = BlockId([1; 32]).cid();
        assert!(ask(&store, &unknown, &[]).is_empty());
        assert_eq!(answer(&*store.snapshot(), b"\xff nonsense").expect("reads"), b"");
    }

    #[test]
    fn answers_are_bounded() {
        let (store, chain) = chain(ANSWER_BLOCKS_MAX as u64 + 100);
        assert_eq!(ask(&store, &chain[chain.len() - 1], &[]).len(), ANSWER_BLOCKS_MAX);
        let mut long = Vec::new();
        (0..2 * ANSWER_BLOCKS_MAX).for_each(|_| put_bytes(&mut long, 1, b"x"));
        assert_eq!(decode_answer(&long.into()).len(), ANSWER_BLOCKS_MAX);
        assert_eq!(decode_answer(&Bytes::from_static(b"\x0a\x01x\xff")).len(), 1);
    }

    #[test]
    fn questions_and_answers_of_strangers_are_bounded() {
        fn read(input: &[u8]) -> bool {
            static CHAIN: std::sync::LazyLock<MemoryStore> = std::sync::LazyLock::new(|| chain(20).0);
            let blocks = decode_answer(&Bytes::copy_from_slice(input));
            assert!(blocks.len() <= ANSWER_BLOCKS_MAX && blocks.iter().map(Bytes::len).sum::<usize>() <= input.len());
            let told = answer(&*CHAIN.snapshot(), input).expect("reads");
            assert!(decode_answer(&told.clone().into()).len() <= 20);
            !told.is_empty() || blocks.iter().any(|block| Block::parse(block).is_ok())
        }
        let (store, chain) = chain(20);
        let question = |at: usize, have: &[Cid]| encode_question(&chain[at], have);
        let told = answer(&*store.snapshot(), &question(5, &[])).expect("reads");
        let seeds = vec![question(19, &chain[..3]), question(4, &[]), told];
        fuzz::check(fuzz::Target { name: "ancestors", decode: read }, seeds, fuzz::Plan::of_environment(5_000, 1));
    }
}
