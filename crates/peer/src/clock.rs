//! The wall clock of this process, in one place, so that a test can make it wrong.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use types::UnixMillis;

static SHIFT_MILLIS: AtomicI64 = AtomicI64::new(0);

/// Makes the clock wrong by so many seconds from now on.
pub fn shift(seconds: i64) {
    SHIFT_MILLIS.store(seconds.saturating_mul(1000), Ordering::Relaxed);
}

/// Wall time.
pub fn wall() -> UnixMillis {
    let system = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |span| span.as_millis() as u64);
    UnixMillis(system.saturating_add_signed(SHIFT_MILLIS.load(Ordering::Relaxed)))
}
