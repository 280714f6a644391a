//! `pinfold migrate-kubo`: blocks, pins with their names, the files tree, keys and settings of a Kubo repository become those of a Pinfold peer.
//!
//! The repository is only read: what needs Kubo's own program (pins and the root of the files tree lie in a database that only it reads) works
//! on a copy of all but the blocks. Doing it again goes on where it stopped: blocks that are here already are not read. Content is kept for
//! the cluster at once, so that no collection takes it before the pins themselves are merged at the first start.

mod blocks;
mod pins;
mod repo;

use self::pins::KuboPin;
use self::repo::Repo;
use super::migrate::PINS;
use crate::cli::UpArgs;
use crate::config::{self, Keys, NodeKind, Settings};
use crate::{names, output, wiring};
use anyhow::{Context, bail};
use clap::Args;
use ipfs::{PinError, PinProgress, PinTask, Pins, Source};
use ipfs_embedded::{EmbeddedNode, EmbeddedOptions};
use peer::names::{Keystore, KeystoreError};
use serde_json::json;
use std::collections::HashSet;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use store::{DiskOptions, DiskStore, PackOptions, PackStore, Store};
use types::{ByteCount, Cid, Depth, Owner, PeerId, Pin, PinKind, PinOptions, Replicas};

/// Problems that are named one by one.
const NAMED_MOST: usize = 20;
/// What the key of the Kubo node's own identity is called here.
const KUBO_SELF: &str = "kubo-self";

/// `pinfold migrate-kubo`
#[derive(Debug, Args)]
pub struct MigrateKuboArgs {
    /// The repository (`$IPFS_PATH`), with `config` and `blocks`.
    pub repo: PathBuf,
    /// Data directory of the peer, which must not run; default: where `up` looks.
    #[arg(long, env = "PINFOLD_DIR")]
    pub dir: Option<PathBuf>,
    /// Kubo's program, which alone reads the pins (default: ipfs, where it is installed).
    #[arg(long, value_name = "FILE")]
    pub ipfs: Option<PathBuf>,
    /// The pins, as written by `ipfs pin ls --names` (or with --enc=json).
    #[arg(long, value_name = "FILE", conflicts_with_all = ["ipfs", "no_pins"])]
    pub pins: Option<PathBuf>,
    /// The root of the files tree (`ipfs files stat / --hash`), where --pins is given.
    #[arg(long, value_name = "CID", requires = "pins")]
    pub files: Option<String>,
    /// Leave the pins behind: the blocks alone, which are garbage until something pins them.
    #[arg(long)]
    pub no_pins: bool,
    /// Copies wished of each pin; more than one are made as soon as there are other peers.
    #[arg(long, default_value = "1")]
    pub copies: NonZeroU32,
    /// The name of the cluster that a new peer is to join (default: as pinfold.toml says).
    #[arg(long, value_name = "NAME")]
    pub cluster_name: Option<String>,
    /// Most bytes that the peer may use (500GB, 1GiB, ...).
    #[arg(long, value_name = "BYTES")]
    pub space: Option<String>,
    /// One JSON object instead of text.
    #[arg(long)]
    pub json: bool,
}

/// What came over.
#[derive(Default)]
struct Done {
    blocks: blocks::Copied,
    pins: u64,
    /// Pins whose content is not all here, with the reason.
    incomplete: Vec<(Cid, String)>,
    keys: Vec<String>,
    notes: Vec<String>,
}

