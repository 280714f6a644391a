//! Even spread by bytes: what each peer's share is, and what an over-full peer gives to whom.
//!
//! *Shares* come from water-filling: the same fill for all, no peer more than its room nor more than one copy of everything.
//! *Movement* is the least there can be: only what a peer has above its share leaves it, and only peers below theirs get
//! something. Each giver decides alone, about its own copies, whose sizes it knows: it sends its excess to the takers in
//! proportion to what they lack, so all givers together fill each taker just up to its share.

use types::PeerId;

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
    let excess = both().find(|(share, _)| share.peer == *me && share.role != Role::Fixed);
    let excess = excess.map_or(0, |(share, target)| share.placed.saturating_sub(*target));
    let lacks = |share: &Share, target: u64| if share.role == Role::Full { target.saturating_sub(share.placed) } else { 0 };
    let lacking: u128 = both().map(|(share, target)| u128::from(lacks(share, *target))).sum();
    if excess == 0 || lacking == 0 {
        return Vec::new();
    }
    let part = |lack: u64| multiplied(u128::from(excess), u128::from(lack), lacking) as u64;
    both().map(|(share, target)| (share.peer, part(lacks(share, *target)))).filter(|(_, bytes)| *bytes > 0).collect()
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
