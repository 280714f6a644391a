//! Hash functions of multihashes: by code, by name, and the digest itself.

use blake2::digest::consts::{U20, U28, U32, U48, U64};
use blake2::{Blake2b, Blake2s};
use multihash::Multihash;
use sha2::Digest;

/// The longest digest a CID of ours holds; `identity` data is bounded by it too.
pub const DIGEST_MAX: usize = 64;
/// Shorter digests are no proof of anything, so they are refused (as Kubo does).
pub const DIGEST_MIN: usize = 20;

/// A hash function that this system can compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HashFn(u64);

/// Why there is no digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// The number names no function known here.
    #[error("hash function {name} (0x{code:x}) is not supported")]
    Unknown {
        /// The multicodec number.
        code: u64,
        /// Its name where one is known.
        name: &'static str,
    },
    /// The name is no function known here.
    #[error("hash function name not known")]
    UnknownName,
    /// `identity` keeps the data inside the CID, which has little room.
    #[error("{length} bytes do not fit into an identity CID (at most 64)")]
    IdentityTooLong {
        /// How many bytes there are.
        length: usize,
    },
}

/// Names as the multicodec table gives them. Of the blake2 families, which have one for each length, those in use.
const NAMES: [(u64, &str); 22] = [
    (0x00, "identity"),
    (0x12, "sha2-256"),
    (0x13, "sha2-512"),
    (0x14, "sha3-512"),
    (0x15, "sha3-384"),
    (0x16, "sha3-256"),
    (0x17, "sha3-224"),
    (0x19, "shake-256"),
    (0x1a, "keccak-224"),
    (0x1b, "keccak-256"),
    (0x1c, "keccak-384"),
    (0x1d, "keccak-512"),
    (0x1e, "blake3"),
    (0x56, "dbl-sha2-256"),
    (0xb214, "blake2b-160"),
    (0xb21c, "blake2b-224"),
    (0xb220, "blake2b-256"),
    (0xb230, "blake2b-384"),
    (0xb240, "blake2b-512"),
    (0xb254, "blake2s-160"),
    (0xb25c, "blake2s-224"),
    (0xb260, "blake2s-256"),
];

/// Functions that exist but are not computed here; named so that an error tells what was met.
const FOREIGN: [(u64, &str); 8] = [
    (0x11, "sha1"),
    (0x18, "shake-128"),
    (0x20, "sha2-384"),
    (0x22, "murmur3-x64-64"),
    (0xd4, "md4"),
    (0xd5, "md5"),
    (0x1012, "sha2-256-trunc254-padded"),
    (0x1015, "sha2-512-256"),
];

impl HashFn {
    /// The data itself, for very small blocks.
    pub const IDENTITY: HashFn = HashFn(0x00);
    /// The default everywhere.
    pub const SHA2_256: HashFn = HashFn(0x12);
    /// SHA-512.
    pub const SHA2_512: HashFn = HashFn(0x13);
    /// SHA3-256.
    pub const SHA3_256: HashFn = HashFn(0x16);
    /// BLAKE3 with 32 bytes.
    pub const BLAKE3: HashFn = HashFn(0x1e);
    /// BLAKE2b with 32 bytes.
    pub const BLAKE2B_256: HashFn = HashFn(0xb220);
    /// BLAKE2s with 32 bytes.
    pub const BLAKE2S_256: HashFn = HashFn(0xb260);

    /// The function with a multicodec number.
    pub fn from_code(code: u64) -> Result<HashFn, HashError> {
        if NAMES.iter().any(|(known, _)| *known == code) {
            return Ok(HashFn(code));
        }
        let name = FOREIGN.iter().find(|(known, _)| *known == code).map_or("unknown", |(_, name)| name);
        Err(HashError::Unknown { code, name })
    }

    /// The function with a multicodec name, in any case (`sha2-256`, `Blake2b-256`).
    pub fn from_name(name: &str) -> Result<HashFn, HashError> {
        let name = name.to_ascii_lowercase();
        NAMES.iter().find(|(_, known)| *known == name).map(|(code, _)| HashFn(*code)).ok_or(HashError::UnknownName)
    }

