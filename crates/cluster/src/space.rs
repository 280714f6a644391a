//! Room on the own node: reserve, fetch, commit; never over.
//!
//! Reserved are adds under way here or elsewhere (leases), and pins of known size that are being fetched. What was
//! reserved and has arrived is counted twice until the lease ends and the node is measured again: the error is on the safe side.

use std::collections::{BTreeMap, VecDeque};
use types::{ByteCount, Cid, Millis, Now, PeerId};

/// A reservation ends this long after it was last renewed.
const LEASE: Millis = Millis::minutes(10);
/// Leases of others taken at a time; more are refused as if there were no room.
const LEASES_MOST: usize = 10_000;
/// Ended leases of more than this part of what is free are much: the node is measured at once.
const MUCH: u64 = 8;
/// Sizes remembered (some 8 MB).
const SIZES_MOST: usize = 30_000;

/// The own node's room.
#[derive(Clone, Debug, Default)]
pub(crate) struct Space {
    measured: Option<(ByteCount, ByteCount)>,
    upkeep: ByteCount,
    leases: BTreeMap<(PeerId, u64), Lease>,
    pins: BTreeMap<Cid, ByteCount>,
    /// By a hash of the CID: a fifth of the memory, and one size in 2^64 that is another pin's only mistakes what to reserve.
    sizes: BTreeMap<u64, ByteCount>,
    sizes_order: VecDeque<u64>,
}

/// What an add reserved.
#[derive(Clone, Copy, Debug)]
struct Lease {
    bytes: ByteCount,
    end: Millis,
    /// Nothing more comes by it: the next measurement has all of it.
    has_ended: bool,
}

impl Space {
    /// A measurement came.
    pub fn measured(&mut self, limit: ByteCount, used: ByteCount, upkeep: ByteCount) {
        self.leases.retain(|_, lease| !lease.has_ended);
        self.measured = Some((limit, used));
        self.upkeep = upkeep;
    }

    /// Limit and used; zero before the first measurement.
    pub fn numbers(&self) -> (ByteCount, ByteCount) {
        self.measured.unwrap_or_default()
    }

    /// What is reserved: for adds, for pins on their way, and by the node for itself.
    pub fn reserved(&self) -> ByteCount {
        let leases = self.leases.values().fold(self.upkeep, |sum, lease| sum + lease.bytes);
        self.pins.values().fold(leases, |sum, bytes| sum + *bytes)
    }

    /// Free under the limit, reservations taken off; no bound before the first measurement.
    pub fn free(&self) -> ByteCount {
        match self.measured {
            None => ByteCount(u64::MAX),
            Some((limit, used)) => limit - used - self.reserved(),
        }
    }

    /// Reserves for an add, or renews and changes what is reserved for it. The free bytes when they do not suffice.
    pub fn reserve(&mut self, owner: PeerId, lease: u64, bytes: ByteCount, now: Now) -> Result<(), ByteCount> {
        let old = self.leases.get(&(owner, lease)).map_or(ByteCount::ZERO, |lease| lease.bytes);
        let free = self.free() + old;
        let is_full = free == ByteCount::ZERO || (old == ByteCount::ZERO && self.leases.len() >= LEASES_MOST);
        if bytes > free || is_full {
            return Err(free);
        }
        self.leases.insert((owner, lease), Lease { bytes, end: now.after(LEASE), has_ended: false });
        Ok(())
    }

    /// An add ended: what it reserved is free once what it brought is measured. Whether that should be soon, since little is free.
    pub fn release(&mut self, owner: PeerId, lease: u64) -> bool {
        let Some(lease) = self.leases.get_mut(&(owner, lease)) else { return false };
        lease.has_ended = true;
        let ended = self.leases.values().filter(|lease| lease.has_ended).fold(ByteCount::ZERO, |sum, lease| sum + lease.bytes);
        ended.get() > self.free().get() / MUCH
    }

    /// An add will bring nothing.
    pub fn forget(&mut self, owner: PeerId, lease: u64) {
        self.leases.remove(&(owner, lease));
    }

    /// All adds of a peer ended: it started anew.
    pub fn release_all(&mut self, owner: &PeerId) {
        self.leases.retain(|(other, _), _| other != owner);
    }

