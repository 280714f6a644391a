//! What the system asks of an IPFS node: one trait, so that whatever stands on top does not know which node it has.
//!
//! Implementers: the embedded node (`ipfs-embedded`), a Kubo daemon, the in-memory node, and the cluster itself
//! (`peer::ClusterNode`). Each passes [`conformance`].
//!
//! Whoever brings content in uses [`adding`]; whoever walks what is pinned uses [`walk`].
//!
//! Deliberately absent: any protocol, and any notion of clusters or policies.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may stop at anything unexpected"))]

use ::bytes::Bytes;
use async_trait::async_trait;
use futures::stream::BoxStream;
use std::sync::Arc;
use tokio::sync::watch;
use types::{ByteCount, Cid, Depth, Owner, PeerId, UnixMillis};

pub use dag::Block;

/// A node that stores blocks: the four duties together.
pub trait IpfsNode: Blocks + Pins + NodeInfo {}
impl<N: Blocks + Pins + NodeInfo + ?Sized> IpfsNode for N {}

/// Where a block may be taken from.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// Do not ask anybody else; answer [`BlockError::NotLocal`] when the block is not here.
    pub local_only: bool,
    /// Node ids that are likely to have it, best first (peer ids of *node* hosts).
    pub holders: Vec<PeerId>,
    /// Do not ask HTTP gateways either: who asks is such a server itself, and two that name each other would ask in circles.
    pub without_http: bool,
}

impl Source {
    /// Only what is here.
    pub fn local() -> Source {
        Source { local_only: true, ..Source::default() }
    }
}

/// Blocks by CID.
#[async_trait]
pub trait Blocks: Send + Sync {
    /// Stores blocks on the account of `owner`; returns when all are durable. Repeating is harmless. Refuses data that does
    /// not match its CID. Blocks put for [`Owner::Adding`] are safe from garbage collection until [`Blocks::release`].
    async fn put(&self, owner: &Owner, blocks: Vec<Block>) -> Result<(), PutError>;

    /// The same for blocks whose CIDs the caller has just computed from their data: they need not be hashed again.
    async fn put_hashed(&self, owner: &Owner, blocks: Vec<Block>) -> Result<(), PutError> {
        self.put(owner, blocks).await
    }

    /// Ends an add: what no pin has taken over by then is garbage.
    async fn release(&self, owner: &Owner) -> Result<(), PutError>;

    /// The block, verified; fetched when it is not here and `source` allows it. Cancel by drop.
    async fn get(&self, cid: &Cid, source: &Source) -> Result<Bytes, BlockError>;

    /// Which of these are here, in order.
    async fn has(&self, cids: &[Cid]) -> Result<Vec<bool>, BlockError>;

    /// Removes what no owner needs; returns bytes freed.
    async fn collect_garbage(&self) -> Result<ByteCount, BlockError>;

    /// Reads about `budget` bytes of stored blocks behind `after` from the disk and takes damaged ones out of service: they are absent then.
    /// A node that keeps no bytes of its own has nothing to check.
    async fn check_blocks(&self, after: Option<Bytes>, budget: ByteCount) -> Result<CheckedBlocks, BlockError> {
        let _ = (after, budget);
        Ok(CheckedBlocks::default())
    }

    /// Fetches a block and stores it, owned by nobody: for one that was damaged.
    async fn restore(&self, cid: &Cid, source: &Source) -> Result<(), BlockError> {
        self.get(cid, source).await.map(|_| ())
    }

    /// Whether opening found that blocks are lost.
    fn has_lost_blocks(&self) -> bool {
        false
    }
}

/// What one step of checking blocks found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckedBlocks {
    /// Blocks read.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: ByteCount,
    /// Those taken out of service, as raw blocks (their codec is not known).
    pub damaged: Vec<Cid>,
    /// Where the next step goes on; none at the end.
    pub next: Option<Bytes>,
}

/// What one step of checking pins found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckedPins {
    /// Pins whose DAG was walked.
    pub pins: u64,
    /// Bytes read for it.
    pub bytes: ByteCount,
    /// Those that are not whole.
    pub broken: Vec<BrokenPin>,
    /// Where the next step goes on; none at the end.
    pub next: Option<Cid>,
}

/// Something kept whose DAG is not whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokenPin {
    /// The root.
    pub cid: Cid,
    /// Blocks known to be missing.
    pub missing: u64,
    /// One of them.
    pub first: Cid,
}

