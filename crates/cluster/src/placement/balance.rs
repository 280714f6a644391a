//! Even spread by bytes: what each peer's share is, what an over-full peer gives to whom, and what the other one takes of it.
//!
//! *Shares* come from water-filling: the same fill for all, no peer more than its room nor more than one copy of everything.
//! *Movement* is the least there can be: only what a peer has above its share leaves it, and only peers below theirs get
//! something. Each giver chooses alone, among its own copies, whose sizes it knows, and to whom: excesses and lacks are laid
//! side by side ([`lanes`]), so that each pair has much to move and all givers together fill a taker just up to its share.
//!
//! *Rest.* Shares are computed from what peers last said, so two peers may see them differently, and two givers may find the
//! same taker. What a giver plans is therefore an offer, and the taker decides ([`Taker::accepts`]) from what only the two know
//! exactly: what the giver has once all it offered is gone, and what the taker has once all it took has come. Count copies
//! on their way as if they had arrived. Then every shipment makes the sum over all peers of placed^2 / capacity smaller, by
//! at least a certain part of what it moves ([`MARGIN`]), whatever else is under way and however wrong the shares are. The sum
//! cannot fall for ever: where nothing else changes, moving ends. The shares only see to it that little is moved.

use types::{Offer, PeerId};

/// The giver must be fuller than the taker by so many thousandths, in the middle of what is moved: of a smaller gain nobody has anything.
const MARGIN: f64 = 2.0;

/// How a peer takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Gives what is above its share, takes what is below.
    Full,
    /// Gives everything.
    Drains,
    /// Keeps what it has: it is cordoned, silent, or has not said what it has.
    Fixed,
}

/// What a peer has, and could have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Who.
    pub peer: PeerId,
    /// Bytes that the cluster's copies may take there.
    pub capacity: u64,
    /// Bytes that they take.
    pub placed: u64,
    /// How it takes part.
    pub role: Role,
}

/// How far from its share a peer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tolerance {
    /// In thousandths of its share.
    pub of_share: u64,
    /// And in thousandths of its capacity: nobody minds an uneven spread of little.
    pub of_capacity: u64,
}

impl Tolerance {
    /// When balancing begins by itself.
    pub const AUTO: Tolerance = Tolerance { of_share: 30, of_capacity: 10 };
    /// When it was asked for.
    pub const ASKED: Tolerance = Tolerance { of_share: 10, of_capacity: 0 };

    /// Bytes that a peer may be off.
    pub fn bytes(self, share: u64, capacity: u64) -> u64 {
        let part = |whole: u64, thousandths: u64| (u128::from(whole) * u128::from(thousandths) / 1000) as u64;
        part(share, self.of_share).max(part(capacity, self.of_capacity))
    }
}

/// What each peer should have, in the order of `shares`. `moving`: bytes on their way, counted nowhere. `copies`: of an
/// item, on average, in thousandths.
pub fn targets(shares: &[Share], moving: u64, copies: u64) -> Vec<u64> {
    let sum = |keep: &dyn Fn(&Share) -> bool| shares.iter().filter(|share| keep(share)).map(|share| u128::from(share.placed)).sum::<u128>();
    let all = sum(&|_| true) + u128::from(moving);
    let free_to_move = sum(&|share| share.role != Role::Fixed) + u128::from(moving);
    // Rounded up: a peer may hold everything.
    let one_copy = (all * 1000).div_ceil(u128::from(copies.max(1000)));
    let caps: Vec<(u64, u64)> = shares
        .iter()
        .map(|share| match share.role {
            Role::Full => (share.capacity, u128::from(share.capacity).min(one_copy) as u64),
            Role::Drains | Role::Fixed => (0, 0),
        })
        .collect();
    let mut targets = fill(free_to_move, &caps);
    for (target, share) in targets.iter_mut().zip(shares) {
        if share.role == Role::Fixed {
            *target = share.placed;
        }
    }
    targets
}

