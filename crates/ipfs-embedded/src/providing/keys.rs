//! Which keys are told: those of a strategy, and those below what was just pinned.

use super::Strategy;
use crate::shared::Shared;
use ipfs::walk::Walk;
use types::Cid;

/// Entries of the index read at once.
const PAGE: usize = 4096;

/// Calls `each` with the multihash of every block that is told.
pub(super) fn each(shared: &Shared, strategy: Strategy, stop: &dyn Fn() -> bool, mut each: impl FnMut(&[u8])) -> Result<(), String> {
    match strategy {
        Strategy::None => Ok(()),
        Strategy::All => each_block(shared, each),
        Strategy::Pinned => {
            // A filter over all blocks and not a set of keys: it costs two bytes a block. What it takes for pinned by mistake is here too, so
            // that telling it is no lie.
            let pinned = shared.pinned(stop).map_err(|error| error.to_string())?;
            each_block(shared, |key| {
                if pinned.may_contain(key) {
                    each(key);
                }
            })
        }
        Strategy::Roots => {
            let mut after = None;
            loop {
                let page = shared.held.list(after.as_ref(), PAGE).map_err(|error| error.to_string())?;
                page.iter().filter(|held| held.cid.hash().code() != 0).for_each(|held| each(&held.cid.hash().to_bytes()));
                match page.last() {
                    Some(held) => after = Some(held.cid),
                    None => return Ok(()),
                }
            }
        }
    }
}

fn each_block(shared: &Shared, mut each: impl FnMut(&[u8])) -> Result<(), String> {
    let mut after = None;
    loop {
        let page = shared.packs.blocks(after.as_deref(), PAGE).map_err(|error| error.to_string())?;
        page.iter().for_each(|(key, _)| each(key));
        match page.into_iter().next_back() {
            Some((key, _)) => after = Some(key),
            None => return Ok(()),
        }
    }
}

/// Why the keys below pins are not known.
#[derive(Debug)]
pub(super) enum BelowError {
    /// More than there is room for.
    TooMany,
    /// The disk or the table failed.
    Failed(String),
}

/// The multihashes of all blocks that these pins need, at most `most`.
pub(super) fn below(shared: &Shared, roots: &[Cid], most: usize, stop: &dyn Fn() -> bool) -> Result<Vec<Vec<u8>>, BelowError> {
    let failed = |error: &dyn std::fmt::Display| BelowError::Failed(error.to_string());
    let mut walk = Walk::unbegun().without_counting_leaves();
    let mut keys = Vec::new();
    for root in roots {
        let held = shared.held.get(root).map_err(|error| failed(&error))?;
        // Let go meanwhile.
        let Some(depth) = held.and_then(|held| held.deepest()) else { continue };
        walk.add_root(*root, depth);
        let is_full = std::cell::Cell::new(false);
        let walked = shared.reachable(&mut walk, &|| stop() || is_full.get(), |cid| {
            if cid.hash().code() != 0 {
                keys.push(cid.hash().to_bytes());
            }
            is_full.set(keys.len() > most);
        });
        if is_full.get() {
            return Err(BelowError::TooMany);
        }
        walked.map_err(|error| failed(&error))?;
    }
    Ok(keys)
}
