//! What the machine itself can do, so that a figure can be read against its limit.

use anyhow::Context;
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;
use std::time::Instant;

/// The one-minute load.
pub fn load() -> anyhow::Result<f64> {
    let text = std::fs::read_to_string("/proc/loadavg").context("reading the load")?;
    text.split(' ').next().and_then(|first| first.parse().ok()).context("reading the load")
}

/// Limits measured now in the folder that the peers will use: sequential write with one sync at the end, and small synced appends.
pub fn limits(folder: &Path) -> anyhow::Result<Value> {
    let path = folder.join("limits.bin");
    let chunk = vec![0x5a; 1 << 20];
    let begun = Instant::now();
    let mut file = std::fs::File::create(&path)?;
    for _ in 0..512 {
        file.write_all(&chunk)?;
    }
    file.sync_data()?;
    let write = 512.0 * 1.048_576 / begun.elapsed().as_secs_f64();
    let appends = appends(&mut file)?;
    std::fs::remove_file(&path)?;
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    Ok(json!({
        "cores": cores,
        "write_synced_mb_s": round(write),
        "append_synced_ms_p50": round(appends[150]),
        "append_synced_ms_p99": round(appends[297]),
    }))
}

/// Small synced appends one after the other, in milliseconds, sorted: what one fdatasync takes here and now.
pub fn synced_appends(folder: &Path) -> anyhow::Result<Vec<f64>> {
    let path = folder.join("appends.bin");
    let mut file = std::fs::File::create(&path)?;
    let taken = appends(&mut file);
    std::fs::remove_file(&path)?;
    taken
}

fn appends(file: &mut std::fs::File) -> anyhow::Result<Vec<f64>> {
    let bytes = [0x5a; 512];
    let mut taken: Vec<f64> = Vec::new();
    for _ in 0..300 {
        let begun = Instant::now();
        file.write_all(&bytes)?;
        file.sync_data()?;
        taken.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    taken.sort_by(f64::total_cmp);
    Ok(taken)
}

/// Three significant places are more than the machine gives.
pub fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// The commit, and whether the tree differs from it.
pub fn commit(root: &Path) -> String {
    let git = |arguments: &[&str]| {
        let output = std::process::Command::new("git").args(arguments).current_dir(root).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
    };
    let dirty = if git(&["status", "--porcelain"]).is_empty() { "" } else { "+changes" };
    format!("{}{dirty}", git(&["rev-parse", "--short", "HEAD"]))
}
