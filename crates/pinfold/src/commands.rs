//! Commands that ask a running peer.

pub mod add;
pub mod content;
pub mod limits;
pub mod moving;
pub mod pins;
pub mod pinset;
pub mod scrub;
pub mod state;
