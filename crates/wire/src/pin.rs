//! Go's stored form of a pin: the protobuf values of the shared set.
//!
//! Writing is deterministic, since values are compared byte for byte (equal priority: the greater bytes win) and
//! [`pin_version`] speaks of them. Go's mode and user allocations are not stored; the mode is read off the depth.

use crate::cids::{cid_from_bytes, sha2_256};
use crate::protobuf::{self as pb, ProtobufError, Reader};
use types::{BadReplicas, Depth, Pin, PinKind, PinOptions, Replicas, UnixMillis};

/// The longest value read. Go commits a delta when it is over 1 MiB, so one value can hardly be longer.
pub const PIN_BYTES_MAX: usize = 2 << 20;

/// The most allocations, and the most origins: more peers than any cluster has.
pub const LIST_MAX: usize = 64 << 10;

/// Why bytes are not a stored pin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PinDecodeError {
    /// Longer than [`PIN_BYTES_MAX`].
    #[error("stored pin: {0} bytes are too long")]
    TooLong(usize),
    /// Not protobuf, or a field of the wrong shape.
    #[error("stored pin: {0}")]
    Protobuf(#[from] ProtobufError),
    /// Field 1 is missing or no CID.
    #[error("stored pin: the CID is missing or invalid")]
    Cid,
    /// An allocation is no peer id.
    #[error("stored pin: allocation {0} is no peer id")]
    Allocation(usize),
    /// More than [`LIST_MAX`].
    #[error("stored pin: too many {0}")]
    TooMany(&'static str),
    /// The two factors make no sense together.
    #[error("stored pin: {0}")]
    Replicas(BadReplicas),
}

/// Writes the stored form: fields in number order, defaults left out, options always present.
pub fn encode_pin(pin: &Pin) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    pb::put_bytes(&mut out, 1, &pin.cid.to_bytes());
    pb::put_uint_if(&mut out, 2, kind_number(pin.kind));
    for peer in &pin.placement {
        pb::put_bytes(&mut out, 3, peer.as_bytes());
    }
    pb::put_sint32_if(&mut out, 4, depth_number(pin.depth));
    if let Some(reference) = &pin.reference {
        pb::put_bytes(&mut out, 5, &reference.to_bytes());
    }
    pb::put_bytes(&mut out, 6, &encode_options(&pin.options));
    pb::put_uint_if(&mut out, 7, pin.created.seconds());
    out
}

fn encode_options(options: &PinOptions) -> Vec<u8> {
    let mut out = Vec::new();
    let (least, most) = options.replicas.factors();
    pb::put_sint32_if(&mut out, 1, least);
    pb::put_sint32_if(&mut out, 2, most);
    pb::put_bytes_if(&mut out, 3, options.name.as_bytes());
    pb::put_uint_if(&mut out, 4, options.shard_size);
    if let Some(update) = &options.update {
        pb::put_bytes(&mut out, 7, &update.to_bytes());
    }
    pb::put_uint_if(&mut out, 8, options.expires.map_or(0, UnixMillis::seconds));
    for origin in &options.origins {
        pb::put_bytes(&mut out, 9, origin);
    }
    for (key, value) in &options.metadata {
        let mut pair = Vec::new();
        pb::put_bytes_if(&mut pair, 1, key.as_bytes());
        pb::put_bytes_if(&mut pair, 2, value.as_bytes());
        pb::put_bytes(&mut out, 10, &pair);
    }
    out
}

/// Reads the stored form; unknown fields are skipped. An unreadable reference or update is taken as none, as in Go.
pub fn decode_pin(bytes: &[u8]) -> Result<Pin, PinDecodeError> {
    if bytes.len() > PIN_BYTES_MAX {
        return Err(PinDecodeError::TooLong(bytes.len()));
    }
    let mut cid = None;
    let mut kind = PinKind::Bad;
    let mut placement = Vec::new();
    let mut depth = Depth::DIRECT;
    let mut reference = None;
    let mut options = OptionFields::default();
    let mut created = UnixMillis(0);
    for field in Reader::new(bytes) {
        let field = field?;
        match field.number {
            1 => cid = cid_from_bytes(field.bytes()?),
            2 => kind = kind_of_number(field.uint()?),
            3 => {
                if placement.len() == LIST_MAX {
                    return Err(PinDecodeError::TooMany("allocations"));
                }
                let peer = types::PeerId::from_bytes(field.bytes()?);
                placement.push(peer.map_err(|_| PinDecodeError::Allocation(placement.len()))?);
            }
            4 => depth = depth_of_number(field.sint32()?),
            5 => reference = cid_from_bytes(field.bytes()?),
            6 => options.read(field.bytes()?)?,
            7 => created = UnixMillis::from_seconds(field.uint()?),
            _ => {}
        }
    }
    let cid = cid.ok_or(PinDecodeError::Cid)?;
    Ok(Pin { cid, kind, options: options.finish()?, placement, depth, reference, created })
}

