//! Which blocks nobody can give now, and why: so that a reader is told at once which shard is out of reach, and of whom.

use crate::core::Core;
use ipfs::Source;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use types::Cid;

/// How long an answer of the machine is good for.
const FRESH: Duration = Duration::from_millis(500);
/// How long the list of a shard is looked for.
const LIST_LIMIT: Duration = Duration::from_secs(3);
/// A list that was not found is looked for again after so long.
const LIST_AGAIN: Duration = Duration::from_secs(3);
/// Lists kept, each of at most 8,000 names; beyond, what they name is not found at once but in the time of an ordinary search.
const LISTS_MOST: usize = 64;

/// A unit that only silent peers hold: its list, and the words for it.
type Lost = Arc<Vec<(Cid, String)>>;

/// What a block is known by: its hash.
type Name = Vec<u8>;

/// Shards out of reach and what they begin with.
#[derive(Default)]
pub(crate) struct Reach {
    lost: Mutex<Option<(Instant, Lost)>>,
    lists: Mutex<HashMap<Cid, List>>,
}

#[derive(Clone)]
enum List {
    Known(Arc<HashSet<Name>>),
    Missing(Instant),
}

impl Reach {
    /// Why nobody can give this block, where that is known: the shard that begins with it is held by silent peers only.
    pub async fn why_not(&self, core: &Core, cid: &Cid) -> Option<String> {
        let lost = self.lost(core);
        if lost.is_empty() {
            // Everybody is back.
            self.lists.lock().clear();
            return None;
        }
        let name = cid.hash().to_bytes();
        for (list, words) in lost.iter().take(LISTS_MOST) {
            if list == cid || self.list(core, list).await.is_some_and(|names| names.contains(&name)) {
                return Some(words.clone());
            }
        }
        None
    }

    /// What may be the reason that nobody gave a block: all units that only silent peers hold.
    pub fn suspects(&self, core: &Core) -> Option<String> {
        const SHOWN: usize = 3;
        let lost = self.lost(core);
        let words: Vec<&str> = lost.iter().take(SHOWN).map(|(_, words)| words.as_str()).collect();
        let more = lost.len().saturating_sub(SHOWN);
        let more = if more > 0 { format!(", and {more} more") } else { String::new() };
        (!words.is_empty()).then(|| format!("nobody who is heard of has it; out of reach are {}{more}", words.join(", ")))
    }

    fn lost(&self, core: &Core) -> Lost {
        let mut known = self.lost.lock();
        if let Some((at, lost)) = &*known
            && at.elapsed() < FRESH
        {
            return lost.clone();
        }
        let units = core.read(|machine, now| machine.unreachable_pieces(now));
        let lost: Lost = Arc::new(units.into_iter().map(|(_, unit, words)| (unit, words)).collect());
        *known = Some((Instant::now(), lost.clone()));
        lost
    }

    /// What a list names; the holders of the spine have it too.
    async fn list(&self, core: &Core, list: &Cid) -> Option<Arc<HashSet<Name>>> {
        match self.lists.lock().get(list) {
            Some(List::Known(names)) => return Some(names.clone()),
            Some(List::Missing(at)) if at.elapsed() < LIST_AGAIN => return None,
            _ => {}
        }
        let members = core.trust.members();
        let live: Vec<_> = core.read(|machine, _| members.into_iter().filter(|member| machine.is_live(member)).collect());
        let source = Source { holders: crate::perform::nodes_of(core, &live), without_http: true, ..Source::default() };
        let got = tokio::time::timeout(LIST_LIMIT, core.node.get(list, &source)).await;
        let links = got.ok().and_then(Result::ok).and_then(|data| dag::links(list, &data).ok());
        if links.is_none() {
            tracing::debug!(%list, "the list of a shard that is out of reach was not found either");
        }
        let entry = match links {
            Some(links) => List::Known(Arc::new(links.iter().map(|link| link.hash().to_bytes()).collect())),
            None => List::Missing(Instant::now()),
        };
        let mut lists = self.lists.lock();
        if lists.len() >= LISTS_MOST {
            lists.clear();
        }
        lists.insert(*list, entry.clone());
        match entry {
            List::Known(names) => Some(names),
            List::Missing(_) => None,
        }
    }
}
