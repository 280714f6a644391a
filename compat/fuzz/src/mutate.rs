//! Damage: what disks, broken peers and malice do to bytes. The same seed makes the same inputs.

/// A splitmix64 generator.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// Starts at `seed`.
    pub fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `end`; 0 when that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { (self.number() % end as u64) as usize }
    }
}

/// No input grows beyond this, but for those that repeat a piece many times.
const LONG: usize = 64 << 10;
/// The longest input made by repeating.
const REPEATED: usize = 512 << 10;

/// Lengths and counts that break arithmetic.
const EXTREMES: [u64; 16] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x10_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 40,
    i64::MAX as u64,
    1 << 63,
    u64::MAX - 7,
    u64::MAX,
];

/// Bytes with a meaning in the formats read here: protobuf tags, heads of msgpack and CBOR, punctuation of JSON, URLs and multiaddrs.
const TOKENS: &[&[u8]] = &[
    b"\x0a",
    b"\x12",
    b"\x1a",
    b"\x08\x01",
    b"\x22\x00",
    b"\x80",
    b"\x90",
    b"\xc0",
    b"\xc1",
    b"\xdb",
    b"\xdd",
    b"\xdf",
    b"\xa1\x61",
    b"\xd8\x2a",
    b"\x9b",
    b"\xbb",
    b"\x5b",
    b"\x9f",
    b"\xff",
    b"\xf9",
    b"\x01\x70\x12\x20",
    b"\x01\x55\x00",
    b"\x12\x20",
    b"\x00\x24",
    b"{",
    b"}",
    b"[",
    b"]",
    b"[[[[[[[[[[[[[[[[",
    b"{\"/\":",
    b"\"",
    b"\\u0000",
    b"\\ud800",
    b":",
    b",",
    b"-",
    b"1e999",
    b"null",
    b"true",
    b"/",
    b"//",
    b"/../",
    b"%",
    b"%00",
    b"%ff",
    b"&",
    b"=",
    b";",
    b"+",
    b" ",
    b"\n",
    b"\0",
    b"/p2p/",
    b"/ip4/",
    b"/unix/",
    b"Qm",
    b"bafy",
    b"\xf0\x9f\x9a\x80",
    b"\xc3",
    b"\xed\xa0\x80",
];

/// Makes inputs from a pool of sound ones.
#[derive(Clone, Debug)]
pub struct Mutator {
    rng: Rng,
}

impl Mutator {
    /// Starts at `seed`.
    pub fn new(seed: u64) -> Mutator {
        Mutator { rng: Rng::new(seed) }
    }

    /// The next input.
    pub fn next(&mut self, pool: &[Vec<u8>]) -> Vec<u8> {
        if pool.is_empty() || self.rng.below(64) == 0 {
            return self.noise(300);
        }
        let mut input = pool[self.rng.below(pool.len())].clone();
        // Mostly one or two changes: more break the outer form, and what lies inside is not reached.
        let rounds = 1 + self.rng.below(2) + self.rng.below(8) / 7 * self.rng.below(6);
        for _ in 0..rounds {
            self.change(&mut input, pool);
        }
        if input.len() > REPEATED {
            input.truncate(REPEATED);
        }
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, pool: &[Vec<u8>]) {
        let at = self.rng.below(input.len());
        match self.rng.below(14) {
            _ if input.is_empty() => *input = self.noise(40),
            0 => input[at] ^= 1 << self.rng.below(8),
            1 => input[at] = self.rng.number() as u8,
            2 => input[at] = input[at].wrapping_add([1, 255, 16, 240][self.rng.below(4)]),
            3 => input.truncate(at),
            4 => self.splice(input, at, pool),
            5 => self.number(input, at),
            6 => self.varint(input, at),
            7 => self.range(input, at, |input, range| drop(input.drain(range))),
            8 => self.repeat(input, at),
            9 => {
                let token = TOKENS[self.rng.below(TOKENS.len())];
                self.insert(input, at, token);
            }
            10 => {
                let token = TOKENS[self.rng.below(TOKENS.len())];
                let end = (at + token.len()).min(input.len());
                input[at..end].copy_from_slice(&token[..end - at]);
            }
            11 => {
                let noise = self.noise(8);
                self.insert(input, at, &noise);
            }
            12 => self.range(input, at, |input, range| input[range].fill(0)),
            _ => self.range(input, at, |input, range| input[range].fill(0xff)),
        }
    }

