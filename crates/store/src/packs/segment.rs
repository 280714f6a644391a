//! Reading a segment's file: one record, or all of them in order, also through damage.

use super::record::{RECORD_HEADER, RecordHeader, Salt};
use std::fs::File;

/// A scan reads this much at a time.
const CHUNK: usize = 1 << 20;

/// Reads `length` bytes at `offset`; fewer at the end of the file.
pub(super) fn read_at(file: &File, offset: u64, length: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(length);
    fill(file, offset, length, &mut bytes)?;
    Ok(bytes)
}

fn fill(file: &File, mut offset: u64, length: usize, bytes: &mut Vec<u8>) -> std::io::Result<()> {
    let wanted = bytes.len() + length;
    bytes.reserve_exact(length);
    while bytes.len() < wanted {
        // The vector may have more room than asked for; what comes beyond is cut off again.
        let count = match rustix::io::pread(file, rustix::buffer::spare_capacity(bytes), offset) {
            Ok(0) => break,
            Ok(count) => count,
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        offset += count as u64;
    }
    bytes.truncate(wanted);
    Ok(())
}

/// A record that a scan found intact.
#[derive(Debug)]
pub(super) struct Scanned<'a> {
    pub(super) offset: u64,
    pub(super) multihash: &'a [u8],
    pub(super) data: &'a [u8],
}

/// Walks the intact records between two places of a segment, stepping over whatever is not one.
pub(super) struct Scan<'a> {
    file: &'a File,
    salt: Salt,
    position: u64,
    end: u64,
    buffer: Vec<u8>,
    buffer_at: u64,
    /// Where the last intact record ended (at first: where the scan began).
    intact_to: u64,
    damaged: u64,
}

impl<'a> Scan<'a> {
    pub(super) fn new(file: &'a File, salt: Salt, start: u64, end: u64) -> Scan<'a> {
        Scan { file, salt, position: start, end, buffer: Vec::new(), buffer_at: start, intact_to: start, damaged: 0 }
    }

    /// Where the last intact record ended.
    pub(super) fn intact_to(&self) -> u64 {
        self.intact_to
    }

    /// Bytes before that which belong to no intact record.
    pub(super) fn damaged(&self) -> u64 {
        self.damaged
    }

    /// The next intact record; none at the end.
    pub(super) fn next(&mut self) -> std::io::Result<Option<Scanned<'_>>> {
        while self.position + (RECORD_HEADER as u64) < self.end {
            let Some(header) = self.header()? else {
                self.seek_marker()?;
                continue;
            };
            if self.position + header.size() as u64 > self.end || !self.has(header.size())? {
                self.position += 1;
                continue;
            }
            let from = (self.position - self.buffer_at) as usize;
            if !header.is_intact(&self.buffer[from..from + header.size()], self.salt) {
                self.position += 1;
                continue;
            }
            let offset = self.position;
            self.damaged += offset - self.intact_to;
            self.position += header.size() as u64;
            self.intact_to = self.position;
            let (front, data) = self.buffer[from..from + header.size()].split_at(header.front());
            return Ok(Some(Scanned { offset, multihash: &front[RECORD_HEADER..], data }));
        }
        Ok(None)
    }

    fn header(&mut self) -> std::io::Result<Option<RecordHeader>> {
        if !self.has(RECORD_HEADER)? {
            return Ok(None);
        }
        let from = (self.position - self.buffer_at) as usize;
        Ok(RecordHeader::decode(&self.buffer[from..], self.salt))
    }

    /// Moves to the next place after this one that may begin a record.
    fn seek_marker(&mut self) -> std::io::Result<()> {
        self.position += 1;
        while self.has(RECORD_HEADER)? {
            let from = (self.position - self.buffer_at) as usize;
            let first = self.salt.marker[0];
            match self.buffer[from..].iter().position(|byte| *byte == first) {
                Some(0) if self.buffer[from..].starts_with(&self.salt.marker) => return Ok(()),
                Some(0) => self.position += 1,
                Some(skip) => self.position += skip as u64,
                None => self.position = self.buffer_at + self.buffer.len() as u64,
            }
        }
        self.position = self.end;
        Ok(())
    }

    /// Brings `length` bytes from the position on into the buffer; false when the segment ends before.
    fn has(&mut self, length: usize) -> std::io::Result<bool> {
        let from = (self.position - self.buffer_at) as usize;
        if from + length <= self.buffer.len() {
            return Ok(true);
        }
        self.buffer.drain(..from.min(self.buffer.len()));
        self.buffer_at = self.position;
        let wanted = length.max(CHUNK).min((self.end - self.position) as usize);
        let missing = wanted.saturating_sub(self.buffer.len());
        let at = self.buffer_at + self.buffer.len() as u64;
        fill(self.file, at, missing, &mut self.buffer)?;
        Ok(length <= self.buffer.len())
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::encode_front;
    use super::*;

    const SALT: Salt = Salt { marker: *b"mark", seed: 9 };

    /// Writes records of the given sizes, damages the file as told and lists what a scan finds: number@offset, then how far it was
    /// intact and how many bytes were damaged before that.
    fn check(sizes: &[usize], damage: impl FnOnce(&mut Vec<u8>), expected: &str) {
        let mut bytes = Vec::new();
        for (number, size) in sizes.iter().enumerate() {
            let data = vec![b'm'; *size];
            encode_front(&mut bytes, SALT, &[number as u8], &data);
            bytes.extend_from_slice(&data);
        }
        damage(&mut bytes);
        let file = tempfile::NamedTempFile::new().expect("a file for the test");
        std::fs::write(file.path(), &bytes).expect("writes");
        let file = File::open(file.path()).expect("opens");
        let mut scan = Scan::new(&file, SALT, 0, bytes.len() as u64);
        let mut found = String::new();
        while let Some(record) = scan.next().expect("reads") {
            assert!(record.data.iter().all(|byte| *byte == b'm'));
            found += &format!("{}@{} ", record.multihash[0], record.offset);
        }
        assert_eq!(format!("{found}{} {}", scan.intact_to(), scan.damaged()), expected);
    }

    #[test]
    fn all_records_in_order() {
        check(&[], |_| (), "0 0");
        check(&[0, 1, 100], |_| (), "0@0 1@14 2@29 143 0");
        check(&[3 << 20, 5], |_| (), "0@0 1@3145742 3145761 0");
    }

    #[test]
    fn a_torn_end_is_left_out() {
        check(&[10, 10], |bytes| bytes.truncate(47), "0@0 24 0");
        check(&[10], |bytes| bytes.extend([0; 5000]), "0@0 24 0");
        check(&[10], |bytes| bytes.truncate(5), "0 0");
        check(&[10], |bytes| bytes.extend(b"mark"), "0@0 24 0");
    }

    #[test]
    fn records_behind_damage_are_found() {
        check(&[10, 10, 10], |bytes| bytes[30] ^= 1, "0@0 2@48 72 24");
        check(&[10, 2 << 20, 10], |bytes| bytes[100] ^= 1, "0@0 2@2097190 2097214 2097166");
        check(&[10, 10, 10], |bytes| bytes[..48].fill(0), "2@48 72 48");
        check(&[10, 10], |bytes| bytes[8] = 1, "1@24 48 24");
    }
}
