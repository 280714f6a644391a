//! State export: one pin in its REST form per line, as `ipfs-cluster-service state export` writes it.

use crate::rest::{self, BadRestPin, to_go_json};
use types::Pin;

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
    let pin: rest::Pin = serde_json::from_str(line)?;
    Ok(Pin::try_from(&pin)?)
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

    #[test]
    fn a_line_of_a_cid_alone_is_an_ordinary_pin() {
        let pin = parse_line(r#"{"cid":"QmUXe7pRRhqJ13oqpAUVve9vAfViZzpbPsnhrXojfEePwW"}"#).expect("a pin");
        assert_eq!((pin.kind, pin.depth), (types::PinKind::Data, types::Depth::Recursive));
    }
}