/// Which value of a pin this is: the first eight bytes, big-endian, of the sha2-256 of its stored form.
pub fn pin_version(stored: &[u8]) -> u64 {
    let digest = sha2_256(stored);
    let [a, b, c, d, e, f, g, h, ..] = digest;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

#[derive(Default)]
struct OptionFields {
    least: i32,
    most: i32,
    options: PinOptions,
}

impl OptionFields {
    fn read(&mut self, bytes: &[u8]) -> Result<(), PinDecodeError> {
        for field in Reader::new(bytes) {
            let field = field?;
            let options = &mut self.options;
            match field.number {
                1 => self.least = field.sint32()?,
                2 => self.most = field.sint32()?,
                3 => options.name = field.text()?.to_owned(),
                4 => options.shard_size = field.uint()?,
                // 6 is the map of old peers, 10 its sorted successor: the same two fields in each entry.
                6 | 10 => {
                    let (key, value) = read_pair(field.bytes()?)?;
                    options.metadata.insert(key, value);
                }
                7 => options.update = cid_from_bytes(field.bytes()?),
                8 => options.expires = Some(field.uint()?).filter(|&end| end != 0).map(UnixMillis::from_seconds),
                9 if options.origins.len() == LIST_MAX => return Err(PinDecodeError::TooMany("origins")),
                9 => options.origins.push(field.bytes()?.to_vec()),
                _ => {}
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<PinOptions, PinDecodeError> {
        self.options.replicas = Replicas::from_factors(self.least, self.most).map_err(PinDecodeError::Replicas)?;
        Ok(self.options)
    }
}

fn read_pair(bytes: &[u8]) -> Result<(String, String), ProtobufError> {
    let mut key = "";
    let mut value = "";
    for field in Reader::new(bytes) {
        let field = field?;
        match field.number {
            1 => key = field.text()?,
            2 => value = field.text()?,
            _ => {}
        }
    }
    Ok((key.to_owned(), value.to_owned()))
}

fn kind_number(kind: PinKind) -> u64 {
    match kind {
        PinKind::Bad => 0,
        PinKind::Data => 1,
        PinKind::Meta => 2,
        PinKind::ClusterDag => 3,
        PinKind::Shard => 4,
    }
}

fn kind_of_number(number: u64) -> PinKind {
    match number {
        1 => PinKind::Data,
        2 => PinKind::Meta,
        3 => PinKind::ClusterDag,
        4 => PinKind::Shard,
        _ => PinKind::Bad,
    }
}

/// Go's `MaxDepth`: -1 is everything.
pub(crate) fn depth_number(depth: Depth) -> i32 {
    match depth {
        Depth::Recursive => -1,
        Depth::Levels(levels) => i32::try_from(levels).unwrap_or(i32::MAX),
    }
}

/// From Go's `MaxDepth`; anything negative is everything.
pub(crate) fn depth_of_number(number: i32) -> Depth {
    u32::try_from(number).map_or(Depth::Recursive, Depth::Levels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unreadable_values_say_why() {
        let mut no_cid = Vec::new();
        pb::put_uint(&mut no_cid, 2, 1);
        let mut half_everywhere = vec![0x0a, 0x22, 0x12, 0x20];
        half_everywhere.extend([7; 32]);
        let mut bad_peer = half_everywhere.clone();
        half_everywhere.extend([0x32, 4, 0x08, 1, 0x10, 4]);
        bad_peer.extend([0x1a, 1, 9]);
        for (bytes, error) in [
            (&[][..], PinDecodeError::Cid),
            (&no_cid, PinDecodeError::Cid),
            (&[0x0a, 9], PinDecodeError::Protobuf(ProtobufError::Truncated)),
            (&half_everywhere, PinDecodeError::Replicas(BadReplicas::HalfEverywhere)),
            (&bad_peer, PinDecodeError::Allocation(0)),
            (&vec![0; PIN_BYTES_MAX + 1], PinDecodeError::TooLong(PIN_BYTES_MAX + 1)),
        ] {
            assert_eq!(decode_pin(bytes), Err(error));
        }
    }

    #[test]
    fn empty_entries_do_not_fill_the_memory() {
        let mut bytes = [0x1a, 2, 0, 0].repeat(LIST_MAX + 1);
        assert_eq!(decode_pin(&bytes), Err(PinDecodeError::TooMany("allocations")));
        bytes.clear();
        pb::put_bytes(&mut bytes, 6, &[0x4a, 0].repeat(LIST_MAX + 1));
        assert_eq!(decode_pin(&bytes), Err(PinDecodeError::TooMany("origins")));
    }

    #[test]
    fn versions_follow_the_stored_bytes() {
        // sha2-256 of nothing begins e3b0c44298fc1c14.
        assert_eq!(pin_version(b""), 0xe3b0_c442_98fc_1c14);
        assert_ne!(pin_version(b"a"), pin_version(b"b"));
    }
}
