//! The JSON of the REST door, with Go's names, order, nulls and texts; and its query parameters.
//!
//! Structs are filled by hand from what the inside knows. `None` lists print as `null`, empty ones as `[]`: Go prints both, for the same
//! field, and clients have learned to take both. Print with [`to_go_json`], which escapes as Go does.

mod go_json;
pub mod line;
mod objects;
mod peers;
mod pin;
pub mod query;

pub use go_json::to_go_json;
pub use line::LineWriter;
pub use objects::{AddedOutput, Alert, Bandwidth, Error, GlobalRepoGc, Metric, RepoGc, RepoGcKey, Version};
pub use peers::{ConnectGraph, Id, IpfsId};
pub use pin::{BadRestPin, GlobalPinInfo, Pin, PinInfo, PinInfoShort, kind_of_text, kind_text};

use crate::{cids::cid_from_text, multiaddr};
use types::{Cid, PeerId};

/// Binary multiaddrs as texts. What this version cannot read is left out.
pub fn address_texts(addresses: &[Vec<u8>]) -> Vec<String> {
    addresses.iter().filter_map(|address| multiaddr::to_text(address).ok()).collect()
}

fn peer_texts(peers: &[PeerId]) -> Vec<String> {
    peers.iter().map(PeerId::to_string).collect()
}

fn cid_text(cid: Option<&Cid>) -> Option<String> {
    cid.map(Cid::to_string)
}

fn peer_text(peer: Option<&PeerId>) -> String {
    peer.map(PeerId::to_string).unwrap_or_default()
}

/// A CID text as the JSON forms carry it: null and the empty text are none.
fn read_cid_text(text: Option<&str>) -> Result<Option<Cid>, crate::cids::BadCidText> {
    text.filter(|text| !text.is_empty()).map(cid_from_text).transpose()
}