    fn noise(&mut self, most: usize) -> Vec<u8> {
        (0..self.rng.below(most)).map(|_| self.rng.number() as u8).collect()
    }

    fn insert(&mut self, input: &mut Vec<u8>, at: usize, bytes: &[u8]) {
        if input.len() + bytes.len() <= LONG {
            input.splice(at..at, bytes.iter().copied());
        }
    }

    fn range(&mut self, input: &mut Vec<u8>, at: usize, change: impl FnOnce(&mut Vec<u8>, std::ops::Range<usize>)) {
        let most = [4, 40, usize::MAX][self.rng.below(3)].min(input.len() - at);
        let end = at + 1 + self.rng.below(most);
        change(input, at..end.min(input.len()));
    }

    /// The beginning of one and the end of another.
    fn splice(&mut self, input: &mut Vec<u8>, at: usize, pool: &[Vec<u8>]) {
        let other = &pool[self.rng.below(pool.len())];
        let from = self.rng.below(other.len());
        let room = LONG.saturating_sub(at).min(other.len() - from);
        input.truncate(at);
        input.extend_from_slice(&other[from..from + room]);
    }

    /// An extreme number over a field of fixed width.
    fn number(&mut self, input: &mut [u8], at: usize) {
        let number = EXTREMES[self.rng.below(EXTREMES.len())];
        let width = [1, 2, 4, 8][self.rng.below(4)];
        let bytes =
            if self.rng.below(2) == 0 { number.to_le_bytes()[..width].to_vec() } else { number.to_be_bytes()[8 - width..].to_vec() };
        let end = (at + width).min(input.len());
        input[at..end].copy_from_slice(&bytes[..end - at]);
    }

    /// An extreme varint, or one that does not end, in place of a byte.
    fn varint(&mut self, input: &mut Vec<u8>, at: usize) {
        let mut number = EXTREMES[self.rng.below(EXTREMES.len())];
        let mut bytes = Vec::new();
        while number >= 0x80 {
            bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        bytes.push(number as u8);
        if self.rng.below(8) == 0 {
            bytes = vec![0xff; 1 + self.rng.below(12)];
        }
        input.splice(at..=at, bytes);
    }

    /// A piece again, once or very often.
    fn repeat(&mut self, input: &mut Vec<u8>, at: usize) {
        let length = 1 + self.rng.below(input.len() - at).min(self.rng.below(80));
        let piece = input[at..(at + length).min(input.len())].to_vec();
        let (times, most) = match self.rng.below(64) {
            0 => (1 << self.rng.below(18), REPEATED),
            1..=8 => (1 + self.rng.below(64), LONG),
            _ => (1, LONG),
        };
        let room = most.saturating_sub(input.len()) / piece.len();
        let again = piece.repeat(times.min(room));
        input.splice(at..at, again);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_inputs_of_bounded_length() {
        let pool = vec![b"some sound bytes".to_vec(), vec![7; 5000], Vec::new()];
        let inputs = |seed| {
            let mut mutator = Mutator::new(seed);
            (0..20_000).map(|_| mutator.next(&pool)).collect::<Vec<_>>()
        };
        let first = inputs(3);
        assert_eq!(first, inputs(3));
        assert_ne!(first, inputs(4));
        assert!(first.iter().all(|input| input.len() <= REPEATED));
        assert!(first.iter().any(|input| input.len() > LONG) && first.iter().any(Vec::is_empty));
    }
}
