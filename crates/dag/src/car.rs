//! CAR: many blocks in one stream.
//!
//! Written as version 1: [`header`], then for each block [`section_head`] and the block's bytes, so that no block is copied; or as version 2 with an
//! index, into a file ([`V2Writer`]). Read as a stream by [`CarReader`], which takes both versions (of version 2 the inner version 1, without the
//! index) in portions of any size and verifies every block; or block by block from a file: [`V2Range`], [`Index`], [`section_at`].
//! [`Completeness`] tells whether all that lies below the roots is there, and what is missing first.

mod complete;
mod index;
mod read;
mod v2;
mod write;

pub use complete::Completeness;
pub use index::{Index, IndexBuilder};
pub use read::{CarError, CarHeader, CarItem, CarReader, HEADER_MAX, ROOTS_MAX};
pub use v2::{SectionAt, V2_HEAD, V2End, V2Range, V2Writer, section_at};
pub use write::{header, section, section_head};
