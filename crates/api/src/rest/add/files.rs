//! Files, folders and symlinks out of parts.
//!
//! What stands at the top is a root of its own (Go pins the last one), unless one directory wraps all. Lines come in Go's
//! order: files as they are added, then directories, deepest first.

use super::{AddError, Adding, Made};
use crate::multipart::{PartHead, Piece};
use dag::import::{DirectoryOptions, FileBuilder, FileRoot, TreeAssembler};
use dag::unixfs::Stat;
use types::Cid;

/// Linux's bound for a target of a symlink.
const SYMLINK_MAX: usize = 4096;
/// A line of progress after so many bytes, as Go gives them.
const PROGRESS_BYTES: u64 = 256 << 10;

/// A directory at the top that is being filled.
struct Group {
    top: String,
    tree: TreeAssembler,
}

impl Adding {
    pub(super) async fn add_files(&mut self, first: PartHead) -> Result<Made, AddError> {
        let wraps = self.options.wraps;
        let mut group: Option<Group> = if wraps { Some(self.open_group(String::new())?) } else { None };
        let mut made = None;
        let mut next = Some(first);
        while let Some(head) = next {
            let path = clean(head.file_name.as_deref().unwrap_or_default());
            let is_directory = head.content_type == "application/x-directory";
            let top = path.split('/').next().unwrap_or_default();
            let is_alone = !is_directory && !wraps && top == path;
            if !wraps && (is_alone || group.as_ref().is_none_or(|group| group.top != top)) {
                if let Some(group) = group.take() {
                    made = self.close_group(group).await?;
                }
                if !is_alone {
                    group = Some(self.open_group(top.to_owned())?);
                }
            }
            if is_directory {
                self.skip_content().await?;
            }
            let added = if is_directory {
                None
            } else if head.content_type == "application/symlink" {
                Some(self.add_symlink(&path).await?)
            } else {
                Some(self.add_file(progress_name(&path, wraps)).await?)
            };
            match (&mut group, &added) {
                (Some(group), Some(root)) => group.tree.add(path.as_bytes(), root)?,
                (Some(group), None) => group.tree.add_directory(path.as_bytes(), Stat::default())?,
                (None, Some(root)) => made = Some(Made { root: root.cid, size: root.dag_size }),
                (None, None) => {}
            }
            if let Some(root) = added {
                self.out.line(&path, &root.cid, 0, root.dag_size).await?;
            }
            next = match self.parts.next().await? {
                Piece::Head(head) => Some(head),
                _ => None,
            };
        }
        if let Some(group) = group {
            made = self.close_group(group).await?;
        }
        made.ok_or_else(|| AddError::Import(dag::import::ImportError::BadPath { path: String::new(), reason: "nothing was added" }))
    }

    fn open_group(&self, top: String) -> Result<Group, AddError> {
        Ok(Group { top, tree: TreeAssembler::new(DirectoryOptions::from(&self.import), self.options.wraps)? })
    }

    async fn close_group(&mut self, group: Group) -> Result<Option<Made>, AddError> {
        let assembled = group.tree.finish(&mut |block| self.out.take(block))?;
        self.out.flush().await?;
        let mut sizes: Option<(Cid, u64)> = None;
        for directory in &assembled.directories {
            self.out.line(&String::from_utf8_lossy(&directory.path), &directory.cid, 0, directory.dag_size).await?;
            sizes = Some((directory.cid, directory.dag_size));
        }
        let root = assembled.roots.last();
        Ok(root.map(|root| Made { root: *root, size: sizes.filter(|(cid, _)| cid == root).map_or(0, |(_, size)| size) }))
    }

    async fn skip_content(&mut self) -> Result<(), AddError> {
        while let Piece::Data(_) = self.parts.next().await? {}
        Ok(())
    }

    async fn add_symlink(&mut self, path: &str) -> Result<FileRoot, AddError> {
        let mut target = Vec::new();
        while let Piece::Data(data) = self.parts.next().await? {
            if target.len() + data.len() > SYMLINK_MAX {
                return Err(AddError::LongSymlink(path.to_owned()));
            }
            target.extend_from_slice(&data);
        }
        let (block, root) = dag::import::symlink(&target, &self.import)?;
        self.out.take(block);
        self.out.pass_on().await?;
        Ok(root)
    }

    async fn add_file(&mut self, name: &str) -> Result<FileRoot, AddError> {
        let mut file = FileBuilder::new(self.import.clone())?;
        let (mut read, mut told) = (0u64, 0u64);
        while let Piece::Data(data) = self.parts.next().await? {
            read += data.len() as u64;
            file.push(data, &mut |block| self.out.take(block))?;
            self.out.pass_on().await?;
            if self.options.has_progress && read - told >= PROGRESS_BYTES {
                told = read;
                self.out.lines.progress(name, read).await?;
            }
        }
        let root = file.finish(&mut |block| self.out.take(block))?;
        self.out.pass_on().await?;
        if self.options.has_progress {
            self.out.lines.progress(name, read).await?;
        }
        Ok(root)
    }
}

/// A path without empty parts, `.` and `..`; `..` never leads above the top.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
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
        for (path, expected) in [("a/b", "a/b"), ("/a//b/./c/", "a/b/c"), ("../../etc/passwd", "etc/passwd"), ("a/../../b", "b"), ("..", ""), ("", "")] {
            assert_eq!(clean(path), expected, "{path}");
        }
    }
}
