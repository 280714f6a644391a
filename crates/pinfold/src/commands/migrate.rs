//! `pinfold migrate`: identity, secret, trust, settings and pins of a Go ipfs-cluster peer become those of a Pinfold peer.
//!
//! The Go folder is only read: what needs Go's own program (the pins of a CRDT peer lie in a database that only it reads) works on a
//! copy. The new folder counts as a peer's once `identity.json` is in it, which is written last. The pins wait in
//! [`PINS`] and are merged at the first start.

mod settings;

use self::settings::Consensus;
use crate::cli::MigrateArgs;
use crate::config;
use crate::output;
use anyhow::{Context, bail};
use peer::Cluster;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use types::PinKind;
use wire::identity::PrivateKey;

/// Pins that the first start merges, as lines of Go's `state export`.
pub(super) const PINS: &str = "pins-to-take-over.ndjson";
/// What they are called afterwards.
const PINS_TAKEN: &str = "pins-taken-over.ndjson";
/// Pins merged at a time.
const BATCH: usize = 4096;
/// Longest snapshot that is read: some ten million pins.
const SNAPSHOT_MOST: u64 = 4 << 30;
/// Go's program, where none is named.
const SERVICE: &str = "ipfs-cluster-service";

/// `pinfold migrate`
pub async fn run(args: MigrateArgs) -> anyhow::Result<()> {
    let dir = match &args.dir {
        Some(dir) => dir.clone(),
        None => config::default_dir()?,
    };
    let as_json = args.json;
    let done = tokio::task::spawn_blocking(move || migrate(&args, &dir)).await.context("migrating")??;
    if as_json {
        output::json_line(&json!({
            "peer": done.peer, "dir": done.dir.display().to_string(), "pins": done.pins, "notes": done.notes,
        }));
        return Ok(());
    }
    println!("{} is a Pinfold peer in {}", done.peer, done.dir.display());
    match done.pins {
        Some(pins) => println!("pins: {pins}, merged at the first start"),
        None => println!("pins: from the other peers, once it is up"),
    }
    for note in &done.notes {
        println!("note: {note}");
    }
    println!("Start it with: pinfold up --dir {}", done.dir.display());
    Ok(())
}

struct Done {
    peer: String,
    dir: PathBuf,
    pins: Option<u64>,
    notes: Vec<String>,
}

fn migrate(args: &MigrateArgs, dir: &Path) -> anyhow::Result<Done> {
    let go = &args.from;
    if dir.join("identity.json").exists() {
        bail!("{} holds a peer already: choose another --dir", dir.display());
    }
    let service: Value = read_json(&go.join("service.json"))?;
    let key = identity(go, &service)?;
    let _kept_out = Lock::take(go)?;
    let peerstore = peerstore(go, &service);
    let mut taken = settings::translate(&service, &peerstore, &key.peer_id()).with_context(|| format!("reading {}", go.display()))?;
    config::parse_secret(&taken.secret).context("cluster.secret")?;
    std::fs::create_dir_all(dir).with_context(|| format!("making the data directory {}", dir.display()))?;
    let pins = take_pins(args, go, dir, &taken)?;
    if pins.is_none() && taken.consensus == Consensus::Crdt {
        taken
            .notes
            .push(format!("{} other peers are known: the pins come from them; --state FILE brings them along instead", taken.others.len()));
    }
    let toml = format!("{}\n{}", taken.toml, config::COMMENTED);
    config::write_private(&dir.join("pinfold.toml"), toml.as_bytes())?;
    config::write_private(&dir.join("secret"), format!("{}\n", taken.secret).as_bytes())?;
    config::write_private(&dir.join("identity.json"), wire::identity::encode_identity(&key).as_bytes())?;
    Ok(Done { peer: key.peer_id().to_string(), dir: dir.to_owned(), pins, notes: taken.notes })
}

fn read_json(path: &Path) -> anyhow::Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| {
        format!("reading {}: name the folder that ipfs-cluster-service uses, for example ~/.ipfs-cluster", path.display())
    })?;
    serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))
}

