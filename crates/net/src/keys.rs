//! Keys of every kind that libp2p knows, in its protobuf form: signing, checking, and the name that belongs to a key.
//!
//! Keys made here are ed25519. Those of other kinds (RSA, secp256k1, ECDSA) come from older nodes and do everything else.

use libp2p::identity::{KeyType, Keypair, PublicKey};
use types::PeerId;

/// The longest private key that is read: RSA of 8192 bits has some 4.7 KB.
pub const KEY_BYTES_MAX: usize = 16 << 10;

/// Why bytes are no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Longer than [`KEY_BYTES_MAX`].
    #[error("a key of {0} bytes is longer than any")]
    TooLong(usize),
    /// Not a private key in libp2p's form.
    #[error("the bytes are no private key of libp2p: {0}")]
    Malformed(#[source] libp2p::identity::DecodingError),
    /// The key does not sign.
    #[error("signing: {0}")]
    Signing(#[source] libp2p::identity::SigningError),
    /// Its peer id is of a kind that is not taken.
    #[error("the key has no peer id of a usual kind")]
    NoName,
}

/// A key pair. Prints without its secret.
#[derive(Clone)]
pub struct NameKey {
    pair: Keypair,
    name: PeerId,
}

impl NameKey {
    /// Reads the protobuf of a private key, as Kubo's keystore and `ipfs key export` have it.
    pub fn from_protobuf(bytes: &[u8]) -> Result<NameKey, KeyError> {
        if bytes.len() > KEY_BYTES_MAX {
            return Err(KeyError::TooLong(bytes.len()));
        }
        NameKey::of(Keypair::from_protobuf_encoding(bytes).map_err(KeyError::Malformed)?)
    }

    /// The ed25519 key of a seed.
    pub fn from_seed(mut seed: [u8; 32]) -> Result<NameKey, KeyError> {
        NameKey::of(Keypair::ed25519_from_bytes(&mut seed).map_err(KeyError::Malformed)?)
    }

    fn of(pair: Keypair) -> Result<NameKey, KeyError> {
        let name = PeerId::from_bytes(&pair.public().to_peer_id().to_bytes()).map_err(|_| KeyError::NoName)?;
        Ok(NameKey { pair, name })
    }

    /// The name (peer id) that belongs to it.
    pub fn name(&self) -> PeerId {
        self.name
    }

    /// What kind of key it is, in a word.
    pub fn kind(&self) -> &'static str {
        match self.pair.key_type() {
            KeyType::Ed25519 => "ed25519",
            KeyType::RSA => "rsa",
            KeyType::Secp256k1 => "secp256k1",
            KeyType::Ecdsa => "ecdsa",
        }
    }

    /// The public half, in protobuf.
    pub fn public(&self) -> Vec<u8> {
        self.pair.public().encode_protobuf()
    }

    /// Signs.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.pair.sign(message).map_err(KeyError::Signing)
    }
}

impl std::fmt::Debug for NameKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NameKey({}, ***)", self.name)
    }
}

/// Whether the owner of a public key (in protobuf) signed the message.
pub fn is_signed(public: &[u8], message: &[u8], signature: &[u8]) -> bool {
    public.len() <= KEY_BYTES_MAX && PublicKey::try_decode_protobuf(public).is_ok_and(|key| key.verify(message, signature))
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::ipns::{decode, encode, name_from_text};

    fn vectors() -> Vec<serde_json::Value> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../wire/tests/vectors/ipns.json");
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    #[test]
    fn records_of_kubo_with_keys_of_every_kind_are_verified() {
        for vector in vectors() {
            let bytes = hex::decode(vector["record"].as_str().unwrap()).unwrap();
            let name = name_from_text(vector["name"].as_str().unwrap()).unwrap();
            let record = decode(&bytes).unwrap();
            assert_eq!(record.verify(&name, is_signed), Ok(()), "{}", vector["key"]);
            let is_changed = |public: &[u8], message: &[u8], signature: &[u8]| is_signed(public, &[message, b"x"].concat(), signature);
            assert!(record.verify(&name, is_changed).is_err(), "{}", vector["key"]);
        }
    }

    #[test]
    fn keys_of_every_kind_sign_records_that_are_theirs() {
        let pairs = [Keypair::generate_ed25519(), Keypair::generate_secp256k1(), Keypair::generate_ecdsa()];
        for pair in pairs {
            let key = NameKey::from_protobuf(&pair.to_protobuf_encoding().unwrap()).unwrap();
            let entry = wire::ipns::Entry {
                value: b"/ipfs/bafkqaaa".to_vec(),
                validity: wire::gotime::GoTime::parse("2030-01-01T00:00:00Z").unwrap(),
                sequence: 1,
                ttl: std::time::Duration::from_secs(1),
            };
            let bytes = encode(&entry, &key.name(), &key.public(), |message| key.sign(message)).unwrap();
            assert_eq!(decode(&bytes).unwrap().verify(&key.name(), is_signed), Ok(()), "{}", key.kind());
        }
    }

    #[test]
    fn a_key_of_kubo_has_kubos_name() {
        let vector = &vectors()[0];
        let key = NameKey::from_protobuf(&hex::decode(vector["private_key"].as_str().unwrap()).unwrap()).unwrap();
        assert_eq!(wire::ipns::name_text(&key.name()), vector["name"].as_str().unwrap());
        assert!(!format!("{key:?}").contains("174"));
        assert!(NameKey::from_protobuf(b"junk").is_err() && NameKey::from_protobuf(&[0; KEY_BYTES_MAX + 1]).is_err());
    }
}
