//! A look at all parts at once, for decisions that need more than one of them.

use crate::Options;
use crate::adding::Adding;
use crate::decisions::{Decisions, Duty};
use crate::health::{Health, Kind};
use crate::holdings::Holdings;
use crate::placement::{Candidate, Rules, UNLIMITED, filter};
use crate::report::PeerHealth;
use crate::space::Space;
use crate::tracker::Tracker;
use std::collections::BTreeMap;
use types::{Because, ByteCount, Cid, Load, Now, PeerId, Pin, PinKind, Replicas};

/// Borrowed parts.
#[derive(Clone, Copy)]
pub(crate) struct Look<'a> {
    pub options: &'a Options,
    pub tracker: &'a Tracker,
    pub holdings: &'a Holdings,
    pub health: &'a Health,
    pub space: &'a Space,
    pub adding: &'a Adding,
    /// The own copies are handed over.
    pub is_leaving: bool,
    /// What people decided.
    pub decisions: &'a Decisions,
    pub now: Now,
}

impl Look<'_> {
    /// All members as candidates for copies.
    pub fn candidates(&self) -> Vec<Candidate> {
        let (limit, _) = self.space.numbers();
        let own = self.tracker.placed_and_foreign();
        let brings = self.adding.brings(self.health.iter().map(|(peer, _)| peer).chain([&self.options.me]), self.options);
        let brings = |peer: &PeerId| brings.get(peer).copied().unwrap_or_default();
        let me = Candidate {
            peer: self.options.me,
            is_up: true,
            is_draining: self.is_leaving,
            is_cordoned: self.decisions.duty(&self.options.me) == Duty::Cordoned,
            limit,
            free: self.space.free(),
            capacity: limit - own.map(|(_, foreign)| foreign).unwrap_or_default(),
            placed: own.map(|(placed, _)| placed).unwrap_or_default() + brings(&self.options.me),
            domain: self.options.domain(&self.options.me).map(str::to_owned),
        };
        let others = self.health.iter().filter(|(_, standing)| standing.phase != PeerHealth::Gone).map(|(peer, standing)| {
            let (limit, free) = match &standing.facts {
                // A node that does not know its limit says zero.
                Some(facts) if facts.space_limit == ByteCount::ZERO => (ByteCount(u64::MAX), ByteCount(u64::MAX)),
                Some(facts) => (facts.space_limit, facts.space_limit - facts.space_used - facts.space_reserved - standing.promised),
                None => (ByteCount::ZERO, ByteCount::ZERO),
            };
            let load = standing.facts.as_ref().and_then(|facts| facts.load);
            let candidate = Candidate {
                peer: *peer,
                is_up: standing.phase == PeerHealth::Up && (standing.facts.is_some() || standing.kind == Kind::Stranger),
                is_draining: standing.is_draining(),
                // A stranger keeps what others gave it.
                is_cordoned: standing.duty == Duty::Cordoned || standing.kind == Kind::Stranger,
                limit,
                free,
                capacity: capacity(limit, load),
                // What was promised is on its way there.
                placed: load.map(|load| load.placed).unwrap_or_default() + standing.promised + brings(peer),
                domain: self.health.domain(peer, self.options).map(str::to_owned),
            };
            (candidate, load.is_some())
        });
        let mut all: Vec<(Candidate, bool)> = std::iter::once((me, own.is_some())).chain(others).collect();
        size_unknown(&mut all);
        guess_unknown(&mut all);
        all.into_iter().map(|(candidate, _)| candidate).collect()
    }

    /// For a peer that leaves: why each of the others takes nothing more, in words.
    pub fn why_nobody_takes(&self) -> String {
        const SHOWN: usize = 20;
        let rules = Rules::copies(1, 1, 1);
        let others: Vec<Candidate> = self.candidates().into_iter().filter(|candidate| candidate.peer != self.options.me).collect();
        if others.is_empty() {
            return "There are no other peers.".to_owned();
        }
        let words = |candidate: &Candidate| {
            let name = self.health.of(&candidate.peer).and_then(|standing| standing.facts.as_ref()).map(|facts| facts.name.clone());
            let name = name.filter(|name| !name.is_empty()).unwrap_or_else(|| candidate.peer.short());
            match filter::check(candidate, &rules) {
                Some(unfit) => format!("{name} {unfit}"),
                None => format!("{name} has too little room for them (free {})", candidate.free),
            }
        };
        let mut listed: Vec<String> = others.iter().take(SHOWN).map(words).collect();
        if others.len() > SHOWN {
            listed.push(format!("and {} more", others.len() - SHOWN));
        }
        format!("Of the others {}.", listed.join(", "))
    }

    /// What everybody said that it has, the own peer included.
    pub fn loads(&self) -> BTreeMap<PeerId, Load> {
        let said = self.health.iter().filter_map(|(peer, standing)| Some((*peer, standing.facts.as_ref()?.load?)));
        said.chain(self.tracker.load().map(|load| (self.options.me, load))).collect()
    }

    /// Whether this peer, the own one included, is known to hold a pin that is placed on it.
    pub fn is_confirmed(&self, peer: &PeerId, cid: &Cid) -> bool {
        if *peer == self.options.me {
            return self.tracker.own_copy(cid, self.now).is_none() && self.tracker.has_compared(cid);
        }
        self.holdings.is_confirmed(peer, cid)
    }

    /// Confirmed copies on peers that are heard of now.
    pub fn confirmed_live(&self, pin: &Pin) -> u32 {
        self.confirmed_on(&pin.cid, &pin.placement, pin.is_everywhere())
    }

    /// The same for a placement that is known without its pin.
    pub fn confirmed_on(&self, cid: &Cid, placement: &[PeerId], is_everywhere: bool) -> u32 {
        if is_everywhere {
            let ours = self.health.iter().filter(|(_, standing)| standing.kind == Kind::Ours);
            let others = ours.filter(|(peer, _)| self.is_live(peer) && self.is_confirmed(peer, cid)).count();
            return others as u32 + u32::from(self.is_confirmed(&self.options.me, cid));
        }
        placement.iter().filter(|peer| self.is_live(peer) && self.is_confirmed(peer, cid)).count() as u32
    }

    /// Whether a peer is heard of now; the own one always is.
    pub fn is_live(&self, peer: &PeerId) -> bool {
        *peer == self.options.me || self.health.is_live(peer)
    }

    /// Least and most copies; none when everybody holds it or nobody does.
    pub fn wished(&self, pin: &Pin) -> Option<(u32, u32)> {
        if !matches!(pin.kind, PinKind::Data | PinKind::Shard) || pin.is_everywhere() {
            return None;
        }
        match pin.options.replicas {
            Replicas::Between { least, most } => Some((least.get(), most.get())),
            Replicas::Unset | Replicas::Everywhere => Some((self.options.class.least, self.options.class.most)),
        }
    }

    /// Whether a placed peer says that it has no room for this copy.
    pub fn has_no_room(&self, peer: &PeerId, cid: &Cid) -> bool {
        let because = if *peer == self.options.me {
            self.tracker.own_copy(cid, self.now).and_then(|own| own.because)
        } else {
            self.holdings.exception(peer, cid).and_then(|exception| exception.because.clone())
        };
        matches!(because, Some(Because::NoRoom { .. }))
    }
}

