//! Cutting a stream of bytes into the chunks that become leaves.
//!
//! [`Chunker`] is the wish (`size-262144`, `rabin`, `buzhash`), [`Cutter`] does it: bytes of any portion size in, whole chunks out. The cuts do not
//! depend on the portions. Chunks of a fixed size that lie whole in a pushed `Bytes` are shared, not copied.

mod buzhash;
mod rabin;

use bytes::{Bytes, BytesMut};
use std::str::FromStr;

/// The size of chunks when nothing else is said.
pub const SIZE_DEFAULT: usize = 256 << 10;
/// The largest chunk: a block less what the framing of a leaf takes.
pub const SIZE_MAX: usize = crate::MAX_BLOCK - 256;

/// How to cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunker {
    /// Chunks of one size (the last may be shorter).
    Size(usize),
    /// Cuts where a rolling Rabin fingerprint says so.
    Rabin(Bounds),
    /// Cuts where a rolling buzhash says so; from 128 to 512 KiB.
    Buzhash,
}

/// The sizes between which a content-defined cut may fall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// No chunk but the last is shorter.
    pub least: usize,
    /// The usual size; a power of two counts, others are rounded down to one.
    pub average: usize,
    /// No chunk is longer.
    pub most: usize,
}

/// Why a text names no way to cut. The words are Kubo's, which clients show.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkerError {
    /// No such chunker.
    #[error("unrecognized chunker option: {0}")]
    Unknown(String),
    /// `size-` wants one number.
    #[error("incorrect chunker string format (expected size-{{size}})")]
    SizeFormat,
    /// `rabin` wants none, one or three numbers.
    #[error("incorrect format (expected 'rabin' 'rabin-[avg]' or 'rabin-[min]-[avg]-[max]'")]
    RabinFormat,
    /// One of the numbers is none.
    #[error("not a number in chunker option: {0:?}")]
    NotANumber(String),
    /// A label stands at the wrong place.
    #[error("{place} label must be {label}")]
    Label {
        /// Which of the three numbers.
        place: &'static str,
        /// What its label should be.
        label: &'static str,
    },
    /// Nothing can be cut into chunks of 0 bytes.
    #[error("chunker size must be greater than 0")]
    Zero,
    /// The chunks would not fit into blocks.
    #[error("chunker parameters may not exceed the maximum chunk size of {SIZE_MAX}")]
    TooBig,
    /// The window of the fingerprint is 16 bytes.
    #[error("rabin min must be greater than 16")]
    RabinLeast,
    /// Least, average and most are not in order.
    #[error("incorrect format: rabin-{0} must be smaller than rabin-{1}")]
    RabinOrder(&'static str, &'static str),
}

impl Default for Chunker {
    fn default() -> Chunker {
        Chunker::Size(SIZE_DEFAULT)
    }
}

impl Chunker {
    /// The longest chunk this may give.
    pub fn chunk_max(&self) -> usize {
        match self {
            Chunker::Size(size) => *size,
            Chunker::Rabin(bounds) => bounds.most,
            Chunker::Buzhash => buzhash::MOST,
        }
    }
}

impl FromStr for Chunker {
    type Err = ChunkerError;

    /// Reads Kubo's `--chunker` option. An average of `rabin` so small that the least size is below 16 is refused; Kubo would not cut at all.
    fn from_str(text: &str) -> Result<Chunker, ChunkerError> {
        let parts: Vec<&str> = text.split('-').collect();
        match parts[..] {
            ["" | "default"] => Ok(Chunker::default()),
            ["size", size] => parse_size(size),
            ["size", ..] => Err(ChunkerError::SizeFormat),
            ["buzhash", ..] => Ok(Chunker::Buzhash),
            ["rabin"] => Ok(Chunker::Rabin(Bounds::around(SIZE_DEFAULT))),
            ["rabin", average] => parse_rabin_average(average),
            ["rabin", least, average, most] => parse_rabin_bounds(least, average, most),
            ["rabin", ..] => Err(ChunkerError::RabinFormat),
            _ => Err(ChunkerError::Unknown(text.to_owned())),
        }
    }
}

impl Bounds {
    fn around(average: usize) -> Bounds {
        Bounds { least: average / 3, average, most: average + average / 2 }
    }
}

fn parse_size(size: &str) -> Result<Chunker, ChunkerError> {
    match number(size)? {
        0 => Err(ChunkerError::Zero),
        size if size > SIZE_MAX => Err(ChunkerError::TooBig),
        size => Ok(Chunker::Size(size)),
    }
}

fn parse_rabin_average(average: &str) -> Result<Chunker, ChunkerError> {
    let average = number(average)?;
    if average.saturating_add(average / 2) > SIZE_MAX {
        return Err(ChunkerError::TooBig);
    }
    let bounds = Bounds::around(average);
    if bounds.least < rabin::WINDOW { Err(ChunkerError::RabinLeast) } else { Ok(Chunker::Rabin(bounds)) }
}

