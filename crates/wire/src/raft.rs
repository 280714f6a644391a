//! The marshalled state of Go's raft mode: the body of a snapshot.

use crate::delta::cid_of_key;
use crate::msgpack::{MsgpackError, Reader};
use crate::pin::{PinDecodeError, decode_pin};
use types::Pin;

/// Why a snapshot does not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotDecodeError {
    /// Not msgpack, or not of the expected shape.
    #[error("raft snapshot, entry {entry}: {source}")]
    Msgpack {
        /// Which entry, from 0.
        entry: usize,
        /// What was wrong.
        #[source]
        source: MsgpackError,
    },
    /// The key stands for no CID.
    #[error("raft snapshot, entry {entry}: the key is no CID")]
    Key {
        /// Which entry, from 0.
        entry: usize,
    },
    /// The value is no pin.
    #[error("raft snapshot, entry {entry}: {source}")]
    Pin {
        /// Which entry, from 0.
        entry: usize,
        /// What was wrong.
        #[source]
        source: PinDecodeError,
    },
}

/// Reads the pins of a snapshot one after the other; the CID is taken from the key, as in Go. Ends after an error.
pub fn decode_snapshot(bytes: &[u8]) -> impl Iterator<Item = Result<Pin, SnapshotDecodeError>> + '_ {
    let mut reader = Reader::new(bytes);
    let mut entry = 0;
    let mut is_broken = false;
    std::iter::from_fn(move || {
        if reader.rest().is_empty() || is_broken {
            return None;
        }
        let pin = read_entry(&mut reader, entry);
        is_broken = pin.is_err();
        entry += 1;
        Some(pin)
    })
}

fn read_entry(reader: &mut Reader<'_>, entry: usize) -> Result<Pin, SnapshotDecodeError> {
    let mut key = "";
    let mut value: &[u8] = &[];
    let read = reader.fields::<MsgpackError>(|field, reader| {
        match field {
            "k" => key = reader.text()?,
            "v" => value = reader.bytes()?,
            _ => reader.skip()?,
        }
        Ok(())
    });
    read.map_err(|source| SnapshotDecodeError::Msgpack { entry, source })?;
    let cid = cid_of_key(&format!("/{key}")).map_err(|_| SnapshotDecodeError::Key { entry })?;
    let pin = decode_pin(value).map_err(|source| SnapshotDecodeError::Pin { entry, source })?;
    Ok(Pin { cid, ..pin })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_ends_after_an_error() {
        let results: Vec<_> = decode_snapshot(&[0x80, 0x80]).collect();
        assert_eq!(results, [Err(SnapshotDecodeError::Key { entry: 0 })]);
        assert_eq!(decode_snapshot(&[]).count(), 0);
    }
}
