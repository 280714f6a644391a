//! The table of pins: what a node keeps and for whom, sorted by the CID's bytes. The embedded node's own table, and the ledger of
//! whoever stands before a daemon that knows no owners.
//!
//! Key: the CID. Value (version 1, all numbers little-endian): `1`, blocks u64, bytes u64, then for each owner its kind (0 cluster,
//! 1 user), the length of its name u16 and the name, its depth u32 (all ones: recursive) and since when u64.
//!
//! Everything here blocks its thread.

use crate::broken::Broken;
use crate::walk::covers;
use crate::{BrokenPin, HeldPin, Pinned};
use parking_lot::Mutex;
use std::sync::Arc;
use store::{Area, Batch, Durability, Store, StoreError};
use types::{ByteCount, Cid, Depth, Owner, UnixMillis};

const VERSION: u8 = 1;
const RECURSIVE: u32 = u32::MAX;
/// Changes of one pin come one after another; of many pins at once, so that they share their fsync.
const STRIPES: usize = 64;

/// Why the table did not answer.
#[derive(Debug, thiserror::Error)]
pub enum HeldError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An entry cannot be read.
    #[error("the record of pin {key} is damaged")]
    Damaged {
        /// The key in hex or as a CID.
        key: String,
    },
    /// The owner can hold no pin.
    #[error("{owner} cannot hold a pin")]
    Owner {
        /// The owner.
        owner: Owner,
    },
}

/// The table.
pub struct HeldPins {
    store: Arc<dyn Store>,
    /// Notes about pins that are not whole.
    pub broken: Broken,
    stripes: [Mutex<()>; STRIPES],
}

/// One pin about to be written.
#[derive(Clone, Debug)]
pub struct NewPin {
    /// For whom.
    pub owner: Owner,
    /// The root.
    pub cid: Cid,
    /// How deep.
    pub depth: Depth,
    /// What it weighs.
    pub size: Pinned,
    /// From when on.
    pub since: UnixMillis,
}

/// The wish that an owner had before: what an undo puts back.
type Before = Option<(Depth, UnixMillis)>;

impl HeldPins {
    /// The table in `store`.
    pub fn new(store: Arc<dyn Store>) -> HeldPins {
        HeldPins { broken: Broken::new(store.clone()), store, stripes: std::array::from_fn(|_| Mutex::new(())) }
    }

    /// The entry of one CID.
    pub fn get(&self, cid: &Cid) -> Result<Option<HeldPin>, HeldError> {
        let value = self.store.get(Area::HeldPins, &cid.to_bytes())?;
        value.map(|value| decode(cid, &value).ok_or_else(|| HeldError::Damaged { key: cid.to_string() })).transpose()
    }

    /// Entries behind `after` in the order of their keys.
    pub fn list(&self, after: Option<&Cid>, limit: usize) -> Result<Vec<HeldPin>, HeldError> {
        let after = after.map(Cid::to_bytes);
        let entries = self.store.snapshot().scan(Area::HeldPins, after.as_deref(), &[], limit)?;
        let read = |(key, value): &(bytes::Bytes, bytes::Bytes)| {
            let held = Cid::try_from(&key[..]).ok().and_then(|cid| decode(&cid, value));
            held.ok_or_else(|| HeldError::Damaged { key: format!("{key:02x?}") })
        };
        entries.iter().map(read).collect()
    }

    /// Adds an owner's wish to what is kept to exactly that depth already; none when it is not.
    fn join(&self, pin: &NewPin) -> Result<Option<(Pinned, Before)>, HeldError> {
        let _turn = self.turn(&pin.cid);
        let Some(mut held) = self.get(&pin.cid)? else { return Ok(None) };
        if self.broken.get(&pin.cid)?.is_some() {
            return Ok(None);
        }
        if !held.deepest().is_some_and(|deepest| covers(deepest, pin.depth) && covers(pin.depth, deepest)) {
            return Ok(None);
        }
        let before = wish_of(&held, &pin.owner);
        held.add_owner(pin.owner.clone(), pin.depth, pin.since);
        if wish_of(&held, &pin.owner) != before {
            self.write(&held)?;
        }
        Ok(Some((held.size, before)))
    }

    /// Ends an owner's wish.
    pub fn let_go(&self, owner: &Owner, cid: &Cid) -> Result<(), HeldError> {
        let _turn = self.turn(cid);
        let Some(mut held) = self.get(cid)? else { return Ok(()) };
        if held.remove_owner(owner) { self.write(&held) } else { Ok(()) }
    }

