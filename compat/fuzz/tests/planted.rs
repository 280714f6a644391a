//! The harness finds what it is for: decoders with planted faults must be caught, a sound one must not.

use fuzz::{Cause, Failure, Plan, Target, run};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const PLAN: Plan = Plan { seed: 1, count: 20_000, traces: false, time: None, cpu_most: Duration::from_millis(200) };

/// A sound format: a length of four bytes, then so many bytes.
fn body(input: &[u8]) -> Option<&[u8]> {
    let (length, rest) = input.split_first_chunk()?;
    rest.get(..u32::from_be_bytes(*length) as usize)
}

fn encode(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_be_bytes()[..], body].concat()
}

fn failure(decode: fn(&[u8]) -> bool) -> Failure {
    let failure = run(Target { name: "planted", decode }, vec![encode(b"some bytes"), encode(b"")], PLAN);
    let failure = *failure.expect_err("a planted fault");
    let file = failure.file.clone().expect("was written");
    assert_eq!(std::fs::read(&file).expect("is there"), failure.input);
    std::fs::remove_file(file).expect("goes away");
    let words = failure.to_string();
    assert!(words.contains("target planted, seed 1") && words.contains(&fuzz::to_hex(&failure.input)), "{words}");
    failure
}

#[test]
fn a_sound_decoder_is_not_accused() {
    fn sound(input: &[u8]) -> bool {
        let Some(body) = body(input) else { return false };
        fuzz::same(self::body(&encode(body)), Some(body));
        true
    }
    let report = run(Target { name: "planted", decode: sound }, vec![encode(b"x")], PLAN).unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(report.inputs, PLAN.count + 1);
    assert!(report.understood > 100 && report.understood < report.inputs && !report.learned.is_empty());
}

#[test]
fn a_panic_is_caught_and_comes_again_from_its_hexadecimal_input() {
    fn slices(input: &[u8]) -> bool {
        let Some((length, rest)) = input.split_first_chunk() else { return false };
        !rest[..u32::from_be_bytes(*length) as usize].is_empty()
    }
    let found = failure(slices);
    assert!(matches!(&found.cause, Cause::Panic(words) if words.contains("out of range")), "{found}");
    let input = fuzz::of_hex(&fuzz::to_hex(&found.input)).expect("digits");
    assert!(std::panic::catch_unwind(|| slices(&input)).is_err());
    assert_eq!(failure(slices).number, found.number, "the same seed finds the same");
}

#[test]
fn memory_by_a_length_field_is_caught() {
    fn reserves(input: &[u8]) -> bool {
        let Some((length, rest)) = input.split_first_chunk() else { return false };
        let length = u32::from_be_bytes(*length) as usize;
        // Below what makes the process end.
        let mut out: Vec<u8> = Vec::with_capacity(length.min(1 << 30));
        out.extend_from_slice(rest);
        out.len() == length
    }
    let found = failure(reserves);
    assert!(matches!(found.cause, Cause::Memory(bytes) if bytes > fuzz::memory_bound(found.input.len())), "{found}");
}

#[test]
fn a_loop_is_caught() {
    static ENDS: AtomicBool = AtomicBool::new(false);
    fn loops(input: &[u8]) -> bool {
        let Some(body) = body(input) else { return false };
        let mut at = 0;
        while at < body.len() && !ENDS.load(Ordering::Relaxed) {
            at += usize::from(body[at]);
        }
        true
    }
    let found = failure(loops);
    assert_eq!(found.cause, Cause::Time, "{found}");
    assert!(body(&found.input).is_some_and(|body| body.contains(&0)), "{found}");
    ENDS.store(true, Ordering::Relaxed);
}

#[test]
fn a_broken_round_trip_is_caught() {
    fn forgets(input: &[u8]) -> bool {
        let Some(body) = body(input) else { return false };
        let mut written = encode(body);
        written.iter_mut().skip(4).for_each(|byte| *byte &= 0x7f);
        fuzz::same(self::body(&written), Some(body));
        true
    }
    let found = failure(forgets);
    assert!(matches!(&found.cause, Cause::Panic(words) if words.contains("decoded again differs")), "{found}");
}

#[test]
fn a_target_that_understands_nothing_is_caught() {
    let found = run(Target { name: "planted", decode: |_| false }, vec![encode(b"x")], PLAN).expect_err("deaf");
    assert_eq!(found.cause, Cause::Deaf);
}

/// Ends its process: run by the test below.
#[test]
#[ignore = "ends the process, on purpose"]
fn memory_without_end() {
    fn grows(input: &[u8]) -> bool {
        let mut parts = Vec::new();
        while input.ends_with(b"!") {
            // Reserved and never touched, so that the machine does not notice.
            parts.push(Vec::<u8>::with_capacity(256 << 20));
        }
        parts.is_empty()
    }
    let _ = run(Target { name: "planted", decode: grows }, vec![b"without end!".to_vec()], PLAN);
}

#[test]
fn memory_without_end_ends_the_process_with_its_input() {
    let own = std::env::current_exe().expect("a test has a file");
    let child = Command::new(own).args(["--exact", "memory_without_end", "--ignored", "--nocapture"]).output().expect("starts");
    let words = String::from_utf8_lossy(&child.stderr);
    assert!(!child.status.success() && words.contains(&fuzz::to_hex(b"without end!")), "{words}");
    let written = words.lines().find_map(|line| line.strip_prefix("written to ")?.split(';').next()).expect("was written");
    std::fs::remove_file(written).expect("goes away");
}