/// `pinfold migrate-kubo`
pub async fn run(args: MigrateKuboArgs) -> anyhow::Result<()> {
    let dir = match &args.dir {
        Some(dir) => dir.clone(),
        None => config::default_dir()?,
    };
    let repo = Repo::open(&args.repo)?;
    // Held to the end, where there is such a file: no daemon starts meanwhile.
    let _kept_out = repo.refuse_running()?;
    std::fs::create_dir_all(&dir).with_context(|| format!("making the data directory {}", dir.display()))?;
    let mut done = Done::default();
    take_settings(&repo, &dir, &mut done.notes)?;
    let settings = Settings::load(&UpArgs { dir: Some(dir.clone()), space: args.space.clone(), ..UpArgs::default() })?;
    if !matches!(settings.node, NodeKind::Embedded) {
        bail!("the blocks of {} lie in a Kubo daemon (`node` in pinfold.toml): name another --dir", dir.display());
    }
    let me = Keys::cluster_id(&dir)?;
    // Before anything long begins: the program may be missing.
    let pins = pins::take(&args, &repo, &dir, &mut done.notes)?;
    let (node, store) = open(&settings, &dir)?;
    // What is kept is kept for a cluster by its name, which an invite must have too.
    let wanted = args.cluster_name.clone().unwrap_or_else(|| settings.cluster_name.clone());
    let name = wiring::settled_name(store.as_ref(), wanted, false)?;
    if let Some(asked) = args.cluster_name.as_ref().filter(|asked| **asked != name) {
        bail!("{} belongs to the cluster {name:?}, not {asked:?}: name another --dir", dir.display());
    }
    let owner = Owner::Cluster(name);

    done.blocks = blocks::copy(node.clone(), &repo.blocks).await?;
    keep(&node, &owner, &pins, &mut done).await?;
    write_pins(&dir, &pins, me, args.copies)?;
    done.pins = pins.len() as u64;
    keys(&repo, &names::keystore(&dir, None), &mut done)?;
    report(&done, &dir, args.json);
    if !done.incomplete.is_empty() {
        bail!("{} pins are not complete in this repository: the peer fetches what is missing once it is up", done.incomplete.len());
    }
    Ok(())
}

