//! The queue of everything that will happen, ordered by time and then by number.

use crate::faults::Fault;
use crate::peer::Done;
use bytes::Bytes;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;
use types::{Cid, PeerMessage};

/// Virtual milliseconds since the run began.
pub type Time = u64;

/// Which peer, by its number.
pub type Place = usize;

/// What travels between two peers.
#[derive(Clone, Debug)]
pub enum Packet {
    /// From machine to machine.
    Words(Rc<PeerMessage>),
    /// A broadcast of CRDT heads.
    Heads(Rc<Vec<Cid>>),
    /// A block of the CRDT's DAG, handed over unasked.
    Pushed(Bytes),
    /// "Give me this block of the CRDT's DAG."
    WantBlock(Cid),
    /// Here it is, or not.
    Block(Cid, Option<Bytes>),
    /// "Give me this block and what lies below it, down to what I have."
    WantStretch(Cid, Rc<Vec<Cid>>),
    /// Here are some; none when there is nothing to give.
    Stretch(Cid, Rc<Vec<Bytes>>),
    /// "Give me a page of the set, behind this key."
    WantPage(Rc<Vec<u8>>),
    /// The page behind that key; empty when there is none to give.
    Page(Rc<Vec<u8>>, Bytes),
    /// "What are your heads?"
    WantHeads,
    /// These.
    HeadsAre(Vec<Cid>),
}

/// What will happen. `life` counts the starts of a peer: what was meant for an earlier one is void.
#[derive(Clone, Debug)]
pub enum What {
    /// A peer starts.
    Start(Place),
    /// The cluster machine of a peer wants to be woken.
    Wake(Place, u32),
    /// The CRDT machine of a peer wants to be woken.
    CrdtWake(Place, u32),
    /// A packet arrives.
    Arrive {
        /// From whom.
        from: Place,
        /// To whom.
        to: Place,
        /// To which of its lives.
        life: u32,
        /// What.
        packet: Packet,
    },
    /// A link came up or went down, as `at` sees it.
    Link {
        /// Who sees it.
        at: Place,
        /// In which life.
        life: u32,
        /// The link to whom.
        other: Place,
        /// Up.
        is_up: bool,
    },
    /// What was written is on disk.
    Synced(Place, u32),
    /// Questions that wait for their askers' heads are looked at again.
    Deferred(Place, u32),
    /// A fetch of a CRDT block was not answered.
    BlockLate(Place, u32, Cid),
    /// A question for a stretch of history was not answered.
    StretchLate(Place, u32, Cid, Place),
    /// A question for a page of the set was not answered.
    PageLate(Place, u32, Vec<u8>, Place),
    /// A question for heads was not answered.
    HeadsLate(Place, u32, Place),
    /// The node of a peer ends an operation, or is half through it.
    NodeDone(Place, u32, Done),
    /// A person or program does something.
    Door(u64),
    /// A large add goes a step on.
    Large(u64),
    /// A unit of a large add, by its lease, is confirmed by its holders.
    LargeKept(u64, u64),
    /// Blocks of an add have reached all its holders.
    Spread(Place, u32, u64),
    /// Something breaks or is mended.
    Fault(Fault),
    /// The invariants that hold at every moment are looked at.
    Look,
}

/// Ordered by time; of the same time, what was put in first comes first.
#[derive(Debug, Default)]
pub struct Queue {
    /// Time, number, and where it lies: small, since a heap moves its entries often.
    order: BinaryHeap<Reverse<(Time, u64, usize)>>,
    lying: Vec<Option<What>>,
    empty: Vec<usize>,
    numbers: u64,
}

impl Queue {
    /// Puts something in.
    pub fn push(&mut self, time: Time, what: What) {
        self.numbers += 1;
        let place = self.empty.pop().unwrap_or(self.lying.len());
        if place == self.lying.len() {
            self.lying.push(None);
        }
        self.lying[place] = Some(what);
        self.order.push(Reverse((time, self.numbers, place)));
    }

    /// Takes the next one out, if it is not later than `end`.
    pub fn pop_until(&mut self, end: Time) -> Option<(Time, What)> {
        if self.order.peek()?.0.0 > end {
            return None;
        }
        let Reverse((time, _, place)) = self.order.pop()?;
        self.empty.push(place);
        self.lying[place].take().map(|what| (time, what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earlier_goes_first_and_equal_in_order_of_arrival() {
        let mut queue = Queue::default();
        for (time, door) in [(5, 1), (3, 2), (5, 3), (3, 4)] {
            queue.push(time, What::Door(door));
        }
        let order: Vec<u64> =
            std::iter::from_fn(|| queue.pop_until(5)).map(|(_, what)| if let What::Door(door) = what { door } else { 0 }).collect();
        assert_eq!(order, [2, 4, 1, 3]);
        queue.push(9, What::Look);
        assert!(queue.pop_until(8).is_none());
    }
}
