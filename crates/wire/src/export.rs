//! State export: one pin in its REST form per line, as `ipfs-cluster-service state export` writes it.

use crate::cids::cid_from_text;
use crate::gotime::GoTime;
use crate::pin::depth_of_number;
use crate::rest::{self, BadRestPin, to_go_json};
use serde::Deserialize;
use types::{Pin, PinOptions, Replicas, UnixMillis};

/// The longest line read.
pub const LINE_BYTES_MAX: usize = 2 << 20;

/// Why a line is no pin.
#[derive(Debug, thiserror::Error)]
pub enum ExportDecodeError {
    /// Longer than [`LINE_BYTES_MAX`].
    #[error("exported pin: {0} bytes are too long")]
    TooLong(usize),
    /// Not JSON of the expected shape.
    #[error("exported pin: {0}")]
    Json(#[from] serde_json::Error),
    /// A field does not read.
    #[error("exported pin: {0}")]
    Pin(#[from] BadRestPin),
}

/// Writes a line, without the newline.
pub fn export_line(pin: &Pin) -> String {
    to_go_json(&rest::Pin::from(pin))
}

/// Reads a line.
pub fn parse_line(line: &str) -> Result<Pin, ExportDecodeError> {
    if line.len() > LINE_BYTES_MAX {
        return Err(ExportDecodeError::TooLong(line.len()));
    }
    if let Ok(plain) = serde_json::from_str::<Plain>(line)
        && let Some(pin) = plain.pin()
    {
        return Ok(pin);
    }
    // Everything else the whole way, which also says what is wrong.
    let pin: rest::Pin = serde_json::from_str(line)?;
    Ok(Pin::try_from(&pin)?)
}

/// The line that nearly all are, read without a copy of its texts: no metadata, origins, update, reference or preferred peers, and
/// nothing escaped. Fields that are missing have the meaning that [`rest::Pin`] gives them.
#[derive(Deserialize)]
struct Plain<'a> {
    replication_factor_min: i32,
    replication_factor_max: i32,
    name: &'a str,
    shard_size: u64,
    expire_at: &'a str,
    cid: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    allocations: Vec<&'a str>,
    max_depth: i32,
    timestamp: &'a str,
    #[serde(default)]
    user_allocations: (),
    #[serde(default)]
    metadata: (),
    #[serde(default)]
    pin_update: (),
    #[serde(default)]
    origins: [(); 0],
    #[serde(default)]
    reference: (),
}

impl Plain<'_> {
    fn pin(&self) -> Option<Pin> {
        let Plain { user_allocations: (), metadata: (), pin_update: (), origins: [], reference: (), .. } = self;
        let expires = if self.expire_at == "0001-01-01T00:00:00Z" { None } else { GoTime::parse(self.expire_at).ok()?.to_millis_if() };
        let options = PinOptions {
            replicas: Replicas::from_factors(self.replication_factor_min, self.replication_factor_max).ok()?,
            name: self.name.to_owned(),
            shard_size: self.shard_size,
            expires: expires.filter(|end| *end != UnixMillis(0)),
            ..PinOptions::default()
        };
        Some(Pin {
            cid: cid_from_text(self.cid).ok()?,
            kind: rest::kind_of_text(self.kind),
            options,
            placement: self.allocations.iter().map(|peer| peer.parse().ok()).collect::<Option<_>>()?,
            depth: depth_of_number(self.max_depth),
            reference: None,
            created: GoTime::parse(self.timestamp).ok()?.to_millis(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_no_pin_say_why() {
        assert!(matches!(parse_line(""), Err(ExportDecodeError::Json(_))));
        assert!(matches!(parse_line("{}"), Err(ExportDecodeError::Pin(BadRestPin::NoCid))));
        assert!(matches!(parse_line(r#"{"cid":"xx"}"#), Err(ExportDecodeError::Pin(BadRestPin::Cid { field: "cid", .. }))));
        let bad_peer = r#"{"cid":"QmUXe7pRRhqJ13oqpAUVve9vAfViZzpbPsnhrXojfEePwW","allocations":["0"]}"#;
        assert!(matches!(parse_line(bad_peer), Err(ExportDecodeError::Pin(BadRestPin::Peer { field: "allocations", .. }))));
        assert!(matches!(parse_line(&" ".repeat(LINE_BYTES_MAX + 1)), Err(ExportDecodeError::TooLong(_))));
    }

    /// The quick way and the whole way must agree; lines that only one of them takes are no difference to callers.
    #[test]
    fn plain_lines_are_read_as_all_others() {
        let line = r#"{"replication_factor_min":-1,"replication_factor_max":-1,"name":"n","mode":"recursive","shard_size":0,"user_allocations":null,"expire_at":"0001-01-01T00:00:00Z","metadata":null,"pin_update":null,"origins":[],"cid":"bafkreiflkkb6fotir5lny4ep4jgzn7emkbaurq4bnlnnbg7hpdfs622j4y","type":"pin","allocations":[],"max_depth":-1,"reference":null,"timestamp":"2026-11-23T16:39:26Z"}"#;
        let slow = |line: &str| Pin::try_from(&serde_json::from_str::<rest::Pin>(line).expect("JSON")).expect("a pin");
        let is_quick = |line: &str| serde_json::from_str::<Plain>(line).is_ok_and(|plain| plain.pin().is_some());
        let peer = types::PeerId::from_ed25519(&[1; 32]);
        for (from, to, quick) in [
            ("", "", true),
            (r#""allocations":[]"#, &format!(r#""allocations":["{peer}"]"#), true),
            (r#""expire_at":"0001-01-01T00:00:00Z""#, r#""expire_at":"2030-01-02T03:04:05Z""#, true),
            (r#""type":"pin""#, r#""type":"shard-pin""#, true),
            (r#""max_depth":-1"#, r#""max_depth":0"#, true),
            (r#","origins":[]"#, "", true),
            (r#""name":"n""#, r#""name":"\u00e9""#, false),
            (r#""origins":[]"#, r#""origins":null"#, false),
            (r#""metadata":null"#, r#""metadata":{"a":"b"}"#, false),
            (r#""pin_update":null"#, r#""pin_update":"QmUXe7pRRhqJ13oqpAUVve9vAfViZzpbPsnhrXojfEePwW""#, false),
            (r#""reference":null"#, r#""reference":"QmUXe7pRRhqJ13oqpAUVve9vAfViZzpbPsnhrXojfEePwW""#, false),
            (r#""user_allocations":null"#, r#""user_allocations":[]"#, false),
            (r#""max_depth":-1"#, r#""max_depth":-1,"later":{"versions":["add"]}"#, true),
        ] {
            let line = line.replacen(from, to, 1);
            assert_eq!(parse_line(&line).expect("a pin"), slow(&line), "{line}");
            assert_eq!(is_quick(&line), quick, "{line}");
        }
    }

    #[test]
    fn a_line_of_a_cid_alone_is_an_ordinary_pin() {
        let pin = parse_line(r#"{"cid":"QmUXe7pRRhqJ13oqpAUVve9vAfViZzpbPsnhrXojfEePwW"}"#).expect("a pin");
        assert_eq!((pin.kind, pin.depth), (types::PinKind::Data, types::Depth::Recursive));
    }
}