/// From `identity.json`, or (before Go 0.11) from the configuration itself.
fn identity(go: &Path, service: &Value) -> anyhow::Result<PrivateKey> {
    let path = go.join("identity.json");
    match std::fs::read_to_string(&path) {
        Ok(text) => wire::identity::decode_identity(&text).with_context(|| format!("reading {}", path.display())),
        Err(error) if error.kind() == ErrorKind::NotFound && service["cluster"]["private_key"].is_string() => {
            let old = json!({ "id": service["cluster"]["id"], "private_key": service["cluster"]["private_key"] });
            wire::identity::decode_identity(&old.to_string()).context("reading cluster.private_key of service.json")
        }
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

fn peerstore(go: &Path, service: &Value) -> String {
    let name = service["cluster"]["peerstore_file"].as_str().filter(|name| !name.is_empty()).unwrap_or("peerstore");
    // A peer that never stopped cleanly has none.
    std::fs::read_to_string(go.join(name)).unwrap_or_default()
}

/// While it is held no Go peer starts there; two peers of one identity would fight.
struct Lock(Option<File>);

impl Lock {
    fn take(go: &Path) -> anyhow::Result<Lock> {
        let path = go.join("cluster.lock");
        let file = match File::options().write(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Lock(None)),
            Err(error) => return Err(error).with_context(|| format!("opening {}", path.display())),
        };
        match rustix::fs::fcntl_lock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Lock(Some(file))),
            Err(_) => bail!("the Go peer of {} is running: stop it first (two peers of one identity would fight)", go.display()),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Some(file) = &self.0 {
            rustix::fs::fcntl_lock(file, rustix::fs::FlockOperation::Unlock).ok();
        }
    }
}

/// Brings the pins into the new folder; none when they come from other peers.
fn take_pins(args: &MigrateArgs, go: &Path, dir: &Path, taken: &settings::Taken) -> anyhow::Result<Option<u64>> {
    let to = dir.join(PINS);
    if args.no_state {
        return Ok(None);
    }
    if let Some(path) = &args.state {
        return keep_lines(path, &to).map(Some);
    }
    match &taken.consensus {
        Consensus::Raft(folder) => {
            let raft = go.join(folder);
            let snapshot = newest_snapshot(&raft)?;
            // Go writes a snapshot as it stops, and takes its lock file away last.
            if go.join("cluster.lock").exists() || (snapshot.is_none() && raft.join("raft.db").exists()) {
                bail!(
                    "the Go peer of {} was not stopped cleanly: what it wrote last stands in its Raft log alone. Start it once more and stop it \
                     (ipfs-cluster-service -c {} daemon, then Ctrl-C), or give a state export of a running peer by --state; --no-state leaves \
                     the pins behind",
                    go.display(),
                    go.display()
                );
            }
            snapshot.map_or(Ok(Some(0)), |snapshot| keep_snapshot(&snapshot, &to).map(Some))
        }
        Consensus::Crdt => match export(args, go, dir, &to)? {
            Some(pins) => Ok(Some(pins)),
            None if !taken.others.is_empty() => Ok(None),
            None => bail!(
                "the pins of {} are in a database that only Go reads, and {SERVICE} was not found: name it by --service, or write them out \
                 (ipfs-cluster-service -c {} state export -f pins.ndjson) and give --state pins.ndjson; --no-state leaves them behind",
                go.display(),
                go.display()
            ),
        },
    }
}

/// Checks every line and writes it durably, one after the other. An error names the line.
fn keep_lines(from: &Path, to: &Path) -> anyhow::Result<u64> {
    let file = File::open(from).with_context(|| format!("opening {}", from.display()))?;
    let mut count = 0;
    config::write_private_by(to, |out| {
        for (number, line) in (1u64..).zip(BufReader::new(file).lines()) {
            let line = line.with_context(|| format!("reading {}, line {number}", from.display()))?;
            if line.trim().is_empty() {
                continue;
            }
            let pin = wire::export::parse_line(&line).with_context(|| format!("{}: line {number} is no pin", from.display()))?;
            if pin.kind == PinKind::Bad {
                bail!("{}: line {number}: its type is none of pin, meta-pin, clusterdag-pin, shard-pin", from.display());
            }
            writeln!(out, "{line}")?;
            count += 1;
        }
        Ok(())
    })?;
    Ok(count)
}

