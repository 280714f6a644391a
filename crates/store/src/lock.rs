//! One process for each directory.

use crate::StoreError;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

/// Holds a directory for this process; let go when dropped, and by the system when the process ends in any way.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
}

/// Takes `dir` for this process alone, creating it if needed; refuses at once, naming the holder, when it is taken.
pub fn lock_dir(dir: &Path) -> Result<DirLock, StoreError> {
    create_dir_durably(dir).map_err(StoreError::failed("creating the directory of the store"))?;
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(dir.join("lock"))
        .map_err(StoreError::failed("opening the lock file"))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(StoreError::Locked { dir: dir.to_owned(), pid: read_pid(&mut file) }),
        Err(TryLockError::Error(error)) => return Err(StoreError::failed("locking the directory of the store")(error)),
    }
    // The number only helps people; a failure to write it (a full disk) must not keep the store closed.
    if let Err(error) = write_pid(&mut file) {
        tracing::debug!(%error, "the lock file does not name this process");
    }
    Ok(DirLock { _file: file })
}

fn write_pid(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(20).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Makes entries of `dir` that were created or renamed survive a power cut.
pub(crate) fn sync_dir(dir: &Path) -> std::io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Creates `dir` with its parents; what had to be created survives a power cut.
pub(crate) fn create_dir_durably(dir: &Path) -> std::io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        create_dir_durably(parent)?;
    }
    match std::fs::create_dir(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    sync_dir(parent.unwrap_or(Path::new(".")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_learns_who_has_the_directory() {
        let home = tempfile::tempdir().expect("a directory for the test");
        let dir = home.path().join("deep/er");
        let held = lock_dir(&dir).expect("free");
        let error = lock_dir(&dir).expect_err("taken");
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
        drop(held);
        lock_dir(&dir).expect("free again");
    }
}
