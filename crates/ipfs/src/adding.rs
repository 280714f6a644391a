//! Adding content: bytes are cut, hashed on all cores, built into a DAG in order, and handed to a [`BlockSink`] in batches.
//!
//! ```text
//!   stream of bytes ─► cut ─► portions ─► hash (blocking pool, several at once) ─► in order ─► tree ─► batches ─► sink
//!                             1 MiB        at most 2 for each core on their way                        2 waiting
//! ```
//!
//! Memory is bounded by the window of portions and the waiting batches (below 32 MiB on four cores), whatever the size of a file.
//! Small files are hashed where they are, and their blocks gathered over many files, so that ten thousand of them cost neither a
//! task nor a call of the sink each. Children always come before their parents.

mod sink;
mod verify;

pub use self::sink::{BlockSink, NodeSink, SinkError};
pub use self::verify::{Verifier, VerifyError};

use crate::Block;
use bytes::Bytes;
use dag::chunk::Cutter;
use dag::import::{FileBuilder, FileOptions, FileRoot, ImportError, Leaf, TreeBuilder, leaf, sole_leaf};
use futures::stream::{FuturesOrdered, Stream, StreamExt};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Files up to this size are hashed in the task that reads them: about 50 microseconds.
const SMALL: usize = 64 << 10;
/// Bytes that are hashed in one go on another core: long enough to be worth the way there, short enough for two cores to share a small file.
const PORTION: usize = 1 << 20;
/// Bytes handed to the sink at once.
const BATCH: usize = 4 << 20;
/// Blocks handed to the sink at once.
const BATCH_BLOCKS: usize = 4096;
/// Batches that wait for the sink while the next one is made.
const BATCHES_WAITING: usize = 1;