/// What to pin.
#[derive(Clone, Debug)]
pub struct PinTask {
    /// On whose account.
    pub owner: Owner,
    /// The root.
    pub cid: Cid,
    /// How deep.
    pub depth: Depth,
    /// Where missing blocks may be found.
    pub source: Source,
}

/// How far a pin is; watched while it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PinProgress {
    /// Blocks present and walked.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: ByteCount,
    /// Blocks known to be needed and not here.
    pub missing: u64,
}

/// Sender half of a pin's progress.
pub type Progress = Arc<watch::Sender<PinProgress>>;

/// A finished pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pinned {
    /// Blocks in the pinned part of the DAG.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: ByteCount,
}

/// One thing that the node keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldPin {
    /// The root.
    pub cid: Cid,
    /// Who wants it kept, how deep, since when; sorted by owner, never empty.
    pub owners: Vec<(Owner, Depth, UnixMillis)>,
    /// Blocks and bytes when it was pinned.
    pub size: Pinned,
}

impl HeldPin {
    /// The greatest depth that one of its owners wants.
    pub fn deepest(&self) -> Option<Depth> {
        self.owners.iter().map(|(_, depth, _)| *depth).reduce(|one, other| if walk::covers(one, other) { one } else { other })
    }

    /// Adds an owner, or makes its wish deeper (never shallower); the time stays that of its first wish.
    pub fn add_owner(&mut self, owner: Owner, depth: Depth, since: UnixMillis) {
        match self.owners.binary_search_by(|(known, ..)| known.cmp(&owner)) {
            Ok(at) if walk::covers(self.owners[at].1, depth) => {}
            Ok(at) => self.owners[at].1 = depth,
            Err(at) => self.owners.insert(at, (owner, depth, since)),
        }
    }

    /// Removes an owner; whether it was one.
    pub fn remove_owner(&mut self, owner: &Owner) -> bool {
        let before = self.owners.len();
        self.owners.retain(|(known, ..)| known != owner);
        self.owners.len() < before
    }
}

/// What is kept, for whom.
#[async_trait]
pub trait Pins: Send + Sync {
    /// Fetches what is missing and keeps all of it for `task.owner`; returns when everything is durable. Twice is fine (a
    /// greater depth replaces a smaller one). Cancel by drop: a cancelled pin leaves no pin.
    async fn pin(&self, task: PinTask, progress: Progress) -> Result<Pinned, PinError>;

    /// Keeps for `owner` those of these that are complete here already, all with one write; fetches nothing, and walks no long DAG.
    /// Durable when it returns. In their order; none for what is not complete, or would be long to walk: [`Pins::pin`] it. What has
    /// begun goes on when its caller is dropped. A node that cannot do it quickly keeps none.
    async fn pin_here(&self, owner: &Owner, pins: &[(Cid, Depth)]) -> Result<Vec<Option<Pinned>>, PinError> {
        let _ = owner;
        Ok(vec![None; pins.len()])
    }

    /// Ends one owner's wish; the content goes at the next collection after its last owner let go. Twice is fine.
    async fn unpin(&self, owner: &Owner, cid: &Cid) -> Result<(), PinError>;

    /// Everything kept with a CID after `after`, sorted by the CID's bytes, at most `limit`.
    async fn pins(&self, after: Option<Cid>, limit: usize) -> Result<Vec<HeldPin>, PinError>;

    /// One of them.
    async fn pin_of(&self, cid: &Cid) -> Result<Option<HeldPin>, PinError>;

    /// The label that its user gave a pin, on nodes that keep labels.
    async fn name_of(&self, _cid: &Cid) -> Option<String> {
        None
    }

    /// Walks the DAGs of what is kept behind `after`, reading about `budget` bytes, and notes which of them are not whole. Such a pin stays
    /// kept; pinning it again fetches what is missing and clears the note.
    async fn check_pins(&self, after: Option<Cid>, budget: ByteCount) -> Result<CheckedPins, PinError> {
        let _ = (after, budget);
        Ok(CheckedPins::default())
    }

    /// What is kept and known not to be whole, at most `limit`.
    async fn broken(&self, limit: usize) -> Result<Vec<BrokenPin>, PinError> {
        let _ = limit;
        Ok(Vec::new())
    }
}

/// Amounts on this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// The hard limit; `u64::MAX` when there is none.
    pub limit: ByteCount,
    /// In use of it, on disk.
    pub used: ByteCount,
    /// Kept free of blocks, so that the node can keep its books, rewrite and collect.
    pub upkeep: ByteCount,
    /// Blocks.
    pub blocks: u64,
    /// Whether the numbers are exact or, as with Kubo, estimates.
    pub is_exact: bool,
}

