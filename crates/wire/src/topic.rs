//! Names of the gossip topics.

use md5::{Digest, Md5};

/// Topic of the metrics, the same for every cluster.
pub const METRICS_TOPIC: &str = "monitor.metrics";

/// Topic of the CRDT heads of a cluster: base58 of the MD5 multihash of its name.
pub fn crdt_topic(cluster_name: &str) -> String {
    let mut multihash = vec![0xd5, 0x01, 0x10];
    multihash.extend_from_slice(&Md5::digest(cluster_name.as_bytes()));
    bs58::encode(multihash).into_string()
}
