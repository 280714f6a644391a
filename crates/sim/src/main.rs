//! Runs seeds: one, to look at it, or as many as fit into some minutes.

use anyhow::{Context, Result, bail};
use sim::{Invariant, Outcome, Settings, run};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const HELP: &str = "\
sim: many peers on virtual time, with seeded faults

  --seed N            the seed to run, or the first of several (1)
  --seeds N           run so many seeds, one after the other
  --minutes M         begin no further seed after so many minutes
  --threads T         seeds run side by side (as many as there are processors)
  --peers P           peers (50)
  --pins K            pins (2000)
  --fault-profile F   calm, network, crash or all (all)
  --faults-for MS     how long faults happen, in virtual milliseconds (200000)
  --grace MS          how long a silent peer is waited for (40000)
  --sites N           sites over which the peers are spread (3 with even seeds, else 0)
  --still             no copy moves only for an even spread
  --large BxC         a program adds B bytes in C copies, cut into shards (may be said several times)
  --disk B            all disks have B bytes
  --steps             tell what happens
  --twice             run each seed twice and compare";

struct Arguments {
    settings: Settings,
    sites: Option<usize>,
    seeds: u64,
    minutes: u64,
    threads: usize,
    twice: bool,
}

fn main() -> Result<ExitCode> {
    let Some(arguments) = read(std::env::args().skip(1))? else {
        println!("{HELP}");
        return Ok(ExitCode::SUCCESS);
    };
    let began = Instant::now();
    let end = began + Duration::from_secs(arguments.minutes * 60);
    let (next, done, failed) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= arguments.seeds || Instant::now() >= end {
                        break;
                    }
                    let seed = arguments.settings.seed + number;
                    let sites = arguments.sites.unwrap_or(Settings::new(seed, 1, 1).sites);
                    let settings = Settings { seed, sites, ..arguments.settings.clone() };
                    let is_well = run_one(&settings, arguments.twice);
                    done.fetch_add(1, Ordering::Relaxed);
                    failed.fetch_add(u64::from(!is_well), Ordering::Relaxed);
                }
            });
        }
    });
    let (done, failed) = (done.into_inner(), failed.into_inner());
    println!("{done} seeds in {:.1} s, {failed} failed", began.elapsed().as_secs_f64());
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs one seed and tells how it ended; whether all was well.
fn run_one(settings: &Settings, twice: bool) -> bool {
    let began = Instant::now();
    let outcome = run(settings);
    let Outcome { numbers, kept, trace, time, .. } = &outcome;
    let mut text = format!(
        "seed {}: {} in {:.1} s ({} s virtual, {} events, {kept} kept, {} copies made, {} let go, {} repairs, {} of them for an even spread, at most {}.{}% off, {} crashes, {} lost by fate, trace {trace:016x})",
        settings.seed,
        match &outcome.violation {
            Some(_) => "RED",
            None if numbers.histories_lost > 0 => "history lost with its disks",
            None => "well",
        },
        began.elapsed().as_secs_f64(),
        time / 1000,
        numbers.events,
        numbers.pinned,
        numbers.unpinned,
        numbers.repairs,
        numbers.moves,
        numbers.off_share / 10,
        numbers.off_share % 10,
        numbers.crashes,
        numbers.excused,
    );
    let is_repeated = !twice || run(settings) == outcome;
    if let Some(violation) = &outcome.violation {
        text += &format!("\n  {violation}");
    }
    if !is_repeated {
        text += &format!("\n  {} is broken: a second run went another way", Invariant::SameSeedSameTrace.name());
    }
    let is_well = outcome.violation.is_none() && is_repeated;
    if !is_well {
        text += &format!("\n  again: {}", settings.replay());
    }
    println!("{text}");
    is_well
}

fn read(mut words: impl Iterator<Item = String>) -> Result<Option<Arguments>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut arguments = Arguments { settings: Settings::new(1, 50, 2000), sites: None, seeds: 1, minutes: 60, threads, twice: false };
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word} needs a value"));
        match word.as_str() {
            "--seed" => arguments.settings.seed = value()?.parse().context("--seed takes a number")?,
            "--seeds" => arguments.seeds = value()?.parse().context("--seeds takes a number")?,
            "--minutes" => arguments.minutes = value()?.parse().context("--minutes takes a number")?,
            "--threads" => arguments.threads = value()?.parse::<usize>().context("--threads takes a number")?.max(1),
            "--peers" => arguments.settings.peers = value()?.parse().context("--peers takes a number")?,
            "--pins" => arguments.settings.pins = value()?.parse().context("--pins takes a number")?,
            "--fault-profile" => arguments.settings.profile = value()?.parse().map_err(anyhow::Error::msg)?,
            "--faults-for" => arguments.settings.faults_for = value()?.parse().context("--faults-for takes milliseconds")?,
            "--grace" => arguments.settings.grace = value()?.parse().context("--grace takes milliseconds")?,
            "--sites" => arguments.sites = Some(value()?.parse().context("--sites takes a number")?),
            "--still" => arguments.settings.repair.balances = false,
            "--large" => arguments.settings.large.push(large(&value()?)?),
            "--disk" => arguments.settings.disk = Some(value()?.parse().context("--disk takes bytes")?),
            "--steps" => arguments.settings.steps = true,
            "--twice" => arguments.twice = true,
            "--help" | "-h" => return Ok(None),
            other => bail!("unknown option {other}\n{HELP}"),
        }
    }
    if arguments.settings.peers == 0 || (arguments.settings.pins == 0 && arguments.settings.large.is_empty()) {
        bail!("at least one peer and one pin are needed");
    }
    Ok(Some(arguments))
}

/// `BYTESxCOPIES`
fn large(text: &str) -> Result<(u64, u32)> {
    let (bytes, copies) = text.split_once('x').context("--large takes BYTESxCOPIES")?;
    Ok((bytes.parse().context("--large: bytes")?, copies.parse().context("--large: copies")?))
}
