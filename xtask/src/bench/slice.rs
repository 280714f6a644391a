//! `bench slice`: one large file and many small ones, on one peer and on three with two copies.

use super::machine::{commit, limits, load, round};
use super::process::cpu_of_ended_children;
use super::{Options, go, ours};
use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

const SMALL: usize = 4096;

/// One measured add.
pub(super) struct Figure {
    subject: String,
    work: &'static str,
    seconds: f64,
    bytes: u64,
    files: usize,
    cpu: f64,
    round: usize,
}

/// Runs all subjects in turn, as often as asked.
pub fn run(root: &Path, options: &Options, load_before: f64) -> anyhow::Result<()> {
    let binary = build(root)?;
    let folder = std::env::temp_dir().join(format!("pinfold-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).context("making a folder for the benchmark")?;
    let outcome = measure(root, options, load_before, &binary, &folder);
    std::fs::remove_dir_all(&folder).ok();
    outcome
}

/// The release binary, or the one that `PINFOLD_BIN` names.
pub fn build(root: &Path) -> anyhow::Result<PathBuf> {
    if let Some(binary) = std::env::var_os("PINFOLD_BIN") {
        return Ok(PathBuf::from(binary));
    }
    let status =
        Command::new("cargo").args(["build", "--release", "-p", "pinfold"]).current_dir(root).status().context("starting cargo")?;
    if !status.success() {
        bail!("the build failed");
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join("release/pinfold"))
}

fn measure(root: &Path, options: &Options, load_before: f64, binary: &Path, folder: &Path) -> anyhow::Result<()> {
    let (large, small) = make_data(folder, options)?;
    let limits = limits(folder)?;
    println!("limits: {limits}");
    let mut figures = Vec::new();
    for round in 0..options.repeat {
        for (peers, copies) in [(1, 1), (3, 2)] {
            let place = fresh(folder, &format!("ours{peers}-{round}"))?;
            let cluster = ours::Cluster::start(binary, &place, peers)?;
            let subject = format!("pinfold {peers} peers {copies} copies");
            for (work, path, bytes, files) in
                [("file", &large, options.mib << 20, 1), ("small", &small, (options.files * SMALL) as u64, options.files)]
            {
                figures.push(one(&subject, work, bytes, files, round, || cluster.cpu(), || cluster.add(path, copies).map(|_| ()))?);
            }
            drop(cluster);
            std::fs::remove_dir_all(&place)?;
        }
        let Some(bin) = &options.go else { continue };
        let place = fresh(folder, &format!("kubo-{round}"))?;
        let kubo = go::Kubo::start(bin, &place, 0)?;
        for (work, path, bytes, files) in
            [("file", &large, options.mib << 20, 1), ("small", &small, (options.files * SMALL) as u64, options.files)]
        {
            figures.push(one("kubo", work, bytes, files, round, || kubo.cpu(), || kubo.add(path).map(|_| ()))?);
        }
        drop(kubo);
        std::fs::remove_dir_all(&place)?;
        for (peers, copies) in [(1, 1), (3, 2)] {
            let place = fresh(folder, &format!("go{peers}-{round}"))?;
            let cluster = go::Cluster::start(bin, &place, peers, copies as i64, go::Batching::Off)?;
            let subject = format!("go {peers} peers {copies} copies");
            for (work, path, bytes, files) in
                [("file", &large, options.mib << 20, 1), ("small", &small, (options.files * SMALL) as u64, options.files)]
            {
                figures.push(one(&subject, work, bytes, files, round, || cluster.cpu(), || cluster.add(path))?);
            }
            drop(cluster);
            std::fs::remove_dir_all(&place)?;
        }
    }
    if options.go.is_none() {
        println!("skipped: Kubo and Go need PINFOLD_PEERS (the folder of ipfs, ipfs-cluster-service, ipfs-cluster-ctl)");
    }
    let report = json!({
        "bench": "slice", "commit": commit(root), "load_before": load_before, "load_after": load()?, "limits": limits,
        "figures": figures.iter().map(Figure::json).collect::<Vec<_>>(),
    });
    let out = options.out.clone().unwrap_or_else(|| root.join("target/bench-slice.json"));
    std::fs::write(&out, serde_json::to_vec_pretty(&report)?).with_context(|| format!("writing {}", out.display()))?;
    println!("written to {}", out.display());
    Ok(())
}

pub(super) fn one(
    subject: &str,
    work: &'static str,
    bytes: u64,
    files: usize,
    round: usize,
    cpu: impl Fn() -> f64,
    add: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Figure> {
    let (before, client) = (cpu(), cpu_of_ended_children());
    let begun = Instant::now();
    add().with_context(|| format!("{subject}, {work}"))?;
    let seconds = begun.elapsed().as_secs_f64();
    let used = cpu() - before + cpu_of_ended_children() - client;
    let figure = Figure { subject: subject.to_owned(), work, seconds, bytes, files, cpu: used, round };
    println!("{}", figure.json());
    Ok(figure)
}

impl Figure {
    pub(super) fn json(&self) -> Value {
        let megabytes = self.bytes as f64 / 1e6;
        json!({
            "subject": self.subject, "work": self.work, "round": self.round, "seconds": round(self.seconds),
            "mb_s": round(megabytes / self.seconds), "files_s": round(self.files as f64 / self.seconds),
            "cpu_s": round(self.cpu), "cpu_s_per_gb": round(self.cpu / (megabytes / 1000.0)),
        })
    }
}

pub fn fresh(folder: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let place = folder.join(name);
    std::fs::create_dir_all(&place).with_context(|| format!("making {}", place.display()))?;
    Ok(place)
}

/// A file and a folder of pseudo-random bytes: nothing in them repeats.
fn make_data(folder: &Path, options: &Options) -> anyhow::Result<(PathBuf, PathBuf)> {
    let large = make_large(folder, options)?;
    let mut noise = Noise(0x0123_4567_89ab_cdef);
    let mut buffer = [0; SMALL];
    let small = folder.join("small");
    std::fs::create_dir_all(&small)?;
    for index in 0..options.files {
        noise.fill(&mut buffer);
        std::fs::write(small.join(format!("{index:06}.bin")), buffer)?;
    }
    Ok((large, small))
}

/// The large file alone.
pub(super) fn make_large(folder: &Path, options: &Options) -> anyhow::Result<PathBuf> {
    let large = folder.join("large.bin");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&large).context("making the large file")?);
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let mut buffer = vec![0; 1 << 20];
    for _ in 0..options.mib {
        noise.fill(&mut buffer);
        file.write_all(&buffer)?;
    }
    // Else its way to the disk is shared with what is measured.
    file.into_inner().context("writing the large file")?.sync_all()?;
    Ok(large)
}

/// xorshift64*.
pub(super) struct Noise(pub(super) u64);

impl Noise {
    pub(super) fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            let bytes = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}