    fn keep(&self, pin: &NewPin) -> Result<Before, HeldError> {
        let _turn = self.turn(&pin.cid);
        let before = self.get(&pin.cid)?.and_then(|held| wish_of(&held, &pin.owner));
        let held = self.with_wish(pin)?;
        self.write(&held)?;
        self.is_whole_again(&pin.cid)?;
        Ok(before)
    }

    /// Adds wishes to many pins with one write.
    pub fn keep_all(&self, pins: &[NewPin]) -> Result<(), HeldError> {
        let _turns = self.turns(pins);
        let mut batch = Batch::new();
        for pin in pins {
            let held = self.with_wish(pin)?;
            batch.put_bytes(Area::HeldPins, held.cid.to_bytes().into(), encode(&held)?.into());
        }
        self.store.commit(batch, Durability::Synced)?;
        pins.iter().try_for_each(|pin| self.is_whole_again(&pin.cid))
    }

    fn is_whole_again(&self, cid: &Cid) -> Result<(), HeldError> {
        if self.broken.clear(cid)? {
            tracing::info!(%cid, "a pin that was not whole is whole again");
        }
        Ok(())
    }

    /// The entry as it is when the wish is added.
    fn with_wish(&self, pin: &NewPin) -> Result<HeldPin, HeldError> {
        let mut held = self.get(&pin.cid)?.unwrap_or_else(|| HeldPin { cid: pin.cid, owners: Vec::new(), size: pin.size });
        if held.deepest().is_none_or(|deepest| covers(pin.depth, deepest)) {
            held.size = pin.size;
        }
        held.add_owner(pin.owner.clone(), pin.depth, pin.since);
        Ok(held)
    }

    /// Turns of many pins, in the order of their stripes: two who take several cannot wait for each other.
    fn turns(&self, pins: &[NewPin]) -> Vec<parking_lot::MutexGuard<'_, ()>> {
        let stripes: std::collections::BTreeSet<usize> = pins.iter().map(|pin| stripe(&pin.cid)).collect();
        stripes.into_iter().map(|stripe| self.stripes[stripe].lock()).collect()
    }

    /// Notes that a pin is not whole, if it is still kept; whether it is.
    pub fn note_broken(&self, broken: &BrokenPin) -> Result<bool, HeldError> {
        let _turn = self.turn(&broken.cid);
        if self.get(&broken.cid)?.is_none() {
            return Ok(false);
        }
        self.broken.note(broken)?;
        Ok(true)
    }

    fn undo(&self, pin: &NewPin, before: Before) -> Result<(), HeldError> {
        let _turn = self.turn(&pin.cid);
        let Some(mut held) = self.get(&pin.cid)? else { return Ok(()) };
        held.remove_owner(&pin.owner);
        if let Some((depth, since)) = before {
            held.add_owner(pin.owner.clone(), depth, since);
        }
        self.write(&held)
    }

    fn write(&self, held: &HeldPin) -> Result<(), HeldError> {
        let mut batch = Batch::new();
        let key = held.cid.to_bytes();
        if held.owners.is_empty() {
            self.broken.clear(&held.cid)?;
            batch.delete(Area::HeldPins, key);
        } else {
            batch.put(Area::HeldPins, key, encode(held)?);
        }
        Ok(self.store.commit(batch, Durability::Synced)?)
    }

    fn turn(&self, cid: &Cid) -> parking_lot::MutexGuard<'_, ()> {
        self.stripes[stripe(cid)].lock()
    }
}

fn stripe(cid: &Cid) -> usize {
    cid.hash().digest().last().map_or(0, |byte| usize::from(*byte) % STRIPES)
}

/// The writing of one pin, which can be called off until the answer has been taken.
///
/// The caller holds the [`PinWrite`]; the blocking thread runs [`PinWriting::keep`] or [`PinWriting::join`]. A `PinWrite` that is dropped before
/// [`PinWrite::finish`] leaves the table as it was: the write does not begin any more, or it is undone.
pub struct PinWrite {
    writing: Arc<PinWriting>,
    is_finished: bool,
}

/// The half of a [`PinWrite`] that the blocking thread has.
pub struct PinWriting {
    table: Arc<HeldPins>,
    pin: NewPin,
    state: Mutex<WriteState>,
}

enum WriteState {
    Open,
    Written(Before),
    CalledOff,
}

impl PinWrite {
    /// Writes nothing yet.
    pub fn new(table: Arc<HeldPins>, pin: NewPin) -> PinWrite {
        PinWrite { writing: Arc::new(PinWriting { table, pin, state: Mutex::new(WriteState::Open) }), is_finished: false }
    }

