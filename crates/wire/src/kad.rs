//! Messages of the DHT (`/ipfs/kad/1.0.0`, go-libp2p-kad-dht's `Message`).
//!
//! Reading hands out owned, bounded parts: entries beyond the bounds are left out, as a stranger may send any number of them. Addresses are
//! bytes here; whoever dials them reads them. Framing (a varint length before each message) is the caller's; [`MESSAGE_BYTES_MAX`] is the bound for it.

use crate::protobuf::{self as pb, ProtobufError, Reader};
use types::PeerId;

/// The longest message that is read. Twenty peers with twenty addresses each take some 30 KiB.
pub const MESSAGE_BYTES_MAX: usize = 512 << 10;
/// The longest key, as in Go.
pub const KEY_BYTES_MAX: usize = 80;
/// The longest value: an IPNS record has at most 10 KiB.
pub const VALUE_BYTES_MAX: usize = crate::ipns::RECORD_BYTES_MAX;
/// Peers of one kind that are kept of a message.
pub const PEERS_MAX: usize = 128;
/// Addresses that are kept of one peer.
pub const ADDRESSES_MAX: usize = 16;
/// The longest address that is kept.
const ADDRESS_BYTES_MAX: usize = 512;

/// What a message asks or answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Keep this value.
    PutValue,
    /// The value under a key.
    GetValue,
    /// The sender has what the key names.
    AddProvider,
    /// Who has it.
    GetProviders,
    /// The peers nearest to a key.
    FindNode,
    /// Nothing but an answer.
    #[default]
    Ping,
}

/// A peer and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// Who.
    pub id: PeerId,
    /// Multiaddrs in binary, without `/p2p/`.
    pub addresses: Vec<Vec<u8>>,
}

/// One message; requests and answers have the same form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// What it is about.
    pub kind: Kind,
    /// Under which key: of content its multihash, of a peer its id.
    pub key: Vec<u8>,
    /// A value with its key.
    pub record: Option<(Vec<u8>, Vec<u8>)>,
    /// Peers that are nearer to the key.
    pub closer: Vec<Contact>,
    /// Who has the content.
    pub providers: Vec<Contact>,
}

/// Why bytes are no message of the DHT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KadDecodeError {
    /// Not protobuf, or a field of the wrong shape.
    #[error("DHT message: {0}")]
    Protobuf(#[from] ProtobufError),
    /// A kind that is not known.
    #[error("DHT message: unknown kind {0}")]
    Kind(u64),
    /// A key longer than [`KEY_BYTES_MAX`], or a value longer than [`VALUE_BYTES_MAX`].
    #[error("DHT message: a key or a value is too long")]
    TooLong,
}

impl Message {
    /// A request about a key.
    pub fn request(kind: Kind, key: &[u8]) -> Message {
        Message { kind, key: key.to_vec(), ..Message::default() }
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        pb::put_uint_if(&mut out, 1, self.kind.code());
        pb::put_bytes_if(&mut out, 2, &self.key);
        if let Some((key, value)) = &self.record {
            let mut record = Vec::with_capacity(key.len() + value.len() + 8);
            pb::put_bytes_if(&mut record, 1, key);
            pb::put_bytes_if(&mut record, 2, value);
            pb::put_bytes(&mut out, 3, &record);
        }
        for (field, contacts) in [(8, &self.closer), (9, &self.providers)] {
            for contact in contacts {
                pb::put_bytes(&mut out, field, &contact.encode());
            }
        }
        // The level counts from one; zero would mean that the sender does not know of levels.
        pb::put_uint(&mut out, 10, 1);
        out
    }
}

/// Reads a message.
pub fn decode(bytes: &[u8]) -> Result<Message, KadDecodeError> {
    // A kind of zero is not written.
    let mut message = Message { kind: Kind::PutValue, ..Message::default() };
    for field in Reader::new(bytes) {
        let field = field?;
        match field.number {
            1 => message.kind = Kind::of(field.uint()?)?,
            2 => message.key = bounded(field.bytes()?, KEY_BYTES_MAX)?,
            3 => message.record = Some(record(field.bytes()?)?),
            8 if message.closer.len() < PEERS_MAX => message.closer.extend(contact(field.bytes()?)?),
            9 if message.providers.len() < PEERS_MAX => message.providers.extend(contact(field.bytes()?)?),
            _ => {}
        }
    }
    Ok(message)
}

impl Contact {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        pb::put_bytes(&mut out, 1, self.id.as_bytes());
        for address in &self.addresses {
            pb::put_bytes(&mut out, 2, address);
        }
        // "Connected": who tells of a peer says that it can be reached.
        pb::put_uint(&mut out, 3, 1);
        out
    }
}

