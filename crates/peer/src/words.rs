//! Notices in words, for logs, pages and alerts.

use cluster::{Balancing, Duty, Notice};
use types::PeerId;

/// One sentence about a notice; `name` gives a peer's name for people.
pub fn notice(notice: &Notice, name: &dyn Fn(&PeerId) -> String) -> String {
    let names = |peers: &[PeerId]| peers.iter().map(name).collect::<Vec<_>>().join(", ");
    match notice {
        Notice::PeerSuspect(peer) => format!("{} is silent; its copies are replaced when its grace is over", name(peer)),
        Notice::PeerDown(peer) => format!("{} is taken for lost: its copies are being replaced", name(peer)),
        Notice::PeerBack(peer) => format!("{} is back", name(peer)),
        Notice::Repairing { cid, lost, gained } if gained.is_empty() => format!("{cid} lost its copies on {}", names(lost)),
        Notice::Repairing { cid, lost, gained } => format!("{cid} lost its copies on {}: new ones on {}", names(lost), names(gained)),
        Notice::Repaired { cid } => format!("{cid} has enough copies again"),
        Notice::PinFailed { cid, why } => format!("{cid} could not be copied: {why}"),
        Notice::CopyDamaged { cid } => format!("blocks of the own copy of {cid} are lost or damaged: they are fetched again"),
        Notice::RemovalsBraked { removals, held } => {
            format!("{removals} of {held} held pins would go at once: held back until `pinfold removals approve`")
        }
        Notice::Membership { peer, by, trusted: true } => format!("{} trusts {} from now on", name(by), name(peer)),
        Notice::Membership { peer, by, trusted: false } => format!("{} expelled {}", name(by), name(peer)),
        Notice::Duty { peer, by, duty: Duty::InUse } => format!("{} put {} in use: it takes and keeps copies", name(by), name(peer)),
        Notice::Duty { peer, by, duty: Duty::Cordoned } => format!("{} cordoned {}: it gets no new copies", name(by), name(peer)),
        Notice::Duty { peer, by, duty: Duty::Draining } => format!("{} drains {}: its copies go to others", name(by), name(peer)),
        Notice::Balancing { by, mode: Balancing::Now } => format!("{} asked for an even spread", name(by)),
        Notice::Balancing { by, mode: Balancing::Auto } => format!("{} leaves the spread to itself", name(by)),
        Notice::Balancing { by, mode: Balancing::Off } => format!("{} stopped balancing: copies stay where they are", name(by)),
        Notice::SigningEnds { by } => {
            format!(
                "{} takes in peers that do not sign: blocks of the shared state count without the signature of a member too, for good",
                name(by)
            )
        }
        Notice::Author { block, author, fault, is_left_out } => {
            let of = author.as_ref().map(|author| format!(" of {}", name(author))).unwrap_or_default();
            let then = if *is_left_out {
                "it is left out: look at whom the members trust"
            } else {
                "it counts, since this cluster takes unsigned blocks"
            };
            format!("a block of the shared state{of} ({block}): {fault}; {then}")
        }
        Notice::RecordRefused { key, why } => format!("a record of {} was refused: {why}", name(&key.author)),
    }
}

/// An error with its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
