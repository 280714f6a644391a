//! Second pass for large items: who is filled least comes first.
//!
//! A draw by weights spreads many small items well and few large ones badly. Of peers whose fills are nearer to each other
//! than half of the item the rank decides, so that several peers that place at one time do not all choose the same one.

use super::{Candidate, UNLIMITED};
use types::{ByteCount, PeerId};

/// Puts those of `ranked` first that are filled least, in parts of their capacity; preferred ones stay at the front.
pub fn least_filled_first(ranked: Vec<PeerId>, fit: &[&Candidate], bytes: ByteCount, prefer: &[PeerId]) -> Vec<PeerId> {
    let fill = |peer: &PeerId| {
        let candidate = fit.iter().find(|candidate| candidate.peer == *peer);
        candidate.map_or((0, 1), |candidate| (candidate.placed.get(), candidate.capacity.get().clamp(1, UNLIMITED.get())))
    };
    let (mut order, rest): (Vec<PeerId>, Vec<PeerId>) = ranked.into_iter().partition(|peer| prefer.contains(peer));
    let mut rest: Vec<(PeerId, (u64, u64))> = rest.into_iter().map(|peer| (peer, fill(&peer))).collect();
    // One after another, so that those behind the first are in the same order when it refuses.
    while let Some(least) = rest.iter().map(|(_, fill)| *fill).min_by(|one, other| less_filled(*one, *other)) {
        let is_alike = |(placed, capacity): (u64, u64)| {
            let above = u128::from(placed) * u128::from(least.1);
            above <= u128::from(least.0) * u128::from(capacity) + u128::from(bytes.get() / 2) * u128::from(least.1)
        };
        let Some(index) = rest.iter().position(|(_, fill)| is_alike(*fill)) else { break };
        order.push(rest.remove(index).0);
    }
    order
}

fn less_filled((placed, capacity): (u64, u64), (other_placed, other_capacity): (u64, u64)) -> std::cmp::Ordering {
    (u128::from(placed) * u128::from(other_capacity)).cmp(&(u128::from(other_placed) * u128::from(capacity)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::peer;

    /// Peers with `capacity/placed`, ranked as they stand; an item of 10. Their numbers in the order in which they come.
    fn check(text: &str, prefer: &[u8], expected: &[u8]) {
        let candidate = |(index, word): (usize, &str)| {
            let (capacity, placed) = word.split_once('/').expect("capacity/placed");
            let number = |text: &str| ByteCount(text.parse().expect("a number"));
            Candidate {
                peer: peer(index as u8),
                is_up: true,
                is_draining: false,
                is_cordoned: false,
                limit: number(capacity),
                free: number(capacity),
                capacity: number(capacity),
                placed: number(placed),
                domain: None,
            }
        };
        let candidates: Vec<Candidate> = text.split_whitespace().enumerate().map(candidate).collect();
        let fit: Vec<&Candidate> = candidates.iter().collect();
        let peers = |numbers: &[u8]| numbers.iter().map(|number| peer(*number)).collect::<Vec<_>>();
        let ranked = candidates.iter().map(|candidate| candidate.peer).collect();
        assert_eq!(least_filled_first(ranked, &fit, ByteCount(10), &peers(prefer)), peers(expected), "{text}");
    }

    #[test]
    fn who_is_filled_least_comes_first() {
        check("100/30 100/10 100/20", &[], &[1, 2, 0]);
        check("100/40 200/50 400/20", &[], &[2, 1, 0]);
        check("100/30 100/10 100/20", &[0], &[0, 1, 2]);
    }

    #[test]
    fn of_peers_that_are_filled_alike_the_rank_decides() {
        check("100/4 100/0 100/5", &[], &[0, 1, 2]);
        check("100/6 100/0 100/5", &[], &[1, 0, 2]);
        check("18446744073709551615/7 100/0 1000000/5", &[], &[1, 0, 2]);
    }
}
