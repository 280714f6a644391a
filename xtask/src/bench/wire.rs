//! `bench wire`: what a member of a cluster costs and how fast it comes to know what the others know, among Pinfold peers and among Go's.
//!
//! - *join*: a new peer from its start until it has every pin, of 100,000 and of a million in batches (blocks of up to 1 MiB);
//! - *meet*: a peer that is started again, from its start until both see each other;
//! - *idle*: CPU, memory and bytes of two peers that have nothing to do, at 0, 100,000 and a million pins. The bytes are all that goes over
//!   loopback, so they are those of the two only on a machine where nothing else talks;
//! - *records* (only when asked for): bytes and time of an exchange of 0 to 100,000 records, beside sending them all;
//! - *burst* (with `PINFOLD_PEERS`): a burst through us until three Go peers list it, beside the same burst through a Go peer;
//! - *join-go* (likewise): joining one Go peer, whose pins came in batches or one by one (a DAG that is a line).

use super::go::{self, Batching};
use super::load::{self, Connection, Until};
use super::machine::{commit, load as load_now, round};
use super::million::{Peer, write_pins};
use super::process::{Running, client, until};
use super::slice::{build, fresh};
use super::{Options, ours};
use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Sizes of the wish.
const PINS: [usize; 2] = [100_000, 1_000_000];
/// Pins of Go's DAGs: it takes some hundred a second.
const GO_PINS: u64 = 5_000;
const BURST: u64 = 2_000;
/// How long idle peers are watched; the rounds of both take at most a minute.
const IDLE: Duration = Duration::from_secs(60);
/// Nothing takes longer, or it has failed.
const PATIENCE: Duration = Duration::from_secs(600);
const EVERYWHERE: &str = "?replication-min=-1&replication-max=-1";

/// Runs all parts, or the one that is asked for.
pub fn run(root: &Path, options: &Options, load_before: f64) -> anyhow::Result<()> {
    // Bytes and time of the protocol alone: no processes.
    if options.only.as_deref() == Some("records") {
        return super::pure(root, "peer", "what_exchanges_of_records_cost");
    }
    if let Some(only) = options.only.as_deref()
        && !["join", "meet", "idle", "burst", "join-go"].contains(&only)
    {
        bail!("--only {only}: there are join, meet, idle, burst, join-go and records");
    }
    let binary = build(root)?;
    let folder = std::env::temp_dir().join(format!("pinfold-bench-wire-{}", std::process::id()));
    std::fs::create_dir_all(&folder).context("making a folder for the benchmark")?;
    let mut figures = Vec::new();
    let outcome = measure(options, &binary, &folder, &mut figures);
    std::fs::remove_dir_all(&folder).ok();
    outcome?;
    let report =
        json!({ "bench": "wire", "commit": commit(root), "load_before": load_before, "load_after": load_now()?, "figures": figures });
    let out = options.out.clone().unwrap_or_else(|| root.join("target/bench-wire.json"));
    std::fs::write(&out, serde_json::to_vec_pretty(&report)?).with_context(|| format!("writing {}", out.display()))?;
    println!("written to {}", out.display());
    Ok(())
}

fn measure(options: &Options, binary: &Path, folder: &Path, figures: &mut Vec<Value>) -> anyhow::Result<()> {
    let is_wanted = |part: &str| options.only.as_deref().is_none_or(|only| only == part);
    if is_wanted("idle") {
        idle(binary, &fresh(folder, "idle0")?, 0, figures)?;
    }
    for pins in PINS.into_iter().filter(|pins| *pins <= options.pins) {
        if is_wanted("join") || is_wanted("idle") {
            let place = fresh(folder, &format!("join{pins}"))?;
            let peers = join(binary, &place, pins, figures)?;
            if is_wanted("idle") {
                watch_idle(&peers, pins, figures);
            }
            drop(peers);
            std::fs::remove_dir_all(&place)?;
        }
    }
    if is_wanted("meet") {
        meet(binary, &fresh(folder, "meet")?, figures)?;
    }
    match &options.go {
        _ if !is_wanted("burst") && !is_wanted("join-go") => {}
        Some(bin) => {
            if is_wanted("burst") {
                burst(binary, bin, folder, figures)?;
            }
            for batching in [Batching::On, Batching::Off].into_iter().filter(|_| is_wanted("join-go")) {
                join_go(binary, bin, folder, batching, figures)?;
            }
        }
        None => println!("skipped: Go needs PINFOLD_PEERS (the folder of ipfs-cluster-service)"),
    }
    Ok(())
}

fn tell(figures: &mut Vec<Value>, figure: Value) {
    println!("{figure}");
    figures.push(figure);
}

