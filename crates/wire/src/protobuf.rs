//! The little of protobuf that Go's formats need: a bounded reader of fields and helpers that write them.
//!
//! The reader hands out slices of its input and never allocates. Groups (wire types 3 and 4) are refused: no format here has them.

/// Why bytes are no protobuf message, or not of the expected shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// The bytes end inside a field.
    #[error("protobuf: the bytes end inside a field")]
    Truncated,
    /// A varint is longer than ten bytes or above 64 bits.
    #[error("protobuf: a varint does not fit 64 bits")]
    Varint,
    /// A field number of zero or above 2^29.
    #[error("protobuf: field number {0} is out of range")]
    FieldNumber(u64),
    /// A wire type that no format here uses.
    #[error("protobuf: wire type {0} is not taken")]
    WireType(u8),
    /// A known field has another wire type than its format says.
    #[error("protobuf: field {0} has the wrong wire type")]
    WrongKind(u32),
    /// A string field is not UTF-8.
    #[error("protobuf: field {0} is not UTF-8")]
    NotUtf8(u32),
}

/// The value of one field as it stands on the wire.
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

/// One field of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// Its number.
    pub number: u32,
    /// Its value.
    pub value: Value<'a>,
}

impl<'a> Field<'a> {
    /// The value of a field that must be length-delimited.
    pub fn bytes(&self) -> Result<&'a [u8], ProtobufError> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(ProtobufError::WrongKind(self.number)),
        }
    }

    /// The value of a string field.
    pub fn text(&self) -> Result<&'a str, ProtobufError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| ProtobufError::NotUtf8(self.number))
    }

    /// The value of an unsigned, enum or bool field.
    pub fn uint(&self) -> Result<u64, ProtobufError> {
        match self.value {
            Value::Varint(number) => Ok(number),
            _ => Err(ProtobufError::WrongKind(self.number)),
        }
    }

    /// The value of a `sint32` field (zigzag; the upper half of a longer varint is dropped, as Go does).
    pub fn sint32(&self) -> Result<i32, ProtobufError> {
        let raw = self.uint()? as u32;
        Ok(((raw >> 1) as i32) ^ -((raw & 1) as i32))
    }

    /// The value of an `int32` field (two's complement, the upper half dropped).
    pub fn int32(&self) -> Result<i32, ProtobufError> {
        Ok(self.uint()? as i32)
    }
}

/// Walks the fields of one message.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first field.
    pub fn new(message: &'a [u8]) -> Reader<'a> {
        Reader { rest: message }
    }

    /// What has not been read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn varint(&mut self) -> Result<u64, ProtobufError> {
        let mut number = 0u64;
        for position in 0..10 {
            let (&byte, rest) = self.rest.split_first().ok_or(ProtobufError::Truncated)?;
            self.rest = rest;
            if position == 9 && byte > 1 {
                return Err(ProtobufError::Varint);
            }
            number |= u64::from(byte & 0x7f) << (7 * position);
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(ProtobufError::Varint)
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], ProtobufError> {
        let length = usize::try_from(length).map_err(|_| ProtobufError::Truncated)?;
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(ProtobufError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn field(&mut self) -> Result<Field<'a>, ProtobufError> {
        let tag = self.varint()?;
        let number = tag >> 3;
        if number == 0 || number >= 1 << 29 {
            return Err(ProtobufError::FieldNumber(number));
        }
        let value = match (tag & 7) as u8 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().map_err(|_| ProtobufError::Truncated)?)),
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.take(4)?.try_into().map_err(|_| ProtobufError::Truncated)?)),
            other => return Err(ProtobufError::WireType(other)),
        };
        Ok(Field { number: number as u32, value })
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Result<Field<'a>, ProtobufError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

/// How many bytes `number` takes as a varint.
pub fn varint_len(number: u64) -> usize {
    (64 - (number | 1).leading_zeros() as usize).div_ceil(7)
}

/// Writes a varint.
pub fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Writes a length-delimited field, empty or not.
pub fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_length(out, number, bytes.len());
    out.extend_from_slice(bytes);
}

/// Writes the tag and length of a length-delimited field whose `length` bytes the caller writes next.
pub fn put_length(out: &mut Vec<u8>, number: u32, length: usize) {
    put_varint(out, u64::from(number) << 3 | 2);
    put_varint(out, length as u64);
}

/// Writes a length-delimited field unless it is empty (proto3).
pub fn put_bytes_if(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    if !bytes.is_empty() {
        put_bytes(out, number, bytes);
    }
}

/// Writes a varint field, zero or not.
pub fn put_uint(out: &mut Vec<u8>, number: u32, value: u64) {
    put_varint(out, u64::from(number) << 3);
    put_varint(out, value);
}

/// Writes a varint field unless it is zero (proto3).
pub fn put_uint_if(out: &mut Vec<u8>, number: u32, value: u64) {
    if value != 0 {
        put_uint(out, number, value);
    }
}

/// Writes a `sint32` field unless it is zero (proto3).
pub fn put_sint32_if(out: &mut Vec<u8>, number: u32, value: i32) {
    put_uint_if(out, number, u64::from((value << 1 ^ value >> 31) as u32));
}

/// Writes an `int32` field unless it is zero (proto3): negative numbers take ten bytes.
pub fn put_int32_if(out: &mut Vec<u8>, number: u32, value: i32) {
    put_uint_if(out, number, i64::from(value) as u64);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(bytes: &[u8]) -> Result<Vec<Field<'_>>, ProtobufError> {
        Reader::new(bytes).collect()
    }

    #[test]
    fn numbers_read_back() {
        for number in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            put_uint(&mut out, 5, number);
            assert_eq!(out.len(), 1 + varint_len(number), "{number}");
            assert_eq!(fields(&out), Ok(vec![Field { number: 5, value: Value::Varint(number) }]));
        }
    }

    #[test]
    fn signed_numbers_read_back() {
        for number in [1, -1, 63, -64, i32::MAX, i32::MIN] {
            let mut zigzag = Vec::new();
            put_sint32_if(&mut zigzag, 1, number);
            assert_eq!(fields(&zigzag).expect("own bytes")[0].sint32(), Ok(number));
            let mut plain = Vec::new();
            put_int32_if(&mut plain, 1, number);
            assert_eq!(fields(&plain).expect("own bytes")[0].int32(), Ok(number));
        }
    }

    #[test]
    fn damaged_messages_are_named() {
        for (bytes, error) in [
            (&[0x0a, 5, 1][..], ProtobufError::Truncated),
            (&[0x08], ProtobufError::Truncated),
            (&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2], ProtobufError::Varint),
            (&[0x00, 0], ProtobufError::FieldNumber(0)),
            (&[0x0b], ProtobufError::WireType(3)),
            (&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], ProtobufError::Truncated),
        ] {
            assert_eq!(fields(bytes), Err(error), "{bytes:02x?}");
        }
    }
}
