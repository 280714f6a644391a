//! A pin of a large DAG whose blocks are all here: with raw leaves, of which only the index is asked, and with leaves that are
//! nodes of UnixFS themselves, each of which must be read.

use super::said;
use crate::bench::machine::round as rounded;
use crate::bench::million::Peer;
use crate::bench::process::client;
use crate::bench::slice::{self, Noise};
use anyhow::Context;
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// The size; fewer blocks are taken where fewer are asked for.
const BLOCKS: u64 = 1_000_000;
/// Bytes of a leaf.
const LEAF: u64 = 128;

/// One pin of each kind.
pub fn run(root: &Path, place: &Path, blocks: u64, round: usize) -> anyhow::Result<Vec<Value>> {
    let binary = slice::build(root)?;
    let blocks = blocks.min(BLOCKS);
    let file = place.join("file.bin");
    let mut figures = Vec::new();
    for (leaves, version) in [("raw", "1"), ("unixfs", "0")] {
        // Blocks of the other kind would be here already, were the bytes the same.
        write_noise(&file, blocks * LEAF, leaves.len() as u64)?;
        let peer = Peer::start(&binary, place, leaves, None)?;
        let mut add = Command::new(&binary);
        add.args(["add", "--no-pin", "--quiet", "--cid-version", version, "--chunker", &format!("size-{LEAF}"), "--api", peer.api()]);
        let (begun, cpu) = (Instant::now(), peer.cpu());
        let said_root = client(add.arg(&file))?;
        let (added, added_cpu) = (begun.elapsed(), peer.cpu() - cpu);
        let cid = said_root.trim().lines().last().context("the root of the file")?.to_owned();
        // Started again: memory at rest is not that of a peer that has just added all this.
        let addresses = peer.stop()?;
        let peer = Peer::start_again(&binary, place, leaves, &addresses)?;
        std::thread::sleep(Duration::from_secs(2));
        let (rest, cpu, watch, begun) = (peer.anon(), peer.cpu(), peer.watch(), Instant::now());
        client(Command::new(&binary).args(["pin", "add", &cid, "--wait", "1", "--api", peer.api()]))?;
        let (seconds, used, peak) = (begun.elapsed().as_secs_f64(), peer.cpu() - cpu, watch.peak());
        let figure = json!({
            "subject": "pinfold", "work": format!("pin of what is here, {leaves} leaves"), "leaves": blocks, "seconds": rounded(seconds),
            "cpu_s": rounded(used), "anon_mib_at_rest": rest, "anon_mib_more": rounded(peak - rest),
            "added_s": rounded(added.as_secs_f64()), "added_cpu_s": rounded(added_cpu),
        });
        figures.push(said(figure, round));
        drop(peer);
        std::fs::remove_dir_all(place.join(leaves))?;
    }
    Ok(figures)
}

fn write_noise(path: &Path, bytes: u64, seed: u64) -> anyhow::Result<()> {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).context("making the file")?);
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15 ^ seed);
    let mut buffer = vec![0; 1 << 16];
    let mut left = bytes;
    while left > 0 {
        noise.fill(&mut buffer);
        let count = left.min(buffer.len() as u64);
        file.write_all(&buffer[..count as usize])?;
        left -= count;
    }
    file.flush().context("writing the file")
}
