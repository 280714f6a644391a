//! First pass: who could hold it at all.

use super::{Candidate, Rules};
use std::fmt;
use types::{ByteCount, PeerId};

/// Why a peer cannot hold a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// Not heard of now.
    Silent,
    /// Hands its copies over.
    Draining,
    /// Takes no new copies.
    Cordoned,
    /// Too little room.
    NoRoom {
        /// Needed.
        needed: ByteCount,
        /// Free there.
        free: ByteCount,
        /// Its limit.
        limit: ByteCount,
    },
    /// It lost this copy or failed to make it.
    Avoided,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unfit::Silent => f.write_str("is silent"),
            Unfit::Draining => f.write_str("is draining"),
            Unfit::Cordoned => f.write_str("is cordoned"),
            Unfit::NoRoom { needed, free, limit } => write!(f, "has no room (needs {needed}, free {free} of {limit})"),
            Unfit::Avoided => f.write_str("could not make this copy"),
        }
    }
}

/// Whether a current holder may stay.
pub fn may_keep(candidates: &[Candidate], peer: &PeerId) -> bool {
    candidates.iter().any(|candidate| candidate.peer == *peer && candidate.is_up && !candidate.is_draining)
}

/// Those that fit beside `kept`, and why the others do not.
pub fn split<'a>(candidates: &'a [Candidate], rules: &Rules, kept: &[PeerId]) -> (Vec<&'a Candidate>, Vec<(PeerId, Unfit)>) {
    let mut fit = Vec::new();
    let mut unfit = Vec::new();
    for candidate in candidates.iter().filter(|candidate| !kept.contains(&candidate.peer)) {
        match check(candidate, rules) {
            None => fit.push(candidate),
            Some(why) => unfit.push((candidate.peer, why)),
        }
    }
    (fit, unfit)
}

/// Why a candidate does not fit; none when it does.
pub fn check(candidate: &Candidate, rules: &Rules) -> Option<Unfit> {
    let needed = rules.size.unwrap_or_default().max(ByteCount(1));
    if !candidate.is_up {
        Some(Unfit::Silent)
    } else if candidate.is_draining {
        Some(Unfit::Draining)
    } else if candidate.is_cordoned {
        Some(Unfit::Cordoned)
    } else if rules.avoid.contains(&candidate.peer) {
        Some(Unfit::Avoided)
    } else if candidate.free < needed {
        Some(Unfit::NoRoom { needed, free: candidate.free, limit: candidate.limit })
    } else {
        None
    }
}
