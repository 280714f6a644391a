//! Commands that ask a running peer.

pub mod add;
pub mod content;
pub mod pins;
pub mod pinset;
pub mod state;
