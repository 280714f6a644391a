//! Files, folders and symlinks out of parts.
//!
//! What stands at the top is a root of its own (Go pins the last one), unless one directory wraps all. Lines come in Go's
//! order: files as they are added, then directories, deepest first.

use super::{AddError, Import, Made, Out};
use crate::multipart::{PartHead, Parts, Piece};
use bytes::Bytes;
use dag::import::{FileRoot, TreeAssembler};
use dag::unixfs::Stat;
use futures::{Stream, stream};
use ipfs::adding::Adder;
use std::io;
use types::Cid;
use wire::rest::query::AddParams;

/// Linux's bound for a target of a symlink.
const SYMLINK_MAX: usize = 4096;
/// A line of progress after so many bytes, as Go gives them.
const PROGRESS_BYTES: u64 = 256 << 10;

/// A directory at the top that is being filled.
struct Group {
    /// Its name, as bytes.
    top: Vec<u8>,
    tree: TreeAssembler,
}

struct Files<'a, 'b> {
    parts: &'a mut Parts,
    options: &'a AddParams,
    import: &'a Import,
    adder: &'a mut Adder<'b>,
    out: &'a mut Out<'a>,
}

/// Adds the parts, beginning with the one whose head is `first`; the root that is to be pinned.
pub(super) async fn add<'a>(
    parts: &'a mut Parts,
    first: PartHead,
    options: &'a AddParams,
    import: &'a Import,
    adder: &'a mut Adder<'_>,
    out: &'a mut Out<'a>,
) -> Result<Made, AddError> {
    Files { parts, options, import, adder, out }.run(first).await
}

impl Files<'_, '_> {
    async fn run(&mut self, first: PartHead) -> Result<Made, AddError> {
        let wraps = self.options.wrap;
        let mut group: Option<Group> = if wraps { Some(self.open_group(Vec::new())?) } else { None };
        let mut made = None;
        let mut next = Some(first);
        while let Some(head) = next {
            let path = clean(head.file_name.as_deref().unwrap_or_default());
            let shown = String::from_utf8_lossy(&path);
            let is_directory = head.content_type == "application/x-directory";
            let top = path.split(|byte| *byte == b'/').next().unwrap_or_default();
            let is_alone = !is_directory && !wraps && top == path;
            if !wraps && (is_alone || group.as_ref().is_none_or(|group| group.top != top)) {
                if let Some(group) = group.take() {
                    made = self.close_group(group).await?;
                }
                if !is_alone {
                    group = Some(self.open_group(top.to_vec())?);
                }
            }
            let added = match head.content_type.as_str() {
                "application/x-directory" => self.skip_content().await?,
                "application/symlink" => Some(self.add_symlink(&shown).await?),
                _ => Some(self.add_file(progress_name(&shown, wraps)).await?),
            };
            match (&mut group, &added) {
                (Some(group), Some(root)) => group.tree.add(&path, root)?,
                (Some(group), None) => group.tree.add_directory(&path, Stat::default())?,
                (None, Some(root)) => made = Some(Made { root: root.cid, size: root.dag_size }),
                (None, None) => {}
            }
            if let Some(root) = added {
                self.out.line(&shown, &root.cid, 0, root.dag_size).await?;
            }
            next = match self.parts.next().await? {
                Piece::Head(head) => Some(head),
                _ => None,
            };
        }
        if let Some(group) = group {
            made = self.close_group(group).await?;
        }
        made.ok_or(AddError::Nothing)
    }

    fn open_group(&self, top: Vec<u8>) -> Result<Group, AddError> {
        Ok(Group { top, tree: TreeAssembler::new(self.import.directories.clone(), self.options.wrap)? })
    }

    async fn close_group(&mut self, group: Group) -> Result<Option<Made>, AddError> {
        let mut blocks = Vec::new();
        let assembled = group.tree.finish(&mut |block| blocks.push(block))?;
        for block in blocks {
            self.adder.push(block).await?;
        }
        let mut last: Option<(Cid, u64)> = None;
        for directory in &assembled.directories {
            self.out.line(&String::from_utf8_lossy(&directory.path), &directory.cid, 0, directory.dag_size).await?;
            last = Some((directory.cid, directory.dag_size));
        }
        let size_of = |root: &Cid| last.filter(|(cid, _)| cid == root).map_or(0, |(_, size)| size);
        Ok(assembled.roots.last().map(|root| Made { root: *root, size: size_of(root) }))
    }

    /// Directories have no content.
    async fn skip_content(&mut self) -> Result<Option<FileRoot>, AddError> {
        while let Piece::Data(_) = self.parts.next().await? {}
        Ok(None)
    }

    async fn add_symlink(&mut self, path: &str) -> Result<FileRoot, AddError> {
        let mut target = Vec::new();
        while let Piece::Data(data) = self.parts.next().await? {
            if target.len() + data.len() > SYMLINK_MAX {
                return Err(AddError::LongSymlink(path.to_owned()));
            }
            target.extend_from_slice(&data);
        }
        let (block, root) = dag::import::symlink(&target, &self.import.files)?;
        self.adder.push(block).await?;
        Ok(root)
    }

    async fn add_file(&mut self, name: &str) -> Result<FileRoot, AddError> {
        let has_progress = self.options.progress;
        let mut told = 0;
        let mut progress = |bytes: u64| {
            if has_progress && bytes >= told + PROGRESS_BYTES {
                told = bytes;
                self.out.lines.progress_if_read(name, bytes);
            }
        };
        let root = self.adder.add_file(content(self.parts), &self.import.files, &mut progress).await?;
        if has_progress && (root.size == 0 || told != root.size) {
            self.out.lines.progress(name, root.size).await?;
        }
        Ok(root)
    }
}

/// The content of the part whose head was just read, up to its end.
fn content(parts: &mut Parts) -> impl Stream<Item = io::Result<Bytes>> + Send + '_ {
    stream::unfold(Some(parts), |parts| async move {
        let parts = parts?;
        match parts.next().await {
            Ok(Piece::Data(data)) => Some((Ok(data), Some(parts))),
            Ok(_) => None,
            Err(error) => Some((Err(io::Error::other(error)), None)),
        }
    })
}

/// A path without empty parts, `.` and `..`; `..` never leads above the top. Names may be any bytes but `/`.
fn clean(path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
}

/// Lines of progress name a file by its path below the top.
fn progress_name(path: &str, wraps: bool) -> &str {
    if wraps { path } else { path.split_once('/').map_or("", |(_, below)| below) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_the_top() {
        for (path, expected) in
            [("a/b", "a/b"), ("/a//b/./c/", "a/b/c"), ("../../etc/passwd", "etc/passwd"), ("a/../../b", "b"), ("..", ""), ("", "")]
        {
            assert_eq!(clean(path.as_bytes()), expected.as_bytes(), "{path}");
        }
        assert_eq!(clean(b"\xff/../\xfe//b"), b"\xfe/b");
    }
}