    /// For the blocking thread.
    pub fn writing(&self) -> Arc<PinWriting> {
        self.writing.clone()
    }

    /// The answer was taken: what was written stays.
    pub fn finish(mut self) {
        self.is_finished = true;
    }
}

impl PinWriting {
    /// Writes the pin.
    pub fn keep(&self) -> Result<(), HeldError> {
        let mut state = self.state.lock();
        if matches!(*state, WriteState::Open) {
            *state = WriteState::Written(self.table.keep(&self.pin)?);
        }
        Ok(())
    }

    /// Joins what is kept to that depth already; its size, or none when nothing is.
    pub fn join(&self) -> Result<Option<Pinned>, HeldError> {
        let mut state = self.state.lock();
        if !matches!(*state, WriteState::Open) {
            return Ok(None);
        }
        let Some((size, before)) = self.table.join(&self.pin)? else { return Ok(None) };
        *state = WriteState::Written(before);
        Ok(Some(size))
    }
}

impl Drop for PinWrite {
    /// Waits for a write under way (one fsync): whoever cancelled must not see the pin afterwards.
    fn drop(&mut self) {
        if self.is_finished {
            return;
        }
        let mut state = self.writing.state.lock();
        if let WriteState::Written(before) = std::mem::replace(&mut *state, WriteState::CalledOff)
            && let Err(error) = self.writing.table.undo(&self.writing.pin, before)
        {
            tracing::warn!(cid = %self.writing.pin.cid, %error, "a cancelled pin could not be taken back");
        }
    }
}

fn wish_of(held: &HeldPin, owner: &Owner) -> Before {
    held.owners.iter().find(|(known, ..)| known == owner).map(|(_, depth, since)| (*depth, *since))
}

fn encode(held: &HeldPin) -> Result<Vec<u8>, HeldError> {
    let mut value = vec![VERSION];
    value.extend_from_slice(&held.size.blocks.to_le_bytes());
    value.extend_from_slice(&held.size.bytes.get().to_le_bytes());
    for (owner, depth, since) in &held.owners {
        let refused = || HeldError::Owner { owner: owner.clone() };
        let (kind, name) = match owner {
            Owner::Cluster(name) => (0, name.as_str()),
            Owner::User => (1, ""),
            Owner::Adding(_) => return Err(refused()),
        };
        value.push(kind);
        value.extend_from_slice(&u16::try_from(name.len()).map_err(|_| refused())?.to_le_bytes());
        value.extend_from_slice(name.as_bytes());
        let depth = match depth {
            Depth::Recursive => RECURSIVE,
            Depth::Levels(levels) => (*levels).min(RECURSIVE - 1),
        };
        value.extend_from_slice(&depth.to_le_bytes());
        value.extend_from_slice(&since.0.to_le_bytes());
    }
    Ok(value)
}

