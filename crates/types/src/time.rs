//! Time as a parameter: machines never read a clock.

/// A span of time in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

impl Millis {
    /// So many seconds.
    pub const fn seconds(seconds: u64) -> Millis {
        Millis(seconds * 1000)
    }

    /// So many minutes.
    pub const fn minutes(minutes: u64) -> Millis {
        Millis::seconds(minutes * 60)
    }
}

/// Wall time: milliseconds since 1970-01-01 UTC. What people see and what Go peers store; never used to measure spans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// Whole seconds, as the pin format keeps them.
    pub fn seconds(self) -> u64 {
        self.0 / 1000
    }

    /// From whole seconds; what does not fit is the last whole second that does, so that [`UnixMillis::seconds`] gives it back.
    pub fn from_seconds(seconds: u64) -> UnixMillis {
        UnixMillis(seconds.min(u64::MAX / 1000) * 1000)
    }
}

/// The two clocks at one moment, handed to a machine with every event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Monotonic: milliseconds since this machine was made. Spans and deadlines are measured with it.
    pub mono: Millis,
    /// Wall time of this peer; may be wrong, may jump.
    pub wall: UnixMillis,
}

impl Now {
    /// The monotonic moment `span` from here.
    pub fn after(self, span: Millis) -> Millis {
        Millis(self.mono.0.saturating_add(span.0))
    }

    /// The wall time that belongs to the monotonic moment `at`.
    pub fn wall_at(self, at: Millis) -> UnixMillis {
        UnixMillis((self.wall.0 + at.0).saturating_sub(self.mono.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_seconds_stay_whole_also_at_the_end_of_time() {
        for seconds in [0, 1, u64::MAX / 1000, u64::MAX / 1000 + 1, u64::MAX] {
            let time = UnixMillis::from_seconds(seconds);
            assert_eq!(UnixMillis::from_seconds(time.seconds()), time, "{seconds}");
        }
    }
}
