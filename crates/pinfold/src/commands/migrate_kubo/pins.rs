//! Pins of a Kubo repository: what its own program says of a copy of it, or a file.

use super::repo::Repo;
use super::{MigrateKuboArgs, depth_of_kind};
use anyhow::{Context, bail};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use types::{Cid, Depth};

/// Kubo's program, where none is named.
const IPFS: &str = "ipfs";
/// What the pin of the files tree is called.
const FILES: &str = "files of Kubo";
/// The empty folder, which every repository has as its first files tree.
const EMPTY: &str = "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn";

/// A pin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KuboPin {
    /// The root.
    pub cid: Cid,
    /// How deep.
    pub depth: Depth,
    /// What its user calls it.
    pub name: String,
}

/// All pins, with the files tree as one of them; one for each CID.
pub fn take(args: &MigrateKuboArgs, repo: &Repo, dir: &Path, notes: &mut Vec<String>) -> anyhow::Result<Vec<KuboPin>> {
    if args.no_pins {
        notes.push("without pins the blocks are garbage: the next collection takes what nothing else pins".to_owned());
        return Ok(Vec::new());
    }
    let (text, files) = match &args.pins {
        Some(path) => {
            if args.files.is_none() {
                notes.push("the files tree is left behind: name its root by --files (`ipfs files stat / --hash`)".to_owned());
            }
            (std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?, args.files.clone())
        }
        None => ask(args, repo, dir)?,
    };
    let mut pins = parse(&text)?;
    if let Some(files) = files.map(|files| files.trim().to_owned()).filter(|files| !files.is_empty() && files != EMPTY) {
        let cid = wire::cids::cid_from_text(&files).with_context(|| format!("the root of the files tree, {files:?}"))?;
        add(&mut pins, KuboPin { cid, depth: Depth::Recursive, name: FILES.to_owned() });
    }
    Ok(pins.into_values().collect())
}

/// Lines as `CID recursive NAME`, JSON lines, or one JSON object with all. An error names the line.
fn parse(text: &str) -> anyhow::Result<BTreeMap<Vec<u8>, KuboPin>> {
    let mut pins = BTreeMap::new();
    for (number, line) in (1u64..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let rows = match line.trim_start().starts_with('{') {
            true => of_json(&serde_json::from_str(line).with_context(|| format!("line {number} of the pins is no JSON"))?),
            false => {
                let mut words = line.trim().splitn(3, char::is_whitespace);
                let mut next = || words.next().unwrap_or_default().trim().to_owned();
                vec![(next(), next(), next())]
            }
        };
        for (cid, kind, name) in rows {
            let kind = if kind.is_empty() { "recursive" } else { kind.as_str() };
            let Some(depth) = depth_of_kind(kind) else {
                if kind.starts_with("indirect") {
                    continue;
                }
                bail!("line {number} of the pins: {kind:?} is no kind of pin: write them out by `ipfs pin ls --names`");
            };
            let cid = wire::cids::cid_from_text(&cid).with_context(|| format!("line {number} of the pins: {cid:?}"))?;
            add(&mut pins, KuboPin { cid, depth, name });
        }
    }
    Ok(pins)
}

fn of_json(line: &Value) -> Vec<(String, String, String)> {
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    match line["Keys"].as_object() {
        Some(keys) => keys.iter().map(|(cid, pin)| (cid.clone(), text(pin, "Type"), text(pin, "Name"))).collect(),
        None => vec![(text(line, "Cid"), text(line, "Type"), text(line, "Name"))],
    }
}

/// Of two pins of one CID the deeper one counts, and a name is kept.
fn add(pins: &mut BTreeMap<Vec<u8>, KuboPin>, pin: KuboPin) {
    let known = pins.entry(pin.cid.to_bytes()).or_insert_with(|| pin.clone());
    if pin.depth == Depth::Recursive {
        known.depth = Depth::Recursive;
    }
    if known.name.is_empty() {
        known.name = pin.name;
    }
}

