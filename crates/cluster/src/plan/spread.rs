//! Even spread by bytes, measured: log-normal sizes on disks of 1 : 2 : 4, a peer that joins and one that is drained.
//!
//! Decisions are those of the walk; peers hear of each other's loads only between rounds, as by hellos. Deterministic;
//! `cargo xtask bench spread` prints the figures.

use super::*;
use crate::order::mix_number;
use crate::testing::{cid, peer};

const ITEMS: u64 = 6_000;
const COPIES: usize = 2;
/// Adds between two hellos.
const HELLO: u64 = 50;
/// No item is larger: larger ones are cut (`shards`).
const LARGEST: f64 = 256.0 * 1024.0 * 1024.0;

struct World {
    items: Vec<(Cid, u64, Vec<PeerId>)>,
    candidates: Vec<Candidate>,
    moved: u64,
}

/// Median 1 MiB, sigma 1.5: the largest are thousands of times the smallest.
fn size(cid: &Cid) -> u64 {
    let uniform = |number| mix_number(cid, number) as f64 / u64::MAX as f64;
    let normal = (0..12).map(uniform).sum::<f64>() - 6.0;
    (1_048_576.0 * (1.5 * normal).exp()).clamp(1.0, LARGEST) as u64
}

fn candidate(number: u8, capacity: u64) -> Candidate {
    Candidate {
        peer: peer(number),
        is_up: true,
        is_draining: false,
        is_cordoned: false,
        limit: ByteCount(capacity),
        free: ByteCount(capacity),
        capacity: ByteCount(capacity),
        placed: ByteCount::ZERO,
        domain: None,
    }
}

impl World {
    /// Items are added one after another; disks are 60% full afterwards.
    fn filled(disks: &[u64]) -> World {
        let sized: Vec<(Cid, u64)> = (0..ITEMS).map(|number| (cid(number), size(&cid(number)))).collect();
        let all = sized.iter().map(|(_, size)| size).sum::<u64>() * COPIES as u64;
        let unit = all * 10 / 6 / disks.iter().sum::<u64>();
        let candidates = disks.iter().enumerate().map(|(number, disk)| candidate(number as u8, disk * unit)).collect();
        let mut world = World { items: Vec::new(), candidates, moved: 0 };
        for (number, (cid, size)) in (0..).zip(sized) {
            if number % HELLO == 0 {
                world.hello();
            }
            let rules = Rules { size: Some(ByteCount(size)), ..Rules::copies(2, 2, 2) };
            let holders = placement::place(&cid, &world.candidates, &rules, &[]).expect("room").holders;
            world.items.push((cid, size, holders));
        }
        world.items.sort_by_key(|(cid, _, _)| cid.to_bytes());
        world.hello();
        world
    }

    /// Everybody says what it has.
    fn hello(&mut self) {
        for candidate in &mut self.candidates {
            let held = self.items.iter().filter(|(_, _, holders)| holders.contains(&candidate.peer));
            candidate.placed = ByteCount(held.map(|(_, size, _)| size).sum());
            candidate.free = candidate.limit - candidate.placed;
        }
    }

    fn loads(&self) -> BTreeMap<PeerId, Load> {
        self.candidates.iter().map(|other| (other.peer, Load { placed: other.placed, ..Load::default() })).collect()
    }

    fn targets(&self) -> (Vec<Share>, Vec<u64>) {
        let (shares, moving) = shares(&self.candidates, &self.loads());
        let targets = balance::targets(&shares, moving, COPIES as u64 * 1000);
        (shares, targets)
    }

    /// The greatest distance from a share, in percent of it.
    fn off(&self) -> f64 {
        let (shares, targets) = self.targets();
        let off = |(share, target): (&Share, &u64)| (share.placed as f64 / (*target).max(1) as f64 - 1.0).abs() * 100.0;
        shares.iter().zip(&targets).filter(|(share, _)| share.role == Role::Full).map(off).fold(0.0, f64::max)
    }