/// Who does not tell its limit, or has none, passes for as large as the others are (their median): as a store without end it would be given
/// everything. It takes what it has room for all the same.
fn size_unknown(candidates: &mut [(Candidate, bool)]) {
    let is_known = |candidate: &Candidate| (1..UNLIMITED.get()).contains(&candidate.limit.get());
    let mut known: Vec<ByteCount> =
        candidates.iter().map(|(candidate, _)| candidate).filter(|other| is_known(other)).map(|other| other.capacity).collect();
    known.sort_unstable();
    let Some(median) = known.get(known.len().saturating_sub(1) / 2).copied() else { return };
    for (candidate, _) in candidates.iter_mut().filter(|(candidate, _)| !is_known(candidate)) {
        candidate.capacity = median.max(candidate.placed);
    }
}

/// Who has not said what it has passes for as full as the others are, but for no fuller than its disk: right after it joined or started it gets
/// its part of what is added, neither all nor nothing of it.
fn guess_unknown(candidates: &mut [(Candidate, bool)]) {
    let known = candidates.iter().filter(|(_, is_known)| *is_known).map(|(candidate, _)| candidate);
    let (placed, capacity) = known.fold((0u128, 0u128), |(placed, capacity), candidate| {
        (placed + u128::from(candidate.placed.get()), capacity + u128::from(candidate.capacity.get()))
    });
    for (candidate, _) in candidates.iter_mut().filter(|(_, is_known)| !is_known) {
        let part = (placed * u128::from(candidate.capacity.get())).checked_div(capacity).unwrap_or(0);
        let guess = ByteCount(u64::try_from(part).unwrap_or(u64::MAX));
        candidate.placed = (guess + candidate.placed).min(candidate.limit - candidate.free);
    }
}

