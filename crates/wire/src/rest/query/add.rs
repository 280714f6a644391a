//! Parameters of `POST /add`.

use super::{Query, QueryError, pin_options};
use types::{PinOptions, UnixMillis};

/// What the body holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AddFormat {
    /// Files and directories.
    #[default]
    Unixfs,
    /// A CAR.
    Car,
}

/// How the DAG of a file is laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AddLayout {
    /// All leaves at one depth.
    #[default]
    Balanced,
    /// Early parts at small depth.
    Trickle,
}

/// How to add.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddParams {
    /// Options of the pin that is made at the end; never an update.
    pub options: PinOptions,
    /// All blocks to the own node only.
    pub local: bool,
    /// Without effect on the server.
    pub recursive: bool,
    /// Without effect on the server.
    pub hidden: bool,
    /// One directory around all parts.
    pub wrap: bool,
    /// Cut into shards.
    pub shard: bool,
    /// Lines as they come, not one array at the end.
    pub stream_channels: bool,
    /// What the body holds.
    pub format: AddFormat,
    /// Put the blocks, make no pin.
    pub no_pin: bool,
    /// How the DAG is laid out.
    pub layout: AddLayout,
    /// For example `size-262144`; not checked here.
    pub chunker: String,
    /// Leaves as raw blocks.
    pub raw_leaves: bool,
    /// Lines about progress.
    pub progress: bool,
    /// 0 or 1; not checked here.
    pub cid_version: i32,
    /// Name of the hash function; not checked here.
    pub hash: String,
    /// References to files instead of copies.
    pub no_copy: bool,
}

impl Default for AddParams {
    /// What a request without parameters means.
    fn default() -> AddParams {
        AddParams {
            options: PinOptions::default(),
            local: false,
            recursive: false,
            hidden: false,
            wrap: false,
            shard: false,
            stream_channels: true,
            format: AddFormat::Unixfs,
            no_pin: false,
            layout: AddLayout::Balanced,
            chunker: "size-262144".to_owned(),
            raw_leaves: false,
            progress: false,
            cid_version: 0,
            hash: "sha2-256".to_owned(),
            no_copy: false,
        }
    }
}

/// Reads the parameters; `expire-in` counts from `now`.
pub fn add_params(query: &Query, now: UnixMillis) -> Result<AddParams, QueryError> {
    let default = AddParams::default();
    let layout = match query.get("layout") {
        "" | "balanced" => AddLayout::Balanced,
        "trickle" => AddLayout::Trickle,
        _ => return Err(QueryError::Layout),
    };
    let format = match query.get("format") {
        "" | "unixfs" => AddFormat::Unixfs,
        "car" => AddFormat::Car,
        _ => return Err(QueryError::Format),
    };
    let text = |name, default: String| Some(query.get(name)).filter(|text| !text.is_empty()).map_or(default, str::to_owned);
    let flag = |name| query.bool(name).map(|flag| flag.unwrap_or(false));
    let cid_version = query.int("cid-version")?.unwrap_or(0);
    Ok(AddParams {
        options: PinOptions { update: None, ..pin_options(query, now)?.options },
        local: flag("local")?,
        recursive: flag("recursive")?,
        hidden: flag("hidden")?,
        wrap: flag("wrap-with-directory")?,
        shard: flag("shard")?,
        stream_channels: query.bool("stream-channels")?.unwrap_or(true),
        format,
        no_pin: flag("no-pin")?,
        layout,
        chunker: text("chunker", default.chunker),
        raw_leaves: query.bool("raw-leaves")?.unwrap_or(cid_version > 0),
        progress: flag("progress")?,
        cid_version,
        hash: text("hash", default.hash),
        no_copy: flag("nocopy")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<AddParams, String> {
        add_params(&Query::parse(query), UnixMillis(0)).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_said_is_the_default() {
        assert_eq!(read(""), Ok(AddParams::default()));
    }

    #[test]
    fn every_parameter_is_read() {
        let all = "local=true&recursive=1&hidden=t&wrap-with-directory=T&shard=TRUE&stream-channels=false&format=car&no-pin=True\
                   &layout=trickle&chunker=rabin&progress=true&cid-version=1&hash=blake3&nocopy=true&name=x\
                   &pin-update=QmUXe7pRRhqJ13oqpAUVve9vAfViZzpbPsnhrXojfEePwW";
        let expected = AddParams {
            options: PinOptions { name: "x".to_owned(), ..PinOptions::default() },
            local: true,
            recursive: true,
            hidden: true,
            wrap: true,
            shard: true,
            stream_channels: false,
            format: AddFormat::Car,
            no_pin: true,
            layout: AddLayout::Trickle,
            chunker: "rabin".to_owned(),
            raw_leaves: true,
            progress: true,
            cid_version: 1,
            hash: "blake3".to_owned(),
            no_copy: true,
        };
        assert_eq!(read(all), Ok(expected));
    }

    #[test]
    fn raw_leaves_follow_the_cid_version_unless_said() {
        for (query, raw) in [("", false), ("cid-version=1", true), ("cid-version=1&raw-leaves=false", false), ("raw-leaves=true", true)] {
            assert_eq!(read(query).map(|params| params.raw_leaves), Ok(raw), "{query}");
        }
    }

    #[test]
    fn refusals_speak_as_go_does() {
        for (query, error) in [
            ("layout=x", "layout parameter is invalid"),
            ("format=x", "format parameter is invalid"),
            ("local=yes", "parameter local invalid"),
            ("cid-version=x", "parameter cid-version invalid"),
        ] {
            assert_eq!(read(query), Err(error.to_owned()));
        }
    }
}