fn decode(cid: &Cid, value: &[u8]) -> Option<HeldPin> {
    let mut rest = value;
    if take::<1>(&mut rest)? != [VERSION] {
        return None;
    }
    let blocks = u64::from_le_bytes(take(&mut rest)?);
    let bytes = ByteCount(u64::from_le_bytes(take(&mut rest)?));
    let mut owners = Vec::new();
    while !rest.is_empty() {
        let [kind] = take::<1>(&mut rest)?;
        let length = usize::from(u16::from_le_bytes(take(&mut rest)?));
        let (name, behind) = rest.split_at_checked(length)?;
        rest = behind;
        let owner = match kind {
            0 => Owner::Cluster(String::from_utf8(name.to_vec()).ok()?),
            1 => Owner::User,
            _ => return None,
        };
        let depth = match u32::from_le_bytes(take(&mut rest)?) {
            RECURSIVE => Depth::Recursive,
            levels => Depth::Levels(levels),
        };
        owners.push((owner, depth, UnixMillis(u64::from_le_bytes(take(&mut rest)?))));
    }
    (!owners.is_empty()).then_some(HeldPin { cid: *cid, owners, size: Pinned { blocks, bytes } })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, behind) = rest.split_first_chunk::<N>()?;
    *rest = behind;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::sample::leaf;
    use store::MemoryStore;

    fn table() -> Arc<HeldPins> {
        Arc::new(HeldPins::new(Arc::new(MemoryStore::new())))
    }

    fn new_pin(number: u64, owner: Owner, depth: Depth) -> NewPin {
        let size = Pinned { blocks: number, bytes: ByteCount(number * 100) };
        NewPin { owner, cid: leaf(number).cid, depth, size, since: UnixMillis(7) }
    }

    #[test]
    fn entries_read_back_as_they_were_written() {
        let cid = leaf(1).cid;
        let owners = vec![
            (Owner::Cluster("a cluster".into()), Depth::Recursive, UnixMillis(u64::MAX)),
            (Owner::Cluster(String::new()), Depth::Levels(3), UnixMillis(0)),
            (Owner::User, Depth::DIRECT, UnixMillis(1)),
        ];
        let held = HeldPin { cid, owners, size: Pinned { blocks: 3, bytes: ByteCount(u64::MAX) } };
        let value = encode(&held).unwrap();
        assert_eq!(decode(&cid, &value), Some(held));
        for length in 0..value.len() {
            let cut = decode(&cid, &value[..length]);
            assert!(cut.is_none_or(|cut| cut.owners.len() < 3), "cut to {length} bytes");
        }
        assert_eq!(decode(&cid, &[&[2], &value[1..]].concat()), None, "a later version is not guessed at");
    }

    #[test]
    fn an_add_holds_no_pin() {
        let pin = new_pin(1, Owner::Adding(1), Depth::Recursive);
        assert!(matches!(table().keep(&pin), Err(HeldError::Owner { .. })));
    }

    #[test]
    fn a_damaged_entry_is_an_error_and_not_an_absent_pin() {
        let store = Arc::new(MemoryStore::new());
        let table = HeldPins::new(store.clone());
        let cid = leaf(1).cid;
        let mut batch = Batch::new();
        batch.put(Area::HeldPins, cid.to_bytes(), [9, 9, 9]);
        store.commit(batch, Durability::Buffered).unwrap();
        assert!(matches!(table.get(&cid), Err(HeldError::Damaged { .. })));
        assert!(matches!(table.list(None, 10), Err(HeldError::Damaged { .. })));
    }

    #[test]
    fn a_second_owner_joins_only_what_is_kept_as_deep() {
        let table = table();
        let first = NewPin { depth: Depth::Levels(2), ..new_pin(1, Owner::User, Depth::DIRECT) };
        let second = |depth| NewPin { owner: Owner::Cluster("one".into()), depth, since: UnixMillis(8), ..first.clone() };
        let join = |pin: &NewPin| table.join(pin).unwrap().map(|(size, _)| size);
        assert_eq!(join(&second(Depth::Levels(2))), None, "nothing is kept");
        table.keep(&first).unwrap();
        assert_eq!(join(&second(Depth::Recursive)), None, "not so deep");
        assert_eq!(join(&second(Depth::Levels(2))), Some(first.size));
        let owners = table.get(&first.cid).unwrap().unwrap().owners;
        let [one, two] =
            [(second(Depth::DIRECT).owner, 8), (Owner::User, 7)].map(|(owner, since)| (owner, Depth::Levels(2), UnixMillis(since)));
        assert_eq!(owners, [one, two]);
    }

    #[test]
    fn a_write_called_off_before_during_or_after_leaves_the_table_as_it_was() {
        let table = table();
        let first = new_pin(1, Owner::User, Depth::DIRECT);
        table.keep(&first).unwrap();
        let before = table.get(&first.cid).unwrap();
        let deeper = NewPin { depth: Depth::Recursive, ..first.clone() };
        let other = NewPin { owner: Owner::Cluster("one".into()), ..deeper.clone() };
        for pin in [deeper, other, new_pin(2, Owner::User, Depth::Recursive)] {
            let write = PinWrite::new(table.clone(), pin.clone());
            let writing = write.writing();
            drop(write);
            writing.keep().unwrap();
            assert_eq!(table.list(None, 10).unwrap(), before.clone().into_iter().collect::<Vec<_>>(), "called off before");

            let write = PinWrite::new(table.clone(), pin);
            write.writing().keep().unwrap();
            drop(write);
            let owners = |held: Vec<HeldPin>| held.into_iter().map(|held| (held.cid, held.owners)).collect::<Vec<_>>();
            assert_eq!(owners(table.list(None, 10).unwrap()), owners(before.clone().into_iter().collect()), "called off after");
        }
        let write = PinWrite::new(table.clone(), new_pin(3, Owner::User, Depth::Recursive));
        write.writing().keep().unwrap();
        write.finish();
        assert!(table.get(&leaf(3).cid).unwrap().is_some());
    }
}
