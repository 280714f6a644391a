//! What is to be done about one pin.

use crate::look::Look;
use crate::options::PlantedBug;
use crate::placement::{self, Rules, filter};
use crate::report::PeerHealth;
use types::{Because, ByteCount, PeerId, Pin, PinKind};

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
        /// Copies are lost, or will be by themselves; otherwise all are there and only move.
        is_urgent: bool,
        /// Holders that stay.
        staying: u32,
    },
    /// It should be replaced and nobody is left who could.
    Hopeless(Because),
    /// More confirmed copies than wished.
    Trim {
        /// Who stays.
        placement: Vec<PeerId>,
    },
}

/// Judges one pin by its copies, its holders' health and their room. `size`: where it is known; `prefer`: who should get a copy
/// first, if it fits.
pub(crate) fn judge(pin: &Pin, size: Option<ByteCount>, prefer: Option<PeerId>, look: Look) -> Verdict {
    if pin.is_expired(look.health.slowest_clock(look.now)) {
        return Verdict::Expired;
    }
    let Some((least, most)) = look.wished(pin) else { return Verdict::Fine };
    let has_source = has_source(pin, look);
    let without_source = || Verdict::Hopeless(Because::NoProvider { missing: 0, first: None, asked: String::new() });
    if pin.kind == PinKind::Shard && !has_source {
        // Shards exist nowhere but here: nobody could fetch it, and with the placement the knowledge of who has it would go.
        return without_source();
    }
    let holders = sort_holders(pin, look);
    let is_short = (holders.good.len() as u32) < least;
    if is_short || !holders.must_go.is_empty() {
        // That all holders are silent is a cut line rather than as many dead disks: whoever were placed now would have nobody to fetch from, and
        // would copy for nothing when they are back. Who said that it does not have it yet is not waited for: the content comes from elsewhere.
        let may_have = |peer: &PeerId| look.holdings.exception(peer, &pin.cid).is_none();
        let may_come = |peer: &PeerId| may_have(peer) && !look.health.is_given_up(peer, look.options, look.now);
        if !has_source && pin.placement.iter().any(may_come) {
            return without_source();
        }
        return replace(pin, size, prefer, holders, least, look);
    }
    surplus(pin, &holders.good, (least, most), look)
}

/// Whether a peer that is heard of has it, or had it and has not let go yet; or it stands in the CID itself.
fn has_source(pin: &Pin, look: Look) -> bool {
    types::is_inline(&pin.cid)
        || pin.placement.iter().any(|peer| look.is_live(peer))
        || look.holdings.leaving_holders(&pin.cid).any(|peer| look.is_live(&peer))
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
fn replace(pin: &Pin, size: Option<ByteCount>, prefer: Option<PeerId>, holders: Holders, least: u32, look: Look) -> Verdict {
    let candidates = look.candidates();
    let rules = Rules {
        // Whoever still has the blocks costs nothing.
        prefer: look.holdings.leaving_holders(&pin.cid).chain(prefer).collect(),
        size,
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
    // A Go peer lets go the moment it reads that it is not placed, whoever else has the content: what comes back with it may be the last copy.
    // So it stays in the list until enough others are known to hold the pin.
    let is_safe = confirmed(&holders.good, pin, look).len() as u32 >= least;
    let stays = |peer: &&PeerId| !is_safe && !is_gone(peer) && look.health.lets_go_at_once(peer);
    let lost: Vec<PeerId> = bad.iter().filter(|peer| !placement.contains(peer)).copied().collect();
    placement.extend(lost.iter().filter(stays));
    if gained.is_empty() && placement.len() == pin.placement.len() && missing == 0 {
        return Verdict::Fine;
    }
    let has_changed = placement.len() != pin.placement.len() || placement.iter().any(|peer| !pin.placement.contains(peer));
    if !has_changed || placement.is_empty() {
        let able = (candidates.len() - unfit.len()) as u32;
        return Verdict::Hopeless(Because::NotEnoughPeers { needed: least, candidates: able });
    }
    // Who drains and is there still has its copy.
    let is_there = |peer: &PeerId| *peer == look.options.me || look.health.is_live(peer);
    let is_urgent = !holders.lost.is_empty() || holders.must_go.iter().any(|peer| !is_there(peer));
    let staying = holders.good.len() as u32;
    Verdict::Replace { placement, lost, gained, is_urgent, staying }
}

/// The draining holder that is to hand its copy over: it knows the size, and has the other limits of a single hand.
pub(crate) fn giver(pin: &Pin, look: Look) -> Option<PeerId> {
    let gives = |peer: &&PeerId| match **peer == look.options.me {
        true => look.is_leaving,
        false => look.health.is_live(peer) && look.health.is_draining(peer),
    };
    pin.placement.iter().filter(gives).min().copied()
}

/// Whether every placed peer is there and known to hold it, and none too many: then a copy may move.
pub(crate) fn is_whole(pin: &Pin, look: Look) -> bool {
    let Some((_, most)) = look.wished(pin) else { return false };
    let is_there = |peer: &PeerId| *peer == look.options.me || look.health.is_live(peer);
    pin.placement.len() <= most as usize && pin.placement.iter().all(|peer| is_there(peer) && look.is_confirmed(peer, &pin.cid))
}

fn surplus(pin: &Pin, good: &[PeerId], (least, most): (u32, u32), look: Look) -> Verdict {
    let confirmed = confirmed(good, pin, look);
    if confirmed.len() > most as usize {
        return Verdict::Trim { placement: confirmed.into_iter().take(most as usize).collect() };
    }
    // A lost Go peer was kept in the list until others held the pin.
    if pin.placement.len() > most as usize && confirmed.len() >= least as usize {
        let is_kept = |peer: &&PeerId| good.contains(peer) || !look.health.lets_go_at_once(peer);
        let placement: Vec<PeerId> = pin.placement.iter().filter(is_kept).copied().collect();
        if placement.len() < pin.placement.len() {
            return Verdict::Trim { placement };
        }
    }
    Verdict::Fine
}

/// Those that are there and known to hold it.
fn confirmed(peers: &[PeerId], pin: &Pin, look: Look) -> Vec<PeerId> {
    peers.iter().filter(|peer| look.is_live(peer) && look.is_confirmed(peer, &pin.cid)).copied().collect()
}