    /// Every giver walks over its own copies, until nobody is off its share by more than it may be.
    fn balance(&mut self, tolerance: Tolerance) {
        for _ in 0..20 {
            let (shares, targets) = self.targets();
            if !balance::is_uneven(&shares, &targets, tolerance) {
                return;
            }
            for share in &shares {
                let mut shipping = Shipping::new(balance::lanes(&share.peer, &shares, &targets), false);
                for (_, size, holders) in self.items.iter_mut().filter(|(_, _, holders)| holders.contains(&share.peer)) {
                    if let Some(to) = shipping.take(*size, |to| !holders.contains(to)) {
                        holders.retain(|holder| *holder != share.peer);
                        holders.push(to);
                        self.moved += *size;
                    }
                }
            }
            self.hello();
        }
    }

    /// A peer hands everything over, hearing of the others' loads now and then.
    fn drain(&mut self, number: u8) {
        let from = peer(number);
        self.candidates.iter_mut().filter(|other| other.peer == from).for_each(|other| other.is_draining = true);
        let mut left = Shipping::default();
        let mut done = 0;
        for at in 0..self.items.len() {
            let (cid, size, holders) = self.items[at].clone();
            if !holders.contains(&from) {
                continue;
            }
            if done % HELLO == 0 {
                self.hello();
                let (shares, targets) = self.targets();
                left = Shipping::new(balance::shipments(&from, &shares, &targets), true);
            }
            let kept: Vec<PeerId> = holders.into_iter().filter(|holder| *holder != from).collect();
            let prefer = left.best(size, |to| !kept.contains(to)).into_iter().collect();
            let rules = Rules { size: Some(ByteCount(size)), prefer, ..Rules::copies(1, 2, 2) };
            let (fit, _) = filter::split(&self.candidates, &rules, &kept);
            let gained = placement::add(&cid, &fit, &rules, &kept, &self.candidates, COPIES - kept.len());
            gained.iter().for_each(|to| left.used(to, size));
            self.items[at].2 = kept.into_iter().chain(gained).collect();
            self.moved += size;
            done += 1;
        }
        self.candidates.retain(|other| other.peer != from);
        self.hello();
    }

    fn take_moved(&mut self) -> u64 {
        std::mem::take(&mut self.moved)
    }
}

#[test]
fn spread_stays_even_and_little_moves() {
    let mut world = World::filled(&[1, 1, 2, 2, 4, 4]);
    let all: u64 = world.items.iter().map(|(_, size, _)| size * COPIES as u64).sum();
    println!("{ITEMS} items, {} in {COPIES} copies, disks 1:1:2:2:4:4, 60% full", ByteCount(all));
    println!("placed, never balanced: at most {:.2}% off the feasible share", world.off());
    world.balance(Tolerance::AUTO);
    let moved = world.take_moved();
    println!("balanced by itself:     {:.2}% off, {:.2}% of all bytes moved", world.off(), moved as f64 * 100.0 / all as f64);
    assert!(world.off() <= 3.0, "{}", world.off());

    world.candidates.push(candidate(9, world.candidates[2].limit.get()));
    let (_, targets) = world.targets();
    let least = targets.last().copied().expect("the new peer");
    world.balance(Tolerance::AUTO);
    let ratio = world.take_moved() as f64 / least as f64;
    println!("a peer of 2 joins:      {:.2}% off, {ratio:.3} times the least that must move", world.off());
    assert!(world.off() <= 3.0, "{}", world.off());
    assert!(ratio <= 1.10, "{ratio}");

    let least = world.candidates[3].placed.get();
    world.drain(3);
    let drained = world.off();
    world.balance(Tolerance::AUTO);
    let ratio = world.take_moved() as f64 / least as f64;
    println!("a peer of 2 is drained: {drained:.2}% off, balanced {:.2}% off, {ratio:.3} times the least that must move", world.off());
    assert!(world.off() <= 3.0, "{}", world.off());
    assert!(ratio <= 1.10, "{ratio}");
    let is_right = |holders: &Vec<PeerId>| holders.len() == COPIES && holders[0] != holders[1];
    assert!(world.items.iter().all(|(_, _, holders)| is_right(holders)));
}
