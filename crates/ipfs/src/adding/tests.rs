use super::*;
use crate::conformance::sample::noise;
use crate::memory::{MemoryNode, MemoryOptions};
use crate::{Blocks, IpfsNode, PutError, Source};
use async_trait::async_trait;
use dag::chunk::Chunker;
use dag::import::{Layout, import_bytes};
use futures::stream;
use std::collections::HashSet;
use types::{ByteCount, Owner};

fn portions(data: &[u8], size: usize) -> impl Stream<Item = io::Result<Bytes>> + Send + use<> {
    stream::iter(data.chunks(size).map(|part| Ok(Bytes::copy_from_slice(part))).collect::<Vec<_>>())
}

/// Adds in the pipeline and on one core, and compares root and blocks.
async fn check(length: usize, options: &FileOptions, portion: usize) {
    let data = noise(length as u64, length);
    let mut expected = Vec::new();
    let root = import_bytes(Bytes::from(data.clone()), options.clone(), &mut |block| expected.push(block)).unwrap();
    let (mut blocks, mut told) = (Vec::new(), Vec::new());
    let added = add_file(portions(&data, portion), options, &mut blocks, &mut |bytes| told.push(bytes)).await.unwrap();
    assert_eq!(added, root, "{length} bytes in portions of {portion}");
    assert_eq!(blocks.len(), expected.len());
    assert!(blocks == expected, "the same blocks in the same order");
    assert!(told.is_sorted() && told.last() == Some(&(length as u64)), "progress of {length}: {told:?}");
}

#[tokio::test]
async fn the_pipeline_gives_what_one_core_gives() {
    let v1 = FileOptions::v1();
    for length in [0, 1, SMALL, SMALL + 1, 256 << 10, (256 << 10) + 1, PORTION, PORTION + 1, (9 << 20) + 7] {
        check(length, &v1, 100_000).await;
        check(length, &FileOptions::default(), 1 << 20).await;
    }
    let large_chunks = FileOptions { chunker: Chunker::Size(1 << 20), ..FileOptions::v1() };
    for length in [PORTION - 1, PORTION, PORTION + 1, 3 * PORTION] {
        check(length, &large_chunks, 65_536).await;
        check(length, &FileOptions { layout: Layout::Trickle, ..large_chunks.clone() }, 65_536).await;
    }
    check(3 << 20, &FileOptions { chunker: Chunker::Buzhash, ..FileOptions::v1() }, 70_001).await;
    check(3 << 20, &FileOptions { chunker: Chunker::Size(1000), width: 11, ..FileOptions::v1() }, 70_001).await;
}

#[tokio::test]
async fn small_files_share_calls_of_the_sink() {
    let mut sink = Counting::default();
    let mut adder = Adder::new(&mut sink);
    for number in 0..2000 {
        adder.add_file(portions(&noise(number, 4096), 4096), &FileOptions::v1(), &mut |_| ()).await.unwrap();
    }
    adder.finish().await.unwrap();
    assert_eq!(sink.blocks, 2000);
    assert!(sink.calls <= 3, "{} calls", sink.calls);
}

#[tokio::test]
async fn batches_are_bounded_and_children_come_first() {
    let data = noise(1, 40 << 20);
    let mut sink = Counting::default();
    let options = FileOptions { width: 8, ..FileOptions::v1() };
    add_file(portions(&data, 1 << 20), &options, &mut sink, &mut |_| ()).await.unwrap();
    assert!(sink.largest <= BATCH + 2 * PORTION, "a batch of {}", sink.largest);
    assert!(sink.calls >= 8, "{} calls", sink.calls);
}

#[tokio::test]
async fn a_sink_that_fails_ends_the_add_with_its_reason() {
    for length in [1000, 100 << 20] {
        let node = MemoryNode::with(MemoryOptions { limit: ByteCount(500), ..MemoryOptions::default() });
        let mut sink = NodeSink::new(node, Owner::Adding(1));
        let content = stream::iter((0..length / 1000).map(|number| Ok(Bytes::from(noise(number, 1000)))));
        let added = add_file(content, &FileOptions::v1(), &mut sink, &mut |_| ()).await;
        let error = match added {
            Ok(_) => sink.finish().await.unwrap_err(),
            Err(AddError::Sink(error)) => *error.downcast::<PutError>().unwrap(),
            Err(other) => panic!("expected the sink's error, got {other:?}"),
        };
        assert!(matches!(error, PutError::NoRoom { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn bytes_that_break_off_end_the_add() {
    for length in [10, 5 << 20] {
        let broken = portions(&noise(1, length), 1 << 20).chain(stream::iter([Err(io::Error::other("gone"))]));
        let added = add_file(broken, &FileOptions::v1(), &mut Vec::new(), &mut |_| ()).await;
        assert!(matches!(added, Err(AddError::Read(_))), "{added:?}");
    }
}

#[tokio::test]
async fn what_was_added_to_a_node_can_be_read_from_it() {
    let node = MemoryNode::new();
    let data = noise(1, 3 << 20);
    let mut sink = NodeSink::new(node.clone() as Arc<dyn IpfsNode>, Owner::Adding(1));
    let root = add_file(portions(&data, 1 << 20), &FileOptions::v1(), &mut sink, &mut |_| ()).await.unwrap();
    sink.finish().await.unwrap();
    let mut read = Vec::new();
    let top = node.get(&root.cid, &Source::local()).await.unwrap();
    for cid in dag::links(&root.cid, &top).unwrap() {
        read.extend_from_slice(&node.get(&cid, &Source::local()).await.unwrap());
    }
    assert!(read == data);
}

/// Checks order, counts sizes.
#[derive(Default)]
struct Counting {
    calls: usize,
    blocks: usize,
    largest: usize,
    seen: HashSet<types::Cid>,
}

#[async_trait]
impl BlockSink for Counting {
    async fn put(&mut self, blocks: Vec<Block>) -> Result<(), SinkError> {
        self.calls += 1;
        self.blocks += blocks.len();
        self.largest = self.largest.max(blocks.iter().map(|block| block.data.len()).sum());
        for block in blocks {
            for child in dag::links(&block.cid, &block.data)? {
                assert!(self.seen.contains(&child), "{child} comes before its parent");
            }
            self.seen.insert(block.cid);
        }
        Ok(())
    }
}
