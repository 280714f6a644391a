//! `bench pins`: pins accepted and durable, bursts until everybody has them, calls while a peer is stopped.
//!
//! Every pin is of an inline block (see [`load::inline_cid`]) and for every peer, on Pinfold and on Go alike. CPU-seconds are those of
//! the cluster's processes: until the last answer, and until they are quiet again (trackers and replicas have done their part).

use super::load::{self, Connection, Outcome, Until};
use super::machine::{commit, load as load_now, round, synced_appends};
use super::process::{Running, cpu_of_this};
use super::slice::{build, fresh};
use super::{Options, go, ours};
use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

/// For every peer, whatever the cluster's default is.
const EVERYWHERE: &str = "?replication-min=-1&replication-max=-1";
const CONNECTIONS: [usize; 3] = [1, 32, 128];
const BURST: u64 = 2000;
/// Less CPU than this in half a second, by all processes together, is quiet.
const QUIET: f64 = 0.03;
/// Go was seen to need two minutes for a burst.
const BURST_LIMIT: Duration = Duration::from_secs(180);
/// Half a minute after its last word Go takes a peer for dead.
const LATER: Duration = Duration::from_secs(45);

/// A cluster under load, whoever wrote it.
struct Subject {
    name: String,
    doors: Vec<String>,
    cluster: Kind,
    /// Pins posted so far.
    posted: u64,
    /// The next number of a CID; numbers of refused ones are not used again.
    next: u64,
}

enum Kind {
    Ours(ours::Cluster),
    Go(go::Cluster),
}

impl Subject {
    fn cpu(&self) -> f64 {
        match &self.cluster {
            Kind::Ours(cluster) => cluster.cpu(),
            Kind::Go(cluster) => cluster.cpu_of_peers(),
        }
    }

    /// Of the daemons that Go needs beside it.
    fn cpu_of_nodes(&self) -> f64 {
        match &self.cluster {
            Kind::Ours(_) => 0.0,
            Kind::Go(cluster) => cluster.cpu() - cluster.cpu_of_peers(),
        }
    }

    fn peer(&self, index: usize) -> &Running {
        match &self.cluster {
            Kind::Ours(cluster) => cluster.peer(index),
            Kind::Go(cluster) => cluster.peer(index),
        }
    }

    fn post(&mut self, connections: usize, until: Until) -> anyhow::Result<Outcome> {
        let outcome = load::pins(&self.doors[0], connections, EVERYWHERE, self.next, until)?;
        self.posted += outcome.taken.len() as u64;
        self.next += outcome.taken.len() as u64 + outcome.refused + connections as u64;
        Ok(outcome)
    }

    /// How many pins a peer lists.
    fn listed(&self, index: usize) -> anyhow::Result<u64> {
        let reply = Connection::open(&self.doors[index])?.call("GET", "/allocations")?;
        Ok(reply.body.iter().filter(|byte| **byte == b'\n').count() as u64)
    }

    /// Waits until the processes do next to nothing; how long it took, at most a minute.
    fn rest(&self) -> f64 {
        let begun = Instant::now();
        let mut quiet = 0;
        let mut before = self.cpu() + self.cpu_of_nodes();
        while quiet < 3 && begun.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(500));
            let now = self.cpu() + self.cpu_of_nodes();
            quiet = if now - before <= QUIET { quiet + 1 } else { 0 };
            before = now;
        }
        begun.elapsed().as_secs_f64() - 0.5 * f64::from(quiet)
    }
}

/// Runs all subjects in turn, as often as asked.
pub fn run(root: &Path, options: &Options, load_before: f64) -> anyhow::Result<()> {
    if let Some(only) = options.only.as_deref()
        && !["rates", "rates1", "rates3", "burst", "stopped"].contains(&only)
    {
        bail!("--only {only}: there are rates, rates1, rates3, burst and stopped");
    }
    let binary = build(root)?;
    let folder = std::env::temp_dir().join(format!("pinfold-bench-pins-{}", std::process::id()));
    std::fs::create_dir_all(&folder).context("making a folder for the benchmark")?;
    let outcome = measure(root, options, load_before, &binary, &folder);
    std::fs::remove_dir_all(&folder).ok();
    outcome
}