fn invite(binary: &Path, peer: &Peer) -> anyhow::Result<String> {
    let said = client(Command::new(binary).args(["invite", "--api", peer.api()]))?;
    Ok(said.trim().lines().last().context("an invite")?.to_owned())
}

fn pins_of(peer: &Peer) -> Option<u64> {
    peer.ask("/pinfold/v1/status").ok()?["pins"].as_u64()
}

/// One peer with so many pins, and another that joins it.
fn join(binary: &Path, place: &Path, pins: usize, figures: &mut Vec<Value>) -> anyhow::Result<Vec<Peer>> {
    let file = place.join("pins.ndjson");
    write_pins(&file, pins)?;
    let first = Peer::start(binary, place, "one", None)?;
    client(Command::new(binary).args(["state", "import", "--json", "--api", first.api()]).arg(&file))?;
    std::fs::remove_file(&file)?;
    until("the first peer is at rest", PATIENCE, || (first.ask("/pinfold/v1/status").ok()?["waiting"] == 0).then_some(()))?;
    let token = invite(binary, &first)?;
    let cpu = first.cpu();
    let begun = Instant::now();
    let second = Peer::start(binary, place, "two", Some(&token))?;
    let ready = begun.elapsed();
    let watch = second.watch();
    until("the new peer has every pin", PATIENCE, || (pins_of(&second)? == pins as u64).then_some(()))?;
    let all = begun.elapsed();
    let figure = json!({
        "subject": "pinfold", "work": "join", "dag": "batches of up to 1 MiB", "pins": pins, "ready_s": round(ready.as_secs_f64()),
        "all_s": round(all.as_secs_f64()), "cpu_s": round(second.cpu()), "cpu_s_of_the_other": round(first.cpu() - cpu),
        "anon_mib_peak": watch.peak(),
    });
    tell(figures, figure);
    Ok(vec![first, second])
}

fn idle(binary: &Path, place: &Path, pins: usize, figures: &mut Vec<Value>) -> anyhow::Result<()> {
    let first = Peer::start(binary, place, "one", None)?;
    let token = invite(binary, &first)?;
    let second = Peer::start(binary, place, "two", Some(&token))?;
    watch_idle(&[first, second], pins, figures);
    Ok(())
}

fn watch_idle(peers: &[Peer], pins: usize, figures: &mut Vec<Value>) {
    // What the load has left behind is done by then.
    std::thread::sleep(IDLE);
    let cpu = || peers.iter().map(Peer::cpu).sum::<f64>();
    let (cpu_before, bytes_before) = (cpu(), loopback_bytes());
    std::thread::sleep(IDLE);
    let each = IDLE.as_secs_f64() * peers.len() as f64;
    let anon: Vec<f64> = peers.iter().map(Peer::anon).collect();
    let figure = json!({
        "subject": "pinfold", "work": "idle", "peers": peers.len(), "pins": pins, "cpu_ms_per_s": round((cpu() - cpu_before) * 1000.0 / each),
        "bytes_per_s": round((loopback_bytes() - bytes_before) as f64 / each), "anon_mib": anon,
    });
    tell(figures, figure);
}

/// What was sent over loopback so far, headers included.
fn loopback_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let row = text.lines().find_map(|line| line.trim().strip_prefix("lo:"));
    row.and_then(|row| row.split_whitespace().nth(8)?.parse().ok()).unwrap_or(0)
}

fn up_of(peer: &Peer) -> usize {
    let rows = peer.ask("/pinfold/v1/peers").unwrap_or_default();
    rows.as_array().into_iter().flatten().filter(|row| row["health"] == "up").count()
}

