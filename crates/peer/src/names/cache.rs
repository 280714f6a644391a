//! Records that came from routing, as long as they ask to be believed without another look.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use types::PeerId;
use wire::ipns::Record;

/// Names kept; a record has at most 10 KiB, so 10 MiB at worst.
const MOST: usize = 1024;
/// The longest that one is believed, whatever it says.
const LONGEST: Duration = Duration::from_secs(3600);

/// Bounded; the entry that ends first makes room.
#[derive(Default)]
pub(super) struct Cache(Mutex<HashMap<PeerId, (Instant, Record)>>);

impl Cache {
    pub fn get(&self, name: &PeerId) -> Option<Record> {
        let mut kept = self.0.lock();
        match kept.get(name) {
            Some((until, record)) if Instant::now() < *until => Some(record.clone()),
            Some(_) => {
                kept.remove(name);
                None
            }
            None => None,
        }
    }

    pub fn put(&self, name: PeerId, record: Record) {
        let until = Instant::now() + record.entry.ttl.min(LONGEST);
        let mut kept = self.0.lock();
        if kept.len() >= MOST
            && !kept.contains_key(&name)
            && let Some(first) = kept.iter().min_by_key(|(_, (until, _))| *until).map(|(name, _)| *name)
        {
            kept.remove(&first);
        }
        kept.insert(name, (until, record));
    }
}
