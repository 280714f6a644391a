//! Benchmarks: filled in below.
