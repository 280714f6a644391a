//! What must hold, by name.

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
