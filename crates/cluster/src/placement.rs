//! Which peers should hold a pin: filter, score, spread; three pure passes over plain data.
//!
//! The same on every peer: scores are integers made from the CID and the peer's id. Valid holders stay; ranks decide
//! who is added and who is dropped. Start with [`place`].

pub mod balance;
mod even;
pub mod filter;
pub mod score;
pub mod spread;

use std::collections::{BTreeMap, BTreeSet};
use types::{ByteCount, Cid, PeerId, Pin};

pub use filter::Unfit;

/// Nobody has a disk of this size: such a limit is none.
pub(crate) const UNLIMITED: ByteCount = ByteCount(1 << 50);

/// A peer that could hold a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Who.
    pub peer: PeerId,
    /// It is heard of now.
    pub is_up: bool,
    /// It hands its copies over.
    pub is_draining: bool,
    /// It takes no new copies and keeps those it has.
    pub is_cordoned: bool,
    /// Limit of its store.
    pub limit: ByteCount,
    /// Free of it, reservations and promises taken off.
    pub free: ByteCount,
    /// Bytes that the cluster's copies may take there: the limit without what others use of it.
    pub capacity: ByteCount,
    /// Bytes that they take, as far as it said so.
    pub placed: ByteCount,
    /// Its failure domain, where one is configured.
    pub domain: Option<String>,
}

impl Candidate {
    /// Whether it could be given new copies, room aside.
    pub fn takes_copies(&self) -> bool {
        self.is_up && !self.is_draining && !self.is_cordoned
    }
}

/// What is asked of a placement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Fewer is refused.
    pub least: u32,
    /// Up to so many are chosen when the current holders do not reach `least`.
    pub want: u32,
    /// More current holders than this are dropped.
    pub most: u32,
    /// Peers to take first if they fit.
    pub prefer: Vec<PeerId>,
    /// Size, where known: a holder needs so much room.
    pub size: Option<ByteCount>,
    /// Peers that must not be added.
    pub avoid: BTreeSet<PeerId>,
}

impl Rules {
    /// Plain numbers.
    pub fn copies(least: u32, want: u32, most: u32) -> Rules {
        Rules { least, want, most, prefer: Vec::new(), size: None, avoid: BTreeSet::new() }
    }
}

/// Chosen holders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// All, those that stay first.
    pub holders: Vec<PeerId>,
    /// The added ones among them.
    pub added: Vec<PeerId>,
}

/// Why nobody was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WhyNot {
    /// Least copies.
    pub needed: u32,
    /// Most copies.
    pub wanted: u32,
    /// Peers that fit.
    pub candidates: u32,
    /// Peers that do not, and why.
    pub unfit: Vec<(PeerId, Unfit)>,
}

impl WhyNot {
    /// The peers that do not fit, in words.
    pub fn detail(&self) -> String {
        const SHOWN: usize = 20;
        let mut words: Vec<String> = self.unfit.iter().take(SHOWN).map(|(peer, unfit)| format!("{} {unfit}", peer.short())).collect();
        if self.unfit.len() > SHOWN {
            words.push(format!("and {} more", self.unfit.len() - SHOWN));
        }
        if words.is_empty() { "There are no other peers.".to_owned() } else { format!("Not fit: {}.", words.join(", ")) }
    }
}

/// Chooses holders for `cid`, as Go decides it: current valid holders stay; when they suffice, the current list is kept
/// (cut to `most`); otherwise as many as `want` allows are added.
pub fn place(cid: &Cid, candidates: &[Candidate], rules: &Rules, current: &[PeerId]) -> Result<Placement, WhyNot> {
    let kept: Vec<PeerId> = current.iter().filter(|peer| filter::may_keep(candidates, peer)).copied().collect();
    if kept.len() as u32 >= rules.least && !kept.is_empty() {
        let mut holders = if current.len() as u32 <= rules.most { current.to_vec() } else { kept };
        holders.truncate(rules.most as usize);
        return Ok(Placement { holders, added: Vec::new() });
    }
    let (fit, unfit) = filter::split(candidates, rules, &kept);
    let reached = kept.len() + fit.len();
    if (reached as u32) < rules.least || reached == 0 {
        return Err(WhyNot { needed: rules.least, wanted: rules.most, candidates: reached as u32, unfit });
    }
    let added = add(cid, &fit, rules, &kept, candidates, (rules.want as usize).saturating_sub(kept.len()));
    let holders = kept.iter().chain(&added).copied().collect();
    Ok(Placement { holders, added })
}

/// The best `count` peers among `fit` beside `kept`: preferred ones first, then by score, spread over domains.
pub fn add(cid: &Cid, fit: &[&Candidate], rules: &Rules, kept: &[PeerId], all: &[Candidate], count: usize) -> Vec<PeerId> {
    let copies = (kept.len() + count).max(1) as u64;
    add_weighted(cid, fit, &score::weights(all, copies), rules, kept, all, count)
}

/// The same with weights that were fitted before.
pub fn add_weighted(
    cid: &Cid,
    fit: &[&Candidate],
    weights: &BTreeMap<PeerId, u64>,
    rules: &Rules,
    kept: &[PeerId],
    all: &[Candidate],
    count: usize,
) -> Vec<PeerId> {
    let scored = score::ranked(cid, fit, weights, &rules.prefer);
    spread::pick(&scored, rules, kept, all, count)
}

/// The best `count` peers for a large item of `bytes`: preferred ones first, then who is filled least, spread over domains.
pub fn add_evenly(
    cid: &Cid,
    fit: &[&Candidate],
    bytes: ByteCount,
    rules: &Rules,
    kept: &[PeerId],
    all: &[Candidate],
    count: usize,
) -> Vec<PeerId> {
    let weights = score::weights(all, (kept.len() + count).max(1) as u64);
    let ranked = score::ranked(cid, fit, &weights, &rules.prefer);
    spread::pick(&even::least_filled_first(ranked, fit, bytes, &rules.prefer), rules, kept, all, count)
}

/// Whether a peer may get the copy of `from`: it has none, has room, and no failure domain gets a second copy by it.
pub fn may_take(candidate: &Candidate, rules: &Rules, pin: &Pin, from: &PeerId, all: &[Candidate]) -> bool {
    if pin.placement.contains(&candidate.peer) || filter::check(candidate, rules).is_some() {
        return false;
    }
    let Some(domain) = &candidate.domain else { return true };
    let stays_there =
        |other: &Candidate| other.peer != *from && pin.placement.contains(&other.peer) && other.domain.as_ref() == Some(domain);
    !all.iter().any(stays_there)
}

#[cfg(test)]
mod tests;
