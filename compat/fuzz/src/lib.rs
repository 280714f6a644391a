//! Feeds damaged bytes to decoders: deterministic, in the process, on a stable compiler.
//!
//! ```text
//!  seeds (values encoded, recorded bytes of Go) ─┐
//!  corpus/<target>/* (kept inputs, first)        ├─► pool ─► mutate ─► decode ─┬─► nothing happened: next
//!  inputs that a decoder understood (bounded) ───┘      (seed, number)         └─► panic, memory, time, law: failure, kept as a file
//! ```
//!
//! A target takes any bytes and says whether it understood them. It fails when it
//! - panics; broken laws are panics too: what is decoded, encoded and decoded again must be the same value ([`same`]),
//! - holds more memory at once than [`memory_bound`] of the input's length,
//! - takes more than [`CPU_MOST`] of its thread's time, or never returns.
//!
//! It also fails when it understands nothing of its corpus: then only its first `if` is tested.
//!
//! # How to run
//! ```text
//! cargo test -p fuzz                                          a fixed number of inputs for each target: the same ones each time
//! PINFOLD_FUZZ_SECONDS=300 cargo test -p fuzz                 so many seconds for all targets together, other inputs each time
//! PINFOLD_FUZZ_SEED=7 cargo test -p fuzz dag_pb               one target, another seed
//! cargo test -p fuzz -- --ignored the_corpus_is_written       writes seeds and understood inputs to compat/fuzz/corpus
//! ```
//! A full stack ends the process without the input: `PINFOLD_FUZZ_TRACE=1 cargo test -p fuzz NAME` keeps the last one in `last-tried`.
//!
//! A failure prints target, seed, number and the input in hexadecimal, and writes it to `target/*/fuzz-failures/`. Mend the decoder, then move
//! that file to `compat/fuzz/corpus/<target>/`: it is tried first in every run.
//!
//! The targets are in `tests/decoders`; `store` and `net` use the harness for the decoders that only they see.

mod allocator;
mod corpus;
mod mutate;
mod runner;

pub use allocator::HARD_MOST;
pub use corpus::{corpus_of, keep, of_hex, to_hex};
pub use mutate::{Mutator, Rng};
pub use runner::{CPU_MOST, Cause, Failure, Plan, Report, Target, check, memory_bound, run};

/// States the law of decoders that have an encoder.
#[track_caller]
pub fn same<T: PartialEq + std::fmt::Debug>(again: T, first: T) {
    assert!(again == first, "decoded, encoded and decoded again differs:\n first {first:?}\n again {again:?}");
}
