//! What may be wrong with bytes that should be a block of some format.

/// Why bytes could not be read as what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside a value.
    #[error("{what} ends too early")]
    Truncated {
        /// What was being read.
        what: &'static str,
    },
    /// A value breaks the rules of its format.
    #[error("bad {what}: {reason}")]
    Malformed {
        /// What was being read.
        what: &'static str,
        /// Which rule is broken.
        reason: &'static str,
    },
    /// A link is no CID that this system can hold.
    #[error("bad link: {0}")]
    Link(String),
    /// More of something than is ever read.
    #[error("{what}: more than {limit}")]
    TooMuch {
        /// What there is too much of.
        what: &'static str,
        /// The bound.
        limit: usize,
    },
}

impl DecodeError {
    pub(crate) fn truncated(what: &'static str) -> DecodeError {
        DecodeError::Truncated { what }
    }

    pub(crate) fn malformed(what: &'static str, reason: &'static str) -> DecodeError {
        DecodeError::Malformed { what, reason }
    }

    pub(crate) fn too_much(what: &'static str, limit: usize) -> DecodeError {
        DecodeError::TooMuch { what, limit }
    }
}
