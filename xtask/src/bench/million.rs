//! `bench million`: a large pinset on one peer and on three. Loading it, its memory and disk at rest, a restart, lists and status.
//!
//! The content of every pin stands in its CID (identity multihash, 32 bytes), so that each peer can hold it without a network, and each is
//! wished everywhere: the most that a peer can be asked to keep track of. Go's `state import` and `state export` run beside it.

mod http;
mod peer;

use self::http::{Fetched, get};
pub use self::peer::{Peer, swarm_of};
use super::machine::{commit, load, round};
use super::process::{client, cpu_of_ended_children};
use super::{Options, slice};
use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long the other peers may take to have every pin.
const SPREAD: Duration = Duration::from_secs(1200);
/// Go takes three minutes for a million.
const GO_PINS_MAX: usize = 100_000;

/// Runs all of it.
pub fn run(root: &Path, options: &Options, load_before: f64) -> anyhow::Result<()> {
    let binary = slice::build(root)?;
    let folder = std::env::temp_dir().join(format!("pinfold-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).context("making a folder for the benchmark")?;
    let outcome = measure(root, options, load_before, &binary, &folder);
    std::fs::remove_dir_all(&folder).ok();
    outcome
}

fn measure(root: &Path, options: &Options, load_before: f64, binary: &Path, folder: &Path) -> anyhow::Result<()> {
    let pins = options.pins;
    let file = folder.join("pins.ndjson");
    write_pins(&file, pins)?;
    // A tracker may need long for a million pins; the lists are measured after it or when this is over.
    let limit = Duration::from_secs(options.settle);
    let mut figures = one_peer(binary, folder, &file, pins, limit)?;
    figures.extend(three_peers(binary, folder, &file, pins, limit)?);
    match &options.go {
        Some(bin) => figures.extend(go(bin, folder, pins.min(GO_PINS_MAX))?),
        None => println!("skipped: Go needs PINFOLD_PEERS (the folder of ipfs-cluster-service)"),
    }
    let report = json!({
        "bench": "million", "commit": commit(root), "pins": pins, "load_before": load_before, "load_after": load()?, "figures": figures,
    });
    let out = options.out.clone().unwrap_or_else(|| root.join("target/bench-million.json"));
    std::fs::write(&out, serde_json::to_vec_pretty(&report)?).with_context(|| format!("writing {}", out.display()))?;
    println!("written to {}", out.display());
    Ok(())
}

fn said(subject: &str, work: &str, mut figure: Value) -> Value {
    figure["subject"] = json!(subject);
    figure["work"] = json!(work);
    println!("{figure}");
    figure
}

/// Seconds and CPU seconds of the peers and of what ended meanwhile (clients).
fn timed<T>(peers: &[&Peer], work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(T, f64, f64, f64)> {
    let cpu = || peers.iter().map(|peer| peer.cpu()).sum::<f64>();
    let (before, clients, begun) = (cpu(), cpu_of_ended_children(), Instant::now());
    let done = work()?;
    Ok((done, round(begun.elapsed().as_secs_f64()), round(cpu() - before), round(cpu_of_ended_children() - clients)))
}

fn one_peer(binary: &Path, folder: &Path, file: &Path, pins: usize, limit: Duration) -> anyhow::Result<Vec<Value>> {
    let subject = "pinfold, 1 peer";
    let mut figures = Vec::new();
    let place = folder.join("one");
    let peer = Peer::start(binary, &place, "one", None)?;
    let empty = peer.anon();
    let watch = peer.watch();
    let (_, seconds, cpu, client_cpu) = timed(&[&peer], || import(binary, &peer, file, pins))?;
    let peak = watch.peak();
    figures.push(said(
        subject,
        "state import",
        json!({ "seconds": seconds, "cpu_s": cpu, "client_cpu_s": client_cpu, "anon_mib_empty": empty, "anon_mib_peak": peak }),
    ));

    let watch = peer.watch();
    let (left, seconds, cpu, _) = timed(&[&peer], || settle(&peer, pins, limit))?;
    let peak = watch.peak();
    std::thread::sleep(Duration::from_secs(3));
    figures.push(said(
        subject,
        "until all is held",
        json!({ "seconds": seconds, "cpu_s": cpu, "left": left, "anon_mib_peak": peak, "anon_mib_at_rest": peer.anon(),
            "state_bytes_per_pin": peer.state_bytes()? / pins as u64 }),
    ));
    figures.push(list(subject, "GET /allocations", &[&peer], &peer, "/allocations", pins)?);
    figures.push(list(subject, "GET /allocations again", &[&peer], &peer, "/allocations", pins)?);
    figures.push(list(subject, "GET /pins", &[&peer], &peer, "/pins", pins)?);
    figures.push(export(binary, subject, &peer, folder, pins)?);

    let addresses = peer.stop()?;
    let begun = Instant::now();
    let peer = Peer::start_again(binary, &place, "one", &addresses)?;
    let answering = round(begun.elapsed().as_secs_f64());
    let counted = peer.ask("/pinfold/v1/status")?["pins"].as_u64().unwrap_or(0);
    let counted_at = round(begun.elapsed().as_secs_f64());
    if counted != pins as u64 {
        bail!("{counted} pins after the restart instead of {pins}");
    }
    let whole = get(&peer.host(), "/allocations")?;
    let listed_at = round(begun.elapsed().as_secs_f64());
    check(&whole, pins)?;
    figures.push(said(
        subject,
        "restart",
        json!({ "api_s": answering, "internal_list_s": counted_at, "http_list_s": listed_at, "cpu_s": round(peer.cpu()),
            "anon_mib": peer.anon() }),
    ));
    // Memory at rest is that of a peer that did not load all this.
    std::thread::sleep(Duration::from_secs(20));
    figures.push(said(
        subject,
        "at rest 20 s after the restart",
        json!({ "anon_mib": peer.anon(), "cpu_s": round(peer.cpu()), "state_bytes_per_pin": peer.state_bytes()? / pins as u64 }),
    ));
    drop(peer);
    std::fs::remove_dir_all(&place)?;
    Ok(figures)
}

fn three_peers(binary: &Path, folder: &Path, file: &Path, pins: usize, limit: Duration) -> anyhow::Result<Vec<Value>> {
    let subject = "pinfold, 3 peers";
    let mut figures = Vec::new();
    let place = folder.join("three");
    let first = Peer::start(binary, &place, "one", None)?;
    let mut peers = vec![first];
    for name in ["two", "three"] {
        let invite = client(Command::new(binary).args(["invite", "--api", peers[0].api()]))?;
        peers.push(Peer::start(binary, &place, name, invite.trim().lines().last())?);
    }
    let all: Vec<&Peer> = peers.iter().collect();
    let watch = peers[2].watch();
    let (_, seconds, cpu, client_cpu) = timed(&all, || import(binary, &peers[0], file, pins))?;
    figures.push(said(subject, "state import", json!({ "seconds": seconds, "cpu_s": cpu, "client_cpu_s": client_cpu })));
    let (_, seconds, cpu, _) = timed(&all, || {
        wait("the others have every pin", SPREAD, || {
            let count = |peer: &Peer| peer.ask("/pinfold/v1/status").ok()?["pins"].as_u64();
            peers.iter().all(|peer| count(peer) == Some(pins as u64)).then_some(())
        })
    })?;
    let replica_peak = watch.peak();
    figures.push(said(
        subject,
        "until all three have it",
        json!({ "seconds": seconds, "cpu_s": cpu, "replica_anon_mib_peak": replica_peak }),
    ));
    let (left, seconds, cpu, _) = timed(&all, || settle(&peers[0], pins, limit))?;
    std::thread::sleep(Duration::from_secs(3));
    let anon: Vec<f64> = peers.iter().map(Peer::anon).collect();
    let bytes: Vec<u64> = peers.iter().map(|peer| Ok(peer.state_bytes()? / pins as u64)).collect::<anyhow::Result<_>>()?;
    figures.push(said(
        subject,
        "until all is held",
        json!({ "seconds": seconds, "cpu_s": cpu, "left": left, "anon_mib": anon, "state_bytes_per_pin": bytes }),
    ));
    figures.push(list(subject, "GET /pins", &all, &peers[1], "/pins", pins)?);
    figures.push(list(subject, "GET /pins again", &all, &peers[1], "/pins", pins)?);
    drop(peers);
    std::fs::remove_dir_all(&place)?;
    Ok(figures)
}

fn import(binary: &Path, peer: &Peer, file: &Path, pins: usize) -> anyhow::Result<()> {
    let said = client(Command::new(binary).args(["state", "import", "--json", "--api", peer.api()]).arg(file))?;
    let last: Value = serde_json::from_str(said.trim().lines().last().unwrap_or("null"))?;
    if last["added"].as_u64() != Some(pins as u64) {
        bail!("the import ended with {last}");
    }
    Ok(())
}

fn export(binary: &Path, subject: &str, peer: &Peer, folder: &Path, pins: usize) -> anyhow::Result<Value> {
    let out = folder.join("out.ndjson");
    let (_, seconds, cpu, client_cpu) =
        timed(&[peer], || client(Command::new(binary).args(["state", "export", "--api", peer.api(), "-o"]).arg(&out)))?;
    let lines = std::fs::read(&out)?.iter().filter(|byte| **byte == b'\n').count();
    std::fs::remove_file(&out)?;
    if lines != pins {
        bail!("{lines} pins were exported instead of {pins}");
    }
    Ok(said(subject, "state export", json!({ "seconds": seconds, "cpu_s": cpu, "client_cpu_s": client_cpu })))
}

/// Waits until nothing waits any more; how many copies still do at the end of the time.
fn settle(peer: &Peer, pins: usize, limit: Duration) -> anyhow::Result<u64> {
    let begun = Instant::now();
    loop {
        let status = peer.ask("/pinfold/v1/status")?;
        let waiting = status["waiting"].as_u64().unwrap_or(u64::MAX);
        if (waiting == 0 && status["pins"] == pins as u64) || begun.elapsed() > limit {
            return Ok(waiting);
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn list(subject: &str, work: &str, peers: &[&Peer], peer: &Peer, path: &str, pins: usize) -> anyhow::Result<Value> {
    let before = peer.anon();
    let watch = peer.watch();
    let (fetched, seconds, cpu, _) = timed(peers, || get(&peer.host(), path))?;
    let more = round(watch.peak() - before);
    check(&fetched, pins)?;
    Ok(said(
        subject,
        work,
        json!({ "first_byte_s": round(fetched.first_byte), "seconds": seconds, "cpu_s": cpu, "bytes": fetched.bytes, "anon_mib_more": more }),
    ))
}

fn check(fetched: &Fetched, pins: usize) -> anyhow::Result<()> {
    if fetched.lines != pins {
        bail!("{} lines instead of {pins}", fetched.lines);
    }
    Ok(())
}

/// Go's own import and export, with its peer stopped as it must be.
fn go(bin: &Path, folder: &Path, pins: usize) -> anyhow::Result<Vec<Value>> {
    let subject = format!("go, {pins} pins");
    let place = folder.join("go");
    let file = folder.join("go.ndjson");
    write_pins(&file, pins)?;
    let service = || {
        let mut command = Command::new(bin.join("ipfs-cluster-service"));
        command.arg("-c").arg(&place);
        command
    };
    client(service().args(["init", "--consensus", "crdt"]))?;
    let (_, seconds, _, cpu) = timed(&[], || client(service().args(["state", "import", "-f"]).arg(&file)))?;
    let mut figures = vec![said(&subject, "state import", json!({ "seconds": seconds, "cpu_s": cpu }))];
    let out = folder.join("go-out.ndjson");
    let (_, seconds, _, cpu) = timed(&[], || client(service().args(["state", "export", "-f"]).arg(&out)))?;
    figures.push(said(
        &subject,
        "state export",
        json!({ "seconds": seconds, "cpu_s": cpu, "state_bytes_per_pin": peer::allocated(&place)? / pins as u64 }),
    ));
    std::fs::remove_dir_all(&place)?;
    Ok(figures)
}

fn wait(what: &str, limit: Duration, check: impl FnMut() -> Option<()>) -> anyhow::Result<()> {
    super::process::until(what, limit, check)
}

/// Lines as `state export` writes them, sorted by the bytes of their keys.
pub fn write_pins(file: &Path, pins: usize) -> anyhow::Result<PathBuf> {
    let mut out = std::io::BufWriter::with_capacity(1 << 20, std::fs::File::create(file).context("making the pinset")?);
    let step = u64::MAX / pins.max(1) as u64;
    for number in 0..pins as u64 {
        let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut raw = vec![0x01, 0x55, 0x00, 0x20];
        raw.extend_from_slice(&(number * step).to_be_bytes());
        for _ in 0..3 {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            raw.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_be_bytes());
        }
        writeln!(
            out,
            r#"{{"replication_factor_min":-1,"replication_factor_max":-1,"name":"pin {number}","mode":"recursive","shard_size":0,"user_allocations":null,"expire_at":"0001-01-01T00:00:00Z","metadata":null,"pin_update":null,"origins":[],"cid":"{}","type":"pin","allocations":[],"max_depth":-1,"reference":null,"timestamp":"2026-11-23T16:39:26Z"}}"#,
            base32(&raw)
        )?;
    }
    out.flush()?;
    Ok(file.to_owned())
}

/// A CID's usual text: `b` and lower-case base32 without padding.
fn base32(raw: &[u8]) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut text = String::with_capacity(64);
    text.push('b');
    let (mut bits, mut held) = (0u64, 0);
    for byte in raw {
        bits = (bits << 8) | u64::from(*byte);
        held += 8;
        while held >= 5 {
            held -= 5;
            text.push(char::from(LETTERS[(bits >> held) as usize & 31]));
        }
    }
    if held > 0 {
        text.push(char::from(LETTERS[(bits << (5 - held)) as usize & 31]));
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn texts_of_cids_are_base32() {
        let raw = [&[0x01, 0x55, 0x00, 0x02][..], b"hi"].concat();
        assert_eq!(super::base32(&raw), "bafkqaatine");
    }
}
