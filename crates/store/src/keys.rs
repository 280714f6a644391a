//! The contract: areas of ordered keys, batches that are atomic over all of them, snapshots that never change.

use crate::StoreError;
use bytes::Bytes;
use std::sync::Arc;
use types::ByteCount;

/// A separate space of keys; one batch may touch any number of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Area {
    /// Small facts of this store: formats, cursors, generations.
    Meta,
    /// The wish as this peer sees it; under the CRDT with each key's elements before its value (`consensus::crdt::shown` gives the values).
    Pins,
    /// What the engine keeps of keys beside their values; under the CRDT the elements that have no place in a row of [`Area::Pins`].
    Elements,
    /// Tombstones of the CRDT set.
    Tombstones,
    /// Heads of the CRDT's DAG.
    Heads,
    /// DAG nodes that were merged.
    Processed,
    /// The CRDT's DAG nodes themselves.
    DagBlocks,
    /// Wishes acknowledged and not yet told.
    Intents,
    /// What this peer took for the cluster.
    Ledger,
    /// Signed registers.
    Records,
    /// What the embedded node holds, by owner.
    HeldPins,
    /// Where each block lies in the packs.
    BlockIndex,
    /// What an attached daemon keeps, as it was last listed.
    DaemonPins,
}

impl Area {
    /// Every area, in the order of their declaration.
    pub const ALL: [Area; 13] = [
        Area::Meta,
        Area::Pins,
        Area::Elements,
        Area::Tombstones,
        Area::Heads,
        Area::Processed,
        Area::DagBlocks,
        Area::Intents,
        Area::Ledger,
        Area::Records,
        Area::HeldPins,
        Area::BlockIndex,
        Area::DaemonPins,
    ];

    /// The name on disk; never changed.
    pub fn name(self) -> &'static str {
        match self {
            Area::Meta => "meta",
            Area::Pins => "pins",
            Area::Elements => "elements",
            Area::Tombstones => "tombstones",
            Area::Heads => "heads",
            Area::Processed => "processed",
            Area::DagBlocks => "dag-blocks",
            Area::Intents => "intents",
            Area::Ledger => "ledger",
            Area::Records => "records",
            Area::HeldPins => "held-pins",
            Area::BlockIndex => "block-index",
            Area::DaemonPins => "daemon-pins",
        }
    }
}

/// One change of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// Where.
    pub area: Area,
    /// Which key; 1 to 65535 bytes.
    pub key: Bytes,
    /// The value; none deletes the key.
    pub value: Option<Bytes>,
}

/// Changes that happen together or not at all; a later change of a key wins over an earlier one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    ops: Vec<Op>,
    bytes: u64,
    is_distinct: bool,
}

impl Batch {
    /// A batch that changes nothing.
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Sets `key` to a copy of `value`.
    pub fn put(&mut self, area: Area, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> &mut Batch {
        self.put_bytes(area, Bytes::copy_from_slice(key.as_ref()), Bytes::copy_from_slice(value.as_ref()))
    }

    /// Sets `key` to `value` without copying either.
    pub fn put_bytes(&mut self, area: Area, key: Bytes, value: Bytes) -> &mut Batch {
        self.push(Op { area, key, value: Some(value) })
    }

    /// Removes `key`; it need not exist.
    pub fn delete(&mut self, area: Area, key: impl AsRef<[u8]>) -> &mut Batch {
        self.push(Op { area, key: Bytes::copy_from_slice(key.as_ref()), value: None })
    }

    /// Adds all of `other` behind this batch's changes.
    pub fn append(&mut self, other: Batch) {
        self.is_distinct = self.is_empty() && other.is_distinct;
        self.bytes += other.bytes;
        self.ops.extend(other.ops);
    }

    /// Says that no key stands in it twice, which spares the store the search. Changes added later must keep to it.
    #[must_use]
    pub fn distinct(mut self) -> Batch {
        self.is_distinct = true;
        self
    }

    pub(crate) fn is_distinct(&self) -> bool {
        self.is_distinct
    }

    /// The changes in their order.
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// How many changes.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Bytes of keys and values: what it weighs before any overhead.
    pub fn size(&self) -> ByteCount {
        ByteCount(self.bytes)
    }

    /// Whether it makes this peer keep more (a wish, a pin); all else serves to let go or keeps the books, and is taken while there is any room.
    pub fn keeps_more(&self) -> bool {
        self.ops.iter().any(|op| op.value.is_some() && matches!(op.area, Area::Pins | Area::HeldPins))
    }

    /// Whether every change is a deletion (which a full disk should still take).
    pub fn only_deletes(&self) -> bool {
        self.ops.iter().all(|op| op.value.is_none())
    }

    pub(crate) fn into_ops(self) -> Vec<Op> {
        self.ops
    }

    fn push(&mut self, op: Op) -> &mut Batch {
        self.bytes += (op.key.len() + op.value.as_ref().map_or(0, Bytes::len)) as u64;
        self.ops.push(op);
        self
    }
}

/// When a commit returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// When the operating system has it: survives the process, maybe not the power.
    Buffered,
    /// When it is on disk, together with every commit that returned before; concurrent callers share one fsync, without a timer.
    Synced,
}

/// The whole store as it was at one moment; later commits do not show. Cheap, but it keeps old values alive: do not hold it for long.
pub trait Snapshot: Send + Sync {
    /// The value of `key`.
    fn get(&self, area: Area, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// At most `limit` entries in byte order of their keys: keys that begin with `prefix` and lie strictly behind `after`.
    fn scan(&self, area: Area, after: Option<&[u8]>, prefix: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError>;

    /// The same without copies: gives each entry to `each`, and returns how many there were.
    fn visit(
        &self,
        area: Area,
        after: Option<&[u8]>,
        prefix: &[u8],
        limit: usize,
        each: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<usize, StoreError> {
        let entries = self.scan(area, after, prefix, limit)?;
        entries.iter().for_each(|(key, value)| each(key, value));
        Ok(entries.len())
    }

    /// The exact number of keys; walks them all, so it costs O(n): for tests and people, not for loops.
    fn count(&self, area: Area) -> Result<u64, StoreError>;
}

/// Ordered keys on this disk (or, for tests, in memory). Thread-safe; every call blocks until it is done.
///
/// After a crash the store holds every `Synced` commit, and of the later ones a prefix in commit order; never half a batch.
pub trait Store: Send + Sync + 'static {
    /// The state of this moment.
    fn snapshot(&self) -> Arc<dyn Snapshot>;

    /// Makes the changes of `batch`, all or none. On an error none of them shows, except after [`StoreError::Failed`] of the
    /// disk itself, where they may come back at the next open.
    fn commit(&self, batch: Batch, durability: Durability) -> Result<(), StoreError>;

    /// The value of `key` now.
    fn get(&self, area: Area, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.snapshot().get(area, key)
    }

    /// To be called now and then (some times a minute): once little is written, what was kept in memory for writes goes to where it is read
    /// from. Returns at once.
    fn rest(&self) {}

    /// What the store takes on disk; zero for one in memory.
    fn disk_bytes(&self) -> Result<ByteCount, StoreError>;
}
