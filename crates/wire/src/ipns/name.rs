//! Names as text: a CIDv1 with the codec of libp2p's keys, in base36 (`k51…`), or an older form of a peer id.

use types::PeerId;

/// The codec of keys.
const LIBP2P_KEY: u64 = 0x72;
const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// Why a text is no name of a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no IPNS name: write it like k51qzi5uqu5d…, or as a peer id")]
pub struct BadName(pub String);

/// Reads a name: a CIDv1 of a key in any base, or a peer id in base58.
pub fn name_from_text(text: &str) -> Result<PeerId, BadName> {
    text.parse().map_err(|_| BadName(text.chars().take(80).collect()))
}

/// Writes a name as everybody shows it.
pub fn name_text(name: &PeerId) -> String {
    let mut cid = vec![1, LIBP2P_KEY as u8];
    cid.extend_from_slice(name.as_bytes());
    format!("k{}", base36(&cid))
}

/// Long division; names are at most 44 bytes.
fn base36(bytes: &[u8]) -> String {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let mut digits: Vec<u8> = Vec::new();
    for byte in &bytes[zeros..] {
        let mut carry = u32::from(*byte);
        for digit in &mut digits {
            carry += u32::from(*digit) << 8;
            *digit = (carry % 36) as u8;
            carry /= 36;
        }
        while carry > 0 {
            digits.push((carry % 36) as u8);
            carry /= 36;
        }
    }
    let digits = digits.iter().rev().map(|digit| char::from(DIGITS[usize::from(*digit)]));
    std::iter::repeat_n('0', zeros).chain(digits).collect()
}

/// The public key (libp2p's protobuf form) that a name contains; none for names that are its hash.
pub(super) fn inline_key(name: &PeerId) -> Option<&[u8]> {
    name.as_bytes().strip_prefix(&[0x00]).and_then(|rest| rest.get(1..))
}