/// Water-filling: `total` in proportion to the weights, none above its cap. What exceeds all caps stays unplaced.
fn fill(total: u128, caps: &[(u64, u64)]) -> Vec<u64> {
    let mut targets = vec![0u64; caps.len()];
    let mut order: Vec<usize> = (0..caps.len()).filter(|index| caps[*index].1 > 0).collect();
    // Whose cap is the smallest part of its weight is full first, and the others share the rest.
    order.sort_by(|a, b| {
        let (weight_a, cap_a) = caps[*a];
        let (weight_b, cap_b) = caps[*b];
        (u128::from(cap_a) * u128::from(weight_b)).cmp(&(u128::from(cap_b) * u128::from(weight_a))).then(a.cmp(b))
    });
    let mut left = total;
    let mut weights: u128 = order.iter().map(|index| u128::from(caps[*index].0)).sum();
    for index in order {
        let (weight, cap) = caps[index];
        let target = multiplied(left, u128::from(weight), weights).min(u128::from(cap));
        targets[index] = target as u64;
        left -= target;
        weights -= u128::from(weight);
    }
    targets
}

/// `a * b / c` without overflow for sums of 64-bit numbers.
fn multiplied(a: u128, b: u128, c: u128) -> u128 {
    match a.checked_mul(b) {
        Some(product) => product.checked_div(c).unwrap_or(0),
        None => (a / c.max(1)).saturating_mul(b),
    }
}

/// Whether a peer that takes part is further from its share than it may be.
pub fn is_uneven(shares: &[Share], targets: &[u64], tolerance: Tolerance) -> bool {
    shares
        .iter()
        .zip(targets)
        .any(|(share, target)| share.role == Role::Full && share.placed.abs_diff(*target) > tolerance.bytes(*target, share.capacity))
}

/// What `me` gives to whom: its excess (everything, when it drains), in proportion to what each taker lacks.
pub fn shipments(me: &PeerId, shares: &[Share], targets: &[u64]) -> Vec<(PeerId, u64)> {
    let both = || shares.iter().zip(targets);
    let excess = both().find(|(share, _)| share.peer == *me).map_or(0, |(share, target)| excess(share, *target));
    let lacking: u128 = both().map(|(share, target)| u128::from(lack(share, *target))).sum();
    if excess == 0 || lacking == 0 {
        return Vec::new();
    }
    // Nobody gets more than it lacks, even where all together have more than has a place.
    let part = |lack: u64| (multiplied(u128::from(excess), u128::from(lack), lacking) as u64).min(lack);
    both().map(|(share, target)| (share.peer, part(lack(share, *target)))).filter(|(_, bytes)| *bytes > 0).collect()
}

/// What `me` gives to whom when all that have too much give: excesses and lacks in the order of the peers, side by side on a line.
/// Everybody lays the same line, and each giver has few takers.
pub fn lanes(me: &PeerId, shares: &[Share], targets: &[u64]) -> Vec<(PeerId, u64)> {
    let mut line: Vec<(&Share, u64)> = shares.iter().zip(targets.iter().copied()).collect();
    line.sort_by_key(|(share, _)| share.peer);
    let before =
        line.iter().take_while(|(share, _)| share.peer != *me).map(|(share, target)| u128::from(excess(share, *target))).sum::<u128>();
    let own = line.iter().find(|(share, _)| share.peer == *me).map_or(0, |(share, target)| excess(share, *target));
    let end = before + u128::from(own);
    let mut at = 0u128;
    let mut lanes = Vec::new();
    for (share, target) in line {
        let next = at + u128::from(lack(share, target));
        let overlap = next.min(end).saturating_sub(at.max(before)) as u64;
        if overlap > 0 {
            lanes.push((share.peer, overlap));
        }
        at = next;
    }
    lanes
}

/// Bytes above its share that a peer gives.
pub fn excess(share: &Share, target: u64) -> u64 {
    if share.role == Role::Fixed { 0 } else { share.placed.saturating_sub(target) }
}

/// Bytes below its share that a peer takes.
pub fn lack(share: &Share, target: u64) -> u64 {
    if share.role == Role::Full { target.saturating_sub(share.placed) } else { 0 }
}

