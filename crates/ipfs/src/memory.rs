//! The in-memory node.
