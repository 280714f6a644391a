//! Self-healing: four real peers with 2,500 small pins in two copies; one is lost by `kill -9` or stopped by SIGSTOP.
//!
//! From the moment in which another peer takes it for lost (grace 0): until the first pin has a new holder, and until every pin
//! has two confirmed copies on live peers.

use super::process::{Running, until};
use super::{Options, machine, ours};
use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

const PEERS: usize = 4;
const PINS: u64 = 2_500;
/// Bytes of a pin.
const SIZE: usize = 4096;

struct Peer {
    running: Running,
    api: String,
    id: String,
}

/// Runs both losses.
pub fn run(root: &Path, options: &Options, load: f64) -> anyhow::Result<()> {
    let binary = super::slice::build(root)?;
    let mut figures = Vec::new();
    for how in ["KILL", "STOP"] {
        let figure = lose(&binary, how)?;
        println!("{figure}");
        figures.push(figure);
    }
    let figures = json!({ "bench": "heal", "commit": machine::commit(root), "load": load, "losses": figures });
    if let Some(out) = &options.out {
        std::fs::write(out, serde_json::to_vec_pretty(&figures)?).with_context(|| format!("writing {}", out.display()))?;
    }
    Ok(())
}

fn lose(binary: &Path, signal: &str) -> anyhow::Result<Value> {
    let folder = std::env::temp_dir().join(format!("pinfold-heal-{}-{signal}", std::process::id()));
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let outcome = lose_in(binary, signal, &folder);
    std::fs::remove_dir_all(&folder).ok();
    outcome
}

fn lose_in(binary: &Path, signal: &str, folder: &Path) -> anyhow::Result<Value> {
    let mut peers = start(binary, folder)?;
    for number in 0..PINS {
        add(&peers[0].api, number)?;
    }
    until("every pin has two copies", Duration::from_secs(120), || (safe(&peers[0].api, None).ok()? == PINS).then_some(()))?;
    let lost = peers.remove(PEERS - 1);
    let held = placed_on(&peers[0].api, &lost.id)?;
    let begun = Instant::now();
    lost.running.signal(signal)?;
    let known = until("it is taken for lost", Duration::from_secs(60), || {
        let rows: Value = serde_json::from_slice(&get(&peers[0].api, "/pinfold/v1/peers").ok()?).ok()?;
        rows.as_array()?.iter().any(|row| row["peer"] == lost.id.as_str() && row["health"] == "down").then(Instant::now)
    })?;
    let first =
        until("a pin has a new holder", Duration::from_secs(60), || (placed_on(&peers[0].api, &lost.id).ok()? < held).then(Instant::now))?;
    let last = until("every pin has two copies again", Duration::from_secs(300), || {
        (safe(&peers[0].api, Some(&lost.id)).ok()? == PINS).then(Instant::now)
    })?;
    Ok(json!({
        "how": format!("SIG{signal}"),
        "copies_lost": held,
        "seconds_until_known": machine::round(known.duration_since(begun).as_secs_f64()),
        "seconds_until_begun": machine::round(first.duration_since(known).as_secs_f64()),
        "seconds_until_ended": machine::round(last.duration_since(known).as_secs_f64()),
    }))
}

fn start(binary: &Path, folder: &Path) -> anyhow::Result<Vec<Peer>> {
    let mut peers: Vec<Peer> = Vec::new();
    for index in 0..PEERS {
        let first = peers.first().map(|first| first.api.as_str());
        let (running, ready) = ours::start_peer(binary, folder, index, first, &["--grace", "0s"])?;
        let text = |key: &str| ready[key].as_str().unwrap_or_default().to_owned();
        let peer = Peer { running, api: text("api"), id: text("peer") };
        peers.push(peer);
    }
    until("all peers see each other", Duration::from_secs(60), || {
        let all_up = |peer: &Peer| {
            let rows = get(&peer.api, "/pinfold/v1/peers").unwrap_or_default();
            String::from_utf8_lossy(&rows).matches("\"health\":\"up\"").count() == PEERS
        };
        peers.iter().all(all_up).then_some(())
    })?;
    // The last hello names the node that lanes come from.
    std::thread::sleep(Duration::from_secs(2));
    Ok(peers)
}

/// Adds one small file of its own content, with two copies.
fn add(api: &str, number: u64) -> anyhow::Result<()> {
    let content: Vec<u8> =
        (0..SIZE as u64 / 8).flat_map(|at| (number << 20 | at).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).collect();
    let head = "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\nContent-Type: application/octet-stream\r\n\r\n";
    let body = [head.as_bytes(), &content, b"\r\n--x--\r\n"].concat();
    let path = "/add?cid-version=1&raw-leaves=true&replication-min=2&replication-max=2";
    let said = ask(api, "POST", path, "multipart/form-data; boundary=x", &body)?;
    if !String::from_utf8_lossy(&said).contains("\"cid\"") {
        bail!("adding: {}", String::from_utf8_lossy(&said));
    }
    Ok(())
}

fn pins(api: &str) -> anyhow::Result<Vec<Value>> {
    let body = get(api, "/pins")?;
    Ok(body.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
}

/// Pins with two confirmed copies on others than the lost peer.
fn safe(api: &str, lost: Option<&str>) -> anyhow::Result<u64> {
    let is_safe = |pin: &&Value| {
        let copies = pin["peer_map"].as_object().into_iter().flatten();
        copies.filter(|(peer, copy)| copy["status"] == "pinned" && lost != Some(peer.as_str())).count() >= 2
    };
    Ok(pins(api)?.iter().filter(is_safe).count() as u64)
}

fn placed_on(api: &str, peer: &str) -> anyhow::Result<u64> {
    let is_on = |pin: &&Value| pin["allocations"].as_array().is_some_and(|all| all.iter().any(|other| other == peer));
    Ok(pins(api)?.iter().filter(is_on).count() as u64)
}

fn get(api: &str, path: &str) -> anyhow::Result<Vec<u8>> {
    ask(api, "GET", path, "", b"")
}

/// One request on its own connection by HTTP/1.0, whose answers come without chunks; the body.
fn ask(api: &str, method: &str, path: &str, kind: &str, body: &[u8]) -> anyhow::Result<Vec<u8>> {
    let host = api.trim_start_matches("http://");
    let mut stream = TcpStream::connect(host).context("the door")?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let head = format!("{method} {path} HTTP/1.0\r\nHost: {host}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(&[head.as_bytes(), body].concat())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let split = answer.windows(4).position(|window| window == b"\r\n\r\n").context("a head")?;
    Ok(answer.split_off(split + 4))
}
