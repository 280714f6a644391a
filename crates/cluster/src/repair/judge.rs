//! What is to be done about one pin.

use crate::look::Look;
use crate::options::PlantedBug;
use crate::placement::{self, Rules, filter, pull};
use crate::report::PeerHealth;
use types::{Because, PeerId, Pin, PinKind};

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Fine,
    /// Its time is over.
    Expired,
    /// Holders are lost, leaving or without room: these instead.
    Replace {
        /// All holders.
        placement: Vec<PeerId>,
        /// Who is replaced.
        lost: Vec<PeerId>,
        /// By whom.
        gained: Vec<PeerId>,
    },
    /// It should be replaced and nobody is left who could.
    Hopeless(Because),
    /// More confirmed copies than wished.
    Trim {
        /// Who stays.
        placement: Vec<PeerId>,
    },
    /// A holder is clearly fuller than another peer.
    Move {
        /// All holders.
        placement: Vec<PeerId>,
        /// Who lets go.
        from: PeerId,
        /// Who takes it.
        gained: PeerId,
    },
}

/// Judges one pin by its copies, its holders' health and their room.
pub(crate) fn judge(pin: &Pin, look: Look) -> Verdict {
    if pin.is_expired(look.health.slowest_clock(look.now)) {
        return Verdict::Expired;
    }
    let Some((least, most)) = look.wished(pin) else { return Verdict::Fine };
    if pin.kind == PinKind::Shard && !has_source(pin, look) {
        // Shards exist nowhere but here: nobody could fetch it, and with the placement the knowledge of who has it would go.
        return Verdict::Hopeless(Because::NoProvider { missing: 0, first: None });
    }
    let holders = sort_holders(pin, look);
    let is_short = (holders.good.len() as u32) < least;
    if is_short || !holders.must_go.is_empty() {
        return replace(pin, holders, least, look);
    }
    surplus(pin, &holders.good, most, look)
}

/// Whether a peer that is heard of has it, or had it and has not let go yet.
fn has_source(pin: &Pin, look: Look) -> bool {
    pin.placement.iter().any(|peer| look.is_live(peer)) || look.holdings.leaving_holders(&pin.cid).any(|peer| look.is_live(&peer))
}

struct Holders {
    /// Heard of, or silent within grace; staying; with room.
    good: Vec<PeerId>,
    /// Silent beyond grace, or without room: replaced when copies are short.
    lost: Vec<PeerId>,
    /// Leaving, or gone for good: replaced in any case.
    must_go: Vec<PeerId>,
}

fn sort_holders(pin: &Pin, look: Look) -> Holders {
    let mut holders = Holders { good: Vec::new(), lost: Vec::new(), must_go: Vec::new() };
    for peer in &pin.placement {
        let is_me = *peer == look.options.me;
        let standing = look.health.of(peer);
        let is_gone = standing.is_some_and(|standing| standing.phase == PeerHealth::Gone || standing.is_draining());
        let may_be_lost = standing.is_none_or(|standing| standing.phase == PeerHealth::Down);
        let is_given_up = look.options.planted == Some(PlantedBug::IgnoresGrace)
            && standing.is_some_and(|standing| standing.phase == PeerHealth::Suspect);
        if is_me && look.is_leaving || is_gone {
            holders.must_go.push(*peer);
        } else if look.has_no_room(peer, &pin.cid)
            || is_given_up
            || (!is_me && may_be_lost && look.health.is_lost(peer, look.options, look.now))
        {
            holders.lost.push(*peer);
        } else {
            holders.good.push(*peer);
        }
    }
    holders
}

/// The fewest additions beside the good holders; when even so copies are short, bad holders stay in the list, so that they
/// count again when they come back.
fn replace(pin: &Pin, holders: Holders, least: u32, look: Look) -> Verdict {
    let candidates = look.candidates();
    let rules = Rules {
        prefer: look.holdings.leaving_holders(&pin.cid).collect(),
        size: look.space.size(&pin.cid),
        avoid: holders.lost.iter().chain(&holders.must_go).copied().collect(),
        ..Rules::copies(1, least, least)
    };
    let missing = (least as usize).saturating_sub(holders.good.len());
    let (fit, unfit) = filter::split(&candidates, &rules, &holders.good);
    let gained = placement::add(&pin.cid, &fit, &rules, &holders.good, &candidates, missing);
    let mut placement: Vec<PeerId> = holders.good.iter().chain(&gained).copied().collect();
    let stay = (least as usize).saturating_sub(placement.len());
    let is_gone = |peer: &PeerId| look.health.is_gone(peer);
    let bad: Vec<PeerId> = holders.lost.iter().chain(&holders.must_go).copied().collect();
    placement.extend(bad.iter().filter(|peer| !is_gone(peer)).take(stay));
    let lost: Vec<PeerId> = bad.into_iter().filter(|peer| !placement.contains(peer)).collect();
    if (gained.is_empty() && lost.is_empty()) || placement.is_empty() {
        let able = (candidates.len() - unfit.len()) as u32;
        return Verdict::Hopeless(Because::NotEnoughPeers { needed: least, candidates: able });
    }
    Verdict::Replace { placement, lost, gained }
}

fn surplus(pin: &Pin, good: &[PeerId], most: u32, look: Look) -> Verdict {
    let confirmed: Vec<PeerId> = good
        .iter()
        .filter(|peer| (**peer == look.options.me || look.health.is_live(peer)) && look.is_confirmed(peer, &pin.cid))
        .copied()
        .collect();
    if confirmed.len() > most as usize {
        return Verdict::Trim { placement: confirmed.into_iter().take(most as usize).collect() };
    }
    if look.options.repair.pulls && confirmed.len() == pin.placement.len() {
        let rules = Rules { size: look.space.size(&pin.cid), ..Rules::copies(1, most, most) };
        if let Some((from, to)) = pull::pull(&pin.cid, &look.candidates(), &rules, &pin.placement) {
            let placement = pin.placement.iter().filter(|peer| **peer != from).chain([&to]).copied().collect();
            return Verdict::Move { placement, from, gained: to };
        }
    }
    Verdict::Fine
}
