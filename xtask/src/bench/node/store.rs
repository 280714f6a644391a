//! The block store with ten million small blocks: written, read, opened (also after a kill), halved.

use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

/// The test of the store with many blocks, optimized; each line of figures is printed as it comes.
pub fn run(root: &Path, place: &Path, blocks: u64, round: usize) -> anyhow::Result<Vec<Value>> {
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
