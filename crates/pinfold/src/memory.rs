//! Memory after work: what a thread freed stays with that thread until it allocates again or ends, so after a burst a peer that does little would
//! keep tens of megabytes of free pages. Here threads give theirs back once the process has come to rest.
//!
//! The runtime's workers do so where they go to sleep, the main thread where it watches, the other threads when they end: those of the blocking
//! pool end soon after the work ([`BLOCKING_KEPT`]).

use std::cell::Cell;
use std::convert::Infallible;
use std::ffi::{c_int, c_long};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::runtime::Builder;

/// A thread of the blocking pool that has no work ends after so long.
const BLOCKING_KEPT: Duration = Duration::from_secs(3);
/// Pages that are free for so long go back to the system. mimalloc's own 10 ms are less than lies between two uses of the same buffer while
/// much is written: an import of pins spent a tenth of its CPU on pages that went and came.
const UNUSED: Duration = Duration::from_millis(50);
/// How often it is looked whether there is rest.
const LOOK: Duration = Duration::from_secs(5);
/// Rest: the process computed for at most so long since the last look.
const QUIET: Duration = Duration::from_millis(250);
/// Work after which there is something to give back.
const WORTH: Duration = Duration::from_millis(500);

/// `mi_option_purge_delay` of mimalloc 2.
const PURGE_DELAY: c_int = 15;

/// How often there was rest after work.
static RESTS: AtomicU32 = AtomicU32::new(0);

thread_local! {
    /// Up to which of [`RESTS`] this thread gave back what it had.
    static GIVEN: Cell<u32> = const { Cell::new(0) };
}

/// Lets the threads of a runtime give back what they do not use, once they have not used it for [`UNUSED`].
pub fn prepare(runtime: &mut Builder) -> &mut Builder {
    keep_while_in_use();
    runtime.thread_keep_alive(BLOCKING_KEPT).on_thread_park(give_back)
}

/// Watches for rest while `work` goes on, in the thread of the caller: that of `main`, which alone takes over what ended threads left. On a system
/// that does not tell the time of a process, nothing is given back early.
pub async fn watched<T>(work: impl Future<Output = T>) -> T {
    tokio::select! {
        outcome = work => outcome,
        never = watch() => match never {},
    }
}

async fn watch() -> Infallible {
    let mut rest = Rest::default();
    loop {
        tokio::time::sleep(LOOK).await;
        if computed().is_some_and(|computed| rest.look(computed)) {
            RESTS.fetch_add(1, Ordering::Relaxed);
            wake_workers();
            collect();
        }
    }
}

/// Every worker goes to sleep anew.
fn wake_workers() {
    for _ in 0..tokio::runtime::Handle::current().metrics().num_workers() {
        // So long that each of them takes one.
        tokio::spawn(async { std::thread::sleep(Duration::from_millis(1)) });
    }
}

fn give_back() {
    let rests = RESTS.load(Ordering::Relaxed);
    if GIVEN.replace(rests) != rests {
        collect();
    }
}

/// Sets mimalloc's time for pages without use; a person's own `MIMALLOC_PURGE_DELAY` counts.
#[expect(unsafe_code, reason = "mimalloc's crate has these functions only with features that change the whole library")]
fn keep_while_in_use() {
    unsafe extern "C" {
        fn mi_option_set_default(option: c_int, value: c_long);
    }
    // SAFETY: mimalloc's own function (it is linked as the allocator of this binary): it sets a number under a number, and bounds both.
    unsafe {
        mi_option_set_default(PURGE_DELAY, UNUSED.as_millis() as c_long);
    }
}

/// Frees what this thread holds and does not use, and what ended threads left.
#[expect(unsafe_code, reason = "mimalloc's crate has this function only with features that change the whole library")]
fn collect() {
    unsafe extern "C" {
        fn mi_collect(force: bool);
    }
    // SAFETY: mimalloc's own function (it is linked as the allocator of this binary), callable from any thread at any time outside the
    // allocator itself; it moves nothing.
    unsafe {
        mi_collect(true);
    }
}

/// How long all threads of this process computed so far.
fn computed() -> Option<Duration> {
    /// Ticks a second in this file, on every Linux (proc(5): `sysconf(_SC_CLK_TCK)` is 100).
    const TICKS: u64 = 100;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program, which stands in parentheses, may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(Duration::from_millis((user + system) * 1000 / TICKS))
}

/// What was seen at the last looks.
#[derive(Default)]
struct Rest {
    seen: Duration,
    given: Duration,
    again: u32,
}

impl Rest {
    /// Whether there is rest, and something to give back since the last one: at once, and again when the threads of the work have ended and the
    /// store has written down what it held.
    fn look(&mut self, computed: Duration) -> bool {
        const AGAIN: u32 = 3;
        if computed.saturating_sub(std::mem::replace(&mut self.seen, computed)) > QUIET {
            return false;
        }
        if computed.saturating_sub(self.given) >= WORTH {
            self.again = AGAIN + 1;
        }
        let is_due = self.again > 0;
        if is_due {
            self.again -= 1;
            self.given = computed;
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rest_comes_after_work_and_some_times_again() {
        let mut rest = Rest::default();
        let looks =
            [(100, false), (2_000, false), (3_000, false), (3_100, true), (3_200, true), (3_400, true), (3_500, true), (3_650, false)];
        for (computed, due) in looks {
            assert_eq!(rest.look(Duration::from_millis(computed)), due, "{computed}");
        }
        let seen: Vec<bool> = [9_000, 9_100, 12_000, 12_010].map(|computed| rest.look(Duration::from_millis(computed))).to_vec();
        assert_eq!(seen, [false, true, false, true]);
    }

    /// The number of the option is mimalloc's of this version.
    #[test]
    #[expect(unsafe_code, reason = "mimalloc's crate has this function only with features that change the whole library")]
    fn the_time_of_unused_pages_is_set() {
        unsafe extern "C" {
            fn mi_option_get(option: c_int) -> c_long;
        }
        // SAFETY: mimalloc's own function: it reads a number, whose place it bounds.
        let now = || unsafe { mi_option_get(PURGE_DELAY) };
        let ours = UNUSED.as_millis() as c_long;
        // Another test may have set it.
        assert!([10, ours].contains(&now()), "{}", now());
        keep_while_in_use();
        assert_eq!(now(), ours);
    }

    #[test]
    fn what_sleeping_workers_freed_goes_back() {
        fn kept() -> u64 {
            let status = std::fs::read_to_string("/proc/self/status").expect("reads");
            let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("a line of it");
            line.split_ascii_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
        }
        /// Frees nearly all of what it takes.
        async fn burst() -> (u64, Vec<Vec<u8>>) {
            let mut all: Vec<Vec<u8>> = (0..400_000).map(|number| vec![number as u8; 100]).collect();
            let with = kept();
            all.truncate(100);
            (with, all)
        }
        let runtime = prepare(&mut Builder::new_multi_thread()).worker_threads(2).enable_all().build().expect("starts");
        let (before, with, after) = runtime.block_on(async {
            let before = kept();
            let (with, _left) = tokio::spawn(burst()).await.expect("ends");
            let mut after = kept();
            for _ in 0..100 {
                if after < before + (with - before) / 4 {
                    break;
                }
                RESTS.fetch_add(1, Ordering::Relaxed);
                wake_workers();
                tokio::time::sleep(Duration::from_millis(20)).await;
                after = kept();
            }
            (before, with, after)
        });
        assert!(with > before + 30_000, "{before} {with}");
        assert!(after < before + (with - before) / 4, "{before} {with} {after}");
    }
}