    /// Its multicodec name.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(known, _)| *known == self.0).map_or("unknown", |(_, name)| name)
    }

    /// The multicodec number.
    pub fn code(self) -> u64 {
        self.0
    }

    /// Returns the multihash of `data`.
    pub fn digest(self, data: &[u8]) -> Result<Multihash<DIGEST_MAX>, HashError> {
        let wrap = |digest: &[u8]| Multihash::wrap(self.0, digest).map_err(|_| HashError::IdentityTooLong { length: digest.len() });
        match self.0 {
            0x00 => wrap(data),
            0x12 => wrap(&sha2::Sha256::digest(data)),
            0x13 => wrap(&sha2::Sha512::digest(data)),
            0x14 => wrap(&sha3::Sha3_512::digest(data)),
            0x15 => wrap(&sha3::Sha3_384::digest(data)),
            0x16 => wrap(&sha3::Sha3_256::digest(data)),
            0x17 => wrap(&sha3::Sha3_224::digest(data)),
            0x19 => wrap(&shake256(data)),
            0x1a => wrap(&sha3::Keccak224::digest(data)),
            0x1b => wrap(&sha3::Keccak256::digest(data)),
            0x1c => wrap(&sha3::Keccak384::digest(data)),
            0x1d => wrap(&sha3::Keccak512::digest(data)),
            0x1e => wrap(blake3::hash(data).as_bytes()),
            0x56 => wrap(&sha2::Sha256::digest(sha2::Sha256::digest(data))),
            0xb214 => wrap(&Blake2b::<U20>::digest(data)),
            0xb21c => wrap(&Blake2b::<U28>::digest(data)),
            0xb220 => wrap(&Blake2b::<U32>::digest(data)),
            0xb230 => wrap(&Blake2b::<U48>::digest(data)),
            0xb240 => wrap(&Blake2b::<U64>::digest(data)),
            0xb254 => wrap(&Blake2s::<U20>::digest(data)),
            0xb25c => wrap(&Blake2s::<U28>::digest(data)),
            0xb260 => wrap(&Blake2s::<U32>::digest(data)),
            code => Err(HashError::Unknown { code, name: "unknown" }),
        }
    }
}

fn shake256(data: &[u8]) -> [u8; 64] {
    use sha3::digest::{ExtendableOutput, Update, XofReader};
    let mut state = sha3::Shake256::default();
    state.update(data);
    let mut digest = [0; 64];
    state.finalize_xof().read(&mut digest);
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, digest_of_abc: &str) {
        let digest = HashFn::from_name(name).and_then(|hash| hash.digest(b"abc"));
        assert_eq!(digest.map(|digest| hex::encode(digest.digest())), Ok(digest_of_abc.to_owned()), "{name}");
    }

    #[test]
    fn digests_of_abc() {
        check("identity", "616263");
        check("sha2-256", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        check("SHA3-256", "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532");
        check("keccak-256", "4e03657aea45a94fc7d47ba826c8d667c0d1e6e33a64a036ec44f58fa12d6c45");
        check("blake3", "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85");
        check("blake2b-256", "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319");
        check("blake2s-256", "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982");
        check("dbl-sha2-256", "4f8b42c22dd3729b519ba6f68d2da7cc5b2d606d05daed5ad5128cc03e6c6358");
    }

    #[test]
    fn unknown_functions_are_named() {
        assert_eq!(HashFn::from_code(0x11), Err(HashError::Unknown { code: 0x11, name: "sha1" }));
        assert_eq!(HashFn::from_name("md99"), Err(HashError::UnknownName));
        assert_eq!(HashFn::from_name("blake2b-12"), Err(HashError::UnknownName));
        assert!(HashFn::from_name("blake2b-128").is_err(), "too short to prove anything");
    }

    #[test]
    fn identity_holds_at_most_64_bytes() {
        assert!(HashFn::IDENTITY.digest(&[7; 64]).is_ok());
        assert_eq!(HashFn::IDENTITY.digest(&[7; 65]), Err(HashError::IdentityTooLong { length: 65 }));
    }
}
