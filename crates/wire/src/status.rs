//! Go's numbers and texts of tracker states, and filters made of them.

use types::PinState;

/// The bit of a state.
pub fn bit(state: PinState) -> u64 {
    match state {
        PinState::ClusterError => 2,
        PinState::PinError => 4,
        PinState::UnpinError => 8,
        PinState::Pinned => 16,
        PinState::Pinning => 32,
        PinState::Unpinning => 64,
        PinState::Unpinned => 128,
        PinState::Remote => 256,
        PinState::PinQueued => 512,
        PinState::UnpinQueued => 1024,
        PinState::Sharded => 2048,
        PinState::UnexpectedlyUnpinned => 4096,
    }
}

/// The state of a bit.
pub fn of_bit(number: u64) -> Option<PinState> {
    PinState::ALL.into_iter().find(|state| bit(*state) == number)
}

/// The state with a text.
pub fn of_text(text: &str) -> Option<PinState> {
    PinState::ALL.into_iter().find(|state| state.as_str() == text)
}

/// Which states are asked for; 0 is all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter(pub u64);

impl Filter {
    /// All states.
    pub const ALL: Filter = Filter(0);

    /// Whether a state is asked for.
    pub fn has(self, state: PinState) -> bool {
        self.0 == 0 || self.0 & bit(state) != 0
    }

    /// Reads a comma list of states, `error` and `queued`; empty is all. Unknown words are skipped; none when no word is known (Go
    /// answers `invalid filter value`).
    pub fn parse(text: &str) -> Option<Filter> {
        if text.is_empty() {
            return Some(Filter::ALL);
        }
        let bits = text.split(',').fold(0, |bits, word| {
            bits | match word.trim() {
                "error" => 14,
                "queued" => 1536,
                word => of_text(word).map_or(0, bit),
            }
        });
        (bits != 0).then_some(Filter(bits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_its_own_bit() {
        for (index, state) in PinState::ALL.into_iter().enumerate() {
            assert_eq!(bit(state), 2 << index, "{state}");
            assert_eq!(of_bit(bit(state)), Some(state));
            assert_eq!(of_text(state.as_str()), Some(state));
        }
        assert_eq!(of_bit(3), None);
    }

    #[test]
    fn filters_are_read_as_in_go() {
        for (text, bits) in [
            ("", Some(0)),
            ("pinned", Some(16)),
            ("error,queued", Some(14 | 1536)),
            ("nonsense,pinned", Some(16)),
            ("nonsense", None),
            ("undefined", None),
        ] {
            assert_eq!(Filter::parse(text), bits.map(Filter), "{text}");
        }
        assert!(Filter::ALL.has(PinState::Remote));
        assert!(!Filter(16).has(PinState::Remote));
    }
}
