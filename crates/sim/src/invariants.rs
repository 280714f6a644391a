//! What must hold, by name.
//!
//! The rules that protect data (ARCHITECTURE.md), and what looks after each of them here:
//!
//! | rule | invariants |
//! |---|---|
//! | 1 nothing is let go by difference alone | *lets-go-knowingly*, *mass-removal-brakes*, *never-last-copy* |
//! | 2 owners | *nothing-foreign-removed* |
//! | 3 acknowledged is on disk | *acknowledged-is-kept* (peers lose their power while they answer) |
//! | 4 partitions move nothing at once | *partitions-move-nothing*, *grace-is-waited*, *sites-get-time* |
//! | 5 who repairs | *repairers-take-turns* |
//! | 6 status from exceptions | *status-true*, *status-has-its-age*, *confirmed-by-its-word*, *explained* |
//! | 7 limits | *within-limits* |
//! | 8 catching up | *catches-up*, *converged* |
//!
//! *takers-agree* and *shards-fit* look after the even spread; *healed*, *at-rest* and *same-seed-same-trace* hold the whole together. Each rule has planted bugs (`cluster::PlantedBug`,
//! `consensus::crdt::PlantedBug`) that its invariants must find; the tests of this crate see to it.

use crate::queue::Time;
use std::fmt;

/// A rule of the system (architecture.md, 9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// Quiet: all peers have the same wish, byte for byte.
    Converged,
    /// What was answered as pinned is pinned until its removal is asked for.
    AcknowledgedIsKept,
    /// No peer drops a copy of a wished pin while fewer than `least` others hold it.
    NeverLastCopy,
    /// Some time after the faults end, `least` copies are on live peers everywhere.
    Healed,
    /// No node holds or promises more than its limit.
    WithinLimits,
    /// Nothing to do: nothing is done.
    AtRest,
    /// Nothing waits without a reason and a next try.
    Explained,
    /// What people pinned on their own nodes stays.
    NothingForeignRemoved,
    /// Who sees fewer than half of the members moves nothing.
    PartitionsMoveNothing,
    /// Quiet: what every peer shows of every copy is so.
    StatusTrue,
    /// A peer lets go only with a complete view, of what its ledger names and the wish does not want from it.
    LetsGoKnowingly,
    /// A mass removal stops and asks.
    MassRemovalBrakes,
    /// No copy is replaced before its holder was silent for the grace.
    GraceIsWaited,
    /// A whole site that is missing gets more time.
    SitesGetTime,
    /// The closest peer repairs, the next one later, and each writes the pin as it stands.
    RepairersTakeTurns,
    /// For an even spread a copy moves only to who agreed to take it.
    TakersAgree,
    /// What is larger than any peer, and fits into all together, is placed; equal peers have of it alike within three units.
    ShardsFit,
    /// A silent peer is shown as silent, with the age of its last word.
    StatusHasItsAge,
    /// With the wish itself a copy is shown as held only where its holder has said so of this very wish, since it started and was linked.
    ConfirmedByItsWord,
    /// With nothing in the way, missing history comes soon.
    CatchesUp,
    /// The same seed gives the same run.
    SameSeedSameTrace,
}

impl Invariant {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Invariant::Converged => "converged",
            Invariant::AcknowledgedIsKept => "acknowledged-is-kept",
            Invariant::NeverLastCopy => "never-last-copy",
            Invariant::Healed => "healed",
            Invariant::WithinLimits => "within-limits",
            Invariant::AtRest => "at-rest",
            Invariant::Explained => "explained",
            Invariant::NothingForeignRemoved => "nothing-foreign-removed",
            Invariant::PartitionsMoveNothing => "partitions-move-nothing",
            Invariant::StatusTrue => "status-true",
            Invariant::LetsGoKnowingly => "lets-go-knowingly",
            Invariant::MassRemovalBrakes => "mass-removal-brakes",
            Invariant::GraceIsWaited => "grace-is-waited",
            Invariant::SitesGetTime => "sites-get-time",
            Invariant::RepairersTakeTurns => "repairers-take-turns",
            Invariant::TakersAgree => "takers-agree",
            Invariant::ShardsFit => "shards-fit",
            Invariant::StatusHasItsAge => "status-has-its-age",
            Invariant::ConfirmedByItsWord => "confirmed-by-its-word",
            Invariant::CatchesUp => "catches-up",
            Invariant::SameSeedSameTrace => "same-seed-same-trace",
        }
    }
}

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// When, in virtual milliseconds.
    pub time: Time,
    /// What happened.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is broken at {}.{:03} s: {}", self.invariant.name(), self.time / 1000, self.time % 1000, self.what)
    }
}
