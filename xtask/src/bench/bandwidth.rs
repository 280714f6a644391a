//! How exactly limits of bandwidth are kept: bytes that arrive at a reader over some seconds, for each net and direction.
//!
//! Two peers; one holds a file, a client reads it through the other's gateway. What the client gets is measured, not what the peers count.

use super::process::{Running, client, until};
use super::slice::Noise;
use super::{Options, machine, ours};
use anyhow::Context;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// The first second does not count: windows open, a burst goes.
const WARM_UP: Duration = Duration::from_secs(2);
const MEASURED: Duration = Duration::from_secs(6);
/// In MB/s.
const RATES: [f64; 3] = [1.0, 5.0, 25.0];

struct Peer {
    _running: Running,
    api: String,
    gateway: String,
}

/// `cargo xtask bench bandwidth`
pub fn run(root: &Path, options: &Options, load: f64) -> anyhow::Result<()> {
    let binary = super::slice::build(root)?;
    let folder = std::env::temp_dir().join(format!("pinfold-bandwidth-{}", std::process::id()));
    let mut rows = Vec::new();
    println!("{:<12} {:>10} {:>12} {:>8}", "limit", "MB/s", "measured", "off by");
    for net in ["lan", "wan"] {
        let place = folder.join(net);
        let peers = [start(&binary, &place, 0, net, None)?, {
            let first = std::fs::read_to_string(place.join("peer0/api")).context("the first peer's address")?;
            start(&binary, &place, 1, net, Some(first.trim()))?
        }];
        until("the peers see each other", Duration::from_secs(60), || {
            let seen = client(Command::new(&binary).args(["peers", "--json", "--api", &peers[0].api])).ok()?;
            (seen.matches("\"up\"").count() == 2).then_some(())
        })?;
        std::thread::sleep(Duration::from_secs(2));
        let (root, holder) = content(&binary, &place, &peers)?;
        for rate in RATES {
            for (way, peer) in [("up", holder), ("down", 1 - holder)] {
                let limit = format!("--{net}-{way}");
                set(&binary, &peers[peer], &[&limit, &format!("{rate}MB/s")])?;
                let measured = measure(&peers[1 - holder].gateway, &root)?;
                set(&binary, &peers[peer], &[&limit, "none"])?;
                let off = (measured / rate - 1.0) * 100.0;
                println!("{:<12} {rate:>10} {measured:>12.3} {off:>+7.1}%", format!("{net} {way}"));
                rows.push(json!({ "limit": format!("{net}_{way}"), "rate": rate, "measured": machine::round(measured), "off_percent": machine::round(off) }));
            }
        }
    }
    std::fs::remove_dir_all(&folder).ok();
    let report = json!({ "bench": "bandwidth", "commit": machine::commit(root), "load": load, "unit": "MB/s at the reader", "rows": rows });
    match &options.out {
        Some(path) => std::fs::write(path, format!("{report:#}\n")).with_context(|| format!("writing {}", path.display())),
        None => Ok(()),
    }
}

fn start(binary: &Path, folder: &Path, index: usize, net: &str, first: Option<&str>) -> anyhow::Result<Peer> {
    let dir = folder.join(format!("peer{index}"));
    std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    // Loopback is the local net unless another range is said to be.
    let lan = if net == "wan" { "[bandwidth]\nlan = [\"10.255.255.255/32\"]\n" } else { "" };
    std::fs::write(dir.join("pinfold.toml"), lan)?;
    let (running, ready) = ours::start_peer(binary, folder, index, first, &[])?;
    let text = |key: &str| ready[key].as_str().unwrap_or_default().to_owned();
    Ok(Peer { _running: running, api: text("api"), gateway: text("gateway") })
}

/// A file of which one peer holds the only copy: its root and which peer.
fn content(binary: &Path, folder: &Path, peers: &[Peer; 2]) -> anyhow::Result<(String, usize)> {
    // Below a unit: what is cut has several holders.
    const BYTES: usize = 240 << 20;
    let path = folder.join("content");
    let mut bytes = vec![0; BYTES];
    Noise(1).fill(&mut bytes);
    std::fs::write(&path, &bytes)?;
    let root =
        client(Command::new(binary).arg("add").arg(&path).args(["--quiet", "--copies", "1", "--wait", "1", "--api", &peers[0].api]))?;
    let root = root.trim().lines().last().unwrap_or_default().to_owned();
    let status = client(Command::new(binary).args(["status", &root, "--json", "--api", &peers[0].api]))?;
    let status: Value = serde_json::from_str(status.trim())?;
    let holder = status["peer_map"]
        .as_object()
        .into_iter()
        .flatten()
        .find_map(|(_, copy)| (copy["status"] == "pinned").then(|| copy["peername"].as_str().unwrap_or_default().to_owned()));
    Ok((root, usize::from(holder.as_deref() == Some("peer1"))))
}

fn set(binary: &Path, peer: &Peer, flags: &[&str]) -> anyhow::Result<()> {
    client(Command::new(binary).args(["limits", "--api", &peer.api, "set"]).args(flags)).map(|_| ())
}

/// MB/s of a read through a gateway.
fn measure(gateway: &str, root: &str) -> anyhow::Result<f64> {
    let host = gateway.trim_start_matches("http://");
    let mut stream = TcpStream::connect(host).context("connecting to the gateway")?;
    write!(stream, "GET /ipfs/{root} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut buffer = vec![0; 1 << 16];
    let begun = Instant::now();
    let (mut bytes, mut from) = (0usize, None);
    loop {
        let count = stream.read(&mut buffer).context("reading from the gateway")?;
        anyhow::ensure!(count > 0, "the file ended before the time was over");
        match from {
            None if begun.elapsed() >= WARM_UP => from = Some(Instant::now()),
            None => {}
            Some(start) => {
                bytes += count;
                let passed = start.elapsed();
                if passed >= MEASURED {
                    return Ok(bytes as f64 / 1e6 / passed.as_secs_f64());
                }
            }
        }
    }
}
