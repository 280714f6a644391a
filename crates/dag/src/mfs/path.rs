//! Paths of the tree.

use crate::edit::EditError;
use crate::import::NAME_MAX;

/// Names in a path.
pub const DEPTH_MAX: usize = 256;

/// A path from the root, cleaned: no empty names, no `.`, no `..`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path {
    names: Vec<Vec<u8>>,
    ends_with_slash: bool,
}

impl Path {
    /// Reads a path; names are any bytes but `/`. It must begin with `/`. `..` goes up, at the root nowhere.
    pub fn new(text: &[u8]) -> Result<Path, EditError> {
        let bad = |reason| EditError::BadPath { path: shown(text), reason };
        if text.first() != Some(&b'/') {
            return Err(bad(if text.is_empty() { "it is empty" } else { "it does not begin with a slash" }));
        }
        let mut names: Vec<Vec<u8>> = Vec::new();
        for name in text.split(|byte| *byte == b'/') {
            match name {
                b"" | b"." => {}
                b".." => drop(names.pop()),
                _ if name.len() > NAME_MAX => return Err(bad("a name is too long")),
                _ if names.len() == DEPTH_MAX => return Err(bad("it is too deep")),
                _ => names.push(name.to_vec()),
            }
        }
        Ok(Path { names, ends_with_slash: text.len() > 1 && text.ends_with(b"/") })
    }

    /// The names from the root on.
    pub fn names(&self) -> &[Vec<u8>] {
        &self.names
    }

    /// Whether it leads to the root.
    pub fn is_root(&self) -> bool {
        self.names.is_empty()
    }

    /// Whether it was written with a slash at its end, which says "into this directory".
    pub fn ends_with_slash(&self) -> bool {
        self.ends_with_slash
    }

    /// The last name, and the names before it.
    pub(super) fn split(&self) -> Result<(&[Vec<u8>], &Vec<u8>), EditError> {
        let split = self.names.split_last().map(|(name, parents)| (parents, name));
        split.ok_or_else(|| EditError::BadPath { path: "/".to_owned(), reason: "the root stays where it is" })
    }

    /// The same with one more name.
    pub(super) fn join(&self, name: &[u8]) -> Path {
        let names = self.names.iter().cloned().chain([name.to_vec()]).collect();
        Path { names, ends_with_slash: false }
    }

    /// Whether it lies below `other`.
    pub(super) fn is_below(&self, other: &Path) -> bool {
        self.names.len() > other.names.len() && self.names.starts_with(&other.names)
    }
}

impl std::fmt::Display for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = self.names.iter().map(|name| String::from_utf8_lossy(name));
        write!(f, "/{}", names.collect::<Vec<_>>().join("/"))
    }
}

/// A name or path for an error, not endless.
pub(super) fn shown(text: &[u8]) -> String {
    String::from_utf8_lossy(&text[..text.len().min(256)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned() {
        let clean = |text: &str| Path::new(text.as_bytes()).map(|path| (path.to_string(), path.ends_with_slash()));
        assert_eq!(clean("/"), Ok(("/".to_owned(), false)));
        assert_eq!(clean("//a/./b//../c/"), Ok(("/a/c".to_owned(), true)));
        assert_eq!(clean("/../../x"), Ok(("/x".to_owned(), false)));
        assert!(clean("a").is_err() && clean("").is_err());
        assert!(clean(&"/x".repeat(DEPTH_MAX)).is_ok() && clean(&"/x".repeat(DEPTH_MAX + 1)).is_err());
    }
}
