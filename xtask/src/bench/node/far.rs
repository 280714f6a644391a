//! One file over bitswap between two namespaces with 100 ms round trip between them (`compat/faults/link.py`), without and with 1% loss;
//! beside it the same bytes over a plain TCP connection on the same link, with the system's own congestion control.

use super::said;
use super::world::{PATIENCE, Peer, RATE, World, is_possible};
use crate::bench::machine::round as rounded;
use crate::bench::process::{Running, client, until};
use crate::bench::{Options, slice};
use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Share of packets that are lost.
const LOSS: f64 = 0.01;
/// More takes too long where loss is what limits.
const MIB_MOST: u64 = 128;

/// Both links, each with plain TCP, and the holder named by all its addresses and by that of QUIC alone.
pub fn run(root: &Path, place: &Path, options: &Options, round: usize) -> anyhow::Result<Vec<Value>> {
    if !is_possible("far") {
        return Ok(Vec::new());
    }
    let binary = slice::build(root)?;
    let options = Options { mib: options.mib.min(MIB_MOST), ..options.clone() };
    let file = slice::make_large(place, &options)?;
    let mut world = World::new(root)?;
    let holder = Peer::start(&binary, place, &world, 1, "holder", "")?;
    let added = holder.client(&binary, &["add", &file.to_string_lossy(), "--quiet", "--wait", "1"])?;
    let content = added.trim().lines().last().context("the root of the file")?.to_owned();
    let mut figures = Vec::new();
    for loss in [0.0, LOSS] {
        world.link(loss)?;
        let plain = plain_tcp(&world, root, &file)?;
        figures.push(said(figure("plain TCP", loss, options.mib, plain, plain), round));
        for (kind, way) in [("every address", "/"), ("QUIC only", "/quic-v1/")] {
            std::fs::remove_dir_all(place.join("taker")).ok();
            let taker = Peer::start(&binary, place, &world, 2, "taker", "")?;
            let origins = holder.swarm.iter().filter(|address| address.contains(way)).flat_map(|address| ["--origin", address]);
            let arguments: Vec<&str> = ["pin", "add", &content, "--wait", "1"].into_iter().chain(origins).collect();
            let (begun, before) = (Instant::now(), (holder.running.cpu(), taker.running.cpu()));
            // QUIC may crawl where packets are lost.
            let outcome = taker.client(&binary, &arguments);
            if outcome.is_err() && begun.elapsed() >= PATIENCE {
                figures
                    .push(said(json!({ "subject": format!("pinfold, {kind}"), "loss": loss, "not_within_s": PATIENCE.as_secs() }), round));
                continue;
            }
            outcome?;
            let seconds = begun.elapsed().as_secs_f64();
            if seconds < (options.mib << 23) as f64 / RATE {
                let status = taker.client(&binary, &["status", &content, "--json"])?;
                bail!("the pin was confirmed after {seconds:.3} s, before the link could carry it: {status}");
            }
            let mut figure = figure(&format!("pinfold, {kind}"), loss, options.mib, seconds, plain);
            let gigabytes = (options.mib << 20) as f64 / 1e9;
            figure["cpu_s_per_gb_giving"] = json!(rounded((holder.running.cpu() - before.0) / gigabytes));
            figure["cpu_s_per_gb_taking"] = json!(rounded((taker.running.cpu() - before.1) / gigabytes));
            figures.push(said(figure, round));
        }
    }
    Ok(figures)
}

fn figure(subject: &str, loss: f64, mib: u64, seconds: f64, plain: f64) -> Value {
    let work = format!("bitswap at 100 ms, {}% loss, {} Mbit/s", loss * 100.0, RATE / 1e6);
    let megabytes = (mib << 20) as f64 / 1e6;
    json!({
        "subject": subject, "work": work, "bytes": mib << 20, "seconds": rounded(seconds), "mb_s": rounded(megabytes / seconds),
        "of_plain_tcp": rounded(plain / seconds),
    })
}

/// Seconds of a plain transfer.
fn plain_tcp(world: &World, root: &Path, file: &Path) -> anyhow::Result<f64> {
    let python = |namespace: &str, arguments: &[&str]| {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace, "python3"]).arg(root.join("compat/faults/plain.py")).args(arguments);
        command
    };
    let path = file.to_string_lossy();
    let log = file.with_extension("log");
    let giver = Running::start("plain TCP", &mut python(&world.namespaces[0], &["give", "10.77.0.1", "7000", &path]), &log)?;
    until("the giver listens", Duration::from_secs(30), || std::fs::read_to_string(&log).ok()?.contains("ready").then_some(()))?;
    let said = client(&mut python(&world.namespaces[1], &["take", "10.77.0.1", "7000"]))?;
    drop(giver);
    let (bytes, seconds) = said.trim().split_once(' ').context("what plain TCP said")?;
    anyhow::ensure!(bytes.parse() == Ok(std::fs::metadata(file)?.len()), "plain TCP took {bytes} bytes");
    seconds.parse().context("seconds of plain TCP")
}
