//! What a delegated router answers: `/routing/v1` (specs.ipfs.tech/routing/http-routing-v1), as JSON or a line a record.
//!
//! Records of unknown schemas, and what is malformed in one, are left out: a router may know more than we do.

use crate::multiaddr;
use serde_json::Value;
use types::PeerId;

/// Records of one answer that are looked at; the specification lets a server tell 100.
pub const RECORDS_MOST: usize = 100;
/// Addresses of one record that are kept.
const ADDRESSES_MOST: usize = 32;
/// Protocols of one record that are looked at, and the length of a name.
const PROTOCOLS_MOST: usize = 32;
const PROTOCOL_BYTES_MAX: usize = 64;
/// What says that a provider answers for blocks over HTTP.
const GATEWAY: &str = "transport-ipfs-gateway-http";

/// A record of the schemas `peer` and `bitswap`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerRecord {
    /// Who.
    pub id: PeerId,
    /// Multiaddrs that are well-formed, without its own `/p2p/` at the end.
    pub addresses: Vec<String>,
    /// By which protocols it answers; empty where the record does not say.
    pub protocols: Vec<String>,
    /// Where it answers for blocks over HTTP, as `https://host:port`.
    pub gateways: Vec<String>,
}

impl PeerRecord {
    /// Whether it may answer over libp2p: it says so, or does not say that it answers otherwise.
    pub fn is_on_libp2p(&self) -> bool {
        self.protocols.is_empty() || self.protocols.iter().any(|protocol| protocol != GATEWAY && !protocol.ends_with("-http"))
    }
}

