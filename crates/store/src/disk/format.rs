//! The version of the layout on disk, and the way from one version to the next.

use crate::StoreError;
use crate::lock::sync_dir;
use std::fs::File;
use std::io::Write;
use std::path::Path;

/// The layout that this version writes.
const CURRENT: u32 = 1;
const NAME: &str = "format";
const WORD: &str = "pinfold store ";

/// What an older layout needs to become the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Nothing is there: write the marker.
    Create,
    /// It is as this version writes it.
    Ready,
}

/// Leaves `dir` in the current layout, or says why it cannot be.
pub(super) fn prepare(dir: &Path) -> Result<(), StoreError> {
    let found = read(dir)?;
    match plan(found).map_err(|found| StoreError::FormatTooNew { dir: dir.to_owned(), found, known: CURRENT })? {
        Step::Create => write(dir).map_err(StoreError::failed("writing the format of the store")),
        Step::Ready => Ok(()),
    }
}

/// Decides what a directory of layout `found` needs; a layout that is not known is given back.
fn plan(found: Option<u32>) -> Result<Step, u32> {
    match found {
        None => Ok(Step::Create),
        Some(CURRENT) => Ok(Step::Ready),
        Some(found) => Err(found),
    }
}

fn read(dir: &Path) -> Result<Option<u32>, StoreError> {
    let text = match std::fs::read(dir.join(NAME)) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::failed("reading the format of the store")(error)),
    };
    let number = std::str::from_utf8(&text).ok().and_then(|text| text.strip_prefix(WORD)?.trim_end().parse().ok());
    number.map(Some).ok_or_else(|| StoreError::NotAStore {
        dir: dir.to_owned(),
        what: format!("its format file says {:?}", String::from_utf8_lossy(&text[..text.len().min(40)])),
    })
}

fn write(dir: &Path) -> std::io::Result<()> {
    let fresh = dir.join("format.new");
    let mut file = File::create(&fresh)?;
    writeln!(file, "{WORD}{CURRENT}")?;
    file.sync_all()?;
    std::fs::rename(&fresh, dir.join(NAME))?;
    sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(content: Option<&str>, expected: &str) {
        let dir = tempfile::tempdir().expect("a directory for the test");
        if let Some(content) = content {
            std::fs::write(dir.path().join(NAME), content).expect("writes");
        }
        let said = match prepare(dir.path()) {
            Ok(()) => "ready".to_owned(),
            Err(error) => error.to_string().replace(&dir.path().display().to_string(), "dir"),
        };
        assert_eq!(said, expected);
    }

    #[test]
    fn formats() {
        check(None, "ready");
        check(Some("pinfold store 1\n"), "ready");
        check(Some("pinfold store 2\n"), "dir has format 2; this version reads up to 1");
        check(Some("datastore_spec"), "dir holds no store that can be read: its format file says \"datastore_spec\"");
    }
}
