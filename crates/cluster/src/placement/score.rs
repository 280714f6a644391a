//! Second pass: weighted rendezvous with learned weights (design/clusters-and-policies.md 2.7).
//!
//! Each peer runs a clock whose first tick is exponential with rate w(peer); the earliest ticks hold the copy. With more
//! than one copy the part that a peer gets is not proportional to its weight (a large one is never drawn twice), so weights
//! are fitted to the wished shares. Only IEEE additions, products and quotients and integers are used, so that every peer
//! on every processor computes the same.

use super::Candidate;
use super::balance::{self, Role, Share};
use crate::order;
use std::collections::BTreeMap;
use types::{Cid, PeerId};

/// Weights have 32 fractional bits.
const ONE: u64 = 1 << 32;
/// No peer is wished to hold more than this part of everything: the weight for all of it has no end.
const SHARE_MOST: f64 = 0.985;
/// Nor less, so that a full peer's weight is never zero.
const SHARE_LEAST: f64 = 1e-6;
/// Rounds of fitting; the error falls by about half in each.
const FIT_ROUNDS: usize = 12;
/// A store without limit counts as one of this size.
const UNLIMITED: u64 = 1 << 50;
/// An empty cluster is looked at as if it had this part of its room filled.
const GROWTH_LEAST: u64 = 64;

/// Peers in the order in which they should hold `cid`: preferred ones in their order, then by score.
pub fn ranked(cid: &Cid, fit: &[&Candidate], weights: &BTreeMap<PeerId, u64>, prefer: &[PeerId]) -> Vec<PeerId> {
    let mut scored: Vec<(usize, u128, PeerId)> = fit
        .iter()
        .map(|candidate| {
            let place = prefer.iter().position(|peer| *peer == candidate.peer).unwrap_or(prefer.len());
            let weight = weights.get(&candidate.peer).copied().unwrap_or(1).max(1);
            (place, score(cid, &candidate.peer, weight), candidate.peer)
        })
        .collect();
    scored.sort_unstable();
    scored.into_iter().map(|(_, _, peer)| peer).collect()
}

/// -log2(hash) / weight; smallest holds first.
pub fn score(cid: &Cid, peer: &PeerId, weight: u64) -> u128 {
    (u128::from(minus_log2(order::mix(cid, peer))) << 32) / u128::from(weight)
}

/// The weight that gives each peer its share when each item has `copies` copies on different peers.
pub fn weights(candidates: &[Candidate], copies: u64) -> BTreeMap<PeerId, u64> {
    let usable: Vec<&Candidate> = candidates.iter().filter(|candidate| candidate.takes_copies()).collect();
    let shares = shares(&wanted(&usable, copies), copies);
    let weights = fit(&shares, copies.min(usable.len() as u64));
    usable.iter().zip(weights).map(|(candidate, weight)| (candidate.peer, weight)).collect()
}

/// How much of what comes next each peer should get: what it lacks to its share once there is half as much again. So a peer
/// that got too much, by chance or by large items, gets less until it is even again.
fn wanted(usable: &[&Candidate], copies: u64) -> Vec<u64> {
    let capacity = |candidate: &Candidate| candidate.capacity.get().min(UNLIMITED);
    let loads: Vec<Share> = usable
        .iter()
        .map(|candidate| Share {
            peer: candidate.peer,
            capacity: capacity(candidate),
            placed: candidate.placed.get().min(UNLIMITED),
            role: Role::Full,
        })
        .collect();
    let placed: u64 = loads.iter().map(|load| load.placed).fold(0, u64::saturating_add);
    let room: u64 = loads.iter().map(|load| load.capacity).fold(0, u64::saturating_add);
    let targets = balance::targets(&loads, (placed / 2).max(room / GROWTH_LEAST), copies * 1000);
    let wanted = usable.iter().zip(targets).map(|(candidate, target)| {
        let lacks = target.saturating_sub(candidate.placed.get()).min(candidate.free.get());
        // Never nothing: the copies may be more than there are peers below their share.
        (lacks >> 10).max(target >> 20).max(1)
    });
    wanted.collect()
}

