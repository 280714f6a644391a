//! What is under the paths of an add: files, folders and links, and what cannot be kept.
//!
//! Links below the named paths are kept as links, or followed on request; a link that leads back to a folder around it is refused then.
//! Sockets, pipes and devices have no content that could be kept: they are refused by name.

use crate::output;
use anyhow::{Context, bail};
use std::fs::{File, FileType, Metadata, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Folders inside one another; a path of the system's longest length has fewer.
const DEPTH_MOST: usize = 2048;

/// Options of the walk.
#[derive(Debug, Clone, Copy, Default)]
pub struct Walk {
    /// Leave out names that begin with a dot (below the named paths).
    pub no_hidden: bool,
    /// Follow links below the named paths.
    pub dereference: bool,
    /// Leave out what cannot be read, and say so at the end.
    pub skip_errors: bool,
}

/// What an upload will send.
#[derive(Debug, Default, Clone, Copy)]
pub struct Extent {
    /// Bytes in files.
    pub bytes: u64,
    /// Files.
    pub files: u64,
}

/// Folders that are being walked, outermost first; links back to one of them are loops.
#[derive(Debug, Default)]
pub struct Around(Vec<(u64, u64)>);

impl Around {
    /// Enters a folder.
    pub fn enter(&mut self, folder: &Path, metadata: &Metadata) -> anyhow::Result<()> {
        let id = (metadata.dev(), metadata.ino());
        if self.0.contains(&id) {
            bail!("{} leads back to a folder around it: without --dereference links are kept as links", show(folder));
        }
        if self.0.len() >= DEPTH_MOST {
            bail!("{} is inside more than {DEPTH_MOST} folders", show(folder));
        }
        self.0.push(id);
        Ok(())
    }

    /// Leaves it again.
    pub fn leave(&mut self) {
        self.0.pop();
    }
}

/// A path for messages; bytes that are no text are shown as such.
pub fn show(path: &Path) -> String {
    output::shown(path.as_os_str().as_bytes())
}

/// What stands at a named path, links followed.
pub fn named(path: &Path) -> anyhow::Result<Metadata> {
    let metadata = std::fs::metadata(path).with_context(|| format!("reading {}", show(path)))?;
    // A pipe that the shell made of `<(command)` ends by itself; one that lies about in a folder may never be written to.
    let is_of_shell = metadata.file_type().is_fifo() && (path.starts_with("/dev/fd") || path.starts_with("/proc/self/fd"));
    if !is_of_shell {
        check_kind(path, metadata.file_type())?;
    }
    Ok(metadata)
}

/// Refuses what has no content.
fn check_kind(path: &Path, kind: FileType) -> anyhow::Result<()> {
    let what = if kind.is_socket() {
        "a socket"
    } else if kind.is_fifo() {
        "a named pipe"
    } else if kind.is_block_device() || kind.is_char_device() {
        "a device"
    } else {
        return Ok(());
    };
    bail!("{} is {what}, which has no content that could be kept: --skip-errors leaves such things out", show(path))
}

/// The names in a folder, sorted.
pub fn names(folder: &Path, walk: Walk) -> anyhow::Result<Vec<PathBuf>> {
    let reading = || format!("reading the folder {}", show(folder));
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(reading)? {
        let entry = entry.with_context(reading)?;
        if !(walk.no_hidden && entry.file_name().as_bytes().starts_with(b".")) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// What an entry of a folder is.
pub fn entry(path: &Path, walk: Walk) -> anyhow::Result<Metadata> {
    let reading = || format!("reading {}", show(path));
    let metadata = if walk.dereference { std::fs::metadata(path) } else { std::fs::symlink_metadata(path) };
    let metadata = metadata.with_context(reading)?;
    check_kind(path, metadata.file_type())?;
    Ok(metadata)
}

/// Opens the file that `before` was told of: not another that took its place since, and no pipe that would wait for ever.
pub fn open(path: &Path, before: &Metadata, walk: Walk, is_named: bool) -> anyhow::Result<File> {
    let reading = || format!("reading {}", show(path));
    if !before.is_file() {
        return File::open(path).with_context(reading);
    }
    let mut flags = rustix::fs::OFlags::NONBLOCK;
    if !walk.dereference && !is_named {
        flags |= rustix::fs::OFlags::NOFOLLOW;
    }
    let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path).with_context(reading)?;
    let opened = file.metadata().with_context(reading)?;
    if !opened.is_file() || (opened.dev(), opened.ino()) != (before.dev(), before.ino()) {
        bail!("{} was replaced while it was read", show(path));
    }
    Ok(file)
}

/// Adds up what is under the paths. Without `skip_errors` the first thing that cannot be read is an error, before anything is sent.
pub fn measure(paths: &[PathBuf], walk: Walk) -> anyhow::Result<Extent> {
    let mut extent = Extent::default();
    for path in paths {
        match named(path) {
            Ok(metadata) => measure_one(path, &metadata, walk, &mut Around::default(), &mut extent)?,
            Err(_) if walk.skip_errors => {}
            Err(error) => return Err(error),
        }
    }
    Ok(extent)
}

fn measure_one(path: &Path, metadata: &Metadata, walk: Walk, around: &mut Around, extent: &mut Extent) -> anyhow::Result<()> {
    let measured = if metadata.is_dir() {
        measure_folder(path, metadata, walk, around, extent)
    } else if metadata.is_symlink() {
        Ok(())
    } else {
        extent.bytes += metadata.len();
        extent.files += 1;
        rustix::fs::access(path, rustix::fs::Access::READ_OK)
            .map_err(std::io::Error::from)
            .with_context(|| format!("reading {}", show(path)))
    };
    // What is left out is named when it is its turn to be sent.
    if walk.skip_errors { Ok(()) } else { measured }
}

fn measure_folder(folder: &Path, metadata: &Metadata, walk: Walk, around: &mut Around, extent: &mut Extent) -> anyhow::Result<()> {
    around.enter(folder, metadata)?;
    for path in names(folder, walk)? {
        match entry(&path, walk) {
            Ok(metadata) => measure_one(&path, &metadata, walk, around, extent)?,
            Err(_) if walk.skip_errors => {}
            Err(error) => return Err(error),
        }
    }
    around.leave();
    Ok(())
}
