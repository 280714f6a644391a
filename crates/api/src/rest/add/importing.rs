//! How an add makes DAGs of files and folders: single options as Go has them, and profiles by the names of Kubo.

use super::Failure;
use dag::HashFn;
use dag::import::{DirectoryOptions, FileOptions, Layout, Profile, ProfileUnknown};
use wire::rest::query::{AddLayout, AddParams, Query};

/// Options for both kinds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Import {
    pub(super) files: FileOptions,
    pub(super) directories: DirectoryOptions,
}

/// Reads `profile` (IPIP-499); single options that are said as well count before it.
pub(super) fn import_options(query: &Query, params: &AddParams) -> Result<Import, Failure> {
    let bad = |why: String| Failure::bad(why);
    let is_said = |name: &str| !query.get(name).is_empty();
    let profile: Option<Profile> = match query.get("profile") {
        "" => None,
        name => Some(name.parse().map_err(|error: ProfileUnknown| bad(error.to_string()))?),
    };
    let mut files = profile.map(Profile::file_options).unwrap_or_default();
    let counts = |name| profile.is_none() || is_said(name);
    if counts("cid-version") {
        files.cid_version = match params.cid_version {
            0 => cid::Version::V0,
            1 => cid::Version::V1,
            other => return Err(bad(format!("bad CID Version: unknown CID version: {other}"))),
        };
    }
    if counts("raw-leaves") || is_said("cid-version") {
        files.raw_leaves = params.raw_leaves;
    }
    if counts("hash") {
        files.hash = HashFn::from_name(&params.hash).map_err(|error| bad(error.to_string()))?;
    }
    if counts("chunker") {
        files.chunker = params.chunker.parse().map_err(|error: dag::chunk::ChunkerError| bad(error.to_string()))?;
    }
    if counts("layout") {
        files.layout = if params.layout == AddLayout::Trickle { Layout::Trickle } else { Layout::Balanced };
    }
    files.check().map_err(|error| bad(error.to_string()))?;
    let directories = match profile {
        Some(profile) => DirectoryOptions { cid_version: files.cid_version, hash: files.hash, ..profile.directory_options() },
        None => DirectoryOptions::from(&files),
    };
    Ok(Import { files, directories })
}

#[cfg(test)]
mod tests {
    use super::*;
    use dag::chunk::Chunker;
    use dag::import::SizeEstimate;
    use types::UnixMillis;
    use wire::rest::query::add_params;

    fn read(query: &str) -> Result<Import, String> {
        let query = Query::parse(query);
        let params = add_params(&query, UnixMillis(0)).map_err(|error| error.to_string())?;
        import_options(&query, &params).map_err(|failure| failure.message)
    }

    #[test]
    fn a_profile_says_everything_that_is_not_said() {
        let import = read("profile=unixfs-v1-2025").expect("is known");
        assert_eq!(import.files, Profile::UnixFsV1In2025.file_options());
        assert_eq!((import.files.width, import.files.raw_leaves, import.directories.size_estimate), (1024, true, SizeEstimate::Block));
        let import = read("profile=unixfs-v1-2025&chunker=size-1000&hash=blake3").expect("is known");
        assert_eq!((&import.files.chunker, import.files.width), (&Chunker::Size(1000), 1024));
        assert_eq!(import.directories.hash, import.files.hash);
        let import = read("profile=unixfs-v1-2025&raw-leaves=false").expect("is known");
        assert!(!import.files.raw_leaves);
        assert_eq!(read("profile=legacy-cid-v0"), read(""));
    }

    #[test]
    fn what_is_unknown_is_refused_with_what_is_known() {
        assert!(read("profile=best").is_err_and(|why| why.contains("unixfs-v1-2025")));
        assert!(read("cid-version=2").is_err());
        assert!(read("chunker=none").is_err());
    }
}