/// Water-filling: the part of all items that each peer should hold, proportional to its amount, none above one.
pub fn shares(amounts: &[u64], copies: u64) -> Vec<u64> {
    let copies = copies.min(amounts.len() as u64);
    let mut order: Vec<usize> = (0..amounts.len()).collect();
    order.sort_by_key(|index| (std::cmp::Reverse(amounts[*index]), *index));
    let mut left = u128::from(copies) * u128::from(ONE);
    let mut total: u128 = amounts.iter().map(|amount| u128::from(*amount)).sum();
    let mut shares = vec![0; amounts.len()];
    // From the largest: who would exceed everything gets everything, and the others share the rest.
    for index in order {
        let amount = u128::from(amounts[index]);
        let share = (left * amount).checked_div(total).unwrap_or(0).min(u128::from(ONE));
        shares[index] = share as u64;
        left -= share;
        total -= amount;
    }
    shares
}

/// Weights whose inclusion probabilities are the shares; the largest is 2^32.
fn fit(shares: &[u64], copies: u64) -> Vec<u64> {
    let wished: Vec<f64> = shares.iter().map(|share| (*share as f64 / ONE as f64).clamp(SHARE_LEAST, SHARE_MOST)).collect();
    let mut weights = wished.clone();
    for _ in 0..FIT_ROUNDS {
        let found = included(&weights, copies);
        for ((weight, wished), found) in weights.iter_mut().zip(&wished).zip(found) {
            // Odds, not probabilities: near one a small gain needs a large weight.
            *weight *= (wished * (1.0 - found).max(1e-4)) / (found.max(1e-12) * (1.0 - wished));
        }
        let largest = weights.iter().copied().fold(1e-12, f64::max);
        weights.iter_mut().for_each(|weight| *weight = (*weight / largest).max(1e-9));
    }
    weights.iter().map(|weight| ((weight * ONE as f64) as u64).max(1)).collect()
}

/// The probability of each peer to be among the first `copies`, draw by draw: who was not drawn yet is drawn next with its
/// part of the weight that is expected to be left.
fn included(weights: &[f64], copies: u64) -> Vec<f64> {
    let mut drawn = vec![0.0; weights.len()];
    for _ in 0..copies.min(weights.len() as u64) {
        let all: f64 = weights.iter().sum();
        let gone: f64 = weights.iter().zip(&drawn).map(|(weight, drawn)| weight * drawn).sum();
        let draws: f64 = drawn.iter().sum();
        for (weight, drawn) in weights.iter().zip(&mut drawn) {
            // Seen from a peer that was not drawn, all draws fell on the others.
            let more = if draws > *drawn { draws / (draws - *drawn) } else { 1.0 };
            let others = ((all - weight) - more * (gone - weight * *drawn)).max(0.0);
            *drawn += (1.0 - *drawn) * weight / (weight + others).max(1e-12);
        }
    }
    drawn
}

/// -log2(value / 2^64) with 32 fractional bits.
pub fn minus_log2(value: u64) -> u64 {
    let value = value.max(1);
    let zeros = value.leading_zeros();
    // The mantissa in [1, 2) with 63 fractional bits; each squaring gives one binary digit of its logarithm.
    let mut mantissa = value << zeros;
    let mut fraction = 0u64;
    for _ in 0..32 {
        let square = (u128::from(mantissa) * u128::from(mantissa)) >> 63;
        fraction <<= 1;
        if square >> 64 != 0 {
            fraction |= 1;
            mantissa = (square >> 1) as u64;
        } else {
            mantissa = square as u64;
        }
    }
    // log2(value / 2^64) = -zeros - 1 + fraction
    ((u64::from(zeros) + 1) << 32) - fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logarithm_is_one() {
        for value in [1u64, 2, 3, 1 << 20, 1 << 40, u64::MAX / 3, 1 << 63, u64::MAX - 5] {
            let expected = 64.0 - (value as f64).log2();
            let found = minus_log2(value) as f64 / ONE as f64;
            assert!((expected - found).abs() < 1e-6, "{value}: {expected} {found}");
        }
    }

    #[test]
    fn shares_fill_like_water() {
        let check = |amounts: &[u64], copies, expected: &[f64]| {
            let found: Vec<f64> = shares(amounts, copies).iter().map(|share| *share as f64 / ONE as f64).collect();
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-6, "{amounts:?} {copies}: {found} {expected}");
            }
        };
        check(&[1, 1, 1, 1], 2, &[0.5; 4]);
        check(&[1, 1, 2], 2, &[0.5, 0.5, 1.0]);
        check(&[1, 1, 8], 2, &[0.5, 0.5, 1.0]);
        check(&[1, 3], 1, &[0.25, 0.75]);
        check(&[5], 3, &[1.0]);
    }
}
