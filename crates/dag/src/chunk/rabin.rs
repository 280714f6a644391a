//! Content-defined cuts by Rabin fingerprints, equal to boxo's.
//!
//! The fingerprint of the last 16 bytes is a remainder of polynomials over GF(2). At the start of each chunk the window holds zeros and a one, and
//! the bytes before the least size (less the window) do not enter it at all: both are habits of the first implementation that decide the cuts.

use super::Bounds;
use std::sync::LazyLock;

/// How many bytes the fingerprint covers.
pub const WINDOW: usize = 16;
/// The irreducible polynomial of degree 53 that IPFS uses.
const POLYNOMIAL: u64 = 17_437_180_132_763_653;
const DEGREE: u32 = 53;

static TABLES: LazyLock<Tables> = LazyLock::new(Tables::new);

/// What a byte adds when it leaves the window, and what brings eight bits too many back below the polynomial.
struct Tables {
    leave: [u64; 256],
    reduce: [u64; 256],
}

/// The fingerprint at the place up to which a chunk was scanned.
pub struct Rabin {
    bounds: Bounds,
    mask: u64,
    window: [u8; WINDOW],
    place: usize,
    digest: u64,
}

impl Rabin {
    /// A fingerprint at the start of a stream.
    pub fn new(bounds: Bounds) -> Rabin {
        let mask = (1 << bounds.average.max(1).ilog2()) - 1;
        let mut rabin = Rabin { bounds, mask, window: [0; WINDOW], place: 0, digest: 0 };
        rabin.restart();
        rabin
    }

    /// Forgets the chunk before.
    pub fn restart(&mut self) {
        self.window = [0; WINDOW];
        self.place = 0;
        self.digest = 0;
        self.slide(&TABLES, 1);
    }

    /// Looks for the end of the chunk at the front of `data`, of which `scanned` bytes were seen before.
    pub fn scan(&mut self, data: &[u8], scanned: usize) -> Option<usize> {
        let tables = &*TABLES;
        let first = scanned.max(self.bounds.least.saturating_sub(WINDOW));
        let limit = data.len().min(self.bounds.most);
        for (index, byte) in data.iter().enumerate().take(limit).skip(first) {
            self.slide(tables, *byte);
            let length = index + 1;
            if length >= self.bounds.least && (self.digest & self.mask == 0 || length == self.bounds.most) {
                return Some(length);
            }
        }
        None
    }

    fn slide(&mut self, tables: &Tables, byte: u8) {
        let leaves = std::mem::replace(&mut self.window[self.place], byte);
        self.place = (self.place + 1) % WINDOW;
        self.digest ^= tables.leave[usize::from(leaves)];
        let over = (self.digest >> (DEGREE - 8)) as usize & 0xff;
        self.digest = (self.digest << 8 | u64::from(byte)) ^ tables.reduce[over];
    }
}

impl Tables {
    fn new() -> Tables {
        let bytes: [u64; 256] = std::array::from_fn(|byte| byte as u64);
        let leave = bytes.map(|byte| (1..WINDOW).fold(remainder(byte), |hash, _| remainder(hash << 8)));
        let reduce = bytes.map(|byte| remainder(byte << DEGREE) | byte << DEGREE);
        Tables { leave, reduce }
    }
}

fn remainder(mut value: u64) -> u64 {
    while value >> DEGREE != 0 {
        let excess = value.ilog2() - DEGREE;
        value ^= POLYNOMIAL << excess;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remainders_are_below_the_polynomial() {
        assert_eq!(POLYNOMIAL.ilog2(), DEGREE);
        assert_eq!(remainder(POLYNOMIAL), 0);
        assert_eq!(remainder(POLYNOMIAL << 3), 0);
        assert_eq!(remainder(POLYNOMIAL ^ 5), 5);
        assert_eq!(remainder(u64::MAX) >> DEGREE, 0);
    }
}
