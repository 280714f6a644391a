//! Who: peers of a cluster, owners of held content.

use std::fmt;
use std::str::FromStr;

/// The longest peer id taken: an identity multihash of a 42-byte ed25519 key fits, as does a sha2-256 multihash.
const LONGEST: usize = 42;

/// A libp2p peer id: the raw multihash bytes, as they travel; shown in base58.
///
/// Ordered by its bytes. `Copy`, since it stands in every map of the machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId {
    bytes: [u8; LONGEST],
    length: u8,
}

/// Why bytes or text are not a peer id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPeerId {
    /// Not base58.
    #[error("not a peer id: {0:?} is not base58")]
    NotBase58(String),
    /// Not a multihash of a kind used for peer ids (identity or sha2-256).
    #[error("not a peer id: the bytes are no identity or sha2-256 multihash")]
    NotMultihash,
}

impl PeerId {
    /// Takes raw multihash bytes: identity (`00 len key`) or sha2-256 (`12 20 digest`).
    pub fn from_bytes(raw: &[u8]) -> Result<PeerId, BadPeerId> {
        let is_identity = raw.len() >= 2 && raw[0] == 0x00 && usize::from(raw[1]) == raw.len() - 2;
        let is_sha2 = raw.len() == 34 && raw[0] == 0x12 && raw[1] == 0x20;
        if raw.len() > LONGEST || !(is_identity || is_sha2) {
            return Err(BadPeerId::NotMultihash);
        }
        let mut bytes = [0; LONGEST];
        bytes[..raw.len()].copy_from_slice(raw);
        Ok(PeerId { bytes, length: raw.len() as u8 })
    }

    /// The peer id of an ed25519 public key (libp2p peer-ids spec: identity multihash of the key's protobuf).
    pub fn from_ed25519(public: &[u8; 32]) -> PeerId {
        let mut bytes = [0; LONGEST];
        bytes[..6].copy_from_slice(&[0x00, 0x24, 0x08, 0x01, 0x12, 0x20]);
        bytes[6..38].copy_from_slice(public);
        PeerId { bytes, length: 38 }
    }

    /// The ed25519 public key inside the id; none for ids that are only a hash of their key.
    pub fn ed25519(&self) -> Option<[u8; 32]> {
        let raw = self.as_bytes();
        (raw.len() == 38 && raw[..6] == [0x00, 0x24, 0x08, 0x01, 0x12, 0x20]).then(|| {
            let mut key = [0; 32];
            key.copy_from_slice(&raw[6..]);
            key
        })
    }

    /// The raw multihash bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// The last six characters of the base58 form, for tables and logs.
    pub fn short(&self) -> String {
        let text = self.to_string();
        text[text.len().saturating_sub(6)..].to_owned()
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bs58::encode(self.as_bytes()).into_string())
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for PeerId {
    type Err = BadPeerId;

    /// Reads base58 (`12D3Koo…`, `Qm…`) and the CIDv1 `libp2p-key` form.
    fn from_str(text: &str) -> Result<PeerId, BadPeerId> {
        const LIBP2P_KEY: u64 = 0x72;
        // Longer than an id in any base; base58 takes time by the square of the length.
        const TEXT_LONGEST: usize = 512;
        if text.len() > TEXT_LONGEST {
            return Err(BadPeerId::NotBase58(text.chars().take(60).collect()));
        }
        if let Ok(cid) = cid::Cid::try_from(text)
            && cid.codec() == LIBP2P_KEY
        {
            return PeerId::from_bytes(&cid.hash().to_bytes());
        }
        let raw = bs58::decode(text).into_vec().map_err(|_| BadPeerId::NotBase58(text.to_owned()))?;
        PeerId::from_bytes(&raw)
    }
}

/// On whose account something is held. Content goes with its last owner (architecture.md, rule 2).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// A cluster, by its name.
    Cluster(String),
    /// The person whose node it is.
    User,
    /// An add in flight, by its number; ends with the add or with the process.
    Adding(u64),
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Owner::Cluster(name) => write!(f, "cluster {name}"),
            Owner::User => f.write_str("user"),
            Owner::Adding(id) => write!(f, "add {id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_id_reads_back_from_both_text_forms() {
        let id = PeerId::from_ed25519(&[7; 32]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!(id.to_string().starts_with("12D3Koo"));
        let as_cid = cid::Cid::new_v1(0x72, cid::multihash::Multihash::from_bytes(id.as_bytes()).expect("a peer id is a multihash"));
        assert_eq!(as_cid.to_string().parse(), Ok(id));
        assert_eq!(id.ed25519(), Some([7; 32]));
    }

    #[test]
    fn strange_bytes_are_no_peer_id() {
        for raw in [&[][..], &[0x00], &[0x00, 0x05, 1], &[0x12, 0x20, 1], &[0xff; 60]] {
            assert_eq!(PeerId::from_bytes(raw), Err(BadPeerId::NotMultihash));
        }
        assert!("not/base58".parse::<PeerId>().is_err());
        for base in ["1", "Qm", "z", "k", "f"] {
            let long = base.to_owned() + &"2".repeat(4 << 20);
            let Err(BadPeerId::NotBase58(shown)) = long.parse::<PeerId>() else { panic!("{base}") };
            assert_eq!(shown.len(), 60, "{base}");
        }
    }
}
