//! When something that failed is tried again.

use crate::NodeFailure;
use crate::order::mix_number;
use types::{Because, Cid, Millis, Now};

/// After the first failure.
const FIRST: Millis = Millis::seconds(1);
/// Never later than this.
const SLOWEST: Millis = Millis::minutes(10);
/// What cannot be walked is tried again as rarely as this.
const MALFORMED: Millis = Millis::minutes(60);

/// The moment of the next try after `tries` failures: doubled each time, moved by up to a fifth by the CID's hash, so that
/// what failed together does not come back together.
pub fn next_try(cid: &Cid, tries: u32, now: Now) -> Millis {
    jittered(cid, tries, Millis(FIRST.0.saturating_mul(1 << tries.saturating_sub(1).min(20)).min(SLOWEST.0)), now)
}

/// The moment of the next try after this failure.
pub fn after_failure(cid: &Cid, tries: u32, failure: &NodeFailure, now: Now) -> Millis {
    match failure {
        NodeFailure::Malformed(_) => jittered(cid, tries, MALFORMED, now),
        _ => next_try(cid, tries, now),
    }
}

fn jittered(cid: &Cid, tries: u32, pause: Millis, now: Now) -> Millis {
    let fifth = pause.0 / 5;
    let moved = mix_number(cid, u64::from(tries)) % (2 * fifth + 1);
    now.after(Millis(pause.0 - fifth + moved))
}

/// The reason that people see.
pub fn because(failure: &NodeFailure) -> Because {
    match failure {
        NodeFailure::Missing { missing, first, asked } => Because::NoProvider { missing: *missing, first: *first, asked: asked.clone() },
        NodeFailure::NoRoom { needed, free } => Because::NoRoom { needed: *needed, free: *free },
        NodeFailure::Malformed(reason) => Because::Failed { error: format!("the content cannot be walked: {reason}") },
        NodeFailure::Node(error) => Because::NodeDown { error: error.clone() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::cid;
    use types::UnixMillis;

    #[test]
    fn pauses_grow_from_a_second_to_ten_minutes() {
        let now = Now { mono: Millis(0), wall: UnixMillis(0) };
        for (tries, seconds) in [(1, 1), (2, 2), (3, 4), (10, 512), (11, 600), (1000, 600)] {
            for number in 0..50 {
                let pause = next_try(&cid(number), tries, now).0;
                assert!((seconds * 800..=seconds * 1200).contains(&pause), "{tries}: {pause}");
            }
        }
        assert_ne!(next_try(&cid(1), 5, now), next_try(&cid(2), 5, now));
    }
}