/// What Kubo's program says of a copy: the pins as JSON lines, and the root of the files tree.
fn ask(args: &MigrateKuboArgs, repo: &Repo, dir: &Path) -> anyhow::Result<(String, Option<String>)> {
    let program = args.ipfs.clone().unwrap_or_else(|| PathBuf::from(IPFS));
    match Command::new(&program).arg("version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status() {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound && args.ipfs.is_none() => bail!(
            "the pins of {} are in a database that only Kubo reads, and {IPFS} was not found: name it by --ipfs, or write them out \
             (`ipfs pin ls --names > pins.txt`) and give --pins pins.txt; --no-pins leaves them behind",
            repo.root.display()
        ),
        Err(error) => return Err(error).with_context(|| format!("starting {}", program.display())),
    }
    let copy = Copy(dir.join("kubo-copy"));
    // One that an earlier attempt left behind.
    std::fs::remove_dir_all(&copy.0).ok();
    copy_without_blocks(repo, &copy.0)?;
    let say = |arguments: &[&str]| -> anyhow::Result<String> {
        let output = Command::new(&program)
            .args(arguments)
            .env("IPFS_PATH", &copy.0)
            .env("IPFS_TELEMETRY", "off")
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("starting {}", program.display()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("{} {} failed: {}; --pins FILE gives the pins instead", program.display(), arguments.join(" "), said.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let pins = |kind: &str| say(&["pin", "ls", &format!("--type={kind}"), "--names", "--stream", "--enc=json"]);
    let lines = format!("{}\n{}", pins("recursive")?, pins("direct")?);
    Ok((lines, Some(say(&["files", "stat", "/", "--hash"])?)))
}

/// Removed at the end.
struct Copy(PathBuf);

impl Drop for Copy {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// All of the repository but its blocks, of which the copy only gets links to the folders: what the program writes there itself (its tally, its
/// temporary files) stays in the copy.
fn copy_without_blocks(repo: &Repo, to: &Path) -> anyhow::Result<()> {
    let blocks = repo.blocks.canonicalize().with_context(|| format!("reading {}", repo.blocks.display()))?;
    let name = repo.blocks.strip_prefix(&repo.root).ok().filter(|name| name.components().count() == 1);
    let name = name.with_context(|| format!("{} does not lie in the repository: give the pins by --pins", repo.blocks.display()))?;
    copy_folder(&repo.root, to, &blocks)?;
    let target = to.join(name);
    std::fs::create_dir_all(&target).with_context(|| format!("making {}", target.display()))?;
    for entry in std::fs::read_dir(&blocks).with_context(|| format!("reading {}", blocks.display()))? {
        let entry = entry.with_context(|| format!("reading {}", blocks.display()))?;
        let to = target.join(entry.file_name());
        let kind = entry.file_type().with_context(|| format!("reading {}", entry.path().display()))?;
        let done = match (kind.is_dir(), entry.file_name() == ".temp") {
            (true, true) => Ok(()),
            (true, false) => std::os::unix::fs::symlink(entry.path(), &to),
            (false, _) => std::fs::copy(entry.path(), &to).map(|_| ()),
        };
        done.with_context(|| format!("copying {}", entry.path().display()))?;
    }
    Ok(())
}

fn copy_folder(from: &Path, to: &Path, without: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
    for entry in std::fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry.with_context(|| format!("reading {}", from.display()))?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().with_context(|| format!("reading {}", path.display()))?;
        let is_left_out = ["api", "gateway", "repo.lock"].iter().any(|name| entry.file_name() == *name);
        if is_left_out || path.canonicalize().is_ok_and(|path| path == without) {
            continue;
        }
        if kind.is_dir() {
            copy_folder(&path, &target, without)?;
        } else if kind.is_file() {
            std::fs::copy(&path, &target).with_context(|| format!("copying {}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CID: &str = "bafkreicysg23kiwv34eg2d7qweipxwosdo2py4ldv42nbauguluen5v6am";

    #[test]
    fn pins_read_in_every_form_that_kubo_writes() {
        let one = |depth, name: &str| vec![KuboPin { cid: CID.parse().expect("a CID"), depth, name: name.to_owned() }];
        let read = |text: &str| parse(text).map(|pins| pins.into_values().collect::<Vec<_>>()).map_err(|error| format!("{error:#}"));
        assert_eq!(read(&format!("{CID} recursive a name\n\n")), Ok(one(Depth::Recursive, "a name")));
        assert_eq!(read(&format!("{CID} direct")), Ok(one(Depth::DIRECT, "")));
        assert_eq!(read(CID), Ok(one(Depth::Recursive, "")));
        assert_eq!(read(&format!("{{\"Cid\":\"{CID}\",\"Type\":\"recursive\",\"Name\":\"x\"}}")), Ok(one(Depth::Recursive, "x")));
        assert_eq!(read(&format!("{{\"Keys\":{{\"{CID}\":{{\"Type\":\"direct\",\"Name\":\"\"}}}}}}")), Ok(one(Depth::DIRECT, "")));
        assert_eq!(read(&format!("{CID} direct\n{CID} recursive x\n{CID} indirect")), Ok(one(Depth::Recursive, "x")));
        assert!(read("nonsense recursive").expect_err("refused").contains("line 1"));
        assert!(read(&format!("{CID} odd")).expect_err("refused").contains("\"odd\""));
    }
}
