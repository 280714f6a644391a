//! Commands that ask a running peer, and `migrate` and `migrate-kubo`, which make one.

pub mod add;
pub mod content;
pub mod keys;
pub mod limits;
pub mod migrate;
pub mod migrate_kubo;
pub mod moving;
pub mod names;
pub mod pins;
pub mod pinset;
pub mod routing;
pub mod scrub;
pub mod state;
