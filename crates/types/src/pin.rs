//! The wish: what should be kept, how often, and where.

use crate::{Cid, PeerId, UnixMillis};
use std::collections::BTreeMap;
use std::num::NonZeroU32;

/// What should be kept. One per CID in the shared state (Go's pin; architecture.md 5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The root of what is kept.
    pub cid: Cid,
    /// What kind of entry this is.
    pub kind: PinKind,
    /// What the user asked for.
    pub options: PinOptions,
    /// The peers that should hold it; empty when everybody does ([`Replicas::Everywhere`]). Go calls this `allocations`.
    pub placement: Vec<PeerId>,
    /// How much of the DAG under `cid` is meant.
    pub depth: Depth,
    /// Another CID this entry belongs to: cluster DAG of a meta pin, previous shard of a shard.
    pub reference: Option<Cid>,
    /// When the pin was written; whole seconds survive in the shared state.
    pub created: UnixMillis,
}

/// What kind of entry a pin is (Go's names in `wire`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PinKind {
    /// Unknown or damaged: shown, never acted on.
    Bad,
    /// Ordinary content.
    Data,
    /// The root of sharded content; itself held by nobody.
    Meta,
    /// The list of the shards of a meta pin.
    ClusterDag,
    /// One shard.
    Shard,
}

/// How much of the DAG is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Depth {
    /// Everything reachable.
    Recursive,
    /// So many levels of links below the root; 0 is the root block alone (a *direct* pin).
    Levels(u32),
}

impl Depth {
    /// The root block alone.
    pub const DIRECT: Depth = Depth::Levels(0);
}

/// What a user may ask for with a pin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PinOptions {
    /// How many copies.
    pub replicas: Replicas,
    /// A label for people; not unique.
    pub name: String,
    /// Wanted size of shards in bytes; 0 when not sharded.
    pub shard_size: u64,
    /// Peers to prefer for the placement; not stored.
    pub prefer: Vec<PeerId>,
    /// The pin ends then.
    pub expires: Option<UnixMillis>,
    /// Free text pairs of the user.
    pub metadata: BTreeMap<String, String>,
    /// The pin this one replaces: holders start from its blocks.
    pub update: Option<Cid>,
    /// Binary multiaddrs (with `/p2p/`) of nodes that have the content.
    pub origins: Vec<Vec<u8>>,
}

/// How many copies are wished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Replicas {
    /// Not said: the cluster's default class decides.
    #[default]
    Unset,
    /// On every peer (-1/-1 in Go's forms).
    Everywhere,
    /// At least `least`, at most `most`.
    Between {
        /// Fewer than this is a fault to be repaired.
        least: NonZeroU32,
        /// More than this is trimmed.
        most: NonZeroU32,
    },
}

/// Why two numbers are no wish for copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadReplicas {
    /// One of them is -1 and the other is not. (Go's words, which its clients show.)
    #[error("cluster.replication_factor_min and max must be -1 when one of them is")]
    HalfEverywhere,
    /// The least number is above the most.
    #[error("cluster.replication_factor_min is larger than max")]
    LeastAboveMost,
    /// Below -1.
    #[error("cluster.replication_factor_min is wrong")]
    Negative,
}

impl Replicas {
    /// `copies` wanted, exactly.
    pub fn exactly(copies: NonZeroU32) -> Replicas {
        Replicas::Between { least: copies, most: copies }
    }

    /// From Go's two factors: 0 is not said, -1/-1 is everywhere. One 0 beside a number takes the other's value.
    pub fn from_factors(min: i32, max: i32) -> Result<Replicas, BadReplicas> {
        match (min, max) {
            (0, 0) => Ok(Replicas::Unset),
            (-1, -1) => Ok(Replicas::Everywhere),
            (-1, _) | (_, -1) => Err(BadReplicas::HalfEverywhere),
            (min, max) if min < 0 || max < 0 => Err(BadReplicas::Negative),
            (min, max) => {
                let number = |own: i32, other: i32| NonZeroU32::new(if own == 0 { other } else { own } as u32);
                let (Some(least), Some(most)) = (number(min, max), number(max, min)) else { return Ok(Replicas::Unset) };
                if least > most { Err(BadReplicas::LeastAboveMost) } else { Ok(Replicas::Between { least, most }) }
            }
        }
    }

    /// Go's two factors.
    pub fn factors(self) -> (i32, i32) {
        match self {
            Replicas::Unset => (0, 0),
            Replicas::Everywhere => (-1, -1),
            Replicas::Between { least, most } => (least.get() as i32, most.get() as i32),
        }
    }
}

impl Pin {
    /// Whether `peer` should hold this.
    pub fn is_for(&self, peer: &PeerId) -> bool {
        let held_at_all = !matches!(self.kind, PinKind::Meta | PinKind::Bad);
        held_at_all && (self.is_everywhere() || self.placement.contains(peer))
    }

    /// Whether everybody holds this.
    pub fn is_everywhere(&self) -> bool {
        self.options.replicas == Replicas::Everywhere || (self.placement.is_empty() && self.kind == PinKind::ClusterDag)
    }

    /// Whether its time is over.
    pub fn is_expired(&self, wall: UnixMillis) -> bool {
        self.options.expires.is_some_and(|end| end <= wall)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(min: i32, max: i32, expected: Result<(i32, i32), BadReplicas>) {
        assert_eq!(Replicas::from_factors(min, max).map(Replicas::factors), expected, "{min}/{max}");
    }

    #[test]
    fn factors_as_go_takes_them() {
        check(0, 0, Ok((0, 0)));
        check(-1, -1, Ok((-1, -1)));
        check(2, 3, Ok((2, 3)));
        check(0, 3, Ok((3, 3)));
        check(2, 0, Ok((2, 2)));
        check(-1, 2, Err(BadReplicas::HalfEverywhere));
        check(3, 2, Err(BadReplicas::LeastAboveMost));
        check(-2, 2, Err(BadReplicas::Negative));
    }
}
