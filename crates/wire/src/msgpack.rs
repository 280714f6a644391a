//! Msgpack as Go's `ugorji/go/codec` speaks it by default: the old specification.
//!
//! The writer knows one form for texts and bytes (raw), signed forms for signed numbers and times as raw texts. The reader takes what any
//! writer of old or new msgpack sends. [`Scanner`] finds where a value ends in a stream without length prefixes.

mod reader;
mod scan;
mod writer;

pub use reader::{MsgpackError, Reader};
pub use scan::{Scan, Scanner, scan};
pub use writer::{Fields, Writer};
