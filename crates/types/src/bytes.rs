//! Amounts of data.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};

/// An amount of bytes; arithmetic saturates, so that a hostile size never wraps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteCount(pub u64);

impl ByteCount {
    /// No bytes.
    pub const ZERO: ByteCount = ByteCount(0);
    /// 1024 bytes.
    pub const KIB: ByteCount = ByteCount(1 << 10);
    /// 1024 KiB.
    pub const MIB: ByteCount = ByteCount(1 << 20);
    /// 1024 MiB.
    pub const GIB: ByteCount = ByteCount(1 << 30);

    /// The number itself.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl Add for ByteCount {
    type Output = ByteCount;
    fn add(self, other: ByteCount) -> ByteCount {
        ByteCount(self.0.saturating_add(other.0))
    }
}

impl AddAssign for ByteCount {
    fn add_assign(&mut self, other: ByteCount) {
        *self = *self + other;
    }
}

impl Sub for ByteCount {
    type Output = ByteCount;
    /// Never below zero.
    fn sub(self, other: ByteCount) -> ByteCount {
        ByteCount(self.0.saturating_sub(other.0))
    }
}

impl fmt::Display for ByteCount {
    /// Prints as people read sizes: `0 B`, `999 B`, `1.5 KiB`, `12.0 MiB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let mut value = self.0 as f64 / 1024.0;
        let mut unit = 0;
        while value >= 1024.0 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        write!(f, "{value:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_like_people_write_them() {
        for (bytes, text) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (12 << 20, "12.0 MiB"), (u64::MAX, "16.0 EiB")] {
            assert_eq!(ByteCount(bytes).to_string(), text);
        }
    }

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(ByteCount(1) - ByteCount(2), ByteCount::ZERO);
        assert_eq!(ByteCount(u64::MAX) + ByteCount(1), ByteCount(u64::MAX));
    }
}
