//! Third pass: over failure domains. A domain that has no copy yet goes before one that has.

use super::{Candidate, Rules};
use std::collections::BTreeMap;
use types::PeerId;

/// Takes the first `count` of `ranked` whose domains hold the fewest copies, in rank order within equal ones. Peers
/// without a domain are their own one. Preferred peers are taken as they are.
pub fn pick(ranked: &[PeerId], rules: &Rules, kept: &[PeerId], all: &[Candidate], count: usize) -> Vec<PeerId> {
    let domains: BTreeMap<&PeerId, &str> =
        all.iter().filter_map(|candidate| Some((&candidate.peer, candidate.domain.as_deref()?))).collect();
    let mut copies: BTreeMap<&str, u32> = BTreeMap::new();
    for domain in kept.iter().filter_map(|peer| domains.get(peer)) {
        *copies.entry(domain).or_default() += 1;
    }
    let mut rest: Vec<PeerId> = ranked.to_vec();
    let mut picked = Vec::new();
    while picked.len() < count && !rest.is_empty() {
        let load = |peer: &PeerId| domains.get(peer).and_then(|domain| copies.get(domain)).copied().unwrap_or(0);
        let is_preferred = |peer: &PeerId| rules.prefer.contains(peer);
        let best = (0..rest.len()).min_by_key(|index| (!is_preferred(&rest[*index]), load(&rest[*index]), *index)).unwrap_or(0);
        let peer = rest.remove(best);
        if let Some(domain) = domains.get(&peer) {
            *copies.entry(domain).or_default() += 1;
        }
        picked.push(peer);
    }
    picked
}
