//! What became of a dial, in words.

use super::{DialError, transport};
use libp2p::swarm;
use std::error::Error;
use types::PeerId;

/// The error of a dial as its caller gets it.
pub(super) fn dial_error(error: &swarm::DialError, peer: Option<PeerId>) -> DialError {
    match error {
        swarm::DialError::LocalPeerId { .. } => DialError::Own,
        swarm::DialError::NoAddresses => peer.map_or_else(|| DialError::Unreachable(error.to_string()), DialError::NoAddress),
        swarm::DialError::WrongPeerId { obtained, address } => DialError::WrongPeer {
            expected: peer.map(|peer| peer.to_string()).unwrap_or_default(),
            obtained: obtained.to_string(),
            address: address.to_string(),
        },
        swarm::DialError::Denied { cause } => DialError::Refused(whole(cause)),
        swarm::DialError::Transport(attempts) => {
            let other = attempts.iter().find(|(_, error)| transport::is_other_network(error));
            match other {
                Some((address, _)) => DialError::OtherNetwork { address: address.to_string() },
                None => {
                    let attempts =
                        attempts.iter().map(|(address, error)| format!("{address}: {}", whole(error).trim_start_matches([' ', ':'])));
                    DialError::Unreachable(attempts.collect::<Vec<_>>().join("; "))
                }
            }
        }
        other => DialError::Unreachable(other.to_string()),
    }
}

/// An error with what caused it; what the outer text already says is not repeated.
fn whole(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
