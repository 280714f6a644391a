//! Sets of options with a name, so that the same bytes get the same CIDs anywhere (IPIP-499).

use super::{DirectoryOptions, FileOptions, SHARDING_SIZE, SizeEstimate, WIDTH};
use crate::HashFn;
use crate::chunk::Chunker;
use crate::hamt::Shape;
use cid::Version;
use std::str::FromStr;

/// A set of import options, by the names of Kubo's `--profile`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// `unixfs-v0-2015`, also called `legacy-cid-v0`: what Kubo does unless told otherwise.
    UnixFsV0In2015,
    /// `unixfs-v1-2025`: version 1, raw leaves of 1 MiB, 1024 links a node, directories measured by their blocks.
    UnixFsV1In2025,
}

/// No profile has this name. Profiles of Kubo that say nothing about imports (`test`, `server`, …) are not among them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no import profile is called {0:?} (known: unixfs-v0-2015, legacy-cid-v0, unixfs-v1-2025)")]
pub struct ProfileUnknown(pub String);

impl FromStr for Profile {
    type Err = ProfileUnknown;

    fn from_str(name: &str) -> Result<Profile, ProfileUnknown> {
        match name {
            "unixfs-v0-2015" | "legacy-cid-v0" => Ok(Profile::UnixFsV0In2015),
            "unixfs-v1-2025" => Ok(Profile::UnixFsV1In2025),
            _ => Err(ProfileUnknown(name.to_owned())),
        }
    }
}

impl Profile {
    /// How files are imported.
    pub fn file_options(self) -> FileOptions {
        match self {
            Profile::UnixFsV0In2015 => FileOptions { width: WIDTH, chunker: Chunker::Size(256 << 10), ..FileOptions::default() },
            Profile::UnixFsV1In2025 => FileOptions { width: 1024, chunker: Chunker::Size(1 << 20), ..FileOptions::v1() },
        }
    }

    /// How directories are written.
    pub fn directory_options(self) -> DirectoryOptions {
        let (cid_version, size_estimate) = match self {
            Profile::UnixFsV0In2015 => (Version::V0, SizeEstimate::Links),
            Profile::UnixFsV1In2025 => (Version::V1, SizeEstimate::Block),
        };
        DirectoryOptions {
            cid_version,
            hash: HashFn::SHA2_256,
            sharding_size: SHARDING_SIZE,
            size_estimate,
            links_max: 0,
            shape: Shape::DEFAULT,
            inline_limit: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_kubo_has_them() {
        assert_eq!("legacy-cid-v0".parse(), Ok(Profile::UnixFsV0In2015));
        assert_eq!("unixfs-v0-2015".parse(), Ok(Profile::UnixFsV0In2015));
        assert_eq!("unixfs-v1-2025".parse(), Ok(Profile::UnixFsV1In2025));
        assert!("test-cid-v1".parse::<Profile>().is_err());
        assert_eq!(Profile::UnixFsV0In2015.file_options(), FileOptions::default());
        assert_eq!(Profile::UnixFsV0In2015.directory_options(), DirectoryOptions::default());
    }
}
