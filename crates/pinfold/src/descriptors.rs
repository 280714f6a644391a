//! File descriptors: raised as far as the system lets us at the start, then shared out, so that connections of strangers never take those
//! that the stores need.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// With fewer the peer works, but says so.
const FEW: usize = 4096;
/// Three doors, two networks, and as much again for files.
const SHARES: usize = 8;

/// How many this process may have open.
#[derive(Clone, Copy, Debug)]
pub struct Descriptors {
    most: usize,
}

impl Descriptors {
    /// Raises the soft limit to the hard one.
    pub fn raise() -> Descriptors {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
        let most = if raised { maximum } else { current };
        let most = usize::try_from(most.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
        if most < FEW {
            tracing::warn!(
                most,
                "few file descriptors: connections are limited accordingly; raise `ulimit -n` (LimitNOFILE= for a service)"
            );
        }
        Descriptors { most }
    }

    /// Connections that one door or network may have.
    pub fn share(self) -> usize {
        (self.most / SHARES).max(16)
    }
}

#[cfg(test)]
mod tests {
    use super::Descriptors;

    #[test]
    fn all_shares_together_leave_room_for_files() {
        for most in [256, 1024, 20_000] {
            assert!(Descriptors { most }.share() * 5 <= most * 2 / 3, "{most}");
        }
        assert_eq!(Descriptors { most: 10 }.share(), 16);
    }
}
