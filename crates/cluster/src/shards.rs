//! A wish is a pin, or a list of shards: placement, space, repair and status work on *units*.
//!
//! A unit is what one peer holds as a whole: a pin whose DAG is small, or a shard of at most [`UNIT_MOST`]. A tree larger than
//! every node is then the ordinary case. How a DAG is cut at file and directory borders is the importer's matter; here is
//! how its pieces are gathered and walked.

use types::{ByteCount, Cid, Pin};

/// The most bytes in one unit: skew then comes from hashing and not from the size of items.
pub const UNIT_MOST: ByteCount = ByteCount(256 << 20);

/// One shard: a complete sub-DAG.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Its root.
    pub cid: Cid,
    /// Bytes of its blocks.
    pub bytes: ByteCount,
}

/// What is wished as a whole.
#[derive(Clone, Copy, Debug)]
pub enum Wish<'a> {
    /// A small DAG.
    Pin(&'a Pin),
    /// A large one: what connects the shards (held by everybody who holds a shard), and the shards.
    Shards {
        /// The root that people know.
        root: &'a Pin,
        /// In the order of the tree.
        shards: &'a [Shard],
    },
}

/// What one peer holds as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A pin's whole DAG.
    Whole {
        /// Its root; the key of its placement.
        cid: Cid,
    },
    /// A piece of a larger one.
    Piece {
        /// The piece's root; the key of its placement.
        cid: Cid,
        /// Whose piece it is.
        of: Cid,
        /// Its number in the tree's order.
        index: usize,
        /// Its bytes.
        bytes: ByteCount,
    },
}

impl Unit {
    /// The key by which it is placed and held.
    pub fn cid(&self) -> &Cid {
        match self {
            Unit::Whole { cid } | Unit::Piece { cid, .. } => cid,
        }
    }

    /// Its size, where the wish says it.
    pub fn size(&self) -> Option<ByteCount> {
        match self {
            Unit::Whole { .. } => None,
            Unit::Piece { bytes, .. } => Some(*bytes),
        }
    }
}

impl<'a> Wish<'a> {
    /// The units, in order.
    pub fn units(self) -> impl Iterator<Item = Unit> + 'a {
        let (whole, pieces) = match self {
            Wish::Pin(pin) => (Some(Unit::Whole { cid: pin.cid }), None),
            Wish::Shards { root, shards } => (None, Some((root, shards))),
        };
        let pieces = pieces.into_iter().flat_map(|(root, shards)| {
            let piece = |(index, shard): (usize, &Shard)| Unit::Piece { cid: shard.cid, of: root.cid, index, bytes: shard.bytes };
            shards.iter().enumerate().map(piece)
        });
        whole.into_iter().chain(pieces)
    }
}

/// Gathers neighbouring pieces, in the order of the tree, into units of at most [`UNIT_MOST`]; a larger piece stands alone.
/// Gives for each unit the range of its pieces.
pub fn gather(sizes: impl IntoIterator<Item = ByteCount>) -> Vec<std::ops::Range<usize>> {
    let mut units: Vec<std::ops::Range<usize>> = Vec::new();
    let mut filled = ByteCount::ZERO;
    for (index, size) in sizes.into_iter().enumerate() {
        match units.last_mut() {
            Some(unit) if filled + size <= UNIT_MOST => {
                unit.end = index + 1;
                filled += size;
            }
            _ => {
                units.push(index..index + 1);
                filled = size;
            }
        }
    }
    units
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cid, pin_on};
    use types::PinOptions;

    #[test]
    fn pieces_fill_units_up_to_the_limit() {
        let check = |mebibytes: &[u64], expected: &[std::ops::Range<usize>]| {
            assert_eq!(gather(mebibytes.iter().map(|size| ByteCount(size << 20))), expected, "{mebibytes:?}");
        };
        check(&[], &[]);
        check(&[100, 100, 100], &[0..2, 2..3]);
        check(&[256, 1], &[0..1, 1..2]);
        check(&[300, 10, 10], &[0..1, 1..3]);
        check(&[10, 300, 10], &[0..1, 1..2, 2..3]);
    }

    #[test]
    fn a_pin_is_one_unit_and_a_list_of_shards_many() {
        let pin = pin_on(cid(1), &[], PinOptions::default());
        assert_eq!(Wish::Pin(&pin).units().collect::<Vec<_>>(), [Unit::Whole { cid: cid(1) }]);
        let shards = [2, 3].map(|number| Shard { cid: cid(number), bytes: ByteCount(number) });
        let units: Vec<Unit> = Wish::Shards { root: &pin, shards: &shards }.units().collect();
        assert_eq!(
            units.iter().map(|unit| (*unit.cid(), unit.size())).collect::<Vec<_>>(),
            [(cid(2), Some(ByteCount(2))), (cid(3), Some(ByteCount(3)))]
        );
    }
}
