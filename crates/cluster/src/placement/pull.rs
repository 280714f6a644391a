//! Moving copies to peers that hold less than their share, in learned-weight order.
//!
//! A pin moves one copy when a peer with clearly more room would rank before one of its holders; the fuller the holder,
//! the sooner. Movement stops by itself when fills are within the threshold.

use super::{Candidate, Rules, filter, score};
use types::{Cid, PeerId};

/// Fills that differ by less (in thousandths of the limit) stay as they are.
const THRESHOLD: u64 = 30;

/// The move of one copy of `cid` from a fuller holder to an emptier peer, if one is due.
pub fn pull(cid: &Cid, candidates: &[Candidate], rules: &Rules, holders: &[PeerId]) -> Option<(PeerId, PeerId)> {
    let fullest = candidates
        .iter()
        .filter(|candidate| holders.contains(&candidate.peer))
        .max_by_key(|candidate| (fill(candidate), candidate.peer))?;
    let weights = score::weights(candidates, holders.len() as u64);
    let emptier: Vec<&Candidate> = candidates
        .iter()
        .filter(|candidate| !holders.contains(&candidate.peer) && filter::check(candidate, rules).is_none())
        .filter(|candidate| {
            candidate.domain == fullest.domain || candidate.domain.is_none() || is_new_domain(candidate, candidates, holders)
        })
        .filter(|candidate| fill(candidate) + THRESHOLD < fill(fullest))
        .collect();
    let weight = |peer: &PeerId| weights.get(peer).copied().unwrap_or(1).max(1);
    let own = score::score(cid, &fullest.peer, weight(&fullest.peer));
    let best = score::ranked(cid, &emptier, &weights, &[]).into_iter().next()?;
    (score::score(cid, &best, weight(&best)) < own).then_some((fullest.peer, best))
}

/// Used part of the limit in thousandths.
fn fill(candidate: &Candidate) -> u64 {
    let limit = u128::from(candidate.limit.get()).max(1);
    let used = u128::from((candidate.limit - candidate.free).get());
    (used * 1000 / limit) as u64
}

fn is_new_domain(candidate: &Candidate, all: &[Candidate], holders: &[PeerId]) -> bool {
    !all.iter().any(|other| holders.contains(&other.peer) && other.domain == candidate.domain)
}
