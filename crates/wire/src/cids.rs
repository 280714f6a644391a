//! CIDs in their binary and text forms.

use data_encoding::BASE32_NOPAD;
use types::Cid;

/// Codec number of dag-pb nodes.
pub const DAG_PB: u64 = 0x70;
/// Multihash code of sha2-256.
pub const SHA2_256: u64 = 0x12;

/// The longest text read: a CID in the longest base (one letter for each bit) is shorter. Base58 and base36 take time by the square of the
/// length.
pub const TEXT_BYTES_MAX: usize = 2048;

/// Reads the binary form; nothing may follow it.
pub fn cid_from_bytes(bytes: &[u8]) -> Option<Cid> {
    let mut rest = bytes;
    let cid = Cid::read_bytes(&mut rest).ok()?;
    rest.is_empty().then_some(cid)
}

/// The sha2-256 digest of `bytes`.
pub fn sha2_256(bytes: &[u8]) -> [u8; 32] {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).into()
}

/// Why a text is no CID. The words are Go's where clients see them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCidText {
    /// Shorter than any CID.
    #[error("invalid cid: cid too short")]
    TooShort,
    /// The first letter names no multibase.
    #[error("invalid cid: selected encoding not supported")]
    Encoding,
    /// The letters after it do not decode, or the bytes are no CID.
    #[error("invalid cid: {0}")]
    Content(String),
}

/// Reads a text CID: v0 in base58, v1 in any multibase. Paths (`/ipfs/…`) are not taken, as in Go.
pub fn cid_from_text(text: &str) -> Result<Cid, BadCidText> {
    if text.len() < 2 {
        return Err(BadCidText::TooShort);
    }
    if let Some(cid) = from_base32(text) {
        return Ok(cid);
    }
    let is_v0 = text.len() == 46 && text.starts_with("Qm");
    const BASES: &str = "0fFvVtTbBcCkKhzZmMuU\u{1f680}";
    if !is_v0 && !text.chars().next().is_some_and(|base| BASES.contains(base)) {
        return Err(BadCidText::Encoding);
    }
    // The parser would strip everything up to `/ipfs/` (base64 has slashes); Go does not.
    if text.contains("/ipfs/") {
        return Err(BadCidText::Encoding);
    }
    if text.len() > TEXT_BYTES_MAX {
        return Err(BadCidText::Content("longer than any CID".to_owned()));
    }
    Cid::try_from(text).map_err(|error| BadCidText::Content(error.to_string()))
}

/// The usual form, `b` and lower-case base32, without a detour; none for any other, and for a wrong one.
fn from_base32(text: &str) -> Option<Cid> {
    const LETTERS_MAX: usize = 256;
    let letters = text.strip_prefix('b').filter(|letters| letters.len() <= LETTERS_MAX)?.as_bytes();
    let (mut upper, mut raw) = ([0; LETTERS_MAX], [0; LETTERS_MAX]);
    for (to, from) in upper.iter_mut().zip(letters) {
        *to = if from.is_ascii_uppercase() { return None } else { from.to_ascii_uppercase() };
    }
    let raw = &mut raw[..BASE32_NOPAD.decode_len(letters.len()).ok()?];
    let length = BASE32_NOPAD.decode_mut(&upper[..letters.len()], raw).ok()?;
    cid_from_bytes(&raw[..length])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_forms_are_taken_as_go_takes_them() {
        let v1 = "bafkreiflkkb6fotir5lny4ep4jgzn7emkbaurq4bnlnnbg7hpdfs622j4y";
        let cid = cid_from_text(v1).expect("a CIDv1");
        assert_eq!(cid.to_string(), v1);
        let v0 = "QmUXe7pRRhqJ13oqpAUVve9vAfViZzpbPsnhrXojfEePwW";
        assert_eq!(cid_from_text(v0).expect("a CIDv0").to_string(), v0);
        assert_eq!(cid_from_text("x"), Err(BadCidText::TooShort));
        for bad in ["/ipfs/QmUXe7pRRhqJ13oqpAUVve9vAfViZzpbPsnhrXojfEePwW", "notacid", "!!"] {
            assert_eq!(cid_from_text(bad), Err(BadCidText::Encoding), "{bad}");
        }
        assert!(matches!(cid_from_text("bafkrei"), Err(BadCidText::Content(_))));
    }

    #[test]
    fn long_texts_are_refused_without_decoding_them() {
        for base in ["z", "k", "f", "b"] {
            let long = base.to_owned() + &"2".repeat(4 << 20);
            assert_eq!(cid_from_text(&long), Err(BadCidText::Content("longer than any CID".to_owned())), "{base}");
        }
    }

    #[test]
    fn nothing_may_follow_binary_cids() {
        let mut bytes = cid_from_text("QmUXe7pRRhqJ13oqpAUVve9vAfViZzpbPsnhrXojfEePwW").expect("a CID").to_bytes();
        assert!(cid_from_bytes(&bytes).is_some());
        bytes.push(0);
        assert_eq!(cid_from_bytes(&bytes), None);
        assert_eq!(cid_from_bytes(&[]), None);
    }
}
