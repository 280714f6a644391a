//! The shared wish as keys and bytes.
