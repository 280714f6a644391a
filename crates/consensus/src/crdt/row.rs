//! What stands at a key of the wish on disk: its living elements, then the value that it shows, in one row of `Area::Pins`; so a key costs one
//! read and one write, and takes one row. A key that shows nothing while elements of it live (its removal is acknowledged and not yet told) has
//! its elements in `Area::Elements`, so that `Area::Pins` has a row exactly for what is wished.
//!
//! ```text
//! length of the elements (varint) | elements | value
//! elements: rows of their own (varint), then for each: priority (varint), name of the block (32 bytes)
//! ```

use super::alive::{Entry, take_varint};
use super::id::BlockId;
use bytes::Bytes;
use std::sync::Arc;
use store::{Area, Snapshot, StoreError};
use wire::protobuf::{put_varint, varint_len};

/// The row of a key that shows `value`.
pub(crate) fn encode(spilled: u64, entries: &[Entry], value: &[u8]) -> Vec<u8> {
    let length = elements_length(spilled, entries);
    let mut row = Vec::with_capacity(varint_len(length as u64) + length + value.len());
    put_varint(&mut row, length as u64);
    put_elements(&mut row, spilled, entries);
    row.extend_from_slice(value);
    row
}

/// The row of a key that shows nothing.
pub(crate) fn encode_hidden(spilled: u64, entries: &[Entry]) -> Vec<u8> {
    let mut row = Vec::with_capacity(elements_length(spilled, entries));
    put_elements(&mut row, spilled, entries);
    row
}

/// Elements and value of a row; none when it is damaged.
pub(crate) fn decode(row: &Bytes) -> Option<(u64, Vec<Entry>, Bytes)> {
    let (elements, value) = split(row)?;
    let (spilled, entries) = decode_hidden(elements)?;
    Some((spilled, entries, row.slice_ref(value)))
}

/// Elements of the row of a key that shows nothing; none when it is damaged.
pub(crate) fn decode_hidden(mut row: &[u8]) -> Option<(u64, Vec<Entry>)> {
    let spilled = take_varint(&mut row)?;
    let mut entries = Vec::with_capacity(row.len() / 33);
    while !row.is_empty() {
        let priority = take_varint(&mut row)?;
        let (digest, rest) = row.split_first_chunk()?;
        entries.push(Entry { priority, block: BlockId(*digest) });
        row = rest;
    }
    Some((spilled, entries))
}

fn split(mut row: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = usize::try_from(take_varint(&mut row)?).ok()?;
    row.split_at_checked(length)
}

fn elements_length(spilled: u64, entries: &[Entry]) -> usize {
    varint_len(spilled) + entries.iter().map(|entry| varint_len(entry.priority) + entry.block.0.len()).sum::<usize>()
}

fn put_elements(row: &mut Vec<u8>, spilled: u64, entries: &[Entry]) {
    put_varint(row, spilled);
    for entry in entries {
        put_varint(row, entry.priority);
        row.extend_from_slice(&entry.block.0);
    }
}

/// A snapshot of the machine's store as others see it: in `Area::Pins` the values alone.
pub fn shown(snapshot: Arc<dyn Snapshot>) -> Arc<dyn Snapshot> {
    Arc::new(Shown(snapshot))
}

struct Shown(Arc<dyn Snapshot>);

impl Snapshot for Shown {
    fn get(&self, area: Area, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let row = self.0.get(area, key)?;
        match row {
            Some(row) if area == Area::Pins => value_of(&row).map(|value| Some(row.slice_ref(value))),
            row => Ok(row),
        }
    }

    fn scan(&self, area: Area, after: Option<&[u8]>, prefix: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let mut entries = self.0.scan(area, after, prefix, limit)?;
        if area == Area::Pins {
            for (_, row) in &mut entries {
                *row = row.slice_ref(value_of(row)?);
            }
        }
        Ok(entries)
    }

    fn visit(
        &self,
        area: Area,
        after: Option<&[u8]>,
        prefix: &[u8],
        limit: usize,
        each: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<usize, StoreError> {
        if area != Area::Pins {
            return self.0.visit(area, after, prefix, limit, each);
        }
        let mut damaged = None;
        let count = self.0.visit(area, after, prefix, limit, &mut |key, row| match value_of(row) {
            Ok(value) => each(key, value),
            Err(error) => damaged = Some(error),
        })?;
        damaged.map_or(Ok(count), Err)
    }

    fn count(&self, area: Area) -> Result<u64, StoreError> {
        self.0.count(area)
    }
}

fn value_of(row: &[u8]) -> Result<&[u8], StoreError> {
    split(row).map(|(_, value)| value).ok_or_else(|| {
        let damaged = std::io::Error::new(std::io::ErrorKind::InvalidData, "a row of the shared state is damaged");
        StoreError::Failed { doing: "reading the shared state", source: Arc::new(damaged) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::{Batch, Durability, MemoryStore, Store};

    fn entries() -> Vec<Entry> {
        [(3, 1), (1, 2), (u64::MAX, 3)].map(|(priority, block)| Entry { priority, block: BlockId([block; 32]) }).to_vec()
    }

    #[test]
    fn rows_read_back() {
        for (spilled, entries, value) in [(300, entries(), "value"), (0, entries(), ""), (0, Vec::new(), "value")] {
            let row = Bytes::from(encode(spilled, &entries, value.as_bytes()));
            assert_eq!(decode(&row), Some((spilled, entries.clone(), Bytes::from(value))));
            assert_eq!(decode_hidden(&encode_hidden(spilled, &entries)), Some((spilled, entries)));
        }
        for bad in [&b""[..], &[0], &[9, 0], &[3, 0, 1, 2]] {
            assert_eq!(decode(&Bytes::copy_from_slice(bad)), None, "{bad:?}");
        }
        assert_eq!(decode_hidden(&[0, 1, 2]), None);
    }

    #[test]
    fn others_see_values_and_a_damaged_row_is_an_error() {
        let store = MemoryStore::new();
        let mut batch = Batch::new();
        batch.put(Area::Pins, "a", encode(0, &entries(), b"1")).put(Area::Pins, "b", encode(0, &[], b"2")).put(Area::Meta, "a", "m");
        store.commit(batch, Durability::Buffered).expect("commits");
        let view = shown(store.snapshot());
        assert_eq!(view.get(Area::Pins, b"a").expect("reads").as_deref(), Some(&b"1"[..]));
        assert_eq!(view.get(Area::Meta, b"a").expect("reads").as_deref(), Some(&b"m"[..]));
        let expected = [("a", "1"), ("b", "2")].map(|(key, value)| (Bytes::from(key), Bytes::from(value)));
        assert_eq!(view.scan(Area::Pins, None, b"", 9).expect("scans"), expected);
        let mut seen = Vec::new();
        view.visit(Area::Pins, Some(b"a"), b"", 9, &mut |key, value| seen.push((key.to_vec(), value.to_vec()))).expect("visits");
        assert_eq!(seen, [(b"b".to_vec(), b"2".to_vec())]);
        let mut batch = Batch::new();
        batch.put(Area::Pins, "c", [200]);
        store.commit(batch, Durability::Buffered).expect("commits");
        let view = shown(store.snapshot());
        view.get(Area::Pins, b"c").expect_err("damaged");
        view.scan(Area::Pins, None, b"", 9).expect_err("damaged");
        view.visit(Area::Pins, None, b"", 9, &mut |_, _| {}).expect_err("damaged");
    }
}
