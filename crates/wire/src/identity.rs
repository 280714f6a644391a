//! Who a peer is, on disk: `identity.json`, the libp2p form of private keys, the swarm key text.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use std::fmt;
use types::PeerId;

/// An ed25519 key pair: seed (32 bytes), then public key (32 bytes). Prints as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKey(pub [u8; 64]);

impl PrivateKey {
    /// The secret half.
    pub fn seed(&self) -> [u8; 32] {
        let (seed, _) = self.halves();
        *seed
    }

    /// The public half.
    pub fn public(&self) -> [u8; 32] {
        let (_, public) = self.halves();
        *public
    }

    /// The peer id that belongs to the public half.
    pub fn peer_id(&self) -> PeerId {
        PeerId::from_ed25519(&self.public())
    }

    fn halves(&self) -> (&[u8; 32], &[u8; 32]) {
        let (seed, public) = self.0.split_first_chunk::<32>().expect("64 bytes hold 32");
        (seed, public.first_chunk::<32>().expect("32 bytes are left"))
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(***)")
    }
}

/// Why an identity does not read.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Not JSON of the expected keys.
    #[error("identity: {0}")]
    Json(#[from] serde_json::Error),
    /// The private key is not base64.
    #[error("identity: the private key is not base64")]
    Base64,
    /// Not the protobuf of a libp2p private key.
    #[error("identity: the private key is no libp2p key")]
    NotKey,
    /// A key type other than ed25519 (libp2p's number of it).
    #[error("identity: key type {0} is not taken, only ed25519 (1)")]
    KeyType(u64),
    /// The id is no peer id.
    #[error("identity: {0}")]
    Id(#[from] types::BadPeerId),
    /// Id and key do not belong together.
    #[error("identity: the id {id} does not belong to the private key, which is that of {key}")]
    Mismatch {
        /// The id as written.
        id: PeerId,
        /// The id of the key.
        key: PeerId,
    },
    /// The cluster secret is not 64 hexadecimal digits.
    #[error("cluster secret: not 64 hexadecimal digits")]
    Secret,
}

#[derive(Serialize, Deserialize)]
struct IdentityJson {
    id: String,
    private_key: String,
}

/// Reads the base64 form of a libp2p private key.
pub fn decode_private_key(text: &str) -> Result<PrivateKey, IdentityError> {
    const LONGEST: usize = 8 << 10;
    if text.len() > LONGEST {
        return Err(IdentityError::NotKey);
    }
    let bytes = STANDARD.decode(text.trim()).map_err(|_| IdentityError::Base64)?;
    let mut kind = 0;
    let mut data: &[u8] = &[];
    for field in crate::protobuf::Reader::new(&bytes) {
        let field = field.map_err(|_| IdentityError::NotKey)?;
        match field.number {
            1 => kind = field.uint().map_err(|_| IdentityError::NotKey)?,
            2 => data = field.bytes().map_err(|_| IdentityError::NotKey)?,
            _ => {}
        }
    }
    const ED25519: u64 = 1;
    if kind != ED25519 {
        return Err(IdentityError::KeyType(kind));
    }
    // Keys written long ago repeat the public half.
    let is_old = data.len() == 96 && data[32..64] == data[64..];
    let key = data.first_chunk::<64>().filter(|_| data.len() == 64 || is_old);
    key.map(|key| PrivateKey(*key)).ok_or(IdentityError::NotKey)
}

/// Writes the base64 form of a libp2p private key.
pub fn encode_private_key(key: &PrivateKey) -> String {
    let mut bytes = vec![0x08, 0x01, 0x12, 0x40];
    bytes.extend(key.0);
    STANDARD.encode(bytes)
}

/// Reads `identity.json`; id and key must belong together.
pub fn decode_identity(json: &str) -> Result<PrivateKey, IdentityError> {
    let identity: IdentityJson = serde_json::from_str(json)?;
    let key = decode_private_key(&identity.private_key)?;
    let id: PeerId = identity.id.parse()?;
    if id == key.peer_id() { Ok(key) } else { Err(IdentityError::Mismatch { id, key: key.peer_id() }) }
}

/// Writes `identity.json` as Go does.
pub fn encode_identity(key: &PrivateKey) -> String {
    let (id, private_key) = (key.peer_id(), encode_private_key(key));
    format!("{{\n    \"id\": \"{id}\",\n    \"private_key\": \"{private_key}\"\n}}")
}

/// Reads the 64 hexadecimal digits of a cluster secret.
pub fn decode_secret(text: &str) -> Result<[u8; 32], IdentityError> {
    let mut secret = [0; 32];
    hex::decode_to_slice(text.trim(), &mut secret).map_err(|_| IdentityError::Secret)?;
    Ok(secret)
}

/// The swarm key file of a cluster secret.
pub fn swarm_key_text(secret: &[u8; 32]) -> String {
    format!("/key/swarm/psk/1.0.0/\n/base16/\n{}\n", hex::encode(secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_read_back_and_hide_their_key() {
        let key = PrivateKey([7; 64]);
        assert_eq!(decode_identity(&encode_identity(&key)).expect("own text"), key);
        assert_eq!(format!("{key:?}"), "PrivateKey(***)");
    }

    #[test]
    fn wrong_identities_are_named() {
        let other = PrivateKey([8; 64]).peer_id();
        let mixed = format!(r#"{{"id":"{other}","private_key":"{}"}}"#, encode_private_key(&PrivateKey([7; 64])));
        assert!(matches!(decode_identity(&mixed), Err(IdentityError::Mismatch { .. })));
        assert!(matches!(decode_identity("{}"), Err(IdentityError::Json(_))));
        assert!(matches!(decode_private_key("!"), Err(IdentityError::Base64)));
        assert!(matches!(decode_private_key("CAASAQA="), Err(IdentityError::KeyType(0))));
        assert!(matches!(decode_private_key("CAESAQA="), Err(IdentityError::NotKey)));
        assert!(matches!(decode_secret("abc"), Err(IdentityError::Secret)));
    }
}
