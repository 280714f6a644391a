//! Small files in one folder over a line of 100 ms round trip: by bitswap, by HTTP block by block, and by HTTP as one archive (`format=car`).
//!
//! The gateway is the holder's own, which listens on loopback; before it stand two doors (`compat/faults/before_gateway.py`), one of which refuses
//! archives.

use super::said;
use super::world::{Peer, World, is_possible};
use crate::bench::machine::round as rounded;
use crate::bench::process::{Running, until};
use crate::bench::{Options, slice};
use anyhow::Context;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// More take too long block by block.
const FILES_MOST: usize = 2000;
/// Bytes of each file.
const BYTES: usize = 1000;
/// Ports of the door that gives single blocks, and of that which gives all.
const BLOCKS: u16 = 8081;
const ALL: u16 = 8082;

/// Each way once.
pub fn run(root: &Path, place: &Path, options: &Options, round: usize) -> anyhow::Result<Vec<Value>> {
    if !is_possible("cars") {
        return Ok(Vec::new());
    }
    let binary = slice::build(root)?;
    let files = options.files.min(FILES_MOST);
    let folder = small_files(place, files)?;
    let mut world = World::new(root)?;
    let holder = Peer::start(&binary, place, &world, 1, "holder", "")?;
    let added = holder.client(&binary, &["add", &folder.to_string_lossy(), "--quiet", "--wait", "1"])?;
    let content = added.trim().lines().last().context("the root of the folder")?.to_owned();
    let _doors = [(BLOCKS, "blocks"), (ALL, "all")]
        .map(|(port, way)| door(root, place, &world.namespaces[0], port, way))
        .into_iter()
        .collect::<anyhow::Result<Vec<Running>>>()?;
    world.link(0.0)?;

    let origins: Vec<&str> = holder.swarm.iter().flat_map(|address| ["--origin", address.as_str()]).collect();
    let ways: [(&str, Option<u16>, &[&str]); 3] =
        [("bitswap", None, &origins), ("HTTP, block by block", Some(BLOCKS), &[]), ("HTTP, one archive", Some(ALL), &[])];
    let mut figures = Vec::new();
    for (subject, gateway, origins) in ways {
        std::fs::remove_dir_all(place.join("taker")).ok();
        let settings = gateway.map_or_else(String::new, |port| format!("[routing]\ngateways = [\"http://10.77.0.1:{port}\"]\n"));
        let taker = Peer::start(&binary, place, &world, 2, "taker", &settings)?;
        let arguments: Vec<&str> = ["pin", "add", &content, "--wait", "1"].into_iter().chain(origins.iter().copied()).collect();
        let (begun, before) = (Instant::now(), (holder.running.cpu(), taker.running.cpu()));
        taker.client(&binary, &arguments).context(subject)?;
        let seconds = begun.elapsed().as_secs_f64();
        let (gave, took) = (holder.running.cpu() - before.0, taker.running.cpu() - before.1);
        let figure = json!({
            "subject": subject, "work": "a folder at 100 ms", "files": files, "seconds": rounded(seconds),
            "files_s": rounded(files as f64 / seconds), "cpu_s_giving": rounded(gave), "cpu_s_taking": rounded(took),
        });
        figures.push(said(figure, round));
    }
    Ok(figures)
}

/// A way to the holder's gateway.
fn door(root: &Path, place: &Path, namespace: &str, port: u16, way: &str) -> anyhow::Result<Running> {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, "python3"]).arg(root.join("compat/faults/before_gateway.py"));
    command.args(["10.77.0.1", &port.to_string(), "8080", way]);
    let log = place.join(format!("{way}.log"));
    let running = Running::start("a door before the gateway", &mut command, &log)?;
    until("it listens", Duration::from_secs(30), || std::fs::read_to_string(&log).ok()?.contains("ready").then_some(()))?;
    Ok(running)
}

/// Each with other bytes.
fn small_files(place: &Path, files: usize) -> anyhow::Result<std::path::PathBuf> {
    let folder = place.join("small");
    std::fs::create_dir_all(&folder).context("making a folder of small files")?;
    for number in 0..files {
        let line = format!("{number} of many\n");
        let text: String = line.chars().cycle().take(BYTES).collect();
        std::fs::write(folder.join(format!("file-{number:05}")), text).context("writing a small file")?;
    }
    Ok(folder)
}
