//! How fast content comes into a node: cut, hashed, appended, durable.
//!
//! `cargo run --release -p ipfs-embedded --example add_speed -- [MiB] [folder]` adds one file of so many MiB (1024) in chunks of 256 KiB
//! (raw leaves, CIDv1) from memory into a node in a temporary folder, then 10,000 files of 4 KiB, then reads the file back, then
//! collects everything as garbage; prints wall time and CPU for each. The bytes differ everywhere and do not compress; making them
//! (one copy) is part of the CPU shown.

use bytes::{Bytes, BytesMut};
use dag::import::FileOptions;
use futures::stream::{self, Stream, StreamExt};
use ipfs::adding::{Adder, NodeSink, add_file};
use ipfs::conformance::sample::noise;
use ipfs::{Blocks, Source};
use ipfs_embedded::{EmbeddedNode, EmbeddedOptions};
use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use store::{DiskOptions, DiskStore, PackOptions, PackStore};
use types::{ByteCount, Owner};

const PIECE: usize = 1 << 20;
const SMALL_FILES: u64 = 10_000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mib: u64 = arguments.next().map_or(Ok(1024), |text| text.parse())?;
    let parent = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::tempdir_in(parent)?;
    let index = Arc::new(DiskStore::open(&dir.path().join("state"), DiskOptions::default())?);
    let packs = PackStore::open(&dir.path().join("packs"), index.clone(), PackOptions::with_limit(ByteCount(1 << 40)))?;
    let node = EmbeddedNode::open(index, Arc::new(packs), None, EmbeddedOptions::default())?;

    let timer = Timer::start();
    let mut sink = NodeSink::new(node.clone(), Owner::Adding(1));
    let root = add_file(pieces(mib), &FileOptions::v1(), &mut sink, &mut |_| ()).await?;
    sink.finish().await?;
    timer.print(&format!("one file of {mib} MiB"), mib << 20, 1);

    let timer = Timer::start();
    let mut sink = NodeSink::new(node.clone(), Owner::Adding(1));
    let mut adder = Adder::new(&mut sink);
    let base = noise(1, 4096);
    for number in 0..SMALL_FILES {
        let mut content = BytesMut::from(&base[..]);
        content[..8].copy_from_slice(&number.to_le_bytes());
        adder.add_file(stream::iter([Ok(content.freeze())]), &FileOptions::v1(), &mut |_| ()).await?;
    }
    adder.finish().await?;
    sink.finish().await?;
    timer.print("10,000 files of 4 KiB", SMALL_FILES * 4096, SMALL_FILES);

    let timer = Timer::start();
    let mut read = 0;
    let mut above = vec![root.cid];
    while let Some(cid) = above.pop() {
        let data = node.get(&cid, &Source::local()).await?;
        above.extend(dag::links(&cid, &data)?);
        read += if cid.codec() == dag::codec::RAW { data.len() as u64 } else { 0 };
    }
    timer.print("reading the file, block by block", read, 1);
    if read != root.size {
        return Err(format!("read {read} bytes of {}", root.size).into());
    }

    let timer = Timer::start();
    node.release(&Owner::Adding(1)).await?;
    let freed = node.collect_garbage().await?;
    timer.print("collecting all of it", freed.get(), 1);
    Ok(())
}

/// The bytes of the file, in pieces that are all different.
fn pieces(mib: u64) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let base = noise(1, PIECE);
    stream::iter(0..mib).map(move |number| {
        let mut piece = BytesMut::from(&base[..]);
        for (index, chunk) in piece.chunks_mut(256 << 10).enumerate() {
            chunk[..8].copy_from_slice(&(number * 4 + index as u64).to_le_bytes());
        }
        Ok(piece.freeze())
    })
}

struct Timer {
    wall: Instant,
    cpu: f64,
}

impl Timer {
    fn start() -> Timer {
        Timer { wall: Instant::now(), cpu: cpu_seconds() }
    }

    fn print(&self, what: &str, bytes: u64, files: u64) {
        let (wall, cpu) = (self.wall.elapsed().as_secs_f64(), cpu_seconds() - self.cpu);
        let gigabytes = bytes as f64 / 1e9;
        let per_file = if files > 1 {
            format!(", {:.0} files/s, {:.3} CPU-s per 1,000 files", files as f64 / wall, cpu / files as f64 * 1e3)
        } else {
            String::new()
        };
        println!("{what}: {wall:.2} s, {:.0} MB/s, {cpu:.2} CPU-s ({:.2} per GB){per_file}", gigabytes * 1e3 / wall, cpu / gigabytes);
    }
}

/// User and system time of this process; zero where it cannot be read.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Fields 14 and 15, counted behind the name, which may hold blanks; in ticks of a hundredth of a second.
    let times = stat.rsplit_once(") ").map_or("", |(_, fields)| fields).split(' ').skip(11).take(2);
    times.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}
