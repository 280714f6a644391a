//! The words of the system: what every other crate means by a peer, a pin, a placement, a state.
//!
//! Plain data with the checks that make a value valid; nothing here decides, waits, or knows how a value looks on a wire
//! (that is `wire`). Start with [`pin`] (the wish), then [`status`] (what became of it), then [`message`] (what peers of one
//! cluster tell each other).
//!
//! Deliberately absent: serde, tokio, clocks.

pub mod bytes;
pub mod id;
pub mod message;
pub mod pin;
pub mod record;
pub mod status;
pub mod time;

pub use crate::bytes::ByteCount;
pub use crate::id::{BadPeerId, Owner, PeerId};
pub use crate::message::{CopyState, HoldingReport, Load, Offer, PeerMessage, Refusal};
pub use crate::pin::{BadReplicas, Depth, Pin, PinKind, PinOptions, Replicas};
pub use crate::record::{RecordKey, RecordKind, SignedRecord};
pub use crate::status::{Because, PinState};
pub use crate::time::{Millis, Now, UnixMillis};
pub use cid::Cid;

/// Whether the content stands in the CID itself (multihash `identity`, code 0 of the multicodec table): there is nothing to fetch or store.
pub fn is_inline(cid: &Cid) -> bool {
    const IDENTITY: u64 = 0;
    cid.hash().code() == IDENTITY
}
