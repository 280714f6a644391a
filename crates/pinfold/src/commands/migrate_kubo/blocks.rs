//! Blocks out of flatfs, each checked against its name, into the peer's packs.

use crate::output;
use anyhow::Context;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use indicatif::ProgressBar;
use ipfs::{Block, Blocks};
use ipfs_embedded::EmbeddedNode;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use types::{Cid, Owner};

/// Files read at once by one folder's turn: blocks have at most 2 MiB, and usual ones 256 KiB.
const AT_ONCE: usize = 64;
/// Damaged files that are remembered by name.
const BAD_MOST: usize = 100;
/// The add that owns the blocks until pins do.
const MIGRATION: Owner = Owner::Adding(0);

/// What was copied.
#[derive(Default)]
pub struct Copied {
    /// Blocks that came.
    pub copied: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blocks that were here.
    pub known: u64,
    /// Some of the files that are not what their name says, and why.
    pub bad: Vec<(PathBuf, String)>,
    /// How many of those there are.
    pub bad_count: u64,
}

impl Copied {
    fn add(mut self, other: Copied) -> Copied {
        self.copied += other.copied;
        self.bytes += other.bytes;
        self.known += other.known;
        self.bad_count += other.bad_count;
        self.bad.extend(other.bad);
        self.bad.truncate(BAD_MOST);
        self
    }
}

/// Copies all of them; those that are here already are not read.
pub async fn copy(node: Arc<EmbeddedNode>, folder: &Path) -> anyhow::Result<Copied> {
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let entry = entry.with_context(|| format!("reading {}", folder.display()))?;
        // Followed: some keep folders of blocks on another disk.
        if entry.path().is_dir() {
            folders.push(entry.path());
        }
    }
    folders.sort();
    let bar = output::count_bar(folders.len() as u64, "folders of blocks");
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    let copied = stream::iter(folders)
        .map(|folder| copy_folder(node.clone(), folder, bar.clone()))
        .buffer_unordered(workers)
        .try_fold(Copied::default(), |all, next| async move { Ok(all.add(next)) })
        .await?;
    bar.finish_and_clear();
    Ok(copied)
}

async fn copy_folder(node: Arc<EmbeddedNode>, folder: PathBuf, bar: ProgressBar) -> anyhow::Result<Copied> {
    let shown = folder.display().to_string();
    let files = tokio::task::spawn_blocking(move || list(&folder)).await.context("listing")?.with_context(|| format!("reading {shown}"))?;
    let mut copied = Copied::default();
    for part in files.chunks(AT_ONCE) {
        let cids: Vec<Cid> = part.iter().map(|(cid, _)| *cid).collect();
        let here = node.has(&cids).await.context("asking for blocks")?;
        let wanted: Vec<(Cid, PathBuf)> = part.iter().zip(here).filter(|(_, here)| !here).map(|(file, _)| file.clone()).collect();
        copied.known += (part.len() - wanted.len()) as u64;
        if wanted.is_empty() {
            continue;
        }
        let (blocks, bad) = tokio::task::spawn_blocking(move || read(wanted)).await.context("reading blocks")?;
        copied.copied += blocks.len() as u64;
        copied.bytes += blocks.iter().map(|block| block.data.len() as u64).sum::<u64>();
        copied = copied.add(Copied { bad_count: bad.len() as u64, bad, ..Copied::default() });
        node.put_verified(&MIGRATION, blocks)
            .await
            .context("storing blocks (the Kubo repository is as it was: run the same line again to go on)")?;
    }
    bar.inc(1);
    Ok(copied)
}

/// Files of blocks in a folder; others (of a write that was cut off) are left out.
fn list(folder: &Path) -> std::io::Result<Vec<(Cid, PathBuf)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if let Some(cid) = entry.file_name().to_str().and_then(wire::flatfs::block_of_file) {
            files.push((cid, entry.path()));
        }
    }
    Ok(files)
}

/// Blocks that are what their names say, and files that are not.
fn read(files: Vec<(Cid, PathBuf)>) -> (Vec<Block>, Vec<(PathBuf, String)>) {
    let (mut blocks, mut bad) = (Vec::new(), Vec::new());
    for (cid, path) in files {
        match checked(&cid, &path) {
            Ok(data) => blocks.push(Block { cid, data }),
            Err(why) => bad.push((path, why)),
        }
    }
    (blocks, bad)
}

fn checked(cid: &Cid, path: &Path) -> Result<Bytes, String> {
    let length = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if length > dag::block::MAX_BLOCK as u64 {
        return Err(format!("{length} bytes are more than a block may have"));
    }
    let data = std::fs::read(path).map_err(|error| error.to_string())?;
    dag::block::verify(cid, &data).map_err(|error| error.to_string())?;
    Ok(data.into())
}