fn parse_rabin_bounds(least: &str, average: &str, most: &str) -> Result<Chunker, ChunkerError> {
    let least = labelled(least, "first", "min")?;
    if least < rabin::WINDOW {
        return Err(ChunkerError::RabinLeast);
    }
    let average = labelled(average, "second", "avg")?;
    let most = labelled(most, "final", "max")?;
    if least >= average {
        Err(ChunkerError::RabinOrder("min", "avg"))
    } else if average >= most {
        Err(ChunkerError::RabinOrder("avg", "max"))
    } else if most > SIZE_MAX {
        Err(ChunkerError::TooBig)
    } else {
        Ok(Chunker::Rabin(Bounds { least, average, most }))
    }
}

fn labelled(text: &str, place: &'static str, label: &'static str) -> Result<usize, ChunkerError> {
    match text.split_once(':') {
        Some((found, value)) if found == label => number(value),
        Some(_) => Err(ChunkerError::Label { place, label }),
        None => number(text),
    }
}

fn number(text: &str) -> Result<usize, ChunkerError> {
    text.parse().map_err(|_| ChunkerError::NotANumber(text.to_owned()))
}

/// Cuts a stream. Feed [`Cutter::push`], take [`Cutter::cut`] until it gives nothing; at the end take [`Cutter::finish`] until it gives nothing.
///
/// Holds at most one chunk and what was pushed last.
pub struct Cutter {
    held: BytesMut,
    input: Bytes,
    rule: Rule,
}

enum Rule {
    Size(usize),
    Rolling { hash: Rolling, least: usize, most: usize, scanned: usize },
}

enum Rolling {
    Rabin(Box<rabin::Rabin>),
    Buzhash(buzhash::Buzhash),
}

impl Cutter {
    /// A cutter at the start of a stream.
    pub fn new(chunker: Chunker) -> Cutter {
        let rolling = |hash, least, most| Rule::Rolling { hash, least, most, scanned: 0 };
        let rule = match chunker {
            Chunker::Size(size) => Rule::Size(size.clamp(1, SIZE_MAX)),
            Chunker::Rabin(bounds) => rolling(Rolling::Rabin(Box::new(rabin::Rabin::new(bounds))), bounds.least, bounds.most),
            Chunker::Buzhash => rolling(Rolling::Buzhash(buzhash::Buzhash::default()), buzhash::LEAST, buzhash::MOST),
        };
        Cutter { held: BytesMut::new(), input: Bytes::new(), rule }
    }

    /// Adds bytes. All chunks of the push before must have been taken; if not, what is left is copied.
    pub fn push(&mut self, data: Bytes) {
        if let Rule::Size(size) = self.rule
            && !self.input.is_empty()
        {
            // The whole chunk's room at once, so that what waits is copied once.
            self.held.reserve(size.saturating_sub(self.held.len()));
        }
        self.settle();
        self.input = data;
    }

    /// Adds bytes by copying them.
    pub fn push_slice(&mut self, data: &[u8]) {
        self.settle();
        if let Rule::Size(size) = self.rule {
            self.held.reserve(size.saturating_sub(self.held.len()));
        }
        self.held.extend_from_slice(data);
    }

    /// The next whole chunk, if there are bytes enough.
    pub fn cut(&mut self) -> Option<Bytes> {
        match &mut self.rule {
            Rule::Size(size) => cut_fixed(*size, &mut self.held, &mut self.input),
            Rule::Rolling { .. } => {
                self.settle();
                self.cut_rolling(false)
            }
        }
    }

    /// The next chunk when no more bytes will come; `None` when all is given.
    pub fn finish(&mut self) -> Option<Bytes> {
        if let Some(chunk) = self.cut() {
            return Some(chunk);
        }
        if let Rule::Size(_) = self.rule
            && self.held.is_empty()
        {
            // The end of a file, or all of a small one, lies whole in what was pushed.
            let rest = std::mem::take(&mut self.input);
            return (!rest.is_empty()).then_some(rest);
        }
        self.settle();
        if self.held.is_empty() {
            return None;
        }
        match &self.rule {
            Rule::Size(_) => Some(self.held.split().freeze()),
            Rule::Rolling { .. } => self.cut_rolling(true),
        }
    }

    fn cut_rolling(&mut self, is_end: bool) -> Option<Bytes> {
        let Rule::Rolling { hash, least, most, scanned } = &mut self.rule else { return None };
        let end = match hash {
            Rolling::Rabin(rabin) => rabin.scan(&self.held, *scanned),
            Rolling::Buzhash(buzhash) => buzhash.scan(&self.held, *scanned),
        };
        let whole = self.held.len().min(*most);
        let end = match end {
            Some(end) => end,
            None if whole == *most || (is_end && whole > 0) => whole,
            None => {
                *scanned = self.held.len();
                return None;
            }
        };
        debug_assert!(end >= *least || is_end);
        *scanned = 0;
        match hash {
            Rolling::Rabin(rabin) => rabin.restart(),
            Rolling::Buzhash(buzhash) => *buzhash = buzhash::Buzhash::default(),
        }
        Some(Bytes::copy_from_slice(&self.held.split_to(end)))
    }