/// Room for the cluster's copies under a limit.
fn capacity(limit: ByteCount, load: Option<Load>) -> ByteCount {
    limit - load.map(|load| load.foreign).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::peer;

    /// Of 1000 bytes: what each has placed (none: it has not said so) and what its disk has.
    fn placed(peers: &[(Option<u64>, u64)]) -> Vec<u64> {
        let candidate = |(index, (placed, used)): (usize, &(Option<u64>, u64))| {
            let candidate = Candidate {
                peer: peer(index as u8),
                is_up: true,
                is_draining: false,
                is_cordoned: false,
                limit: ByteCount(1000),
                free: ByteCount(1000 - used),
                capacity: ByteCount(1000),
                placed: ByteCount(placed.unwrap_or(0)),
                domain: None,
            };
            (candidate, placed.is_some())
        };
        let mut all: Vec<(Candidate, bool)> = peers.iter().enumerate().map(candidate).collect();
        guess_unknown(&mut all);
        all.iter().map(|(candidate, _)| candidate.placed.get()).collect()
    }

    #[test]
    fn who_does_not_tell_its_limit_passes_for_as_large_as_the_others() {
        let check = |limits: &[u64], expected: &[u64]| {
            let candidate = |(index, limit): (usize, &u64)| {
                let limit = ByteCount(*limit);
                let peer = peer(index as u8);
                let (placed, domain) = (ByteCount::ZERO, None);
                (
                    Candidate {
                        peer,
                        is_up: true,
                        is_draining: false,
                        is_cordoned: false,
                        limit,
                        free: limit,
                        capacity: limit,
                        placed,
                        domain,
                    },
                    true,
                )
            };
            let mut all: Vec<(Candidate, bool)> = limits.iter().enumerate().map(candidate).collect();
            size_unknown(&mut all);
            assert_eq!(all.iter().map(|(candidate, _)| candidate.capacity.get()).collect::<Vec<_>>(), expected, "{limits:?}");
        };
        check(&[1000, u64::MAX, 3000, 2000], &[1000, 2000, 3000, 2000]);
        check(&[0, 1000, 4000], &[1000, 1000, 4000]);
        check(&[u64::MAX, u64::MAX], &[u64::MAX, u64::MAX]);
    }

    #[test]
    fn who_has_not_said_what_it_has_is_as_full_as_the_others_but_no_fuller_than_its_disk() {
        assert_eq!(placed(&[(Some(0), 0), (Some(0), 170), (None, 170)]), [0, 0, 0], "files of an empty store are no copies");
        assert_eq!(placed(&[(Some(400), 500), (Some(600), 700), (None, 900)]), [400, 600, 500]);
        assert_eq!(placed(&[(Some(400), 500), (Some(600), 700), (None, 30)]), [400, 600, 30]);
        assert_eq!(placed(&[(None, 900), (None, 10)]), [0, 0], "nobody knows");
    }
}