/// A data directory without settings gets those of Kubo that have a counterpart.
fn take_settings(repo: &Repo, dir: &Path, notes: &mut Vec<String>) -> anyhow::Result<()> {
    let (toml, path) = (repo.settings(notes), dir.join("pinfold.toml"));
    match std::fs::read_to_string(&path) {
        Ok(known) if known.starts_with(&toml) => {}
        Ok(_) => notes.push(format!("{} is there already and stays as it is", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            config::write_private(&path, format!("{toml}\n{}", config::COMMENTED).as_bytes())?;
        }
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    }
    Ok(())
}

/// The node of the data directory, without a network.
fn open(settings: &Settings, dir: &Path) -> anyhow::Result<(Arc<EmbeddedNode>, Arc<dyn Store>)> {
    let quota = wiring::space_quota(settings)?;
    let store = DiskStore::open(&dir.join("state"), DiskOptions::with_quota(quota.clone()));
    let store: Arc<dyn Store> = Arc::new(store.context("opening the peer's state (stop the peer first)")?);
    let packs = PackStore::open(&dir.join("blocks"), store.clone(), PackOptions::with_quota(quota)).context("opening the block store")?;
    let node = EmbeddedNode::open(store.clone(), Arc::new(packs), None, EmbeddedOptions::default()).context("opening the IPFS node")?;
    Ok((node, store))
}

/// Keeps for the cluster what is complete here; names what is not.
async fn keep(node: &EmbeddedNode, owner: &Owner, pins: &[KuboPin], done: &mut Done) -> anyhow::Result<()> {
    let bar = output::count_bar(pins.len() as u64, "pins");
    for pin in pins {
        let task = PinTask { owner: owner.clone(), cid: pin.cid, depth: pin.depth, source: Source::local() };
        let progress = Arc::new(tokio::sync::watch::Sender::new(PinProgress::default()));
        match node.pin(task, progress).await {
            Ok(_) => {}
            Err(error @ (PinError::Missing { .. } | PinError::Malformed { .. })) => done.incomplete.push((pin.cid, error.to_string())),
            Err(error) => return Err(error).with_context(|| format!("keeping {} (run the same line again to go on)", pin.cid)),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}

/// Lines that the first start merges; those of an earlier migration that still wait stay.
fn write_pins(dir: &Path, pins: &[KuboPin], me: PeerId, copies: NonZeroU32) -> anyhow::Result<()> {
    if pins.is_empty() {
        return Ok(());
    }
    let created = peer::clock::wall();
    let path = dir.join(PINS);
    let waiting = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    let ours: HashSet<Cid> = pins.iter().map(|pin| pin.cid).collect();
    let is_kept = |line: &&str| wire::export::parse_line(line).is_ok_and(|pin| !ours.contains(&pin.cid));
    config::write_private_by(&path, |out| {
        for line in waiting.lines().filter(is_kept) {
            writeln!(out, "{line}")?;
        }
        for pin in pins {
            let options = PinOptions { replicas: Replicas::exactly(copies), name: pin.name.clone(), ..PinOptions::default() };
            let pin = Pin { cid: pin.cid, kind: PinKind::Data, options, placement: vec![me], depth: pin.depth, reference: None, created };
            writeln!(out, "{}", wire::export::export_line(&pin).trim_end())?;
        }
        Ok(())
    })
}

/// The keystore's keys under their names, and the node's identity as a key.
fn keys(repo: &Repo, keystore: &Keystore, done: &mut Done) -> anyhow::Result<()> {
    let own = repo.identity().map(|bytes| (KUBO_SELF.to_owned(), bytes));
    for (key, bytes) in repo.keys()?.into_iter().chain(own) {
        match keystore.import(&key, &bytes) {
            Ok(_) => done.keys.push(key),
            Err(KeystoreError::Exists(_)) if keystore.export(&key).is_ok_and(|known| known == bytes) => done.keys.push(key),
            Err(error @ (KeystoreError::Exists(_) | KeystoreError::BadName(_) | KeystoreError::IsSelf(_) | KeystoreError::Key { .. })) => {
                done.notes.push(format!("key {key:?} is left behind: {error}"));
            }
            Err(error) => return Err(error).context("taking the keys over"),
        }
    }
    if done.keys.iter().any(|key| key == KUBO_SELF) {
        done.notes.push(format!(
            "the identity of the Kubo node is the key {KUBO_SELF:?} here, so its name can be published; this peer's node has an id of its own"
        ));
    }
    done.notes.push("names are published anew by `pinfold name publish --key KEY`, above the sequence that Kubo's record had".to_owned());
    Ok(())
}

fn report(done: &Done, dir: &Path, as_json: bool) {
    let blocks = &done.blocks;
    let bad: Vec<_> = blocks.bad.iter().map(|(file, why)| json!({ "file": file.display().to_string(), "why": why })).collect();
    let incomplete: Vec<_> = done.incomplete.iter().map(|(cid, why)| json!({ "cid": cid.to_string(), "why": why })).collect();
    if as_json {
        output::json_line(&json!({
            "dir": dir.display().to_string(),
            "blocks": { "copied": blocks.copied, "bytes": blocks.bytes, "here_already": blocks.known, "bad": blocks.bad_count },
            "bad_files": bad, "pins": done.pins, "incomplete": incomplete, "keys": done.keys, "notes": done.notes,
        }));
        return;
    }
    println!("blocks: {} copied ({}), {} were here already", blocks.copied, ByteCount(blocks.bytes), blocks.known);
    println!("pins: {}, merged at the first start", done.pins);
    println!("keys: {}", if done.keys.is_empty() { "none".to_owned() } else { done.keys.join(", ") });
    for (file, why) in blocks.bad.iter().take(NAMED_MOST) {
        println!("damaged: {}: {why}", file.display());
    }
    if blocks.bad_count > NAMED_MOST as u64 {
        println!("damaged: {} files in all", blocks.bad_count);
    }
    for (_, why) in done.incomplete.iter().take(NAMED_MOST) {
        println!("incomplete: {why}");
    }
    for note in &done.notes {
        println!("note: {note}");
    }
    println!("Start it with: pinfold up --dir {0}   (or join a cluster: pinfold join <invite> --dir {0})", dir.display());
}

/// How deep Kubo's kinds of pins go; none for those that follow from others.
fn depth_of_kind(kind: &str) -> Option<Depth> {
    match kind {
        "recursive" => Some(Depth::Recursive),
        "direct" => Some(Depth::DIRECT),
        _ => None,
    }
}