/// Why content was not added.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// The bytes did not come to an end.
    #[error("reading the content")]
    Read(#[source] io::Error),
    /// They could not be made into blocks.
    #[error("importing the content")]
    Import(#[from] ImportError),
    /// The blocks were not taken.
    #[error("storing the content")]
    Sink(#[source] SinkError),
    /// A worker ended early: the process is stopping.
    #[error("hashing was interrupted")]
    Interrupted,
}

/// Adds files one after another to one sink.
pub struct Adder<'a> {
    sink: &'a mut dyn BlockSink,
    batch: Batch,
}

/// Adds one file: see [`Adder::add_file`].
pub async fn add_file(
    content: impl Stream<Item = io::Result<Bytes>> + Send,
    options: &FileOptions,
    sink: &mut dyn BlockSink,
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<FileRoot, AddError> {
    let mut adder = Adder::new(sink);
    let root = adder.add_file(content, options, progress).await?;
    adder.finish().await?;
    Ok(root)
}

impl<'a> Adder<'a> {
    /// An adder that hands blocks to `sink`.
    pub fn new(sink: &'a mut dyn BlockSink) -> Adder<'a> {
        Adder { sink, batch: Batch::default() }
    }

    /// Adds one file. `progress` is told how many of its bytes have been made into blocks, now and then and at the end.
    ///
    /// Its last blocks may wait for those of the next file: [`Adder::finish`] hands them on.
    pub async fn add_file(
        &mut self,
        content: impl Stream<Item = io::Result<Bytes>> + Send,
        options: &FileOptions,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<FileRoot, AddError> {
        let mut content = pin!(content);
        let mut start = Vec::new();
        let mut length = 0;
        while length <= SMALL {
            match content.next().await {
                Some(bytes) => {
                    let bytes = bytes.map_err(AddError::Read)?;
                    length += bytes.len();
                    start.push(bytes);
                }
                None => return self.add_small(start, options, progress).await,
            }
        }
        let content = futures::stream::iter(start.into_iter().map(Ok)).chain(content);
        self.add_large(content, options, progress).await
    }

    /// Adds a block that was made elsewhere: a directory, a symlink.
    pub async fn push(&mut self, block: Block) -> Result<(), AddError> {
        self.batch.push(block);
        self.hand_on_if_full().await
    }

    /// Hands the last blocks on. What the sink needs beyond that (waiting until all is durable) is the sink's own matter.
    pub async fn finish(mut self) -> Result<(), AddError> {
        match self.batch.take() {
            blocks if blocks.is_empty() => Ok(()),
            blocks => self.sink.put(blocks).await.map_err(AddError::Sink),
        }
    }

    async fn hand_on_if_full(&mut self) -> Result<(), AddError> {
        if self.batch.is_full() { self.sink.put(self.batch.take()).await.map_err(AddError::Sink) } else { Ok(()) }
    }

    async fn add_small(
        &mut self,
        content: Vec<Bytes>,
        options: &FileOptions,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<FileRoot, AddError> {
        let mut file = FileBuilder::new(options.clone())?;
        let batch = &mut self.batch;
        for bytes in content {
            file.push(bytes, &mut |block| batch.push(block))?;
        }
        let root = file.finish(&mut |block| batch.push(block))?;
        progress(root.size);
        self.hand_on_if_full().await?;
        Ok(root)
    }

    /// Makes blocks and hands them on at the same time.
    async fn add_large(
        &mut self,
        content: impl Stream<Item = io::Result<Bytes>> + Send,
        options: &FileOptions,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<FileRoot, AddError> {
        let (batches, mut waiting) = mpsc::channel(BATCHES_WAITING);
        let sink = &mut *self.sink;
        let batch = std::mem::take(&mut self.batch);
        let making = async move { Pipeline::new(options, batch, batches)?.run(content, progress).await };
        let handing = async move {
            while let Some(blocks) = waiting.recv().await {
                sink.put(blocks).await.map_err(AddError::Sink)?;
            }
            Ok(())
        };
        // The first error of the two ends the other as well: a sink that failed does not wait for a slow reader.
        let ((root, batch), ()) = futures::future::try_join(making, handing).await?;
        self.batch = batch;
        Ok(root)
    }
}

type Portion = JoinHandle<Result<Vec<Leaf>, ImportError>>;

/// One large file on its way from bytes to batches.
struct Pipeline {
    options: Arc<FileOptions>,
    cutter: Cutter,
    /// Chunks of the portion that is being filled.
    chunks: Vec<Bytes>,
    chunks_bytes: usize,
    hashing: FuturesOrdered<Portion>,
    window: usize,
    tree: TreeBuilder,
    batch: Batch,
    batches: mpsc::Sender<Vec<Block>>,
    taken: u64,
}

impl Pipeline {
    fn new(options: &FileOptions, batch: Batch, batches: mpsc::Sender<Vec<Block>>) -> Result<Pipeline, ImportError> {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Ok(Pipeline {
            options: Arc::new(options.clone()),
            cutter: Cutter::new(options.chunker),
            chunks: Vec::new(),
            chunks_bytes: 0,
            hashing: FuturesOrdered::new(),
            window: 2 * cores,
            tree: TreeBuilder::new(options.clone())?,
            batch,
            batches,
            taken: 0,
        })
    }

    async fn run(
        mut self,
        content: impl Stream<Item = io::Result<Bytes>> + Send,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<(FileRoot, Batch), AddError> {
        let mut content = pin!(content);
        while let Some(bytes) = content.next().await {
            self.cutter.push(bytes.map_err(AddError::Read)?);
            while let Some(chunk) = self.cutter.cut() {
                self.take_chunk(chunk, progress).await?;
            }
        }
        while let Some(chunk) = self.cutter.finish() {
            self.take_chunk(chunk, progress).await?;
        }
        self.hash_portion();
        while !self.hashing.is_empty() {
            self.take_leaves(progress).await?;
        }
        let batch = &mut self.batch;
        let root = self.tree.finish(&mut |block| batch.push(block))?;
        Ok((root, self.batch))
    }

    async fn take_chunk(&mut self, chunk: Bytes, progress: &mut (dyn FnMut(u64) + Send)) -> Result<(), AddError> {
        self.chunks_bytes += chunk.len();
        self.chunks.push(chunk);
        // The first portion waits for a second chunk: the only chunk of a file is made differently.
        if self.chunks_bytes >= PORTION && (self.chunks.len() > 1 || self.taken > 0 || !self.hashing.is_empty()) {
            if self.hashing.len() >= self.window {
                self.take_leaves(progress).await?;
            }
            self.hash_portion();
        }
        Ok(())
    }

    fn hash_portion(&mut self) {
        let chunks = std::mem::take(&mut self.chunks);
        self.chunks_bytes = 0;
        if chunks.is_empty() {
            return;
        }
        let options = self.options.clone();
        let is_whole_file = chunks.len() == 1 && self.taken == 0 && self.hashing.is_empty();
        self.hashing.push_back(tokio::task::spawn_blocking(move || {
            let make = if is_whole_file { sole_leaf } else { leaf };
            chunks.into_iter().map(|chunk| make(chunk, &options)).collect()
        }));
    }

    /// Waits for the oldest portion and builds the tree over it.
    async fn take_leaves(&mut self, progress: &mut (dyn FnMut(u64) + Send)) -> Result<(), AddError> {
        let Some(leaves) = self.hashing.next().await else { return Ok(()) };
        for leaf in leaves.map_err(|_| AddError::Interrupted)?? {
            self.taken += leaf.file_size;
            let (child, batch) = (leaf.child(), &mut self.batch);
            batch.push(leaf.block);
            self.tree.push_leaf(child, &mut |block| batch.push(block))?;
        }
        if self.batch.is_full() && self.batches.send(self.batch.take()).await.is_err() {
            return Err(AddError::Interrupted);
        }
        progress(self.taken);
        Ok(())
    }
}

/// Blocks gathered for the sink.
#[derive(Default)]
struct Batch {
    blocks: Vec<Block>,
    bytes: usize,
}

impl Batch {
    fn push(&mut self, block: Block) {
        self.bytes += block.data.len();
        self.blocks.push(block);
    }

    fn is_full(&self) -> bool {
        self.bytes >= BATCH || self.blocks.len() >= BATCH_BLOCKS
    }

    fn take(&mut self) -> Vec<Block> {
        self.bytes = 0;
        std::mem::take(&mut self.blocks)
    }
}

#[cfg(test)]
mod tests;
