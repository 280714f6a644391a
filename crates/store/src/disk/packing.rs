//! Long values with much base32 text, written in fewer bytes.
//!
//! Blocks of the CRDT's DAG name each pin twice: its CID as base32 text, which is the key that Go chose, and the same CID raw in the value.
//! Text in its raw bytes takes five eighths, and the compression of the store finds the repetition then.
//!
//! A packed value begins with [`PACKED`]; then by turns: length of plain bytes, these bytes, length of a text, the text at five bits
//! a letter. A value that begins otherwise stands as it is. Packing is undone to the byte, whatever the value is.

use bytes::Bytes;

/// First byte of a packed value.
const PACKED: u8 = 0x01;
/// Shorter values are left alone.
const VALUE_MIN: usize = 256;
/// Shorter texts are plain bytes.
const TEXT_MIN: usize = 24;
/// The longest value that is read: what a packed length may claim is bounded by it.
const VALUE_MAX: usize = 64 << 20;

/// The form on disk; none when the value stays as it is.
pub(super) fn pack(value: &[u8]) -> Option<Vec<u8>> {
    let must = value.first() == Some(&PACKED);
    if (value.len() < VALUE_MIN || value.len() > VALUE_MAX) && !must {
        return None;
    }
    let mut out = Vec::with_capacity(value.len() / 4 * 3);
    out.push(PACKED);
    let mut plain_from = 0;
    let mut at = 0;
    while at < value.len() {
        let length = value[at..].iter().take_while(|byte| digit(**byte).is_some()).count();
        if length >= TEXT_MIN {
            put_bytes(&mut out, &value[plain_from..at]);
            put_text(&mut out, &value[at..at + length]);
            plain_from = at + length;
        }
        at += length.max(1);
    }
    put_bytes(&mut out, &value[plain_from..]);
    (must || out.len() < value.len()).then_some(out)
}

/// The value of a form on disk; none when it is damaged.
pub(super) fn unpack(stored: &[u8]) -> Option<Bytes> {
    let Some((&PACKED, mut rest)) = stored.split_first() else { return Some(Bytes::copy_from_slice(stored)) };
    let mut out = Vec::with_capacity(stored.len() / 2 * 3);
    while !rest.is_empty() {
        let length = take_length(&mut rest)?;
        let (plain, behind) = rest.split_at_checked(length)?;
        out.extend_from_slice(plain);
        rest = behind;
        if rest.is_empty() {
            break;
        }
        let letters = take_length(&mut rest)?;
        let (packed, behind) = rest.split_at_checked((letters * 5).div_ceil(8))?;
        rest = behind;
        take_text(&mut out, packed, letters);
    }
    Some(out.into())
}

fn digit(letter: u8) -> Option<u8> {
    match letter {
        b'A'..=b'Z' => Some(letter - b'A'),
        b'2'..=b'7' => Some(letter - b'2' + 26),
        _ => None,
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_length(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    put_length(out, text.len());
    let (mut bits, mut held) = (0u32, 0);
    for letter in text {
        bits = (bits << 5) | u32::from(digit(*letter).unwrap_or_default());
        held += 5;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
        }
    }
    if held > 0 {
        out.push((bits << (8 - held)) as u8);
    }
}

fn take_text(out: &mut Vec<u8>, packed: &[u8], letters: usize) {
    const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let end = out.len() + letters;
    let (mut bits, mut held) = (0u32, 0);
    for byte in packed {
        bits = (bits << 8) | u32::from(*byte);
        held += 8;
        while held >= 5 && out.len() < end {
            held -= 5;
            out.push(LETTERS[(bits >> held) as usize & 31]);
        }
    }
}

fn put_length(out: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

fn take_length(rest: &mut &[u8]) -> Option<usize> {
    let mut length = 0;
    for position in 0..4 {
        let (&byte, behind) = rest.split_first()?;
        *rest = behind;
        length |= usize::from(byte & 0x7f) << (7 * position);
        if byte < 0x80 {
            return (length <= VALUE_MAX).then_some(length);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(length: usize, mut state: u64, letters: &[u8]) -> Vec<u8> {
        let next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as usize
        };
        std::iter::repeat_with(next)
            .take(length)
            .map(|number| if letters.is_empty() { number as u8 } else { letters[number % letters.len()] })
            .collect()
    }

    #[test]
    fn every_value_comes_back_as_it_was() {
        let text = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
        let mut values = vec![Vec::new(), vec![PACKED], vec![PACKED; 3], b"short".to_vec(), noise(5_000, 3, &[]), vec![b'A'; 300]];
        for seed in 1..200 {
            let parts = (0..seed % 9).flat_map(|part| {
                let plain = noise((seed * 31 + part * 7) as usize % 200, seed + part, &[]);
                [plain, noise((seed * 13 + part * 11) as usize % 90, seed * 3 + part, text)].concat()
            });
            values.push(parts.collect());
        }
        for value in values {
            let packed = pack(&value);
            let stored = packed.as_deref().unwrap_or(&value);
            assert_eq!(unpack(stored).as_deref(), Some(&value[..]));
        }
    }

    #[test]
    fn keys_of_pins_shrink_to_their_bytes() {
        let value: Vec<u8> =
            (0..100).flat_map(|seed| [&b"\x0a\x3b/"[..], &noise(58, seed + 1, b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")].concat()).collect();
        let packed = pack(&value).expect("shorter");
        assert!(packed.len() < value.len() * 3 / 4, "{} of {}", packed.len(), value.len());
    }

    #[test]
    fn damaged_forms_are_no_value() {
        let packed = pack(&[vec![b'B'; 300], vec![7; 10]].concat()).expect("packed");
        for length in 1..packed.len() {
            let read = unpack(&packed[..length]);
            assert!(read.is_none_or(|read| read.len() < 310), "cut to {length}");
        }
        assert_eq!(unpack(&[PACKED, 0xff, 0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(unpack(&[PACKED, 0, 0xff, 0xff, 0xff, 0x7f]), None);
    }
}