    /// Reserves for fetching a pin; a pin of unknown size needs one free byte. What is needed and what is free otherwise.
    pub fn reserve_pin(&mut self, cid: &Cid) -> Result<(), (ByteCount, ByteCount)> {
        let free = self.free();
        match self.size(cid) {
            Some(size) if size > free => Err((size, free)),
            Some(size) => {
                self.pins.insert(*cid, size);
                Ok(())
            }
            None if free == ByteCount::ZERO => Err((ByteCount(1), free)),
            None => Ok(()),
        }
    }

    /// The fetch ended, one way or the other.
    pub fn release_pin(&mut self, cid: &Cid) {
        self.pins.remove(cid);
    }

    /// Remembers the size of a pin.
    pub fn learn_size(&mut self, cid: &Cid, bytes: ByteCount) {
        let name = size_name(cid);
        if self.sizes.insert(name, bytes).is_none() {
            self.sizes_order.push_back(name);
        }
        while self.sizes_order.len() > SIZES_MOST {
            if let Some(oldest) = self.sizes_order.pop_front() {
                self.sizes.remove(&oldest);
            }
        }
    }

    /// The size of a pin, where it is known.
    pub fn size(&self, cid: &Cid) -> Option<ByteCount> {
        self.sizes.get(&size_name(cid)).copied()
    }

    /// Drops leases that nobody renewed.
    pub fn expire(&mut self, now: Now) {
        self.leases.retain(|_, lease| lease.end > now.mono);
    }

    /// When [`Space::expire`] next has something to do.
    pub fn next_wake(&self) -> Option<Millis> {
        self.leases.values().map(|lease| lease.end).min()
    }
}

fn size_name(cid: &Cid) -> u64 {
    crate::order::mix_number(cid, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cid, peer};
    use types::UnixMillis;

    fn at(seconds: u64) -> Now {
        Now { mono: Millis::seconds(seconds), wall: UnixMillis(0) }
    }

    fn with_free(free: u64) -> Space {
        let mut space = Space::default();
        space.measured(ByteCount(1100), ByteCount(1000 - free), ByteCount(100));
        space
    }

    #[test]
    fn reservations_never_exceed_the_limit() {
        let mut space = with_free(100);
        assert_eq!(space.reserve(peer(1), 1, ByteCount(60), at(0)), Ok(()));
        assert_eq!(space.reserve(peer(2), 1, ByteCount(60), at(0)), Err(ByteCount(40)));
        assert_eq!(space.reserve(peer(1), 1, ByteCount(100), at(0)), Ok(()), "it grows into its own");
        assert_eq!(space.free(), ByteCount(0));
        assert_eq!(space.reserve_pin(&cid(1)), Err((ByteCount(1), ByteCount(0))));
    }

    #[test]
    fn what_has_arrived_is_counted_once_after_it_was_measured() {
        let mut space = with_free(100);
        space.reserve(peer(1), 1, ByteCount(60), at(0)).expect("room");
        assert!(space.release(peer(1), 1), "it is much of what is free");
        assert_eq!(space.free(), ByteCount(40), "it is not known what of it came");
        space.measured(ByteCount(1100), ByteCount(950), ByteCount(100));
        assert_eq!(space.free(), ByteCount(50));
    }

    #[test]
    fn what_nobody_renews_is_free_again() {
        let mut space = with_free(100);
        space.reserve(peer(1), 1, ByteCount(100), at(0)).expect("room");
        space.expire(at(599));
        assert_eq!(space.free(), ByteCount(0));
        space.expire(at(600));
        assert_eq!(space.free(), ByteCount(100));
    }

    #[test]
    fn a_pin_of_known_size_reserves_it() {
        let mut space = with_free(100);
        space.learn_size(&cid(1), ByteCount(80));
        space.learn_size(&cid(2), ByteCount(80));
        assert_eq!(space.reserve_pin(&cid(1)), Ok(()));
        assert_eq!(space.reserve_pin(&cid(2)), Err((ByteCount(80), ByteCount(20))));
        space.release_pin(&cid(1));
        assert_eq!(space.reserve_pin(&cid(2)), Ok(()));
    }
}