fn measure(root: &Path, options: &Options, load_before: f64, binary: &Path, folder: &Path) -> anyhow::Result<()> {
    let mut figures = Vec::new();
    let mut syncs = Vec::new();
    for number in 0..options.repeat {
        let appends = synced_appends(folder)?;
        let sync = json!({ "round": number, "fdatasync_ms_p50": round(appends[150]), "fdatasync_ms_p99": round(appends[297]) });
        println!("{sync}");
        syncs.push(sync);
        for peers in [1, 3] {
            if !is_wanted(options, peers) {
                continue;
            }
            let place = fresh(folder, &format!("ours{peers}-{number}"))?;
            let cluster = ours::Cluster::start(binary, &place, peers)?;
            let doors = cluster.doors.clone();
            take(
                options,
                Subject { name: format!("pinfold {peers}"), doors, cluster: Kind::Ours(cluster), posted: 0, next: 0 },
                number,
                &mut figures,
            )?;
            std::fs::remove_dir_all(&place)?;
            let Some(bin) = &options.go else { continue };
            for (batching, word) in [(go::Batching::Off, ""), (go::Batching::On, " batching")] {
                let place = fresh(folder, &format!("go{peers}-{number}{word}"))?;
                let cluster = go::Cluster::start(bin, &place, peers, -1, batching)?;
                let doors = cluster.doors.clone();
                let subject = Subject { name: format!("go {peers}{word}"), doors, cluster: Kind::Go(cluster), posted: 0, next: 0 };
                take(options, subject, number, &mut figures)?;
                std::fs::remove_dir_all(&place)?;
            }
        }
    }
    if options.go.is_none() {
        println!("skipped: Go needs PINFOLD_PEERS (the folder of ipfs, ipfs-cluster-service, ipfs-cluster-ctl)");
    }
    let report = json!({
        "bench": "pins", "commit": commit(root), "load_before": load_before, "load_after": load_now()?,
        "seconds": options.seconds, "fdatasync": syncs, "figures": figures,
    });
    let out = options.out.clone().unwrap_or_else(|| root.join("target/bench-pins.json"));
    std::fs::write(&out, serde_json::to_vec_pretty(&report)?).with_context(|| format!("writing {}", out.display()))?;
    println!("written to {}", out.display());
    Ok(())
}

fn is_wanted(options: &Options, peers: usize) -> bool {
    match options.only.as_deref() {
        None | Some("rates") => true,
        Some("rates1") => peers == 1,
        Some(_) => peers == 3,
    }
}

/// Everything that is asked of one cluster: bursts first, while its lists are short.
fn take(options: &Options, mut subject: Subject, number: usize, figures: &mut Vec<Value>) -> anyhow::Result<()> {
    let mut note = |mut figure: Value| {
        figure["round"] = json!(number);
        println!("{figure}");
        figures.push(figure);
    };
    let is_asked = |part: &str| options.only.as_deref().is_none_or(|only| only == part || (part == "rates" && only.starts_with("rates")));
    subject.posted = subject.listed(0)?;
    subject.rest();
    if subject.doors.len() > 1 && is_asked("burst") {
        for connections in [32, 1] {
            note(burst(&mut subject, connections)?);
            subject.rest();
        }
    }
    if subject.doors.len() > 1 && is_asked("stopped") {
        for figure in stopped(&mut subject)? {
            note(figure);
        }
        subject.rest();
    }
    if is_asked("rates") {
        for connections in CONNECTIONS {
            note(rate(&mut subject, connections, options.seconds)?);
        }
    }
    Ok(())
}

fn rate(subject: &mut Subject, connections: usize, seconds: u64) -> anyhow::Result<Value> {
    let (cpu, nodes, own) = (subject.cpu(), subject.cpu_of_nodes(), cpu_of_this());
    let outcome = subject.post(connections, Until::Time(Duration::from_secs(seconds)))?;
    let (accepted, own) = (subject.cpu() - cpu, cpu_of_this() - own);
    let rest = subject.rest();
    let whole = subject.cpu() - cpu;
    let nodes = subject.cpu_of_nodes() - nodes;
    let pins = outcome.taken.len() as f64;
    let per_1000 = |used: f64| round(used * 1000.0 / pins.max(1.0));
    let listed: Vec<u64> = (0..subject.doors.len()).map(|index| subject.listed(index)).collect::<anyhow::Result<_>>()?;
    Ok(json!({
        "subject": subject.name, "work": "accept", "connections": connections, "seconds": round(outcome.seconds),
        "pins": outcome.taken.len(), "refused": outcome.refused, "said": outcome.said,
        "pins_s": round(pins / outcome.seconds),
        "ms_p50": round(outcome.at(0.5)), "ms_p99": round(outcome.at(0.99)), "ms_longest": round(outcome.at(1.0)),
        "cpu_s_per_1000": per_1000(whole), "cpu_s_per_1000_until_answered": per_1000(accepted),
        "cpu_s_per_1000_of_kubo": per_1000(nodes), "cpu_s_per_1000_of_the_load": per_1000(own),
        "quiet_after_s": round(rest), "posted_in_all": subject.posted, "listed": listed,
    }))
}

