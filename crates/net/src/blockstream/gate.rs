//! Words that every receiver of lanes shares: who may send, and on whose account its blocks are held.

use super::{LaneHeader, LaneRefusal};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;
use types::{Owner, PeerId};

/// An add of which nothing has come for so long is over.
pub const ABANDONED: Duration = Duration::from_secs(600);

/// Who may send: the proven id of the sender's node, and what its header claims.
pub type LaneGate = Arc<dyn Fn(&PeerId, &LaneHeader) -> Admission + Send + Sync>;

/// What the gate says of a sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It may send.
    Admitted,
    /// Nobody has named its node as his own yet; the word of the member that it claims to be may be on its way.
    NotYet,
    /// It may not.
    Refused,
}

impl Admission {
    /// What a receiver answers.
    pub fn check(self) -> Result<(), LaneRefusal> {
        match self {
            Admission::Admitted => Ok(()),
            Admission::NotYet => Err(LaneRefusal::NotYet),
            Admission::Refused => Err(LaneRefusal::NotTrusted),
        }
    }
}

/// On whose account the blocks of a lane are held: the add `lease` of the peer `sender` (its id in the cluster).
pub fn lane_owner(sender: &PeerId, lease: u64) -> Owner {
    let mut hasher = DefaultHasher::new();
    (sender, lease).hash(&mut hasher);
    // Apart from the numbers of this process's own adds, which count up from zero.
    Owner::Adding(hasher.finish() | 1 << 63)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_of_different_senders_have_different_owners() {
        let [one, two] = [1, 2].map(|number| PeerId::from_ed25519(&[number; 32]));
        assert_eq!(lane_owner(&one, 7), lane_owner(&one, 7));
        let owners: std::collections::BTreeSet<Owner> = [lane_owner(&one, 7), lane_owner(&two, 7), lane_owner(&one, 8)].into();
        assert_eq!(owners.len(), 3);
        assert!(!owners.contains(&Owner::Adding(7)));
    }
}