/// About the node itself.
#[async_trait]
pub trait NodeInfo: Send + Sync {
    /// The node's libp2p id, if it has a network.
    fn id(&self) -> Option<PeerId>;
    /// Dialable multiaddrs with `/p2p/`.
    async fn addresses(&self) -> Vec<String>;
    /// Space now.
    async fn space(&self) -> Result<Space, BlockError>;
    /// Connects to other nodes (multiaddrs with `/p2p/`), so that their blocks can be fetched; failures are not errors.
    async fn connect(&self, addresses: &[String]);
    /// Whether its user decides when garbage goes; it is then collected for the cluster only when space is short.
    fn collects_itself(&self) -> bool {
        false
    }
    /// The root of its user's own file tree (MFS), on nodes that have one.
    async fn files_root(&self) -> Option<Cid> {
        None
    }
}

/// Why blocks were not stored.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// Under the limit there is no room for them.
    #[error("no room: needs {needed}, free {free}")]
    NoRoom {
        /// Bytes of the refused blocks.
        needed: ByteCount,
        /// Free under the limit.
        free: ByteCount,
    },
    /// The data is not what the CID says.
    #[error("block {cid} does not match its CID")]
    Mismatch {
        /// The CID it came with.
        cid: Cid,
    },
    /// Larger than 2 MiB, or of a hash that is not known here.
    #[error("block {cid} refused: {reason}")]
    Refused {
        /// The block.
        cid: Cid,
        /// Why.
        reason: String,
    },
    /// The disk or the daemon failed.
    #[error("storing blocks: {0}")]
    Storage(String),
}

/// Why a block was not to be had.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// Not here, and nobody else was to be asked.
    #[error("block {cid} is not on this node")]
    NotLocal {
        /// The block.
        cid: Cid,
    },
    /// Nobody who was asked has it.
    #[error("block {cid} was not found: {asked} nodes asked")]
    NotFound {
        /// The block.
        cid: Cid,
        /// How many nodes said no or did not answer in time.
        asked: u32,
    },
    /// Nobody who was asked has it, and routing found nobody else.
    #[error("no provider found for block {cid}: asked {asked} nodes, {routing}")]
    NoProvider {
        /// The block.
        cid: Cid,
        /// How many nodes said no or did not answer in time.
        asked: u32,
        /// What was asked for providers, for how long.
        routing: String,
    },
    /// Those who are known to have it are silent.
    #[error("block {cid} is out of reach: {why}")]
    OutOfReach {
        /// The block.
        cid: Cid,
        /// Which part of what it is, who has it, since when they are silent.
        why: String,
    },
    /// What is stored under the CID does not match it any more.
    #[error("block {cid} is damaged on this disk")]
    Corrupt {
        /// The block.
        cid: Cid,
    },
    /// The disk or the daemon failed.
    #[error("reading blocks: {0}")]
    Storage(String),
}

fn after_colon(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

/// Why something could not be pinned.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// Blocks are missing and nobody who was asked has them; `missing` names at most 100 of them.
    #[error("{} blocks of {cid} were not found, the first is {}{}", missing.len(), missing.first().map_or_else(String::new, ToString::to_string), after_colon(asked))]
    Missing {
        /// The root.
        cid: Cid,
        /// Some of the missing blocks.
        missing: Vec<Cid>,
        /// Who was asked for the first one beside connected nodes, and what was said; empty where nobody was.
        asked: String,
    },
    /// No room.
    #[error("no room for {cid}: needs {needed}, free {free}")]
    NoRoom {
        /// The root.
        cid: Cid,
        /// Bytes that did not fit.
        needed: ByteCount,
        /// Free under the limit.
        free: ByteCount,
    },
    /// The DAG cannot be walked: a block is malformed.
    #[error("{cid} cannot be walked: {reason}")]
    Malformed {
        /// The block.
        cid: Cid,
        /// What is wrong with it.
        reason: String,
    },
    /// The disk or the daemon failed.
    #[error("pinning: {0}")]
    Storage(String),
}

/// A stream of errors or items, boxed.
pub type Items<'a, T, E> = BoxStream<'a, Result<T, E>>;

pub mod adding;
pub mod broken;
pub mod conformance;
pub mod held;
pub mod memory;
pub mod routing;
pub mod values;
pub mod walk;
