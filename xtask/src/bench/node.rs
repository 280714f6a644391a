//! `bench node`: the block store of the embedded node with ten million small blocks: written, read, opened (also after a kill), halved.
//!
//! Adds and CAR imports beside Kubo are `bench slice` and `bench car`.

use super::Options;
use super::machine::{commit, limits, load};
use super::slice::fresh;
use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

/// Measures as often as asked.
pub fn run(root: &Path, options: &Options, load_before: f64) -> anyhow::Result<()> {
    let folder = std::env::temp_dir().join(format!("pinfold-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).context("making a folder for the benchmark")?;
    let outcome = measure(root, options, load_before, &folder);
    std::fs::remove_dir_all(&folder).ok();
    outcome
}

fn measure(root: &Path, options: &Options, load_before: f64, folder: &Path) -> anyhow::Result<()> {
    let limits = limits(folder)?;
    println!("limits: {limits}");
    let mut figures = Vec::new();
    for round in 0..options.repeat {
        let place = fresh(folder, &format!("store-{round}"))?;
        figures.extend(store(root, &place, options.blocks, round)?);
        std::fs::remove_dir_all(&place)?;
    }
    let report = json!({
        "bench": "node", "commit": commit(root), "load_before": load_before, "load_after": load()?, "limits": limits, "figures": figures,
    });
    let out = options.out.clone().unwrap_or_else(|| root.join("target/bench-node.json"));
    std::fs::write(&out, serde_json::to_vec_pretty(&report)?).with_context(|| format!("writing {}", out.display()))?;
    println!("written to {}", out.display());
    Ok(())
}

/// The test of the store with many blocks, optimized; each line of figures is printed as it comes.
fn store(root: &Path, place: &Path, blocks: u64, round: usize) -> anyhow::Result<Vec<Value>> {
    let mut child = Command::new("cargo")
        .args(["test", "--release", "-p", "store", "--test", "many", "figures_of_many_blocks", "--", "--ignored", "--nocapture"])
        .env("STORE_MANY_COUNT", blocks.to_string())
        .env("STORE_MANY_DIR", place)
        .current_dir(root)
        .stdout(Stdio::piped())
        .spawn()
        .context("starting cargo")?;
    let lines = BufReader::new(child.stdout.take().context("the output of cargo")?).lines();
    let mut figures = Vec::new();
    for line in lines {
        let line = line.context("reading the figures")?;
        // The harness may have begun the line with the name of the test.
        let Some((_, figure)) = line.split_once("figure ") else { continue };
        let mut figure: Value = serde_json::from_str(figure).with_context(|| format!("a line of figures: {line}"))?;
        figure["subject"] = json!("store");
        figure["round"] = json!(round);
        println!("{figure}");
        figures.push(figure);
    }
    if !child.wait().context("waiting for cargo")?.success() {
        bail!("the test of the store with {blocks} blocks failed");
    }
    if figures.is_empty() {
        bail!("the test of the store with {blocks} blocks gave no figures");
    }
    Ok(figures)
}
