//! How keys lie on disk: the file names of Kubo's keystore, and ed25519 keys as PEM (PKCS #8).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use data_encoding::BASE32_NOPAD;

/// File names of a keystore begin so.
const PREFIX: &str = "key_";
/// What stands in DER before the 32 bytes of an ed25519 seed, behind the outer length (RFC 8410): version, algorithm, two octet strings.
const ALGORITHM: &[u8] = &[0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";

/// The file of a key, as in Kubo's keystore.
pub fn key_file(name: &str) -> String {
    format!("{PREFIX}{}", BASE32_NOPAD.encode(name.as_bytes()).to_ascii_lowercase())
}

/// The name of the key in such a file; none for files of another kind.
pub fn key_of_file(file: &str) -> Option<String> {
    let letters = file.strip_prefix(PREFIX)?.to_ascii_uppercase();
    let name = BASE32_NOPAD.decode(letters.as_bytes()).ok()?;
    String::from_utf8(name).ok().filter(|name| !name.is_empty())
}

/// Why a text is no ed25519 key in PEM.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPem {
    /// Not a PEM text of a private key.
    #[error("this is no PEM text that begins with {BEGIN}")]
    NotPem,
    /// Another kind of key.
    #[error("the PEM text holds no ed25519 key in PKCS #8: other kinds are taken in libp2p's own form")]
    NotEd25519,
}

/// Writes an ed25519 key as `ipfs key export --format=pem-pkcs8-cleartext` does.
pub fn pem_from_seed(seed: &[u8; 32]) -> String {
    let der = [&[0x30, 0x2e, 0x02, 0x01, 0x00][..], ALGORITHM, seed].concat();
    format!("{BEGIN}\n{}\n{END}\n", STANDARD.encode(der))
}

/// Reads an ed25519 key from PEM, with or without its public half behind it.
pub fn seed_from_pem(text: &str) -> Result<[u8; 32], BadPem> {
    const LONGEST: usize = 8 << 10;
    let inside = text.trim().strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(END)).ok_or(BadPem::NotPem)?;
    if inside.len() > LONGEST {
        return Err(BadPem::NotPem);
    }
    let letters: String = inside.chars().filter(|letter| !letter.is_ascii_whitespace()).collect();
    let der = STANDARD.decode(letters).map_err(|_| BadPem::NotPem)?;
    // Outer sequence of less than 128 bytes, then version 0 or 1.
    let [0x30, length, 0x02, 0x01, 0 | 1, rest @ ..] = der.as_slice() else { return Err(BadPem::NotEd25519) };
    if usize::from(*length) != der.len() - 2 {
        return Err(BadPem::NotEd25519);
    }
    let seed = rest.strip_prefix(ALGORITHM).and_then(|rest| rest.first_chunk::<32>());
    seed.copied().ok_or(BadPem::NotEd25519)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_as_in_kubo() {
        for (name, file) in [("edk", "key_mvsgw"), ("rsak", "key_ojzwc2y")] {
            assert_eq!(key_file(name), file);
            assert_eq!(key_of_file(file).as_deref(), Some(name));
        }
        for other in ["mvsgw", "key_", "key_1", "key_mvsgw.new", ".key_mvsgw"] {
            assert_eq!(key_of_file(other), None, "{other}");
        }
    }

    #[test]
    fn pem_reads_as_kubo_and_openssl_write_it() {
        let kubo =
            "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIK5fVsperi2ug8jCvsXj3u+efMctQhFTRmjBLl9dL02M\n-----END PRIVATE KEY-----\n";
        let seed = seed_from_pem(kubo).expect("Kubo's text");
        assert_eq!(pem_from_seed(&seed), kubo);
        let with_public = [&[0x30, 0x51, 0x02, 0x01, 0x01][..], ALGORITHM, &seed, &[0x81, 0x21, 0x00], &[7; 32]].concat();
        let text = format!("{BEGIN}\r\n{}\r\n{END}", STANDARD.encode(with_public));
        assert_eq!(seed_from_pem(&text), Ok(seed));
        let rsa = format!("{BEGIN}\n{}\n{END}", STANDARD.encode([0x30, 0x82, 1, 1, 2, 1, 0]));
        assert_eq!(seed_from_pem(&rsa), Err(BadPem::NotEd25519));
        for text in ["", "junk", &kubo[..80], &kubo.replace("MC4", "!!!")] {
            assert_eq!(seed_from_pem(text), Err(BadPem::NotPem), "{text}");
        }
    }
}
