//! How fast content goes from one node to another over the loopback: over a block lane, and by a pin over bitswap.
//!
//! `cargo run --release -p ipfs-embedded --example copy_speed -- [MiB] [listen address]`; both nodes are in this process, in temporary
//! folders, so the CPU shown is that of both.

use bytes::{Bytes, BytesMut};
use dag::import::FileOptions;
use futures::stream;
use ipfs::adding::add_file;
use ipfs::conformance::sample::noise;
use ipfs::{Block, Blocks, NodeInfo, PinTask, Pins, Source};
use ipfs_embedded::{EmbeddedNode, EmbeddedOptions};
use net::{Admission, BlockLane, Host, HostOptions, LaneHeader, LaneKind};
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use store::{DiskOptions, DiskStore, PackOptions, PackStore};
use tokio::sync::watch;
use types::{ByteCount, Depth, Owner, PeerId};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mib: u64 = arguments.next().map_or(Ok(256), |text| text.parse())?;
    let listen = arguments.next().unwrap_or_else(|| "/ip4/127.0.0.1/tcp/0".to_owned());
    let dir = tempfile::tempdir()?;
    let (from, from_host) = open(&dir.path().join("from"), 1, &listen).await?;
    let (lane_to, _) = open(&dir.path().join("lane"), 2, &listen).await?;
    let (pin_to, _) = open(&dir.path().join("pin"), 3, &listen).await?;

    let mut blocks: Vec<Block> = Vec::new();
    let root = add_file(stream::iter(pieces(mib).map(Ok)), &FileOptions::v1(), &mut blocks, &mut |_| ()).await?;
    from.put_verified(&Owner::User, blocks.clone()).await?;
    from.connect(&lane_to.addresses().await).await;
    pin_to.connect(&from.addresses().await).await;

    lane_to.allow_lanes(Arc::new(|_, _| Admission::Admitted));
    let begin = Instant::now();
    let header = LaneHeader { lease: 1, cluster_peer: PeerId::from_ed25519(&[1; 32]), kind: LaneKind::Copy };
    let to = lane_to.id().ok_or("no network")?;
    let lane = BlockLane::open(&from_host, to, header).await?;
    for block in &blocks {
        lane.send(block.cid, block.data.clone()).await?;
    }
    lane.finish().await?;
    print("a lane", mib, begin);

    let begin = Instant::now();
    let source = Source { holders: from.id().into_iter().collect(), ..Source::default() };
    let task = PinTask { owner: Owner::User, cid: root.cid, depth: Depth::Recursive, source };
    let pinned = pin_to.pin(task, Arc::new(watch::Sender::default())).await?;
    print("a pin over bitswap", mib, begin);
    if pinned.blocks != blocks.len() as u64 || !lane_to.has(&[root.cid]).await?[0] {
        return Err("not everything arrived".into());
    }
    Ok(())
}

async fn open(dir: &Path, key: u8, listen: &str) -> Result<(Arc<EmbeddedNode>, Host), Box<dyn Error>> {
    let options = HostOptions { listen: vec![listen.to_owned()], ..HostOptions::node([key; 32]) };
    let (host, _) = Host::start(options).await?;
    let index = Arc::new(DiskStore::open(&dir.join("state"), DiskOptions::default())?);
    let packs = PackStore::open(&dir.join("packs"), index.clone(), PackOptions::with_limit(ByteCount(1 << 40)))?;
    Ok((EmbeddedNode::open(index, Arc::new(packs), Some(host.clone()), EmbeddedOptions::default())?, host))
}

/// Bytes that differ everywhere.
fn pieces(mib: u64) -> impl Iterator<Item = Bytes> {
    let base = noise(1, 256 << 10);
    (0..mib * 4).map(move |number| {
        let mut piece = BytesMut::from(&base[..]);
        piece[..8].copy_from_slice(&number.to_le_bytes());
        piece.freeze()
    })
}

fn print(what: &str, mib: u64, begin: Instant) {
    let wall = begin.elapsed().as_secs_f64();
    println!("{mib} MiB over {what}: {wall:.2} s, {:.0} MB/s", (mib << 20) as f64 / 1e6 / wall);
}
