//! Rules that no compiler checks; each finding names the file and what to do.

use anyhow::{Context, bail};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Which of our crates each may name (ARCHITECTURE.md, "Direction of dependencies"). A crate that is not here may not exist.
const DIRECTIONS: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("wire", &["types"]),
    ("dag", &["types"]),
    ("cluster", &["types"]),
    ("ipfs", &["types", "dag", "store"]),
    ("store", &["types"]),
    ("net", &["types", "wire", "dag"]),
    ("consensus", &["types", "wire", "store"]),
    ("ipfs-embedded", &["types", "wire", "dag", "ipfs", "net", "store"]),
    ("ipfs-kubo", &["types", "wire", "dag", "ipfs", "net", "store"]),
    ("peer", &["types", "wire", "dag", "cluster", "consensus", "ipfs", "net", "store"]),
    ("api", &["types", "wire", "dag", "cluster", "ipfs", "peer"]),
    ("sim", &["types", "wire", "dag", "cluster", "consensus", "ipfs", "store"]),
    ("pinfold", &["types", "wire", "dag", "cluster", "consensus", "ipfs", "ipfs-embedded", "ipfs-kubo", "net", "store", "peer", "api"]),
    ("powercut", &["types", "store"]),
    ("fuzz", &[]),
    ("judges", &[]),
    ("xtask", &[]),
];

/// Crates that depend on no runtime, clock or chance.
const PURE: &[&str] = &["types", "wire", "dag", "cluster"];
const IMPURE_DEPENDENCIES: &[&str] =
    &["tokio", "tokio-util", "async-trait", "rand", "getrandom", "libp2p", "axum", "hyper", "fjall", "rustix"];

/// Where types may be serializable: what others fixed lives there.
const SERIALIZE: &[&str] = &["crates/wire/", "crates/api/"];

const LINES_MOST: usize = 600;
const PACKAGES_MOST: usize = 750;

/// Checks everything; fails with all findings.
pub fn run(root: &Path) -> anyhow::Result<()> {
    let mut findings = Vec::new();
    directions(root, &mut findings)?;
    sources(root, &mut findings)?;
    lock(root, &mut findings)?;
    if findings.is_empty() {
        println!("tidy: all rules hold");
        return Ok(());
    }
    for finding in &findings {
        eprintln!("{finding}");
    }
    bail!("tidy: {} findings", findings.len())
}

fn directions(root: &Path, findings: &mut Vec<String>) -> anyhow::Result<()> {
    let allowed: BTreeMap<&str, &[&str]> = DIRECTIONS.iter().copied().collect();
    for manifest in manifests(root)? {
        let text = std::fs::read_to_string(&manifest).with_context(|| format!("reading {}", manifest.display()))?;
        let table: toml::Table = text.parse().with_context(|| format!("reading {}", manifest.display()))?;
        let name = table.get("package").and_then(|package| package.get("name")).and_then(|name| name.as_str()).unwrap_or_default();
        let Some(own) = allowed.get(name) else {
            findings.push(format!("{}: crate {name:?} is not in the table of directions (xtask/src/tidy.rs)", show(root, &manifest)));
            continue;
        };
        let dependencies: Vec<&String> =
            table.get("dependencies").and_then(|table| table.as_table()).into_iter().flat_map(|table| table.keys()).collect();
        for dependency in dependencies {
            if allowed.contains_key(dependency.as_str()) && !own.contains(&dependency.as_str()) {
                findings.push(format!("{}: {name} may not depend on {dependency}", show(root, &manifest)));
            }
            if PURE.contains(&name) && IMPURE_DEPENDENCIES.contains(&dependency.as_str()) {
                findings.push(format!("{}: {name} is pure and may not depend on {dependency}", show(root, &manifest)));
            }
        }
    }
    Ok(())
}

fn manifests(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = vec![root.join("xtask/Cargo.toml")];
    for folder in ["crates", "compat"] {
        for entry in std::fs::read_dir(root.join(folder)).into_iter().flatten() {
            let manifest = entry.context("listing crates")?.path().join("Cargo.toml");
            if manifest.exists() {
                found.push(manifest);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn sources(root: &Path, findings: &mut Vec<String>) -> anyhow::Result<()> {
    let mut files = Vec::new();
    for folder in ["crates", "compat", "xtask"] {
        collect(&root.join(folder), &mut files);
    }
    files.sort();
    for file in files {
        let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        let name = show(root, &file);
        let is_test = name.contains("/tests/") || name.ends_with("tests.rs") || name.contains("/examples/");
        if !text.starts_with("//!") && !name.ends_with("/tests.rs") {
            findings.push(format!("{name}: begins without a `//!` comment that says what it is for"));
        }
        let lines = text.lines().count();
        if lines > LINES_MOST && !is_test {
            findings.push(format!("{name}: {lines} lines, at most {LINES_MOST}: divide it by topic"));
        }
        let code = text.lines().map(str::trim_start).filter(|line| !line.starts_with("//"));
        for line in code {
            let serializes = line.contains("Serialize") && !line.contains("fn ") && !name.starts_with("xtask/");
            let mentions = line.contains("derive(") || line.starts_with("use ") || line.starts_with("impl");
            if serializes
                && mentions
                && line.replace("Deserialize", "").contains("Serialize")
                && !SERIALIZE.iter().any(|place| name.starts_with(place))
            {
                findings.push(format!("{name}: types of the inside are not `Serialize`: {line}"));
            }
            let is_end_to_end = name.starts_with("compat/") || name.starts_with("crates/pinfold/tests/");
            if is_end_to_end && ["MemoryNode", "MemoryStore", "consensus::Single", "Single::"].iter().any(|word| line.contains(word)) {
                findings.push(format!("{name}: end-to-end tests use the real node, store and consensus: {line}"));
            }
        }
    }
    Ok(())
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            if !path.ends_with("target") && !path.ends_with("node_modules") {
                collect(&path, files);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn lock(root: &Path, findings: &mut Vec<String>) -> anyhow::Result<()> {
    let lock = std::fs::read_to_string(root.join("Cargo.lock")).context("reading Cargo.lock")?;
    let packages = lock.lines().filter(|line| *line == "[[package]]").count();
    if packages > PACKAGES_MOST {
        findings.push(format!("Cargo.lock: {packages} packages, at most {PACKAGES_MOST}: look for a feature that pulls in much"));
    }
    Ok(())
}

fn show(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}