fn keep_snapshot(path: &Path, to: &Path) -> anyhow::Result<u64> {
    let length = std::fs::metadata(path).with_context(|| format!("reading {}", path.display()))?.len();
    if length > SNAPSHOT_MOST {
        bail!("{} is {length} bytes long, more than the {SNAPSHOT_MOST} that are read: give a state export by --state", path.display());
    }
    // One msgpack value after the other, without lengths in between: read as a whole, within the bound.
    let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let mut count = 0;
    config::write_private_by(to, |out| {
        for pin in wire::raft::decode_snapshot(&bytes) {
            let pin = pin.with_context(|| format!("reading {}", path.display()))?;
            writeln!(out, "{}", wire::export::export_line(&pin).trim_end())?;
            count += 1;
        }
        Ok(())
    })?;
    Ok(count)
}

/// The body of the newest snapshot below a Raft folder; their names are `<term>-<index>-<milliseconds>`.
fn newest_snapshot(raft: &Path) -> anyhow::Result<Option<PathBuf>> {
    let folder = raft.join("snapshots");
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("reading {}", folder.display())),
    };
    let mut found: Vec<((u64, u64), PathBuf)> = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("reading {}", folder.display()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let mut numbers = name.split('-').map(|number| number.parse().ok());
        let body = entry.path().join("state.bin");
        if let (Some(Some(term)), Some(Some(index))) = (numbers.next(), numbers.next())
            && body.exists()
        {
            found.push(((term, index), body));
        }
    }
    Ok(found.into_iter().max().map(|(_, body)| body))
}

/// Takes what Go's `state export` says of a copy of the folder; none when there is no such program.
fn export(args: &MigrateArgs, go: &Path, dir: &Path, to: &Path) -> anyhow::Result<Option<u64>> {
    let service = args.service.clone().unwrap_or_else(|| PathBuf::from(SERVICE));
    let is_there = Command::new(&service).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    match is_there {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound && args.service.is_none() => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("starting {}", service.display())),
    }
    let copy = Copy(dir.join("go-copy"));
    copy_folder(go, &copy.0)?;
    let lines = copy.0.join("pins.ndjson");
    let output = Command::new(&service)
        .arg("-c")
        .arg(&copy.0)
        .args(["state", "export", "-f"])
        .arg(&lines)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting {}", service.display()))?;
    if !output.status.success() {
        bail!("{} state export failed: {}", service.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    keep_lines(&lines, to).map(Some)
}

/// A copy of the Go folder, removed at the end.
struct Copy(PathBuf);

impl Drop for Copy {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn copy_folder(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
    for entry in std::fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry.with_context(|| format!("reading {}", from.display()))?;
        let kind = entry.file_type().with_context(|| format!("reading {}", entry.path().display()))?;
        let target = to.join(entry.file_name());
        if kind.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else if kind.is_file() {
            std::fs::copy(entry.path(), &target).with_context(|| format!("copying {}", entry.path().display()))?;
        }
    }
    Ok(())
}

/// At a start: merges pins that a migration brought. Doing it twice is harmless.
pub async fn take_over(dir: &Path, peer: &Arc<peer::Peer>) -> anyhow::Result<()> {
    let path = dir.join(PINS);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("opening {}", path.display())),
    };
    let mut lines = BufReader::new(file).lines();
    let mut count = 0;
    loop {
        let mut pins = Vec::with_capacity(BATCH);
        for line in lines.by_ref().take(BATCH) {
            let line = line.with_context(|| format!("reading {}", path.display()))?;
            pins.push(wire::export::parse_line(&line).with_context(|| format!("{}: a line is no pin", path.display()))?);
        }
        if pins.is_empty() {
            break;
        }
        count += pins.len();
        peer.import(pins, false).await.map_err(|error| anyhow::anyhow!("merging the pins of {}: {error}", path.display()))?;
    }
    std::fs::rename(&path, dir.join(PINS_TAKEN)).with_context(|| format!("renaming {}", path.display()))?;
    tracing::info!(count, "pins that were migrated are taken over");
    Ok(())
}
