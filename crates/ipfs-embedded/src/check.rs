//! Looking after what is stored: blocks read again from the disk, DAGs of pins walked; what is damaged is taken out of service.
//!
//! Everything here blocks its thread, for about as long as the budget of one step takes.

use crate::error::{Damage, chain};
use crate::shared::Shared;
use bytes::Bytes;
use dag::block::inline_data;
use ipfs::walk::Walk;
use ipfs::{BrokenPin, CheckedBlocks, CheckedPins, HeldPin};
use types::{ByteCount, Cid};

/// What looking one block up counts as, when its bytes are not read.
const LOOK: u64 = 256;
/// Pins read from the table at once.
const PINS_PER_PAGE: usize = 100;
/// CIDv1 raw.
const RAW: u64 = dag::codec::RAW;

impl Shared {
    /// One step over the blocks.
    pub(crate) fn check_blocks(&self, after: Option<&[u8]>, budget: ByteCount) -> Result<CheckedBlocks, String> {
        let scrubbed = self.packs.scrub(after, budget).map_err(|error| chain(&error))?;
        for bad in &scrubbed.bad {
            tracing::warn!(block = ?raw_cid(&bad.multihash).map(|cid| cid.to_string()), what = bad.what, "a stored block is damaged");
        }
        let bad: Vec<&[u8]> = scrubbed.bad.iter().map(|bad| &bad.multihash[..]).collect();
        let taken = self.packs.quarantine(&bad).map_err(|error| chain(&error))?;
        Ok(CheckedBlocks {
            blocks: scrubbed.blocks,
            bytes: ByteCount(scrubbed.bytes),
            damaged: taken.iter().filter_map(raw_cid).collect(),
            next: scrubbed.next,
        })
    }

    /// One step over the pins.
    pub(crate) fn check_pins(&self, after: Option<Cid>, budget: ByteCount) -> Result<CheckedPins, String> {
        let mut checked = CheckedPins { next: after, ..CheckedPins::default() };
        loop {
            let page = self.held.list(checked.next.as_ref(), PINS_PER_PAGE).map_err(|error| chain(&error))?;
            for held in &page {
                if checked.bytes >= budget {
                    return Ok(checked);
                }
                checked.next = Some(held.cid);
                checked.pins += 1;
                if let Some(broken) = self.check_pin(held, &mut checked.bytes)? {
                    checked.broken.push(broken);
                }
            }
            if page.len() < PINS_PER_PAGE {
                checked.next = None;
                return Ok(checked);
            }
        }
    }

    /// Whether all of a pin is here; noted when it is not.
    fn check_pin(&self, held: &HeldPin, read: &mut ByteCount) -> Result<Option<BrokenPin>, String> {
        let Some(depth) = held.deepest() else { return Ok(None) };
        let mut walk = Walk::new(held.cid, depth);
        let (mut missing, mut first) = (0, None);
        while let Some(visit) = walk.next_visit() {
            *read += ByteCount(LOOK);
            let key = visit.cid.hash().to_bytes();
            if !visit.needs_data() {
                let is_here = inline_data(&visit.cid).is_some() || self.packs.size(&key).map_err(|error| chain(&error))?.is_some();
                if !is_here {
                    missing += 1;
                    first.get_or_insert(visit.cid);
                }
                continue;
            }
            let data = match self.read(&visit.cid) {
                Ok(Some(data)) => Some(data),
                Ok(None) => None,
                Err(Damage::Corrupt) => {
                    self.packs.quarantine(&[&key]).map_err(|error| chain(&error))?;
                    None
                }
                Err(Damage::Failed(reason)) => return Err(reason),
            };
            let Some(data) = data else {
                missing += 1;
                first.get_or_insert(visit.cid);
                continue;
            };
            *read += ByteCount(data.len() as u64);
            if let Err(error) = walk.got(&visit, &data) {
                // Its bytes match its name: it was so when it was pinned, and no other copy is better.
                tracing::warn!(cid = %visit.cid, %error, "a block of a pin cannot be walked");
            }
        }
        let Some(first) = first else {
            self.held.broken.clear(&held.cid).map_err(|error| chain(&error))?;
            return Ok(None);
        };
        let broken = BrokenPin { cid: held.cid, missing, first };
        let is_kept = self.held.note_broken(&broken).map_err(|error| chain(&error))?;
        Ok(is_kept.then_some(broken))
    }
}

fn raw_cid(multihash: &Bytes) -> Option<Cid> {
    Some(Cid::new_v1(RAW, cid::multihash::Multihash::from_bytes(multihash).ok()?))
}
