//! Writes that hold only if nothing changed meanwhile: leases, locks, sequences that never fork.
//!
//! They need one order of all writes. A convergent consensus cannot promise it and says so in words; a linearizable one
//! compares versions. Nothing in Go's pin state uses this.

/// Which write of a key; 0 where it is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

/// What the order of writes means in a consensus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// One order for all.
    Linear,
    /// Equal in the end.
    Convergent,
}

/// Why an expectation refuses a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpectError {
    /// The consensus has no order in which "before" means something.
    #[error("this cluster's state is convergent: it cannot promise what a key was before a write; a raft group of Pinfold peers can")]
    NotLinearizable,
    /// Somebody wrote in between.
    #[error("the key has version {}, not {}: read it again", found.0, expected.0)]
    Conflict {
        /// What the key has.
        found: Version,
        /// What was expected.
        expected: Version,
    },
}

/// Whether a write that expects a version may take place where the key has `found`.
pub fn check(order: Order, expected: Option<Version>, found: Version) -> Result<(), ExpectError> {
    match (order, expected) {
        (_, None) => Ok(()),
        (Order::Convergent, Some(_)) => Err(ExpectError::NotLinearizable),
        (Order::Linear, Some(expected)) if expected == found => Ok(()),
        (Order::Linear, Some(expected)) => Err(ExpectError::Conflict { found, expected }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expectations_hold_only_in_one_order() {
        let conflict = ExpectError::Conflict { found: Version(2), expected: Version(1) };
        for (order, expected, found, outcome) in [
            (Order::Convergent, None, 2, Ok(())),
            (Order::Convergent, Some(2), 2, Err(ExpectError::NotLinearizable)),
            (Order::Linear, None, 2, Ok(())),
            (Order::Linear, Some(2), 2, Ok(())),
            (Order::Linear, Some(0), 0, Ok(())),
            (Order::Linear, Some(1), 2, Err(conflict)),
        ] {
            assert_eq!(check(order, expected.map(Version), Version(found)), outcome, "{order:?} {expected:?}");
        }
    }
}