/// A peer; none where its id is of a kind that nobody uses.
fn contact(bytes: &[u8]) -> Result<Option<Contact>, KadDecodeError> {
    let (mut id, mut addresses) = (None, Vec::new());
    for field in Reader::new(bytes) {
        let field = field?;
        match field.number {
            1 => id = PeerId::from_bytes(field.bytes()?).ok(),
            2 if addresses.len() < ADDRESSES_MAX => {
                let address = field.bytes()?;
                if !address.is_empty() && address.len() <= ADDRESS_BYTES_MAX {
                    addresses.push(address.to_vec());
                }
            }
            _ => {}
        }
    }
    Ok(id.map(|id| Contact { id, addresses }))
}

fn record(bytes: &[u8]) -> Result<(Vec<u8>, Vec<u8>), KadDecodeError> {
    let (mut key, mut value) = (Vec::new(), Vec::new());
    for field in Reader::new(bytes) {
        let field = field?;
        match field.number {
            1 => key = bounded(field.bytes()?, KEY_BYTES_MAX)?,
            2 => value = bounded(field.bytes()?, VALUE_BYTES_MAX)?,
            _ => {}
        }
    }
    Ok((key, value))
}

fn bounded(bytes: &[u8], most: usize) -> Result<Vec<u8>, KadDecodeError> {
    if bytes.len() > most { Err(KadDecodeError::TooLong) } else { Ok(bytes.to_vec()) }
}

impl Kind {
    fn code(self) -> u64 {
        match self {
            Kind::PutValue => 0,
            Kind::GetValue => 1,
            Kind::AddProvider => 2,
            Kind::GetProviders => 3,
            Kind::FindNode => 4,
            Kind::Ping => 5,
        }
    }

    fn of(code: u64) -> Result<Kind, KadDecodeError> {
        [Kind::PutValue, Kind::GetValue, Kind::AddProvider, Kind::GetProviders, Kind::FindNode, Kind::Ping]
            .into_iter()
            .find(|kind| kind.code() == code)
            .ok_or(KadDecodeError::Kind(code))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u8) -> PeerId {
        PeerId::from_ed25519(&[number; 32])
    }

    #[test]
    fn messages_of_every_kind_read_back() {
        for kind in [Kind::PutValue, Kind::GetValue, Kind::AddProvider, Kind::GetProviders, Kind::FindNode, Kind::Ping] {
            let message = Message {
                kind,
                key: vec![1, 2, 3],
                record: Some((b"/ipns/x".to_vec(), vec![7; 100])),
                closer: vec![Contact { id: peer(1), addresses: vec![vec![4, 127, 0, 0, 1, 6, 15, 161]] }],
                providers: vec![Contact { id: peer(2), addresses: Vec::new() }],
            };
            assert_eq!(decode(&message.encode()), Ok(message));
        }
    }

    /// `FIND_NODE` for "key" as go-libp2p-kad-dht 0.39 writes it (fields in the order of their numbers).
    #[test]
    fn the_bytes_are_those_of_go() {
        let request = Message::request(Kind::FindNode, b"key");
        assert_eq!(hex::encode(request.encode()), "080412036b65795001");
        assert_eq!(decode(&hex::decode("080412036b6579").expect("hex")), Ok(request));
        assert_eq!(decode(&[]).map(|message| message.kind), Ok(Kind::PutValue));
    }

    #[test]
    fn what_strangers_send_is_bounded() {
        let contact = Contact { id: peer(1), addresses: vec![vec![1; 8]; 100] };
        let message = Message { closer: vec![contact; 1000], ..Message::request(Kind::FindNode, b"k") };
        let read = decode(&message.encode()).expect("it reads");
        assert_eq!((read.closer.len(), read.closer[0].addresses.len()), (PEERS_MAX, ADDRESSES_MAX));
        assert_eq!(decode(&Message::request(Kind::FindNode, &[0; 81]).encode()), Err(KadDecodeError::TooLong));
        let long = Message { record: Some((vec![1], vec![0; VALUE_BYTES_MAX + 1])), ..Message::request(Kind::PutValue, b"k") };
        assert_eq!(decode(&long.encode()), Err(KadDecodeError::TooLong));
        assert_eq!(decode(&[0x08, 9]), Err(KadDecodeError::Kind(9)));
        // A peer with an id of no known kind is left out.
        assert!(decode(&[0x42, 3, 0x0a, 1, 0xff]).expect("it reads").closer.is_empty());
    }
}
