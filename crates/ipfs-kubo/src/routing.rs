//! The daemon's routing (its DHT, its delegated routers) for records of names.

use crate::rpc::{Call, Endpoint, Rpc, RpcError};
use async_trait::async_trait;
use bytes::Bytes;
use ipfs::values::{RoutingError, ValueRouting};
use std::time::Duration;
use types::PeerId;

/// The daemon's own limit for one question is a minute.
const PATIENCE: Duration = Duration::from_secs(70);
/// The longest value taken.
const VALUE_BYTES_MAX: usize = 10 << 10;
/// Steps of a search that are read; a daemon tells of every peer it asks.
const LINES_MOST: usize = 10_000;
/// Keys of names begin so.
const NAMES: &[u8] = b"/ipns/";
/// Divides the parts of a body; a record, which begins with the tag of a protobuf field, is its only part.
const BOUNDARY: &str = "pinfold-record-7d1f0c52b9e84c6ca1f3";

/// Finds and stores records through a daemon.
#[derive(Debug)]
pub struct KuboRouting {
    rpc: Rpc,
}

impl KuboRouting {
    /// Through the daemon at an address.
    pub fn new(endpoint: Endpoint) -> KuboRouting {
        KuboRouting { rpc: Rpc::new(endpoint) }
    }
}

#[async_trait]
impl ValueRouting for KuboRouting {
    fn label(&self) -> String {
        "the routing of Kubo".to_owned()
    }

    async fn get_value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, RoutingError> {
        let call = Call::new("routing/get").with("arg", name_of(key)?);
        let search = async {
            let mut lines = match self.rpc.lines(call, PATIENCE).await {
                Ok(lines) => lines,
                Err(error) if is_not_found(&error) => return Ok(None),
                Err(error) => return Err(error),
            };
            let mut found = None;
            for _ in 0..LINES_MOST {
                match lines.next().await {
                    Ok(None) => break,
                    Ok(Some(line)) if line.is_empty() => {}
                    // The best comes last.
                    Ok(Some(line)) => found = wire::kubo::routing_value(&line)?.or(found),
                    Err(error) if is_not_found(&error) => break,
                    Err(error) => return Err(error),
                }
            }
            Ok(found.filter(|value: &Vec<u8>| value.len() <= VALUE_BYTES_MAX))
        };
        search.await.map_err(|error: RpcError| RoutingError(error.to_string()))
    }

    async fn put_value(&self, key: &[u8], value: &[u8]) -> Result<(), RoutingError> {
        // Kept by the daemon itself where it is alone; it tells others as soon as it can.
        let call = Call::new("routing/put").with("arg", name_of(key)?).with("allow-offline", true);
        let head = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"record\"\r\nContent-Type: application/octet-stream\r\n\r\n"
        );
        let body = [head.as_bytes(), value, format!("\r\n--{BOUNDARY}--\r\n").as_bytes()].concat();
        let call = call.body(format!("multipart/form-data; boundary={BOUNDARY}"), Bytes::from(body));
        self.rpc.call(call, PATIENCE).await.map(|_| ()).map_err(|error| RoutingError(error.to_string()))
    }
}

/// The key as the daemon's command takes it.
fn name_of(key: &[u8]) -> Result<String, RoutingError> {
    let name = key.strip_prefix(NAMES).and_then(|name| PeerId::from_bytes(name).ok());
    name.map(|name| format!("/ipns/{name}")).ok_or_else(|| RoutingError("Kubo finds records of names only".to_owned()))
}

fn is_not_found(error: &RpcError) -> bool {
    error.message().is_some_and(|message| message.contains("not found"))
}
