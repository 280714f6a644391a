//! What the system asks of a node.
