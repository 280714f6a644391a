//! The way of the machine's writes to the consensus: what is wished while one group is written goes into the next, so that a burst
//! costs one hand-over, one fsync and one step of the machine for many wishes, and a single wish waits for nobody.

use crate::core::Core;
use cluster::{Event, SubmitId};
use consensus::{Consensus, SubmitError, WRITES_MAX, Write};
use futures::stream::{FuturesUnordered, StreamExt};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::Notify;

/// Groups on their way: one being written, and the next, which the engine takes up the moment it is free.
const GROUPS: usize = 2;

/// One submit of the machine.
type Submit = (SubmitId, Vec<Write>);
type Outcomes = Vec<(SubmitId, Result<(), String>)>;

/// What waits. Bounded by the machine, which refuses commands while 100,000 writes have no result.
#[derive(Default)]
pub(crate) struct Submitter {
    waiting: Mutex<VecDeque<Submit>>,
    more: Notify,
}

impl Submitter {
    /// Takes a write over; never waits.
    pub(crate) fn push(&self, id: SubmitId, writes: Vec<Write>) {
        self.waiting.lock().push_back((id, writes));
        self.more.notify_one();
    }

    /// What waits, in order, as much as one submit takes.
    fn group(&self) -> Vec<Submit> {
        let mut waiting = self.waiting.lock();
        let mut writes = 0;
        let fits = waiting.iter().take_while(|(_, more)| {
            let is_first = writes == 0;
            writes += more.len();
            is_first || writes <= WRITES_MAX
        });
        let count = fits.count();
        waiting.drain(..count).collect()
    }

    /// Hands groups over and tells the machine what became of them, until dropped.
    pub(crate) async fn run(core: Arc<Core>) {
        let submitter = &core.submitter;
        let mut written = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                Some(outcomes) = written.next() => core.feed_together(told(outcomes)),
                () = submitter.more.notified(), if written.len() < GROUPS => {}
            }
            while written.len() < GROUPS {
                let group = submitter.group();
                if group.is_empty() {
                    break;
                }
                let core = &core;
                written.push(async move {
                    let outcomes = write(core.consensus.as_ref(), group).await;
                    // Whoever hears of it may ask for its status next.
                    core.caught_up().await;
                    outcomes
                });
            }
        }
    }
}

fn told(outcomes: Outcomes) -> Vec<Event> {
    outcomes.into_iter().map(|(id, outcome)| Event::Submitted(id, outcome)).collect()
}

/// Writes a group as one. What is wrong with one write must not refuse the others: then each goes alone.
async fn write(consensus: &dyn Consensus, mut group: Vec<Submit>) -> Outcomes {
    if let [(id, writes)] = &mut group[..] {
        let outcome = consensus.submit(std::mem::take(writes)).await;
        return vec![(*id, outcome.map(|_| ()).map_err(|error| crate::words::chain(&error)))];
    }
    let all: Vec<Write> = group.iter().flat_map(|(_, writes)| writes.iter().cloned()).collect();
    let outcome = match consensus.submit(all).await {
        Ok(_) => Ok(()),
        Err(error @ (SubmitError::Store(_) | SubmitError::Damaged(_) | SubmitError::Stopped)) => Err(crate::words::chain(&error)),
        Err(_) => return write_each(consensus, group).await,
    };
    group.into_iter().map(|(id, _)| (id, outcome.clone())).collect()
}

async fn write_each(consensus: &dyn Consensus, group: Vec<Submit>) -> Outcomes {
    let mut outcomes = Vec::with_capacity(group.len());
    for (id, writes) in group {
        let outcome = consensus.submit(writes).await;
        outcomes.push((id, outcome.map(|_| ()).map_err(|error| crate::words::chain(&error))));
    }
    outcomes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::Trust;
    use cluster::{Answer, Command, SharedChange, ViewState};
    use consensus::Single;
    use ipfs::memory::MemoryNode;
    use std::time::Duration;
    use store::{Area, MemoryStore};
    use types::{Cid, Depth, Owner, PeerId, PinOptions};

    fn key(number: u8) -> Vec<u8> {
        // A raw CID with its one byte inside.
        vec![1, 0x55, 0, 1, number]
    }

    #[tokio::test]
    async fn a_write_that_is_refused_does_not_refuse_its_neighbours() {
        let single = Single::open(Arc::new(MemoryStore::new())).expect("opens");
        let put = |number| vec![Write::put(key(number), vec![number])];
        let bad = vec![Write::put(b"no cid".to_vec(), "x")];
        let group = vec![(SubmitId(1), put(1)), (SubmitId(2), bad), (SubmitId(3), put(3))];
        let outcomes = write(&single, group).await;
        assert_eq!(outcomes.iter().map(|(id, outcome)| (id.0, outcome.is_ok())).collect::<Vec<_>>(), [(1, true), (2, false), (3, true)]);
        for (number, is_there) in [(1, true), (3, true)] {
            assert_eq!(single.view().get(Area::Pins, &key(number)).expect("reads").is_some(), is_there);
        }
    }

    #[tokio::test]
    async fn a_pin_is_answered_when_the_machine_knows_of_it() {
        let store = Arc::new(MemoryStore::new());
        let single = Arc::new(Single::open(store.clone()).expect("opens"));
        let mut hints = single.hints();
        let options = cluster::Options::new(PeerId::from_ed25519(&[1; 32]), "one", "test");
        let core = Core::new(options, single.clone(), MemoryNode::new(), store, Trust::default(), Owner::User);
        core.feed(Event::Shared(SharedChange::View(ViewState::Current)));
        let submits = tokio::spawn(Submitter::run(core.clone()));
        let cid = Cid::try_from(key(1)).expect("a CID");
        let asking = core.clone();
        let asked = tokio::spawn(async move {
            let pin = Command::Pin { cid, options: PinOptions::default(), depth: Depth::Recursive, size: None, lease: None };
            asking.command(pin).await
        });
        let hint = hints.next().await.expect("a hint");
        assert!(matches!(hint, consensus::Hint::Changes(_)) && single.view().get(Area::Pins, &key(1)).expect("reads").is_some());
        // Whoever was answered here would ask a machine that has never heard of the pin.
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!asked.is_finished());
        core.hinted(hints.seen());
        assert!(matches!(asked.await, Ok(Some(Answer::Pinned(pin))) if pin.cid == cid));
        submits.abort();
    }

    #[test]
    fn a_group_takes_as_many_writes_as_one_submit_and_at_least_one() {
        let submitter = Submitter::default();
        let many = |count| vec![Write::remove(key(1)); count];
        for (id, count) in [(1, WRITES_MAX + 1), (2, WRITES_MAX - 1), (3, 1), (4, 1)] {
            submitter.push(SubmitId(id), many(count));
        }
        let groups: Vec<Vec<u64>> = std::iter::from_fn(|| {
            let group = submitter.group();
            (!group.is_empty()).then(|| group.iter().map(|(id, _)| id.0).collect())
        })
        .collect();
        assert_eq!(groups, [vec![1], vec![2, 3], vec![4]]);
    }
}