    fn settle(&mut self) {
        if !self.input.is_empty() {
            self.held.extend_from_slice(&self.input);
            self.input = Bytes::new();
        }
    }
}

fn cut_fixed(size: usize, held: &mut BytesMut, input: &mut Bytes) -> Option<Bytes> {
    if held.is_empty() {
        return (input.len() >= size).then(|| input.split_to(size));
    }
    if held.len() < size {
        let missing = size - held.len();
        held.reserve(missing);
        held.extend_from_slice(&input.split_to(missing.min(input.len())));
    }
    (held.len() >= size).then(|| held.split_to(size).freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<Chunker, &str>) {
        assert_eq!(text.parse::<Chunker>().map_err(|error| error.to_string()), expected.map_err(str::to_owned), "{text}");
    }

    #[test]
    fn options_as_kubo_takes_them() {
        let rabin = |least, average, most| Ok(Chunker::Rabin(Bounds { least, average, most }));
        check("", Ok(Chunker::Size(262_144)));
        check("default", Ok(Chunker::Size(262_144)));
        check("size-1", Ok(Chunker::Size(1)));
        check("size-2096896", Ok(Chunker::Size(2_096_896)));
        check("size-2096897", Err("chunker parameters may not exceed the maximum chunk size of 2096896"));
        check("size-0", Err("chunker size must be greater than 0"));
        check("size-x", Err("not a number in chunker option: \"x\""));
        check("size-5-5", Err("incorrect chunker string format (expected size-{size})"));
        check("buzhash", Ok(Chunker::Buzhash));
        check("rabin", rabin(87_381, 262_144, 393_216));
        check("rabin-65536", rabin(21_845, 65_536, 98_304));
        check("rabin-min:512-avg:1024-max:2048", rabin(512, 1024, 2048));
        check("rabin-16-17-40", rabin(16, 17, 40));
        check("rabin-15-32-64", Err("rabin min must be greater than 16"));
        check("rabin-1", Err("rabin min must be greater than 16"));
        check("rabin-100-50-200", Err("incorrect format: rabin-min must be smaller than rabin-avg"));
        check("rabin-100-200-200", Err("incorrect format: rabin-avg must be smaller than rabin-max"));
        check("rabin-1398000", Err("chunker parameters may not exceed the maximum chunk size of 2096896"));
        check("rabin-avg:20-30-40", Err("first label must be min"));
        check("rabin-1-2", Err("incorrect format (expected 'rabin' 'rabin-[avg]' or 'rabin-[min]-[avg]-[max]'"));
        check("bogus", Err("unrecognized chunker option: bogus"));
    }

    fn cuts(chunker: Chunker, data: &[u8], portion: usize) -> Vec<usize> {
        let mut cutter = Cutter::new(chunker);
        let mut chunks = Vec::new();
        for (index, portion) in data.chunks(portion).enumerate() {
            if index % 3 == 2 {
                cutter.push_slice(portion);
            } else {
                cutter.push(Bytes::copy_from_slice(portion));
            }
            chunks.extend(std::iter::from_fn(|| cutter.cut()));
        }
        chunks.extend(std::iter::from_fn(|| cutter.finish()));
        assert_eq!(chunks.concat(), data);
        chunks.iter().map(Bytes::len).collect()
    }

    #[test]
    fn cuts_do_not_depend_on_the_portions() {
        let data: Vec<u8> = (0..1_400_000u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8 ^ (i >> 11) as u8).collect();
        for chunker in ["size-1000", "size-262144", "rabin", "rabin-20-64-300", "rabin-16-17-40", "buzhash"] {
            let chunker: Chunker = chunker.parse().expect("valid");
            let whole = cuts(chunker, &data, data.len());
            for portion in [65_536, 262_144, 99_991] {
                assert_eq!(cuts(chunker, &data, portion), whole, "{chunker:?} {portion}");
            }
            assert!(whole.iter().all(|length| *length <= chunker.chunk_max()));
            assert_eq!(cuts(chunker, b"", 1), []);
        }
    }

    #[test]
    fn whole_chunks_are_shared_not_copied() {
        let data = Bytes::from(vec![1; 3000]);
        let mut cutter = Cutter::new(Chunker::Size(1000));
        cutter.push(data.clone());
        let chunk = cutter.cut().expect("enough");
        assert_eq!(chunk.as_ptr(), data.as_ptr());
        let mut small = Cutter::new(Chunker::Size(5000));
        small.push(data.clone());
        assert_eq!(small.cut(), None);
        let (all, end) = (small.finish().expect("the end"), small.finish());
        assert_eq!((all.as_ptr(), all.len(), end), (data.as_ptr(), 3000, None));
    }
}
