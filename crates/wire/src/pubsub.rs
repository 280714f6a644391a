//! Gossip messages as libp2p pubsub signs and names them.
//!
//! The network library writes and checks them; here is what must agree with Go: the name of a message, and the layout under the signature.

use crate::protobuf::{self as pb, ProtobufError, Reader};

/// The longest message, as in Go.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;

const SIGNING_PREFIX: &[u8] = b"libp2p-pubsub:";

/// The name of a message: the first 16 bytes of its author's id and its sequence number. Go cuts without looking at the length; a shorter
/// author is taken whole here.
pub fn message_id(from: &[u8], seqno: &[u8]) -> Vec<u8> {
    let author = from.get(..16).unwrap_or(from);
    [author, seqno].concat()
}

/// A signed message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SignedMessage {
    /// Peer id bytes of the author.
    pub from: Vec<u8>,
    /// What it says.
    pub data: Vec<u8>,
    /// Sequence number, 8 bytes big-endian.
    pub seqno: Vec<u8>,
    /// Where.
    pub topic: String,
    /// Over [`SignedMessage::signing_bytes`].
    pub signature: Vec<u8>,
    /// Public key, for authors whose id does not hold it.
    pub key: Vec<u8>,
}

/// Why bytes are no gossip message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PubsubDecodeError {
    /// Longer than [`MESSAGE_BYTES_MAX`].
    #[error("pubsub message: {0} bytes are too long")]
    TooLong(usize),
    /// Not protobuf, or a field of the wrong shape.
    #[error("pubsub message: {0}")]
    Protobuf(#[from] ProtobufError),
}

impl SignedMessage {
    /// What the author signs.
    pub fn signing_bytes(&self) -> Vec<u8> {
        let mut out = SIGNING_PREFIX.to_vec();
        self.put_unsigned(&mut out);
        out
    }

    /// Its name.
    pub fn id(&self) -> Vec<u8> {
        message_id(&self.from, &self.seqno)
    }

    /// Writes the message.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.data.len() + 200);
        self.put_unsigned(&mut out);
        pb::put_bytes_if(&mut out, 5, &self.signature);
        pb::put_bytes_if(&mut out, 6, &self.key);
        out
    }

    fn put_unsigned(&self, out: &mut Vec<u8>) {
        pb::put_bytes_if(out, 1, &self.from);
        pb::put_bytes_if(out, 2, &self.data);
        pb::put_bytes_if(out, 3, &self.seqno);
        // The topic is a required field.
        pb::put_bytes(out, 4, self.topic.as_bytes());
    }

    /// Reads a message.
    pub fn decode(bytes: &[u8]) -> Result<SignedMessage, PubsubDecodeError> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(PubsubDecodeError::TooLong(bytes.len()));
        }
        let mut message = SignedMessage::default();
        for field in Reader::new(bytes) {
            let field = field?;
            match field.number {
                1 => message.from = field.bytes()?.to_vec(),
                2 => message.data = field.bytes()?.to_vec(),
                3 => message.seqno = field.bytes()?.to_vec(),
                4 => message.topic = field.text()?.to_owned(),
                5 => message.signature = field.bytes()?.to_vec(),
                6 => message.key = field.bytes()?.to_vec(),
                _ => {}
            }
        }
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_authors_do_not_panic() {
        for (from, expected) in [(&[][..], 2), (&[1; 5][..], 7), (&[1; 16][..], 18), (&[1; 38][..], 18)] {
            assert_eq!(message_id(from, &[8, 9]).len(), expected);
        }
    }
}
