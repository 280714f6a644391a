//! How fast files are imported on one core: `cargo bench -p dag`. Prints MB (10^6 bytes) per second of the wall clock; run it on a quiet machine.
//!
//! The ceiling is the hash: the first line is sha2-256 alone.

#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use bytes::Bytes;
use dag::HashFn;
use dag::import::{DirectoryBuilder, DirectoryOptions, FileBuilder, FileOptions};
use std::hint::black_box;
use std::time::Instant;

const PORTION: usize = 1 << 20;
const LENGTH: usize = 512 << 20;

fn main() {
    let data = portion();
    report("sha2-256 alone", || {
        (0..LENGTH / PORTION).for_each(|_| drop(black_box(HashFn::SHA2_256.digest(&data))));
    });
    let v0 = FileOptions::default;
    let wide = |text: &str| FileOptions { chunker: text.parse().expect("valid"), ..FileOptions::v1() };
    import("v0, 256 KiB", &data, PORTION, v0());
    import("v1, 256 KiB", &data, PORTION, FileOptions::v1());
    import("v1, 1 MiB", &data, PORTION, wide("size-1048576"));
    import("v1, 256 KiB, in portions of 64 KiB", &data, 64 << 10, FileOptions::v1());
    import("v1, 256 KiB, blake3", &data, PORTION, FileOptions { hash: HashFn::BLAKE3, ..FileOptions::v1() });
    import("v1, buzhash", &data, PORTION, wide("buzhash"));
    import("v1, rabin", &data, PORTION, wide("rabin"));
    directory();
}

/// Noise, so that rolling hashes cut as they do in real files.
fn portion() -> Bytes {
    let mut x = 0x9E37_79B9_7F4A_7C15u64;
    let words = std::iter::repeat_with(|| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x.to_le_bytes()
    });
    words.take(PORTION / 8).flatten().collect::<Vec<u8>>().into()
}

fn import(name: &str, data: &Bytes, portion: usize, options: FileOptions) {
    report(name, || {
        let mut file = FileBuilder::new(options.clone()).expect("valid");
        let mut blocks = 0u64;
        for start in (0..LENGTH).step_by(portion) {
            let start = start % PORTION;
            file.push(data.slice(start..start + portion), &mut |_| blocks += 1).expect("small");
        }
        black_box(file.finish(&mut |_| blocks += 1).expect("small"));
        black_box(blocks);
    });
}

fn report(name: &str, mut run: impl FnMut()) {
    let start = Instant::now();
    run();
    println!("{name}: {:.0} MB/s", LENGTH as f64 / 1e6 / start.elapsed().as_secs_f64());
}

fn directory() {
    let cid = *dag::Block::new(dag::codec::RAW, HashFn::SHA2_256, Bytes::new()).as_ref().map(|block| &block.cid).expect("known");
    let start = Instant::now();
    let mut directory = DirectoryBuilder::new(DirectoryOptions::default()).expect("valid");
    for n in 0..100_000 {
        directory.add(format!("entry-{n:06}").as_bytes(), &cid, n).expect("short");
    }
    black_box(directory.finish(&mut |_| ()).expect("small"));
    println!("trie of 100,000 entries: {:.0} ms", start.elapsed().as_secs_f64() * 1e3);
}
