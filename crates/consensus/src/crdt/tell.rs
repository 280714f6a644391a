//! Making a block of pending wishes.

use super::CrdtError;
use super::alive::Alive;
use super::block::{Block, Elements, Tombstones};
use super::draft::Draft;
use super::event::Signer;
use super::id::{BlockId, write_key_text};
use super::journal::Journal;
use crate::Write;
use bytes::Bytes;
use types::Cid;
use wire::delta::DeltaWriter;

/// A block made from the journal stays below this: what Go's batching uses.
const DELTA_BYTES_MAX: usize = 1 << 20;

/// Tombstones for one key in one block; the rest follow in the next ones. Keeps the block far below the 2 MiB that peers take.
const TOMBSTONES_MAX: usize = 8192;

/// Bytes of an entry beside its key and value, and of the id in a tombstone.
const OVERHEAD: usize = 16;
const TOMBSTONE_ID: usize = 56;

/// What one block will say. Each key stands in it once.
#[derive(Default)]
pub(crate) struct Told {
    elements: Elements,
    tombstones: Tombstones,
    size: usize,
}

/// A submit of so many writes is a batch already, and need not be gathered with others.
const BATCH_MIN: usize = 1024;

/// So many wishes of one step are told at once, whatever the distance to the block before: they come no faster than the disk syncs, and
/// one block for each is about what the distance would have made of them.
pub(super) const FILL: u64 = 48;

impl Told {
    /// These writes as a block of their own, past the journal; none when they are few, do not fit one block, or are more than additions of
    /// different keys.
    pub(crate) fn of_batch(writes: &[Write]) -> Option<Told> {
        if writes.len() < BATCH_MIN {
            return None;
        }
        let mut told = Told::default();
        for Write { key, value, .. } in writes {
            let value = value.as_ref()?;
            if !told.has_room(OVERHEAD + key.len() * 8 / 5 + value.len()) || told.elements.insert(key.clone(), value.clone()).is_some() {
                return None;
            }
        }
        Some(told)
    }

    /// Whether one of its keys is among the pending ones.
    pub(crate) fn touches(&self, journal: &Journal) -> bool {
        !journal.is_empty() && self.elements.keys().any(|key| journal.get(key).is_some())
    }

    /// Takes pending wishes out of the journal, oldest first, as many as one block holds. A removal becomes tombstones for every
    /// element that is alive; with none there is nothing to say.
    pub(crate) fn take(journal: &mut Journal, draft: &mut Draft) -> Result<Told, CrdtError> {
        let mut told = Told::default();
        while let Some((key, intent)) = journal.first() {
            let key_size = OVERHEAD + key.len() * 8 / 5;
            if let Some(value) = &intent.value {
                if !told.has_room(key_size + value.len()) {
                    break;
                }
                told.elements.insert(key.clone(), value.clone());
                journal.pop(draft);
                continue;
            }
            let mut blocks = Alive::load(draft, key)?.blocks(draft)?;
            if !told.has_room(blocks.len().min(TOMBSTONES_MAX) * (key_size + TOMBSTONE_ID)) {
                break;
            }
            if blocks.len() > TOMBSTONES_MAX {
                // The wish stays pending until nothing is left, and hides the key meanwhile.
                blocks.truncate(TOMBSTONES_MAX);
                told.tombstones.insert(key.clone(), blocks);
                break;
            }
            if !blocks.is_empty() {
                told.tombstones.insert(key.clone(), blocks);
            }
            journal.pop(draft);
        }
        Ok(told)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.elements.is_empty() && self.tombstones.is_empty()
    }

    /// Encodes it on top of `links`.
    pub(crate) fn into_block(self, links: Vec<BlockId>, priority: u64, signer: Option<&Signer>) -> (Cid, Bytes, Block) {
        let cids: Vec<Cid> = links.iter().map(BlockId::cid).collect();
        let mut writer = DeltaWriter::with_capacity(self.size + self.size / 8 + 256);
        let mut text = String::new();
        for (key, value) in &self.elements {
            write_key_text(&mut text, key);
            writer.put(&text, value);
        }
        for (key, blocks) in &self.tombstones {
            write_key_text(&mut text, key);
            blocks.iter().for_each(|block| writer.remove(&text, &block.element_id()));
        }
        let mut delta = writer.finish(priority);
        if let Some(sign) = signer {
            let author = sign(&cids, &delta);
            wire::delta::put_author(&mut delta, &author);
        }
        let (cid, bytes) = wire::delta::encode_node_of(&cids, &delta);
        let block = Block { links, priority, elements: self.elements, tombstones: self.tombstones, skipped: 0 };
        (cid, bytes.into(), block)
    }

    /// Counts `more` bytes if they fit; the first entry always does.
    fn has_room(&mut self, more: usize) -> bool {
        let fits = self.is_empty() || self.size + more <= DELTA_BYTES_MAX;
        self.size += if fits { more } else { 0 };
        fits
    }
}
