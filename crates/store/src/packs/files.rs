//! Open files of segments, bounded: a terabyte has four thousand of them.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Well below the usual limit of 1024 open files for a process.
const OPEN_MOST: usize = 256;

pub(super) struct Files {
    dir: PathBuf,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    files: HashMap<u32, (Arc<File>, u64)>,
    clock: u64,
}

impl Files {
    pub(super) fn new(dir: &Path) -> Files {
        Files { dir: dir.to_owned(), open: Mutex::default() }
    }

    pub(super) fn path(&self, segment: u32) -> PathBuf {
        self.dir.join(format!("{segment:08x}.pack"))
    }

    /// The file of a segment, for reading and writing.
    pub(super) fn get(&self, segment: u32) -> std::io::Result<Arc<File>> {
        let mut open = self.open.lock();
        open.clock += 1;
        let clock = open.clock;
        if let Some((file, used)) = open.files.get_mut(&segment) {
            *used = clock;
            return Ok(file.clone());
        }
        let file = Arc::new(File::options().read(true).write(true).open(self.path(segment))?);
        open.insert(segment, file.clone());
        Ok(file)
    }

    /// Creates the file of a new segment.
    pub(super) fn create(&self, segment: u32) -> std::io::Result<Arc<File>> {
        let file = Arc::new(File::options().read(true).write(true).create_new(true).open(self.path(segment))?);
        self.open.lock().insert(segment, file.clone());
        Ok(file)
    }

    /// Removes the file; whoever reads from it right now still can. That it is gone already is no error.
    pub(super) fn remove(&self, segment: u32) -> std::io::Result<()> {
        self.open.lock().files.remove(&segment);
        match std::fs::remove_file(self.path(segment)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            outcome => outcome,
        }
    }

    /// Whether the directory still has the file that is open here. A file that somebody removed or put in its place is no longer read.
    pub(super) fn is_in_place(&self, segment: u32) -> std::io::Result<bool> {
        use std::os::unix::fs::MetadataExt;
        let opened = match self.get(segment) {
            Ok(file) => file.metadata()?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let is_same = match std::fs::metadata(self.path(segment)) {
            Ok(found) => (found.dev(), found.ino()) == (opened.dev(), opened.ino()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        if !is_same {
            self.open.lock().files.remove(&segment);
        }
        Ok(is_same)
    }

    /// The segments in the directory with their files' lengths.
    pub(super) fn list(&self) -> std::io::Result<Vec<(u32, u64)>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(number) = name.to_str().and_then(|name| name.strip_suffix(".pack")) else { continue };
            if let (8, Ok(id)) = (number.len(), u32::from_str_radix(number, 16)) {
                found.push((id, entry.metadata()?.len()));
            }
        }
        found.sort_unstable();
        Ok(found)
    }
}

impl Open {
    fn insert(&mut self, segment: u32, file: Arc<File>) {
        if self.files.len() >= OPEN_MOST {
            let oldest = self.files.iter().min_by_key(|(_, (_, used))| *used).map(|(segment, _)| *segment);
            oldest.map(|oldest| self.files.remove(&oldest));
        }
        self.clock += 1;
        self.files.insert(segment, (file, self.clock));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_files_stay_open_than_the_bound() {
        let home = tempfile::tempdir().expect("a directory for the test");
        let files = Files::new(home.path());
        for segment in 0..OPEN_MOST as u32 + 10 {
            files.create(segment).expect("creates");
        }
        files.get(0).expect("opens again");
        assert_eq!(files.open.lock().files.len(), OPEN_MOST);
        assert_eq!(files.list().expect("lists").len(), OPEN_MOST + 10);
    }
}
