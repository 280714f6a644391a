//! Runs the machine: waits and does.
