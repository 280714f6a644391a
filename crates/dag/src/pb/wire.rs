//! The few pieces of protobuf that dag-pb and UnixFS use: varints, and fields with tag and wire type.

use crate::DecodeError;

/// Reads fields from a protobuf message, front to back, without copying.
pub struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

/// One field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64(u64),
    /// Wire type 2.
    Bytes(&'a [u8]),
    /// Wire type 5.
    Fixed32(u32),
}

impl<'a> Reader<'a> {
    /// Reads `data`; `what` names it in errors.
    pub fn new(data: &'a [u8], what: &'static str) -> Reader<'a> {
        Reader { rest: data, what }
    }

    /// The next field's number and value; `None` at the end.
    pub fn field(&mut self) -> Result<Option<(u64, Value<'a>)>, DecodeError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.array()?)),
            _ => return Err(DecodeError::malformed(self.what, "wire type that does not exist")),
        };
        Ok(Some((tag >> 3, value)))
    }

    /// The next bare varint of a packed list; `None` at the end.
    pub fn packed_varint(&mut self) -> Result<Option<u64>, DecodeError> {
        if self.rest.is_empty() { Ok(None) } else { self.varint().map(Some) }
    }

    fn varint(&mut self) -> Result<u64, DecodeError> {
        let (value, used) = varint(self.rest).ok_or_else(|| self.broken_varint())?;
        self.rest = &self.rest[used..];
        Ok(value)
    }

    fn broken_varint(&self) -> DecodeError {
        if self.rest.len() < 10 { DecodeError::truncated(self.what) } else { DecodeError::malformed(self.what, "varint over 64 bits") }
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], DecodeError> {
        let length = usize::try_from(length).ok().filter(|length| *length <= self.rest.len());
        let length = length.ok_or_else(|| DecodeError::truncated(self.what))?;
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let taken = self.take(N as u64)?;
        taken.try_into().map_err(|_| DecodeError::truncated(self.what))
    }
}

impl<'a> Value<'a> {
    /// The bytes, if it is a field of bytes.
    pub fn bytes(self, what: &'static str) -> Result<&'a [u8], DecodeError> {
        if let Value::Bytes(bytes) = self { Ok(bytes) } else { Err(DecodeError::malformed(what, "wrong wire type, bytes expected")) }
    }

    /// The number, if it is a varint.
    pub fn varint(self, what: &'static str) -> Result<u64, DecodeError> {
        if let Value::Varint(number) = self { Ok(number) } else { Err(DecodeError::malformed(what, "wrong wire type, varint expected")) }
    }
}

/// Reads a varint from the front of `data`: value and bytes used. `None` if it ends too early or does not fit 64 bits.
pub fn varint(data: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0u64;
    for (index, byte) in data.iter().take(10).enumerate() {
        let low = u64::from(byte & 0x7f);
        if index == 9 && low > 1 {
            return None;
        }
        value |= low << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, index + 1));
        }
    }
    None
}

/// How many bytes a varint takes.
pub fn varint_length(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Appends a varint.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a varint field with a number below 16.
pub fn put_number(out: &mut Vec<u8>, field: u8, value: u64) {
    out.push(field << 3);
    put_varint(out, value);
}

/// Appends tag and length of a field of bytes with a number below 16; the bytes follow by the caller's hand.
pub fn put_length(out: &mut Vec<u8>, field: u8, length: usize) {
    out.push(field << 3 | 2);
    put_varint(out, length as u64);
}

/// The size of a field of bytes with a number below 16.
pub fn bytes_field_length(length: usize) -> usize {
    1 + varint_length(length as u64) + length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_go_round() {
        for value in [0, 1, 127, 128, 300, 16_383, 16_384, u64::from(u32::MAX), u64::MAX / 2, u64::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(varint(&out), Some((value, out.len())));
            assert_eq!(varint_length(value), out.len(), "{value}");
            assert_eq!(varint(&out[..out.len() - 1]), None);
        }
    }

    #[test]
    fn varints_over_64_bits_are_refused() {
        assert_eq!(varint(&[0xff; 11]), None);
        assert_eq!(varint(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]), None);
    }
}
