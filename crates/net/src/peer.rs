//! Our peer id and libp2p's: the same bytes in two types; and what addresses of peers say.

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId as Libp2pId};
use types::PeerId;

/// Ours, from libp2p's. None for ids longer than any key type in use makes them: such peers are not talked to.
pub(crate) fn ours(id: &Libp2pId) -> Option<PeerId> {
    PeerId::from_bytes(&id.to_bytes()).ok()
}

/// libp2p's, from ours.
pub(crate) fn theirs(id: &PeerId) -> Option<Libp2pId> {
    Libp2pId::from_bytes(id.as_bytes()).ok()
}

/// Whether an address leads through a relay.
pub(crate) fn is_circuit(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::P2pCircuit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_go_both_ways() {
        let id = PeerId::from_ed25519(&[3; 32]);
        let other = theirs(&id).expect("an ed25519 id is a libp2p id");
        assert_eq!(other.to_string(), id.to_string());
        assert_eq!(ours(&other), Some(id));
    }
}