/// Two peers; the second is started again.
fn meet(binary: &Path, place: &Path, figures: &mut Vec<Value>) -> anyhow::Result<()> {
    let first = Peer::start(binary, place, "one", None)?;
    let token = invite(binary, &first)?;
    let second = Peer::start(binary, place, "two", Some(&token))?;
    until("both see each other", PATIENCE, || (up_of(&first) == 2 && up_of(&second) == 2).then_some(()))?;
    let mut second = Some(second);
    for number in 0..5 {
        let addresses = second.take().context("a peer")?.stop()?;
        until("the first one misses it", PATIENCE, || (up_of(&first) == 1).then_some(()))?;
        let begun = Instant::now();
        let again = Peer::start_again(binary, place, "two", &addresses)?;
        let ready = begun.elapsed();
        while up_of(&first) < 2 || up_of(&again) < 2 {
            if begun.elapsed() > PATIENCE {
                bail!("they do not see each other again");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let both = begun.elapsed();
        let figure = json!({
            "subject": "pinfold", "work": "see each other after a start", "round": number, "ready_s": round(ready.as_secs_f64()),
            "both_s": round(both.as_secs_f64()),
        });
        tell(figures, figure);
        second = Some(again);
    }
    Ok(())
}

/// Our peer among Go's, started with their secret.
fn among_go(binary: &Path, place: &Path, cluster: &go::Cluster) -> anyhow::Result<(Running, Value)> {
    let settings = format!("name = \"ours\"\ncluster_name = \"ipfs-cluster\"\ntrusted_peers = {}\n", json!(cluster.addresses));
    let dir = place.join("peer0");
    std::fs::create_dir_all(&dir)?;
    std::fs::write(dir.join("pinfold.toml"), settings)?;
    ours::start_peer(binary, place, 0, None, &["--secret", go::SECRET])
}

fn door(ready: &Value) -> String {
    ready["api"].as_str().unwrap_or_default().trim_start_matches("http://").trim_end_matches('/').to_owned()
}

fn listed(door: &str) -> Option<u64> {
    let reply = Connection::open(door).ok()?.call("GET", "/allocations").ok()?;
    Some(reply.body.iter().filter(|byte| **byte == b'\n').count() as u64)
}

/// The same burst through us and through a Go peer, until three Go peers list it.
fn burst(binary: &Path, bin: &Path, folder: &Path, figures: &mut Vec<Value>) -> anyhow::Result<()> {
    for batching in [Batching::Off, Batching::On] {
        let place = fresh(folder, "burst")?;
        let cluster = go::Cluster::start(bin, &place, 3, -1, batching)?;
        let (peer, ready) = among_go(binary, &place, &cluster)?;
        let ours = door(&ready);
        until("our peer has what Go has", PATIENCE, || (listed(&ours)? == listed(&cluster.doors[0])?).then_some(()))?;
        let mut expected = listed(&ours).context("a list")?;
        for (subject, through, first) in [("through pinfold", &ours, 0), ("through go", &cluster.doors[0], 1_000_000)] {
            let outcome = load::pins(through, 32, EVERYWHERE, first, Until::Pins(BURST))?;
            expected += outcome.taken.len() as u64;
            let posted = Instant::now();
            let is_everywhere = || cluster.doors.iter().chain([&ours]).all(|door| listed(door) == Some(expected));
            until("every peer lists the burst", PATIENCE, || is_everywhere().then_some(()))?;
            let figure = json!({
                "subject": subject, "work": "burst until 3 go peers and ours list it", "go_batching": batching == Batching::On,
                "pins": outcome.taken.len(), "refused": outcome.refused, "posted_s": round(outcome.seconds),
                "after_the_last_post_s": round(posted.elapsed().as_secs_f64()),
            });
            tell(figures, figure);
        }
        drop(peer);
        drop(cluster);
        std::fs::remove_dir_all(&place)?;
    }
    Ok(())
}

/// Our peer joins one Go peer that has pins.
fn join_go(binary: &Path, bin: &Path, folder: &Path, batching: Batching, figures: &mut Vec<Value>) -> anyhow::Result<()> {
    let place = fresh(folder, "go")?;
    let cluster = go::Cluster::start(bin, &place, 1, -1, batching)?;
    let outcome = load::pins(&cluster.doors[0], 32, EVERYWHERE, 0, Until::Pins(GO_PINS))?;
    let pins =
        until("the go peer lists its pins", PATIENCE, || listed(&cluster.doors[0]).filter(|listed| *listed >= outcome.taken.len() as u64))?;
    let begun = Instant::now();
    let (peer, ready) = among_go(binary, &place, &cluster)?;
    let ours = door(&ready);
    let (started, mut first) = (begun.elapsed(), None);
    until("our peer has every pin of the go peer", PATIENCE, || {
        let count = listed(&ours)?;
        first = first.or((count > 0).then(|| begun.elapsed()));
        (count >= pins).then_some(())
    })?;
    let all = begun.elapsed();
    let (since_first, links) = (all - first.unwrap_or(started), pins as f64 / (all - started).as_secs_f64());
    let figure = json!({
        "subject": "pinfold", "work": "join of a go peer", "dag": if batching == Batching::On { "batches" } else { "one pin in a delta" },
        "pins": pins, "ready_s": round(started.as_secs_f64()), "all_s": round(all.as_secs_f64()), "pins_s_after_ready": round(links),
        "from_the_first_pin_s": round(since_first.as_secs_f64()), "cpu_s": round(peer.cpu()),
    });
    tell(figures, figure);
    drop(peer);
    drop(cluster);
    std::fs::remove_dir_all(&place)?;
    Ok(())
}
