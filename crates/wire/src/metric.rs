//! Metrics: what peers publish about themselves on the metrics topic, and ask each other for.

use crate::gotime::GoTime;
use crate::msgpack::{Fields, MsgpackError, Reader, Writer};
use crate::rpc::{Message, read_peer};
use serde::{Deserialize, Serialize};
use types::PeerId;

/// The longest metric read from gossip: values are short, a `ping` names a node's addresses.
pub const METRIC_BYTES_MAX: usize = 64 << 10;

/// The metric that makes its sender a member.
pub const PING: &str = "ping";
/// Free bytes of the sender's node.
pub const FREE_SPACE: &str = "freespace";
/// Length of the sender's pin queue.
pub const PIN_QUEUE: &str = "pinqueue";
/// How many pins the sender's node holds. Go has it in its code and does not publish it.
pub const PINS_HELD: &str = "numpin";
/// What the names of tags begin with: `tag:group`, say.
pub const TAG: &str = "tag:";

/// Peers up to 0.13.3 write the name of the codec first.
const OLD_HEADER: &[u8] = b"\x09/msgpack\n";

/// A value that a peer says of itself, for a while.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metric {
    /// Which one.
    pub name: String,
    /// Of whom; not compared with the signer of the message here.
    pub peer: Option<PeerId>,
    /// The value as text.
    pub value: String,
    /// When it ends, in nanoseconds since 1970 by the sender's clock.
    pub expire: i64,
    /// Whether it says anything.
    pub valid: bool,
    /// What allocation sorts by, the highest first.
    pub weight: i64,
    /// Whether allocation spreads over its values.
    pub partitionable: bool,
    /// When it was received, in nanoseconds since 1970; never sent.
    pub received_at: i64,
}

impl Metric {
    fn put(&self, fields: &mut Fields) {
        fields.raw_if("n", self.name.as_bytes());
        fields.raw_if("p", self.peer.as_ref().map_or(&[], PeerId::as_bytes));
        fields.raw_if("v", self.value.as_bytes());
        fields.int_if("e", self.expire);
        fields.bool_if("d", self.valid);
        fields.int_if("w", self.weight);
        fields.bool_if("o", self.partitionable);
        fields.int_if("t", self.received_at);
    }

    fn read_field(&mut self, key: &str, reader: &mut Reader<'_>) -> Result<(), MsgpackError> {
        match key {
            "n" => self.name = reader.text()?.to_owned(),
            "p" => self.peer = read_peer(reader)?,
            "v" => self.value = reader.text()?.to_owned(),
            "e" => self.expire = reader.int()?,
            "d" => self.valid = reader.bool()?,
            "w" => self.weight = reader.int()?,
            "o" => self.partitionable = reader.bool()?,
            "t" => self.received_at = reader.int()?,
            _ => reader.skip()?,
        }
        Ok(())
    }
}

impl Message for Metric {
    fn write(&self, out: &mut Writer) {
        let mut fields = Fields::new();
        self.put(&mut fields);
        fields.finish(out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Metric, MsgpackError> {
        let mut metric = Metric::default();
        reader.fields(|key, reader| metric.read_field(key, reader))?;
        Ok(metric)
    }
}

/// Writes the payload of a gossip message.
pub fn encode_metric(metric: &Metric) -> Vec<u8> {
    crate::rpc::encode(metric)
}

/// Reads the payload of a gossip message.
pub fn decode_metric(bytes: &[u8]) -> Result<Metric, MsgpackError> {
    if bytes.len() > METRIC_BYTES_MAX {
        return Err(MsgpackError::TooMany(bytes.len()));
    }
    crate::rpc::decode(bytes.strip_prefix(OLD_HEADER).unwrap_or(bytes))
}

/// A metric that ended without a successor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alert {
    /// The metric.
    pub metric: Metric,
    /// When this was noticed.
    pub triggered_at: GoTime,
}

impl Message for Alert {
    fn write(&self, out: &mut Writer) {
        let mut fields = Fields::new();
        self.metric.put(&mut fields);
        fields.time_if("r", self.triggered_at);
        fields.finish(out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Alert, MsgpackError> {
        let mut alert = Alert::default();
        reader.fields(|key, reader| match key {
            "r" => reader.time().map(|time| alert.triggered_at = time),
            key => alert.metric.read_field(key, reader),
        })?;
        Ok(alert)
    }
}

/// The value of a `ping`: JSON, each part left out when empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PingValue {
    /// The peer's name for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub peer_name: String,
    /// The id of its IPFS node.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ipfs_id: String,
    /// Addresses of its IPFS node, text; only global-unicast and DNS ones are sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ipfs_addresses: Vec<String>,
}

impl PingValue {
    /// Writes it as Go does.
    pub fn to_json(&self) -> String {
        crate::rest::to_go_json(self)
    }

    /// Reads it; what is no JSON of this shape is an empty ping, as in Go.
    pub fn of_json(text: &str) -> PingValue {
        serde_json::from_str(text).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_of_old_peers_are_read() {
        let metric = Metric { name: PING.to_owned(), valid: true, expire: 5, ..Metric::default() };
        let payload = [OLD_HEADER, &encode_metric(&metric)].concat();
        assert_eq!(decode_metric(&payload), Ok(metric));
    }

    #[test]
    fn long_metrics_are_refused() {
        let metric = Metric { value: "x".repeat(METRIC_BYTES_MAX), ..Metric::default() };
        assert!(decode_metric(&encode_metric(&metric)).is_err());
    }

    #[test]
    fn pings_leave_out_what_is_empty() {
        let ping = PingValue { peer_name: "a<b".to_owned(), ..PingValue::default() };
        assert_eq!(ping.to_json(), r#"{"peer_name":"a\u003cb"}"#);
        assert_eq!(PingValue::of_json(&ping.to_json()), ping);
        assert_eq!(PingValue::of_json("nonsense"), PingValue::default());
    }
}
