//! `bench node`: the embedded node.
//!
//! - *store*: ten million small blocks in the block store ([`store`]);
//! - *pin*: a pin of a DAG of a million blocks that are here already ([`pin`]);
//! - *swap*: a file over bitswap on loopback, between Pinfold and Kubo in all four ways ([`swap`]; Kubo by `PINFOLD_PEERS`);
//! - *cars*: 2,000 small files at 100 ms round trip, by bitswap, over HTTP block by block and as one archive ([`cars`]; needs root);
//! - *far*: a file over bitswap at 100 ms round trip, without and with 1% loss, beside plain TCP over the same link ([`far`]; needs root).
//!
//! Adds and CAR imports beside Kubo are `bench slice` and `bench car`.

mod cars;
mod far;
mod pin;
mod store;
mod swap;
mod world;

use super::Options;
use super::machine::{commit, limits, load};
use super::slice::fresh;
use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::path::Path;

const PARTS: [&str; 5] = ["store", "pin", "swap", "far", "cars"];

/// Measures as often as asked, all parts or the one that is asked for.
pub fn run(root: &Path, options: &Options, load_before: f64) -> anyhow::Result<()> {
    if let Some(only) = options.only.as_deref()
        && !PARTS.contains(&only)
    {
        bail!("--only {only}: there are {}", PARTS.join(", "));
    }
    let folder = std::env::temp_dir().join(format!("pinfold-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).context("making a folder for the benchmark")?;
    let outcome = measure(root, options, load_before, &folder);
    std::fs::remove_dir_all(&folder).ok();
    outcome
}

fn measure(root: &Path, options: &Options, load_before: f64, folder: &Path) -> anyhow::Result<()> {
    let limits = limits(folder)?;
    println!("limits: {limits}");
    let is_wanted = |part: &str| options.only.as_deref().is_none_or(|only| only == part);
    let mut figures = Vec::new();
    for round in 0..options.repeat {
        for part in PARTS.into_iter().filter(|part| is_wanted(part)) {
            let place = fresh(folder, &format!("{part}-{round}"))?;
            figures.extend(match part {
                "store" => store::run(root, &place, options.blocks, round)?,
                "pin" => pin::run(root, &place, options.blocks, round)?,
                "swap" => swap::run(root, &place, options, round)?,
                "far" => far::run(root, &place, options, round)?,
                _ => cars::run(root, &place, options, round)?,
            });
            std::fs::remove_dir_all(&place)?;
        }
    }
    let report = json!({
        "bench": "node", "commit": commit(root), "load_before": load_before, "load_after": load()?, "limits": limits, "figures": figures,
    });
    let out = options.out.clone().unwrap_or_else(|| root.join("target/bench-node.json"));
    std::fs::write(&out, serde_json::to_vec_pretty(&report)?).with_context(|| format!("writing {}", out.display()))?;
    println!("written to {}", out.display());
    Ok(())
}

/// Prints a figure as it comes.
fn said(mut figure: Value, round: usize) -> Value {
    figure["round"] = json!(round);
    println!("{figure}");
    figure
}
