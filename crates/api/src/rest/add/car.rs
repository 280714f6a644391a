//! A CAR: blocks that are made already. One root; every block is verified; a pin is only made of a complete DAG.

use super::{AddError, Made, Out};
use crate::multipart::{PartHead, Parts, Piece};
use dag::Block;
use dag::car::{CarItem, CarReader};
use ipfs::adding::Adder;
use std::collections::{HashMap, HashSet};
use types::Cid;

/// Blocks of one CAR: 4 TiB of usual ones; about 64 bytes of memory each.
const BLOCKS_MAX: usize = 1 << 24;

/// Adds the CAR in the part whose head is `head`. With `is_whole` it must hold everything below its root.
pub(super) async fn add(
    parts: &mut Parts,
    head: PartHead,
    is_whole: bool,
    adder: &mut Adder<'_>,
    out: &mut Out<'_>,
) -> Result<Made, AddError> {
    let mut car = CarReader::new();
    let mut root = None;
    let mut seen = Seen::default();
    let mut file_size = 0;
    while let Piece::Data(data) = parts.next().await? {
        car.push(&data);
        while let Some(item) = car.next_item().map_err(|error| AddError::Adding(cause(&error)))? {
            let block = match item {
                CarItem::Header(header) => {
                    let [only] = header.roots[..] else {
                        return Err(AddError::Adding("only CAR files with a single root are supported".into()));
                    };
                    root = Some(only);
                    seen.wanted.insert(key(&only), only);
                    continue;
                }
                CarItem::Block(block) => block,
            };
            if root == Some(block.cid) {
                file_size = dag::export::file_size(&block.cid, &block.data).unwrap_or(0);
            }
            if seen.take(&block)? {
                adder.push(block).await?;
            }
        }
    }
    car.finish().map_err(|error| AddError::Adding(cause(&error)))?;
    let root = root.ok_or_else(|| AddError::Adding("the CAR has no header".into()))?;
    if is_whole {
        seen.check()?;
    }
    // Go reads one CAR only; what follows is not looked at.
    while parts.next().await? != Piece::End {}
    out.line(&String::from_utf8_lossy(&head.file_name.unwrap_or_default()), &root, seen.bytes, file_size).await?;
    Ok(Made { root, size: seen.bytes })
}

fn cause(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

/// Which blocks came, and which are needed below the root.
#[derive(Default)]
struct Seen {
    given: HashSet<u128>,
    /// Needed and not here yet.
    wanted: HashMap<u128, Cid>,
    /// Links of blocks that came before anything needed them.
    early: HashMap<u128, Vec<Cid>>,
    bytes: u64,
}

impl Seen {
    /// Whether the block came for the first time.
    fn take(&mut self, block: &Block) -> Result<bool, AddError> {
        let own = key(&block.cid);
        if !self.given.insert(own) {
            return Ok(false);
        }
        if self.given.len() > BLOCKS_MAX {
            return Err(AddError::Adding(format!("the CAR has more than {BLOCKS_MAX} blocks")));
        }
        self.bytes += block.data.len() as u64;
        let links = dag::links(&block.cid, &block.data)
            .map_err(|error| AddError::Adding(format!("reading the links of {}: {error}", block.cid)))?;
        if self.wanted.remove(&own).is_some() {
            self.want(links);
        } else if !links.is_empty() {
            self.early.insert(own, links);
        }
        Ok(true)
    }

    fn want(&mut self, links: Vec<Cid>) {
        let mut links = links;
        while let Some(cid) = links.pop() {
            let key = key(&cid);
            if !self.given.contains(&key) {
                if dag::block::inline_data(&cid).is_none() {
                    self.wanted.insert(key, cid);
                }
            } else if let Some(early) = self.early.remove(&key) {
                links.extend(early);
            }
        }
    }

    fn check(&self) -> Result<(), AddError> {
        // The smallest: the same on every run.
        let Some(first) = self.wanted.values().min() else { return Ok(()) };
        let others = self.wanted.len() - 1;
        let others = if others == 0 { String::new() } else { format!(" and {others} others") };
        Err(AddError::Adding(format!("the CAR is not complete: block {first}{others} below its root is missing, so nothing was pinned")))
    }
}

/// Enough of a digest to tell blocks apart; a block under two CID versions is one.
fn key(cid: &Cid) -> u128 {
    let digest = cid.hash().digest();
    let mut key = [0; 16];
    let from = digest.len().saturating_sub(16);
    key[..digest.len() - from].copy_from_slice(&digest[from..]);
    u128::from_le_bytes(key)
}
