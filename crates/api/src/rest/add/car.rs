//! A CAR: blocks that are made already. One root, as Go has it; every block is verified; a pin is only made of a complete DAG.
//!
//! The stream passes through in portions that are verified on all cores, so that an archive of any size costs as much memory as a
//! small one, but for some 60 bytes a block that tell what is still missing.

use super::{AddError, Made, Out};
use crate::multipart::{PartHead, Parts, Piece};
use dag::Block;
use dag::car::{CarHeader, CarItem, CarReader, Completeness};
use ipfs::adding::{Adder, Verifier, VerifyError};
use types::Cid;

/// Adds the CAR in the part whose head is `head`. With `is_whole` it must hold everything below its root.
pub(super) async fn add(
    parts: &mut Parts,
    head: PartHead,
    is_whole: bool,
    adder: &mut Adder<'_>,
    out: &mut Out<'_>,
) -> Result<Made, AddError> {
    let mut car = CarReader::unverified();
    let mut verifier = Verifier::default();
    let mut intake = None;
    while let Piece::Data(data) = parts.next().await? {
        car.push(&data);
        while let Some(item) = car.next_item().map_err(refused)? {
            let block = match item {
                CarItem::Header(header) => {
                    intake = Some(Intake::new(&header)?);
                    continue;
                }
                CarItem::Block(block) => block,
            };
            let ready = verifier.push(block).await.map_err(untrue)?;
            if let Some(intake) = &mut intake {
                intake.take(ready, adder).await?;
            }
        }
    }
    car.finish().map_err(refused)?;
    let mut intake = intake.ok_or_else(|| AddError::Adding("the CAR has no header".into()))?;
    while let Some(ready) = verifier.finish().await.map_err(untrue)? {
        intake.take(ready, adder).await?;
    }
    if is_whole {
        intake.check()?;
    }
    // Go reads one CAR only; what follows is not looked at.
    while parts.next().await? != Piece::End {}
    let name = head.file_name.unwrap_or_default();
    out.line(&String::from_utf8_lossy(&name), &intake.root, intake.bytes, intake.file_size).await?;
    Ok(Made { root: intake.root, size: intake.bytes })
}

fn untrue(error: VerifyError) -> AddError {
    AddError::Adding(format!("verifying a block of the CAR: {error}"))
}

/// The text of an error with its cause: clients see one line.
fn refused(error: impl std::error::Error) -> AddError {
    AddError::Adding(error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}")))
}

/// What came of an archive.
struct Intake {
    root: Cid,
    seen: Completeness,
    /// Bytes of its blocks, doubles counted once.
    bytes: u64,
    /// Bytes of the file, if the root is one.
    file_size: u64,
}

impl Intake {
    fn new(header: &CarHeader) -> Result<Intake, AddError> {
        let [root] = header.roots[..] else {
            return Err(AddError::Adding("only CAR files with a single root are supported".into()));
        };
        let seen = Completeness::new(&[root]).map_err(refused)?;
        // A root inside its CID never comes as a block.
        let file_size = dag::block::inline_data(&root).and_then(|data| dag::export::file_size(&root, data)).unwrap_or(0);
        Ok(Intake { root, seen, bytes: 0, file_size })
    }

    /// Hands on what comes for the first time.
    async fn take(&mut self, blocks: Vec<Block>, adder: &mut Adder<'_>) -> Result<(), AddError> {
        for block in blocks {
            if !self.seen.add(&block).map_err(refused)? {
                continue;
            }
            self.bytes += block.data.len() as u64;
            if block.cid == self.root {
                self.file_size = dag::export::file_size(&block.cid, &block.data).unwrap_or(0);
            }
            adder.push(block).await?;
        }
        Ok(())
    }

    fn check(&self) -> Result<(), AddError> {
        let Some(first) = self.seen.first_missing() else { return Ok(()) };
        let others = self.seen.missing().count() - 1;
        let others = if others == 0 { String::new() } else { format!(" and {others} others") };
        Err(AddError::Adding(format!(
            "the CAR is not complete: block {first}{others} below its root is missing, so nothing was pinned; \
             export it again with everything below its root, or add it with no-pin"
        )))
    }
}
