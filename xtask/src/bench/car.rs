//! `bench car`: a CAR of one large file, imported on one peer and on three with two copies, beside Kubo's `dag import` and Go's cluster.

use super::machine::{commit, limits, load};
use super::slice::{Figure, build, fresh, make_large, one};
use super::{Options, go, ours};
use anyhow::{Context, bail};
use serde_json::json;
use std::path::Path;

/// Runs all subjects in turn, as often as asked.
pub fn run(root: &Path, options: &Options, load_before: f64) -> anyhow::Result<()> {
    let binary = build(root)?;
    let folder = std::env::temp_dir().join(format!("pinfold-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).context("making a folder for the benchmark")?;
    let outcome = measure(root, options, load_before, &binary, &folder);
    std::fs::remove_dir_all(&folder).ok();
    outcome
}

fn measure(root: &Path, options: &Options, load_before: f64, binary: &Path, folder: &Path) -> anyhow::Result<()> {
    let limits = limits(folder)?;
    println!("limits: {limits}");
    let car = folder.join("large.car");
    let expected = make_car(options, binary, folder, &car)?;
    let bytes = std::fs::metadata(&car).context("the archive")?.len();
    let check = |cid: String| if cid == expected { Ok(()) } else { bail!("{cid} is not the root of the archive, {expected}") };
    let mut figures = Vec::new();
    for round in 0..options.repeat {
        for (peers, copies) in [(1, 1), (3, 2)] {
            let place = fresh(folder, &format!("ours{peers}-{round}"))?;
            let cluster = ours::Cluster::start(binary, &place, peers)?;
            let subject = format!("pinfold {peers} peers {copies} copies");
            figures.push(one(&subject, "car", bytes, 1, round, || cluster.cpu(), || cluster.import(&car, copies).and_then(check))?);
            drop(cluster);
            std::fs::remove_dir_all(&place)?;
        }
        let Some(bin) = &options.go else { continue };
        let place = fresh(folder, &format!("kubo-{round}"))?;
        let kubo = go::Kubo::start(bin, &place, 0)?;
        figures.push(one("kubo", "car", bytes, 1, round, || kubo.cpu(), || kubo.import(&car).and_then(check))?);
        drop(kubo);
        std::fs::remove_dir_all(&place)?;
        let place = fresh(folder, &format!("go-{round}"))?;
        let cluster = go::Cluster::start(bin, &place, 1, 1, go::Batching::Off)?;
        figures.push(one("go 1 peers 1 copies", "car", bytes, 1, round, || cluster.cpu(), || cluster.import(&car))?);
        drop(cluster);
        std::fs::remove_dir_all(&place)?;
    }
    if options.go.is_none() {
        println!("skipped: Kubo and Go need PINFOLD_PEERS (the folder of ipfs, ipfs-cluster-service, ipfs-cluster-ctl)");
    }
    let report = json!({
        "bench": "car", "commit": commit(root), "load_before": load_before, "load_after": load()?, "limits": limits,
        "figures": figures.iter().map(Figure::json).collect::<Vec<_>>(),
    });
    let out = options.out.clone().unwrap_or_else(|| root.join("target/bench-car.json"));
    std::fs::write(&out, serde_json::to_vec_pretty(&report)?).with_context(|| format!("writing {}", out.display()))?;
    println!("written to {}", out.display());
    Ok(())
}

/// Has a peer of ours make the archive; its root.
fn make_car(options: &Options, binary: &Path, folder: &Path, car: &Path) -> anyhow::Result<String> {
    let large = make_large(folder, options)?;
    let place = fresh(folder, "maker")?;
    let maker = ours::Cluster::start(binary, &place, 1)?;
    let root = maker.add(&large, 1)?;
    maker.export(&root, car)?;
    drop(maker);
    std::fs::remove_dir_all(&place)?;
    std::fs::remove_file(&large)?;
    Ok(root)
}
