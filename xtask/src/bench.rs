//! Benchmarks with real peers: figures on an idle machine, beside Kubo and Go ipfs-cluster where `PINFOLD_PEERS` names their folder.

mod bandwidth;
mod car;
mod go;
mod heal;
mod load;
mod machine;
mod million;
mod node;
mod ours;
mod pins;
mod process;
mod slice;
mod wire;

use anyhow::{Context, bail};
use std::path::{Path, PathBuf};

/// What may be said on the command line.
#[derive(Clone)]
pub struct Options {
    /// Measure although the machine is busy.
    pub anyway: bool,
    /// Rounds; each measures every subject once (A B A B).
    pub repeat: usize,
    /// Size of the one file.
    pub mib: u64,
    /// Number of small files.
    pub files: usize,
    /// Number of pins.
    pub pins: usize,
    /// Number of blocks in the store.
    pub blocks: u64,
    /// How long each load lasts.
    pub seconds: u64,
    /// Only this part of a benchmark.
    pub only: Option<String>,
    /// Seconds that are waited for all copies to be held.
    pub settle: u64,
    /// Where the JSON goes.
    pub out: Option<PathBuf>,
    /// Folder of the Go binaries.
    pub go: Option<PathBuf>,
}

/// Above this load the figures would be of something else.
const LOAD_MOST: f64 = 0.5;

/// Runs the named benchmark.
pub fn run(root: &Path, name: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let options = parse(arguments)?;
    let load = machine::load()?;
    println!("load of the machine: {load:.2}");
    if load > LOAD_MOST && !options.anyway {
        bail!("the machine is busy (load {load:.2}, at most {LOAD_MOST}): wait, or say --anyway and take the figures for what they are");
    }
    match name {
        "slice" => slice::run(root, &options, load),
        "million" => million::run(root, &options, load),
        "car" => car::run(root, &options, load),
        "pins" => pins::run(root, &options, load),
        "bandwidth" => bandwidth::run(root, &options, load),
        "heal" => heal::run(root, &options, load),
        "wire" => wire::run(root, &options, load),
        "node" => node::run(root, &options, load),
        "spread" => pure(root, "cluster", "spread_stays_even_and_little_moves"),
        "claims" => pure(root, "cluster", "what_many_claims_take"),
        "plan" => pure(root, "cluster", "a_million_pins_are_planned"),
        other => bail!("there is no benchmark {other:?}: slice, car, million, pins, bandwidth, heal, wire, node, spread, plan, claims"),
    }
}

/// A measurement that is a test of a crate too: run optimized, with its figures printed.
fn pure(root: &Path, package: &str, test: &str) -> anyhow::Result<()> {
    let arguments = ["test", "--release", "-p", package, "--lib", test, "--", "--nocapture", "--include-ignored"];
    let status = std::process::Command::new("cargo").args(arguments).current_dir(root).status().context("starting cargo")?;
    if status.success() { Ok(()) } else { bail!("{test} failed") }
}

fn parse(arguments: &[&str]) -> anyhow::Result<Options> {
    let go = std::env::var_os("PINFOLD_PEERS").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let mut options = Options {
        anyway: false,
        repeat: 2,
        mib: 1024,
        files: 10_000,
        pins: 1_000_000,
        blocks: 10_000_000,
        settle: 1200,
        seconds: 10,
        only: None,
        out: None,
        go,
    };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().with_context(|| format!("{argument} needs a value"));
        match *argument {
            "--anyway" => options.anyway = true,
            "--repeat" => options.repeat = value()?.parse().context("--repeat")?,
            "--mib" => options.mib = value()?.parse().context("--mib")?,
            "--files" => options.files = value()?.parse().context("--files")?,
            "--pins" => options.pins = value()?.parse().context("--pins")?,
            "--blocks" => options.blocks = value()?.parse().context("--blocks")?,
            "--seconds" => options.seconds = value()?.parse().context("--seconds")?,
            "--only" => options.only = Some(value()?.to_string()),
            "--settle" => options.settle = value()?.parse().context("--settle")?,
            "--out" => options.out = Some(PathBuf::from(value()?)),
            other => bail!("unknown option {other:?}"),
        }
    }
    Ok(options)
}
