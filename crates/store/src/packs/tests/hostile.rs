//! Segments of any bytes: what a scan finds in them is exactly what was written there, and nothing makes it panic or run on.

use super::super::record::{RECORD_HEADER, RecordHeader, SEGMENT_HEADER, decode_segment_header, encode_front, encode_segment_header};
use super::super::segment::Scan;
use super::*;
use fuzz::{Plan, Target};
use std::io::Write;

const SALT: Salt = Salt { marker: *b"mark", seed: 9 };

fn segment_of(records: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut bytes = encode_segment_header(7, SALT).to_vec();
    for (multihash, data) in records {
        encode_front(&mut bytes, SALT, multihash, data);
        bytes.extend_from_slice(data);
    }
    bytes
}

/// Understood when an intact record was found.
fn read(input: &[u8]) -> bool {
    let _ = (decode_segment_header(input, 7), Location::decode(input));
    let _ = RecordHeader::decode(input, SALT).map(|header| (header.size(), header.front()));
    let mut file = tempfile::tempfile().expect("a file for the test");
    file.write_all(input).expect("writes");
    let (start, end) = (SEGMENT_HEADER.min(input.len()) as u64, input.len() as u64);
    let mut scan = Scan::new(&file, SALT, start, end);
    let (mut at, mut found) = (start, 0);
    while let Some(record) = scan.next().expect("reads") {
        assert!(record.offset >= at, "records over each other");
        let mut written = Vec::new();
        encode_front(&mut written, SALT, record.multihash, record.data);
        written.extend_from_slice(record.data);
        assert!(input[record.offset as usize..].starts_with(&written), "a record that does not stand there");
        at = record.offset + written.len() as u64;
        found += 1;
    }
    assert_eq!(scan.intact_to(), at);
    assert!(scan.damaged() <= at - start && found <= input.len() / RECORD_HEADER);
    found > 0
}

#[test]
fn segments_of_any_bytes_give_what_was_written_there() {
    let mark = b"markmarkmark".repeat(20);
    let seeds = vec![
        segment_of(&[]),
        segment_of(&[(&name(1), b"some data"), (&name(2), b""), (b"m", &mark)]),
        segment_of(&[(&name(3), &data(5)), (&[7; 255], b"x")]),
    ];
    fuzz::check(Target { name: "segment", decode: read }, seeds, Plan::of_environment(10_000, 1));
}
