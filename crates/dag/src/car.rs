//! CAR: many blocks in one stream.
//!
//! Written as version 1: [`header`], then for each block [`section_head`] and the block's bytes, so that no block is copied. Read by [`CarReader`],
//! which takes versions 1 and 2 (of version 2 the inner version 1; indexes are ignored) in portions of any size and verifies every block.

mod read;
mod write;

pub use read::{CarError, CarHeader, CarItem, CarReader, HEADER_MAX, ROOTS_MAX};
pub use write::{header, section, section_head};
