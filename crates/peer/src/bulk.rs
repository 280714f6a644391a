//! Many pins at once: the wish of one moment read from end to end, and batches of pins merged into it.

use crate::core::Core;
use crate::handle::{CommandError, Imported, Moment, PinReader};
use crate::view;
use bytes::Bytes;
use consensus::{Consensus, Write};
use std::collections::HashMap;
use std::sync::Arc;
use store::{Area, Snapshot};
use types::{Pin, UnixMillis};

/// The same bound as the consensus has for writes that become visible together.
const WRITES_MAX: usize = 4096;

/// Reads the wish.
pub(crate) struct Reader {
    consensus: Arc<dyn Consensus>,
    /// Of the one moment.
    kept: Option<Arc<dyn Snapshot>>,
    after: Option<Vec<u8>>,
}

impl Reader {
    pub(crate) fn new(consensus: Arc<dyn Consensus>, moment: Moment) -> Reader {
        let kept = (moment == Moment::One).then(|| consensus.view());
        Reader { consensus, kept, after: None }
    }
}

impl PinReader for Reader {
    fn next(&mut self, limit: usize, each: &mut dyn FnMut(&Pin)) -> Result<usize, CommandError> {
        let mut last = Vec::new();
        let wish = self.kept.clone().unwrap_or_else(|| self.consensus.view());
        let count = wish
            .visit(Area::Pins, self.after.as_deref(), &[], limit, &mut |key, stored| {
                last.clear();
                last.extend_from_slice(key);
                if let Some(pin) = view::read_unversioned(key, stored) {
                    each(&pin);
                }
            })
            .map_err(|error| CommandError::Failed(format!("reading the shared state: {error}")))?;
        if count > 0 {
            self.after = Some(last);
        }
        Ok(count)
    }
}

/// How many entries the wish has.
pub(crate) fn count(wish: &dyn Snapshot) -> u64 {
    wish.count(Area::Pins).inspect_err(|error| tracing::error!(%error, "counting the pins")).unwrap_or(0)
}

/// Merges pins: what is there already is not written again. Written in parts, each durable and visible as a whole; when one is refused,
/// those before it stay.
pub(crate) async fn import(core: &Arc<Core>, pins: Vec<Pin>, renews: bool) -> Result<Imported, CommandError> {
    let comparing = core.clone();
    let compared = tokio::task::spawn_blocking(move || compare(&comparing, pins, renews)).await;
    let (writes, imported) = compared.map_err(|error| CommandError::Failed(format!("comparing pins: {error}")))??;
    if let Some(why) = core.read(|machine, _| machine.why_no_writes()).filter(|_| !writes.is_empty()) {
        return Err(CommandError::Refused(why));
    }
    let mut writes = writes.into_iter().peekable();
    while writes.peek().is_some() {
        let part = writes.by_ref().take(WRITES_MAX).collect();
        let submitted = core.consensus.submit(part).await;
        submitted.map_err(|error| CommandError::Failed(format!("writing the pins: {error}")))?;
    }
    core.caught_up().await;
    Ok(imported)
}

/// What of these pins is to be written. Of one CID twice the last counts, as if they had come one after the other.
fn compare(core: &Core, pins: Vec<Pin>, renews: bool) -> Result<(Vec<Write>, Imported), CommandError> {
    let wish = core.consensus.view();
    let now = UnixMillis::from_seconds(core.now().wall.seconds());
    let ghosts = ghosts(core, &pins);
    let mut imported = Imported::default();
    let mut writes: Vec<Write> = Vec::with_capacity(pins.len());
    let mut at: HashMap<Vec<u8>, usize> = HashMap::with_capacity(pins.len());
    for (mut pin, is_ghost) in pins.into_iter().zip(ghosts) {
        let key = pin.cid.to_bytes();
        let earlier = at.get(&key).copied();
        let stored = match earlier {
            Some(index) => writes[index].value.clone(),
            None => wish.get(Area::Pins, &key).map_err(|error| CommandError::Failed(format!("reading the shared state: {error}")))?,
        };
        if (stored.is_none() || earlier.is_some()) && (renews || is_ghost) {
            // At its old time the other peers would take a pin that was removed for one that a late repair brought back.
            pin.created = now.max(UnixMillis::from_seconds(pin.created.seconds() + 1));
        }
        let value = Bytes::from(wire::pin::encode_pin(&pin));
        match stored {
            Some(stored) if stored == value => {
                imported.same += 1;
                continue;
            }
            Some(_) => imported.changed += 1,
            None => imported.added += 1,
        }
        match earlier {
            Some(index) => writes[index].value = Some(value),
            None => {
                at.insert(key.clone(), writes.len());
                writes.push(Write::put(key, value));
            }
        }
    }
    Ok((writes, imported))
}

/// Which of the pins would be removed again as ghosts.
fn ghosts(core: &Core, pins: &[Pin]) -> Vec<bool> {
    core.read(|machine, _| pins.iter().map(|pin| machine.is_ghost(pin)).collect())
}
