//! Writing as Go's default handle does.

use crate::gotime::GoTime;

/// Writes msgpack values one after the other.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    out: Vec<u8>,
}

impl Writer {
    /// Starts empty.
    pub fn new() -> Writer {
        Writer::default()
    }

    /// What was written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.out
    }

    /// How many bytes were written.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// Nil.
    pub fn nil(&mut self) {
        self.out.push(0xc0);
    }

    /// True or false.
    pub fn bool(&mut self, value: bool) {
        self.out.push(if value { 0xc3 } else { 0xc2 });
    }

    /// A signed number: never in an unsigned form, as Go writes its signed types.
    pub fn int(&mut self, value: i64) {
        if let (-32..=127, Ok(small)) = (value, i8::try_from(value)) {
            self.out.push(small as u8);
        } else if let Ok(value) = i8::try_from(value) {
            self.out.extend([0xd0, value as u8]);
        } else if let Ok(value) = i16::try_from(value) {
            self.marked(0xd1, &value.to_be_bytes());
        } else if let Ok(value) = i32::try_from(value) {
            self.marked(0xd2, &value.to_be_bytes());
        } else {
            self.marked(0xd3, &value.to_be_bytes());
        }
    }

    /// An unsigned number.
    pub fn uint(&mut self, value: u64) {
        if value < 0x80 {
            self.out.push(value as u8);
        } else if let Ok(value) = u8::try_from(value) {
            self.out.extend([0xcc, value]);
        } else if let Ok(value) = u16::try_from(value) {
            self.marked(0xcd, &value.to_be_bytes());
        } else if let Ok(value) = u32::try_from(value) {
            self.marked(0xce, &value.to_be_bytes());
        } else {
            self.marked(0xcf, &value.to_be_bytes());
        }
    }

    /// Bytes or a text: both are raw in the old specification.
    pub fn raw(&mut self, bytes: &[u8]) {
        match bytes.len() {
            length @ 0..32 => self.out.push(0xa0 | length as u8),
            length @ 32..=0xffff => self.marked(0xda, &(length as u16).to_be_bytes()),
            length => self.marked(0xdb, &(length as u32).to_be_bytes()),
        }
        self.out.extend_from_slice(bytes);
    }

    /// A text.
    pub fn text(&mut self, text: &str) {
        self.raw(text.as_bytes());
    }

    /// A time: 4, 8 or 12 raw bytes; the zero time is nil.
    pub fn time(&mut self, time: GoTime) {
        if time.is_zero() {
            return self.nil();
        }
        match (u64::try_from(time.seconds), time.nanos) {
            (Ok(seconds), 0) if seconds <= u64::from(u32::MAX) => self.raw(&(seconds as u32).to_be_bytes()),
            (Ok(seconds), nanos) if seconds >> 34 == 0 => self.raw(&(u64::from(nanos) << 34 | seconds).to_be_bytes()),
            (_, nanos) => {
                let mut bytes = nanos.to_be_bytes().to_vec();
                bytes.extend(time.seconds.to_be_bytes());
                self.raw(&bytes);
            }
        }
    }

    /// The head of an array whose `count` values follow.
    pub fn array(&mut self, count: usize) {
        match count {
            0..16 => self.out.push(0x90 | count as u8),
            16..=0xffff => self.marked(0xdc, &(count as u16).to_be_bytes()),
            _ => self.marked(0xdd, &(count as u32).to_be_bytes()),
        }
    }

    /// The head of a map whose `count` keys and values follow.
    pub fn map(&mut self, count: usize) {
        match count {
            0..16 => self.out.push(0x80 | count as u8),
            16..=0xffff => self.marked(0xde, &(count as u16).to_be_bytes()),
            _ => self.marked(0xdf, &(count as u32).to_be_bytes()),
        }
    }

    /// Bytes that are msgpack already.
    pub fn embed(&mut self, value: &[u8]) {
        self.out.extend_from_slice(value);
    }

    fn marked(&mut self, marker: u8, bytes: &[u8]) {
        self.out.push(marker);
        self.out.extend_from_slice(bytes);
    }
}

/// A map written field by field, as Go writes a struct: the `_if` forms leave out what is zero.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    count: usize,
    body: Writer,
}

impl Fields {
    /// Starts without fields.
    pub fn new() -> Fields {
        Fields::default()
    }

    /// Ends the map and writes it to `out`.
    pub fn finish(self, out: &mut Writer) {
        out.map(self.count);
        out.embed(&self.body.out);
    }

    /// Writes a key; the value is written to what it returns.
    pub fn key(&mut self, key: &str) -> &mut Writer {
        self.count += 1;
        self.body.text(key);
        &mut self.body
    }

    /// A text or bytes unless empty.
    pub fn raw_if(&mut self, key: &str, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.key(key).raw(bytes);
        }
    }

    /// A signed number unless zero.
    pub fn int_if(&mut self, key: &str, value: i64) {
        if value != 0 {
            self.key(key).int(value);
        }
    }

    /// An unsigned number unless zero.
    pub fn uint_if(&mut self, key: &str, value: u64) {
        if value != 0 {
            self.key(key).uint(value);
        }
    }

    /// True, or nothing.
    pub fn bool_if(&mut self, key: &str, value: bool) {
        if value {
            self.key(key).bool(true);
        }
    }

    /// A time unless it is the zero time.
    pub fn time_if(&mut self, key: &str, time: GoTime) {
        if !time.is_zero() {
            self.key(key).time(time);
        }
    }

    /// An array of raw values; none is Go's nil slice and left out, an empty one is written.
    pub fn raws_if<T: AsRef<[u8]>>(&mut self, key: &str, values: Option<&[T]>) {
        let Some(values) = values else { return };
        let out = self.key(key);
        out.array(values.len());
        for value in values {
            out.raw(value.as_ref());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Writer)) -> String {
        let mut out = Writer::new();
        write(&mut out);
        hex::encode(out.into_bytes())
    }

    #[test]
    fn numbers_are_written_as_go_writes_them() {
        for (value, bytes) in [
            (0, "00"),
            (127, "7f"),
            (128, "d10080"),
            (256, "d10100"),
            (40_000, "d200009c40"),
            (9_999_484_193, "d30000000254040521"),
            (-2, "fe"),
            (-32, "e0"),
            (-33, "d0df"),
            (-12345, "d1cfc7"),
        ] {
            assert_eq!(written(|out| out.int(value)), bytes, "{value}");
        }
        for (value, bytes) in [(5, "05"), (128, "cc80"), (256, "cd0100"), (0x0010_0000, "ce00100000"), (1 << 32, "cf0000000100000000")] {
            assert_eq!(written(|out| out.uint(value)), bytes, "{value}");
        }
    }

    #[test]
    fn texts_are_raw() {
        assert_eq!(written(|out| out.text("ping")), "a470696e67");
        assert!(written(|out| out.raw(&[1; 32])).starts_with("da002001"));
        assert!(written(|out| out.raw(&[1; 70_000])).starts_with("db0001117001"));
    }

    #[test]
    fn times_are_raw_texts() {
        let at = |seconds, nanos| GoTime { seconds, nanos };
        for (time, bytes) in [
            (GoTime::ZERO, "c0"),
            (at(1_700_000_000, 0), "a46553f100"),
            (at(1_700_000_000, 123_456_789), "a81d6f34546553f100"),
            (at(-1, 5), "ac00000005ffffffffffffffff"),
        ] {
            assert_eq!(written(|out| out.time(time)), bytes);
        }
    }
}