fn burst(subject: &mut Subject, connections: usize) -> anyhow::Result<Value> {
    let cpu = subject.cpu();
    let outcome = subject.post(connections, Until::Pins(BURST))?;
    let last = Instant::now();
    let mut missing: Vec<usize> = (0..subject.doors.len()).collect();
    while !missing.is_empty() && last.elapsed() < BURST_LIMIT {
        let mut still = Vec::new();
        for index in missing {
            if subject.listed(index)? < subject.posted {
                still.push(index);
            }
        }
        missing = still;
        std::thread::sleep(Duration::from_millis(if last.elapsed() < Duration::from_secs(5) { 5 } else { 200 }));
    }
    let all_listed = if missing.is_empty() { json!(round(last.elapsed().as_secs_f64())) } else { Value::Null };
    let listed: Vec<u64> = (0..subject.doors.len()).map(|index| subject.listed(index)).collect::<anyhow::Result<_>>()?;
    Ok(json!({
        "subject": subject.name, "work": "burst", "connections": connections, "pins": outcome.taken.len(), "refused": outcome.refused,
        "posted_s": round(outcome.seconds), "all_listed_after_s": all_listed, "posted_in_all": subject.posted, "listed": listed,
        "cpu_s_per_1000": round((subject.cpu() - cpu) * 1000.0 / BURST as f64),
    }))
}

/// Asks the first peer while the last one is stopped: at once, and when it has been silent for long.
fn stopped(subject: &mut Subject) -> anyhow::Result<Vec<Value>> {
    subject.post(1, Until::Pins(1))?;
    let cid = load::inline_cid(subject.next - 2);
    let last = subject.doors.len() - 1;
    let id: Value = serde_json::from_slice(&Connection::open(&subject.doors[last])?.call("GET", "/id")?.body).context("an id")?;
    let id = id["id"].as_str().context("an id")?.to_owned();
    subject.rest();
    subject.peer(last).signal("STOP")?;
    let begun = Instant::now();
    let asked = (|| {
        let mut figures = Vec::new();
        for (when, wait) in [("at once", Duration::from_secs(1)), ("later", LATER)] {
            std::thread::sleep(wait.saturating_sub(begun.elapsed()));
            figures.extend(calls(subject, &cid, &id, when)?);
        }
        Ok(figures)
    })();
    subject.peer(last).signal("CONT")?;
    asked
}

/// All calls at the same time, each some times over; the longest counts.
fn calls(subject: &Subject, cid: &str, stopped: &str, when: &str) -> anyhow::Result<Vec<Value>> {
    const TIMES: usize = 5;
    let another = load::inline_cid(u64::MAX - when.len() as u64);
    let paths = [
        ("GET", format!("/pins/{cid}")),
        ("GET", "/pins".to_owned()),
        ("GET", "/peers".to_owned()),
        ("GET", "/id".to_owned()),
        ("GET", "/health/alerts".to_owned()),
        ("POST", format!("/pins/{another}{EVERYWHERE}")),
    ];
    let door = subject.doors[0].as_str();
    let ask = |method: &str, path: &str| -> anyhow::Result<Value> {
        let (mut longest, mut is_shown, mut status) = (0.0_f64, true, 0);
        for _ in 0..TIMES {
            let begun = Instant::now();
            let reply = Connection::open(door)?.call(method, path)?;
            longest = longest.max(begun.elapsed().as_secs_f64() * 1000.0);
            is_shown &= reply.body.windows(stopped.len()).any(|part| part == stopped.as_bytes());
            status = reply.status;
        }
        Ok(json!({
            "subject": subject.name, "work": "one peer stopped", "when": when, "call": format!("{method} {path}"),
            "status": status, "ms_longest": round(longest), "stopped_peer_named": is_shown,
        }))
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = paths.iter().map(|(method, path)| scope.spawn(|| ask(method, path))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| bail!("a call failed"))).collect()
    })
}
