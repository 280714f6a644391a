//! Many look-ups in the index at once.

use super::PackError;
use super::index::Location;
use crate::{Area, Snapshot, Store};

/// Entries that are read to see whether the wanted ones lie close together, and how many of those must be among them.
const PROBE: usize = 64;
const CLOSE: usize = 8;
/// Entries read in one go after that, at most.
const READ_ON: usize = 4096;

/// The places of blocks whose multihashes are sorted, none twice. Where they lie close together the index is read through, which is a tenth of
/// the work of looking each up.
pub(super) fn locate_sorted<M: AsRef<[u8]>>(index: &dyn Store, multihashes: &[M]) -> Result<Vec<Option<Location>>, PackError> {
    let mut places = Vec::with_capacity(multihashes.len());
    let snapshot = index.snapshot();
    let mut entries = PROBE;
    while multihashes.len() - places.len() >= CLOSE {
        let before = places.len();
        read_through(&*snapshot, &multihashes[before..], entries, &mut places)?;
        let passed = places.len() - before;
        if passed * PROBE < entries * CLOSE {
            break;
        }
        // As many as the rest takes, if it lies as close together.
        entries = ((multihashes.len() - places.len()) * entries / passed + PROBE).min(READ_ON);
    }
    for multihash in &multihashes[places.len()..] {
        let value = snapshot.get(Area::BlockIndex, multihash.as_ref())?;
        places.push(value.map(|value| place(multihash.as_ref(), &value)).transpose()?);
    }
    Ok(places)
}

/// Reads so many entries from the first wanted one on; adds the places of all wanted that were passed.
fn read_through<M: AsRef<[u8]>>(
    snapshot: &dyn Snapshot,
    wanted: &[M],
    entries: usize,
    places: &mut Vec<Option<Location>>,
) -> Result<(), PackError> {
    let mut wanted = wanted.iter().map(AsRef::as_ref).peekable();
    let Some(first) = wanted.peek() else { return Ok(()) };
    // What is shorter comes before.
    let after = first.split_last().map(|(_, before)| before).filter(|before| !before.is_empty());
    let mut damage = None;
    let count = snapshot.visit(Area::BlockIndex, after, b"", entries, &mut |multihash, value| {
        while wanted.next_if(|wanted| *wanted < multihash).is_some() {
            places.push(None);
        }
        if wanted.next_if_eq(&multihash).is_some() {
            places.push(Location::decode(value));
            if Location::decode(value).is_none() {
                damage = Some(PackError::corrupt(multihash, WRONG_FORM));
            }
        }
    })?;
    if count < entries {
        places.extend(wanted.map(|_| None));
    }
    damage.map_or(Ok(()), Err)
}

pub(super) const WRONG_FORM: &str = "its entry in the index has a wrong form";

/// The place that an entry says.
pub(super) fn place(multihash: &[u8], value: &[u8]) -> Result<Location, PackError> {
    Location::decode(value).ok_or_else(|| PackError::corrupt(multihash, WRONG_FORM))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Batch, Durability, MemoryStore};

    #[test]
    fn many_look_ups_find_what_single_ones_find() {
        let index = MemoryStore::default();
        let key = |number: u32| [&b"\x12\x20"[..], &number.to_be_bytes()].concat();
        let location = |number: u32| Location { segment: 1, offset: number, length: 3 };
        let mut batch = Batch::new();
        for number in (0..20_000).filter(|number| number % 3 != 1) {
            batch.put(Area::BlockIndex, key(number), location(number).encode());
        }
        batch.put(Area::BlockIndex, [0x00], location(7).encode());
        index.commit(batch, Durability::Buffered).expect("commits");
        for step in [1, 2, 5, 7, 50, 999] {
            for (from, to) in [(0, 20_000), (3, 40), (19_990, 30_000), (25_000, 25_100)] {
                let mut wanted: Vec<Vec<u8>> = (from..to).step_by(step).map(key).collect();
                wanted.insert(0, vec![0x00]);
                let found = locate_sorted(&index, &wanted).expect("reads");
                let one_by_one = wanted.iter().map(|key| index.get(Area::BlockIndex, key).expect("reads"));
                let one_by_one: Vec<_> = one_by_one.map(|value| value.and_then(|value| Location::decode(&value))).collect();
                assert_eq!(found, one_by_one, "from {from} to {to} by {step}");
            }
        }
        let mut batch = Batch::new();
        batch.put(Area::BlockIndex, key(9), b"no place");
        index.commit(batch, Durability::Buffered).expect("commits");
        locate_sorted(&index, &(0..40).map(key).collect::<Vec<_>>()).expect_err("an entry of a wrong form");
        locate_sorted(&index, &[key(9)]).expect_err("an entry of a wrong form");
    }
}
