//! The index of version 2: for each multihash the places of its blocks. Written as `multihash-index-sorted` (0x0401); `index-sorted` (0x0400), which
//! knows digests only, is read too.

use super::CarError;
use crate::DecodeError;
use crate::hash::{DIGEST_MAX, HashFn};
use crate::pb::wire::{put_varint, varint};
use bytes::{Buf, Bytes};
use std::collections::BTreeMap;
use types::Cid;

const SORTED: u64 = 0x0400;
const MULTIHASH_SORTED: u64 = 0x0401;
/// Hash functions of one index, and digest lengths of one function.
const KINDS_MAX: u32 = 256;
const OFFSET: usize = 8;
const WHAT: &str = "CAR index";

/// Collects the places of blocks while an archive is written. Memory: digest and 8 bytes for each block.
#[derive(Clone, Debug, Default)]
pub struct IndexBuilder {
    /// By hash function and length of digest: digests with offsets, one after the other.
    kinds: BTreeMap<(u64, usize), Vec<u8>>,
}

impl IndexBuilder {
    /// Notes a block that begins (with the length of its section) at `offset`, counted from the beginning of the inner version 1. Blocks inside
    /// CIDs are left out.
    pub fn add(&mut self, cid: &Cid, offset: u64) {
        let (code, digest) = (cid.hash().code(), cid.hash().digest());
        if code == HashFn::IDENTITY.code() {
            return;
        }
        let records = self.kinds.entry((code, digest.len())).or_default();
        records.extend_from_slice(digest);
        records.extend_from_slice(&offset.to_le_bytes());
    }

    /// The bytes of the index.
    pub fn finish(self) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, MULTIHASH_SORTED);
        let mut by_code: BTreeMap<u64, Vec<(usize, Vec<u8>)>> = BTreeMap::new();
        for ((code, digest), records) in self.kinds {
            by_code.entry(code).or_default().push((digest + OFFSET, records));
        }
        out.extend_from_slice(&(by_code.len() as u32).to_le_bytes());
        for (code, widths) in by_code {
            out.extend_from_slice(&code.to_le_bytes());
            out.extend_from_slice(&(widths.len() as u32).to_le_bytes());
            for (width, records) in widths {
                out.extend_from_slice(&(width as u32).to_le_bytes());
                out.extend_from_slice(&(records.len() as u64).to_le_bytes());
                let mut sorted: Vec<&[u8]> = records.chunks_exact(width).collect();
                // Of doubles the one that came first in the archive is found first.
                sorted.sort_by(|a, b| a[..width - OFFSET].cmp(&b[..width - OFFSET]));
                sorted.iter().for_each(|record| out.extend_from_slice(record));
            }
        }
        out
    }
}

/// An index that was read. It shares the bytes it was read from. An index may lie: blocks found by it are verified like all others.
#[derive(Clone, Debug)]
pub struct Index {
    buckets: Vec<Bucket>,
}

#[derive(Clone, Debug)]
struct Bucket {
    /// `None`: of any hash function.
    code: Option<u64>,
    width: usize,
    records: Bytes,
}

impl Index {
    /// Reads the bytes from the index's beginning to the end of the archive.
    pub fn parse(mut data: Bytes) -> Result<Index, CarError> {
        let (codec, used) = varint(&data).ok_or_else(|| DecodeError::truncated(WHAT))?;
        data.advance(used);
        let mut buckets = Vec::new();
        match codec {
            SORTED => read_widths(None, &mut data, &mut buckets)?,
            MULTIHASH_SORTED => {
                for _ in 0..read_count(&mut data)? {
                    let code = read(&mut data, 8, Bytes::get_u64_le)?;
                    read_widths(Some(code), &mut data, &mut buckets)?;
                }
            }
            codec => return Err(CarError::IndexCodec(codec)),
        }
        Ok(Index { buckets })
    }

    /// Where blocks with the multihash of `cid` begin, counted from the beginning of the inner version 1.
    pub fn find(&self, cid: &Cid) -> impl Iterator<Item = u64> {
        let (code, digest) = (cid.hash().code(), *cid.hash());
        let fits =
            move |bucket: &&Bucket| bucket.code.is_none_or(|found| found == code) && bucket.width == usize::from(digest.size()) + OFFSET;
        self.buckets.iter().filter(fits).flat_map(move |bucket| bucket.find(digest.digest()))
    }

    /// How many places it knows.
    pub fn len(&self) -> usize {
        self.buckets.iter().map(Bucket::len).sum()
    }

    /// Whether it knows none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Bucket {
    fn len(&self) -> usize {
        self.records.len() / self.width
    }

    fn digest(&self, at: usize) -> &[u8] {
        let start = at * self.width;
        &self.records[start..start + self.width - OFFSET]
    }

    fn find(&self, digest: &[u8]) -> Vec<u64> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.digest(middle) < digest {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let same = (low..self.len()).take_while(|at| self.digest(*at) == digest);
        same.map(|at| (&self.records[(at + 1) * self.width - OFFSET..]).get_u64_le()).collect()
    }
}

fn read_widths(code: Option<u64>, data: &mut Bytes, buckets: &mut Vec<Bucket>) -> Result<(), CarError> {
    for _ in 0..read_count(data)? {
        let width = read(data, 4, Bytes::get_u32_le)? as usize;
        let length = read(data, 8, Bytes::get_u64_le)?;
        let most = DIGEST_MAX * 4 + OFFSET;
        if !(OFFSET..=most).contains(&width) || length % width as u64 != 0 {
            return Err(DecodeError::malformed(WHAT, "records of impossible width").into());
        }
        let length = usize::try_from(length).ok().filter(|length| *length <= data.len());
        let length = length.ok_or_else(|| DecodeError::truncated(WHAT))?;
        buckets.push(Bucket { code, width, records: data.split_to(length) });
    }
    Ok(())
}

fn read_count(data: &mut Bytes) -> Result<u32, CarError> {
    let count = read(data, 4, Bytes::get_u32_le)?;
    if count > KINDS_MAX { Err(DecodeError::too_much("kinds of hashes in a CAR index", KINDS_MAX as usize).into()) } else { Ok(count) }
}

fn read<T>(data: &mut Bytes, length: usize, get: impl Fn(&mut Bytes) -> T) -> Result<T, CarError> {
    if data.len() < length { Err(DecodeError::truncated(WHAT).into()) } else { Ok(get(data)) }
}