/// An answer that is no list of records.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer is no list of {0}")]
pub struct BadAnswer(&'static str);

/// One line of an answer.
pub fn record_of_line(line: &[u8]) -> Option<PeerRecord> {
    record(&serde_json::from_slice(line).ok()?)
}

/// The records below `Providers`.
pub fn providers(body: &[u8]) -> Result<Vec<PeerRecord>, BadAnswer> {
    list(body, "Providers")
}

/// The records below `Peers`.
pub fn peers(body: &[u8]) -> Result<Vec<PeerRecord>, BadAnswer> {
    list(body, "Peers")
}

fn list(body: &[u8], name: &'static str) -> Result<Vec<PeerRecord>, BadAnswer> {
    let answer: Value = serde_json::from_slice(body).map_err(|_| BadAnswer(name))?;
    match &answer[name] {
        Value::Array(rows) => Ok(rows.iter().take(RECORDS_MOST).filter_map(record).collect()),
        // Go writes an empty list so.
        Value::Null if answer.is_object() => Ok(Vec::new()),
        _ => Err(BadAnswer(name)),
    }
}

fn record(row: &Value) -> Option<PeerRecord> {
    if !matches!(row["Schema"].as_str()?, "peer" | "bitswap") {
        return None;
    }
    let id: PeerId = row["ID"].as_str()?.parse().ok()?;
    let texts = |value: &Value, most: usize| -> Vec<String> {
        let texts = value.as_array().map_or(&[][..], Vec::as_slice).iter().take(most);
        texts.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    // The older schema has one protocol and a key of another name.
    let mut protocols = texts(&row["Protocols"], PROTOCOLS_MOST);
    protocols.extend(row["Protocol"].as_str().map(str::to_owned));
    protocols.retain(|protocol| protocol.len() <= PROTOCOL_BYTES_MAX);
    let told = texts(&row["Addrs"], ADDRESSES_MOST);
    let is_gateway = protocols.iter().any(|protocol| protocol == GATEWAY);
    let gateways = if is_gateway { told.iter().filter_map(|address| http_url(address)).collect() } else { Vec::new() };
    let own = format!("/p2p/{id}");
    let bare = |address: String| address.strip_suffix(own.as_str()).map_or(address.clone(), str::to_owned);
    let addresses = told.into_iter().map(bare).filter(|address| multiaddr::from_text(address).is_ok());
    let is_http = |address: &str| address.split('/').any(|part| matches!(part, "http" | "https"));
    let addresses = addresses.filter(|address| !is_http(address)).collect();
    Some(PeerRecord { id, addresses, protocols, gateways })
}

/// `/dns/example.org/tcp/443/https` and its like as a URL.
fn http_url(address: &str) -> Option<String> {
    let mut parts = address.strip_prefix('/')?.split('/');
    let (kind, host) = (parts.next()?, parts.next()?);
    let host = match kind {
        "ip4" => host.parse::<std::net::Ipv4Addr>().ok()?.to_string(),
        "ip6" => format!("[{}]", host.parse::<std::net::Ipv6Addr>().ok()?),
        "dns" | "dns4" | "dns6" if is_host_name(host) => host.to_owned(),
        _ => return None,
    };
    let ("tcp", port) = (parts.next()?, parts.next()?.parse::<u16>().ok()?) else { return None };
    let rest: Vec<&str> = parts.collect();
    let scheme = match rest[..] {
        ["https"] | ["tls", "http"] => "https",
        ["tls", "sni", name, "http"] if name == host => "https",
        ["http"] => "http",
        _ => return None,
    };
    Some(format!("{scheme}://{host}:{port}"))
}

fn is_host_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= 253 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "12D3KooWKnDdG3iXw9eTFijk3EWSunZcFi54Zka4wmtqtt6rPxc8";

    fn check(line: &str, addresses: &[&str], gateways: &[&str], is_on_libp2p: bool) {
        let record = record_of_line(line.replace("ID!", ID).as_bytes()).expect(line);
        assert_eq!(record.id.to_string(), ID);
        assert_eq!((&record.addresses[..], &record.gateways[..]), (&own(addresses)[..], &own(gateways)[..]), "{line}");
        assert_eq!(record.is_on_libp2p(), is_on_libp2p, "{line}");
    }

    fn own(texts: &[&str]) -> Vec<String> {
        texts.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn records_are_read_and_what_is_odd_in_them_left_out() {
        check(
            r#"{"Schema":"peer","ID":"ID!","Addrs":["/ip4/1.2.3.4/tcp/1"],"Protocols":["transport-bitswap"]}"#,
            &["/ip4/1.2.3.4/tcp/1"],
            &[],
            true,
        );
        check(r#"{"Schema":"peer","ID":"ID!","Addrs":null,"Protocols":null}"#, &[], &[], true);
        check(r#"{"Schema":"peer","ID":"ID!"}"#, &[], &[], true);
        check(
            r#"{"Schema":"bitswap","Protocol":"transport-bitswap","ID":"ID!","Addrs":["/ip4/1.2.3.4/tcp/1/p2p/ID!"]}"#,
            &["/ip4/1.2.3.4/tcp/1"],
            &[],
            true,
        );
        check(
            r#"{"Schema":"peer","ID":"ID!","Addrs":["x",7,"/ip4/1.2.3.4/tcp/1","/a/b"],"New":{"a":[]}}"#,
            &["/ip4/1.2.3.4/tcp/1"],
            &[],
            true,
        );
        check(
            r#"{"Schema":"peer","ID":"ID!","Protocols":["transport-ipfs-gateway-http"],"Addrs":["/dns/a.org/tcp/443/https","/dns4/a.org/tcp/443/tls/http","/ip4/1.2.3.4/tcp/8080/http","/dns/b@c/tcp/1/https"]}"#,
            &[],
            &["https://a.org:443", "https://a.org:443", "http://1.2.3.4:8080"],
            false,
        );
        check(
            r#"{"Schema":"peer","ID":"ID!","Protocols":["transport-bitswap","transport-ipfs-gateway-http"],"Addrs":["/ip6/::1/tcp/443/tls/http","/ip4/1.2.3.4/tcp/1"]}"#,
            &["/ip4/1.2.3.4/tcp/1"],
            &["https://[::1]:443"],
            true,
        );
        // Who does not say that it is a gateway is none.
        check(r#"{"Schema":"peer","ID":"ID!","Addrs":["/ip4/1.2.3.4/tcp/8080/http"]}"#, &[], &[], true);
        for line in [
            "",
            "{}",
            "[]",
            "7",
            r#"{"Schema":"peer"}"#,
            r#"{"Schema":"peer","ID":"x"}"#,
            r#"{"Schema":"graphsync-filecoinv1","ID":"ID!"}"#,
        ] {
            assert_eq!(record_of_line(line.replace("ID!", ID).as_bytes()), None, "{line}");
        }
        let many: Vec<String> = (0..1000).map(|port| format!("\"/ip4/1.2.3.4/tcp/{port}\"")).collect();
        let record =
            record_of_line(format!(r#"{{"Schema":"peer","ID":"{ID}","Addrs":[{}]}}"#, many.join(",")).as_bytes()).expect("a record");
        assert_eq!(record.addresses.len(), ADDRESSES_MOST);
    }

    #[test]
    fn lists_are_read_and_bounded() {
        let row = format!(r#"{{"Schema":"peer","ID":"{ID}"}}"#);
        assert_eq!(providers(format!(r#"{{"Providers":[{row},{{"Schema":"new"}},{row}]}}"#).as_bytes()).map(|rows| rows.len()), Ok(2));
        assert_eq!(peers(format!(r#"{{"Peers":[{row}]}}"#).as_bytes()).map(|rows| rows.len()), Ok(1));
        assert_eq!(providers(br#"{"Providers":null}"#), Ok(Vec::new()));
        let many = vec![row; 1000].join(",");
        assert_eq!(providers(format!(r#"{{"Providers":[{many}]}}"#).as_bytes()).map(|rows| rows.len()), Ok(RECORDS_MOST));
        for body in ["", "<html>", "[]", r#"{"Providers":7}"#] {
            assert!(providers(body.as_bytes()).is_err(), "{body}");
        }
    }
}
