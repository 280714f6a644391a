//! One file over bitswap on loopback, from its only holder to a peer that pins it: between Pinfold and Kubo in all four ways.

use super::said;
use crate::bench::go::Kubo;
use crate::bench::machine::round as rounded;
use crate::bench::million::Peer;
use crate::bench::process::client;
use crate::bench::{Options, slice};
use anyhow::Context;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// Who gives or takes.
enum Side {
    Pinfold(Peer),
    Kubo(Kubo),
}

/// All ways that can be gone here.
pub fn run(root: &Path, place: &Path, options: &Options, round: usize) -> anyhow::Result<Vec<Value>> {
    let binary = slice::build(root)?;
    let file = slice::make_large(place, options)?;
    let mut holders = vec![Side::Pinfold(Peer::start(&binary, place, "holder", None)?)];
    match &options.go {
        Some(bin) => holders.push(Side::Kubo(Kubo::start(bin, place, 0)?)),
        None => println!("skipped: Kubo needs PINFOLD_PEERS (the folder of ipfs)"),
    }
    let roots: Vec<String> = holders.iter().map(|holder| holder.add(&binary, &file)).collect::<anyhow::Result<_>>()?;
    anyhow::ensure!(roots.iter().all(|root| *root == roots[0]), "the holders have different roots: {roots:?}");
    let mut figures: Vec<Value> = Vec::new();
    for holder in &holders {
        for is_ours in holders.iter().map(|taker| matches!(taker, Side::Pinfold(_))) {
            let taker = match (&options.go, is_ours) {
                (_, true) => Side::Pinfold(Peer::start(&binary, place, "taker", None)?),
                (Some(bin), false) => Side::Kubo(Kubo::start(bin, place, 1)?),
                (None, false) => continue,
            };
            figures.push(one(&binary, holder, &taker, &roots[0], options.mib << 20)?);
            drop(taker);
            std::fs::remove_dir_all(place.join(if is_ours { "taker" } else { "kubo1" }))?;
        }
    }
    let between_kubos = figures.iter().find(|figure| figure["subject"] == "kubo -> kubo").and_then(|figure| figure["mb_s"].as_f64());
    for figure in &mut figures {
        if let (Some(kubo), Some(rate)) = (between_kubos, figure["mb_s"].as_f64()) {
            figure["of_kubo_kubo"] = json!(rounded(rate / kubo));
        }
    }
    Ok(figures.into_iter().map(|figure| said(figure, round)).collect())
}

fn one(binary: &Path, holder: &Side, taker: &Side, root: &str, bytes: u64) -> anyhow::Result<Value> {
    let subject = format!("{} -> {}", holder.name(), taker.name());
    let address = holder.address()?;
    taker.meet(&address)?;
    let (before, begun) = ((holder.cpu(), taker.cpu()), Instant::now());
    taker.take(binary, root, &address).with_context(|| subject.clone())?;
    let seconds = begun.elapsed().as_secs_f64();
    let gigabytes = bytes as f64 / 1e9;
    let (gave, took) = (holder.cpu() - before.0, taker.cpu() - before.1);
    Ok(json!({
        "subject": subject, "work": "bitswap on loopback", "bytes": bytes, "seconds": rounded(seconds),
        "mb_s": rounded(gigabytes * 1000.0 / seconds), "cpu_s_per_gb_giving": rounded(gave / gigabytes),
        "cpu_s_per_gb_taking": rounded(took / gigabytes),
    }))
}

impl Side {
    fn name(&self) -> &'static str {
        match self {
            Side::Pinfold(_) => "pinfold",
            Side::Kubo(_) => "kubo",
        }
    }

    fn add(&self, binary: &Path, file: &Path) -> anyhow::Result<String> {
        let peer = match self {
            Side::Kubo(kubo) => return kubo.add(file),
            Side::Pinfold(peer) => peer,
        };
        // One pin, as in Kubo, whatever its size.
        let arguments = ["--quiet", "--wait", "1", "--shard-size", "1TiB", "--api", peer.api()];
        let said = client(Command::new(binary).arg("add").arg(file).args(arguments))?;
        Ok(said.trim().lines().last().unwrap_or_default().to_owned())
    }

    fn address(&self) -> anyhow::Result<String> {
        match self {
            Side::Pinfold(peer) => peer.swarm().context("an address of the peer's node"),
            Side::Kubo(kubo) => Ok(kubo.address.clone()),
        }
    }

    /// Kubo is told first who has it; a pin of ours names that itself.
    fn meet(&self, address: &str) -> anyhow::Result<()> {
        match self {
            Side::Pinfold(_) => Ok(()),
            Side::Kubo(kubo) => kubo.connect(address),
        }
    }

    fn take(&self, binary: &Path, root: &str, address: &str) -> anyhow::Result<()> {
        match self {
            Side::Pinfold(peer) => {
                let arguments = ["pin", "add", root, "--origin", address, "--wait", "1", "--api", peer.api()];
                client(Command::new(binary).args(arguments)).map(drop)
            }
            Side::Kubo(kubo) => kubo.pin(root),
        }
    }

    fn cpu(&self) -> f64 {
        match self {
            Side::Pinfold(peer) => peer.cpu(),
            Side::Kubo(kubo) => kubo.cpu(),
        }
    }
}