/// A peer that is offered something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taker {
    /// What it has, with all that it took up already.
    pub placed: u64,
    /// What it could have.
    pub capacity: u64,
    /// What it lacks to its share, by its own view.
    pub lack: u64,
    /// Free there, without what it took up already.
    pub room: u64,
}

impl Taker {
    /// How much of an offer it takes: what it lacks, if that makes both more even; a single copy may pass its share by half.
    pub fn accepts(&self, offer: &Offer) -> u64 {
        let most = offer.bytes.get().min(self.room).min(self.evens(offer));
        let least = offer.least.get().max(1);
        if most.min(self.lack) >= least {
            most.min(self.lack)
        } else if least <= most && least / 2 < self.lack {
            least
        } else {
            0
        }
    }

    /// The most that can be moved so that the giver is fuller than the taker, by the margin, until the middle of it.
    fn evens(&self, offer: &Offer) -> u64 {
        let giver = offer.placed.get() as f64 + offer.bytes.get() as f64;
        let (of_giver, of_taker) = (1.0 / (offer.capacity.get().max(1) as f64), (1.0 + MARGIN / 1000.0) / (self.capacity.max(1) as f64));
        let difference = giver * of_giver - self.placed as f64 * of_taker;
        // Twice the way to where both are filled alike; a float beyond u64 is cut by `as`.
        (2.0 * difference / (of_giver + of_taker)).max(0.0) as u64
    }
}

/// An order to give away, used up copy by copy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shipping {
    left: Vec<(PeerId, u64)>,
    /// No copy fitted into what was left: one that makes it more even is good enough.
    is_coarse: bool,
}

impl Shipping {
    /// Begins one.
    pub fn new(shipments: Vec<(PeerId, u64)>, is_coarse: bool) -> Shipping {
        Shipping { left: shipments, is_coarse }
    }

    /// Whether nothing is left to give.
    pub fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// Who gets a copy of this size: of those it fits, the one that lacks most.
    pub fn take(&mut self, size: u64, fits: impl Fn(&PeerId) -> bool) -> Option<PeerId> {
        let peer = self.best(size, fits)?;
        self.used(&peer, size);
        Some(peer)
    }

    /// The same, and nothing is used up yet.
    pub fn best(&self, size: u64, fits: impl Fn(&PeerId) -> bool) -> Option<PeerId> {
        // Above half of its size the copy makes both sides more even than they are.
        let allowed = |left: u64| if self.is_coarse { size / 2 < left } else { size <= left };
        let fitting = self.left.iter().filter(|(peer, left)| allowed(*left) && fits(peer));
        fitting.max_by_key(|(peer, left)| (*left, *peer)).map(|(peer, _)| *peer)
    }

    /// A copy went to a peer.
    pub fn used(&mut self, peer: &PeerId, size: u64) {
        for (other, left) in &mut self.left {
            if other == peer {
                *left = left.saturating_sub(size);
            }
        }
        self.left.retain(|(_, left)| *left > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::peer;
    use types::ByteCount;

    /// `capacity/placed`, with `d` behind it when it drains and `f` when it stays as it is.
    fn shares(text: &str) -> Vec<Share> {
        text.split_whitespace()
            .enumerate()
            .map(|(index, word)| {
                let role = match word.chars().last() {
                    Some('d') => Role::Drains,
                    Some('f') => Role::Fixed,
                    _ => Role::Full,
                };
                let (capacity, placed) = word.trim_end_matches(['d', 'f']).split_once('/').expect("capacity/placed");
                let number = |text: &str| text.parse().expect("a number");
                Share { peer: peer(index as u8), capacity: number(capacity), placed: number(placed), role }
            })
            .collect()
    }

    fn check(text: &str, copies: u64, expected: &[u64]) {
        assert_eq!(targets(&shares(text), 0, copies * 1000), expected, "{text} x{copies}");
    }

    #[test]
    fn all_are_filled_alike() {
        check("100/40 100/20 100/0", 1, &[20, 20, 20]);
        check("100/70 200/0 400/0", 1, &[10, 20, 40]);
        check("100/0 100/0", 1, &[0, 0]);
    }

    #[test]
    fn nobody_has_more_than_one_copy_of_everything_or_than_fits() {
        check("100/50 100/50 800/100", 2, &[50, 50, 100]);
        check("10/0 100/90", 1, &[9, 81]);
        check("10/10 10/10 1000/10", 3, &[10, 10, 10]);
    }

    #[test]
    fn who_drains_has_nothing_and_who_is_silent_keeps_what_it_has() {
        check("100/30d 100/30 100/30", 1, &[0, 45, 45]);
        check("100/30f 100/60 100/0", 1, &[30, 30, 30]);
    }

    #[test]
    fn givers_fill_takers_up_to_their_shares_and_not_beyond() {
        let shares = shares("100/60 100/50 100/10 100/0");
        let targets = targets(&shares, 0, 1000);
        let mut got = [0u64; 4];
        for share in &shares {
            for (to, bytes) in shipments(&share.peer, &shares, &targets) {
                got[usize::from(to.ed25519().expect("a key")[0])] += bytes;
            }
        }
        assert_eq!(targets, [30, 30, 30, 30]);
        assert_eq!((got[0], got[1]), (0, 0));
        assert!((19..=20).contains(&got[2]) && (29..=30).contains(&got[3]), "{got:?}");
    }

    /// What each peer gets when all that have too much give along their lanes; pairs that have one.
    fn laid(text: &str) -> (Vec<u64>, usize) {
        let shares = shares(text);
        let targets = targets(&shares, 0, 1000);
        let lanes: Vec<(PeerId, u64)> = shares.iter().flat_map(|share| lanes(&share.peer, &shares, &targets)).collect();
        let got = |share: &Share| lanes.iter().filter(|(to, _)| *to == share.peer).map(|(_, bytes)| bytes).sum();
        (shares.iter().map(got).collect(), lanes.len())
    }

    #[test]
    fn lanes_fill_takers_just_up_to_their_shares_and_are_few() {
        assert_eq!(laid("100/60 100/60 100/0 100/0"), (vec![0, 0, 30, 30], 2));
        assert_eq!(laid("100/50 100/10 100/60 100/0"), (vec![0, 20, 0, 30], 2));
        assert_eq!(laid("100/40 100/40 100/40 100/0"), (vec![0, 0, 0, 30], 3));
        assert_eq!(laid("100/30 100/30"), (vec![0, 0], 0));
        // More than has a place: nobody gets more than fits.
        assert_eq!(laid("10/60 10/0"), (vec![0, 10], 1));
    }

    fn taker(placed: u64, capacity: u64, lack: u64) -> Taker {
        Taker { placed, capacity, lack, room: u64::MAX }
    }

    /// `bytes`, the smallest copy of `least`, from one who has `placed` of 1000 afterwards.
    fn offer(bytes: u64, least: u64, placed: u64) -> Offer {
        let [bytes, least, placed, capacity] = [bytes, least, placed, 1000].map(ByteCount);
        Offer { shipment: 1, bytes, least, placed, capacity }
    }

    #[test]
    fn a_taker_takes_what_it_lacks_and_not_more_than_makes_both_even() {
        assert_eq!(taker(100, 1000, 200).accepts(&offer(150, 10, 400)), 150);
        assert_eq!(taker(100, 1000, 200).accepts(&offer(300, 10, 400)), 200);
        // A single copy may pass the share by half.
        assert_eq!(taker(100, 1000, 200).accepts(&offer(390, 390, 800)), 390);
        assert_eq!(taker(100, 1000, 200).accepts(&offer(410, 410, 800)), 0);
        assert_eq!(taker(100, 1000, 0).accepts(&offer(100, 1, 800)), 0);
        // By a view of others that is wrong it lacks much; it is fuller than the giver nevertheless.
        assert_eq!(taker(500, 1000, 400).accepts(&offer(100, 10, 400)), 0);
        assert_eq!(taker(400, 1000, 400).accepts(&offer(100, 100, 400)), 0);
        assert_eq!(Taker { room: 50, ..taker(100, 1000, 200) }.accepts(&offer(150, 10, 400)), 50);
        // Of twice the room twice as much.
        assert_eq!(taker(700, 2000, 400).accepts(&offer(100, 10, 400)), 100);
        assert_eq!(taker(1100, 2000, 400).accepts(&offer(100, 10, 400)), 0);
    }

    #[test]
    fn what_is_accepted_makes_all_more_even_however_wrong_the_views_are_and_ends() {
        let mut state = 7u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let capacities = [1_000u64, 1_000, 2_000, 2_000, 4_000, 4_000];
        // Copies by size; those on their way count as if they had come.
        let mut held: Vec<Vec<u64>> = vec![Vec::new(); capacities.len()];
        for _ in 0..300 {
            held[random(3) as usize].push(1 + random(30));
        }
        let unevenness = |held: &[Vec<u64>]| -> f64 {
            held.iter().zip(capacities).map(|(sizes, capacity)| (sizes.iter().sum::<u64>() as f64).powi(2) / capacity as f64).sum()
        };
        let mut last = 0;
        for attempt in 0..60_000 {
            let (from, to) = (random(6) as usize, random(6) as usize);
            let count = (1 + random(4) as usize).min(held[from].len());
            if from == to || count == 0 {
                continue;
            }
            let sizes: Vec<u64> = held[from][..count].to_vec();
            let (bytes, least) = (sizes.iter().sum::<u64>(), sizes.iter().min().copied().unwrap_or_default());
            let [placed, capacity] = [held[from].iter().sum::<u64>() - bytes, capacities[from]].map(ByteCount);
            let offer = Offer { shipment: 1, bytes: ByteCount(bytes), least: ByteCount(least), placed, capacity };
            let taker = Taker { placed: held[to].iter().sum(), capacity: capacities[to], lack: random(500), room: u64::MAX };
            let mut agreed = taker.accepts(&offer);
            let (before, mut moved) = (unevenness(&held), false);
            for size in sizes {
                if size <= agreed {
                    agreed -= size;
                    let at = held[from].iter().position(|other| *other == size).expect("held");
                    held[from].remove(at);
                    held[to].push(size);
                    moved = true;
                    last = attempt;
                }
            }
            let after = unevenness(&held);
            assert!(!moved || after < before, "attempt {attempt}: {before} {after}");
            let turn = count.min(held[from].len());
            held[from].rotate_left(turn);
        }
        assert!(last < 30_000, "still moving at {last}");
        let fill: Vec<u64> = held.iter().zip(capacities).map(|(sizes, capacity)| sizes.iter().sum::<u64>() * 1000 / capacity).collect();
        let (least, most) = (fill.iter().min().expect("peers"), fill.iter().max().expect("peers"));
        assert!(most - least <= 40, "{fill:?}");
    }

    #[test]
    fn little_unevenness_is_left_alone_until_it_is_asked_for() {
        let check = |text: &str, tolerance: Tolerance, expected: bool| {
            let shares = shares(text);
            assert_eq!(is_uneven(&shares, &targets(&shares, 0, 1000), tolerance), expected, "{text} {tolerance:?}");
        };
        check("1000/510 1000/490", Tolerance::AUTO, false);
        check("1000/510 1000/490", Tolerance::ASKED, true);
        check("1000/520 1000/480", Tolerance::AUTO, true);
        check("100000/60 100000/40", Tolerance::AUTO, false); // ten parts in ten thousand of the disk
        check("100000/60 100000/40", Tolerance::ASKED, true);
    }

    #[test]
    fn a_copy_larger_than_what_is_left_stays_unless_nothing_smaller_is_there() {
        let mut exact = Shipping::new(vec![(peer(1), 10), (peer(2), 5)], false);
        assert_eq!(exact.take(11, |_| true), None);
        assert_eq!(exact.take(4, |_| true), Some(peer(1)));
        assert_eq!(exact.take(4, |to| *to == peer(2)), Some(peer(2)));
        assert_eq!(exact.take(6, |_| true), Some(peer(1)));
        let mut coarse = Shipping::new(vec![(peer(1), 10)], true);
        assert_eq!(coarse.take(30, |_| true), None, "it would only turn the tables");
        assert_eq!(coarse.take(15, |_| true), Some(peer(1)));
        assert!(coarse.is_empty());
    }
}
